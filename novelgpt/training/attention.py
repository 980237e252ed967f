"""Causal attention on a CPU, block by block of queries: neither a T x T mask nor the scores above the diagonal."""

import functools
from collections.abc import Iterator

import torch

from novelgpt.training.dropout import drop_threshold, keep_mask, keep_scale, mask_

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
    """Attention that remembers its probabilities, and by a minus sign what dropout took from them.

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
                masks = [keep_mask(draws[row], (heads, end - start, end), p) for row in some]
                used = mask_(weights.clone(), torch.cat(masks))
                weights.neg_().add_(used, alpha=2)
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
            used, from_scores = block_backward(weights, from_output, value[span, :end], is_dropped=p > 0)
            query_gradient[span, start:end] = torch.bmm(from_scores, key[span, :end])
            key_gradient[span, :end] += torch.bmm(from_scores.transpose(1, 2), query[span, start:end])
            value_gradient[span, :end] += torch.bmm(used.transpose(1, 2), from_output)
        parts = query_gradient.mul_(scale), key_gradient.to(key.dtype), value_gradient.to(value.dtype)
        return *(part.view(rows, heads, *query.shape[1:]) for part in parts), None, None, None, None


def block_backward(signed, from_output, value, *, is_dropped: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the probabilities that met the values, and the gradient of the scores, (N, Q, K) each.

    Args:
        signed: (N, Q, K) probabilities, negative where dropped.
        from_output: (N, Q, D/H) gradient of the output, times dropout's scale.
        value: (N, K, D/H).
        is_dropped: there was dropout.
    """
    from_weights = torch.bmm(from_output, value.transpose(1, 2))
    if not is_dropped:
        return signed, torch._softmax_backward_data(from_weights, signed, -1, signed.dtype)
    used = signed.clamp(min=0)
    mask_(from_weights, signed.ge(0).view(torch.int8).neg_())
    return used, torch._softmax_backward_data(from_weights, signed.abs(), -1, signed.dtype)


def block_probabilities(scaled_query, key, start: int, end: int) -> torch.Tensor:
    """Return softmax(query · keyᵀ) of queries start … end over keys 0 … end, (H, end - start, end)."""
    scores = torch.bmm(scaled_query[:, start:end], key[:, :end].transpose(1, 2))
    scores[:, :, start:].masked_fill_(future_mask(end - start), -torch.inf)
    return torch.softmax(scores, dim=-1)


@functools.cache
def future_mask(size: int) -> torch.Tensor:
    """Return the strict upper triangle: what a query must not see in its own block."""
    return torch.ones(size, size, dtype=torch.bool).triu_(1)


def blocked_attention(module, query, key, value, attention_mask, *, scaling, dropout=0.0, **_):
    """Attention function in the form transformers calls; the mask is always causal, so none may be given."""
    assert attention_mask is None
    site = SITES_A_LAYER * module.layer_idx + 1
    p = dropout if drop_threshold(dropout) else 0.0
    return BlockedAttention.apply(query, key, value, scaling, p, module.noise, site), None
