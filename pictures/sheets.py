"""Pictures for viewing: on a checkerboard if they are transparent, side by side on sheets."""

import math

from PIL import Image, ImageDraw, ImageFont

from pictures.deep import Deep
from pictures.metadata import without_foreign_profile
from pictures.modes import as_mode
from pictures.transparency import checkerboard


def flat(image: Image.Image | Deep, size: tuple | None = None, resample: int = Image.BICUBIC,
         box: tuple | None = None) -> Image.Image:
    """The part `box` (left, top, right, bottom) of a `plain` picture at `size` (W, H), as RGB with its ICC profile.

    Transparency shows a checkerboard behind the picture. `size` and `box` default to the whole picture's.
    """
    info = without_foreign_profile(image.info, 'RGB')
    image = as_mode(image, 'RGBA' if 'A' in image.getbands() else 'RGB').resize(size or image.size, resample, box)
    if image.mode == 'RGBA':
        image = Image.composite(image.convert('RGB'), checkerboard(image.size), image.getchannel('A'))
    image.info = {key: value for key, value in info.items() if key == 'icc_profile'}  # the meaning of its colours
    return image


def centre_box(size: tuple, most: tuple) -> tuple:
    """(left, top, right, bottom) of the centre of a picture of `size` (W, H), a part of at `most` (W, H)."""
    part = [min(pair) for pair in zip(size, most, strict=True)]
    corner = [(n - p) // 2 for n, p in zip(size, part, strict=True)]
    return *corner, *(c + p for c, p in zip(corner, part, strict=True))


def sheet(panels: list[tuple], columns: int) -> Image.Image:
    """A picture with rows of `columns` panels: (caption, colour of the caption, picture), all of one size.

    Captions stand below their pictures.
    """
    (width, height), bar, gap = panels[0][2].size, 28, 8
    rows = math.ceil(len(panels) / columns)
    result = Image.new('RGB', (columns * (width + gap) - gap, rows * (height + bar + gap) - gap), 'white')
    draw, font = ImageDraw.Draw(result), ImageFont.load_default(18)
    for i, (caption, colour, panel) in enumerate(panels):
        left, top = i % columns * (width + gap), i // columns * (height + bar + gap)
        result.paste(panel, (left, top))
        draw.text((left + 4, top + height + 2), caption, colour, font)
    return result


def zoomed_sheet(pictures: list[tuple], size: tuple, box: tuple, view: tuple) -> Image.Image:
    """A sheet of `pictures` of one scene, (caption, picture, resampling): each as a whole, and below it its part `box`.

    The pictures may have different sizes. `box` is in pixels of a picture of `size` (W, H); all parts are resampled to
    the pixels of that picture and then enlarged. `view`: (W, H) of a panel.
    """
    part = box[2] - box[0], box[3] - box[1]
    frame = [edge * n // m for edge, n, m in zip(box, view * 2, size * 2, strict=True)]
    panels, enlarged = [], f'{view[0] / part[0]:.2g} times enlarged'
    for caption, picture, resample in pictures:
        whole = flat(picture, view, resample)
        ImageDraw.Draw(whole).rectangle(frame, outline='red', width=2)
        panels.append((caption, 'black', whole))
    for _, picture, resample in pictures:
        source = [edge * n / m for edge, n, m in zip(box, picture.size * 2, size * 2, strict=True)]
        crop = flat(picture, part, resample, source).resize(view, Image.NEAREST)
        panels.append((enlarged, 'black', crop))
    return sheet(panels, len(pictures))
