"""Mistakes in the images of a config: one line on stderr that names the folder or the file."""

import json
import re

import pytest
from PIL import Image
from projects import error, write_photos

PAIR = {'train_dataset.dataset': {'name': 'paired-image-folders', 'args': {'root_path_1': 'LR', 'root_path_2': 'HR'}},
        'train_dataset.wrapper': {'name': 'sr-implicit-paired', 'args': {'inp_size': 8, 'sample_q': 16}}}


def test_a_missing_folder(project):
    project.change({'train_dataset.dataset.args.root_path': 'load/nowhere'})
    assert 'train_dataset: dataset image-folder: load/nowhere: no such folder; put or link' in error(project)


def test_an_empty_folder(project):
    (project.folder / 'empty').mkdir()
    project.change({'val_dataset.dataset.args.root_path': 'empty'})
    assert 'val_dataset: dataset image-folder: empty: holds no images (.png, ' in error(project)


@pytest.mark.parametrize('cache, workers', [('none', 0), ('none', 1), ('none', 2), ('in_memory', 0), ('bin', 0)])
def test_a_corrupt_image(project, cache, workers):
    photo = project.folder / 'photos/4.png'
    photo.write_bytes(photo.read_bytes()[:-500])
    project.change({'train_dataset.dataset.args.cache': cache, 'train_dataset.num_workers': workers})
    assert 'photos/4.png: cannot be read as an image (' in error(project)


def test_a_mistake_that_shows_in_a_worker(project):
    project.change({'train_dataset.wrapper.args': {'sample_q': 2001}, 'train_dataset.num_workers': 1})
    assert re.fullmatch(r'photos/\d.png: sample_q must be at most 2000, the pixels of a target of 50x40, not 2001',
                        error(project))


def test_a_split_file_without_the_key(project):
    (project.folder / 'split.json').write_text(json.dumps({'train': ['0.png']}))
    project.change({'train_dataset.dataset.args.split_file': 'split.json',
                    'train_dataset.dataset.args.split_key': 'valid'})
    assert "split_file split.json: no split_key 'valid' (known: train)" in error(project)


def paired(project):
    """Makes the project's training images pairs: two photos of 20x25 and of 40x50."""
    project.change(PAIR)
    write_photos(project.folder / 'LR', 2, 20, 25)
    write_photos(project.folder / 'HR', 2, 40, 50)


def test_paired_folders_of_different_length(project):
    paired(project)
    (project.folder / 'HR/1.png').unlink()
    assert 'LR has 2 images, but HR has 1' in error(project)


def test_paired_folders_whose_names_do_not_match(project):
    paired(project)
    (project.folder / 'LR/0.png').rename(project.folder / 'LR/0x2.png')  # this one does
    (project.folder / 'LR/1.png').rename(project.folder / 'LR/2.png')
    assert 'LR/2.png and HR/1.png: names of a pair must agree' in error(project)


def test_pairs_whose_sizes_do_not_fit(project):
    paired(project)
    Image.new('RGB', (75, 40)).save(project.folder / 'HR/1.png')
    assert 'LR/1.png and HR/1.png: LR is 25x20, HR 75x40: HR must be 1, 2, 3, ... times LR' in error(project)
