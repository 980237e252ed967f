"""Keys and values of all earlier tokens, attention from a new token to them, and a step of a GPU as one graph.

Two forms with the same methods: `PackedCache` for a CPU, whose loops read only the slots in use and which holds small
integers where the weights are rounded anyway, and `MaskedCache` for a GPU, which wants fixed shapes and must not wait
for any number.

The packed one is cut into tiles of 64 x 64: of keys the rows of a tile are the entries of 64 tokens, of values the
tokens themselves. So scores and mixed values are both sums of rows of tiles, each row times one number.
"""

import functools
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numba import prange

from novelgpt.compute.compiling import compiled, share_threads
from novelgpt.compute.loops import CACHE_LINE, LEAST_SCALE, exponentiate, greater, greatest, prefetch

# kind of weights: format of what is stored beside them and its greatest integer, 0 = numbers are stored as they are
FORMATS = {"fp32": (torch.float32, 0), "bf16": (torch.int16, 32767), "int8": (torch.int8, 127)}
TILE = 64  # tokens, and entries of a head, in a tile
AHEAD = 4096  # bytes from what is read to what the memory should send next; measured
Pair = tuple[torch.Tensor, torch.Tensor]  # keys and values
WARM_UPS = 3  # runs before the capture of a graph, in which libraries choose their kernels


class PackedCache:
    """A cache in tiles, for the loops below.

    Beside rounded weights keys and values are integers, every token of every head with a scale of its own, so a step
    reads half or a quarter as much: two bytes beside bf16, whose own error is a hundred times larger, one beside int8.
    A row has so many slots for tokens; places (rows,) int64, the tokens in each, is the decoder's to keep up to date.
    """

    def __init__(self, kind: str, num_layers: int, rows: int, num_heads: int, head_width: int, slots: int, places):
        # Slots and the width of a head are rounded up to whole tiles.
        blocks, panels = -(-slots // TILE), -(-head_width // TILE)
        self.shape, self.places, self.dtype = (rows, num_heads, head_width), places, torch.float32  # of what is read
        dtype, self.limit = FORMATS[kind]
        shape = (num_layers, rows, blocks, num_heads, panels, TILE, TILE)  # (L, B, N, H, C, TILE, TILE)
        self.keys, self.values = torch.zeros(shape, dtype=dtype), torch.zeros(shape, dtype=dtype)
        self.key_scales, self.value_scales = torch.ones(2, num_layers, rows, num_heads, blocks * TILE).unbind()
        stored = (self.keys, self.values, self.key_scales, self.value_scales)
        self.arrays = [[each[layer].numpy() for each in stored] for layer in range(num_layers)]  # the same memory
        self.parts = parts_of_heads(rows, num_heads, torch.get_num_threads())
        share_threads()

    def attend(self, layer: int, qkv: torch.Tensor) -> torch.Tensor:
        """Store keys and values of one more token a row, and attend from it; (B, 3 D) fp32 to (B, D)."""
        rows, heads, width = self.shape
        out = torch.empty(rows, heads, width)  # (B, H, D/H)
        qkv = qkv.view(rows, 3, heads, width).numpy()  # (B, 3, H, D/H)
        attend(qkv, self.places.numpy(), *self.arrays[layer], self.limit, self.parts, out.numpy())
        return out.view(rows, -1)

    def fill(self, layer: int, row: int, k: torch.Tensor, v: torch.Tensor, start: int = 0) -> Pair:
        """Store keys and values (H, N, D/H) fp32 of a text, from slot `start` on; returns them as they will be read."""
        # Round, then cut into tiles, of which start is a border: the padding up to whole tiles stays zero.
        heads, length, width = k.shape
        first, blocks, panels, stop = start // TILE, -(-length // TILE), self.keys.shape[4], start + length
        (k, key_scale), (v, value_scale) = self.round(k), self.round(v)
        self.key_scales[layer, row, :, start:stop], self.value_scales[layer, row, :, start:stop] = (
            key_scale,
            value_scale,
        )
        room = torch.zeros(2, heads, blocks * TILE, panels * TILE)
        room[0, :, :length, :width], room[1, :, :length, :width] = k, v
        keys, values = room.view(2, heads, blocks, TILE, panels, TILE)
        self.keys[layer, row, first : first + blocks] = keys.permute(1, 0, 3, 4, 2)  # entries as rows
        self.values[layer, row, first : first + blocks] = values.permute(1, 0, 3, 2, 4)  # tokens as rows
        return k * key_scale.unsqueeze(2), v * value_scale.unsqueeze(2)

    def read(self, layer: int, row: int, used: int) -> Pair:
        """Return keys and values (H, N, D/H) of the first `used` tokens of a row, to the bit what fill gave."""
        _, heads, width = self.shape
        blocks = -(-used // TILE)
        keys = self.keys[layer, row, :blocks].permute(1, 0, 4, 2, 3)  # (H, N, TILE, C, TILE)
        values = self.values[layer, row, :blocks].permute(1, 0, 3, 2, 4)
        k, v = (each.reshape(heads, blocks * TILE, -1)[:, :used, :width].float() for each in (keys, values))
        return k * self.key_scales[layer, row, :, :used, None], v * self.value_scales[layer, row, :, :used, None]

    def copy_from(self, other: "PackedCache", used: int) -> None:
        """Give the first row the first `used` tokens of the first row of another cache."""
        tiles = -(-used // TILE)
        self.keys[:, 0, :tiles], self.values[:, 0, :tiles] = other.keys[:, 0, :tiles], other.values[:, 0, :tiles]
        self.key_scales[:, 0, :, :used] = other.key_scales[:, 0, :, :used]
        self.value_scales[:, 0, :, :used] = other.value_scales[:, 0, :, :used]

    @property
    def num_bytes(self) -> int:
        """The memory it holds."""
        return sum(each.nbytes for each in (self.keys, self.values, self.key_scales, self.value_scales))

    def round(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return what is stored of vectors (H, N, D/H), and their scales (H, N)."""
        if not self.limit:
            return x, torch.ones(x.shape[:2])
        scale = x.abs().amax(2).clamp(min=float(LEAST_SCALE)) / self.limit
        return (x / scale.unsqueeze(2)).round(), scale

    def copy_first(self, used: int) -> None:
        """Give every row the first `used` tokens of the first one."""
        for each in (self.keys, self.values):
            each[:, 1:, : -(-used // TILE)] = each[:, :1, : -(-used // TILE)]
        for each in (self.key_scales, self.value_scales):
            each[:, 1:, :, :used] = each[:, :1, :, :used]


def parts_of_heads(rows: int, num_heads: int, num_threads: int) -> int:
    """Return the least number of parts of a row that gives all threads equal work; few large parts read memory faster.

    >>> parts_of_heads(10, 12, 2), parts_of_heads(1, 12, 4), parts_of_heads(3, 12, 16)
    (1, 4, 12)
    """
    divisors = [parts for parts in range(1, num_heads + 1) if num_heads % parts == 0]
    return next((parts for parts in divisors if rows * parts % num_threads == 0), num_heads)


@compiled
def add_weighted_rows(weights, tile, total):
    """Add weights (TILE,) times tile (TILE, TILE) to total (TILE,), four rows at a time."""
    row_bytes = TILE * tile.itemsize
    for i in range(0, TILE, 4):
        for line in range(0, 4 * row_bytes, CACHE_LINE):
            prefetch(tile, i * row_bytes + line + AHEAD)
        a, b, c, d = weights[i], weights[i + 1], weights[i + 2], weights[i + 3]
        for j in range(TILE):
            one = a * np.float32(tile[i, j]) + b * np.float32(tile[i + 1, j])
            other = c * np.float32(tile[i + 2, j]) + d * np.float32(tile[i + 3, j])
            total[j] += one + other


@compiled
def store(vector, limit, room):
    """Write a vector into room (C, TILE), as integers up to the limit or, with limit 0, as it is; returns its scale.

    As integers, a vector with an entry that is not finite is not stored, and its scale is nan.
    """
    scale = np.float32(1)
    if limit > 0:
        scale = greater(LEAST_SCALE, greatest(np.abs(vector), vector.shape[0])) / np.float32(limit)
    if not np.isfinite(scale):
        return np.float32(np.nan)
    for i in range(vector.shape[0]):
        code = vector[i] / scale
        room[i // TILE, i % TILE] = np.rint(code) if limit > 0 else code
    return scale


@compiled
def softmax_terms(scores, used, key_scales, value_scales):
    """Turn products (S,) of the query with stored keys into weights of the stored values; returns their divisor."""
    for i in range(used):
        scores[i] *= key_scales[i]
    total = exponentiate(scores, used, greatest(scores, used))
    for i in range(used):
        scores[i] *= value_scales[i]
    for i in range(used, scores.shape[0]):
        scores[i] = 0  # nothing of an earlier window
    return total


@compiled
def attend_heads(start, count, place, qkv, keys, values, key_scales, value_scales, limit, out):
    """Do what `attend` does for one row, whose arrays come without B, and `count` of its heads from `start` on."""
    width, panels = qkv.shape[2], keys.shape[2]
    last, slot, factor = place // TILE, place % TILE, np.float32(width**-0.5)
    query, mixed = np.zeros((count, panels * TILE), np.float32), np.zeros((count, panels * TILE), np.float32)
    scores, totals = np.zeros((count, (last + 1) * TILE), np.float32), np.zeros(count, np.float32)
    # The new token: its query scaled, its key and value into the cache.
    for h in range(count):
        for i in range(width):
            query[h, i] = qkv[0, start + h, i] * factor
        key_scales[start + h, place] = store(qkv[1, start + h], limit, keys[last, start + h, :, :, slot])
        value_scales[start + h, place] = store(qkv[2, start + h], limit, values[last, start + h, :, slot])
    # Scores of all tokens, tile by tile in the order in which they lie in memory.
    for i in range(last + 1):
        for h in range(count):
            for c in range(panels):
                add_weighted_rows(query[h, c * TILE :], keys[i, start + h, c], scores[h, i * TILE :])
    # Scores to weights, then the values mixed by them in the same order.
    for h in range(count):
        totals[h] = softmax_terms(scores[h], place + 1, key_scales[start + h], value_scales[start + h])
    for i in range(last + 1):
        for h in range(count):
            for c in range(panels):
                add_weighted_rows(scores[h, i * TILE :], values[i, start + h, c], mixed[h, c * TILE :])
    for h in range(count):
        for i in range(width):
            out[start + h, i] = mixed[h, i] / totals[h]


@functools.partial(compiled, parallel=True)
def attend(qkv, places, keys, values, key_scales, value_scales, limit, parts, out):
    """Put a token into every row's cache and attend from it to all tokens up to it. Rows do not affect each other.

    Args:
        qkv, out: (B, 3, H, D/H) and (B, H, D/H) fp32.
        places: (B,) int64, tokens in each row before.
        keys, values, key_scales, value_scales: those of a layer of a PackedCache; changed.
        limit: greatest integer stored; 0 = numbers are stored as they are.
        parts: into how many groups the heads of a row are divided among the threads; a divisor of H.
    """
    count = qkv.shape[2] // parts
    for part in prange(qkv.shape[0] * parts):
        row, start = part // parts, part % parts * count
        cache = keys[row], values[row], key_scales[row], value_scales[row]
        attend_heads(start, count, places[row], qkv[row], *cache, limit, out[row])


class MaskedCache:
    """A cache of which every slot is read, the unused ones masked; arguments as for PackedCache, places on its device.

    Numbers are bf16 where the weights are rounded anyway, since reading them takes as long as reading the weights.
    """

    def __init__(self, kind: str, num_layers: int, rows: int, num_heads: int, head_width: int, slots: int, places):
        values = {"dtype": torch.float32 if kind == "fp32" else torch.bfloat16, "device": places.device}
        self.shape, self.places, self.dtype = (rows, 3, num_heads, head_width), places, values["dtype"]
        self.keys = torch.zeros(num_layers, rows, num_heads, head_width, slots, **values)  # (L, B, H, D/H, S)
        self.values = torch.zeros(num_layers, rows, num_heads, slots, head_width, **values)  # (L, B, H, S, D/H)
        self.row_numbers = torch.arange(rows, device=places.device)
        self.slot_numbers = torch.arange(slots, device=places.device)

    def attend(self, layer: int, qkv: torch.Tensor) -> torch.Tensor:
        """Store keys and values of one more token a row, and attend from it; (B, 3 D) to (B, D) as they are stored."""
        if layer == 0:  # the same for all layers
            self.unused = (self.slot_numbers > self.places[:, None])[:, None, None]  # (B, 1, 1, S)
        q, k, v = qkv.view(self.shape).unbind(1)  # (B, H, D/H) each
        keys, values = self.keys[layer], self.values[layer]  # (B, H, D/H, S) and (B, H, S, D/H)
        keys[self.row_numbers, :, :, self.places] = k.to(keys.dtype)
        values[self.row_numbers, :, self.places] = v.to(values.dtype)
        query = (q * q.shape[-1] ** -0.5).to(keys.dtype).unsqueeze(2)  # (B, H, 1, D/H)
        scores = torch.matmul(query, keys).masked_fill(self.unused, -torch.inf)  # (B, H, 1, S)
        return torch.matmul(scores.softmax(-1), values).flatten(1)  # (B, D)

    def fill(self, layer: int, row: int, k: torch.Tensor, v: torch.Tensor, start: int = 0) -> Pair:
        """Store keys and values (H, N, D/H) of a text, from slot `start` on; returns them."""
        stop = start + k.shape[1]
        self.keys[layer, row, :, :, start:stop] = k.transpose(1, 2)
        self.values[layer, row, :, start:stop] = v
        return k, v

    def read(self, layer: int, row: int, used: int) -> Pair:
        """Return keys and values (H, N, D/H) of the first `used` tokens of a row, as they are stored."""
        return self.keys[layer, row, :, :, :used].transpose(1, 2), self.values[layer, row, :, :used]

    @property
    def num_bytes(self) -> int:
        """The memory it holds."""
        return self.keys.nbytes + self.values.nbytes

    def copy_from(self, other: "MaskedCache", used: int) -> None:
        """Give the first row the first `used` tokens of the first row of another cache."""
        self.keys[:, 0, ..., :used] = other.keys[:, 0, ..., :used]
        self.values[:, 0, :, :used] = other.values[:, 0, :, :used]

    def copy_first(self, used: int) -> None:
        """Give every row the first `used` tokens of the first one."""
        self.keys[:, 1:, ..., :used] = self.keys[:, :1, ..., :used]
        self.values[:, 1:, :, :used] = self.values[:, :1, :, :used]


def cache_for(device: torch.device) -> type[PackedCache] | type[MaskedCache]:
    """Return the form of cache that suits a device."""
    return PackedCache if device.type == "cpu" else MaskedCache


def capture_graph(
    step: Callable[[], None], device: torch.device, state: Sequence[torch.Tensor]
) -> Callable[[], None] | None:
    """Return a function that repeats a step fast: a CUDA graph, on a CPU None, elsewhere the step itself.

    A GPU is busy for microseconds an operation; launched one by one, it would mostly wait for Python. A CUDA graph
    launches all of them by a single call. The step works in place on tensors that stay where they are, and reads no
    number back; state is what it changes and later steps read, restored after the runs that warm up.
    """
    if device.type == "cpu":
        return None
    if device.type != "cuda":
        return step
    with torch.cuda.device(device):
        return record_graph(step, torch.cuda.Stream(device), state)


def record_graph(step: Callable[[], None], stream: torch.cuda.Stream, state: Sequence[torch.Tensor]):
    """Do what capture_graph does on the current GPU, by a stream of it: torch's own is of whichever came first."""
    # Warm up, as CUDA asks before a capture.
    saved = [tensor.clone() for tensor in state]
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(WARM_UPS):
            step()
    torch.cuda.current_stream().wait_stream(stream)
    # Record the step without running it, and put back what the warm-up has changed.
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        step()
    put_back(state, saved)
    # A capture on another device records nothing and says nothing: every later token would be id 0.
    graph.replay()
    assert not all(map(torch.equal, state, saved)), "the CUDA graph of a step does nothing"
    put_back(state, saved)
    return graph.replay


def put_back(state: Sequence[torch.Tensor], saved: Sequence[torch.Tensor]) -> None:
    """Give tensors their former values."""
    for tensor, value in zip(state, saved, strict=True):
        tensor.copy_(value)
