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
import copy
import dataclasses
import math
import resource
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
import yaml
from tqdm import tqdm

import datasets
import models
from datasets.preview import make_previews, strip
from models import checkpoint as checkpoints
from models.convert import from_published
from models.optim import make_schedule, optimizers
from models.parallel import Parallel, set_precision
from models.predict import normalisations
from models.registry import load_state
from test import eval_images, parse_eval_type
from utils import Log, UserError, check_args, load_yaml, located, run_cli, time_text

FLUSH = 20  # iterations whose losses stay on the device before they are looked at: looking stalls a GPU
FLAGS = ('seed', 'amp', 'tf32', 'channels_last', 'compile')  # config keys with a command line option
FREE = {'epoch_max', 'epoch_val', 'epoch_save', 'eval_bsize', 'num_workers', 'cache'}  # may differ on --resume


@dataclasses.dataclass
class Config:
    """A training config's keys."""
    train_dataset: dict  # {dataset: spec, wrapper: spec, batch_size: over all processes, num_workers}
    model: dict  # spec
    optimizer: dict  # spec of adam or sgd
    epoch_max: int
    val_dataset: dict | None = None
    data_norm: dict | None = None  # {inp: {sub, div}, gt: {sub, div}}
    multi_step_lr: dict | None = None  # {milestones, gamma}: the learning rate times gamma after each of these epochs
    cosine_lr: dict | None = None  # {warmup, hold: epochs}: up from zero, constant, down to zero at epoch_max
    epoch_val: int | None = None  # validate every so many epochs
    epoch_save: int | None = None  # keep epoch-N.pth every so many epochs
    resume: str | None = None  # a checkpoint of another run to go on from
    eval_type: str | None = None
    eval_bsize: int | None = None
    seed: int = 0
    grad_clip: float | None = None  # largest norm of the gradient
    ema: float | None = None  # decay of the average of the weights
    amp: Literal['bf16'] | None = None  # mixed precision
    tf32: bool = False
    channels_last: bool = False
    compile: bool = False

    def __post_init__(self):
        parse_eval_type(self.eval_type)
        self.lr_factor = make_schedule(self.multi_step_lr, self.cosine_lr)


# --- the run's folder ------------------------------------------------------------------------------


def differences(a, b, key=''):
    """Dotted keys in which two configs differ, those in FREE left out."""
    if isinstance(a, dict) and isinstance(b, dict):
        return [d for k in sorted({*a, *b} - FREE) for d in differences(a.get(k), b.get(k), f'{key}.{k}' if key else k)]
    return [] if a == b else [key]


def open_run(args, parallel):
    """The folder of the run, its config, and the checkpoint to go on from, or None."""
    folder = Path('save') / ((args.name or '_' + Path(args.config).stem) + (f'_{args.tag}' if args.tag else ''))
    given = {k: getattr(args, k) for k in FLAGS if getattr(args, k)}
    keys = {**load_yaml(args.config), **given}
    last, checkpoint = folder / 'epoch-last.pth', None
    if last.exists() and args.resume:
        own = load_yaml(folder / 'config.yaml')
        keys.update({k: own[k] for k in FLAGS if k in own and k not in given})
        changed = differences(keys, own)
        if keys.get('cosine_lr') and keys.get('epoch_max') != own.get('epoch_max'):
            changed.append('epoch_max')
        if changed:
            raise UserError(f"{args.config}: {changed[0]} differs from the run's own ({folder / 'config.yaml'}); "
                            'put it back, or train into another folder by --name or --tag')
        checkpoint = checkpoints.read(last)
    elif last.exists() and not args.overwrite:
        raise UserError(f'{folder} holds a run: continue it with --resume, or replace it with --overwrite')
    with located(args.config):
        config = Config(**check_args(Config, keys))
    if checkpoint is None and config.resume:
        checkpoint = checkpoints.read(config.resume)
    if parallel.rank == 0:
        folder.mkdir(parents=True, exist_ok=True)
        if args.overwrite:
            for path in [*folder.glob('epoch-*.pth'), folder / 'log.txt']:
                path.unlink(missing_ok=True)
            shutil.rmtree(folder / 'tensorboard', ignore_errors=True)
        (folder / 'config.yaml').write_text(yaml.safe_dump(keys, sort_keys=False))
    return folder, config, checkpoint


# --- training --------------------------------------------------------------------------------------


class Trainer:
    """Model, optimizer, average and position of a run: what a checkpoint holds."""

    def __init__(self, config, parallel, folder, checkpoint):
        self.config, self.parallel, self.folder = config, parallel, folder
        torch.manual_seed(config.seed)
        self.model = models.make(config.model).to(parallel.device)
        if config.channels_last:
            self.model.encoder.to(memory_format=torch.channels_last)
        self.optimizer = optimizers.make(config.optimizer, {'params': list(self.model.parameters())})
        self.base_lr = self.optimizer.param_groups[0]['lr']
        self.ema = copy.deepcopy(self.model).requires_grad_(False) if config.ema else None
        self.epoch, self.iteration, self.best = 0, 0, -math.inf  # whole epochs done, iterations done in the next
        self.loss_sum, self.loss_count = 0., 0  # over the samples of the epoch in progress
        if checkpoint is not None:
            self.restore(checkpoint)
        self.net = parallel.wrap(torch.compile(self.model) if config.compile else self.model)
        self.inp_norm, self.gt_norm = normalisations(config.data_norm, parallel.device)
        self.signal = None
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self.interrupt)

    def interrupt(self, number, frame):
        """Remembers the signal; the iteration in progress is finished. A second one is not waited for."""
        self.signal = number
        signal.signal(number, signal.SIG_DFL)

    def save(self, *names):
        """Writes the run's state to each of epoch-NAME.pth (the first process alone does)."""
        if self.parallel.rank:
            return
        state = {'model': {**self.config.model, 'sd': self.model.state_dict()},
                 'optimizer': {**self.config.optimizer, 'sd': self.optimizer.state_dict()},
                 'ema': self.ema.state_dict() if self.ema else None, 'rng': torch.get_rng_state(),
                 **{k: getattr(self, k) for k in ('epoch', 'iteration', 'best', 'loss_sum', 'loss_count')}}
        for name in names:
            checkpoints.write(state, self.folder / f'epoch-{name}.pth')

    def restore(self, state):
        """Takes up the state that `save` wrote. Of the LIIF authors' checkpoints: the model and the epoch."""
        spec = from_published(state['model'])
        load_state(self.model, spec['sd'])
        self.epoch = state['epoch']
        if 'iteration' not in state:
            return
        self.optimizer.load_state_dict(state['optimizer']['sd'])
        if self.ema:
            load_state(self.ema, state['ema'] or spec['sd'])
        torch.set_rng_state(state['rng'])
        for key in ('iteration', 'best', 'loss_sum', 'loss_count'):
            setattr(self, key, state[key])

    def step(self, batch, local, total):
        """One step on this process's `local` of the batch's `total` samples; returns their share of its mean loss."""
        parallel, config = self.parallel, self.config
        batch = {k: v.to(parallel.device, non_blocking=True) for k, v in batch.items()}
        with torch.autocast(parallel.device.type, torch.bfloat16, enabled=config.amp == 'bf16'):
            pred = self.net(self.inp_norm.apply(batch['inp']), batch['coord'], batch['cell'])
        loss = F.l1_loss(pred.float(), self.gt_norm.apply(batch['gt'])) * (local / total)
        self.optimizer.zero_grad(set_to_none=True)
        (loss * parallel.world).backward()  # the processes' gradients are averaged, their losses add up
        if config.grad_clip:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), config.grad_clip)
        self.optimizer.step()
        if self.ema:
            with torch.no_grad():
                torch._foreach_lerp_(list(self.ema.parameters()), list(self.model.parameters()), 1 - config.ema)
        return loss.detach()

    def check(self, losses, sizes):
        """Adds the latest `losses`, still on the device, to the epoch's; one that is not finite is an error."""
        if not losses:
            return
        values = self.parallel.sum(torch.stack(losses)).tolist()
        for i, (value, size) in enumerate(zip(values, sizes, strict=True), self.iteration - len(values) + 1):
            if not math.isfinite(value):
                raise UserError(f'the loss is {value} in epoch {self.epoch + 1}, iteration {i}: lower lr or set '
                                f'grad_clip; the last good checkpoint is {self.folder / "epoch-last.pth"}')
            self.loss_sum += value * size
            self.loss_count += size
        losses.clear()
        sizes.clear()

    def train_epoch(self, loader):
        """Trains to the end of the epoch, or until a signal; returns whether the epoch is complete."""
        batches, losses, sizes = loader.batch_sampler, [], []
        batches.epoch, batches.start = self.epoch + 1, self.iteration
        self.model.train()
        bar = tqdm(loader, 'train', len(loader), leave=False, initial=self.iteration, disable=self.parallel.rank > 0)
        for batch in bar:
            for group in self.optimizer.param_groups:
                group['lr'] = self.base_lr * self.config.lr_factor(
                    self.epoch + self.iteration / len(loader), self.config.epoch_max)
            local, total = batches.batch_sizes(self.iteration)
            losses.append(self.step(batch, local, total))
            sizes.append(total)
            self.iteration += 1
            stop = self.parallel.any(self.signal is not None)
            if stop or len(losses) == FLUSH or self.iteration == len(loader):
                self.check(losses, sizes)
                bar.set_postfix_str(f'loss {self.loss_sum / self.loss_count:.4f}')
            if stop:
                break
        if self.iteration < len(loader):
            return False
        self.epoch, self.iteration = self.epoch + 1, 0
        return True

    def validate(self, loader):
        """Mean PSNR of the validation images, each evaluated by one of the processes."""
        config = self.config
        images = eval_images(loader, self.ema or self.model, config.data_norm, config.eval_type, config.eval_bsize,
                             verbose=self.parallel.rank == 0)
        psnr = [image.psnr for image in images]
        total, count = self.parallel.sum(torch.tensor([sum(psnr), len(psnr)], dtype=torch.float64)).tolist()
        return total / count


def log_previews(log, trainer, previews):
    """PSNR and pictures (low resolution, bicubic, prediction, truth) of fixed crops, the same every epoch."""
    model = trainer.ema or trainer.model
    names, batches = zip(*previews, strict=True)
    scored = eval_images(batches, model, trainer.config.data_norm, eval_bsize=trainer.config.eval_bsize)
    for name, batch, image in zip(names, batches, scored, strict=True):
        log.scalars({f'preview/psnr_{name}': image.psnr}, trainer.epoch)
        log.image(f'preview/{name}', strip(batch, image.pred), trainer.epoch)


def end_epoch(trainer, val_loader, previews, log, speed):
    """Validates and saves where the config says so; returns the epoch's line for the log."""
    config, epoch = trainer.config, trainer.epoch
    loss = trainer.loss_sum / trainer.loss_count
    trainer.loss_sum, trainer.loss_count = 0., 0
    log.scalars({'loss': loss, 'lr': trainer.optimizer.param_groups[0]['lr'], 'samples_per_second': speed,
                 'peak_memory_bytes': peak_memory(trainer.parallel.device)}, epoch)
    text, names = f'epoch {epoch}/{config.epoch_max}, train: loss={loss:.4f}', ['last']
    if config.epoch_save and epoch % config.epoch_save == 0:
        names.append(epoch)
    if val_loader is not None and config.epoch_val and epoch % config.epoch_val == 0:
        psnr = trainer.validate(val_loader)
        text += f', val: psnr={psnr:.4f}'
        log.scalars({'psnr': psnr}, epoch)
        if log.active:
            log_previews(log, trainer, previews)
        if psnr > trainer.best:
            trainer.best = psnr
            names.append('best')
    trainer.save(*names)
    return text


def peak_memory(device):
    """Bytes: of the GPU's allocations, or of the process on the CPU."""
    if device.type == 'cuda':
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--config', required=True)
    parser.add_argument('--name', help='folder in save/ (default: _CONFIG_NAME)')
    parser.add_argument('--tag', help="appended to the folder's name")
    parser.add_argument('--gpu', default='0', help="index, or several as 0,1 (DataParallel), or 'cpu'")
    parser.add_argument('--resume', action='store_true', help="continue the folder's run, if it holds one")
    parser.add_argument('--overwrite', action='store_true', help="replace the folder's run")
    parser.add_argument('--seed', type=int, help="in place of the config's")
    parser.add_argument('--amp', choices=['bf16'], help='mixed precision')
    parser.add_argument('--tf32', action='store_true', help='TF32 in matrix products and convolutions on GPUs')
    parser.add_argument('--channels-last', action='store_true', help='memory format of the encoder')
    parser.add_argument('--compile', action='store_true', help='torch.compile')
    return parser.parse_args()


def main():
    args = parse_args()
    parallel = Parallel(args.gpu)
    folder, config, checkpoint = open_run(args, parallel)
    set_precision(config.tf32)

    def make_loader(key, shuffle):
        spec = getattr(config, key)
        with located(args.config):
            return spec and datasets.make_loader(spec, config.seed, shuffle, parallel.rank, parallel.world,
                                                 pin_memory=parallel.device.type == 'cuda', where=key)

    train_loader, val_loader = make_loader('train_dataset', True), make_loader('val_dataset', False)
    with located(args.config):
        trainer = Trainer(config, parallel, folder, checkpoint)
    log = Log(folder, active=parallel.rank == 0)
    if trainer.epoch >= config.epoch_max:
        raise UserError(f'{folder}: epoch_max {config.epoch_max} is already reached (epoch {trainer.epoch} is done)')
    previews = make_previews(val_loader.dataset) if val_loader is not None else []
    parameters = sum(p.numel() for p in trainer.model.parameters())
    log.line(f'{folder}: {"continues" if checkpoint else "starts"} with epoch {trainer.epoch + 1}, '
             f'iteration {trainer.iteration + 1}; {parameters / 1e6:.2f}M parameters')

    begin, epochs_before = time.time(), trainer.epoch
    while trainer.epoch < config.epoch_max:
        start, skipped = time.time(), trainer.iteration
        if not trainer.train_epoch(train_loader):
            trainer.save('last')
            log.line(f'stopped after epoch {trainer.epoch}, iteration {trainer.iteration}: '
                     'go on by the same command with --resume')
            sys.exit(128 + (trainer.signal or signal.SIGTERM))
        seconds = time.time() - start
        samples = (len(train_loader) - skipped) * train_loader.batch_sampler.batch_size
        text = end_epoch(trainer, val_loader, previews, log, samples / seconds)
        elapsed, epochs = time.time() - begin, trainer.epoch - epochs_before
        log.line(f'{text}, {time_text(seconds)} {time_text(elapsed)}/'
                 f'{time_text(elapsed / epochs * (config.epoch_max - epochs_before))}')
    parallel.close()


if __name__ == '__main__':
    run_cli(main)
