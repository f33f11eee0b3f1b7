"""The small networks inside the decoders: LIIF's MLP, A-LIIF's expansion net and its mixture of MLPs.

Each shows its first layer as `first` (weight, bias), because that layer is linear in the latent features and the
decoder computes their part once per latent pixel (`models.decoder`); `forward` goes on from its output.
"""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import nn

from models.registry import register
from utils import check_positive


def check_widths(out_dim: int, hidden_list: list[int]) -> None:
    check_positive(out_dim=out_dim, **{f'hidden_list[{i}]': width for i, width in enumerate(hidden_list)})


@register('mlp')
class MLP(nn.Module):
    """in_dim -> hidden_list -> out_dim, ReLU between the layers, none at the end."""

    def __init__(self, in_dim: int, out_dim: int, hidden_list: list[int]):
        super().__init__()
        check_widths(out_dim, hidden_list)
        dims = [in_dim, *hidden_list, out_dim]
        layers = [m for i, o in zip(dims, dims[1:], strict=False) for m in (nn.Linear(i, o), nn.ReLU(inplace=True))]
        self.layers = nn.Sequential(*layers[:-1])
        self.out_dim = out_dim

    @property
    def first(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Weight (out, in_dim) and bias (out,) of the first layer."""
        return self.layers[0].weight, self.layers[0].bias

    def forward(self, h: torch.Tensor) -> torch.Tensor:
        """What the layers after the first make of its output: (N, out) -> (N, out_dim)."""
        for layer in self.layers[1:]:
            h = layer(h)
        return h


@register('expansion-net')
class ExpansionNet(MLP):
    """The expansion net of A-LIIF: an MLP whose outputs, normalised, weigh the K implicit functions.

    `space`: 'query', as published, gives each query and neighbour its weights; 'pixel' (ours) leaves rel_coord out
    of the input, so that each latent pixel has one set of weights, and one implicit function. `norm`: 'l2', as
    published (weights may be negative), or 'softmax'.
    """

    def __init__(self, in_dim: int, out_dim: int, hidden_list: list[int], space: Literal['query', 'pixel'] = 'query',
                 norm: Literal['l2', 'softmax'] = 'l2'):
        super().__init__(in_dim, out_dim, hidden_list)
        self.space, self.norm = space, norm

    def forward(self, h: torch.Tensor) -> torch.Tensor:
        """The K weights: (N, out) -> (N, K)."""
        h = super().forward(h)
        if h.dtype == torch.bfloat16:
            h = h.float()  # a norm in bf16 costs 0.014 dB on Set5 at x2, its layers together 0.006
        return F.softmax(h, dim=-1) if self.norm == 'softmax' else F.normalize(h, dim=-1)


@register('mlp-mixture')
class MLPMixture(nn.Module):
    """K MLPs of one shape whose parameters are mixed, layer by layer: W = sum_k c_k W_k, b = sum_k c_k b_k.

    The mix is taken after the multiplication, sum_k c_k (W_k x + b_k), which is the same and builds no matrix for
    each query. `init`: 'flat', as published, draws each layer's (K, out*in) tensor by the fan-in of that shape,
    out*in; 'layer' (ours) draws each W_k by its own fan-in, as nn.Linear does.
    """

    def __init__(self, in_dim: int, out_dim: int, hidden_list: list[int], K: int = 10,
                 init: Literal['flat', 'layer'] = 'flat'):
        super().__init__()
        check_positive(K=K)
        check_widths(out_dim, hidden_list)
        self.K, self.out_dim = K, out_dim
        self.dims = [in_dim, *hidden_list, out_dim]
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        for i, o in zip(self.dims, self.dims[1:], strict=False):
            # kaiming_uniform_ with a = sqrt(5) is uniform within 1/sqrt(fan_in)
            bound = 1 / math.sqrt(i if init == 'layer' else i * o)
            self.weights.append(nn.Parameter(torch.empty(K, o * i).uniform_(-bound, bound)))
            self.biases.append(nn.Parameter(torch.empty(K, o).uniform_(-bound, bound)))

    def layer(self, i: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The K weights, stacked to (K*out, in), and biases (K*out,) of layer i."""
        return self.weights[i].view(-1, self.dims[i]), self.biases[i].view(-1)

    @property
    def first(self) -> tuple[torch.Tensor, torch.Tensor]:
        return self.layer(0)

    def forward(self, h: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        """From the K first layers' outputs h (N, K*out) and the weights c (N, K) to (N, out_dim)."""
        c = c.unsqueeze(1)

        def mix(h):
            return torch.bmm(c, h.view(h.shape[0], self.K, -1)).squeeze(1)

        for i in range(1, len(self.weights)):
            h = F.linear(F.relu(mix(h), inplace=True), *self.layer(i))
        return mix(h)
