"""Measures how many training samples per second one worker delivers, for each cache mode and for a plain version.

    python scripts/benchmark_data.py [--root FOLDER] [--seconds 4] [--rounds 3]

Samples are those of `sr-implicit-downsampled`: input 48x48, x1 to x4, 2304 queries. The plain version decodes and
converts the whole image, and computes all queries of the crop before it selects some. The versions take turns, and the
table shows the median over the rounds.
"""

import argparse
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from cli import run_cli


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--root', default='load/div2k/DIV2K_valid_HR', help='folder of 2K PNGs')
    parser.add_argument('--seconds', type=float, default=4, help='for each version in each round')
    parser.add_argument('--rounds', type=int, default=3)
    return parser.parse_args()


if __name__ == '__main__':
    run_cli(parse_args)

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from config import check_positive
from datasets import make_loader
from datasets.image_file import FORMATS
from datasets.image_folder import find_images
from scripts.output import markdown
from utils import to_pixel_samples

INP_SIZE, SCALE_MAX, SAMPLE_Q, BATCH_SIZE = 48, 4, 2304, 8


def to_floats(image):
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous().float() / 255


class Plain(Dataset):
    """The same samples, made the plain way: whole images are converted to float, and whole crops to queries."""

    def __init__(self, files):
        self.files = files

    def __len__(self):
        return 1_000_000

    def __getitem__(self, i):
        image = to_floats(Image.open(self.files[i % len(self.files)], formats=FORMATS).convert('RGB'))
        size = round(INP_SIZE * random.uniform(1, SCALE_MAX))
        y, x = random.randint(0, image.shape[1] - size), random.randint(0, image.shape[2] - size)
        target = image[:, y:y + size, x:x + size]
        small = Image.fromarray((target * 255).round().byte().permute(1, 2, 0).numpy())
        small = small.resize((INP_SIZE, INP_SIZE), Image.BICUBIC)
        coord, gt = to_pixel_samples(target.contiguous())
        chosen = np.random.choice(len(coord), SAMPLE_Q, replace=False)
        cell = torch.full((SAMPLE_Q, 2), 2 / size)
        return {'inp': to_floats(small), 'coord': coord[chosen], 'cell': cell, 'gt': gt[chosen]}


def cached_loader(root, cache):
    return make_loader({
        'dataset': {'name': 'image-folder', 'args': {'root_path': str(root), 'cache': cache, 'repeat': 1_000_000}},
        'wrapper': {'name': 'sr-implicit-downsampled',
                    'args': {'inp_size': INP_SIZE, 'scale_max': SCALE_MAX, 'sample_q': SAMPLE_Q}},
        'batch_size': BATCH_SIZE, 'num_workers': 1}, seed=0)


def samples_per_second(loader, seconds):
    """The rate at which samples arrive after the first batch."""
    batches = iter(loader)
    next(batches)
    start, count = time.perf_counter(), 0
    while time.perf_counter() < start + seconds:
        next(batches)
        count += BATCH_SIZE
    return count / (time.perf_counter() - start)


def main():
    args = parse_args()
    check_positive(**{'--rounds': args.rounds})

    files = find_images(args.root)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / 'images'  # links, so that the bin folder does not end up beside the user's images
        root.mkdir()
        for file in files:
            (root / file.name).symlink_to(file.absolute())
        loaders = {'plain, none': DataLoader(Plain(files), BATCH_SIZE, num_workers=1, persistent_workers=True),
                   **{cache: cached_loader(root, cache) for cache in ('none', 'bin', 'in_memory')}}
        rates = {name: [] for name in loaders}
        for _ in tqdm(range(args.rounds), 'rounds'):
            for name, loader in loaders.items():
                rates[name].append(samples_per_second(loader, args.seconds))

    medians = {name: statistics.median(values) for name, values in rates.items()}
    print(markdown(['cache', 'samples/s per worker', 'times plain'],
                   [[name, f'{rate:.1f}', f'{rate / medians["plain, none"]:.1f}'] for name, rate in medians.items()]))


if __name__ == '__main__':
    run_cli(main)
