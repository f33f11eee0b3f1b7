"""scripts/prepare_data.py against a local server that behaves as badly as servers do."""

import hashlib
import io
import signal
import socket
import sys
import tarfile
import zipfile
from types import SimpleNamespace

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


PNG_FILE = io.BytesIO()
Image.linear_gradient('L').save(PNG_FILE, 'png')
PNG = PNG_FILE.getvalue()


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


def link(name, target, kind=tarfile.SYMTYPE):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, str(target)
    return info


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


# --- what it makes ---------------------------------------------------------------------------------


def test_div2k_comes_as_six_folders(server, prepare, tmp_path):
    server.files = {f'{folder.replace("/", "_")}.zip': make_zip(images(folder, n)) for folder, n in DIV2K.items()}
    assert prepare('div2k')[0] == 0
    for folder, n in DIV2K.items():
        assert len(list((tmp_path / 'load/div2k' / folder).iterdir())) == n
    assert (tmp_path / 'load/div2k/DIV2K_valid_LR_bicubic/X3/0100.png').read_bytes() == PNG


def test_benchmark_comes_with_its_reduced_images_and_leaves_no_other_file(server, prepare, tmp_path):
    lr = images('benchmark/Set5/LR_bicubic/X8', 5)
    macos = {f'__MACOSX/benchmark/Set5/HR/._{i}.png': b'' for i in range(5)}
    server.files = {'benchmark.tar': make_tar({**lr, **macos, **benchmark_files()})}
    assert prepare('benchmark')[0] == 0
    assert_benchmark_complete(tmp_path / 'load')
    folders = {path.relative_to(tmp_path / 'load/benchmark').as_posix()
               for path in (tmp_path / 'load/benchmark').glob('*/*/')}
    assert folders == {f'{set}/{part.split("/")[0]}' for set in BENCHMARK for part in PARTS}
    assert not (tmp_path / 'load/benchmark/Set5/LR_bicubic/X8').exists()


def test_reduced_images_come_to_benchmarks_that_are_there_already(server, prepare, tmp_path):
    own_benchmark(tmp_path / 'load/benchmark', BENCHMARK, ['HR'])
    server.files = {'benchmark.tar': make_tar(benchmark_files())}
    assert prepare('benchmark')[0] == 0
    assert len(list((tmp_path / 'load/benchmark/B100/LR_bicubic/X3').iterdir())) == 100
    assert (tmp_path / 'load/benchmark/B100/HR/0.png').exists()  # the user's own, whose names differ


def test_what_is_complete_is_not_fetched_again(server, prepare, tmp_path):
    server.files = {'benchmark.tar': make_tar(benchmark_files())}
    prepare('benchmark')
    server.requests.clear()
    assert prepare('benchmark')[0] == 0
    assert server.requests == []


def test_folder_with_a_wrong_number_of_images_is_named(server, prepare, tmp_path):
    server.files = {'benchmark.tar': make_tar(benchmark_files())}
    prepare('benchmark')
    (tmp_path / 'load/benchmark/B100/HR/0007.png').unlink()
    assert 'B100/HR has 99 images, not 100' in error_line(prepare('benchmark'))


def test_sample_photos_come_from_installed_packages_alone(prepare, monkeypatch, tmp_path):
    def no_network(*args, **kwargs):
        raise AssertionError('uses the network')
    monkeypatch.setattr(socket.socket, 'connect', no_network)
    assert prepare('sample')[0] == 0
    assert prepare('sample')[0] == 0
    photos = {part: sorted((tmp_path / 'load/sample' / part).iterdir()) for part in ('train', 'valid')}
    assert len(photos['train']) >= 5 and len(photos['valid']) >= 2
    assert not {path.stem for path in photos['train']} & {path.stem for path in photos['valid']}
    for path in photos['train'] + photos['valid']:
        with Image.open(path) as image:
            assert image.mode == 'RGB' and min(image.size) >= 300


# --- links to what a user has ----------------------------------------------------------------------


def own_benchmark(folder, sets, parts=PARTS):
    for part in (folder / set / part for set in sets for part in parts):
        part.mkdir(parents=True)
        for i in range(BENCHMARK[part.relative_to(folder).parts[0]]):
            (part / f'{i}.png').write_bytes(PNG)


def test_from_links_the_folders_of_a_user(server, prepare, tmp_path):
    own_benchmark(tmp_path / 'mine', BENCHMARK)
    for _ in range(2):
        assert prepare('benchmark', '--from', tmp_path / 'mine')[0] == 0
    assert (tmp_path / 'load/benchmark/B100/HR').readlink() == tmp_path / 'mine/B100/HR'
    assert server.requests == []


@pytest.mark.parametrize('suffix', ['.bmp', '.PNG'])
def test_images_of_any_format_are_counted(prepare, tmp_path, suffix):
    own_benchmark(tmp_path / 'mine', BENCHMARK)
    for path in (tmp_path / 'mine/Set5/HR').iterdir():
        path.rename(path.with_suffix(suffix))
    assert prepare('benchmark', '--from', tmp_path / 'mine')[0] == 0


def test_from_links_what_is_there_and_names_what_is_not(prepare, tmp_path):
    own_benchmark(tmp_path / 'mine', ['Set5', 'Set14', 'B100'])
    error = error_line(prepare('benchmark', '--from', tmp_path / 'mine'))
    assert 'Urban100/HR has 0 images, not 100' in error and 'Set5' not in error
    assert len(list((tmp_path / 'load/benchmark/Set5/HR').iterdir())) == 5


def test_what_could_not_be_linked_can_be_downloaded(server, prepare, tmp_path):
    own_benchmark(tmp_path / 'mine', ['Set5', 'Set14', 'B100'])
    prepare('benchmark', '--from', tmp_path / 'mine')
    server.files = {'benchmark.tar': make_tar(benchmark_files())}
    assert prepare('benchmark')[0] == 0
    assert (tmp_path / 'load/benchmark/Set5/HR').is_symlink()
    assert not (tmp_path / 'load/benchmark/Urban100/HR').is_symlink()


def test_from_a_folder_that_is_not_there_is_an_error(prepare, tmp_path):
    assert str(tmp_path / 'nowhere') in error_line(prepare('div2k', '--from', tmp_path / 'nowhere'))


def test_from_a_folder_with_other_names_says_what_was_looked_for(prepare, tmp_path):
    (tmp_path / 'mine/DIV2K').mkdir(parents=True)
    error = error_line(prepare('benchmark', '--from', tmp_path / 'mine'))
    assert f'{tmp_path / "mine"}: has none of the folders that were looked for: ' in error
    assert 'Set5/HR (5 images), Set14/HR (14 images), B100/HR (100 images), Urban100/HR (100 images)' in error


def test_what_is_linked_in_part_says_where_the_rest_was_looked_for(prepare, tmp_path):
    own_benchmark(tmp_path / 'mine', ['Set5', 'Set14', 'B100'])
    assert f'(looked for in {tmp_path / "mine"})' in error_line(prepare('benchmark', '--from', tmp_path / 'mine'))


# --- what is told ----------------------------------------------------------------------------------


def run_main(monkeypatch, capsys, *args):
    monkeypatch.setattr(sys, 'argv', ['prepare_data', *map(str, args)])
    prepare_data.main()
    return capsys.readouterr().out.splitlines()


def test_sizes_are_told_before_the_first_byte_is_fetched(server, monkeypatch, capsys, tmp_path):
    server.files = {'benchmark.tar': make_tar(benchmark_files()) + bytes(12_000_000)}

    def fetch(url, part):
        raise KeyboardInterrupt

    monkeypatch.setattr(download, 'fetch', fetch)
    with pytest.raises(KeyboardInterrupt):
        run_main(monkeypatch, capsys, 'benchmark', '--mirror', server.url, '--root', tmp_path)
    assert capsys.readouterr().out == 'benchmark.tar: 0.01 GB to download\n'


def test_a_server_that_knows_no_head_requests_is_no_obstacle(server, prepare, tmp_path):
    server.files, server.heads = {'benchmark.tar': make_tar(benchmark_files())}, False
    assert prepare('benchmark')[0] == 0
    assert_benchmark_complete(tmp_path / 'load')


def test_a_disk_that_is_too_small_is_told_before_the_download(server, prepare, monkeypatch):
    server.files = {'benchmark.tar': make_tar(benchmark_files())}
    monkeypatch.setattr(download.shutil, 'disk_usage', lambda path: SimpleNamespace(free=100_000))
    assert 'load/benchmark: needs 0.0 GB, and 0.0 GB are free; give another disk with --root' in error_line(
        prepare('benchmark'))
    assert server.requests == []


def test_without_a_network_the_archives_their_page_and_their_place_are_told(prepare, tmp_path):
    error = error_line(prepare('div2k', mirror='http://127.0.0.1:1'))
    assert all(f'{folder.replace("/", "_")}.zip' in error for folder in DIV2K)
    assert 'from http://127.0.0.1:1, ' in error and f'put them into {tmp_path / "load/div2k"}' in error


def test_an_archive_that_was_put_there_by_hand_is_taken(server, prepare, tmp_path):
    (tmp_path / 'load/benchmark').mkdir(parents=True)
    (tmp_path / 'load/benchmark/benchmark.tar').write_bytes(make_tar(benchmark_files()))
    assert prepare('benchmark', mirror='http://127.0.0.1:1')[0] == 0
    assert_benchmark_complete(tmp_path / 'load')


def test_it_ends_with_the_next_step(monkeypatch, capsys, tmp_path):
    assert run_main(monkeypatch, capsys, 'sample', '--root', tmp_path)[-1] == (
        'next: python train_liif.py --config configs/quickstart/train_sample.yaml')


@pytest.mark.parametrize('name', prepare_data.NEXT)
def test_the_next_step_names_files_that_are_there(name):
    words = prepare_data.NEXT[name].split()
    assert all((prepare_data.Path(__file__).parents[1] / word).exists() for word in words if '/' in word)


# --- connections that break ------------------------------------------------------------------------


def test_dropped_download_goes_on_where_it_stopped(server, prepare, tmp_path):
    archive = make_tar(benchmark_files())
    server.files, server.drops = {'benchmark.tar': archive}, [10_000] * 6
    assert prepare('benchmark')[0] == 0
    assert_benchmark_complete(tmp_path / 'load')
    starts = [int(asked.removeprefix('bytes=').removesuffix('-')) for _, asked in server.requests]
    assert starts == [0, *(10_000 * n - n for n in range(1, 7))]  # each asks for the last byte once more


def test_server_without_ranges_is_asked_from_the_start(server, prepare, tmp_path):
    server.files, server.ranges, server.drops = {'benchmark.tar': make_tar(benchmark_files())}, False, [50_000, 90_000]
    assert prepare('benchmark')[0] == 0
    assert_benchmark_complete(tmp_path / 'load')


def test_server_that_brings_nothing_new_ends_in_an_error_and_a_later_run_goes_on(server, prepare, tmp_path):
    server.files, server.drops = {'benchmark.tar': make_tar(benchmark_files())}, [20_000] + [1] * 3
    assert f'{server.url}/benchmark.tar: cannot be downloaded' in error_line(prepare('benchmark'))
    assert len(server.requests) == 4
    assert (tmp_path / 'load/benchmark/benchmark.tar.part').stat().st_size == 20_000
    server.requests.clear()
    assert prepare('benchmark')[0] == 0
    assert server.requests == [('benchmark.tar', 'bytes=19999-')]
    assert_benchmark_complete(tmp_path / 'load')


def test_run_that_was_ended_after_the_download_does_not_repeat_it(server, prepare, monkeypatch, tmp_path):
    server.files = {'benchmark.tar': make_tar(benchmark_files())}
    with monkeypatch.context() as patch:
        def interrupt(*args):
            raise KeyboardInterrupt
        patch.setattr(prepare_data, 'check', interrupt)
        patch.setattr(signal, 'signal', lambda *_: None)  # the tests go on
        code, err = prepare('benchmark')
    assert code == 130 and err.endswith('interrupted\n') and 'Traceback' not in err
    assert [path.name for path in (tmp_path / 'load/benchmark').iterdir()] == ['benchmark.tar']
    server.requests.clear()
    assert prepare('benchmark')[0] == 0
    assert server.requests == []


def test_archive_that_is_not_there_is_an_error_at_once(server, prepare):
    assert '404' in error_line(prepare('div2k'))
    assert len(server.requests) == 1


@pytest.mark.parametrize('mirror', ['nonsense', 'http://127.0.0.1:1'])
def test_mirror_that_is_none_is_an_error(prepare, mirror):
    assert f'{mirror}/benchmark.tar: cannot be downloaded' in error_line(prepare('benchmark', mirror=mirror))


# --- archives that are not what they should be -----------------------------------------------------


def broken(data, kind):
    """`data` without its second half, with a byte in the middle of an image changed, or something else."""
    if kind == 'truncated':
        return data[:len(data) // 2]
    if kind == 'corrupt':
        middle = data.index(PNG) + len(PNG) // 2
        return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1:]
    return b'<html>We have moved.</html>' * 100


@pytest.mark.parametrize('kind', ['truncated', 'corrupt', 'other'])
@pytest.mark.parametrize(('name', 'archive', 'image'), [
    ('DIV2K_train_HR.zip', make_zip(images('DIV2K_train_HR', 800)), 'div2k/DIV2K_train_HR/0001.png'),
    ('benchmark.tar', make_tar(benchmark_files()), 'benchmark/Set5/HR/0001.png'),
], ids=['zip', 'tar'])
def test_damaged_archive_leaves_nothing_and_is_fetched_anew(server, prepare, tmp_path, name, archive, image, kind):
    set = image.split('/')[0]
    server.files = {name: broken(archive, kind)}
    assert f'{server.url}/{name}: is damaged' in error_line(prepare(set))
    assert list((tmp_path / 'load' / set).iterdir()) == []
    server.files = {name: archive}
    prepare(set)
    assert (tmp_path / 'load' / image).read_bytes() == PNG


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


@pytest.mark.parametrize('name', [
    '../evil.png', '../../../outside/evil.png', '{tmp}/outside/evil.png', '{folder}/../../../../../outside/evil.png',
    '../../../outside/{folder}/evil.png', '{tmp}/outside/{folder}/evil.png', '{folder}/..'])
@pytest.mark.parametrize(('archive', 'files', 'make'), [
    ('div2k/DIV2K_train_HR.zip', images('DIV2K_train_HR', 800), make_zip),
    ('benchmark/benchmark.tar', benchmark_files(), make_tar),
], ids=['zip', 'tar'])
def test_no_path_leads_outside(server, prepare, tmp_path, name, archive, files, make):
    set, archive = archive.split('/')
    folder = next(iter(files)).rpartition('/')[0].removeprefix('benchmark/')
    (tmp_path / 'outside' / folder).mkdir(parents=True)
    before = everything_in(tmp_path)
    server.files = {archive: make({name.format(tmp=tmp_path, folder=folder): PNG, **files})}
    prepare(set)
    root = tmp_path / 'load' / set
    assert {path: data for path, data in everything_in(tmp_path).items() if not path.is_relative_to(root)} == \
        {**before, tmp_path / 'load': None}
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
