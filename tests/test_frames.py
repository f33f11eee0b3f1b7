"""Animations and TIFFs of several pages: every frame is upscaled, and is shown as long as before."""

import os

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageSequence
from upscaling import assert_close, interpolated, picture

from errors import UserError
from pictures import frames
from pictures.frames import Timing, save_animation, save_pages
from pictures.io import write

FRAMES = [picture(seed=seed) for seed in range(3)]


def save(path, frames=FRAMES, **options):
    frames[0].save(path, save_all=True, append_images=frames[1:], **options)


def frames_of(path):
    """The frames of a file as RGBA, and how long each is shown."""
    with Image.open(path) as image:
        return [(frame.convert('RGBA'), frame.info.get('duration')) for frame in ImageSequence.Iterator(image)]


ANIMATED = '.gif', '.webp', '.png', '.avif'


@pytest.mark.parametrize('target', ANIMATED)
@pytest.mark.parametrize('source', ANIMATED)
def test_every_frame_is_upscaled_and_durations_are_kept(cli, source, target):
    save(f'small{source}', duration=[50, 120, 300])
    code, _, err = cli(f'small{source}', '--scale', 2, '--output', f'big{target}')
    assert (code, err) == (0, [])
    small, big = frames_of(f'small{source}'), frames_of(f'big{target}')
    assert [duration for _, duration in big] == [50, 120, 300]
    for (before, _), (after, _) in zip(small, big, strict=True):
        difference = np.asarray(after, dtype=float) - interpolated(np.asarray(before), (20, 24))
        assert np.abs(difference).mean() < 8  # of 255: GIF has 256 colours, WebP half of the colour's resolution


@pytest.mark.parametrize('source', ['.gif', '.webp', '.png'])
@pytest.mark.parametrize('plays', [0, 2, 4])
def test_an_animation_is_shown_as_often_as_before(cli, source, plays):
    def loop(suffix):
        return plays - 1 if plays and suffix == '.gif' else plays  # GIF counts the repetitions after the first time

    save(f'small{source}', duration=80, loop=loop(source))
    for target in '.gif', '.webp', '.png':
        assert cli(f'small{source}', '--scale', 2, '--output', f'big{target}')[0] == 0
        assert Image.open(f'big{target}').info['loop'] == loop(target)
    code, out, _ = cli(f'small{source}', '--scale', 2, '--output', 'big.avif')
    assert code == 0 and any('repeats forever' in line for line in out) == (plays > 0)


@pytest.mark.parametrize('target, loop', [('.webp', 65535), ('.gif', 65534)])
def test_more_times_than_a_format_counts_are_as_many_as_it_can(cli, target, loop):
    save('small.png', duration=80, loop=70_000)
    assert cli('small.png', '--scale', 2, '--output', f'big{target}')[0] == 0
    assert Image.open(f'big{target}').info['loop'] == loop


@pytest.mark.parametrize('target, shown', [
    ('.png', [41.6, 41.6, 41.6]), ('.webp', [42, 41, 42]), ('.avif', [42, 41, 42]), ('.gif', [40, 40, 40])])
def test_durations_are_kept_or_rounded_but_not_their_sum(cli, target, shown):
    save('small.png', duration=41.6)
    assert cli('small.png', '--scale', 2, '--output', f'big{target}')[0] == 0
    assert [duration for _, duration in frames_of(f'big{target}')] == pytest.approx(shown)


@pytest.mark.parametrize('asked, shown', [
    ([33] * 6, [30, 40, 30, 30, 40, 30]), ([25, 25, 50], [30, 20, 50]), ([0, 10, 11], [100, 100, 20])])
def test_a_gif_counts_hundredths_of_a_second_and_shows_no_frame_for_less_than_two(cli, asked, shown):
    save('small.webp', [picture(seed=seed) for seed in range(len(asked))], duration=asked, lossless=True)
    code, out, _ = cli('small.webp', '--scale', 2, '--output', 'big.gif')
    assert code == 0 and any('for 0.02 seconds at least' in line for line in out) == (11 in asked)
    assert [duration for _, duration in frames_of('big.gif')] == shown


def test_an_animation_that_is_shown_once_stays_so(cli):
    save('small.gif', duration=80)
    assert cli('small.gif', '--scale', 2, '--output', 'big.gif')[0] == 0
    for target in 'big.webp', 'big.png':  # which count how often they are shown, and 0 is forever
        assert cli('small.gif', '--scale', 2, '--output', target)[0] == 0
        assert Image.open(target).info['loop'] == 1
    assert 'loop' not in Image.open('big.gif').info


@pytest.mark.parametrize('suffix', ['.gif', '.webp', '.png'])
def test_of_a_frame_nothing_is_seen_through_the_next(cli, suffix):
    frames = [Image.new('RGBA', (12, 10)) for _ in range(2)]
    for i, frame in enumerate(frames):
        frame.paste((255, 0, 0, 254), (6 * i, 0, 6 * i + 6, 10))  # Pillow takes an opaque part of a WebP for all of it
    save('small.png', frames, duration=100, disposal=1)
    assert cli('small.png', '--scale', 2, '--output', f'big{suffix}')[0] == 0
    alpha = [(np.asarray(frame)[10, [2, 21], 3] > 127).tolist() for frame, _ in frames_of(f'big{suffix}')]
    assert alpha == [[True, False], [False, True]]


@pytest.mark.parametrize('target, still', [('.png', True), ('.gif', False), ('.webp', False)])
def test_a_still_before_an_apng_is_no_frame_of_the_animation(cli, target, still):
    save('small.png', default_image=True, duration=[50, 120])
    assert cli('small.png', '--scale', 2, '--output', f'big{target}')[0] == 0
    pictures = frames_of(f'big{target}')
    assert [duration for _, duration in pictures] == [None] * still + [50, 120]
    assert Image.open(f'big{target}').info.get('default_image', False) == still
    for (after, _), before in zip(pictures, FRAMES if still else FRAMES[1:], strict=True):
        difference = np.asarray(after, dtype=float)[..., :3] - interpolated(np.asarray(before), (20, 24))
        assert np.abs(difference).mean() < 8


@pytest.mark.parametrize('source, target, asked, longest', [
    ('.png', '.gif', 700_000, 655_350), ('.png', '.webp', 20_000_000, 16_777_215),
    ('.avif', '.png', 70_000_000, 65_535_000)])
def test_a_frame_is_shown_no_longer_than_the_format_can(cli, source, target, asked, longest):
    save(f'small{source}', duration=[50, asked, 300])
    code, out, _ = cli(f'small{source}', '--scale', 2, '--output', f'big{target}')
    assert code == 0 and any(f'for {longest / 1000:g} seconds at most' in line for line in out)
    assert [duration for _, duration in frames_of(f'big{target}')] == [50, longest, 300]


def test_equal_frames_that_last_too_long_together_are_an_error_of_one_line(tmp_path):
    with pytest.raises(UserError, match='big.gif: cannot be written'):
        save_animation(iter([FRAMES[0]] * 2), Timing([500_000] * 2, plays=0, alpha=False), tmp_path / 'big.gif')
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('source', ['.gif', '.webp'])
def test_without_output_an_animation_keeps_its_format(cli, source):
    save(f'small{source}')
    assert cli(f'small{source}')[0] == 0
    assert len(frames_of(f'small-x4{source}')) == 3


def test_every_page_of_a_tiff_is_upscaled_also_where_sizes_and_bits_differ(cli):
    pages = [np.asarray(picture()), np.asarray(picture(width=20, height=16)).astype(np.uint16) * 257]
    with tifffile.TiffWriter('small.tif') as file:
        for page in pages:
            file.write(page, photometric='rgb')
    assert cli('small.tif', '--scale', 2)[0] == 0
    with tifffile.TiffFile('small-x2.tif') as file:
        assert [page.dtype for page in file.pages] == [np.uint8, np.uint16]
        for page, small in zip(file.pages, pages, strict=True):
            assert_close(page.asarray(), interpolated(small, (small.shape[0] * 2, small.shape[1] * 2)))


def test_pages_keep_their_texts(cli):
    texts = [(f'a description of page {i}', f'the artist of page {i}') for i in range(3)]
    with tifffile.TiffWriter('small.tif') as file:
        for page, (description, artist) in zip(FRAMES, texts, strict=True):
            file.write(np.asarray(page), photometric='rgb', description=description, metadata=None,
                       extratags=[(0x013B, 's', 0, artist, True)])
    assert cli('small.tif', '--scale', 2)[0] == 0
    with tifffile.TiffFile('small-x2.tif') as big:
        assert [(page.description, page.tags[0x013B].value) for page in big.pages] == texts


def test_the_first_page_keeps_all_exif_data(cli):
    exif = Image.Exif()
    exif[0x013B], exif[0x8769] = 'the artist of all pages', {0xA434: 'lens'}
    save('small.png', exif=exif)
    assert cli('small.png', '--scale', 2, '--output', 'big.tif')[0] == 0
    with Image.open('big.tif') as big:
        assert big.getexif().get_ifd(0x8769)[0xA434] == 'lens'
    with tifffile.TiffFile('big.tif') as big:
        assert [page.tags[0x013B].value for page in big.pages] == ['the artist of all pages'] * 3
        assert [0x8769 in page.tags for page in big.pages] == [True, False, False]


def test_pages_of_more_than_4_gb_are_an_error_of_one_line(tmp_path, monkeypatch):
    def write_behind_4_gb(image, pages, *args):
        pages.f.truncate(2**32)  # no bytes on the disk
        pages.f.seek(0, os.SEEK_END)
        write(image, pages, *args)

    monkeypatch.setattr(frames, 'write', write_behind_4_gb)
    with pytest.raises(UserError, match='big.tif: TIFF holds up to 4.3 GB'):
        save_pages(iter(FRAMES), tmp_path / 'big.tif')
    assert not list(tmp_path.iterdir())


def test_smaller_versions_of_a_page_are_no_pages(cli):
    with tifffile.TiffWriter('small.tif') as file:
        file.write(np.asarray(picture()), photometric='rgb')
        file.write(np.asarray(picture(width=6, height=5)), photometric='rgb', subfiletype=1)
    assert cli('small.tif', '--scale', 2)[0] == 0
    assert Image.open('small-x2.png').size == (24, 20)


def test_frames_of_different_sizes_are_no_animation(tmp_path):
    with pytest.raises(UserError, match='big.gif: frames that differ in size'):
        save_animation(iter([picture(), picture(width=20)]), Timing([80] * 2, 0, alpha=False), tmp_path / 'big.gif')
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('target', ['big.gif', 'big.png', 'big.jpg'])
def test_pages_do_not_become_an_animation(cli, target):
    save('small.tif', [picture(), picture(width=20, height=16)])
    code, out, _ = cli('small.tif', '--scale', 2, '--output', target)
    assert code == 0 and any('only the first of several frames or pages is read' in line for line in out)
    assert len(frames_of(target)) == 1 and Image.open(target).size == (24, 20)


def test_frames_become_pages(cli):
    save('small.gif')
    assert cli('small.gif', '--scale', 2, '--output', 'big.tif')[0] == 0
    assert len(frames_of('big.tif')) == 3
