"""A-LIIF's models for torch.hub, from any folder:

    model = torch.hub.load('OWNER/REPOSITORY', 'aliif_pixel')  # or from a clone: load('PATH', ..., source='local')
    big = model.upscale(Image.open('photo.jpg'), scale=3.7)

Other programs also use the module names of this repository (`datasets`, `models`, `utils`, `config`, `test`, ...). Its
modules are therefore imported without replacing any that have these names already. A-LIIF's CUDA kernels, which are
only imported when they are first used, are not found in that case; PyTorch's own operations are used instead.
"""

dependencies = ['torch', 'numpy', 'yaml', 'tqdm', 'PIL', 'safetensors', 'tifffile']

import contextlib
import importlib
import sys
from collections.abc import Iterator
from functools import cache, partial
from pathlib import Path
from types import ModuleType

import torch

ROOT = Path(__file__).resolve().parent
OURS = {path.stem if path.suffix == '.py' else path.name for path in ROOT.iterdir()
        if path.suffix == '.py' or (path / '__init__.py').is_file()}


def is_ours(module: str) -> bool:
    return module.partition('.')[0] in OURS - {'hubconf'}


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Inside, this repository's modules are imported under their own names; afterwards the names are as before."""
    others = {name: sys.modules.pop(name) for name in [*sys.modules] if is_ours(name)}
    sys.path.insert(0, str(ROOT))
    try:
        yield
    finally:
        sys.path.remove(str(ROOT))
        for name in [name for name in sys.modules if is_ours(name)]:
            del sys.modules[name]
        sys.modules.update(others)


@cache
def package() -> ModuleType:
    """The package `models` of this repository, with all that it imports."""
    with alone():
        return importlib.import_module('models')


def load(name: str) -> torch.nn.Module:
    """The model `name` from pretrained/, or from the checkpoint at that path, in evaluation mode, on the CPU.

    `model.upscale(image, scale=3.7)`, or with `size=(H, W)`, is `models.upscale_pil` for a PIL image.
    `model(inp, coord, cell)` is LIIF's interface: inp (B, 3, h, w) in [-1, 1]; coord and cell (B, Q, 2); the result is
    colours (B, Q, 3) in [-1, 1]. Its classes are in no importable module, so it cannot be pickled whole: save its
    `state_dict()`.
    """
    models = package()
    model = models.load_pretrained(name)
    model.upscale = partial(models.upscale_pil, model)
    return model


def aliif_pixel() -> torch.nn.Module:
    """A-LIIF in pixel space, with EDSR-baseline as encoder: the demo's default, the best and fastest model here."""
    return load('edsr-baseline-A-liif-pixel')


def aliif_pixel_web() -> torch.nn.Module:
    """The same, trained further for pictures from the web: compressed as JPEG, blurred, noisy."""
    return load('edsr-baseline-A-liif-pixel-web')


def aliif() -> torch.nn.Module:
    """A-LIIF with a function for each query, as in the paper, and a bilinear residual; EDSR-baseline as encoder."""
    return load('edsr-baseline-A-liif')


def liif() -> torch.nn.Module:
    """LIIF with a bilinear residual, trained like `aliif`; EDSR-baseline as encoder."""
    return load('edsr-baseline-liif')


def lte() -> torch.nn.Module:
    """LTE, trained like `aliif`; EDSR-baseline as encoder."""
    return load('edsr-baseline-lte')
