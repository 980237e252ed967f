"""Optimizers and learning-rate schedules: which weights are decayed, and the rate of every step."""

import math

import torch
from torch import nn

from novelgpt.cli import TrainOptions
from novelgpt.training.muon import Muon

DEFAULT_LR = {"adamw": 8e-4, "muon": 2e-3}  # of a network 768 wide, from scratch
PRETRAINED_LR = {"adamw": 1.5e-4, "muon": 3e-4}  # weights that know something are not to be shaken

LORA_LR = {"adamw": 1.5e-3, "muon": 3e-3}  # corrections want ten times the rate of all weights


def default_optimizer(*, pretrained: bool, shard: bool) -> str:
    """Return what `--optimizer auto` is: muon, but adamw for trained weights and for shared-out ones.

    Muon needs whole matrices, which a process of a shared-out network does not have.

    >>> default_optimizer(pretrained=False, shard=False), default_optimizer(pretrained=True, shard=False)
    ('muon', 'adamw')
    """
    return "adamw" if pretrained or shard else "muon"


def default_lr(optimizer: str, n_embd: int, *, pretrained: bool, lora: bool = False) -> float:
    """Return the peak rate of a network that none was given for: the narrower, the higher.

    Args:
        optimizer: adamw or muon.
        n_embd: width; the rate goes with 1 / sqrt(width), so that an update weighs as much as the matrix it changes.
        pretrained: going on from trained weights.
        lora: training corrections beside them (ten times the rate: Schulman et al. 2025, "LoRA Without Regret").

    >>> default_lr("muon", 768, pretrained=False), default_lr("muon", 192, pretrained=False)
    (0.002, 0.004)
    """
    if pretrained:
        return (LORA_LR if lora else PRETRAINED_LR)[optimizer]
    return DEFAULT_LR[optimizer] * math.sqrt(768 / n_embd)


def warmup_count(warmup: float, total_steps: int) -> int:
    """Return the number of warm-up steps for a count (1 and up) or a share (below 1) of all steps.

    >>> warmup_count(0.02, 1000), warmup_count(2000, 3000), warmup_count(2000, 100)
    (20, 2000, 99)
    """
    return min(max(total_steps - 1, 0), math.ceil(warmup * total_steps) if warmup < 1 else int(warmup))


def lr_at(
    step: int, total_steps: int, *, peak: float, warmup: int, schedule: str = "linear", end: float = 0.0
) -> float:
    """Return the learning rate of a step.

    Args:
        step: counted from 1; total_steps is the last one.
        total_steps: steps of the whole run.
        peak: rate at the end of warm-up.
        warmup: steps that rise linearly from peak / warmup to peak.
        schedule: linear, cosine and polynomial (power 2) reach the end rate at the last step exactly, constant stays.
        end: rate of the last step.

    >>> [round(lr_at(step, 6, peak=1.0, warmup=2), 2) for step in range(1, 7)]
    [0.5, 1.0, 0.75, 0.5, 0.25, 0.0]
    >>> [round(lr_at(step, 3, peak=1.0, warmup=1, schedule="polynomial", end=0.1), 3) for step in (1, 2, 3)]
    [1.0, 0.325, 0.1]
    """
    if step <= warmup:
        return peak * step / warmup
    if schedule == "constant" or total_steps == 1:
        return peak
    done = (step - warmup) / (total_steps - warmup)
    if schedule == "cosine":
        return end + (peak - end) * (1 + math.cos(math.pi * done)) / 2
    return end + (peak - end) * (1 - done) ** (2 if schedule == "polynomial" else 1)


def lr_share(step: int, total_steps: int, options: TrainOptions) -> float:
    """Return the learning rate of a step as a share of its peak, by the options (whose lr is resolved)."""
    end = options.lr_end / options.lr if options.lr_end else 0.0
    warmup = warmup_count(options.warmup_steps, total_steps)
    return lr_at(step, total_steps, peak=1.0, warmup=warmup, schedule=options.lr_scheduler, end=end)


def split_parameters(model: nn.Module, *, muon: bool) -> dict[str, list[nn.Parameter]]:
    """Sort parameters into what Muon turns, in one part or in three, what AdamW decays, and the rest.

    Matrices of the blocks are for Muon (when asked for), those of attention's input as query, key and value;
    embeddings are decayed like matrices, unless most of their rows are to stay; biases and LayerNorms, one-dimensional
    all, are never decayed. Frozen parameters never have a gradient, so no optimizer touches them.
    """
    groups: dict[str, list[nn.Parameter]] = {"muon": [], "muon_qkv": [], "decayed": [], "plain": []}
    for name, parameter in model.named_parameters():
        kind = "decayed" if parameter.ndim == 2 and not hasattr(parameter, "rows_only") else "plain"
        if muon and parameter.ndim == 2 and ".h." in name:
            kind = "muon_qkv" if name.endswith("attn.c_attn.weight") else "muon"
        groups[kind].append(parameter)
    return groups


def build_optimizers(
    model: nn.Module,
    name: str,
    *,
    lr: float,
    weight_decay: float,
    betas: tuple[float, float],
    eps: float = 1e-8,
    dtype: torch.dtype = torch.bfloat16,
) -> list[torch.optim.Optimizer]:
    """Make the optimizers of a run: AdamW for all, or Muon for the blocks' matrices and AdamW for the rest.

    Args:
        model: a GPT-2; its parameters stay fp32.
        name: "adamw" or "muon".
        lr: peak rate; stored as `peak_lr` in every group. Under Muon the AdamW part runs at the same rate; Muon's
            updates have the size of AdamW's.
        weight_decay: decoupled, on matrices.
        betas: AdamW's moment decays.
        eps: AdamW's denominator floor.
        dtype: format of Muon's matrix products.
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
        turned = [{"params": groups["muon"]}, {"params": groups["muon_qkv"], "parts": 3}]
        optimizers.append(Muon(turned, lr=lr, weight_decay=weight_decay, dtype=dtype))
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["peak_lr"] = lr
    return optimizers


def set_lr(optimizers: list[torch.optim.Optimizer], share: float) -> None:
    """Set every group's rate to a share (0 to 1) of its peak."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["peak_lr"] * share
