"""Measures a model's PSNR, SSIM and other metrics on the datasets of test configs.

    python test.py --config configs/test/test-set5-2.yaml --model save/_train_edsr-baseline-A-liif/epoch-last.pth
    python test.py --config configs/test/test-set5-*.yaml --model bicubic --gpu cpu --json set5.json

With one config it prints `result: PSNR`, with several a table. `--model bicubic` measures bicubic interpolation.
"""

import argparse
import math
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from cli import add_gpu_option, add_import_option, run_cli


def scale_or_none(text: str) -> float | None:
    """A scale of at least 1, or None for 'none'."""
    if text == 'none':
        return None
    scale = float(text)
    if not 1 <= scale < math.inf:
        raise argparse.ArgumentTypeError(f'must be at least 1, or none, not {text}')
    return scale


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--config', nargs='+', required=True, help='test configs')
    parser.add_argument('--model', required=True, help="a checkpoint, a name in pretrained/, or 'bicubic'")
    add_gpu_option(parser)
    parser.add_argument('--save-dir', help='write the predictions here, in a folder for each config')
    parser.add_argument('--json', help='write the numbers here, also those of each image')
    parser.add_argument('--report', help='write a page with tables, charts and pictures to this folder')
    parser.add_argument('--amp', choices=['bf16'], help='mixed precision (default: float32)')
    parser.add_argument('--lr', choices=['pillow', 'matlab', 'supplied'], default='pillow',
                        help="source of the low-resolution images: downsampled here, by Pillow or like MATLAB's "
                             'imresize, or the files supplied with the set (x2, x3, x4)')
    parser.add_argument('--jpeg', type=int, metavar='QUALITY',
                        help='compress the images downsampled here as JPEG of this quality, 1 to 100')
    parser.add_argument('--set', action='append', default=[], metavar='KEY=VALUE',
                        help='override a key of each config, e.g. eval_type=div2k-4; repeatable')
    parser.add_argument('--self-ensemble', action='store_true', help='average over 8 flips and transposes (EDSR+)')
    parser.add_argument('--tile', type=int, metavar='N',
                        help='run SwinIR on tiles of N pixels, a multiple of 8: less memory, approximate')
    parser.add_argument('--max-cell-scale', type=scale_or_none, default=argparse.SUPPRESS, metavar='SCALE',
                        help='at larger scales, give the model the cell of this scale; none: no bound '
                             '(default: for LTE, LM-LIIF and LM-LTE the largest scale of their training, else none)')
    add_import_option(parser)
    return parser.parse_args()


if __name__ == '__main__':
    run_cli(parse_args)  # so that --help and wrong options do not wait for the import of PyTorch, which takes seconds

import torch
from torch import nn

import models
from devices import has_bf16, mixed_precision, pick_device
from errors import UserError
from evaluation import EvalConfig, batched_predict, check_model, eval_psnr, evaluate, load_model  # noqa: F401  two are for those who import them from here
from files import make_place
from metrics import metrics
from models.decoder import Decoder
from models.predict import set_tile
from utils import number_text, write_json


def short_names(paths: Sequence[str | Path]) -> list[str]:
    """Names for the different files `paths`: their stems, after as many folders as are needed to distinguish them."""
    whole = [Path(os.path.abspath(path)) for path in paths]
    stems = [path.with_suffix('') for path in whole]
    parts = [path.parts[1:] for path in (stems if len({*stems}) == len(stems) else whole)]
    count = next(n for n in range(1, max(map(len, parts)) + 1) if len({p[-n:] for p in parts}) == len(parts))
    return ['/'.join(p[-count:]) for p in parts]


def supplied(paths: Sequence[str]) -> list[str]:
    """The configs for the low-resolution files supplied with the sets of the test configs `paths`, where they exist."""
    found = {path: Path(path).parent / 'supplied-lr' / Path(path).name for path in paths}
    for path, other in found.items():
        if not other.exists():
            print(f'{path} is left out: there is no {other}', file=sys.stderr)
    others = [str(other) for other in found.values() if other.exists()]
    if not others:
        raise UserError('--lr supplied: none of these sets supplies low-resolution files at these scales')
    return others


def open_model(args: argparse.Namespace, device: torch.device) -> nn.Module:
    """The model that test.py's options name, set up as they say."""
    model = load_model(args.model).to(device)
    if args.tile is not None:
        set_tile(model, args.tile)
    if args.self_ensemble and not isinstance(model, Decoder):
        raise UserError(f'--self-ensemble needs a models.decoder.Decoder, which {args.model} is not')
    if 'max_cell_scale' in args:
        if getattr(model, 'scale_max', None) is None:
            raise UserError(f'--max-cell-scale: the cells of {args.model} have no bound; omit this option')
        model.clip_cell, model.scale_max = args.max_cell_scale is not None, args.max_cell_scale
    return model


def conditions(args: argparse.Namespace, model: nn.Module, device: torch.device) -> dict:
    """What the numbers depend on besides the configs, for the JSON file."""
    return {'model': args.model, 'lr': args.lr, 'jpeg': args.jpeg, 'set': args.set, 'self_ensemble': args.self_ensemble,
            'max_cell_scale': model.scale_max if getattr(model, 'clip_cell', False) else None, 'tile': args.tile,
            'precision': 'bf16' if args.amp and has_bf16(device) else 'float32'}


def low_resolution(lr: str, jpeg: int | None) -> list[str]:
    """What the options --lr and --jpeg change in each test config, as assignments for `EvalConfig.read`."""
    changes = ['args.reduction=matlab'] if lr == 'matlab' else []
    if jpeg is not None:
        if lr == 'supplied':
            raise UserError('--jpeg compresses images that are downsampled here, not the files of --lr supplied')
        changes += ['name=sr-implicit-degraded', 'args.jpeg=1', f'args.quality={jpeg}']
    return [f'test_dataset.wrapper.{change}' for change in changes]


def check_options(args: argparse.Namespace, config: EvalConfig, model: nn.Module) -> None:
    """Raises a UserError if `model` cannot be measured by `config`, or if an option of test.py has no effect on it."""
    dataset = config.loader().dataset
    check_model(config, model, dataset.n_colors)
    whole = {'--self-ensemble': args.self_ensemble, '--tile': args.tile, '--max-cell-scale': 'max_cell_scale' in args,
             '--save-dir': args.save_dir, '--report': args.report}
    if given := [option for option, value in whole.items() if value and dataset.sample_q]:
        raise UserError(f'{config.path}: {given[0]} is for whole images: remove sample_q')


def main() -> None:
    args = parse_args()
    device = pick_device(args.gpu)
    model = open_model(args, device)
    precision = mixed_precision(device, args.amp)
    results, report = [], None
    paths = list({os.path.abspath(path): path for path in args.config}.values())
    if args.lr == 'supplied':
        paths = supplied(paths)
    assignments = [*low_resolution(args.lr, args.jpeg), *args.set]
    configs = [EvalConfig.read(path, assignments) for path in paths]
    for config in configs:  # a mistake in the last one is reported before the first one takes hours
        check_options(args, config, model)
    if args.json:
        make_place(args.json)
    if args.report:
        from scripts.report import Report  # its libraries take longer to import than all others here
        report = Report(args.report)
    for config, name in zip(configs, short_names(paths), strict=True):
        with precision:
            results.append(evaluate(config, model, args.save_dir, report and report.keep_ours, name,
                                    args.self_ensemble))
        if report:
            report.add(results[-1], evaluate(config, models.Bicubic(), keep=report.keep_bicubic, name=name))
        if args.json:
            write_json(args.json, {**conditions(args, model, device), 'results': results})
        values = {metric.upper(): number_text(results[-1][metric]) for metric in metrics.classes}
        if len(paths) > 1:
            print(f'{name:24s}', '   '.join(f'{metric} {value:>{8 if metric == "PSNR" else 0}s}'
                                            for metric, value in values.items()))
    if len(results) == 1:
        print('result:', values.pop('PSNR'))
        print(*(f'{metric}: {value}' for metric, value in values.items()), sep='\n')
    if report:
        print(f'report: {report.write(model, args.model, device)}')


if __name__ == '__main__':
    run_cli(main)
