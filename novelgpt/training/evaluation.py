"""Held-out text -> loss, perplexity, accuracy and bits per character, by a stated window and stride.

Window k reads tokens k·S … k·S+T and scores those that no earlier window has scored, so with S < T every token but the
first is scored once, after at least T - S tokens of context; the last window is short. (The protocol of the
transformers documentation for fixed-length models.)
"""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch

from novelgpt.training.windows import IGNORED, Batch, Stream


@dataclass(frozen=True)
class Evaluation:
    """The result of scoring a text.

    Attributes:
        nll: nats, summed over scored tokens.
        scored: how many tokens were scored.
        tokens: how many tokens the text has.
        characters: how many characters it has.
        right: how many scored tokens were the likeliest by the model.
    """

    nll: float
    scored: int
    tokens: int
    characters: int
    right: int = 0

    @property
    def loss(self) -> float:
        """Nats per scored token."""
        return self.nll / self.scored if self.scored else math.nan

    @property
    def perplexity(self) -> float:
        """exp(loss)."""
        return math.exp(min(self.loss, 700)) if self.scored else math.nan

    @property
    def accuracy(self) -> float:
        """Share of the scored tokens that the model held for the likeliest, 0 to 1."""
        return self.right / self.scored if self.scored else math.nan

    @property
    def nats_per_character(self) -> float:
        """Loss carried over from tokens to characters: comparable between vocabularies."""
        return self.loss * self.tokens / self.characters if self.characters else math.nan

    @property
    def bits_per_character(self) -> float:
        """Nats per character / ln 2."""
        return self.nats_per_character / math.log(2)


def evaluation_starts(num_tokens: int, window: int, stride: int) -> np.ndarray:
    """Return the window starts: multiples of the stride until a window reaches the end; none for fewer than 2 tokens.

    >>> evaluation_starts(10, 4, 3).tolist()
    [0, 3, 6]
    """
    if num_tokens < 2:
        return np.zeros(0, dtype=np.int64)
    return np.arange(0, max(1, num_tokens - window + stride), stride, dtype=np.int64)


def evaluation_batches(stream: Stream, window: int, stride: int, batch_size: int) -> Iterator[Batch]:
    """Yield batches in which every token is scored at most once."""
    starts = evaluation_starts(len(stream), window, stride)
    for first in range(0, len(starts), batch_size):
        rows = [evaluation_row(stream, int(start), window, stride) for start in starts[first : first + batch_size]]
        input_ids, labels = (np.stack(part) for part in zip(*rows, strict=True))
        yield Batch(input_ids, labels, starts[first : first + batch_size])


def evaluation_row(stream: Stream, start: int, window: int, stride: int) -> tuple[np.ndarray, np.ndarray]:
    """Return one padded window and its labels, (T,) int64 each."""
    length = min(window, len(stream) - start)
    tokens = stream.gather(np.array([start]), length)[0]
    input_ids = np.zeros(window, dtype=np.int64)
    labels = np.full(window, IGNORED, dtype=np.int64)
    input_ids[:length] = tokens
    seen = 0 if start == 0 else window - stride  # scored by the window before
    labels[seen:length] = tokens[seen:]
    return input_ids, labels


def evaluate_stream(
    score: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    stream: Stream,
    *,
    window: int,
    stride: int,
    batch_size: int,
    characters: int,
    device: torch.device,
) -> Evaluation:
    """Score a stream.

    Args:
        score: (input_ids, labels) -> the two sums of loss.sum_scores; called without gradients.
        stream: the tokens.
        window, stride: tokens; stride at most window.
        batch_size: rows a forward pass.
        characters: characters of the text behind the stream.
        device: where the batches go.
    """
    batches = evaluation_batches(stream, window, stride, batch_size)
    return evaluate_batches(score, batches, tokens=len(stream), characters=characters, device=device)


def evaluate_batches(
    score: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    batches: Iterable[Batch],
    *,
    tokens: int,
    characters: int,
    device: torch.device,
    interrupted: Callable[[], bool] = lambda: False,
    rank: int = 0,
    world: int = 1,
) -> Evaluation | None:
    """Score batches.

    Args:
        score, characters, device: as of evaluate_stream.
        batches: of the text.
        tokens: of the text behind the batches.
        interrupted: asked between batches; True gives up.
        rank, world: this process scores every world-th batch; the caller adds the parts up.

    Returns:
        The evaluation (of this process's part), or None when interrupted.
    """
    sums = torch.zeros(2, dtype=torch.float64)  # nats, right tokens
    scored = 0
    with torch.no_grad():
        for number, batch in enumerate(batches):
            if interrupted():
                return None
            if number % world != rank:
                continue
            input_ids, labels = (torch.from_numpy(part).to(device) for part in (batch.input_ids, batch.labels))
            sums += score(input_ids, labels).cpu().double()
            scored += int((batch.labels[:, 1:] >= 0).sum())
    return Evaluation(float(sums[0]), scored, tokens, characters, int(sums[1]))
