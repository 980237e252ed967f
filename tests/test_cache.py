"""The cache of a decoding step and the loops that read it, against PyTorch, NumPy and plain arithmetic."""

import itertools
import os
import runpy
import subprocess
import sys

import numba
import pytest
import torch
import torch.nn.functional as F
from conftest import ROOT

from novelgpt import compiling
from novelgpt.compiling import share_threads
from novelgpt.writing.cache import MaskedCache, PackedCache

TOLERANCES = {"fp32": 3e-6, "bf16": 2e-4, "int8": 0.05}  # of keys and values that are normal random numbers


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def decode(cache: PackedCache | MaskedCache, texts: torch.Tensor) -> torch.Tensor:
    """Give q, k, v (N, B, 3 D) of N tokens to the first layer of a cache one by one; returns (N, B, D)."""
    results = []
    for qkv in texts:
        results.append(cache.attend(0, qkv))
        cache.places += 1
    return torch.stack(results)


def attention_of_torch(texts: torch.Tensor, heads: int) -> torch.Tensor:
    """Do the same by PyTorch's attention over the whole text."""
    tokens, rows, width = texts.shape
    q, k, v = texts.view(tokens, rows, 3, heads, -1).permute(2, 1, 3, 0, 4)  # (B, H, N, D/H) each
    return F.scaled_dot_product_attention(q, k, v, is_causal=True).permute(2, 0, 1, 3).reshape(tokens, rows, width // 3)


def new_cache(kind: str, rows: int, heads: int, width: int, slots: int, form: type = PackedCache):
    return form(kind, 1, rows, heads, width, slots, torch.zeros(rows, dtype=torch.int64))


@pytest.mark.parametrize("kind", TOLERANCES)
@pytest.mark.parametrize(("rows", "heads", "width"), [(1, 4, 64), (3, 3, 5), (2, 2, 80)])
def test_attention_token_by_token_is_that_of_torch(kind, rows, heads, width):
    texts = torch.randn(150, rows, 3 * heads * width)  # three blocks of tokens, the last one begun
    ours = decode(new_cache(kind, rows, heads, width, 150), texts)
    assert (ours - attention_of_torch(texts, heads)).abs().max() < TOLERANCES[kind]


@pytest.mark.parametrize("kind", TOLERANCES)
def test_a_text_read_at_once_and_one_read_token_by_token_leave_the_same_cache(kind):
    texts = torch.randn(70, 1, 3 * 2 * 16)
    slow, fast = (new_cache(kind, 2, 2, 16, 100) for _ in range(2))
    decode(slow, texts.repeat(1, 2, 1))
    _, k, v = texts.view(70, 3, 2, 16).permute(1, 2, 0, 3)
    k_read, v_read = fast.fill(0, 0, k, v)
    fast.copy_first(70)
    for name in ("keys", "values", "key_scales", "value_scales"):
        assert torch.equal(getattr(slow, name), getattr(fast, name)), name
    step = {"fp32": 0, "bf16": 1 / 32767, "int8": 1 / 127}[kind]  # a number is off by half a step of its vector at most
    for given, read in ((k, k_read), (v, v_read)):
        assert ((given - read).abs() <= given.abs().amax(2, keepdim=True) * step * 0.51).all()


@pytest.mark.parametrize("kind", TOLERANCES)
def test_nothing_of_a_longer_text_that_was_there_before_is_seen(kind):
    long, short, new = torch.randn(3, 100, 1, 3 * 2 * 8).unbind()
    used, fresh = new_cache(kind, 1, 2, 8, 100), new_cache(kind, 1, 2, 8, 100)
    for cache, texts in ((used, (long, short[:60])), (fresh, (short[:60],))):
        for text in texts:
            _, k, v = text.view(len(text), 3, 2, 8).permute(1, 2, 0, 3)
            cache.fill(0, 0, k, v)
            cache.places.fill_(len(text))
    assert torch.equal(decode(used, new[:10]), decode(fresh, new[:10]))  # across the border of a tile


def test_the_cache_for_gpus_gives_what_the_cache_for_cpus_gives():
    texts = torch.randn(20, 3, 3 * 2 * 8)
    ours, theirs = (decode(new_cache("fp32", 3, 2, 8, 30, form), texts) for form in (PackedCache, MaskedCache))
    assert (ours - theirs).abs().max() < 2e-6


@pytest.mark.parametrize("kind", TOLERANCES)
def test_a_row_is_the_same_with_any_neighbours_threads_and_parts(kind):
    texts, results = torch.randn(70, 6, 3 * 4 * 8), []
    for rows in (1, 2, 3, 6):
        cache = new_cache(kind, rows, 4, 8, 70)
        for cache.parts, threads in itertools.product((1, 2, 4), (1, 2)):
            numba.set_num_threads(min(threads, numba.config.NUMBA_NUM_THREADS))
            cache.places.zero_()
            results.append(decode(cache, texts[:, :rows])[:, 0])
    share_threads()
    assert all(torch.equal(result, results[0]) for result in results)


@pytest.mark.parametrize("kind", TOLERANCES)
@pytest.mark.parametrize("part", [0, 1, 2])
@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_what_is_no_number_stays_none(kind, part, bad):
    qkv = torch.randn(1, 3, 2, 8)
    qkv[0, part, 0, 3] = bad  # of the first head's query, key or value
    result = new_cache(kind, 1, 2, 8, 8).attend(0, qkv.view(1, -1))
    assert not torch.isfinite(result[0, :8]).all() and torch.isfinite(result[0, 8:]).all()


@pytest.mark.parametrize("layer", ["default", "workqueue"])
def test_pytorch_keeps_its_number_of_threads(layer):
    code = """
import torch
from novelgpt.writing.cache import PackedCache
from novelgpt.writing.linear import make_product
make_product(torch.ones(2, 3), None, "int8")(torch.ones(1, 3))
print(torch.get_num_threads())
cache = PackedCache("fp32", 1, 2, 2, 8, 8, torch.zeros(2, dtype=torch.int64))
cache.attend(0, torch.randn(2, 48))
print(torch.get_num_threads())
"""
    settings = {**os.environ, "OMP_NUM_THREADS": "1", "NUMBA_THREADING_LAYER": layer}
    assert subprocess.check_output([sys.executable, "-c", code], cwd=ROOT, env=settings, text=True) == "1\n1\n"


def test_without_a_folder_for_compiled_code_it_is_compiled_anew_and_said():
    code = """
import numba.core.caching as caching
caching.FunctionCache._impl_class._locator_classes = []
from novelgpt.kernels import arithmetic
print(arithmetic.exp(0.0))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "1.0\n"
    assert done.stderr == (
        "warning: no place to keep compiled code in: every start compiles it anew (NUMBA_CACHE_DIR=folder names one)\n"
    )


DOUBLED = """
from novelgpt.compiling import compiled
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
        for memory in (compiling.hash_of_folder, compiling.warn_of_no_cache):
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
