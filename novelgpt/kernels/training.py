"""The loops of a training step on a CPU: GELU, its derivative, the head's cross-entropy; fp32 or bf16."""

import functools

import numpy as np
from numba import prange

from novelgpt.compiling import compiled
from novelgpt.kernels.arithmetic import (
    GELU_INNER,
    GELU_OUTER,
    exponentiate,
    gelu_gate,
    greatest,
    narrow,
    widen,
)


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
