"""Triton's kernels where there is no GPU: its interpreter runs them on the CPU.

Import the module of a kernel while TRITON_INTERPRET is 1 in the environment, and call `interpret` before each test.
"""

import contextlib

import pytest
import torch
import triton
import triton.language as tl
from triton.runtime.interpreter import InterpretedFunction

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
