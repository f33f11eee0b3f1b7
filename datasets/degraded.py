"""Inputs that resemble pictures from the web: blurred, reduced by various filters, noisy, compressed as JPEG.

The idea is that of BSRGAN (Zhang et al., "Designing a Practical Degradation Model for Deep Blind Image
Super-Resolution", ICCV 2021) and Real-ESRGAN (Wang et al., ICCVW 2021): a model that has seen such inputs does not
sharpen noise and artefacts. Their degradations are far stronger, because a GAN invents the lost detail. Here each
degradation is applied at most once, and weakly enough to leave most of the detail.
"""

import io
import math

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from datasets.registry import register
from datasets.transforms import resize, to_tensor
from datasets.wrappers import SRImplicitDownsampled
from errors import UserError

FILTERS = Image.BOX, Image.BILINEAR, Image.LANCZOS  # besides bicubic; nearest would shift the input against its target
SIGMA = 0.1, 0.75  # range of the blur's standard deviation, in pixels of the input
LEVEL = 1, 10  # range of the noise's standard deviation, of 255
MCU = 16  # side of the blocks that a JPEG encodes if colour has half the resolution


# --- steps, on uint8 images (H, W, 3) --------------------------------------------------------------


def draw_covariance(scales: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The covariance (2, 2), in pixels of a target, of a random Gaussian: round or oblong, with equal probability.

    scales: the target's scales (y, x), an array.
    """
    sigmas = rng.uniform(*SIGMA, 2)
    if rng.random() < 0.5:
        sigmas[1] = sigmas[0]
    angle = rng.uniform(0, math.pi)
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    axes = scales[:, None] * turn * sigmas
    return axes @ axes.T


def blur(image: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    """`image` convolved with the Gaussian of `covariance` (2, 2), in y and x, in pixels; edge pixels are repeated."""
    reach = [math.ceil(3 * math.sqrt(variance)) for variance in covariance.diagonal()]
    offsets = np.stack(np.mgrid[tuple(slice(-n, n + 1) for n in reach)], axis=-1)
    kernel = np.exp(-0.5 * np.einsum('yxi,ij,yxj->yx', offsets, np.linalg.inv(covariance), offsets))
    weight = torch.from_numpy(kernel / kernel.sum()).float()[None, None]
    planes = F.pad(to_tensor(image)[:, None].float(), (reach[1], reach[1], reach[0], reach[0]), 'replicate')
    return F.conv2d(planes, weight)[:, 0].round().byte().permute(1, 2, 0).numpy()


def add_noise(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """`image` with Gaussian noise: grey or coloured; uniform or, like photon noise, stronger in bright areas."""
    level, grey, photons = rng.uniform(*LEVEL), *(rng.random(2) < 0.5)
    deviation = level * np.sqrt(image / 128) if photons else level
    noise = deviation * rng.standard_normal((*image.shape[:2], 1 if grey else 3))
    return (image + noise).round().clip(0, 255).astype(np.uint8)


def compress(image: np.ndarray, quality: int, subsampling: str = '4:2:0', corner: tuple = (0, 0)) -> np.ndarray:
    """`image` compressed as JPEG and decoded; the grid of blocks starts `corner` (y, x) pixels outside the image."""
    y, x = corner
    file = io.BytesIO()
    whole = np.pad(image, ((y, 0), (x, 0), (0, 0)), 'symmetric')
    Image.fromarray(whole).save(file, 'JPEG', quality=quality, subsampling=subsampling)
    return np.asarray(Image.open(file, formats=['JPEG']))[y:, x:]


# --- wrapper ---------------------------------------------------------------------------------------


@register('sr-implicit-degraded')
class SRImplicitDegraded(SRImplicitDownsampled):
    """Samples of sr-implicit-downsampled with randomly degraded inputs, in the order below; targets stay unchanged.

    Crops, flips and queries are the same as that wrapper's, and if all probabilities are 0, so are the inputs. For RGB
    images of 8 bits only.

    Args:
        blur: probability of a Gaussian blur with a standard deviation of up to 0.75 input pixels.
        filters: probability of reducing with a box, bilinear or Lanczos filter instead of bicubic.
        noise: probability of noise with a standard deviation of 1 to 10 (of 255).
        jpeg: probability of JPEG compression. A crop (inp_size) is treated as part of a larger file: its blocks start
            anywhere, and colour has full or half resolution. A whole image is compressed as Pillow does it, 4:2:0.
        quality: JPEG quality, 1 to 100: a number, or a range to draw from, such as [40, 95].
        downsampled: the arguments of sr-implicit-downsampled.
    """

    def __init__(self, dataset, blur: float = 0, filters: float = 0, noise: float = 0, jpeg: float = 0,
                 quality: int | list[int] = (40, 95), **downsampled):
        super().__init__(dataset, **downsampled)
        if (self.n_colors, self.dtype) != (3, np.uint8):
            raise UserError('sr-implicit-degraded is for RGB images of 8 bits (channels: rgb)')
        self.probabilities = {'blur': blur, 'filters': filters, 'noise': noise, 'jpeg': jpeg}
        for key, value in self.probabilities.items():
            if not 0 <= value <= 1:
                raise UserError(f'{key} must be a probability, from 0 to 1, not {value:g}')
        self.quality = [quality] * 2 if isinstance(quality, int) else list(quality)
        if len(self.quality) != 2 or not 1 <= self.quality[0] <= self.quality[1] <= 100:
            raise UserError(f'quality must be from 1 to 100, a number or [least, most], not {quality}')

    def reduce(self, target, size, rng):
        rng, = rng.spawn(1)  # so that crops, flips and queries do not depend on what is drawn here
        blurred, other, noisy, compressed = rng.random(4) < list(self.probabilities.values())
        if blurred:
            target = blur(target, draw_covariance(np.divide(target.shape[:2], size), rng))
        inp = resize(target, size, FILTERS[rng.integers(len(FILTERS))]) if other else super().reduce(target, size, rng)
        if noisy:
            inp = add_noise(inp, rng)
        if compressed:
            inp = self.compress(inp, rng)
        return inp

    def compress(self, inp, rng):
        least, most = self.quality
        quality = int(rng.integers(least, most + 1))
        if self.inp_size is None:
            return compress(inp, quality)
        return compress(inp, quality, ('4:2:0', '4:4:4')[rng.integers(2)], rng.integers(MCU, size=2))
