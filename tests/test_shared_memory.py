"""Little shared memory, as Docker's 64 MB: whole photos pass through it, and what does not is told in one line."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from photos import save_photos

ROOT = Path(__file__).resolve().parents[1]


def evaluate(folder, shared):
    """What test.py gives for a photo of 2040x1356 where /dev/shm has a size of `shared`."""
    save_photos(folder / 'photos', a=(1356, 2040))
    config = {'test_dataset': {
        'dataset': {'name': 'image-folder', 'args': {'root_path': 'photos'}}, 'batch_size': 1, 'num_workers': 1,
        'wrapper': {'name': 'sr-implicit-downsampled', 'args': {'scale_min': 8}}}}
    (folder / 't.yaml').write_text(yaml.safe_dump(config))
    command = (f'mount -t tmpfs -o size={shared} tmpfs /dev/shm && exec {sys.executable} {ROOT}/test.py '
               '--config t.yaml --model bicubic --gpu cpu')
    done = subprocess.run(['unshare', '-m', 'bash', '-c', command], cwd=folder, capture_output=True, text=True,
                          env={**os.environ, 'OMP_NUM_THREADS': '1'}, timeout=120)
    if 'unshare' in done.stderr or 'mount' in done.stderr:
        pytest.skip('needs the right to mount')
    return done


@pytest.mark.skipif(sys.platform != 'linux', reason='/dev/shm is of Linux')
def test_a_photo_of_div2ks_size_passes_through_16_mb(tmp_path):
    done = evaluate(tmp_path, '16m')
    assert done.returncode == 0 and 'result: ' in done.stdout, done.stderr


@pytest.mark.skipif(sys.platform != 'linux', reason='/dev/shm is of Linux')
def test_too_little_shared_memory_is_one_line_that_says_what_to_do(tmp_path):
    done = evaluate(tmp_path, '4m')
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].endswith('set num_workers: 0 in the config') and 'Traceback' not in done.stderr
