"""Measures how many samples per second this machine trains with a config, by batch size, and how many it loads.

    python scripts/benchmark_training.py [CONFIG] [--gpu 0] [--batch-sizes 8 32 128] [--compile] [--cuda-graphs]

Samples are random numbers of the config's input size, with scales from 1 to 4 in turn; if the config has no `sample_q`,
all pixels of the targets are queried. The steps are those of train_liif.py: forward, backward, optimizer, average. The
loader is that of the config, if its photos are available.
"""

import argparse
import gc
import json
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
from cli import run_cli
from errors import UserError

CONFIG = ROOT / 'configs/train-photos/train_edsr-baseline-A-liif-pixel.yaml'


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', nargs='?', default=str(CONFIG))
    parser.add_argument('--gpu', default='0', help="index of the GPU, or 'cpu'")
    parser.add_argument('--batch-sizes', type=int, nargs='+', help='default: 8; on a GPU 16 to 256')
    parser.add_argument('--compile', action='store_true', help='torch.compile')
    parser.add_argument('--cuda-graphs', action='store_true', help='launch steps as CUDA graphs')
    parser.add_argument('--json', help='write the numbers here')
    return parser.parse_args()


if __name__ == '__main__':
    run_cli(parse_args)

import torch

import datasets
from config import check_positive
from devices import Parallel, device_name, set_precision
from files import atomic_write
from training.run import read_config
from training.trainer import Trainer

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


def training_rate(trainer: Trainer, batches: list[dict]) -> float:
    """Samples per second, after one pass over `batches` that is not timed."""
    wait = torch.get_device_module(trainer.parallel.device).synchronize
    count, size = 0, len(batches[0]['inp'])

    def step(batch):
        trainer.step(batch, size, size, trainer.config.ema)

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


def loader_rate(config) -> float | None:
    """Samples per second that the config's loader delivers; None if its photos are not available."""
    try:
        loader = datasets.make_loader(config.train_dataset, seed=0, shuffle=True)
    except UserError as error:
        print(f'the loader is not timed: {error}')
        return None
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
    config = read_config(args.config, {'compile': args.compile, 'cuda_graphs': args.cuda_graphs})
    parallel = Parallel(args.gpu)
    sizes = args.batch_sizes or ([16, 64, 128, 256] if parallel.device.type == 'cuda' else [8])
    check_positive(**{'--batch-sizes': min(sizes)})
    set_precision(config.tf32)
    print(f'{device_name(parallel.device)}, PyTorch {torch.__version__}')
    rates = {}
    with tempfile.TemporaryDirectory() as folder:
        for size in sizes:
            try:
                trainer = Trainer(config, parallel, Path(folder))
                n_colors = trainer.model.n_colors
                rate = training_rate(trainer, [random_batch(config, size, scale, n_colors) for scale in SCALES])
                del trainer
                gc.collect()  # its graphs refer to it
            except torch.OutOfMemoryError:
                print(f'batch {size}: out of memory')
                break
            rates[f'batch {size}'] = rate
            print(f'batch {size}: {rate:.1f} samples/s', flush=True)
    rates['loader'] = loader_rate(config)
    if rates['loader']:
        print(f'loader: {round(rates["loader"])} samples/s')
    if args.json:
        with atomic_write(args.json) as file:
            file.write(json.dumps(rates, indent=1).encode())


if __name__ == '__main__':
    run_cli(main)
