"""The loop: windows -> loss -> gradients -> step, with log lines, evaluations and checkpoints between the steps.

Whatever happens between two steps can be stopped and gone on with: the position in the run is the whole state.
"""

import math
import time
from collections.abc import Callable

import torch

from novelgpt.console import progress_bar, say, warn
from novelgpt.errors import EXIT_DIVERGED, UserError
from novelgpt.model import model_weights
from novelgpt.training.checkpoint import (
    Progress,
    list_checkpoints,
    load_checkpoint,
    optimizer_tensors,
    training_weights,
)
from novelgpt.training.engine import Engine
from novelgpt.training.evaluation import Evaluation, evaluate_stream
from novelgpt.training.metrics import Meter, RunLog, say_step
from novelgpt.training.optim import lr_at, warmup_count
from novelgpt.training.outputs import BEST, FINAL, is_written, try_model, write_model
from novelgpt.training.parallel import World, sum_over_processes
from novelgpt.training.regularize import replace_inputs
from novelgpt.training.saving import Saver
from novelgpt.training.setup import Run
from novelgpt.training.stopping import Interrupted, StopSignals, watch_blocks
from novelgpt.training.windows import Batch, epoch_batches

BAD_IN_A_ROW = 3  # steps without a finite loss that end a run
UNREAD_STEPS = 32  # steps that a GPU may run ahead of the host's look at their losses
Sampler = Callable[[torch.nn.Module], str]
Watch = Callable[[dict], None]


class Stopped(Exception):
    """The run was asked to stop, by a signal or its deadline."""


class Trainer:
    """Holds a run's engine and position, and records what happens."""

    def __init__(self, run: Run, stop: StopSignals, *, sample: Sampler | None = None, watch: Watch | None = None):
        """Make the engine.

        Args:
            run: from prepare_run.
            stop: asked between micro-batches.
            sample: writes a short text with the network as it stands; None for no samples.
            watch: called with every record of the log.
        """
        self.run = run
        self.options = run.options
        self.stop = stop
        self.sample, self.watch = sample, watch
        self.engine = Engine(run)
        if self.engine.device.type == "cpu" and run.world.size == 1:  # where a pass may take a minute
            watch_blocks(run.model, stop)
        self.saver = Saver(run, stop)
        self.warmup = warmup_count(self.options.warmup_steps, run.total_steps)
        self.progress = Progress()
        self.meter = Meter()
        self.loss, self.tokens = (torch.zeros(1, device=self.engine.device) for _ in range(2))  # since the last log
        self.unread: list[tuple[int, Batch, torch.Tensor]] = []  # steps whose finiteness the host has not looked at

    def fit(self, checkpoint) -> Progress:
        """Train to the end of the last epoch, from a checkpoint's folder if one is given.

        Returns:
            Where the run ended.

        Raises:
            Stopped: a signal or the deadline; the state is saved.
            UserError: the loss is no longer a number, or the disk refuses.
        """
        if checkpoint is not None:
            self.progress = load_checkpoint(checkpoint, self.run.model, self.engine.optimizers)
            self.engine.scaler.load_state_dict(self.progress.scaler or self.engine.scaler.state_dict())
            self.loss += self.progress.loss_sum if self.run.world.is_main else 0.0  # summed over processes
            self.tokens += self.progress.loss_tokens
            self.engine.micro_batches = self.progress.micro_batches or self.engine.micro_batches
        folder = self.options.output_path
        writer_dir = self.options.writer_dir if self.run.world.is_main else None
        self.log = RunLog(folder, writer_dir=writer_dir, length=self.progress.log_bytes, enabled=self.run.world.is_main)
        total = self.run.total_steps
        self.bar = progress_bar(total, unit="step", initial=self.progress.step, enabled=self.run.world.is_main)
        try:
            if self.progress.step == 0 and not self.progress.history:
                self.evaluate(epoch=0)
            while self.progress.epoch <= self.options.epochs:
                self.train_epoch()
                self.end_epoch()
            self.finish()
        except (Stopped, Interrupted):
            if not self.saver.is_saved(self.progress):
                self.save(is_last=True)
            raise Stopped from None
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
        """Let the engine take one step, and note its loss without waiting for it."""
        step = self.progress.step + 1
        share = lr_at(step, self.run.total_steps, peak=1.0, warmup=self.warmup, schedule=self.options.lr_scheduler)
        if self.options.replace_inputs:
            batch = replace_inputs(batch, self.options.replace_inputs, seed=self.options.seed, step=step)
        result = self.engine.step(batch, step=step, lr_share=share, interrupted=self.stop_now)
        self.loss += result.loss
        self.tokens += result.tokens
        self.progress.step = step
        self.progress.batch += 1
        self.unread.append((step, batch, result.finite))
        if result.finite.device.type == "cpu" or len(self.unread) >= UNREAD_STEPS:
            self.read_finite()

    def read_finite(self) -> None:
        """Look at the steps since the last look: count those left out, name their windows, end after three in a row."""
        unread, self.unread = self.unread, []
        for step, batch, finite in unread:
            self.progress.bad_in_a_row = 0 if finite else self.progress.bad_in_a_row + 1
            if not finite:
                self.note_bad_step(step, batch)

    def note_bad_step(self, step: int, batch: Batch) -> None:
        """Record a step that was left out."""
        self.progress.skipped += 1
        starts = ", ".join(map(str, batch.starts[:8]))
        warn(f"step {step}: loss or gradient is not finite; left out (windows at tokens {starts})")
        self.write_log({"step": step, "loss": math.nan})
        if self.progress.bad_in_a_row >= BAD_IN_A_ROW:
            saved = list_checkpoints(self.options.output_path)
            good = saved[-1] if saved else "none was saved yet"
            message = f"step {step}: loss not finite {BAD_IN_A_ROW} steps in a row; last good checkpoint: {good}"
            raise UserError(message, f"--lr {self.options.lr / 3:.2g} --allow_change lr", EXIT_DIVERGED)

    def after_step(self, batch: Batch) -> None:
        """Log, save and stop where it is due."""
        progress = self.progress
        self.meter.tokens += batch.input_ids.size
        self.bar.update()
        if progress.step == 1 or progress.step % self.options.log_step == 0 or progress.step == self.run.total_steps:
            self.log_step()
        if progress.step < self.run.total_steps and self.saver.is_due(progress):
            self.save()

    def log_step(self) -> None:
        """Write the mean loss since the last log line."""
        self.read_finite()
        loss = sum_over_processes([float(self.loss)], self.run.world)[0]
        tokens = float(self.tokens)
        self.loss.zero_()
        self.tokens.zero_()
        if tokens:
            lr = self.engine.optimizers[0].param_groups[0]["lr"]
            self.write_log({"loss": loss / tokens, "lr": lr, "tokens_per_second": round(self.meter.rate(), 1)})
        self.meter.start()

    def write_log(self, values: dict) -> None:
        """Append a record of the current step to the log, and say it if it is an ordinary one."""
        record = {"step": self.progress.step, "epoch": self.progress.epoch, **values}
        if not self.run.world.is_main:
            return
        self.log.write(record)
        if self.watch:
            self.watch(record)
        if "lr" in values:
            left = self.seconds_left(values["tokens_per_second"])
            say_step(record, self.run.total_steps, seconds_left=left, loading_share=self.meter.loading_share())

    def seconds_left(self, rate: float) -> float:
        """Estimate the time to the last step from tokens per second."""
        tokens = (self.run.total_steps - self.progress.step) * self.options.batch_size * self.run.window
        return tokens / max(rate, 1e-9)

    def end_epoch(self) -> None:
        """Evaluate, sample, write the epoch's model folder, and save the state of the next epoch's beginning."""
        progress = self.progress
        evaluation = self.evaluate(epoch=progress.epoch)
        weights = model_weights(self.run.model)
        if self.run.world.is_main:
            try_model(self.run, progress, f"model_epoch{progress.epoch}", weights)
            best = progress.best_loss
            is_best = evaluation and math.isfinite(evaluation.loss) and (best is None or evaluation.loss < best)
            if is_best and try_model(self.run, progress, BEST, weights):
                progress.best_loss, progress.best_epoch = evaluation.loss, progress.epoch
            self.write_sample()
        progress.epoch += 1
        progress.batch = 0
        self.save()

    def finish(self) -> None:
        """Write final_model; a run that was killed in between does it at its next start."""
        weights = model_weights(self.run.model)
        if self.run.world.is_main and not is_written(self.options.output_path / FINAL, self.progress.step):
            write_model(self.run, self.progress, FINAL, weights)

    def evaluate(self, *, epoch: int) -> Evaluation | None:
        """Score the held-out tail and log it; None when nothing is held out."""
        valid = self.run.pieces.valid
        if len(valid) < 2:
            return None
        world = World() if self.options.shard else self.run.world  # shared weights meet in every pass of every process
        self.run.model.eval()
        result = evaluate_stream(
            self.engine.loss_module,
            valid,
            window=self.run.window,
            stride=self.options.stride,
            batch_size=self.options.batch_size,
            characters=self.run.pieces.manifest["valid"]["characters"],
            device=self.engine.device,
            interrupted=self.stop_now,
            rank=world.rank,
            world=world.size,
        )
        self.engine.reshard()
        self.run.model.train()
        if result is None:
            raise Stopped
        nll, scored, right = sum_over_processes([result.nll, result.scored, result.right], world)
        result = Evaluation(nll, int(scored), result.tokens, result.characters, int(right))
        self.note_evaluation(result, epoch)
        return result

    def note_evaluation(self, result: Evaluation, epoch: int) -> None:
        """Log an evaluation and say it."""
        values = {"valid_loss": result.loss, "valid_perplexity": result.perplexity}
        values |= {"valid_accuracy": result.accuracy, "bits_per_character": result.bits_per_character}
        loss = result.loss if math.isfinite(result.loss) else None  # JSON knows no nan
        self.progress.history.append({"epoch": epoch, "step": self.progress.step, "valid_loss": loss})
        self.write_log(values)
        if self.run.world.is_main:
            words = f"held-out loss {result.loss:.4f} perplexity {result.perplexity:.2f} accuracy {result.accuracy:.2%}"
            say(f"epoch {epoch}/{self.options.epochs} {words} bits per character {result.bits_per_character:.4f}")

    def write_sample(self) -> None:
        """Print a short text by the network as it stands, and keep it with the epoch's figures."""
        if self.sample:
            self.run.model.eval()
            text = self.sample(self.run.model)
            self.run.model.train()
            say(f"sample: {text}")
            if self.progress.history:
                self.progress.history[-1]["sample"] = text

    def save(self, *, is_last: bool = False) -> None:
        """Write a checkpoint; a disk that refuses is a warning, unless the run ends with it."""
        self.saver.start()
        progress = self.progress
        self.read_finite()
        (progress.loss_sum,) = sum_over_processes([float(self.loss)], self.run.world)
        progress.loss_tokens = int(self.tokens)
        weights = training_weights(self.run.model)
        moments = optimizer_tensors(self.engine.optimizers, self.run.model)
        if not self.run.world.is_main:
            return
        progress.log_bytes = self.log.length()
        progress.micro_batches = self.engine.micro_batches
        progress.scaler = self.engine.scaler.state_dict()
        self.saver.save(progress, weights, moments, is_last=is_last)

    def stop_now(self) -> bool:
        """Tell whether any process was asked to stop."""
        asked = float(self.stop.must_stop())
        return sum_over_processes([asked], self.run.world)[0] > 0
