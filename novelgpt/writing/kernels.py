"""The loops of a decoding step for which PyTorch has no operator, compiled by Numba for this very processor.

Compiled at the first call of a new installation (seconds) and kept beside the .pyc files. Threads are OpenMP's where
the system has it, and then the same ones that PyTorch works with (see cache.py).

Keys and values lie in tiles of 64 tokens by 64 entries of a head, keys with the entries as rows, values with the tokens
as rows, so that both halves of attention are the same loop of constant size. A head wider than 64 has several tiles; a
narrower one leaves the rest of its tile empty. The tiles of all heads lie beside each other, block of 64 tokens by
block, since memory is fastest in long runs. Every token of a head has a number by which its entries are multiplied:
they may be small integers.

Loops are written out where NumPy would have one call, and arrays cut to whole rows before they are handed on: the first
halves the time to compile, and without the second the compiler sees no run of memory and the loop is ten times slower.
"""

import functools
from collections.abc import Callable

import numba
import numpy as np
from numba import njit, prange

from novelgpt.console import warn

TILE = 64
LANES = 16  # numbers in a vector register
LOG2_E = np.float32(1.4426950408889634)
LN_2 = np.float32(0.6931471805599453)
GELU_OUTER, GELU_INNER = np.float32(0.7978845608028654), np.float32(0.044715)  # sqrt(2 / pi), and Hendrycks' constant
LEAST_SCALE = np.float32(1e-12)

numba.config.THREADING_LAYER_PRIORITY = ["omp", "tbb", "workqueue"]


def compiled(function: Callable, **options) -> Callable:
    """Return a function that Numba compiles at its first call, or finds compiled where an earlier process kept it."""
    options |= {"fastmath": {"contract", "reassoc", "nsz"}, "error_model": "numpy"}  # inf and nan count
    try:
        return njit(cache=True, **options)(function)
    except RuntimeError:  # no folder can be written to
        warn_of_no_cache()
        return njit(**options)(function)


@functools.cache
def warn_of_no_cache() -> None:
    """Say once why every start takes seconds longer."""
    warn("no folder to keep compiled code in: every start compiles it anew (NUMBA_CACHE_DIR=folder names one)")


@compiled
def exp(x):
    """Return e**x in fp32, 3e-7 from the truth, clipped at x = ±87; unlike the library's it runs in vector registers.

    e**x = 2**n * e**r with n an integer and |r| <= ln(2) / 2, and eight terms of the series of e**r.
    """
    x = min(max(x, np.float32(-87)), np.float32(87))
    n = np.floor(x * LOG2_E + np.float32(0.5))
    r = x - n * LN_2
    series = np.float32(1 / 5040)
    for factor in (1 / 720, 1 / 120, 1 / 24, 1 / 6, 1 / 2, 1.0, 1.0):
        series = series * r + np.float32(factor)
    return series * np.int32((np.int32(n) + np.int32(127)) << np.int32(23)).view(np.float32)


@compiled
def greatest(x, count):
    """Return the maximum of the first numbers of x (N,), LANES of them compared at a time."""
    lanes, best, whole = np.full(LANES, -np.inf, np.float32), np.float32(-np.inf), count // LANES * LANES
    for i in range(0, whole, LANES):
        for j in range(LANES):
            lanes[j] = max(lanes[j], x[i + j])
    for each in lanes:
        best = max(best, each)
    for i in range(whole, count):
        best = max(best, x[i])
    return best


@compiled
def add_weighted_rows(weights, tile, total):
    """Add weights (TILE,) times tile (TILE, TILE) to total (TILE,)."""
    for i in range(TILE):
        weight = weights[i]
        for j in range(TILE):
            total[j] += weight * np.float32(tile[i, j])


@compiled
def store(vector, limit, room):
    """Write a vector into room (C, TILE), as integers up to the limit or, with limit 0, as it is; returns its scale."""
    scale = np.float32(1)
    if limit > 0:
        scale = max(greatest(np.abs(vector), vector.shape[0]), LEAST_SCALE) / np.float32(limit)
    for i in range(vector.shape[0]):
        code = vector[i] / scale
        room[i // TILE, i % TILE] = np.rint(code) if limit > 0 else code
    return scale


@compiled
def softmax_terms(scores, used, key_scales, value_scales):
    """Turn products (S,) of the query with stored keys into weights of the stored values; returns their divisor."""
    for i in range(used):
        scores[i] *= key_scales[i]
    best, total = greatest(scores, used), np.float32(0)
    for i in range(used):
        term = exp(scores[i] - best)
        total += term
        scores[i] = term * value_scales[i]
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
    for h in range(count):
        for i in range(width):
            query[h, i] = qkv[0, start + h, i] * factor
        key_scales[start + h, place] = store(qkv[1, start + h], limit, keys[last, start + h, :, :, slot])
        value_scales[start + h, place] = store(qkv[2, start + h], limit, values[last, start + h, :, slot])
    for i in range(last + 1):
        for h in range(count):
            for c in range(panels):
                add_weighted_rows(query[h, c * TILE :], keys[i, start + h, c], scores[h, i * TILE :])
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
    """Put a token into every row's cache and attend from it to all tokens up to it. A row knows nothing of the others.

    Args:
        qkv: (B, 3, H, D/H) fp32.
        places: (B,) int64, tokens in each row before.
        keys, values: (B, N, H, C, TILE, TILE) fp32 or integers; changed.
        key_scales, value_scales: (B, H, N * TILE) fp32; changed.
        limit: greatest integer stored; 0 = numbers are stored as they are.
        parts: into how many the heads of a row are divided among the threads; a divisor of H.
        out: (B, H, D/H) fp32, the result.
    """
    count = qkv.shape[2] // parts
    for part in prange(qkv.shape[0] * parts):
        row, start = part // parts, part % parts * count
        attend_heads(
            start,
            count,
            places[row],
            qkv[row],
            keys[row],
            values[row],
            key_scales[row],
            value_scales[row],
            limit,
            out[row],
        )


@compiled
def quantize_rows(x, codes, scales):
    """Write x (B, N) fp32 as codes (B, N) uint8 and scales (B,) fp32 with x = scale * (code - 128), rounded."""
    for row in range(x.shape[0]):
        scale = max(greatest(np.abs(x[row]), x.shape[1]), LEAST_SCALE) / np.float32(127)
        scales[row] = scale
        for i in range(x.shape[1]):
            codes[row, i] = np.uint8(x[row, i] / scale + np.float32(128.5))


@compiled
def rescale_rows(y, scales, bias, with_gelu):
    """Turn y (B, N) fp32, a product with codes, into that with what they stand for, plus bias (N,); GELU may follow."""
    for row in range(y.shape[0]):
        scale = scales[row]
        if not with_gelu:
            for i in range(y.shape[1]):
                y[row, i] = y[row, i] * scale + bias[i]
        else:
            for i in range(y.shape[1]):
                z = y[row, i] * scale + bias[i]
                u = GELU_OUTER * (z + GELU_INNER * z * z * z)
                y[row, i] = z / (np.float32(1) + exp(np.float32(-2) * u))  # z * (1 + tanh u) / 2
