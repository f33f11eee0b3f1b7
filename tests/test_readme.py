"""Every command and line of Python that README.md and docs/ show works; a new one needs its place here."""

import ast
import importlib
import json
import re
import sys
from pathlib import Path

import imageio.v3 as imageio
import numpy as np
import pytest
import readme
import torch
import torch.nn.functional as F
import yaml
from paths import ROOT
from photos import smooth
from PIL import Image
from processes import forked
from specs import a_liif, make_checkpoint
from torch.distributed.run import get_args_parser

import models
import train_liif
from config import load_yaml
from models import load_pretrained, upscale_pil
from training.run import read_config
from utils import make_coord

COMMANDS = [command for word in ('python ', 'bash ', 'torchrun ', 'pip ') for command in readme.commands(word)]
RUN_ELSEWHERE = {'scripts/test-div2k.sh': 'test_scripts', 'scripts/test-benchmark.sh': 'test_scripts',
                 'scripts/prepare_data.py': 'test_prepare_data', 'scripts/export_onnx.py': 'test_onnx',
                 'scripts/prepare_photos2k.py': 'test_prepare_photos2k', 'web_demo.py': 'web_server',
                 'examples.own_model': 'test_examples', 'scripts/slurm.sh': 'test_slurm',
                 'scripts/shrink_photos.py': 'test_shrink_photos', 'scripts/benchmark.py': 'test_benchmark',
                 'scripts/profile_model.py': 'test_profile_model', 'scripts/protocols.py': 'test_protocols',
                 'scripts/quickstart.sh': 'test_quickstart'}
BY_HAND = '-m venv', 'pip install', 'scripts/run_tests.sh', 'scripts/check_gpu.py'


def of(script):
    return pytest.mark.parametrize('command', [
        c for c in COMMANDS if script in c and 'examples.own_model' not in c], ids=' '.join)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with the pictures that commands name, one image of Set5, and checkpoints where training puts them."""
    for path in ('photo.jpg', 'photos/1.png', 'examples/lighthouse.png', 'load/benchmark/Set5/HR/1.png'):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        smooth((36, 27)).save(tmp_path / path)
    for name in ('_train_edsr-baseline-A-liif', '_finetune'):
        (tmp_path / 'save' / name).mkdir(parents=True)
        make_checkpoint(tmp_path / 'save' / name / ('epoch-best.pth' if 'fine' in name else 'epoch-last.pth'), a_liif())
    (tmp_path / 'configs').symlink_to(ROOT / 'configs')
    monkeypatch.chdir(tmp_path)
    return tmp_path


def used(test):
    """What the code of a file of tests imports, and its strings other than docstrings."""
    nodes = [*ast.walk(ast.parse((ROOT / f'tests/{test}.py').read_text()))]
    docstrings = [node.value for node in nodes if isinstance(node, ast.Expr)]
    return [node.name if isinstance(node, ast.alias) else node.value for node in nodes if node not in docstrings
            and (isinstance(node, ast.alias) or isinstance(node, ast.Constant) and isinstance(node.value, str))]


@pytest.mark.parametrize('command', COMMANDS, ids=' '.join)
def test_every_command_has_a_test_that_uses_its_script(command):
    here = ('demo.py', 'test.py', 'train_liif.py')
    elsewhere = [test for word, test in RUN_ELSEWHERE.items() if word in command]
    assert any(word in ' '.join(command) for word in here + BY_HAND) or elsewhere
    for test in elsewhere:
        script, = (word for word, name in RUN_ELSEWHERE.items() if name == test and word in command)
        names = script, Path(script).name, Path(script).stem
        assert any(name in re.split('[ /]', text) or name == text for text in used(test) for name in names)
    for path in command:
        if path.startswith(('scripts/', 'configs/', 'examples/', 'requirements')):
            assert (ROOT / path.replace('-x4', '')).exists()


def run_demo(commands, *small):
    size = {'3840x2160': '384x216', '480': '48', '166,139': '16,13'}  # a hundredth of the pixels
    for command in commands:
        less = small if '--zoom' in command else ()
        done = forked(Path.cwd(), *(size.get(word, word) for word in command[1:]), *less, '--gpu', 'cpu')
        assert done.returncode == 0, (command, done.stderr)


def test_demo_commands_of_the_readme_work_one_after_the_other(folder):
    run_demo(readme.commands('python demo.py ', [readme.README]), '--resolution', '40')
    assert Image.open('big/1.png').size == (72, 54)
    assert Image.open('big.png').size == (384, 216) and Path('big-compare.png').exists()
    assert imageio.immeta('zoom.mp4', plugin='FFMPEG')['size'] == (40, 30)
    assert Image.open('examples/lighthouse-x4.png').size == (144, 108) == Image.open('fine.png').size


def test_demo_commands_of_docs_work_in_a_clone_with_its_results(folder):
    Path('results').mkdir()
    for path in ROOT.glob('results/*.webp'):
        Path('results', path.name).write_bytes(b'')
    run_demo(readme.commands('python demo.py ', readme.DOCS))
    assert Path('photo-x4-compare.png').exists() and Path('photo-x4-weights.png').exists()
    assert Image.open('results/zoom.webp').size == (48, 36)


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
    epochs = {'finetune.yaml': 10, 'train-photos/train_edsr-baseline-A-liif.yaml': 4, 'train-photos': 80,
              'train-div2k': 1000}
    assert read_config(ROOT / args.config, assignments=args.set).epoch_max == next(
        epochs[key] for key in epochs if key in args.config)


def test_the_config_that_is_explained_is_the_shipped_one():
    block, = readme.blocks('train_dataset:')
    assert yaml.safe_load(block) == load_yaml(ROOT / 'configs/train-div2k/train_edsr-baseline-A-liif.yaml')


def test_lines_for_a_notebook(folder):
    code, = readme.blocks('load_pretrained(')
    lines = {}
    exec(code, lines)
    expected = upscale_pil(load_pretrained('edsr-baseline-A-liif-pixel'), Image.open('photo.jpg'), size=(100, 133))
    assert np.array_equal(np.asarray(lines['big']), np.asarray(expected))


def test_own_encoder_and_decoder(tmp_path, monkeypatch):
    code, = readme.blocks('my-decoder')
    (tmp_path / 'mine.py').write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    importlib.import_module('mine')
    model = models.make({'name': 'my-decoder', 'args': {'encoder_spec': {'name': 'my-encoder', 'args': {}}}})
    big = upscale_pil(model.eval(), Image.new('RGB', (9, 7)), scale=2.5)
    assert big.size == (22, 18)
    inp, coord = torch.rand(1, 3, 4, 4), make_coord((4, 4))[None]  # a query at a code's centre has that code's colour
    expected = model.linear(F.unfold(model.encoder(inp), 3, padding=1).transpose(1, 2))
    colours = model(inp, coord, torch.full_like(coord, 0.5))
    inner = torch.arange(16).view(4, 4)[:3, :3].flatten()  # at the last rows LIIF's ensemble mixes in a neighbour
    torch.testing.assert_close(colours[:, inner], expected[:, inner])


@pytest.mark.parametrize('page', [readme.README, *readme.DOCS], ids=lambda page: page.name)
def test_links_lead_to_files_that_exist(page):
    for target in re.findall(r'\]\(([^)#]+)', page.read_text(encoding='utf-8')):
        assert target.startswith('https://') or (page.parent / target).exists(), target
    for target in re.findall(r'\]\(#([^)]+)\)', page.read_text(encoding='utf-8')):
        headings = re.findall(r'^#+ (.*)$', page.read_text(encoding='utf-8'), re.MULTILINE)
        assert target in [heading.lower().replace(' ', '-') for heading in headings], target


def test_table_of_models_has_the_measured_numbers():
    rows = json.loads((ROOT / 'results/results.json').read_text())
    psnr = {(row['config'], row['model']): row['psnr'] for row in rows}
    text = readme.README.read_text(encoding='utf-8')
    for model in ('bicubic', *(path.stem for path in (ROOT / 'pretrained').glob('*.pth'))):
        cells = ' / '.join(f'{psnr[f"configs/test/test-set5-{scale}.yaml", model]:.2f}' for scale in (2, 3, 4))
        line, = (line for line in text.splitlines() if line.startswith('|') and f' {cells} ' in line)
        assert model in line
