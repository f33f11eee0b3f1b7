"""Images of any size: encoded in overlapping tiles, decoded in bands, so that memory does not grow with the image."""

import math

import torch

from models.geometry import nearest
from utils import make_coord

TILE = 512  # largest side of the part of an image that is encoded at a time, without its margin
QUERIES = 1 << 18  # about how many pixels of the output are decoded at a time


class Normalisation:
    """(x - sub) / div for each channel, and back, for tensors whose channels lie as `shape` says."""

    def __init__(self, spec, device, shape):
        self.sub, self.div = (torch.tensor(spec[k], dtype=torch.float32, device=device).view(shape)
                              for k in ('sub', 'div'))

    def apply(self, x):
        return (x - self.sub) / self.div

    def undo(self, x):
        return x * self.div + self.sub


def normalisations(data_norm, device):
    """The `Normalisation`s of inputs (B, 3, h, w) and of targets (B, Q, 3); None leaves both as they are."""
    data_norm = data_norm or {}
    identity = {'sub': [0], 'div': [1]}
    return (Normalisation(data_norm.get('inp', identity), device, (1, -1, 1, 1)),
            Normalisation(data_norm.get('gt', identity), device, (1, 1, -1)))


def parts(length, largest):
    """Cuts range(length) into as few even parts as there can be with at most `largest` in each: [(start, end), ...]."""
    count = math.ceil(length / largest)
    bounds = [round(i * length / count) for i in range(count + 1)]
    return list(zip(bounds, bounds[1:], strict=False))


def widen(start, end, margin, length):
    return max(0, start - margin), min(length, end + margin)


class Target:
    """The pixels of an output of `size` (H, W) for an input of `shape` (h, w): their coordinates and whose they are."""

    def __init__(self, size, shape, like):
        self.shape, self.cell = shape, like.new_tensor([2 / n for n in size])
        self.coords = [make_coord([n])[:, 0].to(like) for n in size]
        # how far off the features are that an output pixel needs: its corner's code (Meta-SR; one step for the codes of
        # the local ensemble), and that code's own neighbours when unfolded
        self.reach = 1 + math.ceil(0.5 + max(1, *(n / m for n, m in zip(shape, size, strict=True))) / 2)
        self.owners = [nearest(x, n) for x, n in zip(self.coords, shape, strict=True)]  # input pixels

    def coord(self, axis, start, end):
        """Coordinates along an axis of the output pixels that belong to the input pixels start <= i < end."""
        owner = self.owners[axis]
        return self.coords[axis][(owner >= start) & (owner < end)]


@torch.no_grad()
def upscale(model, image, size, data_norm=None):
    """`image` (3, h, w), uint8 or float in [0, 1], at `size` (H, W): yields bands (3, n, W) in [0, 1], top to bottom.

    `model` is a `Decoder`. Encoder and decoder see a tile with a margin that covers the receptive field, so the result
    is that of the whole image; an encoder that pools over the whole image (RCAN) has no such margin, and one with its
    own upsampler no map of latent codes: for them the tile is the image.
    """
    target = Target(size, image.shape[-2:], like=next(model.parameters()))
    h, w = target.shape
    largest = max(h, w) if model.receptive_radius is None else TILE
    for top, bottom in parts(h, largest):
        tiles = [upscale_tile(model, image, target, (top, bottom), columns, data_norm) for columns in parts(w, largest)]
        yield torch.cat(tiles, dim=2)


def upscale_tile(model, image, target, rows, columns, data_norm):
    """The output (3, n, m), on the CPU, that belongs to the input pixels in `rows` and `columns`, (start, end) each."""
    h, w = target.shape
    inp_norm, gt_norm = normalisations(data_norm, target.cell.device)
    margin = target.reach + (model.receptive_radius or 0)
    (top, bottom), (left, right) = widen(*rows, margin, h), widen(*columns, margin, w)
    inp = image[None, :, top:bottom, left:right]
    inp = inp_norm.apply(inp.to(target.cell) / (255 if inp.dtype == torch.uint8 else 1))
    feat = model.encoder(inp)

    x, bands = target.coord(1, *columns), []
    per_row = len(x) * len(target.coord(0, *rows)) / (rows[1] - rows[0])
    for start, end in parts(rows[1] - rows[0], max(1, int(QUERIES / max(1, per_row)))):
        y = target.coord(0, rows[0] + start, rows[0] + end)
        if len(x) == 0 or len(y) == 0:  # a target smaller than the input leaves pixels out
            continue
        if model.receptive_radius is None:
            model.use_features(feat, inp, (0, 0, *feat.shape[-2:]))
        else:
            first, last = widen(rows[0] + start, rows[0] + end, target.reach, h)
            band = slice(first - top, last - top)
            model.use_features(feat[:, :, band], inp[:, :, band], (first, left, h, w))
        for ys in y.split(max(1, QUERIES // len(x))):  # at large scales a single row of the input makes many
            pred = gt_norm.undo(model.query_grid(ys, x, target.cell).flatten(1, 2)).clamp(0, 1)
            bands.append(pred.view(len(ys), len(x), 3).permute(2, 0, 1).cpu())
    return torch.cat(bands, dim=1) if bands else torch.empty(3, len(target.coord(0, *rows)), len(x))
