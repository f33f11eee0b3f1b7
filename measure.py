"""From the options of test.py to what it tells: a model is measured on each config; a table, a JSON file, a page."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from evaluation import evaluate, open_config
from files import atomic_write
from models.bicubic import Bicubic
from models.decoder import Decoder
from models.parallel import has_bf16, mixed_precision, pick_device, set_precision
from models.predict import set_tile
from models.pretrained import load_pretrained
from utils import UserError, number_text, to_json


def short_names(paths: Sequence[str | Path]) -> list[str]:
    """What to call the files `paths`, no two of which are one: their stems, after as many folders as tell all apart."""
    whole = [Path(os.path.abspath(path)) for path in paths]
    stems = [path.with_suffix('') for path in whole]
    parts = [path.parts[1:] for path in (stems if len({*stems}) == len(stems) else whole)]
    count = next(n for n in range(1, max(map(len, parts)) + 1) if len({p[-n:] for p in parts}) == len(parts))
    return ['/'.join(p[-count:]) for p in parts]


def supplied(paths: Sequence[str]) -> list[str]:
    """In place of the test configs `paths` those of the same sets' own low-resolution files, where there are any."""
    found = {path: Path(path).parent / 'supplied-lr' / Path(path).name for path in paths}
    for path, other in found.items():
        if not other.exists():
            print(f'{path} is left out: there is no {other}', file=sys.stderr)
    others = [str(other) for other in found.values() if other.exists()]
    if not others:
        raise UserError('--lr supplied: none of these sets has low-resolution files of its own at these scales')
    return others


def open_model(args: argparse.Namespace, device: torch.device) -> Decoder | Bicubic:
    """The model that test.py's options name, as they want it."""
    model = Bicubic() if args.model == 'bicubic' else load_pretrained(args.model).to(device)
    if args.tile is not None:
        set_tile(model, args.tile)
    if args.max_cell_scale != 'own':
        model.max_cell_scale = args.max_cell_scale
    return model


def conditions(args: argparse.Namespace, model: Decoder | Bicubic, device: torch.device) -> dict:
    """What else than the configs the numbers depend on, for the JSON file."""
    return {'model': args.model, 'lr': args.lr, 'set': args.set, 'self_ensemble': args.self_ensemble,
            'max_cell_scale': getattr(model, 'max_cell_scale', None), 'tile': args.tile,
            'precision': 'bf16' if args.amp and has_bf16(device) else 'float32'}


def measure(args: argparse.Namespace) -> None:
    """What test.py does with its options."""
    device = pick_device(args.gpu)
    set_precision(tf32=False)
    model = open_model(args, device)
    precision = mixed_precision(device, args.amp)
    results, report = [], None
    paths = list({os.path.abspath(path): path for path in args.config}.values())
    if args.lr == 'supplied':
        paths = supplied(paths)
    assignments = [*(['test_dataset.wrapper.args.reduction=matlab'] if args.lr == 'matlab' else []), *args.set]
    for path in paths:
        open_config(path, assignments)  # what is wrong with the last is told before the first takes its hours
    if args.json:
        Path(args.json).parent.mkdir(parents=True, exist_ok=True)
    if args.report:
        from scripts.report import Report  # its libraries take longer to import than all others here
        report = Report(args.report)
    for path, name in zip(paths, short_names(paths), strict=True):
        with precision:
            results.append(evaluate(path, model, args.save_dir, report and report.keep_ours, name, args.self_ensemble,
                                    assignments))
        if report:
            bicubic = evaluate(path, Bicubic(), keep=report.keep_bicubic, name=name, assignments=assignments)
            report.add(results[-1], bicubic)
        if args.json:
            with atomic_write(args.json) as file:
                file.write(to_json({**conditions(args, model, device), 'results': results}, indent=1).encode())
        psnr, ssim = (number_text(results[-1][key]) for key in ('psnr', 'ssim'))
        if len(paths) > 1:
            print(f'{name:24s} PSNR {psnr:>8s}   SSIM {ssim}')
    if len(results) == 1:
        print(f'result: {psnr}')
        print(f'SSIM: {ssim}')
    if report:
        print(f'report: {report.write(model, args.model, device)}')
