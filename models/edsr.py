"""EDSR encoders: Lim et al., "Enhanced Deep Residual Networks for Single Image Super-Resolution" (CVPRW 2017).

As in LIIF there is no mean shift, and with `no_upsampling` the output is features instead of an image.
"""

import math

import torch
from torch import nn

from config import check_positive
from errors import UserError
from models.registry import register


def conv(in_channels: int, out_channels: int, kernel_size: int = 3) -> nn.Conv2d:
    """A convolution that keeps height and width."""
    return nn.Conv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2)


def upsampler(scale: int, channels: int) -> nn.Sequential:
    """Convolutions and pixel shuffles that enlarge a feature map `scale` times, a power of two or 3."""
    if scale == 3:
        return nn.Sequential(conv(channels, 9 * channels), nn.PixelShuffle(3))
    if scale < 1 or scale & (scale - 1):
        raise UserError(f'scale must be a power of two or 3, not {scale}')
    steps = int(math.log2(scale))
    return nn.Sequential(*[m for _ in range(steps) for m in (conv(channels, 4 * channels), nn.PixelShuffle(2))])


class ResBlock(nn.Module):
    """x + res_scale * conv(ReLU(conv(x))), without batch normalisation (EDSR, figure 2c); (B, n_feats, h, w)."""

    def __init__(self, n_feats, res_scale):
        super().__init__()
        self.body = nn.Sequential(conv(n_feats, n_feats), nn.ReLU(inplace=True), conv(n_feats, n_feats))
        self.res_scale = res_scale

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        res = self.body(x)
        return x + (res if self.res_scale == 1 else res * self.res_scale)


class ResidualEncoder(nn.Module):
    """Head, body with a long skip connection, and upsampling tail: the frame of EDSR and RCAN.

    (B, n_colors, h, w) -> features (B, n_feats, h, w) with `no_upsampling`, else an image (B, n_colors, h*scale,
    w*scale).
    """

    def __init__(self, blocks, n_feats, scale, no_upsampling, n_colors):
        check_positive(n_colors=n_colors)
        super().__init__()
        self.head = nn.Sequential(conv(n_colors, n_feats))
        self.body = nn.Sequential(*blocks, conv(n_feats, n_feats))
        self.tail = None if no_upsampling else nn.Sequential(upsampler(scale, n_feats), conv(n_feats, n_colors))
        self.n_colors, self.out_dim = n_colors, n_feats if no_upsampling else n_colors

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.head(x)
        x = x + self.body(x)
        return x if self.tail is None else self.tail(x)


@register('edsr')
class EDSR(ResidualEncoder):
    """EDSR; by default the large one, 32 blocks of 256 features. `rgb_range` has no effect (published specs have it).

    `n_resblocks`: number of blocks; `n_feats`: their width; `res_scale`: factor of what a block adds to its input.
    `scale`: that of the upsampler, which `no_upsampling` leaves out: a power of two or 3.
    `n_colors`: channels of the images; in training it follows the data where it is not given.
    `receptive_radius`: how many pixels around its own a feature depends on; None with the upsampler.
    """

    def __init__(self, n_resblocks: int = 32, n_feats: int = 256, res_scale: float = 0.1, scale: int = 2,
                 no_upsampling: bool = False, rgb_range: float = 1, n_colors: int = 3):
        check_positive(n_resblocks=n_resblocks, n_feats=n_feats)
        super().__init__([ResBlock(n_feats, res_scale) for _ in range(n_resblocks)], n_feats, scale, no_upsampling,
                         n_colors)
        self.receptive_radius = 2 * n_resblocks + 2 if no_upsampling else None


@register('edsr-baseline')
class EDSRBaseline(EDSR):
    """EDSR-baseline: 16 blocks of 64 features."""

    def __init__(self, n_resblocks: int = 16, n_feats: int = 64, res_scale: float = 1, scale: int = 2,
                 no_upsampling: bool = False, rgb_range: float = 1, n_colors: int = 3):
        super().__init__(n_resblocks, n_feats, res_scale, scale, no_upsampling, rgb_range, n_colors)
