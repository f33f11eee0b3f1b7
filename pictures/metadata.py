"""The metadata of pictures that their results keep: EXIF data, resolution, ICC profile.

A picture's `info` carries them: `exif` (bytes), `dpi` (across, down), `icc_profile` (bytes). In the EXIF data, sizes
become those of the result. Left out are

- of the EXIF data: the orientation, since it is applied to the pixels; the thumbnail; and the tags of the first
  directory that describe how the file was stored;
- all other metadata: XMP, IPTC, comments and other texts, gamma, gain maps.
"""

import contextlib
from typing import Any

from PIL import ExifTags, Image

Tags = dict[int, Any]

EXIF, GPS, INTEROP = ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo, ExifTags.IFD.Interop  # directories
ORIENTATION, X_RESOLUTION, Y_RESOLUTION, RESOLUTION_UNIT = 0x0112, 0x011A, 0x011B, 0x0128
BYTE = (GPS, 0), (GPS, 5)  # tags in directories that hold bytes of type BYTE; all others hold UNDEFINED
SIZES = {EXIF: (0xA002, 0xA003), INTEROP: (0x1001, 0x1002)}  # tags of width and height
STORAGE = {  # tags of TIFF, GeoTIFF and DNG that describe a file's pixels, or hold data in formats of their own
    *range(0x00FE, 0x010D), ORIENTATION, 0x0111, *range(0x0115, 0x011A), 0x011C, *range(0x0120, 0x0126), 0x0129, 0x012D,
    0x013D, *range(0x0140, 0x0160), *range(0x0200, 0x0215), 0x02BC, 0x828D, 0x828E, 0x830E, 0x83BB, 0x8480, 0x8482,
    0x85D8, 0x8649, 0x8773, 0x87AF, 0x87B0, 0x87B1, 0x935C, 0xA480, 0xA481, *range(0xC612, 0xC800)}

QUARTER_TURNS = {5: Image.TRANSPOSE, 6: Image.ROTATE_270, 7: Image.TRANSVERSE, 8: Image.ROTATE_90}  # by orientation
TURNS = {2: Image.FLIP_LEFT_RIGHT, 3: Image.ROTATE_180, 4: Image.FLIP_TOP_BOTTOM, **QUARTER_TURNS}


# --- reading ---------------------------------------------------------------------------------------------------------


def read_exif(image: Image.Image) -> Image.Exif:
    """The EXIF data of a decoded `image`, however its file stores them; empty if they are damaged."""
    try:
        profile = image.info.get('Raw profile type APP1')  # ImageMagick's, in PNGs: a name, a length, hex digits
        if not profile or image.info.get('exif'):
            exif = image.getexif()
        else:
            exif = Image.Exif()
            exif.load(bytes.fromhex(''.join(profile.split('\n')[3:])))
        exif.get(ORIENTATION)
        return exif
    except Exception:  # SyntaxError, ValueError, struct.error, ...
        return Image.Exif()


def tags_of(exif: Image.Exif) -> Tags:
    """The tags of `exif` that are kept: values by tag, directories as dicts; damaged directories are left out."""
    def directory(tag):
        with contextlib.suppress(Exception):  # as in `read_exif`
            return dict(exif.get_ifd(tag))

    tags = {tag: exif[tag] for tag in exif if tag not in STORAGE} | {EXIF: directory(EXIF), GPS: directory(GPS)}
    if tags[EXIF] and INTEROP in tags[EXIF]:
        tags[EXIF][INTEROP] = directory(INTEROP) or {}
    return {tag: value for tag, value in tags.items() if value != {} and value is not None}


def resolution(image: Image.Image, exif: Image.Exif) -> tuple[float, float] | None:
    """The dots per inch of `image`, across and down, or None if its file does not give them."""
    dpi = image.info.get('dpi')
    if not dpi and exif.get(RESOLUTION_UNIT, 2) in (2, 3):  # inches, centimetres
        factor = 2.54 if exif.get(RESOLUTION_UNIT) == 3 else 1
        dpi = [exif.get(tag, 0) * factor for tag in (X_RESOLUTION, Y_RESOLUTION)]
    dpi = tuple(round(float(n), 2) for n in dpi or ())
    return dpi if len(dpi) == 2 and all(1 < n < 65536 for n in dpi) else None  # 1: unknown; JPEGs have 16 bits


def collect(image: Image.Image) -> tuple[int, dict]:
    """Decodes `image`; returns its orientation, 1 to 8, and the part of its `info` that is kept.

    The resolution is that of the picture turned upright.
    """
    orientation = getattr(image, 'tag_v2', {}).get(ORIENTATION)  # of a TIFF, which Pillow rotates when it decodes it
    image.load()  # EXIF data in a PNG may follow the pixels
    exif, info = read_exif(image), {'icc_profile': image.info.get('icc_profile')}
    with contextlib.suppress(Exception):  # values of a wrong type raise almost anything
        info['exif'] = to_bytes(tags_of(exif), exif.endian)
    with contextlib.suppress(Exception):
        info['dpi'] = resolution(image, exif)
    if info.get('dpi') and (orientation in QUARTER_TURNS or exif.get(ORIENTATION) in QUARTER_TURNS):
        info['dpi'] = info['dpi'][::-1]
    return exif.get(ORIENTATION, 1), {key: value for key, value in info.items() if value}


# --- writing ---------------------------------------------------------------------------------------------------------


class Text(str):
    """A text that Pillow writes in the encoding in which it was read; it writes a plain str as ASCII."""

    def encode(self, *_: str) -> bytes:
        return str.encode(self, 'latin-1')  # as Pillow decoded it, byte by byte


def typed(tags: Tags, directory: int | None = None) -> Tags:
    """`tags` converted so that Pillow writes them with their original types."""
    result = {}
    for tag, value in tags.items():
        if isinstance(value, dict):
            value = typed(value, tag)
        elif isinstance(value, str):
            value = Text(value)
        elif isinstance(value, bytes) and directory and (directory, tag) not in BYTE:
            value = [bytearray(value)]  # Pillow would write bytes as BYTE
        result[tag] = value
    return result


def to_bytes(tags: Tags, endian: str | None) -> bytes | None:
    """`tags` as EXIF data; None if there are none."""
    exif = Image.Exif()
    exif.endian = endian
    exif.update(typed(tags))
    return exif.tobytes() if tags else None


def from_bytes(data: bytes | None) -> tuple[Tags, str | None]:
    """The tags in EXIF data written by `to_bytes`, and their byte order."""
    exif = Image.Exif()
    exif.load(data or b'')
    return tags_of(exif), exif.endian


def resized(info: dict, size: tuple[int, int]) -> dict:
    """`info` with the sizes in its EXIF data set to `size` (W, H)."""
    if 'exif' not in info:
        return info
    tags, endian = from_bytes(info['exif'])
    for directory, keys in (tags.get(EXIF, {}), SIZES[EXIF]), (tags.get(EXIF, {}).get(INTEROP, {}), SIZES[INTEROP]):
        directory.update((key, n) for key, n in zip(keys, size, strict=True) if key in directory)
    return {**info, 'exif': to_bytes(tags, endian)}


def without_foreign_profile(info: dict, mode: str) -> dict:
    """`info` without an ICC profile for a colour space other than that of `mode`, grey or RGB."""
    space = b'RGB ' if mode.startswith('RGB') else b'GRAY'
    return {key: value for key, value in info.items() if key != 'icc_profile' or value and value[16:20] == space}


def save_options(info: dict, name: str, mode: str) -> dict:
    """The arguments of Pillow's `save` that write `info` to a file of the format `name` and of `mode`."""
    # the profile is given even if it is None: otherwise Pillow would take the one in the picture's own `info`
    options = {'icc_profile': without_foreign_profile(info, mode).get('icc_profile')}
    (tags, endian), dpi = from_bytes(info.get('exif')), info.get('dpi')
    if dpi:
        options['dpi'] = dpi
        if tags or name in ('AVIF', 'WEBP'):  # which store the resolution only in EXIF data
            tags.update({X_RESOLUTION: dpi[0], Y_RESOLUTION: dpi[1], RESOLUTION_UNIT: 2})
    if tags and name == 'TIFF':
        options['tiffinfo'] = typed(tags)
    elif tags:
        options['exif'] = to_bytes(tags, endian)
    return options
