"""Pictures of any mode as the few modes that are worked on, and as tensors."""

import functools

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from datasets.image_file import grey_16_bits, to_8_bits
from pictures.metadata import TURNS, collect, without_foreign_profile
from pictures.transparency import filled
from utils import UserError


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
