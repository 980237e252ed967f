"""A model and batches of tokens -> nats per token -> loss, perplexity, accuracy and bits per character.

A text is scored by a stated window and stride::

    tokens      0 1 2 3 4 5 6 7 8 9       window 4, stride 3
    window 0    · 1 2 3                   reads tokens 0 to 3, scores 1 to 3
    window 1          · 4 5 6
    window 2                · 7 8 9       the last window may be short

Window k reads tokens k·S … k·S+T and scores those that no earlier window has scored. With S < T every token but the
first is scored once, after at least T - S tokens of context; with S = T the first token of each window is not scored.
(The protocol of the transformers documentation for fixed-length models.)
"""

import copy
import functools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from transformers import GPT2LMHeadModel

from novelgpt.compute import tune_for_cpu, tune_for_gpu
from novelgpt.network import choose_precision, score_tokens

NOT_SCORED = -100  # label of a position that counts nothing, as in PyTorch
# (input_ids, labels), int64 (B, T) on the device -> nats fp32 and right bool, (B, T-1) each, as from score_tokens
Scorer = Callable[[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]


@dataclass(frozen=True)
class Evaluation:
    """The result of scoring a text."""

    nll: float  # nats, summed over scored tokens
    scored: int  # tokens
    tokens: int  # of the text
    characters: int  # of the text
    right: int = 0  # scored tokens that were the likeliest by the model

    @property
    def loss(self) -> float:
        """Nats per scored token."""
        return self.nll / self.scored if self.scored else math.nan

    @property
    def perplexity(self) -> float:
        """exp(loss)."""
        return math.exp(min(self.loss, 700)) if self.scored else math.nan  # exp(710) is no longer a float

    @property
    def accuracy(self) -> float:
        """Share of the scored tokens that the model considered the likeliest, 0 to 1."""
        return self.right / self.scored if self.scored else math.nan

    @property
    def nats_per_character(self) -> float:
        """Loss converted from tokens to characters: comparable between vocabularies."""
        return self.loss * self.tokens / self.characters if self.characters else math.nan

    @property
    def bits_per_character(self) -> float:
        """Nats per character / ln 2."""
        return self.nats_per_character / math.log(2)


@dataclass(frozen=True)
class Scores:
    """What a model says of every scored token of a text, in reading order."""

    nats: np.ndarray  # float32 (S,), the loss of each token
    right: np.ndarray  # bool (S,), whether it was the likeliest by the model
    nll: float  # nats, their sum: fp32 within a batch, fp64 over batches

    def totals(self) -> tuple[float, int, int]:
        """Return summed nats, scored tokens and right tokens: what several processes add up."""
        return self.nll, len(self.nats), int(self.right.sum())


class Rows(NamedTuple):
    """Rows to score."""

    input_ids: np.ndarray  # int64 (B, T)
    labels: np.ndarray  # int64 (B, T)
    starts: np.ndarray  # int64 (B,), the place of each row's first token


def evaluation_starts(num_tokens: int, window: int, stride: int) -> np.ndarray:
    """Return the window starts: multiples of the stride until a window reaches the end; none for fewer than 2 tokens.

    >>> evaluation_starts(10, 4, 3).tolist()
    [0, 3, 6]
    """
    if num_tokens < 2:
        return np.zeros(0, dtype=np.int64)
    # the window at s is needed while the one before it, at s - stride, ends before the text does
    return np.arange(0, max(1, num_tokens - window + stride), stride, dtype=np.int64)


def scored_places(num_tokens: int, window: int, stride: int) -> np.ndarray:
    """Return the places of the tokens that are scored, in the order of Scores.nats.

    >>> scored_places(7, 3, 2).tolist(), scored_places(7, 3, 3).tolist()
    ([1, 2, 3, 4, 5, 6], [1, 2, 4, 5])
    """
    places = np.arange(1, num_tokens)
    return places if stride < window else places[places % window > 0]  # windows end to end: their first has no context


def evaluation_batches(stream: Sequence[int], window: int, stride: int, batch_size: int) -> Iterator[Rows]:
    """Cut a text into batches in which every token is scored at most once.

    Args:
        stream: the tokens, as a TokenStream or an array has them.
        window, stride: tokens; stride at most window.
        batch_size: rows a batch; the last one may be smaller.
    """
    starts = evaluation_starts(len(stream), window, stride)  # (W,)
    for first in range(0, len(starts), batch_size):
        rows = [evaluation_row(stream, int(start), window, stride) for start in starts[first : first + batch_size]]
        input_ids, labels = (np.stack(part) for part in zip(*rows, strict=True))  # (B, T) each
        yield Rows(input_ids, labels, starts[first : first + batch_size])


def evaluation_row(stream: Sequence[int], start: int, window: int, stride: int) -> tuple[np.ndarray, np.ndarray]:
    """Return one padded window and its labels, (T,) int64 each."""
    tokens = stream[start : start + window]  # fewer than a window at the end of the text
    input_ids = np.zeros(window, dtype=np.int64)
    labels = np.full(window, NOT_SCORED, dtype=np.int64)
    input_ids[: len(tokens)] = tokens
    seen = 0 if start == 0 else window - stride  # scored by the window before
    labels[seen : len(tokens)] = tokens[seen:]
    return input_ids, labels


def score_batches(
    scorer: Scorer,
    batches: Iterable[Rows],
    device: torch.device,
    *,
    before_batch: Callable[[], None] = lambda: None,
    rank: int = 0,
    world: int = 1,
) -> Scores:
    """Score batches: the one loop behind every figure, in training and after it.

    Args:
        scorer: see above; called without gradients, with tensors on the device.
        batches: of the text; anything with input_ids and labels.
        before_batch: called before each batch by every process; what it raises ends the evaluation.
        rank, world: this process scores every world-th batch; the caller adds the totals up.
    """
    nats, right, nll = [], [], 0.0
    with torch.no_grad():
        for number, batch in enumerate(batches):
            # every process asks before every batch, its own or not: in the question all of them may meet
            before_batch()
            if number % world != rank:
                continue
            input_ids, labels = (torch.from_numpy(part).to(device) for part in (batch.input_ids, batch.labels))
            losses, hits = scorer(input_ids, labels)  # (B, T-1) each
            # padding costs 0, so a batch is summed as it is, on its device; keep to fp32 here, or the figures of
            # unfinished runs change in the last digit when they are resumed
            nll += float(losses.sum())
            # the model shifts: row i, column j of the losses is the label of column j + 1
            wanted = batch.labels[:, 1:] != NOT_SCORED  # (B, T-1)
            nats.append(losses.cpu().numpy()[wanted])
            right.append(hits.cpu().numpy()[wanted])
    return Scores(np.concatenate([*nats, np.zeros(0, np.float32)]), np.concatenate([*right, np.zeros(0, bool)]), nll)


def make_scorer(model: GPT2LMHeadModel, precision: str) -> Scorer:
    """Return what score_batches needs of a model, which is left as it is; by way of the device's fast parts.

    Raises:
        UserError: a precision ("auto", "bf16", "fp16", "fp32") that the model's device lacks.
    """
    dtype = choose_precision(precision, next(model.parameters()).device)
    return functools.partial(score_tokens, tune_twin(model, dtype), dtype=dtype)


def tune_twin(model: GPT2LMHeadModel, dtype: torch.dtype) -> GPT2LMHeadModel:
    """Return a second model on the very weights of a first, with its device's fast parts for products in a dtype."""
    twin = share_weights(model)  # the fast parts are put into the twin
    if twin.device.type == "cpu":
        tune_for_cpu(twin, seed=0, dtype=dtype)
    else:
        tune_for_gpu(twin)
    return twin


def share_weights(model: GPT2LMHeadModel) -> GPT2LMHeadModel:
    """Return a second model in eval mode on the very weights of a first, so that its parts can be exchanged freely."""
    with torch.device("meta"):  # costs no memory until it is given the weights
        twin = GPT2LMHeadModel(copy.deepcopy(model.config))
    twin.load_state_dict(model.state_dict(), assign=True)
    twin.tie_weights()
    return twin.eval()
