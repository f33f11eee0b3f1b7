"""Reads images with any number of channels of 8, 16 or 32 bits as arrays (H, W, C) of the type that the file holds.

Pillow reads picture files, except those with 16-bit colour, which it would reduce to 8 bits; tifffile reads TIFFs, and
NumPy's .npy files are arrays (H, W) or (H, W, C) already.
"""

import dataclasses
import logging
import math
from pathlib import Path
from typing import Literal

import numpy as np
import tifffile
from PIL import Image

from datasets.deep_colour import deep_pixels, has_deep_colour
from datasets.image_file import check_need, grey_16_bits, header, image_size, read_image, reading
from errors import UserError, quoted
from utils import white

Channels = Literal['rgb', 'grey', 'all']
TYPES = np.uint8, np.uint16, np.float32
GREY = (0.299, 0.587, 0.114)  # weights of R, G and B, the same as Pillow's
TIFF = {'.tif', '.tiff'}
PLAIN = tifffile.PHOTOMETRIC.MINISBLACK, tifffile.PHOTOMETRIC.RGB  # Pillow converts others, such as palettes, to RGB

# Silent: a damaged file either can be read all the same, or is reported in one line.
logging.getLogger('tifffile').addHandler(logging.NullHandler())


@dataclasses.dataclass(frozen=True)
class Reader:
    """How a dataset reads its files.

    channels: 'rgb': any picture as 8-bit RGB; 'grey': one channel, 'all': all channels of the file, in its own type.
    data_range: the value of white if it is not that of the type; images are divided by it and become float32.
    """
    channels: Channels = 'rgb'
    data_range: float | None = None

    def __post_init__(self):
        if self.data_range is not None and (self.channels == 'rgb' or not 0 < self.data_range < math.inf):
            raise UserError('data_range must be above 0, and needs channels: grey or all')

    @property
    def folder(self) -> str:
        """The subfolder for this reader's copies in a folder of decoded copies."""
        return '' if self == RGB else self.channels + (f'-{self.data_range}' if self.data_range else '')

    def read(self, path: Path) -> np.ndarray:
        """The image at `path`, (H, W, C): uint8, uint16, or float32 in [0, 1]."""
        if self.channels == 'rgb':
            return read_image(path)
        with reading(path):
            image = self.in_range(checked(stored(path)))
            return to_grey(image) if self.channels == 'grey' else image

    def in_range(self, image: np.ndarray) -> np.ndarray:
        """A `checked` image, divided by the data range if there is one; UserError for values outside the range."""
        if self.data_range is None and image.dtype != np.float32:
            return image
        top = self.data_range or 1
        low, high = image.min(), image.max()  # both are nan if any value is
        if not 0 <= low <= high <= top:
            raise UserError(f'its values are from {low:g} to {high:g}, but must be from 0 to {top:g}; '
                            'for another range set data_range: WHITE')
        return image if self.data_range is None else (image / top).astype(np.float32)

    def size(self, path: Path) -> tuple[int, int]:
        """(H, W) of the image at `path`, from its header."""
        if self.channels == 'rgb' or path.suffix.lower() not in {'.npy', *TIFF}:
            return image_size(path)
        with reading(path):
            if path.suffix.lower() == '.npy':
                return check_shape(np.load(path, mmap_mode='r', allow_pickle=False).shape)[:2]
            with tifffile.TiffFile(path) as tiff:
                shape = check_shape(tiff.series[0].shape)
                return shape[1:] if channels_first(tiff.series[0]) else shape[:2]


RGB = Reader()


def stored(path: Path) -> np.ndarray:
    """The array (H, W) or (H, W, C) in the file at `path`; the first one if there are several frames or series."""
    suffix = path.suffix.lower()
    if suffix == '.npy':
        return np.load(path, mmap_mode='r', allow_pickle=False)
    if suffix in TIFF and (array := tiff_array(path)) is not None:
        return array
    with header(path) as image:
        return picture(image)


def tiff_array(path: Path) -> np.ndarray | None:
    """The array in the TIFF at `path`; None if only Pillow can read it, which knows more colours and compressions."""
    with tifffile.TiffFile(path) as tiff:
        series = tiff.series[0]
        if series.keyframe.photometric not in PLAIN:
            return None
        check_need(f'{"x".join(map(str, series.shape))} values', series.nbytes)
        try:
            array = series.asarray()
        except ValueError as error:
            if 'imagecodecs' not in str(error):
                raise
            if series.axes == 'YX' or series.axes == 'YXS' and (series.shape[2], series.dtype) == (3, np.uint8):
                return None
            raise UserError(f'its compression, {series.keyframe.compression.name}, needs a package: '
                            'pip install imagecodecs') from None
        return np.moveaxis(array, 0, 2) if channels_first(series) else array


def channels_first(series: tifffile.TiffPageSeries) -> bool:
    """Whether a TIFF declares that its channels, or pages, come before height and width."""
    return len(series.axes) == 3 and series.axes.endswith('YX') and series.axes[0] != 'Q'


def picture(image: Image.Image) -> np.ndarray:
    """The pixels of a picture that Pillow has opened but not decoded, with all its channels and bits."""
    if has_deep_colour(image):
        pixels = deep_pixels(image)
        if pixels is None:
            raise UserError(f'the 16-bit colour of this {image.format} cannot be read: save it as PNG, TIFF or .npy')
        return pixels
    if image.mode[0] == 'I':
        return grey_16_bits(image)
    if image.mode == 'F':
        return np.asarray(image)
    if image.mode not in ('L', 'LA', 'RGB', 'RGBA'):
        image = image.convert('L' if image.mode == '1' else 'RGBA' if image.has_transparency_data else 'RGB')
    return np.asarray(image)


def check_shape(shape: tuple) -> tuple:
    """`shape`; UserError unless it is that of an image."""
    if len(shape) not in (2, 3) or 0 in shape:
        raise UserError(f'its array has the shape {shape}, but must be (H, W) or (H, W, C)')
    return shape


def checked(array: np.ndarray) -> np.ndarray:
    """`array` as (H, W, C) in the machine's byte order; UserError for another shape or type."""
    check_shape(array.shape)
    dtype = array.dtype.newbyteorder('=')
    if dtype not in TYPES:
        raise UserError(f'its array is of {dtype}, but must be of uint8, uint16 or float32')
    array = array.astype(dtype, copy=False)
    return array if array.ndim == 3 else array[..., None]


def check_pixels(image: object) -> np.ndarray:
    """`image`, as a dataset returns it; UserError unless it is an array (H, W, C) of TYPES, float32 from 0 to 1."""
    if not isinstance(image, np.ndarray) or image.ndim != 3:
        raise UserError(f'an image is {quoted(getattr(image, "shape", image))}, but must be a NumPy array (H, W, C)')
    return Reader('all').in_range(checked(image))


def rounded(values: np.ndarray, dtype: np.dtype, data_range: float | None = None) -> np.ndarray:
    """Computed `values` as pixels of `dtype`, clipped to black and white; integers are rounded, halves upwards."""
    if dtype != np.float32:
        values = np.floor(values + 0.5)
    return np.clip(values, 0, data_range or white(dtype)).astype(dtype)


def to_grey(image: np.ndarray) -> np.ndarray:
    """A grey or RGB image (H, W, C) as (H, W, 1) of the same type; alpha, if there is any, is dropped."""
    channels = image.shape[2]
    if channels > 4:
        raise UserError(f'it has {channels} channels, which channels: grey cannot reduce to one; use channels: all')
    if channels < 3:
        return image[..., :1]
    grey = image[..., :3] @ np.array(GREY)
    return rounded(grey, image.dtype)[..., None]
