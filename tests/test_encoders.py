"""The encoders against the papers' networks, written as plain functions (`reference`)."""

import pytest
import reference
import torch
from specs import assert_equal

import models
from errors import UserError

SMALL = {
    'edsr-baseline': {'n_resblocks': 2, 'n_feats': 6},
    'edsr': {'n_resblocks': 3, 'n_feats': 5},
    'rdn': {'G0': 7, 'RDNconfig': 'A'},
    'rcan': {'n_resgroups': 2, 'n_resblocks': 2, 'n_feats': 8, 'reduction': 4},
}
WIDTHS = {'edsr-baseline': 6, 'edsr': 5, 'rdn': 7, 'rcan': 8}
SCALES = [(name, scale) for name in SMALL for scale in (2, 3, 4, 8) if (name, scale) != ('rdn', 8)]

pytestmark = pytest.mark.usefixtures('small_rdn')


def build(name, **args):
    torch.manual_seed(0)
    return models.make({'name': name, 'args': {**SMALL[name], **args}}).double()


def image(batch=2, h=5, w=7):
    return torch.rand(batch, 3, h, w, dtype=torch.float64) * 2 - 1


def both(name, **args):
    """An encoder, what it makes of an image, and what the plain function makes of it."""
    encoder, x = build(name, **args), image()
    return encoder, encoder(x), reference.encode(name, dict(encoder.named_parameters()), x, **SMALL[name], **args)


@pytest.mark.parametrize('name', SMALL)
def test_features_equal_the_plain_function(name):
    encoder, features, expected = both(name, no_upsampling=True)
    assert_equal(features, expected)
    assert encoder.out_dim == WIDTHS[name] and features.shape == (2, WIDTHS[name], 5, 7)


@pytest.mark.parametrize('name, scale', SCALES, ids=[f'{name}-x{scale}' for name, scale in SCALES])
def test_upsampled_image_equals_the_plain_function(name, scale):
    encoder, pixels, expected = both(name, scale=scale)
    assert_equal(pixels, expected)
    assert encoder.out_dim == 3 and pixels.shape == (2, 3, 5 * scale, 7 * scale)


@pytest.mark.parametrize('name', ['edsr-baseline', 'edsr'])
def test_residual_scaling_follows_res_scale(name):
    _, features, expected = both(name, no_upsampling=True, res_scale=0.3)
    assert_equal(features, expected)


def test_rdn_config_b_equals_the_plain_function():
    encoder, x = models.make({'name': 'rdn', 'args': {'G0': 4, 'no_upsampling': True}}).double(), image(h=3, w=4)
    expected = reference.rdn(dict(encoder.named_parameters()), x, no_upsampling=True)
    assert_equal(encoder(x), expected)


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


# --- SwinIR ----------------------------------------------------------------------------------------


def swinir(**args):
    torch.manual_seed(0)
    model = models.make({'name': 'swinir', 'args': {'embed_dim': 6, 'depths': [3, 2], 'num_heads': [3, 2], 'window': 4,
                                                    **args}}).double().eval()
    for name, param in model.named_parameters():
        torch.nn.init.normal_(param, mean='norm' in name and name.endswith('weight'), std=0.3)
    return model


@pytest.mark.parametrize('h, w', [(8, 12), (4, 4), (5, 11), (3, 7), (2, 1), (1, 9)])
@torch.no_grad()
def test_swinir_is_the_published_network_window_by_window_and_keeps_the_images_size(h, w):
    model, x = swinir(), image(h=h, w=w)
    expected = reference.encode('swinir', dict(model.named_parameters()), x, num_heads=[3, 2], window=4)
    assert expected.shape == (2, 64, h, w) and expected.std() > 0.01
    assert_equal(model(x), expected)


def test_swinir_leaves_branches_out_by_chance_in_training_alone():
    model, x = swinir(), image(batch=1, h=8, w=8)
    assert torch.equal(model(x), model(x))
    model.train()
    means = torch.stack([model(x).detach() for _ in range(30)])
    assert means.std(dim=0).max() > 1e-3


def test_swinir_takes_published_checkpoints_with_the_tables_that_follow_from_the_window():
    model = swinir().float()
    sd = {**model.state_dict(), 'layers.0.residual_group.blocks.1.attn_mask': torch.zeros(36, 16, 16),
          'layers.0.residual_group.blocks.0.attn.relative_position_index': torch.zeros(16, 16, dtype=torch.int64)}
    spec = {'name': 'swinir', 'args': {'embed_dim': 6, 'depths': [3, 2], 'num_heads': [3, 2], 'window': 4}, 'sd': sd}
    x = image(h=5, w=6).float()
    assert torch.equal(models.make(spec, load_sd=True).eval()(x), model(x))


@pytest.mark.parametrize('args, message', [
    ({'num_heads': [3]}, 'num_heads must be 2 numbers'), ({'num_heads': [3, 4]}, 'that divide embed_dim 6'),
    ({'window': 0}, 'window must be at least 1'), ({'depths': [0, 2]}, r'depths\[0\] must be at least 1')])
def test_swinir_says_which_of_its_arguments_do_not_fit(args, message):
    with pytest.raises(UserError, match=message):
        swinir(**args)
