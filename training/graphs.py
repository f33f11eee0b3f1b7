"""Forward and backward as CUDA graphs: the CPU launches a step as a whole, in less time than its kernels one by one."""

from collections.abc import Callable

import torch
from torch import nn

GRAPHS = 512  # at most so many are kept; steps of further shapes are launched kernel by kernel


class StepGraphs:
    """Calls `compute(batch)`, which adds to the gradients of `model` and returns a tensor, as a CUDA graph.

    Each shape of batches gets a graph of its own, recorded when it first occurs. All graphs use the same memory, except
    for their inputs, so the result is copied. `compute` must not wait for the GPU, nor copy from main memory.

    A parameter that `compute` does not use has a gradient of zero, not none, so weight decay changes it.
    """

    def __init__(self, compute: Callable[[dict], torch.Tensor], model: nn.Module):
        self.compute, self.model = compute, model
        self.parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.device = self.parameters[0].device
        self.graphs = {}
        self.pool, self.stream = torch.cuda.graph_pool_handle(), torch.cuda.Stream(self.device)
        for parameter in self.parameters:
            parameter.grad = torch.zeros_like(parameter)

    def __call__(self, batch: dict) -> torch.Tensor:
        """What `compute` returns for `batch`, tensors on any device; the gradients are those of this batch alone."""
        shapes = tuple((name, value.shape, value.dtype) for name, value in batch.items())
        if shapes not in self.graphs:
            if len(self.graphs) == GRAPHS:
                return self.run({name: value.to(self.device) for name, value in batch.items()})
            self.graphs[shapes] = self.record(batch)
        graph, inputs, result = self.graphs[shapes]
        for name, value in inputs.items():
            value.copy_(batch[name], non_blocking=True)
        graph.replay()
        return result.clone()

    def run(self, batch: dict) -> torch.Tensor:
        """`compute`, after the gradients have been set to zero in place."""
        torch._foreach_zero_([parameter.grad for parameter in self.parameters])
        return self.compute(batch)

    def record(self, batch: dict) -> tuple[torch.cuda.CUDAGraph, dict, torch.Tensor]:
        """Records a graph, after a trial that compiles kernels and fills caches; returns it, its inputs and its result.
        """
        inputs = {name: value.to(self.device, copy=True) for name, value in batch.items()}
        graph, buffers = torch.cuda.CUDAGraph(), [buffer.clone() for buffer in self.model.buffers()]
        torch.cuda.synchronize(self.device)
        with torch.cuda.stream(self.stream):
            with torch.random.fork_rng([self.device]):
                self.run(inputs)
            for buffer, before in zip(self.model.buffers(), buffers, strict=True):
                buffer.copy_(before)
            torch.cuda.synchronize(self.device)
            # (torch.cuda.graph would empty PyTorch's cache of memory each time.) Other threads, such as the one that
            # pins the loader's batches, may go on using CUDA.
            graph.capture_begin(self.pool, 'thread_local')
            try:
                result = self.run(inputs)
            finally:
                graph.capture_end()
        torch.cuda.synchronize(self.device)
        return graph, inputs, result
