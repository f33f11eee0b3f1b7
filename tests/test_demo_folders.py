"""demo.py on folders: which pictures, which names, and what happens at the second run."""

import errno
import io
import os
import sys
from pathlib import Path
from unittest import mock

import pytest
import torch
from PIL import Image
from upscaling import picture

from demos import upscaling


def make_folder(*names):
    os.mkdir('small')
    for name in names:
        picture().save(f'small/{name}')


def upscale(cli, *options, scale=2, **model):
    """Exit code, lines of stdout and stderr of demo.py from small/ to big/, and the files in big/."""
    code, out, err = cli('--input', 'small', '--scale', scale, '--output', 'big', *options, **model)
    return code, out, err, sorted(os.listdir('big'))


def test_folder_is_upscaled_file_by_file(cli):
    os.mkdir('small')
    for name in ('a.png', 'b.jpg', 'c.tga'):
        picture().save(f'small/{name}')
    Path('small/notes.txt').write_text('no picture')
    assert cli('--input', 'small', '--scale', 2, '--output', 'big')[0] == 0
    written = {path.name: Image.open(path).format for path in Path('big').iterdir()}
    assert written == {'a.png': 'PNG', 'b.jpg': 'JPEG', 'c.tga.png': 'PNG'}  # TGA is not written


def test_broken_files_are_listed_at_the_end_and_the_rest_goes_on(cli):
    os.mkdir('small')
    picture().save('small/a.png')
    Path('small/b.png').write_bytes(Path('small/a.png').read_bytes()[:100])
    Path('small/c.jpg').write_text('no picture')
    picture(width=30).save('small/d.png')
    code, _, err = cli('--input', 'small', '--resolution', '20,40', '--output', 'big')
    assert sorted(os.listdir('big')) == ['a.png', 'd.png']
    assert code == 2
    assert ['b.png' in err[0], 'c.jpg' in err[1], '2 of 4' in err[2], len(err)] == [True, True, True, 3]


def test_pictures_of_every_suffix_that_is_opened_are_found(cli):
    make_folder('a.jfif', 'b.jpe', 'c.avif', 'd.tga', 'e.apng', 'f.TIF', 'g.sgi')
    code, _, err, files = upscale(cli)
    assert (code, err) == (0, [])
    assert files == ['a.jfif', 'b.jpe', 'c.avif', 'd.tga.png', 'e.apng', 'f.TIF', 'g.sgi.png']


def test_what_is_left_out_is_named_once_with_the_reason(cli):
    make_folder('a.png')
    for name in 'b.cr2', 'c.CR3', 'd.svg', 'e.txt', 'f', 'i.MP4', 'j.webm', '._a.png':
        Path('small', name).write_text('no picture')
    os.mkdir('small/g.png')
    Path('small/h.png').symlink_to('nowhere')
    code, out, _, files = upscale(cli)
    assert (code, files) == (0, ['a.png'])
    told = [line.removeprefix('note: small: left out: ') for line in out if 'left out' in line]
    assert sorted(told) == [
        '._a.png (hidden)', 'b.cr2, c.CR3 (RAW: export it as TIFF or PNG)', 'd.svg (no pixels: export it as PNG)',
        'e.txt, f (not the suffix of an image)', 'g.png (a folder; only one level is searched)',
        'h.png (not a file, or a broken link)', 'i.MP4, j.webm (a video; demo.py takes one by itself)']


# --- names -----------------------------------------------------------------------------------------------------------


def test_two_pictures_never_share_a_result(cli):
    make_folder('a.tga', 'a.tga.png', 'a.png', 'a.png-compare.png')
    code, out, _, files = upscale(cli, '--compare', '--overwrite')
    assert code == 0 and len({line.split(':')[0] for line in out if '24x20' in line}) == 4
    assert files == sorted({
        'a.tga-2.png', 'a.tga-2.png-compare.png', 'a.tga.png', 'a.tga.png-compare.png', 'a.png', 'a.png-2-compare.png',
        'a.png-compare.png', 'a.png-compare.png-compare.png'})
    assert all(Image.open(f'big/{name}').size == (24, 20) for name in ('a.png-compare.png', 'a.tga.png', 'a.tga-2.png'))


@pytest.mark.parametrize('name', ['x' * 239 + '.png', 'x' * 251 + '.png', 'x' * 251 + '.tga', '漢' * 83 + '.tga'])
def test_names_may_be_as_long_as_the_file_system_allows(cli, name):
    make_folder('a.png', name, 'z.png')
    for _ in range(2):
        code, _, err, files = upscale(cli, '--compare')
        assert (code, err, len(files)) == (0, [], 6)


def test_names_that_are_no_utf8_end_no_run(cli, monkeypatch):
    make_folder('a.png', 'caf\udce9.png', 'z.png')
    Path('small/caf\udce9.txt').write_text('')
    stdout = io.TextIOWrapper(io.BytesIO(), 'utf-8', errors='strict')
    monkeypatch.setattr(sys, 'stdout', stdout)
    code, _, err, files = upscale(cli)
    assert (code, err, files) == (0, [], ['a.png', 'caf\udce9.png', 'z.png'])
    stdout.flush()
    assert b'big/caf\\udce9.png: 24x20' in stdout.buffer.getvalue()


@pytest.mark.parametrize('name', ['big.v2/', './big.v2/'])
def test_a_folder_with_a_dot_is_one_where_a_slash_says_so(cli, name):
    picture().save('small.png')
    assert cli('--input', 'small.png', '--scale', 2, '--output', name)[0] == 0
    assert os.listdir('big.v2') == ['small.png']


# --- the pictures themselves -----------------------------------------------------------------------------------------


@pytest.mark.parametrize('source, target', [
    ('small.png', 'small.png'), ('small.png', 'other/../small.png'), ('small.png', 'link.png'),
    ('link.png', 'small.png'), ('small.png', 'small.jpg/'), ('folder', 'folder'), ('folder', 'linked')])
def test_a_picture_is_never_replaced_by_its_result(cli, source, target):
    for folder in 'other', 'folder', 'small.jpg':
        os.mkdir(folder)
    for path in 'small.png', 'folder/a.png', 'folder/b.png':
        picture().save(path)
    os.symlink('small.png', 'link.png')
    os.symlink('../small.png', 'small.jpg/small.png')
    os.symlink('folder', 'linked')
    before = {path: path.read_bytes() for path in Path().rglob('*.png')}
    code, _, err = cli('--input', source, '--scale', 2, '--output', target, '--overwrite')
    assert code == 2 and len(err) == 1 and 'itself, which is not replaced' in err[0]
    assert {path: path.read_bytes() for path in Path().rglob('*.png')} == before


# --- the second run --------------------------------------------------------------------------------------------------


def times():
    return {path.name: path.stat().st_mtime_ns for path in Path('big').iterdir()}


def test_what_is_done_is_skipped_and_that_is_no_failure(cli):
    make_folder('a.png', 'b.jpg')
    upscale(cli)
    before = times()
    picture().save('small/c.png')
    code, out, err, files = upscale(cli)
    assert (code, err, files) == (0, [], ['a.png', 'b.jpg', 'c.png'])
    assert before.items() < times().items()
    assert 'note: 2 of 3 pictures exist already and were skipped (--overwrite makes them again)' in out


def test_overwrite_does_all_again(cli):
    make_folder('a.png')
    upscale(cli)
    before = times()
    assert upscale(cli, '--overwrite')[0] == 0 and times() != before


def test_a_picture_that_has_been_turned_is_skipped_too(cli):
    exif = Image.Exif()
    exif[0x0112] = 6
    os.mkdir('small')
    picture().save('small/a.jpg', exif=exif)
    upscale(cli)
    before = times()
    assert upscale(cli)[0] == 0 and times() == before


def test_a_picture_of_a_given_size_is_not_done_by_one_on_its_side(cli):
    make_folder('a.png')
    assert cli('small', '--resolution', '20,30', '--output', 'big/')[0] == 0
    code, _, err = cli('small', '--resolution', '30,20', '--output', 'big/')
    assert code == 2 and 'big/a.png: exists already, with 30x20 pixels' in err[0]


def test_what_has_another_size_is_not_taken_for_done(cli):
    make_folder('a.png')
    upscale(cli)
    code, _, err, _ = upscale(cli, scale=3)
    assert code == 2 and err[0] == 'error: big/a.png: exists already, with 24x20 pixels; --overwrite replaces it'


def test_a_picture_that_has_changed_since_is_not_taken_for_done(cli):
    make_folder('a.png', 'b.png')
    upscale(cli)
    picture().save('small/b.png')
    os.utime('small/b.png', (2**31, 2**31))
    code, _, err, _ = upscale(cli)
    assert code == 2 and err[0] == 'error: big/b.png: exists already, but is older than small/b.png; --overwrite ' \
                                   'replaces it'


def test_an_animation_is_done_even_if_its_frames_were_equal_and_became_one(cli):
    make_folder('a.gif')
    content = Path('small/a.gif').read_bytes()
    frame = content[13 + 6 * 2 ** (content[10] & 7):-1]  # it follows the palette
    Path('small/a.gif').write_bytes(content[:-1] + 2 * frame + content[-1:])
    assert Image.open('small/a.gif').n_frames == 3
    upscale(cli)
    assert Image.open('big/a.gif').n_frames == 1
    before = times()
    code, _, err, _ = upscale(cli)
    assert (code, err) == (0, []) and times() == before


@pytest.mark.parametrize('options', [[], ['--overwrite']])
def test_a_pipe_in_the_place_of_a_result_is_told_before_the_work(cli, options):
    make_folder('a.png', 'b.png')
    os.mkdir('big')
    os.mkfifo('big/b.png')
    code, _, err, files = upscale(cli, *options)
    assert (code, files) == (2, ['b.png']) and err == [
        'error: big/b.png: exists, but is not a file; remove it, or give another --output']


def test_a_place_that_cannot_be_written_to_is_told_before_the_work(cli, monkeypatch):
    make_folder('a.png')
    monkeypatch.setattr(upscaling, 'upscale_pil', None)  # nothing is upscaled
    full = mock.Mock(side_effect=OSError(errno.EROFS, 'Read-only file system'))
    monkeypatch.setattr('files.temporary_file', full)
    code, _, err, _ = upscale(cli)
    assert code == 2 and err[0] == 'error: big: cannot be written (Read-only file system)'


def test_a_picture_that_does_not_fit_the_memory_is_one_of_those_that_failed(cli, monkeypatch):
    make_folder('a.png', 'b.png', 'c.png', 'd.png')
    upscale_pil = upscaling.upscale_pil
    full = iter([MemoryError, RuntimeError, torch.OutOfMemoryError])

    def limited(*args, **kwargs):
        if kind := next(full, None):
            raise kind('DefaultCPUAllocator: not enough memory')
        return upscale_pil(*args, **kwargs)
    monkeypatch.setattr(upscaling, 'upscale_pil', limited)
    code, _, err, files = upscale(cli)
    assert (code, files) == (2, ['d.png'])
    assert err[:3] == [
        *(f'error: small/{name}.png: takes more memory than there is' for name in 'ab'),
        'error: small/c.png: takes more memory than the GPU has; choose a smaller size, or --gpu cpu']


def test_what_a_killed_run_has_left_beside_results_goes(cli):
    make_folder('a.png')
    os.mkdir('big')
    Path('big/.0123456789abcdef.tmp').write_bytes(b'half')
    assert upscale(cli)[3] == ['a.png'] == os.listdir('big')


def test_a_line_break_in_a_name_breaks_no_error(cli):
    os.mkdir('small')
    Path('small/we\nird.png').write_text('no picture')
    code, _, err = cli('--input', 'small/we\nird.png')
    assert code == 2 and len(err) == 1 and err[0].startswith('error: small/we\\nird.png: cannot be read as an image')


def test_a_comparison_that_is_missing_is_made_and_the_result_stays(cli):
    make_folder('a.png')
    upscale(cli)
    before = times()
    code, _, _, files = upscale(cli, '--compare')
    assert (code, files) == (0, ['a.png', 'a.png-compare.png']) and before.items() < times().items()
