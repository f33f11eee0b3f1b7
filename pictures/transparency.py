"""The colours of pictures with alpha, whose pixels of little alpha often hold anything.

A model sees `filled` colours. To what it makes of them `rim` adds what alpha-weighted interpolation would: so an
edge is as clean as that on any background, and the model's detail goes on top. Where alpha is even, `rim` is 0.
"""

import math

import numpy as np
import torch
from PIL import Image, ImageFilter

RADIUS = 4  # of the surroundings of a pixel


def filled(image: Image.Image) -> Image.Image:
    """The colours of `image`, RGBA, as RGB; what is less opaque than its surroundings is mixed with theirs."""
    near = image.convert('RGBa').filter(ImageFilter.BoxBlur(RADIUS)).convert('RGBA')
    alpha, around = (np.asarray(i.getchannel('A'), dtype=np.float32) for i in (image, near))
    own = alpha / np.maximum(np.maximum(alpha, around), 1)
    mask = Image.fromarray((255 * own).round().astype(np.uint8))
    return Image.composite(image.convert('RGB'), near.convert('RGB'), mask)


def rim(image: Image.Image, colours: Image.Image, size: tuple[int, int], box: tuple) -> torch.Tensor | float:
    """Alpha-weighted interpolation of `image`, RGBA, less plain interpolation of its `filled` colours, both bicubic.

    In units of [0, 1], of the part `box` (left, top, right, bottom) of the image, real numbers, enlarged to `size`
    (W, H): (3, H, W), or 0.
    """
    pitch = max(1, *((end - start) / n for start, end, n in zip(box[:2], box[2:], size, strict=True)))
    margin = math.ceil(2 * pitch) + 1  # what bicubic interpolation looks at around a part: more where it reduces
    left, top = (max(0, int(b) - margin) for b in box[:2])
    part = left, top, *(min(n, int(b) + 1 + margin) for b, n in zip(box[2:], image.size, strict=True))
    image = image.crop(part)
    least, most = image.getchannel('A').getextrema()
    if least == most:
        return 0.0

    def enlarge(image):
        inner = box[0] - left, box[1] - top, box[2] - left, box[3] - top
        return torch.from_numpy(np.array(image.resize(size, Image.BICUBIC, inner)))

    weighted, simple = enlarge(image), enlarge(colours.crop(part))  # Pillow weights what has alpha
    difference = (weighted[..., :3].float() - simple) * (weighted[..., 3:] > 0) / 255
    return difference.permute(2, 0, 1)


def checkerboard(size: tuple[int, int]) -> Image.Image:
    """A checkerboard of two light greys, RGB, of `size` (W, H)."""
    y, x = np.ogrid[:size[1], :size[0]]
    return Image.fromarray(np.where((x // 8 + y // 8) % 2, 204, 255).astype(np.uint8)).convert('RGB')
