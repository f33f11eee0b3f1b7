"""Any number of channels, of 8, 16 or 32 bits: files as they are read, and what is cut from them."""

import importlib.util

import numpy as np
import pytest
import tifffile
import torch
from photos import TOPS, noise, photo, write_png16
from PIL import Image

import datasets
from datasets.image_folder import ImageFolder, PairedImageFolders
from datasets.matlab import imresize
from datasets.transforms import resize
from datasets.wrappers import SRImplicitDownsampled, SRImplicitPaired
from errors import UserError
from models import Bicubic


def folder_of(path, *arrays, name='{}.npy'):
    path.mkdir(parents=True, exist_ok=True)
    for i, array in enumerate(arrays):
        np.save(path / name.format(i), array)
    return str(path)


def same(image, array):
    """Whether `image` is `array`, bit for bit and of its type."""
    return image.dtype == array.dtype and np.array_equal(image, array)


# --- reading ---------------------------------------------------------------------------------------


@pytest.mark.parametrize('cache', ['none', 'bin', 'in_memory'])
@pytest.mark.parametrize('dtype', TOPS)
@pytest.mark.parametrize('channels', [1, 2, 5])
def test_npy_files_arrive_as_they_are(tmp_path, channels, dtype, cache):
    array = noise(6, 9, channels, dtype=dtype)
    dataset = ImageFolder(folder_of(tmp_path / 'a', array), channels='all', cache=cache)
    assert same(dataset[0], array) and dataset.size(0) == (6, 9)


@pytest.mark.parametrize('dtype', TOPS)
@pytest.mark.parametrize('shape, kwargs', [
    ((6, 9, 5), {'planarconfig': 'contig', 'photometric': 'minisblack'}), ((6, 9, 3), {'photometric': 'rgb'}),
    ((6, 9), {}), ((6, 9, 5), {'photometric': 'minisblack'})], ids=str)
def test_tiffs_arrive_as_they_are(tmp_path, shape, kwargs, dtype):
    array = noise(*shape, dtype=dtype)
    tifffile.imwrite(tmp_path / 'a.tif', array, **kwargs)
    dataset = ImageFolder(str(tmp_path), channels='all')
    assert same(dataset[0], array.reshape(6, 9, -1)) and dataset.size(0) == (6, 9)


def test_a_tiff_that_claims_more_than_the_memory_is_told_before_decoding(tmp_path):
    tifffile.imwrite(tmp_path / 'a.tif', np.zeros((6, 9), np.uint16))
    with tifffile.TiffFile(tmp_path / 'a.tif', mode='r+') as tiff:
        for tag in ('ImageWidth', 'ImageLength'):
            tiff.pages[0].tags[tag].overwrite(10**6)
    with pytest.raises(UserError, match='a.tif: 1000000x1000000 values take 2000.0 GB to read, but .* are free'):
        ImageFolder(str(tmp_path), channels='all')[0]


def test_the_channels_of_a_tiff_may_be_planes(tmp_path):
    array = noise(6, 9, 5)
    tifffile.imwrite(tmp_path / 'a.tif', np.moveaxis(array, 2, 0), planarconfig='separate', photometric='minisblack')
    dataset = ImageFolder(str(tmp_path), channels='all')
    assert same(dataset[0], array) and dataset.size(0) == (6, 9)


@pytest.mark.parametrize('dtype, shape', [*((dtype, (6, 9)) for dtype in TOPS), (np.uint8, (6, 9, 3))], ids=str)
def test_grey_of_any_type_and_8_bit_rgb_may_be_compressed_by_lzw(tmp_path, dtype, shape):
    array = noise(*shape, dtype=dtype)
    Image.fromarray(array).save(tmp_path / 'a.tif', compression='tiff_lzw')
    assert same(ImageFolder(str(tmp_path), channels='all')[0], array.reshape(6, 9, -1))


@pytest.mark.skipif(importlib.util.find_spec('imagecodecs') is not None, reason='imagecodecs is installed')
def test_a_compression_that_needs_a_package_is_told(tmp_path):
    tifffile.imwrite(tmp_path / 'a.tif', noise(6, 9, 5), photometric='minisblack', planarconfig='contig')
    with tifffile.TiffFile(tmp_path / 'a.tif', mode='r+') as tiff:
        tiff.pages[0].tags['Compression'].overwrite(tifffile.COMPRESSION.LZW)
    with pytest.raises(UserError, match='a.tif: its compression, LZW, needs a package: pip install imagecodecs'):
        ImageFolder(str(tmp_path), channels='all')[0]


def test_float_pictures_of_other_formats_arrive(tmp_path):
    array = noise(6, 9, dtype=np.float32)
    Image.fromarray(array).save(tmp_path / 'a.pfm')
    assert same(ImageFolder(str(tmp_path), channels='all')[0], array[..., None])


@pytest.mark.parametrize('channels', [1, 3])
def test_16_bits_of_a_png_arrive(tmp_path, channels):
    array = noise(6, 9, channels)
    write_png16(tmp_path / 'a.png', array if channels > 1 else array[..., 0])
    assert same(ImageFolder(str(tmp_path), channels='all')[0], array)


def test_all_channels_of_a_picture_are_those_of_its_file(tmp_path):
    rgba = np.dstack([photo(6, 9), noise(6, 9, dtype=np.uint8)])
    Image.fromarray(rgba).save(tmp_path / 'a.png')
    Image.fromarray(rgba[..., 0]).save(tmp_path / 'b.png')
    Image.fromarray(rgba[..., :3]).quantize(4).save(tmp_path / 'c.tif')
    palette = np.asarray(Image.open(tmp_path / 'c.tif').convert('RGB'))
    dataset = ImageFolder(str(tmp_path), channels='all')
    assert same(dataset[0], rgba) and same(dataset[1], rgba[..., :1]) and same(dataset[2], palette)


def test_grey_of_colour_is_its_brightness(tmp_path):
    Image.fromarray(photo(6, 9)).save(tmp_path / 'a.png')
    grey = ImageFolder(str(tmp_path), channels='grey')[0]
    expected = np.asarray(Image.open(tmp_path / 'a.png').convert('L'))
    assert grey.dtype == np.uint8 and grey.shape == (6, 9, 1)
    assert abs(grey[..., 0].astype(int) - expected).max() <= 1


def test_grey_of_16_bits_stays(tmp_path):
    array = noise(6, 9)
    write_png16(tmp_path / 'a.png', array)
    assert same(ImageFolder(str(tmp_path), channels='grey')[0], array[..., None])


def test_decoded_copies_of_one_file_differ_by_what_is_asked(tmp_path):
    root = folder_of(tmp_path / 'a', noise(6, 9) // 16)
    Image.fromarray(photo(6, 9)).save(tmp_path / 'a/picture.png')

    def read(**args):
        return [image.shape[2:] + (image.dtype, image.max()) for image in ImageFolder(root, cache='bin', **args)]
    asked = [{}, {'channels': 'grey'}, {'channels': 'all'}, {'channels': 'all', 'data_range': 4095},
             {'channels': 'all', 'data_range': 8190}]
    found = [read(**args) for args in asked]
    assert [read(**args) for args in asked] == found
    assert len({str(one) for one in found}) == 5


def test_data_range_is_the_value_of_white(tmp_path):
    array = noise(6, 9, 2) // 16
    image = ImageFolder(folder_of(tmp_path / 'a', array), channels='all', data_range=4095)[0]
    assert image.dtype == np.float32
    np.testing.assert_allclose(image, array / 4095, rtol=1e-6)


def test_grey_of_colour_beyond_1_is_brightness_by_its_range(tmp_path):
    array = noise(6, 9, 3, dtype=np.float32) * 80
    grey = ImageFolder(folder_of(tmp_path / 'a', array), channels='grey', data_range=80)[0]
    expected = (0.299 * array[..., 0] + 0.587 * array[..., 1] + 0.114 * array[..., 2]) / 80
    np.testing.assert_allclose(grey[..., 0], expected, rtol=1e-5)


@pytest.mark.parametrize('array, args, told', [
    (np.full((6, 9), 1.5, np.float32), {}, 'from 1.5 to 1.5, but must be from 0 to 1; for another range set'),
    (np.full((6, 9), np.nan, np.float32), {}, 'from nan to nan'),
    (np.full((6, 9), -3, np.float32), {'data_range': 4}, 'from -3 to -3, but must be from 0 to 4'),
    (np.full((6, 9), 5000, np.uint16), {'data_range': 4095}, 'from 5000 to 5000, but must be from 0 to 4095'),
    (np.zeros((6, 9)), {}, 'is of float64, but must be of uint8, uint16 or float32'),
    (np.zeros((2, 6, 9, 3), np.uint8), {}, r'has the shape \(2, 6, 9, 3\), but must be \(H, W\) or \(H, W, C\)'),
    (np.zeros((6, 9, 5), np.uint8), {'channels': 'grey'}, 'it has 5 channels, which channels: grey cannot reduce'),
    (np.array([{}]), {}, 'cannot be read as an image')])
def test_other_arrays_are_an_error_with_the_path(tmp_path, array, args, told):
    root = folder_of(tmp_path / 'a', array)
    with pytest.raises(UserError, match=rf'a/0\.npy: .*{told}'):
        ImageFolder(root, **{'channels': 'all', **args})[0]


def test_among_images_an_array_of_one_axis_is_an_error_with_the_path(tmp_path):
    root = folder_of(tmp_path / 'a', noise(20, 20, 3), np.zeros(10, np.uint8))
    with pytest.raises(UserError, match=r'a/1\.npy: its array has the shape \(10,\), but must be \(H, W\)'):
        SRImplicitDownsampled(ImageFolder(root, channels='all'), inp_size=8)


@pytest.mark.parametrize('channels', ['rgb', 'grey', 'all'])
def test_a_picture_that_cannot_be_read_is_named_once(tmp_path, channels):
    (tmp_path / 'a.png').write_bytes(b'no picture')
    with pytest.raises(UserError) as told:
        ImageFolder(str(tmp_path), channels=channels)[0]
    assert str(told.value).count('a.png') == 1


@pytest.mark.parametrize('args', [{'data_range': 100}, {'channels': 'all', 'data_range': 0}])
def test_a_data_range_is_above_0_and_not_of_8_bit_rgb(folder, args):
    with pytest.raises(UserError, match='data_range must be above 0, and needs channels: grey or all'):
        ImageFolder(str(folder), **args)


def test_by_default_npy_files_are_left_out_with_a_hint(folder, capsys):
    folder_of(folder, noise(6, 9))
    assert len(ImageFolder(str(folder))) == 3
    assert capsys.readouterr().out == f'note: {folder}: left out: 0.npy (an array: channels: all reads it)\n'


def test_images_of_other_channels_than_the_first_are_named(tmp_path):
    root = folder_of(tmp_path / 'a', noise(6, 9, 5), noise(6, 9, 4))
    with pytest.raises(UserError, match=r'a/1\.npy: has 4 channels, but the first image 5'):
        SRImplicitDownsampled(ImageFolder(root, channels='all'))[1]


def test_the_image_that_takes_a_small_ones_place_is_named_if_it_has_other_channels(tmp_path):
    root = folder_of(tmp_path / 'a', noise(17, 17), noise(8, 8), noise(99, 99, 2))
    samples = SRImplicitDownsampled(ImageFolder(root, channels='all'), inp_size=16, scale_max=4, small_images='fit')
    with pytest.raises(UserError, match=r'a/2\.npy: has 2 channels, but the first image 1'):
        [samples[1] for _ in range(99)]


def test_whole_targets_of_two_types_make_no_batch(tmp_path):
    root = folder_of(tmp_path / 'a', noise(8, 8), noise(8, 8, dtype=np.uint8))
    spec = {'dataset': {'name': 'image-folder', 'args': {'root_path': root, 'channels': 'grey'}}, 'batch_size': 2,
            'wrapper': {'name': 'sr-implicit-downsampled', 'args': {'scale_min': 2}}, 'num_workers': 0}
    with pytest.raises(UserError, match='whole targets of different types cannot form a batch: save all images in'):
        next(iter(datasets.make_loader(spec, 0)))
    spec['wrapper']['args'] = {'scale_min': 2, 'sample_q': 20}
    assert next(iter(datasets.make_loader(spec, 0)))['gt'].shape == (2, 20, 1)


@pytest.mark.parametrize('shown', [[0, 1], [5], [-1], [0, 1, 5]])
def test_pictures_show_one_or_three_channels_that_there_are(tmp_path, shown):
    root = folder_of(tmp_path / 'a', noise(6, 9, 5))
    with pytest.raises(UserError, match='shown must be one or three channels, 0 to 4'):
        SRImplicitDownsampled(ImageFolder(root, channels='all', shown=shown))


# --- samples ---------------------------------------------------------------------------------------


@pytest.mark.parametrize('dtype', TOPS)
@pytest.mark.parametrize('channels', [1, 5])
def test_whole_targets_travel_in_their_own_type(tmp_path, channels, dtype):
    array = noise(12, 8, channels, dtype=dtype)
    batch, = datasets.make_loader({
        'dataset': {'name': 'image-folder', 'args': {'root_path': folder_of(tmp_path / 'a', array),
                                                     'channels': 'all'}},
        'wrapper': {'name': 'sr-implicit-downsampled', 'args': {'scale_min': 2}}, 'batch_size': 1, 'num_workers': 1}, 0)
    assert same(batch['gt'].numpy()[0], array.transpose(2, 0, 1))
    assert batch['inp'].dtype == batch['gt'].dtype and batch['inp'].shape == (1, channels, 6, 4)


@pytest.mark.parametrize('dtype', TOPS)
def test_queries_have_the_values_of_the_array_by_its_type(tmp_path, dtype):
    array = noise(12, 8, 5, dtype=dtype)
    dataset = ImageFolder(folder_of(tmp_path / 'a', array), channels='all')
    item = SRImplicitDownsampled(dataset, inp_size=4, scale_min=2, sample_q=64)[0]
    order = np.lexsort(item['coord'].numpy().T[::-1])
    gt = item['gt'].numpy()[order].reshape(8, 8, 5)
    tops = [abs(gt - array[y:y + 8, :8] / TOPS[dtype]).max() for y in range(5)]
    assert min(tops) < 1e-7


@pytest.mark.parametrize('reduction', [resize, imresize])
@pytest.mark.parametrize('dtype', TOPS)
def test_channels_are_reduced_each_by_itself_in_its_own_type(reduction, dtype):
    array = noise(12, 16, 5, dtype=dtype)
    small = reduction(array, (6, 5))
    assert small.dtype == dtype and small.shape == (6, 5, 5)
    for channel in range(5):
        assert np.array_equal(small[..., channel], reduction(array[..., channel:channel + 1], (6, 5))[..., 0])


@pytest.mark.parametrize('reduction', [resize, imresize])
def test_a_reduction_keeps_the_low_bits(reduction):
    assert (reduction(np.full((12, 16, 2), 40001, np.uint16), (6, 5)) == 40001).all()
    assert abs(reduction(np.full((12, 16, 2), 0.70001, np.float32), (6, 5)) - 0.70001).max() < 1e-6


@pytest.mark.parametrize('dtype', [np.uint16, np.float32])
def test_a_reduction_is_within_the_range(dtype):
    top = TOPS[dtype]
    edge = np.zeros((4, 24, 1), dtype)
    edge[:, 12:] = top
    small = resize(edge, (4, 13))
    assert small.min() == 0 and small.max() == top


@pytest.mark.parametrize('grey', [True, False])
def test_reducing_8_bits_channel_by_channel_is_what_pillow_makes_of_rgb(grey):
    rgb = photo(12, 16)
    expected = np.asarray(Image.fromarray(rgb).resize((7, 5), Image.BICUBIC))
    for channel in range(3):
        part = rgb[..., channel:channel + 1] if grey else np.dstack([rgb, rgb])[..., channel:channel + 4]
        assert np.array_equal(resize(part, (5, 7))[..., 0], expected[..., channel])


def test_pairs_of_arrays_are_cut(tmp_path):
    hr = noise(16, 12, 4)
    lr = hr[::2, ::2]
    pairs = PairedImageFolders(folder_of(tmp_path / 'lr', lr, name='{}x2.npy'), folder_of(tmp_path / 'hr', hr),
                               channels='all')
    item = SRImplicitPaired(pairs)[0]
    assert same(item['inp'].numpy(), lr.transpose(2, 0, 1)) and same(item['gt'].numpy(), hr.transpose(2, 0, 1))


# --- the baseline ----------------------------------------------------------------------------------


def bicubic(colours, size):
    """Bicubic of `colours` (h, w, C) in [0, 1] by the model: (H, W, C)."""
    inp = torch.from_numpy(np.ascontiguousarray(colours, np.float32)).permute(2, 0, 1)[None]
    y, x = torch.meshgrid(*((2 * torch.arange(n) + 1) / n - 1 for n in size), indexing='ij')
    coord = torch.stack([y, x], dim=-1).view(1, -1, 2)
    cell = torch.tensor([2 / n for n in size]).expand_as(coord)
    return Bicubic()(inp, coord, cell).view(*size, -1).numpy()


def test_bicubic_of_8_bits_of_grey_is_pillows(tmp_path):
    grey = noise(6, 9, dtype=np.uint8)
    expected = np.asarray(Image.fromarray(grey).resize((20, 14), Image.BICUBIC))
    assert np.array_equal((bicubic(grey[..., None] / 255, (14, 20))[..., 0] * 255).round(), expected)


@pytest.mark.parametrize('channels', [1, 3, 5])
def test_bicubic_of_16_bits_is_not_made_in_8(channels):
    array = noise(6, 9, channels) // 200 + 30000
    expected = [np.asarray(Image.fromarray(plane.astype(np.float32)).resize((20, 14), Image.BICUBIC))
                for plane in np.moveaxis(array, 2, 0)]
    assert abs(bicubic(array / 65535, (14, 20)) * 65535 - np.dstack(expected)).max() < 0.1
