"""Measures the cost of a model: parameters, multiply-adds, seconds and memory for a picture, and days of training.

    python scripts/profile_model.py edsr-baseline-A-liif-pixel [--size 510x339] [--scale 4] [--gpu cpu]
    python scripts/profile_model.py configs/train-div2k/train_edsr-baseline-liif.yaml

MODEL is a checkpoint, a name in pretrained/, or a training config; with a config, training is timed, too. Encoding is
the encoder, decoding everything after it, from the feature map to the picture in main memory. Multiply-adds are those
of matrix products and convolutions, as executed. Seconds are the median of three calls after a first one; memory is the
peak of a call in addition to what was held before. Training is timed on random samples, without data loading.
"""

import argparse
import re
import statistics
import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from cli import add_gpu_option, add_import_option, run_cli
from errors import located, size_text


def picture_size(text):
    """'510x339' as (339, 510), height and width."""
    match = re.fullmatch(r'([1-9]\d*)x([1-9]\d*)', text)
    if not match:
        raise argparse.ArgumentTypeError(f'must be WIDTHxHEIGHT, e.g. 510x339, not {text}')
    return int(match[2]), int(match[1])


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('model', help='a checkpoint, a name in pretrained/, or a training config')
    parser.add_argument('--size', type=picture_size, default=(339, 510), metavar='WxH', help='of the input picture')
    parser.add_argument('--scale', type=float, default=4)
    add_gpu_option(parser)
    add_import_option(parser)
    return parser.parse_args()


if __name__ == '__main__':
    run_cli(parse_args)

import torch

from devices import Parallel, set_precision
from models.pictures import target_size
from models.predict import Latents, upscale_whole
from models.pretrained import load_pretrained
from models.registry import make_model, with_n_colors
from scripts.benchmark import FixedFeatures, flops, machine, measured_device, peak_bytes, seconds
from scripts.benchmark_training import loader_of, training_rate
from scripts.output import markdown
from training.run import read_config

REPEATS = 3


def parameters(model):
    """The number of parameters of each part of `model` and in total: {part: count, ..., 'together': count}."""
    parts = {name: sum(p.numel() for p in part.parameters()) for name, part in model.named_children()}
    whole = sum(p.numel() for p in model.parameters())
    own = whole - sum(parts.values())
    return {**{name: count for name, count in parts.items() if count}, **({'rest': own} if own else {}),
            'together': whole}


@torch.no_grad()
def calls(model, shape, scale):
    """The calls to measure for an input of `shape` (h, w): {name: function}. They share one random picture."""
    torch.manual_seed(0)
    like = next(model.parameters())
    image, size = torch.rand(model.n_colors, *shape).to(like), target_size(shape, scale)
    encode = partial(Latents(model, image, None).encode, *((0, n) for n in shape))
    encoder, feat = model.encoder, encode()

    def decode():
        model.encoder = FixedFeatures(feat)
        try:
            upscale_whole(model, image, size)
        finally:
            model.encoder = encoder

    return {'encoding': torch.no_grad()(encode), 'decoding': decode,
            'whole picture': partial(upscale_whole, model, image, size)}


def profile(model, shape, scale):
    """The cost of each of `calls`: {name: (multiply-adds, seconds, bytes)}."""
    device = next(model.parameters()).device
    return {name: (flops(call) // 2, statistics.median(seconds(call, device) for _ in range(REPEATS)),
                   peak_bytes(call, device)) for name, call in calls(model, shape, scale).items()}


def report(name, shape, scale, counts, costs):
    """The numbers of a model, in Markdown."""
    parts = ', '.join(f'{part} {count:,}' for part, count in counts.items())
    rows = [[name, f'{count / 1e9:.4g}', f'{time:.3g}', f'{memory / 1e6:.0f}']
            for name, (count, time, memory) in costs.items()]
    return (f'{name}, {size_text(shape)} at x{scale:g}\n\nparameters: {parts}\n\n'
            + markdown(['', 'multiply-adds, G', 'seconds', 'peak memory, MB'], rows))


def main():
    args = parse_args()
    config = read_config(args.model) if args.model.endswith(('.yaml', '.yml')) else None
    device = measured_device(args.gpu)
    if config:
        set_precision(config.tf32)
    loader = loader_of(config, 'the length of the training') if config else None
    n_colors = loader.dataset.n_colors if loader else None
    with located(args.model):
        model = make_model(with_n_colors(config.model, n_colors or 3)) if config else load_pretrained(args.model)
    model = model.to(device).eval()
    print(machine(device))
    print(report(args.model, args.size, args.scale, parameters(model), profile(model, args.size, args.scale)))
    if config:
        size = int(config.train_dataset['batch_size'])
        rate = training_rate(config, Parallel(args.gpu), size, n_colors) / size
        days = config.epoch_max * len(loader) / rate / 86400 if loader else None
        until = f', {days:.3g} days to epoch {config.epoch_max}' if days else ''
        print(f'\ntraining: {rate:.3g} iterations/s{until}')


if __name__ == '__main__':
    run_cli(main)
