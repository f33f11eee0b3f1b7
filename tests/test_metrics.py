"""What `utils` measures and where: coordinates by their definition, PSNR and SSIM against scikit-image."""

import math

import numpy as np
import pytest
import torch
from skimage.color import rgb2ycbcr
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

import metrics
from errors import UserError
from metrics import calc_psnr, calc_ssim
from utils import make_coord, to_pixel_samples


@pytest.fixture
def pair():
    """A prediction and its truth, (1, 3, 47, 61) in float64."""
    rng = np.random.default_rng(0)
    hr = rng.random((1, 3, 47, 61))
    sr = np.clip(hr + rng.normal(0, 0.1, hr.shape), 0, 1)
    return torch.from_numpy(sr), torch.from_numpy(hr)


def pixels(img, shave=0):
    """(1, C, H, W) as scikit-image's (H, W, C), without a border."""
    return img[0, :, shave:img.shape[-2] - shave, shave:img.shape[-1] - shave].permute(1, 2, 0).numpy()


def luma(img, shave=0):
    return rgb2ycbcr(pixels(img, shave))[..., 0] / 255


# --- coordinates ---------------------------------------------------------------------------------------------------


def test_coordinates_are_the_pixel_centres_of_an_image_that_spans_minus_1_to_1():
    coord = make_coord((2, 4), flatten=False)
    assert coord.shape == (2, 4, 2) and coord.dtype == torch.float32
    assert coord[:, 0, 0].tolist() == [-0.5, 0.5]
    assert coord[0, :, 1].tolist() == [-0.75, -0.25, 0.25, 0.75]


def test_flat_coordinates_go_row_by_row():
    assert torch.equal(make_coord((3, 5)), make_coord((3, 5), flatten=False).reshape(15, 2))


def test_ranges_replace_minus_1_to_1_axis_by_axis():
    assert make_coord((2, 1), ranges=[(0, 1), (-3, 1)]).tolist() == [[0.25, -1], [0.75, -1]]


def test_pixel_samples_pair_each_colour_with_its_centre():
    img = torch.rand(3, 4, 6)
    coord, rgb = to_pixel_samples(img)
    assert coord.shape == (24, 2) and rgb.shape == (24, 3)
    for (y, x), colour in zip(coord.tolist(), rgb, strict=True):
        assert torch.equal(colour, img[:, math.floor((y + 1) / 2 * 4), math.floor((x + 1) / 2 * 6)])


# --- PSNR ----------------------------------------------------------------------------------------------------------


def test_psnr_without_convention_is_scikit_images(pair):
    expected = peak_signal_noise_ratio(pixels(pair[1]), pixels(pair[0]), data_range=1)
    assert calc_psnr(*pair).item() == pytest.approx(expected, abs=1e-9)


def test_psnr_is_a_scalar_tensor(pair):
    assert isinstance(calc_psnr(*pair), torch.Tensor) and calc_psnr(*pair).shape == ()


def test_psnr_of_samples_that_are_no_image(pair):
    sr, hr = (img.flatten(2).transpose(1, 2) for img in pair)
    assert calc_psnr(sr, hr).item() == pytest.approx(calc_psnr(*pair).item(), abs=1e-9)


@pytest.mark.parametrize('scale', [2, 3, 8])
def test_div2k_psnr_is_of_rgb_shaved_by_scale_and_6(pair, scale):
    expected = peak_signal_noise_ratio(pixels(pair[1], scale + 6), pixels(pair[0], scale + 6), data_range=1)
    assert calc_psnr(*pair, dataset='div2k', scale=scale).item() == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize('scale', [2, 3, 8])
def test_benchmark_psnr_is_of_luma_shaved_by_scale(pair, scale):
    # scikit-image rounds BT.601's coefficients elsewhere: they agree within 1e-4 dB.
    expected = peak_signal_noise_ratio(luma(pair[1], scale), luma(pair[0], scale), data_range=1)
    assert calc_psnr(*pair, dataset='benchmark', scale=scale).item() == pytest.approx(expected, abs=1e-4)


def test_benchmark_psnr_of_a_grey_image_is_of_its_only_channel(pair):
    sr, hr = (img[:, :1] for img in pair)
    expected = peak_signal_noise_ratio(pixels(hr, 2), pixels(sr, 2), data_range=1)
    assert calc_psnr(sr, hr, dataset='benchmark', scale=2).item() == pytest.approx(expected, abs=1e-9)


def test_benchmark_psnr_has_the_published_coefficients():
    black = torch.zeros(1, 3, 9, 9, dtype=torch.float64)
    for channel, coefficient in enumerate((65.738, 129.057, 25.064)):
        primary = black.clone()
        primary[:, channel] = 1
        psnr = calc_psnr(primary, black, dataset='benchmark', scale=1).item()
        assert psnr == pytest.approx(-20 * math.log10(coefficient / 256), abs=1e-6)


def test_rgb_range_is_the_peak(pair):
    sr, hr = pair
    assert calc_psnr(sr * 255, hr * 255, rgb_range=255).item() == pytest.approx(calc_psnr(sr, hr).item(), abs=1e-9)


@pytest.mark.parametrize('dataset, scale, shave', [
    (None, 4, 0), ('benchmark', 2, 2), ('benchmark', 2.5, 3), ('benchmark', 3.7, 4), ('div2k', 4, 10),
    ('div2k', 2.5, 9)])
def test_the_shaved_border_is_whole_pixels_rounded_up(dataset, scale, shave):
    hr = torch.zeros(1, 3, 40, 50)
    border = torch.ones_like(hr)
    border[..., shave:40 - shave, shave:50 - shave] = 0
    assert calc_psnr(border, hr, dataset, scale) == math.inf
    for y, x in ((shave, 25), (39 - shave, 25), (20, shave), (20, 49 - shave)):
        one_pixel_inside = border.clone()
        one_pixel_inside[..., y, x] = 1
        assert calc_psnr(one_pixel_inside, hr, dataset, scale) < math.inf


def test_an_image_that_is_all_border_is_an_error_that_names_its_size():
    img = torch.zeros(1, 3, 20, 40)
    with pytest.raises(UserError, match='40x20'):
        calc_psnr(img, img, dataset='div2k', scale=4)


def test_an_unknown_convention_is_an_error_that_names_the_known(pair):
    with pytest.raises(UserError, match='benchmrk.*benchmark.*div2k'):
        calc_psnr(*pair, dataset='benchmrk', scale=2)


# --- SSIM ----------------------------------------------------------------------------------------------------------


def ssim(sr, hr, **args):
    """Wang et al.'s settings in scikit-image."""
    return structural_similarity(
        hr, sr, data_range=1, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, **args)


def test_ssim_without_convention_is_scikit_images_mean_over_channels(pair):
    assert calc_ssim(*pair).item() == pytest.approx(ssim(*map(pixels, pair), channel_axis=2), abs=1e-9)


def test_benchmark_ssim_is_of_luma_shaved_by_scale(pair):
    expected = ssim(*(luma(img, 3) for img in pair))
    assert calc_ssim(*pair, dataset='benchmark', scale=3).item() == pytest.approx(expected, abs=1e-5)


def test_div2k_ssim_is_of_rgb_shaved_by_scale_and_6(pair):
    expected = ssim(*(pixels(img, 10) for img in pair), channel_axis=2)
    assert calc_ssim(*pair, dataset='div2k', scale=4).item() == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize('metric', [calc_psnr, calc_ssim])
def test_images_of_two_shapes_are_an_error(metric):
    with pytest.raises(UserError, match=r'\(1, 12, 12\) and \(3, 12, 12\)'):
        metric(torch.rand(1, 12, 12), torch.rand(3, 12, 12))


@pytest.mark.parametrize('rows', [1, 7, 36, 37, 1000])
def test_ssim_does_not_depend_on_how_many_rows_are_computed_at_a_time(pair, monkeypatch, rows):
    monkeypatch.setattr(metrics, 'SSIM_ROWS', rows)
    assert calc_ssim(*pair).item() == pytest.approx(ssim(*map(pixels, pair), channel_axis=2), abs=1e-9)


def test_ssim_of_equal_images_is_1(pair):
    assert calc_ssim(pair[1], pair[1]).item() == pytest.approx(1, abs=1e-12)


def test_ssim_of_less_than_one_window_is_an_error():
    img = torch.zeros(1, 3, 10, 40)
    with pytest.raises(UserError, match=r'11x11 pixels, not \(1, 3, 10, 40\)'):
        calc_ssim(img, img)
