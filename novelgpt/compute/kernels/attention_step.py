"""Attention from one new token a row to all tokens before it, whose keys and values lie in tiles.

A tile is 64 x 64: of keys its rows are the entries of 64 tokens, of values the tokens themselves. So scores and mixed
values are both sums of rows of tiles, each row times one number.
"""

import functools

import numpy as np
from numba import prange

from novelgpt.compute.compiling import compiled
from novelgpt.compute.kernels.loops import CACHE_LINE, LEAST_SCALE, exponentiate, greater, greatest, prefetch

TILE = 64  # tokens, and entries of a head, in a tile
AHEAD = 4096  # bytes from what is read to what the memory should send next; measured


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
        qkv: (B, 3, H, D/H) fp32.
        places: (B,) int64, tokens in each row before.
        keys, values: (B, N, H, C, TILE, TILE) fp32 or integers; changed.
        key_scales, value_scales: (B, H, N * TILE) fp32; changed.
        limit: greatest integer stored; 0 = numbers are stored as they are.
        parts: into how many groups the heads of a row are divided among the threads; a divisor of H.
        out: (B, H, D/H) fp32, the result.
    """
    count = qkv.shape[2] // parts
    for part in prange(qkv.shape[0] * parts):
        row, start = part // parts, part % parts * count
        cache = keys[row], values[row], key_scales[row], value_scales[row]
        attend_heads(start, count, places[row], qkv[row], *cache, limit, out[row])
