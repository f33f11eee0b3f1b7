"""Damaged configs and checkpoints, by seed: whatever is in a file, it is used or refused in one short line.

    PYTHONPATH=. python tests/fuzz.py 20000 [FIRST]    # that many seeds, from FIRST (0), of each reader
"""

import copy
import io
import pickle
import random
import sys
import tempfile
import time
import traceback
import zipfile
from pathlib import Path
from unittest import mock

import specs
import torch
import yaml
from projects import CONFIG

import models
from errors import UserError
from models import checkpoint
from models.registry import make_model
from training.run import read_config

SNIPPETS = [
    '[', ']', '{', '}', ': ', '- ', '&a ', '*a', '<<: *a', '!!int ', '!!float ', '!!timestamp ', '!!binary ', '!!set ',
    '!!omap ', '!!python/name:os.system ', '!x ', '? ', '|', '>', '"', "'", '\t', '\n', '---\n', '...\n', '%YAML 1.1\n',
    '#', '\0', '\ufeff', '\ud7ff', '.nan', '-.inf', '0x', '0b', '1:60:60', '2001-99-99', '~', '=', '1e999', '1' * 400,
    '0x' + 'f' * 2500, 'null', 'true', '\\x', '%', '@', '`', ',']
VALUES = [
    None, True, -1, 0, 1, 10 ** 7, 2 ** 63, 10 ** 30, -10 ** 30, 0.5, float('nan'), float('inf'), 1e308, '', 'a',
    'x' * 999, '1e-4', 'a\nb', [], [1], [[]], [None] * 99, {}, {'name': 'a'}, {'name': 'edsr', 'args': {}}, {1: 2},
    {'a': {'b': []}}, (1, 2), [10 ** 6] * 3, 'edsr', 'liif', 'a-liif', 'mlp', 'bilinear']
TENSORS = [
    torch.zeros(1), torch.zeros(0), torch.tensor(3), torch.zeros(2, 3), torch.full((4,), torch.nan),
    torch.zeros(2).bool(), torch.eye(2).to_sparse(), torch.zeros(2, device='meta'), torch.nn.Parameter(torch.ones(3)),
    torch.zeros(1).expand(10 ** 9, 10 ** 9), torch.zeros(2, dtype=torch.complex64),
    torch.zeros(2).to(torch.float8_e4m3fn)]


def places(value, path=()):
    """The paths of all that is in the dicts and lists in `value`."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [place for key, child in items for place in [(*path, key), *places(child, (*path, key))]]


def mutate(rng, content, values):
    """Changes one place in the dict `content`: another value, none, another key, or one of its own parts once more."""
    *parents, key = rng.choice(places(content))
    node = content
    for parent in parents:
        node = node[parent]
    kind = rng.randrange(5)
    if kind == 0:
        del node[key]
    elif kind == 1 and isinstance(node, dict):
        node[rng.choice([3, None, 'x', 'naem', ('a',), 'x' * 2000, 'a\nb', 0.5])] = node.pop(key)
    elif kind == 2:
        node[key] = rng.choice([copy.copy(node), [copy.copy(node)] * 3])
    else:
        value = rng.choice(values)
        node[key] = value if isinstance(value, torch.Tensor) else copy.deepcopy(value)


def damage(rng, content):
    """The bytes `content`, some of them changed, taken out, doubled or added."""
    content = bytearray(content)
    for _ in range(rng.choice([1, 1, 2, 5, 30])):
        at = rng.randrange(len(content) + 1)
        end = at + rng.choice([0, 1, 2, 9, 200])
        content[at:end] = rng.choice([b'', rng.randbytes(end - at), rng.randbytes(1), content[at:end] * 2,
                                      content[: end - at], b'\xff' * (end - at)])
        content = content or bytearray(b'x')
    return bytes(content[:rng.choice([None, None, None, rng.randrange(len(content) + 1)])])


def refused(function, *args):
    """Calls `function`; a UserError must be one line of less than 1,000 characters, and nothing else may come."""
    try:
        function(*args)
    except UserError as error:
        text = str(error).replace(str(args[0]), 'FILE')
        assert len(text.splitlines()) == 1 and len(text) < 1000, text[:2000]


def config_text(rng):
    """A config, damaged in its values, its text, or both."""
    content = copy.deepcopy(CONFIG)
    content.pop(rng.choice(['val_dataset', 'data_norm', 'x']), None)
    if rng.random() < 0.5:
        for _ in range(rng.choice([1, 1, 2, 5])):
            if places(content):
                mutate(rng, content, VALUES)
    if rng.random() < 0.02:
        content['epoch_max'] = content
    try:
        text = yaml.dump(content, default_flow_style=rng.choice([True, False, None]), sort_keys=False)
    except (RecursionError, ValueError):  # a value that holds itself, a number too long to write
        text = yaml.dump(CONFIG)
    for _ in range(rng.choice([0, 0, 1, 1, 2, 9])):
        at = rng.randrange(len(text) + 1)
        text = text[:at] + rng.choice(SNIPPETS) * rng.choice([1, 1, 1, 2, 50]) + text[at + rng.choice([0, 0, 1, 5]):]
    content = text.encode('utf-8', 'surrogatepass')
    return damage(rng, content) if rng.random() < 0.2 else content


def use_config(path):
    """Reads the config at `path` and makes its model, if that is a small one."""
    config = read_config(path)
    with mock.patch('models.registry.free_memory', lambda: 1e7):
        make_model(config.model)


def try_config(rng, path):
    """Reads a damaged config from `path`, where it is written."""
    path.write_bytes(config_text(rng))
    refused(use_config, path)


def good_checkpoint(rng):
    """A checkpoint as a run has it."""
    torch.manual_seed(0)
    spec = copy.deepcopy(rng.choice([specs.pixel(), specs.liif(), specs.metasr()]))
    state = dict(models.make(spec).state_dict())
    return {'model': {**spec, 'sd': state}, 'ema': rng.choice([None, dict(state)]), 'epoch': 1, 'iteration': 0,
            'data_norm': {'inp': {'sub': [0.5], 'div': [0.5]}}, 'optimizer': {'name': 'adam', 'args': {}, 'sd': {}}}


def repacked(rng, content):
    """The zip file `content` with its parts compressed, doubled, left out, damaged, or in other places."""
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as source, zipfile.ZipFile(file, 'w') as target:
        for part in source.infolist():
            data = source.read(part)
            if rng.random() < 0.1:
                data = rng.choice([b'', damage(rng, data or b'x'), data * 2, data[:-1]])
            if rng.random() < 0.95:
                target.writestr(part.filename, data, rng.choice([zipfile.ZIP_STORED] * 9 + [zipfile.ZIP_DEFLATED]))
    return file.getvalue()


def checkpoint_bytes(rng):
    """A checkpoint, damaged in its values, its pickle, its zip file, or its bytes."""
    content = good_checkpoint(rng)
    for _ in range(rng.choice([0, 1, 1, 1, 2, 4])):
        if places(content):
            mutate(rng, content, VALUES + TENSORS)
    file = io.BytesIO()
    try:
        torch.save(content, file, _use_new_zipfile_serialization=rng.random() < 0.7)
    except (RecursionError, RuntimeError, NotImplementedError, pickle.PicklingError):
        torch.save(good_checkpoint(rng), file)
    content, kind = file.getvalue(), rng.random()
    if kind < 0.2 and content[:2] == b'PK':
        return repacked(rng, content)
    return damage(rng, content) if kind < 0.5 else content


def try_checkpoint(rng, path):
    """Loads a damaged checkpoint from `path`, where it is written."""
    path.write_bytes(checkpoint_bytes(rng))
    refused(models.load, path)
    refused(checkpoint.read_bare, path)


def main():
    count, first = int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        for attempt in (try_config, try_checkpoint):
            failed, slowest = 0, (0., 0)
            for seed in range(first, first + count):
                start = time.monotonic()
                try:
                    attempt(random.Random(seed), Path(folder) / 'file')
                except Exception:
                    failed += 1
                    print(attempt.__name__, 'seed', seed, traceback.format_exc()[-1500:], flush=True)
                slowest = max(slowest, (time.monotonic() - start, seed))
            print(f'{attempt.__name__}: {count} seeds, {failed} failed; seed {slowest[1]} took {slowest[0]:.1f} s',
                  flush=True)


if __name__ == '__main__':
    main()
