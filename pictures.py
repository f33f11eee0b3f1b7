"""Pictures as people have them: of any mode and format, with EXIF data and ICC profiles.

As tensors, in files, and side by side on sheets.
"""

import contextlib
import functools
import math
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFilter, ImageFont, ImageOps
from tqdm import tqdm

from datasets.image_folder import reading
from utils import UserError, atomic_write, located

# --- modes and tensors -----------------------------------------------------------------------------------------------


def metadata(info: dict, mode: str) -> dict:
    """What of a picture's `info` goes into its file if it has `mode`: EXIF, and an ICC profile of its colour space."""
    space = b'RGB ' if mode.startswith('RGB') else b'GRAY'
    return {k: info[k] for k in ('exif', 'icc_profile')
            if info.get(k) and (k == 'exif' or info[k][16:20] == space)}


def upright(image: Image.Image) -> Image.Image:
    """`image` turned as its EXIF orientation asks; EXIF data that cannot be read are left out."""
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # of damaged data: SyntaxError, ValueError, struct.error, ...
        image = image.copy()
        image.info.pop('exif', None)
        return image


def plain(image: Image.Image) -> Image.Image:
    """A picture of any mode as L, LA, RGB, RGBA or 16-bit grey (I;16), turned as its EXIF orientation asks."""
    image = upright(image)
    if image.mode.startswith('I'):  # a PGM of 16 bits is opened as I, which has 32
        grey = np.asarray(image)
        if grey.min() < 0 or grey.max() > 65535:
            raise UserError('grey of more than 16 bits is not supported: convert the image to 16 or 8')
        result = Image.fromarray(grey.astype(np.uint16))
    elif image.mode in ('F', 'LAB'):
        raise UserError(f'pixels of mode {image.mode} are not supported: convert the image to grey or RGB of 8 bits')
    else:
        grey = image.mode in ('1', 'L', 'LA', 'La')
        result = image.convert(('L' if grey else 'RGB') + ('A' if image.has_transparency_data else ''))
    result.info = metadata(image.info, result.mode)
    return result


def to_tensor(image: Image.Image) -> torch.Tensor:
    """The colours (3, h, w) of a `plain` picture: uint8, or float in [0, 1] if it has 16 bits; alpha is left out."""
    if image.mode == 'I;16':
        return torch.from_numpy(np.asarray(image, dtype=np.float32) / 65535).expand(3, -1, -1)
    return torch.from_numpy(np.array(image.convert('RGB'))).permute(2, 0, 1)


def fill_hidden(image: Image.Image) -> Image.Image:
    """A `plain` picture whose pixels of alpha 0 have the colours of visible ones near them.

    What is there unseen, often black, would else reach into the visible edge.
    """
    image = image.convert('RGBA')
    near = image.convert('RGBa').filter(ImageFilter.BoxBlur(4)).convert('RGBA')
    return Image.composite(image, near, image.getchannel('A').point(lambda alpha: 255 * (alpha > 0)))


def to_picture(colours: torch.Tensor, mode: str) -> Image.Image:
    """Colours (3, h, w) in [0, 1], rounded, as a picture of `mode`, without its alpha."""
    top, dtype = (65535, np.uint16) if mode == 'I;16' else (255, np.uint8)
    colours = colours.permute(1, 2, 0) if mode.startswith('RGB') else colours.mean(dim=0)
    return Image.fromarray((colours * top).round().cpu().numpy().astype(dtype))


def as_mode(image: Image.Image, mode: str) -> Image.Image:
    """A `plain` picture in `mode`, one of 8 bits or its own."""
    if image.mode == 'I;16' and mode != 'I;16':  # Pillow clips instead of scaling
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
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
}
NEAREST_MODES = {'L': ('L', 'RGB'), 'LA': ('LA', 'RGBA', 'L'), 'RGB': ('RGB',), 'RGBA': ('RGBA', 'RGB'),
                 'I;16': ('I;16', 'L', 'RGB')}


@functools.cache  # once a run, not for each picture of a folder
def note(text: str) -> None:
    tqdm.write(f'note: {text}')


def format_name(path: Path) -> str:
    """The name in FORMATS of the format that the suffix of `path` stands for."""
    name = Image.registered_extensions().get(path.suffix.lower())
    if name not in FORMATS:
        raise UserError(f'{path}: the format is unknown or only read (known: .bmp, .jpg, .png, .tif, .webp)')
    return name


def read(path: str | Path) -> Image.Image:
    """The picture in the file `path`, as `plain` makes it."""
    with reading(path), Image.open(path) as image:
        if not image.mode.startswith('I') and any(';16' in str(tile[3]) for tile in image.tile):
            note('colour of 16 bits is read and written as 8 bits (Pillow has no mode for it)')
        if getattr(image, 'n_frames', 1) > 1:
            note('of several frames or pages the first one is read')
        image.load()
    with located(path):
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


def check_fits(path: Path, size: tuple, mode: str) -> None:
    """Raises a UserError if a `plain` picture of `size` (H, W) is too large for its format, the disk or the memory."""
    name, (height, width) = format_name(path), size
    fmt, written = FORMATS[name], written_mode(name, mode)
    if max(size) > fmt.side:
        raise UserError(f'{path}: {name} holds up to {fmt.side} pixels a side, not {height}x{width}; choose .png')
    stored = height * width * (2 if written == 'I;16' else len(written))
    if stored > fmt.bytes:
        raise UserError(f'{path}: {name} holds up to {fmt.bytes / 1e9:.1f} GB, not {height}x{width}; choose .png')
    held = height * width * {'L': 1, 'I;16': 2}.get(mode, 4)  # in Pillow
    memory = os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') if hasattr(os, 'sysconf') else math.inf
    for need, limit, what in ((stored, shutil.disk_usage(path.parent).free, 'are free on the disk'),
                              (held, memory, 'is the memory here')):
        if need > limit:
            raise UserError(f'{path}: {height}x{width} pixels take up to {need / 1e9:.1f} GB, but {limit / 1e9:.1f} GB '
                            f'{what}; choose a smaller size')


def save(image: Image.Image, path: Path) -> None:
    """Writes a `plain` picture to `path`, with its EXIF data and ICC profile, in the nearest mode the format has."""
    name = format_name(path)
    mode = written_mode(name, image.mode)
    if image.mode == 'I;16' and mode != 'I;16':
        note(f'{name} holds no 16 bits: grey is written with 8 (PNG and TIFF hold them)')
    if image.mode.endswith('A') and not mode.endswith('A'):
        note(f'{name} holds no alpha: it is left out (PNG, TIFF and WebP hold it)')
    kept = metadata(image.info, mode)
    if name == 'JPEG' and len(kept.get('exif', b'')) > 65000:
        note('JPEG holds 64 KB of EXIF data: more is left out (PNG, TIFF and WebP hold it)')
        kept.pop('exif')
    with writing_errors(path), atomic_write(path) as file:
        as_mode(image, mode).save(file, name, **FORMATS[name].options, **kept)


# --- sheets ----------------------------------------------------------------------------------------------------------


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
