"""Trains a model on pairs of low and high resolution at random scales.

One GPU, or the CPU where there is none:
    python train_liif.py --config configs/train-div2k/train_edsr-baseline-A-liif.yaml
Several GPUs of one machine, in one process (nn.DataParallel):
    python train_liif.py --config ... --gpu 0,1
One process per GPU (DistributedDataParallel), which is faster; samples and loss do not depend on their number:
    torchrun --nproc_per_node=4 train_liif.py --config ...
    torchrun --nnodes=2 --node_rank=0 --master_addr=10.0.0.1 --nproc_per_node=8 train_liif.py --config ...
To continue an interrupted, preempted or killed run: the same command with --resume.

A run writes save/_CONFIG_NAME/ (see --name, --tag): config.yaml, log.txt, tensorboard/ and epoch-{last,best,N}.pth.
"""

import argparse

from cli import add_import_option, run_cli


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--config', required=True, help='the YAML file of the run, see docs/config.md')
    parser.add_argument('--name', help='folder in save/ (default: _CONFIG_NAME)')
    parser.add_argument('--tag', help="appended to the folder's name")
    parser.add_argument('--gpu', default='0', help="index, or several as 0,1 (DataParallel), or 'cpu'")
    existing = parser.add_mutually_exclusive_group()
    existing.add_argument('--resume', action='store_true', help="continue the folder's run, if it holds one")
    existing.add_argument('--overwrite', action='store_true', help="replace the folder's run")
    parser.add_argument('--minutes', type=float, help='train for this long: the learning rate follows the clock, '
                        'so the run is not repeatable bit for bit')
    parser.add_argument('--set', action='append', default=[], metavar='KEY=VALUE',
                        help='override a key of the config, e.g. optimizer.args.lr=1e-5; repeatable')
    parser.add_argument('--seed', type=int, help="override the config's seed")
    parser.add_argument('--amp', choices=['bf16'], help='mixed precision: faster, on one GPU or with torchrun')
    parser.add_argument('--tf32', action='store_true', default=None, help='TF32 on GPUs: faster, less exact')
    parser.add_argument('--channels-last', action='store_true', default=None,
                        help='channels-last memory format of the encoder')
    parser.add_argument('--compile', action='store_true', default=None, help='torch.compile')
    parser.add_argument('--cuda-graphs', action='store_true', default=None, help='launch steps as CUDA graphs: faster '
                        'where launching takes longer than computing')
    add_import_option(parser)
    return parser.parse_args()


if __name__ == '__main__':
    run_cli(parse_args)  # before PyTorch is imported, which takes seconds: --help and wrong options do not wait for it

import signal
import sys
import time

import torch
from torch.utils.data import DataLoader

import datasets
from devices import Parallel, peak_memory, set_precision
from errors import UserError, located
from evaluation import check_eval_type, eval_images, predictions
from models.predict import check_channels
from training.log import Log
from training.preview import make_previews, strip
from training.progress import Progress
from training.run import Config, lock_run, next_step, open_run, prepare_folder, run_folder
from training.start import start_run
from training.trainer import Stopped, Trainer
from utils import time_text


def train_epoch(trainer: Trainer, loader: DataLoader, progress: Progress) -> None:
    """Trains until the end of the epoch, or until the run's minutes are over.

    Raises Stopped after the iteration in which a signal arrived.
    """
    config, batches, losses, sizes = trainer.config, loader.batch_sampler, [], []
    if config.minutes and trainer.iteration and trainer.schedule_time(len(loader)) == config.epoch_max:
        trainer.ended = True  # a resumed run whose weights are final: only their validation is left
        return
    batches.epoch, batches.start = trainer.epoch + 1, trainer.iteration
    trainer.model.train()
    for batch in progress.batches(loader):
        schedule = trainer.schedule_time(len(loader))
        factor = config.lr_factor(schedule, config.epoch_max)
        for group, lr in zip(trainer.optimizer.param_groups, trainer.base_lrs, strict=True):
            group['lr'] = lr * factor
        local, total = batches.batch_sizes(trainer.iteration)
        trainer.seed_step()
        losses.append(trainer.step(batch, local, total, trainer.decay(trainer.epoch * len(loader) + trainer.iteration)))
        sizes.append(total)
        trainer.iteration += 1
        stop, trainer.ended = trainer.stopped(), config.minutes is not None and schedule == config.epoch_max
        if stop or trainer.ended or progress.due():
            progress.update(*trainer.add_losses(losses, sizes))
            losses, sizes = [], []
        if stop:
            raise Stopped
        if trainer.ended:
            trainer.save('last')  # the weights are final; validation takes a while
            return
    trainer.ended = config.minutes is None and trainer.epoch + 1 >= config.epoch_max


def log_previews(log: Log, trainer: Trainer, previews: list, shown: list[int], epoch: int) -> None:
    """PSNR and pictures (low resolution, bicubic, prediction, truth) of fixed crops, the same every epoch.

    `shown`: which channels the pictures have.
    """
    model = trainer.ema or trainer.model
    for name, batch in previews:
        image, = eval_images(predictions([batch], model, trainer.config.data_norm, trainer.config.eval_bsize))
        log.scalars({f'preview/psnr_{name}': image.psnr}, epoch)
        log.image(f'preview/{name}', strip(batch, image.pred, shown), epoch)


def validate_and_log(trainer: Trainer, val_loader: DataLoader, previews: list, log: Log, epoch: int) -> float:
    """The validation PSNR after `epoch` epochs, which TensorBoard shows as well, with the `previews`."""
    psnr = trainer.validate(val_loader)
    if log.active:
        log_previews(log, trainer, previews, val_loader.dataset.shown, epoch)
    log.scalars({'psnr': psnr}, epoch)
    return psnr


def validate_start(trainer: Trainer, val_loader: DataLoader, previews: list, log: Log) -> None:
    """Validates the weights that fine-tuning starts from, as epoch 0, and saves them as the best so far."""
    trainer.start_psnr = trainer.best = validate_and_log(trainer, val_loader, previews, log, 0)
    trainer.save('best', 'last')
    log.line(f'epoch 0, the weights of {trainer.config.weights_from}, val: psnr={trainer.best:.4f}')


def gain_text(trainer: Trainer) -> str:
    """What fine-tuning has gained, in a line."""
    start, gain = trainer.start_psnr, trainer.best - trainer.start_psnr
    if gain > 0:
        return f'fine-tuning gained {gain:.4f} dB on the validation images: epoch-best.pth is the best epoch'
    return (f'fine-tuning gained nothing on the validation images: no epoch reached more than the {start:.4f} dB of '
            f'{trainer.config.weights_from}, so epoch-best.pth holds the weights of that file')


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
    if val_loader is not None and (epoch % config.epoch_val == 0 or trainer.ended):
        try:
            psnr = validate_and_log(trainer, val_loader, previews, log, epoch)
        except Stopped:
            raise
        except Exception:
            trainer.save('last')  # so that the epoch is not lost: a resumed run continues with its validation
            raise
        text += f', val: psnr={psnr:.4f}'
        if psnr > trainer.best:
            trainer.best = psnr
            names.append('best')
    trainer.start_epoch(epoch)
    # 'last' at the end: a run that is killed in between then resumes from before this epoch's end and writes the others
    trainer.save(*names, 'last')
    return text


def train(trainer: Trainer, train_loader: DataLoader, val_loader: DataLoader | None, log: Log) -> None:
    """Trains to the end of the run. Raises Stopped after a signal."""
    config, at_start = trainer.config, (trainer.epoch, trainer.iteration, trainer.start_psnr) == (0, 0, None)
    previews = make_previews(val_loader.dataset) if val_loader is not None and log.active else []
    if config.weights_from and val_loader is not None and at_start:
        validate_start(trainer, val_loader, previews, log)
    progress, begin = Progress(trainer, log, len(train_loader)), time.monotonic()
    while not trainer.ended:
        start, count = time.perf_counter(), trainer.loss_count  # a clock that never shows no time at all
        train_epoch(trainer, train_loader, progress)
        seconds = time.perf_counter() - start
        text = end_epoch(trainer, val_loader, previews, log, (trainer.loss_count - count) / seconds)
        log.line(f'{text}, {time_text(seconds)} for training, {time_text(time.monotonic() - begin)} so far'
                 f'{progress.left_text()}')
    if trainer.start_psnr is not None:
        log.line(gain_text(trainer))


def make_loader(config: Config, key: str, parallel: Parallel, seed: int, shuffle: bool) -> DataLoader:
    """The loader of the config's `key`, train_dataset or val_dataset."""
    with located(key):
        return datasets.make_loader(getattr(config, key), seed, shuffle, parallel.rank, parallel.world,
                                    parallel.device.type == 'cuda')


def check_start(trainer: Trainer, val_loader: DataLoader | None, path: str) -> None:
    """Raises UserError if there is nothing to train, or what will be needed at an epoch's end is missing.

    `path`: of the config.
    """
    config, folder = trainer.config, trainer.folder
    if not trainer.parallel.agree(trainer.epoch, trainer.iteration):
        trainer.parallel.close()
        raise UserError(f'{folder}: the machines do not see the same checkpoint there; let them share the folder')
    if val_loader is not None:
        with located(f'{path}: val_dataset'):
            check_channels(trainer.model, val_loader.dataset.n_colors)
            check_eval_type(config.eval_type, config.val_dataset, val_loader.dataset)
    if config.minutes and not trainer.iteration and trainer.elapsed() >= 60 * config.minutes:
        raise UserError(f'{folder}: the {config.minutes:g} minutes are over')
    if not config.minutes and trainer.epoch >= config.epoch_max:
        raise UserError(f'{path}: epoch_max {config.epoch_max} is already reached (epoch {trainer.epoch})')


def main() -> None:
    args = parse_args()
    parallel = Parallel(args.gpu)
    folder = run_folder(args)
    held = None if parallel.rank else lock_run(folder)  # before it is read: a process that is ending may still save it
    config, source = open_run(folder, args)
    set_precision(config.tf32)
    with located(args.config):
        train_loader = make_loader(config, 'train_dataset', parallel, config.seed, shuffle=True)
        # seed 0: the same validation samples for every seed
        val_loader = make_loader(config, 'val_dataset', parallel, 0, shuffle=False) if config.epoch_val else None
        samples = train_loader.dataset
        trainer = Trainer(config, parallel, folder, samples.n_colors, samples.scale_max, len(samples))
    start_run(trainer, source)
    check_start(trainer, val_loader, args.config)
    if parallel.rank == 0:
        held = prepare_folder(folder, config, args.overwrite, held)  # noqa: F841  to the end
    log = Log(folder, active=parallel.rank == 0, new_run=source is None)
    parameters = sum(p.numel() for p in trainer.model.parameters())
    begin = f'iteration {trainer.iteration + 1}' if trainer.iteration < len(train_loader) else 'validation'
    log.line(f'{folder}: {"continues" if source else "starts"} with {trainer.epoch_text()}, {begin}; '
             f'{parameters / 1e6:.2f}M parameters, {torch.get_num_threads()} threads')
    trainer.catch_signals()
    try:
        train(trainer, train_loader, val_loader, log)
    except Stopped:
        trainer.save('last')
        log.line(f'stopped after {trainer.epoch_text()}, iteration {trainer.iteration}: '
                 'continue with the same command and --resume')
        parallel.close()
        sys.exit(128 + (trainer.signal or signal.SIGTERM))
    parallel.close()
    if parallel.rank == 0:  # other machines need not see its files
        print(next_step(folder, config, trainer.model, args))


if __name__ == '__main__':
    run_cli(main)
