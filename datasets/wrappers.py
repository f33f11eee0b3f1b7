"""Training and test samples cut from images: a low-resolution input and queries of the target.

All random choices for a sample (scale, crop, flips, queries, in this order) come from a generator of its own; only the
scale that the samples of a dense batch share comes from one that is seeded by the batch.
"""

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch.utils.data import Dataset

from config import check_positive
from datasets.arrays import check_pixels
from datasets.matlab import imresize
from datasets.registry import register
from datasets.scales import Scale, Scales
from datasets.transforms import contains, crop, flip_and_transpose, random_corner, resize, short_side, to_tensor
from errors import UserError, located, size_text
from utils import make_coord, say, to_float


class Draw(NamedTuple):
    """Requests sample `index`; its random numbers are seeded by (seed, epoch, position) alone.

    Random numbers that all samples of batch number `batch` share are seeded by (seed, epoch, batch).
    """
    index: int
    seed: int
    epoch: int
    position: int
    batch: int = 0

    def rng(self) -> np.random.Generator:
        """The sample's own random numbers."""
        return np.random.default_rng((self.seed, self.epoch, self.position))

    def batch_rng(self) -> np.random.Generator:
        """Random numbers that are the same for all samples of the batch."""
        return np.random.default_rng((self.seed, self.epoch, self.batch, 1))  # NumPy ignores zeros at the end of a seed


def check_sample_q(sample_q: int, h: int, w: int) -> None:
    """Raises a UserError if a target of h x w has fewer than `sample_q` pixels."""
    if sample_q > h * w:
        raise UserError(f'sample_q must be at most {h * w}, the pixels of a target of {w}x{h}, not {sample_q}')


def query(target: np.ndarray, sample_q: int, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Coordinates (Q, 2) and colours (Q, C), in [0, 1], of `sample_q` different pixels of `target`."""
    h, w = target.shape[:2]
    check_sample_q(sample_q, h, w)
    y, x = np.divmod(rng.choice(h * w, sample_q, replace=False), w)
    coord = torch.cat([make_coord([h])[y], make_coord([w])[x]], dim=1)
    return coord, to_float(torch.from_numpy(target[y, x]))


def shown_channels(shown: list[int] | None, n_colors: int) -> list[int]:
    """The channels that pictures show: the one or three of the config; by default the first three, or the first."""
    if shown is None:
        return [0, 1, 2] if n_colors >= 3 else [0]
    if len(shown) not in (1, 3) or not all(0 <= channel < n_colors for channel in shown):
        raise UserError(f'shown must be one or three channels, 0 to {n_colors - 1}, not {shown}')
    return shown


# --- wrappers --------------------------------------------------------------------------------------


class ImplicitWrapper(Dataset):
    """Samples of a dataset's images. With `sample_q`, they are like LIIF's, dicts of float32 tensors:

        inp (C, h, w) and gt (Q, C): colours in [0, 1]; coord (Q, 2) in [-1, 1]; cell (Q, 2): a target pixel's size,
        (2 / H, 2 / W), for Q = `sample_q` pixels of the target.

    Without it all pixels of the target are queried, and a sample consists of the two images, in their own type:

        inp (C, h, w) and gt (C, H, W).

    Index it with a `Draw`, or with an int for fresh random numbers. `augment` flips and transposes both images.
    `paired`: whether the wrapper is for a dataset of pairs, which has the same attribute. `n_colors`: C, taken from the
    first image. `shown`: the channels that pictures show.
    """

    paired = False
    scale_max = None  # the largest scale of the samples, if it is known

    def __init__(self, dataset, augment, sample_q):
        if getattr(dataset, 'paired', False) != self.paired:
            raise UserError('dataset must be ' + ('paired-image-folders, or another with pairs' if self.paired else
                                                  'image-folder, or another with single images'))
        check_positive(sample_q=sample_q)
        self.dataset, self.augment, self.sample_q = dataset, augment, sample_q
        with located('dataset'):
            first = check_pixels(dataset[0][1] if self.paired else dataset[0])
        self.n_colors, self.dtype = first.shape[2], first.dtype
        self.shown = shown_channels(getattr(dataset, 'shown', None), self.n_colors)

    def cut(self, images: np.ndarray | tuple, i: int, rng: np.random.Generator,
            batch_rng: np.random.Generator) -> Sequence[np.ndarray]:
        """Input (h, w, C) and target (H, W, C) cut from `images`, the dataset's image or pair at index i.

        `rng` gives the sample's own random numbers, `batch_rng` those shared by its whole batch.
        """
        raise NotImplementedError

    def reduce(self, target: np.ndarray, size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
        """The input of `size` (h, w) made from `target`, of the same type; random numbers come from `rng`."""
        return resize(target, size)

    def image(self, i: int) -> np.ndarray | tuple:
        """The dataset's image or pair at index i; UserError if it has other channels than the first one."""
        image = self.dataset[i]
        different = {part.shape[2] for part in (image if self.paired else [image])} - {self.n_colors}
        if different:
            raise UserError(f'{self.dataset.files[i % len(self.dataset.files)]}: has {max(different)} channels, but '
                            f'the first image {self.n_colors}')
        return image

    def __len__(self):
        return len(self.dataset)

    def __getitem__(self, index):
        if isinstance(index, Draw):
            i, rng, batch_rng = index.index, index.rng(), index.batch_rng()
        else:
            i, rng, batch_rng = index, *np.random.default_rng().spawn(2)
        image = self.image(i)
        with located(self.dataset.files[i % len(self.dataset.files)]):
            inp, target = self.cut(image, i, rng, batch_rng)
            if self.sample_q is None:
                return {'inp': to_tensor(inp), 'gt': to_tensor(target)}
            coord, gt = query(target, self.sample_q, rng)
        h, w = target.shape[:2]
        cell = torch.tensor([2 / h, 2 / w]).repeat(len(coord), 1)
        return {'inp': to_float(to_tensor(inp)), 'coord': coord, 'cell': cell, 'gt': gt}


@register('sr-implicit-downsampled')
class SRImplicitDownsampled(ImplicitWrapper):
    """Images of an image-folder and their bicubic reduction by a scale drawn from [scale_min, scale_max], or `scales`.

    Args:
        inp_size: side of the square input in pixels; input and target are cut from a random place. Without it (for
            testing) the target is the whole image, cropped so that the input has whole pixels.
        scale_min, scale_max: a number, or one each for height and width; scale_max defaults to scale_min.
        scales: a list to draw from instead of that range.
        anisotropic: draw separate scales for height and width. Whole targets ("dense") are then not transposed.
        sample_q: queries per sample. Without it all pixels of the crop are queried ("dense"), and all samples of a
            batch share one scale, so that their targets have the same size.
        small_images: what to do with images smaller than the largest crop. 'error' raises a UserError; 'skip' leaves
            them out; 'fit' draws their scale from those that fit, or, if the batch shares one scale, replaces an image
            that is too small for it by another, drawn at random. All sizes are checked here, at the start.
        reduction: the bicubic filter that makes the input: 'pillow', or 'matlab' for that of imresize, which made the
            low-resolution images that DIV2K and the benchmarks supply.
    """

    def __init__(self, dataset, inp_size: int | None = None, scale_min: Scale = 1, scale_max: Scale | None = None,
                 augment: bool = False, sample_q: int | None = None,
                 small_images: Literal['error', 'skip', 'fit'] = 'error',
                 reduction: Literal['pillow', 'matlab'] = 'pillow', scales: list[float] | None = None,
                 anisotropic: bool = False):
        super().__init__(dataset, augment, sample_q)
        check_positive(inp_size=inp_size)
        self.scales = Scales(scale_min, scale_max, scales, anisotropic)
        self.scale_max = max(self.scales.high)
        self.inp_size, self.small_images = inp_size, small_images
        self.bicubic = imresize if reduction == 'matlab' else resize
        self.dense = inp_size is not None and sample_q is None
        if inp_size and sample_q:
            check_sample_q(sample_q, *self.target_size(self.scales.low))
        self.check_sizes()

    def target_size(self, scales):
        """The size (h, w) that the image must at least have at `scales` (y, x)."""
        return tuple(round(self.inp_size * scale) if self.inp_size else math.ceil(scale) for scale in scales)

    def check_sizes(self):
        scales, files = self.scales, self.dataset.files
        lowered = self.small_images == 'fit' and not self.dense  # each sample's scale is lowered as far as necessary
        least = self.target_size(scales.low if lowered else scales.high)
        small = {i for i in range(len(files)) if not contains(self.dataset.size(i), least)}
        needed = size_text(least)
        if self.small_images == 'fit' and self.dense and len(small) < len(files):
            return
        if small and self.small_images == 'skip' and len(small) < len(files):
            say(f'{len(small)} of {len(files)} images, smaller than {needed} pixels, are left out')
            self.dataset.keep([i for i in range(len(files)) if i not in small])
        elif small:
            first = min(small)
            h, w = self.dataset.size(first)
            raise UserError(f'{files[first]}: {w}x{h} pixels, but a crop takes {needed} '
                            f'({len(small)} of {len(files)} images are too small); ' + {
                'error': 'small_images: skip leaves them out, small_images: fit uses them only at scales that fit',
                'skip': 'lower inp_size or scale_max',
                'fit': 'lower inp_size or scale_min, or leave them out with small_images: skip' if lowered else
                       'lower inp_size or scale_max'}[self.small_images])

    def reduce(self, target, size, rng):
        return self.bicubic(target, size)

    def draw_scales(self, h, w, rng):
        if self.small_images == 'fit' and not self.dense:
            return self.scales.draw(rng, (h / (self.inp_size or 1), w / (self.inp_size or 1)))
        return self.scales.draw(rng)

    def cut(self, image, i, rng, batch_rng):
        scales = self.draw_scales(*image.shape[:2], batch_rng if self.dense else rng)
        if self.inp_size:
            size = self.inp_size, self.inp_size
            target_size = self.target_size(scales)
            while not contains(image.shape, target_size):  # only with small_images: fit
                image = self.image(int(rng.integers(len(self.dataset))))
            target = crop(image, *random_corner(image, target_size, rng), target_size)
        else:
            size = tuple(math.floor(n / scale + 1e-9) for n, scale in zip(image.shape, scales, strict=False))
            target = crop(image, 0, 0, [round(n * scale) for n, scale in zip(size, scales, strict=True)])
        images = self.reduce(target, size, rng), target
        # the targets of a dense batch must keep the same shape
        return flip_and_transpose(images, rng, not (self.dense and self.scales.anisotropic)) if self.augment else images


def paired_scale(lr: tuple, hr: tuple) -> int:
    """The integer scale between the shapes (h, w, ...) of two images; HR may exceed it by less than half of LR."""
    scale = hr[0] // lr[0]
    if scale < 1 or not all(scale <= large / small < scale + 0.5 for small, large in zip(lr[:2], hr[:2], strict=True)):
        raise UserError(f'LR is {size_text(lr)}, HR {size_text(hr)}: HR must be 1, 2, 3, ... times LR in both axes')
    return scale


@register('sr-implicit-paired')
class SRImplicitPaired(ImplicitWrapper):
    """LR and HR images of paired-image-folders; the scale is H_hr // H_lr, and HR is cropped to LR * scale.

    `inp_size`: side of the square input in pixels, cut from a random place; by default the input is the whole image.
    """

    paired = True

    def __init__(self, dataset, inp_size: int | None = None, augment: bool = False, sample_q: int | None = None):
        super().__init__(dataset, augment, sample_q)
        check_positive(inp_size=inp_size)
        self.inp_size, self.scale_max = inp_size, 1
        for i, files in enumerate(dataset.files):
            with located(files):
                lr, hr = dataset.size(i)
                self.scale_max = max(self.scale_max, paired_scale(lr, hr))
                if inp_size and inp_size > min(lr):
                    raise UserError(f'LR is {size_text(lr)}, but inp_size takes {inp_size}x{inp_size}')

    def cut(self, images, i, rng, batch_rng):
        lr, hr = images
        scale = paired_scale(lr.shape, hr.shape)
        if self.inp_size:
            y, x = random_corner(lr, (self.inp_size,) * 2, rng)
            images = (crop(lr, y, x, (self.inp_size,) * 2),
                      crop(hr, y * scale, x * scale, (self.inp_size * scale,) * 2))
        else:
            images = lr, hr[:lr.shape[0] * scale, :lr.shape[1] * scale]
        return flip_and_transpose(images, rng) if self.augment else images


@register('sr-implicit-uniform-varied')
class SRImplicitUniformVaried(ImplicitWrapper):
    """LR images of paired-image-folders, and HR images resized to a size that grows linearly over the dataset.

    Args:
        size_min, size_max: the shorter side of the target of the first and the last sample (by default the same).
        augment: flips in x only.
        gt_resize: the shorter side to which the target is finally resized.
    """

    paired = True

    def __init__(self, dataset, size_min: int, size_max: int | None = None, augment: bool = False,
                 gt_resize: int | None = None, sample_q: int | None = None):
        super().__init__(dataset, augment, sample_q)
        size_max = size_min if size_max is None else size_max
        check_positive(size_min=size_min, size_max=size_max, gt_resize=gt_resize)
        self.size_min, self.size_max, self.gt_resize = size_min, size_max, gt_resize
        self.scale_max = (gt_resize or max(size_min, size_max)) / min(dataset.size(0)[0])  # all LR images have one size

    def cut(self, images, i, rng, batch_rng):
        lr, hr = images
        size = round(self.size_min + (self.size_max - self.size_min) * i / max(1, len(self) - 1))
        hr = resize(hr, short_side(hr, size))
        if self.augment and rng.random() < 0.5:
            lr, hr = lr[:, ::-1], hr[:, ::-1]
        return lr, hr if self.gt_resize is None else resize(hr, short_side(hr, self.gt_resize))
