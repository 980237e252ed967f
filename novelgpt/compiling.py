"""Python functions on arrays -> machine code, by Numba, and threads that it shares with PyTorch.

Compiled at the first call of a new installation (seconds) and kept beside the .pyc files. Threads are OpenMP's where
the system has it, and then the same ones that PyTorch works with.

Arithmetic is left as it is written, nothing summed in another order or fused: so a result is the same to the last bit
on every processor, and whether the code was compiled just now or found.
"""

import functools
from collections.abc import Callable

import numba
import numpy as np
import torch
from numba import njit

from novelgpt.console import warn

OPTIONS = {"error_model": "numpy"}  # a division by zero gives inf or nan, as everywhere else
numba.config.THREADING_LAYER_PRIORITY = ["omp", "tbb", "workqueue"]


def compiled(function: Callable, **options) -> Callable:
    """Return a function that Numba compiles at its first call, or finds compiled where an earlier process kept it."""
    options |= OPTIONS
    try:
        return njit(cache=True, **options)(function)
    except RuntimeError:  # no folder can be written to
        warn_of_no_cache()
        return njit(**options)(function)


@functools.cache
def warn_of_no_cache() -> None:
    """Say once why every start takes seconds longer."""
    warn("no folder to keep compiled code in: every start compiles it anew (NUMBA_CACHE_DIR=folder names one)")


def share_threads() -> None:
    """Let the loops use as many threads as PyTorch; Numba, which shares them, changes their number as it starts."""
    count = torch.get_num_threads()
    numba.set_num_threads(min(count, numba.config.NUMBA_NUM_THREADS))
    torch.set_num_threads(count)


def as_array(tensor: torch.Tensor) -> np.ndarray:
    """Return the memory of a tensor on the CPU as an array; bf16 as uint16."""
    tensor = tensor.detach()
    return tensor.view(torch.int16).numpy().view(np.uint16) if tensor.dtype == torch.bfloat16 else tensor.numpy()
