"""Samples as in batch.py, and beside each token what the model held of it; and a guard against copying.

    logits ─log-softmax─ probability, rank, the best tokens         before the filters: the model's opinion
       └─ guard ─ filters ─ what could be drawn ─ draw ─ token       after them

A step only notes the logits, in a ring of CHECK_EVERY tokens, so that a CUDA graph can hold it; the facts are computed
for several tokens at once. The guard needs the text itself, so with it a GPU does without the graph.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch

from novelgpt.writing.batch import SampleBatch
from novelgpt.writing.sampling import Controls, draw, find_candidates
from novelgpt.writing.text import CHECK_EVERY


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


def read_facts(described: Sequence[torch.Tensor], after: Sequence[list[tuple[int, float]]] | None = None) -> list[Fact]:
    """Turn what describe_tokens returned into facts, one a row; after is what could be drawn in each."""
    own, ranks, best, ids = (each.tolist() for each in described)
    after = after or [[]] * len(own)
    rows = zip(own, ranks, ids, best, after, strict=True)
    return [
        Fact(value, rank, list(zip(names, chances, strict=True)), left)
        for (value,), (rank,), names, chances, left in rows
    ]


def read_chances(
    logits: torch.Tensor, text: torch.Tensor, wanted: torch.Tensor, controls: Controls
) -> list[list[tuple[int, float]]]:
    """Return what could be drawn at the end of a text, behind all filters.

    Args:
        logits: (N, V) at each of the last N places of the text.
        text: (M,) ids, M >= N; penalties count what stands before a place.
        wanted: (N, W) ids that are asked about at each place.
        controls: the filters.

    Returns:
        For each place those of its ids that may be drawn, with their log-probabilities, most likely first.

    >>> logits, text = torch.tensor([[0.5, 0.3, 0.2]]).log(), torch.tensor([2, 0])
    >>> [(name, round(chance, 2)) for name, chance in read_chances(logits, text, torch.tensor([[0, 2]]), Controls())[0]]
    [(0, -0.69), (2, -1.61)]
    >>> read_chances(logits, text, torch.tensor([[0, 2]]), Controls(topk=1))
    [[(0, 0.0)]]
    """
    found, first = [], len(text) - len(logits)
    for place, (row, names) in enumerate(zip(logits, wanted.tolist(), strict=True), first):
        values, ids = find_candidates(row.unsqueeze(0).clone(), text[:place].unsqueeze(0), place, controls)
        chances = dict(zip(ids[0].tolist(), values.log_softmax(1)[0].tolist(), strict=True))
        left = [(name, chances.get(name, -math.inf)) for name in names]
        found.append(sorted(((name, chance) for name, chance in left if chance > -math.inf), key=lambda pair: -pair[1]))
    return found


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
        """Return a graph of the step, on a GPU and without a guard; and take the memory for what is noted."""
        rows, device = self.decoder.rows, self.weights.device
        self.opinions = torch.zeros(CHECK_EVERY, *self.logits.shape, device=device)  # (CHECK_EVERY, B, V)
        self.left = torch.zeros(CHECK_EVERY, rows, self.top, device=device)
        self.left_ids = torch.zeros(CHECK_EVERY, rows, self.top, dtype=torch.int64, device=device)
        return None if self.guard else super().capture()

    def choose(self, history: torch.Tensor, count: torch.Tensor | int, uniforms: torch.Tensor) -> torch.Tensor:
        """Return the next token (B,) of every row, as SampleBatch does, and note what the facts are made of."""
        # the opinion first, since bans change the logits in place
        place = count % CHECK_EVERY
        put_at(self.opinions, place, self.logits)
        if self.guard:
            self.ban_copies()
        values, ids = find_candidates(self.logits, history, count, self.controls)  # (B, K)
        tokens = draw(values, ids, uniforms)
        if self.top:
            self.keep_left(values, ids, place)
        if self.guard:
            for row, token_id in enumerate(tokens[: len(self.samples)].tolist()):
                self.guard.push(row, token_id)
        return tokens

    def keep_left(self, values: torch.Tensor, ids: torch.Tensor, place: torch.Tensor | int) -> None:
        """Note the best of the candidates (B, K) with their probabilities among these alone."""
        chances, places = values.log_softmax(1).topk(min(self.top, values.shape[1]))  # (B, W)
        missing = self.top - chances.shape[1]
        chances = torch.nn.functional.pad(chances, (0, missing), value=-math.inf)
        names = torch.nn.functional.pad(ids.gather(1, places), (0, missing))
        put_at(self.left, place, chances)
        put_at(self.left_ids, place, names)

    def ban_copies(self) -> None:
        """Make the tokens impossible that the guard bans."""
        for row, sample in enumerate(self.samples):
            if not sample.ended and (banned := self.guard.banned(row)):
                self.logits[row, banned] = -math.inf

    def facts(self, first: int) -> list[list[Fact]]:
        """Return for each sample the facts about its tokens from column `first` on, at most the last CHECK_EVERY."""
        places = torch.arange(first, self.count, device=self.logits.device) % CHECK_EVERY  # (N,)
        found = []
        for row in range(len(self.samples)):
            tokens = self.history[row, first : self.count]
            described = describe_tokens(self.opinions[places, row], tokens, self.top)
            after = self.read_left(places, row) if self.top else None
            found.append(read_facts(described, after))
        return found

    def nats(self, first: int) -> list[list[float]]:
        """Return for each sample what its tokens from column `first` on cost, without the other facts."""
        places = torch.arange(first, self.count, device=self.logits.device) % CHECK_EVERY  # (N,)
        rows = zip(self.opinions[places].unbind(1), self.history[:, first : self.count], strict=True)
        costs = [torch.nn.functional.cross_entropy(logits, tokens, reduction="none") for logits, tokens in rows]
        return [cost.tolist() for cost in costs[: len(self.samples)]]

    def read_left(self, places: torch.Tensor, row: int) -> list[list[tuple[int, float]]]:
        """Return what could be drawn at some places of the ring, best first."""
        names, chances = self.left_ids[places, row].tolist(), self.left[places, row].tolist()
        pairs = (zip(*each, strict=True) for each in zip(names, chances, strict=True))
        return [[(name, chance) for name, chance in pair if chance > -math.inf] for pair in pairs]


def put_at(ring: torch.Tensor, place: torch.Tensor | int, value: torch.Tensor) -> None:
    """Write one entry of a ring (N, ...); on a GPU the place is a tensor (1,), which a graph can hold."""
    if isinstance(place, int):
        ring[place] = value
    else:
        ring.index_copy_(0, place, value.unsqueeze(0))
