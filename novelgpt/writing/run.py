"""A session and its prefixes -> samples on stdout and in files, saved as they grow."""

import re
import time
from collections.abc import Sequence
from pathlib import Path

from novelgpt.files import move_aside, write_text
from novelgpt.messages import printable, progress_bar, say, warn
from novelgpt.writing.generation import BLOCK
from novelgpt.writing.plan import Sample
from novelgpt.writing.prompts import Prompt
from novelgpt.writing.samples import BANNER, CLOSING, SampleFolder, format_sample
from novelgpt.writing.session import Session
from novelgpt.writing.style import measure_style, style_table

UNSAFE = re.compile(r'[\\/:*?"<>|\x00-\x1f]')


class Growth:
    """Watches texts grow: moves the bar, streams the new characters, saves what there is.

    Args:
        session: the model.
        folder: where growing texts are saved, None when nothing is.
        bar: counts tokens.
    """

    def __init__(self, session: Session, folder: SampleFolder | None, bar):
        self.session, self.folder, self.bar = session, folder, bar
        self.counted: dict[int, int] = {}
        self.shown, self.stream = 0, None

    def __call__(self, samples: list[Sample]) -> None:
        """Take the samples of a batch after every block."""
        self.bar.update(max(0, sum(len(sample.ids) - self.counted.get(sample.index, 0) for sample in samples)))
        self.counted |= {sample.index: len(sample.ids) for sample in samples}
        if self.session.options.stream:
            self.show_new(samples[0])
        if self.folder:
            texts = {sample.index + 1: lambda sample=sample: self.session.text_of(sample) for sample in samples}
            self.folder.keep_unfinished(texts)

    def show_new(self, sample: Sample) -> None:
        """Print the characters since the last time; the very last token waits, for it may lie behind the end."""
        if self.stream is None:
            self.stream, self.shown = self.session.tokenizer.stream(), 0
            beginning = "" if self.session.options.mark else printable(self.session.tokenizer.show(sample.prefix))
            print(f"{BANNER} SAMPLE {sample.index + 1} {BANNER}\n{beginning}", end="")
        ready = len(sample.ids) - (not sample.ended)
        new = "".join(self.stream.push(token) for token in sample.ids[self.shown : ready])
        self.shown = max(ready, self.shown)
        print(printable(new), end="", flush=True)
        if sample.ended:
            print(f"{printable(self.stream.flush())}\n{CLOSING}", flush=True)
            self.stream = None


def write_all(session: Session, prompts: Sequence[Prompt]) -> None:
    """Write all samples of all prefixes; save and print each one as it is finished.

    Args:
        session: the model and its options.
        prompts: with titles, each text gets a file of its own; without, all stand in samples.txt.
    """
    options, texts = session.options, []
    titled = bool(prompts[0].title)
    folder = SampleFolder(options.save_samples_path) if options.save_samples or titled else None
    for aside in folder.moved if folder else []:
        say(f"moved the samples of an earlier run to {aside}")
    start, tokens = time.perf_counter(), 0
    lengths = [session.plan_after(session.prefix_ids(prompt.text)).length for prompt in prompts]
    with progress_bar(options.nsamples * sum(lengths), unit=" tokens") as bar:
        growth, block = Growth(session, folder, bar), 1 if options.stream else BLOCK
        for turn, prompt in enumerate(prompts):
            for sample in session.write(prompt.text, first=turn * options.nsamples, watch=growth, block=block):
                texts.append(session.new_text_of(sample))
                tokens += len(sample.ids)
                finish(session, prompt, sample, folder, turn)
    if folder:
        folder.close()
        say(f"{len(texts)} samples: {folder.text_path} and {folder.lines_path}")
    report(session, texts, tokens, time.perf_counter() - start)


def finish(session: Session, prompt: Prompt, sample: Sample, folder: SampleFolder | None, turn: int) -> None:
    """Save, print and judge one finished sample."""
    text, number = session.text_of(sample), sample.index + 1
    facts = session.facts_of(sample, prompt.text)
    if folder:
        folder.add(text, facts)
    if prompt.title:
        name = UNSAFE.sub("_", prompt.title)[:60]
        path = Path(folder.text_path.parent) / f"{name}-{number - turn * session.options.nsamples}.txt"
        move_aside(path)
        write_text(path, text + "\n")
    if session.options.stream and sample.ended == "bound":
        words = (
            f"came to no {session.options.stop}'s end; what was shown after its {len(sample.ids):,} tokens is left out"
        )
        warn(f"sample {number} {words}")
    if session.options.stream and sample.attempt:
        say(f"sample {number} copied too much; another try is kept:")
    if not session.options.stream or sample.attempt:
        print(printable(format_sample(number, text)), end="", flush=True)
    if sample.ended == "loop":
        warn(f"sample {number} repeated itself and was cut after {len(sample.ids):,} tokens (--no-cut_loops keeps it)")
    if session.meter:
        say(f"sample {number}: {session.meter.describe(session.copied_of(sample))}")


def report(session: Session, texts: list[str], tokens: int, seconds: float) -> None:
    """Say how fast it went and how the texts compare with the book."""
    say(f"{tokens:,} tokens in {seconds:.1f} s: {tokens / max(seconds, 1e-9):.1f} tokens/s")
    if not session.options.mark:  # a title has no style
        say(style_table(measure_style(texts), session.book and session.book.style()))
