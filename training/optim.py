"""How a model is optimised: optimizers by name, and the learning rate as a function of the position in the run."""

import math
from collections.abc import Callable

import torch

from config import Registry, check_args
from errors import UserError, located

optimizers = Registry('optimizer')
Schedule = Callable[[float, int], float]  # factor(t, epoch_max) for the learning rate after t epochs


@optimizers.register('adam')
def adam(params: list, lr: float, betas: list[float] = (0.9, 0.999), eps: float = 1e-8,
         weight_decay: float = 0) -> torch.optim.Adam:
    """Adam (Kingma and Ba, ICLR 2015); `betas`: decay of the averages of the gradient and of its square."""
    if len(betas) != 2:
        raise UserError(f'betas must be two numbers, not {betas}')
    return torch.optim.Adam(params, lr, tuple(betas), eps=eps, weight_decay=weight_decay,
                            fused=True if params[0].is_cuda else None)  # one kernel instead of a dozen


@optimizers.register('sgd')
def sgd(params: list, lr: float, momentum: float = 0, weight_decay: float = 0,
        nesterov: bool = False) -> torch.optim.SGD:
    """Stochastic gradient descent, with Nesterov momentum if `nesterov`."""
    return torch.optim.SGD(params, lr, momentum=momentum, weight_decay=weight_decay, nesterov=nesterov)


def make_optimizer(spec: dict, params: list) -> torch.optim.Optimizer:
    """The optimizer described by `spec`, for `params`; UserError for what PyTorch refuses, such as a negative rate."""
    try:
        return optimizers.make(spec, {'params': params})
    except ValueError as error:
        raise UserError(f"optimizer {spec['name']}: {error}") from None


def multi_step_lr(milestones: list[float], gamma: float = 0.1) -> Schedule:
    """The rate is multiplied by `gamma` after each of the epochs in `milestones`."""
    if gamma < 0:
        raise UserError(f'gamma must be 0 or more, not {gamma:g}')
    return lambda t, epoch_max: gamma ** sum(m <= t for m in milestones)


def cosine_lr(warmup: float = 0, hold: float = 0) -> Schedule:
    """The rate rises from 0 until epoch `warmup`, stays until epoch `hold`, then decays along a cosine to 0."""
    if min(warmup, hold) < 0:
        raise UserError(f'warmup and hold must be 0 or more, not {min(warmup, hold):g}')
    start = max(warmup, hold)

    def factor(t, epoch_max):
        if t < start:
            return min(1, t / warmup) if warmup else 1
        return 0.5 + 0.5 * math.cos(math.pi * (t - start) / (epoch_max - start))
    return factor


def make_schedule(multi_step: dict | None = None, cosine: dict | None = None) -> Schedule:
    """The schedule with the given arguments: factor(t, epoch_max) for the learning rate after `t` epochs, a float.

    It has no state, so a run can be resumed at any point.
    """
    if multi_step is not None and cosine is not None:
        raise UserError('multi_step_lr and cosine_lr exclude each other')
    if cosine is not None:
        with located('cosine_lr'):
            return cosine_lr(**check_args(cosine_lr, cosine))
    with located('multi_step_lr'):
        return multi_step_lr(**check_args(multi_step_lr, {'milestones': []} if multi_step is None else multi_step))
