"""The wrappers that make samples of images: bit for bit, by chance, and their errors.

The `plain_` functions make a sample the obvious way: the whole image as floats, the whole grid of queries, and
then a choice among them.
"""

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from photos import photo, save_photos
from PIL import Image

import datasets
from datasets.image_folder import ImageFolder, PairedImageFolders
from datasets.wrappers import Draw, SRImplicitDownsampled, SRImplicitPaired, SRImplicitUniformVaried
from errors import UserError
from utils import make_coord

SHARED = Path(__file__).resolve().parents[2] / 'shared'
CACHES = ['none', 'bin', 'in_memory']


def same_items(one, other):
    assert one.keys() == other.keys()
    for key in one:
        assert one[key].dtype == other[key].dtype, key
        assert torch.equal(one[key], other[key]), key


# --- samples ---------------------------------------------------------------------------------------


def plain_tensor(image):
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255


def plain_resize(image, h, w):
    pil = Image.fromarray((image * 255).round().byte().permute(1, 2, 0).numpy())
    return plain_tensor(pil.resize((w, h), Image.BICUBIC))


def plain_flips(rng, *images):
    dims = [dim for dim in (1, 2) if rng.random() < 0.5]
    transpose = rng.random() < 0.5
    return [image.flip(dims).transpose(1, 2) if transpose else image.flip(dims) for image in images]


def plain_bytes(image):
    return (image * 255).round().byte()


def plain_item(inp, target, sample_q, rng):
    if sample_q is None:
        return {'inp': plain_bytes(inp), 'gt': plain_bytes(target)}
    h, w = target.shape[1:]
    coord, gt = make_coord((h, w)), target.permute(1, 2, 0).reshape(-1, 3)
    cell = torch.tensor([2 / h, 2 / w]).repeat(h * w, 1)
    chosen = rng.choice(h * w, sample_q, replace=False)
    return {'inp': inp, 'coord': coord[chosen], 'cell': cell[chosen], 'gt': gt[chosen]}


def plain_downsampled(image, rng, inp_size, scale_min, scale_max, augment, sample_q, scale_rng=None):
    image = plain_tensor(image)
    size = round(inp_size * (scale_rng or rng).uniform(scale_min, scale_max))
    y = rng.integers(0, image.shape[1] - size + 1)
    x = rng.integers(0, image.shape[2] - size + 1)
    target = image[:, y:y + size, x:x + size]
    inp = plain_resize(target, inp_size, inp_size)
    if augment:
        inp, target = plain_flips(rng, inp, target)
    return plain_item(inp, target, sample_q, rng)


def plain_paired(lr, hr, rng, scale, inp_size, augment, sample_q):
    lr, hr = plain_tensor(lr), plain_tensor(hr)
    y = rng.integers(0, lr.shape[1] - inp_size + 1)
    x = rng.integers(0, lr.shape[2] - inp_size + 1)
    inp = lr[:, y:y + inp_size, x:x + inp_size]
    target = hr[:, y * scale:(y + inp_size) * scale, x * scale:(x + inp_size) * scale]
    if augment:
        inp, target = plain_flips(rng, inp, target)
    return plain_item(inp, target, sample_q, rng)


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


# --- chance ----------------------------------------------------------------------------------------


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


# --- images too small for the largest crop ---------------------------------------------------------


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
    with pytest.raises(UserError, match=r'a.png: 64x70 pixels, .*160x160 \(3 of 3'):
        SRImplicitDownsampled(mixed, inp_size=16, scale_max=10, small_images='fit')


def test_an_image_with_no_input_pixel_at_a_test_scale_is_an_error(mixed):
    with pytest.raises(UserError, match='b.png: 40x100'):
        SRImplicitDownsampled(mixed, scale_min=41)


# --- errors of arguments ---------------------------------------------------------------------------


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


def test_downsampling_a_pair_is_an_error(pair):
    with pytest.raises(UserError, match='dataset must be image-folder'):
        SRImplicitDownsampled(PairedImageFolders(*map(str, pair)))
