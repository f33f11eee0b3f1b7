"""How colours are normalised for a model, (x - sub) / div: its inputs and its targets, as `data_norm` says."""

import torch
from torch import nn

from config import check_args
from errors import UserError, located, quoted, unknown

IDENTITY = {'sub': [0], 'div': [1]}  # the normalisation that changes nothing
USUAL_NORM = {'inp': {'sub': [0.5], 'div': [0.5]}, 'gt': {'sub': [0.5], 'div': [0.5]}}  # of the authors' checkpoints


def check_norm(data_norm: dict | None, n_colors: int | None = None) -> None:
    """Raises a UserError unless `data_norm` is None or {inp, gt: {sub, div: a list of one number or one per channel}}.

    `n_colors`: the number of channels, if known.
    """
    def norm(sub: list[float], div: list[float]):
        lengths = {len(sub), len(div)}
        if not lengths <= {1, n_colors or max(1, *lengths)} or 0 in div:
            raise UserError('sub and div must hold a number or one for each channel, in div not 0')

    if not isinstance(data_norm, dict | None):
        raise UserError(f'data_norm must hold inp and gt, not {quoted(data_norm)}')
    for key, values in (data_norm or {}).items():
        if key not in ('inp', 'gt'):
            raise unknown('key', f'data_norm.{key}', ('data_norm.inp', 'data_norm.gt'))
        with located(f'data_norm.{key}'):
            norm(**check_args(norm, values))


def norm_of(model: nn.Module, data_norm: dict | None) -> dict | None:
    """The `data_norm` of the training of `model`, if its checkpoint records one, or else the given one."""
    return vars(model).get('data_norm', data_norm)  # as `models.load` sets it; the class's default does not count


class Normalisation:
    """(x - sub) / div for each channel, and back, for tensors whose channels lie as `shape` says."""

    def __init__(self, spec: dict, device: torch.device | str, shape: tuple):
        self.sub, self.div = (torch.tensor([*map(float, spec[k])], device=device).view(shape)
                              for k in ('sub', 'div'))

    def apply(self, x: torch.Tensor) -> torch.Tensor:
        """Colours as the model takes them."""
        return (x - self.sub) / self.div

    def undo(self, x: torch.Tensor) -> torch.Tensor:
        """The model's colours, converted back."""
        return x * self.div + self.sub

    def colours(self, x: torch.Tensor) -> torch.Tensor:
        """The model's colours, converted back and clamped to [0, 1]; UserError if they are not finite."""
        colours = self.undo(x)
        if not torch.stack(colours.aminmax()).isfinite().all():  # one pass, no copies
            raise UserError('the prediction is not finite (NaN or infinity): the weights are bad, or too coarse in '
                            'bf16')
        return colours.clamp_(0, 1)


def normalisations(data_norm: dict | None, device: torch.device | str) -> tuple[Normalisation, Normalisation]:
    """The `Normalisation`s of inputs (B, C, h, w) and of targets (B, Q, C); None leaves both as they are."""
    data_norm = data_norm or {}
    return (Normalisation(data_norm.get('inp', IDENTITY), device, (1, -1, 1, 1)),
            Normalisation(data_norm.get('gt', IDENTITY), device, (1, 1, -1)))


def same_normalisation(a: dict | None, b: dict | None, key: str) -> bool:
    """Whether two `data_norm`s do the same to the colours of `key`, 'inp' or 'gt'."""
    norms = [Normalisation((norm or {}).get(key, IDENTITY), 'cpu', (-1,)) for norm in (a, b)]
    return all(torch.equal(*torch.broadcast_tensors(*(norm.apply(torch.tensor([x])) for norm in norms)))
               for x in (0., 1.))
