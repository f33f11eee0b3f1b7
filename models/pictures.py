"""From a picture to a larger picture: the API of demos and notebooks.

    model = load_pretrained('edsr-baseline-A-liif-pixel')
    big = upscale_pil(model, Image.open('photo.jpg'), scale=3.7)
"""

import contextlib
import numbers
import operator
from collections.abc import Iterable, Iterator

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from errors import UserError, quoted, size_text
from models.decoder import Decoder
from models.predict import Block, upscale_blocks, upscale_ensemble
from pictures.deep import Deep
from pictures.metadata import resized
from pictures.modes import blank, model_colours, plain, resized_alpha, rgba_pixels, to_picture, to_tensor
from pictures.transparency import rim

LARGEST = 1e6  # scale; larger than any memory can hold


def target_size(shape: tuple, scale: float | None = None, size: tuple | int | None = None) -> tuple:
    """The size (H, W) of a picture of `shape` (h, w) upscaled by `scale`, or to `size`: (H, W), or the longer side.

    Raises UserError for a size that is smaller than the picture, or no whole numbers.
    """
    if (scale is None) == (size is None):
        raise UserError('either a scale or a size is needed')
    if size is None:
        if not isinstance(scale, numbers.Real) or not 1 <= scale <= LARGEST:
            raise UserError(f'scale must be a number, at least 1 and at most {LARGEST:g}, not {quoted(scale)}')
        return tuple(round(n * scale) for n in shape)
    with contextlib.suppress(TypeError):  # unless it is one number
        longer = operator.index(size)
        size = tuple(max(1, round(n * longer / max(1, *shape))) if longer > 0 else 0 for n in shape)
    size = checked_size(size)
    if any(n < old for n, old in zip(size, shape, strict=True)):
        raise UserError(f'size {size_text(size)} is smaller than the picture, {size_text(shape)} (width x height)')
    return size


def checked_size(size: tuple) -> tuple[int, int]:
    """The `size` (H, W) of an output; UserError unless it is two whole numbers, at least 1."""
    try:
        height, width = map(operator.index, size)
    except (TypeError, ValueError):
        raise UserError(f'size must be (H, W), two whole numbers, not {quoted(size)}') from None
    if height < 1 or width < 1:
        raise UserError(f'size must be at least 1x1, not {size_text(size)}')
    return height, width


def upscale_pil(model: Decoder, image: Image.Image, scale: float | None = None, size: tuple | int | None = None,
                verbose: bool = False, self_ensemble: bool = False) -> Image.Image | Deep:
    """Upscales `image` by `scale`, or to `size`, (height, width) or the longer side; works block by block.

    Grey stays grey, and 16 bits stay 16; other modes become RGB or RGBA. Pictures with 16 bits and colour or alpha are
    `pictures.deep.Deep`: `pictures.io.read` returns them and `pictures.io.save` writes them, because Pillow's own
    images have 8 bits of colour as soon as they are decoded. Alpha is resized by bicubic interpolation. The orientation
    in the EXIF data is applied; EXIF data, resolution and ICC profile are in the result's `info`, as
    `pictures/metadata.py` adapts them. `verbose` shows a progress bar on a terminal; `self_ensemble` averages 8 flips
    and transposes. Leaves the model in evaluation mode. Raises UserError for sizes below the image's and unsupported
    modes.
    """
    if not isinstance(image, Image.Image | Deep):
        raise UserError(f'the image must be a picture, not {type(image).__name__}: models.upscale takes arrays')
    image = plain(image)
    height, width = target_size((image.height, image.width), scale, size)
    big = blank(image.mode, (width, height))
    big.info = resized(image.info, big.size)
    hidden = None if verbose else True  # None: where there is no terminal
    with tqdm(total=height * width, unit='pixel', unit_scale=True, leave=False, disable=hidden) as bar:
        for top, left, block in blocks(model, image, (height, width), self_ensemble):
            big.paste(block, (left, top))
            bar.update(block.width * block.height)
    return big


def blocks(model: Decoder, image: Image.Image, size: tuple,
           self_ensemble: bool = False) -> Iterator[tuple[int, int, Image.Image]]:
    """Yields the blocks (top, left, picture) of `image`, a `plain` one, upscaled to `size` (H, W)."""
    source = model_colours(image)
    args = model, seen_colours(model, image, source), size, model.data_norm
    colours = [(0, 0, upscale_ensemble(*args, clip=True))] if self_ensemble else upscale_blocks(*args, clip=True)
    yield from to_pictures(colours, image, source, (0, 0, *image.size), size)


def seen_colours(model: Decoder, image: Image.Image | Deep, source: Image.Image | Deep) -> torch.Tensor:
    """The input (n_colors, h, w) of `model` for `image`, a `plain` one, whose `model_colours` are `source`.

    Raises UserError if the model is for neither colour nor grey, or if it is for grey and the picture has colour.
    """
    if model.n_colors == 1 and image.mode.startswith('RGB'):
        raise UserError('the model is for grey pictures, and this one has colour: convert it to grey, or choose '
                        'another model')
    if model.n_colors not in (1, 3):
        raise UserError(f'the model is for images of {model.n_colors} channels, and pictures have 1 or 3: '
                        'models.upscale takes arrays')
    return to_tensor(source)[:model.n_colors]  # of grey all three are the same


def to_pictures(colours: Iterable[Block], image: Image.Image | Deep, source: Image.Image | Deep, box: tuple,
                size: tuple) -> Iterator[tuple[int, int, Image.Image | Deep]]:
    """The blocks (top, left, colours) of the part `box` of `image` at `size` (H, W), as (top, left, picture).

    image: a `plain` one. source: its `model_colours`. Alpha is resized by bicubic interpolation.
    """
    transparent, part = 'A' in image.getbands(), None
    if transparent:
        rgba, alpha = rgba_pixels(image), resized_alpha(image, size[::-1], box)
    for top, left, block in colours:
        bottom, right = top + block.shape[1], left + block.shape[2]
        if transparent:
            seen = [start + x * (end - start) / n for x, start, end, n in zip(
                (left, top, right, bottom), box[:2] * 2, box[2:] * 2, size[::-1] * 2, strict=True)]
            block = (block + rim(rgba, np.asarray(source), (right - left, bottom - top), seen)).clamp(0, 1)
            part = alpha[top:bottom, left:right]
        yield top, left, to_picture(block, image.mode, part)
