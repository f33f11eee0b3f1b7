"""Measures how many samples per second this machine trains with a config, by batch size, and how many it loads.

    python scripts/benchmark_training.py [CONFIG] [--gpu 0] [--batch-sizes 8 32 128] [--set compile=false]

Samples are random numbers of the config's input size, with scales from 1 to 4 in turn; if the config has no `sample_q`,
all pixels of the targets are queried. The steps are those of train_liif.py: forward, backward, optimizer, average. The
loader is that of the config, if its photos are available.
"""

import argparse
import gc
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
from cli import add_gpu_option, add_import_option, run_cli
from errors import UserError

CONFIG = ROOT / 'configs/train-photos/train_edsr-baseline-A-liif-pixel.yaml'


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', nargs='?', default=str(CONFIG))
    add_gpu_option(parser)
    parser.add_argument('--batch-sizes', type=int, nargs='+', help='default: 8; on a GPU 16 to 256')
    parser.add_argument('--set', action='append', default=[], metavar='KEY=VALUE', help='override a key of the config')
    parser.add_argument('--json', help='write the numbers here')
    add_import_option(parser)
    return parser.parse_args()


if __name__ == '__main__':
    run_cli(parse_args)

import torch
from torch.utils.data import DataLoader

import datasets
from config import check_positive
from devices import Parallel, device_name, set_precision
from files import make_place
from training.run import read_config
from training.trainer import Trainer
from utils import write_json

SCALES = [1 + 3 * i / 11 for i in range(12)]  # of the batches, in turn
SECONDS = 4  # for which each batch size, and the loader, are timed


def random_batch(config, batch_size: int, scale: float, n_colors: int) -> dict:
    """A batch like those of `config`'s loader, of 8-bit noise in `n_colors` channels, on the CPU."""
    args = config.train_dataset['wrapper']['args']
    inp_size, sample_q = args.get('inp_size'), args.get('sample_q')
    if inp_size is None:
        raise UserError('train_dataset: the speed can only be measured for samples with an inp_size')
    size = round(inp_size * scale)
    inp = torch.randint(256, (batch_size, n_colors, inp_size, inp_size), dtype=torch.uint8)
    if sample_q is None:
        return {'inp': inp, 'gt': torch.randint(256, (batch_size, n_colors, size, size), dtype=torch.uint8)}
    coord = torch.rand(batch_size, sample_q, 2) * 2 - 1
    return {'inp': inp / 255, 'coord': coord, 'cell': torch.full_like(coord, 2 / size),
            'gt': torch.rand(batch_size, sample_q, n_colors)}


def training_rate(config, parallel: Parallel, size: int, n_colors: int | None = None) -> float:
    """Samples per second in batches of `size`, after one batch of each scale that is not timed.

    `n_colors`: channels of the images; None: as many as the config's model has.
    """
    trainer = Trainer(config, parallel, Path(), n_colors)
    batches = [random_batch(config, size, scale, trainer.n_colors) for scale in SCALES]
    wait = torch.get_device_module(parallel.device).synchronize
    count = 0

    def step(batch):
        trainer.step(batch, size, size, config.ema)

    for batch in batches:
        step(batch)
    wait()
    start = time.perf_counter()
    while time.perf_counter() < start + SECONDS:
        for batch in batches:
            step(batch)
            count += size
        wait()
    return count / (time.perf_counter() - start)


def loader_of(config, what: str) -> DataLoader | None:
    """The loader of `config`'s photos; None, and a line that `what` is not known, if they are not available."""
    args = (config.train_dataset.get('dataset') or {}).get('args') or {}
    for folders in (value for key, value in args.items() if key.startswith('root_path')):
        for folder in [folders] if isinstance(folders, str) else folders:
            if not Path(folder).is_dir():
                print(f'{what} is not known: {folder} is not there', file=sys.stderr)
                return None
    return datasets.make_loader(config.train_dataset, seed=0, shuffle=True)


def loader_rate(loader: DataLoader) -> float:
    """Samples per second that `loader` delivers."""
    batches, count = iter(loader), 0
    next(batches)
    start = time.perf_counter()
    for batch in batches:
        count += len(batch['inp'])
        if time.perf_counter() > start + SECONDS:
            break
    return count / (time.perf_counter() - start)


def main() -> None:
    args = parse_args()
    config = read_config(args.config, assignments=args.set)
    parallel = Parallel(args.gpu)
    sizes = args.batch_sizes or ([16, 64, 128, 256] if parallel.device.type == 'cuda' else [8])
    check_positive(**{'--batch-sizes': min(sizes)})
    if args.json:  # before the work
        make_place(args.json)
    set_precision(config.tf32)
    print(f'{device_name(parallel.device)}, PyTorch {torch.__version__}')
    rates = {}
    for size in sizes:
        try:
            rate = training_rate(config, parallel, size)
            gc.collect()  # its graphs refer to the trainer
        except torch.OutOfMemoryError:
            print(f'batch {size}: out of memory')
            break
        rates[f'batch {size}'] = rate
        print(f'batch {size}: {rate:.1f} samples/s', flush=True)
    if loader := loader_of(config, "the loader's speed"):
        rates['loader'] = loader_rate(loader)
        print(f'loader: {round(rates["loader"])} samples/s')
    if args.json:
        write_json(args.json, rates)


if __name__ == '__main__':
    run_cli(main)
