"""The loop: windows -> loss -> gradients -> step, with log lines, evaluations and checkpoints between the steps.

Whatever happens between two steps can be stopped and gone on with: the position in the run is the whole state.
"""

import math
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from novelgpt.console import progress_bar, say, warn
from novelgpt.errors import EXIT_DIVERGED, UserError
from novelgpt.model import save_model
from novelgpt.training.checkpoint import (
    Progress,
    list_checkpoints,
    load_checkpoint,
    optimizer_tensors,
    save_checkpoint,
    training_weights,
)
from novelgpt.training.cpu import keep_large_blocks, tune_for_cpu
from novelgpt.training.evaluation import Evaluation, evaluate_stream
from novelgpt.training.metrics import Meter, RunLog, say_step
from novelgpt.training.optim import build_optimizers, lr_at, set_lr, warmup_count
from novelgpt.training.parallel import (
    LossModule,
    own_rows,
    split_rows,
    sum_over_processes,
    without_sync,
    wrap_model,
)
from novelgpt.training.setup import Run
from novelgpt.training.stopping import StopSignals
from novelgpt.training.windows import IGNORED, Batch, epoch_batches

BAD_IN_A_ROW = 3  # steps without a finite loss that end a run
HEAD_CHUNK = {"cpu": 1024, "cuda": 8192, "mps": 1024}  # positions whose logits exist at a time
COMPILE_FROM = 500  # steps from which compiling repays itself on a GPU


class Stopped(Exception):
    """The run was asked to stop, by a signal or its deadline."""


@dataclass
class Running:
    """Sums since the last log line, kept on the device so that no step waits for the host."""

    loss: torch.Tensor
    tokens: int = 0


class Trainer:
    """Holds a run's network, optimizers and position."""

    def __init__(self, run: Run, stop: StopSignals, *, sample: Callable[[torch.nn.Module], str] | None = None):
        """Wrap the network for its devices and make its optimizers.

        Args:
            run: from prepare_run.
            stop: asked between micro-batches.
            sample: writes a short text with the network as it stands; None for no samples.
        """
        self.run = run
        self.options = run.options
        self.stop = stop
        self.sample = sample
        self.device = run.devices[0]
        self.noise = None
        if self.device.type == "cpu":
            self.noise = tune_for_cpu(run.model, seed=self.options.seed, dtype=run.dtype)
            keep_large_blocks()
        if self.options.gradient_checkpointing:
            run.model.gradient_checkpointing_enable({"use_reentrant": False})
        module = LossModule(run.model, run.dtype, HEAD_CHUNK[self.device.type])
        if should_compile(run):
            module.compile()
        accumulate = self.options.gradient_accumulation > 1
        self.module = wrap_model(module, run.devices, run.world, accumulate=accumulate)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=run.dtype == torch.float16)
        self.optimizers = build_optimizers(
            run.model,
            self.options.optimizer,
            lr=self.options.lr,
            weight_decay=self.options.weight_decay,
            betas=(self.options.beta1, self.options.beta2),
        )
        self.warmup = warmup_count(self.options.warmup_steps, run.total_steps)
        self.progress = Progress()
        self.saved_at = time.monotonic()
        self.meter = Meter()
        self.running = Running(torch.zeros(1, device=self.device))

    def fit(self, checkpoint) -> Progress:
        """Train to the end of the last epoch, from a checkpoint's folder if one is given.

        Returns:
            Where the run ended.

        Raises:
            Stopped: a signal or the deadline; the state is saved.
            UserError: the loss is no longer a number, or the disk refuses.
        """
        if checkpoint is not None:
            self.progress = load_checkpoint(checkpoint, self.run.model, self.optimizers)
            self.scaler.load_state_dict(self.progress.scaler or self.scaler.state_dict())
            self.running.loss += self.progress.loss_sum
            self.running.tokens = self.progress.loss_tokens
        folder = self.options.output_path
        writer_dir = self.options.writer_dir if self.run.world.is_main else None
        self.log = RunLog(folder, writer_dir=writer_dir, length=self.progress.log_bytes, enabled=self.run.world.is_main)
        total = self.run.total_steps
        self.bar = progress_bar(total, unit="step", initial=self.progress.step, enabled=self.run.world.is_main)
        try:
            if self.progress.step == 0:
                self.evaluate(epoch=0)
            while self.progress.epoch <= self.options.epochs:
                self.train_epoch()
                self.end_epoch()
        except Stopped:
            self.save()
            raise
        finally:
            self.bar.close()
            self.log.close()
        return self.progress

    def train_epoch(self) -> None:
        """Take the steps of the current epoch that are not done yet."""
        self.run.model.train()
        self.meter.start()
        batches = epoch_batches(
            self.run.pieces.train,
            self.run.window,
            self.options.stride,
            self.options.batch_size,
            seed=self.options.seed,
            epoch=self.progress.epoch,
            random_phase=self.options.random_phase,
            skip=self.progress.batch,
        )
        while True:
            waited = time.monotonic()
            batch = next(batches, None)
            self.meter.loading += time.monotonic() - waited
            if batch is None:
                return
            self.take_step(batch)
            self.after_step(batch)

    def take_step(self, batch: Batch) -> None:
        """Compute one global batch's gradients and update the weights once; a step that is not finite is left out."""
        step = self.progress.step + 1
        share = lr_at(step, self.run.total_steps, peak=1.0, warmup=self.warmup, schedule=self.options.lr_scheduler)
        set_lr(self.optimizers, share)

        loss, scored = self.accumulate(batch, step)
        for optimizer in self.optimizers:
            self.scaler.unscale_(optimizer)
        limit = self.options.max_grad_norm or math.inf
        norm = torch.nn.utils.clip_grad_norm_(self.run.model.parameters(), limit)

        finite = bool(torch.isfinite(loss + norm))
        if finite:
            for optimizer in self.optimizers:
                self.scaler.step(optimizer)
            self.running.loss += loss
            self.running.tokens += scored
        self.scaler.update()
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)
        self.progress.step = step
        self.progress.batch += 1
        self.note_finite(finite, batch)

    def accumulate(self, batch: Batch, step: int) -> tuple[torch.Tensor, int]:
        """Add up the gradients of this process's share of a batch; return its loss sum (1,) and the scored tokens."""
        scored = int((batch.labels[:, 1:] != IGNORED).sum())
        parts = split_rows(own_rows(len(batch.starts), self.run.world), self.options.gradient_accumulation)
        loss = torch.zeros(1, device=self.device)
        for number, rows in enumerate(parts or [range(0)]):
            if self.stop_now():
                raise Stopped
            input_ids, labels = self.to_device(batch, rows)
            self.seed_step(step, rows)
            with without_sync(self.module, last=number == len(parts) - 1):
                part = self.module(input_ids, labels).sum()
                self.scaler.scale(part * (self.run.world.size / max(scored, 1))).backward()
            loss += part.detach()
        return loss, scored

    def to_device(self, batch: Batch, rows: range) -> tuple[torch.Tensor, torch.Tensor]:
        """Return ids and labels of some rows on the device; a process without rows gets one that counts nothing."""
        pick = slice(rows.start, rows.stop) if len(rows) else slice(0, 1)
        input_ids, labels = (torch.from_numpy(part[pick]) for part in (batch.input_ids, batch.labels))
        if not len(rows):
            labels = torch.full_like(labels, IGNORED)
        if self.device.type == "cuda":
            input_ids, labels = input_ids.pin_memory(), labels.pin_memory()
        return input_ids.to(self.device, non_blocking=True), labels.to(self.device, non_blocking=True)

    def seed_step(self, step: int, rows: range) -> None:
        """Make every random number of a micro-batch a function of (seed, step, first row)."""
        if self.noise:
            self.noise.set_position(step, rows.start)
        else:
            torch.manual_seed((self.options.seed << 32) + (step << 8) + rows.start % 256)

    def note_finite(self, finite: bool, batch: Batch) -> None:
        """Count a step that was left out, say which windows it had, and end the run after three in a row."""
        progress = self.progress
        progress.bad_in_a_row = 0 if finite else progress.bad_in_a_row + 1
        if finite:
            return
        progress.skipped += 1
        starts = ", ".join(map(str, batch.starts[:8]))
        warn(f"step {progress.step}: loss or gradient is not finite; left out (windows at tokens {starts})")
        self.write_log({"loss": math.nan})
        if progress.bad_in_a_row >= BAD_IN_A_ROW:
            last = list_checkpoints(self.options.output_path)
            good = last[-1] if last else "none was saved yet"
            message = (
                f"step {progress.step}: loss not finite {BAD_IN_A_ROW} steps in a row; last good checkpoint: {good}"
            )
            raise UserError(message, f"--lr {self.options.lr / 3:.2g} --allow_change lr", EXIT_DIVERGED)

    def after_step(self, batch: Batch) -> None:
        """Log, save and stop where it is due."""
        progress = self.progress
        self.meter.tokens += batch.input_ids.size
        self.bar.update()
        if progress.step == 1 or progress.step % self.options.log_step == 0 or progress.step == self.run.total_steps:
            self.log_step()
        due = self.options.save_steps and progress.step % self.options.save_steps == 0
        if self.options.save_minutes and time.monotonic() - self.saved_at > 60 * self.options.save_minutes:
            due = True
        if (due or self.stop.save_asked) and progress.step < self.run.total_steps:
            self.save()

    def log_step(self) -> None:
        """Write the mean loss since the last log line."""
        loss, tokens = sum_over_processes([float(self.running.loss)], self.run.world)[0], self.running.tokens
        self.running = Running(torch.zeros(1, device=self.device))
        rate = self.meter.rate()
        if tokens:
            self.write_log(
                {
                    "loss": loss / tokens,
                    "lr": self.optimizers[0].param_groups[0]["lr"],
                    "tokens_per_second": round(rate, 1),
                }
            )
        self.meter.start()

    def write_log(self, values: dict) -> None:
        """Append a record of the current step to the log, and say it if it is an ordinary one."""
        record = {"step": self.progress.step, "epoch": self.progress.epoch, **values}
        if not self.run.world.is_main:
            return
        self.log.write(record)
        if "lr" in values:
            say_step(record, self.run.total_steps, self.seconds_left(values["tokens_per_second"]))

    def seconds_left(self, rate: float) -> float:
        """Estimate the time to the last step from tokens per second."""
        tokens = (self.run.total_steps - self.progress.step) * self.options.batch_size * self.run.window
        return tokens / max(rate, 1e-9)

    def end_epoch(self) -> None:
        """Evaluate, sample, write the epoch's model folder, and save the state of the next epoch's beginning."""
        progress = self.progress
        evaluation = self.evaluate(epoch=progress.epoch)
        is_best = evaluation is not None and (progress.best_loss is None or evaluation.loss < progress.best_loss)
        if is_best:
            progress.best_loss, progress.best_epoch = evaluation.loss, progress.epoch
        if self.run.world.is_main:
            self.write_models(is_best, evaluation)
            self.write_sample()
        progress.epoch += 1
        progress.batch = 0
        self.save()

    def evaluate(self, *, epoch: int) -> Evaluation | None:
        """Score the held-out tail and log it; None when nothing is held out."""
        valid = self.run.pieces.valid
        if len(valid) < 2:
            return None
        self.run.model.eval()
        result = evaluate_stream(
            self.score,
            valid,
            window=self.run.window,
            stride=self.options.stride,
            batch_size=self.options.batch_size,
            characters=self.run.pieces.manifest["valid"]["characters"],
            device=self.device,
            interrupted=self.stop_now,
            rank=self.run.world.rank,
            world=self.run.world.size,
        )
        self.run.model.train()
        if result is None:
            raise Stopped
        nll, scored = sum_over_processes([result.nll, result.scored], self.run.world)
        result = Evaluation(nll, int(scored), result.tokens, result.characters)
        self.note_evaluation(result, epoch)
        return result

    def score(self, input_ids: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Return the loss sum of a batch by this process alone."""
        module = self.module.module if hasattr(self.module, "module") else self.module
        return module(input_ids, labels)

    def note_evaluation(self, result: Evaluation, epoch: int) -> None:
        """Log an evaluation and say it."""
        values = {"valid_loss": result.loss, "valid_perplexity": result.perplexity}
        values["bits_per_character"] = result.bits_per_character
        self.progress.history.append({"epoch": epoch, "step": self.progress.step, "valid_loss": result.loss})
        self.write_log(values)
        if self.run.world.is_main:
            words = f"held-out loss {result.loss:.4f} perplexity {result.perplexity:.2f}"
            say(f"epoch {epoch}/{self.options.epochs} {words} bits per character {result.bits_per_character:.4f}")

    def write_models(self, is_best: bool, evaluation: Evaluation | None) -> None:
        """Write model_epoch{n}, best_model when it is the best so far, and final_model after the last epoch."""
        folder, epoch = self.options.output_path, self.progress.epoch
        loss = None if evaluation is None else evaluation.loss
        facts = {"step": self.progress.step, "epoch": epoch, "valid_loss": loss, "corpus": self.corpus_facts()}
        words = "" if loss is None else f"Epoch {epoch}, held-out loss {loss:.4f} nats per token."
        names = [f"model_epoch{epoch}"] + ["best_model"] * is_best + ["final_model"] * (epoch == self.options.epochs)
        for name in names:
            save_model(self.run.model, self.run.tokenizer, folder / name, facts=words, **facts)

    def corpus_facts(self) -> dict:
        """Return what ties a model folder to its corpus."""
        manifest = self.run.pieces.manifest
        return {key: manifest["source"].get(key) for key in ("path", "sha256")} | {"train": manifest["train"]}

    def write_sample(self) -> None:
        """Print a short text by the network as it stands."""
        if self.sample:
            self.run.model.eval()
            say(f"sample: {self.sample(self.run.model)}")
            self.run.model.train()

    def save(self) -> None:
        """Write a checkpoint; a disk that refuses is a warning, and the run goes on with the former one."""
        self.saved_at = time.monotonic()
        self.stop.save_asked = False
        progress = self.progress
        (progress.loss_sum,) = sum_over_processes([float(self.running.loss)], self.run.world)
        progress.loss_tokens = self.running.tokens
        if not self.run.world.is_main:
            return
        progress.log_bytes = self.log.length()
        progress.scaler = self.scaler.state_dict()
        try:
            path = save_checkpoint(
                self.options.output_path,
                progress,
                training_weights(self.run.model),
                optimizer_tensors(self.optimizers, self.run.model),
                keep=self.options.save_total_limit,
            )
            say(f"saved {path}")
        except UserError as problem:
            warn(f"no checkpoint at step {progress.step}: {problem.message}; the former one stays")

    def stop_now(self) -> bool:
        """Tell whether any process was asked to stop."""
        asked = float(self.stop.must_stop())
        return sum_over_processes([asked], self.run.world)[0] > 0


def should_compile(run: Run) -> bool:
    """Tell whether torch.compile is asked for, or repays itself: a GPU and a run long enough."""
    if run.options.compile != "auto":
        return run.options.compile == "on"
    if run.devices[0].type != "cuda" or len(run.devices) > 1 or run.total_steps < COMPILE_FROM:
        return False
    if shutil.which("cc") or shutil.which("gcc"):
        return True
    say("torch.compile: no C compiler here; running without it")
    return False


def verdict(progress: Progress, run: Run) -> str:
    """Say in one line how the run went and which model folder to use."""
    if progress.best_epoch is None:
        return f"nothing was held out, so no verdict; use {run.options.output_path / 'final_model'}"
    last = progress.history[-1]["valid_loss"]
    best = f"epoch {progress.best_epoch} (held-out loss {progress.best_loss:.4f})"
    if progress.best_epoch < run.options.epochs and last > progress.best_loss + 0.02:
        return f"memorising since {best}; use {run.options.output_path / 'best_model'}"
    before = [entry["valid_loss"] for entry in progress.history[-2:-1]]
    if before and before[0] - last > 0.02:
        return f"still improving at {best}: more epochs would help; use {run.options.output_path / 'best_model'}"
    return f"converged, best at {best}; use {run.options.output_path / 'best_model'}"
