"""Token pieces -> shuffled stride windows -> batches, pure functions of (seed, epoch, step) -> tensors on the device.

::

    tokens   0 1 2 3 4 5 6 7 8 9          window 4, stride 2, phase 0
             [-----]                      start 0
                 [-----]                  start 2
                     [-----]              start 4
                         [-----]          start 6: the last one ends on the last token

The order of an epoch depends on nothing but the seed and the epoch, so resuming after a stop means skipping. The loop
does not know whether its batches are these windows (WindowData) or records (RowData in rows.py).

On a GPU the whole corpus lies in its memory as 16-bit numbers when it fits (a novel takes 10 MB), so that only the
starts of the windows and the replaced inputs travel; otherwise all rows come through pinned memory.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, cached_property, partial
from itertools import pairwise
from typing import Protocol

import numpy as np
import torch

from novelgpt.corpus.headings import read_heading, read_numbered
from novelgpt.evaluation import NOT_SCORED, compare_losses, evaluation_batches, measure_counting

FRESH_READINGS = 4  # readings of a text that teach about as much as new text (arXiv 2305.16264)
REPLACED = 0.15  # share of the inputs
SHARE_FOR_CORPUS = 8  # of a GPU's free memory, at most one part in this many for the corpus
OPENING_SEARCHED = 10_000  # tokens within which the first chapter is looked for
LOOKED_AT = 5_000_000  # tokens whose style is measured, and in which copies are looked for
OPENING_TOKENS = 12  # of the book's opening, for the sample after each epoch


class Stream(Protocol):
    """Tokens laid end to end: what corpus.pieces.TokenStream offers."""

    dtype: np.dtype

    def __len__(self) -> int: ...

    def __getitem__(self, span: slice) -> np.ndarray: ...

    def gather(self, starts: np.ndarray, length: int) -> np.ndarray: ...

    def read(self) -> np.ndarray: ...


class PieceSet(Protocol):
    """Tokens to train on, tokens held out and what is known of them: what corpus.pieces.Pieces offers."""

    train: Stream
    valid: Stream
    manifest: dict


@dataclass(frozen=True)
class Batch:
    """One global batch."""

    input_ids: np.ndarray  # (B, T) int64
    labels: np.ndarray  # (B, T) int64 aligned with the inputs; -100 = not scored; the model shifts
    starts: np.ndarray  # (B,) int64, each row's first token in the stream (the record's number for rows)
    is_windows: bool = False  # every row of the labels is a whole window of the stream


def window_starts(num_tokens: int, window: int, stride: int, phase: int = 0) -> np.ndarray:
    """Return the first token of every window, so that each token lies in at least one.

    Args:
        num_tokens: length of the stream, from 0.
        window: tokens a window, from 1.
        stride: tokens between starts, 1 to window.
        phase: how far the grid is moved to the left, 0 to stride - 1; the first window then still starts at 0.

    Returns:
        int64 (W,), ascending. A stream shorter than a window has the one start 0; an empty one has none.

    >>> window_starts(10, 4, 2).tolist()
    [0, 2, 4, 6]
    >>> window_starts(10, 4, 3, phase=1).tolist()
    [0, 2, 5, 6]
    """
    if num_tokens <= window:
        return np.zeros(min(num_tokens, 1), dtype=np.int64)
    last = num_tokens - window
    grid = np.arange(-phase, last + stride, stride, dtype=np.int64).clip(0, last)  # ascending, ends may repeat
    return grid[np.append(True, np.diff(grid) > 0)]


def epoch_phase(seed: int, epoch: int, stride: int) -> int:
    """Return an epoch's random shift of the stride grid, 0 to stride - 1; epoch 1 has none."""
    return 0 if epoch == 1 else int(np.random.default_rng([seed, epoch, 1]).integers(stride))


def epoch_starts(
    num_tokens: int, window: int, stride: int, *, seed: int, epoch: int, random_phase: bool = True
) -> np.ndarray:
    """Return the window starts of one epoch, int64 (W,), in training order."""
    phase = epoch_phase(seed, epoch, stride) if random_phase else 0
    starts = window_starts(num_tokens, window, stride, phase)
    return starts[np.random.default_rng([seed, epoch, 0]).permutation(len(starts))]


def count_windows(num_tokens: int, window: int, stride: int, phase: int = 0) -> int:
    """Count what window_starts returns, without making it.

    >>> count_windows(10, 4, 3, phase=1) == len(window_starts(10, 4, 3, phase=1))
    True
    """
    if num_tokens <= window:
        return min(num_tokens, 1)
    last = num_tokens - window
    return 1 + -(-(last + phase) // stride)


def count_steps(num_windows: int, batch_size: int) -> int:
    """Count the steps of an epoch; the last batch may be short.

    >>> count_steps(17, 8)
    3
    """
    return -(-num_windows // batch_size)


def make_batch(stream: Stream, starts: np.ndarray, window: int) -> Batch:
    """Cut windows out of a stream; a stream shorter than a window is padded with unscored labels."""
    length = min(window, len(stream))
    rows = stream.gather(starts, length).astype(np.int64)  # (B, length)
    input_ids = np.zeros((len(starts), window), dtype=np.int64)  # (B, T)
    labels = np.full((len(starts), window), NOT_SCORED, dtype=np.int64)  # (B, T)
    input_ids[:, :length] = rows
    labels[:, :length] = rows
    return Batch(input_ids, labels, starts, is_windows=length == window)


def epoch_batches(
    stream: Stream,
    window: int,
    stride: int,
    batch_size: int,
    *,
    seed: int,
    epoch: int,
    random_phase: bool = True,
    skip: int = 0,
) -> Iterator[Batch]:
    """Yield the batches of one epoch without those to skip; the last one may be short."""
    starts = epoch_starts(len(stream), window, stride, seed=seed, epoch=epoch, random_phase=random_phase)  # (W,)
    for first in range(skip * batch_size, len(starts), batch_size):
        yield make_batch(stream, starts[first : first + batch_size], window)


def default_replacement(readings: float, *, pretrained: bool) -> float:
    """Return the share of inputs to exchange for a text read so many times in a run: epochs · window / stride.

    >>> default_replacement(30, pretrained=False), default_replacement(2, pretrained=False)
    (0.15, 0.0)
    """
    return 0.0 if pretrained or readings <= FRESH_READINGS else REPLACED


class TrainingData(Protocol):
    """What a run is trained on, as the loop sees it; RowData in rows.py is the other kind beside WindowData."""

    mark: str | None  # only what follows this token is scored; None where all is
    stream: Stream | None  # the tokens that batches of whole windows are cut from; None where there are none such
    num_tokens: int  # different tokens to learn from
    num_rows: int  # windows or records of an epoch
    step_tokens: float  # tokens that a step computes on average
    num_valid: int  # tokens held out; fewer than 2 cannot be scored
    valid_characters: int  # characters of the held-out text

    # what the loop asks for

    def count_steps(self, epochs: int) -> list[int]:
        """Return the optimizer steps of every epoch."""

    def epoch_batches(self, epoch: int, *, skip: int = 0) -> Iterator[Batch]:
        """Yield the batches of an epoch, counted from 1, without those that are already done."""

    def valid_batches(self) -> Iterator[Batch]:
        """Yield the held-out text in batches that score every token once."""

    def yardsticks(self, vocab_size: int) -> dict[str, float] | None:
        """Return what counts of the training text give for the held-out one, nats per token of each yardstick.

        None where nothing is counted or it takes too long; counted once however often it is asked for.
        """

    def compare_with_ngram(self, loss: float, vocab_size: int, advice: str) -> str | None:
        """Compare a held-out loss with those counts, with advice for a loss that is no better; None without counts."""

    def documents(self, show: Callable[[np.ndarray], str]) -> list[str]:
        """Return the documents to learn from as people read them, in the first LOOKED_AT tokens."""

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

    def opening(self, decode: Callable[[np.ndarray], str]) -> str:
        """Return a beginning for the sample after each epoch."""


@dataclass(frozen=True)
class WindowData:
    """Windows of a stream of documents; see TrainingData for its members."""

    pieces: PieceSet
    window: int  # tokens
    stride: int  # tokens
    batch_size: int  # rows a step
    seed: int  # the order of an epoch is a function of it
    random_phase: bool  # move the grid of windows in every epoch

    mark = None  # all of the text is scored

    @property
    def num_tokens(self) -> int:
        return len(self.pieces.train)

    @property
    def num_rows(self) -> int:
        return count_windows(self.num_tokens, self.window, self.stride, 0)

    @property
    def step_tokens(self) -> float:
        return self.batch_size * self.window

    @property
    def stream(self) -> Stream:
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

    @property
    def valid_stride(self) -> int:
        """Return the tokens between windows of the held-out text: half a window at most, as eval.py scores it."""
        return min(self.stride, max(1, self.window // 2))

    def valid_batches(self) -> Iterator[Batch]:
        rows = evaluation_batches(self.pieces.valid, self.window, self.valid_stride, self.batch_size)
        return (Batch(*part) for part in rows)

    @cached_property
    def count(self) -> Callable:
        """Score the held-out text by counts of the training text, once however often it is asked for."""
        texts = self.pieces.train, [self.pieces.valid]
        return cache(partial(measure_counting, *texts, window=self.window, stride=self.valid_stride))

    def yardsticks(self, vocab_size: int) -> dict[str, float] | None:
        return self.count(vocab_size=vocab_size)

    def compare_with_ngram(self, loss: float, vocab_size: int, advice: str) -> str | None:
        counting = self.count(vocab_size=vocab_size)
        return None if counting is None else compare_losses(loss, counting, advice=advice)

    def documents(self, show: Callable[[np.ndarray], str]) -> list[str]:
        ids = self.pieces.train[:LOOKED_AT]
        parts = np.split(ids, np.flatnonzero(ids == ids[0]))  # at their marks
        return [text for part in parts if (text := show(part))]

    def identity(self) -> dict:
        manifest = self.pieces.manifest
        names = ("valid_fraction", "min_length")
        return {"corpus": manifest["source"]["sha256"], **{name: manifest["options"][name] for name in names}}

    def corpus_facts(self) -> dict:
        manifest = self.pieces.manifest
        return {key: manifest["source"].get(key) for key in ("path", "sha256")} | {"train": manifest["train"]}

    def describe_counts(self) -> tuple[str, str]:
        parts = (self.pieces.manifest[name] for name in ("train", "valid"))
        train, valid = (
            f"1 document, {part['tokens']:,} tokens"
            if part["documents"] == 1
            else f"{part['documents']:,} documents, {part['tokens']:,} tokens"
            for part in parts
        )
        return train, valid

    def describe_batch(self) -> str:
        return f"windows of {self.window} tokens every {self.stride}, {self.batch_size} a step"

    def describe_places(self, batch: Batch) -> str:
        return f"windows at tokens {', '.join(map(str, batch.starts[:8]))}"

    def opening(self, decode: Callable[[np.ndarray], str]) -> str:
        """Return the first words of the text, or of its first chapter where a blurb or a preface stands before it."""
        head = self.pieces.train[:OPENING_SEARCHED]
        starts = [*np.flatnonzero(head == head[0])[:3].tolist(), len(head)]  # of documents: their marks
        begins = (head[start + 1 : min(start + 1 + OPENING_TOKENS, end)] for start, end in pairwise(starts[:3]))
        lines = [decode(ids).split("\n")[0] for ids in begins]
        return next((line for line in lines if read_heading(line) or read_numbered(line)), lines[0])


def load_corpus(stream: Stream | None, device: torch.device) -> torch.Tensor | None:
    """Return the stream as int16 or int32 (N,) on a GPU; None on other devices or where it has no use or no room."""
    if stream is None or device.type != "cuda":
        return None

    # it must leave room for the activations, which are not there yet
    free, _total = torch.cuda.mem_get_info(device)
    if len(stream) * stream.dtype.itemsize > free // SHARE_FOR_CORPUS:
        return None
    return to_signed(stream.read()).to(device)


def to_signed(tokens: np.ndarray) -> torch.Tensor:
    """Return uint16 or uint32 ids as the signed tensor with the same bits."""
    return torch.from_numpy(tokens.view(np.int16 if tokens.dtype == np.uint16 else np.int32))


def cut_windows(corpus: torch.Tensor, starts: torch.Tensor, window: int) -> torch.Tensor:
    """Cut windows (B, window) int64 at starts (B,) int64 out of a corpus (N,) of int16 or int32 on its own device."""
    places = starts[:, None] + torch.arange(window, device=corpus.device)  # (B, T)
    mask = 0xFFFF if corpus.dtype == torch.int16 else 0xFFFFFFFF  # the ids are unsigned
    return corpus[places].long() & mask  # (B, T)


def rows_to_device(
    batch: Batch, rows: range, device: torch.device, corpus: torch.Tensor | None, *, least: int = 1
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return input ids and labels (B, T) int64 of some rows, filled up to the least with rows that count nothing.

    A process without rows computes one such row, so that all meet in the pass.
    """
    count = max(len(rows), least)
    pick = slice(rows.start, rows.stop)
    if count > len(rows):
        pick = np.full(count, rows.start if len(rows) else 0)
        pick[: len(rows)] = rows

    # from the corpus on the device, where of the inputs only those travel that are replaced; or all by way of the host
    input_ids, labels = batch.input_ids[pick], batch.labels[pick]  # (B, T)
    if corpus is not None and batch.is_windows:
        windows = cut_windows(corpus, send(batch.starts[pick], device), labels.shape[1])  # (B, T)
        places = np.flatnonzero(input_ids != labels)  # (K,)
        values = send(input_ids.ravel()[places], device)
        input_ids = windows.flatten().index_copy(0, send(places, device), values).view_as(windows)
        labels = windows  # not the same object, as by the other way: a compiled network would tell them apart
    else:
        input_ids, labels = send(input_ids, device), send(labels, device)
    if count > len(rows):
        labels[len(rows) :] = NOT_SCORED
    return input_ids, labels


def send(array: np.ndarray, device: torch.device) -> torch.Tensor:
    """Bring numbers to a device; the host does not wait for a GPU."""
    tensor = torch.from_numpy(array)
    return (tensor.pin_memory() if device.type == "cuda" else tensor).to(device, non_blocking=True)
