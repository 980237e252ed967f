"""Optimizers and learning rates: AdamW, Muon, which weights are decayed, and the rate of every step.

Muon is momentum whose every matrix is replaced by the nearest orthogonal one before it is applied (Jordan 2024).
torch.optim.Muon takes one matrix after another. GPT-2 keeps query, key and value in one matrix `c_attn` (D, 3D), which
are three matrices of their own here, and all blocks have matrices of the same few shapes, which are processed together.
"""

import math
from collections import defaultdict
from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import nn

DEFAULT_LR = {"adamw": 8e-4, "muon": 2e-3}  # of a network 768 wide, from scratch
PRETRAINED_LR = {"adamw": 1.5e-4, "muon": 3e-4}  # small, so that trained weights keep what they know
LORA_LR = {"adamw": 1.5e-3, "muon": 3e-3}  # corrections want ten times the rate of all weights
MEMORY_EPOCHS = 2  # weights are a mean over the updates of so many epochs

COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of the quintic iteration, Jordan's
ITERATIONS = 5
UPDATE_RMS = 0.2  # of an AdamW step at the same rate, arXiv 2502.16982


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
        pretrained: whether training starts from trained weights.
        lora: training corrections beside them (ten times the rate: Schulman et al. 2025, "LoRA Without Regret").

    >>> default_lr("muon", 768, pretrained=False), default_lr("muon", 192, pretrained=False)
    (0.002, 0.004)
    """
    if pretrained:
        return (LORA_LR if lora else PRETRAINED_LR)[optimizer]
    return DEFAULT_LR[optimizer] * math.sqrt(768 / n_embd)


def default_weight_decay(lr: float, epoch_steps: int, *, pretrained: bool) -> float:
    """Return the decay with which weights forget in two epochs: decay · lr is the share that they lose a step.

    Args:
        lr: peak rate.
        epoch_steps: steps of an epoch.
        pretrained: weights that know something are hardly decayed.

    Returns:
        0.1 to 1 from scratch, 0.01 for pretrained weights.

    >>> round(default_weight_decay(2e-3, 1294, pretrained=False), 3)
    0.193
    """
    if pretrained:
        return 0.01
    return min(1.0, max(0.1, 1 / (max(lr, 1e-9) * MEMORY_EPOCHS * epoch_steps)))


def warmup_count(warmup: float, total_steps: int) -> int:
    """Return the number of warm-up steps for a count (1 and up) or a share (below 1) of all steps.

    >>> warmup_count(0.02, 1000), warmup_count(2000, 3000), warmup_count(2000, 100)
    (20, 2000, 99)
    """
    return min(max(total_steps - 1, 0), math.ceil(warmup * total_steps) if warmup < 1 else int(warmup))


def lr_at(
    step: float, total_steps: float, *, peak: float, warmup: float, schedule: str = "linear", end: float = 0.0
) -> float:
    """Return the learning rate of a step.

    Args:
        step: counted from 1; total_steps is the last one. A run by the clock counts percent instead.
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
    # up to the peak, which the last step of warm-up has
    if step <= warmup:
        return peak * step / warmup
    if schedule == "constant" or total_steps == 1:
        return peak
    # then down, so that the very last step has the end rate
    done = (step - warmup) / (total_steps - warmup)
    if schedule == "cosine":
        return end + (peak - end) * (1 + math.cos(math.pi * done)) / 2
    return end + (peak - end) * (1 - done) ** (2 if schedule == "polynomial" else 1)


def split_parameters(model: nn.Module, *, muon: bool) -> dict[str, list[nn.Parameter]]:
    """Sort parameters into what Muon turns, in one part or in three, what AdamW decays, and the rest.

    Matrices of the blocks are for Muon (when asked for), those of attention's input as query, key and value;
    embeddings are decayed like matrices, unless most of their rows are to stay; biases and LayerNorms, one-dimensional
    all, are never decayed. Frozen parameters never have a gradient, so no optimizer touches them.
    """
    # a table of which only some rows are trained must not be decayed: the frozen ones would shrink
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
    dtype: torch.dtype = torch.bfloat16,
    rank: int = 0,
    world: int = 1,
) -> list[torch.optim.Optimizer]:
    """Make the optimizers of a run: AdamW for all, or Muon for the blocks' matrices and AdamW for the rest.

    Args:
        model: a GPT-2; its parameters stay fp32.
        name: "adamw" or "muon".
        lr: peak rate; stored as `peak_lr` in every group. Under Muon the AdamW part runs at the same rate; Muon's
            updates have the size of AdamW's.
        weight_decay: decoupled, on matrices.
        betas: AdamW's moment decays.
        dtype: format of Muon's matrix products.
        rank, world: as of Muon.
    """
    # fused: one kernel for all parameters, and a step to be left out is known on the device alone
    groups = split_parameters(model, muon=name == "muon")
    fused = all(parameter.device.type in ("cuda", "cpu") for parameter in model.parameters())
    adamw = torch.optim.AdamW(
        [
            {"params": groups["decayed"], "weight_decay": weight_decay},
            {"params": groups["plain"], "weight_decay": 0.0},
        ],
        lr=lr,
        betas=betas,
        fused=fused,
    )

    # Muon's matrices never stand in both
    optimizers: list[torch.optim.Optimizer] = [adamw]
    if groups["muon"]:
        turned = [{"params": groups["muon"]}, {"params": groups["muon_qkv"], "parts": 3}]
        optimizers.append(Muon(turned, lr=lr, weight_decay=weight_decay, dtype=dtype, rank=rank, world=world))
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["peak_lr"] = lr
    return optimizers


def set_lr(optimizers: list[torch.optim.Optimizer], share: float) -> None:
    """Set every group's rate to a share (0 to 1) of its peak."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["peak_lr"] * share


def orthogonalize(matrices: torch.Tensor, dtype: torch.dtype = torch.bfloat16) -> torch.Tensor:
    """Bring all singular values of matrices (N, A, B) to 0.7 ... 1.2 by a Newton-Schulz iteration in dtype.

    >>> bool((orthogonalize(torch.diag(torch.tensor([9.0, 5.0]))[None]) - torch.eye(2)).abs().max() < 0.4)
    True
    """
    # a wide matrix gives the smaller square, (A, A) with A the shorter side
    is_tall = matrices.shape[1] > matrices.shape[2]
    turned = matrices.mT if is_tall else matrices
    turned = (turned / turned.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)).to(dtype)
    first, third, fifth = COEFFICIENTS

    # each round draws the singular values s towards 1 by a s + b s^3 + c s^5
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
        rank, world: this process among those that have the same gradients; on GPUs each turns a share of the matrices.
    """

    def __init__(
        self,
        groups: Iterable[dict],
        *,
        lr: float,
        weight_decay: float,
        momentum: float = 0.95,
        dtype: torch.dtype = torch.bfloat16,
        rank: int = 0,
        world: int = 1,
    ):
        super().__init__(groups, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum, "parts": 1})
        self.dtype, self.rank, self.world = dtype, rank, world
        self.joined: dict[torch.Tensor, tuple] = {}  # first weight -> the means end to end, and the part of each
        self.found_inf: torch.Tensor | None = None

    @torch.no_grad()
    def step(self) -> None:
        """Update every parameter that has a gradient.

        On a CPU one after the other; a GPU, which would mostly wait for Python then, computes all of them together.
        """
        weights = [weight for group in self.param_groups for weight in group["params"] if weight.grad is not None]
        on_cpu = all(weight.device.type == "cpu" for weight in weights)
        (self.step_each if on_cpu else self.step_together)(self.kept())

    def kept(self) -> torch.Tensor | float:
        """Return 1, or 0 for a step to be left out: it multiplies by that instead of asking the host."""
        return 1.0 if self.found_inf is None else (self.found_inf == 0).float()

    def step_each(self, kept: torch.Tensor | float) -> None:
        """Update every parameter by operations of its own, but for the products."""
        waiting = defaultdict(list)  # shape and rate -> (the part of a weight, its direction)
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                direction = self.direction(weight, group["momentum"])
                weight.mul_(1 - group["lr"] * group["weight_decay"] * kept)
                for pair in zip(weight.chunk(group["parts"], 1), direction.chunk(group["parts"], 1), strict=True):
                    waiting[pair[0].shape, group["lr"]].append(pair)

        # matrices of one shape are orthogonalized together: few large products instead of many small ones
        for (shape, lr), pairs in waiting.items():
            turned = orthogonalize(torch.stack([direction for _, direction in pairs]), self.dtype)  # (N, A, B)
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

    def step_together(self, kept: torch.Tensor | float) -> None:
        """Do the same in some sixty launches, however many layers there are.

        Momentum is taken of all gradients end to end, and a tall matrix is turned as a wide one lying on its side, so
        that a GPT-2 has two shapes: squares and the wide ones.
        """
        for (lr, decay, momentum), stacks in self.stacks().items():
            weights = [weight for stack in stacks.values() for weight in stack]
            directions = self.directions(weights, momentum)
            torch._foreach_mul_(weights, 1 - lr * decay * kept)

            # of every stack of equal weights the directions as matrices, wide and by shape
            waiting, sizes = defaultdict(list), [len(stack) * stack[0].numel() for stack in stacks.values()]
            for ((shape, parts), stack), each in zip(stacks.items(), directions.split(sizes), strict=True):
                matrices = as_matrices(each.view(-1, *shape), parts)  # (parts, N, A, B)
                waiting[matrices.shape[2:]].append((stack, parts, matrices))

            for shape, members in waiting.items():
                together = torch.cat([part for _, _, matrices in members for part in matrices])  # (N, A, B)
                turned = self.share_out(together).mul_(kept)
                spans = turned.split([matrices.shape[:2].numel() for _, _, matrices in members])
                for (stack, parts, matrices), span in zip(members, spans, strict=True):
                    updates = torch.empty(len(stack), *stack[0].shape, dtype=stack[0].dtype, device=span.device)
                    as_matrices(updates, parts).copy_(span.view(matrices.shape))
                    torch._foreach_add_(stack, updates.unbind(), alpha=-lr * UPDATE_RMS * math.sqrt(max(shape)))

    def stacks(self) -> dict[tuple, dict[tuple, list[torch.Tensor]]]:
        """Return the weights that have a gradient by (rate, decay, momentum), and of each by (shape, parts)."""
        found = defaultdict(lambda: defaultdict(list))
        for group in self.param_groups:
            settings = group["lr"], group["weight_decay"], group["momentum"]
            for weight in group["params"]:
                if weight.grad is not None:
                    found[settings][weight.shape, group["parts"]].append(weight)
        return found

    def directions(self, weights: list[torch.Tensor], momentum: float) -> torch.Tensor:
        """Do what `direction` does for many weights, end to end: (N,)."""
        means = self.join_means(weights)  # (N,)
        gradients = torch.cat([weight.grad.flatten() for weight in weights])  # (N,)
        if self.found_inf is not None:
            gradients = torch.where(self.found_inf == 0, gradients, means)
        means.lerp_(gradients, 1 - momentum)
        return gradients.lerp_(means, momentum)

    def join_means(self, weights: list[torch.Tensor]) -> torch.Tensor:
        """Return the means of some weights end to end (N,); what `state` keeps of each is its part of them."""
        former = [self.state[weight].get("momentum_buffer") for weight in weights]
        whole, parts = self.joined.get(weights[0], (None, []))
        if len(parts) == len(former) and all(part is mean for part, mean in zip(parts, former, strict=True)):
            return whole
        # the first step, or one after a checkpoint was read: lay them anew, with what is known of them
        empty = [
            torch.zeros_like(weight) if mean is None else mean for weight, mean in zip(weights, former, strict=True)
        ]
        whole = torch.cat([mean.flatten() for mean in empty])
        spans = whole.split([weight.numel() for weight in weights])
        parts = [span.view(weight.shape) for span, weight in zip(spans, weights, strict=True)]
        for weight, part in zip(weights, parts, strict=True):
            self.state[weight]["momentum_buffer"] = part
        self.joined[weights[0]] = whole, parts
        return whole

    def share_out(self, matrices: torch.Tensor) -> torch.Tensor:
        """Orthogonalize matrices (N, A, B), all the same in every process: a share in each, then all in all."""
        if self.world == 1:
            return orthogonalize(matrices, self.dtype)
        share = -(-len(matrices) // self.world)
        mine = matrices[self.rank * share :][:share]
        mine = torch.nn.functional.pad(mine, (0, 0, 0, 0, 0, share - len(mine)))  # the last ones may have fewer
        turned = mine.new_empty(share * self.world, *mine.shape[1:], dtype=self.dtype)
        dist.all_gather_into_tensor(turned, orthogonalize(mine, self.dtype).contiguous())
        return turned[: len(matrices)]


def as_matrices(weights: torch.Tensor, parts: int) -> torch.Tensor:
    """View weights (N, A, parts · B) as their matrices (parts, N, A, B), tall ones lying on their side.

    >>> as_matrices(torch.zeros(5, 4, 12), 3).shape, as_matrices(torch.zeros(5, 8, 2), 1).shape
    (torch.Size([3, 5, 4, 4]), torch.Size([1, 5, 2, 8]))
    """
    count, height, width = weights.shape
    matrices = weights.view(count, height, parts, width // parts).permute(2, 0, 1, 3)
    return matrices.mT if height > width // parts else matrices
