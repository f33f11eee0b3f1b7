"""Upscales pictures by any factor, or to any size.

    python demo.py --input photo.jpg --scale 3.7 --output big.png
    python demo.py --input photos/ --resolution 2160,3840 --output big/ --gpu 0
    python demo.py --input photo.jpg --scale 4 --output big.png --compare --weights-map

Reads what Pillow reads; writes PNG, JPEG, WebP, BMP and TIFF. `--compare` adds big-compare.png, bicubic interpolation
and the model side by side; `--weights-map` adds big-weights.png, which of A-LIIF's implicit functions rules where.
"""

import argparse
import colorsys
import contextlib
import math
import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter
from tqdm import tqdm

from datasets.image_folder import list_images
from models.decoder import Decoder
from models.parallel import mixed_precision, pick_device, set_precision
from models.pretrained import DEFAULT, load_pretrained, mixing_weights, target_size, upscale_pil
from models.registry import add_import_option
from pictures import FORMATS, as_mode, check_fits, read, save, sheet, to_tensor, writing_errors
from utils import UserError, located, run_cli

# --- files -----------------------------------------------------------------------------------------------------------


def find_jobs(source: Path, target: Path) -> list[tuple[Path, Path]]:
    """Pairs (picture to read, file to write) for --input and --output, each a file or a folder."""
    if not source.exists():
        raise UserError(f'{source}: no such file or folder')
    if source.is_dir() and target.is_file():
        raise UserError(f'{target}: is a file; --input is a folder, so --output must be one too')
    if source.is_file() and target.suffix and not target.is_dir():
        return [(source, target)]
    written = [suffix for suffix, name in Image.registered_extensions().items() if name in FORMATS]
    return [(path, target / (path.name if path.suffix.lower() in written else f'{path.name}.png'))
            for path in (list_images(source) if source.is_dir() else [source])]


# --- pictures --------------------------------------------------------------------------------------------------------

PANEL = 640  # longest side of a panel
ZOOM = 3  # how much larger than in the output a pixel is in the zoomed crop


def panel_size(size: tuple) -> tuple:
    """(W, H) of a picture of `size` when its longest side is PANEL."""
    return tuple(max(1, round(n * PANEL / max(size))) for n in size)


def most_detailed(image: Image.Image, grid: tuple) -> tuple:
    """(column, row) of the cell with most fine detail, where `grid` (columns, rows) of them divide `image`."""
    grey = image.convert('L')
    detail = ImageChops.difference(grey, grey.filter(ImageFilter.BoxBlur(1))).resize(grid, Image.BOX)
    row, column = divmod(int(np.asarray(detail).argmax()), grid[0])
    return column, row


def compare(image: Image.Image, big: Image.Image, name: str) -> Image.Image:
    """A sheet of bicubic interpolation of `image` and of `big`, by the model of that `name`; below, a crop, zoomed."""
    view = panel_size(big.size)
    part = tuple(min(n, math.ceil(v / ZOOM)) for n, v in zip(big.size, view, strict=True))
    cells = tuple(n // p for n, p in zip(big.size, part, strict=True))
    left, top = ((n - p) * i // max(1, count - 1)
                 for n, p, i, count in zip(big.size, part, most_detailed(image, cells), cells, strict=True))
    box = left, top, left + part[0], top + part[1]
    source = [b * n / m for b, n, m in zip(box, image.size * 2, big.size * 2, strict=True)]
    frame = [b * n // m for b, n, m in zip(box, view * 2, big.size * 2, strict=True)]

    wholes = [image.resize(view, Image.BICUBIC), big.resize(view, Image.LANCZOS)]
    for whole in wholes:
        ImageDraw.Draw(whole).rectangle(frame, outline='red', width=2)
    crops = [image.resize(part, Image.BICUBIC, source), big.crop(box)]
    crops = [crop.resize(view, Image.NEAREST) for crop in crops]
    captions = 'bicubic', name, *(f'{n}, {view[0] / part[0]:.3g} times enlarged' for n in ('bicubic', name))
    return sheet([(caption, 'black', panel) for caption, panel in zip(captions, wholes + crops, strict=True)], 2)


def weights_map(model: Decoder, image: Image.Image, size: tuple, view: tuple | None = None) -> Image.Image:
    """A sheet of the input, of the function that rules (has the largest weight, of either sign), and of all weights.

    Weights are blue below their mean over the image, red above. `size` (H, W) is the output's, `view` (W, H)
    its panels'.
    """
    view = view or panel_size(size[::-1])
    weights = mixing_weights(model, to_tensor(image), size, view[::-1]).numpy()
    colours = [colorsys.hsv_to_rgb(k / len(weights), 0.9, 0.75) for k in range(len(weights))]
    colours = (np.array(colours) * 255).round().astype(np.uint8)
    ruler = np.abs(weights).argmax(axis=0)
    panels = [('input', 'black', as_mode(image, 'RGB').resize(view, Image.BICUBIC)),
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


def process(source: Path, target: Path, model: Decoder, args: argparse.Namespace) -> None:
    """Upscales the picture in the file `source` into the file `target`; what can be checked is checked before."""
    base = target.name if args.input.is_dir() else target.stem  # a folder may have an a.jpg and an a.png
    comparison, weights = (target.with_name(f'{base}-{kind}.png') for kind in ('compare', 'weights'))
    for path, wanted in ((target, True), (comparison, args.compare), (weights, args.weights_map)):
        if wanted and path.exists() and not args.overwrite:
            raise UserError(f'{path}: exists already; --overwrite replaces it')
    image = read(source)
    with located(source):
        size = target_size((image.height, image.width), args.scale, args.resolution)
    with writing_errors(target.parent):
        target.parent.mkdir(parents=True, exist_ok=True)
    check_fits(target, size, image.mode)

    big = upscale_pil(model, image, size=size, verbose=True)
    save(big, target)
    if args.compare:
        save(compare(as_mode(image, 'RGB'), as_mode(big, 'RGB'), Path(args.model).stem), comparison)
    if args.weights_map:
        save(weights_map(model, image, size), weights)
    tqdm.write(f'{target}: {size[0]}x{size[1]}')


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--input', type=Path, required=True, help='a picture, or a folder of them')
    parser.add_argument('--output', type=Path, required=True, help='the file to write, or a folder')
    target = parser.add_mutually_exclusive_group(required=True)
    target.add_argument('--scale', type=scale_from, help='at least 1, such as 3.7')
    target.add_argument('--resolution', type=size_from, metavar='HEIGHT,WIDTH', help='any aspect ratio')
    parser.add_argument('--model', default=DEFAULT,
                        help='a name in pretrained/, or a checkpoint (default: %(default)s)')
    parser.add_argument('--gpu', default='0', help="index of the GPU, or 'cpu'")
    parser.add_argument('--amp', choices=['bf16'], help='mixed precision (default: float32)')
    parser.add_argument('--compare', action='store_true', help='adds OUTPUT-compare.png')
    parser.add_argument('--weights-map', action='store_true',
                        help='adds OUTPUT-weights.png (blue: below its mean, red: above)')
    parser.add_argument('--overwrite', action='store_true', help='replaces files that exist')
    add_import_option(parser)
    args = parser.parse_args()

    target_size((1, 1), args.scale, args.resolution)  # what is wrong for every picture is told once
    jobs = find_jobs(args.input, args.output)
    device = pick_device(args.gpu)
    set_precision(tf32=False)
    model = load_pretrained(args.model).to(device)
    if args.weights_map and getattr(model, 'expansion', None) is None:
        raise UserError(f'--weights-map: {args.model} mixes no functions; it must be an A-LIIF with an expansion net')
    precision = mixed_precision(device, args.amp)
    Image.MAX_IMAGE_PIXELS = None  # a guard for servers; these pictures are the user's own

    failures = []
    for source, path in tqdm(jobs, unit='image', disable=None if len(jobs) > 1 else True):
        try:
            with precision:
                process(source, path, model, args)
        except UserError as error:
            if not args.input.is_dir():
                raise
            failures.append(error)
    if failures:
        print(*(f'error: {error}' for error in failures), sep='\n', file=sys.stderr)
        raise UserError(f'{len(failures)} of {len(jobs)} pictures failed, as listed above')


if __name__ == '__main__':
    run_cli(main)
