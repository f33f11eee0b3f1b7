"""Whether the CUDA kernels are used: on which GPUs, and whether they agree there with PyTorch's own operations."""

import importlib
import os
import types
import warnings
from collections.abc import Callable, Hashable

import torch

CHECKED = (9,)  # major compute capabilities of GPUs on which scripts/check_gpu.py has passed; elsewhere it is opt-in
TRIED = {}  # results of `works`


def usable(name: str, *args: object) -> types.ModuleType | None:
    """The module models/NAME.py, whose `decode` runs a kernel; None where there is no Triton.

    None, too, unless the kernel fits the model and its inputs `args`, and agrees there with PyTorch's own operations.
    """
    try:
        module = importlib.import_module(f'models.{name}')
    except ImportError:  # Triton is missing
        return None
    return module if module.fits(*args) and module.agrees(*args) else None


def allowed(device: torch.device, possible: range) -> bool:
    """Whether a kernel for GPUs of the major compute capabilities `possible` may be used on `device`.

    The environment variable A_LIIF_KERNEL allows it on all of these (1), or on none (0).
    """
    capability, wanted = torch.cuda.get_device_capability(device)[0], os.environ.get('A_LIIF_KERNEL')
    return capability in possible and (capability in CHECKED and wanted != '0' or wanted == '1')


def works(name: str, device: torch.device, key: Hashable, error: Callable[[], float]) -> bool:
    """Whether the kernel `name` compiles and its `error` is below 1, in units of its tolerance.

    It is tried once for each `device` and `key`, which says what the kernel is compiled for.
    """
    tried = name, device, key
    if tried not in TRIED:
        try:
            off = error()
            if not off < 1:
                raise ArithmeticError(f'it is off by {off:.2g} times its tolerance')
            TRIED[tried] = True
        except Exception as failure:  # a compiler's or a driver's; PyTorch's own operations always work
            warnings.warn(f'the kernel for {name} is not used on {device}: {failure}', stacklevel=2)
            TRIED[tried] = False
    return TRIED[tried]
