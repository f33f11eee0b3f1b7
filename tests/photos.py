"""Photos made up for tests, and samples of them."""

import struct
import zlib

import numpy as np
import torch
from PIL import Image

TOPS = {np.uint8: 255, np.uint16: 65535, np.float32: 1}  # the value of white, by type


def photo(h, w, seed=0):
    """A uint8 image (h, w, 3), smooth with some noise."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (5, 7, 3), dtype=np.uint8))
    smooth = np.asarray(small.resize((w, h), Image.BICUBIC)).astype(int)
    return np.clip(smooth + rng.integers(-20, 21, (h, w, 3)), 0, 255).astype(np.uint8)


def save_photos(folder, **sizes):
    """Writes NAME.png of size (h, w) for each of `sizes`."""
    folder.mkdir(parents=True, exist_ok=True)
    for seed, (name, (h, w)) in enumerate(sizes.items()):
        Image.fromarray(photo(h, w, seed)).save(folder / f'{name}.png')
    return folder


def write_images(root, names, size):
    """Writes pictures of smooth noise, of `size` (w, h), under these `names`."""
    root.mkdir(exist_ok=True)
    for i, name in enumerate(names):
        noise = Image.fromarray(np.random.default_rng(i).integers(0, 256, (8, 8, 3), np.uint8))
        noise.resize(size, Image.BICUBIC).save(root / name)


def same_items(one, other):
    """That two samples, or batches, are equal bit for bit."""
    assert one.keys() == other.keys()
    for key in one:
        assert one[key].dtype == other[key].dtype, key
        assert torch.equal(one[key], other[key]), key


def truncate(path):
    path.write_bytes(path.read_bytes()[:path.stat().st_size // 2])


def write_png16(path, image):
    """A 16-bit PNG of a uint16 image, grey (H, W) or RGB (H, W, 3); PIL itself writes no 16-bit RGB."""
    def chunk(kind, data):
        return struct.pack('>I', len(data)) + kind + data + struct.pack('>I', zlib.crc32(kind + data))
    h, w = image.shape[:2]
    header = struct.pack('>IIBBBBB', w, h, 16, 2 if image.ndim == 3 else 0, 0, 0, 0)
    rows = b''.join(b'\0' + row.astype('>u2').tobytes() for row in image)
    chunks = chunk(b'IHDR', header) + chunk(b'IDAT', zlib.compress(rows)) + chunk(b'IEND', b'')
    path.write_bytes(b'\x89PNG\r\n\x1a\n' + chunks)


def noise(*shape, dtype=np.uint16, seed=0):
    """An array of `shape` from black to white of its type, whose low bits matter."""
    return (np.random.default_rng(seed).random(shape) * TOPS[dtype]).astype(dtype)
