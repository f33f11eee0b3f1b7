"""Training's options of precision and speed: float32, TF32, bf16, channels_last, torch.compile."""

import copy
import functools
import platform
import re
import shutil
import sys
from pathlib import Path

import pytest
import specs
import torch
from projects import Project, before_step, record

import devices
import models
from training.graphs import StepGraphs


@pytest.fixture(autouse=True)
def tf32_as_before():
    parts = torch.backends.cuda.matmul, torch.backends.cudnn
    before = [part.allow_tf32 for part in parts]
    yield
    for part, allowed in zip(parts, before, strict=True):
        part.allow_tf32 = allowed


def autocast_in_step(project, *flags):
    """Whether the model ran under autocast, in training and in evaluation, and what the tf32 flags were."""
    seen = {}

    def hook(model, args, out):
        seen['training' if model.training else 'evaluation'] = torch.is_autocast_enabled('cpu')
        seen['tf32'] = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32

    with before_step(1, lambda trainer: trainer.model.encoder.register_forward_hook(hook)):
        project.train(*flags)
    return seen


def test_a_plain_run_is_plain_float32(project):
    torch.backends.cudnn.allow_tf32 = True  # as PyTorch leaves it
    assert autocast_in_step(project) == {'training': False, 'evaluation': False, 'tf32': (False, False)}


def test_tf32_is_on_where_it_is_asked_for(project):
    assert autocast_in_step(project, '--tf32')['tf32'] == (True, True)


def test_a_device_picked_for_evaluation_computes_in_plain_float32():
    devices.set_precision(tf32=True)
    devices.pick_device('cpu')
    assert not torch.backends.cuda.matmul.allow_tf32 and not torch.backends.cudnn.allow_tf32


def test_bf16_trains_float32_weights_and_evaluates_in_float32(project, undisturbed, monkeypatch):
    monkeypatch.setattr(devices, 'has_bf16', lambda device: True)
    assert autocast_in_step(project, '--amp', 'bf16') == {'training': True, 'evaluation': False, 'tf32': (False, False)}
    weights, plain = project.checkpoint()['model']['sd'], undisturbed({})['epoch-last.pth']['model']['sd']
    assert {w.dtype for w in weights.values()} == {torch.float32}
    assert not torch.equal(weights['imnet.weights.0'], plain['imnet.weights.0'])
    for key in plain:
        torch.testing.assert_close(weights[key], plain[key], rtol=0, atol=0.01)  # nine steps of 1e-3


def test_a_cpu_without_bf16_trains_in_float32_and_says_so(project, monkeypatch, capsys):
    monkeypatch.setattr(devices, 'has_bf16', lambda device: False)
    assert autocast_in_step(project, '--amp', 'bf16')['training'] is False
    assert 'no bf16 products' in capsys.readouterr().out


@pytest.mark.skipif(sys.platform != 'linux' or platform.machine() != 'x86_64', reason='needs Linux on x86-64')
def test_bf16_of_a_cpu_goes_by_its_instructions():
    flags = re.search('flags.*', Path('/proc/cpuinfo').read_text())[0].split()
    assert devices.has_bf16(torch.device('cpu')) == ({'avx512bw', 'avx512vl', 'avx512dq'} <= set(flags))


def test_channels_last_gives_the_same_up_to_rounding(project, undisturbed):
    layouts = record(project, lambda trainer: [
        p.is_contiguous(memory_format=torch.channels_last) for p in trainer.model.encoder.parameters() if p.dim() == 4],
        '--channels-last')
    assert all(all(layout) for layout in layouts)
    weights, plain = project.checkpoint()['model']['sd'], undisturbed({})['epoch-last.pth']['model']['sd']
    for key in plain:
        torch.testing.assert_close(weights[key], plain[key], rtol=1e-2, atol=1e-4)


@pytest.mark.skipif(not shutil.which('g++'), reason='there is no C++ compiler (g++)')
@pytest.mark.slow
def test_compiling_gives_the_same_up_to_rounding(tmp_path):
    changes = {'train_dataset.batch_size': 5, 'epoch_val': None}
    compiled, plain = (Project(tmp_path / name, changes) for name in ('compiled', 'plain'))
    compiled.train('--compile')
    plain.train()
    for i in (1, 2, 3):
        assert compiled.events()['loss'][i] == pytest.approx(plain.events()['loss'][i], rel=1e-3)
    assert compiled.checkpoint()['model']['sd'].keys() == plain.checkpoint()['model']['sd'].keys()


def test_whole_targets_of_many_sizes_are_compiled_once(monkeypatch):
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph

    monkeypatch.setattr(torch, 'compile', functools.partial(torch.compile, backend=backend))
    plain = models.make(specs.pixel(residual='bilinear'))
    compiled = devices.Parallel('cpu').wrap(copy.deepcopy(plain), compiled=True)
    inp = torch.randn(2, 3, 6, 6)
    for size in ((6, 6), (9, 9), (12, 13), (20, 20)):
        torch.testing.assert_close(compiled(inp, None, None, size), plain(inp, None, None, size))
    assert len(graphs) == 1


def test_cuda_graphs_leave_frozen_parameters_without_a_gradient(monkeypatch):  # weight decay would change them
    for name in ('graph_pool_handle', 'Stream'):  # without a GPU
        monkeypatch.setattr(torch.cuda, name, lambda *_: None)
    model = torch.nn.Linear(2, 2)
    model.bias.requires_grad_(False)
    StepGraphs(None, model)
    assert model.bias.grad is None and model.weight.grad.eq(0).all()


# --- pictures --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('machine, avx512, amx, emulated, expected', [
    ('x86_64', False, False, True, False), ('x86_64', True, False, True, True), ('AMD64', False, True, True, True),
    ('aarch64', False, False, True, True), ('arm64', False, False, False, False)])
def test_a_cpu_has_bf16_where_it_does_not_emulate_it(monkeypatch, machine, avx512, amx, emulated, expected):
    monkeypatch.setattr(platform, 'machine', lambda: machine)
    monkeypatch.setattr(torch.cpu, '_is_avx512_bf16_supported', lambda: avx512)
    monkeypatch.setattr(torch.cpu, '_is_amx_tile_supported', lambda: amx)
    monkeypatch.setattr(devices, 'has_bf16', lambda device: emulated)
    assert devices.native_bf16(torch.device('cpu')) == expected


@pytest.mark.parametrize('capability, expected', [((7, 5), False), ((8, 0), True), ((9, 0), True)])
def test_a_gpu_has_bf16_from_ampere_on(monkeypatch, capability, expected):
    monkeypatch.setattr(torch.cuda, 'get_device_capability', lambda device: capability)
    assert devices.native_bf16(torch.device('cuda', 0)) == expected


@pytest.mark.parametrize('native, eight_bits, expected', [
    (True, True, True), (True, False, False), (False, True, False)])
def test_a_picture_is_made_in_bf16_where_that_is_native_and_8_bits_are_kept(monkeypatch, native, eight_bits, expected):
    monkeypatch.setattr(devices, 'native_bf16', lambda device: native)
    with devices.picture_precision(torch.device('cpu'), eight_bits):
        assert torch.is_autocast_enabled('cpu') == expected
