"""How far an encoder sees, against what its features really depend on."""

import pytest
import torch
from specs import RCAN

import models
from models import rdn

pytestmark = pytest.mark.usefixtures('small_rdn', 'seeded')


def reach(encoder, width):
    """How far from its own pixel, in a row of `width` pixels, a feature in the middle depends on the input."""
    for param in encoder.parameters():  # positive: no ReLU cuts a path off, no two cancel out
        torch.nn.init.uniform_(param, 0, 0.1)
    inp = torch.rand(1, 3, 1, width, dtype=torch.float64).requires_grad_()
    encoder(inp)[..., width // 2].sum().backward()
    concerned = inp.grad.abs().sum(dim=(0, 1, 2)).nonzero()
    return max(width // 2 - concerned.min(), concerned.max() - width // 2).item()


@pytest.mark.parametrize('name, args', [
    ('edsr-baseline', {'n_feats': 2}), ('edsr-baseline', {'n_feats': 2, 'n_resblocks': 3}), ('edsr', {'n_feats': 2}),
    ('rdn', {'G0': 2}), ('rdn', {'G0': 2, 'RDNconfig': 'A'}), ('rdn', {'G0': 2, 'RDNconfig': 'A', 'RDNkSize': 5})],
    ids=str)
def test_receptive_radius_is_how_far_a_feature_sees(monkeypatch, name, args):
    monkeypatch.setitem(rdn.CONFIGS, 'B', (3, 4, 2))
    encoder = models.make({'name': name, 'args': {'no_upsampling': True, **args}}).double()
    assert reach(encoder, 2 * encoder.receptive_radius + 21) == encoder.receptive_radius


def test_features_of_rcan_see_the_whole_image_and_it_has_no_receptive_radius():
    encoder = models.make(RCAN).double()
    assert reach(encoder, 501) == 250
    assert encoder.receptive_radius is None


@pytest.mark.parametrize('name', ['edsr-baseline', 'edsr', 'rdn', 'rcan'])
def test_an_upsampler_leaves_no_receptive_radius(name):
    with torch.device('meta'):
        assert models.make({'name': name, 'args': {'scale': 2}}).receptive_radius is None
