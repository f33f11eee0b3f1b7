"""The decoders against their equations (`reference`), query by query in float64: each decoder with each switch."""

import copy
import importlib
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import reference
import torch

import models
from utils import UserError

ENCODER = {'name': 'edsr-baseline', 'args': {'no_upsampling': True, 'n_resblocks': 1, 'n_feats': 4}}


def liif(hidden=(9, 8), **args):
    imnet = {'name': 'mlp', 'args': {'out_dim': 3, 'hidden_list': list(hidden)}}
    return {'name': 'liif', 'args': {'encoder_spec': ENCODER, 'imnet_spec': imnet, **args}}


def a_liif(K=3, hidden=(6, 5), net_hidden=(9, 8), init='flat', net_args=None, expansion=True, **args):
    spec = {'encoder_spec': ENCODER, **args, 'imnet_spec': {
        'name': 'mlp-mixture', 'args': {'K': K, 'out_dim': 3, 'hidden_list': list(hidden), 'init': init}}}
    if expansion:
        spec['expansion_spec'] = {
            'name': 'expansion-net', 'args': {'out_dim': K, 'hidden_list': list(net_hidden), **(net_args or {})}}
    return {'name': 'a-liif', 'args': spec}


def pixel(**args):
    return a_liif(net_args={'space': 'pixel'}, **args)


def metasr(**args):
    return {'name': 'metasr', 'args': {'encoder_spec': ENCODER, 'hidden_list': [8], **args}}


def fixed_scale(**args):
    encoder = {'name': 'edsr-baseline', 'args': {'scale': 2, 'n_resblocks': 1, 'n_feats': 4}}
    return {'name': 'liif', 'args': {'encoder_spec': encoder, **args}}


PLAIN = {'liif': liif(), 'a-liif': a_liif(), 'pixel': pixel(), 'metasr': metasr(), 'fixed-scale': fixed_scale()}
OFF = [{'local_ensemble': False}, {'feat_unfold': False}, {'cell_decode': False},
       {'local_ensemble': False, 'feat_unfold': False, 'cell_decode': False}, {'residual': 'bilinear'}]
VARIANTS = PLAIN | {
    f'{make.__name__}-{"-".join(off)}': make(**off) for make in (liif, a_liif, pixel) for off in OFF
} | {
    'metasr-feat_unfold': metasr(feat_unfold=False),
    'metasr-residual': metasr(residual='bilinear'),
    'fixed-scale-residual': fixed_scale(residual='bilinear'),
    'liif-linear': liif(hidden=[]),
    'liif-deep': liif(hidden=[5, 6, 7, 8]),
    'a-liif-linear': a_liif(hidden=[], net_hidden=[]),
    'a-liif-one-hidden-layer': a_liif(hidden=[7], net_hidden=[6]),
    'a-liif-deep': a_liif(hidden=[4, 5, 6, 7, 8], net_hidden=[5, 6, 7]),
    'a-liif-without-expansion-net': a_liif(K=1, expansion=False),
    'a-liif-softmax': a_liif(net_args={'norm': 'softmax'}),
    'pixel-linear': a_liif(hidden=[], net_hidden=[], net_args={'space': 'pixel'}),
    'pixel-one-hidden-layer': a_liif(hidden=[7], net_hidden=[6], net_args={'space': 'pixel'}),
    'pixel-softmax': a_liif(net_args={'space': 'pixel', 'norm': 'softmax'}),
}

each_decoder = pytest.mark.parametrize('spec', PLAIN.values(), ids=PLAIN)
each_variant = pytest.mark.parametrize('spec', VARIANTS.values(), ids=VARIANTS)
each_ensemble = pytest.mark.parametrize('spec', [liif(), a_liif(), pixel()], ids=['liif', 'a-liif', 'pixel'])


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(1)


def build(spec):
    """A model in float64, all its parameters large enough to matter in the result."""
    torch.manual_seed(0)
    model = models.make(spec).double()
    for param in model.parameters():
        torch.nn.init.normal_(param, std=0.3)
    return model


def images(h, w, batch=2):
    return torch.randn(batch, 3, h, w, dtype=torch.float64)


def grid(height, width, batch=2):
    """Coordinates and cells of all the pixels of height x width images, row by row."""
    coord = torch.tensor([[-1 + (2 * i + 1) / height, -1 + (2 * j + 1) / width]
                          for i in range(height) for j in range(width)], dtype=torch.float64)
    cell = torch.tensor([2 / height, 2 / width], dtype=torch.float64).expand_as(coord)
    return coord.expand(batch, -1, -1), cell.expand(batch, -1, -1)


def scattered(n=40, batch=2):
    """Random coordinates, other ones in each sample, with one anisotropic cell a sample."""
    cell = torch.rand(batch, 1, 2, dtype=torch.float64) * 0.3 + 0.1
    return torch.rand(batch, n, 2, dtype=torch.float64) * 2 - 1, cell.expand(-1, n, -1)


def params_of(model):
    return {name: param.detach().clone() for name, param in model.named_parameters()}


def assert_equal(actual, expected):
    torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-12)


def assert_follows_equations(spec, inp, coord, cell):
    """With and without autograd, since a decoder may well go different ways."""
    model = build(spec)
    expected = reference.forward(spec, params_of(model), inp, coord, cell)
    assert expected.std() > 0.01
    assert_equal(model(inp, coord, cell), expected)
    with torch.inference_mode():
        assert_equal(model.eval()(inp, coord, cell), expected)


# --- the equations -------------------------------------------------------------------------------------------------


@each_variant
def test_random_queries_follow_the_equations(spec):
    assert_follows_equations(spec, images(5, 7), *scattered())


@each_variant
@pytest.mark.parametrize('size', [(8, 10), (12, 15), (11, 12), (3, 4)], ids=['x2', 'x3', 'x2.75', 'x0.75'])
def test_whole_grids_follow_the_equations(spec, size):
    assert_follows_equations(spec, images(4, 5), *grid(*size))


@each_decoder
def test_borders_and_corners_follow_the_equations(spec):
    values = torch.tensor([-1, -1 + 1e-9, -0.99, 0.3, 0.99, 1 - 1e-9, 1], dtype=torch.float64)
    coord = torch.cartesian_prod(values, values).expand(2, -1, -1)
    assert_follows_equations(spec, images(4, 5), coord, torch.full_like(coord, 0.2))


@each_decoder
@pytest.mark.parametrize('size', [(1, 1), (1, 4), (3, 1), (2, 9)], ids=str)
def test_maps_of_any_size_follow_the_equations(spec, size):
    assert_follows_equations(spec, images(*size), *scattered(20))


@pytest.mark.parametrize('spec', [make(local_ensemble=False) for make in (liif, a_liif, pixel)] + [fixed_scale()],
                         ids=['liif', 'a-liif', 'pixel', 'fixed-scale'])
def test_the_nearest_code_of_an_edge_is_the_even_one(spec):
    # Edges of a 4x8 map, and of the 8x16 image that the fixed scale makes of it, are exact in binary.
    edges = torch.cartesian_prod(torch.arange(-0.75, 1, 0.25), torch.arange(-0.875, 1, 0.125)).double()
    coord = edges.expand(2, -1, -1)
    assert_follows_equations(spec, images(4, 8), coord, torch.full_like(coord, 0.1))


@each_decoder
def test_queries_a_hair_beside_an_edge_follow_the_equations(spec):
    # Shifted by 1/h, or by half a cell of a latent pixel, a pixel's centre comes to its edge: 1e-6 tells on which side.
    centres = torch.cartesian_prod(torch.arange(-0.75, 1, 0.5), torch.arange(-0.875, 1, 0.25)).double()
    hairs = torch.tensor([-1.5e-6, -5e-7, 5e-7, 1.5e-6], dtype=torch.float64)
    coord = (centres + hairs.view(-1, 1, 1)).view(1, -1, 2).expand(2, -1, -1)
    assert_follows_equations(spec, images(4, 8), coord, coord.new_tensor([0.5, 0.25]).expand_as(coord))


@pytest.mark.parametrize('spec', [liif(), a_liif(), metasr()], ids=['liif', 'a-liif', 'metasr'])
def test_each_query_has_its_own_cell(spec):
    coord, _ = scattered()
    assert_follows_equations(spec, images(5, 7), coord, torch.rand_like(coord) + 0.1)


def test_metasr_without_cell_decode_keeps_the_cell_out_of_its_network():
    assert_follows_equations(metasr(cell_decode=False), images(5, 7), *scattered())


@each_ensemble
def test_without_cell_decode_a_query_needs_no_cell(spec):
    spec = copy.deepcopy(spec)
    spec['args']['cell_decode'] = False
    model, inp, (coord, cell) = build(spec), images(4, 5), scattered()
    model.gen_feat(inp)
    assert_equal(model.query_rgb(coord), model(inp, coord, cell))


# --- gradients -----------------------------------------------------------------------------------------------------


@each_variant
def test_gradients_are_those_of_the_equations(spec):
    model, inp, (coord, cell) = build(spec), images(4, 5).requires_grad_(), scattered(15)
    params = {name: param.requires_grad_() for name, param in params_of(model).items()}
    expected = reference.forward(spec, params, inp, coord, cell)
    weights = torch.randn_like(expected)
    wanted = torch.autograd.grad((expected * weights).sum(), [inp, *params.values()])
    got = torch.autograd.grad((model(inp, coord, cell) * weights).sum(), [inp, *model.parameters()])
    for name, a, b in zip(['inp', *params], got, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-10, msg=lambda text, name=name: f'{name}: {text}')


@each_decoder
def test_gradcheck(spec):
    model, inp, (coord, cell) = build(spec), images(3, 4, batch=1).requires_grad_(), scattered(5, batch=1)
    names, params = zip(*model.named_parameters(), strict=True)

    def decode(inp, *params):
        return torch.func.functional_call(model, dict(zip(names, params, strict=True)), (inp, coord, cell))

    assert torch.autograd.gradcheck(decode, (inp, *params), fast_mode=True)


# --- how queries are put -------------------------------------------------------------------------------------------


@each_decoder
@pytest.mark.parametrize('queries', [scattered, lambda: grid(9, 11)], ids=['scattered', 'grid'])
def test_permuted_queries_give_permuted_colours(spec, queries):
    model, inp, (coord, cell) = build(spec), images(4, 5), queries()
    order = torch.randperm(coord.shape[1])
    assert_equal(model(inp, coord[:, order], cell[:, order]), model(inp, coord, cell)[:, order])


@each_decoder
@pytest.mark.parametrize('size', [1, 7, 11, 50])
def test_a_grid_in_chunks_gives_the_same_as_at_once(spec, size):
    model, inp, (coord, cell) = build(spec), images(4, 5), grid(9, 11)
    expected = model(inp, coord, cell)
    with torch.inference_mode():
        model.gen_feat(inp)
        chunks = [model.query_rgb(*chunk) for chunk in zip(coord.split(size, 1), cell.split(size, 1), strict=True)]
    assert_equal(torch.cat(chunks, dim=1), expected)


@each_decoder
def test_thousands_of_queries_without_gradients_follow_the_equations(spec):
    model, inp, (coord, cell) = build(spec), images(4, 5), grid(70, 61)
    with torch.inference_mode():
        out = model(inp, coord, cell)
    pick = torch.arange(0, 70 * 61, 89)
    assert_equal(out[:, pick], reference.forward(spec, params_of(model), inp, coord[:, pick], cell[:, pick]))


@each_decoder
def test_one_feature_map_serves_several_scales(spec):
    model, inp = build(spec), images(4, 5)
    model.gen_feat(inp)
    for size in ((8, 10), (12, 13), (8, 10)):
        coord, cell = grid(*size)
        assert_equal(model.query_rgb(coord, cell), reference.forward(spec, params_of(model), inp, coord, cell))


@each_decoder
def test_weights_and_images_that_change_are_seen(spec):
    model, (coord, cell) = build(spec), scattered(10)
    with torch.no_grad():
        model(images(4, 5), coord, cell)
        for param in model.parameters():
            param.mul_(0.9)
        inp = images(4, 5)
        assert_equal(model(inp, coord, cell), reference.forward(spec, params_of(model), inp, coord, cell))


@each_decoder
def test_replicas_in_two_threads_equal_one_model(spec, monkeypatch):
    # What DataParallel does, with the copy of parameters to other GPUs replaced by one in memory.
    replicate = importlib.import_module('torch.nn.parallel.replicate')
    monkeypatch.setattr(replicate, '_broadcast_coalesced_reshape', lambda tensors, devices, detach=False: [
        [tensor.clone() for tensor in tensors] for _ in devices])
    model, inp, (coord, cell) = build(spec), images(4, 5, batch=4), scattered(batch=4)
    expected = model(inp, coord, cell)
    both_have_features = threading.Barrier(2, timeout=60)

    def run(replica, inp, coord, cell):
        replica.gen_feat(inp)
        both_have_features.wait()
        return replica.query_rgb(coord, cell)

    with ThreadPoolExecutor(2) as pool:
        halves = pool.map(run, replicate.replicate(model, [0, 1]), inp.split(2), coord.split(2), cell.split(2))
    out = torch.cat(list(halves))
    assert_equal(out, expected)
    for a, b in zip(*(torch.autograd.grad(x.sum(), model.parameters()) for x in (out, expected)), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-10)


# --- parameters ----------------------------------------------------------------------------------------------------


def assert_uniform(tensor, bound):
    """Drawn uniformly from +-bound: nothing beyond it, some value near it, the deviation of that distribution."""
    assert bound * (1 - 20 / tensor.numel()) < tensor.abs().max() <= bound * (1 + 1e-6)  # float32
    assert tensor.std().item() == pytest.approx(bound / 3 ** 0.5, rel=5 / tensor.numel() ** 0.5)


def mixture_layers(init):
    torch.manual_seed(0)
    imnet = models.make(a_liif(K=10, hidden=[16, 16, 16, 16], init=init)).imnet
    widths = [4 * 9 + 4, 16, 16, 16, 16, 3]
    return zip(imnet.weights, imnet.biases, widths[:-1], widths[1:], strict=True)


def test_published_init_is_bounded_by_the_size_of_the_flattened_matrix():
    for weights, biases, in_dim, out_dim in mixture_layers('flat'):
        assert weights.shape == (10, out_dim * in_dim) and biases.shape == (10, out_dim)
        assert_uniform(weights, (out_dim * in_dim) ** -0.5)
        assert_uniform(biases, (out_dim * in_dim) ** -0.5)


def test_layer_init_is_bounded_by_the_fan_in_of_the_layer():
    for weights, biases, in_dim, _ in mixture_layers('layer'):
        assert_uniform(weights, in_dim ** -0.5)
        assert_uniform(biases, in_dim ** -0.5)


def test_expansion_net_starts_as_linear_layers_do():
    torch.manual_seed(0)
    first = models.make(a_liif(net_hidden=[256])).expansion.layers[0]
    assert_uniform(first.weight, 40 ** -0.5)
    assert_uniform(first.bias, 40 ** -0.5)


@pytest.mark.parametrize('args, in_dim, pixel_in_dim', [
    ({}, 76, 74), ({'feat_unfold': False}, 12, 10), ({'cell_decode': False}, 74, 72)], ids=str)
def test_input_widths_follow_the_encoder(args, in_dim, pixel_in_dim):
    args = {'encoder_spec': {'name': 'edsr-baseline', 'args': {'no_upsampling': True, 'n_feats': 8}}, **args}
    assert models.make(liif(**args)).imnet.layers[0].in_features == in_dim
    assert models.make(a_liif(**args)).expansion.layers[0].in_features == in_dim
    assert models.make(pixel(**args)).expansion.layers[0].in_features == pixel_in_dim
    assert models.make(pixel(**args)).imnet.weights[0].shape == (3, 6 * in_dim)


@each_decoder
def test_a_state_dict_brings_the_model_back(spec):
    saved, inp, (coord, cell) = build(spec).float(), images(4, 5), scattered(5)
    again = models.make({**spec, 'sd': saved.state_dict()}, load_sd=True)
    assert_equal(again.double()(inp, coord, cell), saved.double()(inp, coord, cell))


@pytest.mark.parametrize('spec, words', [
    (a_liif(net_args={'out_dim': 4}), ['4', '3']),
    (a_liif(K=2, expansion=False), ['2', '1']),
    (a_liif(net_args={'space': 'voxel'}), ['voxel', 'query', 'pixel']),
    (a_liif(net_args={'norm': 'l1'}), ['l1', 'l2', 'softmax']),
    (a_liif(init='zero'), ['zero', 'flat', 'layer']),
    (a_liif(residual='bicubic'), ['bicubic', 'bilinear']),
    (liif(residual='bicubic'), ['bicubic', 'bilinear']),
    ({'name': 'a-lif', 'args': {}}, ['a-lif', 'a-liif', 'metasr']),
    (liif(hiden_list=[1]), ['hiden_list', 'local_ensemble']),
], ids=lambda value: None if isinstance(value, dict) else ' '.join(value))
def test_a_wrong_spec_is_an_error_that_says_what_is_allowed(spec, words):
    with pytest.raises(UserError) as error:
        models.make(spec)
    assert all(word in str(error.value) for word in words) and '\n' not in str(error.value)
