"""A run goes on from the checkpoint of another, or begins with its weights: resume, weights_from, encoder_from."""

import copy
import signal
from unittest import mock

import pytest
import torch
from paths import SHARED
from projects import CONFIG, Project, assert_same, before_step, error

import models
from errors import UserError
from training.trainer import Trainer

GOLDEN = SHARED / 'golden'



def test_the_key_resume_goes_on_from_another_runs_checkpoint(project, undisturbed):
    project.change({'epoch_max': 1})
    project.train()
    project.run.rename(project.folder / 'other')
    project.change({'resume': 'other/epoch-last.pth'})
    project.train()
    assert_same(project.checkpoint(), undisturbed({})['epoch-last.pth'])


def test_the_key_resume_begins_the_epoch_that_another_run_was_stopped_in(project, undisturbed):
    with before_step(5, lambda trainer: trainer.interrupt(signal.SIGTERM, None)), pytest.raises(SystemExit):
        project.train()
    project.run.rename(project.folder / 'other')
    project.change({'resume': 'other/epoch-last.pth', 'train_dataset.batch_size': 1, 'epoch_max': 2})
    steps = []
    with mock.patch.object(Trainer, 'step', lambda trainer, batch, *sizes: (
            steps.append(trainer.iteration), torch.tensor([0.5]))[1]):
        project.train()
    assert steps == [0, 1, 2, 3, 4]


def test_the_key_resume_keeps_the_configs_own_arguments_of_the_optimizer(project):
    project.change({'epoch_max': 1, 'optimizer.args.weight_decay': 0.1})
    project.train()
    project.run.rename(project.folder / 'other')
    project.change({'resume': 'other/epoch-last.pth', 'epoch_max': 2, 'optimizer.args.betas': [0.5, 0.6]})
    project.train()
    group, = project.checkpoint()['optimizer']['sd']['param_groups']
    assert (group['weight_decay'], *group['betas']) == (0, 0.5, 0.6)


def test_the_key_resume_begins_the_search_for_the_best_epoch_anew(project):
    with mock.patch.object(Trainer, 'validate', side_effect=[37., 30.]):
        project.change({'epoch_max': 1})
        project.train()
        project.run.rename(project.folder / 'other')
        project.change({'resume': 'other/epoch-last.pth', 'epoch_max': 2})
        project.train()
    assert (project.checkpoint('best')['epoch'], project.checkpoint('best')['best']) == (2, 30)


def test_the_key_resume_takes_model_and_epoch_of_an_authors_checkpoint_and_says_so(tmp_path, undisturbed, capsys):
    other = undisturbed({'epoch_max': 1})['epoch-last.pth']
    project = Project(tmp_path, {'resume': 'authors.pth', 'ema': 0.5})
    torch.save({'model': other['model'], 'optimizer': {'name': 'adam', 'args': {'lr': 1}, 'sd': {}}, 'epoch': 2},
               tmp_path / 'authors.pth')
    started = []
    with before_step(1, lambda trainer: started.extend([
            trainer.epoch, *(copy.deepcopy(net.state_dict()) for net in (trainer.model, trainer.ema))])):
        project.train()
    assert_same(started, [2, other['model']['sd'], other['model']['sd']])
    assert 'this checkpoint has no optimizer state to continue from' in capsys.readouterr().out
    assert project.checkpoint()['epoch'] == 3


@pytest.mark.skipif(not GOLDEN.is_dir(), reason=f'{GOLDEN} is absent')
def test_training_goes_on_from_the_authors_own_checkpoint(tmp_path):
    spec = torch.load(GOLDEN / 'edsr4-A-liif.pth', weights_only=True)['model']
    expansion, imnet = ({'hidden_list': spec['args'][key]['args']['hidden_list']} for key in ('pdn_spec', 'imnet_spec'))
    project = Project(tmp_path, {
        'model.args.encoder_spec': spec['args']['encoder_spec'],
        'model.args.expansion_spec.args': {'out_dim': 10, **expansion},
        'model.args.imnet_spec.args': {'K': 10, 'out_dim': 3, **imnet},
        'resume': str(GOLDEN / 'edsr4-A-liif.pth'), 'epoch_max': 2, 'epoch_val': None, 'optimizer.args.lr': 1e-5})
    project.train()
    assert project.checkpoint()['epoch'] == 2
    for name in ('0', '4'):
        torch.testing.assert_close(project.checkpoint()['model']['sd'][f'imnet.weights.{name}'],
                                   spec['sd'][f'basis.w{name}'], rtol=0, atol=1e-4)


def test_the_key_weights_from_begins_a_new_run_with_the_weights_of_another(tmp_path, undisturbed):
    other = undisturbed({'epoch_max': 1, 'ema': 0.5})['epoch-last.pth']
    changes = {'ema': 0.9, 'weights_from': 'other.pth', 'epoch_max': 1, 'optimizer': {'name': 'sgd', 'args': {'lr': 1}}}
    project = Project(tmp_path, changes)
    torch.save(other, tmp_path / 'other.pth')
    started = []
    with before_step(1, lambda trainer: started.extend(
            dict(copy.deepcopy(net.state_dict())) for net in (trainer.model, trainer.ema))):
        project.train()
    assert_same(started, [dict(other['ema'])] * 2)
    assert project.log()[0].startswith('save/_tiny: starts with epoch 1/1, iteration 1;')
    assert project.checkpoint()['epoch'] == 1


@pytest.mark.parametrize('changes', [
    {'weights_from': 'other.pth', 'data_norm': None}, {'resume': 'other.pth', 'data_norm.gt': None},
    {'encoder_from': 'other.pth', 'data_norm.inp': {'sub': [0.4], 'div': [0.5]}}])
def test_weights_that_were_trained_with_another_normalisation_are_an_error(project, undisturbed, changes):
    torch.save(undisturbed({'epoch_max': 1})['epoch-last.pth'], project.folder / 'other.pth')
    project.change({'epoch_max': 2, **changes})
    with pytest.raises(UserError, match='other.pth: its data_norm.(inp|gt) is .*: they must be the same'):
        project.train()


@pytest.mark.parametrize('changes', [
    {'weights_from': 'other.pth', 'data_norm.inp': {'sub': [0.5, 0.5, 0.5], 'div': [0.5]}},
    {'encoder_from': 'other.pth', 'data_norm.gt': None}])
def test_normalisations_that_do_the_same_to_the_weights_are_no_error(project, undisturbed, changes):
    torch.save(undisturbed({'epoch_max': 1})['epoch-last.pth'], project.folder / 'other.pth')
    project.change({'epoch_max': 1, **changes})
    project.train()
    assert project.checkpoint()['epoch'] == 1


def test_the_key_encoder_from_begins_with_the_encoder_of_a_model_with_another_decoder(tmp_path, undisturbed):
    other = undisturbed({'epoch_max': 1})['epoch-last.pth']['model']
    liif = {'name': 'liif', 'args': {'encoder_spec': CONFIG['model']['args']['encoder_spec'],
                                     'imnet_spec': {'name': 'mlp', 'args': {'out_dim': 3, 'hidden_list': [8]}}}}
    project = Project(tmp_path, {'model': liif, 'ema': 0.5, 'encoder_from': 'other.pth', 'epoch_max': 1})
    torch.save({'model': other}, tmp_path / 'other.pth')
    started = []
    with before_step(1, lambda trainer: started.extend(
            dict(copy.deepcopy(net.encoder.state_dict())) for net in (trainer.model, trainer.ema))):
        project.train()
    encoder = {k.removeprefix('encoder.'): v for k, v in other['sd'].items() if k.startswith('encoder.')}
    assert_same(started, [encoder, encoder])
    (tmp_path / 'other.pth').unlink()
    project.change({'epoch_max': 2, 'encoder_from': 'other.pth', 'model': liif, 'ema': 0.5})
    project.train('--resume')
    assert project.checkpoint()['epoch'] == 2


@pytest.fixture
def trained(project, undisturbed, monkeypatch):
    """A checkpoint that is called 'trained' in pretrained/."""
    checkpoint = undisturbed({'epoch_max': 1})['epoch-last.pth']
    (project.folder / 'pretrained').mkdir()
    torch.save(checkpoint, project.folder / 'pretrained/trained.pth')
    monkeypatch.setattr(models.pretrained, 'FOLDER', project.folder / 'pretrained')
    return checkpoint


@pytest.mark.parametrize('key, part', [('weights_from', ''), ('encoder_from', 'encoder.')])
def test_weights_to_begin_with_may_be_a_name_in_pretrained(project, trained, key, part):
    project.change({key: 'trained', 'epoch_max': 1})
    started = {}
    with before_step(1, lambda trainer: started.update(copy.deepcopy(trainer.model.state_dict()))):
        project.train()
    found, expected = ({name: tensor for name, tensor in weights.items() if name.startswith(part)}
                       for weights in (started, trained['model']['sd']))
    assert_same(found, expected)


@pytest.mark.parametrize('key', ['weights_from', 'encoder_from'])
def test_of_an_unknown_name_the_known_ones_are_told(project, trained, key):
    project.change({key: 'trainet'})
    assert error(project) == f"{key}: unknown pretrained model 'trainet', did you mean 'trained'? (known: trained)"
