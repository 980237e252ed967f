"""Python functions on arrays -> machine code, by Numba, and threads that it shares with PyTorch.

A function is compiled at the first call of a new installation (seconds) and its code is kept beside the .pyc files, or
in the user's cache folder where these cannot be written. Arithmetic is left as it is written: nothing is fused or
summed in another order. Threads are OpenMP's where the system has it, the same ones that PyTorch works with.
"""

import contextlib
import functools
import glob
import hashlib
import inspect
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numba
import numpy as np
import torch
from numba import njit
from numba.core import event

from novelgpt.messages import say, warn

try:
    from numba.core.caching import FunctionCache, IndexDataCacheFile
except ImportError:  # private, so another Numba may have them elsewhere
    FunctionCache = IndexDataCacheFile = object

CPU_FORMATS = (torch.float32, torch.bfloat16)  # that the loops take
OPTIONS = {"error_model": "numpy"}  # a division by zero gives inf or nan, as everywhere else
# the private methods that CodeStore builds on and their parameters, as in Numba 0.68
STORE_METHODS = {
    (FunctionCache, "__init__"): ["self", "py_func"],
    (FunctionCache, "load_overload"): ["self", "sig", "target_context"],
    (FunctionCache, "save_overload"): ["self", "sig", "data"],
    (FunctionCache, "flush"): ["self"],
    (IndexDataCacheFile, "__init__"): ["self", "cache_path", "filename_base", "source_stamp"],
}
NO_PLACE = "no place to keep compiled code in: every start compiles it again (NUMBA_CACHE_DIR=folder names one)"
UNKNOWN_NUMBA = (
    f"numba {numba.__version__} stores compiled code in an unknown way: every start compiles it again "
    "(pip install -r requirements.txt brings one that keeps it)"
)
warn_once = functools.cache(warn)
numba.config.THREADING_LAYER_PRIORITY = ["omp", "tbb", "workqueue"]


def compiled(function: Callable, **options) -> Callable:
    """Return a function that Numba compiles at its first call, or finds compiled; the functions it calls go into it."""
    dispatcher = njit(**options, **OPTIONS)(function)
    if not is_known_store() or not hasattr(dispatcher, "_cache"):
        warn_once(UNKNOWN_NUMBA)
        return dispatcher
    try:
        dispatcher._cache = CodeStore(function)
    except (RuntimeError, OSError):  # no folder can be written to, or the sources are no files
        warn_once(NO_PLACE)
    except (AttributeError, TypeError):  # same methods, other insides
        warn_once(UNKNOWN_NUMBA)
    return dispatcher


class CompilationWatch(event.Listener):
    """Adds up the seconds that Numba compiles, and says so when it begins: a person waits without seeing why."""

    def __init__(self):
        self.seconds, self.depth, self.began = 0.0, 0, 0.0

    def on_start(self, event):
        """Note the time, but not of a function that is compiled within another."""
        if not self.seconds and not self.depth:
            say("compiling for this processor, once …")
        self.depth += 1
        self.began = self.began if self.depth > 1 else time.perf_counter()

    def on_end(self, event):
        """Add what it took."""
        self.depth -= 1
        self.seconds += 0.0 if self.depth else time.perf_counter() - self.began


@contextlib.contextmanager
def watching_compilation() -> Iterator[CompilationWatch]:
    """Watch what is compiled within the block; code that is found compiled counts nothing."""
    watch = CompilationWatch()
    event.register("numba:compile", watch)
    try:
        yield watch
    finally:
        event.unregister("numba:compile", watch)


@functools.cache
def is_known_store() -> bool:
    """Tell whether the methods of Numba's private store are those that CodeStore was written for."""
    try:
        found = {key: list(inspect.signature(getattr(*key)).parameters) for key in STORE_METHODS}
    except (AttributeError, TypeError, ValueError):
        return False
    return found == STORE_METHODS


class CodeStore(FunctionCache):
    """Numba's store of one function's code. Damage to it, or a full disk, costs time, never a run.

    Numba takes code as up to date while the function's own file is; here every file of its folder counts, since the
    functions that it calls are compiled into it. Their hash is in the names of what is stored.
    """

    def __init__(self, function: Callable):
        super().__init__(function)
        self.stamp = hash_of_folder(Path(function.__code__.co_filename).parent)
        self.name = self._impl.filename_base
        self._cache_file = IndexDataCacheFile(self.cache_path, f"{self.name}.{self.stamp}", self.stamp)

    def load_overload(self, signature, context):
        """Return the code kept for a signature; None where there is none that can be read."""
        try:
            kept = super().load_overload(signature, context)
        except Exception:  # a truncated file raises whatever its bytes say
            return None
        # Two processes that compile for different types at once may keep one's code under the other's name.
        return kept if kept and tuple(kept.signature.args) == tuple(signature) else None

    def save_overload(self, signature, data):
        """Keep the code for a signature, if there is room, in place of what is out of date or damaged."""
        try:
            # First goes what was kept of this function under other hashes.
            for path in Path(self.cache_path).glob(f"{glob.escape(self.name)}.*.nb[ic]"):
                if self.stamp not in path.name:
                    path.unlink(missing_ok=True)
            try:
                super().save_overload(signature, data)
            except Exception:  # a truncated index
                self.flush()
                super().save_overload(signature, data)
        except Exception:  # a full disk
            warn_once(NO_PLACE)


@functools.cache
def hash_of_folder(folder: Path) -> str:
    """Return a hash of the Python files of a folder and of this one."""
    sources = [Path(__file__), *sorted(folder.glob("*.py"))]
    return hashlib.sha256(b"\0".join(source.read_bytes() for source in sources)).hexdigest()[:16]


def share_threads() -> None:
    """Let the loops use as many threads as PyTorch; Numba, which shares them, changes their number as it starts."""
    count = torch.get_num_threads()
    numba.set_num_threads(min(count, numba.config.NUMBA_NUM_THREADS))
    torch.set_num_threads(count)


def as_array(tensor: torch.Tensor) -> np.ndarray:
    """Return the memory of a tensor on the CPU as an array of the same shape; bf16 as uint16."""
    tensor = tensor.detach()
    return (tensor.view(torch.uint16) if tensor.dtype == torch.bfloat16 else tensor).numpy()
