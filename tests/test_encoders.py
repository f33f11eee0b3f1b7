"""The encoders: sizes, and their forward against the papers' networks written as plain functions (`reference`)."""

import pytest
import reference
import torch

import models
from utils import UserError

SMALL = {
    'edsr-baseline': {'n_resblocks': 2, 'n_feats': 6},
    'edsr': {'n_resblocks': 3, 'n_feats': 5},
    'rdn': {'G0': 7, 'RDNconfig': 'A'},
    'rcan': {'n_resgroups': 2, 'n_resblocks': 2, 'n_feats': 8, 'reduction': 4},
}
WIDTHS = {'edsr-baseline': 6, 'edsr': 5, 'rdn': 7, 'rcan': 8}
SCALES = [(name, scale) for name in SMALL for scale in (2, 3, 4, 8) if (name, scale) != ('rdn', 8)]

each_encoder = pytest.mark.parametrize('name', SMALL)
each_upsampler = pytest.mark.parametrize('name, scale', SCALES, ids=[f'{name}-x{scale}' for name, scale in SCALES])


def build(name, **args):
    torch.manual_seed(0)
    return models.make({'name': name, 'args': {**SMALL[name], **args}}).double()


def image(batch=2, h=5, w=7):
    return torch.rand(batch, 3, h, w, dtype=torch.float64) * 2 - 1


def assert_equals_the_plain_function(name, **args):
    encoder, x = build(name, **args), image()
    expected = reference.encode(name, dict(encoder.named_parameters()), x, **SMALL[name], **args)
    torch.testing.assert_close(encoder(x), expected, rtol=1e-9, atol=1e-12)


@each_encoder
def test_without_upsampler_features_keep_the_size(name):
    encoder = build(name, no_upsampling=True)
    assert encoder.out_dim == WIDTHS[name]
    assert encoder(image()).shape == (2, WIDTHS[name], 5, 7)


@each_upsampler
def test_with_upsampler_an_image_comes_out(name, scale):
    encoder = build(name, scale=scale)
    assert encoder.out_dim == 3
    assert encoder(image()).shape == (2, 3, 5 * scale, 7 * scale)


@each_encoder
def test_features_equal_the_plain_function(name):
    assert_equals_the_plain_function(name, no_upsampling=True)


@each_upsampler
def test_upsampled_image_equals_the_plain_function(name, scale):
    assert_equals_the_plain_function(name, scale=scale)


@pytest.mark.parametrize('name', ['edsr-baseline', 'edsr'])
def test_residual_scaling_follows_res_scale(name):
    assert_equals_the_plain_function(name, no_upsampling=True, res_scale=0.3)


def test_rdn_config_b_equals_the_plain_function():
    encoder, x = models.make({'name': 'rdn', 'args': {'G0': 4, 'no_upsampling': True}}).double(), image(h=3, w=4)
    expected = reference.rdn(dict(encoder.named_parameters()), x, no_upsampling=True)
    torch.testing.assert_close(encoder(x), expected, rtol=1e-9, atol=1e-12)


def test_rdn_kernel_size_keeps_the_image_size():
    encoder = build('rdn', RDNkSize=5, no_upsampling=True)
    assert encoder.SFENet1.weight.shape[-2:] == (5, 5) and encoder(image()).shape[-2:] == (5, 7)


@pytest.mark.parametrize('name, scale', [('edsr-baseline', 5), ('edsr', 6), ('rcan', 7), ('rcan', 0), ('rdn', 8)])
def test_a_scale_without_upsampler_is_an_error_that_names_it(name, scale):
    with pytest.raises(UserError, match=rf'{name}.*scale.*\b{scale}\b'):
        build(name, scale=scale)


def test_an_unknown_rdn_config_is_an_error_that_names_the_known():
    with pytest.raises(UserError, match="RDNconfig.*'A'.*'B'.*'C'"):
        build('rdn', RDNconfig='C')


def test_a_registered_encoder_of_ones_own_serves_every_decoder():
    @models.register('an-encoder-of-this-test')
    class OwnEncoder(torch.nn.Conv2d):
        def __init__(self, width: int):
            super().__init__(3, width, 1)
            self.out_dim = width

    encoder = {'name': 'an-encoder-of-this-test', 'args': {'width': 5}}
    mlp = {'name': 'mlp', 'args': {'out_dim': 3, 'hidden_list': [4]}}
    coord = torch.rand(2, 9, 2, dtype=torch.float64) * 2 - 1
    for spec in ({'name': 'liif', 'args': {'encoder_spec': encoder, 'imnet_spec': mlp}},
                 {'name': 'metasr', 'args': {'encoder_spec': encoder}}):
        assert models.make(spec).double()(image(), coord, torch.full_like(coord, 0.1)).shape == (2, 9, 3)


def test_a_tensor_of_ones_own_encoder_may_have_any_name():
    @models.register('an-encoder-with-a-mean-shift')
    class Shifted(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.sub_mean, self.pdn, self.out_dim = torch.nn.Conv2d(3, 3, 1), torch.nn.Conv2d(3, 5, 1), 5

        def forward(self, x):
            return self.pdn(self.sub_mean(x))

    spec = {'name': 'liif', 'args': {'encoder_spec': {'name': 'an-encoder-with-a-mean-shift'}, 'imnet_spec': {
        'name': 'mlp', 'args': {'out_dim': 3, 'hidden_list': [4]}}}}
    state = models.make(spec).state_dict()
    loaded = models.make({**spec, 'sd': state}, load_sd=True).state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in state.items())
