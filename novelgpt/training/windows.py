"""Token pieces -> shuffled stride windows -> batches -> some inputs replaced, as pure functions of (seed, epoch, step).

::

    tokens   0 1 2 3 4 5 6 7 8 9          window 4, stride 2, phase 0
             [-----]                      start 0
                 [-----]                  start 2
                     [-----]              start 4
                         [-----]          start 6: the last one ends on the last token

The order of an epoch depends on nothing but the seed and the epoch, so resuming after a stop means skipping.

A text that is read a few times teaches the network each time. One that is read thirty times, as 15 epochs of
half-overlapping windows do, is learned by heart unless reading is made harder: some input tokens are then replaced by
random ones. docs/LOG.md has the measurements.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

IGNORED = -100  # a label that is not scored
FRESH_READINGS = 4  # readings of a text that teach about as much as new text (arXiv 2305.16264)
REPLACED = 0.15  # share of the inputs
REPLACEMENT_STREAM = 2  # third word of the seed, so that no other random numbers of the step are the same


class Stream(Protocol):
    """Tokens laid end to end: what corpus.pieces.TokenStream offers."""

    def __len__(self) -> int: ...

    def gather(self, starts: np.ndarray, length: int) -> np.ndarray: ...


@dataclass(frozen=True)
class Batch:
    """One global batch.

    Attributes:
        input_ids: (B, T) int64.
        labels: (B, T) int64 aligned with the inputs; -100 = not scored; the model shifts.
        starts: (B,) int64, the position of each row's first token in the stream (the record's number for rows).
        is_windows: every row is a whole window of the stream and all of it is scored.
    """

    input_ids: np.ndarray
    labels: np.ndarray
    starts: np.ndarray
    is_windows: bool = False


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
    """Return the window starts of one epoch in training order.

    Args:
        num_tokens, window, stride: as in window_starts.
        seed: any whole number from 0.
        epoch: counted from 1.
        random_phase: move the grid anew in every epoch, so that windows do not repeat.

    Returns:
        int64 (W,), a permutation of the epoch's windows.
    """
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
    """Cut windows out of a stream; a stream shorter than a window is padded with unscored labels.

    Args:
        stream: the tokens.
        starts: (B,) int64.
        window: tokens a row.
    """
    length = min(window, len(stream))
    rows = stream.gather(starts, length).astype(np.int64)  # (B, length)
    input_ids = np.zeros((len(starts), window), dtype=np.int64)  # (B, T)
    labels = np.full((len(starts), window), IGNORED, dtype=np.int64)  # (B, T)
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
    """Yield the batches of one epoch; the last one may be short.

    Args:
        skip: batches at the beginning that are already done.
    """
    starts = epoch_starts(len(stream), window, stride, seed=seed, epoch=epoch, random_phase=random_phase)  # (W,)
    for first in range(skip * batch_size, len(starts), batch_size):
        yield make_batch(stream, starts[first : first + batch_size], window)


def default_replacement(readings: float, *, pretrained: bool) -> float:
    """Return the share of inputs to exchange for a text read so many times in a run: epochs · window / stride.

    >>> default_replacement(30, pretrained=False), default_replacement(2, pretrained=False)
    (0.15, 0.0)
    """
    return 0.0 if pretrained or readings <= FRESH_READINGS else REPLACED


def replace_inputs(batch: Batch, share: float, *, seed: int, step: int) -> Batch:
    """Exchange some tokens that the network reads for random ones of the same batch; what it shall write stays.

    Args:
        batch: a global batch, not yet split.
        share: chance of each input token to be exchanged, 0 to 1.
        seed, step: the result is a function of them, however the batch is split afterwards.

    Returns:
        A batch with the same labels.

    >>> ids = np.arange(6).reshape(2, 3)
    >>> noisy = replace_inputs(Batch(ids, ids, np.zeros(2)), 0.5, seed=0, step=1)
    >>> bool((noisy.input_ids != ids).any()), bool((noisy.labels == ids).all())
    (True, True)
    """
    random = np.random.Generator(np.random.SFC64([seed, step, REPLACEMENT_STREAM]))

    # drawn from the batch itself, so that frequent tokens stand in as often as they are read
    ids = batch.input_ids  # (B, T)
    drawn = ids.ravel()[random.integers(ids.size, size=ids.shape)]
    is_exchanged = random.random(ids.shape, dtype=np.float32) < share
    return replace(batch, input_ids=np.where(is_exchanged, drawn, ids), is_windows=False)
