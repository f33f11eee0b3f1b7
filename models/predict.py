"""Images of any size: encoded in overlapping tiles, decoded in bands, so that memory does not grow with the image."""

import math
from collections.abc import Iterator

import torch

from models.decoder import Decoder
from models.geometry import nearest
from utils import UserError, axis_coords

TILE = 512  # largest side of the part of an image that is encoded at a time, without its margin
QUERIES = 1 << 18  # about how many pixels of the output are decoded at a time
OVERLAP = 32  # pixels around a tile of SwinIR that it sees, too, at least
ROWS = 16  # least rows of features in a band: for fewer, those that bands share would cost too much
IDENTITY = {'sub': [0], 'div': [1]}  # the normalisation that changes nothing
Block = tuple[int, int, torch.Tensor]  # top, left, colours (3, n, m)


class Normalisation:
    """(x - sub) / div for each channel, and back, for tensors whose channels lie as `shape` says."""

    def __init__(self, spec: dict, device: torch.device | str, shape: tuple):
        self.sub, self.div = (torch.tensor(spec[k], dtype=torch.float32, device=device).view(shape)
                              for k in ('sub', 'div'))

    def apply(self, x: torch.Tensor) -> torch.Tensor:
        """Colours as the model wants them."""
        return (x - self.sub) / self.div

    def undo(self, x: torch.Tensor) -> torch.Tensor:
        """The model's colours as they are shown."""
        return x * self.div + self.sub


def normalisations(data_norm: dict | None, device: torch.device | str) -> tuple[Normalisation, Normalisation]:
    """The `Normalisation`s of inputs (B, 3, h, w) and of targets (B, Q, 3); None leaves both as they are."""
    data_norm = data_norm or {}
    return (Normalisation(data_norm.get('inp', IDENTITY), device, (1, -1, 1, 1)),
            Normalisation(data_norm.get('gt', IDENTITY), device, (1, 1, -1)))


def same_normalisation(a: dict | None, b: dict | None, key: str) -> bool:
    """Whether two `data_norm`s do the same to the colours of `key`, 'inp' or 'gt'."""
    norms = [Normalisation((norm or {}).get(key, IDENTITY), 'cpu', (-1,)) for norm in (a, b)]
    return all(torch.equal(*(norm.apply(torch.full((3,), x)) for norm in norms)) for x in (0., 1.))


def parts(length: int, largest: int, step: int = 1) -> list[tuple[int, int]]:
    """Cuts range(length) into as few even parts as there can be with at most `largest` in each: [(start, end), ...].

    They begin at multiples of `step`, which divides `largest` or there is one part.
    """
    units = math.ceil(length / step)
    count = math.ceil(units / math.ceil(largest / step))
    bounds = [min(length, step * round(i * units / count)) for i in range(count + 1)]
    return list(zip(bounds, bounds[1:], strict=False))


def widen(start: int, end: int, margin: int, length: int) -> tuple[int, int]:
    """The part start <= i < end of range(length) with `margin` more on both sides, as far as there is."""
    return max(0, start - margin), min(length, end + margin)


def cells(size: tuple, shape: tuple, max_scale: float | None) -> list[float]:
    """The size of a target pixel as the network sees it: 2 / n, at scales above `max_scale` that of `max_scale`."""
    return [2 / n * max(1, n / old / max_scale if max_scale else 1) for n, old in zip(size, shape, strict=True)]


class Target:
    """The pixels of an output of `size` (H, W) for an input of `shape` (h, w): their coordinates and whose they are.

    `clip`: see `upscale`.
    """

    def __init__(self, size: tuple, shape: tuple, model: Decoder, clip: bool = False):
        like = next(model.parameters())
        bound = model.max_cell_scale or (model.scale_max if clip else None)
        self.shape, self.cell = shape, like.new_tensor(cells(size, shape, bound))
        self.coords = axis_coords(size, like.dtype)
        # how far off the features are that an output pixel needs: its corner's code (Meta-SR; one step for the codes of
        # the local ensemble), that code's own neighbours when unfolded, and what else the decoder looks at
        self.reach = model.reach + 1 + math.ceil(0.5 + max(1, *(n / m for n, m in zip(shape, size, strict=True))) / 2)
        self.owners = [nearest(x, n) for x, n in zip(self.coords, shape, strict=True)]  # input pixels, ascending

    def span(self, axis: int, start: int, end: int) -> range:
        """Which output pixels along an axis belong to the input pixels start <= i < end: a range."""
        owner = self.owners[axis]
        return range(int((owner < start).sum()), int((owner < end).sum()))

    def coord(self, axis: int, pixels: range) -> torch.Tensor:
        """Coordinates of a range of output pixels along an axis."""
        return self.coords[axis][pixels.start:pixels.stop]


def largest_tile(model: Decoder, shape: tuple) -> int:
    """The largest side of the tiles in which `model` sees an image of `shape` (h, w): all, where it needs it whole."""
    whole = model.receptive_radius is None or model.reach == math.inf
    return max(shape) if whole else getattr(model.encoder, 'tile', TILE)


def set_tile(model: Decoder, tile: int) -> None:
    """Lets `model`, whose encoder is SwinIR, see images in tiles of at most `tile` pixels a side, and OVERLAP around.

    Its memory then no longer grows with the image. The result is approximate, since SwinIR's features depend on the
    whole image. With 4 layers of 6 blocks, untrained, those of tiles of 48 pixels are off by 5e-7 of their RMS on a
    photo of 140x140, which is float32's own noise; with trained weights, which look further, it is not measured yet.
    """
    window = getattr(getattr(model, 'encoder', None), 'window', None)
    if window is None:
        raise UserError('--tile is for models with SwinIR: other encoders have tiles of their own, or need the whole '
                        'image')
    if tile < 1 or tile % window:
        raise UserError(f'--tile must be a multiple of {window}, the side of a window, not {tile}')
    model.encoder.tile, model.encoder.receptive_radius = tile, OVERLAP


def window_of(model: Decoder) -> int:
    """What tiles begin at multiples of: the side of the encoder's windows, which then are those of the whole image."""
    return getattr(model.encoder, 'window', 1)


@torch.no_grad()
def upscale(model: Decoder, image: torch.Tensor, size: tuple, data_norm: dict | None = None,
            clip: bool = False) -> Iterator[Block]:
    """`image` (3, h, w), uint8 or float in [0, 1], at `size` (H, W): yields blocks (top, left, colours).

    Colours are (3, n, m), in [0, 1], on the CPU; `top` and `left` say where they begin in the output. `model` is a
    `Decoder`. Encoder and decoder see a tile with a margin that covers the receptive field, so the result is that of
    the whole image; an encoder that pools over the whole image (RCAN) has no such margin, and one with its own
    upsampler no map of latent codes: for them the tile is the image. `clip` shows the network no cells of scales beyond
    its training, where the model sets no such bound itself; that is better there, by 0.02 to 0.04 dB at x6 and x8.
    """
    target = Target(size, image.shape[-2:], model, clip)
    h, w = target.shape
    largest = largest_tile(model, target.shape)
    step = window_of(model)
    for rows in parts(h, largest, step):
        for columns in parts(w, largest, step):
            yield from upscale_tile(model, image, target, rows, columns, data_norm)


def upscale_whole(model: Decoder, image: torch.Tensor, size: tuple, data_norm: dict | None = None,
                  clip: bool = False) -> torch.Tensor:
    """The whole output of `upscale`, (3, H, W) on the CPU."""
    whole = torch.empty(3, *size, dtype=next(model.parameters()).dtype)
    for top, left, block in upscale(model, image, size, data_norm, clip):
        whole[:, top:top + block.shape[1], left:left + block.shape[2]] = block
    return whole


def upscale_ensemble(model: Decoder, image: torch.Tensor, size: tuple, data_norm: dict | None = None,
                     clip: bool = False) -> torch.Tensor:
    """The mean of what `upscale_whole` makes of the image's 8 flips and transposes, brought back: (3, H, W).

    "Geometric self-ensemble" (EDSR+, Lim et al., CVPRW 2017); eight times the work, twice the output's memory.
    """
    total = torch.zeros(3, *size, dtype=next(model.parameters()).dtype)
    for flips in ((), (1,), (2,), (1, 2)):
        turned = image.flip(flips)
        total += upscale_whole(model, turned, size, data_norm, clip).flip(flips)
        total += upscale_whole(model, turned.transpose(1, 2), size[::-1], data_norm, clip).transpose(1, 2).flip(flips)
    return total / 8


def encode(model: Decoder, image: torch.Tensor, target: Target, rows: tuple, columns: tuple,
           norm: Normalisation) -> tuple[torch.Tensor, torch.Tensor, int, int]:
    """Encodes the input pixels in `rows` and `columns` (start, end) and the margin that decoding there looks at.

    Returns features, normalised input, and the row and column of `image` where both begin.
    """
    h, w = target.shape
    step = window_of(model)
    margin = math.ceil((target.reach + (model.receptive_radius or 0)) / step) * step
    (top, bottom), (left, right) = widen(*rows, margin, h), widen(*columns, margin, w)
    inp = image[None, :, top:bottom, left:right]
    inp = norm.apply(inp.to(target.cell) / (255 if inp.dtype == torch.uint8 else 1))
    return model.encoder(inp), inp, top, left


def upscale_tile(model: Decoder, image: torch.Tensor, target: Target, rows: tuple, columns: tuple,
                 data_norm: dict | None) -> Iterator[Block]:
    """Yields `upscale`'s blocks of the output that belongs to the input pixels in `rows` and `columns` (start, end)."""
    h, w = target.shape
    inp_norm, gt_norm = normalisations(data_norm, target.cell.device)
    feat, inp, top, left = encode(model, image, target, rows, columns, inp_norm)

    xs = target.span(1, *columns)
    per_row = len(xs) * len(target.span(0, *rows)) / (rows[1] - rows[0])
    for start, end in parts(rows[1] - rows[0], max(ROWS, int(QUERIES / max(1, per_row)))):
        ys = target.span(0, rows[0] + start, rows[0] + end)
        if len(xs) == 0 or len(ys) == 0:  # a target smaller than the input leaves pixels out
            continue
        if feat.shape[-2:] != inp.shape[-2:]:  # the encoder's own upsampler made an image of it
            features = model.features(feat, inp)
        else:
            first, last = widen(rows[0] + start, rows[0] + end, target.reach, h)
            band = slice(first - top, last - top)
            features = model.features(feat[:, :, band], inp[:, :, band], (first, left, h, w))
        step = max(1, QUERIES // len(xs))  # at large scales a single row of the input makes more
        for some in (ys[i:i + step] for i in range(0, len(ys), step)):
            pred = model.query_grid(features, target.coord(0, some), target.coord(1, xs), target.cell).flatten(1, 2)
            yield some.start, xs.start, gt_norm.undo(pred).clamp(0, 1).view(len(some), -1, 3).permute(2, 0, 1).cpu()
