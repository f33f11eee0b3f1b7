"""Files: written whole or not at all, through links, with names and permissions as they were."""

import os
import re
import signal
import subprocess
import sys

import pytest
from paths import ROOT

from errors import UserError
from files import NAME_BYTES, atomic_write, cgroup_memory, file_name, sweep


def write(path, content=b'new'):
    with atomic_write(path) as file:
        file.write(content)


def test_a_name_may_be_as_long_as_the_file_system_allows(tmp_path):
    write(tmp_path / ('x' * 255))
    assert os.listdir(tmp_path) == ['x' * 255]


def test_a_link_stays_and_its_target_is_replaced(tmp_path):
    (tmp_path / 'disk').mkdir()
    (tmp_path / 'disk/real').write_bytes(b'old')
    (tmp_path / 'link').symlink_to('disk/real')
    write(tmp_path / 'link')
    assert (tmp_path / 'link').is_symlink() and (tmp_path / 'disk/real').read_bytes() == b'new'
    assert os.listdir(tmp_path / 'disk') == ['real']


def test_permissions_are_kept(tmp_path):
    (tmp_path / 'private').write_bytes(b'old')
    (tmp_path / 'private').chmod(0o640)
    write(tmp_path / 'private')
    assert (tmp_path / 'private').stat().st_mode & 0o777 == 0o640


def test_a_new_file_has_the_permissions_of_any_new_file(tmp_path):
    (tmp_path / 'plain').write_bytes(b'')
    write(tmp_path / 'ours')
    assert (tmp_path / 'ours').stat().st_mode == (tmp_path / 'plain').stat().st_mode


def test_a_pipe_is_written_to():
    code = 'from files import atomic_write\nwith atomic_write("/dev/stdout") as file: file.write(b"text")'
    assert subprocess.run([sys.executable, '-c', code], cwd=ROOT, stdout=subprocess.PIPE).stdout == b'text'


def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path):
    (tmp_path / 'a').write_bytes(b'old')
    with pytest.raises(KeyError), atomic_write(tmp_path / 'a') as file:
        file.write(b'half')
        raise KeyError
    assert (tmp_path / 'a').read_bytes() == b'old' and os.listdir(tmp_path) == ['a']


def test_an_error_names_the_file_that_was_to_be_written(tmp_path):
    with pytest.raises(UserError, match=re.escape(f'{tmp_path}/absent/a: cannot be written (No such file or')):
        write(tmp_path / 'absent/a')


def test_what_a_killed_writer_has_left_is_swept_and_what_a_living_one_writes_is_not(tmp_path):
    code = ('import sys, time; import numpy as np; from files import atomic_write\n'
            'with atomic_write(sys.argv[1]) as file: np.save(file, np.zeros(9)); print(flush=True); time.sleep(600)')
    command = [sys.executable, '-c', code, tmp_path / 'a']
    writers = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) for _ in range(2)]
    try:
        for writer in writers:
            writer.stdout.readline()
        writers[0].kill()
        writers[0].wait()
        assert len(os.listdir(tmp_path)) == 2
        sweep(tmp_path)
        assert len(os.listdir(tmp_path)) == 1
    finally:
        for writer in writers:
            writer.send_signal(signal.SIGKILL)
            writer.wait()
    sweep(tmp_path)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize('stem', ['a', 'x' * 247, '漢' * 80, 'caf\udce9'])
def test_a_name_that_fits_is_as_it_is_given(stem):
    assert file_name(stem, '-end.png') == f'{stem}-end.png'


@pytest.mark.parametrize('stem', ['x' * 248, '漢' * 84, '\udce9' * 255])
def test_a_name_that_is_too_long_is_cut_and_stays_unique(tmp_path, stem):
    names = file_name(stem, '-end.png'), file_name(stem[:-1] + 'y', '-end.png')
    assert len({*names}) == 2 and names[0][0] == stem[0]
    for name in names:
        assert len(os.fsencode(name)) <= NAME_BYTES and name.endswith('-end.png')
        (tmp_path / name).write_bytes(b'')


def test_the_free_memory_of_a_container_is_its_limit_without_what_is_used_beside_files_that_were_read(tmp_path):
    (tmp_path / 'memory.max').write_text('4000000\n')
    (tmp_path / 'memory.current').write_text('3000000\n')
    (tmp_path / 'memory.stat').write_text('anon 2500000\ninactive_file 400000\nactive_file 100000\n')
    assert cgroup_memory(tmp_path) == 1400000


def test_a_container_without_a_limit_has_none_to_tell(tmp_path):
    (tmp_path / 'memory.max').write_text('max\n')
    with pytest.raises(ValueError):
        cgroup_memory(tmp_path)
