"""MATLAB's imresize, by which DIV2K's and the benchmarks' own low-resolution images were made."""

import numpy as np

from datasets.arrays import rounded


def cubic(x: np.ndarray) -> np.ndarray:
    """The cubic convolution kernel with a = -1/2 (Keys, 1981)."""
    x = np.abs(x)
    near, far = (1.5 * x - 2.5) * x * x + 1, ((-0.5 * x + 2.5) * x - 4) * x + 2
    return np.where(x <= 1, near, np.where(x <= 2, far, 0))


def resize_axis(image: np.ndarray, axis: int, length: int) -> np.ndarray:
    """An image of the same type with `length` pixels along one axis; the kernel is widened where it shrinks."""
    before = image.shape[axis]
    scale = length / before
    width = 4 / min(scale, 1)
    centre = (np.arange(length) + 0.5) / scale - 0.5
    taps = np.floor(centre - width / 2).astype(int)[:, None] + np.arange(int(np.ceil(width)) + 2)
    weights = cubic((centre[:, None] - taps) * min(scale, 1))
    weights /= weights.sum(axis=1, keepdims=True)
    taps = taps % (2 * before)  # mirrored, the edge repeated
    taps = np.minimum(taps, 2 * before - 1 - taps)
    matrix = np.zeros((length, before))
    np.add.at(matrix, (np.arange(length)[:, None], taps), weights)
    resized = np.moveaxis(np.tensordot(matrix, image, (1, axis)), 0, axis)
    return rounded(resized, image.dtype)


def imresize(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """`image` (H, W, C) in `size` (h, w) by imresize's default, bicubic with antialiasing: (h, w, C) of its type.

    As there, the axis that shrinks most goes first, and the image is of its type, as of 8 bits, in between.
    """
    for axis in sorted((0, 1), key=lambda axis: size[axis] / image.shape[axis]):
        image = resize_axis(image, axis, size[axis])
    return image
