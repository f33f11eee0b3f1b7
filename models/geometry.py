"""Where a query lies among the latent codes: nearest codes, relative coordinates, areas.

Coordinates are (y, x), each axis of an image spanning [-1, 1]; a latent map of h x w has its codes at the centres
of its pixels, and relative coordinates count a latent pixel as 2 wide (LIIF, Chen et al., CVPR 2021, section 3).
"""

import torch


def nearest(coord, size):
    """Index along an axis of `size` codes of the one nearest to `coord`, clamped into (-1, 1); ties go to even."""
    coord = coord.clamp(-1 + 1e-6, 1 - 1e-6)
    return (((coord + 1) * size - 1) / 2).round().long()


def centre(index, size, dtype):
    """Coordinate of code `index` along an axis of `size` codes, rounded as `utils.make_coord` does."""
    return (-1 + 1 / size) + (2 / size) * index.to(dtype)


def neighbours(coord, shape, local_ensemble=True):
    """The latent codes that decode each query, and their shares.

    coord: (B, Q, 2). shape: (h, w) of the latent map. Returns, for the n = 4 codes of the local ensemble (1 without),
    index (n, B, Q) into the flattened map, rel_coord (n, B, Q, 2) and weights (n, B, Q) that add up to 1: each code is
    weighted by the area of the rectangle diagonally opposite to it (LIIF, eq. 4). With the ensemble they are the codes
    nearest to `coord` shifted by (+-1/h + 1e-6, +-1/w + 1e-6).
    """
    sides = (-1, 1) if local_ensemble else (0,)
    indices, rels = [], []
    for axis, size in enumerate(shape):
        x = coord[..., axis]
        index = torch.stack([nearest(x + (side / size + 1e-6 * abs(side)), size) for side in sides])
        indices.append(index)
        rels.append((x - centre(index, size, coord.dtype)) * size)

    (iy, ix), (ry, rx) = indices, rels
    n = len(sides) ** 2
    index = (iy.unsqueeze(1) * shape[1] + ix.unsqueeze(0)).view(n, *coord.shape[:-1])
    rel_coord = torch.stack(torch.broadcast_tensors(ry.unsqueeze(1), rx.unsqueeze(0)), dim=-1).view(n, *coord.shape)
    area = rel_coord.prod(dim=-1).abs() + 1e-9
    return index, rel_coord, area.flip(0) / area.sum(dim=0)


def relative_cell(cell, shape):
    """A cell (..., 2), the size of a target pixel, in units in which a latent pixel is 2 wide."""
    return cell * cell.new_tensor(shape)
