"""Measures a model's PSNR and SSIM on the datasets of test configs.

    python test.py --config configs/test/test-set5-2.yaml --model save/_train_edsr-baseline-A-liif/epoch-last.pth
    python test.py --config configs/test/test-set5-*.yaml --model bicubic --gpu cpu --json set5.json

One config prints `result: PSNR`, several a table. `--model bicubic` measures bicubic interpolation itself.
"""

import argparse
import functools
import math
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn
from tqdm import tqdm

import datasets
import models
from cli import add_import_option
from config import check_args, check_norm, check_positive, load_yaml, set_key
from files import atomic_write, writing
from models.decoder import Decoder
from models.parallel import mixed_precision, pick_device, set_precision
from models.predict import check_channels, normalisations, set_tile, upscale_ensemble, upscale_whole
from pictures.modes import to_picture
from utils import (
    TooSmall,
    UserError,
    calc_psnr,
    calc_ssim,
    located,
    make_coord,
    number_text,
    parse_eval_type,
    run_cli,
    to_float,
    to_json,
)


def batched_predict(model: nn.Module, inp: torch.Tensor, coord: torch.Tensor, cell: torch.Tensor,
                    bsize: int) -> torch.Tensor:
    """`model(inp, coord, cell)`, (B, Q, C), without gradients and with `bsize` queries at a time."""
    with torch.no_grad():
        model.gen_feat(inp)
        chunks = zip(coord.split(bsize, dim=1), cell.split(bsize, dim=1), strict=True)
        return torch.cat([model.query_rgb(*chunk) for chunk in chunks], dim=1)


class Scored(NamedTuple):
    """One evaluated image: PSNR in dB, SSIM, prediction and truth in [0, 1].

    SSIM is None unless it is asked for, and nan where there are samples, or too few pixels for its window.

    The images are (C, H, W) where the whole grid was queried, else samples (Q, C).
    """
    psnr: float
    ssim: float | None
    pred: torch.Tensor
    gt: torch.Tensor


def predictions(loader: Iterable[dict], model: nn.Module, data_norm: dict | None = None, eval_bsize: int | None = None,
                verbose: bool = False,
                upscale: Callable = upscale_whole) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yields for each image its prediction and truth in [0, 1], as `Scored` has them.

    A `Decoder` makes whole images by `upscale`, in little memory; else `eval_bsize` queries are decoded at a time.
    """
    device = next((p.device for p in model.parameters()), torch.device('cpu'))
    inp_norm, gt_norm = normalisations(data_norm, device)
    model.eval()
    for batch in tqdm(loader, desc='val', leave=False, disable=not verbose):
        batch = {k: v.to(device, non_blocking=True) for k, v in batch.items()}
        gt = to_float(batch['gt'])
        if 'coord' not in batch and isinstance(model, Decoder):
            preds = (upscale(model, inp, tuple(gt.shape[-2:]), data_norm).to(device) for inp in batch['inp'])
        else:
            queries = (batch['coord'], batch['cell']) if 'coord' in batch else all_queries(gt)
            args = inp_norm.apply(to_float(batch['inp'])), *queries
            with torch.no_grad():
                preds = model(*args) if eval_bsize is None else batched_predict(model, *args, eval_bsize)
            preds = gt_norm.undo(preds).clamp_(0, 1)
            if 'coord' not in batch:
                preds = preds.transpose(1, 2).reshape(gt.shape)
        yield from zip(preds, gt, strict=True)


def all_queries(gt: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Coordinates and cells, (B, H*W, 2) each, of all pixels of the targets `gt` (B, C, H, W), row by row."""
    size = gt.shape[-2:]
    coord = make_coord(size).to(gt.device).expand(len(gt), -1, 2)
    return coord, coord.new_tensor([2 / n for n in size]).expand_as(coord)


def score(pred: torch.Tensor, gt: torch.Tensor, eval_type: str | None = None, ssim: bool = False) -> Scored:
    """One image's `Scored`, by the convention of `eval_type`."""
    if eval_type is not None and gt.dim() != 3:
        raise UserError(f'eval_type {eval_type} needs whole images: take out sample_q')
    convention = parse_eval_type(eval_type)
    with torch.autocast(gt.device.type, enabled=False):  # what is measured may be in bf16, the measure never
        psnr = calc_psnr(pred, gt, **convention).item()
        similarity = None
        if ssim:
            try:
                similarity = calc_ssim(pred[None], gt[None], **convention).item()
            except UserError:  # samples, or too few pixels
                similarity = math.nan
    return Scored(psnr, similarity, pred, gt)


def eval_images(loader: Iterable[dict], model: nn.Module, data_norm: dict | None = None, eval_type: str | None = None,
                eval_bsize: int | None = None, verbose: bool = False,
                where: Callable[[int], str] | None = None) -> Iterator[Scored]:
    """Yields each image's `Scored`, without SSIM; arguments as `eval_psnr`'s.

    With `where`, which says what to call the i-th image, one too small for its border is named, once, and left out;
    else it is a `TooSmall`.
    """
    for i, (pred, gt) in enumerate(predictions(loader, model, data_norm, eval_bsize, verbose)):
        try:
            yield score(pred, gt, eval_type)
        except TooSmall as error:
            if where is None:
                raise
            leave_out(f'{where(i)}: {error}')


@functools.cache  # once a run, not at each of its validations
def leave_out(reason: str) -> None:
    """Says that an image is left out of the mean, and why."""
    tqdm.write(f'{reason}; it is left out of the mean', file=sys.stderr)


def eval_psnr(loader: Iterable[dict], model: nn.Module, data_norm: dict | None = None, eval_type: str | None = None,
              eval_bsize: int | None = None, verbose: bool = False) -> float:
    """The mean of the images' PSNR in dB (a float). `eval_type`: None, 'div2k-4', 'benchmark-2', any scale."""
    values = [scored.psnr for scored in eval_images(loader, model, data_norm, eval_type, eval_bsize, verbose)]
    return sum(values) / len(values)


def save_image(image: torch.Tensor, path: Path) -> None:
    """Writes `image`, (3 or 1, H, W) in [0, 1], as 8 bit."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with writing(path):
        to_picture(image, 'RGB' if len(image) == 3 else 'L').save(path)


def config_keys(test_dataset: dict, data_norm: dict | None = None, eval_type: str | None = None,
                eval_bsize: int | None = None) -> tuple:
    """A test config's keys, checked by `check_args`."""
    parse_eval_type(eval_type)
    check_norm(data_norm)
    check_positive(eval_bsize=eval_bsize)
    return test_dataset, data_norm, eval_type, eval_bsize


def open_config(path: str | Path, assignments: Sequence[str] = ()) -> tuple:
    """The loader of the test config at `path`, and its data_norm, eval_type and eval_bsize.

    `assignments`: those of `--set` (`config.set_key`).
    """
    keys = load_yaml(path)
    for assignment in assignments:
        set_key(keys, assignment)
    with located(path):
        test_dataset, *rest = config_keys(**check_args(config_keys, keys))
        return datasets.make_loader(test_dataset, seed=0), *rest


def short_names(paths: Sequence[str | Path]) -> list[str]:
    """What to call the files `paths`, no two of which are one: their stems, after as many folders as tell all apart."""
    whole = [Path(os.path.abspath(path)) for path in paths]
    stems = [path.with_suffix('') for path in whole]
    parts = [path.parts[1:] for path in (stems if len({*stems}) == len(stems) else whole)]
    count = next(n for n in range(1, max(map(len, parts)) + 1) if len({p[-n:] for p in parts}) == len(parts))
    return ['/'.join(p[-count:]) for p in parts]


def check_finite(pred: torch.Tensor) -> None:
    """Raises a UserError where the prediction `pred` is not finite."""
    if not pred.isfinite().all():
        raise UserError('the prediction is not finite (NaN): its weights or, with --amp, its precision are to blame')


def mean(values: Iterable[float]) -> float:
    """The mean of those `values` that are not nan; nan where there are none."""
    known = [value for value in values if not math.isnan(value)]
    return math.fsum(known) / len(known) if known else math.nan


def evaluate(path: str | Path, model: nn.Module, save_dir: str | Path | None = None,
             keep: Callable[[Scored], None] | None = None, name: str | None = None,
             self_ensemble: bool = False, assignments: Sequence[str] = ()) -> dict:
    """The results on the test config at `path`: its means of PSNR and SSIM, and each image's.

    A model that knows the `data_norm` of its training has its own, not the config's. An image too small for the
    convention's border has nan for both, and no part in the means; a line on stderr says so. UserError where all are.

    `keep`, a function, is called with every image's `Scored`, of the channels that pictures show. `name`: of
    the config and, in `save_dir`, of the folder with its pictures (default: its stem).
    `self_ensemble`: the predictions are `upscale_ensemble`'s. `assignments`: see `open_config`.
    """
    loader, data_norm, eval_type, eval_bsize = open_config(path, assignments)
    shown = loader.dataset.shown
    with located(f'{path}: test_dataset'):
        check_channels(model, loader.dataset.n_colors)
    data_norm = vars(model).get('data_norm', data_norm)
    check_norm(data_norm, loader.dataset.n_colors)
    images, rows, name = image_names(loader.dataset.dataset.files), [], name or Path(path).stem
    upscale = upscale_ensemble if self_ensemble else upscale_whole
    for i, (pred, gt) in enumerate(predictions(loader, model, data_norm, eval_bsize, verbose=True, upscale=upscale)):
        image = images[i % len(images)]
        with located(f'{path}: {image}'):
            if (save_dir or keep) and pred.dim() != 3:
                raise UserError('pictures need whole images: take out sample_q')
            check_finite(pred)
            try:
                scored = score(pred, gt, eval_type, ssim=True)
            except TooSmall as error:
                scored, reason = Scored(math.nan, math.nan, pred, gt), f'{path}: {image}: {error}'
                leave_out(reason)
        rows.append({'image': image, 'psnr': scored.psnr, 'ssim': scored.ssim})
        if save_dir is not None:
            save_image(pred[shown], Path(save_dir) / name / f'{Path(image).stem}.png')
        if keep is not None:
            keep(scored._replace(pred=pred[shown], gt=gt[shown]))
    if all(math.isnan(row['psnr']) for row in rows):
        raise UserError(reason)
    means = {key: mean(row[key] for row in rows) for key in ('psnr', 'ssim')}
    return {'config': str(path), 'name': name, **means, 'images': rows}


def image_names(files: Sequence[str | Path]) -> list[str]:
    """What to call the images in `files`: their names, after a number where several folders or formats share one."""
    names = [Path(file).name for file in files]
    unique = len({Path(name).stem for name in names}) == len(names)
    return names if unique else [f'{i}-{name}' for i, name in enumerate(names, 1)]


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


def scale_or_none(text: str) -> float | None:
    """A scale of at least 1, or None for 'none'."""
    if text in ('own', 'none'):
        return text if text == 'own' else None
    scale = float(text)
    if not 1 <= scale < math.inf:
        raise argparse.ArgumentTypeError(f'must be at least 1, or none, not {text}')
    return scale


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--config', nargs='+', required=True, help='test configs')
    parser.add_argument('--model', required=True, help="a checkpoint, a name in pretrained/, or 'bicubic'")
    parser.add_argument('--gpu', default='0', help="index of the GPU, or 'cpu'")
    parser.add_argument('--save-dir', help='writes the predictions here, a folder for each config')
    parser.add_argument('--json', help="writes the numbers here, each image's too")
    parser.add_argument('--report', help='writes a page with tables, charts and pictures to this folder')
    parser.add_argument('--amp', choices=['bf16'], help='mixed precision (default: float32)')
    parser.add_argument('--lr', choices=['pillow', 'matlab', 'supplied'], default='pillow',
                        help="where low resolution comes from: reduced here, by Pillow or as by MATLAB's imresize, or "
                             'files that came with the set (x2, x3, x4)')
    parser.add_argument('--set', action='append', default=[], metavar='KEY=VALUE',
                        help='in place of a key of each config, as eval_type=div2k-4; repeatable')
    parser.add_argument('--self-ensemble', action='store_true', help='the mean over 8 flips and transposes (EDSR+)')
    parser.add_argument('--tile', type=int, metavar='N',
                        help='SwinIR sees images in tiles of N pixels, a multiple of 8: less memory, approximate')
    parser.add_argument('--max-cell-scale', type=scale_or_none, default='own', metavar='SCALE',
                        help="at larger scales the model sees this one's cell; none: no bound "
                             "(default: the model's own, 4 for LTE and LM-LIIF, none for LIIF and A-LIIF)")
    add_import_option(parser)
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    device = pick_device(args.gpu)
    set_precision(tf32=False)
    model = models.Bicubic() if args.model == 'bicubic' else models.load_pretrained(args.model).to(device)
    if args.tile is not None:
        set_tile(model, args.tile)
    if args.max_cell_scale != 'own':
        model.max_cell_scale = args.max_cell_scale
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
            bicubic = evaluate(path, models.Bicubic(), keep=report.keep_bicubic, name=name, assignments=assignments)
            report.add(results[-1], bicubic)
        if args.json:
            with atomic_write(args.json) as file:
                file.write(to_json({'model': args.model, 'results': results}, indent=1).encode())
        psnr, ssim = (number_text(results[-1][key]) for key in ('psnr', 'ssim'))
        if len(paths) > 1:
            print(f'{name:24s} PSNR {psnr:>8s}   SSIM {ssim}')
    if len(results) == 1:
        print(f'result: {psnr}')
        print(f'SSIM: {ssim}')
    if report:
        print(f'report: {report.write(model, args.model, device)}')


if __name__ == '__main__':
    run_cli(main)
