"""Checks a CUDA GPU from end to end and writes the measurements to results/gpu-NAME.json, in at most three minutes.

    python scripts/check_gpu.py [--minutes 3] [--output results]

The steps, each in a process of its own, so that a failing kernel does not affect the GPU for the others:
    kernel      compiles models/fused.py and fused_pixel.py and compares them with the equations that they compute
    tests       the tests that need a GPU
    training    samples per second with the config of the demo's model (scripts/benchmark_training.py)
    benchmark   published forms compared with ours, decoding and training steps (scripts/benchmark.py)
    tiles       times the kernel's tiles (scripts/tune_fused.py)

Steps that fail or run out of time are reported and recorded; the exit code is 1 if one failed. Without a GPU the steps
run on the CPU, as far as possible, to try out this script.
"""

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
from cli import run_cli
from errors import UserError


def steps(output: Path, gpu: str) -> dict[str, list[str]]:
    """The command of each step, as arguments of Python, by name; they write their numbers to the folder `output`."""
    test = ['-m', 'pytest', '-q', '-p', 'no:cacheprovider', '-rs']
    return {
        'kernel': [*test, 'tests/test_fused.py', 'tests/test_fused_pixel.py'],
        'tests': [*test, 'tests/test_data_parallel.py', 'tests/test_distributed.py', 'tests/test_gpu.py', '-k', 'gpu'],
        'training': ['scripts/benchmark_training.py', '--gpu', gpu, '--batch-sizes', '32', '128', '--json',
                     str(output / 'training.json')],
        'benchmark': ['scripts/benchmark.py', '--gpu', gpu, '--repeats', '5', '--json', str(output / 'benchmark.json')],
        'tiles': ['scripts/tune_fused.py'],
    }


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--minutes', type=float, default=3, help='for all steps together')
    parser.add_argument('--output', default='results', help='folder for the JSON file')
    parser.add_argument('--only', nargs='+', choices=list(steps(Path(), 'cpu')), help='run only these steps')
    return parser.parse_args()


if __name__ == '__main__':
    run_cli(parse_args)

import torch

from devices import device_name, pick_device
from files import make_place
from utils import write_json

LINES = 60  # number of lines of a step's output that are kept


def run_step(name: str, arguments: list[str], seconds: float) -> dict:
    """Runs a step for at most `seconds`; returns how it ended, how long it took, and the end of its output."""
    start = time.monotonic()
    environment = {**os.environ, 'A_LIIF_KERNEL': '1', 'PYTHONUNBUFFERED': '1'}
    with subprocess.Popen([sys.executable, *arguments], cwd=ROOT, env=environment, text=True, errors='replace',
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True) as process:
        try:
            text = process.communicate(timeout=seconds)[0]
            ended = 'passed' if process.returncode == 0 else f'failed with exit code {process.returncode}'
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # also its child processes, which would go on using the GPU
            text = process.communicate()[0]
            ended = f'not finished after {seconds:.0f} s'
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    lines = [line.split('\r')[-1] for line in text.splitlines()]
    took = time.monotonic() - start
    print(f'{name}: {ended}, {took:.0f} s', *(lines[-LINES:] if ended != 'passed' else lines[-3:]), sep='\n    ')
    return {'ended': ended, 'seconds': round(took, 1), 'output': lines[-LINES:]}


def main() -> None:
    args = parse_args()
    if not args.minutes > 0:
        raise UserError(f'--minutes must be above 0, not {args.minutes:g}')

    device = pick_device('0')
    name = re.sub(r'[^A-Za-z0-9]+', '-', device_name(device)).strip('-')
    path = Path(args.output).resolve() / f'gpu-{name}.json'
    make_place(path)
    report = {'device': device_name(device), 'pytorch': torch.__version__, 'cuda': torch.version.cuda, 'steps': {}}
    end = time.monotonic() + 60 * args.minutes
    with tempfile.TemporaryDirectory() as folder:
        for step, arguments in steps(Path(folder), '0' if device.type == 'cuda' else 'cpu').items():
            if args.only and step not in args.only:
                continue
            left = end - time.monotonic()
            report['steps'][step] = run_step(step, arguments, left) if left > 5 else {'ended': 'no time left'}
            numbers = Path(folder) / f'{step}.json'
            if numbers.exists():
                report['steps'][step]['numbers'] = json.loads(numbers.read_text())
            write_json(path, report)
    print(path)
    sys.exit(any(step['ended'].startswith('failed') for step in report['steps'].values()))


if __name__ == '__main__':
    run_cli(main)
