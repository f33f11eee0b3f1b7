"""Trains a model on pairs of low and high resolution at random scales.

One GPU, or the CPU where there is none:
    python train_liif.py --config configs/train-div2k/train_edsr-baseline-A-liif.yaml
Several GPUs of one machine, in one process (nn.DataParallel):
    python train_liif.py --config ... --gpu 0,1
A process for each GPU (DistributedDataParallel), faster; the results do not depend on their number:
    torchrun --nproc_per_node=4 train_liif.py --config ...
    torchrun --nnodes=2 --node_rank=0 --master_addr=10.0.0.1 --nproc_per_node=8 train_liif.py --config ...
Interrupted, preempted or killed: the same command with --resume.

A run writes save/_CONFIG_NAME/ (see --name, --tag): config.yaml, log.txt, tensorboard/ and epoch-{last,best,N}.pth.
"""

import argparse
import math
import signal
import sys
import time
from pathlib import Path

import torch
from torch.utils.data import DataLoader

import datasets
from cli import add_import_option
from datasets.preview import make_previews, strip
from models import checkpoint as checkpoints
from models.parallel import Parallel, mixed_precision, peak_memory, set_precision
from models.predict import check_channels, normalisations
from models.progress import Progress
from models.run import Config, Log, lock, next_step, open_run, prepare_folder, run_folder
from models.state import RunState
from test import eval_images, image_names
from utils import UserError, located, run_cli, say, time_text, to_float

SIGNALS = signal.SIGTERM, signal.SIGINT


class Stopped(Exception):
    """A signal asked for the end of the run; what the trainer holds can be saved."""


class Trainer(RunState):
    """Trains a run's model: step by step, epoch by epoch."""

    def __init__(self, config: Config, parallel: Parallel, folder: Path, minutes: float | None = None,
                 n_colors: int | None = None):
        super().__init__(config, parallel, folder, minutes, n_colors)
        self.net = parallel.wrap(self.model, config.compile, config.amp)
        self.precision = mixed_precision(parallel.device, config.amp)
        self.inp_norm, self.gt_norm = normalisations(config.data_norm, parallel.device)
        self.ended = False
        self.signal = None
        for number in SIGNALS:
            signal.signal(number, self.interrupt)

    def interrupt(self, number: int, frame: object) -> None:
        """Remembers the signal; the iteration in progress is finished. A second one ends the run at once.

        Not under torchrun: a scheduler may signal the ranks, and torchrun then does it too. It kills who is too slow.
        """
        self.signal = number
        for number in () if self.parallel.distributed else SIGNALS:
            signal.signal(number, signal.SIG_DFL)

    def stopped(self) -> bool:
        """Whether any process has had a signal."""
        return self.parallel.any(self.signal is not None)

    def step(self, batch: dict, local: int, total: int, decay: float | None) -> torch.Tensor:
        """One step on this process's `local` of the batch's `total` samples.

        Returns their share of each loss's mean over the batch: (number of losses,). `decay`: the average's.
        """
        parallel, config = self.parallel, self.config
        batch = {k: v.to(parallel.device, non_blocking=True) for k, v in batch.items()}
        inp, gt = self.inp_norm.apply(to_float(batch['inp'])), to_float(batch['gt'])
        with self.precision:
            if 'coord' in batch:
                pred = self.net(inp, batch['coord'], batch['cell'])
            else:  # every pixel of the targets
                # (the size by position: DataParallel would give it to replicas that have no images)
                pred, gt = self.net(inp, None, None, tuple(gt.shape[-2:])), gt.permute(0, 2, 3, 1)
        losses = self.loss(pred.float(), self.gt_norm.apply(gt)) * (local / total)
        self.optimizer.zero_grad(set_to_none=True)
        # the processes' gradients are averaged, their losses add up
        (self.loss.total(losses) * parallel.world).backward()
        if config.grad_clip:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), config.grad_clip)
        self.optimizer.step()
        if self.ema:
            with torch.no_grad():
                torch._foreach_lerp_(list(self.ema.parameters()), list(self.model.parameters()), 1 - decay)
                for ours, latest in zip(self.ema.buffers(), self.model.buffers(), strict=True):
                    ours.copy_(latest)
        return losses.detach()

    def check(self, losses: list[torch.Tensor], sizes: list[int]) -> tuple[float, int]:
        """Adds the latest `losses`, still on the device, to the epoch's; one that is not finite is an error.

        Returns what it has added: the weighted losses' sum over the samples, and the number of these.
        """
        added, samples = 0., sum(sizes)
        values = self.parallel.sum(torch.stack(losses)).tolist()
        for i, (parts, size) in enumerate(zip(values, sizes, strict=True), self.iteration - len(values) + 1):
            if not math.isfinite(value := self.loss.total(parts)):
                raise UserError(f'the loss is {value} in {self.epoch_text()}, iteration {i}: lower lr or set '
                                f'grad_clip; {self.folder} keeps what was saved before')
            self.loss_sum = [old + part * size for old, part in zip(self.loss_sum, parts, strict=True)]
            added += value * size
        self.loss_count += samples
        losses.clear()
        sizes.clear()
        return added, samples

    def train_epoch(self, loader: DataLoader, progress: Progress) -> None:
        """Trains to the end of the epoch, or of the run's minutes.

        Raises Stopped after the iteration in which a signal came.
        """
        batches, losses, sizes = loader.batch_sampler, [], []
        batches.epoch, batches.start = self.epoch + 1, self.iteration
        self.model.train()
        for batch in progress.batches(loader):
            schedule = self.schedule_time(len(loader))
            factor = self.config.lr_factor(schedule, self.config.epoch_max)
            for group, lr in zip(self.optimizer.param_groups, self.base_lrs, strict=True):
                group['lr'] = lr * factor
            local, total = batches.batch_sizes(self.iteration)
            losses.append(self.step(batch, local, total, self.decay(self.epoch * len(loader) + self.iteration)))
            sizes.append(total)
            self.iteration += 1
            stop, self.ended = self.stopped(), self.minutes is not None and schedule == self.config.epoch_max
            if stop or self.ended or progress.due():
                progress.update(*self.check(losses, sizes))
            if stop:
                raise Stopped
            if self.ended:
                self.save('last')  # the weights are complete; their validation takes its time
                return
        self.ended = self.minutes is None and self.epoch + 1 >= self.config.epoch_max

    def validate(self, loader: DataLoader) -> float:
        """Mean PSNR of the validation images, each evaluated by one of the processes. Raises Stopped after a signal."""
        config, psnr, rank, world = self.config, [], self.parallel.rank, self.parallel.world
        names = image_names(loader.dataset.dataset.files)

        def where(i):
            return f'val_dataset: {names[(rank + i * world) % len(names)]}'

        for image in eval_images(loader, self.ema or self.model, config.data_norm, config.eval_type, config.eval_bsize,
                                 verbose=rank == 0, where=where):
            psnr.append(image.psnr)
            if self.signal is not None:
                break
        if self.stopped():
            raise Stopped
        total, count = self.parallel.sum(torch.tensor([sum(psnr), len(psnr)], dtype=torch.float64)).tolist()
        if count == 0:
            raise UserError(f'val_dataset: all images are too small for the border of eval_type {config.eval_type}')
        return total / count


def log_previews(log: Log, trainer: Trainer, previews: list, shown: list[int]) -> None:
    """PSNR and pictures (low resolution, bicubic, prediction, truth) of fixed crops, the same every epoch.

    `shown`: which channels the pictures have.
    """
    model, epoch = trainer.ema or trainer.model, trainer.epoch + 1
    for name, batch in previews:
        image, = eval_images([batch], model, trainer.config.data_norm, eval_bsize=trainer.config.eval_bsize)
        log.scalars({f'preview/psnr_{name}': image.psnr}, epoch)
        log.image(f'preview/{name}', strip(batch, image.pred, shown), epoch)


def end_epoch(trainer: Trainer, val_loader: DataLoader | None, previews: list, log: Log, speed: float) -> str:
    """Validates and saves where the config says so; returns the epoch's line for the log."""
    config, epoch = trainer.config, trainer.epoch + 1
    losses = trainer.mean_losses()
    log.scalars({**losses, 'lr': trainer.optimizer.param_groups[0]['lr'], 'samples_per_second': speed,
                 'peak_memory_bytes': peak_memory(trainer.parallel.device)}, epoch)
    text = f'{trainer.epoch_text()}, train: ' + ' '.join(f'{name}={value:.4f}' for name, value in losses.items())
    names = []
    if config.epoch_save and epoch % config.epoch_save == 0:
        names.append(epoch)
    if val_loader is not None and config.epoch_val and epoch % config.epoch_val == 0:
        try:
            psnr = trainer.validate(val_loader)
            if log.active:
                log_previews(log, trainer, previews, val_loader.dataset.shown)
        except Stopped:
            raise
        except Exception:
            trainer.save('last')  # the epoch is not lost: resumed, the run goes on with its validation
            raise
        text += f', val: psnr={psnr:.4f}'
        log.scalars({'psnr': psnr}, epoch)
        if psnr > trainer.best:
            trainer.best = psnr
            names.append('best')
    trainer.start_epoch(epoch)
    trainer.save(*names, 'last')  # last: were it before, a kill between them would leave out the others for good
    return text


def train(trainer: Trainer, train_loader: DataLoader, val_loader: DataLoader | None, log: Log) -> None:
    """Goes on to the end of the run. Raises Stopped after a signal."""
    previews = make_previews(val_loader.dataset) if val_loader is not None else []
    progress, begin = Progress(trainer, log, len(train_loader)), time.time()
    while not trainer.ended:
        start, count = time.time(), trainer.loss_count
        trainer.train_epoch(train_loader, progress)
        seconds = time.time() - start
        text = end_epoch(trainer, val_loader, previews, log, (trainer.loss_count - count) / seconds)
        log.line(f'{text}, {time_text(seconds)} for training, {time_text(time.time() - begin)} so far'
                 f'{progress.left_text()}')


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--config', required=True)
    parser.add_argument('--name', help='folder in save/ (default: _CONFIG_NAME)')
    parser.add_argument('--tag', help="appended to the folder's name")
    parser.add_argument('--gpu', default='0', help="index, or several as 0,1 (DataParallel), or 'cpu'")
    existing = parser.add_mutually_exclusive_group()
    existing.add_argument('--resume', action='store_true', help="continue the folder's run, if it holds one")
    existing.add_argument('--overwrite', action='store_true', help="replace the folder's run")
    parser.add_argument('--minutes', type=float, help='train for so long, whatever the speed: the schedule follows the '
                        'time; not repeatable to the bit')
    parser.add_argument('--set', action='append', default=[], metavar='KEY=VALUE',
                        help='in place of a key of the config, as optimizer.args.lr=1e-5; repeatable')
    parser.add_argument('--seed', type=int, help="in place of the config's")
    parser.add_argument('--amp', choices=['bf16'], help='mixed precision')
    parser.add_argument('--tf32', action='store_true', default=None, help='TF32 in products and convolutions on GPUs')
    parser.add_argument('--channels-last', action='store_true', default=None, help='memory format of the encoder')
    parser.add_argument('--compile', action='store_true', default=None, help='torch.compile')
    add_import_option(parser)
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    parallel = Parallel(args.gpu)
    folder = run_folder(args)
    held = None if parallel.rank else lock(folder)  # before it is read: who ends there may save until then
    config, source = open_run(folder, args)
    checkpoint = source and checkpoints.read(source)
    set_precision(config.tf32)
    if args.minutes is not None and not args.minutes > 0:
        raise UserError(f'--minutes must be above 0, not {args.minutes:g}')

    def make_loader(key, seed, shuffle):
        spec = getattr(config, key)
        return None if spec is None else datasets.make_loader(spec, seed, shuffle, parallel.rank, parallel.world,
                                                              pin_memory=parallel.device.type == 'cuda', where=key)

    with located(args.config):
        train_loader = make_loader('train_dataset', config.seed, shuffle=True)
        val_loader = make_loader('val_dataset', 0, shuffle=False)  # the same samples for every seed
        trainer = Trainer(config, parallel, folder, args.minutes, train_loader.dataset.n_colors)
        if val_loader is not None:
            with located('val_dataset'):
                check_channels(trainer.model, val_loader.dataset.n_colors)
    if source:
        with located(source):
            trainer.restore(checkpoint, same_run=source != config.resume)
    elif start := config.weights_from or config.encoder_from:
        other = checkpoints.load(start)
        with located(start):
            trainer.begin_as(other)
    if not parallel.agree(trainer.epoch, trainer.iteration):
        parallel.close()
        raise UserError(f'{folder}: the machines do not see the same checkpoint there; let them share the folder')
    if config.eval_type and val_loader is not None and getattr(val_loader.dataset, 'sample_q', None):
        raise UserError(f'{args.config}: eval_type {config.eval_type} needs whole images: take it out, or sample_q '
                        'of val_dataset')
    if trainer.minutes and trainer.elapsed() >= 60 * trainer.minutes:
        raise UserError(f'{folder}: the {args.minutes:g} minutes are over')
    if not trainer.minutes and trainer.epoch >= config.epoch_max:
        raise UserError(f'{args.config}: epoch_max {config.epoch_max} is already reached (epoch {trainer.epoch})')
    if parallel.rank == 0:
        held = prepare_folder(folder, config, args.overwrite, held)  # noqa: F841  to the end
    log = Log(folder, active=parallel.rank == 0)
    parameters = sum(p.numel() for p in trainer.model.parameters())
    begin = f'iteration {trainer.iteration + 1}' if trainer.iteration < len(train_loader) else 'validation'
    log.line(f'{folder}: {"continues" if source else "starts"} with {trainer.epoch_text()}, {begin}; '
             f'{parameters / 1e6:.2f}M parameters, {torch.get_num_threads()} threads')
    try:
        train(trainer, train_loader, val_loader, log)
    except Stopped:
        trainer.save('last')
        log.line(f'stopped after {trainer.epoch_text()}, iteration {trainer.iteration}: '
                 'go on by the same command with --resume')
        parallel.close()
        sys.exit(128 + (trainer.signal or signal.SIGTERM))
    parallel.close()
    say(next_step(folder, config, trainer.model.n_colors))


if __name__ == '__main__':
    run_cli(main)
