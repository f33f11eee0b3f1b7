"""How a run changes the weights: averages, clipping, schedules, and losses that are not finite."""

import contextlib
import math
import signal
import time
from unittest import mock

import pytest
import torch
from projects import CONFIG, Killed, Project, assert_same, before_step, changed, kill, record, stop

import datasets
import models
from errors import UserError
from evaluation import eval_psnr
from training.optim import make_schedule, optimizers
from training.trainer import Trainer
from utils import make_coord

# --- steps -----------------------------------------------------------------------------------------------------------


def flat(trainer):
    return torch.cat([p.detach().flatten() for p in trainer.model.parameters()])


def test_the_averaged_weights_are_evaluated_and_saved_beside_the_raw_ones(tmp_path):
    project = Project(tmp_path, {'ema': 0.2, 'epoch_max': 1, 'optimizer.args.lr': 0.01})
    first, *weights = record(project, flat)
    average = first
    for steps, raw in enumerate(weights):
        decay = min(0.2, (1 + steps) / (10 + steps))
        average = decay * average + (1 - decay) * raw
    checkpoint = project.checkpoint()
    for saved, expected in ((checkpoint['ema'], average), (checkpoint['model']['sd'], weights[-1])):
        torch.testing.assert_close(torch.cat([p.flatten() for p in saved.values()]), expected)
    with contextlib.chdir(tmp_path):
        loader = datasets.make_loader(CONFIG['val_dataset'], seed=0)
    model = models.load(project.run / 'epoch-last.pth')  # with the averaged weights
    assert_same(dict(model.state_dict()), dict(checkpoint['ema']))
    with contextlib.chdir(tmp_path):
        assert project.events()['psnr'][1] == pytest.approx(eval_psnr(loader, model, CONFIG['data_norm']), abs=1e-4)


def test_the_averaged_model_has_the_latest_buffers(tmp_path):
    project = Project(tmp_path, {'ema': 0.8, 'epoch_max': 1})
    init = Trainer.__init__

    def with_a_buffer(trainer, *args):
        init(trainer, *args)
        for model in (trainer.model, trainer.ema):
            model.register_buffer('steps', torch.zeros(()))
        trainer.model.register_forward_pre_hook(lambda model, inputs: model.steps.add_(1) and None)

    with mock.patch.object(Trainer, '__init__', with_a_buffer):
        project.train()
    assert project.checkpoint()['ema']['steps'] == 3


def test_grad_clip_bounds_the_norm_of_the_gradient(tmp_path):
    sgd = {'optimizer': {'name': 'sgd', 'args': {'lr': 0.5}}, 'epoch_max': 1}
    free, clipped = (record(Project(tmp_path / str(clip), {**sgd, 'grad_clip': clip}), flat) for clip in (None, 0.01))
    assert (free[1] - free[0]).norm() > 0.5 * 0.02
    for before, after in zip(clipped, clipped[1:3], strict=False):
        assert (after - before).norm().item() == pytest.approx(0.5 * 0.01, rel=1e-3)


def test_without_grad_clip_or_ema_a_step_is_that_of_the_optimizer_alone(tmp_path):
    project = Project(tmp_path, {'optimizer': {'name': 'sgd', 'args': {'lr': 0.5}}, 'epoch_max': 1,
                                 'train_dataset.batch_size': 5})
    before, after = record(project, flat)
    torch.manual_seed(0)
    model = models.make(CONFIG['model'])
    with contextlib.chdir(tmp_path):
        loader = datasets.make_loader({**CONFIG['train_dataset'], 'batch_size': 5}, seed=0, shuffle=True)
        loader.batch_sampler.epoch = 1
        batch, = loader
    loss = (model(batch['inp'] * 2 - 1, batch['coord'], batch['cell']) - (batch['gt'] * 2 - 1)).abs().mean()
    loss.backward()
    expected = torch.cat([(p - 0.5 * p.grad).detach().flatten() for p in model.parameters()])
    torch.testing.assert_close(after, expected, rtol=1e-5, atol=1e-6)
    assert project.events()['loss'][1] == pytest.approx(loss.item(), rel=1e-5)


PIXEL = {'model.args.expansion_spec.args.space': 'pixel', 'model.args.residual': 'bilinear'}
NORMS = {'data_norm.inp': {'sub': [0.4], 'div': [0.2]}, 'data_norm.gt': {'sub': [0.1], 'div': [0.8]}}


@pytest.mark.parametrize('changes', [{}, {'train_dataset.wrapper.args.sample_q': None},
                                     {'train_dataset.wrapper.args.sample_q': None, **PIXEL}],
                         ids=['queries', 'every pixel', 'every pixel, pixel space'])
def test_a_step_normalises_inputs_and_targets_each_in_its_own_way(tmp_path, changes):
    changes = {**changes, **NORMS, 'optimizer': {'name': 'sgd', 'args': {'lr': 0.5}}, 'epoch_max': 1,
               'train_dataset.batch_size': 5}
    project = Project(tmp_path, changes)
    _, after = record(project, flat)
    torch.manual_seed(0)
    config = changed(CONFIG, changes)
    model = models.make(config['model'])
    with contextlib.chdir(tmp_path):
        loader = datasets.make_loader(config['train_dataset'], seed=0, shuffle=True)
        loader.batch_sampler.epoch = 1
        batch, = loader
    if 'coord' in batch:
        inp, coord, cell, gt = (batch[key] for key in ('inp', 'coord', 'cell', 'gt'))
    else:
        inp, gt = batch['inp'] / 255, batch['gt'].permute(0, 2, 3, 1).flatten(1, 2) / 255
        size = batch['gt'].shape[2:]
        coord = make_coord(size).expand(5, -1, 2)
        cell = torch.tensor([2 / n for n in size]).expand_as(coord)
    (model((inp - 0.4) / 0.2, coord, cell) - (gt - 0.1) / 0.8).abs().mean().backward()
    expected = torch.cat([(p - 0.5 * p.grad).detach().flatten() for p in model.parameters()])
    torch.testing.assert_close(after, expected, rtol=1e-5, atol=1e-6)


# --- schedules -------------------------------------------------------------------------------------------------------


def test_multi_step_lr_is_the_published_schedule():
    factor = make_schedule(multi_step={'milestones': [200, 400, 600, 800], 'gamma': 0.5})
    assert [factor(t, 1000) for t in (0, 199.9, 200, 399, 400, 600, 800)] == [1, 1, 1 / 2, 1 / 2, 1 / 4, 1 / 8, 1 / 16]
    assert [make_schedule(multi_step={'milestones': [0.5]})(t, 2) for t in (0.4, 0.5, 1)] == [1, 0.1, 0.1]


def test_cosine_lr_warms_up_holds_and_falls_to_zero():
    factor = make_schedule(cosine={'warmup': 2, 'hold': 5})
    assert [factor(t, 25) for t in (0, 1, 2, 4.9, 5)] == [0, 0.5, 1, 1, 1]
    assert [factor(t, 25) for t in (10, 15, 25)] == pytest.approx([0.5 + 0.5 ** 1.5, 0.5, 0])


def test_cosine_lr_without_arguments_falls_from_the_start():
    assert [make_schedule(cosine={})(t, 10) for t in (0, 5, 10)] == pytest.approx([1, 0.5, 0])


def test_the_learning_rate_follows_the_schedule_by_iteration(tmp_path):
    project, rates = Project(tmp_path, {'cosine_lr': {'warmup': 1}, 'epoch_max': 2}), []
    step = torch.optim.Adam.step
    with mock.patch.object(torch.optim.Adam, 'step', lambda self: (
            rates.append(self.param_groups[0]['lr'] / 1e-3), step(self))):
        project.train()
    half = [0.5 + 0.5 * math.cos(math.pi * i / 3) for i in range(3)]
    assert rates == pytest.approx([0, 1 / 3, 2 / 3, *half])
    assert project.events()['lr'][2] == pytest.approx(1e-3 * half[-1])


def test_the_schedule_multiplies_the_rate_of_each_group_of_parameters(tmp_path, monkeypatch):
    def two_groups(params: list, lr: float):
        return torch.optim.SGD([{'params': params[:1]}, {'params': params[1:], 'lr': lr / 8}], lr)

    monkeypatch.setitem(optimizers.classes, 'two-groups', two_groups)
    changes = {'optimizer': {'name': 'two-groups', 'args': {'lr': 1e-3}}, 'epoch_max': 2, 'epoch_val': None,
               'multi_step_lr': {'milestones': [1], 'gamma': 0.5}}
    rates = record(Project(tmp_path, changes), lambda trainer: [g['lr'] for g in trainer.optimizer.param_groups])
    assert (rates[0], rates[-1]) == (pytest.approx([1e-3, 1.25e-4]), pytest.approx([5e-4, 6.25e-5]))


def test_with_minutes_the_rate_falls_to_zero_as_they_end_whatever_the_speed(tmp_path):
    project, rates = Project(tmp_path, {'cosine_lr': {}, 'epoch_max': 1, 'epoch_val': None}), []
    step = torch.optim.Adam.step
    with mock.patch.object(torch.optim.Adam, 'step', lambda self: (
            rates.append(self.param_groups[0]['lr'] / 1e-3), step(self))):
        start = time.monotonic()
        project.train('--minutes', '0.02')
        assert 1.2 <= time.monotonic() - start < 30
    assert len(rates) > 3  # an epoch's iterations, and more
    assert rates == sorted(rates, reverse=True) and rates[0] > 0.5 and rates[-1] == 0
    checkpoint = project.checkpoint()
    assert checkpoint['epoch'] * 3 + checkpoint['iteration'] >= len(rates)
    for again in ('--minutes', '0.02'), ():  # config.yaml has them
        with pytest.raises(UserError, match='save/_tiny: the 0.02 minutes are over'):
            project.train(*again, '--resume')


def test_a_run_that_was_stopped_has_the_rest_of_its_minutes(tmp_path):
    project = Project(tmp_path, {'cosine_lr': {}, 'epoch_val': None})
    stop(project, 4, '--minutes', '100')
    state = project.checkpoint()
    torch.save({**state, 'seconds': 100 * 60 - 1.5}, project.run / 'epoch-last.pth')
    rates = record(project, lambda trainer: trainer.optimizer.param_groups[0]['lr'], '--minutes', '100', '--resume')
    assert max(rates) < 1e-9 and rates[-1] == 0


def end_minutes(trainer):
    """It is as if the run's minutes had passed."""
    trainer.seconds = 60 * trainer.config.minutes


@pytest.mark.parametrize('last', [2, 3], ids=['within-an-epoch', 'at-its-end'])
def test_when_the_minutes_are_over_the_final_weights_are_saved_before_they_are_validated(tmp_path, last):
    project = Project(tmp_path, {'cosine_lr': {}, 'ema': 0.9})
    with before_step(last - 1, end_minutes), mock.patch.object(Trainer, 'validate', kill), pytest.raises(Killed):
        project.train('--minutes', '100')
    saved = project.checkpoint()
    assert saved['iteration'] == last and saved['optimizer']['sd']['param_groups'][0]['lr'] == 0
    with mock.patch.object(Trainer, 'step', kill):
        project.train('--resume')
    ended = project.checkpoint()
    assert_same([dict(ended['model']['sd']), ended['ema']], [dict(saved['model']['sd']), saved['ema']])
    assert ended['epoch'] == 1 and 'val: psnr=' in project.log()[-1]


@pytest.mark.parametrize('minutes', ['0', '-1', 'nan'])
def test_minutes_must_be_above_zero(tmp_path, minutes):
    with pytest.raises(UserError, match='minutes must be '):
        Project(tmp_path).train('--minutes', minutes)


# --- a loss that is not finite ---------------------------------------------------------------------------------------


def poison(trainer):
    with torch.no_grad():
        trainer.model.imnet.biases[0].fill_(math.nan)


def test_a_loss_that_is_not_finite_stops_the_run_and_the_checkpoint_before_stays(project):
    with before_step(5, poison), pytest.raises(UserError) as error:
        project.train()
    assert 'the loss is nan in epoch 2/3, iteration 2:' in str(error.value)
    assert (project.checkpoint()['epoch'], project.checkpoint()['iteration']) == (1, 0)


def test_a_loss_that_is_not_finite_is_found_within_a_long_epoch(tmp_path):
    project = Project(tmp_path, {'train_dataset.dataset.args.repeat': 20, 'epoch_val': None})
    with before_step(23, poison), before_step(45, kill), pytest.raises(UserError, match='epoch 1/3, iteration 23:'):
        project.train()


@pytest.mark.parametrize('step', [5, 6])  # the one before a signal, and the last of an epoch
def test_weights_that_a_step_made_not_finite_are_not_saved(project, step):
    def poison_the_gradient(trainer):
        hook = trainer.model.imnet.biases[0].register_hook(lambda grad: hook.remove() or grad * math.nan)
        if step == 5:
            trainer.interrupt(signal.SIGTERM, None)

    with before_step(step, poison_the_gradient), pytest.raises(UserError, match='the weights are not finite after'):
        project.train()
    checkpoint = project.checkpoint()
    assert checkpoint['epoch'] == 1 and all(v.isfinite().all() for v in checkpoint['model']['sd'].values())


def test_weights_are_not_saved_at_a_signal_if_the_loss_is_not_finite(project):
    with before_step(2, poison), pytest.raises(UserError, match='epoch 1/3, iteration 2:'):
        stop(project, 3)
    assert not project.checkpoints()
