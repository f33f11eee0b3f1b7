"""Writes a run's weights alone, the averaged ones if it has them, as float32: what goes into pretrained/.

    python scripts/export_weights.py save/_train_edsr-baseline-A-liif/epoch-last.pth pretrained/edsr-baseline-A-liif.pth
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from models.checkpoint import read, write  # noqa: E402
from utils import run_cli  # noqa: E402


def main():
    source, target = sys.argv[1:]
    checkpoint = read(source)
    state = checkpoint.get('ema') or checkpoint['model']['sd']
    model = {**checkpoint['model'], 'sd': {k: v.float() for k, v in state.items()}}
    Path(target).parent.mkdir(parents=True, exist_ok=True)
    write({'model': model, 'epoch': checkpoint['epoch']}, target)


if __name__ == '__main__':
    run_cli(main)
