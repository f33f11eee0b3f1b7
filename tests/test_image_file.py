"""Single image files: how they become 8-bit RGB, which are opened, and what guards there are."""

import os
import struct
import subprocess
import sys
from pathlib import Path

import image_fuzz
import numpy as np
import pytest
import tifffile
from paths import ROOT
from photos import photo, write_png16
from PIL import Image, ImageCms, PngImagePlugin

from datasets import image_file
from datasets.image_file import image_size, read_image
from datasets.image_folder import ImageFolder
from errors import UserError
from pictures.io import read
from pictures.modes import plain

# --- as 8-bit RGB ----------------------------------------------------------------------------------


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


def test_16_bits_of_grey_are_rounded_to_8(tmp_path):
    grey = np.random.default_rng(0).integers(0, 2 ** 16, (6, 9), dtype=np.uint16)
    write_png16(tmp_path / 'grey16.png', grey)
    assert np.array_equal(ImageFolder(str(tmp_path))[0], np.stack([np.round(grey / 257)] * 3, axis=2))


def test_16_bits_of_a_pgm_are_rounded_to_8(tmp_path):
    grey = np.random.default_rng(0).integers(0, 2 ** 16, (6, 9), dtype=np.uint16)
    (tmp_path / 'grey16.pgm').write_bytes(b'P5 9 6 65535\n' + grey.astype('>u2').tobytes())
    assert np.array_equal(ImageFolder(str(tmp_path))[0], np.stack([np.round(grey / 257)] * 3, axis=2))


@pytest.mark.parametrize('compression', [None, 'zlib'])
def test_grey_of_16_bits_whose_0_is_white_is_no_negative(tmp_path, compression):
    grey = np.random.default_rng(0).integers(0, 2 ** 16, (6, 9), dtype=np.uint16)
    tifffile.imwrite(tmp_path / 'a.tif', 65535 - grey, photometric='miniswhite', compression=compression)
    assert np.array_equal(read_image(tmp_path / 'a.tif')[..., 0], np.round(grey / 257))
    assert np.array_equal(read(tmp_path / 'a.tif'), grey)


def test_grey_of_12_bits_goes_to_white(tmp_path):
    grey = np.arange(0, 4096, 39, dtype=np.uint16)[:104].reshape(8, 13)
    grey[0, 0] = 4095
    bits = ''.join(''.join(f'{value:012b}' for value in row).ljust(160, '0') for row in grey)  # rows end with a byte
    data = int(bits, 2).to_bytes(160, 'big')
    tags = [(256, 13), (257, 8), (258, 12), (259, 1), (262, 1), (273, 122), (277, 1), (278, 8), (279, 160)]
    directory = struct.pack('<H', len(tags)) + b''.join(struct.pack('<HHII', tag, 4, 1, value) for tag, value in tags)
    (tmp_path / 'a.tif').write_bytes(b'II*\0\x08\0\0\0' + directory + bytes(4) + data)
    np.testing.assert_allclose(np.asarray(read(tmp_path / 'a.tif')), grey * (65535 / 4095), atol=0.5)
    np.testing.assert_allclose(read_image(tmp_path / 'a.tif')[..., 0], grey * (255 / 4095), atol=0.51)


@pytest.mark.parametrize('flags, mode', [(0, 'RGB'), (8, 'RGBA')])
def test_a_tga_without_bits_of_alpha_is_opaque(tmp_path, flags, mode):
    Image.new('RGBA', (9, 6), (10, 20, 30, 0)).save(tmp_path / 'a.tga')
    data = bytearray((tmp_path / 'a.tga').read_bytes())
    data[17] = data[17] & 0xF0 | flags
    (tmp_path / 'a.tga').write_bytes(data)
    image = read(tmp_path / 'a.tga')
    assert image.mode == mode and image.getpixel((0, 0))[:3] == (10, 20, 30)


def test_a_tga_that_is_decoded_already_is_taken(tmp_path):
    Image.new('RGBA', (9, 6), (10, 20, 30, 40)).save(tmp_path / 'a.tga')
    with Image.open(tmp_path / 'a.tga') as image:
        image.load()
    assert plain(image).getpixel((0, 0)) == (10, 20, 30, 40)


@pytest.mark.parametrize('dtype, told', [
    (np.float32, 'mode F .* channels: grey or all; convert'), (np.int32, 'more than 16 bits')])
def test_pixels_of_other_than_8_or_16_bits_are_an_error_with_the_path(tmp_path, dtype, told):
    Image.fromarray(np.full((6, 9), 70000, dtype)).save(tmp_path / 'odd.tif')
    with pytest.raises(UserError, match=f'odd.tif: .*{told}'):
        ImageFolder(str(tmp_path))[0]


def test_of_16_bit_rgb_the_high_byte_stays(tmp_path):
    rgb = np.random.default_rng(0).integers(0, 2 ** 16, (6, 9, 3), dtype=np.uint16)
    write_png16(tmp_path / 'rgb16.png', rgb)
    assert np.array_equal(ImageFolder(str(tmp_path))[0], rgb // 256)


# --- which are opened, and how -----------------------------------------------------------------------


def refusal(path):
    """The line in which the image `path` is refused, by all that read images."""
    lines = []
    for reader in image_size, read_image, read:
        with pytest.raises(UserError) as info:
            reader(path)
        lines.append(str(info.value))
    assert len(set(lines)) == 1 and '\n' not in lines[0] and lines[0].startswith(f'{path}: ')
    return lines[0]


@pytest.mark.parametrize('name', ['a.eps', 'a.png'])
def test_no_file_starts_ghostscript(tmp_path, monkeypatch, name):
    program = tmp_path / 'bin/gs'
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\ntouch {tmp_path}/started\nexit 1\n')
    program.chmod(0o755)
    monkeypatch.setenv('PATH', f'{program.parent}:{os.environ["PATH"]}')
    Image.new('RGB', (8, 8), 'red').save(tmp_path / 'a', 'EPS')
    (tmp_path / 'a').rename(tmp_path / name)
    refusal(tmp_path / name)
    assert not (tmp_path / 'started').exists()


def test_an_icon_is_refused_because_pillow_decodes_it_while_it_opens_it(tmp_path):
    Image.new('RGBA', (16, 16)).save(tmp_path / 'a.ico')
    with pytest.raises(UserError, match='a.ico: cannot be read as an image .its content is none of'):
        image_size(tmp_path / 'a.ico')


@pytest.mark.parametrize('name, told', [
    ('a.cr2', 'RAW: export'), ('a.NEF', 'RAW: export'), ('a.dng', 'RAW: export'), ('a.svg', 'export it as PNG')])
def test_what_is_not_opened_is_told_what_would_help(tmp_path, name, told):
    Image.new('RGB', (16, 12)).save(tmp_path / name, 'TIFF')  # as the preview in many a RAW file
    assert told in refusal(tmp_path / name)


def test_a_tiff_that_is_not_read_is_not_said_to_be_no_tiff(tmp_path):
    tifffile.imwrite(tmp_path / 'a.tif', np.zeros((6, 9, 3), np.uint32), photometric='rgb')
    assert 'a TIFF of a kind that is not read' in refusal(tmp_path / 'a.tif')


def test_a_heic_is_refused_only_without_pillow_heif(monkeypatch):
    for package, refused in ((None, True), ('installed', False)):
        monkeypatch.setattr(image_file, 'pillow_heif', package)
        assert bool(image_file.why_not(Path('a.HEIC'))) == refused


@pytest.mark.skipif(image_file.pillow_heif is not None, reason='pillow-heif is installed')
def test_without_pillow_heif_its_name_is_told(tmp_path):
    (tmp_path / 'a.heic').write_bytes(b'\0\0\0\x18ftypheic')
    assert 'pip install pillow-heif' in refusal(tmp_path / 'a.heic')


def test_with_pillow_heif_a_heic_is_opened(tmp_path):
    pytest.importorskip('pillow_heif')
    Image.new('RGB', (48, 32), 'red').save(tmp_path / 'a.heic')
    assert image_size(tmp_path / 'a.heic') == (32, 48)
    assert abs(read_image(tmp_path / 'a.heic').astype(int) - (255, 0, 0)).max() < 9
    assert len(ImageFolder(str(tmp_path))) == 1


@pytest.mark.parametrize('kind', ['icc', 'zTXt', 'tEXt'])
def test_a_png_with_a_large_chunk_is_read(tmp_path, kind):
    text, options = PngImagePlugin.PngInfo(), {}
    if kind == 'icc':
        profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile('sRGB')).tobytes() + bytes(1_200_000))
        profile[:4] = struct.pack('>I', len(profile))
        options['icc_profile'] = bytes(profile)
    else:
        text.add_text('workflow', 'node ' * 300_000, zip=kind == 'zTXt')
    Image.fromarray(photo(6, 9)).save(tmp_path / 'a.png', pnginfo=text, **options)
    for image in read_image(tmp_path / 'a.png'), read(tmp_path / 'a.png'):
        assert np.array_equal(image, photo(6, 9))


def test_200_megapixels_are_read(tmp_path):
    Image.new('1', (20000, 10000)).save(tmp_path / 'aerial.png')
    assert image_size(tmp_path / 'aerial.png') == (10000, 20000)


def test_a_header_that_claims_more_than_the_memory_is_told_before_decoding(tmp_path):
    Image.new('RGB', (100, 100)).save(tmp_path / 'bomb.png')
    data = bytearray((tmp_path / 'bomb.png').read_bytes())
    data[16:24] = struct.pack('>II', 10**6, 10**6)
    (tmp_path / 'bomb.png').write_bytes(image_fuzz.mend_png(bytes(data)))
    line = refusal(tmp_path / 'bomb.png')
    assert '1000000x1000000 pixels take 8000.0 GB to read' in line and 'of memory are free' in line


def test_the_limit_of_a_process_counts_as_its_memory(tmp_path):
    code = ('import resource, sys; resource.setrlimit(resource.RLIMIT_AS, (2**30, 2**30)); sys.path.insert(0, ".")\n'
            'from files import free_memory; print(free_memory())')
    free = float(subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True,
                                check=True).stdout)
    assert 2**29 < free < 2**30


@pytest.mark.filterwarnings('ignore')  # pytest undoes what image_file.py has set
def test_too_little_memory_is_no_fault_of_the_file(tmp_path, monkeypatch):
    def full(*args):
        raise MemoryError
    Image.fromarray(photo(6, 9)).convert('P').save(tmp_path / 'a.png')
    monkeypatch.setattr(Image.Image, 'convert', full)
    with pytest.raises(MemoryError):
        read_image(tmp_path / 'a.png')


def test_damaged_files_of_every_format_are_read_or_refused_in_one_line(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(image_file, 'free_memory', lambda: 2e7)
    path, count = tmp_path / 'a', 0
    for seed in range(400):
        path.write_bytes(image_fuzz.mutated(seed))
        for reader in image_size, read_image, read:
            try:
                reader(path)
                count += 1
            except UserError as error:
                assert len(str(error).splitlines()) == 1, seed
            except Exception as error:
                raise AssertionError(f'seed {seed}') from error
    assert 300 < count < 900
    assert capfd.readouterr().err == ''


@pytest.mark.filterwarnings('ignore')  # pytest undoes what image_file.py has set
def test_the_same_files_undamaged_are_read(tmp_path):
    for i, data in enumerate(image_fuzz.samples()):
        (tmp_path / str(i)).write_bytes(data)
        read_image(tmp_path / str(i))
        read(tmp_path / str(i))
