"""Signals and deadlines: a run is asked to stop or to save, and does so between two steps.

Wherever a stop is noticed, within a step, between two blocks of a pass or in an evaluation, Stopped is raised; the
trainer alone catches it, and saves.

Ctrl-C, SIGTERM and SIGHUP ask once; the second time the process leaves at once, with the last checkpoint intact on the
disk. SIGUSR1 asks for a checkpoint and lets the run continue.

A run that stops reports what improved, its best sample, what is left and how it is resumed::

    stopped at step 120 of 600, epoch 2 of 10: --max_hours 8 is over
    held-out loss 5.8068 at the start, 4.0158 now; best 4.0158 after epoch 1
    sample of epoch 1: 萧炎大喝一声……
    left: 480 steps, about 3 h 20 min
    continue with: python train.py --raw
"""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from datetime import datetime, timedelta

import torch

from novelgpt.messages import UserError, is_main_process, say
from novelgpt.training.checkpoint import Progress
from novelgpt.training.log import format_duration
from novelgpt.training.memory import DoesNotFit

# Windows has neither SIGHUP nor SIGUSR1; SIGBREAK, Ctrl-Break, is there alone
STOPPING = ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK")
HANGUP = getattr(signal, "SIGHUP", None)
SAVING = "SIGUSR1"


class Stopped(Exception):
    """A signal or the deadline asked the run to stop; the weights are those of the last whole step."""


class StopSignals:
    """Context manager that turns signals and a deadline into questions that the training loop asks.

    Outside the main thread it takes no signals, only the deadline.

    Attributes:
        stopped_by: number of the signal that asked to stop; None while nobody has.
        save_asked: a checkpoint was asked for and not yet written.
    """

    def __init__(self, *, deadline: float | None = None, limit: str = "", exit_at_second: bool = True):
        """Set what stops a run.

        Args:
            deadline: time (time.monotonic) at which it stops by itself; None for never.
            limit: what is said then, for example "--until 07:00 is past".
            exit_at_second: a second signal ends the process at once; False raises KeyboardInterrupt.
        """
        self.deadline, self.limit, self.exit_at_second = deadline, limit, exit_at_second
        self.stopped_by: int | None = None
        self.save_asked = False
        self.former: dict[int, object] = {}

    def __enter__(self) -> "StopSignals":
        if threading.current_thread() is not threading.main_thread():  # only it may set handlers
            return self

        # the former handlers come back at the end, as a notebook expects
        for number in (getattr(signal, name) for name in STOPPING if hasattr(signal, name)):
            if number != HANGUP or signal.getsignal(number) is not signal.SIG_IGN:  # nohup means that it goes on
                self.former[number] = signal.signal(number, self.on_stop)
        if hasattr(signal, SAVING):
            self.former[signal.SIGUSR1] = signal.signal(signal.SIGUSR1, self.on_save)
        return self

    def __exit__(self, *_exception) -> None:
        # train.py ends with its run: a request to save that comes after the last save must not kill it
        late = getattr(signal, SAVING, None) if self.exit_at_second else None
        for number, handler in self.former.items():
            signal.signal(number, signal.SIG_IGN if number == late else handler)

    def on_stop(self, number: int, _frame) -> None:
        """Note the request; leave at once when it comes again."""
        if self.stopped_by is not None:
            if self.exit_at_second:
                os._exit(128 + number)
            raise KeyboardInterrupt

        # only noted here: the loop asks when it can stop
        self.stopped_by = number
        if is_main_process():
            say(f"{signal.Signals(number).name}: saving, then stopping (again: stop at once)")

    def on_save(self, _number: int, _frame) -> None:
        """Note that a checkpoint is wanted."""
        self.save_asked = True

    def time_is_up(self) -> bool:
        """Tell whether the deadline has passed."""
        return self.deadline is not None and time.monotonic() >= self.deadline

    def must_stop(self) -> bool:
        """Tell whether the run should stop now."""
        return self.stopped_by is not None or self.time_is_up()

    def reason(self) -> str:
        """Say what stopped the run: a signal, or its deadline; "" where it was another process's signal."""
        if self.stopped_by is not None:
            return signal.Signals(self.stopped_by).name
        return self.limit if self.time_is_up() else ""


@contextlib.contextmanager
def saving_at_a_stop(trainer) -> Iterator[None]:
    """Let a trainer save before a stop leaves its loop, or memory that another program has taken since the first step.

    It tells the log why.
    """
    try:
        yield
    except DoesNotFit as problem:
        if trainer.progress.step and trainer.run.world.size == 1:  # the others would wait in vain for this process
            trainer.save_if_new()
        trainer.story.stop(problem.message)
        raise
    except Stopped:
        trainer.save_if_new(is_last=True)
        trainer.story.stop(trainer.stop.reason())
        raise
    except UserError as problem:
        trainer.story.stop(problem.message)
        raise


def watch_blocks(model: torch.nn.Module, stop: StopSignals) -> None:
    """Let a pass through a GPT-2, forward or backward, be given up between two blocks once a signal has come.

    For a single process only: among several, all would have to give up at the same block.
    """

    def check(*_tensors) -> None:
        if stop.stopped_by is not None:  # the deadline can wait for the end of the micro-batch
            raise Stopped

    def before_block(_block, arguments: tuple) -> None:
        check()
        if arguments[0].requires_grad:
            arguments[0].register_hook(check)

    # a hook before each block on the way forward, and one on its input's gradient on the way back
    for block in model.transformer.h:
        block.register_forward_pre_hook(before_block)


def seconds_until(clock: str, *, now: datetime) -> float:
    """Return the seconds from now to the next time the clock shows HH:MM.

    >>> seconds_until("07:00", now=datetime(2026, 1, 2, 23, 30)) / 3600
    7.5
    """
    hour, minute = clock.split(":")
    then = now.replace(hour=int(hour), minute=int(minute), second=0, microsecond=0)
    if then <= now:  # that time has passed today
        then += timedelta(days=1)
    return (then - now).total_seconds()


def describe_stop(
    progress: Progress,
    total_steps: int | None,
    epochs: int | None,
    *,
    hours: float | None = None,
    seconds_per_step: float | None,
    command: str,
    reason: str = "",
) -> list[str]:
    """Return the lines of the summary; seconds_per_step counts evaluations and saves, None when no step was taken.

    A run has so many steps in so many epochs, or so many hours.

    >>> describe_stop(Progress(step=2), 6, 3, seconds_per_step=9.0, command="python train.py", reason="SIGTERM")
    ['stopped at step 2 of 6, epoch 1 of 3: SIGTERM', 'left: 4 steps, about 36 s', 'continue with: python train.py']
    """
    if hours is None:
        place = f"step {progress.step:,} of {total_steps:,}, epoch {min(progress.epoch, epochs)} of {epochs}"
    else:
        used = progress.clock.get("used", 0.0)
        place = f"step {progress.step:,}, epoch {progress.epoch}, {format_duration(used)} of {hours:g} h"
    lines = [f"stopped at {place}{f': {reason}' if reason else ''}"]

    # what has improved
    scored = [entry for entry in progress.history if entry["valid_loss"] is not None]
    if len(scored) == 1 and hours is None:
        lines.append(f"held-out loss {scored[0]['valid_loss']:.4f} at the start")
    elif len(scored) == 1:
        lines.append(f"held-out loss {scored[0]['valid_loss']:.4f} after epoch {scored[0]['epoch']}")
    elif scored:
        losses = f"held-out loss {scored[0]['valid_loss']:.4f} at the start, {scored[-1]['valid_loss']:.4f} now"
        if hours is not None:  # which are not spent on an untrained network
            first, now = scored[0]["valid_loss"], scored[-1]["valid_loss"]
            losses = f"held-out loss {first:.4f} after epoch {scored[0]['epoch']}, {now:.4f} now"
        best = min(scored, key=lambda entry: entry["valid_loss"])
        lines.append(f"{losses}; best {best['valid_loss']:.4f} after epoch {best['epoch']}")
    sampled = [entry for entry in scored if "sample" in entry]
    if sampled:
        best = min(sampled, key=lambda entry: (entry["valid_loss"], entry["epoch"]))
        lines.append(f"sample of epoch {best['epoch']}: {best['sample']}")
    if progress.skipped:
        lines.append(f"{progress.skipped} steps were skipped: their loss or gradient was not finite")

    # what is left
    if hours is not None:
        return [*lines, f"left: {format_duration(max(0.0, 3600 * hours - used))}", f"continue with: {command}"]
    left = total_steps - progress.step
    duration = f", about {format_duration(left * seconds_per_step)}" if seconds_per_step else ""
    return [*lines, f"left: {left:,} steps{duration}", f"continue with: {command}"]
