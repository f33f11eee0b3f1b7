"""Scales of a sample: one for each axis, fixed ones, and tests at two scales."""

import numpy as np
import pytest
import torch
from paths import ROOT
from photos import save_photos
from PIL import Image
from projects import Project

import evaluation
import models
from datasets.image_folder import ImageFolder
from datasets.loader import collate
from datasets.scales import Scales
from datasets.wrappers import Draw, SRImplicitDownsampled
from errors import UserError
from metrics import calc_psnr

DRAWS = 400


def drawn(*args, limits=(np.inf, np.inf), **kwargs):
    """Scales (y, x), a row for each of DRAWS draws."""
    rng, scales = np.random.default_rng(0), Scales(*args, **kwargs)
    return np.array([scales.draw(rng, limits) for _ in range(DRAWS)])


def test_by_default_both_axes_have_one_scale():
    y, x = drawn(1, 4).T
    assert np.array_equal(y, x) and 1 <= y.min() < 1.1 and 3.9 < y.max() <= 4


def test_anisotropic_axes_have_independent_scales():
    y, x = drawn(1, 4, anisotropic=True).T
    assert abs(np.corrcoef(y, x)[0, 1]) < 0.15
    for scales in y, x:
        assert 1 <= scales.min() < 1.1 and 3.9 < scales.max() <= 4


def test_each_axis_may_have_a_range_of_its_own():
    y, x = drawn([1, 2], [1.5, 4]).T
    assert 1 <= y.min() < y.max() <= 1.5 and 2 <= x.min() < x.max() <= 4


def test_two_numbers_alone_are_two_fixed_scales():
    assert (drawn([1.5, 3]) == (1.5, 3)).all()


@pytest.mark.parametrize('anisotropic, pairs', [(False, 3), (True, 9)])
def test_fixed_scales_are_drawn_alike(anisotropic, pairs):
    found, counts = np.unique(drawn(fixed=[2, 3, 4], anisotropic=anisotropic), axis=0, return_counts=True)
    assert len(found) == pairs and set(found.flatten()) == {2, 3, 4}
    assert counts.min() > DRAWS / pairs * 0.6


def test_a_limit_leaves_the_scales_that_fit():
    assert set(drawn(fixed=[2, 3, 4], limits=(3.5, np.inf)).flatten()) == {2, 3}
    y, x = drawn(1, 4, anisotropic=True, limits=(2, 9)).T
    assert y.max() <= 2 and x.max() > 3.5


@pytest.mark.parametrize('args, told', [
    ({'scales': []}, 'scales is empty'), ({'scales': [2], 'scale_max': 4}, 'replaces scale_min'),
    ({'scales': [0.5]}, '1 <= scale_min'), ({'scale_min': [2, 3, 4]}, 'scale_min must be a number, or two'),
    ({'scale_min': [2, 3], 'scale_max': 2.5}, 'not 3 and 2.5')])
def test_wrong_scales_are_errors(folder, args, told):
    with pytest.raises(UserError, match=told):
        SRImplicitDownsampled(ImageFolder(str(folder)), **args)


# --- samples -------------------------------------------------------------------------------------------------------


def test_a_sample_has_a_cell_of_two_scales(folder):
    sample = SRImplicitDownsampled(ImageFolder(str(folder)), inp_size=16, scale_min=[1.5, 3], sample_q=100)[0]
    assert sample['inp'].shape == (3, 16, 16)
    torch.testing.assert_close(sample['cell'], torch.tensor([[2 / 24, 2 / 48]]).repeat(100, 1))


def test_a_whole_image_is_reduced_by_both_scales(folder):
    image = next(image for image in ImageFolder(str(folder)) if image.shape == (70, 90, 3))
    expected = Image.fromarray(image[:69]).resize((30, 46), Image.BICUBIC)  # 46 rows of 1.5, 30 columns of 3
    wrapper = SRImplicitDownsampled(ImageFolder(str(folder)), scale_min=[1.5, 3])
    sample = next(sample for sample in (wrapper[i] for i in range(3)) if sample['gt'].shape == (3, 69, 90))
    assert np.array_equal(sample['inp'].permute(1, 2, 0), np.asarray(expected))


def test_the_targets_of_a_dense_batch_have_one_shape(folder):
    wrapper = SRImplicitDownsampled(ImageFolder(str(folder)), inp_size=8, scale_max=4, augment=True, anisotropic=True)
    shapes = set()
    for number in range(6):
        batch = collate([wrapper[Draw(i % 3, 0, 1, 8 * number + i, number)] for i in range(8)])
        shapes.add(tuple(batch['gt'].shape[2:]))
    assert len(shapes) > 3 and any(height != width for height, width in shapes)


@pytest.mark.parametrize('scale, fits', [([1.5, 4], True), ([4, 1.5], False)])
def test_an_image_must_hold_the_crop_of_each_axis(tmp_path, scale, fits):
    dataset = ImageFolder(str(save_photos(tmp_path / 'images', a=(30, 70))))
    if fits:
        assert SRImplicitDownsampled(dataset, inp_size=16, scale_min=scale, sample_q=9)[0]['gt'].shape == (9, 3)
    else:
        with pytest.raises(UserError, match='70x30 pixels, but a crop takes 24x64'):
            SRImplicitDownsampled(dataset, inp_size=16, scale_min=scale, sample_q=9)


# --- in training and evaluation ------------------------------------------------------------------------------------


@pytest.mark.parametrize('args', [
    {'inp_size': 8, 'scales': [1.5, 2, 3], 'sample_q': 16},
    {'inp_size': 8, 'scale_max': 3, 'anisotropic': True, 'augment': True, 'sample_q': 16},
    {'inp_size': 8, 'scale_min': [1, 2], 'scale_max': [2, 3], 'augment': True}])
def test_a_model_is_trained_with_such_scales(tmp_path, args):
    project = Project(tmp_path, {'epoch_max': 1, 'train_dataset.wrapper.args': args})
    project.train()
    assert project.checkpoint()['scale_max'] == 3 and project.checkpoint()['epoch'] == 1


def test_without_a_largest_scale_it_is_the_smallest(tmp_path):
    project = Project(tmp_path, {'epoch_max': 1, 'train_dataset.wrapper.args.scale_min': 2,
                                 'train_dataset.wrapper.args.scale_max': None})
    project.train()
    assert project.checkpoint()['scale_max'] == 2


def test_the_shipped_test_config_of_two_scales_measures_at_both(tmp_path, monkeypatch):
    photos = save_photos(tmp_path / 'load/benchmark/Set5/HR', a=(60, 90))
    photo = Image.open(next(photos.iterdir()))
    small = photo.resize((30, 40), Image.BICUBIC)  # width and height
    pair = [np.array(image) / 255 for image in (small.resize(photo.size, Image.BICUBIC), photo)]
    pred, truth = (torch.from_numpy(image).permute(2, 0, 1) for image in pair)
    monkeypatch.chdir(tmp_path)
    found = evaluation.evaluate(ROOT / 'configs/test/two-scales/test-set5-1.5x3.yaml', models.Bicubic())
    assert found['scale'] is None
    assert found['psnr'] == pytest.approx(calc_psnr(pred, truth, 'benchmark', 3).item(), abs=1e-3)
