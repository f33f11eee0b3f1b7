"""Times the kernel of models/fused.py with different tiles, on the published A-LIIF at x4.

    python scripts/tune_fused.py

Put the best ones into STEP and TILES there. Times are those of decoding, including geometry; FLOP/s count the
products after the first layers and are compared with a product of two large bf16 matrices.
"""

import argparse
import itertools
import sys
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
from cli import run_cli
from errors import UserError


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    return parser.parse_args()


if __name__ == '__main__':
    run_cli(parse_args)

import torch

import models
from config import load_yaml
from models.a_liif import fused_kernel
from utils import make_coord

SIDE, SCALE = 256, 4  # of the input


def main():
    parse_args()
    device = torch.device('cuda' if torch.cuda.is_available() else 'cpu')
    model = models.make(load_yaml(ROOT / 'configs/train-div2k/train_edsr-baseline-A-liif.yaml')['model']).to(device)
    coord = make_coord((SIDE * SCALE, SIDE * SCALE)).to(device).unsqueeze(0)
    cell = torch.full_like(coord, 2 / (SIDE * SCALE))
    with torch.no_grad():
        inp = torch.randn(1, 3, SIDE, SIDE, device=device)
        fused = fused_kernel(model, model.encode(inp), coord)
        if fused is None:
            raise UserError('needs Triton and a GPU of compute capability 9.x or 10.x')
        compare(fused, model, inp, coord, cell)


def compare(fused, model, inp, coord, cell):
    """Prints a line for each data type and tile that fits into the GPU's shared memory."""
    from triton.runtime import OutOfResources
    from triton.testing import do_bench

    a, b = torch.randn(2, 8192, 8192, device=coord.device, dtype=torch.bfloat16)
    ceiling = 2 * 8192 ** 3 / do_bench(lambda: a @ b) / 1e9
    weights = [layer.weight for layer in model.expansion.layers[2::2]] + list(model.imnet.weights)[1:]
    products = 2 * 4 * sum(weight.numel() for weight in weights) * coord.shape[1]
    print(f'{torch.cuda.get_device_name()}: a matrix product has {ceiling:.0f} TFLOP/s')
    tiles = itertools.product(tuple(fused.TILES), (32, 64), ((64, 4), (64, 8), (128, 8)), (2, 3, 4))
    for dtype, step, (rows, warps), stages in tiles:
        fused.STEP = step
        fused.TILES[dtype] = {'ROWS': rows, 'num_warps': warps, 'num_stages': stages, 'maxnreg': 255}
        with torch.autocast('cuda', torch.bfloat16, enabled=dtype == torch.bfloat16):
            features = model.encode(inp)
            try:
                time = do_bench(partial(fused.decode, model, features, coord, cell))
            except OutOfResources:
                continue
        speed = products / time / 1e9
        print(f'{dtype} {step=} {fused.TILES[dtype]}: {time:.2f} ms, {speed:.0f} TFLOP/s, {speed / ceiling:.0%}')


if __name__ == '__main__':
    run_cli(main)
