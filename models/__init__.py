"""Encoders and decoders by name: `make` builds a model from a spec, `load` from a checkpoint file.

To add one, put a class under `@register('its-name')` into a file in this folder, and import it below.
"""

from models import a_liif, edsr, liif, lmf, lte, metasr, mlp, rcan, rdn, swinir  # noqa: F401  (registers them)
from models.arrays import upscale
from models.bicubic import Bicubic
from models.checkpoint import load
from models.pictures import upscale_pil
from models.pretrained import load_pretrained
from models.regions import upscale_region
from models.registry import make, register

__all__ = ['Bicubic', 'load', 'load_pretrained', 'make', 'register', 'upscale', 'upscale_pil', 'upscale_region']
