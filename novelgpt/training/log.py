"""What a run records: log.jsonl for machines, one line and a bar for people, TensorBoard curves, tokens per second.

Every record of log.jsonl has its `time` (Unix seconds), `step` and `epoch`. Those without `event` are figures: of
training `loss`, `lr`, `tokens_per_second`, of an evaluation `valid_loss` and its kin. The others tell the story of the
run, from which its page is made::

    start    once, with all that stays: sizes, yardsticks, style of the book, passage and prefixes (see preflight.py)
    resume   the log was cut back to a checkpoint, and goes on
    passage  nats: what each token of one held-out passage costs, at every evaluation
    sample   kind, prefix, text, seed, copied, style: of every prefix, after an epoch or an evaluation of hours
    save     model: the name of a model folder
    stop     reason: the run can go on from here
    verdict  text, model, kind: "learning", "converged", "memorising", "below_counting" or "none"; then
    finish   seconds: of the last session
"""

import contextlib
import json
import math
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from novelgpt.evaluation import Evaluation
from novelgpt.files import to_bytes
from novelgpt.messages import EXIT_ENVIRONMENT, UserError, progress_bar, say, shown, warn

LOG, PAGE = "log.jsonl", "training.html"
LINE_SECONDS, FIRST_SECONDS = 120, 20  # between two lines at most where there is no bar; until the first one
Watch = Callable[[dict], None]


class RunLog:
    """Context manager of a run's records: one JSON object a line in log.jsonl, TensorBoard's curves and the bar."""

    def __init__(
        self,
        folder: Path,
        total_steps: int | None,
        *,
        hours: float | None = None,
        writer_dir: str | None = None,
        watch: Watch | None = None,
        enabled: bool = True,
    ):
        """Open the log of a run folder.

        Args:
            folder, total_steps: of the whole run; None where hours end it.
            hours: that it takes; None where steps are counted.
            writer_dir: folder for TensorBoard event files; None for none.
            watch: called with every record of figures.
            enabled: False records nothing, in all processes but the first.
        """
        self.enabled, self.watch = enabled, watch
        self.path = folder / LOG if enabled else Path(os.devnull)
        # appended to, never reopened for writing: a resumed run first cuts it back to its checkpoint
        self.file = open(self.path, "ab", buffering=0)  # noqa: SIM115 (open for the whole run)
        self.writer = open_writer(writer_dir) if writer_dir and enabled else None
        # what matters first: a narrow terminal cuts it
        form = "{n:,}/{total:,} steps |{bar}| {desc}, {remaining} left"
        if hours is not None:  # the bar counts seconds
            form = "{percentage:.1f}% |{bar}| {desc}, {remaining} left"
        total = total_steps if hours is None else 3600 * hours
        self.bar, self.total_steps = progress_bar(total, unit="step", enabled=enabled, form=shown(form)), total_steps
        self.said_at = time.monotonic() - LINE_SECONDS + FIRST_SECONDS

    def __enter__(self) -> "RunLog":
        return self

    def __exit__(self, *_exception) -> None:
        self.bar.close()
        self.file.close()
        if self.writer:
            self.writer.close()

    def resume(self, *, place: float, length: int) -> None:
        """Continue from a place of the bar: cut the log back to the bytes it then had, no step is in it twice."""
        if self.enabled:
            self.file.truncate(min(length, self.path.stat().st_size))

        # the bar's rate is of this session's steps alone
        self.bar.initial = self.bar.n = self.bar.last_print_n = place
        self.bar.unpause()
        self.bar.refresh()

    def show(self, words: str) -> None:
        """Say on the bar what is under way."""
        self.bar.set_description_str(shown(words))

    def move_bar(self, place: float, epoch: int, epochs: int | None, loss: float | None) -> None:
        """Move the bar to a place, with the epoch and the mean loss, where it is known."""
        words = f"epoch {epoch}/{epochs}" if loss is None else f"epoch {epoch}/{epochs}, loss {loss:.4f}"
        if epochs is None:
            words = f"epoch {epoch}" if loss is None else f"epoch {epoch}, loss {loss:.4f}"
        self.bar.set_description_str(shown(words), refresh=False)
        self.bar.update(place - self.bar.n)

    def is_line_due(self) -> bool:
        """Tell whether a person who watches a file has read nothing for minutes."""
        return self.enabled and self.bar.disable and time.monotonic() - self.said_at > LINE_SECONDS

    def say_step(self, record: dict, *, seconds_left: float, loading_share: float) -> None:
        """Print a record as one line for people, with the share of the time that was spent waiting for data."""
        self.said_at = time.monotonic()
        step = f"step {record['step']} epoch {record['epoch']}"
        if self.total_steps is not None:
            step = f"step {record['step']}/{self.total_steps} epoch {record['epoch']}"
        loss = f" loss {record['loss']:.4f}" if "loss" in record else ""
        rate = f"{record['tokens_per_second']:,.0f} tokens/s (data {loading_share:.2%})"
        say(f"{step}{loss} lr {record['lr']:.3g} {rate}, {format_duration(seconds_left)} left")

    def write(self, record: dict[str, float | int | str]) -> None:
        """Append one record; JSON has no number that is not finite, so such a one is written as a string: "nan"."""
        if not self.enabled:
            return

        # a line is written in one call, so a kill leaves it whole or not at all
        record = {"time": round(time.time(), 3), **record}
        clean = {
            key: str(value) if isinstance(value, float) and not math.isfinite(value) else value
            for key, value in record.items()
        }
        try:
            self.file.write(to_bytes(json.dumps(clean, ensure_ascii=False) + "\n"))
        except OSError as problem:  # training is worth more than its log
            warn(f"{self.path}: step {record['step']} not logged: {problem.strerror}")
        # curves: every number but the position, by step; events have none
        if self.writer and "event" not in record:
            for key, value in record.items():
                if key not in ("time", "step", "epoch") and isinstance(value, (int, float)):
                    self.writer.add_scalar(key, value, record["step"])
        if self.watch and "event" not in record:  # whoever watches steps must not meet one twice
            self.watch(record)

    def has_start(self) -> bool:
        """Tell whether the log begins with what the start of a run tells; that of an earlier version does not."""
        with open(self.path, "rb") as file, contextlib.suppress(ValueError, AttributeError):
            return json.loads(file.readline()).get("event") == "start"
        return False

    def length(self) -> int:
        """Return the bytes written so far, forced onto the disk."""
        os.fsync(self.file.fileno())
        return self.file.seek(0, os.SEEK_END)


class NoStory:
    """Tells nothing, as all processes but the first."""

    def begin(self, log: RunLog, progress: object, *, is_resumed: bool) -> None:
        """Tell what the run is, unless the log says so, and whether it goes on."""

    def tell(self, event: str, **values: object) -> None:
        """Append an event to the log."""

    def tell_passage(self, nats: np.ndarray) -> None:
        """Tell what the passage costs, by the nats (S,) of all tokens that this process has scored."""

    def samples(self, first: str, model: object) -> list[dict]:
        """Return the records of all samples: the first one is written already, the network writes the others."""
        return []

    def show_page(self) -> None:
        """Write the page anew."""

    def stop(self, reason: str) -> None:
        """Tell that the run is over for now."""

    def end(self) -> None:
        """Tell how the run went, and that it is over."""


class Story(NoStory):
    """What the log tells of a run beside its figures, and the page that is made of it; of the first process."""

    def __init__(
        self,
        folder: Path,
        *,
        sizes: dict,
        facts: Callable[[], dict],
        places: slice,
        prefixes: Sequence[dict],
        writers: Sequence[Callable],
        measure: Callable[[str], dict],
        verdict: Callable[[object], dict],
    ):
        """Hold what the story is made of.

        Args:
            folder: of the run.
            sizes, facts: what its start tells; of more hours or epochs the sizes change, so a resumed run tells them.
            places: of the passage, among the tokens that are scored in the first held-out batch.
            prefixes, writers: kind, text, text as shown and seed of what samples begin with, and what continues each
                with a network; the first writer is the trainer's own sampler, there are none where none is wanted.
            measure: returns `copied` and `style` of a text.
            verdict: returns the verdict on a run by its progress.
        """
        self.folder, self.sizes, self.facts, self.places, self.verdict = folder, sizes, facts, places, verdict
        self.prefixes, self.writers, self.measure = prefixes, writers, measure
        self.began, self.warned = time.monotonic(), set()
        self.log: RunLog | None = None  # until it begins

    def begin(self, log: RunLog, progress: object, *, is_resumed: bool) -> None:
        self.log, self.progress = log, progress
        if not log.has_start():
            self.tell("start", **self.sizes, **self.attempt("the log tells less of the run", self.facts, {}))
        if is_resumed:
            self.tell("resume", **self.sizes)
        self.show_page()

    def tell(self, event: str, **values: object) -> None:
        self.log.write({"step": self.progress.step, "epoch": self.progress.epoch, "event": event, **values})

    def tell_passage(self, nats: np.ndarray) -> None:
        # rounded, and None for what is no number
        told = [round(value, 1) if math.isfinite(value) else None for value in nats[self.places].tolist()]
        if told:
            self.tell("passage", nats=told)

    def samples(self, first: str, model: object) -> list[dict]:
        texts, records = [first, *(write(model) for write in self.writers[1:])], []
        for prefix, text in zip(self.prefixes, texts, strict=True):
            text = text.removeprefix(prefix["shown"])
            given = {"kind": prefix["kind"], "prefix": prefix["text"], "text": text, "seed": prefix["seed"]}
            measured = self.attempt("samples are not measured", partial(self.measure, text), {})
            records.append(given | measured)
        return records

    def show_page(self) -> None:
        from novelgpt.pages import write_training_page

        self.attempt(f"{self.folder / PAGE}: not written", partial(write_training_page, self.folder))

    def attempt(self, failure: str, work: Callable[[], dict | None], otherwise: dict | None = None) -> dict | None:
        """Return what a piece of work returns; where it fails, say so once and return something else."""
        try:
            return work()
        except Exception as problem:  # whatever it is, the run is worth more than its story
            if failure not in self.warned:
                reason = (str(problem).splitlines() or [""])[0]
                warn(f"{failure}: {type(problem).__name__}: {reason}")
            self.warned.add(failure)
            return otherwise

    def stop(self, reason: str) -> None:
        if self.log:  # what is wrong with a state that cannot be read is told before there is a story
            self.tell("stop", reason=reason)
            self.show_page()

    def end(self) -> None:
        self.tell("verdict", **self.verdict(self.progress))
        self.tell("finish", seconds=round(time.monotonic() - self.began, 1))


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

    def timed(self, items: Iterable) -> Iterator:
        """Yield some items, and count the seconds spent waiting for each."""
        iterator = iter(items)
        while True:
            began = time.monotonic()
            item = next(iterator, None)
            self.loading += time.monotonic() - began
            if item is None:
                return
            yield item

    def leave_out(self, seconds: float) -> None:
        """Take seconds that went into something else out of the interval."""
        self.began += seconds

    def rate(self) -> float:
        """Return tokens per second of the interval."""
        return self.tokens / max(time.monotonic() - self.began, 1e-9)

    def loading_share(self) -> float:
        """Return the share of the interval that was spent waiting for data, 0 to 1."""
        return self.loading / max(time.monotonic() - self.began, 1e-9)


def say_evaluation(result: Evaluation, epoch: float, epochs: int | None) -> None:
    """Print an evaluation after so many epochs, of a number of them or of as many as the hours allow."""
    figures = f"held-out loss {result.loss:.4f} perplexity {result.perplexity:.2f}"
    figures = f"{figures} accuracy {result.accuracy:.2%} bits per character {result.bits_per_character:.4f}"
    say(f"epoch {epoch} {figures}" if epochs is None else f"epoch {epoch}/{epochs} {figures}")


def format_duration(seconds: float) -> str:
    """Format a duration.

    >>> format_duration(95), format_duration(7260)
    ('1 min 35 s', '2 h 1 min')
    """
    seconds = round(seconds)
    if seconds >= 3600:
        return f"{seconds // 3600} h {seconds % 3600 // 60} min"
    return f"{seconds // 60} min {seconds % 60} s" if seconds >= 60 else f"{seconds} s"
