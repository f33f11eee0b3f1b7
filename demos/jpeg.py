"""How strongly a JPEG is compressed, and which model is made for such pictures."""

import contextlib
from collections.abc import Iterable
from pathlib import Path

from PIL import Image

from cli import WEB
from datasets.image_file import opened
from errors import UserError
from models.pretrained import pretrained
from utils import note

LOW = 90  # below this quality, the model for clean pictures sharpens JPEG artefacts
LUMINANCE = (  # table K.1 of the JPEG standard, row by row; libjpeg's at quality 50
    16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55, 14, 13, 16, 24, 40, 57, 69, 56, 14, 17, 22, 29, 51,
    87, 80, 62, 18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92, 49, 64, 78, 87, 103, 121, 120, 101,
    72, 92, 95, 98, 112, 100, 103, 99)


def coarseness(quality: int) -> int:
    """The sum of libjpeg's quantisation table for luminance at `quality`, 1 to 100."""
    percent = 5000 // quality if quality < 50 else 200 - 2 * quality
    return sum(min(max((step * percent + 50) // 100, 1), 255) for step in LUMINANCE)


def jpeg_quality(image: Image.Image) -> int | None:
    """The quality of an opened JPEG, 1 to 100 on libjpeg's scale; None for other files.

    Some programs use tables of their own: then it is the quality with the most similar coarseness.
    """
    tables = getattr(image, 'quantization', None)
    if not tables:
        return None
    total = sum(tables[min(tables)])
    return min(range(1, 101), key=lambda quality: abs(coarseness(quality) - total))


def suggest_web(paths: Iterable[Path]) -> None:
    """Names the first JPEG of low quality among `paths`, if pretrained/ has the model for such pictures."""
    if WEB not in pretrained():
        return
    for path in paths:
        with contextlib.suppress(UserError), opened(path) as image:  # files that cannot be opened are reported later
            quality = jpeg_quality(image)
            if quality is not None and quality < LOW:
                note(f'{path} is a JPEG of quality {quality}: --model {WEB} is made for such pictures')
                return
