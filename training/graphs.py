"""Forward and backward as CUDA graphs: a step is launched as a whole, which takes a CPU less time than its kernels."""

from collections.abc import Callable

import torch


class StepGraphs:
    """Calls `compute(batch)`, which adds to the gradients of `parameters` and returns a tensor, as a CUDA graph.

    Each shape of batches gets a graph of its own, recorded when it first occurs. All share their memory, so the result
    is copied. What is recorded must not wait for the GPU, nor copy from main memory.
    """

    def __init__(self, compute: Callable[[dict], torch.Tensor], parameters: list[torch.nn.Parameter]):
        self.compute, self.parameters = compute, parameters
        self.graphs, self.pool, self.stream = {}, torch.cuda.graph_pool_handle(), torch.cuda.Stream()
        for parameter in parameters:
            parameter.grad = torch.zeros_like(parameter)

    def __call__(self, batch: dict) -> torch.Tensor:
        """What `compute` returns for `batch`, tensors on any device; the gradients are those of this batch alone."""
        shapes = tuple((name, value.shape, value.dtype) for name, value in batch.items())
        if shapes not in self.graphs:
            self.graphs[shapes] = self.record(batch)
        graph, inputs, result = self.graphs[shapes]
        for name, value in inputs.items():
            value.copy_(batch[name], non_blocking=True)
        graph.replay()
        return result.clone()

    def record(self, batch: dict) -> tuple[torch.cuda.CUDAGraph, dict, torch.Tensor]:
        """A graph, its inputs and its result. The first call is not recorded: it compiles kernels and fills caches."""
        device = self.parameters[0].device
        inputs = {name: value.to(device) for name, value in batch.items()}
        graph = torch.cuda.CUDAGraph()
        torch.cuda.synchronize(device)
        with torch.cuda.stream(self.stream):
            self.compute(inputs)
            torch.cuda.synchronize(device)
            # (torch.cuda.graph would empty PyTorch's cache of memory each time.) Other threads, such as the one that
            # pins the loader's batches, may go on using CUDA.
            graph.capture_begin(self.pool, 'thread_local')
            try:
                torch._foreach_zero_([parameter.grad for parameter in self.parameters])
                result = self.compute(inputs)
            finally:
                graph.capture_end()
        torch.cuda.synchronize(device)
        return graph, inputs, result
