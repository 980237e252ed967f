"""Compiled code is kept, found, and made again where it is old or damaged; threads are shared with PyTorch."""

import os
import runpy
import subprocess
import sys

import numba
import pytest
from conftest import ROOT

from novelgpt.compute import compiling


@pytest.mark.parametrize("layer", ["default", "workqueue"])
def test_pytorch_keeps_its_number_of_threads(layer, warm_python):
    code = f"""
import numba
import torch
numba.config.THREADING_LAYER = "{layer}"
from novelgpt.compute.cache import PackedCache
from novelgpt.compute.packed import make_product
make_product(torch.ones(2, 3), None, "int8")(torch.ones(1, 3))
print(torch.get_num_threads())
cache = PackedCache("fp32", 1, 2, 2, 8, 8, torch.zeros(2, dtype=torch.int64))
cache.attend(0, torch.randn(2, 48))
print(torch.get_num_threads())
"""
    settings = {**os.environ, "OMP_NUM_THREADS": "1"}
    assert subprocess.check_output([warm_python, "-c", code], cwd=ROOT, env=settings, text=True) == "1\n1\n"


def test_without_a_folder_for_compiled_code_it_is_compiled_anew_and_said(warm_python):
    code = """
import numba.core.caching as caching
caching.FunctionCache._impl_class._locator_classes = []
from novelgpt.compute import loops
print(loops.exp(0.0))
"""
    done = subprocess.run([warm_python, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "1.0\n"
    assert done.stderr == (
        "warning: no place to keep compiled code in: every start compiles it again (NUMBA_CACHE_DIR=folder names one)\n"
    )


OTHER_NUMBAS = {
    "no such class": "del caching.IndexDataCacheFile",
    "another class": "caching.FunctionCache = object",
    "another argument": "caching.FunctionCache.load_overload = lambda self, sig, target_context, tier: None",
    "other insides": "caching.FunctionCache.__init__ = lambda self, py_func: None",
}


@pytest.mark.parametrize("change", OTHER_NUMBAS.values(), ids=OTHER_NUMBAS)
def test_with_another_numba_the_loops_are_compiled_in_memory_and_it_is_said_once(change, warm_python):
    code = f"""
import numba
import numba.core.caching as caching
numba.__version__ = "0.99.0"
{change}
from novelgpt.compute import eight_bits, loops
print(loops.exp(0.0), loops.greater(1.0, 2.0))
"""
    done = subprocess.run([warm_python, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "1.0 2.0\n"
    assert done.stderr == (
        "warning: numba 0.99.0 stores compiled code in an unknown way: every start compiles it again "
        "(pip install -r requirements.txt brings one that keeps it)\n"
    )


DOUBLED = """
from novelgpt.compute.compiling import compiled
from other import FACTOR

@compiled
def double(x):
    return FACTOR * x

RESULT = double(3.0), double(3), sum(double.stats.cache_hits.values())
"""


class Store:
    """A folder with a small compiled function and a place where its code is kept, as a new process would find it."""

    def __init__(self, folder, monkeypatch):
        self.folder, self.kept = folder, folder / "store"
        monkeypatch.setattr(numba.config, "CACHE_DIR", str(self.kept))
        monkeypatch.setattr(sys, "dont_write_bytecode", True)  # other.py changes faster than the clock of .pyc files
        monkeypatch.syspath_prepend(folder)
        (folder / "doubled.py").write_text(DOUBLED)

    def run(self, factor: int = 2) -> tuple[float, int, int]:
        """Return 3.0 and 3 times a factor, and for how many of both code was found."""
        (self.folder / "other.py").write_text(f"FACTOR = {factor}\n")
        for memory in (compiling.hash_of_folder, compiling.warn_once):
            memory.cache_clear()
        sys.modules.pop("other", None)
        return runpy.run_path(str(self.folder / "doubled.py"))["RESULT"]

    def files(self, ending: str) -> list:
        """Return the files of kept code with an ending."""
        return list(self.kept.rglob(f"*.{ending}"))


@pytest.fixture
def store(tmp_path, monkeypatch):
    yield Store(tmp_path, monkeypatch)
    sys.modules.pop("other", None)
    compiling.hash_of_folder.cache_clear()


def fail_for_want_of_room(*arguments):
    raise OSError(28, "No space left on device")


def test_a_damaged_store_of_compiled_code_costs_no_run_and_is_mended(store, capsys):
    assert [store.run() for _ in range(2)] == [(6, 6, 0), (6, 6, 2)]
    one, other = store.files("nbc")  # for 3.0 and for 3: now each has the other's content
    content = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(content)
    assert [store.run() for _ in range(2)] == [(6, 6, 0), (6, 6, 2)]
    store.files("nbc")[0].write_bytes(b"code")
    assert [store.run() for _ in range(2)] == [(6, 6, 1), (6, 6, 2)]
    store.files("nbi")[0].write_bytes(b"index")
    assert [store.run() for _ in range(2)] == [(6, 6, 0), (6, 6, 2)]
    assert capsys.readouterr().err == ""


def test_code_is_compiled_anew_when_a_file_beside_it_changes(store, monkeypatch):
    assert store.run() == (6, 6, 0)
    with monkeypatch.context() as full:  # the index can be written, the code cannot
        full.setattr(numba.core.caching.IndexDataCacheFile, "_save_data", fail_for_want_of_room)
        assert store.run(factor=5) == (15, 15, 0)
    assert [store.run(factor=5) for _ in range(2)] == [(15, 15, 0), (15, 15, 2)]
    assert len(store.files("nbi")) == 1 and len(store.files("nbc")) == 2  # nothing of what was before


def test_a_disk_without_room_for_compiled_code_costs_no_run(store, monkeypatch, capsys):
    monkeypatch.setattr(numba.core.caching.IndexDataCacheFile, "_save_data", fail_for_want_of_room)
    assert store.run() == (6, 6, 0)
    warning = capsys.readouterr().err
    assert warning.startswith("warning: no place to keep compiled code in") and warning.count("\n") == 1


def test_the_seconds_of_compiling_are_counted_and_said_once(capsys):
    function = numba.njit(lambda x: x + 1)
    with compiling.watching_compilation() as watch:
        assert function(1) == 2 and function(1.5) == 2.5  # compiled for each
        seconds = watch.seconds
        assert function(2) == 3
    assert seconds > 0 and watch.seconds == seconds
    assert capsys.readouterr().err == "compiling for this processor, once …\n"
    with compiling.watching_compilation() as watch:
        assert function(3) == 4
    numba.njit(lambda x: x + 2)(1)  # nobody watches
    assert watch.seconds == 0 and capsys.readouterr().err == ""
