"""The loop: windows -> loss -> gradients -> step, with log lines, evaluations and checkpoints between the steps.

Whatever happens between two steps can be stopped and gone on with: the position in the run is the whole state.
"""

import functools
import math
import time
from collections.abc import Callable

import torch

from novelgpt.evaluation import Evaluation, score_batches
from novelgpt.messages import progress_bar, say, warn
from novelgpt.network import model_weights
from novelgpt.training.checkpoint import Progress, load_checkpoint, optimizer_tensors, training_weights
from novelgpt.training.engine import Engine
from novelgpt.training.metrics import Meter, RunLog, say_step
from novelgpt.training.optim import lr_share
from novelgpt.training.outputs import try_model
from novelgpt.training.parallel import World, sum_over_processes
from novelgpt.training.regularize import replace_inputs
from novelgpt.training.saving import BAD_IN_A_ROW, Saver, divergence
from novelgpt.training.selection import choose_best, epoch_place, is_evaluation_due, is_over, stops_early, write_final
from novelgpt.training.setup import Run
from novelgpt.training.stopping import Interrupted, StopSignals, watch_blocks
from novelgpt.training.windows import Batch

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
            while not is_over(self.options, self.progress):
                self.train_epoch()
            weights = model_weights(self.run.model)
            if self.run.world.is_main:
                write_final(self.run, self.progress, weights)
        except (Stopped, Interrupted):
            if not self.saver.is_saved(self.progress):
                self.save(is_last=True)
            raise Stopped from None
        finally:
            self.bar.close()
            self.log.close()
        return self.progress

    def train_epoch(self) -> None:
        """Take the steps of the current epoch that are not done yet, and end it unless the run ends before."""
        self.run.model.train()
        self.meter.start()
        batches = self.run.data.epoch_batches(self.progress.epoch, skip=self.progress.batch)
        self.evaluate_within()  # what a stop came before
        while not stops_early(self.options, self.progress):
            waited = time.monotonic()
            batch = next(batches, None)
            self.meter.loading += time.monotonic() - waited
            if batch is None:
                self.end_epoch()
                return
            self.take_step(batch)
            self.after_step(batch)
        if not self.saver.is_saved(self.progress):
            self.save()

    def take_step(self, batch: Batch) -> None:
        """Let the engine take one step, and note its loss without waiting for it."""
        step = self.progress.step + 1
        share = lr_share(step, self.run.total_steps, self.options)
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
        warn(f"step {step}: loss or gradient is not finite; left out ({self.run.data.places(batch)})")
        self.write_log({"step": step, "loss": math.nan})
        if self.progress.bad_in_a_row >= BAD_IN_A_ROW:
            raise divergence(self.options, step)

    def after_step(self, batch: Batch) -> None:
        """Log, evaluate and save where it is due."""
        progress = self.progress
        self.meter.tokens += batch.input_ids.size
        self.bar.update()
        if progress.step == 1 or progress.step % self.options.log_step == 0 or progress.step == self.run.total_steps:
            self.log_step()
        self.evaluate_within()
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
            tokens = (self.run.total_steps - self.progress.step) * self.run.data.step_tokens
            left = tokens / max(values["tokens_per_second"], 1e-9)
            say_step(record, self.run.total_steps, seconds_left=left, loading_share=self.meter.loading_share())

    def end_epoch(self) -> None:
        """Evaluate, sample, write the epoch's model folder, and save the state of the next epoch's beginning."""
        progress = self.progress
        evaluation = self.evaluate(epoch=progress.epoch)
        weights = model_weights(self.run.model)
        if self.run.world.is_main:
            try_model(self.run, progress, f"model_epoch{progress.epoch}", weights)
        choose_best(self.run, progress, evaluation, weights)
        if self.run.world.is_main:
            self.write_sample()
        progress.epoch += 1
        progress.batch = 0
        self.save()

    def evaluate_within(self) -> None:
        """Evaluate between two epochs if it is due, and keep the best; its time is not the training's."""
        epoch_steps = self.run.epoch_steps[self.progress.epoch - 1]
        if is_evaluation_due(self.progress, every=self.options.eval_steps, epoch_steps=epoch_steps):
            self.read_finite()  # waits for the steps under way
            began = time.monotonic()
            evaluation = self.evaluate(epoch=epoch_place(self.progress, epoch_steps))
            choose_best(self.run, self.progress, evaluation, model_weights(self.run.model))
            self.meter.leave_out(time.monotonic() - began)

    def evaluate(self, *, epoch: float) -> Evaluation | None:
        """Score the held-out tail and log it; None when nothing is held out."""
        data = self.run.data
        if data.num_valid < 2:
            return None
        world = World() if self.options.shard else self.run.world  # shared weights meet in every pass of every process
        scorer = functools.partial(self.engine.loss_module, score=True)
        part = {"before_batch": self.raise_if_stopped, "rank": world.rank, "world": world.size}
        self.run.model.eval()
        try:
            scores = score_batches(scorer, data.valid_batches(), self.engine.device, **part)
        finally:
            self.engine.reshard()
            self.run.model.train()
        nll, scored, right = sum_over_processes([*scores.totals()], world)
        result = Evaluation(nll, int(scored), data.num_valid, data.valid_characters, int(right))
        self.note_evaluation(result, epoch)
        return result

    def note_evaluation(self, result: Evaluation, epoch: float) -> None:
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

    def raise_if_stopped(self) -> None:
        """Raise Stopped if any process was asked to stop."""
        if self.stop_now():
            raise Stopped

    def stop_now(self) -> bool:
        """Tell whether any process was asked to stop."""
        asked = float(self.stop.must_stop())
        return sum_over_processes([asked], self.run.world)[0] > 0
