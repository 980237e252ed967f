"""One optimizer step over whatever devices there are: batch in, gradients, clip, update; loss and its finiteness out.

The global batch is split over processes, replicas and micro-batches, and the result does not depend on how: the loss
sums are divided by the one count of scored tokens, and dropout is a function of (seed, step, row).
"""

import math
import shutil
from dataclasses import dataclass

import torch
from transformers import GPT2LMHeadModel

from novelgpt.compute import keep_freed_memory, tune_for_cpu
from novelgpt.messages import EXIT_ENVIRONMENT, EXIT_USAGE, UserError, say, warn
from novelgpt.network import count_parameters
from novelgpt.training.feed import load_corpus, rows_to_device
from novelgpt.training.memory import available_bytes, choose_parts, predict_bytes
from novelgpt.training.optim import build_optimizers, set_lr
from novelgpt.training.parallel import LossModule, all_processes, micro_batches, without_sync, wrap_model
from novelgpt.training.setup import Run
from novelgpt.training.stopping import Interrupted
from novelgpt.training.windows import IGNORED, Batch

HEAD_CHUNK = {"cpu": 1024, "cuda": 8192, "mps": 1024}  # positions whose logits exist at a time
COMPILE_FROM = 500  # steps from which compiling repays itself on a GPU


@dataclass(frozen=True)
class StepResult:
    """What a step leaves on the device; reading it is what makes the host wait.

    Attributes:
        loss: (1,) fp32, this process's sum of nats; 0 where the step was left out.
        tokens: (1,) fp32, scored tokens of the global batch; 0 where the step was left out.
        finite: () bool, whether loss and gradient were numbers and the weights were updated.
    """

    loss: torch.Tensor
    tokens: torch.Tensor
    finite: torch.Tensor


class Engine:
    """A network spread over its devices, its optimizers and its loss scaler."""

    def __init__(self, run: Run):
        """Exchange the network's slow parts, compile and wrap it, make the optimizers."""
        self.run = run
        self.options = run.options
        self.device = run.devices[0]
        self.noise = None
        if self.device.type == "cpu":
            self.noise = tune_for_cpu(run.model, seed=self.options.seed, dtype=run.dtype)
            keep_freed_memory()
        if self.options.gradient_checkpointing:
            checkpoint_activations(run.model)
        self.loss_module = LossModule(run.model, run.dtype, HEAD_CHUNK[self.device.type])
        if should_compile(run):
            self.loss_module.compile()
        self.micro_batches = self.choose_micro_batches()
        self.module = wrap_model(
            self.loss_module,
            run.devices,
            run.world,
            accumulate=self.micro_batches > 1,
            shard=self.options.shard,
        )
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=run.dtype == torch.float16)
        self.optimizers = build_optimizers(
            run.model,
            self.options.optimizer,
            lr=self.options.lr,
            weight_decay=self.options.weight_decay,
            betas=(self.options.beta1, self.options.beta2),
            dtype=run.dtype,
        )
        self.corpus = load_corpus(run.data.stream, self.device)
        self.proven = False  # a step has fitted into the memory

    def choose_micro_batches(self) -> int:
        """Return how many parts a batch is computed in: as asked for, or more where memory would not suffice."""
        options, run = self.options, self.run
        rows = -(-options.batch_size // (run.world.size * len(run.devices)))
        settings = {"device": self.device.type, "dtype": run.dtype, "checkpointing": options.gradient_checkpointing}
        settings |= {"chunk": HEAD_CHUNK[self.device.type], "window": run.window}
        settings["trained"] = count_parameters(run.model, trainable=True)

        def needed(at_a_time: int) -> int:
            return predict_bytes(run.config, run.model.config.vocab_size, at_a_time, **settings)

        least = options.gradient_accumulation
        parts = choose_parts(needed, rows, available_bytes(self.device), least=least)
        if parts > least:
            say(f"--batch_size {options.batch_size}: computed in {parts} parts to fit the memory, same update")
        return parts

    def step(self, batch: Batch, *, step: int, lr_share: float, interrupted=lambda: False) -> StepResult:
        """Update the weights once by a global batch; a step that is not finite leaves them as they were.

        Args:
            batch: all rows, the same on every process.
            step: counted from 1; the randomness of the step is a function of it.
            lr_share: learning rate as a share of its peak.
            interrupted: asked between micro-batches.

        Raises:
            Interrupted: interrupted() said so.
            UserError: not even single rows fit into the memory.
        """
        set_lr(self.optimizers, lr_share)
        scored = int((batch.labels[:, 1:] != IGNORED).sum())
        if not scored:  # nothing to learn: not even weight decay or momentum may move the weights
            none = torch.zeros(1, device=self.device)
            return StepResult(none, none, torch.tensor(True, device=self.device))
        loss = self.accumulate_fitting(batch, step, scored, interrupted)
        for optimizer in self.optimizers:
            self.scaler.unscale_(optimizer)
        norm = torch.nn.utils.clip_grad_norm_(self.run.model.parameters(), self.options.max_grad_norm or math.inf)
        norm = norm.full_tensor() if hasattr(norm, "full_tensor") else norm
        finite = self.update(all_processes(torch.isfinite(loss + norm).all(), self.run.world))
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)
        zero = torch.zeros_like(loss)
        return StepResult(torch.where(finite, loss, zero), torch.where(finite, zero + scored, zero), finite)

    def accumulate_fitting(self, batch: Batch, step: int, scored: int, interrupted) -> torch.Tensor:
        """Accumulate, in twice as many micro-batches each time the memory of the first step does not suffice."""
        while True:
            try:
                loss = self.accumulate(batch, step, scored, interrupted)
                self.proven = True
                return loss
            except RuntimeError as problem:
                if self.proven or not is_out_of_memory(problem):
                    raise
                self.split_further(len(batch.starts), problem)

    def split_further(self, rows: int, problem: RuntimeError) -> None:
        """Double the micro-batches after the memory ran out, or say that nothing more can be split."""
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)
        if self.micro_batches >= rows or self.run.world.size > 1:
            hint = "--gradient_checkpointing" if self.run.world.size == 1 else "--gradient_accumulation 8"
            message = f"--batch_size {rows}: does not fit into the memory of {self.device}, even split"
            raise UserError(message, f"{hint}, or a smaller --model_config", EXIT_ENVIRONMENT) from problem
        self.micro_batches = min(rows, 2 * self.micro_batches)
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        warn(f"--batch_size {rows}: too large for the memory; computed in {self.micro_batches} parts, same update")

    def accumulate(self, batch: Batch, step: int, scored: int, interrupted) -> torch.Tensor:
        """Add up the gradients of this process's rows; return their loss sum (1,)."""
        parts = micro_batches(len(batch.starts), self.run.world, self.micro_batches)
        loss = torch.zeros(1, device=self.device)
        for number, rows in enumerate(parts):
            if interrupted():
                for optimizer in self.optimizers:
                    optimizer.zero_grad(set_to_none=True)
                raise Interrupted
            input_ids, labels = rows_to_device(batch, rows, self.device, self.corpus)
            self.seed_step(step, rows)
            with without_sync(self.module, last=number == len(parts) - 1):
                part = self.module(input_ids, labels).sum()
                self.scaler.scale(part * (self.run.world.size / max(scored, 1))).backward()
            loss += part.detach()
        return loss

    def seed_step(self, step: int, rows: range) -> None:
        """Make every random number of a micro-batch a function of (seed, step, first row)."""
        if self.noise:
            self.noise.set_position(step, rows.start)
        else:
            torch.manual_seed((self.options.seed << 32) + (step << 8) + rows.start % 256)

    def reshard(self) -> None:
        """Share the weights out again after a pass without a backward pass, which leaves some of them whole."""
        if hasattr(self.module, "reshard"):
            self.module.reshard()

    def update(self, finite: torch.Tensor) -> torch.Tensor:
        """Step the optimizers if all is finite; on a GPU they decide there, so that the host need not wait."""
        if self.device.type == "cuda" and not self.scaler.is_enabled():
            for optimizer in self.optimizers:
                optimizer.found_inf, optimizer.grad_scale = (~finite).float(), None
                optimizer.step()
        elif finite:
            for optimizer in self.optimizers:
                self.scaler.step(optimizer)
        self.scaler.update()
        return finite


def checkpoint_activations(model: GPT2LMHeadModel) -> None:
    """Let the network compute its layers again on the way back instead of keeping what they gave."""
    is_renamed = hasattr(model, "activation_checkpointing_enable")  # since transformers 5.23; the old name ends with 6
    enable = model.activation_checkpointing_enable if is_renamed else model.gradient_checkpointing_enable
    enable({"use_reentrant": False})


def is_out_of_memory(problem: RuntimeError) -> bool:
    """Tell whether an error says that memory ran out, on a GPU or on the CPU."""
    return isinstance(problem, torch.OutOfMemoryError) or "not enough memory" in str(problem)


def should_compile(run: Run) -> bool:
    """Tell whether torch.compile is asked for, or repays itself: one GPU and a run long enough.

    Raises:
        UserError: asked for on a CPU, whose own fast parts cannot be compiled.
    """
    if run.options.compile == "on" and run.devices[0].type == "cpu":
        message = "--compile on: cpu trains with parts of its own, not compiled ones"
        raise UserError(message, "--compile auto", EXIT_USAGE)
    if run.options.compile != "auto":
        return run.options.compile == "on"
    if run.devices[0].type != "cuda" or len(run.devices) > 1 or run.total_steps < COMPILE_FROM:
        return False
    if shutil.which("cc") or shutil.which("gcc"):
        return True
    say("torch.compile: no C compiler here; running without it")
    return False
