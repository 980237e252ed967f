"""When a checkpoint is due, what if the disk refuses one (another try a minute later), when a run is given up."""

import time

import torch

from novelgpt.cli import TrainOptions
from novelgpt.messages import EXIT_DIVERGED, UserError, say, warn
from novelgpt.training.checkpoint import Progress, list_checkpoints, save_checkpoint
from novelgpt.training.parallel import sum_over_processes
from novelgpt.training.setup import Run
from novelgpt.training.stopping import StopSignals

RETRY_SECONDS = 60
BAD_IN_A_ROW = 3  # steps without a finite loss that end a run


def divergence(options: TrainOptions, step: int) -> UserError:
    """Return the error of a run whose loss is no longer a number, with the checkpoint to go on from."""
    saved = list_checkpoints(options.output_path)
    good = saved[-1] if saved else "none was saved yet"
    message = f"step {step}: loss not finite {BAD_IN_A_ROW} steps in a row; last good checkpoint: {good}"
    return UserError(message, f"--lr {options.lr / 3:.2g} --allow_change lr", EXIT_DIVERGED)


class Saver:
    """Knows when the last checkpoint was written, and of which position."""

    def __init__(self, run: Run, stop: StopSignals):
        """Start the clock.

        Args:
            run: gives the options and the processes.
            stop: tells whether a checkpoint was asked for.
        """
        self.run = run
        self.options = run.options
        self.stop = stop
        self.saved_at = time.monotonic()
        self.saved: tuple[int, int, int] | None = None  # step, epoch and batch; main only
        self.is_refused = False  # the last try failed

    def is_due(self, progress: Progress) -> bool:
        """Tell whether a checkpoint is due by steps, or on any process by its clock or a signal."""
        if self.options.save_steps and progress.step % self.options.save_steps == 0:
            return True
        seconds = time.monotonic() - self.saved_at
        asked = self.stop.save_asked or 0 < 60 * self.options.save_minutes < seconds
        asked = asked or (self.is_refused and seconds > RETRY_SECONDS)
        return sum_over_processes([float(asked)], self.run.world)[0] > 0

    def is_saved(self, progress: Progress) -> bool:
        """Tell whether the newest checkpoint is of just this position: the first process knows, every process asks."""
        known = self.run.world.is_main and self.saved == (progress.step, progress.epoch, progress.batch)
        return sum_over_processes([float(known)], self.run.world)[0] > 0

    def start(self) -> None:
        """Note that a checkpoint is being made, on every process."""
        self.saved_at = time.monotonic()
        self.stop.save_asked = False

    def save(
        self,
        progress: Progress,
        weights: dict[str, torch.Tensor],
        moments: dict[str, torch.Tensor],
        *,
        is_last: bool,
    ) -> None:
        """Write a checkpoint.

        Args:
            progress: where the run stands.
            weights, moments: what training_weights and optimizer_tensors return.
            is_last: the run ends with it, so it cannot be tried again.

        Raises:
            UserError: the last one could not be written. Any other that cannot is a warning.
        """
        folder, keep = self.options.output_path, self.options.save_total_limit
        self.is_refused = True
        try:
            path = save_checkpoint(folder, progress, weights, moments, keep=keep)
        except UserError as problem:
            warn(f"no checkpoint at step {progress.step}: {problem.message}; the former one stays")
            if is_last:
                raise
            return
        self.is_refused = False
        self.saved = (progress.step, progress.epoch, progress.batch)
        say(f"saved {path}")
