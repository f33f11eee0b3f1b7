"""MATLAB's imresize, which made the low-resolution images that DIV2K and the benchmarks supply."""

import numpy as np

from datasets.arrays import rounded


def cubic(x: np.ndarray) -> np.ndarray:
    """The cubic convolution kernel with a = -1/2 (Keys, 1981)."""
    x = np.abs(x)
    near, far = (1.5 * x - 2.5) * x * x + 1, ((-0.5 * x + 2.5) * x - 4) * x + 2
    return np.where(x <= 1, near, np.where(x <= 2, far, 0))


def resize_axis(image: np.ndarray, axis: int, length: int) -> np.ndarray:
    """`image` resized to `length` pixels along one axis, of the same type; the kernel is wider when it shrinks."""
    before = image.shape[axis]
    scale = length / before
    width = 4 / min(scale, 1)
    centre = (np.arange(length) + 0.5) / scale - 0.5
    taps = np.floor(centre - width / 2).astype(int)[:, None] + np.arange(int(np.ceil(width)) + 2)
    weights = cubic((centre[:, None] - taps) * min(scale, 1))
    weights /= weights.sum(axis=1, keepdims=True)
    taps = taps % (2 * before)  # mirrored, with the edge pixel repeated
    taps = np.minimum(taps, 2 * before - 1 - taps)
    matrix = np.zeros((length, before))
    np.add.at(matrix, (np.arange(length)[:, None], taps), weights)
    resized = np.moveaxis(np.tensordot(matrix, image, (1, axis)), 0, axis)
    return rounded(resized, image.dtype)


def imresize(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """`image` (H, W, C) resized to `size` (h, w) as imresize does by default, bicubic with antialiasing: (h, w, C).

    As in MATLAB, the axis that shrinks most is resized first, and the result is rounded to the image's type in between.
    """
    for axis in sorted((0, 1), key=lambda axis: size[axis] / image.shape[axis]):
        image = resize_axis(image, axis, size[axis])
    return image
