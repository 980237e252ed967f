"""What compiled loops are made of, and those of a training step: GELU, its derivative, the head's cross-entropy.

The parts are number formats, e**x, sums and maxima over vector registers, and a hint to the memory. Numbers are fp32,
or bf16 seen as uint16 since NumPy has no such type: `widen` and `narrow` go between them.

Loops are written out where NumPy would have one call, and arrays are cut to whole rows before they are handed on: the
first halves the time to compile; without the second the compiler does not see that memory is contiguous, and the loop
is ten times slower.
"""

import functools

import numpy as np
from llvmlite import ir
from numba import prange, types
from numba.core import cgutils
from numba.extending import intrinsic, overload

from novelgpt.compute.compiling import OPTIONS, compiled

CACHE_LINE = 64  # bytes
LANES = 64  # numbers taken at once by a sum or a maximum: several vector registers full
LOG2_E = np.float32(1.4426950408889634)
LEAST_SCALE = np.float32(1e-12)  # of numbers rounded to integers, where all of them are 0
# ln(2) in two parts; the first has few bits, so n times it is exact
LN_2_HIGH, LN_2_LOW = np.float32(0.693359375), np.float32(-2.12194440054690583e-4)
GELU_OUTER, GELU_INNER = np.float32(0.7978845608028654), np.float32(0.044715)  # sqrt(2 / pi), and Hendrycks' constant
TANH_GELU = ("gelu_new", "gelu_pytorch_tanh", "gelu_fast")  # the names of that form of GELU in a config


def widen(number):
    """Return a number as fp32."""


@overload(widen, jit_options=OPTIONS)
def widen_compiled(number):
    """Tell Numba what widen does for a type: the bits of bf16 are the upper half of those of fp32."""
    if number == types.uint16:
        return lambda number: np.uint32(np.uint32(number) << np.uint32(16)).view(np.float32)
    return lambda number: np.float32(number)


def narrow(number, like):
    """Return an fp32 number in the format of another."""


@overload(narrow, jit_options=OPTIONS)
def narrow_compiled(number, like):
    """Tell Numba what narrow does for a type: bf16 is rounded to the nearest number, ties to even."""
    return narrow_to_bf16 if like == types.uint16 else (lambda number, like: number)


def narrow_to_bf16(number, like):
    """Return the upper half of the bits after adding half of what is cut off."""
    # 0x7FFF + 1 where the kept part is odd: exactly half then rounds to even
    bits = np.float32(number).view(np.uint32)
    odd = np.uint32((bits >> np.uint32(16)) & np.uint32(1))
    return np.uint16(np.uint32(bits + np.uint32(0x7FFF) + odd) >> np.uint32(16))


@compiled
def exp(x):
    """Return e**x in fp32, 3e-7 from the truth, clipped at x = ±87; unlike the library's it runs in vector registers.

    e**x = 2**n * e**r with n an integer and |r| <= ln(2) / 2, taken off in two parts (Cody and Waite, 1980), and eight
    terms of the series of e**r.
    """
    # Written as comparisons, so that nan stays nan.
    x = np.float32(-87) if x < np.float32(-87) else x
    x = np.float32(87) if x > np.float32(87) else x
    n = np.floor(x * LOG2_E + np.float32(0.5))  # the nearest integer to x / ln(2)
    r = x - n * LN_2_HIGH - n * LN_2_LOW
    # Horner's scheme from 1 / 7! down; then 2**n by its exponent bits.
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
    # Whole groups of LANES lane by lane, then the lanes, then the rest.
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
    # The order of the sum is fixed by LANES, whatever the width of the processor's registers.
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
def row_cross_entropy(scores, label, needs_gradient, teachers, teacher_weight):
    """Do what `cross_entropy` does for one row; teachers (K, V)."""
    count, num_teachers = scores.shape[0], teachers.shape[0]
    terms = np.empty(count, np.float32)  # the row in fp32, then e**(score - best)
    for i in range(count):
        terms[i] = widen(scores[i])
    best, target = greatest(terms, count), terms[label]
    total = exponentiate(terms, count, best)
    # The gradient is softmax - one-hot: (e**(score - best) - total at the label) / total.
    if needs_gradient:
        share = np.float32(1) / total
        terms[label] -= (np.float32(1) - teacher_weight) * total if num_teachers else total
        for number in range(num_teachers):
            subtract_softmax(terms, count, teachers[number], teacher_weight * total / np.float32(num_teachers))
        for i in range(count):
            scores[i] = narrow(terms[i] * share, scores[i])
    return best + np.log(total) - target


@compiled
def subtract_softmax(terms, count, scores, factor):
    """Subtract factor times the softmax of scores (V,), fp32 or bf16, from the first numbers of terms."""
    others = np.empty(count, np.float32)
    for i in range(count):
        others[i] = widen(scores[i])
    share = factor / exponentiate(others, count, greatest(others, count))
    for i in range(count):
        terms[i] -= others[i] * share


@functools.partial(compiled, parallel=True)
def cross_entropy(scores, labels, losses, needs_gradient, teachers, teacher_weight):
    """Write the cross-entropy of every row of scores (N, V) into losses (N,), nats, and its gradient over the scores.

    Scores are fp32 or bf16, and stay where no gradient is needed; labels (N,) are int64, a negative one does not count.
    Where there are scores of teachers (N, K, V), the gradient is that of (1 - w) times the cross-entropy plus w times
    the divergence from the mean of their probabilities, w being teacher_weight, fp32.
    """
    for row in prange(scores.shape[0]):
        if labels[row] >= 0:
            losses[row] = row_cross_entropy(scores[row], labels[row], needs_gradient, teachers[row], teacher_weight)
        else:
            losses[row] = 0
            for i in range(scores.shape[1] if needs_gradient else 0):
                scores[row, i] = 0


@intrinsic
def prefetch(typing_context, array, distance):
    """Ask the memory for the cache line `distance` bytes behind the start of an array; any address will do."""

    def emit(context, builder, signature, arguments):
        start = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        distance = context.cast(builder, arguments[1], signature.args[1], types.intp)
        prefetch_line(builder, builder.gep(as_bytes(builder, start), [distance]))
        return context.get_dummy_value()

    return types.void(array, distance), emit


def as_bytes(builder: ir.IRBuilder, pointer: ir.Value) -> ir.Value:
    """Return a pointer as one to bytes."""
    return builder.bitcast(pointer, ir.IntType(8).as_pointer())


def prefetch_line(builder: ir.IRBuilder, pointer: ir.Value) -> None:
    """Emit a prefetch for reading, into all levels of the cache."""
    number = ir.IntType(32)
    signature = ir.FunctionType(ir.VoidType(), [pointer.type, number, number, number])
    function = cgutils.get_or_insert_function(builder.module, signature, "llvm.prefetch.p0")
    builder.call(function, [pointer, number(0), number(3), number(1)])  # to read, keep close, data
