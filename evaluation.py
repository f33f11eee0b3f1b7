"""From a test config to its numbers: images are predicted, scored by a convention, and the scores averaged."""

import contextlib
import functools
import itertools
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
from models.geometry import all_queries
from models.normalisation import normalisations
from models.predict import check_channels, upscale_ensemble, upscale_whole
from pictures.modes import to_picture
from utils import TooSmall, calc_psnr, calc_ssim, parse_eval_type, to_float


def batched_predict(model: nn.Module, inp: torch.Tensor, coord: torch.Tensor, cell: torch.Tensor,
                    bsize: int) -> torch.Tensor:
    """`model(inp, coord, cell)`, (B, Q, C), without gradients and with `bsize` queries at a time."""
    with torch.no_grad():
        model.gen_feat(inp)
        chunks = zip(coord.split(bsize, dim=1), cell.split(bsize, dim=1), strict=True)
        return torch.cat([model.query_rgb(*chunk) for chunk in chunks], dim=1)


class Scored(NamedTuple):
    """One evaluated image: PSNR in dB, SSIM, prediction and truth in [0, 1].

    SSIM is None unless it is asked for, and nan for samples and for images with too few pixels for its window.

    The images are (C, H, W) if the whole grid was queried, otherwise samples (Q, C).
    """
    psnr: float
    ssim: float | None
    pred: torch.Tensor
    gt: torch.Tensor


def predictions(loader: Iterable[dict], model: nn.Module, data_norm: dict | None = None, eval_bsize: int | None = None,
                verbose: bool = False, upscale: Callable = upscale_whole,
                where: Callable[[int], str] | None = None) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yields each image's prediction and truth in [0, 1], with the shapes of `Scored`.

    A `Decoder` makes whole images with `upscale`, in little memory; otherwise `eval_bsize` queries are decoded at a
    time. UserError for a prediction that is not finite; `where` gives the name of the i-th image for it.
    """
    device = next((p.device for p in model.parameters()), torch.device('cpu'))
    inp_norm, gt_norm = normalisations(data_norm, device)
    model.eval()
    count = itertools.count()
    for batch in tqdm(loader, desc='val', leave=False, disable=not verbose):
        batch = {k: v.to(device, non_blocking=True) for k, v in batch.items()}
        gt = to_float(batch['gt'])
        if 'coord' not in batch and isinstance(model, Decoder):
            preds = (upscale(model, inp, tuple(gt.shape[-2:]), data_norm).to(device) for inp in batch['inp'])
        else:
            queries = (batch['coord'], batch['cell']) if 'coord' in batch else all_queries(gt.shape[-2:], len(gt), gt)
            args = inp_norm.apply(to_float(batch['inp'])), *queries
            with torch.no_grad():
                preds = model(*args) if eval_bsize is None else batched_predict(model, *args, eval_bsize)
            preds = (gt_norm.colours(pred)[0] for pred in preds.split(1))
            if 'coord' not in batch:
                preds = (pred.t().reshape(gt.shape[1:]) for pred in preds)
        for truth in gt:
            with located(where(next(count))) if where else contextlib.nullcontext():
                pred = next(preds)
            yield pred, truth


def score(pred: torch.Tensor, gt: torch.Tensor, eval_type: str | None = None, ssim: bool = False) -> Scored:
    """The `Scored` of one image, by the convention of `eval_type`."""
    if eval_type is not None and gt.dim() != 3:
        raise UserError(f'eval_type {eval_type} needs whole images: remove sample_q')
    convention = parse_eval_type(eval_type)
    with torch.autocast(gt.device.type, enabled=False):  # the model may run in bf16, the metrics never
        psnr = calc_psnr(pred, gt, **convention).item()
        similarity = None
        if ssim:
            try:
                similarity = calc_ssim(pred[None], gt[None], **convention).item() if gt.dim() == 3 else math.nan
            except UserError:  # too few pixels
                similarity = math.nan
    return Scored(psnr, similarity, pred, gt)


def eval_images(loader: Iterable[dict], model: nn.Module, data_norm: dict | None = None, eval_type: str | None = None,
                eval_bsize: int | None = None, verbose: bool = False,
                where: Callable[[int], str] | None = None) -> Iterator[Scored]:
    """Yields the `Scored` of each image, without SSIM; arguments as in `eval_psnr`.

    With `where`, which gives the name of the i-th image, images too small for their border are named, once, and left
    out; otherwise they raise `TooSmall`.
    """
    for i, (pred, gt) in enumerate(predictions(loader, model, data_norm, eval_bsize, verbose, where=where)):
        try:
            yield score(pred, gt, eval_type)
        except TooSmall as error:
            if where is None:
                raise
            leave_out(f'{where(i)}: {error}')


@functools.cache  # once per run, not at each validation
def leave_out(reason: str) -> None:
    """Prints that an image is left out of the mean, and why."""
    tqdm.write(f'{reason}; it is left out of the mean', file=sys.stderr)


def eval_psnr(loader: Iterable[dict], model: nn.Module, data_norm: dict | None = None, eval_type: str | None = None,
              eval_bsize: int | None = None, verbose: bool = False) -> float:
    """The mean PSNR of the images in dB. `eval_type`: None, or 'div2k-4', 'benchmark-2', ... with any scale."""
    values = [scored.psnr for scored in eval_images(loader, model, data_norm, eval_type, eval_bsize, verbose)]
    return sum(values) / len(values)


def save_image(image: torch.Tensor, path: Path) -> None:
    """Writes `image`, (3 or 1, H, W) in [0, 1], with 8 bits per channel."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with writing(path):
        to_picture(image, 'RGB' if len(image) == 3 else 'L').save(path)


def config_keys(test_dataset: dict, data_norm: dict | None = None, eval_type: str | None = None,
                eval_bsize: int | None = None) -> tuple:
    """The keys of a test config, for `check_args`, with their values checked."""
    parse_eval_type(eval_type)
    check_norm(data_norm)
    check_positive(eval_bsize=eval_bsize)
    return test_dataset, data_norm, eval_type, eval_bsize


def read_keys(path: str | Path, assignments: Sequence[str] = ()) -> dict:
    """The keys of the test config at `path`, changed by the `assignments` of `--set` (`config.set_key`)."""
    keys = load_yaml(path)
    for assignment in assignments:
        set_key(keys, assignment)
    return keys


def scale_of(config):
    """The scale of a test config: that of its convention, otherwise that of its wrapper; None if neither has one.

    If height and width have different scales, it is the larger one.
    """
    if config.get('eval_type'):
        return parse_eval_type(config['eval_type'])['scale']
    scale = (config['test_dataset']['wrapper'].get('args') or {}).get('scale_min')
    return scale and max(map(float, scale if isinstance(scale, list) else [scale]))


def open_config(path: str | Path, assignments: Sequence[str] = ()) -> tuple:
    """The loader for the test config at `path`, and its data_norm, eval_type and eval_bsize.

    `assignments`: the arguments of `--set` (`config.set_key`).
    """
    keys = read_keys(path, assignments)
    with located(path):
        test_dataset, *rest = config_keys(**check_args(config_keys, keys))
        return datasets.make_loader(test_dataset, seed=0), *rest


def norm_of(model: nn.Module, data_norm: dict | None) -> dict | None:
    """The `data_norm` of the training of `model`, if its checkpoint records one, or else the given one."""
    return vars(model).get('data_norm', data_norm)  # the class has one, too: that of checkpoints that record none


def mean(values: Iterable[float]) -> float:
    """The mean of the `values` that are not nan; nan if there are none."""
    known = [value for value in values if not math.isnan(value)]
    return math.fsum(known) / len(known) if known else math.nan


def evaluate(path: str | Path, model: nn.Module, save_dir: str | Path | None = None,
             keep: Callable[[Scored], None] | None = None, name: str | None = None,
             self_ensemble: bool = False, assignments: Sequence[str] = ()) -> dict:
    """The results on the test config at `path`: mean PSNR and SSIM, and those of each image.

    If the model has the `data_norm` of its training, that is used instead of the config's. An image too small for the
    convention's border gets nan for both and is left out of the means, with a line on stderr; UserError if all are.

    `keep` is called with the `Scored` of each image, reduced to the channels that pictures show. `name`: the name of
    the config and of the folder with its pictures in `save_dir` (default: the config's stem). `self_ensemble`: predict
    with `upscale_ensemble`. `assignments`: see `open_config`.
    """
    loader, data_norm, eval_type, eval_bsize = open_config(path, assignments)
    shown = loader.dataset.shown
    with located(f'{path}: test_dataset'):
        check_channels(model, loader.dataset.n_colors)
    data_norm = norm_of(model, data_norm)
    check_norm(data_norm, loader.dataset.n_colors)
    images, rows, name = image_names(loader.dataset.dataset.files), [], name or Path(path).stem
    upscale = upscale_ensemble if self_ensemble else upscale_whole

    def where(i):
        return f'{path}: {images[i % len(images)]}'

    for i, (pred, gt) in enumerate(predictions(loader, model, data_norm, eval_bsize, True, upscale, where)):
        image = images[i % len(images)]
        with located(where(i)):
            if (save_dir or keep) and pred.dim() != 3:
                raise UserError('pictures need whole images: remove sample_q')
            try:
                scored = score(pred, gt, eval_type, ssim=True)
            except TooSmall as error:
                scored, reason = Scored(math.nan, math.nan, pred, gt), f'{where(i)}: {error}'
                leave_out(reason)
        rows.append({'image': image, 'psnr': scored.psnr, 'ssim': scored.ssim})
        if save_dir is not None:
            save_image(pred[shown], Path(save_dir) / name / f'{Path(image).stem}.png')
        if keep is not None:
            keep(scored._replace(pred=pred[shown], gt=gt[shown]))
    if all(math.isnan(row['psnr']) for row in rows):
        raise UserError(reason)
    means = {key: mean(row[key] for row in rows) for key in ('psnr', 'ssim')}
    keys = read_keys(path, assignments)
    return {'config': str(path), 'name': name, 'scale': scale_of(keys), 'keys': keys, **means, 'images': rows}


def image_names(files: Sequence[str | Path]) -> list[str]:
    """Names for the images in `files`: those of the files, numbered if several folders or formats share a name."""
    names = [Path(file).name for file in files]
    unique = len({Path(name).stem for name in names}) == len(names)
    return names if unique else [f'{i}-{name}' for i, name in enumerate(names, 1)]
