"""EXIF data, resolution and ICC profile of a picture arrive in the result, from any format in any."""

import struct

import numpy as np
import pytest
from PIL import ExifTags, Image, PngImagePlugin
from upscaling import SRGB, SWAPPED, picture

DPI = 300, 150
MAKER, ARTIST, DATE = 'the maker', 'José', '2020:01:01 00:00:00'


def exif(orientation):
    """EXIF data (bytes) of a camera, as a library other than ours or Pillow writes them: with an accent."""
    data = Image.Exif()
    data[0x010F], data[0x013B], data[0x9003], data[0x0100] = MAKER, 'Jos?', DATE, 12
    data[0x8769] = {0x9003: DATE, 0xA002: 12, 0xA003: 10, 0x9286: b'ASCII\0\0\0hello', 0xA434: 'lens', 0x829A: 0.004,
                    0xA005: {1: 'R98'}}
    data[0x8825] = {0: b'\2\3\0\0', 1: 'N', 2: (1.0, 2.0, 3.5), 29: '2020:01:01'}
    if orientation:
        data[0x0112] = orientation
    return data.tobytes().replace(b'Jos?\0', 'José\0'.encode('latin-1'))


def with_text(key, data, **options):
    """A PNG that carries EXIF `data` as ImageMagick does, in a text."""
    def save(path):
        text = PngImagePlugin.PngInfo()
        text.add_text(key, f'\n{key.rsplit(" ")[-1]}\n{len(data):8}\n{data.hex()}\n', **options)
        picture().save(path, pnginfo=text, dpi=DPI, icc_profile=SRGB)
    return save


def with_exif_behind_the_pixels(data):
    def save(path):
        picture().save(path, exif=data, dpi=DPI, icc_profile=SRGB)
        content = path.read_bytes()
        at = content.index(b'eXIf') - 4
        chunk = content[at:at + 12 + struct.unpack('>I', content[at:at + 4])[0]]
        content = content.replace(chunk, b'')
        end = content.index(b'IEND') - 4
        path.write_bytes(content[:end] + chunk + content[end:])
    return save


def plainly(data, **options):
    return lambda path: picture().save(path, exif=data, dpi=DPI, icc_profile=SRGB, **options)


SOURCES = {
    'jpg': plainly, 'webp': lambda data: plainly(data, lossless=True), 'avif': plainly, 'tif': plainly, 'png': plainly,
    'behind.png': with_exif_behind_the_pixels,
    'text.png': lambda data: with_text('Raw profile type exif', data[6:]),
    'zipped.png': lambda data: with_text('Raw profile type exif', data[6:], zip=True),
    'app1.png': lambda data: with_text('Raw profile type APP1', data, zip=True)}


@pytest.mark.parametrize('target', ['jpg', 'png', 'webp', 'tif', 'avif'])
@pytest.mark.parametrize('source, orientation', [
    *((source, orientation) for source in SOURCES for orientation in (None, 6)), ('jpg', 3)])
def test_what_a_picture_says_arrives(cli, tmp_path, source, target, orientation):
    SOURCES[source](exif(orientation))(tmp_path / f'small.{source}')
    assert cli('--input', f'small.{source}', '--scale', 2, '--output', f'big.{target}')[0] == 0
    with Image.open(f'big.{target}') as big:
        big.load()
        assert big.size == ((20, 24) if orientation == 6 else (24, 20))
        assert big.info['icc_profile'] == SRGB
        tags, camera, place = big.getexif(), big.getexif().get_ifd(0x8769), big.getexif().get_ifd(0x8825)
        assert (tags[0x010F], tags[0x9003], tags.get(0x0112, 1)) == (MAKER, DATE, 1)
        assert tags[0x013B] == ARTIST or source in ('tif', 'avif')  # of which Pillow itself has written 'Jos?'
        assert (camera[0xA002], camera[0xA003]) == big.size and tags.get(0x0100, big.width) == big.width
        assert (camera[0x9003], camera[0x9286], camera[0xA434]) == (DATE, b'ASCII\0\0\0hello', 'lens')
        assert (camera[0x829A], place[2], place[29]) == (pytest.approx(0.004), (1.0, 2.0, 3.5), '2020:01:01')
        if source not in ('webp', 'avif'):  # which hold a resolution in EXIF data only, and these have none
            dpi = big.info.get('dpi') or (tags[0x011A], tags[0x011B])
            assert dpi == pytest.approx(DPI[::-1] if orientation == 6 else DPI, abs=0.1)


def test_bytes_stay_of_the_type_undefined(cli):
    picture().save('small.jpg', exif=exif(None).replace(struct.pack('>HH', 0x9286, 1), struct.pack('>HH', 0x9286, 7)))
    assert cli('--input', 'small.jpg', '--scale', 2, '--output', 'big.jpg')[0] == 0
    assert struct.pack('>HH', 0x9286, 7) in Image.open('big.jpg').info['exif']


@pytest.mark.parametrize('target', ['webp', 'avif'])
def test_a_resolution_without_exif_data_arrives_in_formats_that_have_no_other_place_for_it(cli, target):
    picture().save('small.png', dpi=DPI)
    assert cli('--input', 'small.png', '--scale', 2, '--output', f'big.{target}')[0] == 0
    tags = Image.open(f'big.{target}').getexif()
    assert (tags[0x011A], tags[0x011B]) == pytest.approx(DPI, abs=0.1) and tags[0x0128] == 2


def test_a_resolution_in_centimetres_is_converted(cli):
    data = Image.Exif()
    data[0x011A], data[0x011B], data[0x0128] = 100.0, 50.0, 3
    picture().save('small.webp', exif=data)
    assert cli('--input', 'small.webp', '--scale', 2, '--output', 'big.png')[0] == 0
    assert Image.open('big.png').info['dpi'] == pytest.approx((254, 127), abs=0.1)


@pytest.mark.parametrize('target', ['jpg', 'tif'])
def test_of_a_tiff_what_it_says_arrives_and_not_how_it_was_stored(cli, target):
    picture().save('small.tif', compression='tiff_lzw', tiffinfo={0x013B: ARTIST.encode('latin-1')})
    assert cli('--input', 'small.tif', '--scale', 2, '--output', f'big.{target}')[0] == 0
    with Image.open(f'big.{target}') as big:
        assert big.getexif()[0x013B] == ARTIST
        assert big.info.get('compression') in (None, 'raw')
        assert target == 'tif' or [*big.getexif()] == [0x013B]


def test_the_thumbnail_of_the_small_picture_is_left_out(cli):
    thumbnail = struct.pack('<H', 1) + struct.pack('<HHII', 0x0201, 4, 1, 8) + bytes(4)
    tags = struct.pack('<H', 1) + struct.pack('<HHI4s', 0x010F, 2, 4, b'me!\0') + struct.pack('<I', 26)
    picture().save('small.jpg', exif=b'Exif\0\0II*\0' + struct.pack('<I', 8) + tags + thumbnail)
    assert Image.open('small.jpg').getexif().get_ifd(ExifTags.IFD.IFD1)
    assert cli('--input', 'small.jpg', '--scale', 2, '--output', 'big.jpg')[0] == 0
    tags = Image.open('big.jpg').getexif()
    assert tags[0x010F] == 'me!' and not tags.get_ifd(ExifTags.IFD.IFD1)


def test_a_damaged_directory_costs_no_other_tags(cli):
    data = exif(6).replace(struct.pack('>HHI', 0x8825, 4, 1), struct.pack('>HHI', 0x8825, 7, 1))
    picture().save('small.jpg', exif=data)
    assert cli('--input', 'small.jpg', '--scale', 2, '--output', 'big.jpg')[0] == 0
    assert Image.open('big.jpg').size == (20, 24) and Image.open('big.jpg').getexif()[0x010F] == MAKER


@pytest.mark.parametrize('target', ['big.bmp', 'big.gif'])
def test_in_a_format_without_profiles_colours_are_those_of_srgb(cli, target):
    picture().save('small.png', icc_profile=SWAPPED)
    for path in 'big.png', target:
        assert cli('small.png', '--scale', 2, '--output', path)[0] == 0
    swapped = np.asarray(Image.open('big.png')).astype(int)[..., ::-1]
    assert np.abs(np.asarray(Image.open(target).convert('RGB')) - swapped).mean() < 4


def icc_profile(head, name, value):
    """An ICC profile: class, colour space and that it leads to (`head`), and a tag of this name and value."""
    tags = {b'wtpt': b'XYZ \0\0\0\0' + struct.pack('>3i', 63190, 65536, 54061), name: value,
            b'desc': b'desc\0\0\0\0' + struct.pack('>I', 2) + b'g\0' + bytes(78),
            b'cprt': b'text\0\0\0\0none\0\0\0\0'}
    table, data, start = struct.pack('>I', len(tags)), b'', 132 + 12 * len(tags)
    for tag, value in tags.items():
        table += tag + struct.pack('>II', start + len(data), len(value))
        data += value + bytes(-len(value) % 4)
    head = struct.pack('>I4sI12s', 0, b'none', 0x02100000, head) + bytes(12) + b'acsp'
    head += bytes(28) + struct.pack('>3i', 63190, 65536, 54061) + bytes(48)
    return struct.pack('>I', len(head + table + data)) + (head + table + data)[4:]


def grey_profile():
    """One of grey whose gamma is 1: its brightness is linear."""
    return icc_profile(b'mntrGRAYXYZ ', b'kTRC', b'curv' + bytes(8))


def red_ink_profile():
    """One of CMYK whose first ink is sRGB's red, and only the last one is visible besides: a table to CIELAB."""
    line, black, white, red = bytes(range(256)), bytes([0, 128, 128]), bytes([255, 128, 128]), bytes([138, 209, 198])
    matrix = struct.pack('>9i', 65536, 0, 0, 0, 65536, 0, 0, 0, 65536)
    colours = 4 * (white + black) + 4 * (red + black)
    table = b'mft1' + bytes(4) + bytes([4, 3, 2, 0]) + matrix + 4 * line + colours + 3 * line
    return icc_profile(b'prtrCMYKLab ', b'A2B0', table)


@pytest.mark.parametrize('suffix', ['jpg', 'tif'])
def test_cmyk_becomes_srgb_by_its_profile(cli, suffix):
    Image.new('CMYK', (16, 16), (255, 0, 0, 0)).save(f'small.{suffix}', icc_profile=red_ink_profile())
    code, out, _ = cli(f'small.{suffix}', '--scale', 2, '--output', 'big.png')
    assert code == 0 and not any('CMYK' in line for line in out)
    with Image.open('big.png') as big:
        assert big.mode == 'RGB' and 'icc_profile' not in big.info
        np.testing.assert_allclose(big.getpixel((9, 9)), (255, 0, 0), atol=5)


@pytest.mark.parametrize('profile', [None, SRGB, b'damaged'])
def test_of_cmyk_without_a_profile_for_it_a_note_says_that_colours_may_be_wrong(cli, profile):
    Image.new('CMYK', (16, 16), (255, 0, 0, 0)).save('small.jpg', icc_profile=profile)
    code, out, _ = cli('small.jpg', '--scale', 2, '--output', 'big.png')
    assert code == 0 and any(line.startswith('note: CMYK without a colour profile') for line in out)
    np.testing.assert_allclose(Image.open('big.png').getpixel((9, 9)), (0, 255, 255), atol=5)


@pytest.mark.parametrize('mode', ['L', 'LA', 'I;16'])
@pytest.mark.parametrize('target', ['bmp', 'gif', 'webp', 'avif', 'png'])
def test_grey_with_a_profile_is_as_bright_in_every_format(cli, target, mode):
    grey = Image.new('L', (12, 10), 60)
    grey = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257) if mode == 'I;16' else grey.convert(mode)
    grey.save('small.png', icc_profile=grey_profile())
    assert cli('small.png', '--scale', 2, '--output', f'big.{target}')[0] == 0
    with Image.open(f'big.{target}') as big:
        profile = big.info.get('icc_profile')
        assert profile == (grey_profile() if target == 'png' else None)
        if target != 'png':
            np.testing.assert_allclose(np.asarray(big.convert('RGB')), 132, atol=3)  # of sRGB: 60 / 255 of the light


def test_sheets_of_grey_with_a_profile_are_as_bright_and_without_it(cli):
    Image.new('L', (12, 10), 60).save('small.png', icc_profile=grey_profile())
    assert cli('small.png', '--scale', 2, '--output', 'big.png', '--compare')[0] == 0
    with Image.open('big-compare.png') as sheet:
        assert 'icc_profile' not in sheet.info
        np.testing.assert_allclose(sheet.getpixel((5, 5)), 132, atol=1)


@pytest.mark.parametrize('size, kept', [(65_532, True), (65_534, False)])
def test_a_jpeg_gets_as_much_exif_data_as_it_can_hold(cli, size, kept):
    data = Image.Exif()
    data[0x010F] = 'x' * (size - 33)
    data = data.tobytes()
    assert len(data) == size
    picture().save('small.png', exif=data)
    code, out, _ = cli('small.png', '--scale', 2, '--output', 'big.jpg')
    assert code == 0 and ('exif' in Image.open('big.jpg').info) == kept
    assert any('EXIF' in line for line in out) != kept


def test_a_comparison_has_the_pictures_icc_profile(cli):
    picture().save('small.png', icc_profile=SRGB)
    assert cli('--input', 'small.png', '--scale', 2, '--output', 'big.png', '--compare')[0] == 0
    assert Image.open('big-compare.png').info['icc_profile'] == SRGB
