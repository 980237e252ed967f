"""Optimizers and learning-rate schedules: which weights are decayed, and the rate of every step."""

import math

import torch
from torch import nn

DEFAULT_LR = {"adamw": 1.5e-4, "muon": 5e-3}


def warmup_count(warmup: float, total_steps: int) -> int:
    """Return the number of warm-up steps for a count (1 and up) or a share (below 1) of all steps.

    >>> warmup_count(0.02, 1000), warmup_count(2000, 3000), warmup_count(2000, 100)
    (20, 2000, 100)
    """
    return min(total_steps, math.ceil(warmup * total_steps) if warmup < 1 else int(warmup))


def lr_at(step: int, total_steps: int, *, peak: float, warmup: int, schedule: str = "linear") -> float:
    """Return the learning rate of a step.

    Args:
        step: counted from 1; total_steps is the last one.
        total_steps: steps of the whole run.
        peak: rate at the end of warm-up.
        warmup: steps that rise linearly from peak / warmup to peak.
        schedule: linear and cosine fall to exactly 0 at the last step, polynomial (power 2) likewise, constant stays.

    >>> [round(lr_at(step, 6, peak=1.0, warmup=2), 2) for step in range(1, 7)]
    [0.5, 1.0, 0.75, 0.5, 0.25, 0.0]
    """
    if step <= warmup:
        return peak * step / warmup
    if schedule == "constant" or total_steps == 1:
        return peak
    done = (step - warmup) / (total_steps - warmup)
    if schedule == "cosine":
        return peak * (1 + math.cos(math.pi * done)) / 2
    return peak * (1 - done) ** (2 if schedule == "polynomial" else 1)


def split_parameters(model: nn.Module, *, muon: bool) -> dict[str, list[nn.Parameter]]:
    """Sort parameters into what Muon turns, what is decayed, and the rest.

    Matrices of the blocks are for Muon (when asked for); embeddings are decayed like matrices; biases and LayerNorms,
    one-dimensional all, are never decayed.
    """
    groups: dict[str, list[nn.Parameter]] = {"muon": [], "decayed": [], "plain": []}
    for name, parameter in model.named_parameters():
        is_matrix = parameter.ndim == 2
        in_block = ".h." in name
        groups["muon" if muon and is_matrix and in_block else "decayed" if is_matrix else "plain"].append(parameter)
    return groups


def build_optimizers(
    model: nn.Module, name: str, *, lr: float, weight_decay: float, betas: tuple[float, float], eps: float = 1e-8
) -> list[torch.optim.Optimizer]:
    """Make the optimizers of a run: AdamW for all, or Muon for the blocks' matrices and AdamW for the rest.

    Args:
        model: a GPT-2; its parameters stay fp32.
        name: "adamw" or "muon".
        lr: peak rate; stored as `peak_lr` in every group. Under Muon the AdamW part runs at the same rate, which
            `match_rms_adamw` makes comparable (update of RMS 0.2 a step, arXiv 2502.16982).
        weight_decay: decoupled, on matrices.
        betas: AdamW's moment decays.
        eps: AdamW's denominator floor.
    """
    groups = split_parameters(model, muon=name == "muon")
    fused = all(parameter.device.type in ("cuda", "cpu") for parameter in model.parameters())
    adamw = torch.optim.AdamW(
        [
            {"params": groups["decayed"], "weight_decay": weight_decay},
            {"params": groups["plain"], "weight_decay": 0.0},
        ],
        lr=lr,
        betas=betas,
        eps=eps,
        fused=fused,
    )
    optimizers: list[torch.optim.Optimizer] = [adamw]
    if groups["muon"]:
        options = {"momentum": 0.95, "nesterov": True, "adjust_lr_fn": "match_rms_adamw"}
        optimizers.append(torch.optim.Muon(groups["muon"], lr=lr, weight_decay=weight_decay, **options))
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["peak_lr"] = lr
    return optimizers


def set_lr(optimizers: list[torch.optim.Optimizer], share: float) -> None:
    """Set every group's rate to a share (0 to 1) of its peak."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["peak_lr"] * share
