"""The Explore page: visitors open a photo and look around in it, and the model makes each view on demand.

    GET  /explore                     the page
    POST /explore/photos?name=NAME    a file as the body; gives its id, width and height
    GET  /explore/photos/ID/view      ?box=left,top,right,bottom&size=width,height&by=model|bicubic; gives a PNG

Only the visitor who has opened a photo knows its id. Photos and their features are kept in memory, up to a limit; the
least recently used are discarded, and the page sends the file again when it is needed.
"""

import asyncio
import io
import math
import secrets
import tempfile
from pathlib import Path

import skimage
from PIL import Image
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from datasets.image_file import image_size, why_not
from errors import UserError
from models.decoder import Decoder
from models.regions import Encoded, check_box
from pictures.deep import Deep
from pictures.io import read
from pictures.modes import as_mode
from pictures.sheets import flat
from web.lru import LRU, Share

HERE = Path(__file__).parent
FILE_BYTES = 200 << 20  # limit of a photo's file
PIXELS = 50e6  # limit of a photo before it is decoded; afterwards its bytes are limited, which depend on its depth
VIEW_PIXELS, VIEW_SIDE = 9e6, 16384  # limits of a view: more than a screen of 3840x2160
STRETCHED = 1e8  # limit of the pixels of a view whose width has been resized already, but not its height
PHOTO_BYTES, FEATURE_BYTES = 1 << 30, 1 << 29  # limits of what is kept for all visitors together
EXAMPLES = {path.stem: path for name in ('chelsea.png', 'astronaut.png', 'coffee.png', 'rocket.jpg')
            if (path := Path(skimage.data_dir) / name).is_file()}  # those included in scikit-image
HEADERS = {'Cache-Control': 'no-store', 'X-Content-Type-Options': 'nosniff', 'Referrer-Policy': 'no-referrer'}


class Stale(Exception):
    """The visitor has requested another view in the meantime, or has gone."""


class Photo:
    """A visitor's photo. `wanted`: the latest request for a view; earlier ones are abandoned."""

    def __init__(self, model: Decoder, image: Image.Image | Deep, features: Share):
        self.encoded, self.wanted = Encoded(model, image, features), None
        self.size = image.size
        self.eight_bits = as_mode(image, 'RGBA' if 'A' in image.getbands() else 'RGB')  # for bicubic interpolation

    def nbytes(self) -> int:
        """Bytes in memory at most: the picture, its 8-bit copy, its colours without alpha, the model's input."""
        return math.prod(self.size) * (8 + 4 + 4) + self.encoded.latents.image.nbytes


class Explore:
    """Answers the page's requests, with views made by `model`."""

    def __init__(self, model: Decoder):
        self.model = model
        self.photos = LRU(PHOTO_BYTES, Photo.nbytes)
        self.features = LRU(FEATURE_BYTES, lambda tile: tile.nbytes)
        # one view of each kind is made at a time, on all cores; requests that wait hold none of the server's threads
        self.turns = {'model': asyncio.Lock(), 'bicubic': asyncio.Lock()}
        self.opening = asyncio.Lock()  # one photo is decoded at a time, which takes several times the photo's bytes

    def routes(self) -> list[Route]:
        """The routes of the page and its photos."""
        return [Route('/explore', page), Route('/explore/explore.js', script), Route('/explore/examples', examples),
                Route('/explore/examples/{name}', example),
                Route('/explore/photos', self.open, methods=['POST']),
                Route('/explore/photos/{id}/view', self.view)]

    async def open(self, request: Request) -> Response:
        """Receives a photo; answers with its id and size."""
        if request.headers.get('sec-fetch-site') == 'cross-site':  # browsers let any page send files anywhere
            return refusal('photos are only taken from this page', 403)
        if reason := why_not(Path(request.query_params.get('name', ''))):
            return refusal(f'this file is not opened ({reason})')
        key = secrets.token_urlsafe(32)
        try:
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / 'photo'
                if not await received(request, path):
                    return refusal(f'a file may have up to {FILE_BYTES >> 20} MB', 413)
                async with self.opening:
                    photo = await run_in_threadpool(
                        lambda: Photo(self.model, read_photo(path), Share(self.features, key)))
        except ClientDisconnect:
            return refusal('the file has not arrived whole')
        except UserError as error:
            return refusal(str(error).replace(str(path), 'the file'))
        except OSError as error:  # the disk is full
            return refusal(f'the server has no place for the file ({error.strerror})', 507)
        if not self.photos.put(key, photo):
            return refusal(f'the photo takes {photo.nbytes() / 1e6:,.0f} MB of memory, and this page has '
                           f'{PHOTO_BYTES / 1e6:,.0f} MB: choose a smaller one, or one of 8 bits', 413)
        return JSONResponse({'id': key, 'width': photo.size[0], 'height': photo.size[1]}, headers=HEADERS)

    async def view(self, request: Request) -> Response:
        """A part of a photo as a PNG; 404 if the photo is not here (any more), 409 if the view is stale."""
        photo = self.photos.get(request.path_params['id'])
        if photo is None:
            return refusal('this photo is not here any more; open it again', 404)
        try:
            by, box, size = asked_for(request, photo)
            if by == 'bicubic':
                async with self.turns[by]:
                    image = await run_in_threadpool(interpolated, photo, box, size)
            else:
                photo.wanted = request
                watch = asyncio.create_task(forget_when_gone(photo, request))
                try:
                    async with self.turns[by]:
                        image = await run_in_threadpool(self.make, photo, request, box, size)
                finally:
                    watch.cancel()
            return Response(await run_in_threadpool(png, image), media_type='image/png', headers=HEADERS)
        except UserError as error:
            return refusal(str(error))
        except Stale:
            return refusal('another view has been requested in the meantime', 409)

    def make(self, photo: Photo, request: Request, box: tuple, size: tuple) -> Image.Image:
        """A view made by the model; raises Stale if the visitor requests another one, or goes, before it is done."""
        result = photo.encoded.blank(size)
        if photo.wanted is not request:
            raise Stale
        for top, left, block in photo.encoded.blocks(box, size):
            if photo.wanted is not request:
                raise Stale
            result.paste(block, (left, top))
        return flat(result)


async def forget_when_gone(photo: Photo, request: Request) -> None:
    """Waits until the visitor who sent `request` has closed the connection; then the view is not wanted any more."""
    while (await request.receive())['type'] != 'http.disconnect':
        pass
    if photo.wanted is request:
        photo.wanted = None


async def received(request: Request, path: Path) -> bool:
    """Writes the body of `request` to the file `path`; False, and only a part of it, if it is over the limit."""
    size = 0
    with open(path, 'wb') as file:
        async for chunk in request.stream():
            size += len(chunk)
            if size > FILE_BYTES:
                return False
            file.write(chunk)
    return True


def read_photo(path: Path) -> Image.Image | Deep:
    """The photo in the file `path`; UserError, before anything is decoded, if it has too many pixels."""
    if (pixels := math.prod(image_size(path))) > PIXELS:
        raise UserError(f'the photo has {pixels / 1e6:.1f} million pixels, and this page opens up to '
                        f'{PIXELS / 1e6:.0f} million')
    return read(path)


def asked_for(request: Request, photo: Photo) -> tuple[str, tuple, tuple]:
    """What a request for a view asks for: 'model' or 'bicubic', box, and size (H, W); UserError if it is invalid."""
    by = request.query_params.get('by', 'model')
    if by not in ('model', 'bicubic'):
        raise UserError("by must be 'model' or 'bicubic'")
    try:
        box = tuple(float(x) for x in request.query_params['box'].split(','))
        width, height = (int(n) for n in request.query_params['size'].split(','))
        left, top, right, bottom = box
    except (KeyError, ValueError):
        raise UserError('a view needs box=left,top,right,bottom and size=width,height') from None
    if width * height > VIEW_PIXELS or max(width, height) > VIEW_SIDE:
        raise UserError(f'a view may have up to {VIEW_PIXELS / 1e6:.0f} million pixels, and {VIEW_SIDE} a side')
    check_box(box, (height, width), photo.size[::-1])
    if width * (bottom - top) > STRETCHED:
        raise UserError(f'{width} pixels are too wide for a view of {bottom - top:g} rows of the photo')
    if by == 'model' and (right - left > 2 * width or bottom - top > 2 * height):  # much to encode, most of it unseen
        raise UserError('the model makes no views at less than half the size of the photo')
    return by, box, (height, width)


def interpolated(photo: Photo, box: tuple, size: tuple) -> Image.Image:
    """A view by bicubic interpolation, which antialiases when it shrinks."""
    return flat(photo.eight_bits, size[::-1], box=box)


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
    return FileResponse(path, headers=HEADERS) if path else refusal('no such example', 404)
