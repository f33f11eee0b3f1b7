"""The shell scripts that evaluate a checkpoint, and the pictures of the quickstart."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from specs import a_liif

import models
from scripts import compare

SCRIPTS = Path(__file__).resolve().parents[1] / 'scripts'


def write_photo(path, height, width):
    """A smooth colour image, different for each path."""
    rng = np.random.default_rng(list('/'.join(path.parts[-3:]).encode()))
    small = Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8))
    path.parent.mkdir(parents=True, exist_ok=True)
    small.resize((width, height), Image.BICUBIC).save(path)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """A working directory with model.pth, a small A-LIIF, and images in load/, but for Urban100's."""
    folder = tmp_path_factory.mktemp('work')
    for name in ('Set5', 'Set14', 'B100'):
        write_photo(folder / 'load/benchmark' / name / 'HR/1.png', 64, 80)
    write_photo(folder / 'load/div2k/DIV2K_valid_HR/0801.png', 120, 150)
    torch.manual_seed(0)
    spec = a_liif()
    torch.save({'model': {**spec, 'sd': models.make(spec).state_dict()}}, folder / 'model.pth')
    return folder


def run(script, *args, folder):
    """What `bash scripts/SCRIPT ARGS` gives, called in `folder`, its `python` being this one."""
    env = {**os.environ, 'PATH': f'{Path(sys.executable).parent}:{os.environ["PATH"]}', 'OMP_NUM_THREADS': '1'}
    return subprocess.run(['bash', SCRIPTS / script, *args], cwd=folder, env=env, capture_output=True, text=True)


def configs(path):
    return [Path(result['config']).stem for result in json.loads(path.read_text())['results']]


@pytest.fixture(scope='module')
def benchmark(folder):
    return run('test-benchmark.sh', 'model.pth', 'cpu', '--json', 'benchmark.json', folder=folder)


def test_benchmark_sets_that_are_there_are_evaluated_at_all_scales(folder, benchmark):
    assert benchmark.returncode == 0, benchmark.stderr
    expected = [f'test-{name}-{scale}' for name in ('set5', 'set14', 'b100') for scale in (2, 3, 4, 6, 8)]
    assert configs(folder / 'benchmark.json') == expected
    results = json.loads((folder / 'benchmark.json').read_text())['results']
    assert all(0 < result['psnr'] < math.inf for result in results)
    assert [line.split()[0] for line in benchmark.stdout.splitlines() if line.startswith('test-')] == expected


def test_benchmark_set_that_is_absent_gives_one_line(benchmark):
    lines = [line for line in benchmark.stderr.splitlines() + benchmark.stdout.splitlines() if 'Urban100' in line]
    assert len(lines) == 1
    assert 'load/benchmark/Urban100/HR is missing' in lines[0]


def test_without_any_benchmark_set_each_gives_its_line(tmp_path):
    result = run('test-benchmark.sh', 'model.pth', folder=tmp_path)
    assert result.returncode == 2
    assert [line.split()[0] for line in result.stderr.splitlines()] == ['Set5', 'Set14', 'B100', 'Urban100']


def test_div2k_is_evaluated_at_all_scales(folder):
    result = run('test-div2k.sh', 'model.pth', 'cpu', '--json', 'div2k.json', folder=folder)
    assert result.returncode == 0, result.stderr
    assert configs(folder / 'div2k.json') == [f'test-div2k-{scale}' for scale in (2, 3, 4, 6, 12, 18, 24, 30)]


def test_absent_div2k_is_an_error_of_one_line(folder, tmp_path):
    result = run('test-div2k.sh', folder / 'model.pth', 'cpu', folder=tmp_path)
    assert result.returncode == 2
    assert len(result.stderr.splitlines()) == 1
    assert 'load/div2k/DIV2K_valid_HR' in result.stderr


@pytest.mark.parametrize('script', ['test-div2k.sh', 'test-benchmark.sh'])
def test_without_a_model_the_usage_is_shown(script, tmp_path):
    result = run(script, folder=tmp_path)
    assert result.returncode == 2
    assert result.stderr == f'usage: bash scripts/{script} MODEL [GPU]\n'


def test_pictures_show_bicubic_ours_and_truth_beside_each_other(tmp_path, capsys):
    sources = {'bicubic': 'out/bicubic/test-2/a.png', 'ours': 'out/ours/test-2/a.png', 'truth': 'truth/a.png'}
    for name, path in sources.items():
        write_photo(tmp_path / path, 40, 61 if name == 'truth' else 60)
    for name, psnr in (('bicubic', 30.25), ('ours', 31.5)):
        results = [{'config': 'configs/test-2.yaml', 'psnr': psnr, 'ssim': 0.9}]
        (tmp_path / f'out/{name}.json').write_text(json.dumps({'results': results}))
    compare.compare(tmp_path / 'out', tmp_path / 'truth')
    row = np.asarray(Image.open(tmp_path / 'out/compare/test-2-a.png'))[28:68]  # below captions
    assert row.shape == (40, 60 * 3 + 8 * 2, 3)
    for i, path in enumerate(sources.values()):
        assert np.array_equal(row[:, 68 * i:68 * i + 60], np.asarray(Image.open(tmp_path / path))[:, :60])
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith('test-2'))
    assert line.split() == ['test-2', '30.25', '0.9000', '31.50', '0.9000']
