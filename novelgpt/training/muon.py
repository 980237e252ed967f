"""Muon: momentum whose every matrix is turned into the nearest orthogonal one before it is applied (Jordan 2024).

torch.optim.Muon takes one matrix after another. GPT-2 keeps query, key and value in one matrix `c_attn` (D, 3D), which
are three matrices of their own here, and all blocks have matrices of the same few shapes, which are turned in batches.
"""

import math
from collections import defaultdict
from collections.abc import Iterable

import torch

COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of the quintic iteration, Jordan's
ITERATIONS = 5
UPDATE_RMS = 0.2  # of an AdamW step at the same rate, arXiv 2502.16982


def orthogonalise(matrices: torch.Tensor, dtype: torch.dtype = torch.bfloat16) -> torch.Tensor:
    """Bring all singular values of each matrix close to 1 by a Newton-Schulz iteration.

    Args:
        matrices: (N, A, B) of any float type.
        dtype: format of the products; 16 bits suffice.

    Returns:
        (N, A, B) in dtype; singular values between 0.7 and 1.2.

    >>> bool((orthogonalise(torch.diag(torch.tensor([9.0, 5.0]))[None]) - torch.eye(2)).abs().max() < 0.4)
    True
    """
    is_tall = matrices.shape[1] > matrices.shape[2]
    turned = matrices.mT if is_tall else matrices
    turned = (turned / turned.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)).to(dtype)
    first, third, fifth = COEFFICIENTS
    for _ in range(ITERATIONS):
        square = turned @ turned.mT  # (N, A, A)
        turned = torch.baddbmm(
            turned, torch.baddbmm(square, square, square, beta=third, alpha=fifth), turned, beta=first
        )
    return turned.mT if is_tall else turned


class Muon(torch.optim.Optimizer):
    """Nesterov momentum, orthogonalised, scaled to the size of an AdamW step, with decoupled weight decay.

    Set `found_inf`, a float tensor on the weights' device, to let a step be left out without the host knowing: above 0
    it changes nothing, as in torch's fused AdamW.

    Args:
        groups: parameter groups of matrices; `parts` (default 1) is how many matrices lie side by side in each.
        lr: step size; stands for the same as AdamW's.
        weight_decay: share of lr by which weights shrink a step.
        momentum: decay of the mean gradient.
        dtype: format of the matrix products; fp32 keeps differences of rounding as small as they come in.
    """

    def __init__(
        self,
        groups: Iterable[dict],
        *,
        lr: float,
        weight_decay: float,
        momentum: float = 0.95,
        dtype: torch.dtype = torch.bfloat16,
    ):
        super().__init__(groups, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum, "parts": 1})
        self.dtype = dtype
        self.found_inf: torch.Tensor | None = None

    @torch.no_grad()
    def step(self) -> None:
        """Update every parameter that has a gradient."""
        kept = 1.0 if self.found_inf is None else (self.found_inf == 0).float()
        waiting = defaultdict(list)  # shape and rate -> (the part of a weight, its direction)
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                direction = self.direction(weight, group["momentum"])
                weight.mul_(1 - group["lr"] * group["weight_decay"] * kept)
                for pair in zip(weight.chunk(group["parts"], 1), direction.chunk(group["parts"], 1), strict=True):
                    waiting[pair[0].shape, group["lr"]].append(pair)
        for (shape, lr), pairs in waiting.items():
            turned = orthogonalise(torch.stack([direction for _, direction in pairs]), self.dtype)  # (N, A, B)
            rate = -lr * UPDATE_RMS * math.sqrt(max(shape))
            for (weight, _), update in zip(pairs, turned, strict=True):
                weight.add_(update.to(weight.dtype) * kept, alpha=rate)

    def direction(self, weight: torch.Tensor, momentum: float) -> torch.Tensor:
        """Take a gradient into the mean and return the look-ahead of Nesterov."""
        state = self.state[weight]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(weight)
        mean, gradient = state["momentum_buffer"], weight.grad
        if self.found_inf is not None:
            gradient = torch.where(self.found_inf == 0, gradient, mean)  # a mean drawn towards itself stays
        mean.lerp_(gradient, 1 - momentum)
        return gradient.lerp(mean, momentum)
