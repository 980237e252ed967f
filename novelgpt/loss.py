"""Hidden states and labels -> a sum of cross-entropies, without ever holding the logits of a whole batch."""

import torch
from transformers import GPT2LMHeadModel

from novelgpt.products import multiply

ROWS_IN_CACHE = 64  # positions whose softmax a CPU computes at a time
HEAD_ALIGNMENT = 64  # rows: GPU matrix products want multiples of it, and 13,317 is odd


class HeadLoss(torch.autograd.Function):
    """Sum of cross-entropies of a linear head, its gradients computed chunk by chunk on the way forward.

    Only one chunk of logits exists at a time; since the result is a sum, the backward pass is a multiplication.
    """

    @staticmethod
    def forward(ctx, hidden, weight, labels, chunk):
        """Return the fp32 loss sum of hidden (N, D) in the compute dtype, weight (V, D) in any, labels (N,) int64."""
        ctx.weight_dtype = weight.dtype
        weight = weight.to(hidden.dtype)
        needs_gradient, trains_head = any(ctx.needs_input_grad[:2]), ctx.needs_input_grad[1]
        total = torch.zeros((), dtype=torch.float32, device=hidden.device)
        hidden_gradient = torch.empty_like(hidden) if needs_gradient else None
        weight_gradient = torch.zeros(weight.shape, dtype=torch.float32, device=hidden.device) if trains_head else None
        padding = -weight.shape[0] % HEAD_ALIGNMENT if hidden.is_cuda else 0
        head = torch.nn.functional.pad(weight, (0, 0, 0, padding)) if padding else weight  # (V', D)
        for rows in torch.arange(hidden.shape[0], device="cpu").split(chunk):
            span = slice(int(rows[0]), int(rows[-1]) + 1)
            logits = multiply(hidden[span], head.t())  # (C, V')
            loss, gradient = cross_entropy_sum(logits[:, : weight.shape[0]], labels[span], needs_gradient)
            total += loss
            if needs_gradient:
                hidden_gradient[span] = multiply(gradient, weight)
            if trains_head:
                weight_gradient += multiply(gradient.t(), hidden[span])
        ctx.save_for_backward(hidden_gradient, weight_gradient)
        return total

    @staticmethod
    def backward(ctx, gradient):
        """Scale the stored gradients."""
        hidden_gradient, weight_gradient = ctx.saved_tensors
        head = None if weight_gradient is None else (weight_gradient * gradient).to(ctx.weight_dtype)
        return hidden_gradient * gradient, head, None, None


def cross_entropy_sum(logits: torch.Tensor, labels: torch.Tensor, needs_gradient: bool):
    """Return the summed cross-entropy in nats and its gradient by the logits; labels of -100 count nothing.

    Args:
        logits: (C, V), any float dtype; the gradient takes their place.
        labels: (C,) int64.
        needs_gradient: False returns None for the gradient.
    """
    rows = ROWS_IN_CACHE if logits.device.type == "cpu" else max(1, len(logits))
    total = torch.zeros((), dtype=torch.float32, device=logits.device)
    for part, targets in zip(logits.split(rows), labels.split(rows), strict=True):
        total += replace_by_gradient(part, targets, needs_gradient)
    return total, logits if needs_gradient else None


def replace_by_gradient(logits: torch.Tensor, labels: torch.Tensor, needs_gradient: bool) -> torch.Tensor:
    """Return the loss sum of a few rows; where a gradient is needed, it overwrites the logits.

    The probabilities give the normalizer too: log-sum-exp = greatest score - log of its probability, which is at least
    1 / V and so never underflows.
    """
    scores = logits.float()  # (R, V)
    scored = labels.ge(0)[:, None]  # (R, 1)
    targets = labels.clamp(min=0)[:, None]
    greatest, target_scores = scores.amax(1, keepdim=True), scores.gather(1, targets)
    probabilities = scores.softmax(1)
    normalizer = greatest - probabilities.amax(1, keepdim=True).log()
    if needs_gradient:
        probabilities.scatter_add_(1, targets, torch.full_like(targets, -1, dtype=torch.float32))
        logits.copy_(probabilities.mul_(scored))
    return (normalizer - target_scores).mul(scored).sum()


def sum_loss(
    model: GPT2LMHeadModel,
    input_ids: torch.Tensor,
    labels: torch.Tensor,
    *,
    dtype: torch.dtype | None = None,
    chunk: int = 1024,
) -> torch.Tensor:
    """Sum the next-token losses of a batch.

    Args:
        model: a GPT-2 with tied or untied head.
        input_ids: (B, T) int64.
        labels: (B, T) int64 aligned with the inputs, -100 = not scored; shifted here, so labels[:, 0] never counts.
        dtype: format of the matrix products under autocast; None or fp32 for none.
        chunk: positions whose logits are held at a time.

    Returns:
        fp32 scalar, nats summed over scored positions.
    """
    reduced = dtype is not None and dtype != torch.float32
    with torch.autocast(input_ids.device.type, dtype=dtype if reduced else torch.bfloat16, enabled=reduced):
        hidden = model.transformer(input_ids, use_cache=False).last_hidden_state  # (B, T, D)
    hidden = hidden[:, :-1].reshape(-1, hidden.shape[-1])  # (B·(T-1), D)
    weight = model.lm_head.weight
    if reduced:
        hidden = hidden.to(dtype)
    return HeadLoss.apply(hidden, weight, labels[:, 1:].reshape(-1), chunk)
