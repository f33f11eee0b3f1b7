"""What the page's server gives to programs that send it requests of their own, with hostile paths above all."""

import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from models import upscale_pil

httpx = pytest.importorskip('httpx', reason='httpx, which Gradio brings, is not installed (requirements-web.txt)')

META = {'meta': {'_type': 'gradio.FileData'}}


@pytest.fixture
def web(url):
    """A client that sends requests to the server."""
    with httpx.Client(base_url=f'{url}gradio_api/', timeout=60, trust_env=False) as client:
        yield client


@pytest.fixture
def private(web_folder):
    """A photo that nobody uploaded, beside a file that lies where its result would go; both must stay as they are."""
    private = web_folder / 'private'
    private.mkdir()
    shutil.copy(web_folder / 'photo.png', private / 'secret.png')
    (private / 'secret-120x88.png').write_text('something of mine')
    before = {path.name: path.read_bytes() for path in private.iterdir()}
    yield private / 'secret.png'
    assert {path.name: path.read_bytes() for path in private.iterdir()} == before
    shutil.rmtree(private)


def upload(web, path, name=None):
    """Where the server puts the file `path`, uploaded under `name`."""
    response = web.post('upload', files={'files': (name or path.name, path.read_bytes())})
    return response.json()[0]


def answer(web, data, scale=2):
    """The event and the value of what `answer` gives for the photo `data`."""
    event = web.post('call/answer', json={'data': [data, 'Scale', scale, None, None]}).json()['event_id']
    kind, value = web.get(f'call/answer/{event}').text.strip().split('\n')[-2:]
    return kind.removeprefix('event: '), json.loads(value.removeprefix('data: '))


def download(web, value):
    """The result's picture, fetched as the page does."""
    return Image.open(io.BytesIO(web.get(f'file={value[2]["value"]["path"]}').raise_for_status().content))


def test_it_tells_where_both_pages_are_and_nothing_about_sharing(web_folder, url):
    log = (web_folder / 'web_demo.log').read_text()
    assert f'open {url}, or {url}explore' in log and 'share' not in log


def test_an_uploaded_photo_is_upscaled_and_the_result_can_be_fetched(web, web_folder, web_model):
    kind, value = answer(web, {'path': upload(web, web_folder / 'photo.png'), **META})
    assert kind == 'complete'
    expected = upscale_pil(web_model, Image.open(web_folder / 'photo.png'), scale=2)
    assert np.array_equal(np.asarray(download(web, value)), np.asarray(expected))


def test_results_go_into_new_folders_and_replace_nothing(web, web_folder):
    """Another upload of this content and of the result's name lies where the result went, were it put beside."""
    photo = upload(web, web_folder / 'photo.png')
    mine = Path(upload(web, web_folder / 'photo.png', 'photo-120x88.png'))
    assert mine.parent == Path(photo).parent
    before = mine.read_bytes()
    paths = {answer(web, {'path': photo, **META})[1][2]['value']['path'] for _ in range(2)}
    assert mine.read_bytes() == before and str(mine) not in paths
    assert len({Path(path).parent for path in paths}) == 2


def hostile(private, photo):
    """Names for the file `private`, by way of the uploaded `photo` where one is needed."""
    link = Path(photo).with_name('link.png')
    link.unlink(missing_ok=True)
    link.symlink_to(private)
    up = '../' * 30
    return [str(private), str(private) + '.absent', 'private/secret.png', f'./{private}', f'file://{private}',
            f'{photo}/../{up}{private}', str(Path(photo).parent / up) + str(private), str(link), str(link.parent),
            f'{private}\0.png', f'/proc/self/root{private}', '/proc/self/cwd/private/secret.png', '/dev/stdin', '',
            f'http://127.0.0.1:9/file={private}', f'file={private}', str(private).replace('/', '//')]


@pytest.mark.parametrize('rest', [{}, META, {'url': None}, {'url': 'http://127.0.0.1:9/x.png', **META},
                                  {'is_stream': True, **META}, {'orig_name': 'photo.png', 'size': 1, **META}])
def test_a_photo_that_nobody_uploaded_is_refused_under_any_name(web, web_folder, private, rest):
    photo = upload(web, web_folder / 'photo.png')
    assert answer(web, {'path': photo, **rest})[0] == 'complete'
    for path in hostile(private, photo):
        assert answer(web, {'path': path, **rest})[0] == 'error', path
    assert answer(web, {'path': None, **rest})[0] == 'error'


def test_an_upload_that_became_a_link_is_refused(web, web_folder, private):
    photo = Path(upload(web, web_folder / 'photo.png', 'replaced.png'))
    assert answer(web, {'path': str(photo), **META})[0] == 'complete'
    photo.unlink()
    photo.symlink_to(private)
    assert answer(web, {'path': str(photo), **META})[0] == 'error'


@pytest.mark.parametrize('data', ['PATH', ['PATH'], {'path': ['PATH']}, {'path': {'path': 'PATH', **META}}, {}, 3])
def test_a_photo_that_is_no_file_is_refused(web, private, data):
    data = json.loads(json.dumps(data).replace('PATH', str(private)))
    assert answer(web, data)[0] == 'error'


def reply(web, endpoint, path):
    """What the server says in the end to a program that asks at `endpoint` for the photo at `path`."""
    fields = {'path': {'path': str(path)}, 'choice': 'Scale', 'scale': 2, 'height': None, 'width': None}
    config = web.get(str(web.base_url).replace('gradio_api/', 'config')).json()
    index, = (event['id'] for event in config['dependencies'] if event['api_name'] == 'answer')
    body = {'data': [*fields.values()], 'fn_index': index, 'session_hash': 'hash', 'event_data': None,
            'trigger_id': None}
    response = web.post(endpoint, json=fields if endpoint == 'call/v2/answer' else body)
    if response.is_success and endpoint == 'queue/join':
        with web.stream('GET', 'queue/data', params={'session_hash': 'hash'}) as stream:
            return next(line for line in stream.iter_lines() if 'process_completed' in line)
    if response.is_success and endpoint == 'call/v2/answer':
        return web.get(f'call/answer/{response.json()["event_id"]}').text
    return response.text


@pytest.mark.parametrize('endpoint', ['run/answer', 'api/answer', 'run/predict', 'queue/join', 'call/v2/answer'])
def test_other_ways_to_ask_are_refused_too(web, web_folder, private, endpoint):
    assert 'photo-120x88.png' in reply(web, endpoint, upload(web, web_folder / 'photo.png'))
    text = reply(web, endpoint, private)
    assert '120x88' not in text and 'secret' not in text, text


@pytest.mark.parametrize('position', range(1, 5))
def test_a_file_in_place_of_another_field_is_refused(web, web_folder, private, position):
    data = [{'path': upload(web, web_folder / 'photo.png'), **META}, 'Scale', 2, None, None]
    assert answer(web, data[0])[0] == 'complete'
    for rest in ({}, META):
        data[position] = {'path': str(private), **rest}
        event = web.post('call/answer', json={'data': data}).json()['event_id']
        text = web.get(f'call/answer/{event}').text
        assert 'event: error' in text or position == 2 and 'secret' not in text


@pytest.mark.parametrize('endpoint', ['file={}', 'file/{}', 'proxy={}', '../static/{}', '../assets/{}', '../svelte/{}',
                                      'custom_component/x/client/y/{}'])
def test_no_other_file_can_be_fetched(web, web_folder, private, endpoint):
    for path in [*hostile(private, upload(web, web_folder / 'photo.png')), str(web_folder / 'photo.png'), 'model.pth']:
        for name in (path, path.replace('/', '%2f'), path.replace('.', '%2e')):
            try:
                response = web.get(endpoint.format(name))
            except httpx.InvalidURL:
                continue
            assert private.read_bytes() not in response.content, name
            assert response.status_code >= 400 or b'<html' in response.content, name


@pytest.mark.parametrize('name', ['../../../evil.png', '/tmp/evil.png', '..', '.', '..\\evil.png', 'a\0b.png',
                                  'x' * 300, 'photo.png/../../evil.png', '%2e%2e%2fevil.png', 'ä/ö.png'])
def test_an_upload_stays_in_the_cache_whatever_its_name(web, web_folder, name):
    def outside():
        found = *web_folder.parent.iterdir(), *web_folder.rglob('*')
        return {path for path in found if 'cache' not in path.parts}

    before = outside()
    response = web.post('upload', files={'files': (name, (web_folder / 'photo.png').read_bytes())})
    if response.is_success:
        assert Path(response.json()[0]).resolve().is_relative_to((web_folder / 'cache').resolve())
    assert outside() == before
    assert not any((folder / 'evil.png').exists() for folder in (*web_folder.parents, Path('/tmp')))


def test_a_file_of_more_than_200_mb_is_refused(web):
    head = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n'
    body = [head, *[bytes(1 << 20)] * 201, b'\r\n--x--\r\n']
    response = web.post('upload', content=body, headers={'Content-Type': 'multipart/form-data; boundary=x'})
    assert response.status_code == 413


@pytest.mark.parametrize('position, name', [(2, 'Any scale'), (3, 'Height'), (4, 'Width')])
@pytest.mark.parametrize('value', ['1e308', '-1e308', f'1{"0" * 400}', 'NaN', 'Infinity', '"abc"', '[2]'])
def test_what_is_no_number_of_a_usual_size_is_refused_by_a_line(web, web_folder, position, name, value):
    data = [{'path': upload(web, web_folder / 'photo.png'), **META}, 'Scale' if position == 2 else 'Size', 2, 99, 99]
    data[position] = 'VALUE'
    log = web_folder / 'web_demo.log'
    before = log.stat().st_size
    event = web.post('call/answer', content=json.dumps({'data': data}).replace('"VALUE"', value),
                     headers={'Content-Type': 'application/json'}).raise_for_status().json()['event_id']
    assert f'{name} must be a number up to 1,000,000' in web.get(f'call/answer/{event}').text
    assert b'Traceback' not in log.read_bytes()[before:]


@pytest.mark.parametrize('scale', [0, -3, 1e300, 1e6, 'NaN', 'Infinity', '2', [2], {}, True])
def test_a_scale_that_cannot_be_leaves_the_server_working(web, web_folder, scale):
    photo = {'path': upload(web, web_folder / 'photo.png'), **META}
    body = json.dumps({'data': [photo, 'Scale', scale, None, None]}).replace('"NaN"', 'NaN')
    response = web.post('call/answer', content=body.replace('"Infinity"', 'Infinity'),
                        headers={'Content-Type': 'application/json'})
    if response.is_success:
        web.get(f'call/answer/{response.json()["event_id"]}')
    assert answer(web, photo)[0] == 'complete'
