"""Converts pictures of any mode to the few modes used here, and to tensors."""

import io

import numpy as np
import torch
from PIL import Image, ImageCms

from datasets.deep_colour import deep_pixels, has_deep_colour, stored_mode, with_transparent
from datasets.image_file import grey_16_bits, to_8_bits
from errors import UserError
from pictures.deep import Deep
from pictures.metadata import ORIENTATION, TURNS, collect, without_foreign_profile
from pictures.transparency import filled
from utils import note


def rescale_transparent_colour(image: Image.Image) -> None:
    """Converts the transparent colour of `image`, not yet decoded, to 8 bits: PNGs store it with the pixels' depth."""
    colour, stored = image.info.get('transparency'), stored_mode(image)
    if isinstance(colour, tuple) and ';16' in stored:
        image.info['transparency'] = tuple(value >> 8 for value in colour)
    elif isinstance(colour, int):
        image.info['transparency'] = colour * {'L;2': 85, 'L;4': 17}.get(stored, 1)


def tga_alpha_bits(image: Image.Image) -> int:
    """How many bits of alpha the pixels of `image`, a TGA that is not yet decoded, have; Pillow always reads 8."""
    position = image.fp.tell()
    try:
        image.fp.seek(17)
        return image.fp.read(1)[0] & 15
    finally:
        image.fp.seek(position)


def plain(image: Image.Image) -> Image.Image | Deep:
    """A picture of any mode as L, LA, RGB, RGBA, 16-bit grey (I;16) or `Deep`, turned as its EXIF orientation says."""
    if isinstance(image, Deep):
        return image
    deep = None
    turned = getattr(image, 'tag_v2', {}).get(ORIENTATION)  # Pillow turns a TIFF when it decodes it
    if has_deep_colour(image):
        deep = deep_pixels(image)
        if deep is None:
            note(f'16-bit colour of this {image.format} is read as 8 bits (PNG, TIFF and binary PPM are read with 16, '
                 'TIFF of some compressions where imagecodecs is installed)')
    rescale_transparent_colour(image)
    opaque = image.format == 'TGA' and bool(stored_mode(image)) and not tga_alpha_bits(image)
    orientation, info = collect(image)
    if deep is not None:
        result, orientation = Deep(deep), turned or orientation
    elif image.mode[0] in 'IF':
        result = plain_16_bits(image)
    elif image.mode == 'LAB':
        raise UserError('pixels of mode LAB are not supported: convert the image to RGB')
    else:
        grey = image.mode in ('1', 'L', 'LA', 'La')
        alpha = image.has_transparency_data and not opaque
        if image.mode == 'CMYK':
            image = in_srgb(image)
        if image.mode == 'CMYK':
            note('CMYK without a colour profile is converted to RGB roughly: colours may be wrong')
        result = image.convert(('L' if grey else 'RGB') + 'A' * alpha)
    if orientation in TURNS:
        result = result.transpose(TURNS[orientation])
    result.info = without_foreign_profile(info, result.mode)
    return result


def plain_16_bits(image: Image.Image) -> Image.Image | Deep:
    """A 16-bit grey `image`, in any of Pillow's modes for it, as I;16; as `Deep` with alpha if a value is transparent.
    """
    grey, transparent = grey_16_bits(image), image.info.get('transparency')
    return Image.fromarray(grey) if transparent is None else Deep(with_transparent(grey[..., None], transparent))


def blank(mode: str, size: tuple[int, int]) -> Image.Image | Deep:
    """A black picture of `size` (W, H) in `mode`, which is one of the modes that `plain` returns."""
    return Deep.new(mode, size) if mode in Deep.MODES.values() else Image.new(mode, size)


def to_tensor(image: Image.Image | Deep) -> torch.Tensor:
    """The colours (3, h, w) of a `plain` picture without alpha: uint8, or float in [0, 1] if it has 16 bits."""
    pixels = torch.from_numpy(np.array(image, dtype=np.float32) / 65535 if ';16' in image.mode else np.array(image))
    return pixels.expand(3, -1, -1) if pixels.ndim == 2 else pixels.permute(2, 0, 1)


def rgba_pixels(image: Image.Image | Deep) -> np.ndarray:
    """The pixels (h, w, 4) of a `plain` picture with alpha: uint8, or uint16 if it has 16 bits."""
    pixels = np.asarray(image)
    return pixels if pixels.shape[2] == 4 else pixels[..., [0, 0, 0, 1]]


def model_colours(image: Image.Image | Deep) -> Image.Image | Deep:
    """The model's input for a `plain` picture: the picture itself, or its `filled` colours if it has alpha."""
    if 'A' not in image.getbands():
        return image
    colours = filled(rgba_pixels(image))
    return Deep(colours) if colours.dtype == np.uint16 else Image.fromarray(colours)


def resized_alpha(image: Image.Image | Deep, size: tuple[int, int], box: tuple) -> np.ndarray:
    """The alpha (H, W) of the part `box` of a `plain` picture at `size` (W, H), uint8 or uint16; bicubic."""
    if isinstance(image, Deep):  # Pillow's own resizing of 16 bits would round twice
        alpha = Image.fromarray(image.pixels[..., -1].astype(np.float32)).resize(size, Image.BICUBIC, box)
        return np.asarray(alpha).clip(0, 65535).round().astype(np.uint16)
    return np.asarray(image.getchannel('A').resize(size, Image.BICUBIC, box))


def to_picture(colours: torch.Tensor, mode: str, alpha: np.ndarray | None = None) -> Image.Image | Deep:
    """Colours (3, h, w) in [0, 1], rounded, as a picture of `mode`, with `alpha` (h, w) if it is given."""
    top, dtype = (65535, np.uint16) if ';16' in mode else (255, np.uint8)
    colours = colours.permute(1, 2, 0) if mode.startswith('RGB') else colours.mean(dim=0)
    pixels = (colours * top).round().cpu().numpy().astype(dtype)
    pixels = pixels if alpha is None else np.dstack([pixels, alpha])
    return Deep(pixels) if dtype == np.uint16 and pixels.ndim == 3 else Image.fromarray(pixels)


def in_srgb(image: Image.Image) -> Image.Image:
    """An 8-bit `plain` picture converted from its ICC profile to sRGB, for results that do not keep the profile.

    CMYK becomes RGB. Without a valid profile, the picture is returned as it is.
    """
    profile = image.info.get('icc_profile')
    if not profile:
        return image
    grey, as_before = image.mode in ('L', 'LA'), image.mode.startswith('RGB')
    try:
        result = ImageCms.profileToProfile(image.convert('L') if grey else image, io.BytesIO(profile),
                                           ImageCms.createProfile('sRGB'), outputMode=None if as_before else 'RGB')
    except ImageCms.PyCMSError:  # a damaged profile, which viewers ignore, too
        return image
    if grey:
        result = result.convert('L')
        if image.mode == 'LA':
            result.putalpha(image.getchannel('A'))
    return result


def on_white(image: Image.Image) -> Image.Image:
    """An 8-bit `plain` picture with alpha as it is seen on white, without alpha."""
    colours = image.convert(image.mode.removesuffix('A'))
    return Image.composite(colours, Image.new(colours.mode, image.size, 'white'), image.getchannel('A'))


def cut_out(image: Image.Image) -> Image.Image:
    """An RGBA picture with a palette of 255 colours and a transparent one, for pixels whose alpha is below half.

    Pillow's own conversion would make every pixel opaque whose alpha is not 0, and choose worse colours.
    """
    clear = image.getchannel('A').point(lambda alpha: 255 * (alpha < 128))
    result = image.convert('RGB').quantize(255)
    result.paste(255, mask=clear)
    result.info['transparency'] = 255
    return result


def as_mode(image: Image.Image | Deep, mode: str) -> Image.Image | Deep:
    """A `plain` picture converted to `mode`: its own mode, an 8-bit mode, or RGBA;16 if it is LA;16.

    If grey becomes RGB, it is converted to sRGB, since its ICC profile would not fit RGB.
    """
    if image.mode == mode:
        return image
    if isinstance(image, Deep):
        if mode == 'RGBA;16':
            return Deep(rgba_pixels(image), image.info)
        image = image.rounded()
    elif image.mode == 'I;16':  # Pillow clips instead of scaling
        image, info = Image.fromarray(to_8_bits(np.asarray(image))), image.info
        image.info = dict(info)
    if mode.startswith('RGB') and not image.mode.startswith('RGB'):
        image = in_srgb(image)
    return image if image.mode == mode else image.convert(mode)
