"""Fine-tuning: what the starting weights are worth is told first, and at the end what was gained over them."""

import re
import signal
from unittest import mock

import pytest
import torch
from projects import Project, assert_same, stop

from models.registry import with_defaults
from training import trainer
from training.run import differences

TUNE = {'weights_from': 'start.pth', 'epoch_max': 2}
WORSE = {**TUNE, 'optimizer.args.lr': 0.3}  # far too large


@pytest.fixture(scope='module')
def start(tmp_path_factory):
    """A run to start from, of one epoch."""
    project = Project(tmp_path_factory.mktemp('start'), {'epoch_max': 1})
    project.train()
    return project


@pytest.fixture
def tuning(tmp_path, start):
    """Makes a project that goes on from the weights of `start`, with changes to its config."""
    def make(changes):
        torch.save(start.checkpoint(), tmp_path / 'start.pth')
        return Project(tmp_path, changes)
    return make


def test_the_starting_weights_are_validated_as_epoch_0(tuning, start, capsys):
    project, psnr = tuning(TUNE), start.events()['psnr'][1]
    project.train()
    line = f'epoch 0, the weights of start.pth, val: psnr={psnr:.4f}'
    assert project.log()[1] == line and line in capsys.readouterr().out.splitlines()
    events = project.events()
    assert events['psnr'][0] == psnr and sorted(events['psnr']) == [0, 1, 2]
    previews = [tag for tag in events if tag.startswith('preview/')]
    assert previews and all(sorted(events[tag]) == [0, 1, 2] for tag in previews)


def test_the_last_line_of_the_log_tells_the_gain(tuning):
    project = tuning(TUNE)
    project.train()
    psnr = project.events()['psnr']
    gain, = re.fullmatch(r'fine-tuning gained ([\d.]+) dB on the validation images: .*', project.log()[-1]).groups()
    assert float(gain) == pytest.approx(max(psnr.values()) - psnr[0], abs=1e-4) and float(gain) > 0
    assert project.checkpoint('best')['epoch'] == max(psnr, key=psnr.get)


def test_weights_that_no_epoch_improves_on_are_the_best_and_that_is_told(tuning, start):
    project = tuning(WORSE)
    project.train()
    assert project.log()[-1] == (
        f'fine-tuning gained nothing on the validation images: no epoch reached more than the '
        f'{start.events()["psnr"][1]:.4f} dB of start.pth, so epoch-best.pth holds the weights of that file')
    best = project.checkpoint('best')
    assert best['epoch'] == 0
    assert_same(dict(best['model']['sd']), dict(start.checkpoint()['model']['sd']))
    assert project.checkpoint('last')['epoch'] == 2


@pytest.mark.parametrize('changes', [TUNE, WORSE])
def test_a_run_that_is_resumed_does_not_validate_them_again(tmp_path, tuning, changes):
    whole = tuning(changes)
    whole.train('--tag', 'whole')
    whole.run = tmp_path / 'save/_tiny_whole'
    expected, told = whole.checkpoints(), whole.log()[-1]
    whole.run = tmp_path / 'save/_tiny'
    stop(whole, 2)
    whole.train('--resume')
    assert_same(whole.checkpoints(), expected)
    assert sum('epoch 0' in line for line in whole.log()) == 1 and whole.log()[-1] == told


def test_a_run_stopped_while_they_are_validated_validates_them_when_it_is_resumed(tuning):
    project, score = tuning(TUNE), trainer.eval_images

    def images(*args, **kwargs):
        for image in score(*args, **kwargs):
            signal.raise_signal(signal.SIGTERM)
            yield image

    with mock.patch.object(trainer, 'eval_images', images), pytest.raises(SystemExit):
        project.train()
    assert not any('epoch 0, the' in line for line in project.log())
    project.train('--resume')
    assert sum('epoch 0, the weights of start.pth' in line for line in project.log()) == 1


@pytest.mark.parametrize('start_key', ['weights_from', 'resume'])
def test_weights_of_a_model_that_computes_something_else_are_told_though_they_fit(tuning, capsys, start_key):
    tuning({start_key: 'start.pth', 'epoch_max': 2, 'model.args.residual': 'bilinear',
            'model.args.expansion_spec.args.norm': 'softmax', 'model.args.imnet_spec.args.init': 'layer'}).train()
    notes = [line for line in capsys.readouterr().out.splitlines() if line.startswith('note: ')]
    assert [re.match(r"note: start.pth: its model's (\S+) differs from the config's", note)[1] for note in notes] == [
        'args.expansion_spec.args.norm', 'args.residual']


def test_a_default_that_the_config_spells_out_is_no_difference():
    encoder = {'name': 'swinir', 'args': {'depths': [6] * 6, 'num_heads': [6] * 6}}
    spelt, default = ({'name': 'liif', 'args': {'encoder_spec': spec}} for spec in (encoder, {'name': 'swinir'}))
    assert not differences(with_defaults(spelt), with_defaults(default))


def test_a_run_may_continue_a_model_under_a_name_that_is_not_known_here(tuning, capsys):
    project = tuning({'resume': 'start.pth', 'epoch_max': 2})
    state = torch.load(project.folder / 'start.pth')
    state['model']['name'] = 'my-liif'
    torch.save(state, project.folder / 'start.pth')
    project.train()
    told = "note: start.pth: its model is 'my-liif', not 'a-liif'; the weights fit all the same"
    assert told in capsys.readouterr().out.splitlines()


@pytest.mark.parametrize('changes', [{**TUNE, 'epoch_val': None}, {'encoder_from': 'start.pth', 'epoch_max': 2}, {}])
def test_nothing_is_told_without_validation_or_without_weights_to_start_from(tuning, changes):
    project = tuning(changes)
    project.train()
    assert not any('epoch 0' in line or 'fine-tuning' in line for line in project.log())
    assert 'start_psnr' not in project.checkpoint()
