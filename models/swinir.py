"""SwinIR encoder: Liang et al., "SwinIR: Image Restoration Using Swin Transformer" (ICCVW 2021), as LTE configures it.

Transformer layers on 8x8 windows, shifted by half a window in every second block, between convolutions. Differences
from the published encoder:

- The features are cropped to the image's size. The published encoder keeps the padding to whole windows, which
  stretches images whose sides are not multiples of the window.
- The tables that follow from the window (`relative_position_index`, `attn_mask`) are computed. Checkpoints may contain
  them; they are ignored there.
"""

from collections.abc import Iterable
from itertools import islice

import torch
import torch.nn.functional as F
from torch import nn

from config import check_positive
from errors import UserError
from models.registry import register

DROP_PATH = 0.1  # the last block's rate of stochastic depth; it grows evenly from 0 at the first block
MASKED = -100.  # added to the products of queries and keys that are not neighbours in the image


def relative_index(window: int) -> torch.Tensor:
    """The row of the bias table for each query and key in a window, (window^2, window^2); it depends on their offset.
    """
    position = torch.stack(torch.meshgrid(torch.arange(window), torch.arange(window), indexing='ij'), -1).flatten(0, 1)
    offset = position.unsqueeze(1) - position + window - 1
    return offset[..., 0] * (2 * window - 1) + offset[..., 1]


def window_partition(x: torch.Tensor, window: int) -> torch.Tensor:
    """A map (B, H, W, C) cut into windows, row by row: (B * windows, window^2, C)."""
    b, h, w, c = x.shape
    x = x.view(b, h // window, window, w // window, window, c)
    return x.transpose(2, 3).reshape(-1, window * window, c)


def window_reverse(x: torch.Tensor, window: int, size: tuple[int, int]) -> torch.Tensor:
    """The map (B, H, W, C) of `size` (H, W) whose windows `window_partition` has made."""
    h, w = size
    x = x.view(-1, h // window, w // window, window, window, x.shape[-1])
    return x.transpose(2, 3).reshape(-1, h, w, x.shape[-1])


def attention_mask(size: tuple[int, int], window: int, device: torch.device) -> torch.Tensor:
    """What is added to the product of a query and a key in shifted windows: 0, or MASKED if only the shift joined them.

    Returns (windows, N, N).
    """
    labels = [torch.zeros(n, device=device).index_fill_(0, torch.arange(n - window, n, device=device), 1) for n in size]
    for label, n in zip(labels, size, strict=True):
        label[n - window // 2:] = 2
    both = window_partition((labels[0].unsqueeze(1) * 3 + labels[1]).view(1, *size, 1), window).squeeze(-1)
    return (both.unsqueeze(1) != both.unsqueeze(2)) * MASKED


class WindowAttention(nn.Module):
    """Multi-head self-attention in windows, with a learned bias for each offset between query and key."""

    def __init__(self, dim: int, window: int, heads: int):
        super().__init__()
        self.heads = heads
        self.relative_position_bias_table = nn.Parameter(torch.empty((2 * window - 1) ** 2, heads))
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)
        self.register_buffer('index', relative_index(window).flatten(), persistent=False)
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        """x: windows (B * windows, N, C). mask: (windows, N, N), or None."""
        count, n, c = x.shape
        windows = 1 if mask is None else mask.shape[0]  # `len` would fix the number in exported graphs
        q, k, v = self.qkv(x).view(-1, windows, n, 3, self.heads, c // self.heads).permute(3, 0, 1, 4, 2, 5)
        bias = self.relative_position_bias_table[self.index].view(n, n, -1).permute(2, 0, 1)
        if mask is not None:
            bias = bias + mask.unsqueeze(1)  # (windows, heads, N, N), for all images of the batch
        products = q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5
        x = (products + bias).softmax(dim=-1).to(v.dtype) @ v
        return self.proj(x.transpose(2, 3).reshape(count, n, c))


class Mlp(nn.Module):
    """C -> 2 C -> C."""

    def __init__(self, dim: int):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(dim, 2 * dim), nn.Linear(2 * dim, dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class Block(nn.Module):
    """Attention in windows and an MLP, each after a LayerNorm and with a skip; maps (B, H, W, C)."""

    def __init__(self, dim: int, heads: int, window: int, shift: int, drop: float):
        super().__init__()
        self.window, self.shift, self.drop = window, shift, drop
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attn, self.mlp = WindowAttention(dim, window, heads), Mlp(dim)

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        x = x + self.drop_path(self.attend(self.norm1(x), mask if self.shift else None))
        return x + self.drop_path(self.mlp(self.norm2(x)))

    def attend(self, x: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        x = x.roll((-self.shift, -self.shift), (1, 2))
        x = window_reverse(self.attn(window_partition(x, self.window), mask), self.window, x.shape[1:3])
        return x.roll((self.shift, self.shift), (1, 2))

    def drop_path(self, x: torch.Tensor) -> torch.Tensor:
        """Stochastic depth: in training the branch is dropped for some samples and scaled up for the others."""
        if not self.training or self.drop == 0:
            return x
        kept = torch.rand(len(x), 1, 1, 1, device=x.device) >= self.drop
        return x * kept / (1 - self.drop)


class Group(nn.Module):
    """The transformer part of a layer: a block for each rate of stochastic depth in `drops`."""

    def __init__(self, dim: int, heads: int, window: int, drops: Iterable[float]):
        super().__init__()
        self.blocks = nn.ModuleList(Block(dim, heads, window, window // 2 * (j % 2), drop)
                                    for j, drop in enumerate(drops))

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            x = block(x, mask)
        return x


class Layer(nn.Module):
    """A residual Swin transformer layer: x + conv(blocks(x)); maps (B, H, W, C)."""

    def __init__(self, dim: int, heads: int, window: int, drops: Iterable[float]):
        super().__init__()
        self.residual_group = Group(dim, heads, window, drops)
        self.conv = nn.Conv2d(dim, dim, 3, padding=1)

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        y = self.residual_group(x, mask).permute(0, 3, 1, 2)
        return x + self.conv(y).permute(0, 2, 3, 1)


class Embedding(nn.Module):
    """The LayerNorm of the tokens, in a module of its own so that its tensors have the published names."""

    def __init__(self, dim: int):
        super().__init__()
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(x)


@register('swinir')
class SwinIR(nn.Module):
    """(B, n_colors, h, w) -> features (B, 64, h, w).

    Args:
        embed_dim: channels of the tokens. depths, num_heads: blocks and heads of each layer.
        window: side of the windows, in pixels. Images whose sides are not multiples of it are mirrored at the right and
            the bottom.
        no_upsampling: has no effect, as there is no upsampler (published specs have it).
    """

    # features depend on the whole image; `models.predict.set_tile` instead makes the model encode tiles, whose sides
    # and overlap are whole windows
    receptive_radius = None

    def __init__(self, embed_dim: int = 180, depths: list[int] = (6,) * 6, num_heads: list[int] = (6,) * 6,
                 window: int = 8, no_upsampling: bool = True, n_colors: int = 3):
        super().__init__()
        check_positive(embed_dim=embed_dim, window=window, n_colors=n_colors,
                       **{f'depths[{i}]': n for i, n in enumerate(depths)})
        if len(depths) != len(num_heads) or any(heads < 1 or embed_dim % heads for heads in num_heads):
            raise UserError(f'num_heads must be {len(depths)} numbers, as many as depths, that divide embed_dim '
                            f'{embed_dim}, not {list(num_heads)}')
        self.window, self.n_colors, self.out_dim = window, n_colors, 64
        self.conv_first = nn.Conv2d(n_colors, embed_dim, 3, padding=1)
        self.patch_embed = Embedding(embed_dim)
        rates = iter(DROP_PATH * i / max(1, sum(depths) - 1) for i in range(sum(depths)))
        self.layers = nn.ModuleList(Layer(embed_dim, heads, window, islice(rates, depth))
                                    for heads, depth in zip(num_heads, depths, strict=True))
        self.norm = nn.LayerNorm(embed_dim)
        self.conv_after_body = nn.Conv2d(embed_dim, embed_dim, 3, padding=1)
        self.conv_before_upsample = nn.Sequential(nn.Conv2d(embed_dim, 64, 3, padding=1), nn.LeakyReLU(inplace=True))
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h, w = x.shape[-2:]
        x = self.conv_first(self.pad(x))
        mask = attention_mask(x.shape[-2:], self.window, x.device)
        tokens = self.patch_embed(x.permute(0, 2, 3, 1))
        for layer in self.layers:
            tokens = layer(tokens, mask)
        x = self.conv_after_body(self.norm(tokens).permute(0, 3, 1, 2)) + x
        return self.conv_before_upsample(x)[..., :h, :w]

    def pad(self, x: torch.Tensor) -> torch.Tensor:
        """`x` extended to whole windows by mirroring, repeatedly if a side is short; edge pixels are not repeated."""
        for dim in (-2, -1):
            size = x.shape[dim]
            period = torch.scalar_tensor(max(1, 2 * size - 2), dtype=torch.int64, device=x.device)
            whole = (size + self.window - 1) // self.window * self.window
            index = torch.arange(whole, device=x.device) % period
            x = x.index_select(dim, torch.minimum(index, (2 * size - 2 - index).abs()))
        return x
