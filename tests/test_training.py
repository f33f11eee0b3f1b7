"""Training: reproducible bit for bit, what a checkpoint and the logs hold, schedules."""

import math
from unittest import mock

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from projects import CONFIG, Project, assert_same

import models
from config import load_yaml
from errors import UserError
from training import trainer
from training.trainer import Trainer
from utils import make_coord

# --- the same again --------------------------------------------------------------------------------------------------


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


# --- what a checkpoint holds -----------------------------------------------------------------------------------------


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


def test_an_image_that_is_predicted_exactly_counts_100_db(tmp_path):
    project = Project(tmp_path, {'epoch_max': 1})
    with mock.patch.object(trainer, 'eval_images', return_value=[mock.Mock(psnr=math.inf), mock.Mock(psnr=20.)]):
        project.train()
    assert project.checkpoint()['best'] == 60
    project.change({'epoch_max': 2})
    project.train('--resume')


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


@pytest.mark.parametrize('flags', [
    ['--name', '../evil'], ['--name', '/tmp/evil'], ['--name', '..'], ['--tag', '/../../a']])
def test_a_run_stays_in_the_folder_save(tmp_path, flags):
    with pytest.raises(UserError, match='which .* is not'):
        Project(tmp_path).train(*flags)


# --- keys set on the command line ------------------------------------------------------------------------------------


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


def test_an_item_of_a_list_is_set_by_its_number(tmp_path):
    path = tmp_path / 'a.yaml'
    path.write_text('all: &all [{name: l1}, {name: mse, weight: 2}]\nloss: *all')
    config = load_yaml(path, ['loss.1.weight=0.5', 'loss.0={name: charbonnier}'])
    assert config['loss'] == [{'name': 'charbonnier'}, {'name': 'mse', 'weight': 0.5}]
    assert config['all'] == [{'name': 'l1'}, {'name': 'mse', 'weight': 2}]
    for key in '2', '-1', 'weight':
        with pytest.raises(UserError, match=f'loss is a list, whose items are counted from 0 to 1, not {key}'):
            load_yaml(path, [f'loss.{key}=3'])


@pytest.mark.parametrize('assignment, message', [
    ('optimizer.args.rate=1', "optimizer adam: unknown key 'rate'"), ('epoch_max=many', 'epoch_max must be int'),
    ('epochs=3', "unknown key 'epochs', did you mean 'epoch_"),
    ('epoch_max', '--set takes KEY=VALUE'), ('=3', '--set takes KEY=VALUE'), ('a..b=3', '--set takes KEY=VALUE'),
    ('optimizer={', '--set optimizer={: is not valid YAML'), ('seed=2021-13-45', 'is not valid YAML'),
    ('epoch_max.args=3', '--set epoch_max.args=3: epoch_max holds no keys')])
def test_what_is_set_on_the_command_line_is_checked_like_a_config(tmp_path, assignment, message):
    with pytest.raises(UserError, match=message):
        Project(tmp_path).train('--set', assignment)
