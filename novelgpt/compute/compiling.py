"""Python functions on arrays -> machine code, by Numba, and threads that it shares with PyTorch.

Compiled at the first call of a new installation (seconds) and kept beside the .pyc files, or in the user's folder for
such things where these cannot be written. Threads are OpenMP's where the system has it, and then the same ones that
PyTorch works with.

Arithmetic is left as it is written, nothing summed in another order or fused: so a result is the same to the last bit
whether the code was compiled just now or found.
"""

import functools
import glob
import hashlib
from collections.abc import Callable
from pathlib import Path

import numba
import numpy as np
import torch
from numba import njit
from numba.core.caching import FunctionCache, IndexDataCacheFile

from novelgpt.messages import warn

CPU_FORMATS = (torch.float32, torch.bfloat16)  # that the loops take
# a division by zero gives inf or nan, as everywhere else
OPTIONS = {"error_model": "numpy"}
numba.config.THREADING_LAYER_PRIORITY = ["omp", "tbb", "workqueue"]


def compiled(function: Callable, **options) -> Callable:
    """Return a function that Numba compiles at its first call, or finds compiled where an earlier process kept it."""
    dispatcher = njit(**options, **OPTIONS)(function)
    try:
        dispatcher._cache = CacheThatMayFail(function)
    except (RuntimeError, OSError):  # no folder can be written to, or the sources are no files
        warn_of_no_cache()
    return dispatcher


class CacheThatMayFail(FunctionCache):
    """Numba's store of one function's code, whose damage or want of space costs time and never a run.

    Numba takes code as up to date while the function's own file is; here all files of its folder count, for the
    functions that it calls are compiled into it. Their hash is part of the files' names, so that nothing older is ever
    found under a new name, whenever a process ends.
    """

    def __init__(self, function: Callable):
        super().__init__(function)
        stamp = hash_of_folder(Path(function.__code__.co_filename).parent)
        self.name = self._impl.filename_base
        self._cache_file = IndexDataCacheFile(self._cache_path, f"{self.name}.{stamp}", stamp)

    def load_overload(self, signature, context):
        """Return the code kept for a signature, None where there is none that can be read.

        Two processes that compile for different types at the same moment may keep one's code under the other's name.
        """
        try:
            kept = super().load_overload(signature, context)
        except Exception:  # a cut file raises whatever its bytes say
            return None
        return kept if kept and tuple(kept.signature.args) == tuple(signature) else None

    def save_overload(self, signature, data):
        """Keep the code for a signature, if there is room, instead of what is out of date or damaged."""
        try:
            self.remove_older()
            try:
                super().save_overload(signature, data)
            except Exception:  # an index that is cut
                self.flush()
                super().save_overload(signature, data)
        except Exception:  # a full disk
            warn_of_no_cache()

    def remove_older(self) -> None:
        """Remove what was kept of this function under other hashes."""
        for path in Path(self._cache_path).glob(f"{glob.escape(self.name)}.*.nb[ic]"):
            if self._cache_file._source_stamp not in path.name:
                path.unlink(missing_ok=True)


@functools.cache
def hash_of_folder(folder: Path) -> str:
    """Return a hash of the Python files of a folder and of this one."""
    sources = [Path(__file__), *sorted(folder.glob("*.py"))]
    return hashlib.sha256(b"\0".join(source.read_bytes() for source in sources)).hexdigest()[:16]


@functools.cache
def warn_of_no_cache() -> None:
    """Say once why every start takes seconds longer."""
    warn("no place to keep compiled code in: every start compiles it anew (NUMBA_CACHE_DIR=folder names one)")


def share_threads() -> None:
    """Let the loops use as many threads as PyTorch; Numba, which shares them, changes their number as it starts."""
    count = torch.get_num_threads()
    numba.set_num_threads(min(count, numba.config.NUMBA_NUM_THREADS))
    torch.set_num_threads(count)


def as_array(tensor: torch.Tensor) -> np.ndarray:
    """Return the memory of a tensor on the CPU as an array; bf16 as uint16."""
    tensor = tensor.detach()
    return tensor.view(torch.int16).numpy().view(np.uint16) if tensor.dtype == torch.bfloat16 else tensor.numpy()
