"""Data flows one way: no package imports from one that is built on it."""

import ast

import pytest
from paths import ROOT

LAYERS = 'datasets', 'pictures', 'models', 'training', 'demos', 'web', 'scripts'  # each may use those before it


def imported(path):
    """The top-level names of all modules that the file at `path` imports, also inside functions."""
    nodes = list(ast.walk(ast.parse(path.read_text())))
    names = [name.name for node in nodes if isinstance(node, ast.Import) for name in node.names]
    names += [node.module for node in nodes if isinstance(node, ast.ImportFrom)]
    return {name.partition('.')[0] for name in names}


@pytest.mark.parametrize('package', LAYERS)
def test_a_package_imports_from_none_that_comes_after_it(package):
    above = set(LAYERS[LAYERS.index(package) + 1:])
    files = list((ROOT / package).glob('*.py'))
    assert files
    assert {path.name: imported(path) & above for path in files if imported(path) & above} == {}
