"""The decoders' parameters: how they start, which shapes they have, and which specs are refused."""

import pytest
import torch
from specs import PLAIN, a_liif, assert_equal, build, images, liif, lmliif, pixel, scattered

import models
from errors import UserError
from models.registry import make_model

NET = {'name': 'mlp', 'args': {'in_dim': 3, 'out_dim': 4, 'hidden_list': []}}


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


@pytest.mark.parametrize('spec', PLAIN.values(), ids=PLAIN)
def test_a_state_dict_brings_the_model_back(spec):
    saved, inp, (coord, cell) = build(spec).float(), images(4, 5), scattered(5)
    again = models.make({**spec, 'sd': saved.state_dict()}, load_sd=True)
    assert_equal(again.double()(inp, coord, cell), saved.double()(inp, coord, cell))


def test_the_names_in_a_state_dict_may_have_the_prefixes_of_dataparallel_and_compile():
    state = build(pixel()).float().state_dict()
    wrapped = {f'module._orig_mod.{name}': tensor for name, tensor in state.items()}
    again = models.make({**pixel(), 'sd': wrapped}, load_sd=True)
    assert all(torch.equal(tensor, state[name]) for name, tensor in again.state_dict().items())


@pytest.mark.parametrize('make', [models.make, make_model])
def test_a_spec_without_weights_has_none_to_load(make):
    with pytest.raises(UserError, match='the spec has no sd, the weights to load'):
        make(liif(), load_sd=True)


def test_lmfs_specs_may_have_a_cmsr_spec_of_none():
    assert models.make(lmliif(cmsr_spec=None)).imnet.hidden_depth == 3
    with pytest.raises(UserError, match="unknown key 'cmsr_spec'"):
        models.make(lmliif(cmsr_spec={'name': 'mlp'}))


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
    (liif(encoder_spec=NET), ['encoder_spec', 'mlp is not an encoder']),
    (liif(imnet_spec={**NET, 'name': 'expansion-net'}), ['imnet_spec', 'expansion-net', 'a kind of MLP']),
    (lmliif(hypernet_spec={**NET, 'name': 'expansion-net'}), ['hypernet_spec', 'expansion-net', 'a kind of MLP']),
    (liif(pdn_spec=None, basis_spec=NET), ['pdn_spec', 'must be specs']),
], ids=lambda value: None if isinstance(value, dict) else ' '.join(value))
def test_a_wrong_spec_is_an_error_that_says_what_is_allowed(spec, words):
    with pytest.raises(UserError) as error:
        models.make(spec)
    assert all(word in str(error.value) for word in words) and '\n' not in str(error.value)
