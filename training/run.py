"""A training run: its config, its folder, and how `--resume` and `--overwrite` treat an existing one."""

import argparse
import dataclasses
import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import yaml
from torch import nn

from config import check_args, check_positive, load_yaml
from errors import UserError, located
from evaluation import EvalConfig
from files import sweep, write_text
from metrics import parse_eval_type
from models import checkpoint as checkpoints
from models.decoder import Decoder
from models.normalisation import check_norm
from training.optim import make_schedule

# config keys with a command line option
FLAGS = 'seed', 'minutes', 'amp', 'tf32', 'channels_last', 'compile', 'cuda_graphs'
# keys that may differ on --resume: data may have moved, and another machine may compute in another way
MAY_DIFFER = {'epoch_max', 'minutes', 'epoch_val', 'epoch_save', 'eval_bsize', 'num_workers', 'cache', 'root_path',
              'root_path_1', 'root_path_2', 'split_file', 'shown', 'channels_last', 'compile', 'cuda_graphs'}
# the test configs that `next_step` may name
TESTS = [f'configs/{name}-4.yaml' for name in ('test/test-set5', 'test/test-div2k', 'quickstart/test-sample')]


@dataclasses.dataclass
class Config:
    """The keys of a training config."""
    train_dataset: dict  # {dataset: spec, wrapper: spec, batch_size: over all processes, num_workers}
    model: dict  # spec
    optimizer: dict  # spec: adam, sgd, or one of your own
    epoch_max: int
    # a spec with or without a weight, or a list of them: l1, charbonnier, mse, or one of your own
    loss: list | dict = dataclasses.field(default_factory=lambda: {'name': 'l1'})
    val_dataset: dict | None = None
    data_norm: dict | None = None  # {inp: {sub, div}, gt: {sub, div}}
    multi_step_lr: dict | None = None  # {milestones, gamma}: multiplies the rate by gamma after these epochs
    cosine_lr: dict | None = None  # {warmup, hold: epochs}: rises from zero, stays, falls to zero at epoch_max
    epoch_val: int | None = None  # epochs between validations; the last one always has one. None: no validation
    epoch_save: int | None = None  # epochs between files epoch-N.pth
    resume: str | None = None  # a checkpoint of another run to continue from
    weights_from: str | None = None  # a checkpoint whose weights the model starts from in a new run (fine-tuning)
    encoder_from: str | None = None  # a checkpoint whose encoder's weights the model's encoder starts from
    eval_type: str | None = None
    eval_bsize: int | None = None
    seed: int = 0
    minutes: float | None = None  # length of the run, over which the schedule's epoch_max epochs are stretched
    grad_clip: float | None = None  # maximum norm of the gradient
    ema: float | None = None  # final decay of the moving average of the weights
    amp: Literal['bf16'] | None = None  # mixed precision
    tf32: bool = False
    channels_last: bool = False
    compile: bool = False
    cuda_graphs: bool = False  # forward and backward of a step as one launch, recorded for each shape of batches

    def __post_init__(self):
        self.lr_factor = make_schedule(self.multi_step_lr, self.cosine_lr)
        parse_eval_type(self.eval_type)
        check_norm(self.data_norm)
        check_positive(**{key: getattr(self, key) for key in ('epoch_max', 'epoch_val', 'epoch_save', 'eval_bsize')})
        for key, epochs in (self.cosine_lr or {}).items():
            if float(epochs) >= self.epoch_max:
                raise UserError(f'cosine_lr: {key} must be below epoch_max, {self.epoch_max}, not {epochs}')
        if sum(map(bool, (self.resume, self.weights_from, self.encoder_from))) > 1:
            raise UserError('resume, weights_from and encoder_from exclude each other')
        if self.epoch_val and self.val_dataset is None:
            raise UserError('epoch_val needs a val_dataset')
        if self.minutes is not None and self.minutes <= 0:
            raise UserError(f'minutes must be above 0, not {self.minutes:g}')
        if self.grad_clip is not None and self.grad_clip <= 0:
            raise UserError(f'grad_clip must be above 0, not {self.grad_clip}')
        if not 0 <= self.seed < 2**63:
            raise UserError(f'seed must be 0 or more, and below 2^63, not {self.seed}')
        if self.ema is not None and not 0 < self.ema < 1:
            raise UserError(f'ema must be between 0 and 1, not {self.ema}')


def read_config(path: str | Path, given: dict | None = None, defaults: dict | None = None,
                assignments: Sequence[str] = ()) -> Config:
    """The config file at `path`, with its keys overridden by `given`, and `defaults` for those it does not have.

    `assignments`: the arguments of `--set`.
    """
    keys = load_yaml(path, assignments)
    with located(path):
        return Config(**check_args(Config, {**(defaults or {}), **keys, **(given or {})}))


def differences(a: object, b: object, key: str = '') -> list[str]:
    """Dotted keys in which two configs differ, except those in MAY_DIFFER."""
    if isinstance(a, dict) and isinstance(b, dict):
        keys = sorted({*a, *b} - MAY_DIFFER, key=str)
        return [d for k in keys for d in differences(a.get(k), b.get(k), f'{key}.{k}' if key else k)]
    return [] if a == b or as_number(a) == as_number(b) else [key]


def as_number(value: object) -> object:
    """`value` as a number, even if YAML reads it as text (1e-4); unchanged if it is not a number."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return value


def run_folder(args: argparse.Namespace) -> Path:
    """The folder of the run.

    UserError for names that lead out of save/, and for links whose target is missing, such as an unmounted disk.
    """
    name = (args.name or '_' + Path(args.config).stem) + (f'_{args.tag}' if args.tag else '')
    if Path(name).is_absolute() or not Path(name).parts or '..' in Path(name).parts:
        raise UserError(f'--name and --tag name a folder in save/, which {name} is not')
    folder = Path('save') / name
    for path in (folder, *folder.parents):
        if path.is_symlink() and not path.exists():
            raise UserError(f'{path}: is a link to {path.readlink()}, which does not exist; mount its disk, or change '
                            'the link')
    return folder


def newest(folder: Path) -> Path:
    """The checkpoint from which the run in `folder` continues: epoch-last.pth, or if it is missing, the latest other.

    Every checkpoint holds the whole state. So a run can continue even if epoch-last.pth was deleted, or if the run was
    killed before it wrote that file for the first time.
    """
    def position(path):
        state = checkpoints.read(path)
        return state.get('epoch', 0), state.get('iteration', 0)

    last = folder / 'epoch-last.pth'
    return last if last.exists() else max(folder.glob('epoch-*.pth'), key=position)


def open_run(folder: Path, args: argparse.Namespace) -> tuple[Config, str | Path | None]:
    """The config of the run in `folder`, and the path of the checkpoint to continue from, or None."""
    given = {k: getattr(args, k) for k in FLAGS if getattr(args, k) is not None}
    holds_run = any(folder.glob('epoch-*.pth'))
    if not (holds_run and args.resume):
        config = read_config(args.config, given, assignments=args.set)  # first, to report a wrong path to the config
        if holds_run and not args.overwrite:
            raise UserError(f'{folder} holds a run: continue it with --resume, or replace it with --overwrite')
        return config, config.resume
    load_yaml(args.config)  # so that a wrong path to the config is reported before errors in the folder
    own = read_config(folder / 'config.yaml')
    config = read_config(args.config, given, {k: getattr(own, k) for k in FLAGS}, args.set)
    changed = differences(dataclasses.asdict(config), dataclasses.asdict(own))
    if config.cosine_lr is not None and config.epoch_max != own.epoch_max:
        changed.append('epoch_max')
    if changed:
        raise UserError(f"{args.config}: {changed[0]} differs from the run's own ({folder / 'config.yaml'}); "
                        'restore it, or train into another folder with --name or --tag')
    return config, newest(folder)


def lock_run(folder: Path) -> object:
    """Keeps other processes from training in `folder` for as long as this process and the returned object exist.

    Raises UserError if another process already trains there. Does nothing if the folder does not exist, or where such
    locks are not available (Windows, some network drives).
    """
    try:
        import fcntl
    except ImportError:
        return None
    if not folder.is_dir():
        return None
    file = open(folder / 'lock', 'w')  # noqa: SIM115  stays open
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # not flock, whose lock the data workers would inherit
    except (BlockingIOError, PermissionError):
        raise UserError(f'{folder}: another process trains there; wait until it ends, or give this run a --name or '
                        '--tag of its own') from None
    except OSError:
        pass
    return file


def prepare_folder(folder: Path, config: Config, overwrite: bool, held: object) -> object:
    """Makes the run's folder, and writes its config.yaml.

    With `overwrite`, first deletes an earlier run's checkpoints and logs. Returns the folder's lock (`lock_run`):
    `held`, or a new one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    held = held or lock_run(folder)
    if overwrite:
        shutil.rmtree(folder / 'tensorboard', ignore_errors=True)
        for path in (*folder.glob('epoch-*.pth'), folder / 'log.txt'):
            path.unlink(missing_ok=True)
    sweep(folder)
    keys = {key: value for key, value in dataclasses.asdict(config).items() if value is not None}
    write_text(folder / 'config.yaml', yaml.safe_dump(keys, sort_keys=False))
    return held


def next_step(folder: Path, config: Config, model: nn.Module, args: argparse.Namespace) -> str:
    """What to do next with the `model` of the finished run in `folder`: commands to copy.

    `args`: the options of train_liif.py; the commands get the same `--gpu` and `--import`.
    """
    file = next(path for path in (folder / f'epoch-{name}.pth' for name in ('best', 'last')) if path.exists())
    n_colors, drawable = getattr(model, 'n_colors', 3), isinstance(model, Decoder)
    options = ['--model', file, *(word for name in args.imports for word in ('--import', name))]
    options += [] if args.gpu == '0' else ['--gpu', args.gpu]
    root = Path(sys.argv[0]).parent  # of the repository, written as in the user's command
    tests = [path for path in (root / name for name in TESTS) if has_images(path)]
    commands = []
    if tests and n_colors in (1, 3) and not config.weights_from:
        grey = ['--set', 'test_dataset.dataset.args.channels=grey'] if n_colors == 1 else []
        commands.append([root / 'test.py', '--config', tests[0], *grey, *options])
    if n_colors == 3 and drawable:
        commands.append([root / 'demo.py', root / 'examples/lighthouse.png', '--output', folder / 'lighthouse-x4.png',
                         '--overwrite', *options])
    if not commands and drawable:
        white = (config.train_dataset['dataset'].get('args') or {}).get('data_range')
        given = f"models.load('{file}'), ARRAY, scale=4" + (f', data_range={white}' if white else '')
        after = f', after import {", ".join(args.imports)}' if args.imports else ''
        return f'next: models.upscale({given}) in Python{after}, with a NumPy array'
    if not commands:
        commands.append([root / 'test.py', '--config', 'YOUR_TEST_CONFIG', *options])
    return 'next: ' + '\n   or: '.join(shlex.join(['python', *map(str, command)]) for command in commands)


def has_images(path: Path) -> bool:
    """Whether there is a valid test config at `path`, and its images are available."""
    try:
        return bool(EvalConfig.read(path).loader())
    except UserError:
        return False
