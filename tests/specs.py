"""Specs of small models, each decoder with each switch, and images and queries for them."""

import pytest
import torch

import models

ENCODER = {'name': 'edsr-baseline', 'args': {'no_upsampling': True, 'n_resblocks': 1, 'n_feats': 4}}

RDN = {'name': 'rdn', 'args': {'no_upsampling': True, 'G0': 4, 'RDNconfig': 'A'}}
RCAN = {'name': 'rcan', 'args': {'no_upsampling': True, 'n_resgroups': 1, 'n_resblocks': 1, 'n_feats': 4,
                                 'reduction': 2}}
SWINIR = {'name': 'swinir', 'args': {'embed_dim': 4, 'depths': [2], 'num_heads': [2], 'window': 4}}


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


def pixel(net_args=None, **args):
    return a_liif(net_args={'space': 'pixel', **(net_args or {})}, **args)


def metasr(**args):
    return {'name': 'metasr', 'args': {'encoder_spec': ENCODER, **args}}


def fixed_scale(scale=2, **args):
    encoder = {'name': 'edsr-baseline', 'args': {'scale': scale, 'n_resblocks': 1, 'n_feats': 4}}
    return {'name': 'liif', 'args': {'encoder_spec': encoder, **args}}


def lte(hidden=(7,), **args):
    imnet = {'name': 'mlp', 'args': {'out_dim': 3, 'hidden_list': list(hidden)}}
    return {'name': 'lte', 'args': {'encoder_spec': ENCODER, 'imnet_spec': imnet, 'hidden_dim': 6, **args}}


def lte_fast(**args):
    return {'name': 'lte-fast', 'args': {'encoder_spec': ENCODER, 'num_layer': 2, 'hidden_dim': 6, **args}}


def lm(name, mod_input=True, **args):
    imnet = {'name': 'lmmlp', 'args': {'out_dim': 3, 'hidden_dim': 4, 'hidden_depth': 3,
                                       'mod_scale': True, 'mod_shift': True}}
    hypernet = {'name': 'mlp', 'args': {'out_dim': 1, 'hidden_list': [7]}}  # its out_dim follows from the rest
    return {'name': name, 'args': {'encoder_spec': ENCODER, 'imnet_spec': imnet, 'hypernet_spec': hypernet,
                                   'mod_input': mod_input, **args}}


def lmliif(**args):
    return lm('lmliif', **args)


def lmlte(**args):
    return lm('lmlte', hidden_dim=6, **args)


PLAIN = {'liif': liif(), 'a-liif': a_liif(), 'pixel': pixel(), 'metasr': metasr(), 'fixed-scale': fixed_scale(),
         'lte': lte(), 'lte-fast': lte_fast(), 'lmliif': lmliif(), 'lmlte': lmlte()}
OFF = [{'local_ensemble': False}, {'feat_unfold': False}, {'cell_decode': False},
       {'local_ensemble': False, 'feat_unfold': False, 'cell_decode': False}, {'residual': 'bilinear'}]
VARIANTS = PLAIN | {
    f'{make.__name__}-{"-".join(off)}': make(**off) for make in (liif, a_liif, pixel, lmliif) for off in OFF
} | {
    'lte-local_ensemble': lte(local_ensemble=False), 'lte-fast-local_ensemble': lte_fast(local_ensemble=False),
    'lte-without-residual': lte(residual=None), 'lte-deep': lte(hidden=(5, 6, 7)),
    'lte-fast-without-residual': lte_fast(residual=None),
    'lmliif-plain': lmliif(mod_input=False), 'lmlte-plain': lmlte(mod_input=False),
    'lmlte-local_ensemble': lmlte(local_ensemble=False), 'lmlte-without-residual': lmlte(residual=None),
    'fixed-scale-residual': fixed_scale(residual='bilinear'),
    'liif-linear': liif(hidden=[]),
    'liif-deep': liif(hidden=[5, 6, 7, 8]),
    'a-liif-linear': a_liif(hidden=[], net_hidden=[]),
    'a-liif-one-hidden-layer': a_liif(hidden=[7], net_hidden=[6]),
    'a-liif-deep': a_liif(hidden=[4, 5, 6, 7, 8], net_hidden=[5, 6, 7]),
    'a-liif-without-expansion-net': a_liif(K=1, expansion=False),
    'a-liif-softmax': a_liif(net_args={'norm': 'softmax'}),
    'pixel-linear': pixel(hidden=[], net_hidden=[]),
    'pixel-one-hidden-layer': pixel(hidden=[7], net_hidden=[6]),
    'pixel-deep': pixel(hidden=[4, 5, 6, 7], net_hidden=[5, 6]),
    'pixel-K=1': pixel(K=1),
    'pixel-softmax': pixel(net_args={'norm': 'softmax'}),
}

each_decoder = pytest.mark.parametrize('spec', PLAIN.values(), ids=PLAIN)


def build(spec):
    """A model in float64, all its parameters large enough to matter in the result."""
    torch.manual_seed(0)
    model = models.make(spec).double().eval()  # SwinIR leaves branches out by chance in training
    for param in model.parameters():
        torch.nn.init.normal_(param, std=0.3)
    if spec['name'] == 'metasr':  # whose layers are wider than those of the other specs
        torch.nn.init.normal_(model.imnet.layers[-1].weight, std=0.05)
    return model


def make_checkpoint(path, spec, change=lambda model: None, seed=0):
    """Writes a model of a spec as it is when training starts, but for `change(model)`."""
    torch.manual_seed(seed)
    model = models.make(spec)
    change(model)
    models.checkpoint.write({'model': {**spec, 'sd': model.state_dict()}}, path)


def parameters(model):
    """Copies of a model's parameters by name, for `reference`."""
    return {name: param.detach().clone() for name, param in model.named_parameters()}


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


def assert_equal(actual, expected):
    torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-12)
