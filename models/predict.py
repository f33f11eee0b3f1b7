"""Images of any size: encoded in overlapping tiles, decoded in bands, so that memory does not grow with the image."""

import itertools
import math
from collections.abc import Iterator

import torch

from errors import UserError, size_text
from models.decoder import Decoder
from models.geometry import nearest
from models.normalisation import normalisations
from utils import make_coord, to_float, white

TILE = 512  # largest side of the part of an image that is encoded at a time, without its margin
QUERIES = 1 << 18  # about how many pixels of the output are decoded at a time
OVERLAP = 32  # least width of the margin that SwinIR sees around a tile, in pixels
ROWS = 16  # least number of rows of features in a band: with fewer, the rows that bands share would cost too much
Block = tuple[int, int, torch.Tensor]  # top, left, colours (C, n, m)


def check_channels(model: torch.nn.Module, count: int) -> None:
    """Raises a UserError unless `model` is for images of `count` channels."""
    wanted = getattr(model, 'n_colors', count)
    if count != wanted:
        raise UserError(f'the model is for images of {wanted} channel{"s" * (wanted > 1)}, not {count}')


def check_image(image: torch.Tensor) -> None:
    """Raises a UserError unless `image` is (C, h, w), of at least one pixel, of a type that `to_float` knows."""
    if image.dim() != 3 or 0 in image.shape:
        raise UserError(f'an image must be (C, h, w) with at least one pixel, not {tuple(image.shape)}')
    if not image.is_floating_point() and image.dtype not in (torch.uint8, torch.uint16):
        raise UserError(f'an image must be uint8, uint16 or float, not {str(image.dtype).removeprefix("torch.")}')


def parts(start: int, end: int, largest: int) -> list[tuple[int, int]]:
    """Cuts range(start, end) into the fewest even parts of at most `largest` each: [(start, end), ...]."""
    count = math.ceil((end - start) / largest)
    bounds = [start + round(i * (end - start) / count) for i in range(count + 1)]
    return list(itertools.pairwise(bounds))


def widen(start: int, end: int, margin: int, length: int, step: int = 1) -> tuple[int, int]:
    """The part start <= i < end of range(length), widened by `margin` on both sides as far as the range allows.

    It is widened further to begin and end at multiples of `step`, or to end where the range does.
    """
    return max(0, (start - margin) // step * step), min(length, -(-(end + margin) // step) * step)


def cut(feat: torch.Tensor, rows: tuple, columns: tuple, top: int, left: int) -> torch.Tensor:
    """The part in `rows` and `columns` (start, end) of a feature map (B, C, h, w) that begins at `top` and `left`."""
    return feat[:, :, rows[0] - top:rows[1] - top, columns[0] - left:columns[1] - left]


def cells(size: tuple, shape: tuple, max_scale: float | None) -> list[float]:
    """The size of a target pixel along each axis that the network sees: 2 / n, but no smaller than at `max_scale`."""
    return [2 / n * max(1, n / old / max_scale if max_scale else 1) for n, old in zip(size, shape, strict=True)]


class Target:
    """The pixels of an output of `size` (H, W): their coordinates, and which pixel of the input (h, w) each belongs to.

    `shape`: (h, w). `clip`: see `upscale_blocks`. `box`: the part of the input that the output shows, (left, top,
    right, bottom) in input pixels, real numbers; by default all of it.
    """

    def __init__(self, size: tuple, shape: tuple, model: Decoder, clip: bool = False, box: tuple | None = None):
        like = next(model.parameters())
        bound = model.scale_max if clip or model.clip_cell else None
        left, top, right, bottom = box or (0, 0, shape[1], shape[0])
        axes = list(zip((top, left), (bottom, right), shape, size, strict=True))
        whole = [m * n / (end - start) for start, end, n, m in axes]  # size of the whole input at this scale
        self.shape, self.cell = shape, like.new_tensor(cells(whole, shape, bound))
        self.coords = [make_coord([m], [(-1 + 2 * start / n, -1 + 2 * end / n)])[:, 0].to(like.dtype)
                       for start, end, n, m in axes]
        # how many codes away an output pixel needs features. This is a sum: the way to the code at its corner (Meta-SR)
        # or to the next code (local ensemble), 1 for that code's neighbours (unfolding), and the decoder's own reach
        self.reach = model.reach + 1 + math.ceil(0.5 + max(1, *(n / m for n, m in zip(shape, whole, strict=True))) / 2)
        # the input pixel to which each output pixel belongs, in ascending order
        self.owners = [nearest(x, n) for x, n in zip(self.coords, shape, strict=True)]

    def span(self, axis: int, start: int, end: int) -> range:
        """The range of output pixels along an axis that belong to the input pixels start <= i < end."""
        owner = self.owners[axis]
        return range(int((owner < start).sum()), int((owner < end).sum()))

    def parts(self, axis: int, largest: int) -> list[tuple[int, int]]:
        """The input pixels along an axis to which output pixels belong, cut as the function `parts` does it."""
        return parts(int(self.owners[axis][0]), int(self.owners[axis][-1]) + 1, largest)

    def coord(self, axis: int, pixels: range) -> torch.Tensor:
        """Coordinates of a range of output pixels along an axis."""
        return self.coords[axis][pixels.start:pixels.stop]


class Latents:
    """Encodes parts of an `image` (C, h, w), of a type that `to_float` knows, by the encoder of `model`, on request.

    `data_norm`: the normalisation of the model's inputs and colours. The model is put in evaluation mode.
    """

    def __init__(self, model: Decoder, image: torch.Tensor, data_norm: dict | None):
        check_image(image)
        check_channels(model, len(image))
        model.check_precision()
        model.eval()  # in training mode, encoders may draw at random, as SwinIR does
        self.model, self.image, self.shape = model, image, tuple(image.shape[-2:])
        self.like = next(model.parameters())
        self.inp_norm, self.gt_norm = normalisations(data_norm, self.like.device)
        # whether the image is encoded as a whole. It is if the encoder has no receptive radius, because its features
        # depend on the whole image or it has an upsampler, and if the decoder looks at all codes
        self.whole = model.receptive_radius is None or model.reach == math.inf
        # largest side of the parts to ask for
        self.largest = max(self.shape) if self.whole else getattr(model.encoder, 'tile', TILE)
        # what is encoded begins at a multiple of the encoder's window, so that its windows are those of the whole image
        self.window = getattr(model.encoder, 'window', 1)

    def part(self, rows: tuple, columns: tuple) -> tuple[torch.Tensor, torch.Tensor]:
        """The features and the normalised colours of the input in `rows` and `columns` (start, end): (1, C, n, m) each.

        If the encoder has an upsampler, both are of the whole image, and there are more features than pixels.
        """
        feat = self.encode(rows, columns)
        if feat.shape[-2:] != (rows[1] - rows[0], columns[1] - columns[0]):
            rows, columns = ((0, n) for n in self.shape)
        return feat, self.inp(rows, columns)

    def inp(self, rows: tuple, columns: tuple) -> torch.Tensor:
        """The encoder's input, normalised, (1, C, n, m)."""
        inp = self.image[None, :, slice(*rows), slice(*columns)]
        return self.inp_norm.apply(inp.to(self.like) / white(inp.dtype))

    def encode(self, rows: tuple, columns: tuple) -> torch.Tensor:
        """The features of `part`; the encoder also sees a margin as wide as its receptive field."""
        seen = [(0, n) if self.whole else widen(*part, self.model.receptive_radius, n, self.window)
                for part, n in zip((rows, columns), self.shape, strict=True)]
        inp = self.inp(*seen)
        if inp.device.type == 'cpu':  # for EDSR on large images 1.4 times as fast on a Zen 3; others gain less
            inp = inp.contiguous(memory_format=torch.channels_last)
        feat = self.model.encoder(inp)
        shape = tuple(end - start for start, end in seen)
        if feat.shape[-2:] != shape and not self.whole:
            raise UserError(f'the encoder made {size_text(feat.shape[-2:])} features from {size_text(shape)} pixels: '
                            'since it has a receptive_radius, it must give one feature for each pixel')
        if feat.shape[-2:] != shape:  # the encoder has an upsampler
            return feat
        return cut(feat, rows, columns, *(start for start, _ in seen))


def set_tile(model: Decoder, tile: int) -> None:
    """Makes `model`, whose encoder is SwinIR, encode images in tiles of at most `tile` pixels a side, plus OVERLAP.

    Its memory then no longer grows with the image. The result is approximate, since SwinIR's features depend on the
    whole image; docs/differences.md says how much it changes.
    """
    window = getattr(getattr(model, 'encoder', None), 'window', None)
    if window is None:
        raise UserError('a tile can be set for models with SwinIR only: other encoders have fixed tiles, or need the '
                        'whole image')
    if tile < 1 or tile % window:
        raise UserError(f'tile must be a multiple of {window}, the side of a window, not {tile}')
    model.encoder.tile, model.encoder.receptive_radius = tile, OVERLAP


@torch.no_grad()
def upscale_blocks(model: Decoder, image: torch.Tensor, size: tuple, data_norm: dict | None = None, *,
                   clip: bool = False) -> Iterator[Block]:
    """Upscales `image` (C, h, w), uint8, uint16 or float in [0, 1], to `size` (H, W).

    Yields blocks (top, left, colours). Colours are (C, n, m), in [0, 1], on the CPU; they begin at `top`, `left` in the
    output. `model` is a `Decoder`.

    Each tile is encoded and decoded with a margin that covers the receptive field, so the result is that of encoding
    the whole image. The tile is the whole image if no margin suffices, because features depend on all pixels (RCAN, and
    SwinIR without `set_tile`), and if the encoder has an upsampler, because it then gives no map of latent codes.

    `clip`: at scales above the largest one in its training, the network sees the cells of that scale, even if the
    model's `clip_cell` is false. This gains A-LIIF 0.02 to 0.04 dB at x6 and x8.
    """
    yield from upscale_latents(Latents(model, image, data_norm), size, clip=clip)


@torch.no_grad()
def upscale_latents(latents: Latents, size: tuple, *, clip: bool, box: tuple | None = None) -> Iterator[Block]:
    """What `upscale_blocks` yields, from an image's `Latents`; with `box`, see `Target`, only for that part of it."""
    target = Target(size, latents.shape, latents.model, clip, box)
    for rows in target.parts(0, latents.largest):
        for columns in target.parts(1, latents.largest):
            yield from upscale_tile(latents, target, rows, columns)


def upscale_whole(model: Decoder, image: torch.Tensor, size: tuple, data_norm: dict | None = None, *,
                  clip: bool = False) -> torch.Tensor:
    """The whole output of `upscale_blocks`, (C, H, W) on the CPU."""
    return joined(upscale_blocks(model, image, size, data_norm, clip=clip), size)


def joined(blocks: Iterator[Block], size: tuple) -> torch.Tensor:
    """The `blocks` of an output of `size` (H, W) as one, (C, H, W)."""
    whole = None
    for top, left, block in blocks:
        if whole is None:
            whole = block.new_empty(len(block), *size)
        whole[:, top:top + block.shape[1], left:left + block.shape[2]] = block
    return whole


def upscale_ensemble(model: Decoder, image: torch.Tensor, size: tuple, data_norm: dict | None = None, *,
                     clip: bool = False) -> torch.Tensor:
    """The mean (C, H, W) of the outputs of `upscale_whole` for the image's 8 flips and transposes, each turned back.

    "Geometric self-ensemble" (EDSR+, Lim et al., CVPRW 2017): eight times the work, twice the memory for the output.
    """
    if image.dtype == torch.uint16:  # older versions of PyTorch cannot flip it
        image = to_float(image)
    total = torch.zeros(len(image), *size, dtype=next(model.parameters()).dtype)
    for flips in ((), (1,), (2,), (1, 2)):
        turned = image.flip(flips)
        total += upscale_whole(model, turned, size, data_norm, clip=clip).flip(flips)
        turned = upscale_whole(model, turned.transpose(1, 2), size[::-1], data_norm, clip=clip)
        total += turned.transpose(1, 2).flip(flips)
    return total / 8


def upscale_tile(latents: Latents, target: Target, rows: tuple, columns: tuple) -> Iterator[Block]:
    """Yields the blocks of output that belong to the input pixels in `rows` and `columns` (start, end)."""
    xs = target.span(1, *columns)
    per_row = len(xs) * len(target.span(0, *rows)) / (rows[1] - rows[0])
    if per_row == 0:  # no output pixel belongs to them, which happens if the output is smaller than the input
        return
    (top, bottom), (left, right) = (widen(*part, target.reach, n)
                                    for part, n in zip((rows, columns), target.shape, strict=True))
    feat, inp = latents.part((top, bottom), (left, right))
    for band in parts(*rows, max(ROWS, int(QUERIES / max(1, per_row)))):
        ys = target.span(0, *band)
        if not ys:
            continue
        if feat.shape[-2:] != inp.shape[-2:]:  # the encoder has an upsampler, and `feat` is of the whole image
            features = latents.model.make_features(feat, inp)
        else:
            first, last = widen(*band, target.reach, target.shape[0])
            seen = slice(first - top, last - top)
            features = latents.model.make_features(feat[:, :, seen], inp[:, :, seen], (first, left, *target.shape))
        step = max(1, QUERIES // len(xs))  # at large scales a single row of input gives more output than QUERIES
        for some in (ys[i:i + step] for i in range(0, len(ys), step)):
            pred = latents.model.query_grid(features, target.coord(0, some), target.coord(1, xs), target.cell)
            colours = latents.gt_norm.colours(pred.flatten(1, 2)).view(pred.shape[1:])
            yield some.start, xs.start, colours.permute(2, 0, 1).cpu()
