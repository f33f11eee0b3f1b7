"""A file that is no checkpoint of the model ends the program in one line that says so; and the errors of test.py."""

import json
import os
import pickle

import pytest
import torch
import yaml
from processes import forked
from projects import CONFIG, changed, error, error_of_process

import models
import test
from errors import UserError
from models import checkpoint

ENCODER = {'name': 'edsr-baseline', 'args': {'n_resblocks': 1, 'no_upsampling': True}}


class Trap:
    def __reduce__(self):
        return os.mkdir, ('sprung',)


def write_bad_checkpoints(folder):
    """Files that are no checkpoints, or not of a model that can be made."""
    spec = changed(CONFIG, {})['model']
    weights = models.make(spec).state_dict()
    good = {'model': {**spec, 'sd': weights}, 'epoch': 1}
    torch.save(good, folder / 'good.pth')
    (folder / 'truncated.pth').write_bytes((folder / 'good.pth').read_bytes()[:-1000])
    (folder / 'empty.pth').write_bytes(b'')
    (folder / 'text.pth').write_text('epoch 1/1000, train: loss=0.1')
    (folder / 'trap.pth').write_bytes(pickle.dumps({'model': Trap()}))
    torch.save({'model': Trap()}, folder / 'torch-trap.pth')
    torch.save(weights, folder / 'weights.pth')
    torch.save([1, 2], folder / 'list.pth')
    for name, sd in {'missing': {k: v for k, v in weights.items() if k != 'imnet.weights.0'},
                     'unexpected': {**weights, 'imnet.weights.9': torch.zeros(1)},
                     'misshapen': {**weights, 'imnet.weights.0': torch.zeros(2, 3)}}.items():
        torch.save({'model': {**spec, 'sd': sd}, 'epoch': 1}, folder / f'{name}.pth')
    torch.save({'model': {**spec, 'name': 'b-liif', 'sd': weights}}, folder / 'unknown.pth')
    torch.save({'model': {**spec, 'sd': None}}, folder / 'no-weights.pth')
    torch.save({'model': {**spec, 'args': {'basis_spec': {}}, 'sd': weights}}, folder / 'published.pth')
    torch.save({'model': {**ENCODER, 'sd': models.make(ENCODER).state_dict()}}, folder / 'part.pth')


TEST_CONFIG = {'test_dataset': {
    'dataset': {'name': 'image-folder', 'args': {'root_path': 'photos', 'first_k': 1}},
    'wrapper': {'name': 'sr-implicit-downsampled', 'args': {'scale_min': 2}}, 'batch_size': 1, 'num_workers': 0}}

DAMAGED = 'is not a checkpoint, or is damaged (cut off?)'
NO_CHECKPOINT = "is not a checkpoint: it holds no 'model' with name, args and sd"
BAD = [('no-weights', NO_CHECKPOINT), ('published', "the spec of a published A-LIIF lacks 'pdn_spec'"),
       ('truncated', DAMAGED), ('empty', DAMAGED), ('text', DAMAGED), ('trap', DAMAGED),
       ('torch-trap', 'holds posix.mkdir, which is not loaded since it could run code'),
       ('weights', NO_CHECKPOINT), ('list', NO_CHECKPOINT), ('gone', 'cannot be read (No such file or directory)'),
       ('missing', 'the weights do not fit the model: imnet.weights.0 is missing'),
       ('unexpected', 'the weights do not fit the model: imnet.weights.9 is unexpected'),
       ('misshapen', 'the weights do not fit the model: imnet.weights.0 is (2, 3) instead of (2, 320)')]


@pytest.fixture
def testing(project):
    """A project with test.yaml and bad checkpoints."""
    (project.folder / 'test.yaml').write_text(yaml.safe_dump(TEST_CONFIG))
    write_bad_checkpoints(project.folder)
    return project


def error_of_test(project, *flags):
    """The error in which test.py on test.yaml ends."""
    return error(project, '--config', 'test.yaml', *flags, main=test.main)


@pytest.mark.parametrize('name, message', [
    *BAD, ('unknown', "unknown model 'b-liif', did you mean 'a-liif'?"),
    ('part', 'model edsr-baseline is only a part of a model: give a decoder with an encoder_spec')])
def test_a_bad_checkpoint_is_not_tested_and_runs_no_code(testing, name, message):
    assert error_of_test(testing, '--model', f'{name}.pth').startswith(f'{name}.pth: {message}')
    assert not (testing.folder / 'sprung').exists()


@pytest.mark.parametrize('key', ['resume', 'weights_from', 'encoder_from'])
@pytest.mark.parametrize('name, message', BAD)
def test_a_bad_checkpoint_is_not_trained_further_and_runs_no_code(testing, name, message, key):
    testing.change({key: f'{name}.pth'})
    assert error(testing).startswith(f'{name}.pth: {message}')
    assert not (testing.folder / 'sprung').exists()


def test_the_optimizer_of_a_checkpoint_is_not_replaced_by_another(project):
    project.change({'optimizer': {'name': 'sgd', 'args': {'lr': 1}}, 'epoch_max': 1})
    project.train()
    project.change({'resume': 'save/_tiny/epoch-last.pth'})
    assert error(project, '--name', 'new') == (
        "save/_tiny/epoch-last.pth: its optimizer is 'sgd', not 'adam': keep it, or start from the weights alone "
        '(weights_from)')


def test_a_truncated_checkpoint_is_not_resumed(project):
    project.train()
    last = project.run / 'epoch-last.pth'
    last.write_bytes(last.read_bytes()[:-1000])
    project.change({'epoch_max': 4})
    assert error_of_process(project, '--resume') == f'save/_tiny/epoch-last.pth: {DAMAGED}'


def test_a_checkpoint_cut_off_anywhere_is_told_to_be_damaged(testing, tmp_path):
    content = (tmp_path / 'good.pth').read_bytes()
    for length in {*range(0, len(content), 199), *range(len(content) - 100, len(content), 3)}:
        (tmp_path / 'cut.pth').write_bytes(content[:length])
        with pytest.raises(UserError, match='cut.pth: is not a checkpoint, or is damaged'):
            checkpoint.read(tmp_path / 'cut.pth')


# --- test.py ---------------------------------------------------------------------------------------


@pytest.mark.parametrize('changes, message', [
    ({'eval_size': 1}, "test.yaml: unknown key 'eval_size', did you mean 'eval_bsize'?"),
    ({'test_dataset': None}, "test.yaml: missing key 'test_dataset'"),
    ({'eval_bsize': 0}, 'test.yaml: eval_bsize must be at least 1, not 0'),
    ({'eval_type': 'div2k'}, "test.yaml: eval_type must be div2k-SCALE or benchmark-SCALE, not 'div2k'"),
    ({'data_norm': {'inp': {'sub': 0.5, 'div': [0.5]}}}, 'test.yaml: data_norm.inp: sub must be list, not 0.5'),
    ({'test_dataset.dataset.args.root_path': 'Set5'}, 'test.yaml: dataset image-folder: Set5: no such folder'),
])
def test_a_mistake_in_a_test_config_is_told_with_its_place(testing, changes, message):
    (testing.folder / 'test.yaml').write_text(yaml.safe_dump(changed({**TEST_CONFIG}, changes)))
    assert message in error_of_test(testing, '--model', 'good.pth')


def test_results_go_to_a_folder_that_is_made_on_the_way(testing):
    done = forked(testing.folder, 'test.py', '--config', 'test.yaml', '--model', 'good.pth', '--json', 'new/out.json')
    assert done.returncode == 0
    assert json.loads((testing.folder / 'new/out.json').read_text())['results'][0]['config'] == 'test.yaml'


def test_results_that_cannot_be_written_are_told_with_the_reason(testing):
    assert error_of_test(testing, '--model', 'good.pth', '--save-dir', 'text.pth') == (
        'text.pth/test: cannot be read or written (Not a directory)')
