"""What a run tells while it trains: time left, curves within an epoch, validation images left out, the next step."""

import math
import re
from unittest import mock

import pytest
from PIL import Image
from projects import Project, before_step, write_photos

from errors import UserError
from training import progress
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


def test_the_bar_shows_the_time_left_for_the_whole_run(tmp_path, clock, capsys):
    Project(tmp_path, {**LONG, 'epoch_max': 2}).train()
    shown = re.findall(r'(epoch \d/2, [\d.]+[ms] left):', capsys.readouterr().err)
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


def test_curves_have_a_point_every_hundred_iterations_the_mean_of_these(tmp_path):
    losses, check = [], Trainer.check

    def recorded(trainer, latest, sizes):
        losses.extend((loss.item(), size) for loss, size in zip(latest, sizes, strict=True))
        return check(trainer, latest, sizes)

    project = Project(tmp_path, {**LONG, 'epoch_max': 2, 'cosine_lr': {}})
    with mock.patch.object(Trainer, 'check', recorded):
        project.train()
    events = project.events()
    assert sorted(events['iteration/loss']) == sorted(events['iteration/samples_per_second']) == [100, 200]
    for step, loss in events['iteration/loss'].items():
        part = losses[step - 100:step]
        assert loss == pytest.approx(sum(a * b for a, b in part) / sum(b for _, b in part), rel=1e-5)
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


@pytest.mark.parametrize('changes, model', [({}, 'best'), ({'epoch_val': None}, 'last')])
def test_a_run_ends_with_the_next_step(tmp_path, capsys, changes, model):
    Project(tmp_path, {**changes, 'epoch_max': 1}).train()
    path = f'save/_tiny/epoch-{model}.pth'
    assert capsys.readouterr().out.splitlines()[-1] == (
        f'next: python test.py --config configs/test/test-set5-4.yaml --model {path}, or python demo.py PHOTO --model '
        f'{path}')


def test_fine_tuning_ends_with_the_demo(tmp_path, capsys):
    project = Project(tmp_path, {'epoch_max': 1})
    project.train()
    project.change({'epoch_max': 1, 'weights_from': 'save/_tiny/epoch-last.pth'})
    project.train('--name', 'tuned')
    assert capsys.readouterr().out.splitlines()[-1] == 'next: python demo.py PHOTO --model save/tuned/epoch-best.pth'
