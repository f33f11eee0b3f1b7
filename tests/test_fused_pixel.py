"""The kernels of `models.fused_pixel` against the products of single layers, and where they are used."""

import sys
from types import SimpleNamespace

import pytest
import torch
from specs import ENCODER, images, pixel
from triton_on_cpu import CAPABILITY, compiled, kernel_module

import models
from models import a_liif, kernels

fused_pixel, DEVICE, interpreter = kernel_module('fused_pixel', on_gpu=CAPABILITY >= 8)


def build(width=16, **args):
    torch.manual_seed(0)
    return models.make(pixel(hidden=[width] * 4, init='layer', **args)).to(DEVICE)


def results(model, inp, size, monkeypatch, kernels):
    """Colours of whole targets and the gradients of all parameters, with or without the kernels."""
    monkeypatch.setattr(a_liif, 'pixel_kernel', lambda *args: fused_pixel if kernels else None)
    model.zero_grad()
    out = model(inp, size=size)
    (out * torch.linspace(-1, 1, out.numel(), device=DEVICE).view_as(out)).sum().backward()
    return [out.detach(), *(param.grad for param in model.parameters())]


@pytest.mark.parametrize('args, size', [
    ({}, (4, 5)), ({}, (13, 21)),  # several blocks of queries, and other numbers of rows than of columns
    *((args, (7, 9)) for args in ({'width': 32}, {'K': 16}, {'local_ensemble': False}, {'cell_decode': False}))],
    ids=['small', 'large', 'wide', 'sixteen-functions', 'no-ensemble', 'no-cell'])
def test_in_float32_colours_and_gradients_equal_those_of_single_layers(args, size, monkeypatch):
    model, inp = build(**args), images(3, 4, batch=1).float().to(DEVICE)
    expected, ours = (results(model, inp, size, monkeypatch, kernels) for kernels in (False, True))
    for actual, wanted in zip(ours, expected, strict=True):
        torch.testing.assert_close(actual, wanted, rtol=1e-4, atol=1e-5 * wanted.abs().max().item())


def test_grey_images_have_one_colour(monkeypatch):
    model = build(encoder_spec={**ENCODER, 'args': {**ENCODER['args'], 'n_colors': 1}})
    inp = images(2, 3)[:, :1].float().to(DEVICE)
    expected, ours = (results(model, inp, (5, 7), monkeypatch, kernels)[0] for kernels in (False, True))
    assert ours.shape[-1] == 1
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('trained', [True, False], ids=['trained', 'frozen'])
def test_in_bf16_they_are_about_as_exact_as_single_layers(trained, monkeypatch):
    monkeypatch.setattr(fused_pixel, 'TRIAL_PIXELS', 16)
    assert fused_pixel.worst_error(build(width=32).requires_grad_(trained).imnet, DEVICE) < 1


def test_kernels_that_fail_or_disagree_are_not_used(monkeypatch):
    imnet, start = build().imnet, torch.zeros(1, 16, device=DEVICE)
    right = a_liif.decode_by_layers  # stands in for the kernels, which agree with it (see above) but take long here
    monkeypatch.setattr(fused_pixel, 'decode', right)
    monkeypatch.setattr(kernels, 'TRIED', {})
    assert fused_pixel.agrees(imnet, start)
    for broken in (lambda *args: 1 / 0, lambda *args: right(*args) * 1.1, lambda *args: right(*args) * torch.nan):
        monkeypatch.setattr(fused_pixel, 'decode', broken)
        monkeypatch.setattr(kernels, 'TRIED', {})
        with pytest.warns(UserWarning, match='kernel for pixel space is not used'):
            assert not fused_pixel.agrees(imnet, start)
        assert not fused_pixel.agrees(imnet, start)  # tried once


@pytest.mark.parametrize('capability, allowed, hidden, dtype, expected', [
    (9, '', [32] * 4, torch.bfloat16, True), (8, '', [32] * 4, torch.bfloat16, False),
    (9, '0', [32] * 4, torch.bfloat16, False), (8, '1', [32] * 4, torch.bfloat16, True),
    (7, '1', [32] * 4, torch.bfloat16, False), (9, '', [64] * 4, torch.bfloat16, False),
    (9, '', [32] * 3, torch.bfloat16, False), (9, '', [16, 16, 16, 32], torch.bfloat16, False),
    (9, '', [24] * 4, torch.bfloat16, False), (9, '', [32] * 4, torch.float32, False)])
def test_they_are_used_for_four_layers_in_bf16_on_gpus_that_are_checked_or_allowed(capability, allowed, hidden, dtype,
                                                                                   expected, monkeypatch):
    monkeypatch.setattr(torch.cuda, 'get_device_capability', lambda device: (capability, 0))
    monkeypatch.setenv('A_LIIF_KERNEL', allowed)
    imnet = models.make(pixel(hidden=hidden)).imnet
    assert fused_pixel.fits(imnet, torch.zeros(1, hidden[0], dtype=dtype)) is expected


def test_on_a_cpu_and_without_triton_they_are_not_used(monkeypatch):
    assert a_liif.pixel_kernel(None, torch.zeros(1)) is None
    monkeypatch.delattr(models, 'fused_pixel')
    monkeypatch.delitem(sys.modules, 'models.fused_pixel')
    monkeypatch.setitem(sys.modules, 'triton', None)
    assert a_liif.pixel_kernel(None, SimpleNamespace(is_cuda=True)) is None


COMPILE = '''
import json
from triton import compile
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from models import fused_pixel

report = {}
for name in ('forward_kernel', 'backward_kernel'):
    kernel, constants = getattr(fused_pixel, name), {'C': 3, 'PADDED': 16, 'S': 3368, 'H': 32, 'BLOCK': 32}
    types = {arg: {'start': '*bf16', 'functions': '*bf16', 'grad_start': '*bf16', 'grad_params': '*bf16', 'n': 'i32',
                   'm': 'i32'}.get(arg, 'constexpr' if arg in constants else '*fp32') for arg in kernel.arg_names}
    code = compile(ASTSource(kernel, types, constants), target=GPUTarget('cuda', 90, 32), options={'num_warps': 2})
    report[name] = code.metadata.shared, code.asm['ptx'].count('mma.sync')
print(json.dumps(report))
'''


@pytest.mark.slow
def test_they_compile_to_tensor_core_products_that_fit_an_h100(tmp_path):
    for shared, products in compiled(COMPILE, tmp_path).values():
        assert products > 0 and shared <= 48 * 1024
