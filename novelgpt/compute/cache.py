"""Keys and values of all earlier tokens, attention from a new token to them, and a step of a GPU as one graph.

Two forms with the same methods: `PackedCache` for a CPU, whose loops read only the slots in use and which holds small
integers where the weights are rounded anyway, and `MaskedCache` for a GPU, which wants fixed shapes and must not wait
for any number.
"""

from collections.abc import Callable, Sequence

import torch

from novelgpt.compute.compiling import share_threads
from novelgpt.compute.kernels.attention_step import TILE, attend
from novelgpt.compute.kernels.loops import LEAST_SCALE

# kind of weights: greatest integer stored, 0 = numbers are stored as they are
LIMITS = {"fp32": 0, "bf16": 32767, "int8": 127}
WARM_UPS = 3  # runs before the capture of a graph, in which libraries choose their kernels
FORMATS = {0: torch.float32, 127: torch.int8, 32767: torch.int16}


class PackedCache:
    """A cache for the loops of kernels/attention_step.py, which wants keys and values in tiles.

    Beside rounded weights keys and values are integers, every token of every head with a scale of its own, so a step
    reads half or a quarter as much: two bytes beside bf16, whose own error is a hundred times larger, one beside int8.

    Args:
        kind: of the weights.
        num_layers, rows, num_heads, head_width: sizes.
        slots: tokens a row can hold.
        places: (rows,) int64, tokens in each row; the decoder's, which keeps it up to date.
    """

    def __init__(self, kind: str, num_layers: int, rows: int, num_heads: int, head_width: int, slots: int, places):
        # Slots and the width of a head are rounded up to whole tiles.
        blocks, panels = -(-slots // TILE), -(-head_width // TILE)
        self.limit, self.shape, self.places = LIMITS[kind], (rows, num_heads, head_width), places
        shape = (num_layers, rows, blocks, num_heads, panels, TILE, TILE)  # (L, B, N, H, C, TILE, TILE)
        self.keys = torch.zeros(shape, dtype=FORMATS[self.limit])
        self.values = torch.zeros(shape, dtype=FORMATS[self.limit])
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

    def fill(self, layer: int, row: int, k: torch.Tensor, v: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Store keys and values (H, N, D/H) fp32 of a whole text; returns them as they will be read."""
        # Round, then cut into tiles: the padding up to whole tiles stays zero.
        heads, length, width = k.shape
        blocks, panels = -(-length // TILE), self.keys.shape[4]
        (k, key_scale), (v, value_scale) = self.round(k), self.round(v)
        self.key_scales[layer, row, :, :length], self.value_scales[layer, row, :, :length] = key_scale, value_scale
        room = torch.zeros(2, heads, blocks * TILE, panels * TILE)
        room[0, :, :length, :width], room[1, :, :length, :width] = k, v
        keys, values = room.view(2, heads, blocks, TILE, panels, TILE)
        self.keys[layer, row, :blocks] = keys.permute(1, 0, 3, 4, 2)  # entries as rows
        self.values[layer, row, :blocks] = values.permute(1, 0, 3, 2, 4)  # tokens as rows
        return k * key_scale.unsqueeze(2), v * value_scale.unsqueeze(2)

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


class MaskedCache:
    """A cache of which every slot is read, the unused ones masked; arguments as for PackedCache, places on its device.

    Numbers are bf16 where the weights are rounded anyway, since reading them takes as long as reading the weights.
    """

    def __init__(self, kind: str, num_layers: int, rows: int, num_heads: int, head_width: int, slots: int, places):
        values = {"dtype": torch.float32 if kind == "fp32" else torch.bfloat16, "device": places.device}
        self.shape, self.places = (rows, 3, num_heads, head_width), places
        self.keys = torch.zeros(num_layers, rows, num_heads, head_width, slots, **values)  # (L, B, H, D/H, S)
        self.values = torch.zeros(num_layers, rows, num_heads, slots, head_width, **values)  # (L, B, H, S, D/H)
        self.row_numbers = torch.arange(rows, device=places.device)
        self.slot_numbers = torch.arange(slots, device=places.device)

    def attend(self, layer: int, qkv: torch.Tensor) -> torch.Tensor:
        """Store keys and values of one more token a row, and attend from it; (B, 3 D) fp32 to (B, D)."""
        q, k, v = qkv.view(self.shape).unbind(1)  # (B, H, D/H) each
        keys, values = self.keys[layer], self.values[layer]  # (B, H, D/H, S) and (B, H, S, D/H)
        keys[self.row_numbers, :, :, self.places] = k.to(keys.dtype)
        values[self.row_numbers, :, self.places] = v.to(values.dtype)
        query = (q * q.shape[-1] ** -0.5).to(keys.dtype).unsqueeze(2)  # (B, H, 1, D/H)
        scores = torch.matmul(query, keys).float()  # (B, H, 1, S)
        unused = self.slot_numbers > self.places[:, None]  # (B, S)
        scores = scores.masked_fill(unused[:, None, None], -torch.inf)
        return torch.matmul(scores.softmax(-1).to(values.dtype), values).flatten(1).float()  # (B, D)

    def fill(self, layer: int, row: int, k: torch.Tensor, v: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Store keys and values (H, N, D/H) fp32 of a whole text; returns them."""
        self.keys[layer, row, :, :, : k.shape[1]] = k.transpose(1, 2)
        self.values[layer, row, :, : v.shape[1]] = v
        return k, v

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
    """Return a function that repeats a step as fast as the device can; None on a CPU, which has a step of its own.

    A network of this size keeps a GPU busy for microseconds an operation; launched one by one, it would mostly wait for
    Python. A CUDA graph launches all of them by a single call.

    Args:
        step: works in place on tensors that stay where they are; no number is read back to the host.
        device: on anything but NVIDIA GPUs the step itself is returned.
        state: what the step changes and later steps read; restored after the runs that warm up.
    """
    if device.type == "cpu":
        return None
    if device.type != "cuda":
        return step
    # Warm up on a stream of its own, as CUDA asks before a capture.
    saved = [tensor.clone() for tensor in state]
    stream = torch.cuda.Stream(device)
    stream.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(stream):
        for _ in range(WARM_UPS):
            step()
    torch.cuda.current_stream(device).wait_stream(stream)
    # Record the step without running it, and put back what the warm-up has changed.
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    for tensor, value in zip(state, saved, strict=True):
        tensor.copy_(value)
    return graph.replay
