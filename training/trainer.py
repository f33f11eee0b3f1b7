"""Training: the state of a run, its steps, its validation, and its checkpoints."""

import contextlib
import copy
import math
import signal
import time
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader

from devices import Parallel, mixed_precision
from errors import UserError
from evaluation import eval_images, loaded_names, predictions
from metrics import TooSmall
from models import checkpoint as checkpoints
from models.decoder import Decoder
from models.geometry import all_queries
from models.normalisation import check_norm, normalisations
from models.predict import check_channels
from models.registry import make_model, with_n_colors
from training.graphs import StepGraphs
from training.losses import Losses
from training.optim import make_optimizer
from training.resume import PROGRESS
from training.run import Config
from utils import to_float

SIGNALS = signal.SIGTERM, signal.SIGINT, *([signal.SIGHUP] if hasattr(signal, 'SIGHUP') else [])
MOST_PSNR = 100  # the most dB that a validation image counts: an exact prediction, as of pure white, has infinite PSNR


class Stopped(Exception):
    """Raised when a signal has asked the run to stop; the state of the trainer can be saved."""


class Trainer:
    """The state of a run: model, optimizer, averaged weights and position; trains step by step.

    `config`: see `training.run.Config`. `n_colors`: the number of channels of the images, for which the model is made;
    by default that of the config's model. `scale_max`: the largest scale of the training samples, if it is known.
    `samples`: the number of training samples in an epoch.
    """

    def __init__(self, config: Config, parallel: Parallel, folder: Path, n_colors: int | None = None,
                 scale_max: float | None = None, samples: int | None = None):
        self.config, self.parallel, self.folder, self.scale_max = config, parallel, folder, scale_max
        self.samples = samples
        torch.manual_seed(config.seed)
        self.spec = with_n_colors(config.model, n_colors) if n_colors else config.model
        self.model = make_model(self.spec).to(parallel.device)
        self.n_colors = getattr(self.model, 'n_colors', n_colors or 3)  # a user's own model may not have it
        checkpoints.set_scale_max(self.model, scale_max)  # so that validation decodes like users of the checkpoint
        check_channels(self.model, n_colors or self.n_colors)
        check_norm(config.data_norm, self.n_colors)
        if config.channels_last:
            getattr(self.model, 'encoder', self.model).to(memory_format=torch.channels_last)
        self.optimizer = make_optimizer(config.optimizer, list(self.model.parameters()))
        self.base_lrs = [group['lr'] for group in self.optimizer.param_groups]
        self.ema = copy.deepcopy(self.model).requires_grad_(False) if config.ema else None
        self.loss = Losses(config.loss).to(parallel.device)
        if config.cuda_graphs and (parallel.distributed or len(parallel.devices) > 1):
            raise UserError('cuda_graphs works with one GPU in one process: set it to false')
        self.net = parallel.wrap(self.model, config.compile, config.amp)
        self.precision = mixed_precision(parallel.device, config.amp)
        graphs = config.cuda_graphs and parallel.device.type == 'cuda'
        self.graphs = StepGraphs(self.differentiate, self.model) if graphs else None
        self.inp_norm, self.gt_norm = normalisations(config.data_norm, parallel.device)
        self.best = -math.inf
        self.start_psnr = None  # validation PSNR of the weights that fine-tuning started from
        self.start_epoch(0)
        self.start = time.monotonic()
        self.seconds = 0.  # that the run had already taken when this process started
        self.ended, self.signal = False, None

    # --- training

    def step(self, batch: dict, local: int, total: int, decay: float | None) -> torch.Tensor:
        """One training step on this process's part of a batch: `local` of its `total` samples.

        Returns what they contribute to each loss's mean over the whole batch: (number of losses,). `decay`: of the
        averaged weights.
        """
        if self.graphs:
            losses = self.graphs(batch)  # there is one process, which has the whole batch
        else:
            batch = {k: v.to(self.parallel.device, non_blocking=True) for k, v in batch.items()}
            self.optimizer.zero_grad(set_to_none=True)
            losses = self.differentiate(batch, local / total)
        if self.config.grad_clip:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.config.grad_clip)
        self.optimizer.step()
        if self.ema:
            with torch.no_grad():
                torch._foreach_lerp_(list(self.ema.parameters()), list(self.model.parameters()), 1 - decay)
                for ours, latest in zip(self.ema.buffers(), self.model.buffers(), strict=True):
                    ours.copy_(latest)
        return losses

    def differentiate(self, batch: dict, share: float = 1) -> torch.Tensor:
        """Adds to the gradients those of `batch`, on the device; returns each loss's mean over it, times `share`."""
        inp, gt = self.inp_norm.apply(to_float(batch['inp'])), to_float(batch['gt'])
        with self.precision:
            if 'coord' in batch:
                pred = self.net(inp, batch['coord'], batch['cell'])
            elif not isinstance(self.model, Decoder):  # a user's own, in LIIF's style, on every pixel of the targets
                pred, gt = self.net(inp, *all_queries(gt.shape[-2:], len(gt), inp)), gt.flatten(2).transpose(1, 2)
            else:
                # (size is positional: as a keyword, DataParallel would pass it to replicas that have no images)
                pred, gt = self.net(inp, None, None, tuple(gt.shape[-2:])), gt.permute(0, 2, 3, 1)
        losses = self.loss(pred.float(), self.gt_norm.apply(gt)) * share
        # the processes' gradients are averaged, but their losses add up
        (self.loss.total(losses) * self.parallel.world).backward()
        return losses.detach()

    def add_losses(self, losses: list[torch.Tensor], sizes: list[int]) -> tuple[float, int]:
        """Adds the latest steps' losses, still on the device, to the epoch's; UserError if one is not finite.

        `sizes`: of the steps' batches, over all processes. Returns the sum of the weighted losses over the samples of
        these steps, and the number of samples.
        """
        added, samples = 0., sum(sizes)
        values = self.parallel.sum(torch.stack(losses)).tolist()
        for i, (parts, size) in enumerate(zip(values, sizes, strict=True), self.iteration - len(values) + 1):
            if not math.isfinite(value := self.loss.total(parts)):
                raise self.diverged(f'the loss is {value} in {self.epoch_text()}, iteration {i}')
            self.loss_sum = [old + part * size for old, part in zip(self.loss_sum, parts, strict=True)]
            added += value * size
        self.loss_count += samples
        return added, samples

    def seed_step(self) -> None:
        """Seeds the random numbers that a model such as SwinIR draws in the next step: a resumed run draws the same."""
        entropy = self.config.seed, self.epoch, self.iteration, self.parallel.rank
        torch.manual_seed(int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0]))

    def validate(self, loader: DataLoader) -> float:
        """Mean PSNR of the validation images, each evaluated by one of the processes. Raises Stopped after a signal."""
        config, psnr, names = self.config, [], loaded_names(loader)

        def where(i):
            return f'val_dataset: {names[i]}'

        with contextlib.suppress(TooSmall):  # all images of this process are too small, but those of others may not be
            pairs = predictions(loader, self.ema or self.model, config.data_norm, config.eval_bsize,
                                verbose=self.parallel.rank == 0, where=where)
            for image in eval_images(pairs, config.eval_type, where=where):
                if not math.isnan(image.psnr):
                    psnr.append(min(image.psnr, MOST_PSNR))
                if self.signal is not None:
                    break
        if self.stopped():
            raise Stopped
        total, count = self.parallel.sum(torch.tensor([sum(psnr), len(psnr)], dtype=torch.float64)).tolist()
        if count == 0:
            raise UserError(f'val_dataset: all images are too small for the border of eval_type {config.eval_type}')
        return total / count

    # --- where the run is

    def start_epoch(self, done: int) -> None:
        """Sets the run to the position after `done` epochs."""
        self.epoch, self.iteration = done, 0  # finished epochs, and finished iterations of the next epoch
        self.loss_sum, self.loss_count = [0.] * len(self.loss.names), 0  # per loss, over the epoch's samples so far

    def mean_losses(self) -> dict[str, float]:
        """Means over the epoch's samples so far: 'loss' is the weighted sum of all losses.

        If there are several losses, 'loss/NAME' is each of them without its weight.
        """
        means = [value / self.loss_count for value in self.loss_sum]
        parts = zip(self.loss.names, means, strict=True) if len(means) > 1 else ()
        return {'loss': self.loss.total(means), **{f'loss/{name}': mean for name, mean in parts}}

    def schedule_time(self, length: int) -> float:
        """How far the run is, in epochs of `length` iterations; with `minutes` by the clock, the same on all ranks."""
        if self.config.minutes is None:
            return self.epoch + self.iteration / length
        elapsed = self.parallel.sum(torch.tensor(self.elapsed(), dtype=torch.float64)).item() / self.parallel.world
        return self.config.epoch_max * min(1, elapsed / (60 * self.config.minutes))

    def decay(self, steps: int) -> float | None:
        """The decay of the averaged weights after `steps` steps: low at first, to forget the initial weights soon."""
        return self.config.ema and min(self.config.ema, (1 + steps) / (10 + steps))

    def epoch_text(self) -> str:
        """The current epoch, counted from 1, as in all messages: 'epoch 3/1000', or 'epoch 3' with `minutes`."""
        return f'epoch {self.epoch + 1}' + ('' if self.config.minutes else f'/{self.config.epoch_max}')

    def elapsed(self) -> float:
        """Seconds that the run has taken so far."""
        return self.seconds + time.monotonic() - self.start

    def diverged(self, found: str) -> UserError:
        """The error for losses or weights that are not finite: what was `found`, and what may help."""
        return UserError(f'{found}: lower lr or set grad_clip; {self.folder} keeps what was saved before')

    # --- signals

    def catch_signals(self) -> None:
        """Makes SIGTERM, SIGINT and SIGHUP (unless nohup ignores it) end the run after the current iteration."""
        for number in SIGNALS:
            if number in SIGNALS[:2] or signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, self.interrupt)

    def interrupt(self, number: int, frame: object) -> None:
        """Records the signal, and lets the current iteration finish. A second Ctrl-C ends the run at once.

        Other second signals do not, since one event may send several: a closed terminal sends SIGHUP twice, or a rank
        gets one from the scheduler and one from torchrun, which kills slow ranks itself.
        """
        self.signal = number
        if not self.parallel.distributed:
            signal.signal(signal.SIGINT, signal.SIG_DFL)

    def stopped(self) -> bool:
        """Whether any process has received a signal."""
        return self.parallel.any(self.signal is not None)

    # --- checkpoints

    def save(self, *names: str | int) -> None:
        """Writes the run's state to epoch-NAME.pth for each name (in the first process only)."""
        if self.parallel.rank:
            return
        if not all(tensor.isfinite().all() for tensor in self.weights()):
            where = f'{self.epoch_text()}, iteration {self.iteration}' if self.iteration else f'epoch {self.epoch}'
            raise self.diverged(f'the weights are not finite after {where}')
        state = {'model': {**self.spec, 'sd': self.model.state_dict()},
                 'optimizer': {**self.config.optimizer, 'sd': self.optimizer.state_dict()},
                 'ema': self.ema and self.ema.state_dict(), 'data_norm': self.config.data_norm,
                 'epoch': self.epoch, **{key: getattr(self, key) for key in PROGRESS}}
        if self.scale_max:
            state['scale_max'] = self.scale_max
        if self.samples:
            state['samples'] = self.samples
        if self.config.minutes:
            state['seconds'] = self.elapsed()
        if self.start_psnr is not None:
            state['start_psnr'] = self.start_psnr
        for name in names:
            checkpoints.write(state, self.folder / f'epoch-{name}.pth')

    def weights(self) -> list[torch.Tensor]:
        """All tensors of the model and of its averaged weights."""
        return [*self.model.state_dict().values(), *(self.ema.state_dict().values() if self.ema else ())]
