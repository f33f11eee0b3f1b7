"""Datasets and wrappers by name: `register` one, `make` it from a spec."""

from config import Registry

registry = Registry('dataset')
register = registry.register
make = registry.make
