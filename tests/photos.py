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
    blurred = np.asarray(small.resize((w, h), Image.BICUBIC)).astype(int)
    return np.clip(blurred + rng.integers(-20, 21, (h, w, 3)), 0, 255).astype(np.uint8)


def save_photos(folder, **sizes):
    """Writes NAME.png of size (h, w) for each of `sizes`."""
    folder.mkdir(parents=True, exist_ok=True)
    for seed, (name, (h, w)) in enumerate(sizes.items()):
        Image.fromarray(photo(h, w, seed)).save(folder / f'{name}.png')
    return folder


def smooth(size, seed=0, cells=(8, 8)):
    """A picture of smooth noise, of `size` (w, h), from that many `cells` (h, w) of colour."""
    noise = np.random.default_rng(seed).integers(0, 256, (*cells, 3), np.uint8)
    return Image.fromarray(noise).resize(size, Image.BICUBIC)


def write_images(root, names, size):
    """Writes `smooth` pictures of `size` (w, h) under these `names`."""
    root.mkdir(parents=True, exist_ok=True)
    for seed, name in enumerate(names):
        smooth(size, seed).save(root / name)


def same_items(one, other):
    """That two samples, or batches, are equal bit for bit."""
    assert one.keys() == other.keys()
    for key in one:
        assert one[key].dtype == other[key].dtype, key
        assert torch.equal(one[key], other[key]), key


def truncate(path):
    path.write_bytes(path.read_bytes()[:path.stat().st_size // 2])


def png_of(chunks):
    """A PNG (bytes) of chunks (kind, content)."""
    return b'\x89PNG\r\n\x1a\n' + b''.join(struct.pack('>I', len(data)) + kind + data + struct.pack(
        '>I', zlib.crc32(kind + data)) for kind, data in chunks)


def png(size, depth, colour_type, rows, transparent=None, interlaced=False):
    """A PNG (bytes) of `size` (w, h) and any depth; `rows` with their filters; `transparent`: its tRNS chunk."""
    header = struct.pack('>IIBBBBB', *size, depth, colour_type, 0, 0, interlaced)
    return png_of([(b'IHDR', header), *([(b'tRNS', transparent)] if transparent else []),
                   (b'IDAT', zlib.compress(rows)), (b'IEND', b'')])


def write_png16(path, image):
    """A 16-bit PNG of a uint16 image, grey (H, W) or RGB (H, W, 3); PIL itself writes no 16-bit RGB."""
    rows = b''.join(b'\0' + row.astype('>u2').tobytes() for row in image)
    path.write_bytes(png(image.shape[1::-1], 16, 2 if image.ndim == 3 else 0, rows))


def noise(*shape, dtype=np.uint16, seed=0):
    """An array of `shape` from black to white of its type, whose low bits matter."""
    return (np.random.default_rng(seed).random(shape) * TOPS[dtype]).astype(dtype)
