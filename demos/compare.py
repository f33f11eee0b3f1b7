"""Sheets that show what a model does: compared with bicubic interpolation, and how it mixes its functions."""

import colorsys
import math

import numpy as np
from PIL import Image, ImageChops, ImageFilter

from models.decoder import Decoder
from models.mixing import mixing_weights
from pictures.modes import as_mode, model_colours, to_tensor
from pictures.sheets import flat, sheet, zoomed_sheet

PANEL = 640  # longest side of a panel
ZOOM = 3  # side of an output pixel in the zoomed crop


def panel_size(size: tuple, longest: int = PANEL) -> tuple:
    """(W, H) of a picture of `size`, scaled so that its longest side is `longest`."""
    return tuple(max(1, round(n * longest / max(size))) for n in size)


def most_detailed(image: Image.Image, grid: tuple) -> tuple:
    """(column, row) of the cell with most fine detail when `image` is divided into a `grid` of (columns, rows)."""
    grey = as_mode(image, 'L')
    detail = ImageChops.difference(grey, grey.filter(ImageFilter.BoxBlur(1)))
    if 'A' in image.getbands():
        detail = ImageChops.multiply(detail, as_mode(image, 'RGBA').getchannel('A'))  # only what is visible
    detail = detail.resize(grid, Image.BOX)
    row, column = divmod(int(np.asarray(detail).argmax()), grid[0])
    return column, row


def detailed_part(image: Image.Image, size: tuple, view: tuple) -> tuple:
    """Where `image` has most detail: a box (left, top, right, bottom) in a picture of the same scene of `size` (W, H).

    The box is as large as fits into a panel of `view` (W, H) when it is enlarged ZOOM times.
    """
    part = tuple(min(n, math.ceil(v / ZOOM)) for n, v in zip(size, view, strict=True))
    cells = tuple(n // p for n, p in zip(size, part, strict=True))
    left, top = ((n - p) * i // max(1, count - 1)
                 for n, p, i, count in zip(size, part, most_detailed(image, cells), cells, strict=True))
    return left, top, left + part[0], top + part[1]


def compare(image: Image.Image, big: Image.Image, name: str) -> Image.Image:
    """A sheet of `image` enlarged by bicubic interpolation and `big`, made by the model `name`; below, zoomed crops."""
    view = panel_size(big.size)
    pictures = [('bicubic', image, Image.BICUBIC), (name, big, Image.LANCZOS)]
    result = zoomed_sheet(pictures, big.size, detailed_part(image, big.size, view), view)
    result.info['icc_profile'] = big.info.get('icc_profile')  # the meaning of its colours
    return result


def weights_map(model: Decoder, image: Image.Image, size: tuple, view: tuple | None = None) -> Image.Image:
    """A sheet of the input, of a map of which function's weight is furthest from its mean, and of maps of all weights.

    Means are over the image. (A map of which weight is largest may show nothing: one function may have the largest
    weight everywhere.) In the first map, each function has a colour, which is pale where its weight is near its mean.
    In a weight's own map, values below the mean are blue and values above it red. `size` (H, W) is the size of the
    output, `view` (W, H) that of the panels.
    """
    view = view or panel_size(size[::-1])
    weights = mixing_weights(model, to_tensor(model_colours(image)), size, view[::-1]).numpy()
    means = weights.mean(axis=(1, 2))
    deviations = weights - means[:, None, None]
    furthest, scale = np.abs(deviations).argmax(axis=0), max(3 * deviations.std(), 1e-3)
    colours = np.array([colorsys.hsv_to_rgb(k / len(weights), 0.9, 0.75) for k in range(len(weights))])
    strength = np.abs(deviations).max(axis=0).clip(0, scale)[..., None] / scale
    panels = [('input', 'black', flat(image, view)),
              ('furthest from its mean', 'black', painted(1 - strength * (1 - colours[furthest])))]
    for k, deviation in enumerate(deviations):
        spread = deviation.std()
        caption = f'{k}: furthest {(furthest == k).mean():.0%}, {means[k]:.2f} ± {spread:.2f}'
        colour = tuple((colours[k] * 170).round().astype(int).tolist())  # darker, to be read on white
        panels.append((caption, colour, heat_map(deviation / max(3 * spread, 1e-3))))
    return sheet(panels, 4)


def painted(colours: np.ndarray) -> Image.Image:
    """Colours (H, W, 3) in [0, 1] as a picture."""
    return Image.fromarray((colours * 255).round().astype(np.uint8))


def heat_map(values: np.ndarray) -> Image.Image:
    """`values` (H, W) as a picture, from blue (-1) through white (0) to red (1)."""
    ends = (33, 247, 178), (102, 247, 24), (172, 247, 43)
    return painted(np.stack([np.interp(values, (-1, 0, 1), e) for e in ends], -1) / 255)
