"""What a run records: log.jsonl for machines, one line for people, TensorBoard curves, tokens per second."""

import json
import math
import os
import time
from pathlib import Path

from novelgpt.messages import EXIT_ENVIRONMENT, UserError, say, warn

LOG = "log.jsonl"


class RunLog:
    """Appends one JSON object a line to log.jsonl, and the same numbers to TensorBoard when asked for.

    A run that goes on from a checkpoint first cuts the log back to what had been written at that checkpoint, so no step
    stands in it twice.
    """

    def __init__(self, folder: Path, *, writer_dir: str | None = None, length: int = 0, enabled: bool = True):
        """Open the log of a run folder.

        Args:
            folder: the run folder.
            writer_dir: folder for TensorBoard event files; None for none.
            length: bytes of an earlier log to keep.
            enabled: False keeps no log, in all processes but the first.
        """
        self.path = folder / LOG if enabled else Path(os.devnull)
        self.file = open(self.path, "ab", buffering=0)  # noqa: SIM115 (open for the whole run)
        if enabled:
            self.file.truncate(min(length, self.path.stat().st_size))
        self.writer = open_writer(writer_dir) if writer_dir else None

    def write(self, record: dict[str, float | int | str]) -> None:
        """Append one record; a number that is not finite is written as null's honest sibling, the string "nan"."""
        clean = {
            key: str(value) if isinstance(value, float) and not math.isfinite(value) else value
            for key, value in record.items()
        }
        try:
            self.file.write((json.dumps(clean, ensure_ascii=False) + "\n").encode())
        except OSError as problem:  # training is worth more than its log
            warn(f"{self.path}: step {record['step']} not logged: {problem.strerror}")
        if self.writer:
            for key, value in record.items():
                if key not in ("step", "epoch") and isinstance(value, (int, float)):
                    self.writer.add_scalar(key, value, record["step"])

    def length(self) -> int:
        """Return the bytes written so far, forced onto the disk."""
        os.fsync(self.file.fileno())
        return self.file.seek(0, os.SEEK_END)

    def close(self) -> None:
        """Close the files."""
        self.file.close()
        if self.writer:
            self.writer.close()


def open_writer(folder: str):
    """Return a TensorBoard writer, or say what to install."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as problem:
        message = f"--writer_dir {folder}: the package tensorboard is not installed"
        raise UserError(message, "pip install tensorboard", EXIT_ENVIRONMENT) from problem
    return SummaryWriter(folder)


class Meter:
    """Counts tokens and seconds between two log lines."""

    def __init__(self):
        self.start()

    def start(self) -> None:
        """Begin a new interval."""
        self.began = time.monotonic()
        self.tokens = 0
        self.loading = 0.0  # seconds spent waiting for data

    def leave_out(self, seconds: float) -> None:
        """Take seconds that went into something else out of the interval."""
        self.began += seconds

    def rate(self) -> float:
        """Return tokens per second of the interval."""
        return self.tokens / max(time.monotonic() - self.began, 1e-9)

    def loading_share(self) -> float:
        """Return the share of the interval that was spent waiting for data, 0 to 1."""
        return self.loading / max(time.monotonic() - self.began, 1e-9)


def say_step(record: dict, total_steps: int, *, seconds_left: float, loading_share: float) -> None:
    """Print a log record as one line for people, with the share of the time that was spent waiting for data."""
    step = f"step {record['step']}/{total_steps} epoch {record['epoch']}"
    rate = f"{record['tokens_per_second']:,.0f} tokens/s (data {loading_share:.2%})"
    say(f"{step} loss {record['loss']:.4f} lr {record['lr']:.3g} {rate}, {duration_words(seconds_left)} left")


def duration_words(seconds: float) -> str:
    """Say a duration.

    >>> duration_words(95), duration_words(7260)
    ('1 min 35 s', '2 h 1 min')
    """
    seconds = round(seconds)
    if seconds >= 3600:
        return f"{seconds // 3600} h {seconds % 3600 // 60} min"
    return f"{seconds // 60} min {seconds % 60} s" if seconds >= 60 else f"{seconds} s"
