"""Images too small for the largest crop of a wrapper: an error, or skipped, or given a scale that fits."""

import numpy as np
import pytest
import torch
from photos import same_items, save_photos
from plain_samples import plain_downsampled

from datasets.image_folder import ImageFolder
from datasets.wrappers import Draw, SRImplicitDownsampled
from errors import UserError


@pytest.fixture
def mixed(tmp_path):
    """Of three images two have no room for a crop of 16 * 4 pixels."""
    return ImageFolder(str(save_photos(tmp_path / 'mixed', a=(70, 64), b=(100, 40), c=(63, 90))), repeat=2)


def test_small_images_are_an_error_when_the_wrapper_is_made(mixed):
    with pytest.raises(UserError, match=r'b.png: 40x100 pixels, .*64x64 \(2 of 3 .*: skip .*: fit '):
        SRImplicitDownsampled(mixed, inp_size=16, scale_max=4)


def test_small_images_are_skipped_on_demand_in_one_line(mixed, capsys):
    wrapper = SRImplicitDownsampled(mixed, inp_size=16, scale_max=4, small_images='skip')
    assert capsys.readouterr().out == '2 of 3 images, smaller than 64x64 pixels, are left out\n'
    assert len(wrapper) == 2
    assert [path.name for path in mixed.files] == ['a.png']


def test_of_several_processes_the_first_says_what_is_skipped(mixed, capsys, monkeypatch):
    monkeypatch.setenv('RANK', '1')
    SRImplicitDownsampled(mixed, inp_size=16, scale_max=4, small_images='skip')
    assert capsys.readouterr().out == ''


def test_skipping_all_images_is_an_error(mixed):
    with pytest.raises(UserError, match=r'a.png: 64x70 pixels, .*160x160 \(3 of 3'):
        SRImplicitDownsampled(mixed, inp_size=16, scale_max=10, small_images='skip')


def test_small_images_get_a_scale_that_fits_on_demand(mixed):
    wrapper = SRImplicitDownsampled(mixed, inp_size=16, scale_max=4, sample_q=50, small_images='fit')
    sides = [(2 / wrapper[Draw(1, 0, 0, p)]['cell'][0, 0]).round().int().item() for p in range(40)]
    assert 35 < max(sides) <= 40
    assert min(sides) >= 16


def test_fit_leaves_the_samples_of_large_images_as_they_are(mixed):
    wrapper = SRImplicitDownsampled(mixed, inp_size=16, scale_max=4, sample_q=50, small_images='fit')
    plain = plain_downsampled(mixed[0], np.random.default_rng((1, 2, 3)), 16, 1, 4, False, 50)
    same_items(wrapper[Draw(0, 1, 2, 3)], plain)


def test_fit_is_an_error_where_not_even_the_smallest_crop_fits(mixed):
    with pytest.raises(UserError, match=r'b.png: 40x100 pixels, .*48x48 \(1 of 3'):
        SRImplicitDownsampled(mixed, inp_size=16, scale_min=3, scale_max=4, sample_q=50, small_images='fit')


def test_without_sample_q_all_samples_of_a_batch_have_one_scale_and_batches_differ(mixed):
    wrapper = SRImplicitDownsampled(mixed, inp_size=16, scale_max=4, small_images='fit')
    sides = [{wrapper[Draw(p % 6, 0, 0, p, batch)]['gt'].shape[1] for p in range(24)} for batch in range(20)]
    assert all(len(side) == 1 for side in sides)
    assert min(map(min, sides)) < 24 and max(map(max, sides)) > 56


def test_without_sample_q_large_images_take_the_place_of_those_too_small_for_the_scale(mixed):
    wrapper = SRImplicitDownsampled(mixed, inp_size=16, scale_min=4, small_images='fit')
    whole = torch.tensor(mixed[0]).permute(2, 0, 1)
    for i in range(3):
        gt = wrapper[Draw(i, 0, 0, i)]['gt']
        assert any(torch.equal(gt, whole[:, y:y + 64]) for y in range(7))


def test_without_sample_q_one_image_must_be_large_enough_for_the_largest_scale(mixed):
    with pytest.raises(UserError, match=r'a.png: 64x70 pixels, .*160x160 \(3 of 3 .*lower inp_size or scale_max$'):
        SRImplicitDownsampled(mixed, inp_size=16, scale_max=10, small_images='fit')


def test_an_image_with_no_input_pixel_at_a_test_scale_is_an_error(mixed):
    with pytest.raises(UserError, match='b.png: 40x100'):
        SRImplicitDownsampled(mixed, scale_min=41)
