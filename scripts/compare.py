"""Makes a table of several models' results on the same test configs, and zoomed sheets: low resolution, models, truth.

    python test.py --config ... --model bicubic --save-dir out/bicubic --json out/bicubic.json
    python test.py --config ... --model MODEL --save-dir out/ours --json out/ours.json
    python scripts/compare.py out TRUTH_FOLDER bicubic ours           writes out/compare/

The number below a picture is its PSNR in dB, as measured by test.py.
"""

import argparse
import json
import math
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from cli import run_cli
from errors import UserError


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('out', type=Path, help="the folder with test.py's output")
    parser.add_argument('truth', type=Path, help='the folder of the images that were downsampled')
    parser.add_argument('names', nargs='+', help='names of the models, as in --save-dir and --json of test.py')
    return parser.parse_args()


if __name__ == '__main__':
    run_cli(parse_args)

from PIL import Image

from datasets.image_file import read_image
from datasets.image_folder import list_images
from demos.compare import detailed_part, panel_size
from files import file_name
from pictures.sheets import zoomed_sheet
from utils import number_text

PANEL = 360  # longest side of a panel, in pixels


def read_results(out, names):
    """The results that test.py has written to out/NAME.json: {name: [result of a config, ...]}."""
    for name in names:
        if not (out / f'{name}.json').exists():
            raise UserError(f'{out / f"{name}.json"} is missing: test.py writes it with --json')
    found = {name: json.loads((out / f'{name}.json').read_text(encoding='utf-8')) for name in names}
    for name, value in found.items():
        for row in value['results']:
            wrapper = row['keys']['test_dataset']['wrapper']
            reduction = (wrapper.get('args') or {}).get('reduction', 'pillow')
            if (wrapper['name'], reduction) != ('sr-implicit-downsampled', 'pillow'):
                raise UserError(f"{out / f'{name}.json'}: {row['config']}: the sheets show photos that Pillow "
                                f'has reduced by its bicubic filter, but here the wrapper is {wrapper}')
    results = {name: value['results'] for name, value in found.items()}
    first, *others = ([(row['config'], [image['image'] for image in row['images']]) for row in rows]
                      for rows in results.values())
    for name, other in zip(names[1:], others, strict=True):
        if other != first:
            raise UserError(f'{out / f"{name}.json"} has other configs or images than {out / f"{names[0]}.json"}')
    return results


def number(value, digits):
    """A number from the JSON, in which null stands for values that are not finite."""
    return number_text(math.nan if value is None else value, digits)


def print_table(results):
    """Mean PSNR and SSIM for each config and model."""
    print(' ' * 20, *(f'{name:>16s}' for name in results), '  (PSNR in dB, SSIM)')
    for rows in zip(*results.values(), strict=True):
        print(f'{Path(rows[0]["config"]).stem:20s}',
              *(f'{number(row["psnr"], 2):>9s} {number(row["ssim"], 4):>6s}' for row in rows))


def find_truths(truth):
    """The images of any format in the folder `truth`, by their stems."""
    return {path.stem: path for path in (list_images(truth) if truth.is_dir() else ())}


def find_picture(path):
    """The picture that test.py has saved as `path`."""
    if not path.exists():
        raise UserError(f'{path} is missing: test.py writes it with --save-dir')
    return Image.fromarray(read_image(path))


def make_sheet(truth, scale, models):
    """A sheet of `truth`, reduced by `scale`, restored by `models` ({caption: picture}, of one size), and as it is."""
    size = next(iter(models.values())).size
    truth = truth.crop((0, 0, *size))
    low = truth.resize([round(n / scale) for n in size], Image.BICUBIC)
    view = panel_size(size, PANEL)
    pictures = [(f'reduced by x{scale:g}', low, Image.NEAREST),
                *((caption, picture, Image.LANCZOS) for caption, picture in models.items()),
                ('truth', truth, Image.LANCZOS)]
    return zoomed_sheet(pictures, size, detailed_part(truth, size, view), view)


def compare(out, truth, names):
    """Prints the table and writes the sheets to out/compare; `truth` is the folder of the true images."""
    results = read_results(out, names)
    print_table(results)
    (out / 'compare').mkdir(exist_ok=True)
    truths = find_truths(truth)
    for rows in zip(*results.values(), strict=True):
        config, scale = rows[0]['name'], rows[0]['scale']
        if scale is None:
            raise UserError(f'{rows[0]["config"]}: has no scale (neither eval_type nor scale_min), so there is no low '
                            'resolution to show')
        for images in zip(*(row['images'] for row in rows), strict=True):
            stem = Path(images[0]['image']).stem
            saved = Path(config) / file_name(stem, '.png')
            models = {f'{name} {number(image["psnr"], 2)} dB': find_picture(out / name / saved)
                      for name, image in zip(names, images, strict=True)}
            if stem not in truths:
                raise UserError(f'{truth} has no image {stem}')
            picture = Image.fromarray(read_image(truths[stem]))
            sheet_name = file_name(f'{config.replace("/", "-")}-{stem}', '.png')
            make_sheet(picture, scale, models).save(out / 'compare' / sheet_name)
    print(f'pictures: {out / "compare"}')


def main():
    args = parse_args()
    compare(args.out, args.truth, args.names)


if __name__ == '__main__':
    run_cli(main)
