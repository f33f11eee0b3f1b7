"""Do models ring at edges? Measures error and overshoot by the distance from edges, synthetic ones and in benchmarks.

    python scripts/edges.py [--scale 4] [--sets Set5 Set14] [--models bicubic edsr-baseline-liif] [--gpu cpu]

Synthetic edges are straight, at all angles, between two greys; their truth is known at any scale. Everything is
measured on Y, in 8-bit levels and pixels of the target, ignoring a border of `scale` pixels, and pooled over all pixels
of a set. An edge is where the truth's gradient exceeds a tenth of white per pixel. The overshoot of a pixel is its
distance from the range of the truth within `scale` pixels to each side; if it exceeds two levels, the pixel is counted
as ringing. Prints the tables, and writes results/edges.json and results/edges.png.
"""

import argparse
import math
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from cli import add_gpu_option, add_import_option, run_cli
from errors import UserError

LONGER = 'edsr-baseline-A-liif-pixel'  # trained longer than the others, and marked as such
MODELS = 'bicubic', 'edsr-baseline-liif', 'edsr-baseline-A-liif', 'edsr-baseline-lte', LONGER


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--scale', type=float, default=4)
    parser.add_argument('--sets', nargs='*', default=['Set5'], help='folders in load/benchmark')
    parser.add_argument('--models', nargs='+', default=MODELS, help='bicubic, names in pretrained/, checkpoints')
    add_gpu_option(parser)
    add_import_option(parser)
    return parser.parse_args()


if __name__ == '__main__':
    run_cli(parse_args)

import numpy as np
from matplotlib.figure import Figure
from scipy import ndimage
from torch.utils.data import Dataset, default_collate

import datasets
from datasets.wrappers import SRImplicitDownsampled
from devices import pick_device
from evaluation import load_model, predictions
from metrics import scored_pixels
from scripts.output import markdown, write_figure, write_rows

RESULTS, FIGURE = Path('results/edges.json'), Path('results/edges.png')
BANDS = 0, 1, 2, 4, 8, math.inf  # distances from an edge, in pixels of the target; an edge's own pixels are at 0
THRESHOLD = 0.1  # of white, per pixel
TOLERANCE = 2  # levels
SYNTHETIC, SIDE, GREYS = 'synthetic', 32, (64, 192)  # name of the set, side of the input, levels
ANGLES = range(0, 180, 10)  # degrees
REACH = 12  # of the profile of a synthetic edge, in pixels to both sides


class Edges(Dataset):
    """Pictures, uint8 (side, side, 3), of straight edges near the centre, at ANGLES."""

    def __init__(self, side: int):
        self.side, self.files = side, [f'edge-{angle}' for angle in ANGLES]

    def __len__(self):
        return len(self.files)

    def size(self, i):
        return self.side, self.side

    def distance(self, i):
        """The distance of each pixel's centre from edge `i`, in pixels, negative on the dark side: (side, side)."""
        angle, offset = math.radians(ANGLES[i]), np.random.default_rng(i).uniform(-2, 2)
        y, x = np.mgrid[:self.side, :self.side] - (self.side - 1) / 2
        return x * math.cos(angle) + y * math.sin(angle) + offset

    def __getitem__(self, i):
        share = np.clip(self.distance(i) + 0.5, 0, 1)  # a ramp of one pixel
        grey = np.round(GREYS[0] + (GREYS[1] - GREYS[0]) * share).astype(np.uint8)
        return grey[..., None].repeat(3, axis=2)


# --- measuring -----------------------------------------------------------------------------------------------------


def measure(pred, truth, scale):
    """Compares the Y of a prediction and of the truth, (H, W) each in [0, 1], in each of the BANDS.

    Returns sums, (bands, 4): the number of pixels, absolute error and overshoot in levels, and the number of ringing
    pixels.
    """
    steep = np.hypot(*np.gradient(truth)) > THRESHOLD
    distance = ndimage.distance_transform_edt(~steep) if steep.any() else np.full(truth.shape, BANDS[-2])
    window = 2 * math.ceil(scale) + 1
    high, low = ndimage.maximum_filter(truth, window), ndimage.minimum_filter(truth, window)
    overshoot = 255 * np.maximum(0, np.maximum(pred - high, low - pred))
    values = np.stack([np.ones_like(truth), 255 * abs(pred - truth), overshoot, overshoot > TOLERANCE])
    bands = np.digitize(distance, BANDS[1:-1])
    return np.stack([values[:, bands == band].sum(axis=1) for band in range(len(BANDS) - 1)])


def profile(pred, distance):
    """Sum and count of the values of `pred` by `distance` from a synthetic edge, in bins of half a pixel: (2, bins)."""
    bins = np.arange(-REACH, REACH + 0.5, 0.5)
    return np.stack([np.histogram(distance, bins, weights=weights)[0] for weights in (pred, np.ones_like(pred))])


def compared_luma(pred, truth, scale):
    """The part of prediction and truth (3, H, W) that is compared: Y (H, W), without the border."""
    return (image[0].cpu().double().numpy() for image in scored_pixels(pred, truth, 'benchmark', scale))


def row(name, model, dataset, scale, title):
    """The numbers of a `model` on a `dataset`, as a row of the JSON."""
    wrapped, sums, profiles = SRImplicitDownsampled(dataset, scale_min=scale), 0, 0
    for i in range(len(dataset)):
        (pred, truth), = predictions([default_collate([wrapped[i]])], model, model.data_norm)
        height, width = truth.shape[-2:]  # cut to a multiple of the scale
        pred, truth = compared_luma(pred, truth, scale)
        sums = sums + measure(pred, truth, scale)
        if isinstance(dataset, Edges):
            shave = math.ceil(scale)
            distance = dataset.distance(i)[:height, :width][shave:-shave, shave:-shave]
            profiles = profiles + np.stack([profile(pred, distance), profile(truth, distance)])
    error, overshoot, ringing = (sums[:, 1:] / np.maximum(sums[:, :1], 1)).T.round(4).tolist()
    pixels, _, _, rings = sums.sum(axis=0)
    result = {'set': title, 'model': name, 'scale': scale, 'pixels': sums[:, 0].astype(int).tolist(), 'error': error,
              'overshoot': overshoot, 'ringing': ringing, 'ringing_of_all': round(rings / pixels, 5)}
    if isinstance(dataset, Edges):
        result['profile'], result['true_profile'] = (255 * profiles[:, 0] / profiles[:, 1]).round(2).tolist()
    return result


# --- reporting -----------------------------------------------------------------------------------------------------


def title_of(model):
    return f'{model} (trained longer)' if model == LONGER else model


def band_names():
    return [f'{low:g}–{high:g}' if high < math.inf else f'{low:g}+'
            for low, high in zip(BANDS, BANDS[1:], strict=False)]


def table(rows):
    """A Markdown table of error, overshoot and share of ringing pixels in each band."""
    lines = []
    for row in rows:
        for key, unit, text in (('error', 'error', '{:.2f}'), ('overshoot', 'overshoot', '{:.3f}'),
                                ('ringing', 'ringing', '{:.1%}')):
            head = [row['set'], title_of(row['model'])] if key == 'error' else ['', '']
            lines.append([*head, unit, *map(text.format, row[key])])
    return markdown(['set', 'model', '', *(f'{band} px' for band in band_names())], lines, words=3)


def draw(rows):
    """A figure with bars of each quantity by band, a row for each set, and above them profiles of synthetic edges."""
    sets = list(dict.fromkeys(row['set'] for row in rows))
    figure = Figure(figsize=(12, 3 * len(sets) + 3.4), layout='constrained')
    top, *rest = figure.subfigures(len(sets) + 1, 1, height_ratios=[1.1] + [1] * len(sets))
    names = list(dict.fromkeys(row['model'] for row in rows))
    colours = {name: 'gray' if name == 'bicubic' else f'C{i}' for i, name in enumerate(names)}
    centres = np.arange(-REACH, REACH, 0.5) + 0.25
    whole, detail = top.subplots(1, 2)
    for axes in whole, detail:
        for row in (row for row in rows if 'profile' in row):
            axes.plot(centres, row['profile'], color=colours[row['model']])
            axes.plot(centres, truth := row['true_profile'], 'k:', lw=1)
        axes.set(xlabel='distance from the edge (px)', ylabel='Y (levels)')
    whole.set_title('mean profile of synthetic edges (dotted: truth)')
    detail.set(title='its bright side', xlim=(0, REACH), ylim=(truth[-1] - 6, truth[-1] + 8))
    for part, title in zip(rest, sets, strict=True):
        for axes, key in zip(part.subplots(1, 3), ('error', 'overshoot', 'ringing'), strict=True):
            own = [row for row in rows if row['set'] == title]
            width = 0.8 / len(own)
            for i, row in enumerate(own):
                axes.bar(np.arange(len(BANDS) - 1) + width * (i - (len(own) - 1) / 2),
                         np.array(row[key]) * (100 if key == 'ringing' else 1), width, color=colours[row['model']])
            axes.set_xticks(range(len(BANDS) - 1), band_names())
            axes.set(title=f'{title}: {key}', xlabel='distance from the nearest edge (px)',
                     ylabel='% of pixels' if key == 'ringing' else 'levels')
    for axes in figure.axes:
        axes.spines[['top', 'right']].set_visible(False)
    lines = [whole.plot([], [], color=colours[name], label=title_of(name))[0] for name in names]
    figure.legend(handles=lines, loc='outside lower center', ncols=3, frameon=False)
    return figure


def main():
    args = parse_args()
    if not 1 <= args.scale < math.inf:
        raise UserError(f'--scale must be at least 1, not {args.scale:g}')
    device = pick_device(args.gpu)
    sets = {SYNTHETIC: Edges(round(SIDE * args.scale))}
    for name in args.sets:
        sets[name] = datasets.make({'name': 'image-folder', 'args': {'root_path': f'load/benchmark/{name}/HR'}})
    nets = {name: load_model(name).to(device) for name in args.models}
    rows = []
    for title, dataset in sets.items():
        for name, net in nets.items():
            rows.append(row(name, net, dataset, args.scale, title))
            share = rows[-1]['ringing_of_all']
            print(f'{title:10s} {name:30s} {share:.2%} of the pixels beyond the local range', flush=True)
    print(f'\n{table(rows)}')
    write_rows(RESULTS, rows)
    write_figure(FIGURE, draw(rows))


if __name__ == '__main__':
    run_cli(main)
