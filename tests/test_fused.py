"""The kernel of `models.fused` against the eager decoding, and where it is used."""

import copy
import json
import math
import sys
from types import SimpleNamespace

import pytest
import specs
import torch
from triton_on_cpu import CAPABILITY, compiled, kernel_module, triton

import models
from models import a_liif, kernels
from models.a_liif import ALIIF
from utils import make_coord

fused, DEVICE, interpreter = kernel_module('fused', on_gpu=CAPABILITY in (9, 10))
PUBLISHED = specs.a_liif(K=10, hidden=[16] * 4, net_hidden=[256] * 4)
VARIANTS = {
    'published': PUBLISHED,
    'small': specs.a_liif(),
    'softmax': specs.a_liif(net_args={'norm': 'softmax'}),
    'local_ensemble': specs.a_liif(local_ensemble=False),
    'feat_unfold': specs.a_liif(feat_unfold=False),
    'cell_decode': specs.a_liif(cell_decode=False),
    'all-off': specs.a_liif(local_ensemble=False, feat_unfold=False, cell_decode=False),
    'one-hidden-layer': specs.a_liif(net_hidden=[20], hidden=[7]),
    'three-hidden-layers': specs.a_liif(net_hidden=[70, 20, 33], hidden=[7, 16, 3]),
    'five-hidden-layers': specs.a_liif(net_hidden=[9, 40, 20, 8, 17], hidden=[4, 5, 6, 7, 8]),
    'one-function': specs.a_liif(K=1),
    'sixteen-functions': specs.a_liif(K=16, net_args={'norm': 'softmax'}),
}
each_variant = pytest.mark.parametrize('spec', VARIANTS.values(), ids=VARIANTS)


def build(spec):
    """A model all of whose layers keep the size of their inputs, so that each of them matters in the result."""
    torch.manual_seed(0)
    model = models.make(spec).to(DEVICE)
    for param in model.parameters():
        fan_in = param[0].numel() if param.dim() > 1 else 4
        torch.nn.init.normal_(param, std=fan_in ** -0.5)
    for weights, fan_in in zip(model.imnet.weights, model.imnet.dims, strict=False):
        torch.nn.init.normal_(weights, std=1.5 * fan_in ** -0.5)
    return model.eval()


def queries(n=20, batch=2):
    """Coordinates and a cell for each."""
    return torch.rand(batch, n, 2, device=DEVICE) * 2 - 1, torch.rand(batch, n, 2, device=DEVICE) * 0.3 + 0.1


def image(h=5, w=7, batch=2):
    return torch.randn(batch, 3, h, w, device=DEVICE)


def both(model, features, coord, cell):
    """The kernel's colours and the eager path's."""
    assert fused.fits(model, features)
    return fused.decode(model, features, coord, cell), model.decode(features, coord, cell)


def assert_equal(actual, expected):
    """To 1e-5 of the colours' own size: sums of the products of a network are rounded by that, not by a colour's."""
    assert expected.std() > 0.05
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5 * expected.abs().max().item())


# --- the colours ---------------------------------------------------------------------------------------------------


@each_variant
@torch.no_grad()
def test_in_float32_it_equals_the_eager_path(spec):
    model = build(spec)
    assert_equal(*both(model, model.encode(image()), *queries()))


@pytest.mark.parametrize('name', ['published', 'softmax', 'all-off', 'three-hidden-layers', 'sixteen-functions'])
@torch.no_grad()
def test_in_bf16_it_is_as_close_to_float64_as_the_eager_path(name):
    model, inp, (coord, cell) = build(VARIANTS[name]), image(), queries()
    exact = copy.deepcopy(model).double()(inp.double(), coord.double(), cell.double())
    with torch.autocast(DEVICE.type, torch.bfloat16):
        ours, eager = both(model, model.encode(inp), coord, cell)
    error, allowed = ((colours - exact).abs().median() for colours in (ours, eager))
    assert error < 1.5 * allowed < 0.1 * exact.std()


@pytest.mark.parametrize('n', [4, 15, 16, 17, 33])  # a block holds 16
@torch.no_grad()
def test_queries_need_not_fill_the_last_block(n):
    model = build(specs.a_liif())
    assert_equal(*both(model, model.encode(image(batch=1)), *queries(n, batch=1)))


@torch.no_grad()
def test_it_decodes_a_window_of_a_larger_map():
    model, (coord, cell) = build(specs.a_liif()), queries(batch=1)
    inp = image(9, 7, batch=1)
    features = model.make_features(model.encoder(inp)[:, :, 2:], inp[:, :, 2:], (2, 0, 9, 7))
    coord[..., 0] = coord[..., 0].abs()  # the lower half
    assert_equal(*both(model, features, coord, cell))


@pytest.mark.parametrize('residual', [None, 'bilinear'])
@torch.no_grad()
def test_a_model_that_uses_it_gives_the_same_image(residual, monkeypatch):
    model = build(specs.a_liif(residual=residual))
    y, x = (make_coord([n])[:, 0].to(DEVICE) for n in (11, 9))
    cell = torch.tensor([2 / 11, 2 / 9], device=DEVICE)
    features = model.encode(image())
    monkeypatch.setattr(a_liif, 'fused_kernel', lambda *_: None)
    expected = model.query_grid(features, y, x, cell)
    monkeypatch.setattr(a_liif, 'fused_kernel', lambda *_: fused)
    monkeypatch.setattr(model, 'decode', None)
    assert_equal(model.query_grid(features, y, x, cell), expected)


# --- where it is used ----------------------------------------------------------------------------------------------


BEYOND = {
    'no-expansion-net': specs.a_liif(expansion=False, K=1),
    'pixel-space': specs.a_liif(net_args={'space': 'pixel'}),
    'seventeen-functions': specs.a_liif(K=17),
    'mixture-of-width-17': specs.a_liif(hidden=[8, 17]),
    'expansion-net-of-width-257': specs.a_liif(net_hidden=[257]),
    'linear-mixture': specs.a_liif(hidden=[]),
    'linear-expansion-net': specs.a_liif(net_hidden=[]),
}


@pytest.mark.parametrize('spec', BEYOND.values(), ids=BEYOND)
@torch.no_grad()
def test_models_beyond_its_limits_do_not_fit(spec):
    model = build(spec)
    assert not fused.fits(model, model.encode(image()))


@pytest.mark.parametrize('part', ['expansion', 'imnet'])
@torch.no_grad()
def test_functions_of_ones_own_do_not_fit(part):
    model = build(PUBLISHED)
    net = getattr(model, part)
    net.__class__ = type('Own', (type(net),), {})
    assert not fused.fits(model, model.encode(image()))


@torch.no_grad()
def test_a_decoder_of_ones_own_does_not_fit():
    model = build(PUBLISHED)
    model.__class__ = type('Own', (ALIIF,), {'weigh': lambda *args: 2 * ALIIF.weigh(*args)})
    assert not fused.fits(model, model.encode(image()))


@torch.no_grad()
def test_float64_does_not_fit():
    model = build(PUBLISHED).double()
    assert not fused.fits(model, model.encode(image().double()))


@pytest.fixture
def tf32():
    torch.backends.cuda.matmul.allow_tf32 = True
    yield
    torch.backends.cuda.matmul.allow_tf32 = False


@torch.no_grad()
def test_float32_does_not_fit_where_products_may_be_tf32(tf32):
    model = build(PUBLISHED)
    assert not fused.fits(model, model.encode(image()))
    with torch.autocast(DEVICE.type, torch.bfloat16):
        assert fused.fits(model, model.encode(image()))


@pytest.mark.parametrize('is_cuda, grad, fits, expected', [
    (True, False, True, fused), (False, False, True, None), (True, True, True, None), (True, False, False, None)],
    ids=['used', 'on-a-cpu', 'with-gradients', 'does-not-fit'])
def test_it_is_used_on_cuda_without_gradients_where_the_model_fits(is_cuda, grad, fits, expected, monkeypatch):
    monkeypatch.setattr(fused, 'fits', lambda model, features: fits)
    monkeypatch.setattr(fused, 'agrees', lambda model, features: True)
    with torch.set_grad_enabled(grad):
        assert a_liif.fused_kernel(None, None, SimpleNamespace(is_cuda=is_cuda)) is expected


@torch.no_grad()
def test_without_triton_it_is_not_used(monkeypatch):
    monkeypatch.delattr(models, 'fused')
    monkeypatch.delitem(sys.modules, 'models.fused')
    monkeypatch.setitem(sys.modules, 'triton', None)
    assert a_liif.fused_kernel(None, None, SimpleNamespace(is_cuda=True)) is None


# --- the compiler --------------------------------------------------------------------------------------------------

COMPILE = '''
import json, sys
import torch
import models
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.runtime.jit import mangle_type
from models import fused

report = {}


class Compiler:  # in place of the kernel: compiles it for an H100 instead of launching it
    kernel = fused.kernel

    def __getitem__(self, grid):
        return self.compile

    def compile(self, *args, **options):
        names = self.kernel.arg_names
        constants = {name: options.pop(name) for name in names[len(args):]}
        types = dict(zip(names, map(mangle_type, args))) | dict.fromkeys(constants, 'constexpr')
        aligned = {(i,): [['tt.divisibility', 16]] for i, type in enumerate(types.values()) if type.startswith('*')}
        source = ASTSource(self.kernel, types, constants, aligned)
        code = triton.compile(source, target=GPUTarget('cuda', 90, 32), options=options)
        report['shared memory'] = code.metadata.shared
        report['products'] = code.asm['ptx'].count('wgmma.mma_async')
        report['copies'] = code.asm['ptx'].count('cp.async.bulk.tensor')


fused.kernel = Compiler()
model = models.make(json.loads(sys.argv[1]))
with torch.no_grad(), torch.autocast('cpu', torch.bfloat16):
    fused.decode(model, model.encode(torch.zeros(1, 3, 4, 4)), torch.zeros(1, 8, 2), torch.ones(1, 8, 2))
print(json.dumps(report))
'''


@pytest.mark.slow
def test_it_compiles_to_tensor_core_products_that_fit_an_h100(tmp_path):
    report = compiled(COMPILE, tmp_path, json.dumps(PUBLISHED))
    assert report['products'] > 0 and report['copies'] > 0
    assert report['shared memory'] <= 227 * 1024


# --- the speed -----------------------------------------------------------------------------------------------------


@pytest.mark.skipif(DEVICE.type == 'cpu', reason='no GPU that the kernel is made for')
@torch.no_grad()
def test_it_is_faster_than_the_eager_path(monkeypatch):
    model, coord = build(PUBLISHED), make_coord((1024, 1024)).to(DEVICE).unsqueeze(0)
    cell, (a, b) = torch.full_like(coord, 2 / 1024), torch.randn(2, 8192, 8192, device=DEVICE, dtype=torch.bfloat16)
    with torch.autocast('cuda', torch.bfloat16):
        features = model.encode(image(256, 256, batch=1))
        ours = triton.testing.do_bench(lambda: model.query(features, coord, cell))
        monkeypatch.setattr(a_liif, 'fused_kernel', lambda *_: None)
        eager = triton.testing.do_bench(lambda: model.query(features, coord, cell))
    products = 2 * 4 * (3 * 256 * 256 + 256 * 10 + 3 * 16 * 160 + 16 * 30) * coord.shape[1]
    speed, ceiling = products / ours / 1e9, 2 * 8192 ** 3 / triton.testing.do_bench(lambda: a @ b) / 1e9
    print(f'\n{torch.cuda.get_device_name()}: {ours * 1e6 / coord.shape[1]:.2f} ns a query, eager '
          f'{eager * 1e6 / coord.shape[1]:.2f} ns; {speed:.0f} TFLOP/s of the {ceiling:.0f} of a matrix product')
    assert ours < eager


def test_a_kernel_that_fails_or_disagrees_is_not_used(monkeypatch):
    model = models.make(specs.a_liif()).to(DEVICE).eval()
    with torch.no_grad():
        features = model.encode(torch.rand(1, 3, 6, 7, device=DEVICE))
        assert fused.agrees(model, features)
        for broken in (lambda *args: 1 / 0, lambda model, *queries: model.decode(*queries) * 1.001,
                       lambda model, *queries: model.decode(*queries) + math.nan):
            monkeypatch.setattr(kernels, 'TRIED', {})
            monkeypatch.setattr(fused, 'decode', broken)
            with pytest.warns(UserWarning, match='is not used'):
                assert not fused.agrees(model, features)


def test_each_norm_is_tried_by_itself(monkeypatch):
    monkeypatch.setattr(kernels, 'TRIED', {})
    tried = []
    monkeypatch.setattr(fused, 'decode', lambda model, *queries: tried.append(model) or model.decode(*queries))
    for norm in ('l2', 'softmax', 'l2'):
        model = models.make(specs.a_liif()).eval()
        model.expansion.norm = norm
        with torch.no_grad():
            assert fused.agrees(model, model.encode(torch.rand(1, 3, 6, 7)))
    assert len(tried) == 2
