"""One optimizer step over whatever devices there are: batch in, gradients, clip, update; loss and its finiteness out.

    batch (B, T) ─┬─ process 0 ─┬─ micro-batch ─ rows to the device ─ loss sum ─ gradients ─┐
                  └─ process 1 ─┴─ micro-batch ─ …                                          ┴─ clip ─ update

The global batch is split over processes, replicas and micro-batches, and the result does not depend on how: the loss
sums are divided by the one count of scored tokens, and dropout is a function of (seed, step, row).

On a GPU the whole corpus lies in its memory as 16-bit numbers when it fits (a novel takes 10 MB), so that only the
starts of the windows and the replaced inputs travel; otherwise the rows come from the memory map through pinned memory.
"""

import math
import shutil
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from transformers import GPT2LMHeadModel

from novelgpt.cli import TrainOptions
from novelgpt.compute import keep_freed_memory, tune_for_cpu, tune_for_gpu
from novelgpt.corpus.tokenizers import NovelTokenizer
from novelgpt.messages import EXIT_ENVIRONMENT, EXIT_USAGE, UserError, say, warn
from novelgpt.network import count_parameters
from novelgpt.training.memory import HEAD_CHUNK, available_bytes, choose_parts, predict_bytes, rows_at_a_time
from novelgpt.training.optim import build_optimizers, set_lr, warmup_count
from novelgpt.training.parallel import LossModule, World, all_processes, micro_batches, without_sync, wrap_model
from novelgpt.training.windows import IGNORED, Batch, Stream, TrainingData

COMPILE_FROM = 500  # steps from which compiling repays itself on a GPU
SHARE_FOR_CORPUS = 8  # of the free memory, at most one part in so many


@dataclass(frozen=True)
class Run:
    """A run that is ready to start: what an engine is made of."""

    options: TrainOptions  # with every None resolved
    devices: list[torch.device]  # of this process
    world: World  # this process among all
    dtype: torch.dtype  # format of the matrix products
    tokenizer: NovelTokenizer
    model: GPT2LMHeadModel  # in fp32 on devices[0]
    data: TrainingData
    config: dict  # the checked network config
    window: int  # tokens a row: the network's context, or the block of records
    epoch_steps: list[int]  # optimizer steps of each epoch

    @property
    def total_steps(self) -> int:
        """Optimizer steps of the whole run."""
        return sum(self.epoch_steps)

    @property
    def num_parameters(self) -> int:
        """Numbers of the network."""
        return count_parameters(self.model)

    @property
    def num_trained(self) -> int:
        """Numbers of the network that have a gradient."""
        return count_parameters(self.model, trainable=True)

    @property
    def warmup(self) -> int:
        """Steps of the whole run until the rate is at its peak."""
        return warmup_count(self.options.warmup_steps, self.total_steps)


@dataclass(frozen=True)
class StepResult:
    """What a step leaves on the device; reading it is what makes the host wait."""

    loss: torch.Tensor  # (1,) fp32, this process's sum of nats; 0 where the step was left out
    tokens: torch.Tensor  # (1,) fp32, scored tokens of the global batch; 0 where the step was left out
    finite: torch.Tensor  # () bool, whether loss and gradient were numbers and the weights were updated


class Engine:
    """A network spread over its devices, its optimizers and its loss scaler."""

    def __init__(self, run: Run):
        """Replace the network's slow parts, compile and wrap it, make the optimizers."""
        options = run.options
        self.run, self.options = run, options
        self.device = run.devices[0]

        # the network: our own parts on a CPU, recomputed activations, compiled where that repays itself
        self.noise = None
        if self.device.type == "cpu":
            self.noise = tune_for_cpu(run.model, seed=options.seed, dtype=run.dtype)
            keep_freed_memory()
        else:
            tune_for_gpu(run.model)
        if options.gradient_checkpointing:
            checkpoint_activations(run.model)
        self.loss_module = LossModule(run.model, run.dtype, HEAD_CHUNK[self.device.type])
        if should_compile(options.compile, run.devices, run.total_steps):
            self.loss_module.compile()

        # spread over devices and processes, in as many micro-batches as the memory wants
        self.micro_batches = self.choose_micro_batches()
        is_split = self.micro_batches > 1
        self.module = wrap_model(self.loss_module, run.devices, run.world, accumulate=is_split, shard=options.shard)
        self.has_fitted = False  # a step has fitted into the memory

        # what updates it, and what it reads
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=run.dtype == torch.float16)
        self.optimizers = build_optimizers(
            run.model,
            options.optimizer,
            lr=options.lr,
            weight_decay=options.weight_decay,
            betas=(options.beta1, options.beta2),
            dtype=run.dtype,
            rank=run.world.rank,
            world=run.world.size,
        )
        self.corpus = load_corpus(run.data.stream, self.device)

    def predict_bytes(self, parts: int) -> int:
        """Predict the memory that a step takes on one device when its share of a batch is computed in so many parts."""
        run, options = self.run, self.options
        replicas = run.world.size * len(run.devices)
        return predict_bytes(
            run.config,
            run.model.config.vocab_size,
            rows_at_a_time(options.batch_size, parts, replicas=replicas),
            device=self.device.type,
            dtype=run.dtype,
            checkpointing=options.gradient_checkpointing,
            trained=run.num_trained,
            window=run.window,
        )

    def choose_micro_batches(self) -> int:
        """Return how many parts a batch is computed in: as asked for, or more where memory would not suffice."""
        replicas = self.run.world.size * len(self.run.devices)
        rows = rows_at_a_time(self.options.batch_size, 1, replicas=replicas)
        least = self.options.gradient_accumulation
        parts = choose_parts(self.predict_bytes, rows, available_bytes(self.device), least=least)
        if parts > least:
            say(f"--batch_size {self.options.batch_size}: computed in {parts} parts to fit the memory, same update")
        return parts

    def step(
        self, batch: Batch, *, step: int, lr_share: float, check_stop: Callable[[], object] = lambda: None
    ) -> StepResult:
        """Update the weights once by a global batch; a step that is not finite leaves them as they were.

        Args:
            batch: all rows, the same on every process.
            step: counted from 1; the randomness of the step is a function of it.
            lr_share: learning rate as a share of its peak.
            check_stop: called before each micro-batch; raises Stopped to give the step up.

        Raises:
            Stopped: the weights are as they were.
            UserError: not even single rows fit into the memory.
        """
        set_lr(self.optimizers, lr_share)
        scored = int((batch.labels[:, 1:] != IGNORED).sum())
        if not scored:  # nothing to learn: not even weight decay or momentum may move the weights
            none = torch.zeros(1, device=self.device)
            return StepResult(none, none, torch.tensor(True, device=self.device))
        try:
            loss = self.accumulate_fitting(batch, step, scored, check_stop)
            finite = self.update(loss)
        finally:
            self.drop_gradients()

        # the losses stay on the device: reading them is what makes the host wait
        zero = torch.zeros_like(loss)
        return StepResult(torch.where(finite, loss, zero), torch.where(finite, zero + scored, zero), finite)

    def accumulate_fitting(self, batch: Batch, step: int, scored: int, check_stop) -> torch.Tensor:
        """Accumulate, in twice as many micro-batches each time the memory of the first step does not suffice."""
        while True:
            try:
                loss = self.accumulate(batch, step, scored, check_stop)
                self.has_fitted = True
                return loss
            except RuntimeError as problem:
                if self.has_fitted or not is_out_of_memory(problem):
                    raise
                self.split_further(len(batch.starts), problem)

    def split_further(self, rows: int, problem: RuntimeError) -> None:
        """Double the micro-batches after the memory ran out, or report that nothing more can be split."""
        self.drop_gradients()

        # several processes would have to agree on a split, so there it is the user's to ask for
        if self.micro_batches >= rows or self.run.world.size > 1:
            hint = "--gradient_checkpointing" if self.run.world.size == 1 else "--gradient_accumulation 8"
            message = f"--batch_size {rows}: does not fit into the memory of {self.device}, even split"
            raise UserError(message, f"{hint}, or a smaller --model_config", EXIT_ENVIRONMENT) from problem
        self.micro_batches = min(rows, 2 * self.micro_batches)
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        warn(f"--batch_size {rows}: too large for the memory; computed in {self.micro_batches} parts, same update")

    def accumulate(self, batch: Batch, step: int, scored: int, check_stop) -> torch.Tensor:
        """Add up the gradients of this process's rows; return their loss sum (1,)."""
        parts = micro_batches(len(batch.starts), self.run.world, self.micro_batches)
        loss = torch.zeros(1, device=self.device)
        for number, rows in enumerate(parts):
            check_stop()
            input_ids, labels = rows_to_device(batch, rows, self.device, self.corpus)  # (rows, T) each
            self.seed_step(step, rows)
            with without_sync(self.module, last=number == len(parts) - 1):
                part = self.module(input_ids, labels).sum()  # nats
                # processes average their gradients, so the mean over all scored tokens needs their number
                self.scaler.scale(part * (self.run.world.size / max(scored, 1))).backward()
            loss += part.detach()
        return loss

    def seed_step(self, step: int, rows: range) -> None:
        """Make every random number of a micro-batch a function of (seed, step, first row)."""
        if self.noise:
            self.noise.set_position(step, rows.start)
        else:
            # seed, step and first row side by side, so that parts and steps differ
            torch.manual_seed((self.options.seed << 32) + (step << 8) + rows.start % 256)

    def reshard(self) -> None:
        """Share the weights out again after a pass without a backward pass, which leaves some of them whole."""
        if hasattr(self.module, "reshard"):
            self.module.reshard()

    def update(self, loss: torch.Tensor) -> torch.Tensor:
        """Clip the gradients and step the optimizers if all is finite; return () bool, whether it was."""
        # one norm over all parameters; fp16's scale is taken out first
        for optimizer in self.optimizers:
            self.scaler.unscale_(optimizer)
        norm = torch.nn.utils.clip_grad_norm_(self.run.model.parameters(), self.options.max_grad_norm or math.inf)
        norm = norm.full_tensor() if hasattr(norm, "full_tensor") else norm  # shared-out weights have a shared-out norm
        finite = all_processes(torch.isfinite(loss + norm).all(), self.run.world)

        if self.device.type == "cuda" and not self.scaler.is_enabled():  # decided there, so the host need not wait
            for optimizer in self.optimizers:
                optimizer.found_inf, optimizer.grad_scale = (~finite).float(), None
                optimizer.step()
        elif finite:
            for optimizer in self.optimizers:
                self.scaler.step(optimizer)
        self.scaler.update()
        return finite

    def drop_gradients(self) -> None:
        """Free the gradients, also those of a pass that was given up."""
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)


def checkpoint_activations(model: GPT2LMHeadModel) -> None:
    """Let the network compute its layers again on the way back instead of keeping what they gave."""
    is_renamed = hasattr(model, "activation_checkpointing_enable")  # since transformers 5.23; the old name ends with 6
    enable = model.activation_checkpointing_enable if is_renamed else model.gradient_checkpointing_enable
    enable({"use_reentrant": False})


def is_out_of_memory(problem: RuntimeError) -> bool:
    """Tell whether an error says that memory ran out, on a GPU or on the CPU."""
    return isinstance(problem, torch.OutOfMemoryError) or "not enough memory" in str(problem)


def should_compile(mode: str, devices: list[torch.device], total_steps: int) -> bool:
    """Tell whether torch.compile is asked for ("on"), or "auto" and repays itself: one GPU and a run long enough.

    Raises:
        UserError: asked for on a CPU, whose own fast parts cannot be compiled.
    """
    if mode == "on" and devices[0].type == "cpu":
        message = "--compile on: cpu trains with parts of its own, not compiled ones"
        raise UserError(message, "--compile auto", EXIT_USAGE)
    if mode != "auto":
        return mode == "on"
    if devices[0].type != "cuda" or len(devices) > 1 or total_steps < COMPILE_FROM:
        return False

    # torch.compile needs a C compiler for the code around its kernels
    if shutil.which("cc") or shutil.which("gcc"):
        return True
    say("torch.compile: no C compiler here; running without it")
    return False


def load_corpus(stream: Stream | None, device: torch.device) -> torch.Tensor | None:
    """Return the stream as int16 or int32 (N,) on a GPU; None on other devices or where it has no use or no room."""
    if stream is None or device.type != "cuda":
        return None

    # it must leave room for the activations, which are not there yet
    free, _total = torch.cuda.mem_get_info(device)
    if len(stream) * stream.dtype.itemsize > free // SHARE_FOR_CORPUS:
        return None
    return to_signed(stream.read()).to(device)


def to_signed(tokens: np.ndarray) -> torch.Tensor:
    """Return uint16 or uint32 ids as the signed tensor with the same bits."""
    return torch.from_numpy(tokens.view(np.int16 if tokens.dtype == np.uint16 else np.int32))


def cut_windows(corpus: torch.Tensor, starts: torch.Tensor, window: int) -> torch.Tensor:
    """Cut windows (B, window) int64 at starts (B,) int64 out of a corpus (N,) of int16 or int32 on its own device."""
    places = starts[:, None] + torch.arange(window, device=corpus.device)  # (B, T)
    mask = 0xFFFF if corpus.dtype == torch.int16 else 0xFFFFFFFF  # the ids are unsigned
    return corpus[places].long() & mask  # (B, T)


def rows_to_device(
    batch: Batch, rows: range, device: torch.device, corpus: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return input ids and labels (B, T) int64 of some rows; without rows, one row that counts nothing."""
    pick = slice(rows.start, rows.stop) if len(rows) else slice(0, 1)
    input_ids, labels = batch.input_ids[pick], batch.labels[pick]  # (rows, T)
    if corpus is not None and batch.is_windows and len(rows):
        windows = cut_windows(corpus, send(batch.starts[pick], device), labels.shape[1])

        # of the inputs only those travel that are replaced
        places = np.flatnonzero(input_ids != labels)  # (K,)
        if not len(places):
            return windows, windows
        values = send(input_ids.ravel()[places], device)
        return windows.flatten().index_copy(0, send(places, device), values).view_as(windows), windows

    # a process without rows computes one that counts nothing, so that all meet in the pass
    return send(input_ids, device), send(labels if len(rows) else np.full_like(labels, IGNORED), device)


def send(array: np.ndarray, device: torch.device) -> torch.Tensor:
    """Bring numbers to a device; the host does not wait for a GPU."""
    tensor = torch.from_numpy(array)
    return (tensor.pin_memory() if device.type == "cuda" else tensor).to(device, non_blocking=True)
