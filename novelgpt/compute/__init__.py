"""The engine room: what makes a GPT-2 fast where PyTorch has no operator, mostly on CPUs.

    training  tuning     replaces the slow parts of a GPT2LMHeadModel; the cross-entropy of its head
              attention  block by block of queries, with dropout that is a function of (seed, step, window)
    writing   packed     a weight matrix in the form in which this processor multiplies it fastest
              eight_bits its form in eight bits, layer norm, rounding, product and GELU in one loop
              cache      keys and values of all earlier tokens; on GPUs a step as one CUDA graph
    both      loops      what compiled loops are made of; compiling: Python -> machine code, kept on disk

It knows neither texts nor model folders. Private operators of PyTorch and private classes of Numba are used in this
folder only. Every name is loaded when it is first asked for, since Numba and torch take seconds.
"""

import importlib
from typing import Any

# module: the names that others use of it
MODULES = {
    "compiling": "CPU_FORMATS watching_compilation",
    "attention": "QUERY_BLOCK",
    "tuning": "keep_freed_memory multiply row_losses_on_cpu tune_for_cpu tune_for_gpu",
    "packed": "MAX_ROWS Norm Product make_feed_forward make_product",
    "cache": "cache_for capture_graph",
}
PLACES = {name: module for module, names in MODULES.items() for name in names.split()}


def __getattr__(name: str) -> Any:
    """Load a name from its module."""
    if name not in PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{PLACES[name]}"), name)
