"""Hidden states and labels -> a sum of cross-entropies, without ever holding the logits of a whole batch.

A network may learn from the distributions of others, its teachers, beside the labels (Hinton 2015, arXiv 1503.02531)::

    (1 - w) · cross-entropy(labels) + w · KL(mean of the teachers' probabilities ‖ its own)

The second term is a cross-entropy, too, but for what does not depend on the network. So the gradient at the logits is
softmax - (1 - w) · one-hot - w · mean: the teachers cost a forward pass each, and their logits exist chunk by chunk.
"""

import copy
from collections.abc import Sequence

import torch
from transformers import GPT2LMHeadModel

from novelgpt.compute import CPU_FORMATS, multiply, row_losses_on_cpu, tune_for_cpu, tune_for_gpu

HEAD_ALIGNMENT = 64  # rows: GPU matrix products want multiples of it, and 13,317 is odd


class HeadLoss(torch.autograd.Function):
    """Sum of cross-entropies of a linear head, computed chunk by chunk with its gradients on the way forward.

    Only one chunk of logits exists at a time. A sum's gradients are known as soon as a chunk is; the backward pass only
    multiplies them by a number. With teachers they are those of the loss above, the sum is still of cross-entropies.
    """

    @staticmethod
    def forward(ctx, hidden, weight, labels, chunk, teacher_weight=0.0, *teachers):
        """Return the fp32 loss sum of hidden (N, D) in the compute dtype, weight (V, D) in any, labels (N,) int64.

        Teachers are hidden states (N, D') and head (V, D') of the first one, then of the next.
        """
        ctx.weight_dtype, ctx.num_others = weight.dtype, 3 + len(teachers)
        weight = weight.to(hidden.dtype)
        # A frozen head (LoRA) needs no gradient of its own; evaluation needs none at all.
        needs_gradient, trains_head = any(ctx.needs_input_grad[:2]), ctx.needs_input_grad[1]
        total = torch.zeros((), dtype=torch.float32, device=hidden.device)
        hidden_gradient = torch.empty_like(hidden) if needs_gradient else None  # (N, D)
        weight_gradient = None
        head, size = aligned_head(weight), weight.shape[0]  # (V', D)
        pairs = list(zip(teachers[::2], map(aligned_head, teachers[1::2]), strict=True)) if needs_gradient else []
        for start in range(0, len(hidden), chunk):
            span = slice(start, start + chunk)
            logits = multiply(hidden[span], head.t())  # (C, V')
            taught = [multiply(states[span], other.t())[:, :size] for states, other in pairs]  # (C, V) each
            loss, gradient = cross_entropy_sum(logits[:, :size], labels[span], needs_gradient, taught, teacher_weight)
            total += loss
            if needs_gradient:
                hidden_gradient[span] = multiply(gradient, weight)  # (C, V) · (V, D)
            if trains_head:
                part = multiply(gradient.t(), hidden[span])  # (V, C) · (C, D); summed in fp32 over the chunks
                weight_gradient = part.float() if weight_gradient is None else weight_gradient.add_(part)
        ctx.save_for_backward(hidden_gradient, weight_gradient)
        return total

    @staticmethod
    def backward(ctx, gradient):
        """Scale the stored gradients."""
        hidden_gradient, weight_gradient = ctx.saved_tensors
        head = None if weight_gradient is None else weight_gradient.mul_(gradient).to(ctx.weight_dtype)
        return hidden_gradient.mul_(gradient), head, *[None] * ctx.num_others


def aligned_head(weight: torch.Tensor) -> torch.Tensor:
    """Return a head's weight (V, D), on GPUs with zero rows appended up to a multiple of HEAD_ALIGNMENT."""
    padding = -weight.shape[0] % HEAD_ALIGNMENT if weight.is_cuda else 0
    return torch.nn.functional.pad(weight, (0, 0, 0, padding)) if padding else weight


def cross_entropy_sum(
    logits: torch.Tensor,
    labels: torch.Tensor,
    needs_gradient: bool,
    teachers: Sequence[torch.Tensor] = (),
    teacher_weight: float = 0.0,
):
    """Return the summed cross-entropy of logits (C, V), in nats, and its gradient, which overwrites them, or None."""
    compute = row_losses_on_cpu if logits.device.type == "cpu" and logits.dtype in CPU_FORMATS else row_losses
    losses = compute(logits, labels, needs_gradient, teachers, teacher_weight)
    return losses.sum(), logits if needs_gradient else None


def row_losses(
    logits: torch.Tensor,
    labels: torch.Tensor,
    needs_gradient: bool,
    teachers: Sequence[torch.Tensor] = (),
    teacher_weight: float = 0.0,
) -> torch.Tensor:
    """Do the same as row_losses_on_cpu by operators of PyTorch."""
    scores = logits.float()  # (C, V)
    scored = labels.ge(0)[:, None]  # (C, 1)
    targets = labels.clamp(min=0)[:, None]
    greatest, target_scores = scores.amax(1, keepdim=True), scores.gather(1, targets)
    probabilities = scores.softmax(1)  # (C, V)
    # log-sum-exp = greatest score - log of its probability, which is at least 1 / V and so never underflows
    normalizer = greatest - probabilities.amax(1, keepdim=True).log()
    # The gradient is softmax - one-hot, and 0 in rows that are not scored; teachers stand for a share of the one-hot.
    if needs_gradient:
        known = teacher_weight - 1 if teachers else -1
        probabilities.scatter_add_(1, targets, torch.full_like(targets, known, dtype=torch.float32))
        for each in teachers:
            probabilities.sub_(each.softmax(1, dtype=torch.float32), alpha=teacher_weight / len(teachers))
        logits.copy_(probabilities.mul_(scored))
    return (normalizer - target_scores).mul(scored).squeeze(1)


def sum_loss(
    model: GPT2LMHeadModel,
    input_ids: torch.Tensor,
    labels: torch.Tensor,
    *,
    dtype: torch.dtype | None = None,
    chunk: int = 1024,
    teachers: Sequence[GPT2LMHeadModel] = (),
    teacher_weight: float = 0.0,
) -> torch.Tensor:
    """Sum the next-token losses of a batch: fp32 scalar, nats over all scored positions.

    Its gradients are those of (1 - teacher_weight) times the sum plus teacher_weight times the divergence from the mean
    of the teachers' probabilities, where there are teachers.

    Args:
        model: a GPT-2 with tied or untied head.
        input_ids, labels: (B, T) int64, aligned; a label of -100 is not scored, and labels[:, 0] never is.
        dtype: format of the matrix products under autocast; None or fp32 for no autocast.
        chunk: positions whose logits are held at a time.
        teachers: in eval mode, of the same vocabulary; they read the text as it is, even where inputs are replaced.
        teacher_weight: 0 to 1.
    """
    taught = []
    with torch.no_grad():
        # labels are aligned with the inputs, so they are what stood there before any were replaced
        as_written = torch.where(labels.ge(0), labels, input_ids) if teachers else input_ids
        for teacher in teachers:
            states, head = hidden_and_head(teacher, as_written, dtype)
            taught += [states, head.to(states.dtype)]
    hidden, weight = hidden_and_head(model, input_ids, dtype)
    targets = labels[:, 1:].reshape(-1)  # (B·(T-1),)
    return HeadLoss.apply(hidden, weight, targets, chunk, teacher_weight, *taught)


def hidden_and_head(
    model: GPT2LMHeadModel, input_ids: torch.Tensor, dtype: torch.dtype | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the states that predict a next token, (B·(T-1), D) in the dtype, and the head's weight (V, D) as it is."""
    reduced = dtype is not None and dtype != torch.float32
    with torch.autocast(input_ids.device.type, dtype=dtype if reduced else torch.bfloat16, enabled=reduced):
        hidden = model.transformer(input_ids, use_cache=False).last_hidden_state  # (B, T, D)
    # The last position predicts nothing that the batch holds.
    hidden = hidden[:, :-1].reshape(-1, hidden.shape[-1])  # (B·(T-1), D)
    weight = model.lm_head.weight
    return (hidden.to(dtype) if reduced else hidden), weight


@torch.no_grad()
def score_tokens(
    model: GPT2LMHeadModel,
    input_ids: torch.Tensor,
    labels: torch.Tensor,
    *,
    dtype: torch.dtype | None = None,
    chunk: int = 1024,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Score every token of a batch by itself, without gradients; arguments as of sum_loss.

    Returns:
        (nats, right): fp32 and bool, (B, T-1) each, for the tokens labels[:, 1:]; right where the likeliest token is
        the label, 0 and False where nothing is scored.
    """
    hidden, weight = hidden_and_head(model, input_ids, dtype)
    # Chunk by chunk, as in HeadLoss: the logits of the whole batch would be gigabytes.
    targets, head, parts = labels[:, 1:].reshape(-1), aligned_head(weight.to(hidden.dtype)), []
    for states, wanted in zip(hidden.split(chunk), targets.split(chunk), strict=True):
        scores = multiply(states, head.t())[:, : len(weight)].float()  # (C, V)
        scored, index = wanted.ge(0), wanted.clamp(min=0)[:, None]
        losses = scores.logsumexp(dim=1) - scores.gather(1, index).squeeze(1)  # (C,)
        parts.append((losses.mul(scored), scores.argmax(dim=1).eq(wanted)))
    nats, right = (torch.cat(part).view(len(labels), -1) for part in zip(*parts, strict=True))
    return nats, right


def place_teachers(
    teachers: Sequence[GPT2LMHeadModel], devices: list[torch.device], dtype: torch.dtype
) -> dict[torch.device, list[GPT2LMHeadModel]]:
    """Return a copy of every teacher for each device, with that device's fast parts, its products in the dtype.

    Autocast would make the matrices anew in each pass. Teachers have no gradient and no dropout.
    """
    placed = {device: [copy.deepcopy(teacher).to(device) for teacher in teachers] for device in devices}
    for device, copies in placed.items():
        for each in copies:
            if device.type == "cpu":
                tune_for_cpu(each, seed=0, dtype=dtype)  # of dropout, which it has none of
            else:
                tune_for_gpu(each)
            for block in each.transformer.h:
                for layer in (block.attn.c_attn, block.attn.c_proj, block.mlp.c_fc, block.mlp.c_proj):
                    layer.to(dtype)
    return placed
