"""Shows what the weights in pretrained/ do: results/crops.png and results/weights.png.

    python scripts/figures.py [--gpu 0]

The first has crops of photos at two scales by every model, the second how A-LIIF mixes its functions over a photo.
Where the photos are not in load/, a line says so.
"""

import argparse
import itertools
import sys
from pathlib import Path

from PIL import Image
from torch.utils.data import default_collate

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import datasets  # noqa: E402
import models  # noqa: E402
from datasets.wrappers import SRImplicitDownsampled  # noqa: E402
from demo import sheet, weights_map  # noqa: E402
from models.parallel import pick_devices, set_precision  # noqa: E402
from models.pretrained import DATA_NORM, load_pretrained, to_picture  # noqa: E402
from scripts.results import digests, load_models  # noqa: E402
from test import predictions  # noqa: E402
from utils import UserError, atomic_write, calc_psnr, luma, run_cli  # noqa: E402

CROPS, WEIGHTS = Path('results/crops.png'), Path('results/weights.png')
SET14, B100 = 'load/benchmark/Set14/HR', 'load/benchmark/B100/HR'
PHOTOS = (SET14, 6, (250, 150)), (SET14, 13, (470, 240)), (B100, 46, (120, 60))  # number, left and top of the crop
SCALES = 4, 3.7
SIDE, ZOOM = 96, 2  # pixels of a crop's side, and how large each is shown
MIXED = SET14, 10, 3  # the photo whose mixing weights are shown, and how far it is reduced before
MIXER = 'edsr-baseline-A-liif-pixel'  # whose they are


def sample(folder, i, scale):
    """Photo `i` of `folder` as a test at `scale` has it: a batch of one."""
    dataset = datasets.make({'name': 'image-folder', 'args': {'root_path': folder}})
    if i >= len(dataset):
        raise UserError(f'{folder}: has only {len(dataset)} images, and number {i + 1} is shown')
    return default_collate([SRImplicitDownsampled(dataset, scale_min=scale)[i]])


def crops(device):
    """A row for each photo and scale: crops of the reduced photo, of what the models make of it, and of the truth.

    Below each stands its PSNR: of this crop, on Y.
    """
    nets, panels = load_models(digests(), device), []
    for (folder, i, (left, top)), scale in itertools.product(PHOTOS, SCALES):
        box = left, top, left + SIDE, top + SIDE
        batch = sample(folder, i, scale)
        low = to_picture(batch['inp'][0], 'RGB')
        panels.append((f'LR, x{scale:g}', low.resize((SIDE, SIDE), Image.NEAREST, [x / scale for x in box])))
        for name, net in nets.items():
            data_norm = None if isinstance(net, models.Bicubic) else DATA_NORM
            (pred, truth), = predictions([batch], net, data_norm)
            pred, truth = (image[:, box[1]:box[3], box[0]:box[2]].cpu() for image in (pred, truth))
            psnr = calc_psnr(luma(pred), luma(truth))
            panels.append((f'{name.removeprefix("edsr-baseline-")} {psnr:.2f}', to_picture(pred, 'RGB')))
        panels.append(('truth', to_picture(truth, 'RGB')))
    shown = [(caption, 'black', crop.resize((SIDE * ZOOM, SIDE * ZOOM), Image.NEAREST)) for caption, crop in panels]
    return sheet(shown, len(nets) + 2, below=True)


def weights(device):
    """How MIXER mixes its functions where it restores the reduced photo."""
    batch = sample(*MIXED)
    photo = to_picture(batch['inp'][0], 'RGB')
    return weights_map(load_pretrained(MIXER).to(device), photo, batch['gt_size'][0].tolist(), view=photo.size)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--gpu', default='0', help="index of the GPU, or 'cpu'")
    device = pick_devices(parser.parse_args().gpu)[0]
    set_precision(tf32=False)
    for path, draw in ((CROPS, crops), (WEIGHTS, weights)):
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
