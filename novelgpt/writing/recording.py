"""Samples as in generation.py, and beside each token what the model held of it; and a guard against copying.

    logits ─log-softmax─ probability, rank, the best tokens         before the filters: the model's opinion
       └─ guard ─ filters ─ what could be drawn ─ draw ─ token       after them

All of it is kept in tensors of one column a token, so that a CUDA graph can hold the step, and read out a few tokens at
a time. The guard needs the text itself, so with it a GPU does without the graph.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch

from novelgpt.writing.generation import SampleBatch
from novelgpt.writing.sampling import draw, find_candidates


class Fact(NamedTuple):
    """What a model held of a token."""

    logprob: float  # nats, at most 0
    rank: int  # 1 is the most likely one
    top: list[tuple[int, float]]  # ids and log-probabilities of the most likely ones, best first
    after: list[tuple[int, float]]  # the same of what could be drawn, behind all filters


def describe_tokens(logits: torch.Tensor, tokens: torch.Tensor, top: int) -> tuple[torch.Tensor, ...]:
    """Return what a model holds of tokens.

    Args:
        logits: (B, V) after what stands before each token.
        tokens: (B,) ids.
        top: how many of the most likely ones, at most V.

    Returns:
        Log-probabilities (B, 1) in nats, ranks (B, 1) from 1, and of the most likely ones the log-probabilities and
        ids (B, top), best first.

    >>> values, ranks, best, ids = describe_tokens(torch.tensor([[0.5, 0.3, 0.2]]).log(), torch.tensor([1]), 2)
    >>> values.exp().round(decimals=3).tolist(), ranks.tolist(), ids.tolist()
    ([[0.30000001192092896]], [[2]], [[0, 1]])
    """
    chances = logits.log_softmax(1)  # (B, V)
    own = chances.gather(1, tokens.unsqueeze(1))
    return own, (chances > own).sum(1, keepdim=True) + 1, *chances.topk(top)


def read_facts(
    described: Sequence[torch.Tensor], after: Sequence[Sequence[tuple[int, float]]] | None = None
) -> list[Fact]:
    """Turn what describe_tokens returned into facts, one a row."""
    own, ranks, best, ids = (each.tolist() for each in described)
    after = after or [[]] * len(own)
    rows = zip(own, ranks, ids, best, after, strict=True)
    return [
        Fact(value, rank, list(zip(names, chances, strict=True)), left)
        for (value,), (rank,), names, chances, left in rows
    ]


class RecordedBatch(SampleBatch):
    """Samples written together with facts about every token; arguments beside these as for SampleBatch.

    Args:
        top: how many alternatives are kept of every token, before the filters and after them.
        guard: a CopyGuard of as many rows as there are samples; None lets them copy.
    """

    def __init__(self, *settings, top: int = 0, guard=None, **more):
        self.top, self.guard = top, guard
        super().__init__(*settings, **more)

    def capture(self):
        """Return a graph of the step, on a GPU and without a guard; and take the memory for the facts."""
        rows, columns = self.history.shape
        device, wide = self.weights.device, (rows, columns, self.top)
        self.own = torch.zeros(rows, columns, device=device)  # (B, N)
        self.ranks = torch.zeros(rows, columns, dtype=torch.int64, device=device)  # (B, N)
        self.best, self.left = torch.zeros(wide, device=device), torch.zeros(wide, device=device)  # (B, N, top)
        self.best_ids = torch.zeros(wide, dtype=torch.int64, device=device)
        self.left_ids = torch.zeros(wide, dtype=torch.int64, device=device)
        return None if self.guard else super().capture()

    def choose(self, history: torch.Tensor, count: torch.Tensor | int, uniforms: torch.Tensor) -> torch.Tensor:
        """Return the next token (B,) of every row, as SampleBatch does, and keep the facts."""
        # the opinion first, since bans change the logits in place
        opinion = self.logits.clone()  # (B, V)
        if self.guard:
            self.ban_copies()
        values, ids = find_candidates(self.logits, history, count, self.controls)  # (B, K)
        tokens = draw(values, ids, uniforms)
        own, ranks, best, best_ids = describe_tokens(opinion, tokens, self.top)
        # into the column of this token
        column = count if isinstance(count, torch.Tensor) else torch.tensor([count], device=tokens.device)
        self.own.index_copy_(1, column, own)
        self.ranks.index_copy_(1, column, ranks)
        if self.top:
            self.best.index_copy_(1, column, best.unsqueeze(1))
            self.best_ids.index_copy_(1, column, best_ids.unsqueeze(1))
            self.keep_left(values, ids, column)
        if self.guard:
            for row, token_id in enumerate(tokens[: len(self.samples)].tolist()):
                self.guard.push(row, token_id)
        return tokens

    def keep_left(self, values: torch.Tensor, ids: torch.Tensor, column: torch.Tensor) -> None:
        """Keep the best of the candidates (B, K) with their probabilities among these alone."""
        chances, places = values.log_softmax(1).topk(min(self.top, values.shape[1]))  # (B, W)
        missing = self.top - chances.shape[1]
        chances = torch.nn.functional.pad(chances, (0, missing), value=-math.inf)
        names = torch.nn.functional.pad(ids.gather(1, places), (0, missing))
        self.left.index_copy_(1, column, chances.unsqueeze(1))
        self.left_ids.index_copy_(1, column, names.unsqueeze(1))

    def ban_copies(self) -> None:
        """Make the tokens impossible that the guard bans."""
        for row, sample in enumerate(self.samples):
            if not sample.ended and (banned := self.guard.banned(row)):
                self.logits[row, banned] = -math.inf

    def facts(self, row: int, first: int, last: int) -> list[Fact]:
        """Return the facts about the tokens of a row in columns `first` to `last`, the last one left out."""
        pairs = zip(self.left_ids[row, first:last].tolist(), self.left[row, first:last].tolist(), strict=True)
        after = [[(name, chance) for name, chance in zip(*each, strict=True) if chance > -math.inf] for each in pairs]
        kept = self.own[row, first:last, None], self.ranks[row, first:last, None], self.best[row, first:last]
        return read_facts((*kept, self.best_ids[row, first:last]), after)
