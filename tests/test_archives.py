"""Archives that are damaged, incomplete or malicious: prepare_data.py refuses them, and nothing leads outside."""

import hashlib
import re
import tarfile

import pytest
from archives import (
    PNG,
    assert_benchmark_complete,
    benchmark_files,
    error_line,
    images,
    make_tar,
    make_zip,
)

from scripts import prepare_data

each_archive = pytest.mark.parametrize('name, make, files, place', [  # place: a folder, below load/, of what is in it
    ('DIV2K_train_HR.zip', make_zip, images('DIV2K_train_HR', 800), 'div2k/DIV2K_train_HR'),
    ('benchmark.tar', make_tar, benchmark_files(), 'benchmark/Set5/HR')], ids=['zip', 'tar'])
EVIL = ('../evil.png', '../../../outside/evil.png', '{tmp}/outside/evil.png', '{folder}/..',
        '{folder}/../../../../../outside/evil.png', '../../../outside/{folder}/evil.png',
        '{tmp}/outside/{folder}/evil.png')


def link(name, target, kind=tarfile.SYMTYPE):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, str(target)
    return info


def broken(data, kind):
    """`data` without its second half, with a byte in the middle of an image changed, or something else."""
    if kind == 'truncated':
        return data[:len(data) // 2]
    if kind == 'corrupt':
        middle = data.index(PNG) + len(PNG) // 2
        return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1:]
    return b'<html>We have moved.</html>' * 100


@pytest.mark.parametrize('kind', ['truncated', 'corrupt', 'other'])
@each_archive
def test_damaged_archive_leaves_nothing_and_is_fetched_anew(server, prepare, tmp_path, name, make, files, place, kind):
    set, archive = place.split('/')[0], make(files)
    server.files = {name: broken(archive, kind)}
    assert f'{server.url}/{name}: is damaged' in error_line(prepare(set))
    assert list((tmp_path / 'load' / set).iterdir()) == []
    server.files = {name: archive}
    prepare(set)
    assert (tmp_path / 'load' / place / '0001.png').read_bytes() == PNG


def test_archive_whose_checksum_is_not_the_published_one_is_refused(server, prepare, monkeypatch, tmp_path):
    archive = make_tar(benchmark_files())
    server.files = {'benchmark.tar': archive}
    monkeypatch.setattr(prepare_data, 'MD5', {'benchmark.tar': hashlib.md5(b'another').hexdigest()})
    assert f'its MD5 is {hashlib.md5(archive).hexdigest()}, not' in error_line(prepare('benchmark'))
    assert list((tmp_path / 'load/benchmark').iterdir()) == []
    monkeypatch.setattr(prepare_data, 'MD5', {'benchmark.tar': hashlib.md5(archive).hexdigest()})
    assert prepare('benchmark')[0] == 0


def test_every_archive_has_its_checksum():
    assert prepare_data.MD5.keys() == {name for _, archives in prepare_data.SETS.values() for name in archives}


def test_archive_with_a_name_that_no_disk_takes_is_damaged(server, prepare, tmp_path):
    server.files = {'benchmark.tar': make_tar({f'benchmark/Set5/HR/{"long" * 75}.png': PNG, **benchmark_files()})}
    assert 'is damaged (a file name of 304 characters)' in error_line(prepare('benchmark'))
    assert list((tmp_path / 'load/benchmark').iterdir()) == []


def test_archive_that_lacks_an_image_is_refused(server, prepare, tmp_path):
    files = benchmark_files()
    del files['benchmark/Set14/HR/0003.png']
    server.files = {'benchmark.tar': make_tar(files)}
    assert 'Set14/HR has 13 images, not 14' in error_line(prepare('benchmark'))
    assert not (tmp_path / 'load/benchmark/Set14').exists()


def everything_in(folder):
    return {path: path.read_bytes() if path.is_file() else None for path in folder.rglob('*')}


@each_archive
def test_no_path_leads_outside(server, prepare, tmp_path, name, make, files, place):
    set, _, folder = place.partition('/')
    (tmp_path / 'outside' / folder).mkdir(parents=True)
    before = {*tmp_path.rglob('*')}
    evil = {path.format(tmp=tmp_path, folder=folder): PNG for path in EVIL}
    server.files = {name: make({**evil, **files})}
    assert re.search(f'{folder} has .* images, not', error_line(prepare(set)))  # evil.png is one too many
    root = tmp_path / 'load' / set
    assert {path for path in tmp_path.rglob('*') if not path.is_relative_to(root)} == {*before, tmp_path / 'load'}
    assert not list(root.rglob('evil.png'))


@pytest.mark.parametrize('kind', [tarfile.SYMTYPE, tarfile.LNKTYPE], ids=['symbolic', 'hard'])
def test_links_in_an_archive_are_not_made(server, prepare, tmp_path, kind):
    (tmp_path / 'outside').mkdir()
    (tmp_path / 'outside/0001.png').write_bytes(b'mine')
    before = everything_in(tmp_path / 'outside')
    links = [link('benchmark/Set5/HR', tmp_path / 'outside', kind), link('benchmark/Set14', '../../../outside', kind),
             link('benchmark/B100/HR/0001.png', tmp_path / 'outside/0001.png', kind)]
    server.files = {'benchmark.tar': make_tar({**{info.name: info for info in links}, **benchmark_files()})}
    prepare('benchmark')
    assert everything_in(tmp_path / 'outside') == before
    assert not any(path.is_symlink() or path.stat().st_nlink > 1 for path in (tmp_path / 'load').rglob('*.png'))
    assert_benchmark_complete(tmp_path / 'load')
