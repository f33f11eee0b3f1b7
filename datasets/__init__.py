"""Image folders, the samples that are cut from them, and data loading: `make` builds a dataset from a spec.

To add a dataset, put a class under `@register('its-name')` into a file in this folder, and import that file below.
"""

from config import Registry

registry = Registry('dataset')
register = registry.register
make = registry.make

from datasets import degraded, image_folder, wrappers  # noqa: F401  (importing registers)
from datasets.loader import GlobalBatches, make_loader  # (which uses `make`)

__all__ = ['GlobalBatches', 'make', 'make_loader', 'register']
