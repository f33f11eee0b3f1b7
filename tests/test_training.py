"""Training: reproducible bit for bit, what a checkpoint and the logs hold, schedules."""

import contextlib
import io
import math
import signal
import time
from unittest import mock

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from projects import CONFIG, Project, assert_same, before_step, changed, kill, record, stop, write_photos

import datasets
import devices
import models
from errors import UserError
from evaluation import eval_psnr
from training.optim import make_schedule, optimizers
from training.trainer import Trainer
from utils import make_coord

# --- the same again --------------------------------------------------------------------------------


@pytest.mark.parametrize('workers', [0, 1, 2])
def test_a_run_gives_the_same_again_for_any_number_of_workers(tmp_path, undisturbed, workers):
    project = Project(tmp_path, {'train_dataset.num_workers': workers, 'val_dataset.num_workers': workers})
    project.train()
    assert_same(project.checkpoints(), undisturbed({}))


def test_the_seed_of_the_command_line_wins(tmp_path, undisturbed):
    project = Project(tmp_path, {'seed': 5, 'epoch_max': 1})
    project.train('--seed', '0')
    seed_0, seed_5 = (undisturbed({'seed': seed, 'epoch_max': 1})['epoch-last.pth'] for seed in (0, 5))
    assert_same(project.checkpoint(), seed_0)
    assert not torch.equal(seed_0['model']['sd']['imnet.weights.0'], seed_5['model']['sd']['imnet.weights.0'])


# --- what a checkpoint holds -----------------------------------------------------------------------


def test_a_checkpoint_holds_model_optimizer_and_position(undisturbed):
    checkpoint = undisturbed({})['epoch-last.pth']
    assert {k: v for k, v in checkpoint['model'].items() if k != 'sd'} == CONFIG['model']
    assert checkpoint['optimizer']['name'] == 'adam'
    assert all(state['step'] == 9 for state in checkpoint['optimizer']['sd']['state'].values())
    assert (checkpoint['epoch'], checkpoint['iteration'], checkpoint['ema']) == (3, 0, None)
    assert math.isfinite(checkpoint['best'])


def test_a_model_is_made_from_its_checkpoint(undisturbed):
    checkpoint = undisturbed({})['epoch-last.pth']
    assert_same(dict(models.make(checkpoint['model'], load_sd=True).state_dict()), dict(checkpoint['model']['sd']))


def test_checkpoints_are_kept_as_the_config_says(undisturbed):
    checkpoints = undisturbed({'epoch_save': 2, 'epoch_max': 5})
    assert {name: state['epoch'] for name, state in checkpoints.items() if 'best' not in name} == {
        'epoch-last.pth': 5, 'epoch-2.pth': 2, 'epoch-4.pth': 4}


def test_the_best_checkpoint_is_of_the_epoch_with_the_best_psnr_also_after_a_restart(tmp_path):
    project = Project(tmp_path, {'epoch_max': 2})
    with mock.patch.object(Trainer, 'validate', side_effect=[20., 25.]):
        project.train()
    project.change({'epoch_max': 4})
    with mock.patch.object(Trainer, 'validate', side_effect=[23., 24.]):
        project.train('--resume')
    assert (project.checkpoint('best')['epoch'], project.checkpoint('best')['best']) == (2, 25)


@pytest.mark.parametrize('data_norm', [None, {'inp': {'sub': [0.25], 'div': [0.5]}, 'gt': {'sub': [0], 'div': [2]}}])
def test_pictures_are_upscaled_with_the_normalisation_of_the_training(tmp_path, data_norm):
    project = Project(tmp_path, {'data_norm': data_norm, 'epoch_max': 1})
    project.train()
    norms = data_norm or {of: {'sub': [0], 'div': [1]} for of in ('inp', 'gt')}
    sub, div, gt_sub, gt_div = (norms[of][k][0] for of in ('inp', 'gt') for k in ('sub', 'div'))
    model = models.load(project.run / 'epoch-last.pth')
    picture = torch.from_numpy(np.array(Image.open(tmp_path / 'photos/0.png'))).permute(2, 0, 1)[None] / 255
    coord, cell = make_coord((80, 100))[None], torch.tensor([2 / 80, 2 / 100])
    with torch.no_grad():
        pred = model((picture - sub) / div, coord, cell.expand_as(coord)) * gt_div + gt_sub
    big = models.upscale_pil(model, Image.open(tmp_path / 'photos/0.png'), scale=2)
    np.testing.assert_allclose(np.array(big) / 255, pred.view(80, 100, 3).clamp(0, 1), atol=0.51 / 255)


# --- optimisation ----------------------------------------------------------------------------------


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


def test_multi_step_lr_is_the_published_schedule():
    factor = make_schedule(multi_step={'milestones': [200, 400, 600, 800], 'gamma': 0.5})
    assert [factor(t, 1000) for t in (0, 199.9, 200, 399, 400, 600, 800)] == [1, 1, 1 / 2, 1 / 2, 1 / 4, 1 / 8, 1 / 16]


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


def test_with_minutes_the_rate_falls_to_zero_as_they_end_whatever_the_speed(tmp_path):
    project, rates = Project(tmp_path, {'cosine_lr': {}, 'epoch_max': 1, 'epoch_val': None}), []
    step = torch.optim.Adam.step
    with mock.patch.object(torch.optim.Adam, 'step', lambda self: (
            rates.append(self.param_groups[0]['lr'] / 1e-3), step(self))):
        start = time.monotonic()
        project.train('--minutes', '0.05')
        assert 3 <= time.monotonic() - start < 30
    assert len(rates) > 3  # an epoch's iterations, and more
    assert rates == sorted(rates, reverse=True) and rates[0] > 0.5 and rates[-1] == 0
    checkpoint = project.checkpoint()
    assert checkpoint['epoch'] * 3 + checkpoint['iteration'] >= len(rates)
    for again in ('--minutes', '0.05'), ():  # config.yaml has them
        with pytest.raises(UserError, match='save/_tiny: the 0.05 minutes are over'):
            project.train(*again, '--resume')


def test_a_run_that_was_stopped_has_the_rest_of_its_minutes(tmp_path):
    project = Project(tmp_path, {'cosine_lr': {}, 'epoch_val': None})
    stop(project, 4, '--minutes', '100')
    state = project.checkpoint()
    torch.save({**state, 'seconds': 100 * 60 - 1.5}, project.run / 'epoch-last.pth')
    rates = record(project, lambda trainer: trainer.optimizer.param_groups[0]['lr'], '--minutes', '100', '--resume')
    assert max(rates) < 1e-9 and rates[-1] == 0


@pytest.mark.parametrize('minutes', ['0', '-1', 'nan'])
def test_minutes_must_be_above_zero(tmp_path, minutes):
    with pytest.raises(UserError, match='minutes must be '):
        Project(tmp_path).train('--minutes', minutes)


@pytest.mark.parametrize('flags', [
    ['--name', '../evil'], ['--name', '/tmp/evil'], ['--name', '..'], ['--tag', '/../../a']])
def test_a_run_stays_in_the_folder_save(tmp_path, flags):
    with pytest.raises(UserError, match='leads out of it'):
        Project(tmp_path).train(*flags)


def test_validation_images_of_a_few_pixels_have_no_previews_at_scales_that_leave_nothing(tmp_path):
    project = Project(tmp_path, {'epoch_max': 1, 'val_dataset.wrapper.args': {'scale_min': 1},
                                 'val_dataset.dataset.args': {'root_path': 'narrow'}, 'val_dataset.batch_size': 1})
    write_photos(tmp_path / 'narrow', 1, height=3, width=50)
    project.train()
    assert [tag for tag in project.events() if tag.startswith('preview/psnr')] == [
        'preview/psnr_image1_x2', 'preview/psnr_image1_x3']


# --- keys set on the command line ------------------------------------------------------------------


def test_a_key_set_on_the_command_line_counts_as_if_it_stood_in_the_config(tmp_path, undisturbed):
    project = Project(tmp_path, {'optimizer.args.lr': 5., 'ema': None})
    project.train('--set', 'optimizer.args.lr=0.001', '--set', 'epoch_max=2')
    assert_same(project.checkpoints(), undisturbed({'epoch_max': 2}))
    config = yaml.safe_load((project.run / 'config.yaml').read_text())
    assert float(config['optimizer']['args']['lr']) == 1e-3 and config['epoch_max'] == 2


def test_a_key_may_be_set_that_the_config_does_not_have(tmp_path, undisturbed):
    project = Project(tmp_path)
    project.train('--set', 'multi_step_lr.milestones=[1, 2]', '--set', 'multi_step_lr.gamma=0.5',
                  '--set', 'epoch_max=2')
    expected = undisturbed({'epoch_max': 2, 'multi_step_lr': {'milestones': [1, 2], 'gamma': 0.5}})
    assert_same(project.checkpoints(), expected)


@pytest.mark.parametrize('assignment, message', [
    ('optimizer.args.rate=1', "optimizer adam: unknown key 'rate'"), ('epoch_max=many', 'epoch_max must be int'),
    ('epochs=3', "unknown key 'epochs', did you mean 'epoch_val'|unknown key 'epochs'"),
    ('epoch_max', '--set takes KEY=VALUE'), ('=3', '--set takes KEY=VALUE'), ('a..b=3', '--set takes KEY=VALUE'),
    ('optimizer={', 'is not valid YAML'), ('epoch_max.args=3', '--set epoch_max.args=3: epoch_max holds no keys')])
def test_what_is_set_on_the_command_line_is_checked_like_a_config(tmp_path, assignment, message):
    with pytest.raises(UserError, match=message):
        Project(tmp_path).train('--set', assignment)


def test_the_schedule_multiplies_the_rate_of_each_group_of_parameters(tmp_path, monkeypatch):
    def two_groups(params: list, lr: float):
        return torch.optim.SGD([{'params': params[:1]}, {'params': params[1:], 'lr': lr / 8}], lr)

    monkeypatch.setitem(optimizers.classes, 'two-groups', two_groups)
    changes = {'optimizer': {'name': 'two-groups', 'args': {'lr': 1e-3}}, 'epoch_max': 2, 'epoch_val': None,
               'multi_step_lr': {'milestones': [1], 'gamma': 0.5}}
    rates = record(Project(tmp_path, changes), lambda trainer: [g['lr'] for g in trainer.optimizer.param_groups])
    assert (rates[0], rates[-1]) == (pytest.approx([1e-3, 1.25e-4]), pytest.approx([5e-4, 6.25e-5]))


# --- a loss that is not finite ---------------------------------------------------------------------


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


# --- logs ------------------------------------------------------------------------------------------


def test_log_txt_holds_a_line_for_each_epoch(project):
    project.train()
    start, *epochs = project.log()
    assert start.startswith('save/_tiny: starts with epoch 1/3, iteration 1;')
    assert start.endswith(f', {torch.get_num_threads()} threads')  # for as many the weights are the same, bit for bit
    events = project.events()
    for i, line in enumerate(epochs, 1):
        assert line.startswith(f'epoch {i}/3, train: loss={events["loss"][i]:.4f}, val: psnr={events["psnr"][i]:.4f}, ')


def test_tensorboard_shows_numbers_for_each_epoch(tmp_path):
    project = Project(tmp_path, {'epoch_val': 2})
    project.train()
    events = project.events()
    for tag in ('loss', 'lr', 'samples_per_second', 'peak_memory_bytes'):
        assert sorted(events[tag]) == [1, 2, 3]
    assert all(rate > 0 for rate in events['samples_per_second'].values())
    assert all(2 ** 26 < size < 2 ** 36 for size in events['peak_memory_bytes'].values())
    assert sorted(events['psnr']) == [2]


@pytest.mark.parametrize('system, unit', [('linux', 1024), ('darwin', 1)])
def test_peak_memory_is_in_bytes_on_every_system(monkeypatch, system, unit):
    monkeypatch.setattr(devices.sys, 'platform', system)
    with mock.patch('resource.getrusage', return_value=mock.Mock(ru_maxrss=5)):
        assert devices.peak_memory(torch.device('cpu')) == 5 * unit
    monkeypatch.setitem(devices.sys.modules, 'resource', None)  # as on Windows
    assert devices.peak_memory(torch.device('cpu')) == 0


def test_the_logged_loss_weighs_each_sample_the_same(tmp_path):
    project, losses, step = Project(tmp_path, {'epoch_max': 1}), [], Trainer.step

    def recorded(trainer, batch, *args):
        losses.append((step(trainer, batch, *args).item(), len(batch['inp'])))
        return torch.tensor([losses[-1][0]])

    with mock.patch.object(Trainer, 'step', recorded):
        project.train()
    assert [size for _, size in losses] == [2, 2, 1]
    assert project.events()['loss'][1] == pytest.approx(sum(loss * size for loss, size in losses) / 5)


def test_each_epoch_sees_other_samples_and_validation_the_same(tmp_path):
    project = Project(tmp_path, {'optimizer': {'name': 'sgd', 'args': {'lr': 0}}})
    project.train()
    events = project.events()
    assert len(set(events['psnr'].values())) == 1
    assert len(set(events['loss'].values())) == 3


def test_tensorboard_shows_fixed_crops_with_their_psnr(project):
    project.train()
    events = project.events()
    names = [f'image{i}_x{scale}' for i in (1, 2) for scale in (2, 3, 4)]
    assert sorted(tag for tag in events if tag.startswith('preview/i')) == [f'preview/{name}' for name in names]
    for name in names:
        strips = [np.asarray(Image.open(io.BytesIO(events[f'preview/{name}'][i].encoded_image_string))).astype(int)
                  for i in (1, 3)]
        first, last = ([part / 255 for part in np.split(strip, 4, axis=1)] for strip in strips)
        for i in (0, 1, 3):  # low resolution, bicubic and truth
            assert np.array_equal(first[i], last[i])
        assert not np.array_equal(first[2], last[2])
        psnr = -10 * np.log10(((last[2] - last[3]) ** 2).mean())
        assert events[f'preview/psnr_{name}'][3] == pytest.approx(psnr, abs=0.05)


def test_the_truth_of_a_picture_strip_is_the_centre_of_the_photo(project):
    project.train()
    strip = Image.open(io.BytesIO(project.events()['preview/image1_x4'][1].encoded_image_string))
    low, bicubic, _, truth = np.split(np.asarray(strip), 4, axis=1)
    photo = np.asarray(Image.open(project.folder / 'photos/0.png'))[:, 5:45]
    assert np.array_equal(truth, photo)
    small = np.asarray(Image.fromarray(photo).resize((10, 10), Image.BICUBIC))
    assert np.array_equal(low, small.repeat(4, axis=0).repeat(4, axis=1))
    assert np.abs(bicubic.astype(int) - truth).mean() < np.abs(low.astype(int) - truth).mean()


def test_validation_samples_are_the_same_for_all_seeds(project, monkeypatch):
    seen = []
    monkeypatch.setattr(Trainer, 'validate', lambda trainer, loader: seen.extend(loader) or 0.)
    project.change({'epoch_max': 1})
    for seed in '0', '1':
        project.train('--seed', seed, '--overwrite')
    assert len(seen) == 2
    assert_same(*seen)


def test_images_that_no_picture_can_be_made_of_do_not_end_the_run(project):
    write_photos(project.folder / 'small', 2, 30, 30)
    write_photos(project.folder / 'large', 2, 50, 50)
    project.change({'epoch_max': 1, 'val_dataset.dataset': {
        'name': 'paired-image-folders', 'args': {'root_path_1': 'small', 'root_path_2': 'large'}},
        'val_dataset.wrapper': {'name': 'sr-implicit-uniform-varied',
                                'args': {'size_min': 20, 'size_max': 24, 'gt_resize': 20, 'sample_q': 16}}})
    project.train()
    assert 'psnr' in project.events()
    assert not any(tag.startswith('preview') for tag in project.events())
