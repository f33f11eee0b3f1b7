"""What is done to images on the way to a sample: resizing, cropping, flipping.

Images are arrays (H, W, C): uint8, uint16, or float32 in [0, 1].
"""

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image

from datasets.arrays import rounded


def to_tensor(image: np.ndarray) -> torch.Tensor:
    """A copy of an image (H, W, C) as a tensor (C, H, W) of the same type."""
    return torch.from_numpy(image.transpose(2, 0, 1).copy())


def resize(image: np.ndarray, size: tuple[int, int], resampling: int = Image.BICUBIC) -> np.ndarray:
    """`image` resized to `size` (h, w) by one of PIL's filters, which antialias when they shrink; of the same type."""
    def resized(pixels):
        return np.asarray(Image.fromarray(pixels).resize(size[::-1], resampling))

    if image.dtype == np.uint8 and image.shape[2] == 3:
        return resized(image)
    planes = np.moveaxis(image, 2, 0)
    if image.dtype == np.uint8:
        return np.dstack([resized(plane) for plane in planes])
    return rounded(np.dstack([resized(plane.astype(np.float32)) for plane in planes]), image.dtype)


def short_side(image: np.ndarray, length: int) -> tuple[int, int]:
    """The size (h, w) of `image` with its shorter side scaled to `length`, rounded as in torchvision's Resize."""
    h, w = image.shape[:2]
    return (length, int(length * w / h)) if h <= w else (int(length * h / w), length)


def random_corner(image: np.ndarray, size: tuple[int, int], rng: np.random.Generator) -> tuple[int, int]:
    """The corner (y, x) of a random crop of `size` (h, w) in `image`."""
    return tuple(rng.integers(n - length + 1) for n, length in zip(image.shape, size, strict=False))


def crop(image: np.ndarray, y: int, x: int, size: tuple[int, int]) -> np.ndarray:
    """The part of `image` of `size` (h, w) that begins at row y and column x."""
    return image[y:y + size[0], x:x + size[1]]


def contains(image: Sequence[int], size: Sequence[int]) -> bool:
    """Whether a crop of `size` (h, w) fits into an image of shape `image`, (h, w, ...)."""
    return all(n >= length for n, length in zip(image, size, strict=False))


def flip_and_transpose(images: Sequence[np.ndarray], rng: np.random.Generator,
                       may_transpose: bool = True) -> list[np.ndarray]:
    """Views of the images, all flipped in y, flipped in x, and transposed, each with probability 1/2."""
    flip_y, flip_x, transpose = (rng.random(3) < 0.5) & (True, True, may_transpose)
    images = [image[::-1 if flip_y else 1, ::-1 if flip_x else 1] for image in images]
    return [image.transpose(1, 0, 2) if transpose else image for image in images]
