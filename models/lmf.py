"""LM-LIIF and LM-LTE: He and Jin, "Latent Modulated Function for Computational Optimal Continuous Image
Representation" (CVPR 2024).

A hypernet runs once for each latent pixel. It predicts the modulation of a small render net and, with `mod_input`, also
the code that the render net takes as input. So the large network runs at low resolution, and only the small one runs
for each query (section 3.2). The functions are those published, without the early exit in flat areas (CMSR).

On a grid, a pixel's modulation is multiplied into the render net's matrices once for all its queries:
(W v + b) (1 + s) + t = ((1 + s) W) v + (1 + s) b + t.
"""

import torch
import torch.nn.functional as F
from torch import nn

from config import check_positive, convert
from errors import UserError
from models.decoder import Decoder, Residual, ensemble
from models.lte import Estimator, check_even, fourier, full, pairs, phases
from models.mlp import MLP, Linear, linear, make_net
from models.pixel_grid import affine, layers
from models.registry import register


@register('lmmlp')
class ModulatedMLP(nn.Module):
    """in_dim -> `hidden_depth` layers of `hidden_dim` -> out_dim. Hidden layers are scaled and shifted before ReLU.

    A modulation (N, 2 hidden_depth hidden_dim) holds all scales, layer by layer, and then all shifts. `mod_scale` and
    `mod_shift` exist because published configs set them; they must be true.
    """

    def __init__(self, in_dim: int, out_dim: int, hidden_dim: int, hidden_depth: int, mod_scale: bool = True,
                 mod_shift: bool = True):
        super().__init__()
        check_positive(out_dim=out_dim, hidden_dim=hidden_dim, hidden_depth=hidden_depth)
        if not mod_scale or not mod_shift:
            raise UserError('mod_scale and mod_shift must be true')
        hidden = [module for i in range(hidden_depth)
                  for module in (Linear(hidden_dim if i else in_dim, hidden_dim), nn.ReLU())]
        # (the ReLUs are not called: they give the layers the numbers that they have in published files)
        self.layers = nn.Sequential(*hidden, Linear(hidden_dim, out_dim))
        self.hidden_dim, self.hidden_depth, self.out_dim = hidden_dim, hidden_depth, out_dim
        self.modulations = 2 * hidden_dim * hidden_depth

    def unpack(self, modulation: torch.Tensor) -> tuple[tuple[torch.Tensor, ...], tuple[torch.Tensor, ...]]:
        """The scales and the shifts of the hidden layers, (N, hidden_dim) each."""
        scales, shifts = modulation.chunk(2, dim=-1)
        return scales.chunk(self.hidden_depth, dim=-1), shifts.chunk(self.hidden_depth, dim=-1)

    def forward(self, x: torch.Tensor, modulation: torch.Tensor) -> torch.Tensor:
        """(N, in_dim) -> (N, out_dim)."""
        for layer, scale, shift in zip([*self.layers][:-1:2], *self.unpack(modulation), strict=True):
            x = F.relu(layer(x) * (1 + scale) + shift)
        return self.layers[-1](x)

    def modulated(self, modulation: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Weight (N, out, in) and bias (N, out) of each layer, with the modulation multiplied in."""
        found = [((1 + scale).unsqueeze(2) * layer.weight, (1 + scale) * layer.bias + shift)
                 for layer, scale, shift in zip([*self.layers][:-1:2], *self.unpack(modulation), strict=True)]
        last = self.layers[-1]
        count = len(modulation)
        return [*found, (last.weight.to(modulation.dtype).expand(count, -1, -1),
                         last.bias.to(modulation.dtype).expand(count, -1))]


def render_width(spec: dict) -> int:
    """The hidden_dim in the spec of a render net, or 0 if there is no valid one, which `make_net` will report."""
    args = spec.get('args') if isinstance(spec, dict) else None
    width = args.get('hidden_dim') if isinstance(args, dict) else None
    return max(0, convert(width or 0, int, 'imnet_spec: hidden_dim'))


class Modulated(Decoder):
    """What LM-LIIF and LM-LTE share: `hypernet` and its modulation. Subclasses define `hypernet_start` and `decode`."""

    clip_cell = True

    @property
    def pixelwise(self):
        return type(self.imnet) is ModulatedMLP  # a subclass of it may compute something else

    def make_nets(self, imnet_spec: dict, hypernet_spec: dict, imnet_dim: int, hypernet_dim: int, codes: int) -> None:
        """Makes the render net, and the hypernet, whose output is the modulation and `codes` further numbers."""
        self.imnet = make_net('imnet_spec', imnet_spec, imnet_dim, ModulatedMLP, self.n_colors)
        self.hypernet = make_net('hypernet_spec', hypernet_spec, hypernet_dim, MLP,
                                 out_dim=self.imnet.modulations + codes)
        self.width = self.imnet.hidden_dim

    def hoist_cell(self, features, cell):
        start = self.hypernet_start(features, cell)
        made = self.hypernet.after_first(start.flatten(0, 2)).view(*start.shape[:-1], -1)
        modulation, codes = made.split((self.imnet.modulations, made.shape[-1] - self.imnet.modulations), dim=-1)
        return features.with_hoisted(modulation=full(modulation), codes=full(codes))

    def hypernet_start(self, features, cell: torch.Tensor | None) -> torch.Tensor:
        """The output of the hypernet's first layer, (B, h, w, n); cell (B, Q, 2), one for each image."""
        raise NotImplementedError


@register('lmliif')
class LMLIIF(Modulated):
    """LM-LIIF.

    `imnet_spec`: the render net, an 'lmmlp'; `hypernet_spec`: an 'mlp'. Their in_dim and the hypernet's out_dim follow
    from the other arguments. `mod_input`: the render net's input is a code from the hypernet instead of the feature.
    """

    pixelwise = Modulated.pixelwise

    def __init__(self, encoder_spec: dict, imnet_spec: dict, hypernet_spec: dict, local_ensemble: bool = True,
                 feat_unfold: bool = True, cell_decode: bool = True, mod_input: bool = False,
                 residual: Residual = None):
        super().__init__(encoder_spec, local_ensemble, feat_unfold, cell_decode, residual)
        self.mod_input = mod_input
        code = render_width(imnet_spec) if mod_input else self.encoder.out_dim
        cell_dim = 2 if cell_decode else 0
        self.make_nets(imnet_spec, hypernet_spec, code + 2 + cell_dim, self.feat_dim + cell_dim,
                       code if mod_input else 0)

    def hoist(self, feat):
        first = self.first_rows(feat, *self.hypernet.first)
        return {'first': first} if self.mod_input else {'first': first, 'feat': feat.permute(0, 2, 3, 1)}

    def hypernet_start(self, features, cell):
        return self.first_layer_on_pixels(features, 'first', cell, self.hypernet.first[0])

    def decode(self, features, coord, cell):
        index, rel_coord, areas = self.neighbours(features, coord)
        modulation, codes = (features.rows(name).index_select(0, index.flatten())
                             for name in ('modulation', 'codes' if self.mod_input else 'feat'))
        x = torch.cat((codes, self.local_input(features, rel_coord, cell)), dim=-1)
        return ensemble(self.imnet(x, modulation), areas)

    def decode_pixels(self, hoisted, rel_cell, rel_y, rel_x):
        (weight, bias), *rest = self.imnet.modulated(hoisted['modulation'])
        codes = hoisted['codes' if self.mod_input else 'feat']
        if self.cell_decode:
            weight, cell_part = weight[..., :-2], weight[..., -2:]
            bias = bias + cell_part @ rel_cell
        start = torch.baddbmm(bias.unsqueeze(2), weight[..., :-2], full(codes).unsqueeze(2)).squeeze(2)
        return layers(affine(start, weight[..., -2:], rel_y, rel_x), rest)


@register('lmlte')
class LMLTE(Modulated, Estimator):
    """LM-LTE: Fourier features of a latent pixel are the hypernet's input, those of a query the render net's.

    `hidden_dim`: the number of Fourier features of a latent pixel. `mod_input`: the amplitudes and frequencies of a
    query's Fourier features come from the hypernet.
    """

    pixelwise = Modulated.pixelwise

    def __init__(self, encoder_spec: dict, imnet_spec: dict, hypernet_spec: dict, hidden_dim: int = 128,
                 local_ensemble: bool = True, cell_decode: bool = True, mod_input: bool = False,
                 residual: Residual = 'bilinear'):
        super().__init__(encoder_spec, hidden_dim, residual, local_ensemble)
        if not cell_decode:
            raise UserError('cell_decode must be true: the phases of the waves come from the cell')
        self.mod_input = mod_input
        width = render_width(imnet_spec) if mod_input else hidden_dim
        check_even(width)
        if mod_input:
            self.imphase = nn.Linear(2, width // 2, bias=False)
        self.gathered = ('modulation', 'codes') if mod_input else ('modulation', 'coef', 'freq')
        self.make_nets(imnet_spec, hypernet_spec, width, hidden_dim, 2 * width if mod_input else 0)
        self.width = max(width, self.imnet.hidden_dim)

    def hypernet_start(self, features, cell):
        coef, freq = features.rows('coef'), pairs(features.rows('freq'))
        shape = features.feat.shape
        phase = phases(self.phase, self.shared_cell(features, cell)).expand(-1, shape[2] * shape[3], -1).flatten(0, 1)
        waves = fourier(coef, freq, phase, freq.new_ones(1, 2))
        return linear(waves, *self.hypernet.first).view(shape[0], *shape[2:], -1)

    def estimate(self, hoisted):
        if not self.mod_input:
            return super().estimate(hoisted)
        coef, freq = hoisted['codes'].chunk(2, dim=-1)
        return coef, pairs(freq), self.imphase

    def render(self, waves, hoisted):
        return self.imnet(waves, hoisted['modulation'])

    def render_pixels(self, waves, hoisted):
        (weight, bias), *rest = self.imnet.modulated(hoisted['modulation'])
        return layers(torch.baddbmm(bias.unsqueeze(2), weight, waves.transpose(1, 2)), rest)
