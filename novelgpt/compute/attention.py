"""Causal attention on a CPU, and dropout whose masks are a function of (seed, step, window, place).

Attention goes block by block of queries, and a block sees no key behind its own end: no T x T mask, and no score
computed in vain above the diagonal::

    queries   keys →  0    256   512   768
      0 … 255         ◣                       ◣ masked, ■ whole
    256 … 511         ■    ◣
    512 … 767         ■    ■     ◣

On GPUs `causal_attention` calls PyTorch's own, which needs a mask neither.

Dropout takes one random byte an element instead of one slow Bernoulli number, and an AND on the bits instead of a
masked fill. Its masks stay the same however a batch is split over micro-batches and processes.
"""

import functools
import math
from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

QUERY_BLOCK = 256  # queries taken at a time
SCORES = 3 << 20  # numbers of the windows computed together: few and large operations, yet within the cache
SITES_PER_LAYER = 3  # places of dropout: within attention, after it, after the MLP


class Noise:
    """Random bytes as a function of (seed, step, window in the global batch, place in the network)."""

    def __init__(self, seed: int):
        """Start a source of noise; call set_position before every forward pass."""
        self.seed = seed
        self.set_position(0, 0)

    def set_position(self, step: int, first_row: int) -> None:
        """Say which step is computed, and which row of the global batch is the first of this micro-batch."""
        self.step, self.first_row = step, first_row

    def generator(self, row: int, site: int) -> np.random.Generator:
        """Return the random stream of one row of the micro-batch at one place."""
        return np.random.Generator(np.random.SFC64([self.seed, self.step, self.first_row + row, site]))


def drop_threshold(p: float) -> int:
    """Return how many of the 256 byte values drop an element: p rounded to 1/256.

    >>> drop_threshold(0.1) / 256
    0.1015625
    """
    return round(p * 256)


def keep_scale(p: float) -> float:
    """Return the factor that keeps the mean when a share p is dropped."""
    return 256 / (256 - drop_threshold(p))


def keep_masks(draws: list[np.random.Generator], shape: tuple[int, ...], p: float) -> torch.Tensor:
    """Draw which elements stay, (N, *shape) from N generators: int8, -1 (all bits) to keep and 0 to drop."""
    # Eight bytes from each random word; then in place: at or above the threshold -> 1 -> -1.
    count = math.prod(shape)
    words = [draw.integers(0, 2**64 - 1, -(-count // 8), np.uint64, endpoint=True) for draw in draws]
    parts = [torch.from_numpy(each.view(np.uint8)[:count]).view(shape) for each in words]
    drawn = parts[0][None] if len(parts) == 1 else torch.stack(parts)
    return drawn.ge_(drop_threshold(p)).view(torch.int8).neg_()


def as_wide_as(values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Return a mask of keep_masks in integers as wide as the values, for an AND on their bits."""
    return mask.to(torch.int16 if values.element_size() == 2 else torch.int32)


def mask_(values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Zero in place what a mask of keep_masks drops: ten times faster than a masked fill."""
    mask = as_wide_as(values, mask)
    values.view(mask.dtype).bitwise_and_(mask)
    return values


class KeyedDropout(nn.Module):
    """Dropout of (B, T, D) whose mask is a function of (seed, step, window, site)."""

    def __init__(self, p: float, noise: Noise, site: int):
        super().__init__()
        self.p, self.noise, self.site = p, noise, site

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Zero a share p of the elements and scale the others up so that the mean stays."""
        if not self.training or drop_threshold(self.p) == 0:
            return hidden
        draws = [self.noise.generator(row, self.site) for row in range(len(hidden))]
        return MaskedScale.apply(hidden, keep_masks(draws, tuple(hidden.shape[1:]), self.p), keep_scale(self.p))


class MaskedScale(torch.autograd.Function):
    """hidden · scale, and 0 where the mask says so; remembers one byte an element."""

    @staticmethod
    def forward(ctx, hidden, mask, scale):
        """Return the masked and scaled tensor."""
        ctx.save_for_backward(mask)
        ctx.scale = scale
        return mask_(hidden * scale, mask)

    @staticmethod
    def backward(ctx, gradient):
        """Mask and scale the gradient the same way."""
        (mask,) = ctx.saved_tensors
        return mask_(gradient * ctx.scale, mask), None, None


def blocks(rows: int, heads: int, length: int) -> Iterator[tuple[range, int, int]]:
    """Yield (windows, first query, end of the queries): some windows at a time, all their blocks one after the other.

    >>> [(list(some), *block) for some, *block in blocks(2, 12, 500)]
    [([0, 1], 0, 256), ([0, 1], 256, 500)]
    """
    together = max(1, SCORES // (heads * min(QUERY_BLOCK, length) * length))
    for first in range(0, rows, together):
        for start in range(0, length, QUERY_BLOCK):
            yield range(first, min(first + together, rows)), start, min(start + QUERY_BLOCK, length)


class BlockedAttention(torch.autograd.Function):
    """Attention that remembers its probabilities, and by a minus sign which of them dropout left.

    Probabilities are never negative, so the sign bit is free and no mask has to be kept. The scale of the scores and
    that of dropout are applied to the narrow tensors (query, value), never to the wide ones (N, Q, K).
    """

    @staticmethod
    def forward(ctx, query, key, value, scale, p, noise, site):
        """Return (B, T, H, D/H) from query, key, value of (B, H, T, D/H)."""
        rows, heads, length, width = query.shape
        query, key, value = (part.reshape(-1, length, width) for part in (query * scale, key, value))  # (B·H, T, D/H)
        # One stream of random numbers a window, drawn from in the order of its blocks.
        kept_value = value * keep_scale(p)
        output = query.new_empty(rows, length, heads, width)
        draws = [noise.generator(row, site) for row in range(rows)] if p else []
        signed = []
        for some, start, end in blocks(rows, heads, length):
            span = slice(some.start * heads, some.stop * heads)
            weights = block_probabilities(query[span], key[span], start, end)  # (N, Q, K)
            used = weights
            # What is used is the probability AND the mask; what is kept is the probability with the mask as its sign.
            if p:
                mask = keep_masks(draws[some.start : some.stop], (heads, end - start, end), p).flatten(0, 1)
                mask = as_wide_as(weights, mask)
                used = torch.bitwise_and(weights.view(mask.dtype), mask).view(weights.dtype)
                weights.copysign_(mask.view(weights.dtype))
            signed.append(weights)
            mixed = torch.bmm(used, kept_value[span, :end]).view(len(some), heads, end - start, width)
            output[some.start : some.stop, start:end] = mixed.transpose(1, 2)  # (windows, Q, H, D/H)
        ctx.save_for_backward(query, key, value, *signed)
        ctx.settings = rows, scale, p
        return output

    @staticmethod
    def backward(ctx, gradient):
        """Return the gradients of query, key and value."""
        query, key, value, *signed = ctx.saved_tensors
        rows, scale, p = ctx.settings
        heads = len(query) // rows
        # Keys and values gather from several blocks of queries, so their sums are kept in fp32.
        gradient = (gradient * keep_scale(p)).transpose(1, 2).reshape(query.shape)  # (B·H, T, D/H)
        query_gradient = torch.empty_like(query)
        key_gradient, value_gradient = (torch.zeros(key.shape, dtype=torch.float32) for _ in range(2))
        for weights, (some, start, end) in zip(signed, blocks(rows, heads, query.shape[1]), strict=True):
            span = slice(some.start * heads, some.stop * heads)
            from_output = gradient[span, start:end]  # (N, Q, D/H)
            from_weights = torch.bmm(from_output, value[span, :end].transpose(1, 2))  # (N, Q, K)
            used = weights
            if p:
                used, weights = split_signs(weights, from_weights)
            from_scores = torch._softmax_backward_data(from_weights, weights, -1, weights.dtype)  # (N, Q, K)
            query_gradient[span, start:end] = torch.bmm(from_scores, key[span, :end])
            key_gradient[span, :end] += torch.bmm(from_scores.transpose(1, 2), query[span, start:end])
            value_gradient[span, :end] += torch.bmm(used.transpose(1, 2), from_output)
        parts = query_gradient.mul_(scale), key_gradient.to(key.dtype), value_gradient.to(value.dtype)
        return *(part.view(rows, heads, *query.shape[1:]) for part in parts), None, None, None, None


def split_signs(signed: torch.Tensor, gradient: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the probabilities that dropout left, the negative ones, and all of them, made positive; each (N, Q, K).

    The gradient, of the probabilities after dropout, is zeroed in place where they were dropped.
    """
    bits, last = (torch.int16, 15) if signed.element_size() == 2 else (torch.int32, 31)
    mask = signed.view(bits).bitwise_right_shift(last)  # all bits or none
    gradient.view(bits).bitwise_and_(mask)
    weights = signed.abs()
    return mask.bitwise_and_(weights.view(bits)).view(signed.dtype), weights


def block_probabilities(scaled_query, key, start: int, end: int) -> torch.Tensor:
    """Return softmax(query · keyᵀ) of queries start … end over keys 0 … end, (N, end - start, end).

    Queries, scaled already, and keys are (N, T, D/H); N counts windows times heads.
    """
    scores = torch.bmm(scaled_query[:, start:end], key[:, :end].transpose(1, 2))
    # Only the block on the diagonal holds keys that come after a query.
    scores[:, :, start:] += future_bias(end - start, scores.dtype)
    return torch.softmax(scores, dim=-1)


@functools.cache
def future_bias(size: int, dtype: torch.dtype) -> torch.Tensor:
    """Return -inf in the strict upper triangle, what a query must not see in its own block, and 0 elsewhere."""
    return torch.full((size, size), -torch.inf, dtype=dtype).triu_(1)


def blocked_attention(module, query, key, value, attention_mask, *, scaling, dropout=0.0, **_):
    """Attention in the form in which transformers calls it; the mask is always causal, so none may be given."""
    assert attention_mask is None
    # Below 1/512 the share rounds to no byte value at all: then no mask is drawn.
    site = SITES_PER_LAYER * module.layer_idx + 1
    p = dropout if drop_threshold(dropout) else 0.0
    return BlockedAttention.apply(query, key, value, scaling, p, module.noise, site), None


def causal_attention(module, query, key, value, attention_mask, *, scaling=None, dropout=0.0, **_):
    """Attention of a GPU in the form in which transformers calls it; flash attention takes no mask, only "causal"."""
    assert attention_mask is None
    mixed = F.scaled_dot_product_attention(query, key, value, dropout_p=dropout, scale=scaling, is_causal=True)
    return mixed.transpose(1, 2), None  # (B, T, H, D/H)
