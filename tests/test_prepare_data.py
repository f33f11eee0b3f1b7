"""scripts/prepare_data.py: what it makes, links to, and tells."""

import socket
import sys
from types import SimpleNamespace

import pytest
from archives import (
    BENCHMARK,
    DIV2K,
    PARTS,
    PNG,
    assert_benchmark_complete,
    benchmark_files,
    error_line,
    images,
    make_tar,
    make_zip,
)
from paths import ROOT
from PIL import Image

from scripts import download, prepare_data

# --- what it makes ---------------------------------------------------------------------------------------------------


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


# --- links to what a user has ----------------------------------------------------------------------------------------


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


# --- what is told ----------------------------------------------------------------------------------------------------


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
    assert all((ROOT / word).exists() for word in words if '/' in word)
