"""What the Explore page's server does so that no visitor takes its memory, its disk or its threads from the others."""

import asyncio
import threading
import time

import numpy as np
import pytest
import tifffile
from PIL import Image

httpx = pytest.importorskip('httpx', reason='httpx, which Gradio brings, is not installed (requirements-web.txt)')


def posted(model, *files):
    """The answers to `files`, all sent at once to a server in this process."""
    from starlette.applications import Starlette

    from web.explore import Explore

    async def post():
        app = httpx.ASGITransport(Starlette(routes=Explore(model).routes()))
        async with httpx.AsyncClient(transport=app, base_url='http://localhost/explore/') as client:
            return await asyncio.gather(*(client.post('photos', content=path.read_bytes()) for path in files))

    return asyncio.run(post())


def test_a_photo_of_which_the_memory_for_photos_cannot_hold_the_16_bits_is_refused(web_model, tmp_path, monkeypatch):
    pytest.importorskip('gradio', reason='Gradio is not installed (requirements-web.txt)')
    monkeypatch.setattr('web.explore.PHOTO_BYTES', 2_000_000)
    files = tmp_path / '8.tif', tmp_path / '16.tif'
    for path, dtype in zip(files, (np.uint8, np.uint16), strict=True):
        tifffile.imwrite(path, np.zeros((250, 400, 3), dtype), photometric='rgb')  # 0.1 million pixels
    small, large = posted(web_model, *files)
    assert small.status_code == 200
    assert large.status_code == 413 and large.json()['error'].startswith('the photo takes 3 MB of memory, and this '
                                                                         'page has 2 MB: choose a smaller one')


def test_photos_that_arrive_at_once_are_decoded_one_after_the_other(web_model, web_photo, monkeypatch):
    pytest.importorskip('gradio', reason='Gradio is not installed (requirements-web.txt)')
    decoder, overlaps = threading.Lock(), []

    def read(path):
        overlaps.append(decoder.locked())
        with decoder:
            time.sleep(0.05)
            return Image.open(path).convert('RGB')

    monkeypatch.setattr('web.explore.read', read)
    assert [answer.status_code for answer in posted(web_model, *[web_photo] * 4)] == [200] * 4
    assert overlaps == [False] * 4
