"""docs/paper.md: what it names is there."""

import inspect
import re
from pkgutil import resolve_name

import pytest
from paths import ROOT

PAGE = (ROOT / 'docs/paper.md').read_text(encoding='utf-8')
NAMES = sorted(set(re.findall(r'`((?:datasets|models|utils)\.[\w.]+)`', PAGE)))


@pytest.mark.parametrize('name', NAMES)
def test_a_name_of_the_page_is_a_function_or_class(name):
    module, _, path = name.rpartition('.')
    found = resolve_name(name)
    assert inspect.isclass(found) or inspect.isfunction(found)
    assert path in vars(resolve_name(module)) and found.__qualname__.endswith(path)


def test_every_equation_names_what_computes_it():
    rows = [line for line in PAGE.splitlines() if line.startswith('| ') and not line.startswith('| |')]
    assert len(rows) >= 18
    for row in rows:
        assert re.search(r'`[a-z_]+\.[\w.]+`', row.rsplit(' | ', 1)[1]), row
