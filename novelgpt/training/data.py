"""What a run is trained on, as the loop sees it: batches of an epoch, batches to evaluate, and how many there are.

There are two kinds: WindowData here (stride windows over pieces) and RowData in rows.py (one text a record). The loop
does not know which one it has.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from novelgpt.corpus.pieces import Pieces, TokenStream
from novelgpt.corpus.tokenizers import NovelTokenizer
from novelgpt.evaluation import Evaluation, evaluation_batches, score_ngram
from novelgpt.training.windows import Batch, count_steps, count_windows, epoch_batches, epoch_phase

OPENING_TOKENS = 12  # of the book's opening, for the sample after each epoch


class TrainingData(Protocol):
    """Either kind of data.

    Attributes:
        mark: only what follows this token is scored; None where all is.
        stream: the tokens that batches of whole windows are cut from; None where there are none such.
        num_tokens: different tokens to learn from.
        step_tokens: tokens that a step computes on average.
        num_valid: tokens held out; fewer than 2 cannot be scored.
        valid_characters: characters of the held-out text.
    """

    mark: str | None
    stream: TokenStream | None
    num_tokens: int
    step_tokens: float
    num_valid: int
    valid_characters: int

    # what the loop asks for

    def count_steps(self, epochs: int) -> list[int]:
        """Return the optimizer steps of every epoch."""

    def epoch_batches(self, epoch: int, *, skip: int = 0) -> Iterator[Batch]:
        """Yield the batches of an epoch, counted from 1, without those that are already done."""

    def valid_batches(self) -> Iterator[Batch]:
        """Yield the held-out text in batches that score every token once."""

    def score_ngram(self, vocab_size: int) -> Evaluation | None:
        """Score the held-out text by a 4-gram of the training text; None where there is none or it takes too long."""

    # what run.json and the model folders keep, as plain JSON values

    def identity(self) -> dict:
        """Return what a run's result depends on here."""

    def corpus_facts(self) -> dict:
        """Return what ties a model folder to its corpus."""

    # words for people

    def describe_counts(self) -> tuple[str, str]:
        """Describe how much is trained on and how much is held out."""

    def describe_batch(self) -> str:
        """Describe what a batch is made of."""

    def describe_places(self, batch: Batch) -> str:
        """Describe where a batch lies in the text."""

    def opening(self, tokenizer: NovelTokenizer) -> str:
        """Return a beginning for the sample after each epoch."""


@dataclass(frozen=True)
class WindowData:
    """Windows of a stream of documents; see TrainingData for its members.

    Attributes:
        pieces: tokens to train on, tokens held out, manifest.
        window, stride: tokens.
        batch_size: rows a step.
        seed: the order of an epoch is a function of it.
        random_phase: move the grid of windows in every epoch.
    """

    pieces: Pieces
    window: int
    stride: int
    batch_size: int
    seed: int
    random_phase: bool

    mark = None  # all of the text is scored

    @property
    def num_tokens(self) -> int:
        return len(self.pieces.train)

    @property
    def step_tokens(self) -> float:
        return self.batch_size * self.window

    @property
    def stream(self) -> TokenStream:
        return self.pieces.train

    @property
    def num_valid(self) -> int:
        return len(self.pieces.valid)

    @property
    def valid_characters(self) -> int:
        return self.pieces.manifest["valid"]["characters"]

    def count_steps(self, epochs: int) -> list[int]:
        # exact, so that the schedule ends where training ends; every epoch has its own grid
        phases = [
            epoch_phase(self.seed, epoch, self.stride) if self.random_phase else 0 for epoch in range(1, epochs + 1)
        ]
        windows = [count_windows(self.num_tokens, self.window, self.stride, phase) for phase in phases]
        return [count_steps(count, self.batch_size) for count in windows]

    def epoch_batches(self, epoch: int, *, skip: int = 0) -> Iterator[Batch]:
        settings = {"seed": self.seed, "epoch": epoch, "random_phase": self.random_phase, "skip": skip}
        return epoch_batches(self.pieces.train, self.window, self.stride, self.batch_size, **settings)

    def valid_batches(self) -> Iterator[Batch]:
        rows = evaluation_batches(self.pieces.valid, self.window, self.stride, self.batch_size)
        return (Batch(*part) for part in rows)

    def score_ngram(self, vocab_size: int) -> Evaluation | None:
        sizes = {"vocab_size": vocab_size, "characters": self.valid_characters}
        return score_ngram(self.pieces.train, self.pieces.valid, **sizes)

    def identity(self) -> dict:
        manifest = self.pieces.manifest
        names = ("valid_fraction", "min_length")
        return {"corpus": manifest["source"]["sha256"], **{name: manifest["options"][name] for name in names}}

    def corpus_facts(self) -> dict:
        manifest = self.pieces.manifest
        return {key: manifest["source"].get(key) for key in ("path", "sha256")} | {"train": manifest["train"]}

    def describe_counts(self) -> tuple[str, str]:
        parts = (self.pieces.manifest[name] for name in ("train", "valid"))
        train, valid = (f"{part['documents']:,} documents, {part['tokens']:,} tokens" for part in parts)
        return train, valid

    def describe_batch(self) -> str:
        return f"windows of {self.window} tokens every {self.stride}, {self.batch_size} a step"

    def describe_places(self, batch: Batch) -> str:
        return f"windows at tokens {', '.join(map(str, batch.starts[:8]))}"

    def opening(self, tokenizer: NovelTokenizer) -> str:
        """Return the first words of the text."""
        return tokenizer.decode(self.pieces.train[1 : 1 + OPENING_TOKENS]).split("\n")[0]
