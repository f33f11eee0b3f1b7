"""The wrappers that make samples of images: bit for bit, by chance, and their errors."""

import random

import numpy as np
import pytest
import torch
from paths import SHARED
from photos import photo, same_items, save_photos
from PIL import Image
from plain_samples import plain_bytes, plain_downsampled, plain_item, plain_paired, plain_resize, plain_tensor

import datasets
from datasets.image_folder import ImageFolder, PairedImageFolders
from datasets.wrappers import Draw, SRImplicitDownsampled, SRImplicitPaired, SRImplicitUniformVaried
from errors import UserError

CACHES = ['none', 'bin', 'in_memory']


# --- samples ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('cache', CACHES)
@pytest.mark.parametrize('augment', [False, True])
@pytest.mark.parametrize('sample_q', [100, None])
def test_downsampled_is_the_plain_version_bit_for_bit(folder, cache, augment, sample_q):
    args = {'inp_size': 16, 'scale_min': 1, 'scale_max': 4, 'augment': augment, 'sample_q': sample_q}
    wrapper = SRImplicitDownsampled(ImageFolder(str(folder), cache=cache, repeat=10), **args)
    for i in range(30):
        image = np.array(Image.open(folder / f'{"abc"[i % 3]}.png'))
        rng = np.random.default_rng((5, 2, i + 7))
        scale_rng = rng if sample_q else np.random.default_rng((5, 2, i // 8, 1))
        same_items(wrapper[Draw(i, 5, 2, i + 7, i // 8)], plain_downsampled(image, rng, **args, scale_rng=scale_rng))


@pytest.mark.skipif(not SHARED.is_dir(), reason='needs ../shared/data/photos2k')
def test_downsampled_is_the_plain_version_on_2k_photos_at_full_size():
    args = {'inp_size': 48, 'scale_min': 1, 'scale_max': 4, 'augment': True, 'sample_q': 2304}
    dataset = ImageFolder(str(SHARED / 'data/photos2k/valid_HR'), first_k=2)
    wrapper = SRImplicitDownsampled(dataset, **args)
    for i in range(2):
        plain = plain_downsampled(dataset[i], np.random.default_rng((0, 0, i)), **args)
        same_items(wrapper[Draw(i, 0, 0, i)], plain)


@pytest.mark.parametrize('augment', [False, True])
@pytest.mark.parametrize('sample_q', [100, None])
def test_paired_is_the_plain_version_bit_for_bit(pair, augment, sample_q):
    args = {'inp_size': 12, 'augment': augment, 'sample_q': sample_q}
    dataset = PairedImageFolders(*map(str, pair), repeat=5)
    for i in range(10):
        plain = plain_paired(*dataset[i], np.random.default_rng((1, 2, i)), scale=3, **args)
        same_items(SRImplicitPaired(dataset, **args)[Draw(i, 1, 2, i)], plain)


@pytest.mark.parametrize('scale', [2.5, 3.7])
def test_without_inp_size_the_image_is_cut_to_whole_input_pixels(folder, scale):
    wrapper = SRImplicitDownsampled(ImageFolder(str(folder)), scale_min=scale)
    h, w, gt_h, gt_w = {2.5: (28, 36, 70, 90), 3.7: (18, 24, 67, 89)}[scale]  # of 70 x 90
    target = plain_tensor(photo(70, 90))[:, :gt_h, :gt_w]
    same_items(wrapper[0], plain_item(plain_resize(target, h, w), target, None, None))


def test_a_scale_that_divides_the_image_loses_no_pixel_to_rounding(tmp_path):
    save_photos(tmp_path, a=(66, 33))  # 66 / 2.2 is 29.999999999999996 in floating point
    item = SRImplicitDownsampled(ImageFolder(str(tmp_path)), scale_min=2.2)[0]
    assert item['inp'].shape == (3, 30, 15)
    assert item['gt'].shape == (3, 66, 33)


def test_paired_without_inp_size_crops_the_target_to_the_scaled_input(pair):
    dataset = PairedImageFolders(*map(str, pair))
    lr, hr = map(plain_tensor, dataset[0])
    same_items(SRImplicitPaired(dataset)[0], plain_item(lr, hr[:, :60, :75], None, None))


@pytest.mark.parametrize('i, h, w', [(0, 40, 50), (1, 43, 54), (2, 47, 59), (3, 50, 63)])  # w = int(h * 77 / 61)
def test_uniform_varied_resizes_the_shorter_side_evenly_over_the_dataset(tmp_path, i, h, w):
    lr, hr = save_photos(tmp_path / 'lr', a=(20, 25)), save_photos(tmp_path / 'hr', a=(61, 77))
    dataset = PairedImageFolders(str(lr), str(hr), repeat=4)
    item = SRImplicitUniformVaried(dataset, size_min=40, size_max=50)[i]
    target = plain_resize(plain_tensor(dataset[i][1]), h, w)
    same_items(item, plain_item(plain_tensor(dataset[i][0]), target, None, None))


def test_uniform_varied_flips_in_x_only_and_resizes_the_target_last(pair):
    dataset = PairedImageFolders(*map(str, pair))
    wrapper = SRImplicitUniformVaried(dataset, size_min=40, augment=True, gt_resize=30, sample_q=200)
    for position in range(8):
        rng = np.random.default_rng((0, 0, position))
        lr, hr = map(plain_tensor, dataset[0])
        hr = plain_resize(hr, 40, int(40 * 77 / 61))
        if rng.random() < 0.5:
            lr, hr = lr.flip(2), hr.flip(2)
        hr = plain_resize(hr, 30, int(30 * hr.shape[2] / 40))
        same_items(wrapper[Draw(0, 0, 0, position)], plain_item(lr, hr, 200, rng))


def test_no_query_comes_twice(folder):
    wrapper = SRImplicitDownsampled(ImageFolder(str(folder)), inp_size=16, scale_max=2, sample_q=256)
    assert len(wrapper[0]['coord'].unique(dim=0)) == 256


# --- chance ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def wrapper(folder):
    return SRImplicitDownsampled(ImageFolder(str(folder)), 16, scale_max=4, augment=True, sample_q=50)


def test_a_draw_is_the_same_whenever_it_is_asked_for(wrapper):
    first = wrapper[Draw(1, 2, 3, 4)]
    np.random.seed(0), random.seed(0), torch.manual_seed(0)
    wrapper[Draw(0, 0, 0, 0)]
    same_items(wrapper[Draw(1, 2, 3, 4)], first)


@pytest.mark.parametrize('other', [Draw(1, 9, 3, 4), Draw(1, 2, 9, 4), Draw(1, 2, 3, 9)])
def test_seed_epoch_and_position_each_change_a_draw(wrapper, other):
    assert not torch.equal(wrapper[Draw(1, 2, 3, 4)]['coord'], wrapper[other]['coord'])


def test_the_index_only_chooses_the_image(tmp_path):
    save_photos(tmp_path, a=(64, 64), b=(64, 64))
    wrapper = SRImplicitDownsampled(ImageFolder(str(tmp_path)), 16, scale_max=4, augment=True, sample_q=50)
    one, other = wrapper[Draw(0, 2, 3, 4)], wrapper[Draw(1, 2, 3, 4)]
    assert torch.equal(one['coord'], other['coord'])
    assert torch.equal(one['cell'], other['cell'])
    assert not torch.equal(one['gt'], other['gt'])


def test_an_int_draws_afresh(wrapper):
    assert not torch.equal(wrapper[0]['coord'], wrapper[0]['coord'])


def test_global_random_states_are_left_alone(wrapper):
    states = np.random.get_state()[1].tolist(), random.getstate(), torch.get_rng_state().tolist()
    wrapper[0], wrapper[Draw(0, 0, 0, 0)]
    assert (np.random.get_state()[1].tolist(), random.getstate(), torch.get_rng_state().tolist()) == states


# --- errors of arguments ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize('args', [{'scale_min': 0.5}, {'scale_min': 3, 'scale_max': 2}, {'scale_max': float('nan')}])
def test_scales_out_of_order_or_below_1_are_errors(folder, args):
    with pytest.raises(UserError, match='1 <= scale_min <= scale_max, not'):
        SRImplicitDownsampled(ImageFolder(str(folder)), inp_size=16, **args)


def test_sample_q_larger_than_the_smallest_crop_is_an_error_at_once(folder):
    with pytest.raises(UserError, match='sample_q must be at most 256, .* 16x16, not 257'):
        SRImplicitDownsampled(ImageFolder(str(folder)), inp_size=16, scale_max=4, sample_q=257)


def test_sample_q_larger_than_an_image_is_an_error_with_its_path(folder):
    with pytest.raises(UserError, match='images/c.png: sample_q must be at most 4096, .* 64x64, not 5000'):
        SRImplicitDownsampled(ImageFolder(str(folder)), scale_min=2, sample_q=5000)[2]


def test_lr_and_hr_whose_sizes_do_not_fit_are_an_error_with_both_files(pair):
    Image.fromarray(photo(66, 99)).save(pair[1] / 'b.png')
    with pytest.raises(UserError, match='lr/bx3.png and .*hr/b.png: LR is 18x22, HR 99x66'):
        SRImplicitPaired(PairedImageFolders(*map(str, pair)))


def test_hr_smaller_than_lr_is_an_error(pair):
    for path in pair[0].iterdir():
        path.rename(path.with_name(path.name.replace('x3', '')))
    with pytest.raises(UserError, match='hr/a.png and .*lr/a.png: LR is 77x61, HR 25x20'):
        SRImplicitPaired(PairedImageFolders(*map(str, reversed(pair))))


def test_inp_size_larger_than_an_lr_image_is_an_error_with_its_path(pair):
    with pytest.raises(UserError, match='lr/bx3.png and .*: LR is 18x22, but inp_size takes 20x20'):
        SRImplicitPaired(PairedImageFolders(*map(str, pair)), inp_size=20)


@pytest.mark.parametrize('name, args', [('sr-implicit-paired', {}), ('sr-implicit-uniform-varied', {'size_min': 9})])
def test_a_paired_wrapper_of_one_folder_is_an_error(folder, name, args):
    with pytest.raises(UserError, match=f'{name}: dataset must be paired-image-folders'):
        datasets.make({'name': name, 'args': args}, args={'dataset': ImageFolder(str(folder))})


def test_pairs_may_come_from_a_dataset_of_ones_own():
    class Pairs(list):
        paired, files = True, ['a', 'b']

        def size(self, i):
            return tuple(image.shape[:2] for image in self[i])

    pairs = Pairs((photo(4, 5, seed), photo(8, 10, seed)) for seed in range(2))
    item = SRImplicitPaired(pairs)[1]
    assert torch.equal(item['inp'], plain_bytes(plain_tensor(pairs[1][0]))) and item['gt'].shape == (3, 8, 10)


@pytest.mark.parametrize('image, told', [
    (np.full((8, 8, 3), 200, np.float32), 'from 200 to 200, but must be from 0 to 1'),
    (np.full((8, 8, 3), -1, np.float32), 'from -1 to -1'), (np.zeros((8, 8, 3)), 'is of float64'),
    (np.zeros((8, 8), np.uint8), r'is \(8, 8\), but must be a NumPy array \(H, W, C\)'),
    (torch.zeros(3, 8, 8), 'must be a NumPy array')])
def test_a_dataset_of_ones_own_that_gives_no_image_is_an_error(image, told):
    class Own(list):
        files = ['a']

    with pytest.raises(UserError, match=f'dataset: .*{told}'):
        SRImplicitDownsampled(Own([image]), inp_size=4)


def test_the_largest_scale_of_pairs_is_known(tmp_path):
    save_photos(tmp_path / 'lr', a=(5, 6), b=(5, 6))
    save_photos(tmp_path / 'hr', a=(10, 12), b=(20, 24))
    pairs = PairedImageFolders(str(tmp_path / 'lr'), str(tmp_path / 'hr'))
    varied = SRImplicitUniformVaried
    wrappers = [SRImplicitPaired(pairs), varied(pairs, 5, 15), varied(pairs, 5, 9, gt_resize=15)]
    assert [wrapper.scale_max for wrapper in wrappers] == [4, 3, 3]


def test_downsampling_a_pair_is_an_error(pair):
    with pytest.raises(UserError, match='dataset must be image-folder'):
        SRImplicitDownsampled(PairedImageFolders(*map(str, pair)))
