"""Upscales pictures by any factor, or to any size.

    python demo.py --input photo.jpg --scale 3.7 --output big.png
    python demo.py --input photos/ --resolution 2160,3840 --output big/ --gpu 0
    python demo.py --input photo.jpg --scale 4 --output big.png --compare --weights-map

Reads JPEG, PNG, WebP, TIFF, AVIF, GIF, BMP and more, HEIF where pillow-heif is installed; writes PNG, JPEG, WebP, AVIF,
BMP and TIFF. `--compare` adds big-compare.png, bicubic interpolation and the model side by side; `--weights-map` adds
big-weights.png, which of A-LIIF's implicit functions rules where. Of a folder, what is done already is skipped.
"""

import argparse
import colorsys
import contextlib
import itertools
import math
import os
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageChops, ImageFilter
from tqdm import tqdm

from datasets.image_file import image_size
from datasets.image_folder import list_images
from files import file_name
from models.decoder import Decoder
from models.parallel import mixed_precision, pick_device, set_precision
from models.pretrained import DEFAULT, load_pretrained, mixing_weights, target_size, upscale_pil
from models.registry import add_import_option
from pictures.io import check_fits, check_room, read, save, writing_errors, written_suffixes
from pictures.modes import as_mode, model_colours, note, to_tensor
from pictures.sheets import sheet, shown, zoomed_sheet
from utils import UserError, located, run_cli

# --- files -----------------------------------------------------------------------------------------------------------


class Job(NamedTuple):
    """A picture to read, and the files to write: the result, its comparison and its map of weights, or None."""

    source: Path
    target: Path
    comparison: Path | None = None
    weights: Path | None = None

    def written(self) -> list[Path]:
        return [path for path in self[1:] if path]


def find_jobs(source: Path, output: str, compare: bool, weights_map: bool) -> list[Job]:
    """What there is to do for --input and --output, each a file or a folder, and --compare and --weights-map."""
    target, taken = Path(output), set()
    if not source.exists():
        raise UserError(f'{source}: no such file or folder')
    if source.is_dir() and target.is_file():
        raise UserError(f'{target}: is a file; --input is a folder, so --output must be one too')
    into_folder = source.is_dir() or target.is_dir() or not target.suffix or output.endswith(('/', os.sep))

    def free(stem, ending):
        names = (file_name(stem, f'-{i}{ending}' if i > 1 else ending) for i in itertools.count(1))
        name = next(name for name in names if name not in taken)
        taken.add(name)
        return name

    sources = list_images(source) if source.is_dir() else [source]
    kept = {path: path.name for path in sources if path.suffix.lower() in written_suffixes()}
    taken.update(kept.values())
    jobs = []
    for path in sources:
        name = (kept.get(path) or free(path.name, '.png')) if into_folder else target.name
        folder = target if into_folder else target.parent
        stem = name if source.is_dir() else Path(name).stem  # a folder may have an a.jpg and an a.png
        extras = [folder / free(stem, f'-{kind}.png') if wanted else None
                  for kind, wanted in (('compare', compare), ('weights', weights_map))]
        jobs.append(Job(path, folder / name, *extras))
    return jobs


def check_apart(jobs: list[Job]) -> None:
    """Raises a UserError if what is to be written is one of the pictures to read."""
    def identity(path):
        return path.stat().st_dev, path.stat().st_ino

    sources = {identity(job.source): job.source for job in jobs}
    for path in (path for job in jobs for path in job.written() if path.exists()):
        if identity(path) in sources:
            raise UserError(f'{path}: is the picture {sources[identity(path)]} itself, which is not replaced; '
                            'give another --output')


# --- pictures --------------------------------------------------------------------------------------------------------

PANEL = 640  # longest side of a panel
ZOOM = 3  # how much larger than in the output a pixel is in the zoomed crop


def panel_size(size: tuple) -> tuple:
    """(W, H) of a picture of `size` when its longest side is PANEL."""
    return tuple(max(1, round(n * PANEL / max(size))) for n in size)


def most_detailed(image: Image.Image, grid: tuple) -> tuple:
    """(column, row) of the cell with most fine detail, where `grid` (columns, rows) of them divide `image`."""
    grey = as_mode(image, 'L')
    detail = ImageChops.difference(grey, grey.filter(ImageFilter.BoxBlur(1)))
    if 'A' in image.getbands():
        detail = ImageChops.multiply(detail, image.getchannel('A'))  # what is seen of it
    detail = detail.resize(grid, Image.BOX)
    row, column = divmod(int(np.asarray(detail).argmax()), grid[0])
    return column, row


def detailed_part(image: Image.Image, size: tuple, view: tuple) -> tuple:
    """The box (left, top, right, bottom) with most detail of `image` in a picture of the same scene and `size` (W, H).

    It has as many pixels as fit a panel of `view` (W, H), ZOOM times enlarged.
    """
    part = tuple(min(n, math.ceil(v / ZOOM)) for n, v in zip(size, view, strict=True))
    cells = tuple(n // p for n, p in zip(size, part, strict=True))
    left, top = ((n - p) * i // max(1, count - 1)
                 for n, p, i, count in zip(size, part, most_detailed(image, cells), cells, strict=True))
    return left, top, left + part[0], top + part[1]


def compare(image: Image.Image, big: Image.Image, name: str) -> Image.Image:
    """A sheet of bicubic interpolation of `image` and of `big`, by the model of that `name`; below, a crop, zoomed."""
    view = panel_size(big.size)
    pictures = [('bicubic', image, Image.BICUBIC), (name, big, Image.LANCZOS)]
    result = zoomed_sheet(pictures, big.size, detailed_part(image, big.size, view), view)
    result.info['icc_profile'] = big.info.get('icc_profile')  # what its colours mean
    return result


def weights_map(model: Decoder, image: Image.Image, size: tuple, view: tuple | None = None) -> Image.Image:
    """A sheet of the input, of the function that rules (has the largest weight, of either sign), and of all weights.

    Weights are blue below their mean over the image, red above. `size` (H, W) is the output's, `view` (W, H)
    its panels'.
    """
    view = view or panel_size(size[::-1])
    weights = mixing_weights(model, to_tensor(model_colours(image)), size, view[::-1]).numpy()
    colours = [colorsys.hsv_to_rgb(k / len(weights), 0.9, 0.75) for k in range(len(weights))]
    colours = (np.array(colours) * 255).round().astype(np.uint8)
    ruler = np.abs(weights).argmax(axis=0)
    panels = [('input', 'black', shown(image, view)),
              ('the function that rules', 'black', Image.fromarray(colours[ruler]))]
    for k, weight in enumerate(weights):
        mean, deviation = weight.mean(), weight.std()
        caption = f'{k}: rules {(ruler == k).mean():.0%}, {mean:.2f} ± {deviation:.2f}'
        panels.append((caption, tuple(colours[k].tolist()), heat_map((weight - mean) / max(3 * deviation, 1e-3))))
    return sheet(panels, 4)


def heat_map(values: np.ndarray) -> Image.Image:
    """`values` (H, W) as a picture from blue (-1) over white (0) to red (1)."""
    ends = (33, 247, 178), (102, 247, 24), (172, 247, 43)
    return Image.fromarray(np.stack([np.interp(values, (-1, 0, 1), e) for e in ends], -1).round().astype(np.uint8))


# --- command line ----------------------------------------------------------------------------------------------------


def scale_from(text: str) -> float:
    with contextlib.suppress(ValueError):
        return float(text)
    raise UserError(f'--scale must be a number, not {text!r}')


def size_from(text: str) -> tuple[int, int]:
    with contextlib.suppress(ValueError):
        height, width = map(int, text.split(','))
        return height, width
    raise UserError(f'--resolution must be HEIGHT,WIDTH in pixels, not {text!r}')


def find_done(job: Job, args: argparse.Namespace) -> list[Path]:
    """Those of the files to write that are there and stay: of a folder's pictures, with the size that is asked for."""
    there = [path for path in job.written() if path.exists() and not args.overwrite]
    if not there:
        return []
    if not args.input.is_dir() or job.target not in there:
        raise UserError(f'{there[0]}: exists already; --overwrite replaces it')
    size = image_size(job.target)
    expected = args.resolution or target_size(image_size(job.source), args.scale)
    if sorted(size) != sorted(expected):  # they may be exchanged in the source's file, by its EXIF orientation
        raise UserError(f'{job.target}: exists already, with {size[0]}x{size[1]} pixels; --overwrite replaces it')
    return there


def process(job: Job, model: Decoder, args: argparse.Namespace) -> bool:
    """Does `job`, unless it is done, and says so; what can be checked is checked before. Whether there was work."""
    done = find_done(job, args)
    if len(done) == len(job.written()):
        return False
    pixels = math.prod(args.resolution or target_size(image_size(job.source), args.scale))
    check_room(job.target, pixels, 'L')  # before it is decoded
    image = read(job.source)
    with located(job.source):
        size = target_size((image.height, image.width), args.scale, args.resolution)
    with writing_errors(job.target.parent):
        job.target.parent.mkdir(parents=True, exist_ok=True)
    check_fits(job.target, size, image.mode)

    big = upscale_pil(model, image, size=size, verbose=True, self_ensemble=args.self_ensemble)
    if job.target not in done:
        save(big, job.target)
    if job.comparison and job.comparison not in done:
        save(compare(image, big, Path(args.model).stem), job.comparison)
    if job.weights and job.weights not in done:
        save(weights_map(model, image, size), job.weights)
    tqdm.write(f'{job.target}: {size[0]}x{size[1]}')
    return True


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--input', type=Path, required=True, help='a picture, or a folder of them')
    parser.add_argument('--output', required=True, help='the file to write, or a folder (one to be made ends in /)')
    target = parser.add_mutually_exclusive_group(required=True)
    target.add_argument('--scale', type=scale_from, help='at least 1, such as 3.7')
    target.add_argument('--resolution', type=size_from, metavar='HEIGHT,WIDTH', help='any aspect ratio')
    parser.add_argument('--model', default=DEFAULT,
                        help='a name in pretrained/, or a checkpoint (default: %(default)s)')
    parser.add_argument('--gpu', default='0', help="index of the GPU, or 'cpu'")
    parser.add_argument('--amp', choices=['bf16'], help='mixed precision (default: float32)')
    parser.add_argument('--self-ensemble', action='store_true',
                        help='the mean over 8 flips and transposes: a little better, eight times the work')
    parser.add_argument('--compare', action='store_true', help='adds OUTPUT-compare.png')
    parser.add_argument('--weights-map', action='store_true',
                        help='adds OUTPUT-weights.png (blue: below its mean, red: above)')
    parser.add_argument('--overwrite', action='store_true',
                        help='replaces files that exist (of a folder they are skipped without it)')
    add_import_option(parser)
    args = parser.parse_args()

    target_size((1, 1), args.scale, args.resolution)  # what is wrong for every picture is told once
    jobs = find_jobs(args.input, args.output, args.compare, args.weights_map)
    check_apart(jobs)
    device = pick_device(args.gpu)
    set_precision(tf32=False)
    model = load_pretrained(args.model).to(device)
    if args.weights_map and getattr(model, 'expansion', None) is None:
        raise UserError(f'--weights-map: {args.model} mixes no functions; it must be an A-LIIF with an expansion net')
    precision = mixed_precision(device, args.amp)

    failures, skipped = [], 0
    for job in tqdm(jobs, unit='image', disable=None if len(jobs) > 1 else True):
        try:
            with precision:
                skipped += not process(job, model, args)
        except UserError as error:
            if not args.input.is_dir():
                raise
            failures.append(error)
    if skipped:
        note(f'{skipped} of {len(jobs)} pictures are there already and were skipped (--overwrite makes them again)')
    if failures:
        print(*(f'error: {error}' for error in failures), sep='\n', file=sys.stderr)
        raise UserError(f'{len(failures)} of {len(jobs)} pictures failed, as listed above')


if __name__ == '__main__':
    run_cli(main)
