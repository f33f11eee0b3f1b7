"""LTE, LM-LIIF, LM-LTE and SwinIR against what their authors' code gives for the same weights."""

import copy
import json
import zlib

import numpy as np
import pytest
import torch
from paths import SHARED

import models

FAMILY = SHARED / 'golden' / 'family'
if not FAMILY.is_dir():
    pytest.skip(f'{FAMILY} is absent', allow_module_level=True)

NAMES = sorted(path.stem for path in FAMILY.glob('*.npz'))
DECODERS = [name for name in NAMES if name != 'swinir']
each_decoder = pytest.mark.parametrize('name', DECODERS)


def golden(name):
    """What is told of a case, and its arrays as tensors."""
    arrays = {key: torch.from_numpy(value) for key, value in np.load(FAMILY / f'{name}.npz').items()}
    return json.loads((FAMILY / f'{name}.json').read_text()), arrays


def published(name):
    """The spec with its weights, buffers included, as in the authors' checkpoints."""
    told, arrays = golden(name)
    sd = {}
    for key, (shape, std, *mean) in told['keys'].items():
        noise = np.random.default_rng(zlib.crc32(key.encode())).standard_normal(shape)
        sd[key] = torch.from_numpy((sum(mean) + noise * std).astype(np.float32))
    for key in told.get('buffers', {}):
        sd[key] = arrays[f'buffer_{key.split(".")[-1]}']
    if 'edsr' in name:
        names = (f'encoder.{part}_mean.{kind}' for part in ('sub', 'add') for kind in ('weight', 'bias'))
        sd.update({name: torch.zeros(3) for name in names})
    return {**told['spec'], 'sd': sd}


def assert_same(out, expected):
    assert (out - expected).abs().max() <= 2e-5 * max(1, expected.abs().max())


@pytest.fixture(scope='module')
def made():
    """Each case's model, made once."""
    found = {}

    def make(name):
        if name not in found:
            found[name] = models.make(published(name), load_sd=True).eval()
        return found[name]
    return make


@each_decoder
def test_colours_are_those_of_the_authors_code(name, made):
    _, arrays = golden(name)
    model = made(name)
    with torch.no_grad():
        assert_same(model(arrays['inp'], arrays['coord'], arrays['cell']), arrays['out'])
    assert_same(model(arrays['inp'], arrays['coord'], arrays['cell']).detach(), arrays['out'])


@pytest.mark.parametrize('name', [name for name in DECODERS if name.startswith(('lte_', 'liif'))])
def test_cells_that_differ_from_query_to_query(name, made):
    _, arrays = golden(name)
    with torch.no_grad():
        out = made(name)(arrays['inp'], arrays['coord_cells'], arrays['cell_cells'])
    assert_same(out, arrays['out_cells'])


@each_decoder
def test_colours_beyond_the_scales_of_training_with_and_without_the_clipped_cell(name, made):
    told, arrays = golden(name)
    with torch.no_grad():
        for factor, expected in ((1, 'out_noclip'), (told['clip']['factor'], 'out_clip')):
            out = made(name)(arrays['inp'], arrays['coord_clip'], arrays['cell_clip'] * factor)
            assert_same(out, arrays[expected])


@pytest.mark.parametrize('name', [name for name in DECODERS if 'swinir' not in name])
def test_loss_and_gradients_are_those_of_the_authors_code(name, made):
    told, arrays = golden(name)
    model = copy.deepcopy(made(name)).train()
    target = torch.from_numpy(np.random.default_rng(8).uniform(-1, 1, arrays['out'].shape).astype(np.float32))
    loss = (model(arrays['inp'], arrays['coord'], arrays['cell']) - target).abs().mean()
    loss.backward()
    assert loss.item() == pytest.approx(told['loss'], rel=1e-5)
    for key, param in model.named_parameters():
        assert param.grad.norm().item() == pytest.approx(told['grads'][key], rel=1e-3, abs=1e-7), key


def test_lte_fast_on_the_published_grid_of_queries(made):
    _, arrays = golden('ltefast_edsr4')
    coord = arrays['coord_grid']
    cell = arrays['cell_grid'][:, None].expand(-1, coord.shape[1] * coord.shape[2], -1)
    with torch.no_grad():
        out = made('ltefast_edsr4')(arrays['inp'], coord.flatten(1, 2), cell)
    assert_same(out.transpose(1, 2).view(arrays['out_grid'].shape), arrays['out_grid'])


@pytest.mark.parametrize('size', ['24x32', '21x29'])
def test_swinir_features_are_those_of_the_authors_code_on_the_image(size, made):
    _, arrays = golden('swinir')
    h, w = map(int, size.split('x'))
    with torch.no_grad():
        assert_same(made('swinir')(arrays[f'inp_{size}']), arrays[f'feat_{size}'][..., :h, :w])
