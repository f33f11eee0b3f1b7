"""Image files: which ones are opened, with what safeguards, and how they are read as 8-bit RGB.

All image files of this project are opened here, for datasets, demos and scripts. The only exception is
`datasets.arrays`, which opens TIFFs and NumPy arrays itself if a dataset asks for something other than 8-bit RGB.
"""

import contextlib
import ctypes
import logging
import math
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, PngImagePlugin, UnidentifiedImageError

from errors import UserError, one_line
from files import free_memory

try:
    import pillow_heif
    pillow_heif.register_heif_opener()
except ImportError:
    pillow_heif = None

Image.init()
# Pixel formats only: none that runs a program (EPS would start Ghostscript) or needs one. TGA, without a signature,
# is the last to be tried. Not ICO, which Pillow decodes while it opens it, whatever its size.
FORMATS = [name for name in (
    'PNG', 'JPEG', 'WEBP', 'TIFF', 'AVIF', 'HEIF', 'GIF', 'BMP', 'DIB', 'PPM', 'JPEG2000', 'QOI', 'PSD', 'SGI', 'SUN',
    'PCX', 'DDS', 'TGA') if name in Image.OPEN]
SUFFIXES = {suffix for suffix, name in Image.registered_extensions().items()
            if name in FORMATS or name == 'MPO'}  # MPO is opened as JPEG

# Pillow's own limits are meant for servers and refuse good pictures; `opened` checks what this machine can hold.
Image.MAX_IMAGE_PIXELS = None
PngImagePlugin.MAX_TEXT_CHUNK = 2**26  # bytes; applies to ICC profiles, too
PngImagePlugin.MAX_TEXT_MEMORY = 2**28
# Silent: a damaged file either can be read all the same, or is reported in one line.
warnings.filterwarnings('ignore', module=r'PIL\.')
logging.getLogger('PIL').addHandler(logging.NullHandler())
with contextlib.suppress(AttributeError, OSError):  # libtiff writes to stderr itself
    ctypes.CDLL(Image.core.__file__).TIFFSetErrorHandler(None)

BITS_PER_SAMPLE, PHOTOMETRIC = 0x0102, 0x0106  # tags of TIFF
PIXEL_BYTES = 8  # memory per pixel while an image is read: decoded, and converted to RGB

RAW = {'.3fr', '.arw', '.cr2', '.cr3', '.dng', '.erf', '.iiq', '.kdc', '.mef', '.mos', '.mrw', '.nef', '.nrw', '.orf',
       '.pef', '.raf', '.raw', '.rw2', '.rwl', '.sr2', '.srf', '.srw', '.x3f'}
VECTORS = {'.ai', '.emf', '.eps', '.pdf', '.ps', '.svg', '.svgz', '.wmf'}
VIDEOS = {'.mp4', '.m4v', '.mov', '.mkv', '.webm', '.avi', '.mpg', '.mpeg', '.wmv'}
HEIF = {'.heic', '.heics', '.heif', '.heifs', '.hif'}


def why_not(path: Path) -> str | None:
    """Why `path`, judging by its suffix, is not an image that can be opened; None if it may be one."""
    suffix = path.suffix.lower()
    if suffix in RAW:  # many are also TIFFs, of which only the preview would be opened
        return 'RAW: export it as TIFF or PNG'
    if suffix in VECTORS:
        return 'no pixels: export it as PNG'
    if suffix in VIDEOS:
        return 'a video; demo.py takes one by itself'
    if suffix in HEIF and pillow_heif is None:
        return 'HEIF: pip install pillow-heif, or export it as JPEG'
    return None


@contextlib.contextmanager
def reading(path: str | Path) -> Iterator[None]:
    """Turns any exception raised inside into a UserError that names the image `path`."""
    try:
        yield
    except UserError as error:
        raise UserError(f'{path}: {error}') from None
    except MemoryError:
        raise
    except Exception as error:  # decoders raise almost anything: OSError, SyntaxError, ValueError, struct.error, ...
        reason = one_line(error)
        if isinstance(error, UnidentifiedImageError):
            reason = f'its content is none of {", ".join(sorted(FORMATS))}'
            if is_tiff(path):
                reason = 'a TIFF of a kind that is not read, such as with 24, 32 or 64 bits or unusual channels'
        raise UserError(f'{path}: cannot be read as an image ({reason}); replace or remove it') from None


def is_tiff(path: str | Path) -> bool:
    """Whether the file `path` begins as a TIFF does."""
    with open(path, 'rb') as file:
        return file.read(4) in (b'II*\0', b'MM\0*', b'II+\0', b'MM\0+')


@contextlib.contextmanager
def opened(path: str | Path) -> Iterator[Image.Image]:
    """The image file at `path` as opened by Pillow: its header is read, but nothing is decoded.

    Raises UserError for files that are not opened or too large for the memory, and for any exception raised inside.
    """
    with reading(path), header(path) as image:
        yield image


@contextlib.contextmanager
def header(path: str | Path) -> Iterator[Image.Image]:
    """Like `opened`, for use inside `reading`: errors do not name the file."""
    if reason := why_not(Path(path)):
        raise UserError(f'is not opened ({reason})')
    with Image.open(path, formats=FORMATS) as image:
        check_need(f'{image.width}x{image.height} pixels', PIXEL_BYTES * math.prod(image.size))
        yield image


def check_need(what: str, need: int) -> None:
    """Raises a UserError if reading `what` takes more memory, `need` bytes, than is free."""
    if need > (free := free_memory()):
        raise UserError(f'{what} take {need / 1e9:.1f} GB to read, but {free / 1e9:.1f} GB of memory are free')


def read_image(path: str | Path) -> np.ndarray:
    """The image file at `path` as 8-bit RGB, uint8 (H, W, 3). Alpha is dropped.

    16-bit grey is rounded to 8 bits; of 16-bit colour only the high byte is kept, because Pillow returns no more.
    """
    with opened(path) as image:
        if image.mode[0] in 'IF':
            return np.repeat(to_8_bits(grey_16_bits(image))[..., None], 3, axis=2)
        return np.asarray(image if image.mode == 'RGB' else image.convert('RGB'))


def grey_16_bits(image: Image.Image) -> np.ndarray:
    """An image of a mode that begins with I or F as uint16 (H, W); UserError if its values do not fit 16 bits."""
    if image.mode == 'F':
        raise UserError('pixels of mode F (float32) are read in data sets only, with channels: grey or all; convert '
                        'the image to 8 or 16 bits')
    tags = getattr(image, 'tag_v2', {})
    grey = np.asarray(image)  # Pillow opens a 16-bit PGM in mode I, which has 32 bits
    if grey.min() < 0 or grey.max() > 65535:
        raise UserError('grey of more than 16 bits is not supported: convert the image to 16 or 8')
    bits = tags.get(BITS_PER_SAMPLE, (16,))[0]
    if 8 < bits < 16:  # which Pillow does not scale
        grey = (grey * (65535 / (2**bits - 1))).round()
    grey = grey.astype(np.uint16)
    return 65535 - grey if tags.get(PHOTOMETRIC) == 0 else grey  # 0 is white: Pillow heeds it up to 8 bits


def to_8_bits(grey: np.ndarray) -> np.ndarray:
    """uint16 values, of any shape, rounded to uint8."""
    return ((grey.astype(np.uint32) + 128) // 257).astype(np.uint8)


def image_size(path: str | Path) -> tuple[int, int]:
    """(H, W) of the image file at `path`, from its header."""
    with opened(path) as image:
        return image.height, image.width
