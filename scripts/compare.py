"""A table of bicubic's and a model's results, and pictures side by side: bicubic | ours | truth.

    python test.py --config ... --model bicubic --save-dir out/bicubic --json out/bicubic.json
    python test.py --config ... --model MODEL --save-dir out/ours --json out/ours.json
    python scripts/compare.py out TRUTH_FOLDER              writes out/compare/
"""

import argparse
import json
import sys
from pathlib import Path

from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from datasets.image_file import read_image  # noqa: E402
from pictures.sheets import sheet  # noqa: E402
from utils import UserError, run_cli  # noqa: E402


def print_table(out):
    """Mean PSNR and SSIM for each config in out/bicubic.json and out/ours.json."""
    paths = [out / f'{name}.json' for name in ('bicubic', 'ours')]
    for path in paths:
        if not path.exists():
            raise UserError(f'{path} is missing: test.py writes it by --json')
    results = [json.loads(path.read_text(encoding='utf-8'))['results'] for path in paths]
    print(f'{"":20s} {"bicubic":>16s} {"ours":>16s}   (PSNR in dB, SSIM)')
    for bicubic, ours in zip(*results, strict=True):
        print(f'{Path(ours["config"]).stem:20s}', *(f'{r["psnr"]:9.2f} {r["ssim"]:6.4f}' for r in (bicubic, ours)))


def side_by_side(paths):
    """The images at `paths`, {caption: path}, in one row, all with the size of the first."""
    images = [Image.fromarray(read_image(path)) for path in paths.values()]
    box = 0, 0, *images[0].size
    panels = [(caption, 'black', image.crop(box)) for caption, image in zip(paths, images, strict=True)]
    return sheet(panels, len(panels))


def find_truth(truth, stem):
    """The image in the folder `truth` that is called `stem`, whatever its format."""
    for path in truth.iterdir() if truth.is_dir() else ():
        if path.stem == stem:
            return path
    raise UserError(f'{truth} has no image {stem}')


def compare(out, truth):
    """Prints the table and writes the pictures to out/compare; `truth` is the folder of the true images."""
    print_table(out)
    (out / 'compare').mkdir(exist_ok=True)
    for ours in sorted((out / 'ours').rglob('*.png')):
        bicubic = out / 'bicubic' / ours.relative_to(out / 'ours')
        paths = {'bicubic': bicubic, 'ours': ours, 'truth': find_truth(truth, ours.stem)}
        side_by_side(paths).save(out / 'compare' / f'{ours.parent.name}-{ours.name}')
    print(f'pictures: {out / "compare"}')


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('out', type=Path, help='the folder of both')
    parser.add_argument('truth', type=Path, help='the folder of the images that were reduced')
    args = parser.parse_args()
    compare(args.out, args.truth)


if __name__ == '__main__':
    run_cli(main)
