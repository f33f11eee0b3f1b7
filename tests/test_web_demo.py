"""The page of web_demo.py: what it makes of a photo, and how it works in a browser without a network."""

import contextlib
import json
import re
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import specs
import torch
from photos import write_images
from PIL import Image
from projects import ENVIRONMENT

import models
import web_demo
from errors import UserError
from models import upscale_pil
from web import upscaling

SCRIPT = Path(__file__).resolve().parents[1] / 'web_demo.py'
SIZE = 60, 44  # width and height of the photo
CLEAR = 'button[aria-label="Remove Image"], button[aria-label="Clear"]'  # it has both names, by Gradio's version


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """A folder with model.pth, a small A-LIIF, and photo.png."""
    folder = tmp_path_factory.mktemp('web')
    torch.manual_seed(0)
    spec = specs.pixel(residual='bilinear')
    models.checkpoint.write({'model': {**spec, 'sd': models.make(spec).state_dict()}}, folder / 'model.pth')
    write_images(folder, ['photo.png'], SIZE)
    return folder


@pytest.fixture(scope='module')
def model(folder):
    return models.load(folder / 'model.pth')


@pytest.fixture
def photo(folder, tmp_path):
    return Path(shutil.copy(folder / 'photo.png', tmp_path))


def upscale(model, path, scale=None, height=None, width=None):
    """What the page makes of the photo in the file `path`, by `scale`, or else to a size."""
    choice = upscaling.BY_SCALE if scale else upscaling.BY_SIZE
    return upscaling.upscale(model, str(path), choice, scale, height, width, path.parent)


def pixels(image):
    return np.asarray(image if isinstance(image, Image.Image) else Image.open(image))


# --- what is made of a photo ---------------------------------------------------------------------------------------


@pytest.mark.parametrize('target, size', [
    ({'scale': 2.5}, (110, 150)), ({'height': 100, 'width': 61}, (100, 61)),
    ({'height': 88}, (88, 120)), ({'width': 90}, (66, 90)),  # the aspect ratio is kept
])
def test_the_download_is_the_photo_upscaled_by_a_scale_or_to_a_size(model, photo, target, size):
    *_, result = upscale(model, photo, **target)
    assert np.array_equal(pixels(result), pixels(upscale_pil(model, Image.open(photo), size=size)))
    assert Path(result).name == f'photo-{size[1]}x{size[0]}.png'


def test_the_slider_shows_bicubic_interpolation_and_the_result(model, photo):
    (left, right), text, result = upscale(model, photo, scale=3)
    assert np.array_equal(pixels(left), pixels(Image.open(photo).resize((180, 132), Image.BICUBIC)))
    assert np.array_equal(pixels(right), pixels(result))
    assert '60x44' in text and '180x132' in text and 'centre' not in text


def test_of_a_large_result_the_slider_shows_the_centre_and_the_page_says_so(model, photo, monkeypatch):
    monkeypatch.setattr(upscaling, 'SHOWN', 100)
    (left, right), text, result = upscale(model, photo, scale=2)
    assert 'the centre, 100x88; the download is the whole picture' in text
    assert np.array_equal(pixels(right), pixels(result)[:, 10:110])
    whole = pixels(Image.open(photo).resize((120, 88), Image.BICUBIC)).astype(int)
    assert np.abs(pixels(left) - whole[:, 10:110]).max() <= 1
    assert pixels(result).shape == (88, 120, 3)


@pytest.mark.parametrize('mode', ['L', 'RGBA', 'I;16'])
def test_the_download_keeps_the_photos_mode_and_the_slider_shows_colours(model, tmp_path, mode):
    Image.new(mode, (20, 10), 1).save(tmp_path / 'image.png')
    (left, right), _, result = upscale(model, tmp_path / 'image.png', scale=2)
    assert Image.open(result).mode == mode
    assert left.mode == right.mode == 'RGB'


@pytest.mark.parametrize('target, message', [
    ({'scale': 20}, 'the result has 1.1 million pixels, and this page makes up to 1 million: choose a smaller one'),
    ({'height': 40, 'width': 100}, r'size 100x40 is smaller than the picture, 60x44 \(width x height\)'),
    ({}, 'give a height, a width, or both'),
])
def test_what_cannot_be_made_is_refused(model, photo, monkeypatch, target, message):
    monkeypatch.setattr(upscaling, 'LIMIT', 1e6)
    with pytest.raises(UserError, match=message):
        upscale(model, photo, **target)


def test_a_photo_with_too_many_pixels_is_refused_before_it_is_decoded(model, tmp_path):
    (tmp_path / 'huge.ppm').write_bytes(b'P6 8000 8000 255\n')  # the pixels themselves are not there
    with pytest.raises(UserError, match='the photo has 64.0 million pixels, and this page makes up to 50 million'):
        upscale(model, tmp_path / 'huge.ppm', scale=1)


def test_without_gradio_the_error_says_how_to_install_it(monkeypatch):
    monkeypatch.setattr(upscaling, 'gr', None)
    monkeypatch.setattr(sys, 'argv', ['web_demo.py'])
    with pytest.raises(UserError, match='Gradio is missing: pip install -r requirements-web.txt'):
        web_demo.main()


# --- the page in a browser -----------------------------------------------------------------------------------------


def free_port():
    with socket.socket() as server:
        server.bind(('127.0.0.1', 0))
        return server.getsockname()[1]


def start(folder, port, **environment):
    """web_demo.py, running in `folder`, and what it prints in the file web_demo.log there."""
    environment = {**ENVIRONMENT, 'GRADIO_TEMP_DIR': str(folder / 'cache'), 'PYTHONUNBUFFERED': '1', **environment}
    command = [sys.executable, SCRIPT, '--model', 'model.pth', '--gpu', 'cpu', '--port', str(port)]
    with (folder / 'web_demo.log').open('w') as log:
        return subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log)


@contextlib.contextmanager
def serving(folder, **environment):
    """Where web_demo.py serves its page, as long as the context lasts."""
    pytest.importorskip('gradio', reason='Gradio is not installed (requirements-web.txt)')
    port = free_port()
    process = start(folder, port, **environment)
    deadline = time.monotonic() + 120
    while 'Running on local URL' not in (folder / 'web_demo.log').read_text():
        assert process.poll() is None and time.monotonic() < deadline, (folder / 'web_demo.log').read_text()
        time.sleep(0.1)
    yield f'http://127.0.0.1:{port}/'
    process.terminate()
    process.wait()


@pytest.fixture(scope='module')
def url(folder):
    """Where web_demo.py serves its page."""
    with serving(folder) as url:
        yield url


@pytest.fixture
def browser(chromium, url):
    """Chromium, the page freshly loaded in it."""
    for log in ('browser', 'performance'):
        chromium.get_log(log)
    chromium.get(url)
    element(chromium, 'input[type=file]')
    return chromium


def wait(browser, condition):
    """The first true value of `condition(browser)`; elements may go while it looks at them."""
    from selenium.common.exceptions import StaleElementReferenceException
    from selenium.webdriver.support.ui import WebDriverWait
    return WebDriverWait(browser, 30, 0.1, [StaleElementReferenceException]).until(condition)


def element(browser, selector, text=''):
    """The element with `text` in it, once it is there."""
    return wait(browser, lambda browser: next(
        (e for e in browser.find_elements('css selector', selector) if text in e.text), None))


def slider(browser):
    return browser.find_elements('css selector', '[data-testid=imageslider-image]')


def upload(browser, path):
    element(browser, 'input[type=file]').send_keys(str(path))
    wait(browser, lambda browser: browser.find_elements('css selector', CLEAR))


def make(browser, path):
    """Has the photo in the file `path` upscaled; returns the slider's pictures."""
    upload(browser, path)
    element(browser, 'button', 'Upscale').click()
    return wait(browser, slider)


def choose_width(browser, width):
    """Chooses a size in place of the scale, and enters its width."""
    element(browser, 'label', 'Size').click()
    wait(browser, lambda browser: not browser.find_elements('css selector', 'input[type=range]'))
    element(browser, 'label', 'Width').find_element('css selector', 'input').send_keys(width)


def message(browser):
    """The text of the error that the page shows."""
    return wait(browser, lambda browser: element(browser, '[data-testid=toast-body]').text)  # it fades in


def test_it_loads_without_an_error_or_a_request_to_other_machines(browser, url):
    assert [entry for entry in browser.get_log('browser') if entry['level'] == 'SEVERE'] == []
    events = [json.loads(entry['message'])['message'] for entry in browser.get_log('performance')]
    requests = [event['params'] for event in events if event['method'] == 'Network.requestWillBeSent']
    urls = {request['request']['url'] for request in requests if request['documentURL'] == url}
    assert url in urls
    assert all(u.startswith((url, 'data:', 'blob:')) for u in urls)


def test_an_uploaded_photo_is_upscaled_and_compared(browser, photo):
    images = make(browser, photo)
    assert '60x44 → 120x88 pixels' in element(browser, 'body', '→').text
    wait(browser, lambda browser: all(int(image.get_property('naturalWidth')) == 120 for image in images))


def test_the_slider_moves_the_cut_between_the_pictures(browser, photo):
    from selenium.webdriver.common.action_chains import ActionChains
    left, right = make(browser, photo)
    handle, width = element(browser, '[data-testid=slider] .inner'), left.size['width']

    def cut():
        return float(re.search(r'([\d.]+)%\)', right.get_attribute('style'))[1])

    wait(browser, lambda browser: cut() == pytest.approx(50, abs=1))
    ActionChains(browser).drag_and_drop_by_offset(handle, round(width / 4), 0).perform()
    wait(browser, lambda browser: cut() == pytest.approx(75, abs=3))


def test_the_result_is_downloaded_as_png(browser, model, photo, tmp_path):
    browser.execute_cdp_cmd('Browser.setDownloadBehavior', {'behavior': 'allow', 'downloadPath': str(tmp_path)})
    make(browser, photo)
    wait(browser, lambda browser: element(browser, 'button', 'Download PNG').is_enabled())
    element(browser, 'button', 'Download PNG').click()
    result = tmp_path / 'photo-120x88.png'
    wait(browser, lambda browser: result.exists())
    assert np.array_equal(pixels(result), pixels(upscale_pil(model, Image.open(photo), scale=2)))


def test_with_a_size_chosen_height_and_width_are_asked_for_in_place_of_the_scale(browser, photo):
    upload(browser, photo)
    choose_width(browser, 150)
    assert element(browser, 'label', 'Height').find_element('css selector', 'input').get_property('value') == ''
    element(browser, 'button', 'Upscale').click()
    assert '60x44 → 150x110 pixels' in element(browser, 'body', '→').text


def test_while_a_large_result_is_made_the_page_shows_how_far_it_is(browser, photo):
    upload(browser, photo)
    choose_width(browser, 2500)
    element(browser, 'button', 'Upscale').click()
    wait(browser, lambda browser: re.search(r'\b\d+\.\d%', browser.find_element('css selector', 'body').text))
    wait(browser, slider)


def test_a_photo_that_is_too_large_is_refused_by_a_message_and_the_page_works_on(browser, photo, tmp_path):
    Image.new('L', (5000, 3000)).save(tmp_path / 'large.png')
    upload(browser, tmp_path / 'large.png')
    element(browser, 'button', 'Upscale').click()
    assert 'the result has 60.0 million pixels, and this page makes up to 50 million' in message(browser)
    element(browser, CLEAR).click()
    make(browser, photo)


def test_a_file_that_is_no_image_is_refused_by_a_message(browser, tmp_path):
    (tmp_path / 'broken.png').write_bytes(b'no image')
    upload(browser, tmp_path / 'broken.png')
    element(browser, 'button', 'Upscale').click()
    assert 'broken.png: cannot be read as an image (its content is none of' in message(browser)


def test_after_an_error_the_last_result_is_still_there(browser, photo):
    make(browser, photo)
    number = element(browser, 'label', 'Any scale').find_element('css selector', 'input')
    number.send_keys('000')  # 2000
    element(browser, 'button', 'Upscale').click()
    assert 'million pixels, and this page makes up to 50 million' in message(browser)
    assert all(image.is_displayed() for image in slider(browser)) and len(slider(browser)) == 2
    assert element(browser, 'button', 'Download PNG').is_enabled()


def test_a_scale_beyond_the_sliders_end_can_be_entered_as_a_number(browser, photo):
    upload(browser, photo)
    number = element(browser, 'label', 'Any scale').find_element('css selector', 'input')
    number.send_keys('\b31.5')
    element(browser, 'button', 'Upscale').click()
    assert '60x44 → 1890x1386 pixels' in element(browser, 'body', '→').text


def test_the_slider_sets_the_scale_up_to_30(browser, photo):
    from selenium.webdriver.common.keys import Keys
    element(browser, 'input[type=range]').send_keys(Keys.END)
    number = element(browser, 'label', 'Any scale').find_element('css selector', 'input')
    wait(browser, lambda browser: number.get_property('value') == '30')


def test_an_example_is_upscaled_like_an_upload(browser):
    wait(browser, lambda browser: browser.find_elements('css selector', '.gallery-item'))[0].click()
    wait(browser, lambda browser: browser.find_elements('css selector', CLEAR))
    element(browser, 'button', 'Upscale').click()
    assert '451x300 → 902x600 pixels' in element(browser, 'body', '→').text


def test_the_page_leads_to_explore(browser, url):
    assert element(browser, 'a', 'Explore').get_property('href') == f'{url}explore'


@pytest.mark.parametrize('port', [0, 70000])
def test_a_port_that_cannot_be_is_an_error_of_one_line(port, monkeypatch):
    monkeypatch.setattr(sys, 'argv', ['web_demo.py', '--gpu', 'cpu', '--port', str(port)])
    with pytest.raises(UserError, match=f'--port must be from 1 to 65535, not {port}'):
        web_demo.main()


def test_a_port_that_is_taken_is_an_error_of_one_line(folder, url, tmp_path):
    shutil.copy(folder / 'model.pth', tmp_path)
    port = url.split(':')[-1].strip('/')
    assert start(tmp_path, port).wait(100) == 2
    assert (tmp_path / 'web_demo.log').read_text().splitlines()[-1] == \
        f'error: --port: {port} is taken or not permitted; choose another'
