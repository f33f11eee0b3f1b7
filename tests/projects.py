"""A small project to train in: photos, a tiny config, and ways to run train_liif.py and test.py on it."""

import contextlib
import copy
import io
import itertools
import re
import signal
import struct
import subprocess
import sys
from unittest import mock

import pytest
import torch
import torch._dynamo  # the first optimizer would import it, which takes seconds
import yaml
from paths import ROOT
from photos import smooth
from processes import data_workers, forked
from tensorboardX.proto.event_pb2 import Event, SessionLog

import train_liif
from cli import run_cli
from training import preview
from training.trainer import Trainer

FEW = {'IMAGES': 1, 'SCALES': (2,)}  # previews, which would take a third of a small training
COMMAND = '--config', 'tiny.yaml', '--gpu', 'cpu'  # a later --config or --gpu wins

# Of five photos in batches of 2 an epoch has 3 iterations, the last one with a short batch.
CONFIG = yaml.safe_load('''
train_dataset:
  dataset: {name: image-folder, args: {root_path: photos}}
  wrapper: {name: sr-implicit-downsampled, args: {inp_size: 8, scale_max: 3, augment: true, sample_q: 16}}
  batch_size: 2
  num_workers: 0
val_dataset:
  dataset: {name: image-folder, args: {root_path: photos, first_k: 3}}
  wrapper: {name: sr-implicit-downsampled, args: {inp_size: 8, scale_max: 3, sample_q: 16}}
  batch_size: 4
  num_workers: 0
data_norm:
  inp: {sub: [0.5], div: [0.5]}
  gt: {sub: [0.5], div: [0.5]}
model:
  name: a-liif
  args:
    encoder_spec: {name: edsr-baseline, args: {n_resblocks: 1, n_feats: 4, no_upsampling: true}}
    expansion_spec: {name: expansion-net, args: {out_dim: 2, hidden_list: [8]}}
    imnet_spec: {name: mlp-mixture, args: {K: 2, out_dim: 3, hidden_list: [8]}}
optimizer: {name: adam, args: {lr: 1.e-3}}
epoch_max: 3
epoch_val: 1
''')


def write_photos(folder, count, height=40, width=50):
    """Writes smooth colour images 0.png, 1.png, ..."""
    folder.mkdir(parents=True)
    for i in range(count):
        smooth((width, height), i, cells=(5, 6)).save(folder / f'{i}.png')


def changed(config, changes):
    """A copy of `config` with the values of dotted keys, as 'model.name', replaced, or taken out where None."""
    config = copy.deepcopy(config)
    for key, value in changes.items():
        *parents, last = key.split('.')
        node = config
        for parent in parents:
            node = node[parent]
        node[last] = value
        if value is None:
            del node[last]
    return config


@contextlib.contextmanager
def command_line(folder, *args):
    """This process as a script with `args`, started in `folder`, finds it, and what it would leave behind undone."""
    with contextlib.ExitStack() as stack:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            stack.callback(signal.signal, number, signal.getsignal(number))
        stack.enter_context(mock.patch.object(sys, 'argv', ['script.py', *args]))
        stack.enter_context(contextlib.chdir(folder))
        stack.callback(end_workers)
        yield


def run_training(folder, *args):
    """Runs train_liif.py's main in this process, in `folder`, with FEW previews."""
    with command_line(folder, *args), mock.patch.multiple(preview, **FEW):
        train_liif.main()


def train_two_steps(folder, path, **changes):
    """Trains the config at `path` in `folder`, which has its data, with a small encoder and few queries: two steps.

    `changes`: more keys, with __ for a dot. Returns the checkpoint's path.
    """
    small = {'model.args.encoder_spec.args.n_resblocks': 1, 'model.args.encoder_spec.args.n_feats': 4,
             'train_dataset.wrapper.args.sample_q': 16, 'val_dataset.wrapper.args.sample_q': 16,
             'train_dataset.num_workers': 0, 'val_dataset.num_workers': 0, 'epoch_max': 1,
             **{key.replace('__', '.'): value for key, value in changes.items()}}
    args = [arg for key, value in small.items() for arg in ('--set', f'{key}={value}')]
    step = Trainer.step
    with mock.patch.object(Trainer, 'step', autospec=True, side_effect=step) as steps, \
            mock.patch.object(train_liif, 'validate_and_log', return_value=0.):
        run_training(folder, '--config', str(path), '--gpu', 'cpu', *args)
    assert steps.call_count == 2
    return folder / f'save/_{path.stem}/epoch-last.pth'


class Project:
    """A folder with photos/, tiny.yaml (CONFIG with `changes`, see `changed`) and the run that it makes, save/_tiny."""

    def __init__(self, folder, changes=None, photos=5):
        self.folder, self.run = folder, folder / 'save/_tiny'
        write_photos(folder / 'photos', photos)
        self.change(changes or {})

    def change(self, changes):
        """Writes tiny.yaml anew."""
        (self.folder / 'tiny.yaml').write_text(yaml.safe_dump(changed(CONFIG, changes)))

    def train(self, *flags):
        """Runs train_liif.py's main in this process."""
        run_training(self.folder, *COMMAND, *flags)

    def start(self, *flags, launcher=()):
        """Starts train_liif.py by a Python of its own, or by a `launcher` module, without waiting for it."""
        command = [sys.executable, *launcher, str(ROOT / 'train_liif.py'), *COMMAND, *flags]
        with (self.folder / 'output').open('w') as output:
            return subprocess.Popen(command, cwd=self.folder, stdout=output, stderr=output)

    def output(self):
        """What the process last started has printed, stdout and stderr together."""
        return (self.folder / 'output').read_text()

    def checkpoint(self, name='last'):
        return torch.load(self.run / f'epoch-{name}.pth', weights_only=True)

    def checkpoints(self):
        return {path.name: torch.load(path, weights_only=True) for path in self.run.glob('epoch-*')}

    def log(self):
        return (self.run / 'log.txt').read_text().splitlines()

    def events(self):
        """What TensorBoard shows: {tag: {step: a number or an image}}."""
        tags = {}
        for path in sorted((self.run / 'tensorboard').iterdir()):
            content = path.read_bytes()
            while content:  # a record: its length in 8 bytes, a checksum in 4, the event, a checksum in 4
                length, = struct.unpack('<Q', content[:8])
                event = Event.FromString(content[12:12 + length])
                if event.session_log.status == SessionLog.START:  # what came before is not shown from that step on
                    tags = {tag: {n: value for n, value in values.items() if n < event.step}
                            for tag, values in tags.items()}
                for value in event.summary.value:
                    shown = value.image if value.HasField('image') else value.simple_value
                    tags.setdefault(value.tag, {})[event.step] = shown
                content = content[16 + length:]
        return tags


def end_workers():
    """Ends this process's data workers, which garbage collection would later give 5 seconds each to end."""
    for worker in data_workers():
        worker.terminate()
        worker.join()


@contextlib.contextmanager
def before_step(n, action):
    """Calls `action(trainer)` when the `n`-th training step from now begins."""
    step, count = Trainer.step, itertools.count(1)

    def counted(trainer, *args):
        if next(count) == n:
            action(trainer)
        return step(trainer, *args)

    with mock.patch.object(Trainer, 'step', counted):
        yield


def record(project, value, *flags):
    """`value(trainer)` before each step and at the end of a run."""
    values, step, save = [], Trainer.step, Trainer.save
    with mock.patch.object(Trainer, 'step', lambda t, *a: (values.append(value(t)), step(t, *a))[1]), \
            mock.patch.object(Trainer, 'save', lambda t, *a: (values.append(value(t)), save(t, *a))[1]):
        project.train(*flags)
    return values


def stop(project, step, *flags, number=signal.SIGTERM):
    """Trains, with a signal in the given step, to the end that it leads to: the exit code."""
    with before_step(step, lambda trainer: signal.raise_signal(number)), pytest.raises(SystemExit) as end:
        project.train(*flags)
    return end.value.code


class Killed(BaseException):
    """In place of SIGKILL in this process: nothing in the code under test catches it."""


def kill(*args):
    raise Killed


def assert_same(a, b, where='checkpoint'):
    """Asserts that two structures of tensors, numbers, lists and dicts are equal, bit for bit."""
    assert type(a) is type(b), where
    if isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a:
            assert_same(a[key], b[key], f'{where}.{key}')
    elif isinstance(a, list):
        assert len(a) == len(b), where
        for i, pair in enumerate(zip(a, b, strict=True)):
            assert_same(*pair, f'{where}.{i}')
    else:
        assert torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b, where


# --- errors ----------------------------------------------------------------------------------------


def only_line(stderr):
    """The one line that `stderr` holds beside progress bars."""
    line, = (part for part in re.split('[\r\n]', stderr) if part.strip() and not part.startswith(('epoch ', 'val:')))
    return line


def message(code, stderr):
    """That of the error in which a script ended."""
    assert code == 2
    assert only_line(stderr).startswith('error: ')
    return only_line(stderr).removeprefix('error: ')


def error(project, *flags, main=train_liif.main):
    """The error in which a script, run in this process by its `main`, ends."""
    stderr = io.StringIO()
    with command_line(project.folder, *COMMAND, *flags), contextlib.redirect_stderr(stderr), \
            pytest.raises(SystemExit) as end:
        run_cli(main)
    return message(end.value.code, stderr.getvalue())


def error_of_process(project, *flags, **kwargs):
    """The error in which train_liif.py, in a process of its own, ends; see `forked`."""
    done = forked(project.folder, 'train_liif.py', *COMMAND, *flags, **kwargs)
    return message(done.returncode, done.stderr)
