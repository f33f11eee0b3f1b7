"""Measures one model on one set with all protocols used in papers: the table in docs/protocols.md.

    python scripts/protocols.py [--model edsr-baseline-A-liif-pixel] [--set set5] [--gpu 0]

A protocol is a combination of

- low-resolution images: made by Pillow, made like those of MATLAB's imresize, or supplied with the set;
- results: as the network outputs them, or rounded to 8 bits as in a file;
- PSNR: on Y or RGB, ignoring a border of scale or scale + 6 pixels.
"""

import argparse
import itertools
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
from cli import add_gpu_option, add_import_option, add_model_option, run_cli

SETS = 'set5', 'set14', 'b100', 'urban100'


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_model_option(parser, "a checkpoint, a name in pretrained/, or 'bicubic'")
    parser.add_argument('--set', choices=SETS, default='set5', help='default: %(default)s')
    add_gpu_option(parser)
    add_import_option(parser)
    return parser.parse_args()


if __name__ == '__main__':
    run_cli(parse_args)

import torch
from torch import nn

from devices import pick_device
from evaluation import EvalConfig, load_model, mean, predictions
from metrics import calc_psnr, luma
from models.normalisation import norm_of
from scripts.output import markdown

SCALES = 2, 4
SOURCES = {'Pillow': ('', ()), 'MATLAB': ('', ('test_dataset.wrapper.args.reduction=matlab',)),
           'supplied': ('supplied-lr', ())}  # folder of the test configs, keys to set in them
ROUNDED = {'no': lambda image: image, '8 bit': lambda image: (image * 255).round() / 255}
COLOURS = {'Y': luma, 'RGB': lambda image: image}
BORDERS = {'s': 0, 's + 6': 6}  # beyond the scale


def images(name: str, scale: int, source: str, model: nn.Module) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Prediction and truth, (3, H, W) each, of every image of the set `name`."""
    folder, assignments = SOURCES[source]
    path = ROOT / 'configs/test' / folder / f'test-{name}-{scale}.yaml'
    config = EvalConfig.read(path, assignments)
    loader = config.loader()
    yield from predictions(loader, model, norm_of(model, config.data_norm))


def psnr(pred: torch.Tensor, gt: torch.Tensor, colour: str, shave: int) -> float:
    """PSNR in dB of two images (3, H, W), on Y or RGB, without a border of `shave` pixels."""
    pred, gt = (COLOURS[colour](image)[..., shave:-shave, shave:-shave] for image in (pred, gt))
    return calc_psnr(pred, gt).item()


def measure(name: str, model: nn.Module) -> dict[tuple, float]:
    """{(scale, source, rounded, colour, border): mean PSNR} of every combination."""
    found = {}
    for scale, source in itertools.product(SCALES, SOURCES):
        pairs = list(images(name, scale, source, model))
        for rounded, colour, border in itertools.product(ROUNDED, COLOURS, BORDERS):
            found[scale, source, rounded, colour, border] = mean(
                psnr(ROUNDED[rounded](pred), gt, colour, scale + BORDERS[border]) for pred, gt in pairs)
    return found


def table(found: dict[tuple, float]) -> str:
    """A Markdown table: a row for each source and rounding, a column for each scale, colour and border."""
    columns = list(itertools.product(SCALES, COLOURS, BORDERS))
    head = ['low resolution', 'rounded', *(f'×{scale}, {colour}, {border}' for scale, colour, border in columns)]
    lines = []
    for source, rounded in itertools.product(SOURCES, ROUNDED):
        values = [f'{found[scale, source, rounded, colour, border]:.2f}' for scale, colour, border in columns]
        lines.append([source, rounded, *values])
    return markdown(head, lines, words=2)


def main() -> None:
    args = parse_args()
    device = pick_device(args.gpu)
    print(table(measure(args.set, load_model(args.model).to(device))))


if __name__ == '__main__':
    run_cli(main)
