"""Colour of 16 bits, in PNG and TIFF, as other libraries write and read it: without a way through 8 bits."""

import io
import struct
import zlib

import image_fuzz
import numpy as np
import pytest
import tifffile
from films import ffmpeg
from photos import png, png_of
from PIL import Image
from upscaling import SRGB, assert_close, interpolated, picture

from datasets.arrays import Reader
from errors import UserError
from models import upscale_pil
from pictures.io import read

PIXEL_FORMATS = {2: 'ya16le', 3: 'rgb48le', 4: 'rgba64le'}


def deep(channels, seed=0, width=12, height=10):
    """Smooth 16-bit values (height, width, channels), most of which no 8 bits hold; an alpha of 4 channels is even."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 65536, (channels, 3, 4)).astype(np.float32)
    planes = [np.asarray(Image.fromarray(plane).resize((width, height), Image.BILINEAR)) for plane in small]
    values = np.dstack(planes).astype(np.uint16)
    if channels in (2, 4):
        values[..., -1] = 51001
    return values


def write(path, values, **options):
    """Writes `values` as a 16-bit PNG or TIFF."""
    height, width, channels = values.shape
    if path.suffix == '.png':
        ffmpeg('-f', 'rawvideo', '-pix_fmt', PIXEL_FORMATS[channels], '-s', f'{width}x{height}', '-i', '-', path,
               input=values.tobytes())
    else:
        alpha = {'extrasamples': ['unassalpha']} if channels == 4 else {}
        tifffile.imwrite(path, values, **{'photometric': 'rgb', **alpha, **options})


def written(path):
    """The pixels of a file, by a library that is not Pillow."""
    if path.suffix == '.tif':
        return tifffile.imread(path)
    width, height, bits, colour_type = struct.unpack('>IIBB', path.read_bytes()[16:26])  # of PNG's header
    assert bits == 16
    channels = {2: 3, 4: 2, 6: 4}[colour_type]
    raw = ffmpeg('-i', path, '-f', 'rawvideo', '-pix_fmt', PIXEL_FORMATS[channels], '-')
    return np.frombuffer(raw, '<u2').reshape(height, width, channels)


@pytest.mark.parametrize('channels', [3, 4])
@pytest.mark.parametrize('source, target', [('.png', '.png'), ('.png', '.tif'), ('.tif', '.png'), ('.tif', '.tif')])
def test_16_bits_of_colour_are_kept(cli, tmp_path, source, target, channels):
    values = deep(channels)
    write(tmp_path / f'small{source}', values)
    code, out, err = cli(f'small{source}', '--scale', 2.5, '--output', f'big{target}')
    assert (code, err) == (0, []) and not any('note' in line for line in out)
    big = written(tmp_path / f'big{target}')
    assert big.dtype == np.uint16
    np.testing.assert_allclose(big, interpolated(values, (25, 30)), rtol=0, atol=1)


def test_16_bits_of_grey_with_alpha_are_kept(cli, tmp_path):
    write(tmp_path / 'small.png', deep(2))
    assert cli('small.png', '--scale', 2, '--output', 'big.png')[0] == 0
    np.testing.assert_allclose(written(tmp_path / 'big.png'), interpolated(deep(2), (20, 24)), rtol=0, atol=1)


def test_16_bits_of_grey_with_alpha_become_colour_with_alpha_in_tiffs_which_programs_open(cli, tmp_path):
    write(tmp_path / 'small.png', deep(2))
    assert cli('small.png', '--scale', 2, '--output', 'big.tif')[0] == 0
    Image.open('big.tif').load()
    expected = interpolated(deep(2), (20, 24))[..., [0, 0, 0, 1]]
    for big in written(tmp_path / 'big.tif'), read(tmp_path / 'big.tif'):
        np.testing.assert_allclose(np.asarray(big), expected, rtol=0, atol=1)


@pytest.mark.parametrize('target, told', [('.png', True), ('.webp', True), ('.tif', False)])
def test_frames_of_16_bits_become_8_in_animations_and_that_is_said(cli, tmp_path, target, told):
    first, second = (Image.fromarray(deep(2)[..., i]) for i in range(2))
    first.save(tmp_path / 'small.png', save_all=True, append_images=[second])
    code, out, _ = cli('small.png', '--scale', 2, '--output', f'big{target}')
    assert code == 0 and any('16 bits' in line for line in out) == told


def test_a_png_of_16_bits_is_read_by_ffmpeg(cli, tmp_path):
    values = np.random.default_rng(0).integers(0, 65536, (300, 40, 3), dtype=np.uint16)  # more rows than go at a time
    write(tmp_path / 'small.png', values)
    assert cli('small.png', '--scale', 1, '--output', 'big.png')[0] == 0
    data = ffmpeg('-i', tmp_path / 'big.png', '-f', 'rawvideo', '-pix_fmt', 'rgb48le', '-')
    np.testing.assert_allclose(np.frombuffer(data, np.uint16).reshape(values.shape), values.astype(float), atol=1)


@pytest.mark.parametrize('white', [65535, 4095])
def test_a_ppm_of_16_bits_is_read_whole(cli, tmp_path, white):
    values = deep(3) // (65536 // (white + 1))
    (tmp_path / 'a.ppm').write_bytes(b'P6 12 10 %d\n' % white + values.astype('>u2').tobytes())
    for reader in read, Reader('all').read:
        np.testing.assert_allclose(np.asarray(reader(tmp_path / 'a.ppm')), values * (65535 / white), rtol=0, atol=0.5)


def test_that_a_ppm_of_16_bits_in_text_is_read_as_8_is_said(cli, tmp_path):
    (tmp_path / 'a.ppm').write_text('P3 12 10 65535\n' + ' '.join(map(str, deep(3).flatten())))
    code, out, _ = cli('a.ppm', '--scale', 1, '--output', 'b.png')
    assert code == 0 and any('is read as 8 bits' in line for line in out)
    assert_close(Image.open('b.png'), deep(3) / 257)


@pytest.mark.parametrize('options', [
    {'compression': 'zlib', 'predictor': True}, {'byteorder': '>'}, {'rowsperstrip': 3}, {'tile': (16, 16)},
    {'planarconfig': 'separate'}], ids=str)
def test_tiffs_of_16_bits_are_read_however_they_are_stored(tmp_path, options):
    values = deep(3)
    planes = np.moveaxis(values, 2, 0) if 'planarconfig' in options else values
    tifffile.imwrite(tmp_path / 'a.tif', planes, photometric='rgb', **options)
    assert np.array_equal(read(tmp_path / 'a.tif'), values)


def test_colours_that_alpha_was_multiplied_into_are_those_without(tmp_path):
    values = deep(4)
    weighted = values.copy()
    weighted[..., :3] = (values[..., :3] * (values[..., 3:] / 65535)).round()
    write(tmp_path / 'a.tif', weighted, extrasamples=['assocalpha'])
    np.testing.assert_allclose(np.asarray(read(tmp_path / 'a.tif'), dtype=float), values, rtol=0, atol=1)


@pytest.mark.parametrize('suffix', ['.png', '.tif'])
def test_exif_resolution_and_profile_arrive_with_16_bits(cli, tmp_path, suffix):
    exif = Image.Exif()
    exif[0x010F] = 'the maker'
    exif.get_ifd(0x8769)[0xA433] = "the lens' maker"
    picture().save('metadata.tif', exif=exif, icc_profile=SRGB, dpi=(300, 300))
    tags = Image.open('metadata.tif').tag_v2
    write(tmp_path / 'small.tif', deep(3), iccprofile=SRGB, resolution=(300, 300), resolutionunit='INCH',
          extratags=[(0x010F, 's', 0, tags[0x010F], True)], software=False, metadata=None)
    assert cli('small.tif', '--scale', 2, '--output', f'big{suffix}')[0] == 0
    with Image.open(f'big{suffix}') as big:
        assert big.info['icc_profile'] == SRGB and big.getexif()[0x010F] == 'the maker'
        assert tuple(map(round, big.info['dpi'])) == (300, 300)


def test_the_exif_orientation_of_16_bits_is_applied(tmp_path):
    write(tmp_path / 'a.tif', deep(3), extratags=[(0x0112, 'H', 1, 6, True)])
    assert np.array_equal(read(tmp_path / 'a.tif'), np.rot90(deep(3), -1))


def test_a_format_without_16_bits_gets_8_and_that_is_said(cli, tmp_path):
    write(tmp_path / 'small.png', deep(3))
    code, out, _ = cli('small.png', '--scale', 2, '--output', 'big.bmp')
    assert code == 0 and len([line for line in out if line.startswith('note:') and '16 bits' in line]) == 1
    np.testing.assert_allclose(np.asarray(Image.open('big.bmp'), dtype=float), interpolated(deep(3) / 257, (20, 24)),
                               atol=1)


def test_sheets_of_16_bits_are_made(cli, tmp_path):
    write(tmp_path / 'small.png', deep(4))
    assert cli('small.png', '--compare', '--weights-map')[0] == 0
    assert Image.open('small-x4-compare.png').mode == Image.open('small-x4-weights.png').mode == 'RGB'


def test_a_damaged_tiff_of_16_bits_is_one_line(cli, tmp_path):
    write(tmp_path / 'small.tif', deep(3, width=200, height=100), compression='zlib')
    data = (tmp_path / 'small.tif').read_bytes()
    (tmp_path / 'small.tif').write_bytes(data[:len(data) // 2])
    code, _, err = cli('small.tif', '--scale', 2)
    assert code == 2 and len(err) == 1 and 'small.tif' in err[0]


def chunks(data):
    """The chunks of a PNG: kind and content."""
    at, result = 8, []
    while at < len(data):
        length = int.from_bytes(data[at:at + 4], 'big')
        result.append((data[at + 4:at + 8], data[at + 8:at + 8 + length]))
        at += 12 + length
    return result


def change_pixels(data, change):
    """A PNG whose compressed pixels are changed, with right checksums of its chunks."""
    parts = chunks(data)
    pixels = change(b''.join(content for kind, content in parts if kind == b'IDAT'))
    return png_of([*(part for part in parts if part[0] not in (b'IDAT', b'IEND')), (b'IDAT', pixels), (b'IEND', b'')])


def wrong_filter(packed):
    rows = bytearray(zlib.decompress(packed))
    rows[len(rows) // 64 * 20] = 9
    return zlib.compress(rows)


DAMAGES = {
    'two bytes': lambda data: data[:5000] + b'\xa5\x5a' + data[5002:],
    'two bytes with a right CRC': lambda data: change_pixels(data, lambda p: p[:5000] + b'\xa5\x5a' + p[5002:]),
    'filter': lambda data: change_pixels(data, wrong_filter),
    'too few pixels': lambda data: change_pixels(data, lambda p: zlib.compress(zlib.decompress(p)[:9000])),
    'cut off': lambda data: data[:len(data) // 2]}


@pytest.mark.parametrize('damage', DAMAGES)
@pytest.mark.parametrize('channels', [2, 3, 4])
def test_a_damaged_png_of_16_bits_is_one_line(tmp_path, channels, damage):
    data = DAMAGES[damage](image_fuzz.deep_png(channels))
    (tmp_path / 'a.png').write_bytes(data)
    for reader in read, Reader('all').read:
        with pytest.raises(UserError, match='a.png: cannot be read as an image') as info:
            reader(tmp_path / 'a.png')
        assert '\n' not in str(info.value)


def interlaced(values):
    """A PNG (bytes) of uint16 `values` (H, W, C), with interlaced rows without filters."""
    passes = (0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)
    parts = [values[top::down, left::right] for top, left, down, right in passes]
    rows = b''.join(b'\0' + row.astype('>u2').tobytes() for part in parts if part.size for row in part)
    height, width, channels = values.shape
    return png((width, height), 16, {2: 4, 3: 2, 4: 6}[channels], rows, interlaced=True)


@pytest.mark.parametrize('size', [(1, 1), (3, 5), (21, 18)])
@pytest.mark.parametrize('channels', [2, 3, 4])
def test_interlaced_pngs_of_16_bits_are_read(tmp_path, channels, size):
    values = deep(channels, width=size[0], height=size[1])
    (tmp_path / 'a.png').write_bytes(interlaced(values))
    assert np.array_equal(read(tmp_path / 'a.png'), values)


def test_pictures_are_read_from_memory(bilinear, tmp_path):
    write(tmp_path / 'small.png', deep(3))
    big = upscale_pil(bilinear, Image.open(io.BytesIO((tmp_path / 'small.png').read_bytes())), scale=2)
    assert (big.mode, big.size) == ('RGB;16', (24, 20))
