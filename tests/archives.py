"""A local server with archives like those of DIV2K and the benchmarks, and prepare_data.py, which fetches them."""

import io
import sys
import tarfile
import zipfile

import pytest
from bad_server import bad_server
from PIL import Image

from cli import run_cli
from scripts import download, prepare_data

DIV2K = {
    'DIV2K_train_HR': 800,
    'DIV2K_valid_HR': 100,
    'DIV2K_train_LR_bicubic/X2': 800,
    'DIV2K_valid_LR_bicubic/X2': 100,
    'DIV2K_valid_LR_bicubic/X3': 100,
    'DIV2K_valid_LR_bicubic/X4': 100,
}
BENCHMARK = {'Set5': 5, 'Set14': 14, 'B100': 100, 'Urban100': 100}
PARTS = ('HR', 'LR_bicubic/X2', 'LR_bicubic/X3', 'LR_bicubic/X4')


def png():
    """The bytes of a small picture."""
    file = io.BytesIO()
    Image.linear_gradient('L').save(file, 'png')
    return file.getvalue()


PNG = png()


def make_zip(files):
    """A zip archive of {name: bytes}; stored, so that a byte of an image is a byte of the archive."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, 'w') as opened:
        for name, data in files.items():
            opened.writestr(name, data)
    return archive.getvalue()


def make_tar(files):
    """A tar archive of {name: bytes, or a TarInfo for what is no file}."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode='w') as opened:
        for name, data in files.items():
            if isinstance(data, tarfile.TarInfo):
                opened.addfile(data)
            else:
                info = tarfile.TarInfo(name)
                info.size = len(data)
                opened.addfile(info, io.BytesIO(data))
    return archive.getvalue()


def images(folder, number):
    return {f'{folder}/{i:04}.png': PNG for i in range(1, number + 1)}


def benchmark_files():
    return {name: data for set, n in BENCHMARK.items() for part in PARTS
            for name, data in images(f'benchmark/{set}/{part}', n).items()}


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv('no_proxy', '127.0.0.1')
    monkeypatch.setattr(download, 'WAITS', (0, 0, 0))
    monkeypatch.setattr(prepare_data, 'MD5', {})  # the server's archives are not the published ones
    with bad_server() as server:
        yield server


@pytest.fixture
def prepare(server, monkeypatch, tmp_path, capsys):
    """Runs the command with its data in tmp_path/load and the archives of `server`; its exit code and stderr."""
    def run(*args, mirror=server.url):
        place = ['--mirror', mirror] if args[0] != 'sample' and '--from' not in args else []
        monkeypatch.setattr(sys, 'argv', ['prepare_data', *map(str, args), *place, '--root', str(tmp_path / 'load')])
        code = 0
        try:
            run_cli(prepare_data.main)
        except SystemExit as end:
            code = end.code
        return code, capsys.readouterr().err
    return run


def error_line(result):
    """The error of a command that must have failed as a user's mistake does: exit code 2, one line."""
    code, err = result
    assert code == 2
    assert 'Traceback' not in err
    errors = [line for line in err.splitlines() if line.startswith('error: ')]
    assert len(errors) == 1
    assert err.rstrip().endswith(errors[0])
    return errors[0]


def assert_benchmark_complete(root):
    for set, n in BENCHMARK.items():
        for part in PARTS:
            files = sorted((root / 'benchmark' / set / part).iterdir())
            assert [path.name for path in files] == [f'{i:04}.png' for i in range(1, n + 1)]
            assert all(path.read_bytes() == PNG for path in files)
