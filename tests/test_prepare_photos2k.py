"""scripts/prepare_photos2k.py with small packages from a local server."""

import hashlib
import io
import sys
import tarfile

import numpy as np
import pytest
from bad_server import bad_server
from photos import smooth
from PIL import Image

from cli import run_cli
from scripts import download, prepare_photos2k


def photo(width, height, form):
    file = io.BytesIO()
    smooth((width, height)).save(file, form)
    return file.getvalue()


def make_deb(files):
    """A Debian package, as deb(5) describes it, of {path: bytes}."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode='w:xz') as opened:
        for path, content in files.items():
            info = tarfile.TarInfo(f'./{path}')
            info.size = len(content)
            opened.addfile(info, io.BytesIO(content))
    deb = b'!<arch>\n'
    for name, content in (('debian-binary', b'2.0\n'), ('control.tar.xz', b'odd'), ('data.tar.xz', data.getvalue())):
        deb += f'{name:16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(content):<10}`\n'.encode()
        deb += content + b'\n' * (len(content) % 2)
    return deb


LARGE, SMALL = photo(2100, 1050, 'JPEG'), photo(90, 60, 'JPEG')


@pytest.fixture
def server(monkeypatch, tmp_path):
    """A mirror with one package, of which two photos are listed."""
    package = make_deb({'a/large.jpg': LARGE, 'a/other.jpg': b'', 'b/small.jpg': SMALL})
    monkeypatch.setenv('no_proxy', '127.0.0.1')
    monkeypatch.setattr(download, 'WAITS', (0, 0, 0))
    monkeypatch.setattr(prepare_photos2k, 'PACKAGES', {
        'wallpapers': ('pool/w_1_all.deb', hashlib.sha256(package).hexdigest())})
    monkeypatch.setattr(prepare_photos2k, 'LIST', tmp_path / 'list.txt')
    (tmp_path / 'list.txt').write_text('train_HR/1.jpg wallpapers/a/large.jpg\nvalid_HR/2.png wallpapers/b/small.jpg\n')
    with bad_server() as server:
        server.files = {'pool/w_1_all.deb': package}
        yield server


def prepare(server, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, 'argv', ['prepare_photos2k.py', '--root', str(tmp_path / 'load'), '--mirror', server.url])
    run_cli(prepare_photos2k.main)
    return tmp_path / 'load/photos2k'


def pixels(source):
    with Image.open(source) as image:
        return np.asarray(image.convert('RGB'))


def test_photos_are_reduced_to_2040_pixels_and_small_ones_stay(server, tmp_path, monkeypatch):
    folder = prepare(server, tmp_path, monkeypatch)
    assert sorted(str(path.relative_to(folder)) for path in folder.rglob('*.*')) == ['train_HR/1.jpg', 'valid_HR/2.png']
    expected = io.BytesIO()
    Image.open(io.BytesIO(LARGE)).resize((2040, 1020), Image.LANCZOS).save(expected, 'JPEG', quality=95, subsampling=0)
    assert (folder / 'train_HR/1.jpg').read_bytes() == expected.getvalue()
    assert np.array_equal(pixels(folder / 'valid_HR/2.png'), pixels(io.BytesIO(SMALL)))


def test_a_broken_download_goes_on_and_what_is_there_is_not_made_again(server, tmp_path, monkeypatch):
    server.drops = [20_000]
    folder = prepare(server, tmp_path, monkeypatch)
    assert [asked for _, asked in server.requests] == ['bytes=0-', 'bytes=19999-']
    (folder / 'valid_HR/2.png').write_bytes(b'mine')
    prepare(server, tmp_path, monkeypatch)
    assert len(server.requests) == 2 and (folder / 'valid_HR/2.png').read_bytes() == b'mine'


def test_another_package_of_that_name_is_refused(server, tmp_path, monkeypatch, capsys):
    server.files = {'pool/w_1_all.deb': make_deb({'a/large.jpg': SMALL})}
    with pytest.raises(SystemExit):
        prepare(server, tmp_path, monkeypatch)
    assert 'w_1_all.deb: is not the package that we used, and was removed' in capsys.readouterr().err
    assert not list((tmp_path / 'load').rglob('*.*'))


def test_the_list_names_24_photos_to_train_with_and_6_to_validate_from_known_packages():
    photos = prepare_photos2k.read_list()
    targets = [target for paths in photos.values() for target in paths.values()]
    assert sorted(targets) == ([f'train_HR/{i:04}.jpg' for i in range(1, 25)]
                               + [f'valid_HR/{i:04}.png' for i in range(801, 807)])
    assert all(photos.values())
