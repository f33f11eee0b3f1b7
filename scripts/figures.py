"""Makes figures of what the weights in pretrained/ do, in results/: photos, jpeg, crops and weights (.png).

    python scripts/figures.py [--gpu 0] [--import examples.own_model]

- photos: parts of three photos, by the demo's model
- jpeg: parts of compressed photos, by that model and by the one for pictures from the web
- crops: small parts of other photos, by all models except the one for pictures from the web
- weights: how A-LIIF mixes its functions over a photo

If the photos of a figure are not in load/, a line says so.
"""

import argparse
import sys
from functools import partial
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from cli import DEFAULT, WEB, add_gpu_option, add_import_option, run_cli
from errors import UserError


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_gpu_option(parser)
    add_import_option(parser)
    return parser.parse_args()


if __name__ == '__main__':
    run_cli(parse_args)

from PIL import Image
from torch.utils.data import default_collate

import datasets
from datasets.degraded import SRImplicitDegraded
from demos.compare import weights_map
from devices import pick_device
from evaluation import predictions
from files import atomic_write
from metrics import calc_psnr, luma
from models.pretrained import load_pretrained
from pictures.modes import to_picture
from pictures.sheets import sheet
from scripts.results import choose, digests, load_models
from utils import to_float

PHOTOS, JPEG, CROPS, WEIGHTS = (Path(f'results/{name}.png') for name in ('photos', 'jpeg', 'crops', 'weights'))
SET14, OPEN, PHOTOS2K = 'load/benchmark/Set14/HR', 'load/photos/valid_open', 'load/photos2k/valid_HR'
MIXED = SET14, 10, 3  # the photo whose mixing weights are shown, and the factor by which it is reduced first


class Part(NamedTuple):
    """A square of a photo: folder and number, left, top and side in pixels, and the scale by which it is reduced.

    `quality`: with which the reduced photo is compressed as JPEG; None: not at all.
    """

    folder: str
    number: int
    left: int
    top: int
    side: int
    scale: float
    quality: int | None = None


FEW = Part(SET14, 10, 330, 170, 128, 4), Part(OPEN, 2, 280, 80, 128, 4), Part(PHOTOS2K, 5, 200, 300, 512, 12)
COMPRESSED = Part(OPEN, 2, 280, 80, 128, 3, 50), Part(OPEN, 0, 140, 20, 128, 3, 50)
MANY = Part(SET14, 13, 440, 90, 64, 4), Part(SET14, 12, 60, 85, 64, 3), Part(SET14, 4, 80, 80, 64, 2.5)


def sample(folder, i, scale, quality=None):
    """Photo `i` of `folder` as in a test at `scale`, and with `--jpeg` of that `quality`: a batch of one."""
    dataset = datasets.make({'name': 'image-folder', 'args': {'root_path': folder}})
    if i >= len(dataset):
        raise UserError(f'{folder}: has only {len(dataset)} images, but number {i + 1} is needed')
    jpeg = {'jpeg': 1, 'quality': quality} if quality else {}
    return default_collate([SRImplicitDegraded(dataset, **jpeg, scale_min=scale)[i]])


def crops(names, parts, side, device):
    """A row for each of `parts`: the reduced photo, the models' results, and the truth, with panels of side `side`.

    Captions give the PSNR of the part on Y.
    """
    nets, panels = load_models(names, device), []

    def add(caption, picture):
        nearest = picture.width <= side  # keeps its pixels visible
        panels.append((caption, 'black', picture.resize((side, side), Image.NEAREST if nearest else Image.LANCZOS)))

    for part in parts:
        box = part.left, part.top, part.left + part.side, part.top + part.side
        batch = sample(part.folder, part.number, part.scale, part.quality)
        low = to_picture(to_float(batch['inp'][0]), 'RGB')
        jpeg = f', JPEG {part.quality}' if part.quality else ''
        add(f'reduced by x{part.scale:g}{jpeg}', low.resize((side, side), Image.NEAREST, [x / part.scale for x in box]))
        for name, net in nets.items():
            (pred, truth), = predictions([batch], net, net.data_norm)
            pred, truth = (image[:, box[1]:box[3], box[0]:box[2]].cpu() for image in (pred, truth))
            psnr = calc_psnr(luma(pred), luma(truth))
            add(f'{name.removeprefix("edsr-baseline-")} {psnr:.2f} dB', to_picture(pred, 'RGB'))
        add('truth', to_picture(truth, 'RGB'))
    return sheet(panels, len(nets) + 2)


def weights(device):
    """A sheet of how DEFAULT mixes its functions to restore the reduced photo."""
    batch = sample(*MIXED)
    photo = to_picture(to_float(batch['inp'][0]), 'RGB')
    return weights_map(load_pretrained(DEFAULT).to(device), photo, tuple(batch['gt'].shape[-2:]), view=photo.size)


def main():
    device = pick_device(parse_args().gpu)
    names = [name for name in choose(None, digests()) if name != WEB]  # which is for other photos than these
    for path, draw in ((PHOTOS, partial(crops, ('bicubic', DEFAULT), FEW, 256)),
                       (JPEG, partial(crops, ('bicubic', DEFAULT, WEB), COMPRESSED, 256)),
                       (CROPS, partial(crops, names, MANY, 192)),
                       (WEIGHTS, weights)):
        try:
            figure = draw(device)
        except UserError as error:
            print(f'{path} is not made: {error}', file=sys.stderr)
            continue
        path.parent.mkdir(exist_ok=True)
        with atomic_write(path) as file:
            figure.save(file, 'PNG', optimize=True)


if __name__ == '__main__':
    run_cli(main)
