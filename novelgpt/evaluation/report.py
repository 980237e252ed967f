"""A model and one or many texts -> the report that eval.py prints.

Each text is scored by itself, from its own beginning; the whole is the sum of all. A chapter of `chapters` is scored by
itself too, so that its figure does not depend on what stands before it. For a page the nats of tokens become those of
the characters that people read, where bytes of one character add up::

    token      炎   <0xF0> <0xA0> <0xAE> <0xB7>
    nats      3.1     6.0    4.0    1.0    0.5
    span      炎 3.1  𠮷 11.5
"""

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np

from novelgpt.corpus.books import CleaningOptions, read_book
from novelgpt.corpus.inputs import find_inputs, name_of
from novelgpt.corpus.pieces import TokenStream, open_pieces
from novelgpt.corpus.tokenizers import NovelTokenizer
from novelgpt.evaluation.dynamic import PROTOCOL, LearningCopy, score_adapted
from novelgpt.evaluation.evaluation import (
    Evaluation,
    Scores,
    evaluation_batches,
    make_scorer,
    score_batches,
    scored_places,
)
from novelgpt.evaluation.yardsticks import compare_losses, measure_counting
from novelgpt.messages import EXIT_INPUT, EXIT_USAGE, UserError, say, warn

HEADING = 40  # characters
FIGURES = ("loss", "perplexity", "accuracy", "nats_per_character", "bits_per_character")


@dataclasses.dataclass(frozen=True)
class Span:
    """Characters that were read as one, nearly always a single one; nats is NaN where nothing was scored."""

    text: str
    nats: float


@dataclasses.dataclass(frozen=True)
class Text:
    """A text to score: what it is called, its tokens, and how many characters they stand for."""

    name: str
    stream: TokenStream
    characters: int


class Measure:
    """A model ready to score texts by one protocol."""

    def __init__(
        self,
        model,
        tokenizer: NovelTokenizer,
        *,
        stride: int | None,
        batch_size: int = 8,
        precision: str = "fp32",
        adapt: bool = False,
    ):
        """Check the protocol.

        Args:
            model, tokenizer: GPT2LMHeadModel in fp32 on its device, left as it is, and its tokenizer.
            stride: tokens between windows, at most the context; None for half of it.
            batch_size: windows per pass; has no influence on the result.
            precision: "auto", "bf16", "fp16" or "fp32".
            adapt: score by a copy that learns as it reads too, each text and chapter from the trained weights on.

        Raises:
            UserError: a stride beyond the context, or a precision that the device lacks.
        """
        # every window is a full context long; the stride decides how much of it is only read, not scored
        window = model.config.n_positions  # tokens
        stride = max(1, window // 2) if stride is None else stride
        if stride > window:
            raise UserError(f"--stride {stride}: longer than the context of {window}", f"--stride {window}", EXIT_USAGE)
        self.tokenizer = tokenizer
        self.device = next(model.parameters()).device
        self.cut = {"window": window, "stride": stride, "batch_size": batch_size}  # tokens, tokens, rows
        self.precision = precision
        self.scorer = make_scorer(model, precision)
        self.learner = LearningCopy(model, precision=precision) if adapt else None

    def find_texts(
        self,
        text: str | list[str] | None,
        path: str | Path | list[str | Path] | None,
        pieces: str | Path,
        *,
        encoding: str | None = None,
        force_encoding: bool = False,
        model: str | None = None,
    ) -> list[Text]:
        """Return the texts to score: the sentence, the file, each file of the folder, else what training held out.

        A file is cleaned as clr_ctrl.py does, but a .json holds clean documents already; model is for hints.

        Raises:
            UserError: both a sentence and a path, or what read_book and held_out raise.
        """
        if text is not None and path:
            raise UserError("--text and --text_path: found both, expected one", "leave one out", EXIT_USAGE)
        if text is not None:
            return [make_text("--text", [text] if isinstance(text, str) else list(text), self.tokenizer)]
        if path:
            paths = [path] if isinstance(path, (str, Path)) else list(path)
            cleaning = CleaningOptions(encoding=encoding, force_encoding=force_encoding)
            return [make_text(name_of(name), read_book(name, cleaning), self.tokenizer) for name in find_inputs(paths)]
        return [held_out(pieces, self.tokenizer, model)]

    def report(
        self, texts: list[Text], *, per_chapter: bool = False, page: Callable | None = None, **facts: object
    ) -> dict:
        """Score texts and return the report.

        Args:
            texts: at least one; with several the report has an entry for each under `texts`.
            per_chapter: score every chapter by itself too.
            page: called at the end with a title, the report and the spans of every chapter; None for no page.
            facts: further entries.
        """
        results, adapted, entries, chapters = [], [], [], []
        for text in texts:
            # the text as a whole; a page needs every token's figure, and takes its sum from the same pass
            result, spans = self.surprise_of(text) if page else (self.result_of(text.stream, text.characters), [])
            entry = {"name": text.name, **figures_of(result), "unknown_tokens": self.count_unknown(text)}
            if self.learner:
                adapted.append(self.adapted_of(text.stream, text.characters))
                entry |= adapted_figures(adapted[-1])
            if len(texts) > 1:
                say(f"{result.loss:.4f}  {text.name}")
            # its chapters, each in a pass of its own
            entry |= {"chapters": self.chapters_of(text)} if per_chapter else {}
            results, chapters = [*results, result], [*chapters, *spans]
            entries.append(entry)
        # all texts together: sums are added and means taken once, so a long text weighs more than a short one
        total = sum_evaluations(results)
        say_result(total)
        if self.learner:
            learned = sum_evaluations(adapted)
            say_adapted(learned, total.loss)
            facts |= {"adapted": True, **adapted_figures(learned), "adapted_protocol": PROTOCOL}
        if len(texts) > 1:
            facts["texts"] = entries
        elif per_chapter:
            facts["chapters"] = entries[0]["chapters"]
        unknown = sum(entry["unknown_tokens"] for entry in entries)
        report = {**figures_of(total), **self.cut, "precision": self.precision, "unknown_tokens": unknown, **facts}
        if page:
            page(", ".join(text.name for text in texts[:3]), report, chapters)
        return report

    def score(self, stream: TokenStream) -> Scores:
        """Score every token of one stream."""
        return score_batches(self.scorer, evaluation_batches(stream, **self.cut), self.device)

    def result_of(self, stream: TokenStream, characters: int) -> Evaluation:
        """Score one stream and add its tokens up."""
        nll, scored, right = self.score(stream).totals()
        return Evaluation(nll, scored, len(stream), characters, right)

    def adapted_of(self, stream: TokenStream, characters: int) -> Evaluation:
        """Score one stream by the copy that learns as it reads, and add its tokens up."""
        nll, scored, right = score_adapted(self.learner, stream, self.cut["window"], self.cut["stride"]).totals()
        return Evaluation(nll, scored, len(stream), characters, right)

    def surprise_of(self, text: Text) -> tuple[Evaluation, list[list[Span]]]:
        """Score one text and return the spans of each of its chapters."""
        scores = self.score(text.stream)
        _, scored, right = scores.totals()
        # the sum of exactly what the page shows; it differs from the sum batch by batch in the ninth digit
        nll = float(scores.nats.sum(dtype=np.float64))
        places = scored_places(len(text.stream), self.cut["window"], self.cut["stride"])
        chapters = find_chapters(text.stream.read(), places, scores.nats, self.tokenizer)
        return Evaluation(nll, scored, len(text.stream), text.characters, right), chapters

    def chapters_of(self, text: Text) -> list[dict]:
        """Score every chapter of a text by itself; the figure of an only one is the text's and is not said again."""
        chapters, streams = [], chapter_streams(text.stream, self.tokenizer)
        for part in streams:
            shown = self.tokenizer.show(part[1 : len(part) - 1])  # between the marks
            result = self.result_of(part, len(shown))
            heading = shown.split("\n")[0][:HEADING]
            figures = {"loss": result.loss, "accuracy": result.accuracy, "tokens": result.tokens}
            figures |= {"adapted_loss": self.adapted_of(part, len(shown)).loss} if self.learner else {}
            chapters.append({"heading": heading, **figures})
            if len(streams) > 1:
                say(f"{result.loss:.4f}  {heading}")
        return chapters

    def count_unknown(self, text: Text) -> int:
        """Count a text's [UNK], and warn when there are any, or when there is no token at all."""
        ids = text.stream.read()
        unknown = int(np.count_nonzero(ids == self.tokenizer.unk_id))
        if unknown:
            warn(f"{text.name}: {unknown:,} of {len(ids):,} tokens are [UNK]: not in the model's vocabulary")
        if len(ids) <= np.count_nonzero(ids == self.tokenizer.cls_id):
            warn(f"{text.name}: not one token in it; only the mark of its end is scored")
        return unknown

    def baseline(self, texts: list[Text], pieces_folder: str | Path, loss: float) -> dict:
        """Score the same tokens by counting the training pieces; return the figures for the report.

        Returns:
            baselines: nats per token of each yardstick, see yardsticks.py; ngram_loss and ngram_nats_per_character:
            those of its 4-grams. None for each where nothing is scored or there is too much to count.
        """
        # token ids mean the same in text and pieces only under one vocabulary
        pieces = open_pieces(pieces_folder, expect={"vocabulary_sha256": self.tokenizer.fingerprint})
        streams = [text.stream for text in texts]
        protocol = {"window": self.cut["window"], "stride": self.cut["stride"]}  # tokens
        counting = measure_counting(pieces.train, streams, vocab_size=self.tokenizer.vocab_size, **protocol)
        if counting is None:
            return {"baselines": None, "ngram_loss": None, "ngram_nats_per_character": None}
        say(compare_losses(loss, counting, advice="train longer, or on more text"))
        nats, characters = counting["kn4"] * sum(map(len, streams)), sum(text.characters for text in texts)
        per_character = nats / characters if characters else None
        return {"baselines": counting, "ngram_loss": counting["kn4"], "ngram_nats_per_character": per_character}


def make_text(name: str, documents: list[str], tokenizer: NovelTokenizer) -> Text:
    """Turn documents into a text to score."""
    return Text(name, text_stream(documents, tokenizer), sum(map(len, documents)))


def text_stream(documents: list[str], tokenizer: NovelTokenizer) -> TokenStream:
    """Return documents as one stream: [CLS] before each and after the last one."""
    return TokenStream([np.concatenate([*tokenizer.frame(map(tokenizer.encode_document, documents))])])


def chapter_streams(stream: TokenStream, tokenizer: NovelTokenizer) -> list[TokenStream]:
    """Cut a stream at its marks: each chapter with the [CLS] before and after it."""
    places = stream.find(tokenizer.cls_id)
    return [TokenStream([stream[first : last + 1]]) for first, last in itertools.pairwise(places)]


def held_out(folder: str | Path, tokenizer: NovelTokenizer, model: str | None = None) -> Text:
    """Return the held-out part of a piece set; UserError where it is damaged, of another vocabulary, or empty."""
    # the model's folder stands in the hint that tells how to make pieces for it
    expect = {"vocabulary_sha256": tokenizer.fingerprint} | ({"vocabulary_path": model} if model else {})
    pieces = open_pieces(folder, expect=expect)
    if len(pieces.valid) < 2:
        raise UserError(f"{folder}: nothing is held out", pieces.command(valid_fraction=0.05), EXIT_INPUT)
    return Text(f"held out of {folder}", pieces.valid, pieces.manifest["valid"]["characters"])


def sum_evaluations(results: list[Evaluation]) -> Evaluation:
    """Add the evaluations of several texts up."""
    return Evaluation(*map(sum, zip(*map(dataclasses.astuple, results), strict=True)))


def figures_of(result: Evaluation) -> dict:
    """Return an evaluation as JSON values; a figure of an empty text is None."""
    figures = {name: getattr(result, name) for name in FIGURES}  # JSON knows neither nan nor infinity
    return {
        **{name: value if math.isfinite(value) else None for name, value in figures.items()},
        "scored_tokens": result.scored,
        "tokens": result.tokens,
        "characters": result.characters,
    }


def adapted_figures(result: Evaluation) -> dict:
    """Return the evaluation of a copy that learned as it read as JSON values, under names of their own."""
    names, figures = ("loss", "nats_per_character", "bits_per_character"), figures_of(result)
    return {f"adapted_{name}": figures[name] for name in names}


def say_adapted(result: Evaluation, loss: float) -> None:
    """Print the result of a copy that learned as it read beside the loss of the model as it is."""
    change, bits = result.loss - loss, result.bits_per_character
    say(f"learning as it reads: loss {result.loss:.4f} ({change:+.4f}) bits per character {bits:.4f}")


def say_result(result: Evaluation) -> None:
    """Print a result as one line for people."""
    figures = f"loss {result.loss:.4f} perplexity {result.perplexity:.2f} accuracy {result.accuracy:.2%}"
    say(f"{figures} bits per character {result.bits_per_character:.4f}")


def find_chapters(ids: np.ndarray, places: np.ndarray, nats: np.ndarray, tokenizer: NovelTokenizer) -> list[list[Span]]:
    """Return the spans of each chapter of a text: of ids (N,) between two [CLS], scored at places (S,) by nats (S,)."""
    every = np.full(len(ids), np.nan, np.float32)  # (N,)
    every[places] = nats
    # two marks in a row enclose no chapter
    marks = np.flatnonzero(ids == tokenizer.cls_id)
    cuts = [(first + 1, last) for first, last in itertools.pairwise(marks) if last > first + 1]
    return [find_spans(ids[first:last], every[first:last], tokenizer) for first, last in cuts]


def find_spans(ids: Sequence[int], nats: Iterable[float], tokenizer: NovelTokenizer) -> list[Span]:
    """Turn the tokens of a chapter into the characters that people read: a mark as its name, [SEP] as a line break."""
    stream, spans, held = tokenizer.stream(), [], 0.0
    names = {index: name for name, index in tokenizer.marks.items()}
    for token_id, value in zip(map(int, ids), map(float, nats), strict=True):
        # the stream keeps the bytes of an unfinished character back; their nats are held until it comes out
        text, held = stream.push(token_id), held + value
        text = text or names.get(token_id, "")
        if text:
            spans.append(Span(text, held))
            held = 0.0
    rest = stream.flush()
    # bytes that never became a character show as a replacement sign
    return [*spans, Span(rest, held)] if rest else spans
