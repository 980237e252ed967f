"""What a run is trained on, as the loop sees it: batches of an epoch, batches to evaluate, and words about both.

Two kinds with the same attributes and methods: WindowData here (stride windows over pieces) and RowData in rows.py (one
text a record). The loop does not know which it has.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from novelgpt.corpus.pieces import Pieces
from novelgpt.corpus.stream import TokenStream
from novelgpt.corpus.tokenizers import NovelTokenizer
from novelgpt.evaluation import Evaluation, evaluation_batches, score_ngram
from novelgpt.training.windows import Batch, epoch_batches

OPENING_TOKENS = 12  # of the book's opening, for the sample after each epoch


@dataclass(frozen=True)
class WindowData:
    """Windows of a stream of documents.

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

    mark = None  # scores all of the text

    @property
    def num_tokens(self) -> int:
        """Different tokens to learn from."""
        return len(self.pieces.train)

    @property
    def step_tokens(self) -> float:
        """Tokens that a step computes on the average."""
        return self.batch_size * self.window

    @property
    def stream(self) -> TokenStream:
        """The tokens that batches of whole windows are cut from; None where there are none such."""
        return self.pieces.train

    @property
    def num_valid(self) -> int:
        """Tokens held out; fewer than 2 cannot be scored."""
        return len(self.pieces.valid)

    @property
    def valid_characters(self) -> int:
        """Characters of the held-out text."""
        return self.pieces.manifest["valid"]["characters"]

    def epoch_batches(self, epoch: int, *, skip: int = 0) -> Iterator[Batch]:
        """Yield the batches of an epoch, counted from 1, without those that are already done."""
        settings = {"seed": self.seed, "epoch": epoch, "random_phase": self.random_phase, "skip": skip}
        return epoch_batches(self.pieces.train, self.window, self.stride, self.batch_size, **settings)

    def valid_batches(self) -> Iterator[Batch]:
        """Yield the held-out text in batches that score every token once."""
        rows = evaluation_batches(self.pieces.valid, self.window, self.stride, self.batch_size)
        return (Batch(*part) for part in rows)

    def score_ngram(self, vocab_size: int) -> Evaluation | None:
        """Score the held-out text by a 4-gram of the training text; None where that would take too long."""
        sizes = {"vocab_size": vocab_size, "characters": self.valid_characters}
        return score_ngram(self.pieces.train, self.pieces.valid, **sizes)

    def identity(self) -> dict:
        """Return what a run's result depends on here, as plain JSON values."""
        manifest = self.pieces.manifest
        names = ("valid_fraction", "min_length")
        return {"corpus": manifest["source"]["sha256"], **{name: manifest["options"][name] for name in names}}

    def corpus_facts(self) -> dict:
        """Return what ties a model folder to its corpus."""
        manifest = self.pieces.manifest
        return {key: manifest["source"].get(key) for key in ("path", "sha256")} | {"train": manifest["train"]}

    def counts(self) -> tuple[str, str]:
        """Say how much is trained on and how much is held out."""
        parts = (self.pieces.manifest[name] for name in ("train", "valid"))
        train, valid = (f"{part['documents']:,} documents, {part['tokens']:,} tokens" for part in parts)
        return train, valid

    def batch_words(self) -> str:
        """Say what a batch is made of."""
        return f"windows of {self.window} tokens every {self.stride}, {self.batch_size} a step"

    def places(self, batch: Batch) -> str:
        """Say where a batch lies in the text."""
        return f"windows at tokens {', '.join(map(str, batch.starts[:8]))}"

    def opening(self, tokenizer: NovelTokenizer) -> str:
        """Return a beginning for the sample after each epoch: the first words of the text."""
        return tokenizer.decode(self.pieces.train[1 : 1 + OPENING_TOKENS]).split("\n")[0]
