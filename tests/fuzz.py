"""Damaged configs, checkpoints and runs, by seed: whatever is in a file, it is used or refused in one short line.

    PYTHONPATH=. python tests/fuzz.py 20000 [FIRST]    # that many seeds, from FIRST (0), of each reader
"""

import copy
import functools
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

import pytest
import specs
import torch
import yaml
from projects import CONFIG

import models
from devices import Parallel
from errors import UserError, located
from models import checkpoint
from models.registry import make_model
from training.run import Config, read_config
from training.start import restore
from training.trainer import Trainer

each_seed = pytest.mark.parametrize('seed', [
    *range(60), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(60, 300))])
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


OPTIMIZERS = {name: {'name': name, 'args': {'lr': 1e-3, **args}} for name, args in (
    ('adam', {}), ('sgd', {'momentum': 0.9}))}
BATCH = {'inp': torch.rand(1, 3, 4, 4), 'coord': torch.zeros(1, 2, 2), 'cell': torch.ones(1, 2, 2),
         'gt': torch.rand(1, 2, 3)}


@functools.cache
def one_process():
    return Parallel('cpu')


def new_trainer(optimizer, folder):
    return Trainer(Config({}, specs.liif(), copy.deepcopy(optimizer), 1), one_process(), folder)


def train_step(trainer):
    """A step as in an epoch, to the mean loss."""
    losses = trainer.step(BATCH, 1, 1, None)
    trainer.iteration += 1
    trainer.add_losses([losses], [1])
    trainer.mean_losses()


@functools.cache
def saved_run(optimizer):
    """What a run with one of OPTIMIZERS saves after its first step."""
    with tempfile.TemporaryDirectory() as folder:
        trainer = new_trainer(OPTIMIZERS[optimizer], Path(folder))
        train_step(trainer)
        trainer.save('last')
        return torch.load(Path(folder) / 'epoch-last.pth', weights_only=True)


def resume(path, optimizer):
    """Continues the run in the checkpoint at `path` for a step."""
    trainer, state = new_trainer(OPTIMIZERS[optimizer], path.parent), checkpoint.read(path)
    with located(path):
        restore(trainer, state, same_run=True)
    train_step(trainer)


def try_resume(rng, path):
    """Resumes a run whose checkpoint at `path`, where it is written, has a damaged optimizer state or position."""
    optimizer = rng.choice(list(OPTIMIZERS))
    content = dict(saved_run(optimizer))
    weights = {key: content.pop(key) for key in ('model', 'ema', 'data_norm')}
    content = copy.deepcopy(content)
    for _ in range(rng.choice([1, 1, 1, 2, 4])):
        part = content if rng.random() < 0.2 else content.get('optimizer')
        if places(part):
            mutate(rng, part, VALUES + TENSORS + [torch.tensor(-1.), torch.tensor(torch.nan)])
    torch.save({**weights, **content}, path)
    refused(resume, path, optimizer if rng.random() < 0.9 else rng.choice(list(OPTIMIZERS)))


def main():
    count, first = int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        for attempt in (try_config, try_checkpoint, try_resume):
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
