"""The server of the Explore page: what it gives to whom, and what it gives up."""

import contextlib
import io
import select
import socket
import threading
import time

import numpy as np
import pytest
import tifffile
from PIL import Image
from upscaling import SRGB, picture

from models import upscale_region

httpx = pytest.importorskip('httpx', reason='httpx, which Gradio brings, is not installed (requirements-web.txt)')


@pytest.fixture
def web(url):
    """A visitor, who sends requests to the server."""
    with httpx.Client(base_url=f'{url}explore/', timeout=60, trust_env=False) as client:
        yield client


def opened(web, path):
    return web.post('photos', content=path.read_bytes()).raise_for_status().json()


def view(web, photo, box='10,8,30,24', size='80,64', by='model'):
    return web.get(f'photos/{photo}/view', params={'box': box, 'size': size, 'by': by})


def pixels(response):
    return np.asarray(Image.open(io.BytesIO(response.raise_for_status().content))).astype(int)


def test_a_view_is_that_region_by_the_model(web, web_model, web_photo):
    answer = opened(web, web_photo)
    assert (answer['width'], answer['height']) == (60, 44)
    expected = upscale_region(web_model, Image.open(web_photo), (10, 8, 30, 24), (64, 80))
    assert np.abs(pixels(view(web, answer['id'])) - np.asarray(expected).astype(int)).max() <= 1


def test_a_photo_of_16_bits_a_colour_is_seen(web, web_model, tmp_path):
    colours = np.random.default_rng(0).integers(0, 65536, (44, 60, 3), dtype=np.uint16)
    tifffile.imwrite(tmp_path / 'deep.tif', colours, photometric='rgb')
    seen = pixels(view(web, opened(web, tmp_path / 'deep.tif')['id']))
    rounded = Image.fromarray((colours / 257).round().astype(np.uint8))
    expected = np.asarray(upscale_region(web_model, rounded, (10, 8, 30, 24), (64, 80))).astype(int)
    assert np.abs(seen - expected).max() <= 2


def test_both_kinds_of_views_have_the_photos_colour_profile(web, tmp_path):
    picture().save(tmp_path / 'photo.png', icc_profile=SRGB)
    photo = opened(web, tmp_path / 'photo.png')['id']
    for by in 'model', 'bicubic':
        made = view(web, photo, '0,0,12,10', '24,20', by).content
        assert Image.open(io.BytesIO(made)).info['icc_profile'] == SRGB


@pytest.mark.parametrize('name, told', [('a.svg', 'no pixels: export it'), ('a.NEF', 'RAW: export it')])
def test_a_file_that_is_not_opened_is_told_with_what_would_help(web, web_photo, name, told):
    response = web.post('photos', params={'name': name}, content=web_photo.read_bytes())
    assert response.status_code == 400 and told in response.json()['error']


def test_other_sites_cannot_open_photos_here(web, web_photo):
    response = web.post('photos', content=web_photo.read_bytes(), headers={'Sec-Fetch-Site': 'cross-site'})
    assert response.status_code == 403


def test_a_view_by_bicubic_interpolation_is_pillows(web, web_photo):
    actual = pixels(view(web, opened(web, web_photo)['id'], by='bicubic'))
    assert np.array_equal(actual, np.asarray(Image.open(web_photo).resize((80, 64), Image.BICUBIC, (10, 8, 30, 24))))


def test_each_upload_of_a_photo_gets_a_long_id_of_its_own(web, web_photo):
    ids = {opened(web, web_photo)['id'] for _ in range(4)}
    assert len(ids) == 4 and min(map(len, ids)) >= 43  # 32 random bytes


def test_a_visitor_sees_their_own_photo_while_another_looks_at_theirs(web, web_photo, tmp_path):
    Image.open(web_photo).transpose(Image.FLIP_LEFT_RIGHT).save(tmp_path / 'other.png')
    mine, other = (opened(web, path)['id'] for path in (web_photo, tmp_path / 'other.png'))
    before = pixels(view(web, mine))
    theirs = pixels(view(web, other))
    assert not np.array_equal(before, theirs) and np.array_equal(pixels(view(web, mine)), before)


@pytest.mark.parametrize('id', ['', 'x' * 43, '..', '../../../photo.png', '%2e%2e%2fphoto.png', '*', 'None'])
def test_a_photo_that_is_not_ones_own_is_not_found(web, web_photo, id):
    opened(web, web_photo)
    assert view(web, id).status_code == 404


@pytest.mark.parametrize('changes, message', [
    ({'box': '10,8,61,24'}, 'box must be (left, top, right, bottom) inside the image, 60x44 (width x height), '
                            'not (10, 8, 61, 24)'),
    ({'box': '10,8,nan,24'}, 'box must be'), ({'box': '1,2,3'}, 'a view needs box=left,top,right,bottom'),
    ({'box': '0,0,5e-324,5e-324'}, 'box must be at least 1e-06 pixels wide and high'),
    ({'box': 'a,b,c,d'}, 'a view needs'), ({'size': '0,10'}, 'size must be at least 1x1'),
    ({'size': '-10,-10'}, 'size must be'), ({'size': '4000,4000'}, 'a view may have up to 9 million pixels'),
    ({'size': '20000,1'}, 'a view may have up to 9 million pixels, and 16384 a side'),
    ({'size': '8,8'}, 'the model makes no views at less than half the size of the photo'),
    ({'by': 'magic'}, "by must be 'model' or 'bicubic'")])
def test_a_view_that_cannot_be_is_refused_by_a_line(web, web_photo, changes, message):
    response = view(web, opened(web, web_photo)['id'], **changes)
    assert response.status_code == 400 and response.json()['error'].startswith(message)


def test_a_view_whose_rows_alone_would_take_gigabytes_is_refused(web, tmp_path):
    Image.new('RGB', (1, 50_000)).save(tmp_path / 'narrow.png')
    response = view(web, opened(web, tmp_path / 'narrow.png')['id'], '0,0,1,50000', '16000,1', 'bicubic')
    assert response.status_code == 400
    assert response.json()['error'] == '16000 pixels are too wide for a view of 50000 rows of the photo'


def test_what_is_no_image_is_refused_without_the_name_of_a_file_here(web):
    response = web.post('photos', content=b'no image')
    assert response.status_code == 400
    assert response.json()['error'].startswith('the file: cannot be read as an image') and 'tmp' not in response.text


def test_a_photo_with_too_many_pixels_is_refused_before_it_is_decoded(web):
    response = web.post('photos', content=b'P6 8000 8000 255\n')  # the pixels themselves are not there
    assert 'the photo has 64.0 million pixels, and this page opens up to 50 million' in response.json()['error']


@pytest.mark.parametrize('name', ['..%2f..%2fexplore.py', '%2fetc%2fpasswd', '../explore.py', 'README.txt'])
def test_nothing_but_the_examples_is_given_out(web, name):
    assert web.get(f'examples/{name}').status_code == 404


def test_the_examples_are_photos_that_can_be_opened(web):
    names = web.get('examples').json()
    assert len(names) >= 3
    for name in names:
        assert web.post('photos', content=web.get(f'examples/{name}').content).json()['width'] > 400


def test_of_views_of_a_photo_the_latest_is_made_and_those_before_are_given_up(web, url, tmp_path):
    Image.effect_noise((900, 700), 60).convert('RGB').save(tmp_path / 'large.png')
    photo, first = opened(web, tmp_path / 'large.png')['id'], []

    def ask():
        with httpx.Client(base_url=f'{url}explore/', timeout=60, trust_env=False) as client:
            first.append(view(client, photo, '0,0,900,700', '3400,2640'))

    thread = threading.Thread(target=ask)
    thread.start()
    time.sleep(0.5)
    assert pixels(view(web, photo, '400,300,410,308')).shape == (64, 80, 3)
    thread.join()
    assert first[0].status_code == 409


def test_while_many_views_wait_the_page_is_given_out_at_once(web, url, web_photo):
    photos = [opened(web, web_photo)['id'] for _ in range(48)]  # more than the server has threads
    with contextlib.ExitStack() as stack:
        waiting = [stack.enter_context(socket.create_connection(('127.0.0.1', httpx.URL(url).port))) for _ in photos]
        for connection, photo in zip(waiting, photos, strict=True):
            connection.sendall(f'GET /explore/photos/{photo}/view?box=0,0,60,44&size=3400,2640 HTTP/1.1\r\n'
                               'Host: localhost\r\n\r\n'.encode())
        time.sleep(0.2)
        assert web.get(url + 'explore').status_code == 200
        assert select.select(waiting, [], [], 0)[0] == []


def send_and_go(url, request, seconds):
    """Sends the bytes `request` to the server and closes the connection `seconds` later, whatever is still to come."""
    with socket.create_connection(('127.0.0.1', httpx.URL(url).port)) as connection:
        connection.sendall(request)
        time.sleep(seconds)


def timed(call):
    """The seconds that a call takes."""
    start = time.monotonic()
    call()
    return time.monotonic() - start


def test_a_view_is_given_up_when_its_visitor_goes(web, url, web_photo, tmp_path):
    Image.effect_noise((900, 700), 60).convert('RGB').save(tmp_path / 'large.png')
    large, small = (opened(web, path)['id'] for path in (tmp_path / 'large.png', web_photo))
    whole = timed(lambda: view(web, large, '0,0,900,700', '1000,778').raise_for_status())
    send_and_go(url, f'GET /explore/photos/{large}/view?box=0,0,900,700&size=1000,778&by=model HTTP/1.1\r\n'
                     'Host: localhost\r\n\r\n'.encode(), 0.2)
    assert timed(lambda: view(web, small).raise_for_status()) < whole / 2


def test_an_upload_that_breaks_off_is_no_error_of_the_server(web, url, web_folder, web_photo):
    log = web_folder / 'web_demo.log'
    before = log.stat().st_size
    send_and_go(url, b'POST /explore/photos?name=a.png HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n'
                     + web_photo.read_bytes()[:1000], 0.2)
    time.sleep(0.5)
    opened(web, web_photo)
    assert b'Traceback' not in log.read_bytes()[before:]


def test_what_a_visitor_sees_is_not_kept_by_browsers_or_proxies(web, web_photo):
    response = view(web, opened(web, web_photo)['id'])
    assert response.headers['cache-control'] == 'no-store' and 'access-control-allow-origin' not in response.headers
