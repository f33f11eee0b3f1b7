"""mmagic's LIIF checkpoints load as they are: weights under `generator.`, by its names, and no spec of the model."""

import pytest
import reference
import torch
import torch.nn.functional as F

import models
from errors import UserError

CHANNELS = 8


def edsr(draw, blocks=3):
    """The tensors of mmagic's EDSR, drawn by `draw(name, out, in, side)`."""
    draw('conv_first', CHANNELS, 3, 3)
    for i in range(blocks):
        draw(f'body.{i}.conv1', CHANNELS, CHANNELS, 3)
        draw(f'body.{i}.conv2', CHANNELS, CHANNELS, 3)
    draw('conv_after_body', CHANNELS, CHANNELS, 3)


def rdn(draw, blocks=20, layers=6, growth=32):
    """The tensors of mmagic's RDN."""
    draw('sfe1', CHANNELS, 3, 3)
    draw('sfe2', CHANNELS, CHANNELS, 3)
    for i in range(blocks):
        for j in range(layers):
            draw(f'rdbs.{i}.layers.{j}.conv', growth, CHANNELS + j * growth, 3)
        draw(f'rdbs.{i}.lff', CHANNELS, CHANNELS + layers * growth, 1)
    draw('gff.0', CHANNELS, blocks * CHANNELS, 1)
    draw('gff.1', CHANNELS, CHANNELS, 3)


def weights(encoder, in_dim=9 * CHANNELS + 4, hidden=(16, 12)):
    """The tensors of mmagic's LIIF with `encoder` and an MLP."""
    torch.manual_seed(0)
    state = {}

    def draw(name, out, inner, side=None):
        kernel = (side, side) if side else ()
        state[f'{name}.weight'] = torch.randn(out, inner, *kernel) / (inner * (side or 1) ** 2) ** 0.5
        state[f'{name}.bias'] = torch.randn(out) / 4

    encoder(draw)
    for i, (inner, out) in enumerate(zip((in_dim, *hidden), (*hidden, 3), strict=True)):
        draw(f'imnet.layers.{2 * i}', out, inner)
    return state


def save(path, state):
    """A file as mmagic writes it."""
    torch.save({'meta': {'iter': 1000, 'config': 'model = dict()'},
                'state_dict': {f'generator.{name}': tensor for name, tensor in state.items()}}, path)
    return path


def conv(state, name, x):
    weight = state[f'{name}.weight']
    return F.conv2d(x, weight, state[f'{name}.bias'], padding=weight.shape[-1] // 2)


def edsr_features(state, x):
    start = x = conv(state, 'conv_first', x)
    for i in range(3):
        x = x + conv(state, f'body.{i}.conv2', conv(state, f'body.{i}.conv1', x).relu())
    return start + conv(state, 'conv_after_body', x)


def rdn_features(state, x):
    start = conv(state, 'sfe1', x)
    x, outputs = conv(state, 'sfe2', start), []
    for i in range(20):
        dense = x
        for j in range(6):
            dense = torch.cat((dense, conv(state, f'rdbs.{i}.layers.{j}.conv', dense).relu()), dim=1)
        x = x + conv(state, f'rdbs.{i}.lff', dense)
        outputs.append(x)
    return start + conv(state, 'gff.1', conv(state, 'gff.0', torch.cat(outputs, dim=1)))


@pytest.mark.parametrize('encoder, features', [(edsr, edsr_features), (rdn, rdn_features)])
def test_its_encoder_gives_the_features_that_its_names_mean(tmp_path, encoder, features):
    state, image = weights(encoder), torch.rand(1, 3, 5, 6)
    model = models.load(save(tmp_path / 'a.pth', state))
    with torch.no_grad():
        torch.testing.assert_close(model.encoder(image), features(state, image), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('unfolded', [True, False])
@pytest.mark.parametrize('cell_decode', [True, False])
def test_its_colours_are_those_of_liif(tmp_path, unfolded, cell_decode):
    state = weights(edsr, in_dim=CHANNELS * (9 if unfolded else 1) + 2 + 2 * cell_decode)
    model = models.load(save(tmp_path / 'a.pth', state))
    image, coord = torch.rand(1, 3, 4, 5), torch.rand(1, 9, 2) * 2 - 1
    cell = torch.full((1, 9, 2), 0.2)
    spec = {'name': 'liif', 'args': {
        'encoder_spec': {'name': 'edsr-baseline', 'args': {'no_upsampling': True}},
        'imnet_spec': {'name': 'mlp'}, 'feat_unfold': unfolded, 'cell_decode': cell_decode}}
    ours = {f'encoder.{name}': tensor for name, tensor in model.encoder.state_dict().items()}
    expected = reference.forward(spec, {**state, **ours}, image, coord, cell)
    with torch.no_grad():
        torch.testing.assert_close(model(image, coord, cell), expected, rtol=1e-4, atol=1e-5)


def test_its_colours_are_normalised_as_in_mmagics_configs(tmp_path):
    norm = {'sub': [0.4488, 0.4371, 0.4040], 'div': [1., 1., 1.]}
    assert models.load(save(tmp_path / 'a.pth', weights(edsr))).data_norm == {'inp': norm, 'gt': norm}


def test_another_model_of_mmagics_is_no_checkpoint_of_ours(tmp_path):
    state = {name: tensor for name, tensor in weights(edsr).items() if not name.startswith('imnet')}
    with pytest.raises(UserError, match=r'but weights alone \(state_dict\)'):
        models.load(save(tmp_path / 'a.pth', state))


def test_a_tensor_that_does_not_fit_is_named(tmp_path):
    state = weights(edsr) | {'body.1.conv1.weight': torch.zeros(CHANNELS, 5, 3, 3)}
    with pytest.raises(UserError, match=r'encoder.body.1.body.0.weight is \(8, 5, 3, 3\) instead of \(8, 8, 3, 3\)'):
        models.load(save(tmp_path / 'a.pth', state))
