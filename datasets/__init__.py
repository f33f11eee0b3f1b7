"""Image folders, the samples that are cut from them, and their loading: `make` builds a dataset from a spec.

To add one: a file beside these with a class under `@register('its-name')`, imported below.
"""

from config import Registry

registry = Registry('dataset')
register = registry.register
make = registry.make

from datasets import degraded, image_folder, wrappers  # noqa: F401  (importing registers)
from datasets.loader import GlobalBatches, make_loader  # (it uses `make`)

__all__ = ['GlobalBatches', 'make', 'make_loader', 'register']
