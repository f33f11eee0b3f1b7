"""Fixed crops of the validation images, for previews that can be compared from epoch to epoch."""

import numpy as np
import torch
import torch.nn.functional as F

from datasets.transforms import crop, resize, to_tensor
from datasets.wrappers import ImplicitWrapper, paired_scale
from errors import UserError
from utils import to_float

SIZE, SCALES, IMAGES = 48, (2, 3, 4), 2  # side in input pixels; scales; number of images


def make_previews(samples: ImplicitWrapper) -> list[tuple[str, dict]]:
    """Pairs of a name and a batch. A batch is one crop from the centre of one of the images that `samples` wraps."""
    previews = []
    for i in range(min(IMAGES, len(samples.dataset.files))):
        image = samples.dataset[i]
        if samples.paired:
            try:
                scale = paired_scale(image[0].shape, image[1].shape)
            except UserError:  # sizes without a whole scale, for a wrapper that resizes
                continue
            size = min(SIZE, *image[0].shape[:2])
            y, x = ((n - size) // 2 for n in image[0].shape[:2])
            target = crop(image[1], y * scale, x * scale, (size * scale,) * 2)
            pairs = [(scale, crop(image[0], y, x, (size, size)), target)]
        else:
            pairs = []
            for scale in SCALES:
                size = min(SIZE, *(n // scale for n in image.shape[:2]))
                if size == 0:  # the image has only a pixel or two
                    continue
                y, x = ((n - size * scale) // 2 for n in image.shape[:2])
                target = crop(image, y, x, (size * scale,) * 2)
                pairs.append((scale, samples.reduce(target, (size, size), np.random.default_rng(i)), target))
        previews += [(f'image{i + 1}_x{scale}', whole_batch(lr, hr)) for scale, lr, hr in pairs]
    return previews


def whole_batch(inp: np.ndarray, target: np.ndarray) -> dict:
    """A batch of one sample, of all pixels of the images `inp` (h, w, C) and `target` (H, W, C)."""
    return {'inp': to_tensor(inp)[None], 'gt': to_tensor(target)[None]}


def strip(batch: dict, pred: torch.Tensor, shown: list[int]) -> torch.Tensor:
    """The `shown` channels of low resolution, bicubic, prediction and truth, side by side: uint8 (1 or 3, H, 4 W)."""
    lr, gt = batch['inp'][0], batch['gt'][0]
    size = tuple(gt.shape[-2:])
    bicubic = to_tensor(resize(lr.permute(1, 2, 0).numpy(), size))
    images = F.interpolate(to_float(lr)[None], size)[0], to_float(bicubic), pred.cpu(), to_float(gt)
    return (torch.cat(images, dim=2)[shown] * 255).round().byte()
