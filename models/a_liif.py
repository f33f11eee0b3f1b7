"""A-LIIF: Li et al., "Adaptive Local Implicit Image Function for Arbitrary-scale Super-resolution" (ICIP 2022).

LIIF with a separate function for each query, mixed from the parameters of K small MLPs with weights from an expansion
net. Differences from the published code: parameters are mixed after the multiplication, so no matrix is built for each
query; first layers are computed once per latent pixel; the number of features is not fixed to 64.
Off by default: our `space: pixel` (expansion net) and `init: layer` (mixture), and LTE's `residual: bilinear`.
"""

import types

import torch

from errors import UserError
from models.decoder import Decoder, Residual, ensemble
from models.features import Features
from models.kernels import usable
from models.mlp import ExpansionNet, MLPMixture, make_net
from models.pixel_grid import affine, layers
from models.registry import register


@register('a-liif')
class ALIIF(Decoder):
    """`imnet_spec`: the K implicit functions, an 'mlp-mixture'. `expansion_spec`: the net that weighs them, an
    'expansion-net' with out_dim K; without it there is one function (K = 1). Their in_dim comes from the encoder.
    """

    def __init__(self, encoder_spec: dict, imnet_spec: dict, expansion_spec: dict | None = None,
                 local_ensemble: bool = True, feat_unfold: bool = True, cell_decode: bool = True,
                 residual: Residual = None):
        super().__init__(encoder_spec, local_ensemble, feat_unfold, cell_decode, residual)
        self.imnet = make_net('imnet_spec', imnet_spec, self.in_dim, MLPMixture, self.n_colors)
        self.expansion = None
        if expansion_spec is not None:
            self.expansion = make_net('expansion_spec', expansion_spec, self.in_dim, ExpansionNet)
        self.pixel_space = self.expansion is not None and self.expansion.space == 'pixel'
        self.width = max(self.imnet.dims[1:-1], default=1)
        weights = 1 if self.expansion is None else self.expansion.out_dim
        if weights != self.imnet.K:
            raise UserError(f'expansion_spec gives {weights} weights (out_dim), imnet_spec has K = {self.imnet.K}: '
                            'they must be equal')

    @property
    def is_unmodified(self) -> bool:
        """Whether the fast paths apply: subclasses of this class or of the mixture may compute something else."""
        return type(self) is ALIIF and type(self.imnet) is MLPMixture

    def hoist(self, feat):
        nets = {'mixture': self.imnet, **({'expansion': self.expansion} if self.expansion else {})}
        return {name: self.first_rows(feat, *net.first) for name, net in nets.items()}

    def hoist_cell(self, features, cell):
        return features.with_hoisted(weights=self.weigh_pixels(features, cell)) if self.pixel_space else features

    def decode(self, features, coord, cell):
        index, rel_coord, areas = self.neighbours(features, coord)
        local = self.local_input(features, rel_coord, cell)
        h = self.first_layer(features.rows('mixture'), index, local, self.imnet.first[0])
        return ensemble(self.imnet.after_first(h, self.weigh(features, index, local)), areas)

    def weigh(self, features: Features, index: torch.Tensor, local: torch.Tensor) -> torch.Tensor:
        """The weights of the K functions for each query and code, (n*B*Q, K)."""
        if self.expansion is None:
            return local.new_ones(local.shape[0], 1)
        if self.pixel_space:
            return features.rows('weights').index_select(0, index.flatten())
        return self.expansion.after_first(
            self.first_layer(features.rows('expansion'), index, local, self.expansion.first[0]))

    def weigh_pixels(self, features: Features, cell: torch.Tensor) -> torch.Tensor:
        """The weights of the K functions for each latent pixel, (B, h, w, K); cell (B, Q, 2), one for each image."""
        start = self.first_layer_on_pixels(features, 'expansion', cell, self.expansion.first[0])
        return self.expansion.after_first(start.flatten(0, 2)).view(*start.shape[:-1], -1)

    # --- fast paths

    def decode_in_chunks(self, features, coord, cell):
        fused = fused_kernel(self, features, coord)
        return fused.decode(self, features, coord, cell) if fused else super().decode_in_chunks(features, coord, cell)

    @property
    def pixelwise(self):
        return self.pixel_space and self.is_unmodified

    def decode_pixels(self, hoisted, rel_cell, rel_y, rel_x):
        """Mixes the parameters, W = sum_k c_k W_k, once per pixel."""
        imnet, c = self.imnet, hoisted['weights']
        local = imnet.first[0].view(imnet.K, -1, self.in_dim)[..., self.feat_dim:]  # (K, out, 2 or 4)
        start = torch.bmm(c.unsqueeze(1), hoisted['mixture'].view(len(c), imnet.K, -1)).squeeze(1)
        if self.cell_decode:
            start = start + c @ (local[..., 2:] @ rel_cell.to(local.dtype))
        fused = pixel_kernel(imnet, start)
        return (fused.decode if fused else decode_by_layers)(imnet, local[..., :2], c, start, rel_y, rel_x)


def decode_by_layers(imnet: MLPMixture, coord: torch.Tensor, c: torch.Tensor, start: torch.Tensor, rel_y: torch.Tensor,
                     rel_x: torch.Tensor) -> torch.Tensor:
    """Colours (P, n * m, C) of P pixels' queries by the functions that `c` (P, K) mixes.

    coord (K, H, 2): the columns for rel_coord of the first layer. start (P, H): its output at rel_coord 0. rel_y
    (P, n), rel_x (P, m).
    """
    local = (c @ coord.flatten(1)).view(len(c), -1, 2)
    mixed = (((c @ weight).view(len(c), out, -1), c @ bias)
             for weight, bias, out in zip(imnet.weights[1:], imnet.biases[1:], imnet.dims[2:], strict=True))
    return layers(affine(start, local, rel_y, rel_x), mixed)


def pixel_kernel(imnet: MLPMixture, start: torch.Tensor) -> types.ModuleType | None:
    """The module whose `decode` computes the mixed functions by a CUDA kernel; None if it does not fit `imnet`."""
    return usable('fused_pixel', imnet, start) if start.is_cuda else None


def fused_kernel(model: ALIIF, features: Features, coord: torch.Tensor) -> types.ModuleType | None:
    """The module whose `decode` is a single CUDA kernel; None if it does not fit `model` or gradients are needed."""
    if not coord.is_cuda or torch.is_grad_enabled() or torch.compiler.is_compiling():
        return None
    return usable('fused', model, features)
