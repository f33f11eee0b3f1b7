"""The authors' checkpoints: their tensors load, and give the outputs and the PSNR that the authors' code gives."""

import json
import os
import re

import numpy as np
import pytest
import reference
import torch
from paths import SHARED

import datasets
import models
from errors import UserError
from evaluation import eval_psnr

GOLDEN = SHARED / 'golden'
CHECKPOINTS = {'A-liif': 'edsr4-A-liif.pth', 'liif': 'edsr4-liif.pth'}

if not GOLDEN.is_dir():
    pytest.skip(f'{GOLDEN} is absent', allow_module_level=True)

PUBLISHED = json.loads((GOLDEN / 'state_dicts.json').read_text())
PSNR = [(model, dataset, psnr) for model, row in json.loads((GOLDEN / 'psnr.json').read_text()).items()
        for dataset, psnr in row.items()]
# Each model once, at another scale, by which the border goes: the outputs themselves are compared below.
MEASURED = ('edsr4-A-liif.pth', 'set5-4'), ('edsr4-liif.pth', 'set5-8')

each_checkpoint = pytest.mark.parametrize('name', CHECKPOINTS)
each_published = pytest.mark.parametrize('name', PUBLISHED)


def read(name):
    return torch.load(GOLDEN / CHECKPOINTS[name], map_location='cpu', weights_only=True)['model']


def renamed(name):
    """The name that a published tensor has here."""
    name = re.sub(r'^pdn\.', 'expansion.', name)
    name = re.sub(r'^basis\.w', 'imnet.weights.', name)
    return re.sub(r'^basis\.bias(\d+)', lambda match: f'imnet.biases.{int(match[1]) - 1}', name)


def renamed_state(state):
    """A published state dict by the names here, without the mean shift that the published encoders never use."""
    return {renamed(name): value for name, value in state.items() if not re.match(r'encoder\.(sub|add)_mean\.', name)}


def random_spec(name):
    """A published spec with random tensors of the published names and shapes."""
    published = PUBLISHED[name]
    return {**published['spec'], 'sd': {key: torch.randn(shape) for key, shape in published['tensors'].items()}}


# --- outputs -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope='module')
def outputs():
    return {key: torch.from_numpy(value) for key, value in np.load(GOLDEN / 'outputs.npz').items()}


@each_checkpoint
def test_outputs_are_those_of_the_authors_code(name, outputs):
    model = models.make(read(name), load_sd=True).eval()
    with torch.no_grad():
        out = model(outputs['inp'], outputs['coord'], outputs['cell'])
    torch.testing.assert_close(out, outputs[f'out_{name}'], rtol=0, atol=2e-5)


@each_checkpoint
def test_a_checkpoint_file_loads_as_its_spec_does(name, outputs):
    args = outputs['inp'], outputs['coord'][:, -99:], outputs['cell'][:, -99:]
    loaded, made = models.load(GOLDEN / CHECKPOINTS[name]), models.make(read(name), load_sd=True).eval()
    with torch.no_grad():
        assert torch.equal(loaded(*args), made(*args))


@each_checkpoint
def test_the_reference_itself_gives_the_authors_outputs(name, outputs):
    published = read(name)
    params = {key: value.double() for key, value in renamed_state(published['sd']).items()}
    args = {'encoder_spec': published['args']['encoder_spec'], 'imnet_spec': published['args']['imnet_spec'],
            'expansion_spec': {'args': {}} if name == 'A-liif' else None}
    pick = [*range(0, 3700, 61), *range(3700, 3715)]  # some of the grid and the random points, corners and centre
    inp, coord, cell = (outputs[key].double() for key in ('inp', 'coord', 'cell'))
    out = reference.forward({'name': name.lower(), 'args': args}, params, inp, coord[:, pick], cell[:, pick])
    torch.testing.assert_close(out.float(), outputs[f'out_{name}'][:, pick], rtol=0, atol=2e-5)


# --- PSNR ----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize('checkpoint, dataset, expected', PSNR, ids=[f'{name}-{dataset}' for name, dataset, _ in PSNR])
def test_psnr_is_that_of_the_authors_code(checkpoint, dataset, expected):
    name, *first, scale = dataset.split('-')
    if (checkpoint, dataset) not in MEASURED and not os.environ.get('SLOW_TESTS'):
        pytest.skip('all take minutes: set SLOW_TESTS=1')
    if name == 'photos2k':
        photos = {'root_path': str(SHARED / 'data/photos2k/valid_HR'), 'first_k': int(first[0].removeprefix('first'))}
    else:
        photos = {'root_path': str(SHARED / 'data/benchmark/Set5/HR')}
    photos = datasets.make({'name': 'image-folder', 'args': photos})
    pairs = datasets.make({'name': 'sr-implicit-downsampled', 'args': {'scale_min': int(scale)}}, {'dataset': photos})
    half = {'sub': [0.5], 'div': [0.5]}
    psnr = eval_psnr(torch.utils.data.DataLoader(pairs, batch_size=1), models.load(GOLDEN / checkpoint),
                     data_norm={'inp': half, 'gt': half}, eval_bsize=30000,
                     eval_type=f'{"div2k" if name == "photos2k" else "benchmark"}-{scale}')
    assert psnr == pytest.approx(expected, abs=0.002)


# --- tensors -------------------------------------------------------------------------------------------------------


def test_there_are_fourteen_published_models():
    assert len(PUBLISHED) == 14


@each_published
def test_every_published_tensor_finds_its_place(name):
    spec = random_spec(name)
    state = models.make(spec, load_sd=True).state_dict()
    expected = renamed_state(spec['sd'])
    assert state.keys() == expected.keys()
    assert all(torch.equal(state[key], value) for key, value in expected.items())


def test_the_name_of_a_published_expansion_net_does_not_matter():
    published = read('A-liif')
    published['args']['pdn_spec']['name'] = 'another'
    assert models.make(published, load_sd=True).expansion.out_dim == 10


TENSORS = [
    ('edsr-baseline + A-LIIF', 'encoder.body.3.body.2.bias'), ('edsr-baseline + A-LIIF', 'pdn.layers.8.weight'),
    ('edsr-baseline + A-LIIF', 'basis.w0'), ('edsr-baseline + A-LIIF', 'basis.bias5'),
    ('edsr-baseline + MetaSR', 'imnet.layers.2.weight'), ('rcan x2, no decoder', 'encoder.tail.1.bias')]
each_tensor = pytest.mark.parametrize('name, tensor', TENSORS)


@each_tensor
def test_a_missing_tensor_is_an_error_that_names_it(name, tensor):
    spec = random_spec(name)
    del spec['sd'][tensor]
    with pytest.raises(UserError, match=re.escape(renamed(tensor))):
        models.make(spec, load_sd=True)


@each_tensor
def test_a_misshapen_tensor_is_an_error_that_names_it(name, tensor):
    spec = random_spec(name)
    spec['sd'][tensor] = spec['sd'][tensor][:-1]
    with pytest.raises(UserError, match=re.escape(renamed(tensor))):
        models.make(spec, load_sd=True)


@pytest.mark.parametrize('tensor', ['encoder.body.99.bias', 'basis.w5', 'pdn.layers.10.bias', 'decoder.weight'])
def test_an_unexpected_tensor_is_an_error_that_names_it(tensor):
    spec = random_spec('edsr-baseline + A-LIIF')
    spec['sd'][tensor] = torch.zeros(3)
    with pytest.raises(UserError, match=re.escape(renamed(tensor))):
        models.make(spec, load_sd=True)
