"""How colours are normalised for a model, (x - sub) / div: its inputs and its targets, as `data_norm` says."""

import torch

from errors import UserError

IDENTITY = {'sub': [0], 'div': [1]}  # the normalisation that changes nothing


class Normalisation:
    """(x - sub) / div for each channel, and back, for tensors whose channels lie as `shape` says."""

    def __init__(self, spec: dict, device: torch.device | str, shape: tuple):
        self.sub, self.div = (torch.tensor(spec[k], dtype=torch.float32, device=device).view(shape)
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
