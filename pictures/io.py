"""Reading and writing picture files: what each format can hold, and what is lost in it."""

import shutil
from pathlib import Path
from typing import BinaryIO, NamedTuple

from PIL import Image

from datasets.image_file import opened
from errors import UserError, size_text
from files import atomic_write, free_memory, writing
from pictures.deep import Deep, write_png, write_tiff
from pictures.metadata import save_options
from pictures.modes import as_mode, cut_out, in_srgb, on_white, plain
from utils import note


class Format(NamedTuple):
    """What a file format can hold (modes, pixels per side, bytes), and the options with which it is written."""

    modes: tuple
    side: int = 2**31 - 1
    most_bytes: int = 2**63
    options: dict = {}


SIXTEEN = 'I;16', *Deep.MODES.values()
JPEG_EXIF = 65533  # the most bytes of EXIF data that a JPEG holds
SRGB_ONLY = 'GIF', 'BMP'  # formats without an ICC profile
FORMATS = {
    'PNG': Format(('L', 'LA', 'RGB', 'RGBA', *SIXTEEN)),
    'TIFF': Format(('L', 'LA', 'RGB', 'RGBA', 'I;16', 'RGB;16', 'RGBA;16'), most_bytes=2**32 - 2**16),
    'BMP': Format(('L', 'RGB'), most_bytes=2**32 - 2**16),
    'GIF': Format(('L', 'RGB', 'RGBA'), 65535),
    'JPEG': Format(('L', 'RGB'), 65500, options={'quality': 95, 'subsampling': 0}),
    'WEBP': Format(('RGB', 'RGBA'), 16383, options={'quality': 95}),
    'AVIF': Format(('RGB', 'RGBA'), 16384, options={'quality': 90, 'subsampling': '4:4:4'}),  # libavif's limit
}
NEAREST_MODES = {'L': ('L', 'RGB'), 'LA': ('LA', 'RGBA', 'L'), 'RGB': ('RGB',), 'RGBA': ('RGBA', 'RGB'),
                 'I;16': ('I;16', 'L', 'RGB'), 'LA;16': ('LA;16', 'RGBA;16', 'LA', 'RGBA', 'L'),
                 'RGB;16': ('RGB;16', 'RGB'), 'RGBA;16': ('RGBA;16', 'RGBA', 'RGB')}


def written_suffixes() -> set[str]:
    """The suffixes of all formats that can be written."""
    return {suffix for suffix, name in Image.registered_extensions().items() if name in FORMATS}


def format_name(path: Path) -> str:
    """The name in FORMATS of the format to which the suffix of `path` belongs."""
    name = Image.registered_extensions().get(path.suffix.lower())
    if name not in FORMATS:
        raise UserError(f'{path}: this format cannot be written (known: .bmp, .gif, .jpg, .png, .tif, .webp, .avif)')
    return name


def read(path: str | Path) -> Image.Image | Deep:
    """The picture in the file `path`, as returned by `plain`."""
    with opened(path) as image:
        return plain(image)


def written_mode(name: str, mode: str) -> str:
    """The mode in which a `plain` picture of `mode` is written in the format `name`."""
    return next(m for m in NEAREST_MODES[mode] if m in FORMATS[name].modes)


def pixel_bytes(mode: str) -> int:
    """Bytes per pixel of a `plain` picture of `mode` in an uncompressed file."""
    return len(mode.removesuffix(';16')) * (2 if ';16' in mode else 1)


def check_room(path: Path, pixels: int, mode: str, extra: int = 0) -> None:
    """Raises a UserError if a `plain` picture with this number of pixels is too large for the memory or the disk.

    `extra`: bytes per pixel that are needed in memory besides the picture's own.
    """
    written = written_mode(format_name(path), mode)
    stored = pixels * pixel_bytes(written)
    folder = next(folder for folder in path.absolute().parents if folder.exists())
    check_need(path, stored, shutil.disk_usage(folder).free, 'are free on the disk')
    check_memory(path, pixels, (pixel_bytes(mode) if mode in ('L', *SIXTEEN) else 4) + extra)  # as Pillow stores it


def check_memory(path: Path, pixels: int, held: int) -> None:
    """Raises a UserError if this number of `pixels`, of `held` bytes each, needs more memory than is free."""
    check_need(path, pixels * held, free_memory(), 'of memory are free')


def check_need(path: Path, need: int, limit: float, what: str) -> None:
    if need > limit:
        raise UserError(f'{path}: takes up to {bytes_text(need)}, but {bytes_text(limit)} {what}; choose a smaller '
                        'size')


def bytes_text(count: float) -> str:
    """A number of bytes as text: 1.5 GB, 20.0 MB or 4.1 kB."""
    for unit, size in ('GB', 1e9), ('MB', 1e6):
        if count >= size:
            return f'{count / size:,.1f} {unit}'
    return f'{count / 1e3:,.1f} kB'


def check_fits(path: Path, size: tuple, mode: str) -> None:
    """Raises a UserError if a `plain` picture of `size` (H, W) is too large for its format, the disk or the memory."""
    name, (height, width) = format_name(path), size
    fmt, written = FORMATS[name], written_mode(name, mode)
    if max(size) > fmt.side:
        raise UserError(f'{path}: {name} holds up to {fmt.side} pixels a side, not {size_text(size)}; choose .png')
    if height * width * pixel_bytes(written) > fmt.most_bytes:
        raise UserError(f'{path}: {name} holds up to {bytes_text(fmt.most_bytes)}, not {size_text(size)}; choose .png')
    check_room(path, height * width, mode)


def tell_losses(image: Image.Image | Deep, name: str, mode: str) -> None:
    """Prints notes on what a `plain` picture loses when it is written in the format `name` and in `mode`."""
    if name == 'GIF' and image.mode.startswith('RGB'):
        note('GIF holds only 256 colours: WebP and PNG hold them all (--output NAME.webp)')
    if ';16' in image.mode and ';16' not in mode:
        note(f'{name} is written with 8 of the 16 bits per channel (PNG and TIFF hold 16, an animated PNG only 8)')
    if 'A' not in image.getbands():
        return
    if 'A' not in mode:
        note(f'{name} cannot hold alpha: the background becomes white (PNG, TIFF, WebP and AVIF hold alpha)')
    elif name == 'GIF' and any(as_mode(image, 'RGBA').getchannel('A').histogram()[1:255]):
        note('GIF holds no half-transparent pixels: they become opaque, or invisible if alpha is below half (PNG, '
             'TIFF, WebP and AVIF hold them)')


def save(image: Image.Image | Deep, path: Path) -> None:
    """Writes a `plain` picture to `path`, with its EXIF data and ICC profile, in the nearest mode of the format."""
    name = format_name(path)
    mode = written_mode(name, image.mode)
    tell_losses(image, name, mode)
    kept = save_options(image.info, name, mode)
    if name == 'JPEG' and len(kept.get('exif', b'')) > JPEG_EXIF:
        note('JPEG holds only 64 KB of EXIF data: it is left out (PNG, TIFF, WebP and AVIF hold more)')
        kept.pop('exif')
    with writing(path, ValueError), atomic_write(path) as file:  # Pillow's encoders raise it or OSError
        write(image, file, name, kept)


def prepared(image: Image.Image | Deep, name: str, mode: str) -> Image.Image | Deep:
    """A `plain` picture in `mode`, ready to be written in the format `name`.

    It is converted to sRGB if the format holds no ICC profile, and put on white if `mode` has no alpha. For GIF, alpha
    becomes a transparent colour of a palette.
    """
    colours, alpha = 'RGB' if image.mode.startswith('RGB') else 'L', 'A' * ('A' in image.getbands())
    if name in SRGB_ONLY:
        image = in_srgb(as_mode(image, colours + alpha))
    if alpha and 'A' not in mode:
        image = on_white(as_mode(image, colours + alpha))
    image = as_mode(image, mode)
    return cut_out(image) if (name, mode) == ('GIF', 'RGBA') else image


def write(image: Image.Image | Deep, file: BinaryIO, name: str, kept: dict) -> None:
    """Writes a `plain` picture to `file` in the format `name`, with the options `kept` from `save_options`."""
    mode = written_mode(name, image.mode)
    image = prepared(image, name, mode)
    if isinstance(image, Deep):
        {'PNG': write_png, 'TIFF': write_tiff}[name](image, file, kept)
    else:
        image.save(file, name, **FORMATS[name].options, **kept)
