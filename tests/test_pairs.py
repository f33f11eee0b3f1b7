"""Which LR and HR images are pairs: by their names, whatever these end in and however they sort."""

import json

import pytest
from photos import save_photos
from PIL import Image

from datasets.image_folder import PairedImageFolders
from errors import UserError


@pytest.mark.parametrize('names', [
    ['fox1', 'fox2'], ['fox1', 'foggy'], ['640x480', '640-b'], ['max8', 'mat'], ['a', 'ax2'], ['ax2', 'ax2x2', 'a'],
    ['1', '10', '1x2', '10x2'], ['img', 'img-x2', 'imgx2y'], ['x2', 'x3', '0x2'], ['B', 'a', 'C', 'b']])
@pytest.mark.parametrize('scale', ['x2', '', 'x12'])
def test_pairs_are_found_whatever_hrs_own_names_end_in_and_sort_like(tmp_path, names, scale):
    sizes = {name: (2 + i, 3) for i, name in enumerate(names)}
    hr = save_photos(tmp_path / 'hr', **{name: (2 * h, 2 * w) for name, (h, w) in sizes.items()})
    lr = save_photos(tmp_path / 'lr', **{f'{name}{scale}': size for name, size in sizes.items()})
    dataset = PairedImageFolders(str(lr), str(hr))
    assert sorted(dataset.size(i) for i in range(len(names))) == [((h, 3), (2 * h, 6)) for h, _ in sizes.values()]


def test_pairs_of_which_some_names_have_the_scale_are_found(tmp_path):
    lr = save_photos(tmp_path / 'lr', **{'ax2': (2, 2), 'b': (3, 3), 'cx3': (4, 4)})
    hr = save_photos(tmp_path / 'hr', **{'a': (4, 4), 'b': (6, 6), 'cx3': (8, 8)})
    dataset = PairedImageFolders(str(lr), str(hr))
    assert [dataset.size(i)[0] for i in range(3)] == [(2, 2), (3, 3), (4, 4)]


def test_pairs_of_one_stem_go_by_their_formats(tmp_path):
    for part, factor in (('lr', 1), ('hr', 2)):
        (tmp_path / part).mkdir()
        for n, suffix in ((4, 'bmp'), (5, 'png')):
            Image.new('RGB', (n * factor, n * factor)).save(tmp_path / part / f'a.{suffix}')
    dataset = PairedImageFolders(str(tmp_path / 'lr'), str(tmp_path / 'hr'))
    assert [dataset.size(i) for i in range(2)] == [((4, 4), (8, 8)), ((5, 5), (10, 10))]


def test_pairs_of_lists_of_folders_go_by_their_places(tmp_path):
    lr, hr = ([str(save_photos(tmp_path / f'{part}{i}', **{f'a{end}': (3 + i, 3)})) for i in range(2)]
              for part, end in (('lr', 'x2'), ('hr', '')))
    dataset = PairedImageFolders(lr, hr)
    assert [dataset.size(i) for i in range(2)] == [((3, 3), (3, 3)), ((4, 3), (4, 3))]
    save_photos(tmp_path / 'lr0', **{'bx2': (9, 9)})
    save_photos(tmp_path / 'one', **{'a': (3, 3), 'b': (9, 9)})
    assert len(PairedImageFolders(lr[:1], [str(tmp_path / 'one')])) == 2


@pytest.mark.parametrize('listed', [['c', 'a'], ['cx3', 'ax3']])
def test_a_split_names_the_files_of_either_folder_of_pairs(tmp_path, listed):
    lr = save_photos(tmp_path / 'lr', ax3=(2, 2), bx3=(3, 3), cx3=(4, 4))
    hr = save_photos(tmp_path / 'hr', a=(6, 6), b=(9, 9), c=(12, 12), alone=(3, 3))
    (tmp_path / 'split.json').write_text(json.dumps({'train': [f'{name}.png' for name in listed]}))
    split = str(tmp_path / 'split.json'), 'train'
    dataset = PairedImageFolders(str(lr), str(hr), *split)
    assert [dataset.size(i) for i in range(2)] == [((4, 4), (12, 12)), ((2, 2), (6, 6))]
    assert len(PairedImageFolders(str(lr), str(hr), *split, first_k=1)) == 1


def test_a_split_of_pairs_may_name_files_in_folders_below(tmp_path):
    for part, end, size in (('lr', 'x2', 3), ('hr', '', 6)):
        for i, folder in enumerate(('1', '2')):
            save_photos(tmp_path / part / folder, **{f'a{end}': (size + i, size)})
    (tmp_path / 'split.json').write_text(json.dumps({'train': ['2/a.png']}))
    dataset = PairedImageFolders(str(tmp_path / 'lr'), str(tmp_path / 'hr'), str(tmp_path / 'split.json'), 'train')
    assert len(dataset) == 1 and dataset.size(0) == ((4, 3), (7, 6))


def test_a_split_with_a_name_that_no_pair_has_is_an_error(pair, tmp_path):
    (tmp_path / 'split.json').write_text(json.dumps({'train': ['a.png', 'z.png']}))
    with pytest.raises(UserError, match='z.png: is in split_file .*split.json, but no pair of images in .*lr and .*hr'):
        PairedImageFolders(*map(str, pair), str(tmp_path / 'split.json'), 'train')


def test_one_folder_of_pairs_may_hold_those_for_training_and_validation(tmp_path):
    lr = save_photos(tmp_path / 'lr', **{f'{i:02}x2': (i + 1, 2) for i in range(12)})
    hr = save_photos(tmp_path / 'hr', **{f'{i:02}': (2 * i + 2, 4) for i in range(12)})
    train, valid = (PairedImageFolders(str(lr), str(hr), part=part) for part in ('train', 'valid'))
    assert [valid.size(i) for i in range(len(valid))] == [((10, 2), (20, 4))]
    assert [train.size(i)[0][0] for i in range(len(train))] == [1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12]


def test_the_first_pairs_are_counted_when_all_are_found(tmp_path):
    lr = save_photos(tmp_path / 'lr', **{'max8x2': (2, 2), 'matx2': (3, 3)})
    hr = save_photos(tmp_path / 'hr', **{'max8': (4, 4), 'mat': (6, 6)})
    dataset = PairedImageFolders(str(lr), str(hr), first_k=1)
    assert len(dataset) == 1 and dataset.size(0) in (((2, 2), (4, 4)), ((3, 3), (6, 6)))


def test_what_lacks_its_partner_is_named(pair):
    (pair[0] / 'ax3.png').unlink()
    with pytest.raises(UserError, match='lr has 1 images, but .*hr has 2; each needs a partner, and .*hr/a.png has'):
        PairedImageFolders(*map(str, pair))
