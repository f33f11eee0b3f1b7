"""What training minimises: losses by name, and the weighted sum of the losses in a config.

    loss: {name: charbonnier, args: {eps: 1.e-3}}

    loss:
      - {name: l1}
      - {name: own-loss, weight: 0.5}

A loss is an `nn.Module` that compares prediction and truth, both (B, Q, C) or, where a `Decoder` is trained on whole
targets, (B, H, W, C), in float32 and in the model's normalised colours, and returns a 0-d tensor. It must be a mean
over the B samples: each process of a job sees a part of the batch, and their shares are added up.
"""

import math
from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import nn

from config import Registry, convert
from errors import UserError

losses = Registry('loss')


@losses.register('l1')
class L1(nn.Module):
    """The mean absolute error, used to train LIIF and A-LIIF."""

    def forward(self, pred: torch.Tensor, gt: torch.Tensor) -> torch.Tensor:
        return F.l1_loss(pred, gt)


@losses.register('mse')
class MSE(nn.Module):
    """The mean squared error, whose logarithm is PSNR."""

    def forward(self, pred: torch.Tensor, gt: torch.Tensor) -> torch.Tensor:
        return F.mse_loss(pred, gt)


@losses.register('charbonnier')
class Charbonnier(nn.Module):
    """The mean of sqrt(d^2 + eps^2): L1 that is smooth at 0 (LapSRN, Lai et al., CVPR 2017)."""

    def __init__(self, eps: float = 1e-3):
        super().__init__()
        if not 0 < eps < math.inf:
            raise UserError(f'eps must be above 0, not {eps:g}')
        self.eps = eps

    def forward(self, pred: torch.Tensor, gt: torch.Tensor) -> torch.Tensor:
        return ((pred - gt).square() + self.eps ** 2).sqrt().mean()


class Losses(nn.Module):
    """The losses described by `spec`, one spec or a list; each may have a `weight` (default 1).

    `names`: their names in logs; the n-th loss with the same name is NAME-n.
    """

    def __init__(self, spec: dict | list):
        super().__init__()
        specs = spec if isinstance(spec, list) else [spec]
        if not specs:
            raise UserError('loss is empty: give at least one, such as {name: l1}')
        self.names, self.weights, self.parts, kinds = [], [], nn.ModuleList(), []
        for one in specs:
            spec, weight = split_weight(one)
            self.parts.append(losses.make(spec))
            self.weights.append(weight)
            kinds.append(spec['name'])
            self.names.append(f'{kinds[-1]}-{n}' if (n := kinds.count(kinds[-1])) > 1 else kinds[-1])

    def forward(self, pred: torch.Tensor, gt: torch.Tensor) -> torch.Tensor:
        """The value of each loss, without its weight: (number of losses,)."""
        if pred.shape != gt.shape:  # the losses would broadcast them
            raise UserError(f'the model gives colours {tuple(pred.shape)} where the targets are {tuple(gt.shape)}')
        return torch.stack([part(pred, gt) for part in self.parts])

    def total(self, values: Iterable) -> torch.Tensor | float:
        """The weighted sum of `values`, one for each loss."""
        return sum(weight * value for weight, value in zip(self.weights, values, strict=True))


def split_weight(spec: dict) -> tuple[dict, float]:
    """The `spec` of a loss without its weight, and the weight; UserError unless it is above 0 and finite."""
    if not isinstance(spec, dict):
        return spec, 1  # the registry says what is wrong with it
    weight = convert(spec.get('weight', 1), float, 'weight of a loss')
    if not 0 < weight < math.inf:
        raise UserError(f'weight of a loss must be above 0, not {weight:g}')
    return {key: value for key, value in spec.items() if key != 'weight'}, weight
