"""Image folders, alone and in pairs: files, formats, caches, errors."""

import json
import os
import pickle
import shutil
from multiprocessing.reduction import ForkingPickler
from pathlib import Path

import numpy as np
import pytest
from photos import photo, save_photos
from PIL import Image

import datasets
from datasets.image_folder import ImageFolder, PairedImageFolders
from utils import UserError

CACHES = ['none', 'bin', 'in_memory']


def truncate(path):
    path.write_bytes(path.read_bytes()[:path.stat().st_size // 2])


# --- damaged files --------------------------------------------------------------------------------


@pytest.mark.parametrize('content', [b'', b'no image', b'\x89PNG\r\n\x1a\n and then nothing'])
@pytest.mark.parametrize('cache', CACHES)
def test_a_file_that_is_no_image_in_spite_of_its_name_is_an_error_with_its_path(folder, cache, content):
    (folder / 'b.png').write_bytes(content)
    with pytest.raises(UserError, match='images/b.png: cannot be read as an image') as info:
        ImageFolder(str(folder), cache=cache)[1]
    assert '\n' not in str(info.value)


@pytest.mark.parametrize('cache', CACHES)
def test_a_truncated_image_is_an_error_with_its_path(folder, cache):
    truncate(folder / 'b.png')
    with pytest.raises(UserError, match='images/b.png: cannot be read as an image'):
        ImageFolder(str(folder), cache=cache)[1]


# --- caches ----------------------------------------------------------------------------------------


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


# --- which images ----------------------------------------------------------------------------------


def names(dataset):
    return [path.name for path in dataset.files]


def test_files_that_are_no_images_are_left_out(folder):
    for name in ('notes.txt', 'Thumbs.db', '._a.png', '.DS_Store'):
        (folder / name).write_bytes(b'no image')
    (folder / 'subfolder.png').mkdir()
    assert [path.name for path in ImageFolder(str(folder)).files] == ['a.png', 'b.png', 'c.png']


def test_repeat_repeats_the_whole_list(folder):
    dataset = ImageFolder(str(folder), repeat=2)
    assert len(dataset) == 6
    assert np.array_equal(dataset[4], dataset[1])


def test_a_for_loop_over_a_dataset_ends(folder):
    assert sum(1 for _ in ImageFolder(str(folder), repeat=2)) == 6


def test_first_k_takes_the_first(folder):
    assert names(ImageFolder(str(folder), first_k=2)) == ['a.png', 'b.png']


def test_several_folders_are_read_one_after_the_other(folder, tmp_path):
    save_photos(tmp_path / 'more', a=(50, 50))
    dataset = ImageFolder([str(tmp_path / 'more'), str(folder)])
    assert names(dataset) == ['a.png', 'a.png', 'b.png', 'c.png']
    assert dataset.size(0) == (50, 50)


def test_a_split_names_files_in_its_own_order(folder, tmp_path):
    (tmp_path / 'split.json').write_text(json.dumps({'train': ['c.png', 'a.png'], 'test': ['b.png']}))
    assert names(ImageFolder(str(folder), str(tmp_path / 'split.json'), 'train')) == ['c.png', 'a.png']
    assert names(ImageFolder(str(folder), str(tmp_path / 'split.json'), 'train', first_k=1)) == ['c.png']


@pytest.mark.parametrize('content, message', [
    ('{"train": ["a.png"]}', r"split.json: no split_key 'valid' \(known: train\)"),
    ('["a.png"]', 'split.json: no split_key'),
    ('{"valid": "a.png"}', "split.json: 'valid' must hold a list"),
    ('{"valid": ["z.png"]}', 'z.png: is in split_file .*split.json, but not in .*images'),
    ('{valid', 'split.json: is not valid JSON'),
    (None, 'split.json: cannot be read'),
])
def test_errors_of_split_files(folder, tmp_path, content, message):
    if content is not None:
        (tmp_path / 'split.json').write_text(content)
    with pytest.raises(UserError, match=message):
        ImageFolder(str(folder), str(tmp_path / 'split.json'), 'valid')


def test_a_missing_folder_is_an_error_with_its_path(tmp_path):
    with pytest.raises(UserError, match='nowhere: no such folder'):
        ImageFolder(str(tmp_path / 'nowhere'))


def test_a_folder_without_images_is_an_error_with_its_path(tmp_path):
    (tmp_path / 'notes.txt').write_text('no image')
    with pytest.raises(UserError, match=f'{tmp_path}: holds no images'):
        ImageFolder(str(tmp_path))


@pytest.mark.parametrize('key', ['first_k', 'repeat'])
def test_counts_below_1_are_errors(folder, key):
    with pytest.raises(UserError, match=f'{key} must be at least 1, not 0'):
        ImageFolder(str(folder), **{key: 0})


@pytest.mark.parametrize('args, message', [
    ({'root_path': 'x', 'cash': 'bin'}, "unknown key 'cash', did you mean 'cache'"),
    ({'root_path': 'x', 'cache': 'disk'}, "cache must be 'none' | 'bin' | 'in_memory', not 'disk'"),
    ({'root_path': 'x', 'first_k': 'ten'}, "first_k must be int or nothing, not 'ten'"),
    ({}, "missing key 'root_path'"),
])
def test_a_spec_is_checked(args, message):
    with pytest.raises(UserError) as info:
        datasets.make({'name': 'image-folder', 'args': args})
    assert message in str(info.value)


def test_a_folder_that_may_not_be_read_is_an_error(folder, monkeypatch):
    def refuse(path):
        raise PermissionError(13, 'Permission denied', str(path))

    monkeypatch.setattr(Path, 'iterdir', refuse)
    with pytest.raises(UserError, match=r'images: cannot be read \(Permission denied\)'):
        ImageFolder(str(folder))


# --- pairs -----------------------------------------------------------------------------------------


def test_pairs_go_by_name_without_the_scale(tmp_path):
    lr = save_photos(tmp_path / 'X2', **{'img1x2': (4, 5), 'img10x2': (6, 7)})
    hr = save_photos(tmp_path / 'HR', **{'img1': (8, 10), 'img10': (12, 14)})
    dataset = PairedImageFolders(str(lr), str(hr), repeat=3)
    assert len(dataset) == 6
    assert [dataset.size(i) for i in range(2)] == [((4, 5), (8, 10)), ((6, 7), (12, 14))]
    assert [image.shape for image in dataset[3]] == [(6, 7, 3), (12, 14, 3)]


def test_paired_folders_of_different_length_are_an_error_with_both_paths(pair):
    (pair[1] / 'a.png').unlink()
    with pytest.raises(UserError, match='lr has 2 images, but .*hr has 1'):
        PairedImageFolders(*map(str, pair))


def test_a_trailing_x_and_number_belongs_to_the_name_where_both_have_it(tmp_path):
    lr, hr = (save_photos(tmp_path / part, box1=(4, 5), box2=(4, 5)) for part in ('lr', 'hr'))
    assert len(PairedImageFolders(str(lr), str(hr))) == 2
    (hr / 'box2.png').rename(hr / 'box3.png')
    with pytest.raises(UserError, match='box2.png and .*box3.png: names of a pair must agree'):
        PairedImageFolders(str(lr), str(hr))


def test_pairs_of_different_names_are_an_error_with_both_files(pair):
    (pair[1] / 'b.png').rename(pair[1] / 'c.png')
    with pytest.raises(UserError, match='lr/bx3.png and .*hr/c.png: names'):
        PairedImageFolders(*map(str, pair))
