"""The cache of a decoding step and the loops that read it, against PyTorch and plain arithmetic."""

import contextlib
import itertools

import numba
import pytest
import torch
import torch.nn.functional as F

from novelgpt.compute.cache import MaskedCache, PackedCache, capture_graph
from novelgpt.compute.compiling import share_threads

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


class PretendedCuda:
    """Two GPUs as torch.cuda shows them: graphs hold what runs while the stream that records is the current one."""

    def __init__(self, monkeypatch):
        self.device_number, self.recording = 0, None
        names = ("Stream", "current_stream", "stream", "device", "CUDAGraph", "graph")
        for name in names:
            monkeypatch.setattr(torch.cuda, name, getattr(self, name))

    def Stream(self, device=None):
        number = self.device_number if device is None else torch.device(device).index
        return Stream(number)

    def current_stream(self, device=None):
        return Stream(self.device_number if device is None else torch.device(device).index)

    @contextlib.contextmanager
    def device(self, device):
        before, self.device_number = self.device_number, torch.device(device).index
        yield
        self.device_number = before

    @contextlib.contextmanager
    def stream(self, stream):
        with self.device(torch.device("cuda", stream.number)):
            yield

    class CUDAGraph(list):
        def replay(self):
            for kernel in self:
                kernel()

    @contextlib.contextmanager
    def graph(self, graph, stream=None):
        """Record on a stream, by default one of the current device."""
        self.recording = (self.device_number if stream is None else stream.number, graph)
        with self.device(torch.device("cuda", self.recording[0])):
            yield
        self.recording = None

    def launch(self, number: int, kernel) -> None:
        """Launch a kernel on a device: recorded by a capture on that device, lost in one on another, else done."""
        if self.recording is None:
            kernel()
        elif self.recording[0] == number:
            self.recording[1].append(kernel)


class Stream:
    """A stream of a pretended GPU, which need not wait for any other."""

    def __init__(self, number: int):
        self.number = number

    def wait_stream(self, other):
        assert other.number == self.number


@pytest.mark.parametrize("number", [0, 1])
def test_a_graph_holds_the_step_of_its_own_device(monkeypatch, number):
    cuda, state = PretendedCuda(monkeypatch), torch.zeros(1)
    replay = capture_graph(lambda: cuda.launch(number, lambda: state.add_(1)), torch.device("cuda", number), [state])
    assert state.item() == 0  # the warm-up is taken back
    replay()
    assert state.item() == 1
    assert cuda.device_number == 0


def test_a_graph_that_holds_nothing_is_an_error(monkeypatch):
    cuda, state = PretendedCuda(monkeypatch), torch.zeros(1)
    with pytest.raises(AssertionError, match="the CUDA graph of a step does nothing"):
        capture_graph(lambda: cuda.launch(0, lambda: state.add_(1)), torch.device("cuda", 1), [state])
