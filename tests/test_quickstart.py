"""scripts/quickstart.sh: the commands to which it comes, noted by a stand-in for Python instead of run."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from paths import ROOT

import demo
import test
import train_liif
from scripts import compare, prepare_data
from training.run import read_config, run_folder

PYTHON = '''#!/bin/sh
(IFS="	"; echo "$*") >> calls
mkdir -p save/quickstart
case $1 in train_liif.py) ls save/quickstart > found;; esac
'''
PARSERS = {'demo.py': demo, 'test.py': test, 'train_liif.py': train_liif, 'scripts/compare.py': compare,
           'scripts/prepare_data.py': prepare_data}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder like the repository's, whose .venv has the stand-in."""
    for path in ('.venv/bin', 'scripts'):
        (tmp_path / path).mkdir(parents=True)
    for name in ('quickstart.sh', 'make_venv.sh'):
        shutil.copy(ROOT / 'scripts' / name, tmp_path / 'scripts')
    for name in ('python', 'pip'):
        (tmp_path / '.venv/bin' / name).write_text(PYTHON)
        (tmp_path / '.venv/bin' / name).chmod(0o755)
    (tmp_path / 'configs').symlink_to(ROOT / 'configs')
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(folder):
    """Runs the script: the calls of Python, each a list of arguments, and what is in its folder as training begins."""
    path = f'{Path(sys.executable).parent}:{os.environ["PATH"]}'
    (folder / 'calls').unlink(missing_ok=True)
    subprocess.run(['bash', 'scripts/quickstart.sh'], check=True, env={**os.environ, 'PATH': path}, capture_output=True)
    calls = [line.split('\t') for line in (folder / 'calls').read_text().splitlines()]
    return calls, (folder / 'found').read_text().split()


def test_its_commands_are_ones_that_the_scripts_take_and_each_reads_what_others_write(folder, monkeypatch):
    install, *calls = run(folder)[0]
    assert install == ['-m', 'pip', 'install', '--quiet', '--no-index', '--requirement', 'requirements.txt']
    args = {name: [] for name in PARSERS}
    for call in calls:
        monkeypatch.setattr(sys, 'argv', call)
        args[call[0]].append(PARSERS[call[0]].parse_args())
    enlarged, trained, compared, data = (args[name].pop() for name in PARSERS if name != 'test.py')
    assert data.set == 'sample' and str(enlarged.input) == 'load/sample/train/chelsea.png' and enlarged.compare
    out = run_folder(trained)
    read_config(trained.config)
    assert [tested.model for tested in args['test.py']] == ['bicubic', f'{out}/epoch-last.pth', enlarged.model]
    written = [(tested.save_dir, tested.json) for tested in args['test.py']]
    assert written == [(f'{compared.out}/{name}', f'{compared.out}/{name}.json') for name in compared.names]
    assert all(Path(config).exists() for tested in args['test.py'] for config in tested.config)
    assert str(compared.truth) == 'load/sample/valid'


def test_after_a_finished_run_it_trains_anew_and_after_an_interrupted_one_it_goes_on(folder):
    out = folder / 'save/quickstart'
    run(folder)
    (out / 'epoch-last.pth').touch()
    assert run(folder)[1] == []
    (out / 'finished').unlink()
    (out / 'epoch-last.pth').touch()
    assert run(folder)[1] == ['epoch-last.pth']
