"""Causal attention on a CPU, block by block of queries: neither a T x T mask nor the scores above the diagonal."""

import functools
from collections.abc import Iterator

import torch

from novelgpt.training.dropout import as_wide_as, drop_threshold, keep_masks, keep_scale

BLOCK = 256  # queries a block
SCORES = 3 << 20  # of the windows computed together; few and large operations, within the cache
SITES_A_LAYER = 3  # of dropout: attention, after attention, after the MLP


def blocks(rows: int, heads: int, length: int) -> Iterator[tuple[range, int, int]]:
    """Yield (windows, first query, end of the queries): some windows at a time, all their blocks one after the other.

    >>> [(list(some), *block) for some, *block in blocks(2, 12, 500)]
    [([0, 1], 0, 256), ([0, 1], 256, 500)]
    """
    together = max(1, SCORES // (heads * min(BLOCK, length) * length))
    for first in range(0, rows, together):
        for start in range(0, length, BLOCK):
            yield range(first, min(first + together, rows)), start, min(start + BLOCK, length)


class BlockedAttention(torch.autograd.Function):
    """Attention that remembers its probabilities, and by a minus sign what dropout left of them.

    Both the scale of the scores and that of dropout are applied to narrow tensors, never to the (N, Q, K) ones.
    """

    @staticmethod
    def forward(ctx, query, key, value, scale, p, noise, site):
        """Return (B, T, H, D/H) from query, key, value of (B, H, T, D/H)."""
        rows, heads, length, width = query.shape
        query, key, value = (part.reshape(-1, length, width) for part in (query * scale, key, value))  # (B·H, T, D/H)
        kept_value = value * keep_scale(p)
        output = query.new_empty(rows, length, heads, width)
        draws = [noise.generator(row, site) for row in range(rows)] if p else []
        signed = []
        for some, start, end in blocks(rows, heads, length):
            span = slice(some.start * heads, some.stop * heads)
            weights = block_probabilities(query[span], key[span], start, end)  # (N, Q, K)
            used = weights
            if p:
                mask = keep_masks(draws[some.start : some.stop], (heads, end - start, end), p).flatten(0, 1)
                mask = as_wide_as(weights, mask)
                used = torch.bitwise_and(weights.view(mask.dtype), mask).view(weights.dtype)
                weights.copysign_(mask.view(weights.dtype))
            signed.append(weights)
            mixed = torch.bmm(used, kept_value[span, :end]).view(len(some), heads, end - start, width)
            output[some.start : some.stop, start:end] = mixed.transpose(1, 2)
        ctx.save_for_backward(query, key, value, *signed)
        ctx.settings = rows, scale, p
        return output

    @staticmethod
    def backward(ctx, gradient):
        """Return the gradients of query, key and value."""
        query, key, value, *signed = ctx.saved_tensors
        rows, scale, p = ctx.settings
        heads = len(query) // rows
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
            from_scores = torch._softmax_backward_data(from_weights, weights, -1, weights.dtype)
            query_gradient[span, start:end] = torch.bmm(from_scores, key[span, :end])
            key_gradient[span, :end] += torch.bmm(from_scores.transpose(1, 2), query[span, start:end])
            value_gradient[span, :end] += torch.bmm(used.transpose(1, 2), from_output)
        parts = query_gradient.mul_(scale), key_gradient.to(key.dtype), value_gradient.to(value.dtype)
        return *(part.view(rows, heads, *query.shape[1:]) for part in parts), None, None, None, None


def split_signs(signed: torch.Tensor, gradient: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the probabilities that dropout left and all of them; zero in place the gradient of those it took.

    Args:
        signed: (N, Q, K), negative where dropout left the probability as it was.
        gradient: (N, Q, K), of the probabilities after dropout.
    """
    bits, last = (torch.int16, 15) if signed.element_size() == 2 else (torch.int32, 31)
    mask = signed.view(bits).bitwise_right_shift(last)  # all bits or none
    gradient.view(bits).bitwise_and_(mask)
    weights = signed.abs()
    return mask.bitwise_and_(weights.view(bits)).view(signed.dtype), weights


def block_probabilities(scaled_query, key, start: int, end: int) -> torch.Tensor:
    """Return softmax(query · keyᵀ) of queries start … end over keys 0 … end, (H, end - start, end)."""
    scores = torch.bmm(scaled_query[:, start:end], key[:, :end].transpose(1, 2))
    scores[:, :, start:] += future_bias(end - start, scores.dtype)
    return torch.softmax(scores, dim=-1)


@functools.cache
def future_bias(size: int, dtype: torch.dtype) -> torch.Tensor:
    """Return -inf in the strict upper triangle, what a query must not see in its own block, and 0 elsewhere."""
    return torch.full((size, size), -torch.inf, dtype=dtype).triu_(1)


def blocked_attention(module, query, key, value, attention_mask, *, scaling, dropout=0.0, **_):
    """Attention function in the form transformers calls; the mask is always causal, so none may be given."""
    assert attention_mask is None
    site = SITES_A_LAYER * module.layer_idx + 1
    p = dropout if drop_threshold(dropout) else 0.0
    return BlockedAttention.apply(query, key, value, scaling, p, module.noise, site), None
