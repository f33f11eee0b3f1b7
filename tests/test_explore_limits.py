"""What the Explore page's server does so that no visitor takes its memory, its disk or its threads from the others."""

import asyncio
import resource
import threading
import time

import numpy as np
import pytest
import tifffile
from PIL import Image

httpx, _ = (pytest.importorskip(name, reason=f'{name}, which Gradio brings, is not installed (requirements-web.txt)')
            for name in ('httpx', 'starlette'))


def visited(model, visit):
    """What `visit` returns, a coroutine function that gets a client of a server in this process."""
    from starlette.applications import Starlette

    from web.explore import Explore

    async def run():
        app = httpx.ASGITransport(Starlette(routes=Explore(model).routes()))
        async with httpx.AsyncClient(transport=app, base_url='http://localhost/explore/') as client:
            return await visit(client)

    return asyncio.run(run())


def posted(model, *files):
    """The answers to `files`, all sent at once."""
    return visited(model, lambda client: asyncio.gather(
        *(client.post('photos', content=path.read_bytes()) for path in files)))


def test_a_photo_of_which_the_memory_for_photos_cannot_hold_the_16_bits_is_refused(web_model, tmp_path, monkeypatch):
    monkeypatch.setattr('web.explore.PHOTO_BYTES', 2_000_000)
    files = tmp_path / '8.tif', tmp_path / '16.tif'
    for path, dtype in zip(files, (np.uint8, np.uint16), strict=True):
        tifffile.imwrite(path, np.zeros((250, 400, 3), dtype), photometric='rgb')  # 0.1 million pixels
    small, large = posted(web_model, *files)
    assert small.status_code == 200
    assert large.status_code == 413 and large.json()['error'].startswith('the photo takes 3 MB of memory, and this '
                                                                         'page has 2 MB: choose a smaller one')


def test_photos_that_arrive_at_once_are_decoded_one_after_the_other(web_model, web_photo, monkeypatch):
    decoder, overlaps = threading.Lock(), []

    def read(path):
        overlaps.append(decoder.locked())
        with decoder:
            time.sleep(0.05)
            return Image.open(path).convert('RGB')

    monkeypatch.setattr('web.explore.read', read)
    assert [answer.status_code for answer in posted(web_model, *[web_photo] * 4)] == [200] * 4
    assert overlaps == [False] * 4


def test_a_file_for_which_the_disk_has_no_place_is_refused_by_a_line(web_model, web_photo):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))  # what fails then is writing, as on a full disk
    try:
        answer, = posted(web_model, web_photo)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert answer.status_code == 507
    assert answer.json()['error'] == 'the server has no place for the file (File too large)'


def test_views_by_bicubic_interpolation_are_made_one_after_the_other(web_model, web_photo, monkeypatch):
    maker, overlaps = threading.Lock(), []

    def flat(image, size, box):
        overlaps.append(maker.locked())
        with maker:
            time.sleep(0.05)
            return image.resize(size, box=box)

    async def look(client):
        photo = (await client.post('photos', content=web_photo.read_bytes())).json()['id']
        view = f'photos/{photo}/view?box=0,0,60,44&size=60,44&by=bicubic'
        return await asyncio.gather(*(client.get(view) for _ in range(4)))

    monkeypatch.setattr('web.explore.flat', flat)
    assert [answer.status_code for answer in visited(web_model, look)] == [200] * 4
    assert overlaps == [False] * 4
