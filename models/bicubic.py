"""Bicubic interpolation with the interface of the models: the baseline of every table."""

import numpy as np
import torch
from torch import nn

from datasets.transforms import resize, to_tensor
from models.geometry import sample
from utils import to_float


class Bicubic(nn.Module):
    """Pillow's bicubic (a = -0.5). `inp` is in [0, 1], and a cell gives the target's size.

    Images of 8 bits are resized in 8 bits, as other programs do, all others in float32.
    """

    def __init__(self):
        super().__init__()
        self.data_norm = None

    def gen_feat(self, inp: torch.Tensor) -> torch.Tensor:
        """Keeps the images `inp` (B, C, h, w) for the queries that follow, and returns them."""
        self.inp, self.resized = inp, [None] * len(inp)
        return inp

    def query_rgb(self, coord: torch.Tensor, cell: torch.Tensor) -> torch.Tensor:
        """Colours (B, Q, C) at `coord` (B, Q, 2); an image's first `cell` (B, Q, 2) gives the target's size."""
        preds = []
        for i, (height, width) in enumerate((2 / cell[:, 0]).round().int().tolist()):
            if self.resized[i] is None or self.resized[i].shape[-2:] != (height, width):
                resized = resize(pixels(self.inp[i]), (height, width))
                self.resized[i] = to_float(to_tensor(resized)).unsqueeze(0).to(self.inp)
            preds.append(sample(self.resized[i], coord[i:i + 1], 'nearest'))
        return torch.cat(preds)

    def forward(self, inp: torch.Tensor, coord: torch.Tensor, cell: torch.Tensor) -> torch.Tensor:
        """Colours (B, Q, C) of the images `inp` (B, C, h, w) at `coord` (B, Q, 2)."""
        self.gen_feat(inp)
        return self.query_rgb(coord, cell)


def pixels(image: torch.Tensor) -> np.ndarray:
    """An image (C, h, w) in [0, 1] as (h, w, C): uint8 if all its values are 8-bit levels, else float32."""
    image = image.float().clamp(0, 1).permute(1, 2, 0).cpu()
    levels = (image * 255).round()
    whole = (image * 255 - levels).abs().max() < 1e-3  # steps of 16 bits are 4e-3
    return (levels.byte() if whole else image).numpy()
