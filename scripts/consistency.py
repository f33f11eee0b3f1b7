"""Is a model consistent over scales? Measures PSNR at many scales, and compares results that should be equal.

    python scripts/consistency.py [--model edsr-baseline-A-liif-pixel] [--photos FILE ...] [--gpu cpu]

Measures Y-PSNR, ignoring a border of `scale` pixels, at 29 scales from x1 to x8, on the centre of each photo, reduced
by bicubic interpolation and restored: an arbitrary-scale method should give a curve without dents at fractional scales.
Also measures, in RGB, how close other ways to enlarge by x4 come to the usual result: x2 applied twice, flipping the
input and flipping the result back, and tiles. Prints everything, and writes results/consistency.json and
results/consistency.png.
"""

import argparse
import math
import sys
from pathlib import Path
from unittest.mock import patch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from cli import add_gpu_option, add_import_option, add_model_option, run_cli
from errors import UserError, size_text

PHOTOS = [f'load/photos2k/valid_HR/{name}.png' for name in ('0801', '0803')]


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_model_option(parser)
    parser.add_argument('--photos', nargs='+', default=PHOTOS)
    add_gpu_option(parser)
    add_import_option(parser)
    return parser.parse_args()


if __name__ == '__main__':
    run_cli(parse_args)

import numpy as np
from matplotlib.figure import Figure

from datasets.image_file import read_image
from datasets.transforms import resize, to_tensor
from devices import pick_device
from metrics import calc_psnr
from models import load_pretrained, predict
from models.predict import upscale_whole
from scripts.output import write_figure, write_rows
from utils import to_float

RESULTS, FIGURE = Path('results/consistency.json'), Path('results/consistency.png')
SCALES = np.linspace(1, 8, 29).tolist()
SIDE = 192  # of the target that is reduced and restored, in pixels
SMALL, TILE = 96, 32  # sides of the input that is enlarged in two ways, and of its tiles


def middle(path, side):
    """The square of `side` pixels at the centre of the photo at `path`."""
    photo = read_image(path)
    top, left = ((n - side) // 2 for n in photo.shape[:2])
    if min(top, left) < 0:
        raise UserError(f'{path}: has {size_text(photo.shape)} pixels, and {side}x{side} are needed')
    return photo[top:top + side, left:left + side]


def larger(model, image, scale):
    """`image` (3, h, w) enlarged by `scale`, with cells as in the demo: (3, H, W)."""
    size = tuple(round(n * scale) for n in image.shape[1:])
    return upscale_whole(model, image.to(next(model.parameters()).device), size, model.data_norm, clip=True)


def psnr_at(model, photo, scale):
    """PSNR in dB of `photo` (side, side, 3), reduced and restored by the `model` and by bicubic interpolation."""
    low = math.floor(len(photo) / scale + 1e-9)
    side = round(low * scale)
    target = photo[:side, :side]
    inp, truth = resize(target, (low, low)), to_float(to_tensor(target))
    preds = larger(model, to_tensor(inp), scale), to_float(to_tensor(resize(inp, (side, side))))
    return [calc_psnr(pred, truth, 'benchmark', scale).item() for pred in preds]


def agreements(model, image):
    """Other ways to enlarge `image` (3, h, w) by x4, by name, and their PSNR in dB against the usual result."""
    usual = larger(model, image, 4)
    ways = {'x2 of x2': larger(model, larger(model, image, 2), 2)}
    for name, axes in (('flipped left to right', (2,)), ('flipped upside down', (1,))):
        ways[name] = larger(model, image.flip(axes), 4).flip(axes)
    if model.receptive_radius is not None:  # else there are no tiles
        with patch.object(predict, 'TILE', TILE):
            ways[f'tiles of {TILE}'] = larger(model, image, 4)
    return {name: calc_psnr(other, usual).item() for name, other in ways.items()}


def dents(values):
    """How far each value, except the first and last, lies below both of its neighbours; 0 if it does not."""
    values = np.array(values)
    return np.maximum(0, np.minimum(values[:-2], values[2:]) - values[1:-1])


def draw(rows):
    """A figure of PSNR by scale and, below, the gain over bicubic, with a line for each photo."""
    figure = Figure(figsize=(8, 6), layout='constrained')
    top, bottom = figure.subplots(2, 1, sharex=True)
    for i, row in enumerate(rows):
        top.plot(SCALES[1:], row['psnr'][1:], f'C{i}.-', label=f'{row["photo"]}, {row["model"]}')
        top.plot(SCALES[1:], row['bicubic'][1:], f'C{i}--', lw=1, label=f'{row["photo"]}, bicubic')
        bottom.plot(SCALES[1:], np.subtract(row['psnr'], row['bicubic'])[1:], f'C{i}.-')
    top.set_ylabel('PSNR (dB)')
    bottom.set(ylabel='gain over bicubic (dB)', xlabel='Scale (x1 is left out)', xticks=range(1, 9))
    for axes in top, bottom:
        axes.grid(color='0.9')
        axes.spines[['top', 'right']].set_visible(False)
    top.legend(frameon=False)
    return figure


def main():
    args = parse_args()
    model = load_pretrained(args.model).to(pick_device(args.gpu))
    rows = []
    for path in args.photos:
        psnr, bicubic = zip(*(psnr_at(model, middle(path, SIDE), scale) for scale in SCALES), strict=True)
        agree = agreements(model, to_float(to_tensor(middle(path, SMALL))))
        rows.append({'photo': Path(path).stem, 'model': Path(args.model).stem, 'scales': SCALES, 'psnr': list(psnr),
                     'bicubic': list(bicubic), 'agreement': agree})
        for way, value in agree.items():
            print(f'{path}: {way}: {value:.2f} dB')
        gain = dents(np.subtract(psnr, bicubic)[1:])  # without x1, where bicubic is the truth itself
        print(f'{path}: the deepest dent of the gain over bicubic: {gain.max():.2f} dB at '
              f'x{SCALES[2 + int(gain.argmax())]:g}', flush=True)
    write_rows(RESULTS, rows)
    write_figure(FIGURE, draw(rows))


if __name__ == '__main__':
    run_cli(main)
