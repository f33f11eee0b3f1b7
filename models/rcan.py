"""RCAN encoder: Zhang et al., "Image Super-Resolution Using Very Deep Residual Channel Attention Networks" (ECCV 2018).

As in LIIF there is no mean shift, and with `no_upsampling` the output is features instead of an image.
"""

import torch
from torch import nn

from config import check_positive
from errors import UserError
from models.edsr import ResidualEncoder, conv
from models.registry import register


class ChannelAttention(nn.Module):
    """Scales each channel by a gate computed from all channels' means over the image."""

    def __init__(self, n_feats, reduction):
        super().__init__()
        self.conv_du = nn.Sequential(conv(n_feats, n_feats // reduction, 1), nn.ReLU(inplace=True),
                                     conv(n_feats // reduction, n_feats, 1), nn.Sigmoid())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.conv_du(x.mean(dim=(-2, -1), keepdim=True))


class ResidualBlock(nn.Module):
    """x + body(x), with `layers` as the body."""

    def __init__(self, layers):
        super().__init__()
        self.body = nn.Sequential(*layers)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.body(x)


@register('rcan')
class RCAN(ResidualEncoder):
    """(B, n_colors, h, w) -> (B, n_feats, h, w), or (B, n_colors, h*scale, w*scale) with the upsampler.

    `n_resgroups`: groups, of `n_resblocks` blocks each. `n_feats`: width of the blocks. `reduction`: a block computes
    its gates from n_feats / reduction numbers. `scale`: that of the upsampler, which `no_upsampling` leaves out.
    `rgb_range` has no effect (published specs have it). `receptive_radius` is None: the channel attention pools over
    the whole image, so a feature depends on every pixel and the image cannot be encoded in tiles.
    """

    def __init__(self, n_resgroups: int = 10, n_resblocks: int = 20, n_feats: int = 64, reduction: int = 16,
                 scale: int = 2, no_upsampling: bool = False, rgb_range: float = 1,
                 n_colors: int = 3):
        check_positive(n_resgroups=n_resgroups, n_resblocks=n_resblocks, reduction=reduction)
        if n_feats < reduction:
            raise UserError(f'reduction must be at most n_feats, {n_feats}, not {reduction}')

        def block():
            return ResidualBlock([conv(n_feats, n_feats), nn.ReLU(inplace=True), conv(n_feats, n_feats),
                                  ChannelAttention(n_feats, reduction)])

        groups = [ResidualBlock([*[block() for _ in range(n_resblocks)], conv(n_feats, n_feats)])
                  for _ in range(n_resgroups)]
        super().__init__(groups, n_feats, scale, no_upsampling, n_colors)
        self.receptive_radius = None
