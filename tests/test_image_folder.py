"""Image folders, alone and in pairs: which files, splits, errors."""

import json
from pathlib import Path

import numpy as np
import pytest
from photos import save_photos, truncate

import datasets
from datasets.image_folder import ImageFolder, PairedImageFolders
from errors import UserError

CACHES = ['none', 'bin', 'in_memory']


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


# --- which images ----------------------------------------------------------------------------------


def names(dataset):
    return [path.name for path in dataset.files]


def test_files_that_are_no_images_are_left_out_and_named_once(folder, capsys):
    for name in ('notes.txt', 'Thumbs.db', '._a.png', '.DS_Store'):
        (folder / name).write_bytes(b'no image')
    (folder / 'subfolder.png').mkdir()
    for _ in range(2):
        assert [path.name for path in ImageFolder(str(folder)).files] == ['a.png', 'b.png', 'c.png']
    assert capsys.readouterr().out.splitlines() == [
        f'note: {folder}: left out: .DS_Store, ._a.png (hidden)',
        f'note: {folder}: left out: Thumbs.db, notes.txt (not the suffix of an image)',
        f'note: {folder}: left out: subfolder.png (a folder; only one level is searched)']


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
    ({'root_path': 'x', 'first_k': 'ten'}, "first_k must be int or null, not 'ten'"),
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
