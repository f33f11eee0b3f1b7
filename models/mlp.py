"""The small networks inside the decoders: LIIF's MLP, A-LIIF's expansion net and its mixture of MLPs.

Each exposes its first layer as `first` (weight, bias), because that layer is linear in the latent features and the
decoder computes their part once per latent pixel (`models.decoder`); `after_first` goes on from its output.
"""

import functools
import math
from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import nn

from config import check_positive
from errors import UserError
from models.registry import make, register

AVX512 = torch.backends.mkldnn.is_available() and torch.backends.cpu.get_cpu_capability().startswith('AVX512')


class Linear(nn.Linear):
    """nn.Linear by `linear`."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return linear(x, self.weight, self.bias)


def linear(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """x W^T + b, (..., in) -> (..., out); for x (N, in) on a CPU with AVX-512, computed as a 1x1 convolution.

    The product is then computed by oneDNN instead of MKL, which in float32 uses half the vector width of AMD CPUs; in
    bf16 this avoids a copy of the bias, but its backward pass is slower.
    """
    if traced() or not convolves(x):
        return F.linear(x, weight, bias)
    kernel = weight[:, :, None, None].contiguous(memory_format=torch.channels_last)
    image = x[None, None].permute(0, 3, 1, 2)  # of one row: (1, in, 1, N) in channels_last
    return F.conv2d(image, kernel, bias).permute(0, 2, 3, 1)[0, 0]


def traced() -> bool:
    """Whether the model is being compiled or exported, where linear layers are handled better than convolutions."""
    return torch.compiler.is_compiling() or torch.jit.is_tracing()


def convolves(x: torch.Tensor) -> bool:
    """Whether `linear` is faster as a convolution (measured on a Zen 5; a convolution of nothing is an error)."""
    quick = x.dtype == torch.float32 or x.dtype == torch.bfloat16 and not torch.is_grad_enabled()
    return AVX512 and x.device.type == 'cpu' and quick and x.dim() == 2 and x.shape[0] > 0


def check_widths(out_dim: int, hidden_list: list[int]) -> None:
    """Raises a UserError for a width below 1."""
    check_positive(out_dim=out_dim, **{f'hidden_list[{i}]': width for i, width in enumerate(hidden_list)})


@register('mlp')
class MLP(nn.Module):
    """in_dim -> hidden_list -> out_dim, ReLU between the layers, none at the end."""

    def __init__(self, in_dim: int, out_dim: int, hidden_list: list[int]):
        super().__init__()
        check_widths(out_dim, hidden_list)
        dims = [in_dim, *hidden_list, out_dim]
        layers = [m for i, o in zip(dims, dims[1:], strict=False) for m in (Linear(i, o), nn.ReLU(inplace=True))]
        self.layers = nn.Sequential(*layers[:-1])
        self.out_dim = out_dim

    @property
    def first(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Weight (out, in_dim) and bias (out,) of the first layer."""
        return self.layers[0].weight, self.layers[0].bias

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, in_dim) -> (N, out_dim)."""
        return self.after_first(self.layers[0](x))

    def after_first(self, h: torch.Tensor) -> torch.Tensor:
        """The output (N, out_dim), from that of the first layer, (N, out)."""
        for layer in [*self.layers][1:]:  # a slice of the Sequential would make a new module
            h = layer(h)
        return h


@register('expansion-net')
class ExpansionNet(MLP):
    """The expansion net of A-LIIF: an MLP whose outputs, normalised, weigh the K implicit functions.

    `space`: 'query', as published, gives each query and neighbour its own weights. 'pixel' (ours) leaves rel_coord, two
    of the in_dim numbers, out of the input, so each latent pixel has one set of weights and one implicit function.
    `norm`: 'l2', as published (weights may be negative), or 'softmax'.
    """

    def __init__(self, in_dim: int, out_dim: int, hidden_list: list[int], space: Literal['query', 'pixel'] = 'query',
                 norm: Literal['l2', 'softmax'] = 'l2'):
        super().__init__(in_dim - 2 if space == 'pixel' else in_dim, out_dim, hidden_list)
        self.space, self.norm = space, norm

    def after_first(self, h: torch.Tensor) -> torch.Tensor:
        """The K weights (N, K), from the output of the first layer, (N, out)."""
        h = super().after_first(h)
        if h.dtype == torch.bfloat16:
            h = h.float()  # the norm in bf16 costs 0.014 dB on Set5 at x2, all layers together 0.006
        return F.softmax(h, dim=-1) if self.norm == 'softmax' else F.normalize(h, dim=-1)


@register('mlp-mixture')
class MLPMixture(nn.Module):
    """K MLPs of one shape whose parameters are mixed, layer by layer: W = sum_k c_k W_k, b = sum_k c_k b_k.

    They are mixed after the multiplication, sum_k c_k (W_k x + b_k), which is the same but builds no matrix for each
    query. `init`: 'flat', as published, draws each layer's (K, out*in) tensor by the fan-in of that shape,
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
            for tensors, width in ((self.weights, o * i), (self.biases, o)):
                tensors.append(nn.Parameter(torch.empty(K, width)))  # one that is too large is refused here
                nn.init.uniform_(tensors[-1], -bound, bound)

    def layer(self, i: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The K weights, stacked to (K*out, in), and biases (K*out,) of layer i."""
        return self.weights[i].view(-1, self.dims[i]), self.biases[i].view(-1)

    @property
    def first(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The K weights (K*out, in_dim) and biases (K*out,) of the first layer."""
        return self.layer(0)

    def after_first(self, h: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        """The output (N, out_dim), from those of the K first layers, h (N, K*out), and the weights c (N, K)."""
        spread = h.device.type == 'cpu' and h.dtype == torch.bfloat16 and not torch.is_grad_enabled()
        mix = mix_spread(c) if spread else mix_products(c)
        for i in range(1, len(self.weights)):
            h = linear(F.relu(mix(h), inplace=True), *self.layer(i))
        return mix(h)


def mix_products(c: torch.Tensor) -> Callable:
    """The function that mixes h (N, K*out) to sum_k c_k h_k (N, out), c (N, K)."""
    c = c.unsqueeze(1)
    return lambda h: torch.bmm(c, h.view(h.shape[0], c.shape[2], -1)).squeeze(1)


def mix_spread(c: torch.Tensor) -> Callable:
    """`mix_products` for bf16 on a CPU, where a batch of tiny products is slow.

    c is expanded to the shape of h, and a product with a matrix of zeros and ones sums over k.
    """
    c = c.to(torch.bfloat16)
    one = torch.eye(c.shape[1], dtype=c.dtype)

    @functools.cache
    def spread(out):
        return c @ one.repeat_interleave(out, dim=1)

    def mix(h):
        out = h.shape[1] // c.shape[1]
        return (h * spread(out)) @ torch.eye(out, dtype=c.dtype).repeat(c.shape[1], 1)
    return mix


def make_net(key: str, spec: dict, in_dim: int, kind: type, n_colors: int | None = None, **args: object) -> nn.Module:
    """The network of class `kind` that a config describes under `key`.

    `n_colors`: its number of outputs, if given. The config may then leave out out_dim, or give this number, or 3, which
    all published configs give. `args`: further arguments, which the decoder determines. UserError for a network of
    another kind; an expansion net does not count as an MLP, since its outputs are normalised.
    """
    own = spec.get('args') if isinstance(spec, dict) else None
    follows = n_colors and (not isinstance(own, dict) or own.get('out_dim', 3) == 3)
    net = make(spec, {'in_dim': in_dim, **args, **({'out_dim': n_colors} if follows else {})})
    if not isinstance(net, kind) or isinstance(net, ExpansionNet) and not issubclass(kind, ExpansionNet):
        raise UserError(f"{key}: {spec['name']} does not fit here, where it must be a kind of {kind.__name__}")
    inherited = getattr(type(net), 'after_first', None) in (MLP.after_first, ExpansionNet.after_first)
    if inherited and type(net).forward is not MLP.forward:
        raise UserError(f'{key}: {spec["name"]} must override after_first, which decoders call, instead of forward')
    if n_colors not in (None, net.out_dim):
        raise UserError(f'{key}: out_dim must be {n_colors}, for the colours, not {net.out_dim}')
    return net
