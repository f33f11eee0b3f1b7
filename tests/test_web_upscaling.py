"""What the page of web_demo.py makes of a web_photo, and what web_demo.py refuses; without a server."""

import socket
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import web_demo
from errors import UserError
from models import upscale_pil


@pytest.fixture
def upscale(web_model):
    """A function that gives what the page makes of the photo in a file, by `scale` unless there is a size."""
    page = pytest.importorskip('web.upscaling', reason='Gradio is not installed (requirements-web.txt)')

    def made(path, scale=None, height=None, width=None, choice=None):
        choice = choice or (page.BY_SIZE if height or width else page.BY_SCALE)
        return page.upscale(web_model, str(path), choice, scale, height, width, path.parent)
    return made


def pixels(image):
    return np.asarray(image if isinstance(image, Image.Image) else Image.open(image))


def test_the_pages_slider_shows_a_checkerboard_on_both_sides():
    upscaling = pytest.importorskip('web.upscaling', reason='Gradio is not installed (requirements-web.txt)')
    small = Image.new('LA', (30, 20), (255, 255))
    small.paste((0, 0), (0, 0, 15, 20))
    for side in upscaling.comparison(small, small.resize((120, 80)))[0]:
        assert set(np.unique(np.asarray(side)[:, :50])) == {204, 255} and np.asarray(side)[:, 70:].min() == 255


@pytest.mark.parametrize('target, size', [
    ({'scale': 2.5}, (110, 150)), ({'height': 100, 'width': 61}, (100, 61)),
    ({'height': 88}, (88, 120)), ({'width': 90}, (66, 90)),  # the aspect ratio is kept
])
def test_the_download_is_the_photo_upscaled_by_a_scale_or_to_a_size(upscale, web_model, web_photo, target, size):
    *_, result = upscale(web_photo, **target)
    assert np.array_equal(pixels(result), pixels(upscale_pil(web_model, Image.open(web_photo), size=size)))
    assert Path(result).name == f'photo-{size[1]}x{size[0]}.png'


def test_the_slider_shows_bicubic_interpolation_and_the_result(upscale, web_photo):
    (left, right), text, result = upscale(web_photo, scale=3)
    assert np.array_equal(pixels(left), pixels(Image.open(web_photo).resize((180, 132), Image.BICUBIC)))
    assert np.array_equal(pixels(right), pixels(result))
    assert '60x44' in text and '180x132' in text and 'centre' not in text


def test_of_a_large_result_the_slider_shows_the_centre_and_the_page_says_so(upscale, web_photo, monkeypatch):
    monkeypatch.setattr('web.upscaling.SHOWN', 100)
    (left, right), text, result = upscale(web_photo, scale=2)
    assert 'the centre, 100x88; the download is the whole picture' in text
    assert np.array_equal(pixels(right), pixels(result)[:, 10:110])
    whole = pixels(Image.open(web_photo).resize((120, 88), Image.BICUBIC)).astype(int)
    assert np.abs(pixels(left) - whole[:, 10:110]).max() <= 1
    assert pixels(result).shape == (88, 120, 3)


@pytest.mark.parametrize('mode', ['L', 'RGBA', 'I;16'])
def test_the_download_keeps_the_photos_mode_and_the_slider_shows_colours(upscale, tmp_path, mode):
    Image.new(mode, (20, 10), 1).save(tmp_path / 'image.png')
    (left, right), _, result = upscale(tmp_path / 'image.png', scale=2)
    assert Image.open(result).mode == mode
    assert left.mode == right.mode == 'RGB'


def test_that_an_animation_becomes_a_still_is_said(upscale, tmp_path):
    first, *rest = (Image.new('RGB', (20, 10), colour) for colour in ('red', 'green', 'blue'))
    for name, frames in ('still.webp', []), ('film.webp', rest):
        first.save(tmp_path / name, save_all=True, append_images=frames)
        _, text, result = upscale(tmp_path / name, scale=2)
        assert ('Only the first of 3 frames (or pages) is enlarged.' in text) == (name == 'film.webp')
        assert Image.open(result).size == (40, 20)


@pytest.mark.parametrize('target, message', [
    ({'scale': 20}, 'the result has 1200x880 pixels, and this page makes up to 1 million: choose a smaller one'),
    ({'height': 40, 'width': 100}, r'size 100x40 is smaller than the picture, 60x44 \(width x height\)'),
    ({'choice': 'Size'}, 'give a height, a width, or both'), ({'choice': 'Scale'}, 'give a scale'),
])
def test_what_cannot_be_made_is_refused(upscale, web_photo, monkeypatch, target, message):
    monkeypatch.setattr('web.upscaling.LIMIT', 1e6)
    with pytest.raises(UserError, match=message):
        upscale(web_photo, **target)


def test_a_photo_with_too_many_pixels_is_refused_before_it_is_decoded(upscale, tmp_path):
    (tmp_path / 'huge.ppm').write_bytes(b'P6 8000 8000 255\n')  # the pixels themselves are not there
    with pytest.raises(UserError, match='the photo has 8000x8000 pixels, and this page makes up to 50 million'):
        upscale(tmp_path / 'huge.ppm', scale=1)


def test_without_gradio_the_error_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, 'gradio', None)
    monkeypatch.setattr(sys, 'argv', ['web_demo.py'])
    with pytest.raises(UserError, match='Gradio is missing: pip install -r requirements-web.txt'):
        web_demo.main()


@pytest.mark.parametrize('port', [0, 70000])
def test_a_port_that_cannot_be_is_an_error_of_one_line(port, monkeypatch):
    monkeypatch.setattr(sys, 'argv', ['web_demo.py', '--gpu', 'cpu', '--port', str(port)])
    with pytest.raises(UserError, match=f'--port must be from 1 to 65535, not {port}'):
        web_demo.main()


def test_a_port_that_is_taken_is_an_error_of_one_line(web_folder, monkeypatch):
    pytest.importorskip('gradio', reason='Gradio is not installed (requirements-web.txt)')
    with socket.create_server(('127.0.0.1', 0)) as other:
        port = str(other.getsockname()[1])
        monkeypatch.setattr(sys, 'argv', [
            'web_demo.py', '--model', str(web_folder / 'model.pth'), '--gpu', 'cpu', '--port', port])
        with pytest.raises(UserError, match=f'^--port: {port} is taken or not permitted; choose another$'):
            web_demo.main()
