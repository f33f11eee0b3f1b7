"""Little shared memory, as in Docker: whole photos pass through it, and what does not is told in one line."""

import sys

import pytest
import yaml
from paths import ROOT
from photos import photo
from PIL import Image
from processes import forked


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """A folder with a photo of 1020x678, 2 MB, and t.yaml, the config of a test on it."""
    folder = tmp_path_factory.mktemp('photo')
    (folder / 'photos').mkdir()
    Image.fromarray(photo(678, 1020)).save(folder / 'photos/a.png', compress_level=0)
    config = {'test_dataset': {
        'dataset': {'name': 'image-folder', 'args': {'root_path': 'photos'}}, 'batch_size': 1, 'num_workers': 1,
        'wrapper': {'name': 'sr-implicit-downsampled', 'args': {'scale_min': 8}}}}
    (folder / 't.yaml').write_text(yaml.safe_dump(config))
    return folder


MOUNTED = '''
import ctypes, runpy, subprocess, sys

assert ctypes.CDLL(None).unshare(0x20000) == 0, 'unshare'  # CLONE_NEWNS: what this process mounts it alone sees
subprocess.run(['mount', '--make-rprivate', '/'], check=True)
subprocess.run(['mount', '-t', 'tmpfs', '-o', f'size={sys.argv.pop(1)}', 'tmpfs', '/dev/shm'], check=True)
runpy.run_path('TEST', run_name='__main__')
'''


def evaluate(folder, shared):
    """What test.py gives for the photo where /dev/shm has a size of `shared`."""
    (folder / 'mounted.py').write_text(MOUNTED.replace('TEST', str(ROOT / 'test.py')))
    done = forked(folder, folder / 'mounted.py', shared, '--config', 't.yaml', '--model', 'bicubic', '--gpu', 'cpu')
    if 'unshare' in done.stderr or 'mount' in done.stderr:
        pytest.skip('needs the right to mount')
    return done


@pytest.mark.skipif(sys.platform != 'linux', reason='/dev/shm is of Linux')
def test_a_photo_takes_no_more_than_its_bytes(folder):
    done = evaluate(folder, '4m')  # in float32 it has 8
    assert done.returncode == 0 and 'result: ' in done.stdout, done.stderr


@pytest.mark.skipif(sys.platform != 'linux', reason='/dev/shm is of Linux')
def test_too_little_shared_memory_is_one_line_that_says_what_to_do(folder):
    done = evaluate(folder, '1m')
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].endswith('set num_workers: 0 in the config') and 'Traceback' not in done.stderr
