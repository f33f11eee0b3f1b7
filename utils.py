"""What models, datasets, training and evaluation share: coordinates, colours, output.

`make_coord` and `to_pixel_samples` have the same names and meaning as in LIIF; `calc_psnr` is in `metrics.py`.
"""

import functools
import json
import math
import os
import typing
from collections.abc import Sequence

import torch
from tqdm import tqdm

from files import write_text

# --- coordinates -----------------------------------------------------------------------------------


def make_coord(shape: Sequence[int], ranges: Sequence | None = None, flatten: bool = True) -> torch.Tensor:
    """Coordinates of the pixel centres of a grid, each axis spanning [-1, 1] or its `ranges` entry.

    Returns (prod(shape), len(shape)) if `flatten`, else (*shape, len(shape)); float32, in the axes' order.
    """
    axes = []
    for i, n in enumerate(shape):
        v0, v1 = (-1, 1) if ranges is None else ranges[i]
        r = (v1 - v0) / (2 * n)
        axes.append(v0 + r + (2 * r) * torch.arange(n).float())
    coord = torch.stack(torch.meshgrid(*axes, indexing='ij'), dim=-1)
    return coord.view(-1, coord.shape[-1]) if flatten else coord


def white(dtype: object) -> int:
    """The largest value (white) of colours of `dtype`, a type of NumPy or PyTorch; the smallest is 0."""
    return {'uint8': 255, 'uint16': 65535}.get(str(dtype).removeprefix('torch.'), 1)


def to_float(colours: torch.Tensor) -> torch.Tensor:
    """Colours of 8 or 16 bits (uint8, uint16) as float32 in [0, 1]; floats, which are in [0, 1], stay unchanged."""
    top = white(colours.dtype)
    return colours if top == 1 else colours.float().div(top)


def to_pixel_samples(img: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """An image (C, H, W) as coordinates (H*W, 2) and colours (H*W, C), row by row."""
    return make_coord(img.shape[-2:]), img.reshape(img.shape[0], -1).permute(1, 0)


# --- output ---------------------------------------------------------------------------------------------------------


def to_json(value: typing.Any, indent: int | None = None) -> str:
    """`value` as standard JSON, which has no numbers that are not finite: they become null."""
    def known(value):
        if isinstance(value, dict):
            return {k: known(v) for k, v in value.items()}
        if isinstance(value, list | tuple):
            return [known(v) for v in value]
        return None if isinstance(value, float) and not math.isfinite(value) else value

    return json.dumps(known(value), indent=indent, allow_nan=False)


def write_json(path: str | os.PathLike, value: typing.Any) -> None:
    """Writes `value` to `path` by `to_json`, with a line for each item."""
    write_text(path, to_json(value, indent=1))


def say(text: str) -> None:
    """Prints `text`, only once in a job of several processes."""
    if os.environ.get('RANK', '0') == '0':
        print(text)


@functools.cache  # once in a run, not for each picture of a folder
def note(text: str) -> None:
    """Prints a note, above progress bars, only once in a job of several processes."""
    if os.environ.get('RANK', '0') == '0':
        tqdm.write(f'note: {text}')


def number_text(value: float, digits: int = 4, sign: str = '') -> str:
    """A measured `value` as text for tables; a word if it is not finite."""
    if math.isnan(value):
        return 'none'
    return f'{value:{sign}.{digits}f}'.replace('inf', 'infinite')


def time_text(seconds: float) -> str:
    """A duration as text: 20.3 days, 1.5h, 12.0m or 7.3s."""
    for unit, length, least in ((' days', 86400, 172800), ('h', 3600, 3600), ('m', 60, 60)):
        if seconds >= least:
            return f'{seconds / length:.1f}{unit}'
    return f'{seconds:.1f}s'
