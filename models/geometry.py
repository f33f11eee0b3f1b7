"""Coordinates of queries, and where they lie among the latent codes: nearest codes, relative coordinates, areas.

Coordinates are (y, x), each axis of an image spanning [-1, 1]; a latent map of h x w has its codes at the centres
of its pixels, and relative coordinates count a latent pixel as 2 wide (LIIF, Chen et al., CVPR 2021, section 3).
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from utils import make_coord

# --- queries -------------------------------------------------------------------------------------------------------


def axis_coords(size: Sequence[int], dtype: torch.dtype = torch.float32) -> list[torch.Tensor]:
    """Coordinates of the pixel centres along each axis of an image of `size` (H, W): [(H,), (W,)], on the CPU."""
    return [make_coord([n])[:, 0].to(dtype) for n in size]


def grid(y: torch.Tensor, x: torch.Tensor, batch: int) -> torch.Tensor:
    """Coordinates (batch, H*W, 2) of all pairs of y (H,) and x (W,)."""
    coord = torch.stack(torch.meshgrid(y, x, indexing='ij'), dim=-1)
    return coord.view(1, -1, 2).expand(batch, -1, -1)


def all_queries(size: Sequence[int], batch: int, like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Coordinates and cells, each (batch, H*W, 2), of all pixels of targets of `size` (H, W), row by row.

    They have the type of `like` and are on its device.
    """
    coord = make_coord(size).to(like).expand(batch, -1, 2)
    return coord, coord.new_tensor([2 / n for n in size]).expand_as(coord)


def sample(image: torch.Tensor, coord: torch.Tensor, mode: str) -> torch.Tensor:
    """Colours (B, Q, C) of `image` (B, C, H, W) at `coord` (B, Q, 2), 'nearest' or 'bilinear'."""
    points = coord.flip(-1).unsqueeze(1)  # as (x, y)
    return F.grid_sample(image, points, mode=mode, padding_mode='border', align_corners=False)[:, :, 0].transpose(1, 2)


# --- codes ---------------------------------------------------------------------------------------------------------


def nearest(coord: torch.Tensor, size: int) -> torch.Tensor:
    """Index of the code nearest to `coord`, clamped into (-1, 1), on an axis of `size` codes; ties go to even."""
    coord = coord.clamp(-1 + 1e-6, 1 - 1e-6)
    return (((coord + 1) * size - 1) / 2).round().long()


def centre(index: torch.Tensor, size: int, dtype: torch.dtype) -> torch.Tensor:
    """Coordinate of code `index` along an axis of `size` codes, rounded as `utils.make_coord` does.

    Constants are float64 in exported graphs, too: for a query on a centre, the areas depend on the last digit.
    """
    size = torch.scalar_tensor(size, dtype=torch.float64, device=index.device)
    return (-1 + 1 / size).to(dtype) + (2 / size).to(dtype) * index.to(dtype)


def axis_neighbours(x: torch.Tensor, size: int, local_ensemble: bool = True) -> tuple[torch.Tensor, torch.Tensor]:
    """The codes on both sides of each coordinate (n = 2; 1, the nearest, without `local_ensemble`) along one axis.

    x: any shape. Returns index and relative coordinate, both (n, *x.shape). The neighbours are the codes nearest to
    x - 1/size + 1e-6 and x + 1/size + 1e-6.
    """
    sides = (-1, 1) if local_ensemble else (0,)
    index = torch.stack([nearest(x + (side / size + 1e-6 * abs(side)), size) for side in sides])
    return index, (x - centre(index, size, x.dtype)) * size


def ensemble_weights(rel_y: torch.Tensor, rel_x: torch.Tensor) -> torch.Tensor:
    """The local ensemble's weights, of (n, ...) relative coordinates along each axis: (n, n, ...), adding up to 1.

    Each code counts by the area of the rectangle that the query spans with the code diagonally opposite (LIIF, eq. 4).
    """
    area = (rel_y.unsqueeze(1) * rel_x.unsqueeze(0)).abs() + 1e-9
    return area.flip(0, 1) / area.flatten(0, 1).sum(dim=0)


def neighbours(coord: torch.Tensor, shape: tuple[int, int], local_ensemble: bool = True) -> tuple[torch.Tensor, ...]:
    """The latent codes that decode each query, and the areas that weigh them.

    coord: (B, Q, 2). shape: (h, w) of the latent map. Returns, for the n = 4 codes of the local ensemble (1 without),
    their rows and columns, (n, B, Q) each, rel_coord (n, B, Q, 2) and areas (n, B, Q). Unlike LIIF's, the areas are
    those of the opposite codes already, and add up to 1.
    """
    (iy, ry), (ix, rx) = (axis_neighbours(coord[..., axis], shape[axis], local_ensemble) for axis in (0, 1))
    areas = ensemble_weights(ry, rx).flatten(0, 1)

    def pairs(y, x):
        y, x = torch.broadcast_tensors(y.unsqueeze(1), x.unsqueeze(0))
        return y.flatten(0, 1), x.flatten(0, 1)

    return *pairs(iy, ix), torch.stack(pairs(ry, rx), dim=-1), areas


def relative_cell(cell: torch.Tensor, shape: tuple[int, int]) -> torch.Tensor:
    """A cell (..., 2), the size of a target pixel, in units in which a latent pixel is 2 wide."""
    return torch.stack([cell[..., axis] * size for axis, size in enumerate(shape)], dim=-1)
