"""One optimizer step over whatever devices there are: batch in, gradients, clip, update; loss and its finiteness out.

    batch (B, T) ─┬─ process 0 ─┬─ micro-batch ─ rows to the device ─ loss sum ─ gradients ─┐
                  └─ process 1 ─┴─ micro-batch ─ …                                          ┴─ clip ─ update

The global batch is split over processes, replicas and micro-batches, and the result does not depend on how: the loss
sums are divided by the one count of scored tokens. Dropout is a function of (seed, step, row) on a CPU, of (seed, step,
first row of the micro-batch, number of the device) on GPUs: there another split drops other places.
"""

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from transformers import GPT2LMHeadModel

from novelgpt.cli import TrainOptions
from novelgpt.compute import keep_freed_memory, tune_for_cpu, tune_for_gpu
from novelgpt.corpus.tokenizers import NovelTokenizer
from novelgpt.messages import EXIT_ENVIRONMENT, UserError, say, warn
from novelgpt.network import count_parameters, place_teachers
from novelgpt.training import compilation
from novelgpt.training.memory import (
    HEAD_CHUNK,
    DoesNotFit,
    available_bytes,
    choose_parts,
    is_out_of_memory,
    predict_bytes,
    rows_at_a_time,
)
from novelgpt.training.optim import build_optimizers, set_lr, warmup_count
from novelgpt.training.parallel import (
    LossModule,
    World,
    all_processes,
    any_process,
    largest_of_processes,
    micro_batches,
    without_sync,
    wrap_model,
)
from novelgpt.training.windows import NOT_SCORED, Batch, TrainingData, load_corpus, rows_to_device


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
    epoch_steps: list[int]  # optimizer steps of each epoch; where hours end it, of the first one
    teachers: tuple[GPT2LMHeadModel, ...] = ()  # in fp32 on the CPU; what they say is learned beside the text
    asked: TrainOptions | None = None  # the options as they were given
    command: Sequence[str] | None = None  # that started it, script first

    @property
    def total_steps(self) -> int | None:
        """Optimizer steps of the whole run; None where hours end it."""
        return sum(self.epoch_steps) if self.options.hours is None else None

    @property
    def num_parameters(self) -> int:
        """Numbers of the network."""
        return count_parameters(self.model)

    @property
    def num_trained(self) -> int:
        """Numbers of the network that have a gradient."""
        return count_parameters(self.model, trainable=True)

    @property
    def warmup(self) -> float:
        """Steps of the whole run until the rate is at its peak; percent of it where hours end it."""
        share, steps = self.options.warmup_steps, self.total_steps
        return 100 * share if steps is None else warmup_count(share, steps)


@dataclass(frozen=True)
class StepResult:
    """What a step leaves on the device; reading it is what makes the host wait."""

    loss: torch.Tensor  # (1,) fp32, this process's sum of nats; 0 where the step was left out
    tokens: torch.Tensor  # (1,) fp32, scored tokens of the global batch; 0 where the step was left out
    finite: torch.Tensor  # () bool, whether loss and gradient were numbers, or fp16 is still looking for its scale


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
        taught = (place_teachers(run.teachers, run.devices, run.dtype), options.teacher_weight)
        self.loss_module = LossModule(run.model, run.dtype, HEAD_CHUNK[self.device.type], *taught)
        self.micro_batches = self.choose_micro_batches()  # as many as the memory wants
        settings = {"mode": options.compile, "world": run.world, "dynamic": None if options.rows else False}
        settings["wanted"] = compilation.should_compile(options.compile, run.devices, run.total_steps or math.inf)
        compilation.compile_if_possible(self.loss_module, self.try_passes, **settings)

        # spread over devices and processes
        if run.world.size > 1 and not options.shard:
            self.agree_on_parts()
        self.module = wrap_model(self.loss_module, run.devices, run.world, shard=options.shard)
        self.fills_up = self.device.type == "cuda"  # short batches, so that shapes never change
        self.score_rows = 0  # at a time, where an evaluation has not fitted into the memory; 0: as in a step

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
            accumulates=parts > 1,
            trained=run.num_trained,
            window=run.window,
            teachers=[(count_parameters(teacher), teacher.config.n_embd) for teacher in run.teachers],
        )

    def available_bytes(self) -> int:
        """Return the free memory of the device that has least of it: every one computes as many rows."""
        return min(map(available_bytes, self.run.devices))

    def choose_micro_batches(self) -> int:
        """Return how many parts a batch is computed in: as asked for, or more where memory would not suffice."""
        replicas = self.run.world.size * len(self.run.devices)
        rows = rows_at_a_time(self.options.batch_size, 1, replicas=replicas)
        least = self.options.gradient_accumulation
        parts = choose_parts(self.predict_bytes, rows, self.available_bytes(), least=least)
        parts = largest_of_processes(parts, self.run.world)  # all meet in every part
        if parts > least and self.run.world.is_main:
            say(f"--batch_size {self.options.batch_size}: computed in {parts} parts to fit the memory, same update")
        return parts

    def rows_of_a_part(self) -> int:
        """Return the most rows that this process computes at a time."""
        return rows_at_a_time(self.options.batch_size, self.micro_batches, replicas=self.run.world.size)

    def try_passes(self) -> None:
        """Compute what a step and an evaluation compute, of rows that count nothing; no trace of it stays."""
        run = self.run
        input_ids = torch.zeros(self.rows_of_a_part(), run.window, dtype=torch.int64, device=self.device)  # (B, T)
        labels = torch.full_like(input_ids, NOT_SCORED)
        was_training, devices = run.model.training, [run.devices[0].index] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices):
            try:
                run.model.train()
                self.loss_module(input_ids, labels).sum().backward()
                if run.data.num_valid > 1:
                    self.loss_module(input_ids, labels, score=True)
            finally:
                run.model.zero_grad(set_to_none=True)
                run.model.train(was_training)

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
        scored = int((batch.labels[:, 1:] != NOT_SCORED).sum())
        if not scored:  # nothing to learn: not even weight decay or momentum may move the weights
            none = torch.zeros(1, device=self.device)
            return StepResult(none, none, torch.tensor(True, device=self.device))
        try:
            loss = self.accumulate_fitting(batch, step, scored, check_stop)
            with self.naming_moments():
                finite = self.update(loss)
        finally:
            self.drop_gradients()

        # the losses stay on the device: reading them is what makes the host wait
        zero = torch.zeros_like(loss)
        return StepResult(torch.where(finite, loss, zero), torch.where(finite, zero + scored, zero), finite)

    def accumulate_fitting(self, batch: Batch, step: int, scored: int, check_stop) -> torch.Tensor:
        """Accumulate, in twice as many micro-batches each time the memory does not suffice, in whichever step."""
        while True:
            try:
                return self.accumulate(batch, step, scored, check_stop)
            except (RuntimeError, MemoryError) as problem:
                if not is_out_of_memory(problem):
                    raise
                self.split_further(len(batch.starts), problem)

    @contextlib.contextmanager
    def naming_moments(self) -> Iterator[None]:
        """Report that not even weights, gradients and moments fit, which no split of a batch changes."""
        try:
            yield
        except (RuntimeError, MemoryError) as problem:
            if not is_out_of_memory(problem):
                raise
            hint = "a smaller --model_config, or --pretrained_model with --lora_rank 16"
            words = f"weights, gradients and moments of {self.run.num_trained:,} parameters"
            raise UserError(f"{words} do not fit into the memory of {self.device}", hint, EXIT_ENVIRONMENT) from problem

    def score(self, input_ids: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Score rows as the loss module does, at most as many at a time as in a step, fewer where memory runs out."""
        while True:
            rows = self.score_rows or rows_at_a_time(self.options.batch_size, self.micro_batches, replicas=1)
            try:
                parts = zip(input_ids.split(rows), labels.split(rows), strict=True)
                scores = [self.loss_module(*part, score=True) for part in parts]
                return tuple(torch.cat(part) for part in zip(*scores, strict=True))
            except (RuntimeError, MemoryError) as problem:
                # processes that share the weights out meet in every pass, so each must take the same
                if not is_out_of_memory(problem) or self.options.shard:
                    raise
                if rows == 1:
                    raise self.nothing_fits(self.options.batch_size) from problem
            self.score_rows = -(-min(rows, len(input_ids)) // 2)
            if self.device.type == "cuda":
                torch.cuda.empty_cache()

    def agree_on_parts(self) -> None:
        """Try a pass, and split a batch further in all processes while the memory of any does not suffice for it.

        Only before the first step: later the others may already wait for the gradients of one that cannot go on.
        """
        most = rows_at_a_time(self.options.batch_size, 1, replicas=self.run.world.size)
        least = self.micro_batches
        while any_process(not self.has_room(), self.run.world):
            if self.micro_batches >= most:
                raise self.nothing_fits(self.options.batch_size)
            self.micro_batches = min(most, 2 * self.micro_batches)
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
        if self.micro_batches > least and self.run.world.is_main:
            warn(self.describe_split(self.options.batch_size))

    def has_room(self) -> bool:
        """Tell whether a pass fits into the memory of this process, beside the optimizers' moments that are to come."""
        try:
            moments = torch.empty(2 * self.run.num_trained, device=self.device)
            self.try_passes()
            del moments
        except (RuntimeError, MemoryError) as problem:
            if not is_out_of_memory(problem):
                raise
            return False
        return True

    def nothing_fits(self, rows: int) -> DoesNotFit:
        """Return the error that not even single rows fit, or, of several processes, not as many as were agreed on."""
        hint = "--gradient_checkpointing"
        message = f"--batch_size {rows}: does not fit into the memory of {self.device}, even split"
        if self.run.world.size > 1 and self.rows_of_a_part() > 1:
            hint = f"--gradient_accumulation {2 * self.micro_batches}"
            message = f"--batch_size {rows}: {self.rows_of_a_part()} rows do not fit into the memory of {self.device}"
        return DoesNotFit(message, f"{hint}, or a smaller --model_config", EXIT_ENVIRONMENT)

    def split_further(self, rows: int, problem: Exception) -> None:
        """Double the micro-batches after the memory ran out, or report that nothing more can be split."""
        self.drop_gradients()

        # several processes would have to agree on a split, so there it is the user's to ask for
        if self.micro_batches >= rows or self.run.world.size > 1:
            raise self.nothing_fits(rows) from problem
        self.micro_batches = min(rows, 2 * self.micro_batches)
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        warn(self.describe_split(rows))

    def describe_split(self, rows: int) -> str:
        """Say into how many parts a batch is split now."""
        return f"--batch_size {rows}: too large for the memory; computed in {self.micro_batches} parts, same update"

    def accumulate(self, batch: Batch, step: int, scored: int, check_stop) -> torch.Tensor:
        """Add up the gradients of this process's rows; return their loss sum (1,)."""
        parts = micro_batches(len(batch.starts), self.run.world, self.micro_batches)
        least = self.rows_of_a_part() if self.fills_up else 1
        loss = torch.zeros(1, device=self.device)
        for number, rows in enumerate(parts):
            check_stop()
            input_ids, labels = rows_to_device(batch, rows, self.device, self.corpus, least=least)  # (rows, T) each
            self.seed_step(step, rows)
            with without_sync(self.module, last=number == len(parts) - 1):
                part = self.module(input_ids, labels).sum()  # nats
                # processes average their gradients, so the mean over all scored tokens needs their number
                self.scaler.scale(part * (self.run.world.size / max(scored, 1))).backward()
            loss += part.detach()
        return loss

    def seed_step(self, step: int, rows: range) -> None:
        """Make every random number of a micro-batch a function of its place, see above."""
        if self.noise:
            self.noise.set_position(step, rows.start)
            return
        # one number to all, then the further GPUs their own: replicas must not drop the same places
        first, *others = self.run.devices
        torch.manual_seed(mix_seed(self.options.seed, step, rows.start, 0))
        for number, device in enumerate(others, 1):
            torch.cuda.set_device(device)
            torch.cuda.manual_seed(mix_seed(self.options.seed, step, rows.start, number))
        if others:
            torch.cuda.set_device(first)

    def reshard(self) -> None:
        """Share the weights out again after a pass without a backward pass, which leaves some of them whole."""
        if hasattr(self.module, "reshard"):
            self.module.reshard()

    def update(self, loss: torch.Tensor) -> torch.Tensor:
        """Clip the gradients and step the optimizers if all is finite; return () bool, whether the step was a good one.

        While the scaler of fp16 looks for its scale, gradients overflow: that leaves the weights as they are, and is as
        good as a step unless the loss itself is not finite or the scale has sunk below one.
        """
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
        if self.scaler.is_enabled() and not finite and self.scaler.get_scale() >= 1:
            return all_processes(torch.isfinite(loss).all(), self.run.world)
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


def mix_seed(*numbers: int) -> int:
    """Return a seed of 64 bits that differs wherever one of the numbers does."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0])
