"""Upscales parts of a picture to any size, without encoding the rest of it.

    view = upscale_region(model, Image.open('photo.jpg'), (100.5, 80, 140.5, 105), (800, 1280))

    photo = Encoded(model, Image.open('photo.jpg'))  # for several views, which share its features
    view = photo.region((100.5, 80, 140.5, 105), (800, 1280))
"""

import itertools
from collections.abc import Callable, Iterator
from functools import partial
from typing import Protocol

import torch
from PIL import Image

from errors import UserError, quoted
from models.decoder import Decoder
from models.pictures import checked_size, seen_colours, to_pictures
from models.predict import Block, Latents, cut, joined, upscale_latents
from pictures.deep import Deep
from pictures.modes import blank, model_colours, plain

KEPT = 32  # side of the tiles in which features are kept: small, so that few are computed outside a view
LEAST = 1e-6  # least width and height of a box, in pixels: float32 does not resolve smaller differences
AT_ONCE = 256  # largest side of the part that is encoded at a time for a view, which can be abandoned in between
Picture = torch.Tensor | Image.Image | Deep


def upscale_region(model: Decoder, image: Picture, box: tuple, size: tuple) -> Picture:
    """The part `box` of `image` at `size` (H, W), equal to that part of the whole picture enlarged by the same scale.

    (At odd scales it may differ in one column and one row, where queries lie exactly on the centres of the last codes
    of an axis: see docs/differences.md.)

    image: a tensor (C, h, w), uint8, uint16 or float in [0, 1], or a picture.
    box: (left, top, right, bottom) in pixels of `image`, real numbers; its upper left corner is (0, 0).

    Returns a tensor (C, H, W) on the CPU for a tensor, and a picture of the same mode, as `upscale_pil` does, for a
    picture. The encoder sees only the part and a margin as wide as its receptive field, or the whole image if it has no
    such field (RCAN). Leaves the model in evaluation mode. Raises UserError for a box that is not inside the image, or
    too small, and for a size without pixels.
    """
    return Region(model, image).region(box, size)


class Region:
    """Makes parts of `image`, as `upscale_region` does. `latents` makes its features; it is called like `Latents`."""

    def __init__(self, model: Decoder, image: Picture, latents: Callable[..., Latents] = Latents):
        if not isinstance(image, Picture):
            raise UserError(f'the image must be a picture or a tensor (C, h, w), not {type(image).__name__}')
        self.image = None if isinstance(image, torch.Tensor) else plain(image)
        self.source = model_colours(self.image) if self.image else None
        colours = seen_colours(model, self.image, self.source) if self.image else image
        self.latents = latents(model, colours, model.data_norm)
        if colours.is_floating_point() and not 0 <= colours.min() <= colours.max() <= 1:  # both nan if a value is
            raise UserError(f'an image of floats must have values from 0 to 1, not from {colours.min():g} to '
                            f'{colours.max():g}')

    def blocks(self, box: tuple, size: tuple) -> Iterator[Block | tuple[int, int, Image.Image | Deep]]:
        """The blocks of `region` as they are made: (top, left, colours), or (top, left, picture) of a picture."""
        box, size = check_box(box, size, self.latents.shape)
        blocks = upscale_latents(self.latents, size, clip=True, box=box)
        return to_pictures(blocks, self.image, self.source, box, size) if self.image else blocks

    def blank(self, size: tuple) -> Image.Image | Deep:
        """An empty picture of `size` (H, W), of the picture's mode and with its ICC profile, for the `blocks`."""
        result = blank(self.image.mode, size[::-1])
        result.info = {key: value for key, value in self.image.info.items() if key == 'icc_profile'}
        return result

    def region(self, box: tuple, size: tuple) -> Picture:
        """The part `box` at `size` (H, W), see `upscale_region`."""
        size = checked_size(size)
        blocks = self.blocks(box, size)
        if self.image is None:
            return joined(blocks, size)
        result = self.blank(size)
        for top, left, block in blocks:
            result.paste(block, (left, top))
        return result


class Tiles(Protocol):
    """Features by row and column of their tile: a dict, or a cache that may drop some."""

    def get(self, key: tuple[int, int]) -> torch.Tensor | None: ...

    def __setitem__(self, key: tuple[int, int], tile: torch.Tensor) -> None: ...


class KeptLatents(Latents):
    """`Latents` that computes each feature once, when it is first needed, and keeps it.

    `tiles`: where the features are kept; tiles that it has dropped are computed again.
    """

    def __init__(self, model: Decoder, image: torch.Tensor, data_norm: dict | None, tiles: Tiles):
        super().__init__(model, image, data_norm)
        self.tiles = tiles
        self.side = max(self.shape) if self.whole else KEPT
        self.largest = max(self.shape) if self.whole else min(self.largest, AT_ONCE)

    def encode(self, rows: tuple, columns: tuple) -> torch.Tensor:
        ys, xs = (range(start // self.side, -(-end // self.side)) for start, end in (rows, columns))
        tiles = {key: self.tiles.get(key) for key in itertools.product(ys, xs)}
        missing = [key for key, tile in tiles.items() if tile is None]
        if missing:
            tiles |= self.encode_tiles(*([min(key), max(key) + 1] for key in zip(*missing, strict=True)))
        feat = torch.cat([torch.cat([tiles[y, x] for x in xs], dim=3) for y in ys], dim=2)
        if self.whole and feat.shape[-2:] != self.shape:  # the encoder has an upsampler
            return feat
        return cut(feat, rows, columns, ys.start * self.side, xs.start * self.side)

    def encode_tiles(self, ys: tuple, xs: tuple) -> dict[tuple[int, int], torch.Tensor]:
        """Encodes and keeps, in one call, the tiles in the rows `ys` and columns `xs` (start, end) of tiles."""
        area = [(start * self.side, min(n, end * self.side))
                for (start, end), n in zip((ys, xs), self.shape, strict=True)]
        feat = super().encode(*area)
        if self.whole:
            tiles = {(0, 0): feat}
        else:
            tiles = {(y, x): tile.clone()  # a view would keep all of `feat` in memory
                     for y, row in enumerate(feat.split(self.side, dim=2), ys[0])
                     for x, tile in enumerate(row.split(self.side, dim=3), xs[0])}
        for key, tile in tiles.items():
            self.tiles[key] = tile
        return tiles


class Encoded(Region):
    """A picture or a tensor (C, h, w) for many views: each of its features is computed only once.

    Nothing is encoded in advance. `tiles`: where the features are kept, such as a bounded cache; by default a dict.
    """

    def __init__(self, model: Decoder, image: Picture, tiles: Tiles | None = None):
        super().__init__(model, image, partial(KeptLatents, tiles={} if tiles is None else tiles))


def check_box(box: tuple, size: tuple, shape: tuple) -> tuple[tuple, tuple]:
    """`box` and `size` (H, W) as plain numbers; UserError unless `box` is inside an image of `shape` (h, w)."""
    try:
        box = left, top, right, bottom = tuple(map(float, box))
    except (TypeError, ValueError):
        raise UserError(f'box must be four numbers, (left, top, right, bottom), not {quoted(box)}') from None
    height, width = shape
    if not (0 <= left < right <= width and 0 <= top < bottom <= height):
        raise UserError(f'box must be (left, top, right, bottom) inside the image, {width}x{height} (width x height), '
                        f'not ({", ".join(f"{x:g}" for x in box)})')
    if min(right - left, bottom - top) < LEAST:
        raise UserError(f'box must be at least {LEAST:g} pixels wide and high, not {right - left:g}x{bottom - top:g}')
    return box, checked_size(size)
