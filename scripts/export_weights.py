"""Writes only the weights of a checkpoint, averaged ones if there are any, as float32: the format of pretrained/.

    python scripts/export_weights.py save/_train_edsr-baseline-A-liif/epoch-last.pth pretrained/edsr-baseline-A-liif.pth
    python scripts/export_weights.py other.safetensors my.pth --config configs/train-div2k/train_edsr-baseline-liif.yaml

If the target ends in .safetensors, it is written in that format, with the model's spec in its metadata; all programs
here read both. The second form makes a checkpoint from weights that other code saved without the model's spec
(safetensors, a bare state dict, or one under params_ema, params or state_dict); spec and data_norm are taken from the
training config.

With --unfinished it writes both the latest weights and their average, in half precision. The config key `resume`
continues the run from that file, for example on another machine, with a new optimizer state.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from cli import add_import_option, run_cli
from errors import UserError, located


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('source', help="a run's checkpoint, or with --config a file with weights")
    parser.add_argument('target', type=Path, help='the file to write')
    parser.add_argument('--config', help="the training config of the weights' model")
    parser.add_argument('--unfinished', action='store_true', help='write a file to continue the run from')
    add_import_option(parser)
    return parser.parse_args()


if __name__ == '__main__':
    run_cli(parse_args)

import torch

from files import make_place
from models.checkpoint import final_spec, read, read_bare, write
from models.registry import make_model
from training.run import read_config


def with_spec(source, path):
    """A checkpoint with the weights in the file `source`, and the model and data_norm of the config at `path`."""
    config = read_config(path)
    spec = {**config.model, 'sd': read_bare(source)}
    with located(source):
        make_model(spec, load_sd=True)
    return {'model': spec, 'data_norm': config.data_norm}


def stored_as(dtype, weights):
    """The `weights` of a state dict as `dtype`; counters, such as those of batch norm, stay integers."""
    return {k: v.to(dtype) if v.is_floating_point() else v for k, v in weights.items()}


def main():
    args = parse_args()
    if args.unfinished and args.target.suffix == '.safetensors':
        raise UserError(f'{args.target}: --unfinished writes two sets of weights, but safetensors holds one; choose '
                        '.pth')
    make_place(args.target)
    checkpoint = with_spec(args.source, args.config) if args.config else read(args.source)
    if args.unfinished:
        model, average = checkpoint['model'], checkpoint.get('ema')
        written = {'model': {**model, 'sd': stored_as(torch.half, model['sd'])},
                   'ema': average and stored_as(torch.half, average)}
    else:
        model = final_spec(checkpoint)
        written = {'model': {**model, 'sd': stored_as(torch.float, model['sd'])}}
    kept = {k: checkpoint[k] for k in ('epoch', 'data_norm', 'scale_max') if k in checkpoint}
    write({**written, **kept}, args.target)
    if not args.unfinished:
        print(f'next: python demo.py PHOTO --model {args.target}')


if __name__ == '__main__':
    run_cli(main)
