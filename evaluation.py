"""From a test config to its numbers: each image is predicted, scored by a convention, and averaged."""

import functools
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn
from tqdm import tqdm

import datasets
from config import check_args, check_norm, check_positive, load_yaml, set_key
from errors import UserError, located
from files import writing
from models.decoder import Decoder
from models.predict import check_channels, normalisations, upscale_ensemble, upscale_whole
from pictures.modes import to_picture
from utils import TooSmall, calc_psnr, calc_ssim, make_coord, parse_eval_type, to_float


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

    `keep`, a function, is called with every image's `Scored`, of the channels that pictures show. `name`: of the config
    and, in `save_dir`, of the folder with its pictures (default: its stem). `self_ensemble`: the predictions are
    `upscale_ensemble`'s. `assignments`: see `open_config`.
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
