"""Recognises and reads files with colour or alpha and 16 bits per channel, of which Pillow would decode only 8.

PNGs are read by Pillow all the same, which decodes once the high bytes and once the low bytes; tifffile reads TIFFs.
"""

import math
import typing

import numpy as np
import tifffile
from PIL import Image

from datasets.image_file import BITS_PER_SAMPLE


def stored_mode(image: Image.Image) -> str:
    """The mode of the pixels of `image` in its file, such as 'RGB;16B'; '' once they are decoded."""
    tiles = getattr(image, 'tile', ())
    return str(tiles[0][3]) if tiles else ''


def has_deep_colour(image: Image.Image) -> bool:
    """Whether `image`, not yet decoded, has 16 bits and more than one channel; Pillow would decode only 8 bits."""
    stored, bits = stored_mode(image), getattr(image, 'tag_v2', {}).get(BITS_PER_SAMPLE, ())
    if image.mode[0] in 'IF' or not stored:
        return False
    return ';16' in stored or 16 in bits or image.format == 'PPM' and white_of(image) > 255


def white_of(image: Image.Image) -> int:
    """The value of white in the file of `image`, a PPM that is not yet decoded."""
    args = image.tile[0].args
    return args[1] if isinstance(args, tuple) else 255


def deep_pixels(image: Image.Image) -> np.ndarray | None:
    """The pixels, uint16 (H, W, C), of `image`, a file with 16-bit colour that Pillow has opened but not decoded.

    None for formats and compressions that cannot be read with 16 bits.
    """
    position = image.fp.tell()
    try:
        image.fp.seek(0)
        if image.format == 'PNG' and not image.is_animated:
            return png_pixels(image.fp, stored_mode(image), image.info.get('transparency'))
        if image.format == 'PPM' and image.mode == 'RGB' and image.tile[0].codec_name == 'ppm':
            return ppm_pixels(image)
        return tiff_pixels(image.fp, image.tell()) if image.format == 'TIFF' else None
    finally:
        image.fp.seek(position)


def png_pixels(file: typing.BinaryIO, stored: str, transparent: tuple | int | None) -> np.ndarray:
    """The pixels of a 16-bit PNG of the mode `stored`; `transparent`: a 16-bit colour whose alpha is 0."""
    def decoded(mode):
        """The file decoded as if its pixels had the raw mode `mode`, which has as many bits as their own: uint8."""
        file.seek(0)
        with Image.open(file, formats=['PNG']) as image:
            image.tile = [image.tile[0]._replace(args=mode)]
            return np.array(image)

    if stored == 'LA;16B':
        pixels = decoded('RGBA').view('>u2').astype(np.uint16)  # four bytes are two values
    else:
        channels = stored.removesuffix(';16B')
        # Pillow keeps the high byte of each value; if it takes the bytes to be in reverse order, it keeps the low one
        pixels = decoded(f'{channels};16B').astype(np.uint16) << 8 | decoded(f'{channels};16L')
    return pixels if transparent is None else with_transparent(pixels, transparent)


def with_transparent(pixels: np.ndarray, colour: tuple | int) -> np.ndarray:
    """`pixels` (H, W, C) with an alpha that is 0 where they have that `colour`."""
    return np.dstack([pixels, np.where((pixels == colour).all(axis=2), 0, 65535).astype(np.uint16)])


def ppm_pixels(image: Image.Image) -> np.ndarray:
    """The pixels of `image`, a binary PPM whose values have two bytes."""
    shape, white = (image.height, image.width, 3), white_of(image)
    image.fp.seek(image.tile[0].offset)
    values = np.frombuffer(image.fp.read(2 * math.prod(shape)), '>u2').reshape(shape)
    return (np.minimum(values, white) * (65535 / white)).round().astype(np.uint16)


def tiff_pixels(file: typing.BinaryIO, page: int) -> np.ndarray | None:
    """The pixels of a page of a TIFF, without premultiplied alpha; None if they are not 16-bit RGB."""
    with tifffile.TiffFile(file) as tiff:
        page = tiff.pages[page]
        if page.photometric != tifffile.PHOTOMETRIC.RGB or page.dtype != np.uint16:
            return None
        try:
            pixels = page.asarray()
        except ValueError as error:
            if 'imagecodecs' in str(error):
                return None
            raise
        if page.planarconfig == tifffile.PLANARCONFIG.SEPARATE:
            pixels = np.moveaxis(pixels, 0, 2)
        extra = page.extrasamples[0] if page.extrasamples else None
    if extra == tifffile.EXTRASAMPLE.ASSOCALPHA:
        alpha = np.maximum(pixels[..., 3:4], 1).astype(np.float32)
        colours = (pixels[..., :3] * (65535 / alpha)).clip(0, 65535).round().astype(np.uint16)
        return np.dstack([colours, pixels[..., 3]])
    return pixels[..., :4 if extra == tifffile.EXTRASAMPLE.UNASSALPHA else 3]
