"""Loops for which PyTorch has no operator, or only a chain of them, compiled for this very processor by compiling.py.

Numbers are fp32, or bf16 seen as uint16 since NumPy has no such type: `widen` and `narrow` go between them. All loops
are in this one file, since Numba looks no further to see whether what it kept is out of date.

Loops are written out where NumPy would have one call, and arrays cut to whole rows before they are handed on: the first
halves the time to compile, and without the second the compiler sees no run of memory and the loop is ten times slower.
"""

import functools

import numpy as np
from numba import prange, types
from numba.extending import overload

from novelgpt.compiling import OPTIONS, compiled

TILE = 64
LANES = 64  # numbers taken at once by a sum or a maximum: some vector registers full
LOG2_E, LEAST_SCALE = np.float32(1.4426950408889634), np.float32(1e-12)
LN_2_HIGH, LN_2_LOW = np.float32(0.693359375), np.float32(-2.12194440054690583e-4)  # few bits: n times it is exact
GELU_OUTER, GELU_INNER = np.float32(0.7978845608028654), np.float32(0.044715)  # sqrt(2 / pi), and Hendrycks' constant


def widen(number):
    """Return a number as fp32."""


@overload(widen, jit_options=OPTIONS)
def widen_compiled(number):
    """Give Numba what widen does for a type: the bits of bf16 are the upper half of those of fp32."""
    if number == types.uint16:
        return lambda number: np.uint32(np.uint32(number) << np.uint32(16)).view(np.float32)
    return lambda number: np.float32(number)


def narrow(number, like):
    """Return an fp32 number in the format of another."""


@overload(narrow, jit_options=OPTIONS)
def narrow_compiled(number, like):
    """Give Numba what narrow does for a type: bf16 is rounded to the nearest, of two to the even one."""
    return narrow_to_bf16 if like == types.uint16 else (lambda number, like: number)


def narrow_to_bf16(number, like):
    """Return the upper half of the bits, after half of what is cut off is added."""
    bits = np.float32(number).view(np.uint32)
    odd = np.uint32((bits >> np.uint32(16)) & np.uint32(1))
    return np.uint16(np.uint32(bits + np.uint32(0x7FFF) + odd) >> np.uint32(16))


@compiled
def exp(x):
    """Return e**x in fp32, 3e-7 from the truth, clipped at x = ±87; unlike the library's it runs in vector registers.

    e**x = 2**n * e**r with n an integer and |r| <= ln(2) / 2, taken off in two parts (Cody and Waite, 1980), and eight
    terms of the series of e**r.
    """
    x = np.float32(-87) if x < np.float32(-87) else x  # nan stays nan
    x = np.float32(87) if x > np.float32(87) else x
    n = np.floor(x * LOG2_E + np.float32(0.5))
    r = x - n * LN_2_HIGH - n * LN_2_LOW
    series = np.float32(1 / 5040)
    for factor in (1 / 720, 1 / 120, 1 / 24, 1 / 6, 1 / 2, 1.0, 1.0):
        series = series * r + np.float32(factor)
    return series * np.int32((np.int32(n) + np.int32(127)) << np.int32(23)).view(np.float32)


@compiled
def greater(one, other):
    """Return the greater of two numbers, nan if one is nan."""
    return one if one > other or one != one else other


@compiled
def greatest(x, count):
    """Return the maximum of the first numbers of x (N,), LANES of them compared at a time; nan if one is nan."""
    lanes, best, whole = np.full(LANES, -np.inf, np.float32), np.float32(-np.inf), count // LANES * LANES
    for i in range(0, whole, LANES):
        for j in range(LANES):
            lanes[j] = greater(x[i + j], lanes[j])
    for each in lanes:
        best = greater(each, best)
    for i in range(whole, count):
        best = greater(x[i], best)
    return best


@compiled
def add_up(x, count):
    """Return the sum of the first numbers of x (N,), LANES of them added at a time."""
    lanes, total, whole = np.zeros(LANES, np.float32), np.float32(0), count // LANES * LANES
    for i in range(0, whole, LANES):
        for j in range(LANES):
            lanes[j] += x[i + j]
    for each in lanes:
        total += each
    for i in range(whole, count):
        total += x[i]
    return total


@compiled
def exponentiate(x, count, best):
    """Replace the first numbers of x (N,) by e**(x - best); returns their sum."""
    for i in range(count):
        x[i] = exp(x[i] - best)
    return add_up(x, count)


@compiled
def gelu_gate(x):
    """Return (1 + tanh u) / 2 with u = sqrt(2 / pi) (x + 0.044715 x**3), by which GPT-2's GELU multiplies x."""
    u = GELU_OUTER * (x + GELU_INNER * x * x * x)
    return np.float32(1) / (np.float32(1) + exp(np.float32(-2) * u))


@functools.partial(compiled, parallel=True)
def gelu(x, y):
    """Write GELU of x (N, D) into y (N, D), both fp32 or bf16."""
    for row in prange(x.shape[0]):
        for i in range(x.shape[1]):
            z = widen(x[row, i])
            y[row, i] = narrow(z * gelu_gate(z), y[row, i])


@functools.partial(compiled, parallel=True)
def gelu_backward(x, gradient, result):
    """Write gradient (N, D) times the derivative of GELU at x (N, D) into result (N, D), all fp32 or bf16."""
    for row in prange(x.shape[0]):
        for i in range(x.shape[1]):
            z = widen(x[row, i])
            gate = gelu_gate(z)
            inner = GELU_OUTER * (np.float32(1) + np.float32(3) * GELU_INNER * z * z)  # du / dx
            slope = gate + np.float32(2) * z * gate * (np.float32(1) - gate) * inner
            result[row, i] = narrow(widen(gradient[row, i]) * slope, result[row, i])


@compiled
def row_cross_entropy(scores, label, needs_gradient):
    """Do what `cross_entropy` does for one row."""
    count = scores.shape[0]
    terms = np.empty(count, np.float32)
    for i in range(count):
        terms[i] = widen(scores[i])
    best, target = greatest(terms, count), terms[label]
    total = exponentiate(terms, count, best)
    if needs_gradient:
        share = np.float32(1) / total
        terms[label] -= total
        for i in range(count):
            scores[i] = narrow(terms[i] * share, scores[i])
    return best + np.log(total) - target


@functools.partial(compiled, parallel=True)
def cross_entropy(scores, labels, losses, needs_gradient):
    """Write the cross-entropy of every row into losses (N,) fp32, in nats, and its gradient over the scores.

    Args:
        scores: (N, V) fp32 or bf16.
        labels: (N,) int64; a negative one counts nothing.
        needs_gradient: False leaves the scores alone.
    """
    for row in prange(scores.shape[0]):
        if labels[row] >= 0:
            losses[row] = row_cross_entropy(scores[row], labels[row], needs_gradient)
        else:
            losses[row] = 0
            for i in range(scores.shape[1] if needs_gradient else 0):
                scores[row, i] = 0


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
        scale = greater(LEAST_SCALE, greatest(np.abs(vector), vector.shape[0])) / np.float32(limit)
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
def normalize(x, gain, shift, epsilon):
    """Replace x (N,) by its layer norm."""
    count, size = x.shape[0], np.float32(x.shape[0])
    mean = add_up(x, count) / size
    for i in range(count):
        x[i] -= mean
    factor = np.float32(1) / np.sqrt(add_up(x * x, count) / size + epsilon)
    for i in range(count):
        x[i] = x[i] * factor * gain[i] + shift[i]


@compiled
def quantize_rows(x, gain, shift, epsilon, codes, scales):
    """Write x (B, N) fp32, after a layer norm unless gain is empty, as codes (B, N) uint8: x = scale * (code - 128)."""
    for row in range(x.shape[0]):
        numbers = x[row].copy()
        if gain.shape[0]:
            normalize(numbers, gain, shift, epsilon)
        scale = greater(LEAST_SCALE, greatest(np.abs(numbers), x.shape[1])) / np.float32(127)
        scales[row] = scale
        for i in range(x.shape[1]):
            codes[row, i] = np.uint8(numbers[i] / scale + np.float32(128.5))


@compiled
def rescale_rows(y, scales, bias, with_gelu):
    """Turn y (B, N) fp32, a product with codes, into that with what they stand for, plus bias (N,); GELU may follow."""
    for row in range(y.shape[0]):
        scale = scales[row]
        for i in range(y.shape[1]):
            y[row, i] = y[row, i] * scale + bias[i]
        for i in range(y.shape[1] if with_gelu else 0):
            y[row, i] *= gelu_gate(y[row, i])
