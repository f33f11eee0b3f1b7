"""What a training run is at any moment, and what its checkpoints hold: weights, their average, optimizer, position."""

import copy
import math
import time
from pathlib import Path

import torch
from torch import nn

from config import check_norm
from models import checkpoint as checkpoints
from models.convert import from_published
from models.decoder import USUAL_NORM
from models.losses import Losses
from models.optim import make_optimizer
from models.parallel import Parallel
from models.predict import check_channels, same_normalisation
from models.registry import load_state, make_model, with_n_colors
from models.run import Config
from utils import UserError, say


class RunState:
    """Model, optimizer, average and position of a run. `config`'s keys: `models.run`.

    `minutes`: how long the run is to take, in place of the config's epoch_max. `n_colors`: the channels of the images,
    which the encoder follows; by default they are what the config's model says.
    """

    def __init__(self, config: Config, parallel: Parallel, folder: Path, minutes: float | None = None,
                 n_colors: int | None = None):
        self.config, self.parallel, self.folder = config, parallel, folder
        torch.manual_seed(config.seed)
        self.spec = with_n_colors(config.model, n_colors) if n_colors else config.model
        self.model = make_model(self.spec).to(parallel.device)
        check_channels(self.model, n_colors or self.model.n_colors)
        check_norm(config.data_norm, self.model.n_colors)
        if config.channels_last:
            self.model.encoder.to(memory_format=torch.channels_last)
        self.optimizer = make_optimizer(config.optimizer, list(self.model.parameters()))
        self.base_lrs = [group['lr'] for group in self.optimizer.param_groups]
        self.ema = copy.deepcopy(self.model).requires_grad_(False) if config.ema else None
        self.loss = Losses(config.loss).to(parallel.device)
        self.best = -math.inf
        self.start_epoch(0)
        self.minutes, self.begin = minutes, time.monotonic()
        self.seconds = 0.  # that the run had taken before this process began

    def start_epoch(self, done: int) -> None:
        """Puts the run where `done` epochs are over."""
        self.epoch, self.iteration = done, 0  # whole epochs done, iterations done in the next
        self.loss_sum, self.loss_count = [0.] * len(self.loss.names), 0  # of each loss, over the epoch's samples so far

    def mean_losses(self) -> dict[str, float]:
        """The mean loss over the samples of the epoch in progress, 'loss', and of several losses each as 'loss/NAME'.

        These are without their weights.
        """
        means = [value / self.loss_count for value in self.loss_sum]
        parts = zip(self.loss.names, means, strict=True) if len(means) > 1 else ()
        return {'loss': self.loss.total(means), **{f'loss/{name}': mean for name, mean in parts}}

    def save(self, *names: str | int) -> None:
        """Writes the run's state to each of epoch-NAME.pth (the first process alone does)."""
        if self.parallel.rank:
            return
        if not all(tensor.isfinite().all() for tensor in self.weights()):
            where = f'{self.epoch_text()}, iteration {self.iteration}' if self.iteration else f'epoch {self.epoch}'
            raise UserError(f'the weights are not finite after {where}: lower lr or set grad_clip; {self.folder} keeps '
                            'what was saved before')
        state = {'model': {**self.spec, 'sd': self.model.state_dict()},
                 'optimizer': {**self.config.optimizer, 'sd': self.optimizer.state_dict()},
                 'ema': self.ema.state_dict() if self.ema else None, 'data_norm': self.config.data_norm,
                 **({'scale_max': scale} if (scale := self.config.scale_max()) else {}),
                 'rng': torch.get_rng_state(), **({'seconds': self.elapsed()} if self.minutes else {}),
                 **{k: getattr(self, k) for k in ('epoch', 'iteration', 'best', 'loss_sum', 'loss_count')}}
        for name in names:
            checkpoints.write(state, self.folder / f'epoch-{name}.pth')

    def weights(self) -> list[torch.Tensor]:
        """All tensors of the model and of its average."""
        return [*self.model.state_dict().values(), *(self.ema.state_dict().values() if self.ema else ())]

    def restore(self, state: dict, same_run: bool) -> None:
        """Takes up the state that `save` wrote, of another run from the beginning of the epoch.

        Of checkpoints of other programs: the model, and the epoch if they tell it.
        """
        spec = from_published(state['model'])
        load_state(self.model, spec['sd'])
        if self.ema:
            load_state(self.ema, state.get('ema') or spec['sd'])
        self.epoch = state.get('epoch', 0)
        self.check_normalisation(state.get('data_norm', USUAL_NORM), ('inp', 'gt'))
        if 'iteration' not in state:
            say('of this checkpoint model and epoch are taken; the optimizer begins anew')
            return
        if state['optimizer']['name'] != self.config.optimizer['name']:
            raise UserError(f"its optimizer is {state['optimizer']['name']}, not {self.config.optimizer['name']}: keep "
                            'it, or begin with the weights alone (weights_from)')
        groups = self.optimizer.param_groups
        own = [{k: v for k, v in group.items() if k not in ('params', 'lr')} for group in groups]
        self.optimizer.load_state_dict(state['optimizer']['sd'])
        for group, values in zip(self.optimizer.param_groups, own, strict=True):
            group.update(values)  # weight decay and the like are the config's, not the checkpoint's
        torch.set_rng_state(state['rng'])
        for key in ('iteration', 'best', 'loss_sum', 'loss_count') if same_run else ():
            setattr(self, key, state[key])
        if not isinstance(self.loss_sum, list):  # of a time when there was one loss
            self.loss_sum = [self.loss_sum]
        self.seconds = state.get('seconds', 0.) if same_run else 0.

    def check_normalisation(self, data_norm: dict | None, keys: tuple[str, ...]) -> None:
        """Raises UserError where weights that were trained with `data_norm` would see or give other colours here."""
        check_norm(data_norm, self.model.n_colors)
        for key in keys:
            if not same_normalisation(data_norm, self.config.data_norm, key):
                theirs, ours = ((norm or {}).get(key) for norm in (data_norm, self.config.data_norm))
                raise UserError(f"its data_norm.{key} is {theirs}, the config's {ours}: they must be the same")

    def begin_as(self, other: nn.Module) -> None:
        """Lets the model begin with another one's weights: all, or by `encoder_from` the encoder's."""
        norm = getattr(other, 'data_norm', USUAL_NORM)
        self.check_normalisation(norm, ('inp',) if self.config.encoder_from else ('inp', 'gt'))
        for model in filter(None, (self.model, self.ema)):
            if self.config.encoder_from:
                load_state(model.encoder, other.encoder.state_dict())
            else:
                load_state(model, other.state_dict())

    def schedule_time(self, length: int) -> float:
        """How far the run is, in epochs of `length` iterations; with `minutes` by the time, on all processes alike."""
        if self.minutes is None:
            return self.epoch + self.iteration / length
        elapsed = self.parallel.sum(torch.tensor(self.elapsed(), dtype=torch.float64)).item() / self.parallel.world
        return self.config.epoch_max * min(1, elapsed / (60 * self.minutes))

    def decay(self, steps: int) -> float | None:
        """That of the averaged weights after so many `steps`: low at first, or they would hold the random beginning."""
        return self.config.ema and min(self.config.ema, (1 + steps) / (10 + steps))

    def epoch_text(self) -> str:
        """The epoch in progress as all messages number it, from 1: 'epoch 3/1000', or 'epoch 3' with `minutes`."""
        return f'epoch {self.epoch + 1}' + ('' if self.minutes else f'/{self.config.epoch_max}')

    def elapsed(self) -> float:
        """Seconds that the run has taken so far."""
        return self.seconds + time.monotonic() - self.begin
