"""Bicubic interpolation behind the models' interface: the baseline of every table."""

import numpy as np
import torch
from PIL import Image
from torch import nn

from models.decoder import sample
from models.registry import register


@register('bicubic')
class Bicubic(nn.Module):
    """Pillow's bicubic (a = -0.5) on 8 bits. `inp` is in [0, 1], and a cell tells the target's size."""

    def gen_feat(self, inp: torch.Tensor) -> torch.Tensor:
        self.inp, self.size = inp, None
        return inp

    def query_rgb(self, coord: torch.Tensor, cell: torch.Tensor) -> torch.Tensor:
        height, width = (2 / cell[0, 0]).round().int().tolist()
        if self.size != (height, width):
            images = (self.inp.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
            resized = np.stack([Image.fromarray(i).resize((width, height), Image.BICUBIC) for i in images])
            self.image = torch.from_numpy(resized).permute(0, 3, 1, 2).to(self.inp) / 255
            self.size = height, width
        return sample(self.image, coord, 'nearest')

    def forward(self, inp: torch.Tensor, coord: torch.Tensor, cell: torch.Tensor) -> torch.Tensor:
        self.gen_feat(inp)
        return self.query_rgb(coord, cell)
