"""Image folders and the wrappers: files, formats, caches, errors, and samples bit for bit.

The `plain_` functions make a sample the obvious way: the whole image as floats, the whole grid of queries, and
then a choice among them.
"""

import json
import os
import random
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import datasets
from datasets.image_folder import ImageFolder, PairedImageFolders
from datasets.wrappers import Draw, SRImplicitDownsampled, SRImplicitPaired, SRImplicitUniformVaried
from utils import UserError, make_coord

SHARED = Path(__file__).resolve().parents[2] / 'shared'
CACHES = ['none', 'bin', 'in_memory']


def photo(h, w, seed=0):
    """A uint8 image (h, w, 3), smooth with some noise."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (5, 7, 3), dtype=np.uint8))
    smooth = np.asarray(small.resize((w, h), Image.BICUBIC)).astype(int)
    return np.clip(smooth + rng.integers(-20, 21, (h, w, 3)), 0, 255).astype(np.uint8)


def save_photos(folder, **sizes):
    """Writes NAME.png of size (h, w) for each of `sizes`."""
    folder.mkdir(parents=True, exist_ok=True)
    for seed, (name, (h, w)) in enumerate(sizes.items()):
        Image.fromarray(photo(h, w, seed)).save(folder / f'{name}.png')
    return folder


@pytest.fixture
def folder(tmp_path):
    return save_photos(tmp_path / 'images', a=(70, 90), b=(85, 64), c=(64, 64))


@pytest.fixture
def pair(tmp_path):
    """Two folders of LR and HR images, x3, with a remainder that is no part of the LR images."""
    lr = save_photos(tmp_path / 'lr', ax3=(20, 25), bx3=(22, 18))
    return lr, save_photos(tmp_path / 'hr', a=(61, 77), b=(66, 55))


def write_png16(path, image):
    """A 16-bit PNG of a uint16 image, grey (H, W) or RGB (H, W, 3); PIL itself writes no 16-bit RGB."""
    def chunk(kind, data):
        return struct.pack('>I', len(data)) + kind + data + struct.pack('>I', zlib.crc32(kind + data))
    h, w = image.shape[:2]
    header = struct.pack('>IIBBBBB', w, h, 16, 2 if image.ndim == 3 else 0, 0, 0, 0)
    rows = b''.join(b'\0' + row.astype('>u2').tobytes() for row in image)
    chunks = chunk(b'IHDR', header) + chunk(b'IDAT', zlib.compress(rows)) + chunk(b'IEND', b'')
    path.write_bytes(b'\x89PNG\r\n\x1a\n' + chunks)


def truncate(path):
    path.write_bytes(path.read_bytes()[:path.stat().st_size // 2])


def same_items(one, other):
    assert one.keys() == other.keys()
    for key in one:
        assert one[key].dtype == other[key].dtype, key
        assert torch.equal(one[key], other[key]), key


# --- reading images --------------------------------------------------------------------------------


def test_an_image_is_uint8_rgb(folder):
    image = ImageFolder(str(folder))[0]
    assert image.dtype == np.uint8
    assert np.array_equal(image, photo(70, 90))


@pytest.mark.parametrize('name, mode', [('grey.png', 'L'), ('binary.png', '1'), ('grey_alpha.png', 'LA')])
def test_grey_becomes_rgb(tmp_path, name, mode):
    grey = np.where(photo(6, 9)[..., 0] > 128, 255, 0).astype(np.uint8)
    Image.fromarray(grey).convert(mode).save(tmp_path / name)
    assert np.array_equal(ImageFolder(str(tmp_path))[0], np.stack([grey] * 3, axis=2))


def test_palette_becomes_rgb(tmp_path):
    image = Image.fromarray(np.array([[0, 1, 2], [2, 0, 1]], dtype=np.uint8), mode='P')
    image.putpalette([250, 10, 20, 30, 40, 50, 0, 255, 128])
    image.save(tmp_path / 'palette.png')
    colours = np.array([[250, 10, 20], [30, 40, 50], [0, 255, 128]])
    assert np.array_equal(ImageFolder(str(tmp_path))[0], colours[[[0, 1, 2], [2, 0, 1]]])


def test_alpha_is_dropped(tmp_path):
    rgba = np.dstack([photo(6, 9), np.arange(54, dtype=np.uint8).reshape(6, 9)])
    Image.fromarray(rgba).save(tmp_path / 'rgba.png')
    assert np.array_equal(ImageFolder(str(tmp_path))[0], rgba[..., :3])


def test_cmyk_becomes_rgb(tmp_path):
    Image.new('CMYK', (9, 6), (0, 255, 255, 0)).save(tmp_path / 'red.tif')
    assert np.array_equal(ImageFolder(str(tmp_path))[0], np.full((6, 9, 3), (255, 0, 0)))


def test_of_16_bit_grey_the_high_byte_stays(tmp_path):
    grey = np.random.default_rng(0).integers(0, 2 ** 16, (6, 9), dtype=np.uint16)
    write_png16(tmp_path / 'grey16.png', grey)
    assert np.array_equal(ImageFolder(str(tmp_path))[0], np.stack([grey // 256] * 3, axis=2))


def test_of_a_16_bit_pgm_the_high_byte_stays(tmp_path):
    grey = np.random.default_rng(0).integers(0, 2 ** 16, (6, 9), dtype=np.uint16)
    (tmp_path / 'grey16.pgm').write_bytes(b'P5 9 6 65535\n' + grey.astype('>u2').tobytes())
    assert np.array_equal(ImageFolder(str(tmp_path))[0], np.repeat((grey >> 8)[..., None], 3, axis=2))


@pytest.mark.parametrize('dtype', [np.float32, np.int32])
def test_pixels_of_other_than_8_or_16_bits_are_an_error_with_the_path(tmp_path, dtype):
    Image.fromarray(np.full((6, 9), 70000, dtype)).save(tmp_path / 'odd.tif')
    with pytest.raises(UserError, match='odd.tif: .*only 8 and 16 bits are known'):
        ImageFolder(str(tmp_path))[0]


def test_of_16_bit_rgb_the_high_byte_stays(tmp_path):
    rgb = np.random.default_rng(0).integers(0, 2 ** 16, (6, 9, 3), dtype=np.uint16)
    write_png16(tmp_path / 'rgb16.png', rgb)
    assert np.array_equal(ImageFolder(str(tmp_path))[0], rgb // 256)


def test_files_that_are_no_images_are_left_out(folder):
    for name in ('notes.txt', 'Thumbs.db', '._a.png', '.DS_Store'):
        (folder / name).write_bytes(b'no image')
    (folder / 'subfolder.png').mkdir()
    assert [path.name for path in ImageFolder(str(folder)).files] == ['a.png', 'b.png', 'c.png']


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


def plain_item(inp, target, sample_q, rng):
    h, w = target.shape[1:]
    coord, gt = make_coord((h, w)), target.permute(1, 2, 0).reshape(-1, 3)
    cell = torch.tensor([2 / h, 2 / w]).repeat(h * w, 1)
    if sample_q is None:
        return {'inp': inp, 'coord': coord, 'cell': cell, 'gt': gt, 'gt_size': torch.tensor([h, w])}
    chosen = rng.choice(h * w, sample_q, replace=False)
    return {'inp': inp, 'coord': coord[chosen], 'cell': cell[chosen], 'gt': gt[chosen]}


def plain_downsampled(image, rng, inp_size, scale_min, scale_max, augment, sample_q):
    image = plain_tensor(image)
    size = round(inp_size * rng.uniform(scale_min, scale_max))
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
        plain = plain_downsampled(image, np.random.default_rng((5, 2, i + 7)), **args)
        same_items(wrapper[Draw(i, 5, 2, i + 7)], plain)


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
    assert item['gt_size'].tolist() == [66, 33]


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
    with pytest.raises(UserError, match=r'b.png: 100x40 pixels, .*64x64 \(2 of 3 .*: skip .*: fit '):
        SRImplicitDownsampled(mixed, inp_size=16, scale_max=4)


def test_small_images_are_skipped_on_demand_in_one_line(mixed, capsys):
    wrapper = SRImplicitDownsampled(mixed, inp_size=16, scale_max=4, small_images='skip')
    assert capsys.readouterr().out == '2 of 3 images, smaller than 64x64 pixels, are left out\n'
    assert len(wrapper) == 2
    assert names(mixed) == ['a.png']


def test_skipping_all_images_is_an_error(mixed):
    with pytest.raises(UserError, match=r'a.png: 70x64 pixels, .*160x160 \(3 of 3'):
        SRImplicitDownsampled(mixed, inp_size=16, scale_max=10, small_images='skip')


def test_small_images_get_a_scale_that_fits_on_demand(mixed):
    wrapper = SRImplicitDownsampled(mixed, inp_size=16, scale_max=4, small_images='fit')
    sides = [(2 / wrapper[Draw(1, 0, 0, p)]['cell'][0, 0]).round().int().item() for p in range(40)]
    assert 35 < max(sides) <= 40
    assert min(sides) >= 16


def test_fit_leaves_the_samples_of_large_images_as_they_are(mixed):
    wrapper = SRImplicitDownsampled(mixed, inp_size=16, scale_max=4, sample_q=50, small_images='fit')
    plain = plain_downsampled(mixed[0], np.random.default_rng((1, 2, 3)), 16, 1, 4, False, 50)
    same_items(wrapper[Draw(0, 1, 2, 3)], plain)


def test_fit_is_an_error_where_not_even_the_smallest_crop_fits(mixed):
    with pytest.raises(UserError, match=r'b.png: 100x40 pixels, .*48x48 \(1 of 3'):
        SRImplicitDownsampled(mixed, inp_size=16, scale_min=3, scale_max=4, small_images='fit')


def test_an_image_with_no_input_pixel_at_a_test_scale_is_an_error(mixed):
    with pytest.raises(UserError, match='b.png: 100x40'):
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
    with pytest.raises(UserError, match='lr/bx3.png and .*hr/b.png: LR is 22x18, HR 66x99'):
        SRImplicitPaired(PairedImageFolders(*map(str, pair)))


def test_hr_smaller_than_lr_is_an_error(pair):
    for path in pair[0].iterdir():
        path.rename(path.with_name(path.name.replace('x3', '')))
    with pytest.raises(UserError, match='hr/a.png and .*lr/a.png: LR is 61x77, HR 20x25'):
        SRImplicitPaired(PairedImageFolders(*map(str, reversed(pair))))


def test_inp_size_larger_than_an_lr_image_is_an_error_with_its_path(pair):
    with pytest.raises(UserError, match='lr/bx3.png and .*: LR is 22x18, but inp_size takes 20x20'):
        SRImplicitPaired(PairedImageFolders(*map(str, pair)), inp_size=20)


@pytest.mark.parametrize('name, args', [('sr-implicit-paired', {}), ('sr-implicit-uniform-varied', {'size_min': 9})])
def test_a_paired_wrapper_of_one_folder_is_an_error(folder, name, args):
    with pytest.raises(UserError, match=f'{name}: dataset must be paired-image-folders'):
        datasets.make({'name': name, 'args': args}, args={'dataset': ImageFolder(str(folder))})


def test_downsampling_a_pair_is_an_error(pair):
    with pytest.raises(UserError, match='dataset must be image-folder'):
        SRImplicitDownsampled(PairedImageFolders(*map(str, pair)))
