"""Triton's kernels without the GPU that they are made for: its interpreter runs them on the CPU, and its compiler, for
which no GPU is needed, gives their code. Tests that import this are skipped where Triton is not installed.
"""

import contextlib
import importlib
import json
import subprocess
import sys

import pytest
import torch
from paths import ROOT

triton = pytest.importorskip('triton', reason='Triton is not installed')

import triton.language as tl  # noqa: E402
from triton.runtime.interpreter import InterpretedFunction  # noqa: E402

CAPABILITY = torch.cuda.get_device_capability()[0] if torch.cuda.is_available() else 0

with pytest.MonkeyPatch.context() as patch:
    patch.setenv('TRITON_INTERPRET', '1')

    @triton.jit
    def dot_of_floats(a, b, acc=None):
        return tl.dot(a.to(tl.float32), b.to(tl.float32), acc)


def convert(numbers, source, target, rounding):
    """float32 to bf16, as bits, and back."""
    numbers = torch.from_numpy(numbers)
    if target == tl.bfloat16:
        return numbers.bfloat16().view(torch.uint16).numpy()
    return numbers.view(torch.bfloat16).float().numpy()


def interpret(monkeypatch, module):
    """Lets the interpreter run functions that were imported without it, and compute in bf16 as a GPU does.

    Of its own it multiplies the bits of bf16 numbers as integers, and cuts off digits instead of rounding. `module`:
    that of the kernel, with its own `dot`.
    """
    for name in ('sum', 'max', 'zeros'):
        monkeypatch.setattr(tl, name, InterpretedFunction(getattr(tl, name).fn))
    monkeypatch.setattr(module, 'dot', dot_of_floats)
    monkeypatch.setattr('triton.runtime.interpreter._convert_float', convert)
    monkeypatch.setattr(torch.cuda, 'device_of', lambda tensor: contextlib.nullcontext())


def kernel_module(name, on_gpu):
    """The module models.`name`, the device on which its kernels run, and a fixture that lets them run there.

    That is the GPU if `on_gpu`, otherwise the CPU, by the interpreter.
    """
    with pytest.MonkeyPatch.context() as patch:
        if not on_gpu:
            patch.setenv('TRITON_INTERPRET', '1')
        module = importlib.import_module(f'models.{name}')

    @pytest.fixture(autouse=True)
    def interpreter(monkeypatch):
        if not on_gpu:
            interpret(monkeypatch, module)

    return module, torch.device('cuda' if on_gpu else 'cpu'), interpreter


def compiled(program, cache, *args):
    """The JSON that the Python `program` prints, in a process without the interpreter, with `args` and a `cache`."""
    environment = {'PATH': '/usr/bin:/bin', 'TRITON_CACHE_DIR': str(cache), 'OMP_NUM_THREADS': '1'}
    run = subprocess.run([sys.executable, '-c', program, *args], env=environment, capture_output=True, text=True,
                         cwd=ROOT)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)
