"""scripts/export_weights.py: finished weights for pretrained/, and unfinished ones to continue a run from."""

import copy
import json
import shutil
import sys

import pytest
import torch
from projects import CONFIG, Project, assert_same, record
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import models
from errors import UserError
from scripts import export_weights


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    project = Project(tmp_path_factory.mktemp('trained'), {'ema': 0.9, 'epoch_max': 2})
    project.train()
    return project


@pytest.fixture
def project(trained, tmp_path, monkeypatch):
    """A copy of the run, in the current folder."""
    monkeypatch.chdir(shutil.copytree(trained.folder, tmp_path, dirs_exist_ok=True))
    project = copy.copy(trained)
    project.folder, project.run = tmp_path, tmp_path / 'save/_tiny'
    return project


def export(monkeypatch, *args):
    monkeypatch.setattr(sys, 'argv', ['export_weights.py', 'save/_tiny/epoch-last.pth', *args])
    export_weights.main()


def test_finished_weights_are_the_averaged_ones(project, monkeypatch):
    export(monkeypatch, 'weights/tiny.pth')
    model = models.load('weights/tiny.pth')
    for key, value in project.checkpoint()['ema'].items():
        assert torch.equal(model.state_dict()[key], value) and value.dtype == torch.float32
    assert 'optimizer' not in torch.load('weights/tiny.pth', weights_only=True)


def test_a_target_of_that_suffix_is_a_safetensors_file_that_other_programs_read(project, monkeypatch):
    export(monkeypatch, 'tiny.safetensors')
    with safe_open('tiny.safetensors', 'pt') as file:
        assert json.loads(file.metadata()['aliif'])['model'] == CONFIG['model']
        for key, value in project.checkpoint()['ema'].items():
            assert torch.equal(file.get_tensor(key), value)


def test_a_model_of_a_safetensors_file_is_that_of_the_pth_file(project, monkeypatch):
    for name in ('tiny.pth', 'tiny.safetensors'):
        export(monkeypatch, name)
    old, new = (models.load(name) for name in ('tiny.pth', 'tiny.safetensors'))
    assert_same(dict(new.state_dict()), dict(old.state_dict()))
    assert (new.data_norm, new.scale_max) == (old.data_norm, old.scale_max) == (CONFIG['data_norm'], 3)


def test_a_run_may_begin_with_the_weights_of_a_safetensors_file(project, monkeypatch):
    export(monkeypatch, 'tiny.safetensors')
    project.change({'epoch_max': 1, 'weights_from': 'tiny.safetensors'})
    first, *_ = record(project, lambda trainer: {k: v.clone() for k, v in trainer.model.state_dict().items()},
                       '--overwrite')
    assert_same(first, dict(models.load('tiny.safetensors').state_dict()))


@pytest.mark.parametrize('spec', ['', '[]', '{"model": 3}', '{"model": {"name": "a-liif"}, "ema": 5}', '{', 'null'])
def test_a_safetensors_file_with_a_damaged_spec_is_refused_in_one_line(tmp_path, spec):
    save_file({'a': torch.zeros(3)}, tmp_path / 'a.safetensors', {'aliif': spec})
    with pytest.raises(UserError) as error:
        models.load(tmp_path / 'a.safetensors')
    assert str(error.value).startswith(f'{tmp_path}/a.safetensors: ') and len(str(error.value).splitlines()) == 1


def test_weights_that_are_not_finite_are_refused_in_safetensors_files_too(project, monkeypatch):
    export(monkeypatch, 'tiny.safetensors')
    state = load_file('tiny.safetensors')
    state['imnet.biases.0'][0] = torch.nan
    with safe_open('tiny.safetensors', 'pt') as file:
        save_file(state, 'bad.safetensors', file.metadata())
    with pytest.raises(UserError, match='imnet.biases.0 has values that are not finite'):
        models.load('bad.safetensors')


def test_unfinished_weights_do_not_fit_a_safetensors_file(project, monkeypatch):
    with pytest.raises(UserError, match='--unfinished writes two sets of weights, but safetensors holds one'):
        export(monkeypatch, 'tiny.safetensors', '--unfinished')


def test_counters_stay_whole_numbers():
    weights = torch.nn.BatchNorm2d(2).state_dict()
    for dtype in torch.half, torch.float:
        stored = export_weights.stored_as(dtype, weights)
        assert stored['num_batches_tracked'].dtype == torch.int64 and stored['running_var'].dtype == dtype


def test_a_run_is_continued_from_unfinished_weights_and_their_average(project, monkeypatch):
    export(monkeypatch, 'unfinished.pth', '--unfinished')
    before = project.checkpoint()
    project.change({'ema': 0.9, 'epoch_max': 3, 'resume': 'unfinished.pth'})

    def weights(trainer):
        return trainer.epoch, dict(trainer.model.state_dict()), dict(trainer.ema.state_dict())

    epoch, latest, average = record(project, lambda trainer: [
        part if isinstance(part, int) else {key: value.clone() for key, value in part.items()}
        for part in weights(trainer)], '--overwrite')[0]
    assert epoch == 2
    for found, expected in ((latest, before['model']['sd']), (average, before['ema'])):
        for key, value in expected.items():
            torch.testing.assert_close(found[key], value, rtol=1e-3, atol=1e-6)
