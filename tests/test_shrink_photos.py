"""scripts/shrink_photos.py: folders of photos as AVIF, within a size."""

import sys

import numpy as np
import pytest
from photos import save_photos
from PIL import Image

from errors import UserError
from scripts import shrink_photos


def shrink(monkeypatch, *args):
    monkeypatch.setattr(sys, 'argv', ['shrink_photos.py', *map(str, args)])
    shrink_photos.main()


@pytest.fixture
def folders(tmp_path):
    sizes = {f'p{i}': (90, 120) for i in range(12)}
    return save_photos(tmp_path / 'a', **sizes), save_photos(tmp_path / 'b', one=(64, 80))


def test_all_photos_come_in_their_sizes_and_take_no_more_than_was_allowed(folders, tmp_path, monkeypatch):
    sizes = {}
    for limit in (0.1, 0.03):
        shrink(monkeypatch, *folders, '--output', tmp_path / str(limit), '--megabytes', limit)
        files = sorted((tmp_path / str(limit)).rglob('*.avif'))
        assert [file.relative_to(tmp_path / str(limit)).parts for file in files] == sorted(
            [('a', f'p{i}.avif') for i in range(12)] + [('b', 'one.avif')])
        sizes[limit] = sum(file.stat().st_size for file in files)
        assert sizes[limit] <= limit * 1e6
    assert sizes[0.03] < sizes[0.1]
    small = np.asarray(Image.open(tmp_path / '0.1/a/p3.avif'), float)
    assert small.shape == (90, 120, 3)
    assert np.abs(small - np.asarray(Image.open(folders[0] / 'p3.png'), float)).mean() < 12


def test_names_may_be_as_long_as_the_file_system_allows(tmp_path, monkeypatch):
    folder = save_photos(tmp_path / 'a', **{'L' * 251: (64, 80)})
    shrink(monkeypatch, folder, '--output', tmp_path / 'out')
    assert len(list((tmp_path / 'out/a').glob('*.avif'))) == 1


def test_photos_that_cannot_fit_are_an_error(folders, tmp_path, monkeypatch):
    with pytest.raises(UserError, match='13 photos do not fit into'):
        shrink(monkeypatch, *folders, '--output', tmp_path / 'out', '--megabytes', 0.001)
    assert not (tmp_path / 'out').exists()
