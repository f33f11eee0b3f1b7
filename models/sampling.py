"""Coordinates of a grid, and an image's colours at coordinates."""

import torch
import torch.nn.functional as F


def grid(y: torch.Tensor, x: torch.Tensor, batch: int) -> torch.Tensor:
    """Coordinates (batch, H*W, 2) of all pairs of y (H,) and x (W,)."""
    coord = torch.stack(torch.meshgrid(y, x, indexing='ij'), dim=-1)
    return coord.view(1, -1, 2).expand(batch, -1, -1)


def sample(image: torch.Tensor, coord: torch.Tensor, mode: str) -> torch.Tensor:
    """Colours (B, Q, C) of `image` (B, C, H, W) at `coord` (B, Q, 2), 'nearest' or 'bilinear'."""
    grid = coord.flip(-1).unsqueeze(1)
    return F.grid_sample(image, grid, mode=mode, padding_mode='border', align_corners=False)[:, :, 0].transpose(1, 2)
