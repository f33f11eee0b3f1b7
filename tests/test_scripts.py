"""The shell scripts that evaluate a checkpoint, and the pictures of the quickstart."""

import json
import math
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import pytest
from paths import ROOT
from photos import smooth
from PIL import Image
from processes import forked
from specs import a_liif, make_checkpoint

from errors import UserError
from scripts import compare

SCRIPTS = ROOT / 'scripts'


def write_photo(path, height, width):
    """A smooth colour image, different for each path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    smooth((width, height), seed=list('/'.join(path.parts[-3:]).encode())).save(path)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """A working directory with model.pth, a small A-LIIF, and images in load/, but for Urban100's."""
    folder = tmp_path_factory.mktemp('work')
    for name in ('Set5', 'Set14', 'B100'):
        write_photo(folder / 'load/benchmark' / name / 'HR/1.png', 64, 80)
    write_photo(folder / 'load/div2k/DIV2K_valid_HR/0801.png', 120, 150)
    make_checkpoint(folder / 'model.pth', a_liif())
    return folder


def write_command(path, line):
    """Writes a command that does what a `line` of shell says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f'#!/bin/sh\n{line}\n')
    path.chmod(0o755)


def run(script, *args, folder, scripts=SCRIPTS, **environment):
    """What `bash scripts/SCRIPT ARGS` gives, called in `folder`, and the call of `python` to which it comes, or None.

    `python` is stood in for by a script that notes how it was called.
    """
    with tempfile.TemporaryDirectory() as path:
        write_command(Path(path) / 'python', f'printf "%s\\n" "$@" > {path}/call')
        done = subprocess.run(['bash', Path(scripts) / script, *args], cwd=folder, capture_output=True, text=True,
                              env={**os.environ, 'PATH': f'{path}:{os.environ["PATH"]}', **environment})
        call = Path(path) / 'call'
        return done, call.read_text().splitlines() if call.exists() else None


def evaluate(call, folder):
    """Runs the `call` of test.py in `folder`."""
    script, *args = call
    assert Path(script).samefile(ROOT / 'test.py')
    return forked(folder, 'test.py', *args)


def configs(path):
    return [Path(result['config']).stem for result in json.loads(path.read_text())['results']]


def test_benchmark_sets_that_are_there_are_evaluated_at_all_scales(folder):
    done, call = run('test-benchmark.sh', 'model.pth', 'cpu', '--json', 'benchmark.json', folder=folder)
    assert done.returncode == 0
    assert [line.split(':')[0] for line in done.stderr.splitlines()] == ['Urban100 is left out']
    tested = evaluate(call, folder)
    assert tested.returncode == 0, tested.stderr
    expected = [f'test-{name}-{scale}' for name in ('set5', 'set14', 'b100') for scale in (2, 3, 4, 6, 8)]
    assert configs(folder / 'benchmark.json') == expected
    results = json.loads((folder / 'benchmark.json').read_text())['results']
    assert all(0 < result['psnr'] < math.inf for result in results)
    assert [line.split()[0] for line in tested.stdout.splitlines() if line.startswith('test-')] == expected


def test_without_any_benchmark_set_each_gives_its_line(tmp_path):
    done, call = run('test-benchmark.sh', 'model.pth', folder=tmp_path)
    assert (done.returncode, call) == (2, None)
    lines = done.stderr.splitlines()
    assert [line.split()[0] for line in lines] == ['Set5', 'Set14', 'B100', 'Urban100']
    assert all(f'load/benchmark/{line.split()[0]}/HR is missing' in line for line in lines)


def test_div2k_is_evaluated_at_all_scales(folder):
    done, call = run('test-div2k.sh', 'model.pth', 'cpu', '--json', 'div2k.json', folder=folder)
    assert done.returncode == 0, done.stderr
    assert evaluate(call, folder).returncode == 0
    assert configs(folder / 'div2k.json') == [f'test-div2k-{scale}' for scale in (2, 3, 4, 6, 12, 18, 24, 30)]


def test_absent_div2k_is_an_error_of_one_line(folder, tmp_path):
    _, call = run('test-div2k.sh', folder / 'model.pth', 'cpu', folder=tmp_path)
    tested = evaluate(call, tmp_path)
    assert tested.returncode == 2
    assert len(tested.stderr.splitlines()) == 1
    assert 'load/div2k/DIV2K_valid_HR' in tested.stderr


@pytest.mark.parametrize('script', ['test-div2k.sh', 'test-benchmark.sh'])
@pytest.mark.parametrize('given, gpu', [(['a.pth'], '0'), (['a.pth', 'cpu'], 'cpu')])
def test_the_model_and_the_gpu_are_passed_on(script, given, gpu, folder):
    _, call = run(script, *given, folder=folder)
    assert call[-4:] == ['--model', 'a.pth', '--gpu', gpu]


@pytest.mark.parametrize('script', ['test-div2k.sh', 'test-benchmark.sh'])
def test_without_a_model_the_usage_is_shown(script, tmp_path):
    done, call = run(script, folder=tmp_path)
    assert (done.returncode, call) == (2, None)
    assert done.stderr == f'usage: bash scripts/{script} MODEL [GPU]\n'


@pytest.mark.parametrize('script', ['test-div2k.sh', 'test-benchmark.sh'])
def test_folders_that_cd_would_search_are_not_taken_for_the_repository(script, tmp_path):
    for path in 'load/benchmark/Set5/HR', 'other/scripts':
        (tmp_path / path).mkdir(parents=True)
    (tmp_path / 'scripts').symlink_to(SCRIPTS)
    done, call = run(script, 'a.pth', folder=tmp_path, scripts='scripts', CDPATH=str(tmp_path / 'other'))
    assert done.returncode == 0 and call[0] == f'{tmp_path}/test.py'


@pytest.mark.parametrize('made', [True, False])
def test_only_to_make_an_environment_the_systems_python_must_be_new_enough(made, tmp_path):
    (tmp_path / 'scripts').mkdir()
    shutil.copy(SCRIPTS / 'make_venv.sh', tmp_path / 'scripts')
    write_command(tmp_path / 'system/python3', 'exit 1')
    for name in ('pip', 'python') if made else ():
        write_command(tmp_path / f'.venv/bin/{name}', f'echo {name} "$@"')
    done = subprocess.run(['bash', 'scripts/make_venv.sh', 'some.txt'], cwd=tmp_path, capture_output=True, text=True,
                          env={**os.environ, 'PATH': f'{tmp_path}/system:{os.environ["PATH"]}'})
    assert done.stdout == ('python -m pip install --quiet --no-index --requirement some.txt\n' if made else '')
    assert done.returncode == (0 if made else 1)


def test_progress_is_shown_when_packages_are_downloaded(tmp_path):
    (tmp_path / 'scripts').mkdir()
    shutil.copy(SCRIPTS / 'make_venv.sh', tmp_path / 'scripts')
    write_command(tmp_path / '.venv/bin/pip', '')
    write_command(tmp_path / '.venv/bin/python', 'case "$*" in *--no-index*) exit 1;; *) echo "$@";; esac')
    done = subprocess.run(['bash', 'scripts/make_venv.sh', 'some.txt'], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout == '-m pip install --requirement some.txt\n' and done.returncode == 0


def reduced(**args):
    """What the JSON tells of the test set of a config."""
    return {'test_dataset': {'wrapper': {'name': 'sr-implicit-downsampled', 'args': {'scale_min': 2, **args}}}}


def test_sheets_show_low_resolution_models_and_truth_whole_and_zoomed(tmp_path, capsys):
    names, psnr = ('bicubic', 'ours'), {'bicubic': 30.25, 'ours': None}
    for path in ('out/bicubic/test-2/a.png', 'out/ours/test-2/a.png', 'truth/a.png'):
        write_photo(tmp_path / path, 120, 361 if path.startswith('truth') else 360)
    for name in names:
        results = [{'config': 'configs/test-2.yaml', 'name': 'test-2', 'scale': 2, 'keys': reduced(),
                    'psnr': psnr[name], 'ssim': 0.9, 'images': [{'image': 'a.jpg', 'psnr': psnr[name], 'ssim': 0.9}]}]
        (tmp_path / f'out/{name}.json').write_text(json.dumps({'results': results}))
    (tmp_path / 'truth/a.txt').write_text('by whom')
    compare.compare(tmp_path / 'out', tmp_path / 'truth', names)
    sheet = Image.open(tmp_path / 'out/compare/test-2-a.png').convert('RGB')
    assert sheet.size == (4 * 360 + 3 * 8, 2 * (120 + 28) + 8)

    truth = Image.open(tmp_path / 'truth/a.png').crop((0, 0, 360, 120))
    low = truth.resize((180, 60), Image.BICUBIC).resize((360, 120), Image.NEAREST)
    pictures = [low, *(Image.open(tmp_path / f'out/{name}/test-2/a.png') for name in names), truth]
    for column, picture in enumerate(pictures):
        whole, part = (np.asarray(sheet)[top:top + 120, 368 * column:368 * column + 360] for top in (0, 156))
        rows, columns = np.nonzero((whole == (255, 0, 0)).all(axis=-1))  # the frame of the zoomed part
        assert (whole == np.asarray(picture)).mean() > 0.9
        top, left = rows.min(), columns.min()
        crop = np.asarray(picture)[top:top + 40, left:left + 120]
        np.testing.assert_allclose(part, crop.repeat(3, axis=0).repeat(3, axis=1), atol=1)
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith('test-2'))
    assert line.split() == ['test-2', '30.25', '0.9000', 'none', '0.9000']


def test_a_sheet_of_a_very_wide_picture_has_panels_of_a_pixel():
    truth = Image.new('RGB', (1000, 1))
    assert compare.make_sheet(truth, 1, {'ours': truth}).size == (3 * 360 + 2 * 8, 2 * (1 + 28) + 8)


@pytest.mark.parametrize('change, told', [
    ({'config': 'configs/test-3.yaml'}, 'ours.json has other configs or images than .*bicubic.json'),
    ({'images': []}, 'ours.json has other configs or images than .*bicubic.json'),
    ({}, 'bicubic/test-2/a.png is missing: test.py writes it with --save-dir'),
    ({'keys': reduced(reduction='matlab')}, 'ours.json: configs/test-2.yaml: the sheets show photos that Pillow has'),
    ({'keys': {'test_dataset': {'wrapper': {'name': 'sr-implicit-degraded'}}}}, 'but here the wrapper is .*degraded')])
def test_results_that_cannot_be_compared_are_told(tmp_path, change, told):
    row = {'config': 'configs/test-2.yaml', 'name': 'test-2', 'scale': 2, 'keys': reduced(), 'psnr': 30, 'ssim': 0.9,
           'images': [{'image': 'a.png', 'psnr': 30, 'ssim': 0.9}]}
    for name, changes in ('bicubic', {}), ('ours', change):
        (tmp_path / f'{name}.json').write_text(json.dumps({'results': [{**row, **changes}]}))
    with pytest.raises(UserError, match=told):
        compare.compare(tmp_path, tmp_path / 'truth', ('bicubic', 'ours'))
