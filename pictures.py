"""Pictures as people have them: of any mode and format, with EXIF data and ICC profiles.

As tensors, in files, and side by side on sheets.
"""

import contextlib
import functools
import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from tqdm import tqdm

from datasets.image_file import grey_16_bits, opened, to_8_bits
from files import atomic_write, free_memory
from metadata import TURNS, collect, save_options, without_foreign_profile
from transparency import checkerboard, filled
from utils import UserError

# --- modes and tensors -----------------------------------------------------------------------------------------------


@functools.cache  # once a run, not for each picture of a folder
def note(text: str) -> None:
    tqdm.write(f'note: {text}')


def stored_mode(image: Image.Image) -> str:
    """The mode that the pixels of `image` have in its file, such as 'RGB;16B'; '' once they are decoded."""
    tiles = getattr(image, 'tile', ())
    return str(tiles[0][3]) if tiles else ''


def rescale_transparent_colour(image: Image.Image) -> None:
    """Gives the transparent colour of `image`, not yet decoded, 8 bits: in PNGs it has as many as their pixels."""
    colour, stored = image.info.get('transparency'), stored_mode(image)
    if isinstance(colour, tuple) and ';16' in stored:
        image.info['transparency'] = tuple(value >> 8 for value in colour)
    elif isinstance(colour, int):
        image.info['transparency'] = colour * {'L;2': 85, 'L;4': 17}.get(stored, 1)


def plain(image: Image.Image) -> Image.Image:
    """A picture of any mode as L, LA, RGB, RGBA or 16-bit grey (I;16), turned as its EXIF orientation asks."""
    if not image.mode.startswith('I') and ';16' in stored_mode(image):
        note('colour of 16 bits is read and written as 8 bits (Pillow has no mode for it)')
    rescale_transparent_colour(image)
    orientation, info = collect(image)
    if image.mode[0] in 'IF':
        result = plain_16_bits(image)
    elif image.mode == 'LAB':
        raise UserError('pixels of mode LAB are not supported: convert the image to RGB')
    else:
        grey = image.mode in ('1', 'L', 'LA', 'La')
        result = image.convert(('L' if grey else 'RGB') + ('A' if image.has_transparency_data else ''))
    if orientation in TURNS:
        result = result.transpose(TURNS[orientation])
    result.info = without_foreign_profile(info, result.mode)
    return result


def plain_16_bits(image: Image.Image) -> Image.Image:
    """Grey of 16 bits, of any mode that Pillow has for it, as I;16, or LA where one value is transparent."""
    grey, transparent = grey_16_bits(image), image.info.get('transparency')
    if transparent is None:
        return Image.fromarray(grey)
    note('grey of 16 bits with a transparent value is read and written as 8 bits (Pillow has no mode for it)')
    result = Image.fromarray(to_8_bits(grey))
    result.putalpha(Image.fromarray(np.where(grey == transparent, 0, 255).astype(np.uint8)))
    return result


def to_tensor(image: Image.Image) -> torch.Tensor:
    """The colours (3, h, w) of a `plain` picture without alpha: uint8, or float in [0, 1] if it has 16 bits."""
    if image.mode == 'I;16':
        return torch.from_numpy(np.asarray(image, dtype=np.float32) / 65535).expand(3, -1, -1)
    return torch.from_numpy(np.array(image.convert('RGB'))).permute(2, 0, 1)


def model_colours(image: Image.Image) -> Image.Image:
    """What a model is to see of a `plain` picture: itself, or without alpha, and no colours that are invisible."""
    return filled(image.convert('RGBA')) if 'A' in image.getbands() else image


def to_picture(colours: torch.Tensor, mode: str) -> Image.Image:
    """Colours (3, h, w) in [0, 1], rounded, as a picture of `mode`, without its alpha."""
    top, dtype = (65535, np.uint16) if mode == 'I;16' else (255, np.uint8)
    colours = colours.permute(1, 2, 0) if mode.startswith('RGB') else colours.mean(dim=0)
    return Image.fromarray((colours * top).round().cpu().numpy().astype(dtype))


def as_mode(image: Image.Image, mode: str) -> Image.Image:
    """A `plain` picture in `mode`, one of 8 bits or its own."""
    if image.mode == 'I;16' and mode != 'I;16':  # Pillow clips instead of scaling
        image = Image.fromarray(to_8_bits(np.asarray(image)))
    return image if image.mode == mode else image.convert(mode)


# --- files -----------------------------------------------------------------------------------------------------------


class Format(NamedTuple):
    """What a file format holds: modes, pixels along a side, bytes; and the options to write it with."""

    modes: tuple
    side: int = 2**31 - 1
    bytes: int = 2**63
    options: dict = {}


FORMATS = {
    'PNG': Format(('L', 'LA', 'RGB', 'RGBA', 'I;16')),
    'TIFF': Format(('L', 'LA', 'RGB', 'RGBA', 'I;16'), bytes=2**32 - 2**16),
    'BMP': Format(('L', 'RGB'), bytes=2**32 - 2**16),
    'JPEG': Format(('L', 'RGB'), 65500, options={'quality': 95, 'subsampling': 0}),
    'WEBP': Format(('RGB', 'RGBA'), 16383, options={'quality': 95}),
    'AVIF': Format(('RGB', 'RGBA'), 16384, options={'quality': 90, 'subsampling': '4:4:4'}),  # libavif reads no larger
}
NEAREST_MODES = {'L': ('L', 'RGB'), 'LA': ('LA', 'RGBA', 'L'), 'RGB': ('RGB',), 'RGBA': ('RGBA', 'RGB'),
                 'I;16': ('I;16', 'L', 'RGB')}


def written_suffixes() -> set[str]:
    """The suffixes of the formats that can be written."""
    return {suffix for suffix, name in Image.registered_extensions().items() if name in FORMATS}


def format_name(path: Path) -> str:
    """The name in FORMATS of the format that the suffix of `path` stands for."""
    name = Image.registered_extensions().get(path.suffix.lower())
    if name not in FORMATS:
        raise UserError(f'{path}: the format is unknown or only read (known: .bmp, .jpg, .png, .tif, .webp, .avif)')
    return name


def read(path: str | Path) -> Image.Image:
    """The picture in the file `path`, as `plain` makes it."""
    with opened(path) as image:
        if getattr(image, 'is_animated', False):
            note('of several frames or pages the first one is read')
        return plain(image)


@contextlib.contextmanager
def writing_errors(path: str | Path) -> Iterator[None]:
    """Turns what goes wrong inside into a UserError that names `path`."""
    try:
        yield
    except (OSError, ValueError) as error:  # Pillow's encoders raise both
        raise UserError(f'{path}: cannot be written ({getattr(error, "strerror", None) or error})') from None


def written_mode(name: str, mode: str) -> str:
    """The mode in which the format `name` takes a `plain` picture of `mode`."""
    return next(m for m in NEAREST_MODES[mode] if m in FORMATS[name].modes)


def check_room(path: Path, pixels: int, mode: str) -> None:
    """Raises a UserError if a `plain` picture of so many pixels is too large for the memory, or for the disk."""
    written = written_mode(format_name(path), mode)
    stored = pixels * (2 if written == 'I;16' else len(written))
    held = pixels * {'L': 1, 'I;16': 2}.get(mode, 4)  # in Pillow
    folder = next(folder for folder in path.absolute().parents if folder.exists())
    for need, limit, what in ((stored, shutil.disk_usage(folder).free, 'are free on the disk'),
                              (held, free_memory(), 'of memory are free')):
        if need > limit:
            raise UserError(f'{path}: {pixels / 1e6:,.0f} million pixels take up to {need / 1e9:.1f} GB, but '
                            f'{limit / 1e9:.1f} GB {what}; choose a smaller size')


def check_fits(path: Path, size: tuple, mode: str) -> None:
    """Raises a UserError if a `plain` picture of `size` (H, W) is too large for its format, the disk or the memory."""
    name, (height, width) = format_name(path), size
    fmt, written = FORMATS[name], written_mode(name, mode)
    if max(size) > fmt.side:
        raise UserError(f'{path}: {name} holds up to {fmt.side} pixels a side, not {height}x{width}; choose .png')
    if height * width * (2 if written == 'I;16' else len(written)) > fmt.bytes:
        raise UserError(f'{path}: {name} holds up to {fmt.bytes / 1e9:.1f} GB, not {height}x{width}; choose .png')
    check_room(path, height * width, mode)


def save(image: Image.Image, path: Path) -> None:
    """Writes a `plain` picture to `path`, with its EXIF data and ICC profile, in the nearest mode the format has."""
    name = format_name(path)
    mode = written_mode(name, image.mode)
    if image.mode == 'I;16' and mode != 'I;16':
        note(f'{name} holds no 16 bits: grey is written with 8 (PNG and TIFF hold them)')
    if image.mode.endswith('A') and not mode.endswith('A'):
        note(f'{name} holds no alpha: it is left out (PNG, TIFF, WebP and AVIF hold it)')
    kept = save_options(image.info, name, mode)
    if name == 'JPEG' and len(kept.get('exif', b'')) > 65000:
        note('JPEG holds 64 KB of EXIF data: more is left out (PNG, TIFF, WebP and AVIF hold it)')
        kept.pop('exif')
    with writing_errors(path), atomic_write(path) as file:
        as_mode(image, mode).save(file, name, **FORMATS[name].options, **kept)


# --- to look at ------------------------------------------------------------------------------------------------------


def shown(image: Image.Image, size: tuple | None = None, resample: int = Image.BICUBIC,
          box: tuple | None = None) -> Image.Image:
    """The part `box` (left, top, right, bottom) of a `plain` picture at `size` (W, H), as RGB.

    Transparency is shown by a checkerboard behind it. Without `size` or `box` those of the picture.
    """
    image = as_mode(image, 'RGBA' if 'A' in image.getbands() else 'RGB').resize(size or image.size, resample, box)
    return Image.composite(image.convert('RGB'), checkerboard(image.size), image.getchannel('A')) \
        if image.mode == 'RGBA' else image


def sheet(panels: list[tuple], columns: int, below: bool = False) -> Image.Image:
    """A picture of `panels`, (caption, colour of the caption, picture) each, of one size, from left to right.

    Captions stand above their pictures, or `below`.
    """
    (width, height), bar, gap = panels[0][2].size, 28, 8
    rows = math.ceil(len(panels) / columns)
    result = Image.new('RGB', (columns * (width + gap) - gap, rows * (height + bar + gap) - gap), 'white')
    draw, font = ImageDraw.Draw(result), ImageFont.load_default(18)
    for i, (caption, colour, panel) in enumerate(panels):
        left, top = i % columns * (width + gap), i // columns * (height + bar + gap)
        draw.text((left + 4, top + 2 + below * height), caption, colour, font)
        result.paste(panel, (left, top + (not below) * bar))
    return result
