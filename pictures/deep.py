"""Holds and writes pictures with colour or alpha and 16 bits per channel, for which Pillow has no mode.

To write one, Pillow makes a file with all the metadata but a single pixel, which is then replaced by the actual pixels.
"""

import io
import struct
import typing
import zlib

import numpy as np
from PIL import Image, PngImagePlugin, TiffImagePlugin

from datasets.image_file import to_8_bits

ROWS = 256  # number of rows that are compressed at a time


class Deep:
    """A picture of `pixels`, uint16 (H, W, C), with the part of Pillow's Image interface that this project uses.

    Its mode is LA;16, RGB;16 or RGBA;16.
    """

    MODES = {2: 'LA;16', 3: 'RGB;16', 4: 'RGBA;16'}

    def __init__(self, pixels: np.ndarray, info: dict | None = None):
        self.pixels, self.info = pixels, info or {}
        self.height, self.width, channels = pixels.shape
        self.size, self.mode = (self.width, self.height), self.MODES[channels]

    @classmethod
    def new(cls, mode: str, size: tuple[int, int]) -> 'Deep':
        """A black picture of `size` (W, H)."""
        return cls(np.zeros((size[1], size[0], len(mode) - len(';16')), np.uint16))

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        return np.array(self.pixels, dtype=dtype, copy=copy)

    def getbands(self) -> tuple[str, ...]:
        return tuple(self.mode.removesuffix(';16'))

    def paste(self, part: 'Deep', corner: tuple[int, int]) -> None:
        left, top = corner
        self.pixels[top:top + part.height, left:left + part.width] = part.pixels

    def crop(self, box: tuple[int, int, int, int]) -> 'Deep':
        left, top, right, bottom = box
        return Deep(self.pixels[top:bottom, left:right], self.info)

    def transpose(self, method: Image.Transpose) -> 'Deep':
        planes = (Image.fromarray(plane).transpose(method) for plane in np.moveaxis(self.pixels, 2, 0).copy())
        return Deep(np.dstack(list(planes)), self.info)

    def rounded(self) -> Image.Image:
        """The picture with 8 bits per channel."""
        image = Image.fromarray(to_8_bits(self.pixels))
        image.info = dict(self.info)
        return image


# --- writing ---------------------------------------------------------------------------------------------------------


def single_pixel(name: str, options: dict) -> io.BytesIO:
    """The file that Pillow writes for a single pixel in the format `name` with these `options`."""
    file = io.BytesIO()
    Image.new('RGB', (1, 1)).save(file, name, **options)
    file.seek(0)
    return file


def write_png(image: Deep, file: typing.BinaryIO, options: dict) -> None:
    """Writes `image` as a 16-bit PNG, with the metadata that Pillow's `save` writes for these `options`."""
    small, channels = single_pixel('PNG', options), image.pixels.shape[2]
    file.write(small.read(8))
    while head := small.read(8):
        length, kind = struct.unpack('>I4s', head)
        data = small.read(length + 4)[:-4]
        if kind == b'IHDR':
            data = struct.pack('>IIBBBBB', *image.size, 16, {2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
        for part in compressed(image.pixels) if kind == b'IDAT' else [data]:
            PngImagePlugin.putchunk(file, kind, part)


def compressed(pixels: np.ndarray) -> typing.Iterator[bytes]:
    """Yields a PNG's compressed data for `pixels`, in parts.

    Each row is stored as its differences from the pixels to the left or from those above, whichever are smaller.
    """
    packer, (height, width, channels) = zlib.compressobj(), pixels.shape
    above = np.zeros((1, width * channels * 2), np.uint8)
    for top in range(0, height, ROWS):
        rows = pixels[top:top + ROWS].astype('>u2').view(np.uint8).reshape(-1, above.shape[1])
        up, left = rows - np.vstack([above, rows[:-1]]), rows.copy()
        left[:, channels * 2:] -= rows[:, :-channels * 2]
        costs = [np.abs(kind.view(np.int8).astype(np.int16)).sum(axis=1) for kind in (left, up)]
        chosen = np.where(costs[0] < costs[1], 1, 2).astype(np.uint8)[:, None]  # PNG's filters 1 (left) and 2 (up)
        yield packer.compress(np.hstack([chosen, np.where(chosen == 1, left, up)]).tobytes())
        above = rows[-1:]
    yield packer.flush()


def write_tiff(image: Deep, file: typing.BinaryIO, options: dict) -> None:
    """Writes `image`, which has colour, as a 16-bit TIFF with the metadata that Pillow writes for these `options`."""
    small, channels = single_pixel('TIFF', options), image.pixels.shape[2]
    with Image.open(small) as written:
        directory = TiffImagePlugin.ImageFileDirectory_v2(prefix=b'II')
        for tag, value in written.tag_v2.items():
            directory.tagtype[tag] = written.tag_v2.tagtype[tag]
            directory[tag] = value
    directory.update({
        TiffImagePlugin.IMAGEWIDTH: image.width, TiffImagePlugin.IMAGELENGTH: image.height,
        TiffImagePlugin.BITSPERSAMPLE: (16,) * channels, TiffImagePlugin.SAMPLESPERPIXEL: channels,
        TiffImagePlugin.PHOTOMETRIC_INTERPRETATION: 2,
        TiffImagePlugin.ROWSPERSTRIP: image.height, TiffImagePlugin.STRIPOFFSETS: 0,
        TiffImagePlugin.STRIPBYTECOUNTS: image.pixels.nbytes})
    if channels == 4:
        directory[TiffImagePlugin.EXTRASAMPLES] = 2  # the colours are not premultiplied by alpha
    size = len(small.getvalue())
    start = size + size % 2
    file.write(small.getvalue()[:4] + struct.pack('<I', start) + small.getvalue()[8:] + bytes(size % 2))
    file.write(directory.tobytes(start))  # sets STRIPOFFSETS to the directory's end
    for top in range(0, image.height, ROWS):
        file.write(image.pixels[top:top + ROWS].astype('<u2').tobytes())
