"""Samples made the obvious way: the whole image as floats, the whole grid of queries, and then a choice among them."""

import numpy as np
import torch
from PIL import Image

from utils import make_coord


def plain_tensor(image):
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255


def plain_resize(image, h, w):
    pil = Image.fromarray((image * 255).round().byte().permute(1, 2, 0).numpy())
    return plain_tensor(pil.resize((w, h), Image.BICUBIC))


def plain_flips(rng, *images):
    dims = [dim for dim in (1, 2) if rng.random() < 0.5]
    transpose = rng.random() < 0.5
    return [image.flip(dims).transpose(1, 2) if transpose else image.flip(dims) for image in images]


def plain_bytes(image):
    return (image * 255).round().byte()


def plain_item(inp, target, sample_q, rng):
    if sample_q is None:
        return {'inp': plain_bytes(inp), 'gt': plain_bytes(target)}
    h, w = target.shape[1:]
    coord, gt = make_coord((h, w)), target.permute(1, 2, 0).reshape(-1, 3)
    cell = torch.tensor([2 / h, 2 / w]).repeat(h * w, 1)
    chosen = rng.choice(h * w, sample_q, replace=False)
    return {'inp': inp, 'coord': coord[chosen], 'cell': cell[chosen], 'gt': gt[chosen]}


def plain_downsampled(image, rng, inp_size, scale_min, scale_max, augment, sample_q, scale_rng=None):
    image = plain_tensor(image)
    size = round(inp_size * (scale_rng or rng).uniform(scale_min, scale_max))
    y = rng.integers(0, image.shape[1] - size + 1)
    x = rng.integers(0, image.shape[2] - size + 1)
    target = image[:, y:y + size, x:x + size]
    inp = plain_resize(target, inp_size, inp_size)
    if augment:
        inp, target = plain_flips(rng, inp, target)
    return plain_item(inp, target, sample_q, rng)


def plain_paired(lr, hr, rng, scale, inp_size, augment, sample_q):
    lr, hr = plain_tensor(lr), plain_tensor(hr)
    y = rng.integers(0, lr.shape[1] - inp_size + 1)
    x = rng.integers(0, lr.shape[2] - inp_size + 1)
    inp = lr[:, y:y + inp_size, x:x + inp_size]
    target = hr[:, y * scale:(y + inp_size) * scale, x * scale:(x + inp_size) * scale]
    if augment:
        inp, target = plain_flips(rng, inp, target)
    return plain_item(inp, target, sample_q, rng)
