"""Batches for any number of workers and processes: the content of a global batch does not depend on either."""

import os
import signal
import sys
import threading

import numpy as np
import torch
from torch.utils.data import DataLoader, default_collate

from config import check_args, check_positive
from datasets.registry import make
from datasets.wrappers import Draw
from errors import UserError


class GlobalBatches:
    """Batch sampler of one process, `rank` of `world`: yields lists of `Draw`, the rank's shares of the global batches.

    Global batch i holds positions i * batch_size to (i + 1) * batch_size - 1 of the epoch's order, which is a
    permutation seeded by (seed, epoch) if `shuffle`, else 0 to `length` - 1; the last batch may be short. A rank takes
    every `world`-th position. With `shuffle`, a rank without a share of the last batch gets that batch's first sample,
    so that all ranks take part in the step (`batch_sizes` counts it as 0). Without `shuffle`, no sample is given twice,
    and batch_size is rounded up to a multiple of `world`.

    Before iterating, set `epoch`, and to start in the middle of an epoch `start` (the first global batch).
    """

    def __init__(self, length: int, batch_size: int, seed: int, shuffle: bool, rank: int = 0, world: int = 1):
        check_positive(batch_size=batch_size)
        if not shuffle:
            batch_size += -batch_size % world
        if batch_size % world:
            raise UserError(f'batch_size {batch_size} must be a multiple of the {world} processes that share it')
        self.length, self.batch_size, self.seed, self.shuffle = length, batch_size, seed, shuffle
        self.rank, self.world = rank, world
        self.epoch = self.start = 0

    def __len__(self):
        """The number of batches in a whole epoch."""
        return -(-(self.length - (0 if self.shuffle else self.rank)) // self.batch_size)

    def positions(self, i: int) -> range:
        """The range of the epoch's positions that global batch `i` holds."""
        return range(i * self.batch_size, min((i + 1) * self.batch_size, self.length))

    def batch_sizes(self, i: int) -> tuple[int, int]:
        """The number of samples of global batch `i` that count: (on this rank, on all ranks)."""
        positions = self.positions(i)
        return len(positions[self.rank::self.world]), len(positions)

    def __iter__(self):
        order = range(self.length)
        if self.shuffle:
            order = np.random.default_rng((self.seed, self.epoch)).permutation(self.length).tolist()
        for i in range(self.start, len(self)):
            positions = self.positions(i)
            share = positions[self.rank::self.world] or positions[:1]
            yield [Draw(order[p], self.seed, self.epoch, p, i) for p in share]


def default_workers(world: int) -> int:
    """The number of workers for each process of the job on this machine: its share of the cores, at most 8."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()
    return min(8, cores // int(os.environ.get('LOCAL_WORLD_SIZE', world)))


def end_with_parent() -> None:
    """Ends this worker at a SIGTERM from its parent, which multiprocessing sends at exit; ignores all others."""
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        pass
    os._exit(0)


def start_worker(worker: int) -> None:
    """Makes the worker ignore Ctrl-C and a scheduler's SIGTERM, which are sent to all processes of a job.

    The training loop handles them: it finishes its iteration, for which it needs the workers, saves, then ends them.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, 'sigwaitinfo'):
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=end_with_parent, daemon=True).start()


def collate(samples: list[dict]) -> dict:
    """The samples stacked into a batch."""
    if len({tuple(value.shape for value in sample.values()) for sample in samples}) > 1:
        raise UserError('samples of different sizes cannot form a batch: set inp_size, or batch_size: 1')
    if len({tuple(value.dtype for value in sample.values()) for sample in samples}) > 1:
        raise UserError('whole targets of different types cannot form a batch: save all images in one type, or set '
                        'sample_q')
    return default_collate(samples)


def make_loader(spec: dict, seed: int, shuffle: bool = False, rank: int = 0, world: int = 1,
                pin_memory: bool = False) -> DataLoader:
    """A DataLoader for `spec`: dataset, wrapper, batch_size (total over all ranks) and optionally num_workers.

    Its `batch_sampler` is a `GlobalBatches`.
    """
    def build(dataset: dict, wrapper: dict, batch_size: int, num_workers: int | None = None):
        workers = default_workers(world) if num_workers is None else num_workers
        if workers < 0:
            raise UserError(f'num_workers must be 0 or more, not {workers}')
        samples = make(wrapper, args={'dataset': make(dataset)})
        return DataLoader(
            samples, batch_sampler=GlobalBatches(len(samples), batch_size, seed, shuffle, rank, world),
            collate_fn=collate, pin_memory=pin_memory,
            num_workers=workers, persistent_workers=workers > 0, worker_init_fn=start_worker,
            # fork is fast and shares images in memory; it is safe, as workers use neither CUDA nor the parent's threads
            multiprocessing_context='fork' if workers and sys.platform == 'linux' else None,
            generator=torch.Generator())  # so that the number drawn for iterating does not come from training's

    return build(**check_args(build, spec))
