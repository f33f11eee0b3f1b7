"""scripts/profile_model.py: its counts against arithmetic by hand, and the script as a whole."""

import json
import sys
from pathlib import Path

import pytest
import yaml
from paths import ROOT
from projects import CONFIG, Project, changed
from specs import a_liif, fixed_scale, make_checkpoint

import models
from config import load_yaml
from scripts import benchmark_training, profile_model

H, W, SCALE = 5, 7, 3
PIXELS, QUERIES = H * W, H * W * SCALE ** 2


@pytest.fixture(scope='module')
def shipped():
    spec = load_yaml(ROOT / 'configs/train-div2k/train_edsr-baseline-A-liif.yaml')['model']
    return models.make(spec).eval()


def test_parameters_are_counted_by_part(shipped):
    conv = 9 * 64 * 64 + 64
    expansion = 580 * 256 + 256 + 3 * (256 * 256 + 256) + 256 * 10 + 10
    mixture = 10 * (580 * 16 + 16 + 3 * (16 * 16 + 16) + 16 * 3 + 3)
    encoder = 9 * 3 * 64 + 64 + 33 * conv
    assert profile_model.parameters(shipped) == {
        'encoder': encoder, 'imnet': mixture, 'expansion': expansion, 'together': encoder + mixture + expansion}


def test_multiply_adds_are_those_of_the_layers(shipped):
    costs = profile_model.profile(shipped, (H, W), SCALE)
    encoder = 9 * 3 * 64 + 33 * 9 * 64 * 64
    hoisted = 576 * (10 * 16 + 256)  # the feature's part of both first layers, once a latent pixel
    first = 4 * (10 * 16 + 256)  # the coordinates' and the cell's part, for each query and code
    expansion = 3 * 256 * 256 + 256 * 10
    mixture = 3 * 16 * 10 * 16 + 16 * 10 * 3
    mixing = 4 * 10 * 16 + 10 * 3
    assert costs['encoding'][0] == PIXELS * encoder
    assert costs['decoding'][0] == PIXELS * hoisted + 4 * QUERIES * (first + expansion + mixture + mixing)
    assert costs['whole picture'][0] == costs['encoding'][0] + costs['decoding'][0]


def test_an_upsampling_encoder_is_counted_with_its_tail():
    model = models.make(fixed_scale(imnet_spec={'name': 'mlp', 'args': {'out_dim': 3, 'hidden_list': [5]}})).eval()
    conv, tail = 9 * 4 * 4, 9 * 4 * 16 + 4 * 9 * 4 * 3  # the last convolution sees four times the pixels
    costs = profile_model.profile(model, (H, W), 2)
    assert costs['encoding'][0] == PIXELS * (9 * 3 * 4 + 3 * conv + tail)
    assert costs['decoding'][0] == 4 * PIXELS * (27 * 5 + 4 * (4 * 5 + 5 * 3))  # its codes are the target's pixels


def test_the_model_has_its_encoder_afterwards(shipped):
    encoder = shipped.encoder
    profile_model.calls(shipped, (H, W), SCALE)['decoding']()
    assert shipped.encoder is encoder


@pytest.fixture
def script(tmp_path, monkeypatch, capsys):
    """Calls the script in a project with photos: the lines that it prints."""
    project = Project(tmp_path)
    make_checkpoint(tmp_path / 'small.pth', a_liif())
    monkeypatch.chdir(project.folder)
    monkeypatch.setattr(benchmark_training, 'SECONDS', 0.05)

    def call(model, *args):
        monkeypatch.setattr(sys, 'argv', ['', model, '--gpu', 'cpu', '--size', '8x6', *args])
        profile_model.main()
        return capsys.readouterr()
    return call


def test_a_checkpoint_has_a_row_for_each_step(script):
    lines = script('small.pth', '--scale', '2.5').out.splitlines()
    assert 'small.pth, 8x6 at x2.5' in lines  # width x height
    rows = [line.strip('| ').split(' | ') for line in lines[-3:]]
    assert [row[0] for row in rows] == ['encoding', 'decoding', 'whole picture']
    assert all(float(row[1]) > 0 and float(row[2]) > 0 for row in rows)


def test_of_a_config_the_training_is_timed(script):
    line = script('tiny.yaml').out.splitlines()[-1]
    rate, days = (float(part.split()[0]) for part in line.removeprefix('training: ').split(', '))
    assert days == pytest.approx(3 * 3 / rate / 86400, rel=0.02)  # three epochs of three iterations


def test_the_model_is_for_the_channels_of_the_data(script):
    def count(name):
        line, = (line for line in script(name).out.splitlines() if line.startswith('parameters: '))
        return int(line.removeprefix('parameters: encoder ').split(', ')[0].replace(',', ''))

    Path('grey.yaml').write_text(yaml.safe_dump(changed(CONFIG, {'train_dataset.dataset.args.channels': 'grey'})))
    weights = 2 * 9 * CONFIG['model']['args']['encoder_spec']['args']['n_feats']  # of two colours in the first layer
    assert count('tiny.yaml') - count('grey.yaml') == weights


def test_without_the_photos_the_days_are_unknown(script):
    config = changed(CONFIG, {'train_dataset.dataset.args.root_path': 'nowhere'})
    Path('away.yaml').write_text(yaml.safe_dump(config))
    printed = script('away.yaml')
    assert 'days' not in printed.out and 'iterations/s' in printed.out
    assert printed.err == 'the length of the training is not known: nowhere is not there\n'


def test_a_wrong_size_is_told(script, capsys):
    with pytest.raises(SystemExit):
        script('small.pth', '--size', '339')
    assert 'must be WIDTHxHEIGHT, e.g. 510x339, not 339' in capsys.readouterr().err


def test_the_speed_of_training_is_that_of_the_config_and_of_set(script, monkeypatch, capsys):
    measured = []
    monkeypatch.setattr(benchmark_training, 'training_rate', lambda config, *args: measured.append(config) or 1.)
    Path('graphs.yaml').write_text(yaml.safe_dump({**CONFIG, 'cuda_graphs': True}))
    for words in [], ['--set', 'cuda_graphs=false', '--json', 'new/speed.json']:
        monkeypatch.setattr(sys, 'argv', ['', 'graphs.yaml', '--gpu', 'cpu', '--batch-sizes', '2', *words])
        benchmark_training.main()
    assert [config.cuda_graphs for config in measured] == [True, False]
    assert json.loads(Path('new/speed.json').read_text()).keys() == {'batch 2', 'loader'}
