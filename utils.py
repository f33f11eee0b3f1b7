"""What models, datasets, training and evaluation share: coordinates, metrics, output.

`make_coord`, `to_pixel_samples` and `calc_psnr` have the same names and meaning as in LIIF.
"""

import functools
import json
import math
import os
import typing
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from tqdm import tqdm

from errors import UserError, size_text, unknown
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


# --- metrics ---------------------------------------------------------------------------------------

SSIM_ROWS = 256  # number of rows that are computed at a time
LUMA = (65.738 / 256, 129.057 / 256, 25.064 / 256)  # Y of ITU-R BT.601, from 16/255 (black) to 235/255 (white)


class TooSmall(UserError):
    """An image of which a benchmark's convention leaves nothing to compare."""


def luma(img: torch.Tensor) -> torch.Tensor:
    """Y, (..., 1, H, W), of an RGB image (..., 3, H, W) in [0, 1]."""
    return 16 / 255 + (img * img.new_tensor(LUMA).view(3, 1, 1)).sum(dim=-3, keepdim=True)


def scored_pixels(sr: torch.Tensor, hr: torch.Tensor, dataset: str | None = None,
                  scale: float = 1) -> tuple[torch.Tensor, torch.Tensor]:
    """The part of two images (..., C, H, W) that a benchmark's convention compares.

    None: everything; 'benchmark' (Set5, Set14, B100, Urban100): Y, or grey itself, without a border of `scale` pixels;
    'div2k': all channels, without a border of `scale` + 6 pixels. Fractional borders are rounded up.
    """
    if dataset is None:
        return sr, hr
    if dataset not in ('benchmark', 'div2k'):
        raise unknown('convention', dataset, ('benchmark', 'div2k'))
    shave = math.ceil(scale) + (6 if dataset == 'div2k' else 0)
    if min(hr.shape[-2:]) <= 2 * shave:
        raise TooSmall(f'a {size_text(hr.shape[-2:])} image has nothing left without its border of {shave} pixels')
    if dataset == 'benchmark' and (channels := hr.shape[-3]) != 1:
        if channels != 3:
            raise UserError(f'the benchmarks compare brightness (Y), which images of {channels} channels do not have; '
                            'eval_type: div2k-SCALE compares all channels')
        sr, hr = luma(sr), luma(hr)
    return sr[..., shave:-shave, shave:-shave], hr[..., shave:-shave, shave:-shave]


def parse_eval_type(eval_type: str | None) -> dict:
    """The arguments of `calc_psnr` for 'div2k-4' or 'benchmark-2.5'; None compares everything."""
    if eval_type is None:
        return {}
    convention, _, number = eval_type.partition('-')
    try:
        scale = float(number)
    except ValueError:
        scale = math.nan
    if convention not in ('div2k', 'benchmark') or not 1 <= scale < math.inf:
        raise UserError(f'eval_type must be div2k-SCALE or benchmark-SCALE, not {eval_type!r}; a scale is 1 or more')
    return {'dataset': convention, 'scale': scale}


def calc_psnr(sr: torch.Tensor, hr: torch.Tensor, dataset: str | None = None, scale: float = 1,
              rgb_range: float = 1) -> torch.Tensor:
    """PSNR in dB, a 0-d tensor, of images (..., C, H, W) or samples of equal shape; inf if they are equal.

    `rgb_range`: the value of white. `dataset` and `scale` choose the pixels, see `scored_pixels`.
    """
    sr, hr = scored_pixels(sr / rgb_range, hr / rgb_range, dataset, scale)
    return -10 * torch.log10((sr - hr).pow(2).mean())


def calc_ssim(sr: torch.Tensor, hr: torch.Tensor, dataset: str | None = None, scale: float = 1) -> torch.Tensor:
    """SSIM (Wang et al. 2004), a 0-d tensor, of images (B, C, H, W) in [0, 1] on the pixels that `calc_psnr` compares.

    The mean over channels and over all pixels at which the Gaussian window (11x11, sigma 1.5) fits entirely.
    """
    x, y = scored_pixels(sr, hr, dataset, scale)
    h, w = x.shape[-2:]
    if min(h, w) < 11:
        raise UserError(f'SSIM needs 11x11 pixels, not {w}x{h}')
    taps = torch.exp(-(torch.arange(11, dtype=x.dtype, device=x.device) - 5) ** 2 / (2 * 1.5 ** 2))
    taps = taps / taps.sum()

    def blur(x):
        x = x.flatten(0, 1).unsqueeze(1)
        return F.conv2d(F.conv2d(x, taps.view(1, 1, 11, 1)), taps.view(1, 1, 1, 11))

    def total(x, y):
        mx, my = blur(x), blur(y)
        vx, vy, vxy = blur(x * x) - mx * mx, blur(y * y) - my * my, blur(x * y) - mx * my
        c1, c2 = 0.01 ** 2, 0.03 ** 2
        return ((2 * mx * my + c1) * (2 * vxy + c2) / ((mx * mx + my * my + c1) * (vx + vy + c2))).sum()

    bands = [slice(top, top + SSIM_ROWS + 10) for top in range(0, h - 10, SSIM_ROWS)]  # to save memory
    sums = torch.stack([total(x[..., band, :], y[..., band, :]) for band in bands])
    return sums.sum() / (x[..., 0, 0].numel() * (h - 10) * (w - 10))


# --- output ---------------------------------------------------------------------------------------------------------


def to_json(value: typing.Any, indent: int | None = None) -> str:
    """`value` as standard JSON, which has no numbers that are not finite: they become null."""
    def known(value):
        if isinstance(value, dict):
            return {k: known(v) for k, v in value.items()}
        if isinstance(value, list):
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
