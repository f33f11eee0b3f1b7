"""demo.py on files and folders of every kind."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from processes import forked
from upscaling import SRGB, assert_as_written, assert_close, interpolated, picture

import devices
from demos import upscaling

# --- files ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('suffix, name', [
    ('.png', 'PNG'), ('.tif', 'TIFF'), ('.TIFF', 'TIFF'), ('.bmp', 'BMP'), ('.jpg', 'JPEG'), ('.jpeg', 'JPEG'),
    ('.webp', 'WEBP')])
def test_each_format_is_read_and_written(cli, suffix, name):
    picture().save(f'small{suffix}', lossless=True)
    code, out, err = cli('--input', f'small{suffix}', '--scale', 2.5, '--output', f'big{suffix}')
    assert (code, err) == (0, [])
    assert 'big' in out[-2] and '30x25' in out[-2]
    with Image.open(f'small{suffix}') as small, Image.open(f'big{suffix}') as big:
        assert big.format == name
        assert_as_written(big, interpolated(small, (25, 30)), suffix)


@pytest.mark.parametrize('suffix', ['.png', '.tif', '.jpg', '.webp'])
def test_icc_profile_and_exif_get_into_the_file(cli, suffix):
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, 'the maker'
    picture().save('small.jpg', icc_profile=SRGB, exif=exif)
    assert cli('--input', 'small.jpg', '--scale', 2, '--output', f'big{suffix}')[0] == 0
    with Image.open(f'big{suffix}') as big:
        assert big.info['icc_profile'] == SRGB
        assert big.size == (20, 24)
        assert 0x0112 not in big.getexif() and big.getexif()[0x010F] == 'the maker'


@pytest.mark.parametrize('mode, suffix, written', [
    ('L', '.png', 'L'), ('LA', '.png', 'LA'), ('RGBA', '.png', 'RGBA'), ('I;16', '.png', 'I;16'),
    ('L', '.tif', 'L'), ('LA', '.tif', 'LA'), ('RGBA', '.tif', 'RGBA'), ('I;16', '.tif', 'I;16'),
    ('L', '.jpg', 'L'), ('LA', '.jpg', 'L'), ('RGBA', '.jpg', 'RGB'), ('I;16', '.jpg', 'L'),
    ('L', '.webp', 'RGB'), ('LA', '.webp', 'RGBA'), ('RGBA', '.webp', 'RGBA'), ('I;16', '.webp', 'RGB'),
    ('L', '.bmp', 'L'), ('LA', '.bmp', 'L'), ('RGBA', '.bmp', 'RGB'), ('I;16', '.bmp', 'L')])
def test_file_holds_what_its_format_can(cli, mode, suffix, written):
    wide = mode == 'I;16'
    grey = picture('L')
    image = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257) if wide else picture(mode)
    image.save('small.png')
    code, out, _ = cli('--input', 'small.png', '--scale', 2, '--output', f'big{suffix}')
    assert code == 0
    with Image.open(f'big{suffix}') as big:
        assert big.mode == written
        if written != 'I;16':
            expected = interpolated((grey if wide else image).convert('RGB'), (20, 24))
            if mode.endswith('A') and not written.endswith('A'):
                expected = 255 - (255 - expected) * 200 / 255  # what is seen on white
            assert_as_written(big.convert('RGB'), expected, suffix)
    lost = {('I;16', False): ['16 bits'], ('LA', False): ['alpha'], ('RGBA', False): ['alpha']}.get(
        (mode, written == mode or written.endswith('A')), [])
    notes = [line for line in out if line.startswith('note:')]
    assert len(notes) == len(lost) and all(text in note for text, note in zip(lost, notes, strict=True))


def test_resolution_is_height_and_width(cli):
    picture().save('small.png')
    assert cli('--input', 'small.png', '--resolution', '17,60', '--output', 'big.png')[0] == 0
    assert_close(Image.open('big.png'), interpolated(picture(), (17, 60)))


def test_results_of_8_bits_are_made_in_bf16_where_there_is_any_unless_float32_is_asked_for(cli, monkeypatch):
    monkeypatch.setattr(devices, 'native_bf16', lambda device: True)
    picture().save('small.png')
    job = 'small.png', '--scale', 3, '--output'
    assert cli(*job, 'full.png', '--float32', model='random.pth')[0] == 0
    assert cli(*job, 'half.png', model='random.pth')[0] == 0
    full, half = np.asarray(Image.open('full.png')), np.asarray(Image.open('half.png'), dtype=float)
    assert_close(half, full, 4)
    assert (full != half).any()


def test_results_of_16_bits_are_made_in_float32(cli, monkeypatch):
    monkeypatch.setattr(devices, 'native_bf16', lambda device: True)
    Image.fromarray(np.asarray(picture('L')).astype(np.uint16) * 257).save('small.png')
    job = 'small.png', '--scale', 3, '--output'
    assert cli(*job, 'full.png', '--float32', model='random.pth')[0] == 0
    assert cli(*job, 'usual.png', model='random.pth')[0] == 0
    assert Path('full.png').read_bytes() == Path('usual.png').read_bytes()


def test_folders_of_the_output_are_made(cli):
    picture().save('small.png')
    assert cli('--input', 'small.png', '--scale', 2, '--output', 'new/folder/big.png')[0] == 0
    assert cli('--input', 'small.png', '--scale', 2, '--output', 'other/folder/')[0] == 0
    assert Path('new/folder/big.png').is_file() and Path('other/folder/small.png').is_file()


def test_existing_output_is_replaced_only_on_request(cli):
    picture().save('small.png')
    Path('big.png').write_bytes(b'dear')
    code, _, err = cli('--input', 'small.png', '--scale', 2, '--output', 'big.png')
    assert code == 2 and len(err) == 1 and '--overwrite' in err[0]
    assert Path('big.png').read_bytes() == b'dear'
    assert cli('--input', 'small.png', '--scale', 2, '--output', 'big.png', '--overwrite')[0] == 0
    assert Image.open('big.png').size == (24, 20)


def test_existing_comparison_is_found_before_the_work(cli):
    picture().save('small.png')
    Path('big-compare.png').write_bytes(b'dear')
    code, _, err = cli('--input', 'small.png', '--scale', 2, '--output', 'big.png', '--compare')
    assert code == 2 and len(err) == 1 and 'big-compare.png' in err[0]
    assert Path('big-compare.png').read_bytes() == b'dear' and not Path('big.png').exists()


# --- odd files -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('suffix', ['jpg', 'png'])
def test_damaged_exif_data_are_left_out_and_the_picture_is_upscaled(cli, suffix):
    picture().save(f'small.{suffix}', exif=b'Exif\x00\x00no EXIF data at all')
    assert cli('--input', f'small.{suffix}', '--scale', 2, '--output', f'big.{suffix}')[0] == 0
    assert Image.open(f'big.{suffix}').size == (24, 20)


def test_of_several_frames_the_first_is_taken_where_the_format_holds_one_and_that_is_said(cli):
    picture().save('small.gif', save_all=True, append_images=[picture(seed=1)])
    code, out, _ = cli('--input', 'small.gif', '--scale', 2, '--output', 'big.jpg')
    assert code == 0 and any(line.startswith('note: only the first of several frames or pages is read') for line in out)


# --- errors ---------------------------------------------------------------------------------------------------------

SCALE = '--scale', '2'


@pytest.mark.parametrize('source, target, rest, told', [
    ('none.png', 'big.png', SCALE, ('none.png', 'no such file')),
    ('text.png', 'big.png', SCALE, ('text.png', 'cannot be read as an image')),
    ('cut.png', 'big.png', SCALE, ('cut.png', 'cannot be read as an image')),
    ('float.tif', 'big.png', SCALE, ('float.tif', 'mode F')),
    ('empty', 'big', SCALE, ('empty', 'no images')),
    ('photos', 'text.png', SCALE, ('text.png', 'is a file')),
    ('photos', 'big.png', SCALE, ('big.png', 'photos is a folder', 'ends in /')),
    ('small.png', 'big', SCALE, ('--output big', 'such as big.png', 'a folder, big/')),
    ('small.png', 'big.xyz', SCALE, ('big.xyz', 'known: .bmp')),
    ('small.png', 'big.psd', SCALE, ('big.psd', 'known: .bmp')),
    ('small.png', 'text.png/big.png', SCALE, ('text.png', 'cannot be written')),
    ('small.png', 'big.png', ('--scale', '0.5'), ('at least 1', '0.5')),
    ('small.png', 'big.png', ('--scale', '0'), ('at least 1',)),
    ('small.png', 'big.png', ('--scale', 'nan'), ('at least 1', 'nan')),
    ('small.png', 'big.png', ('--scale', 'two'), ('--scale', "'two'")),
    ('small.png', 'big.png', ('--scale', '1e308'), ('at most 1e+06',)),
    ('small.png', 'big.png', ('--resolution', '0,24'), ('at least 1x1', '24x0')),
    ('small.png', 'big.png', ('--resolution', '9,24'), ('small.png', '24x9', '12x10', 'width x height')),
    ('small.png', 'big.png', ('--resolution', '11'), ('small.png', '11x9', '12x10')),
    ('small.png', 'big.png', ('--resolution', '0'), ('at least 1x1',)),
    ('small.png', 'big.png', ('--resolution', '24;9'), ('HEIGHT,WIDTH or WIDTHxHEIGHT', "'24;9'")),
    ('photos', 'big', ('--scale', '0.5'), ('at least 1', '0.5')),
    ('small.png', 'big.jpg', ('--resolution', '10,65501'), ('big.jpg', '65500', '.png')),
    ('small.png', 'big.webp', ('--resolution', '16384,12'), ('big.webp', '16383', '.png')),
    ('small.png', 'big.tif', ('--resolution', '40000,40000'), ('big.tif', '4.3 GB', '.png')),
    ('small.png', 'big.bmp', ('--resolution', '40000,40000'), ('big.bmp', '4.3 GB', '.png')),
    ('small.png', 'big.png', ('--resolution', '9000000,9000000'), ('big.png', 'free on the disk')),
    ('small.png', 'big.png', (*SCALE, '--model', 'none'), ("'none'", 'known:')),
    ('small.png', 'big.png', (*SCALE, '--model', 'none.pth'), ('none.pth', 'cannot be read')),
    ('small.png', 'big.png', (*SCALE, '--model', 'text.png'), ('text.png', 'not a checkpoint')),
])
def test_error_is_one_line_before_the_work(cli, monkeypatch, source, target, rest, told):
    monkeypatch.setattr(upscaling, 'upscale_pil', lambda *_, **__: pytest.fail('the work has begun'))
    picture().save('small.png')
    os.mkdir('empty')
    os.mkdir('photos')
    for i in range(2):
        picture().save(f'photos/{i}.png')
    Path('text.png').write_text('no picture')
    Path('cut.png').write_bytes(Path('small.png').read_bytes()[:100])
    Image.new('F', (5, 5)).save('float.tif')
    before = sorted(Path().rglob('*'))

    code, _, err = cli('--input', source, '--output', target, *rest)
    assert code == 2
    assert len(err) == 1 and err[0].startswith('error: ') and all(text in err[0] for text in told), err
    assert sorted(Path().rglob('*')) == before


def test_output_beyond_the_memory_is_refused_before_the_work(cli, monkeypatch):
    monkeypatch.setattr('pictures.io.free_memory', lambda: 4096)
    picture().save('small.png')
    code, _, err = cli('--input', 'small.png', '--scale', 4, '--output', 'big.png')
    assert code == 2 and err == [
        'error: big.png: takes up to 7.7 kB, but 4.1 kB of memory are free; choose a smaller size']


def test_output_beyond_the_disk_is_refused_before_the_picture_is_decoded(cli):
    picture().save('small.png')
    os.truncate('small.png', 100)
    code, _, err = cli('--input', 'small.png', '--scale', 1e6, '--output', 'big.png')
    assert code == 2 and len(err) == 1 and 'free on the disk' in err[0]


def test_full_disk_is_one_line_and_leaves_nothing(cli, monkeypatch):
    def full(_):
        raise OSError(28, 'No space left on device')

    picture().save('small.png')
    monkeypatch.setattr(os, 'fsync', full)
    code, _, err = cli('--input', 'small.png', '--scale', 2, '--output', 'big.png')
    assert code == 2 and err == ['error: big.png: cannot be written (No space left on device)']
    assert os.listdir() == ['small.png']


def test_weights_map_of_a_model_without_expansion_net_is_refused(cli):
    picture().save('small.png')
    code, _, err = cli('--input', 'small.png', '--scale', 2, '--output', 'big.png', '--weights-map', model='liif.pth')
    assert code == 2 and len(err) == 1 and 'liif.pth' in err[0] and not Path('big.png').exists()


# --- a real process -------------------------------------------------------------------------------------------------


def test_the_command_with_the_model_in_the_box(tmp_path):
    picture(width=24, height=20).save(tmp_path / 'photo.jpg', quality=95)
    command = 'demo.py', '--input', 'photo.jpg', '--scale', '3.7', '--output', 'big.png', '--compare'
    first, second = forked(tmp_path, *command), forked(tmp_path, *command)
    assert first.returncode == 0, first.stderr
    assert Image.open(tmp_path / 'big.png').size == (89, 74)
    assert (tmp_path / 'big-compare.png').exists()
    assert second.returncode == 2 and second.stderr == 'error: big.png: exists already; --overwrite replaces it\n'
