"""RDN encoder: Zhang et al., "Residual Dense Network for Image Super-Resolution" (CVPR 2018).

As in LIIF, with `no_upsampling` the output is features instead of an image.
"""

from typing import Literal

import torch
from torch import nn

from config import check_positive
from errors import UserError
from models.edsr import conv
from models.registry import register

CONFIGS = {'A': (20, 6, 32), 'B': (16, 8, 64)}  # blocks, layers in a block, growth rate


class DenseLayer(nn.Module):
    """Appends `growth` new channels to its input."""

    def __init__(self, in_channels, growth, kernel_size):
        super().__init__()
        self.conv = nn.Sequential(conv(in_channels, growth, kernel_size), nn.ReLU())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat((x, self.conv(x)), dim=1)


class ResidualDenseBlock(nn.Module):
    """`layers` dense layers, fused to `channels` channels and added to the input (RDN, figure 3)."""

    def __init__(self, channels, growth, layers, kernel_size):
        super().__init__()
        self.convs = nn.Sequential(*[DenseLayer(channels + i * growth, growth, kernel_size) for i in range(layers)])
        self.LFF = conv(channels + layers * growth, channels, 1)  # local feature fusion

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.LFF(self.convs(x))


@register('rdn')
class RDN(nn.Module):
    """(B, n_colors, h, w) -> features (B, G0, h, w), or an image (B, n_colors, h*scale, w*scale), scale 2, 3 or 4.

    `RDNconfig`: 'A' is 20 blocks of 6 layers with growth 32, 'B' 16 of 8 with 64. `receptive_radius`: how many
    pixels around its own a feature depends on; None with the upsampler.
    """

    def __init__(self, G0: int = 64, RDNkSize: int = 3, RDNconfig: Literal['A', 'B'] = 'B', scale: int = 2,
                 no_upsampling: bool = False, n_colors: int = 3):
        super().__init__()
        check_positive(G0=G0, n_colors=n_colors)
        if RDNkSize < 1 or RDNkSize % 2 == 0:
            raise UserError(f'RDNkSize must be odd, not {RDNkSize}')
        blocks, layers, growth = CONFIGS[RDNconfig]
        self.SFENet1 = conv(n_colors, G0, RDNkSize)  # shallow features
        self.SFENet2 = conv(G0, G0, RDNkSize)
        self.RDBs = nn.ModuleList([ResidualDenseBlock(G0, growth, layers, RDNkSize) for _ in range(blocks)])
        self.GFF = nn.Sequential(conv(blocks * G0, G0, 1), conv(G0, G0, RDNkSize))  # global feature fusion
        self.UPNet = None if no_upsampling else self._upsampler(G0, growth, scale, RDNkSize, n_colors)
        self.n_colors, self.out_dim = n_colors, G0 if no_upsampling else n_colors
        self.receptive_radius = (RDNkSize // 2) * (3 + blocks * layers) if no_upsampling else None

    @staticmethod
    def _upsampler(channels, growth, scale, kernel_size, n_colors):
        if scale not in (2, 3, 4):
            raise UserError(f'scale must be 2, 3 or 4, not {scale}')
        modules = []
        for factor in (2, 2) if scale == 4 else (scale,):
            modules += [conv(channels, growth * factor ** 2, kernel_size), nn.PixelShuffle(factor)]
            channels = growth
        return nn.Sequential(*modules, conv(growth, n_colors, kernel_size))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shallow = self.SFENet1(x)
        x, outputs = self.SFENet2(shallow), []
        for block in self.RDBs:
            x = block(x)
            outputs.append(x)
        x = shallow + self.GFF(torch.cat(outputs, dim=1))
        return x if self.UPNet is None else self.UPNet(x)
