"""The Explore page: whoever opens a photo looks around in it, and each view is made by the model at once.

    GET  /explore                     the page
    POST /explore/photos              a file as the body; gives its id, width and height
    GET  /explore/photos/ID/view      ?box=left,top,right,bottom&size=width,height&by=model|bicubic; gives a PNG

An id is known to the visitor alone who has opened the photo. Photos and their features are kept in memory, up to a
limit; those that were looked at least recently are forgotten, and the page sends its file again where it is needed.
"""

import io
import math
import secrets
import tempfile
import threading
from pathlib import Path

import skimage
from PIL import Image
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from datasets.image_file import image_size
from errors import UserError
from models.decoder import Decoder
from models.regions import Encoded, check
from pictures.deep import Deep
from pictures.io import read
from pictures.modes import blank
from pictures.sheets import shown
from web.lru import LRU, Share

HERE = Path(__file__).parent
FILE_BYTES = 200 << 20  # of a photo's file
PIXELS = 50e6  # of a photo
VIEW_PIXELS = 9e6  # of a view: more than a screen of 3840x2160
PHOTO_BYTES, FEATURE_BYTES = 1 << 30, 1 << 29  # kept, of all visitors together
EXAMPLES = {path.stem: path for name in ('chelsea.png', 'astronaut.png', 'coffee.png', 'rocket.jpg')
            if (path := Path(skimage.data_dir) / name).is_file()}  # those that scikit-image has without a download
HEADERS = {'Cache-Control': 'no-store', 'X-Content-Type-Options': 'nosniff', 'Referrer-Policy': 'no-referrer'}


class Stale(Exception):
    """The visitor has asked for another view meanwhile."""


class Photo:
    """A visitor's photo. `wanted`: the request for its latest view; those before it are given up."""

    def __init__(self, model: Decoder, image: Image.Image | Deep, features: Share):
        self.encoded, self.wanted = Encoded(model, image, features), None
        self.size = image.size

    def bytes(self) -> int:
        return 8 * math.prod(self.size)  # the picture, and what the model sees of it


class Explore:
    """What the page's requests are answered with, by `model`."""

    def __init__(self, model: Decoder):
        self.model = model
        self.photos = LRU(PHOTO_BYTES, Photo.bytes)
        self.features = LRU(FEATURE_BYTES, lambda tile: tile.nbytes)
        self.turn = threading.Lock()  # one view is made at a time, by all the cores

    def routes(self) -> list[Route]:
        """Where the page and its photos are found."""
        return [Route('/explore', page), Route('/explore/explore.js', script), Route('/explore/examples', examples),
                Route('/explore/examples/{name}', example),
                Route('/explore/photos', self.open, methods=['POST']),
                Route('/explore/photos/{id}/view', self.view)]

    async def open(self, request: Request) -> Response:
        """Takes a photo in: its id and size."""
        key = secrets.token_urlsafe(32)
        with tempfile.TemporaryDirectory() as folder:
            path, size = Path(folder) / 'photo', 0
            with open(path, 'wb') as file:
                async for chunk in request.stream():
                    size += len(chunk)
                    if size > FILE_BYTES:
                        return refusal(f'a file may have up to {FILE_BYTES >> 20} MB', 413)
                    file.write(chunk)
            try:
                photo = await run_in_threadpool(self.photo, path, key)
            except UserError as error:
                return refusal(str(error).replace(str(path), 'the file'))
        self.photos.put(key, photo)
        return JSONResponse({'id': key, 'width': photo.size[0], 'height': photo.size[1]}, headers=HEADERS)

    def photo(self, path: Path, key: str) -> Photo:
        """The photo in the file `path`, whose features are kept under `key`."""
        return Photo(self.model, read_photo(path), Share(self.features, key))

    async def view(self, request: Request) -> Response:
        """A part of a photo as a PNG; 404 for a photo that is not here (any more), 409 for a view that is stale."""
        photo = self.photos.get(request.path_params['id'])
        if photo is None:
            return refusal('this photo is not here any more; open it again', 404)
        try:
            by, box, size = asked_for(request, photo)
            if by == 'bicubic':
                image = await run_in_threadpool(interpolated, photo, box, size)
            else:
                photo.wanted = request
                image = await run_in_threadpool(self.make, photo, request, box, size)
            return Response(await run_in_threadpool(png, image), media_type='image/png', headers=HEADERS)
        except UserError as error:
            return refusal(str(error))
        except Stale:
            return refusal('another view has been asked for meanwhile', 409)

    def make(self, photo: Photo, request: Request, box: tuple, size: tuple) -> Image.Image:
        """A view by the model, unless the visitor wants another before it is done: then it raises Stale."""
        with self.turn:
            result = blank(photo.encoded.image.mode, size[::-1])
            if photo.wanted is not request:
                raise Stale
            for left, top, block in photo.encoded.blocks(box, size):
                if photo.wanted is not request:
                    raise Stale
                result.paste(block, (left, top))
        return shown(result)


def read_photo(path: Path) -> Image.Image | Deep:
    """The photo in the file `path`, unless it has too many pixels, which is known before it is decoded."""
    if (pixels := math.prod(image_size(path))) > PIXELS:
        raise UserError(f'the photo has {pixels / 1e6:.1f} million pixels, and this page opens up to '
                        f'{PIXELS / 1e6:.0f} million')
    return read(path)


def asked_for(request: Request, photo: Photo) -> tuple[str, tuple, tuple]:
    """What a view is to be made by, its box, and its size (H, W); UserError where they cannot be."""
    by = request.query_params.get('by', 'model')
    if by not in ('model', 'bicubic'):
        raise UserError("by must be 'model' or 'bicubic'")
    try:
        box = tuple(float(x) for x in request.query_params['box'].split(','))
        width, height = (int(n) for n in request.query_params['size'].split(','))
        left, top, right, bottom = box
    except (KeyError, ValueError):
        raise UserError('a view needs box=left,top,right,bottom and size=width,height') from None
    if width * height > VIEW_PIXELS:
        raise UserError(f'a view may have up to {VIEW_PIXELS / 1e6:.0f} million pixels')
    check(box, (height, width), photo.size[::-1])
    if by == 'model' and (right - left > 2 * width or bottom - top > 2 * height):  # much to encode, most to leave out
        raise UserError('the model makes no view at less than half of the size of the photo')
    return by, box, (height, width)


def interpolated(photo: Photo, box: tuple, size: tuple) -> Image.Image:
    """A view by bicubic interpolation, which averages where it reduces."""
    return shown(photo.encoded.image, size[::-1], box=box)


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, 'PNG', compress_level=1)
    return buffer.getvalue()


def refusal(message: str, status: int = 400) -> Response:
    return JSONResponse({'error': message}, status, headers=HEADERS)


def page(request: Request) -> Response:
    return FileResponse(HERE / 'explore.html', headers=HEADERS)


def script(request: Request) -> Response:
    return FileResponse(HERE / 'explore.js', headers=HEADERS)


def examples(request: Request) -> Response:
    return JSONResponse(list(EXAMPLES), headers=HEADERS)


def example(request: Request) -> Response:
    path = EXAMPLES.get(request.path_params['name'])
    return FileResponse(path, headers=HEADERS) if path else refusal('there is no such example', 404)
