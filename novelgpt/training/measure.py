"""A model and one or many texts -> the report that eval.py prints, and a page that shows every character.

Each text is scored by itself, from its own beginning; the whole is the sum of all. A chapter of `chapters` is scored by
itself too, so that its figure does not depend on what stands before it.
"""

import itertools
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from novelgpt.corpus.documents import read_sources
from novelgpt.corpus.pieces import TokenStream, open_pieces
from novelgpt.devices import choose_precision
from novelgpt.files import write_text
from novelgpt.loss import score_tokens
from novelgpt.messages import EXIT_USAGE, UserError, say, warn
from novelgpt.training import scoring
from novelgpt.training.evaluation import Evaluation
from novelgpt.training.surprise import Span, find_spans, score_each_token
from novelgpt.training.surprise_html import surprise_page
from novelgpt.training.yardstick import compare_words, score_ngram

HEADING = 40  # characters


@dataclass(frozen=True)
class Text:
    """A text to score: what it is called, its tokens, and how many characters they stand for."""

    name: str
    stream: TokenStream
    characters: int


class Measure:
    """A model ready to score texts by one protocol."""

    def __init__(self, model, tokenizer, *, stride: int | None = None, batch_size: int = 8, precision: str = "fp32"):
        """Check the protocol.

        Args:
            model: GPT2LMHeadModel in fp32 on its device; left as it is.
            tokenizer: of the model.
            stride: tokens between windows, at most the context; None for half of it.
            batch_size: windows a pass; has no influence on the result.
            precision: "auto", "bf16", "fp16" or "fp32".

        Raises:
            UserError: a stride beyond the context, or a precision that the device lacks.
        """
        window = model.config.n_positions
        stride = max(1, window // 2) if stride is None else stride
        if stride > window:
            raise UserError(f"--stride {stride}: longer than the context of {window}", f"--stride {window}", EXIT_USAGE)
        self.model, self.tokenizer = model, tokenizer
        self.device = next(model.parameters()).device
        self.dtype = choose_precision(precision, self.device, trains=False)
        self.protocol = scoring.Protocol(window, stride, batch_size, precision)
        self.score = scoring.score_function(model, self.dtype)

    def result_of(self, stream: TokenStream, characters: int) -> Evaluation:
        """Score one stream."""
        return scoring.score_stream(self.score, stream, self.protocol, characters=characters, device=self.device)

    def chapters_of(self, text: Text) -> list[dict]:
        """Score every chapter of a text by itself."""
        chapters = []
        for part in scoring.chapter_streams(text.stream, self.tokenizer):
            words = self.tokenizer.show(part[1 : len(part) - 1])
            result = self.result_of(part, len(words))
            figures = {"loss": result.loss, "accuracy": result.accuracy, "tokens": result.tokens}
            chapters.append({"heading": words.split("\n")[0][:HEADING], **figures})
            say(f"{result.loss:.4f}  {chapters[-1]['heading']}")
        return chapters

    def surprise_of(self, text: Text) -> tuple[Evaluation, list[list[Span]]]:
        """Score one text and return the spans of each of its chapters."""
        window = {"window": self.protocol.window, "stride": self.protocol.stride}
        result, nats = score_each_token(
            scoring.score_function(self.model, self.dtype, score_tokens),
            text.stream,
            **window,
            batch_size=self.protocol.batch_size,
            characters=text.characters,
            device=self.device,
        )
        places = text.stream.find(self.tokenizer.cls_id)
        cuts = [(first + 1, last) for first, last in itertools.pairwise(places) if last > first + 1]
        return result, [find_spans(text.stream[first:last], nats[first:last], self.tokenizer) for first, last in cuts]

    def report(
        self, texts: list[Text], *, per_chapter: bool = False, html: str | Path | None = None, **facts: object
    ) -> dict:
        """Score texts and return the report.

        Args:
            texts: at least one; with several the report has an entry for each under `texts`.
            per_chapter: score every chapter by itself too.
            html: file for the page of characters.
            facts: further entries.
        """
        results, entries, chapters = [], [], []
        for text in texts:
            result, spans = self.surprise_of(text) if html else (self.result_of(text.stream, text.characters), [])
            entry = {"name": text.name, **scoring.figures_of(result), "unknown_tokens": self.count_unknown(text)}
            entry |= {"chapters": self.chapters_of(text)} if per_chapter else {}
            results, chapters = [*results, result], [*chapters, *spans]
            entries.append(entry)
            if len(texts) > 1:
                say(f"{result.loss:.4f}  {text.name}")
        total = sum_evaluations(results)
        say_result(total)
        unknown = sum(entry["unknown_tokens"] for entry in entries)
        if len(texts) > 1:
            facts["texts"] = entries
        elif per_chapter:
            facts["chapters"] = entries[0]["chapters"]
        report = scoring.report(total, self.protocol, unknown_tokens=unknown, **facts)
        if html:
            write_page(html, texts, report, chapters)
        return report

    def count_unknown(self, text: Text) -> int:
        """Count a text's [UNK], and say so when there are any, or when there is no token at all."""
        ids = text.stream.read()
        unknown = int(np.count_nonzero(ids == self.tokenizer.unk_id))
        if unknown:
            warn(f"{text.name}: {unknown:,} of {len(ids):,} tokens are [UNK]: not in the model's vocabulary")
        if len(ids) <= np.count_nonzero(ids == self.tokenizer.cls_id):
            warn(f"{text.name}: not one token in it; only the mark of its end is scored")
        return unknown

    def baseline(self, texts: list[Text], pieces_folder: str | Path, loss: float) -> dict:
        """Score the same texts by a 4-gram of the training pieces; return its figures for the report."""
        pieces = open_pieces(pieces_folder, expect={"vocabulary_sha256": self.tokenizer.fingerprint})
        stream = TokenStream([text.stream.read() for text in texts])
        characters = sum(text.characters for text in texts)
        ngram = score_ngram(pieces.train, stream, vocab_size=self.tokenizer.vocab_size, characters=characters)
        if ngram is None:
            return {"ngram_loss": None, "ngram_nats_per_character": None}
        say(compare_words(loss, ngram.loss))
        return {"ngram_loss": ngram.loss, "ngram_nats_per_character": ngram.nats_per_character}


def sum_evaluations(results: list[Evaluation]) -> Evaluation:
    """Add the evaluations of several texts up."""
    names = ("nll", "scored", "tokens", "characters", "right")
    return Evaluation(*(sum(getattr(result, name) for result in results) for name in names))


def say_result(result: Evaluation) -> None:
    """Print a result as one line for people."""
    words = f"loss {result.loss:.4f} perplexity {result.perplexity:.2f} accuracy {result.accuracy:.2%}"
    say(f"{words} bits per character {result.bits_per_character:.4f}")


def write_page(path: str | Path, texts: list[Text], report: dict, chapters: list[list[Span]]) -> None:
    """Write the page of characters."""
    names = "loss perplexity accuracy bits_per_character scored_tokens unknown_tokens window stride model".split()
    rows = [(name.replace("_", " "), shorten(report[name])) for name in names if name in report]
    write_text(path, surprise_page(", ".join(text.name for text in texts[:3]), rows, chapters))
    say(f"written {path}")


def shorten(value: object) -> object:
    """Round a figure for people."""
    return f"{value:.4f}" if isinstance(value, float) else value


def find_texts(
    tokenizer,
    text: str | list[str] | None,
    path: str | Path | list[str | Path] | None,
    pieces: str | Path,
    *,
    encoding: str | None = None,
) -> list[Text]:
    """Return the texts to score: the sentence, the file, each file of the folder, else what training held out.

    Raises:
        UserError: both a sentence and a path, or what read_sources and held_out raise.
    """
    if text is not None and path:
        raise UserError("--text and --text_path: found both, expected one", "leave one out", EXIT_USAGE)
    if text is not None:
        return [text_of("--text", [text] if isinstance(text, str) else list(text), tokenizer)]
    if path:
        paths = [path] if isinstance(path, (str, Path)) else list(path)
        return [text_of(source.name, source.documents, tokenizer) for source in read_sources(paths, encoding=encoding)]
    stream, characters = scoring.held_out(pieces, tokenizer)
    return [Text(f"held out of {pieces}", stream, characters)]


def text_of(name: str, documents: list[str], tokenizer) -> Text:
    """Turn documents into a text to score."""
    return Text(name, scoring.text_stream(documents, tokenizer), sum(map(len, documents)))
