"""Where a model runs: the CPU, one GPU, several GPUs in one process (DataParallel), or one process each (torchrun).

`Parallel` is what the rest of the code knows of ranks and devices.
"""

import os
import platform
import re
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn

from errors import UserError
from utils import say


def pick_devices(gpu: str) -> list[torch.device]:
    """The devices that `--gpu` names: 'cpu', or indices such as '0' or '0,1'; without CUDA always the CPU.

    Raises UserError for anything else, and for GPUs that do not exist.
    """
    if gpu == 'cpu' or not torch.cuda.is_available():
        say('running on the CPU' + ('' if gpu == 'cpu' else ' (CUDA is not available)'))
        return [torch.device('cpu')]
    count = torch.cuda.device_count()
    try:
        indices = [int(i) for i in gpu.split(',')]
    except ValueError:
        raise UserError(f"--gpu must be 'cpu' or indices such as 0 or 0,1, not {gpu!r}") from None
    if len({*indices}) < len(indices):
        raise UserError(f'--gpu {gpu} names a GPU twice')
    for index in indices:
        if not 0 <= index < count:
            raise UserError(f'--gpu: there is no GPU {index} (known: {", ".join(map(str, range(count)))})')
    return [torch.device('cuda', i) for i in indices]


def set_precision(tf32: bool) -> None:
    """Plain float32 on GPUs unless `tf32`: PyTorch leaves TF32 on for cuDNN's convolutions by default."""
    torch.backends.cuda.matmul.allow_tf32 = tf32
    torch.backends.cudnn.allow_tf32 = tf32


def pick_device(gpu: str) -> torch.device:
    """The first of `pick_devices`, for evaluation, which uses only one device; also switches GPUs to plain float32."""
    set_precision(tf32=False)
    device = pick_devices(gpu)[0]
    if device.type == 'cuda':
        torch.cuda.set_device(device)  # or GPU 0 would hold a context, too
    return device


def has_bf16(device: torch.device) -> bool:
    """Whether bf16 is worth using. CPUs for which oneDNN has no bf16 products (x86 without AVX-512) emulate them.

    Emulation is about 15 times slower than float32 (a training step on a Zen 3).
    """
    return device.type != 'cpu' or torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()


def native_bf16(device: torch.device) -> bool:
    """Whether `device` itself multiplies in bf16: GPUs from Ampere on, CPUs with AVX512-BF16, AMX or Arm's BF16."""
    if device.type == 'cuda':
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if platform.machine().lower() in ('aarch64', 'arm64'):
        return has_bf16(device)
    return has_bf16(device) and (torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def picture_precision(device: torch.device, eight_bits: bool) -> torch.autocast:
    """The context for making a picture: bf16 if `device` has it and only `eight_bits` per channel are kept."""
    return torch.autocast(device.type, torch.bfloat16, enabled=eight_bits and native_bf16(device))


def mixed_precision(device: torch.device, amp: str | None) -> torch.autocast:
    """The context for calling models: bf16 if `amp` is 'bf16' and the device has it, float32 otherwise."""
    if amp and not has_bf16(device):
        say('this CPU has no bf16 products: computing in float32, which is faster here')
    return torch.autocast(device.type, torch.bfloat16, enabled=amp == 'bf16' and has_bf16(device))


def device_name(device: torch.device) -> str:
    """The name of the GPU or the processor, which on Linux Python itself does not provide."""
    if device.type == 'cuda':
        return torch.cuda.get_device_name(device)
    info = Path('/proc/cpuinfo')
    name = re.search(r'model name\s*: (.+)', info.read_text()) if info.exists() else None
    return name[1] if name else platform.processor() or platform.machine()


def peak_memory(device: torch.device) -> int:
    """Peak memory in bytes: of the GPU's allocations, or of the process on the CPU (0, for unknown, on Windows)."""
    if device.type == 'cuda':
        return torch.cuda.max_memory_allocated(device)
    try:
        import resource
    except ImportError:
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == 'darwin' else 1024)


def has_own_classes(model: nn.Module) -> bool:
    """Whether `model` has parts whose classes come from neither this project nor PyTorch."""
    return any(type(part).__module__.split('.')[0] not in ('models', 'torch') for part in model.modules())


class Parallel:
    """This process in its job: `rank` of `world`, its `device`, and the few collectives that training needs.

    Under torchrun each process has one device, GPU number LOCAL_RANK, or the CPU if `gpu` is 'cpu'; other values of
    `gpu` are ignored. NCCL carries GPU tensors, gloo CPU tensors. Otherwise one process has all devices of `gpu`.
    """

    def __init__(self, gpu: str):
        self.distributed = dist.is_torchelastic_launched()
        place = {key: os.environ.get(key, usual) for key, usual in (('RANK', '0'), ('WORLD_SIZE', '1'))}
        if not self.distributed and place != {'RANK': '0', 'WORLD_SIZE': '1'}:
            raise UserError(f'RANK is {place["RANK"]} and WORLD_SIZE {place["WORLD_SIZE"]}, but not by torchrun: start '
                            'several processes with torchrun, or unset both for a single one')
        if self.distributed:
            from torch import _dynamo  # noqa: F401  if optimizers import it later, it keeps the group alive

            self.devices = pick_devices('cpu' if gpu == 'cpu' else os.environ['LOCAL_RANK'])
            dist.init_process_group('gloo' if self.devices[0].type == 'cpu' else 'cpu:gloo,cuda:nccl')
            self.rank, self.world = dist.get_rank(), dist.get_world_size()
        else:
            self.devices, self.rank, self.world = pick_devices(gpu), 0, 1
        self.device = self.devices[0]
        if self.device.type == 'cuda':
            torch.cuda.set_device(self.device)

    def wrap(self, model: nn.Module, compiled: bool = False, amp: str | None = None) -> nn.Module:
        """`model`, already on `self.device`, wrapped for the job's devices.

        `compiled`: with torch.compile. `amp`: the precision in which it is called.

        DistributedDataParallel gets a group of its own, because `close` cannot end a group that it holds. It searches
        for unused parameters, which takes time, only if `model` has a user's classes: ours leave no parameter unused.
        """
        if len(self.devices) > 1 and (compiled or amp):
            why = 'copies the uncompiled model' if compiled else 'uses float16 in its threads, not bf16'
            raise UserError(f'{"compile: true" if compiled else "amp"} works with one GPU, or with torchrun: '
                            f'DataParallel {why}')
        if compiled:
            if hasattr(model, 'query_whole'):  # it would be compiled again for each size of whole targets
                model.query_whole = torch.compiler.disable(model.query_whole)
            model = torch.compile(model)
        if self.distributed:
            return nn.parallel.DistributedDataParallel(model, [self.device] if self.device.type == 'cuda' else None,
                                                       process_group=dist.new_group(),
                                                       find_unused_parameters=has_own_classes(model))
        return nn.DataParallel(model, self.devices) if len(self.devices) > 1 else model

    def sum(self, tensor: torch.Tensor) -> torch.Tensor:
        """`tensor` added up over all ranks, in place under torchrun."""
        if self.distributed:
            dist.all_reduce(tensor)
        return tensor

    def any(self, flag: bool) -> bool:
        """Whether `flag` is true on any rank. It is sent as a CPU tensor, so as not to wait for the GPU."""
        return bool(self.sum(torch.tensor(int(flag))))

    def agree(self, *numbers: int) -> bool:
        """Whether all ranks have the same integers `numbers`."""
        own = torch.tensor(numbers)
        return not self.any(not torch.equal(self.sum(own.clone()), self.world * own))

    def close(self) -> None:
        """Ends gloo's threads, on all ranks: a thread that frees a tensor while Python exits aborts the process."""
        if self.distributed:
            dist.destroy_process_group()
