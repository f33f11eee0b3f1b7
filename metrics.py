"""How a prediction is scored: the pixels that a benchmark's convention compares, and the metrics that compare them.

A metric is a function `metric(sr, hr, dataset, scale)` -> 0-d tensor under `@metrics.register('name')`. `sr`, the
prediction, and `hr`, the truth, are images (C, H, W), or samples (Q, C), in [0, 1]; `scored_pixels` chooses what is
compared. test.py measures all registered metrics, including those of `--import`. If a metric raises TooSmall, it has no
value for that image.
"""

import math

import torch
import torch.nn.functional as F

from config import Registry
from errors import UserError, size_text, unknown

SSIM_ROWS = 256  # number of rows that are computed at a time
LUMA = (65.738 / 256, 129.057 / 256, 25.064 / 256)  # Y of ITU-R BT.601, from 16/255 (black) to 235/255 (white)


metrics = Registry('metric')


class TooSmall(UserError):
    """Raised for an image of which a benchmark's convention, or a metric's window, leaves nothing to compare."""


def luma(img: torch.Tensor) -> torch.Tensor:
    """Y, (..., 1, H, W), of an RGB image (..., 3, H, W) in [0, 1]."""
    return 16 / 255 + (img * img.new_tensor(LUMA).view(3, 1, 1)).sum(dim=-3, keepdim=True)


def scored_pixels(sr: torch.Tensor, hr: torch.Tensor, dataset: str | None = None,
                  scale: float = 1) -> tuple[torch.Tensor, torch.Tensor]:
    """The part of two images (..., C, H, W) that a benchmark's convention compares.

    `dataset` names the convention. None: everything. 'benchmark' (Set5, Set14, B100, Urban100): Y, or grey itself,
    without a border of `scale` pixels. 'div2k': all channels, without a border of `scale` + 6 pixels. Fractional
    borders are rounded up.
    """
    if sr.shape != hr.shape:  # PyTorch would broadcast them
        raise UserError(f'the images to compare are {tuple(sr.shape)} and {tuple(hr.shape)}')
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


@metrics.register('psnr')
def calc_psnr(sr: torch.Tensor, hr: torch.Tensor, dataset: str | None = None, scale: float = 1,
              rgb_range: float = 1) -> torch.Tensor:
    """PSNR in dB, a 0-d tensor, of images (..., C, H, W) or samples of equal shape; inf if they are equal.

    `rgb_range`: the value of white. `dataset` and `scale` choose the pixels, see `scored_pixels`.
    """
    sr, hr = scored_pixels(sr / rgb_range, hr / rgb_range, dataset, scale)
    return -10 * torch.log10((sr - hr).pow(2).mean())


@metrics.register('ssim')
def calc_ssim(sr: torch.Tensor, hr: torch.Tensor, dataset: str | None = None, scale: float = 1) -> torch.Tensor:
    """SSIM (Wang et al. 2004), a 0-d tensor, of images (..., C, H, W) in [0, 1].

    It compares the same pixels as `calc_psnr`: the mean over channels and over all pixels at which the Gaussian window
    (11x11, sigma 1.5) fits entirely. Raises TooSmall if there are none.
    """
    x, y = scored_pixels(sr, hr, dataset, scale)
    h, w = x.shape[-2:]
    if x.dim() < 3 or min(h, w) < 11:
        raise TooSmall(f'SSIM needs images of 11x11 pixels, not {tuple(x.shape)}')
    taps = torch.exp(-(torch.arange(11, dtype=x.dtype, device=x.device) - 5) ** 2 / (2 * 1.5 ** 2))
    taps = taps / taps.sum()

    def blur(x):
        x = x.reshape(-1, 1, *x.shape[-2:])
        return F.conv2d(F.conv2d(x, taps.view(1, 1, 11, 1)), taps.view(1, 1, 1, 11))

    def total(x, y):
        mx, my = blur(x), blur(y)
        vx, vy, vxy = blur(x * x) - mx * mx, blur(y * y) - my * my, blur(x * y) - mx * my
        c1, c2 = 0.01 ** 2, 0.03 ** 2
        return ((2 * mx * my + c1) * (2 * vxy + c2) / ((mx * mx + my * my + c1) * (vx + vy + c2))).sum()

    bands = [slice(top, top + SSIM_ROWS + 10) for top in range(0, h - 10, SSIM_ROWS)]  # to save memory
    sums = torch.stack([total(x[..., band, :], y[..., band, :]) for band in bands])
    return sums.sum() / (x[..., 0, 0].numel() * (h - 10) * (w - 10))
