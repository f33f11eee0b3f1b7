"""Writes a run's weights alone, the averaged ones if it has them, as float32: what goes into pretrained/.

    python scripts/export_weights.py save/_train_edsr-baseline-A-liif/epoch-last.pth pretrained/edsr-baseline-A-liif.pth
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from models.checkpoint import final_spec, read, write  # noqa: E402
from utils import run_cli  # noqa: E402


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('source', help="a run's checkpoint")
    parser.add_argument('target', type=Path, help='the file to write')
    args = parser.parse_args()
    checkpoint = read(args.source)
    model = final_spec(checkpoint)
    model['sd'] = {k: v.float() for k, v in model['sd'].items()}
    args.target.parent.mkdir(parents=True, exist_ok=True)
    write({'model': model, **{k: checkpoint[k] for k in ('epoch', 'data_norm') if k in checkpoint}}, args.target)


if __name__ == '__main__':
    run_cli(main)
