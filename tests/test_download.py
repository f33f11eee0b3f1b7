"""Downloads by scripts/prepare_data.py from a server that breaks off: they go on where they stopped."""

import signal

import pytest
from archives import (
    assert_benchmark_complete,
    benchmark_files,
    error_line,
    make_tar,
)

from scripts import prepare_data


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
