"""Photos made up for tests."""

import numpy as np
from PIL import Image


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


def truncate(path):
    path.write_bytes(path.read_bytes()[:path.stat().st_size // 2])
