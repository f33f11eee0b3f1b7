"""Config files that are hostile or broken end in one line, and what YAML may hold stays as it was meant."""

import os
import random

import fuzz
import pytest
import yaml
from projects import CONFIG

from config import load_yaml
from errors import UserError


def nine(i):
    """Nine aliases of the anchor before the i-th."""
    return f'[{", ".join([f"*a{i - 1}"] * 9)}]'


@pytest.mark.parametrize('text, message', [
    ('1: a\n1.0: b', 'key 1.0 is given twice, the second time in line 2'),
    ('a: 2001-99-99', 'is not valid YAML (month must be in 1..12)'),
    ('a: 0x_', 'is not valid YAML (invalid literal for int() with base 16'),
    ('a: !!timestamp now', 'is not valid YAML ('), ('a: !!float x', 'is not valid YAML ('),
    ('? [a, b]\n: c', 'is not valid YAML ('), ('a: =', 'is not valid YAML ('), ('\0', 'is not valid YAML ('),
    ('[' * 3000, 'is not valid YAML ('),
    (f'a: {"[" * 60}{"]" * 60}', 'is nested more than 50 levels deep'), ('a: &a [*a]', 'is nested more than 50 levels'),
    (f'a: {"1" * 5000}', 'line 1 has a text of 5000 characters, but at most 3000 are'),
    ('a0: &a0 [x, x]\n' + ''.join(f'a{i}: &a{i} {nine(i)}\n' for i in range(1, 9)),
     'holds more than 100,000 values, aliases counted as often as they are used'),
    ('a0: &a0 {b: 1, c: 2}\n' + ''.join(f'a{i}: &a{i} {{<<: {nine(i)}}}\n' for i in range(1, 9)),
     'holds more than 100,000 values, aliases counted as often as they are used'),
    ('#' * (2 << 20), 'is not a config: it has more than 1,048,576 bytes'),
])
def test_a_file_that_is_no_config_is_refused_in_one_line(tmp_path, text, message):
    (tmp_path / 'a.yaml').write_text(text)
    with pytest.raises(UserError) as error:
        load_yaml(tmp_path / 'a.yaml')
    assert str(error.value).startswith(f'{tmp_path}/a.yaml: {message}') and len(str(error.value).splitlines()) == 1


def test_a_file_in_another_encoding_is_refused(tmp_path):
    (tmp_path / 'a.yaml').write_bytes('a: é'.encode('latin-1'))
    with pytest.raises(UserError, match=r'a.yaml: is not valid YAML \(.*utf-8'):
        load_yaml(tmp_path / 'a.yaml')


def test_an_anchor_and_its_aliases_are_one_value_used_twice(tmp_path):
    (tmp_path / 'a.yaml').write_text('a: &a {b: 1, c: [2]}\nd: {<<: *a, b: 3}\ne: *a\n')
    assert load_yaml(tmp_path / 'a.yaml') == {'a': {'b': 1, 'c': [2]}, 'd': {'b': 3, 'c': [2]}, 'e': {'b': 1, 'c': [2]}}


def test_a_key_set_on_the_command_line_changes_none_of_the_keys_that_share_its_anchor(tmp_path):
    (tmp_path / 'a.yaml').write_text('a: &a {b: {c: 1}}\nd: *a\ne: {<<: *a, f: 2}\n')
    assert load_yaml(tmp_path / 'a.yaml', ['d.b.c=3', 'e.g=4']) == {
        'a': {'b': {'c': 1}}, 'd': {'b': {'c': 3}}, 'e': {'b': {'c': 1}, 'f': 2, 'g': 4}}


def test_a_name_that_is_no_utf8_can_be_set_on_the_command_line(tmp_path):
    (tmp_path / 'a.yaml').write_text('a: b\n')
    name = os.fsdecode(b'caf\xe9')
    keys = load_yaml(tmp_path / 'a.yaml', [f'a={name}'])
    assert keys == {'a': name}
    (tmp_path / 'run.yaml').write_text(yaml.safe_dump(keys), encoding='utf-8')  # as a run's folder keeps them
    assert load_yaml(tmp_path / 'run.yaml') == keys


def test_keys_may_be_numbers_and_a_file_may_begin_with_a_mark(tmp_path):
    (tmp_path / 'a.yaml').write_bytes('\ufeffa: {1: b, 2: c}'.encode())
    assert load_yaml(tmp_path / 'a.yaml') == {'a': {1: 'b', 2: 'c'}}


@fuzz.each_seed
def test_a_damaged_config_is_read_or_refused_in_one_line(tmp_path, seed):
    fuzz.try_config(random.Random(seed), tmp_path / 'a.yaml')


def test_the_undamaged_config_is_read(tmp_path):
    (tmp_path / 'a.yaml').write_text(yaml.safe_dump(CONFIG))
    assert load_yaml(tmp_path / 'a.yaml') == CONFIG
