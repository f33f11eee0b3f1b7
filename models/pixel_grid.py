"""The fast path for regular grids of queries and decoders that have one implicit function for each latent pixel.

The queries that depend on a latent pixel form a rectangle of the grid: a run of rows times a run of columns. So the
pixel's function is prepared only once, and what depends on the row or the column alone is computed once per run. All
runs are given the same length, so that the rest is one batched product of small matrices. The result is the same as
that of `Decoder.decode`; the tests compare the two.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterable

import torch
from torch import nn

from models.features import Features
from models.geometry import axis_neighbours, centre, ensemble_weights, relative_cell

CHUNK = 1 << 19  # numbers between two layers (pixels times queries times `width`), per thread: few enough for its cache
CUDA_CHUNK = 1 << 27  # the same for a GPU: so many that the time to launch the products is negligible
CUDA_PIXELS = 1 << 15  # latent pixels at a time: CUDA limits the number of products in a batch
RECORDED = []  # what recorded CUDA graphs read each time they run: it is never freed, while the cache drops values


class Runs:
    """The coordinates along an axis that depend on each latent pixel: a run of `length` consecutive ones per pixel.

    x: coordinates (N,), on the CPU, ascending, on an axis of `size` codes. Each depends on n codes, together on P. All
    runs have the same length, so some hold coordinates that do not depend on their pixel. Attributes:

        first: the lowest of the P pixels.
        positions (P, length): the indices of the coordinates in each pixel's run.
        rel (P, length): these coordinates, relative to the pixel.
        index (n, N): the n codes of each coordinate, counted from `first`.
        slot (n, N): the place of each coordinate in the run of each of its codes.
        rel_coord (n, N): each coordinate, relative to each of its codes.
    """

    def __init__(self, x: torch.Tensor, size: int, local_ensemble: bool):
        index, self.rel_coord = axis_neighbours(x, size, local_ensemble)
        self.first, last = int(index[0, 0]), int(index[-1, -1])
        pixels = torch.arange(self.first, last + 1)
        start = torch.searchsorted(index[-1].contiguous(), pixels)
        end = torch.searchsorted(index[0].contiguous(), pixels, right=True)
        self.length = int((end - start).max())
        start = start.clamp(max=len(x) - self.length)
        self.positions = start.unsqueeze(1) + torch.arange(self.length)
        self.rel = (x[self.positions] - centre(pixels, size, x.dtype).unsqueeze(1)) * size
        self.index = index - self.first
        self.slot = torch.arange(len(x)) - start[self.index]

    def to(self, device: torch.device) -> 'Runs':
        """Moves its tensors to `device`, and returns it."""
        for name in ('positions', 'rel', 'index', 'slot', 'rel_coord'):
            setattr(self, name, getattr(self, name).to(device, non_blocking=True))
        return self


@functools.lru_cache(1024)
def cached(x: tuple[float, ...], dtype: torch.dtype, device: torch.device, make: Callable, *args: object) -> object:
    return make(torch.tensor(x, dtype=dtype), *args).to(device)


def on_device(x: torch.Tensor, device: torch.device, make: Callable = torch.as_tensor, *args: object) -> object:
    """`make(x, *args)` of coordinates x (N,), computed on the CPU and moved to `device`; without `make`, x itself.

    On a GPU the result is kept for later batches, because a copy to a GPU waits until all its work so far is done.
    """
    if device.type != 'cuda' or x.requires_grad:
        return make(x.cpu(), *args).to(device)
    value = cached(tuple(x.tolist()), x.dtype, device, make, *args)
    if torch.cuda.is_current_stream_capturing():
        RECORDED.append(value)
    return value


def is_regular(*axes: torch.Tensor) -> bool:
    """Whether `decode_grid` takes these coordinates (N,): they ascend, and none needs a gradient."""
    return all(len(x) > 0 and bool((x.diff() >= 0).all()) and not x.requires_grad for x in axes)


def decode_grid(model: nn.Module, features: Features, y: torch.Tensor, x: torch.Tensor,
                cell: torch.Tensor) -> torch.Tensor:
    """Colours (B, H, W, n_colors) of `model`, which has `decode_pixels`, at all pairs of y (H,) and x (W,).

    y and x must be regular (`is_regular`). `cell` (2,): the size of a target pixel. `features` must cover the
    coordinates.
    """
    top, left, height, width = features.window
    rows, cols = (on_device(axis, cell.device, Runs, size, model.local_ensemble)
                  for axis, size in ((y, height), (x, width)))
    batch = len(features.feat)
    inside = [slice(runs.first - start, runs.first - start + len(runs.rel))
              for runs, start in ((rows, top), (cols, left))]
    features = dataclasses.replace(
        features, feat=features.feat[:, :, *inside], window=(rows.first, cols.first, height, width),
        hoisted={name: maps[:, *inside] for name, maps in features.hoisted.items()})
    rel_y = rows.rel.repeat_interleave(len(cols.rel), dim=0).repeat(batch, 1)
    rel_x = cols.rel.repeat(batch * len(rows.rel), 1)

    rel_cell = relative_cell(cell, (height, width))
    chunk, most = (CUDA_CHUNK, CUDA_PIXELS) if cell.is_cuda else (CHUNK * torch.get_num_threads(), rel_y.shape[0])
    step = min(most, max(1, chunk // (rows.length * cols.length * model.width)))
    values = []
    for pixels, some_y, some_x in zip(features.pixels(step), rel_y.split(step), rel_x.split(step), strict=True):
        pixels = model.hoist_cell(pixels, cell.expand(1, 1, 2))
        hoisted = {name: pixels.rows(name) for name in pixels.hoisted}
        values.append(model.decode_pixels(hoisted, rel_cell, some_y, some_x))
    return Combine.apply(torch.cat(values).view(batch, len(rows.rel), len(cols.rel), rows.length, cols.length, -1),
                         rows, cols)


def affine(start: torch.Tensor, local: torch.Tensor, rel_y: torch.Tensor, rel_x: torch.Tensor) -> torch.Tensor:
    """A first layer's output (p, out, n * m): start (p, out) plus local (p, out, 2) times a query's rel_coord.

    rel_y (p, n), rel_x (p, m).
    """
    y, x = torch.broadcast_tensors(rel_y.unsqueeze(2), rel_x.unsqueeze(1))
    queries = torch.stack((torch.ones_like(y), y, x), dim=1).flatten(2)
    with torch.autocast(start.device.type, enabled=False):  # coordinates need more digits than bf16 has
        return torch.bmm(torch.cat((start.unsqueeze(2), local), dim=2).to(queries.dtype), queries)


def layers(h: torch.Tensor, parameters: Iterable[tuple[torch.Tensor, torch.Tensor]]) -> torch.Tensor:
    """Applies to h (p, in, N) a ReLU and a linear layer for each pair of weight and bias in `parameters`.

    weight: (p, out, in). bias: (p, out). Returns (p, N, out).
    """
    for weight, bias in parameters:
        h = torch.bmm(weight, h.relu_()).add_(bias.unsqueeze(2))  # on a CPU faster than baddbmm
    return h.transpose(1, 2)


class Combine(torch.autograd.Function):
    """The local ensemble's sum (B, H, W, C) of the pixels' `values` (B, Py, Px, n, m, C).

    Forward, a target pixel gathers from its codes; backward, a code gathers from its run of target pixels, which is
    much faster than PyTorch's own scattering.
    """

    @staticmethod
    def forward(ctx, values: torch.Tensor, rows: Runs, cols: Runs) -> torch.Tensor:
        ctx.rows, ctx.cols, ctx.dtype = rows, cols, values.dtype
        _, _, px, n, m, _ = values.shape
        at_row = rows.index * (px * n * m) + rows.slot * m
        at_col = cols.index * (n * m) + cols.slot
        areas = ensemble_weights(rows.rel_coord.unsqueeze(2), cols.rel_coord.unsqueeze(1)).unsqueeze(-1)
        values = values.flatten(1, 4)
        result = 0
        for i, row in enumerate(at_row):
            for j, col in enumerate(at_col):
                index = row.unsqueeze(1) + col
                result = result + values.index_select(1, index.flatten()).unflatten(1, index.shape) * areas[i, j]
        return result

    @staticmethod
    def backward(ctx, grad: torch.Tensor) -> tuple:
        rows, cols = ctx.rows, ctx.cols
        (py, n), (px, m) = rows.positions.shape, cols.positions.shape

        def runs(images):
            """(A, H, W, C) -> (A, Py * n, Px * m, C): the target pixels in the codes' runs."""
            return images.index_select(1, rows.positions.flatten()).index_select(2, cols.positions.flatten())

        areas = ensemble_weights(rows.rel_coord.unsqueeze(2), cols.rel_coord.unsqueeze(1))
        areas = runs(areas.flatten(0, 1).unsqueeze(-1)).view(*areas.shape[:2], py * n, px * m)
        shares = torch.einsum('iy,jx,ijyx->yx', own(rows, areas), own(cols, areas), areas)
        grad = (runs(grad) * shares.unsqueeze(-1)).view(len(grad), py, n, px, m, -1)
        return grad.transpose(2, 3).to(ctx.dtype), None, None


def own(runs: Runs, like: torch.Tensor) -> torch.Tensor:
    """1 where a coordinate in a pixel's run has the pixel as its i-th code, 0 elsewhere: (n, P * length)."""
    pixels = torch.arange(len(runs.positions), device=runs.positions.device).unsqueeze(1)
    return (runs.index[:, runs.positions] == pixels).to(like.dtype).flatten(1)
