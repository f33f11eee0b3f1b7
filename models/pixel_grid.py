"""The fast path for regular grids of queries and decoders that have one implicit function for each latent pixel.

The queries that depend on a latent pixel form a rectangle of the grid, a run of rows times a run of columns. So its
function is prepared once per pixel, and what depends on the row or the column alone is computed once per run. As all
runs are given the same length, the rest is one batched product of small matrices. The result is that of
`Decoder.decode`; the tests compare the two.
"""

import functools
from collections.abc import Iterable

import torch
from torch import nn

from models.features import Features
from models.geometry import axis_neighbours, centre, ensemble_weights, relative_cell

CHUNK = 1 << 19  # numbers between two layers (pixels times their queries times `width`) at a time: they stay in cache
CUDA_CHUNK = 1 << 27  # so many that the time to launch the products is negligible
CUDA_PIXELS = 1 << 15  # at a time: CUDA limits the number of products in a batch
RECORDED = []  # what CUDA graphs read


class Runs:
    """Which coordinates depend on each latent pixel along an axis: a run of `length` consecutive ones per pixel.

    x: coordinates (N,), on the CPU, ascending, on an axis of `size` codes. `first`: the lowest of the P pixels needed.
    `positions` (P, length): the indices of the coordinates in each pixel's run. `rel` (P, length): the same coordinates
    relative to the pixel. `index` (n, N): the n codes of each coordinate, counted from `first`. `slot` (n, N): its
    place in their runs. `rel_coord` (n, N): the coordinate relative to them. As all runs have the same length, some
    hold coordinates that do not depend on their pixel.
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
        """The same, its tensors on `device`."""
        for name in ('positions', 'rel', 'index', 'slot', 'rel_coord'):
            setattr(self, name, getattr(self, name).to(device, non_blocking=True))
        return self


@functools.lru_cache(512)
def runs_of(x: tuple[float, ...], dtype: torch.dtype, device: torch.device, size: int, local_ensemble: bool) -> Runs:
    return Runs(torch.tensor(x, dtype=dtype), size, local_ensemble).to(device)


@functools.lru_cache(512)
def on_gpu(x: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    return torch.tensor(x, dtype=dtype, device=device)


def kept(x: torch.Tensor, device: torch.device) -> torch.Tensor:
    """The coordinates `x` (N,) on `device`; those on a GPU are kept: copying them anew for each batch would wait."""
    return for_good(on_gpu(tuple(x.tolist()), x.dtype, device)) if device.type == 'cuda' else x.to(device)


def make_runs(x: torch.Tensor, device: torch.device, size: int, local_ensemble: bool) -> Runs:
    """The `Runs` of x (N,) on `device`, likewise."""
    if device.type == 'cuda':
        return for_good(runs_of(tuple(x.tolist()), x.dtype, device, size, local_ensemble))
    return Runs(x.cpu(), size, local_ensemble).to(device)


def for_good(value: torch.Tensor | Runs) -> torch.Tensor | Runs:
    """`value`; if a CUDA graph is being recorded, it is never freed, because the graph reads its memory again."""
    if torch.cuda.is_current_stream_capturing():
        RECORDED.append(value)
    return value


def decode_grid(model: nn.Module, features: Features, y: torch.Tensor, x: torch.Tensor,
                cell: torch.Tensor) -> torch.Tensor:
    """Colours (B, n_colors, H, W) of `model`, which has `decode_pixels`, at all pairs of y (H,) and x (W,).

    Coordinates must ascend. `cell` (2,): of a target pixel. `features` must cover the coordinates.
    """
    top, left, height, width = features.window
    rows, cols = (make_runs(axis, cell.device, size, model.local_ensemble) for axis, size in ((y, height), (x, width)))
    batch = len(features.feat)
    inside = [slice(runs.first - start, runs.first - start + len(runs.rel))
              for runs, start in ((rows, top), (cols, left))]
    features = Features(features.feat[:, :, *inside], features.inp, (rows.first, cols.first, height, width),
                        {name: maps[:, *inside] for name, maps in features.hoisted.items()})
    features = model.hoist_cell(features, cell.expand(batch, 1, 2))  # for the pixels needed, not for the whole band
    pixels = {name: maps.flatten(0, 2) for name, maps in features.hoisted.items()}
    rel_y = rows.rel.repeat_interleave(len(cols.rel), dim=0).repeat(batch, 1)
    rel_x = cols.rel.repeat(batch * len(rows.rel), 1)

    rel_cell = relative_cell(cell, (height, width))
    step = max(1, (CUDA_CHUNK if cell.is_cuda else CHUNK) // (rows.length * cols.length * model.width))
    if cell.is_cuda:
        step = min(step, CUDA_PIXELS)
    chunks = zip(rel_y.split(step), rel_x.split(step), *(maps.split(step) for maps in pixels.values()), strict=True)
    values = torch.cat([model.decode_pixels(dict(zip(pixels, maps, strict=True)), rel_cell, some_y, some_x)
                        for some_y, some_x, *maps in chunks])
    return Combine.apply(values.view(batch, len(rows.rel), len(cols.rel), -1, rows.length, cols.length), rows, cols)


def affine(start: torch.Tensor, local: torch.Tensor, rel_y: torch.Tensor, rel_x: torch.Tensor) -> torch.Tensor:
    """A first layer's output (p, out, n * m): start (p, out) plus local (p, out, 2) times a query's rel_coord.

    rel_y (p, n), rel_x (p, m).
    """
    h = start.unsqueeze(2) + local[..., :1] * rel_y.unsqueeze(1)
    return (h.unsqueeze(3) + (local[..., 1:2] * rel_x.unsqueeze(1)).unsqueeze(2)).flatten(2)


def layers(h: torch.Tensor, parameters: Iterable[tuple[torch.Tensor, torch.Tensor]]) -> torch.Tensor:
    """Applies to h (p, in, N), for each weight (p, out, in) and bias (p, out) of `parameters`, ReLU and that layer."""
    for weight, bias in parameters:
        h = torch.baddbmm(bias.unsqueeze(2), weight, h.relu_())
    return h


class Combine(torch.autograd.Function):
    """The local ensemble's sum (B, C, H, W) of the pixels' `values` (B, Py, Px, C, n, m).

    Forward, a target pixel gathers from its codes; backward, a code gathers from its run of target pixels, which is
    much faster than PyTorch's own scattering.
    """

    @staticmethod
    def forward(ctx, values: torch.Tensor, rows: Runs, cols: Runs) -> torch.Tensor:
        ctx.rows, ctx.cols, ctx.dtype = rows, cols, values.dtype
        _, _, px, channels, n, m = values.shape
        at_row = rows.index * (px * channels * n * m) + rows.slot * m
        at_col = cols.index * (channels * n * m) + cols.slot
        areas = ensemble_weights(rows.rel_coord.unsqueeze(2), cols.rel_coord.unsqueeze(1))
        values = values.flatten(1)
        result = 0
        for i, row in enumerate(at_row):
            for j, col in enumerate(at_col):
                index = row.view(1, -1, 1) + col + torch.arange(channels, device=col.device).view(-1, 1, 1) * (n * m)
                result = result + values[:, index] * areas[i, j]
        return result

    @staticmethod
    def backward(ctx, grad: torch.Tensor) -> tuple:
        rows, cols = ctx.rows, ctx.cols
        (py, n), (px, m) = rows.positions.shape, cols.positions.shape

        def runs(images):
            """(..., H, W) -> (..., Py * n, Px * m): the target pixels in the codes' runs."""
            return images.index_select(-2, rows.positions.flatten()).index_select(-1, cols.positions.flatten())

        areas = ensemble_weights(rows.rel_coord.unsqueeze(2), cols.rel_coord.unsqueeze(1))
        shares = torch.einsum('iy,jx,ijyx->yx', own(rows, areas), own(cols, areas), runs(areas))
        grad = (runs(grad) * shares).view(len(grad), -1, py, n, px, m)
        return grad.permute(0, 2, 4, 1, 3, 5).to(ctx.dtype), None, None


def own(runs: Runs, like: torch.Tensor) -> torch.Tensor:
    """1 where a coordinate in a pixel's run has the pixel as its i-th code, 0 elsewhere: (n, P * length)."""
    pixels = torch.arange(len(runs.positions), device=runs.positions.device).unsqueeze(1)
    return (runs.index[:, runs.positions] == pixels).to(like.dtype).flatten(1)
