"""Image folders, the samples that are cut from them, and data loading: `make` builds a dataset from a spec.

To add a dataset, put a class under `@register('its-name')` into a file in this folder, and import that file below.
"""

from datasets import degraded, image_folder, wrappers  # noqa: F401  (registers them)
from datasets.loader import make_loader
from datasets.registry import make, register

__all__ = ['make', 'make_loader', 'register']
