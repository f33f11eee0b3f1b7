"""From a test config to its numbers: images are predicted, scored by a convention, and the scores averaged."""

import dataclasses
import functools
import itertools
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

import datasets
from config import check_args, check_positive, load_yaml, parameters
from datasets.registry import registry
from errors import UserError, located
from files import file_name, writing
from metrics import TooSmall, metrics, parse_eval_type
from models import Bicubic, load
from models.decoder import Decoder
from models.geometry import all_queries
from models.normalisation import check_norm, norm_of, normalisations
from models.predict import check_channels, upscale_ensemble, upscale_whole
from models.pretrained import find
from pictures.modes import to_picture
from utils import to_float


def batched_predict(model: nn.Module, inp: torch.Tensor, coord: torch.Tensor, cell: torch.Tensor,
                    bsize: int) -> torch.Tensor:
    """`model(inp, coord, cell)`, (B, Q, C), without gradients and with `bsize` queries at a time."""
    with torch.no_grad():
        model.gen_feat(inp)
        chunks = zip(coord.split(bsize, dim=1), cell.split(bsize, dim=1), strict=True)
        return torch.cat([model.query_rgb(*chunk) for chunk in chunks], dim=1)


class Scored(NamedTuple):
    """One evaluated image: its `values` by the names of the metrics, prediction and truth in [0, 1].

    A value is nan for an image too small for the border that is ignored, and where the metric is not defined: SSIM for
    samples and for images smaller than its window.

    The images are (C, H, W) if the whole grid was queried, otherwise samples (Q, C).
    """
    values: dict[str, float]
    pred: torch.Tensor
    gt: torch.Tensor

    @property
    def psnr(self) -> float:
        """PSNR in dB."""
        return self.values['psnr']


def numbered(i: int) -> str:
    """The name of the i-th image in messages, where no better one is known."""
    return f'image {i + 1}'


def predictions(loader: Iterable[dict], model: nn.Module, data_norm: dict | None = None, eval_bsize: int | None = None,
                verbose: bool = False, where: Callable[[int], str] = numbered,
                upscale: Callable = upscale_whole) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yields each image's prediction and truth in [0, 1], with the shapes of `Scored`.

    A `Decoder` makes whole images with `upscale`, in little memory; otherwise `eval_bsize` queries are decoded at a
    time. Leaves the model in evaluation mode. UserError for a prediction that is not finite; `where` gives the
    name of the i-th image in it.
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
            with located(where(next(count))):
                pred = next(preds)
            yield pred, truth


def score(pred: torch.Tensor, gt: torch.Tensor, eval_type: str | None = None,
          names: Iterable[str] = ('psnr',)) -> Scored:
    """The `Scored` of one image by the metrics `names`, PSNR among them, and the convention of `eval_type`.

    TooSmall if the convention leaves nothing to compare.
    """
    if eval_type is not None and gt.dim() != 3:
        raise UserError(f'eval_type {eval_type} needs whole images: remove sample_q')
    convention = parse_eval_type(eval_type)

    def value(name):
        try:
            return metrics.classes[name](pred, gt, **convention).item()
        except TooSmall:
            if name == 'psnr':
                raise
            return math.nan

    with torch.autocast(gt.device.type, enabled=False):  # the model may run in bf16, the metrics never
        return Scored({name: value(name) for name in names}, pred, gt)


def eval_images(pairs: Iterable[tuple], eval_type: str | None = None, names: Iterable[str] = ('psnr',),
                where: Callable[[int], str] = numbered) -> Iterator[Scored]:
    """Yields the `Scored`, by the metrics `names`, of each of the `pairs` that `predictions` makes; `where`: see there.

    An image too small for the border of `eval_type` gets nan for all metrics, with a line on stderr; if all are,
    TooSmall is raised after the last.
    """
    scored, reason = False, None
    for i, (pred, gt) in enumerate(pairs):
        with located(where(i)):
            try:
                image, scored = score(pred, gt, eval_type, names), True
            except TooSmall as error:
                image, reason = Scored(dict.fromkeys(names, math.nan), pred, gt), f'{where(i)}: {error}'
                leave_out(reason)
        yield image
    if reason and not scored:
        raise TooSmall(reason)


@functools.cache  # once per run, not at each validation
def leave_out(reason: str) -> None:
    """Prints that an image is left out of the mean, and why."""
    tqdm.write(f'{reason}; it is left out of the mean', file=sys.stderr)


def eval_psnr(loader: Iterable[dict], model: nn.Module, data_norm: dict | None = None, eval_type: str | None = None,
              eval_bsize: int | None = None, verbose: bool = False) -> float:
    """The mean PSNR of the images in dB. `eval_type`: None, or 'div2k-4', 'benchmark-2', ... with any scale."""
    pairs = predictions(loader, model, data_norm, eval_bsize, verbose)
    return mean(image.psnr for image in eval_images(pairs, eval_type))


def mean(values: Iterable[float]) -> float:
    """The mean of the `values` that are not nan; nan if there are none."""
    known = [value for value in values if not math.isnan(value)]
    return math.fsum(known) / len(known) if known else math.nan


def save_image(image: torch.Tensor, path: Path) -> None:
    """Writes `image`, (3 or 1, H, W) in [0, 1], with 8 bits per channel."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with writing(path):
        to_picture(image, 'RGB' if len(image) == 3 else 'L').save(path)


def load_model(name: str | Path) -> nn.Module:
    """The model that commands know as `name`: 'bicubic', a name in pretrained/, or a checkpoint."""
    return Bicubic() if name == 'bicubic' else load(find(name))


def wrapper_scales(spec: dict) -> set[float]:
    """The bounds between which the data set's wrapper draws its scales, or its list of them; none for pairs."""
    args, wrapper = spec['wrapper'].get('args') or {}, registry.classes.get(spec['wrapper'].get('name'))
    least = parameters(wrapper).get('scale_min') if wrapper and args.get('scales') is None else None
    values = [args.get('scale_min', least and least.default), args.get('scale_max'), args.get('scales')]
    return {float(n) for value in values for n in (value if isinstance(value, list) else [value]) if n is not None}


def check_eval_type(eval_type: str | None, spec: dict, samples: Dataset) -> None:
    """Raises a UserError if `eval_type` does not suit the data set `spec`, whose `samples` the wrapper makes.

    A convention needs whole images, and ignores a border for one scale, which must be that of the images.
    """
    if eval_type and getattr(samples, 'sample_q', None):
        raise UserError(f'eval_type {eval_type} needs whole images: remove it, or sample_q')
    scales, border = wrapper_scales(spec), parse_eval_type(eval_type).get('scale')
    if border and len(scales) == 1 and scales != {border}:
        raise UserError(f'eval_type {eval_type} is for x{border:g}, but the images are reduced by x{scales.pop():g}: '
                        'make both the same')


@dataclasses.dataclass
class EvalConfig:
    """A test config. It is read once: a later change of its file does not change what is measured."""
    test_dataset: dict  # {dataset: spec, wrapper: spec, batch_size, num_workers}
    data_norm: dict | None = None  # {inp: {sub, div}, gt: {sub, div}}, for models that do not know their own
    eval_type: str | None = None  # div2k-SCALE or benchmark-SCALE; None compares everything
    eval_bsize: int | None = None  # queries decoded at a time
    path: str | Path = dataclasses.field(default='', init=False)  # of its file
    keys: dict = dataclasses.field(default_factory=dict, init=False)  # those above, from the file and --set

    def __post_init__(self):
        parse_eval_type(self.eval_type)
        check_norm(self.data_norm)
        check_positive(eval_bsize=self.eval_bsize)

    @classmethod
    def read(cls, path: str | Path, assignments: Sequence[str] = ()) -> 'EvalConfig':
        """The test config at `path`. `assignments`: the arguments of `--set`."""
        keys = load_yaml(path, assignments)
        with located(path):
            config = cls(**check_args(cls, keys))
        config.path, config.keys = path, keys
        return config

    def loader(self) -> DataLoader:
        """The loader of its images."""
        with located(self.path):
            loader = datasets.make_loader(self.test_dataset, seed=0)
            check_eval_type(self.eval_type, self.test_dataset, loader.dataset)
            return loader

    @property
    def scale(self) -> float | None:
        """The scale of all images: the wrapper's, or if it has none (pairs of images), that of the convention.

        None if there are several, as where height and width have different ones, or if neither has one.
        """
        scales = wrapper_scales(self.test_dataset) or {parse_eval_type(self.eval_type).get('scale')}
        return scales.pop() if len(scales) == 1 else None


def check_model(config: EvalConfig, model: nn.Module, n_colors: int) -> None:
    """Raises a UserError unless `model` and its data_norm, or else that of `config`, fit images of `n_colors`."""
    with located(config.path):
        with located('test_dataset'):
            check_channels(model, n_colors)
        check_norm(norm_of(model, config.data_norm), n_colors)


def evaluate(config: EvalConfig | str | Path, model: nn.Module, save_dir: str | Path | None = None,
             keep: Callable[[Scored], None] | None = None, name: str | None = None,
             self_ensemble: bool = False) -> dict:
    """The results on a test `config`, or the one at this path: each metric's mean, and its value for each image.

    If the model has the `data_norm` of its training, that is used instead of the config's. An image too small for the
    convention's border gets nan and is left out of the means, with a line on stderr; UserError if all are.

    `keep` is called with the `Scored` of each image, reduced to the channels that pictures show. `name`: the name of
    the config and of the folder with its pictures in `save_dir` (default: the config's stem). `self_ensemble`: predict
    with `upscale_ensemble`.
    """
    config = config if isinstance(config, EvalConfig) else EvalConfig.read(config)
    loader, path = config.loader(), config.path
    dataset, images, name = loader.dataset, loaded_names(loader), name or Path(path).stem
    for what, wanted in (('self-ensemble needs', self_ensemble), ('pictures need', save_dir or keep)):
        if wanted and dataset.sample_q:
            raise UserError(f'{path}: {what} whole images: remove sample_q')
    check_model(config, model, dataset.n_colors)

    def where(i):
        return f'{path}: {images[i]}'

    pairs = predictions(loader, model, norm_of(model, config.data_norm), config.eval_bsize, verbose=True, where=where,
                        upscale=upscale_ensemble if self_ensemble else upscale_whole)
    rows = []
    for image, scored in zip(images, eval_images(pairs, config.eval_type, metrics.classes, where), strict=True):
        rows.append({'image': image, **scored.values})
        if save_dir is not None:
            save_image(scored.pred[dataset.shown], Path(save_dir) / name / file_name(Path(image).stem, '.png'))
        if keep is not None:
            keep(scored._replace(pred=scored.pred[dataset.shown], gt=scored.gt[dataset.shown]))
    means = {key: mean(row[key] for row in rows) for key in metrics.classes}
    return {'config': str(path), 'name': name, 'scale': config.scale, 'keys': config.keys, **means, 'images': rows}


def loaded_names(loader: DataLoader) -> list[str]:
    """The names of the images that this process gets from `loader`, which does not shuffle, in their order."""
    names, batches = image_names(loader.dataset.dataset.files), loader.batch_sampler
    return [names[i % len(names)] for i in range(batches.rank, batches.length, batches.world)]


def image_names(files: Sequence[str | Path]) -> list[str]:
    """Names for the images in `files`: those of the files, numbered if several folders or formats share a name."""
    names = [Path(file).name for file in files]
    unique = len({Path(name).stem for name in names}) == len(names)
    return names if unique else [f'{i}-{name}' for i, name in enumerate(names, 1)]
