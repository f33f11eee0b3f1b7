"""Models whose answer is known, and pictures to try them on."""

import numpy as np
import specs
import torch
import torch.nn.functional as F
from PIL import Image, ImageCms

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile('sRGB')).tobytes()
# its red is sRGB's blue, and the other way round
SWAPPED = SRGB.replace(b'rXYZ', b'....').replace(b'bXYZ', b'rXYZ').replace(b'....', b'bXYZ')
RANDOM = specs.pixel(residual='bilinear')


def silence(model, offset=0.0):
    """Leaves of `model` its residual, that is bilinear interpolation, plus `offset` in units of [0, 1].

    The last biases mix to the sum of K of them with the weights c, which are made equal: c_k = 1 / sqrt(K).
    """
    for param in model.imnet.parameters():
        torch.nn.init.zeros_(param)
    set_weights(model, torch.ones(model.imnet.K))
    torch.nn.init.constant_(model.imnet.biases[-1], 2 * offset / model.imnet.K ** 0.5)


def set_weights(model, weights):
    """Makes the expansion net answer the same `weights` (K,), L2-normalised, everywhere."""
    last = model.expansion.layers[-1]
    torch.nn.init.zeros_(last.weight)
    last.bias.data.copy_(weights)


def picture(mode='RGB', width=12, height=10, seed=0):
    """A smooth picture, without detail that a lossy format would change much; alpha is even."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (3, 4, 3), np.uint8))
    image = small.resize((width, height), Image.BICUBIC)
    if mode.endswith('A'):
        image.putalpha(200)
    return image.convert(mode)


def interpolated(values, size):
    """`values` (h, w) or (h, w, C) at `size` (H, W) by bilinear interpolation, edges repeated: float64, as shaped."""
    values = torch.from_numpy(np.asarray(values, dtype=float))
    planes = values.view(*values.shape[:2], -1).permute(2, 0, 1)[None]
    planes = F.interpolate(planes, size, mode='bilinear', align_corners=False)[0].permute(1, 2, 0)
    return planes.reshape(*size, *values.shape[2:]).numpy()


def assert_close(image, values, tolerance=1.0):
    np.testing.assert_allclose(np.asarray(image, dtype=float), values, rtol=0, atol=tolerance)


def assert_as_written(image, values, suffix):
    """Lossy formats may be further off at some pixels, most of all WebP, which halves the resolution of colour."""
    if suffix in ('.jpg', '.jpeg', '.webp'):
        assert np.abs(np.asarray(image, dtype=float) - values).mean() < 6
    else:
        assert_close(image, values)
