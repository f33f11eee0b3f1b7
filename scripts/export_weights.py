"""Writes a run's weights alone, the averaged ones if it has them, as float32: what goes into pretrained/.

    python scripts/export_weights.py save/_train_edsr-baseline-A-liif/epoch-last.pth pretrained/edsr-baseline-A-liif.pth

With --unfinished both the latest weights and their average, in half precision: a run is continued from that file by the
config key `resume`, on another machine, say, with an optimizer that begins anew.
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
    parser.add_argument('--unfinished', action='store_true', help='to continue the run from it')
    args = parser.parse_args()
    checkpoint = read(args.source)
    if args.unfinished:
        model, average = dict(checkpoint['model']), checkpoint.get('ema')
        model['sd'] = {k: v.half() for k, v in model['sd'].items()}
        written = {'model': model, 'ema': average and {k: v.half() for k, v in average.items()}}
    else:
        model = final_spec(checkpoint)
        written = {'model': {**model, 'sd': {k: v.float() for k, v in model['sd'].items()}}}
    args.target.parent.mkdir(parents=True, exist_ok=True)
    write({**written, **{k: checkpoint[k] for k in ('epoch', 'data_norm') if k in checkpoint}}, args.target)


if __name__ == '__main__':
    run_cli(main)
