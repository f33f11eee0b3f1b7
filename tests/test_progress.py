"""What a run tells while it trains: time left, curves within an epoch, validation images left out, the next step."""

import contextlib
import io
import math
import re
import shlex
from argparse import Namespace
from pathlib import Path
from unittest import mock

import pytest
import specs
from paths import ROOT
from PIL import Image
from processes import forked
from projects import Project, before_step, write_photos

import models
from errors import UserError
from models.registry import with_n_colors
from training import progress, run
from training.trainer import Trainer
from utils import time_text

LONG = {'train_dataset.dataset.args.repeat': 50, 'epoch_max': 1, 'epoch_val': None}  # 125 iterations an epoch
WHOLE = {'val_dataset.wrapper.args': {'scale_min': 2}, 'val_dataset.batch_size': 1, 'eval_type': 'benchmark-2',
         'epoch_max': 2}


class Clock:
    """In place of the clock that counts the time left: a second passes in each iteration."""

    def __init__(self):
        self.now = 0.

    def monotonic(self):
        return self.now


def timed_steps(clock):
    """Lets each training step take a second of the `clock`."""
    step = Trainer.step

    def timed(trainer, *args):
        clock.now += 1
        return step(trainer, *args)
    return mock.patch.object(Trainer, 'step', timed)


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(progress, 'time', clock)
    with timed_steps(clock):
        yield clock


def test_after_twenty_iterations_a_line_says_how_long_the_whole_run_will_take(tmp_path, clock):
    project = Project(tmp_path, {**LONG, 'epoch_max': 4000})
    with before_step(30, lambda trainer: trainer.interrupt(15, None)), pytest.raises(SystemExit):
        project.train()
    _, told, _ = project.log()
    assert told == f'epoch 1/4000, {(4000 * 125 - 20) / 86400:.1f} days left'


@pytest.fixture(scope='module')
def long(tmp_path_factory):
    """A run of two epochs of 125 iterations: its project, the size and the loss of each batch, and what it shows."""
    losses, add_losses = [], Trainer.add_losses

    def recorded(trainer, latest, sizes):
        losses.extend((size, loss.item()) for loss, size in zip(latest, sizes, strict=True))
        return add_losses(trainer, latest, sizes)

    project, clock = Project(tmp_path_factory.mktemp('long'), {**LONG, 'epoch_max': 2, 'cosine_lr': {}}), Clock()
    with mock.patch.object(Trainer, 'add_losses', recorded), mock.patch.object(progress, 'time', clock), \
            timed_steps(clock), contextlib.redirect_stderr(io.StringIO()) as shown:
        project.train()
    return project, losses, shown.getvalue()


def test_the_bar_shows_the_time_left_for_the_whole_run(long):
    shown = re.findall(r'(epoch \d/2, [\d.]+[ms] left):', long[2])
    assert {'epoch 1/2, 3.8m left', 'epoch 2/2, 1.8m left', 'epoch 2/2, 30.0s left'} <= {*shown}


def test_each_epochs_line_labels_its_times(tmp_path, clock):
    project = Project(tmp_path, {'epoch_max': 3})
    project.train()
    _, first, second, last = project.log()
    for line in (first, second, last):
        assert re.search(r', [\d.]+s for training, [\d.]+s so far(, |$)', line)
    assert first.endswith(' so far, 6.0s left') and second.endswith(' so far, 3.0s left')
    assert last.endswith(' so far')


def test_with_minutes_what_is_left_of_them_is_told(tmp_path):
    project = Project(tmp_path, {'epoch_val': None})
    with before_step(10, lambda trainer: trainer.interrupt(15, None)), pytest.raises(SystemExit):
        project.train('--minutes', '180')
    assert project.log()[1].startswith('epoch 1, train: ') and project.log()[1].endswith(' so far, 3.0h left')


@pytest.mark.parametrize('seconds, text', [(7.31, '7.3s'), (720, '12.0m'), (100_000, '27.8h'), (1.75e6, '20.3 days')])
def test_durations_are_short_to_read(seconds, text):
    assert time_text(seconds) == text


def test_curves_have_a_point_every_hundred_iterations_the_mean_of_these(long):
    project, losses, _ = long
    events = project.events()
    assert sorted(events['iteration/loss']) == sorted(events['iteration/samples_per_second']) == [100, 200]
    for step, loss in events['iteration/loss'].items():
        part = losses[step - 100:step]
        assert loss == pytest.approx(sum(size * loss for size, loss in part) / sum(size for size, _ in part), rel=1e-5)
    assert events['iteration/lr'][200] == pytest.approx(1e-3 * (0.5 + 0.5 * math.cos(math.pi * 199 / 250)), rel=1e-5)


def test_a_validation_image_too_small_for_its_border_is_named_once_and_left_out(tmp_path, capsys):
    write_photos(tmp_path / 'alone/valid', 2)
    alone = Project(tmp_path / 'alone', {**WHOLE, 'val_dataset.dataset.args': {'root_path': 'valid'}})
    alone.train()
    both = Project(tmp_path / 'both', {**WHOLE, 'val_dataset.dataset.args': {'root_path': 'valid'}})
    write_photos(tmp_path / 'both/valid', 2)
    Image.new('RGB', (50, 4), 'red').save(tmp_path / 'both/valid/00-tiny.png')
    capsys.readouterr()
    both.train()
    assert both.events()['psnr'] == alone.events()['psnr']
    assert capsys.readouterr().err.count('val_dataset: 00-tiny.png: a 50x4 image has nothing left without its border '
                                         'of 2 pixels; it is left out of the mean') == 1


def test_validation_images_that_are_all_too_small_are_an_error_and_the_epoch_is_kept(tmp_path):
    (tmp_path / 'valid').mkdir()
    Image.new('RGB', (50, 4), 'red').save(tmp_path / 'valid/tiny.png')
    project = Project(tmp_path, {**WHOLE, 'val_dataset.dataset.args': {'root_path': 'valid'}})
    with pytest.raises(UserError, match='val_dataset: all images are too small for the border of eval_type bench'):
        project.train()
    assert project.checkpoint()['iteration'] == 3


# --- the next step -------------------------------------------------------------------------------------------------

WAYS = {  # what a user has trained, with what options, and which scripts the hint names
    'colour': ({}, (), ['demo.py']),
    'the latest weights': ({'epoch_val': None}, ('--name', 'two words'), ['demo.py']),
    'with the images of a test': ({}, ('--seed', '1'), ['test.py', 'demo.py']),
    'an encoder of ones own': (
        {'model.args.encoder_spec': {'name': 'own-encoder'}}, ('--import', 'examples.own_model'), ['demo.py']),
    'grey, with the images of a test': (
        {'train_dataset.dataset.args.channels': 'grey', 'val_dataset.dataset.args.channels': 'grey'}, (), ['test.py'])}


@pytest.mark.parametrize('changes, flags, scripts', WAYS.values(), ids=WAYS)
def test_a_run_ends_with_commands_that_work_as_they_are(tmp_path, capsys, changes, flags, scripts):
    project = Project(tmp_path, {**changes, 'epoch_max': 1})
    (tmp_path / 'configs').symlink_to(ROOT / 'configs')
    write_photos(tmp_path / 'photo', 1)
    (tmp_path / 'examples').mkdir()
    (tmp_path / 'photo/0.png').rename(tmp_path / 'examples/lighthouse.png')
    if 'test.py' in scripts:
        write_photos(tmp_path / 'load/sample/valid', 2)
    project.train(*flags)
    hint = capsys.readouterr().out.split('next: ')[1]
    commands = [shlex.split(line) for line in hint.splitlines()]
    assert [command[1 if command[0] == 'python' else 2] for command in commands] == scripts
    for command in commands:
        done = forked(tmp_path, *command[command.index('python') + 1:])
        assert done.returncode == 0, done.stderr
        assert 'running on the CPU\n' in done.stdout  # as it was trained, not because there is no GPU


def test_fine_tuning_ends_with_the_demo(tmp_path, capsys):
    project = Project(tmp_path, {'epoch_max': 1})
    (tmp_path / 'configs').symlink_to(ROOT / 'configs')
    write_photos(tmp_path / 'load/sample/valid', 1)
    project.train()
    project.change({'epoch_max': 1, 'weights_from': 'save/_tiny/epoch-last.pth'})
    project.train('--name', 'tuned')
    assert capsys.readouterr().out.splitlines()[-1] == (
        'next: python demo.py examples/lighthouse.png --output save/tuned/lighthouse-x4.png --overwrite '
        '--model save/tuned/epoch-best.pth --gpu cpu')


def test_the_commands_after_training_name_files_of_the_repository():
    assert (ROOT / 'examples/lighthouse.png').exists()
    assert all((ROOT / path).exists() for path in run.TESTS)


@pytest.mark.parametrize('argv, gpu, command', [
    ('train_liif.py', '0', 'python demo.py examples/lighthouse.png --output save/a/lighthouse-x4.png --overwrite '
                           '--model save/a/epoch-last.pth'),
    ('/a b/train_liif.py', '1', "python '/a b/demo.py' '/a b/examples/lighthouse.png' --output "
                                'save/a/lighthouse-x4.png --overwrite --model save/a/epoch-last.pth --gpu 1')])
def test_the_commands_after_training_have_its_gpu_and_its_path(tmp_path, monkeypatch, argv, gpu, command):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr('sys.argv', [argv])
    (tmp_path / 'save/a').mkdir(parents=True)
    (tmp_path / 'save/a/epoch-last.pth').touch()
    config, model = run.Config({}, {}, {}, 1), models.make(specs.liif())
    assert run.next_step(Path('save/a'), config, model, Namespace(gpu=gpu, imports=[])) == f'next: {command}'


@pytest.mark.parametrize('args, imports, given, after', [
    ({}, [], '', ''), ({'data_range': 4095}, ['mine', 'a.loss'], ', data_range=4095', ', after import mine, a.loss')])
def test_after_training_on_other_channels_the_api_is_named(tmp_path, monkeypatch, args, imports, given, after):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'save/a').mkdir(parents=True)
    (tmp_path / 'save/a/epoch-best.pth').touch()
    model = models.make(with_n_colors(specs.liif(), 4))
    config = run.Config({'dataset': {'name': 'image-folder', 'args': args}}, {}, {}, 1)
    assert run.next_step(Path('save/a'), config, model, Namespace(gpu='0', imports=imports)) == (
        f"next: models.upscale(models.load('save/a/epoch-best.pth'), ARRAY, scale=4{given}) in Python{after}, "
        'with a NumPy array')
