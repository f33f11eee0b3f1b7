"""LTE: Lee and Jin, "Local Texture Estimator for Implicit Representation Function" (CVPR 2022), and its faster form.

Convolutions estimate amplitudes and frequencies for each code. With these, a query's relative coordinate becomes
Fourier features, which an MLP turns into a colour; the bilinearly upsampled input is added. The functions are those
published.

On a grid, waves are computed for rows and for columns and then multiplied, since e^(a + b) = e^a e^b, instead of being
computed for each query. The centres of the codes are those of the feature map; the published code takes those of the
input, which differ only for encoders that pad.
"""

import math

import torch
from torch import nn

from config import check_positive
from errors import UserError
from models.decoder import Decoder, Residual, ensemble
from models.mlp import MLP, make_net
from models.registry import register


def full(x: torch.Tensor) -> torch.Tensor:
    """`x`, converted to float32 if it is bf16, which has too few digits for phases of many turns."""
    return x.float() if x.dtype == torch.bfloat16 else x


def phases(layer: nn.Linear, rel_cell: torch.Tensor) -> torch.Tensor:
    """The phases (..., D / 2) that `layer` gives for relative cells (..., 2); never in bf16, even under autocast."""
    with torch.autocast(rel_cell.device.type, enabled=False):
        return layer(rel_cell)


def fourier(coef: torch.Tensor, freq: torch.Tensor, phase: torch.Tensor, rel_coord: torch.Tensor) -> torch.Tensor:
    """Fourier features (N, D): coef (N, D) times cos and sin of pi (freq . rel_coord + phase).

    freq (N, 2, D / 2): along y and x; phase (N, D / 2); rel_coord (N, 2).
    """
    angle = math.pi * (freq[:, 0] * rel_coord[:, :1] + freq[:, 1] * rel_coord[:, 1:] + phase)
    return full(coef) * torch.cat((angle.cos(), angle.sin()), dim=-1)


def fourier_on_pixels(coef: torch.Tensor, freq: torch.Tensor, phase: torch.Tensor, rel_y: torch.Tensor,
                      rel_x: torch.Tensor) -> torch.Tensor:
    """`fourier` of p latent pixels for the n x m queries around each: (p, n, m, D); rel_y (p, n), rel_x (p, m)."""
    along_y = math.pi * freq[:, :1] * rel_y.unsqueeze(2)  # (p, n, D / 2)
    along_x = math.pi * (freq[:, 1:] * rel_x.unsqueeze(2) + phase.unsqueeze(1))
    cos_y, sin_y = along_y.cos().unsqueeze(2), along_y.sin().unsqueeze(2)
    cos_x, sin_x = along_x.cos().unsqueeze(1), along_x.sin().unsqueeze(1)
    waves = torch.cat((cos_y * cos_x - sin_y * sin_x, sin_y * cos_x + cos_y * sin_x), dim=-1)
    return full(coef)[:, None, None] * waves


def pairs(freq: torch.Tensor) -> torch.Tensor:
    """Frequencies (N, D) whose channels are pairs (y, x), as (N, 2, D / 2)."""
    return full(freq).unflatten(-1, (-1, 2)).transpose(-1, -2)


def halves(freq: torch.Tensor) -> torch.Tensor:
    """Frequencies (N, D), the first half along y, the second along x, as (N, 2, D / 2)."""
    return full(freq).unflatten(-1, (2, -1))


def convolve(layer: nn.Conv2d, feat: torch.Tensor) -> torch.Tensor:
    """(B, C, h, w) -> (B, h, w, n)."""
    return layer(feat.contiguous(memory_format=torch.channels_last)).permute(0, 2, 3, 1)


def check_even(hidden_dim: int) -> None:
    """Raises a UserError for a number of Fourier features that is not even."""
    if hidden_dim % 2:
        raise UserError(f'hidden_dim must be even, not {hidden_dim}: half are cosines, half sines')


class Estimator(Decoder):
    """What LTE, LTE-fast and LM-LTE share; a subclass defines `render`, and how frequencies are laid out (`layout`).

    `hidden_dim`: the number of Fourier features. The published models have `residual: bilinear`.
    """

    clip_cell = True
    layout = staticmethod(pairs)
    gathered = 'coef', 'freq'  # which hoisted tensors a query needs from its codes

    def __init__(self, encoder_spec: dict, hidden_dim: int, residual: Residual, local_ensemble: bool):
        super().__init__(encoder_spec, local_ensemble, feat_unfold=False, cell_decode=True, residual=residual)
        check_positive(hidden_dim=hidden_dim)
        check_even(hidden_dim)
        self.width = hidden_dim
        self.coef = nn.Conv2d(self.encoder.out_dim, hidden_dim, 3, padding=1)
        self.freq = nn.Conv2d(self.encoder.out_dim, hidden_dim, 3, padding=1)
        self.phase = nn.Linear(2, hidden_dim // 2, bias=False)

    def hoist(self, feat):
        return {'coef': convolve(self.coef, feat), 'freq': convolve(self.freq, feat)}

    def estimate(self, hoisted: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor, nn.Linear]:
        """Amplitudes (N, D) and frequencies (N, 2, D / 2) of N codes, and the layer that gives phases of cells."""
        return hoisted['coef'], self.layout(hoisted['freq']), self.phase

    def decode(self, features, coord, cell):
        index, rel_coord, areas = self.neighbours(features, coord)
        rel_coord, rel_cell = self.local_input(features, rel_coord, cell).split(2, dim=-1)
        hoisted = {name: features.rows(name).index_select(0, index.flatten()) for name in self.gathered}
        coef, freq, phase = self.estimate(hoisted)
        waves = fourier(coef, freq, phases(phase, rel_cell), rel_coord)
        return ensemble(self.render(waves, hoisted), areas)

    def decode_pixels(self, hoisted, rel_cell, rel_y, rel_x):
        coef, freq, phase = self.estimate(hoisted)
        waves = fourier_on_pixels(coef, freq, phases(phase, rel_cell).expand(len(rel_y), -1), rel_y, rel_x)
        return self.render_pixels(waves.flatten(1, 2), hoisted)

    def render(self, waves: torch.Tensor, hoisted: dict[str, torch.Tensor]) -> torch.Tensor:
        """Colours (N, n_colors) of Fourier features (N, D); `hoisted`: the `gathered` tensors of their codes."""
        raise NotImplementedError

    def render_pixels(self, waves: torch.Tensor, hoisted: dict[str, torch.Tensor]) -> torch.Tensor:
        """Colours (p, n, n_colors) of n Fourier features (p, n, D) around each of p codes; `hoisted`: (p, ...)."""
        return self.render(waves.flatten(0, 1), hoisted).view(len(waves), -1, self.n_colors)


@register('lte')
class LTE(Estimator):
    """LTE. `imnet_spec`: the MLP, whose in_dim is hidden_dim."""

    pixelwise = True

    def __init__(self, encoder_spec: dict, imnet_spec: dict, hidden_dim: int = 256, residual: Residual = 'bilinear',
                 local_ensemble: bool = True):
        super().__init__(encoder_spec, hidden_dim, residual, local_ensemble)
        self.imnet = make_net('imnet_spec', imnet_spec, hidden_dim, MLP, self.n_colors)

    def render(self, waves, hoisted):
        return self.imnet(waves)


@register('lte-fast')
class LTEFast(Estimator):
    """LTE-fast, called LTE+ in the authors' README: its MLP is a stack of 1x1 convolutions, `num_layer` of them hidden.

    Its frequencies are laid out as `halves`, not as `pairs`.
    """

    pixelwise = True
    layout = staticmethod(halves)

    def __init__(self, encoder_spec: dict, num_layer: int = 3, hidden_dim: int = 256, out_dim: int = 3,
                 residual: Residual = 'bilinear', local_ensemble: bool = True):
        super().__init__(encoder_spec, hidden_dim, residual, local_ensemble)
        check_positive(num_layer=num_layer)
        if out_dim not in (3, self.n_colors):  # all published specs say 3
            raise UserError(f'out_dim must be {self.n_colors}, for the colours, not {out_dim}')
        hidden = [module for _ in range(num_layer) for module in (nn.Conv2d(hidden_dim, hidden_dim, 1), nn.ReLU())]
        self.layers = nn.Sequential(*hidden, nn.Conv2d(hidden_dim, self.n_colors, 1))

    def render(self, waves, hoisted):
        return self.layers(waves[None, None].permute(0, 3, 1, 2)).permute(0, 2, 3, 1)[0, 0]
