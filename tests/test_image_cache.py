"""Caches of image folders: in memory, and decoded copies on disk."""

import multiprocessing
import os
import pickle
import shutil
from multiprocessing.reduction import ForkingPickler

import numpy as np
import pytest
from photos import photo, truncate
from PIL import Image

from datasets.image_file import read_image
from datasets.image_folder import ImageFolder
from errors import UserError

CACHES = ['none', 'bin', 'in_memory']


@pytest.mark.parametrize('cache', CACHES)
def test_images_and_sizes_are_the_same_in_each_cache(folder, cache):
    dataset = ImageFolder(str(folder), cache=cache)
    for i, size in enumerate([(70, 90), (85, 64), (64, 64)]):
        assert np.array_equal(dataset[i], photo(*size, seed=i))
        assert dataset.size(i) == size


def test_in_memory_costs_3_bytes_a_pixel_and_reads_no_file_later(folder):
    dataset = ImageFolder(str(folder), cache='in_memory')
    (folder / 'a.png').unlink()
    assert dataset[0].nbytes == 70 * 90 * 3


def test_what_is_in_memory_cannot_be_changed(folder):
    assert not ImageFolder(str(folder), cache='in_memory')[0].flags.writeable


def test_workers_that_do_not_fork_share_what_is_in_memory(folder):
    pickled = ForkingPickler.dumps(ImageFolder(str(folder), cache='in_memory'))  # what such a worker is sent
    assert len(pickled) < 70 * 90
    assert np.array_equal(pickle.loads(pickled)[1], photo(85, 64, seed=1))


def test_without_cache_a_size_comes_from_the_header_alone(folder):
    truncate(folder / 'b.png')
    assert ImageFolder(str(folder)).size(1) == (85, 64)


def test_bin_is_a_read_only_memory_map_beside_the_folder(folder):
    image = ImageFolder(str(folder), cache='bin')[0]
    assert isinstance(image, np.memmap)
    assert not image.flags.writeable
    assert sorted(p.name for p in (folder.parent / '_bin_images').iterdir()) == ['a.png.npy', 'b.png.npy', 'c.png.npy']


def test_bin_is_made_once(folder):
    ImageFolder(str(folder), cache='bin')
    before = (folder.parent / '_bin_images/a.png.npy').stat()
    ImageFolder(str(folder), cache='bin')
    assert (folder.parent / '_bin_images/a.png.npy').stat() == before


def test_bin_is_made_anew_for_a_newer_image(folder):
    ImageFolder(str(folder), cache='bin')
    Image.fromarray(photo(30, 40, seed=9)).save(folder / 'a.png')
    later = (folder.parent / '_bin_images/a.png.npy').stat().st_mtime + 1
    os.utime(folder / 'a.png', (later, later))
    assert np.array_equal(ImageFolder(str(folder), cache='bin')[0], photo(30, 40, seed=9))


def test_bin_is_made_anew_for_an_older_image(folder):
    ImageFolder(str(folder), cache='bin')
    Image.fromarray(photo(30, 40, seed=9)).save(folder / 'a.png')
    os.utime(folder / 'a.png', (1e9, 1e9))  # as cp -p and unzip leave it
    for _ in range(2):
        assert np.array_equal(ImageFolder(str(folder), cache='bin')[0], photo(30, 40, seed=9))


@pytest.mark.parametrize('size', [(30, 40), (70, 90)])
def test_bin_is_made_anew_for_changed_content_of_unchanged_time(folder, size):
    Image.fromarray(photo(70, 90)).save(folder / 'a.bmp')
    os.utime(folder / 'a.bmp', (1, 1))
    ImageFolder(str(folder), cache='bin')
    Image.fromarray(photo(*size, seed=9)).save(folder / 'a.bmp')
    os.utime(folder / 'a.bmp', (1, 1))  # as in reproducible archives
    assert np.array_equal(ImageFolder(str(folder), cache='bin')[0], photo(*size, seed=9))


def test_bin_has_no_leftovers_of_killed_processes(folder):
    (folder.parent / '_bin_images').mkdir()
    (folder.parent / '_bin_images/.0123456789abcdef.tmp').write_bytes(b'half')
    ImageFolder(str(folder), cache='bin')
    assert not list((folder.parent / '_bin_images').glob('*.tmp'))


def test_bin_of_several_processes_at_once(folder):
    def read():
        images = ImageFolder(str(folder), cache='bin')
        assert all(np.array_equal(images[i], read_image(images.files[i])) for i in range(len(images)))

    processes = [multiprocessing.get_context('fork').Process(target=read) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]


def test_bin_of_the_longest_name(folder):
    (folder / 'a.png').rename(folder / ('a' * 251 + '.png'))
    assert np.array_equal(ImageFolder(str(folder), cache='bin')[0], photo(70, 90))


def test_bin_of_a_folder_that_is_named_twice_is_made_of_each_image(folder):
    for _ in range(5):
        assert len(ImageFolder([str(folder), str(folder)], cache='bin')) == 6
        shutil.rmtree(folder.parent / '_bin_images')


def test_bin_of_linked_images_lies_beside_the_link(folder, tmp_path):
    (tmp_path / 'load').mkdir()
    (tmp_path / 'load/link').symlink_to(folder)
    ImageFolder(str(tmp_path / 'load/link'), cache='bin')
    assert (tmp_path / 'load/_bin_link/a.png.npy').exists()


def test_bin_folder_that_cannot_be_written_is_an_error_with_its_path(folder):
    (folder.parent / '_bin_images').write_text('in the way')
    with pytest.raises(UserError, match='_bin_images: cannot be written .* in_memory'):
        ImageFolder(str(folder), cache='bin')


def test_a_truncated_bin_is_an_error_with_its_path(folder):
    dataset = ImageFolder(str(folder), cache='bin')
    truncate(folder.parent / '_bin_images/b.png.npy')
    with pytest.raises(UserError, match='b.png.npy: cannot be read'):
        dataset[1]


def test_bin_never_loads_a_pickle(folder):
    dataset = ImageFolder(str(folder), cache='bin')
    np.save(folder.parent / '_bin_images/a.png.npy', np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(UserError, match='a.png.npy: cannot be read'):
        dataset[0]
