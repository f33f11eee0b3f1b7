"""The colours of pictures with alpha, in which almost transparent pixels often have arbitrary colours.

The model's input is the `filled` colours. `rim`, the difference between alpha-weighted and plain interpolation, is then
added to the model's result. So edges are as clean on any background as with alpha-weighted interpolation, and keep the
model's detail. Where alpha is constant, `rim` is 0.

Pixels are arrays of uint8 or uint16; computations are in units of [0, 1].
"""

import math

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

RADIUS = 4  # of the surroundings whose colours are mixed into a pixel's, in pixels
LEAST = 1 / 255  # the smallest alpha that is not invisible
ROWS = 256  # number of rows that are filled at a time


def planes(pixels: np.ndarray) -> torch.Tensor:
    """`pixels` (h, w, C) as a float tensor (C, h, w) in [0, 1]."""
    return torch.from_numpy(pixels.astype(np.float32) / np.iinfo(pixels.dtype).max).permute(2, 0, 1)


def weigh(rgba: torch.Tensor) -> torch.Tensor:
    """RGBA (4, h, w) with its colours multiplied by alpha."""
    return torch.cat([rgba[:3] * rgba[3:], rgba[3:]])


def filled(pixels: np.ndarray) -> np.ndarray:
    """The colours (h, w, 3) of `pixels` (h, w, 4), mixed with those of the surroundings where these are more opaque."""
    height, result = len(pixels), np.empty_like(pixels[..., :3])
    for top in range(0, height, ROWS):
        first, bottom = max(0, top - RADIUS), min(height, top + ROWS)
        rgba = planes(pixels[first:bottom + RADIUS])
        near = F.avg_pool2d(F.pad(weigh(rgba)[None], [RADIUS] * 4, 'replicate'), 2 * RADIUS + 1, 1)[0]
        own = rgba[3] / torch.maximum(rgba[3], near[3]).clamp(min=LEAST)
        around = (near[:3] / near[3].clamp(min=1e-6)).clamp(0, 1)
        colours = torch.lerp(around, rgba[:3], own)[:, top - first:bottom - first]
        result[top:bottom] = (colours.permute(1, 2, 0) * np.iinfo(pixels.dtype).max).round().numpy()
    return result


def rim(pixels: np.ndarray, colours: np.ndarray, size: tuple[int, int], box: tuple) -> torch.Tensor | float:
    """Alpha-weighted interpolation of RGBA `pixels` minus plain interpolation of their `filled` colours, both bicubic.

    `colours`: the `filled` colours. `box`: the part (left, top, right, bottom; real numbers) of the image that becomes
    `size` (W, H). Returns (3, H, W) in units of [0, 1], or 0.0 if alpha is constant there.
    """
    shape = pixels.shape[1::-1]
    pitch = max(1, *((end - start) / n for start, end, n in zip(box[:2], box[2:], size, strict=True)))
    margin = math.ceil(2 * pitch) + 1  # reach of bicubic interpolation beyond a part, larger when it reduces
    left, top = (max(0, int(b) - margin) for b in box[:2])
    right, bottom = (min(n, int(b) + 1 + margin) for b, n in zip(box[2:], shape, strict=True))
    pixels, colours = (array[top:bottom, left:right] for array in (pixels, colours))
    if pixels[..., 3].min() == pixels[..., 3].max():
        return 0.0

    inner = box[0] - left, box[1] - top, box[2] - left, box[3] - top
    weighted, simple = (enlarged(colours, size, inner) for colours in (weigh(planes(pixels)), planes(colours)))
    seen = weighted[3] > LEAST / 2
    return ((weighted[:3] / weighted[3].clamp(min=LEAST / 2)).clamp(max=1) - simple) * seen


def enlarged(planes: torch.Tensor, size: tuple[int, int], box: tuple) -> torch.Tensor:
    """The part `box` of `planes` (C, h, w) at `size` (W, H), by bicubic interpolation as Pillow does it with 8 bits.

    Like Pillow, it clips to [0, 1] after the horizontal pass and again after the vertical one.
    """
    result, (left, top, right, bottom) = [], box
    for plane in planes.contiguous().numpy():
        for width, height, part in ((size[0], len(plane), (left, 0, right, len(plane))),
                                    (*size, (0, top, size[0], bottom))):
            plane = np.asarray(Image.fromarray(plane).resize((width, height), Image.BICUBIC, part)).clip(0, 1)
        result.append(plane)
    return torch.from_numpy(np.stack(result))


def checkerboard(size: tuple[int, int]) -> Image.Image:
    """A checkerboard of two light greys, RGB, of `size` (W, H)."""
    y, x = np.ogrid[:size[1], :size[0]]
    return Image.fromarray(np.where((x // 8 + y // 8) % 2, 204, 255).astype(np.uint8)).convert('RGB')
