"""Samples, growing and finished -> stdout and, where asked for, files.

`samples.txt` is for people, `samples.jsonl` has one object a sample with all that it depends on::

    ======================================== SAMPLE 1 ========================================
    萧炎大喝一声……
    [cut here after 120 tokens]                                   only where a signal has stopped the run
    ==========================================================================================

Both files are replaced as a whole after every sample, so whatever happens to the run they hold all finished samples and
nothing broken. What is still growing stands in `samples.unfinished.txt`, which goes when the run ends. What one place
does not take, a full disk or a closed terminal, goes to another.
"""

import errno
import json
import re
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from novelgpt.cli import GenerateOptions, names_with
from novelgpt.corpus.style import measure_style, say_style
from novelgpt.files import move_aside, write_text
from novelgpt.languages import localize
from novelgpt.messages import (
    EXIT_DONE,
    EXIT_ENVIRONMENT,
    EXIT_HANGUP,
    EXIT_USAGE,
    UserError,
    print_line,
    printable,
    say,
    warn,
)
from novelgpt.writing.terminal import Growing, Screen, shorten

BANNER = "=" * 40
CLOSING = "=" * 90
FILE_ENDINGS = (".txt", ".json", ".jsonl")
TITLES = "titles"  # folder beside the sample files, of the texts that have titles
SAVE_EVERY = 10  # seconds between two savings of growing texts
UNSAFE = re.compile(r'[\\/:*?"<>|\x00-\x1f]')  # characters that no file name has everywhere
MAX_NAME = 60  # characters of a title in a file name


def format_sample(number: int, text: str) -> str:
    """Return one sample between its banner and its closing line."""
    return f"{banner(number)}{text}\n{CLOSING}\n"


def banner(number: int, width: int = 1000) -> str:
    """Return the line above a sample, at most so many characters wide.

    >>> banner(1, 20)
    '===== SAMPLE 1 =====\\n'
    """
    sign = BANNER[: max(0, width - len(f" SAMPLE {number} ")) // 2]
    return f"{sign} SAMPLE {number} {sign}\n"


def cut_mark(sample) -> str:
    """Return the line that follows a text which a signal has stopped; nothing for any other."""
    return "\n" + localize(f"[cut here after {len(sample.ids):,} tokens]") if sample.ended == "stopped" else ""


class SampleFolder:
    """The files of one run's samples.

    Args:
        folder: made if it is not there. Samples of an earlier run are moved aside: samples.txt to samples.1.txt.

    Raises:
        UserError: the folder cannot be made, is a file or named like one.
    """

    def __init__(self, folder: str | Path):
        folder = Path(folder)
        if folder.suffix in FILE_ENDINGS and not folder.exists():
            message = f"--save_samples_path {folder}: named like a file, expected a folder"
            raise UserError(message, f"--save_samples_path {folder.parent}", EXIT_USAGE)
        self.text_path, self.lines_path = folder / "samples.txt", folder / "samples.jsonl"
        self.unfinished_path = folder / "samples.unfinished.txt"
        self.text, self.lines, self.number, self.saved = "", "", 0, time.monotonic()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):  # found out now, not after the first text is written
                pass
            paths = (self.text_path, self.lines_path, self.unfinished_path)
            moved = [aside for path in paths if (aside := move_aside(path))]
        except OSError as problem:
            hint = "--save_samples_path mnt/, or another folder that you may write to"
            message = f"--save_samples_path {folder}: {problem.strerror}, expected a folder to write to"
            raise UserError(message, hint, EXIT_ENVIRONMENT) from problem
        for aside in moved:
            say(f"moved the samples of an earlier run to {aside}")

    def add(self, shown: str, text: str, facts: dict) -> None:
        """Save one more sample: as people see it in samples.txt; all of its text, with facts, in samples.jsonl."""
        self.number += 1
        self.text += format_sample(self.number, shown)
        self.lines += json.dumps({"number": self.number, **facts, "text": text}, ensure_ascii=False) + "\n"
        self.save()

    def save(self) -> None:
        """Write both files; UserError where the disk refuses, and what could not be saved waits for the next time."""
        write_text(self.lines_path, self.lines)
        write_text(self.text_path, self.text)

    def add_titled(self, title: str, number: int, text: str) -> None:
        """Write a text to the file of its title; an earlier one of that name is moved aside."""
        path = self.text_path.parent / TITLES / f"{UNSAFE.sub('_', title)[:MAX_NAME]}-{number}.txt"
        move_aside(path)
        write_text(path, text + "\n")

    def keep_unfinished(self, read_texts: Callable[[], dict[int, str]]) -> None:
        """Save growing texts, by sample number, if the last time is long enough ago; only then are they read."""
        if time.monotonic() - self.saved >= SAVE_EVERY:
            self.saved = time.monotonic()
            blocks = [format_sample(number, text) for number, text in sorted(read_texts().items())]
            write_text(self.unfinished_path, "".join(blocks))

    def close(self) -> None:
        """Remove the growing texts, which are finished now."""
        self.unfinished_path.unlink(missing_ok=True)


class Output:
    """What becomes of samples: growing ones move the bar and are streamed, finished ones are saved and printed.

    Args:
        session: the Session that writes them.
        options: of generate.py: nsamples, stream, mark, save_samples_path and what samples.jsonl keeps.
        is_saved: write files; the folder is made now, so that one that cannot be written to is told at once.
        stop: the StopSignals of the run.
    """

    def __init__(self, session, options: GenerateOptions, *, is_saved: bool, stop):
        self.session, self.options, self.stop, self.start = session, options, stop, time.perf_counter()
        self.settings = {name: getattr(options, name) for name in names_with(GenerateOptions, recorded=True)}
        self.folder = SampleFolder(options.save_samples_path) if is_saved else None
        self.screen, self.fault = Screen(), None  # stdout; the last reason why something was not saved
        self.waiting: list[tuple[str, str, dict]] = []  # samples that are printed only, in case stdout goes away
        self.counted: dict[int, int] = {}  # tokens of each sample that the bar has seen
        self.growing: Growing | None = None  # what decodes the sample that is being streamed
        self.texts: list[str] = []  # what the model wrote of each finished sample
        self.num_tokens = 0  # of all of them
        self.has_titles = False  # whether some stand in files of their own

    def shown_prefix(self, sample, prompt) -> str:
        """Return the prefix as people want it: what a mark asked for comes without its question."""
        return "" if prompt.stop_rule.is_answer else self.session.tokenizer.show(sample.prefix)

    def update(self, samples: list, prompt, bar) -> None:
        """Take the samples of a batch, which have grown; the bar counts their tokens."""
        rule = prompt.stop_rule
        is_searching = any(not sample.ended and len(sample.ids) > rule.length for sample in samples)
        bar.set_description_str(localize(f"searching for a {rule.stop}'s end") if is_searching else "", refresh=False)
        # a loop that is cut makes a text shorter: the bar stays where it is
        bar.update(max(0, sum(len(sample.ids) - self.counted.get(sample.index, 0) for sample in samples)))
        self.counted |= {sample.index: len(sample.ids) for sample in samples}
        if self.options.stream:
            self.stream_new(samples[0], prompt)
        if self.folder:
            self.try_to(lambda: self.folder.keep_unfinished(lambda: self.read_texts(samples, prompt)))

    def read_texts(self, samples: list, prompt) -> dict[int, str]:
        """Return growing texts as people see them, by the numbers of the samples."""
        prefix = shorten(self.shown_prefix(samples[0], prompt))
        return {sample.index + 1: prefix + self.session.show_new(sample) for sample in samples}

    def stream_new(self, sample, prompt) -> None:
        """Print the characters since the last time."""
        if self.growing is None:
            self.growing = Growing(self.session.tokenizer)
            beginning = self.screen.mark_prefix(self.shown_prefix(sample, prompt))
            self.screen.print(banner(sample.index + 1, self.screen.width) + beginning)
        self.screen.print(self.growing.push(sample))
        if sample.ended:
            self.screen.print(f"{cut_mark(sample)}\n{CLOSING[: self.screen.width]}\n")
            self.growing = None
        self.mind_stdout()

    def add(self, sample, prompt) -> None:
        """Take one more finished sample; one that was stopped before its first token is none."""
        if sample.ended == "stopped" and not sample.ids:
            return
        prefix, text = self.shown_prefix(sample, prompt), self.session.show_new(sample)
        self.texts.append(text)
        self.num_tokens += len(sample.ids)
        new = text + cut_mark(sample)
        copied = self.session.measure_copies(sample)
        facts = self.facts_of(sample, prompt.text, copied and asdict(copied)) | {"prefix_characters": len(prefix)}
        # to the disk first: what is printed is saved
        self.keep(shorten(prefix) + new, prefix + text, facts)
        if prompt.title:
            self.has_titles = True
            number = sample.index % self.options.nsamples + 1
            self.try_to(lambda: self.folder.add_titled(prompt.title, number, prefix + new))
        self.show(sample, self.screen.mark_prefix(prefix) + printable(new), rule=prompt.stop_rule)
        self.mind_stdout()
        if copied:
            say(f"sample {sample.index + 1}: {self.session.meter.describe_copied(copied)}")

    def keep(self, *sample) -> None:
        """Save a sample, or without a folder remember it; arguments as for SampleFolder.add."""
        if self.folder is None:
            self.waiting.append(sample)
        else:
            self.try_to(lambda: self.folder.add(*sample))

    def try_to(self, save: Callable[[], None]) -> None:
        """Save something, or warn once: a full disk ends no writing, for the texts are printed too."""
        try:
            save()
        except UserError as problem:
            if self.fault is None:
                warn(f"{problem.message}; the writing goes on, and all texts are saved again at the end")
            self.fault = problem

    def mind_stdout(self) -> None:
        """See that nothing is lost where stdout takes nothing any more: without files of their own, texts get some."""
        if self.screen.problem is None or self.folder is not None:
            return
        # head has read enough; but where Ctrl-C stopped the reader too, the person wants the text
        if self.screen.is_reader_gone and not self.stop.is_set():
            raise self.screen.problem
        if self.growing is None:
            self.rescue()

    def rescue(self) -> None:
        """Save what stdout did not take, or print it on stderr."""
        try:
            self.folder = SampleFolder(self.options.save_samples_path)
            for sample in self.waiting:
                self.folder.add(*sample)
            warn(f"stdout takes no more text; the samples are in {self.folder.text_path}")
        except UserError as problem:
            self.folder = None
            warn(f"{problem.message}; the samples follow here")
            for number, (shown, *_) in enumerate(self.waiting, 1):
                print_line(printable(format_sample(number, shown)))
            self.waiting = []

    def facts_of(self, sample, prompt: str, copied: dict | None) -> dict:
        """Return a sample's line in samples.jsonl, all but its number and text."""
        return {
            "prompt": prompt,
            "seed": self.session.seed,
            "index": sample.index,
            "attempt": sample.attempt,
            "ended": sample.ended,
            "tokens": len(sample.ids),
            "model": str(self.options.model_path),
            "precision": self.session.weights.kind,
            "settings": self.settings,
            "style": measure_style([self.session.show_new(sample)]),
            "copied": copied,
        }

    def show(self, sample, text: str, *, rule) -> None:
        """Print a sample unless it was streamed, and say how it ended where that is odd."""
        name, tokens = f"sample {sample.index + 1}", f"{len(sample.ids):,} tokens"
        if sample.ended == "bound" and self.options.stream:
            warn(f"{name} came to no {rule.stop}'s end; what was shown after its {tokens} is left out")
        elif sample.ended == "bound" and not rule.is_answer:
            warn(f"{name} came to no {rule.stop}'s end within {rule.max_tokens - 1:,} tokens; it is cut after {tokens}")
        if self.options.stream and sample.attempt:
            say(f"{name} copied too much; another try is kept:")
        if not self.options.stream or sample.attempt:
            width = self.screen.width
            self.screen.print(f"{banner(sample.index + 1, width)}{text}\n{CLOSING[:width]}\n")
        if sample.ended == "loop":
            warn(f"{name} repeated itself and was cut after {tokens} (--no-cut_loops keeps it)")

    def close(self, compiling: float) -> None:
        """Say how it went, when all texts are finished; compiling: seconds of it that went into compiling loops.

        Raises:
            UserError: the disk refused samples, and still does.
        """
        seconds = time.perf_counter() - self.start - compiling
        if self.fault:
            self.folder.save()
        if self.stop.is_set():
            say(
                "stopped: the texts are cut where they were, and kept"
                if self.texts
                else "stopped before the first token"
            )
        if self.folder:
            self.folder.close()
            say(f"{len(self.texts)} samples: {self.folder.text_path} and {self.folder.lines_path}")
        if self.has_titles:
            say(f"titles: {self.folder.text_path.parent / TITLES}/")
        if compiling:
            say(f"compiling for this processor took {compiling:.1f} s, this once")
        say(f"{self.num_tokens:,} tokens in {seconds:.1f} s: {self.num_tokens / max(seconds, 1e-9):.1f} tokens/s")
        if self.session.chooser:
            say(self.session.chooser.describe())
        if self.texts and not self.options.mark:  # a title has no style
            say_style(self.texts, self.session.book and self.session.book.documents)

    @property
    def status(self) -> int:
        """The exit status: what stopped the writing, or whether everything could be shown.

        Raises:
            OSError: stdout takes nothing any more, though nobody stopped the writing.
        """
        problem = self.screen.problem
        if problem and not self.stop.is_set() and problem.errno != errno.EIO:
            raise problem
        return self.stop.status if self.stop.is_set() else EXIT_HANGUP if problem else EXIT_DONE
