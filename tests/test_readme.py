"""Every command and line of Python that the README shows works; a new one needs its place here."""

import sys
from pathlib import Path

import numpy as np
import pytest
import readme
import torch
import yaml
from PIL import Image
from specs import a_liif
from torch.distributed.run import get_args_parser
from training import forked

import models
import train_liif
from config import load_yaml
from models import load_pretrained, upscale_pil
from models.run import read_config

ROOT = Path(__file__).resolve().parents[1]
COMMANDS = [command for word in ('python ', 'bash ', 'torchrun ', 'pip ') for command in readme.commands(word)]
RUN_ELSEWHERE = {'scripts/test-div2k.sh': 'test_scripts', 'scripts/test-benchmark.sh': 'test_scripts',
                 'scripts/prepare_data.py': 'test_prepare_data', 'scripts/export_onnx.py': 'test_onnx',
                 'scripts/prepare_photos2k.py': 'test_prepare_photos2k', 'web_demo.py': 'test_web_demo',
                 'examples.own_model': 'test_examples',
                 'scripts/benchmark.py': 'test_benchmark'}
BY_HAND = 'scripts/make_venv.sh', 'scripts/quickstart.sh', 'scripts/run_tests.sh'  # CI runs the first and the last


def of(script):
    return pytest.mark.parametrize('command', [
        c for c in COMMANDS if script in c and 'examples.own_model' not in c], ids=' '.join)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working directory with photo.jpg and photos/, one image of Set5, and a checkpoint where training puts it."""
    small = Image.fromarray(np.random.default_rng(0).integers(0, 256, (4, 5, 3), np.uint8)).resize((36, 27))
    for path in ('photo.jpg', 'photos/1.png', 'load/benchmark/Set5/HR/1.png'):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        small.save(tmp_path / path)
    run = tmp_path / 'save/_train_edsr-baseline-A-liif'
    run.mkdir(parents=True)
    torch.save({'model': {**a_liif(), 'sd': models.make(a_liif()).state_dict()}}, run / 'epoch-last.pth')
    (tmp_path / 'configs').symlink_to(ROOT / 'configs')
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize('command', COMMANDS, ids=' '.join)
def test_every_command_has_a_test_that_runs_it(command):
    here = ('demo.py', 'test.py', 'train_liif.py')
    elsewhere = [test for word, test in RUN_ELSEWHERE.items() if word in command]
    assert any(word in command for word in here + BY_HAND) or elsewhere or command[:3] == ['pip', 'install', '-r']
    for test in elsewhere:
        text = (ROOT / f'tests/{test}.py').read_text()
        script, = (word for word, name in RUN_ELSEWHERE.items() if name == test and word in command)
        assert Path(script).stem in text or script in text
    for path in command:
        if path.startswith(('scripts/', 'configs/', 'examples/', 'requirements')):
            assert (ROOT / path).exists()


@of('demo.py')
def test_demo_commands(folder, command):
    size = {'2160,3840': '216,384'}  # a hundredth of the pixels
    assert forked(folder, *(size.get(word, word) for word in command[1:]), '--gpu', 'cpu').returncode == 0
    written = {str(path.relative_to(folder)) for path in folder.rglob('*big*') if path.is_file()}
    expected = {'--scale': {'big.png'}, '--compare': {'big.png', 'big-compare.png', 'big-weights.png'}}
    if 'photos/' in command:
        assert Image.open('big/1.png').size == (72, 54)
    else:
        assert written == expected['--compare' if '--compare' in command else '--scale']


@of('test.py')
def test_test_commands(folder, command):
    done = forked(folder, *command[1:])
    assert done.returncode == 0 and 'result: ' in done.stdout


@of('train_liif.py')
def test_training_commands(command, monkeypatch):
    if command[0] == 'torchrun':
        parsed = get_args_parser().parse_args(command[1:])
        command = ['python', parsed.training_script, *parsed.training_script_args]
    monkeypatch.setattr(sys, 'argv', command[1:])
    args = train_liif.parse_args()
    assert read_config(ROOT / args.config).epoch_max == (10 if 'finetune' in args.config else 1000)


def test_the_config_that_is_explained_is_the_shipped_one():
    block, = readme.blocks('train_dataset:')
    assert yaml.safe_load(block) == load_yaml(ROOT / 'configs/train-div2k/train_edsr-baseline-A-liif.yaml')


def test_lines_for_a_notebook(folder):
    code, = readme.blocks('load_pretrained(')
    lines = {}
    exec(code, lines)
    expected = upscale_pil(load_pretrained('edsr-baseline-A-liif-pixel'), Image.open('photo.jpg'), size=(100, 133))
    assert np.array_equal(np.asarray(lines['big']), np.asarray(expected))
