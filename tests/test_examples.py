"""examples/own_model.py: models and datasets from a user's file are trained, evaluated and used like the others."""

import re
import sys

import pytest
import readme
import torch
import yaml
from paths import ROOT
from processes import forked
from projects import changed, write_photos

from cli import import_module
from config import Registry, check_args, load_yaml
from errors import UserError

SHORT = {'train_dataset.dataset.args': {'count': 24}, 'val_dataset.dataset.args.count': 4, 'epoch_max': 1}
CHECKPOINT = 'save/_own_model/epoch-last.pth'


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """A working directory with the example's config, shortened, the test configs, and Set5's folder of images."""
    folder = tmp_path_factory.mktemp('own')
    (folder / 'examples').mkdir()
    config = changed(load_yaml(ROOT / 'examples/own_model.yaml'), SHORT)
    (folder / 'examples/own_model.yaml').write_text(yaml.safe_dump(config))
    (folder / 'configs').symlink_to(ROOT / 'configs')
    write_photos(folder / 'load/benchmark/Set5/HR', 2)
    return folder


def run(folder, *command):
    """What a command of the README gives, called in `folder`."""
    assert command[0] == 'python'
    result = forked(folder, *command[1:])
    assert result.returncode == 0, result.stderr
    return result


@pytest.fixture(scope='module')
def trained(folder):
    """What the README's command for training gives, after which the folder holds the checkpoint."""
    command, = (command for command in readme.commands('own_model') if 'train_liif.py' in command)
    return run(folder, *command)


def test_own_models_are_trained_on_an_own_dataset(folder, trained):
    losses = r'loss=0\.\d+ loss/l1=0\.\d+ loss/own-loss=0\.\d+'
    assert re.search(rf'epoch 1/1, train: {losses}, val: psnr=\d\d\.\d+', trained.stdout)
    model = torch.load(folder / CHECKPOINT, weights_only=True)['model']
    assert model['name'] == 'own-decoder' and model['args']['encoder_spec']['name'] == 'own-encoder'


def test_an_own_model_is_evaluated(folder, trained):
    command, = (command for command in readme.commands('own_model') if 'test.py' in command)
    assert re.search(r'result: \d\d\.\d{4}\nSSIM: 0\.\d{4}\nOWN-METRIC: 0\.\d{4}\n', run(folder, *command).stdout)


def test_an_own_model_upscales_pictures(folder, trained):
    result = run(folder, 'python', 'demo.py', '--input', 'load/benchmark/Set5/HR/0.png', '--scale', '2.5', '--output',
                 'big.png', '--model', CHECKPOINT, '--import', 'examples.own_model')
    assert 'big.png: 125x100' in result.stdout + result.stderr


def test_without_the_import_an_own_model_is_unknown(folder, trained):
    result = forked(folder, 'test.py', '--config', 'configs/test/test-set5-2.yaml', '--model', CHECKPOINT)
    assert result.returncode == 2
    assert result.stderr.startswith(f"error: {CHECKPOINT}: unknown model 'own-decoder'")
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize('name', ['examples.own_modle', 'nothing', 'nothing.at.all'])
def test_a_module_that_is_not_there_is_the_users_error(name):
    with pytest.raises(UserError, match=f"--import: there is no module '{name}'"):
        import_module(name)


@pytest.mark.parametrize('mistake, told', [
    ('import nothing', "ModuleNotFoundError: No module named 'nothing'"), ('int("a")', 'ValueError: invalid literal')])
def test_what_is_wrong_inside_a_module_keeps_its_traceback(tmp_path, monkeypatch, mistake, told):
    (tmp_path / 'wrong.py').write_text(mistake)
    monkeypatch.setattr(sys, 'path', [str(tmp_path), *sys.path])
    result = forked(tmp_path, 'test.py', '--import', 'wrong', '--config', 'a.yaml', '--model', 'bicubic')
    assert result.returncode == 1
    assert 'wrong.py", line 1' in result.stderr and told in result.stderr


def test_what_is_wrong_inside_a_class_keeps_its_traceback():
    class Wrong:
        def __init__(self, width: int):
            int('a')

    registry = Registry('model')
    registry.register('wrong')(Wrong)
    with pytest.raises(ValueError, match='invalid literal'):
        registry.make({'name': 'wrong', 'args': {'width': 1}})


def test_type_hints_that_stay_text_are_checked_too():
    names = {}
    exec('from __future__ import annotations\ndef build(width: int): pass', names)
    assert check_args(names['build'], {'width': 3}) == {'width': 3}
    with pytest.raises(UserError, match="width must be int, not 'wide'"):
        check_args(names['build'], {'width': 'wide'})


@pytest.mark.parametrize('number', [2 ** 53 + 1, 2 ** 63 - 1])
def test_large_whole_numbers_are_not_rounded(number):
    def build(seed: int | None):
        raise AssertionError

    assert check_args(build, {'seed': number}) == {'seed': number}


@pytest.mark.parametrize('name', ['./examples/own_model.py', 'examples/own_model', '.examples', '', 'a..b'])
def test_what_is_no_name_of_a_module_is_the_users_error(name):
    with pytest.raises(UserError, match=f"--import: '{re.escape(name)}' is not the name of a module"):
        import_module(name)


def test_a_name_that_is_taken_is_an_error_that_says_by_whom():
    registry = Registry('model')
    registry.register('a-model')(torch.nn.Linear)
    registry.register('a-model')(torch.nn.Linear)  # its module once more
    with pytest.raises(UserError, match="model 'a-model' is registered already, by torch.nn.modules.linear"):
        registry.register('a-model')(torch.nn.Conv2d)


def test_a_class_of_ones_own_does_not_take_the_place_of_one_of_the_same_name():
    registry = Registry('model')
    registry.register('a-model')(torch.nn.Linear)
    with pytest.raises(UserError, match="model 'a-model' is registered already"):
        registry.register('a-model')(type('Linear', (), {}))
