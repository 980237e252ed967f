"""Samples, growing and finished -> stdout and, where asked for, files.

`samples.txt` is for people, `samples.jsonl` has one object a sample with all that it depends on::

    ======================================== SAMPLE 1 ========================================
    萧炎大喝一声……
    ==========================================================================================

Both files are replaced as a whole after every sample, so whatever happens to the run they hold all finished samples and
nothing broken. What is still growing stands in `samples.unfinished.txt`, which goes when the run ends.
"""

import json
import re
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from novelgpt.cli import GenerateOptions, names_with
from novelgpt.files import move_aside, write_text
from novelgpt.messages import EXIT_ENVIRONMENT, EXIT_USAGE, UserError, above_bar, printable, say, warn
from novelgpt.writing.book import format_style, measure_style

BANNER = "=" * 40
CLOSING = "=" * 90
FILE_ENDINGS = (".txt", ".json", ".jsonl")
SAVE_EVERY = 10  # seconds between two savings of growing texts
UNSAFE = re.compile(r'[\\/:*?"<>|\x00-\x1f]')  # characters that no file name has everywhere
MAX_NAME = 60  # characters of a title in a file name


def format_sample(number: int, text: str) -> str:
    """Return one sample between its banner and its closing line."""
    return f"{BANNER} SAMPLE {number} {BANNER}\n{text}\n{CLOSING}\n"


class SampleFolder:
    """The files of one run's samples.

    Args:
        folder: made if it is not there. Samples of an earlier run are moved aside at the first writing.

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
            self.moved = [aside for path in paths if (aside := move_aside(path))]
        except OSError as problem:
            hint = "--save_samples_path mnt/, or another folder that you may write to"
            message = f"--save_samples_path {folder}: {problem.strerror}, expected a folder to write to"
            raise UserError(message, hint, EXIT_ENVIRONMENT) from problem

    def add(self, text: str, facts: dict) -> None:
        """Write one more finished sample to the disk, with its facts, number and text as its line in samples.jsonl."""
        self.number += 1
        self.text += format_sample(self.number, text)
        self.lines += json.dumps({"number": self.number, **facts, "text": text}, ensure_ascii=False) + "\n"
        write_text(self.lines_path, self.lines)
        write_text(self.text_path, self.text)

    def keep_unfinished(self, read_texts: Callable[[], dict[int, str]]) -> None:
        """Save growing texts, by sample number, if the last time is long enough ago; only then are they read."""
        if time.monotonic() - self.saved >= SAVE_EVERY:
            blocks = [format_sample(number, text) for number, text in sorted(read_texts().items())]
            write_text(self.unfinished_path, "".join(blocks))
            self.saved = time.monotonic()

    def close(self) -> None:
        """Remove the growing texts, which are finished now."""
        self.unfinished_path.unlink(missing_ok=True)


class Output:
    """What becomes of samples: growing ones move the bar and are streamed, finished ones are saved and printed.

    Args:
        session: the Session that writes them.
        options: of generate.py: nsamples, stream, mark, save_samples_path and what samples.jsonl keeps.
        is_saved: write files; the folder is made now, so that one that cannot be written to is told at once.
    """

    def __init__(self, session, options: GenerateOptions, *, is_saved: bool):
        self.session, self.options, self.start = session, options, time.perf_counter()
        self.settings = {name: getattr(options, name) for name in names_with(GenerateOptions, recorded=True)}
        self.folder = SampleFolder(options.save_samples_path) if is_saved else None
        for aside in self.folder.moved if self.folder else []:
            say(f"moved the samples of an earlier run to {aside}")
        self.counted: dict[int, int] = {}  # tokens of each sample that the bar has seen
        self.streamed, self.stream = 0, None  # tokens of the sample that is being streamed, and what decodes them
        self.texts: list[str] = []  # what the model wrote of each finished sample
        self.num_tokens = 0  # of all of them

    def shown(self, sample, prompt) -> str:
        """Return what people want of a sample: all of it, or only the answer that a mark asked for."""
        return self.session.show_new(sample) if prompt.stop_rule.is_answer else self.session.show(sample)

    def update(self, samples: list, prompt, bar) -> None:
        """Take the samples of a batch, which have grown; the bar counts their tokens."""
        # a loop that is cut makes a text shorter: the bar stays where it is
        bar.update(max(0, sum(len(sample.ids) - self.counted.get(sample.index, 0) for sample in samples)))
        self.counted |= {sample.index: len(sample.ids) for sample in samples}
        if self.options.stream:
            self.stream_new(samples[0], prompt)
        if self.folder:
            self.folder.keep_unfinished(lambda: {sample.index + 1: self.shown(sample, prompt) for sample in samples})

    def stream_new(self, sample, prompt) -> None:
        """Print the characters since the last time; the very last token waits, for it may lie behind the end."""
        if self.stream is None:
            self.stream, self.streamed = self.session.tokenizer.stream(), 0
            beginning = "" if prompt.stop_rule.is_answer else printable(self.session.tokenizer.show(sample.prefix))
            print(f"{BANNER} SAMPLE {sample.index + 1} {BANNER}\n{beginning}", end="")
        ready = len(sample.ids) if sample.ended else len(sample.ids) - 1
        new = "".join(self.stream.push(token) for token in sample.ids[self.streamed : ready])
        self.streamed = max(ready, self.streamed)
        print(printable(new), end="", flush=True)
        if sample.ended:
            print(f"{printable(self.stream.flush())}\n{CLOSING}", flush=True)
            self.stream = None

    def add(self, sample, prompt) -> None:
        """Take one more finished sample."""
        self.texts.append(self.session.show_new(sample))
        self.num_tokens += len(sample.ids)
        # to the disk first: what is printed is saved
        text, copied = self.shown(sample, prompt), self.session.measure_copies(sample)
        if self.folder:
            self.folder.add(text, self.facts_of(sample, prompt.text, copied and asdict(copied)))
        if prompt.title:
            name = UNSAFE.sub("_", prompt.title)[:MAX_NAME]
            path = self.folder.text_path.with_name(f"{name}-{sample.index % self.options.nsamples + 1}.txt")
            move_aside(path)
            write_text(path, text + "\n")
        self.show(sample, text, stop=prompt.stop_rule.stop)
        if copied:
            say(f"sample {sample.index + 1}: {self.session.meter.describe_copied(copied)}")

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

    def show(self, sample, text: str, *, stop: str) -> None:
        """Print a sample unless it was streamed, and say how it ended where that is odd."""
        name, tokens = f"sample {sample.index + 1}", f"{len(sample.ids):,} tokens"
        if self.options.stream and sample.ended == "bound":
            warn(f"{name} came to no {stop}'s end; what was shown after its {tokens} is left out")
        if self.options.stream and sample.attempt:
            say(f"{name} copied too much; another try is kept:")
        if not self.options.stream or sample.attempt:
            with above_bar():
                print(printable(format_sample(sample.index + 1, text)), end="", flush=True)
        if sample.ended == "loop":
            warn(f"{name} repeated itself and was cut after {tokens} (--no-cut_loops keeps it)")

    def close(self) -> None:
        """Say how it went, when all texts are finished."""
        if self.folder:
            self.folder.close()
            say(f"{len(self.texts)} samples: {self.folder.text_path} and {self.folder.lines_path}")
        seconds = time.perf_counter() - self.start
        say(f"{self.num_tokens:,} tokens in {seconds:.1f} s: {self.num_tokens / max(seconds, 1e-9):.1f} tokens/s")
        if not self.options.mark:  # a title has no style
            book = self.session.book
            say(format_style(measure_style(self.texts), book and measure_style(book.documents)))
