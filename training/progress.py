"""What a run shows while it trains: a progress bar, the time left, and the curves of its numbers."""

import time
from collections.abc import Iterator

from torch.utils.data import DataLoader
from tqdm import tqdm

from training.log import Log
from training.trainer import Trainer
from utils import time_text

FLUSH = 20  # iterations between transfers of the losses from the device, each of which stalls a GPU
SCALARS = 100  # iterations between points of TensorBoard's curves; a multiple of FLUSH


class Progress:
    """Shows how far `run` is. Its epochs have `length` iterations.

    The time left is estimated from the pace after this process's first iteration, which has to wait for the data. The
    time for validation is included as soon as there has been one.
    """

    def __init__(self, run: Trainer, log: Log, length: int):
        self.run, self.log, self.length = run, log, length
        self.begin, self.told = None, False  # (time, position) after this process's first iteration
        self.loss_sum, self.samples, self.since = 0., 0, time.monotonic()  # since the last point of the curves

    def position(self) -> int:
        """Iterations of the whole run that are done."""
        return self.run.epoch * self.length + self.run.iteration

    def due(self) -> bool:
        """Whether to transfer the losses from the device after this iteration."""
        return self.position() % FLUSH == 0 or self.run.iteration == self.length

    def batches(self, loader: DataLoader) -> Iterator[dict]:
        """The rest of the epoch's batches, with a bar."""
        with tqdm(loader, self.text(), self.length, leave=False, initial=self.run.iteration,
                  disable=self.run.parallel.rank > 0) as self.bar:
            for batch in self.bar:
                yield batch
                self.begin = self.begin or (time.monotonic(), self.position())

    def left(self) -> float | None:
        """Seconds until the run ends; None until the pace is known."""
        run, position = self.run, self.position()
        if run.config.minutes:
            return max(0, 60 * run.config.minutes - run.elapsed())
        if self.begin is None or position == self.begin[1]:
            return None
        pace = (time.monotonic() - self.begin[0]) / (position - self.begin[1])
        return pace * (run.config.epoch_max * self.length - position)

    def left_text(self) -> str:
        """The time left, to follow other words: ', 20.4 days left', or nothing if it is unknown or zero."""
        return f', {time_text(left)} left' if (left := self.left()) else ''

    def text(self) -> str:
        """The epoch in progress and the time left: 'epoch 3/1000, 20.4 days left'."""
        return self.run.epoch_text() + self.left_text()

    def update(self, loss_sum: float, samples: int) -> None:
        """Shows how far the run is after iterations of `samples` samples, whose losses add up to `loss_sum`."""
        self.loss_sum, self.samples = self.loss_sum + loss_sum, self.samples + samples
        self.bar.set_description_str(self.text(), refresh=False)
        self.bar.set_postfix_str(f'loss {self.run.mean_losses()["loss"]:.4f}')
        if not self.told and self.begin and self.position() - self.begin[1] >= FLUSH - 1:
            self.told = True
            if self.begin[1] > self.run.epoch * self.length and self.run.iteration < self.length:
                self.log.line(self.text())  # the end of the epoch, which logs it as well, may be far off
        if self.position() % SCALARS == 0:
            now = time.monotonic()
            self.log.scalars({'iteration/loss': self.loss_sum / self.samples,
                              'iteration/lr': self.run.optimizer.param_groups[0]['lr'],
                              'iteration/samples_per_second': self.samples / (now - self.since)}, self.position())
            self.loss_sum, self.samples, self.since = 0., 0, now
