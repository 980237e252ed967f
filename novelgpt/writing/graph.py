"""A step of fixed shapes -> one CUDA graph, launched by a single call instead of a hundred.

A network of this size keeps a GPU busy for microseconds; without the graph it would mostly wait for Python.
"""

from collections.abc import Callable, Sequence

import torch

WARM_UPS = 3  # runs before the capture, in which libraries choose their kernels


def capture(step: Callable[[], None], device: torch.device, state: Sequence[torch.Tensor]) -> Callable[[], None] | None:
    """Return something that repeats a step as fast as the device can; None on a CPU, which has a step of its own.

    Args:
        step: works in place on tensors that stay where they are; looks at no number.
        device: elsewhere than on NVIDIA GPUs the step itself is returned.
        state: what the step changes and later steps read; it is put back after the runs that warm up.
    """
    if device.type == "cpu":
        return None
    if device.type != "cuda":
        return step
    saved = [tensor.clone() for tensor in state]
    stream = torch.cuda.Stream(device)
    stream.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(stream):
        for _ in range(WARM_UPS):
            step()
    torch.cuda.current_stream(device).wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    for tensor, value in zip(state, saved, strict=True):
        tensor.copy_(value)
    return graph.replay
