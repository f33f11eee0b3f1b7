"""demo.py --zoom: a film from the whole picture to x30, evenly, each frame what the model makes of its part."""

import os
from unittest import mock

import imageio.v3 as imageio
import numpy as np
import pytest
import torch
from PIL import Image, ImageSequence
from upscaling import assert_close, interpolated, picture

from demos import zoom
from models import upscale_region
from models.regions import Encoded

WIDTH, HEIGHT = 60, 45  # of the pictures; 1/30 of it is 2 x 1.5


@pytest.fixture
def photo(tmp_path):
    """The picture in photo.png."""
    image = picture(width=WIDTH, height=HEIGHT)
    image.save(tmp_path / 'photo.png')
    return image


def frames_of(path):
    with Image.open(path) as image:
        return [(np.asarray(frame.convert('RGB')), frame.info['duration']) for frame in ImageSequence.Iterator(image)]


def test_a_zoom_goes_from_the_whole_picture_to_the_thirtieth_part_around_the_point(cli, photo, bilinear):
    code, out, err = cli('photo.png', '--zoom', 'zoom.png', '--at', '21,30', '--resolution', 80)
    assert (code, err) == (0, [])
    frames = frames_of('zoom.png')
    assert_close(frames[0][0], interpolated(np.asarray(photo), (60, 80)), 1)
    assert_close(frames[-1][0], np.asarray(upscale_region(bilinear, photo, (20, 29.25, 22, 30.75), (60, 80))), 0)
    assert [duration for _, duration in frames] == [50] * 79 + [1000] and Image.open('zoom.png').info['loop'] == 0
    assert any(line.startswith('zoom.png: 80x60, 80 frames') for line in out)
    assert out[-1] == 'next: look at zoom.png'


def test_a_video_has_even_sides_and_the_same_frames(cli, photo, bilinear):
    assert cli('photo.png', '--zoom', 'zoom.mp4', '--at', '21,30', '--resolution', 83)[0] == 0
    assert imageio.immeta('zoom.mp4', plugin='FFMPEG')['fps'] == 30
    frames = imageio.imread('zoom.mp4', plugin='FFMPEG')
    assert frames.shape == (120, 62, 84, 3)
    last = upscale_region(bilinear, photo, (20, 29.25, 22, 30.75), (62, 84))
    for frame, expected in (frames[0], interpolated(np.asarray(photo), (62, 84))), (frames[-1], np.asarray(last)):
        assert np.abs(frame.astype(float) - expected).mean() < 3  # of 255: lossy


@pytest.mark.parametrize('suffix', ['gif', 'webp', 'avif'])
def test_an_animation_zooms_for_four_seconds_and_rests_for_one(cli, photo, suffix):
    assert cli('photo.png', '--zoom', f'zoom.{suffix}', '--resolution', 40)[0] == 0
    frames = imageio.imread(f'zoom.{suffix}', plugin='pillow', index=..., mode='RGB')
    assert frames.shape[1:] == (30, 40, 3)
    assert sum(duration for _, duration in frames_of(f'zoom.{suffix}')) == 79 * 50 + 1000  # what is equal is joined
    assert np.abs(frames[0].astype(float) - interpolated(np.asarray(photo), (30, 40))).mean() < 5


def test_a_picture_that_is_larger_than_the_film_is_reduced_at_first(cli):
    image = picture(width=300, height=200)
    image.save('photo.png')
    assert cli('photo.png', '--zoom', 'zoom.png', '--at', '150,100', '--resolution', 60)[0] == 0
    frames = frames_of('zoom.png')
    assert_close(frames[0][0], np.asarray(image.resize((60, 40), Image.BICUBIC)), 0)
    assert_close(frames[-1][0], interpolated(np.asarray(image), (1200, 1800))[580:620, 870:930].round(), 1)


@pytest.mark.parametrize('at, last', [
    ((30, 20), (29, 19.25, 31, 20.75)), ((7.5, 41), (6.5, 40.25, 8.5, 41.75)),
    ((0, 0), (0, 0, 2, 1.5)), ((59.5, 45), (58, 43.5, 60, 45))])
def test_parts_are_nested_shrink_evenly_and_end_around_the_point_inside_the_picture(at, last):
    parts = np.array(zoom.boxes((WIDTH, HEIGHT), at, 9))
    np.testing.assert_allclose(parts[0], (0, 0, WIDTH, HEIGHT))
    np.testing.assert_allclose(parts[-1], last)
    assert (np.diff(parts[:, :2], axis=0) >= -1e-9).all() and (np.diff(parts[:, 2:], axis=0) <= 1e-9).all()
    sides = parts[:, 2:] - parts[:, :2]
    np.testing.assert_allclose(sides[1:] / sides[:-1], 30 ** (-1 / 8))
    where = parts[-1, :2] * 30 / 29  # this point stays where it is in the frame
    np.testing.assert_allclose((where - parts[:, :2]) / sides, np.broadcast_to(where / (WIDTH, HEIGHT), (9, 2)))


def test_without_a_point_it_leads_to_where_detail_is_greatest(cli):
    values = np.full((90, 120, 3), 100, np.uint8)
    values[60:63, 40:44] = np.random.default_rng(0).integers(0, 256, (3, 4, 3))
    Image.fromarray(values).save('photo.png')
    code, out, _ = cli('photo.png', '--zoom', 'zoom.png', '--resolution', 40)
    assert code == 0 and any('42,62' in line for line in out)
    assert frames_of('zoom.png')[-1][0].std() > 10


def test_features_are_computed_once(bilinear, photo):
    seen = []
    bilinear.encoder.register_forward_hook(lambda *_: seen.append(len(seen)))
    Encoded(bilinear, photo).region((0, 0, WIDTH, HEIGHT), (60, 80))
    once = len(seen)
    parts = zoom.boxes((WIDTH, HEIGHT), (21, 30), 10)
    assert len(list(zoom.views(bilinear, photo, parts, (60, 80), True))) == 10
    assert len(seen) == 2 * once


@pytest.mark.parametrize('target', ['zoom.mp4', 'zoom.webp'])
def test_ctrl_c_leaves_nothing(cli, photo, monkeypatch, target):
    region, calls = Encoded.region, []

    def interrupted(*args):
        calls.append(args)
        if len(calls) == 20:
            raise KeyboardInterrupt
        return region(*args)

    monkeypatch.setattr(Encoded, 'region', interrupted)
    code, _, err = cli('photo.png', '--zoom', target, '--resolution', 40)
    assert code == 130 and err[-1] == 'interrupted' and os.listdir() == ['photo.png']


def test_a_full_gpu_is_told_in_a_line_and_leaves_nothing(cli, photo, monkeypatch):
    monkeypatch.setattr(Encoded, 'region', mock.Mock(side_effect=torch.OutOfMemoryError('CUDA out of memory. Tried')))
    code, _, err = cli('photo.png', '--zoom', 'zoom.webp', '--resolution', 40)
    assert code == 2 and err == [
        'error: photo.png: takes more memory than the GPU has; choose a smaller size, or --gpu cpu']
    assert os.listdir() == ['photo.png']


@pytest.mark.parametrize('args, told', [
    (('photo.png', '--zoom', 'zoom.jpg'), 'known: .mp4'), (('photo.png', '--zoom', 'zoom'), 'known: .mp4'),
    (('photo.png', '--zoom', 'zoom.mp4', '--at', '61,3'), '60x45'),
    (('photo.png', '--zoom', 'zoom.mp4', '--at', 'nan,3'), '60x45'),
    (('photo.png', '--zoom', 'zoom.mp4', '--at', 'middle'), "--at must be X,Y in pixels of the picture, not 'middle'"),
    (('photo.png', '--at', '6,3'), '--zoom'), (('.', '--zoom', 'zoom.mp4'), 'must be a picture'),
    (('none.png', '--zoom', 'zoom.mp4'), 'none.png'),
    (('photo.png', '--zoom', 'zoom.mp4', '--scale', 2), 'combined with --scale'),
    (('photo.png', '--zoom', 'zoom.mp4', '--weights-map'), 'combined with --weights-map'),
    (('photo.png', '--zoom', 'zoom.mp4', '--resolution', '80x60'), 'longer side'),
    (('photo.png', '--zoom', 'zoom.mp4', '--resolution', 1), 'at least 2'),
    (('photo.png', '--zoom', 'zoom.mp4', '--at', '0,0', '--resolution', 100000), 'up to 16384 pixels a side'),
    (('photo.png', '--zoom', 'photo.png'), 'photo.png')])
def test_an_error_is_one_line_and_writes_nothing(cli, photo, args, told):
    before = np.asarray(photo)
    code, _, err = cli(*args)
    assert code == 2 and len(err) == 1 and told in err[0]
    assert os.listdir() == ['photo.png'] and (np.asarray(Image.open('photo.png')) == before).all()


def test_a_film_that_exists_is_replaced_by_overwrite_alone(cli, photo):
    args = 'photo.png', '--zoom', 'zoom.png', '--resolution', 8
    assert cli(*args)[0] == 0
    code, _, err = cli(*args)
    assert code == 2 and '--overwrite' in err[0]
    assert cli(*args, '--overwrite')[0] == 0
