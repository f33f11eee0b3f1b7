"""Inputs as the web has them: sr-implicit-degraded, and what is measured on JPEGs."""

import io

import numpy as np
import pytest
import torch
from paths import CONFIGS
from photos import photo, same_items, save_photos
from PIL import Image
from projects import train_two_steps
from scipy.ndimage import convolve

import datasets
from datasets.degraded import SIGMA, SRImplicitDegraded, blur, draw_covariance
from datasets.image_folder import ImageFolder
from datasets.wrappers import Draw, SRImplicitDownsampled
from errors import UserError
from training.preview import make_previews

CONFIG = CONFIGS / 'train-photos/train_edsr-baseline-A-liif-pixel-web.yaml'
ALWAYS = {'blur': 1, 'filters': 1, 'noise': 1, 'jpeg': 1}
CROPS = {'inp_size': 16, 'scale_max': 4, 'augment': True}
KINDS = {'queries': {**CROPS, 'sample_q': 50}, 'dense': CROPS, 'whole': {'scale_min': 2.5},
         'matlab': {**CROPS, 'reduction': 'matlab'}, 'fit': {**CROPS, 'inp_size': 17, 'small_images': 'fit'},
         'axes': {**CROPS, 'anisotropic': True}}


def of_kind(folder, kind, **probabilities):
    """Clean and degraded samples of the same arguments."""
    return (SRImplicitDownsampled(ImageFolder(str(folder)), **KINDS[kind]),
            SRImplicitDegraded(ImageFolder(str(folder)), **KINDS[kind], **probabilities))


def pixels(image):
    """A sample's uint8 image (3, h, w) as (h, w, 3)."""
    return image.permute(1, 2, 0).numpy()


def saved(image, **options):
    """What is read from the JPEG that Pillow makes of `image` (h, w, 3)."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, 'JPEG', **options)
    return np.array(Image.open(file))


# --- beside the wrapper that it extends ------------------------------------------------------------


@pytest.mark.parametrize('kind', KINDS)
def test_without_degradations_samples_are_those_of_the_clean_wrapper(folder, kind):
    clean, degraded = of_kind(folder, kind)
    for i in range(12):
        same_items(degraded[Draw(i % 3, 5, 2, i, i // 4)], clean[Draw(i % 3, 5, 2, i, i // 4)])


@pytest.mark.parametrize('kind', KINDS)
def test_of_a_degraded_sample_nothing_but_the_input_is_another(folder, kind):
    clean, degraded = of_kind(folder, kind, **ALWAYS)
    for i in range(6):
        one, other = degraded[Draw(i % 3, 5, 2, i)], clean[Draw(i % 3, 5, 2, i)]
        assert one['inp'].dtype == other['inp'].dtype and one['inp'].shape == other['inp'].shape
        assert not torch.equal(one.pop('inp'), other.pop('inp'))
        same_items(one, other)


@pytest.mark.parametrize('kind', ['queries', 'whole'])
def test_a_sample_depends_on_seed_epoch_and_position_alone(folder, kind):
    wrapper = of_kind(folder, kind, **ALWAYS)[1]
    first = wrapper[Draw(1, 2, 3, 4)]
    same_items(wrapper[Draw(1, 2, 3, 4)], first)
    for other in Draw(1, 9, 3, 4), Draw(1, 2, 9, 4), Draw(1, 2, 3, 9):
        assert not torch.equal(wrapper[other]['inp'], first['inp'])


@pytest.mark.parametrize('key', ALWAYS)
def test_each_degradation_comes_as_often_as_its_probability_says(folder, key):
    clean, degraded = of_kind(folder, 'dense', **{key: 0.25})
    draws = [Draw(0, 0, 0, i) for i in range(100)]
    assert 12 < sum(not torch.equal(clean[draw]['inp'], degraded[draw]['inp']) for draw in draws) < 38


def test_previews_of_a_training_are_degraded_and_stay_the_same(folder):
    clean, degraded = of_kind(folder, 'queries', **ALWAYS)
    for (_, one), (_, again), (_, other) in zip(*map(make_previews, (degraded, degraded, clean)), strict=True):
        same_items(one, again)
        assert torch.equal(one['gt'], other['gt']) and not torch.equal(one['inp'], other['inp'])


# --- each degradation ------------------------------------------------------------------------------


@pytest.mark.parametrize('covariance', [[[2, 0], [0, 2]], [[6, 0], [0, 0.5]], [[4, 2.5], [2.5, 3]]],
                         ids=['round', 'upright', 'tilted'])
def test_blur_is_a_convolution_with_the_gaussian_of_that_covariance(covariance):
    from scipy.stats import multivariate_normal  # a second, for all that collect tests
    image = photo(40, 50)
    offsets = np.stack(np.mgrid[-12:13, -12:13], axis=-1)
    kernel = multivariate_normal([0, 0], covariance).pdf(offsets)[..., None]
    expected = convolve(image.astype(float), kernel / kernel.sum(), mode='nearest')
    assert np.abs(blur(image, np.array(covariance, float)) - expected).max() < 1


def test_blurs_are_round_or_oblong_in_any_direction_and_their_width_is_one_in_input_pixels():
    rng, scales = np.random.default_rng(0), np.array([2., 4.])
    of_input = [draw_covariance(scales, rng) / np.outer(scales, scales) for _ in range(200)]
    widths = np.sqrt([np.linalg.eigvalsh(covariance) for covariance in of_input])
    assert SIGMA[0] < widths.min() < 0.15 and 0.7 < widths.max() < SIGMA[1]
    assert 80 < sum(np.ptp(pair) < 1e-6 for pair in widths) < 120
    tilts = [covariance[0, 1] for covariance in of_input]
    assert min(tilts) < -0.1 and max(tilts) > 0.1


def test_other_filters_are_pillows_box_bilinear_and_lanczos(folder):
    wrapper, found = of_kind(folder, 'whole', filters=1)[1], set()
    for i in range(20):
        sample = wrapper[Draw(0, 0, 0, i)]
        size, target = sample['inp'].shape[:0:-1], Image.fromarray(pixels(sample['gt']))
        same = {name for name in ('BOX', 'BILINEAR', 'LANCZOS') if np.array_equal(
            target.resize(size, Image.Resampling[name]), pixels(sample['inp']))}
        assert len(same) == 1
        found |= same
    assert found == {'BOX', 'BILINEAR', 'LANCZOS'}


@pytest.fixture
def noise(tmp_path):
    """The noise of 40 whole images, of which the left half is dark and the right half bright: float (40, h, w, 3)."""
    image = np.full((48, 96, 3), 50, np.uint8)
    image[:, 48:] = 200
    Image.fromarray(image).save(tmp_path / 'a.png')
    wrapper = SRImplicitDegraded(ImageFolder(str(tmp_path)), noise=1)
    return np.stack([pixels(wrapper[Draw(0, 0, 0, i)]['inp']) - image.astype(float) for i in range(40)])


def test_noise_has_no_mean_and_a_deviation_of_1_to_10(noise):
    deviations = noise.std(axis=(1, 2, 3))
    assert (np.abs(noise.mean(axis=(1, 2, 3))) < 0.05 * deviations + 0.05).all()
    assert 0.9 < deviations.min() < 2.5 and 7.5 < deviations.max() < 11


def test_noise_is_grey_or_coloured(noise):
    assert 10 < sum(np.ptp(image, axis=2).max() == 0 for image in noise) < 30


def test_noise_is_even_or_grows_with_the_root_of_brightness(noise):
    ratios = noise[:, :, 48:].std(axis=(1, 2, 3)) / noise[:, :, :48].std(axis=(1, 2, 3))
    even, photons = np.abs(ratios - 1) < 0.15, np.abs(ratios - 2) < 0.3  # sqrt(200 / 50) = 2
    assert (even | photons).all() and min(even.sum(), photons.sum()) > 10


@pytest.mark.parametrize('quality', [40, 95])
def test_a_whole_image_is_as_in_a_file_that_pillow_writes(folder, quality):
    clean, degraded = of_kind(folder, 'whole', jpeg=1, quality=quality)
    assert np.array_equal(pixels(degraded[0]['inp']), saved(pixels(clean[0]['inp']), quality=quality))


def test_qualities_are_drawn_from_the_least_to_the_most(folder):
    clean, degraded = of_kind(folder, 'whole', jpeg=1, quality=[70, 72])
    files = {saved(pixels(clean[0]['inp']), quality=q).tobytes(): q for q in (70, 71, 72)}
    assert {files[pixels(degraded[Draw(0, 0, 0, i)]['inp']).tobytes()] for i in range(20)} == {70, 71, 72}


def block_edges(folder, **args):
    """Where in x blocks of a JPEG end, modulo 8, in 60 samples of a ramp, whose blocks quality 1 makes flat."""
    ramp = np.repeat(np.arange(0, 256, 4, np.uint8)[None, :, None], 64, axis=0).repeat(3, axis=2)
    Image.fromarray(ramp).save(folder / 'ramp.png')
    wrapper = SRImplicitDegraded(ImageFolder(str(folder)), jpeg=1, quality=1, **args)
    rows = [pixels(wrapper[Draw(0, 0, 0, i)]['inp'])[20, :, 1].astype(int) for i in range(60)]
    edges = [{*((np.flatnonzero(np.diff(row)) + 1) % 8).tolist()} for row in rows]
    assert all(len(places) == 1 for places in edges)
    return set.union(*edges)


def test_blocks_of_a_whole_image_begin_at_its_corner(tmp_path):
    assert block_edges(tmp_path) == {0}


def test_blocks_of_a_crop_begin_anywhere(tmp_path):
    assert block_edges(tmp_path, inp_size=48) == {*range(8)}


def test_colour_of_a_crop_has_the_whole_or_half_the_resolution(tmp_path):
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2, 0] = 255  # a red column, a black one: gone where two columns share a colour
    Image.fromarray(stripes).save(tmp_path / 'a.png')
    wrapper = SRImplicitDegraded(ImageFolder(str(tmp_path)), inp_size=48, jpeg=1, quality=95)
    contrasts = [np.ptp(pixels(wrapper[Draw(0, 0, 0, i)]['inp'])[20, 10:30, 0].astype(int)) for i in range(40)]
    assert 10 < sum(contrast > 200 for contrast in contrasts) < 30


# --- configs and errors ----------------------------------------------------------------------------


def test_its_keys_are_its_own_and_those_of_the_wrapper_that_it_extends(folder):
    def make(**args):
        return datasets.make({'name': 'sr-implicit-degraded', 'args': args}, {'dataset': ImageFolder(str(folder))})

    assert make(inp_size=16, scale_max=2, jpeg=0.5)[0]['inp'].shape == (3, 16, 16)
    with pytest.raises(UserError, match="unknown key 'jpg', did you mean 'jpeg'.*inp_size"):
        make(jpg=1)
    with pytest.raises(UserError, match="inp_size must be int or null, not 'wide'"):
        make(inp_size='wide')


@pytest.mark.parametrize('shape, dtype', [((9, 9, 1), np.uint8), ((9, 9, 5), np.uint8), ((9, 9, 3), np.uint16),
                                          ((9, 9, 3), np.float32)])
def test_images_other_than_rgb_of_8_bits_are_refused(tmp_path, shape, dtype):
    np.save(tmp_path / 'a.npy', np.zeros(shape, dtype))
    with pytest.raises(UserError, match=r'sr-implicit-degraded is for RGB images of 8 bits \(channels: rgb\)'):
        SRImplicitDegraded(ImageFolder(str(tmp_path), channels='all'), jpeg=1)


@pytest.mark.parametrize('key', ALWAYS)
@pytest.mark.parametrize('value', [-0.1, 1.1, 60])
def test_a_probability_is_from_0_to_1(folder, key, value):
    with pytest.raises(UserError, match=f'{key} must be a probability, from 0 to 1, not {value:g}'):
        of_kind(folder, 'dense', **{key: value})


@pytest.mark.parametrize('quality', [0, 101, [95, 40], [40, 60, 80], []])
def test_a_quality_is_from_1_to_100(folder, quality):
    with pytest.raises(UserError, match='quality must be from 1 to 100, a number or'):
        of_kind(folder, 'dense', jpeg=1, quality=quality)


def test_the_config_for_pictures_from_the_web_trains(tmp_path):
    for name in 'photos/T91', 'photos/BSD400', 'photos2k/train_HR', 'photos/OPEN240':
        save_photos(tmp_path / 'load' / name, a=(130, 140))
    for name in 'photos2k/valid_HR', 'photos/valid_open':
        save_photos(tmp_path / 'load' / name, a=(200, 210))
    train_two_steps(tmp_path, CONFIG, train_dataset__batch_size=20,
                    train_dataset__wrapper__args__inp_size=8, weights_from='null')
