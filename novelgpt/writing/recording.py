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

from novelgpt.corpus.tokenizers import NovelTokenizer
from novelgpt.writing.copying import CopyMeter
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


class CopyGuard:
    """Keeps texts from copying more than so many characters of a book in a row.

    Args:
        tokenizer: of the model.
        meter: of the book.
        limit: characters, at least 1.
        before: the text that the samples go on from; a run may have begun in it.
        rows: how many samples.
    """

    def __init__(self, tokenizer: NovelTokenizer, meter: CopyMeter, limit: int, before: str, rows: int):
        self.meter, self.limit = meter, limit
        self.tails, self.streams = [before[-limit:]] * rows, [tokenizer.stream() for _ in range(rows)]
        # the tokens that begin with some characters; those that hold more of the book than they may
        self.beginnings: dict[str, list[int]] = {}
        self.too_long: list[int] = []
        self.longest = 1  # characters of a token
        self.byte_ids = tokenizer.byte_ids.tolist()
        for token_id, text in enumerate(token_texts(tokenizer)):
            for length in range(1, len(text) + 1):
                self.beginnings.setdefault(text[:length], []).append(token_id)
            self.longest = max(self.longest, len(text))
            runs = (text[start : start + limit + 1] for start in range(len(text) - limit))
            if any(meter.followers(run[:-1], 1) & {run[-1]} for run in runs):
                self.too_long.append(token_id)

    def banned(self, row: int) -> list[int]:
        """Return the tokens that would lengthen a run beyond the limit: every match of the book ends here."""
        tail, found = self.tails[row], list(self.too_long)
        # the character at `place` of a token, with the limit's characters before it
        for place in range(min(self.longest, self.limit)):
            words = tail[len(tail) - self.limit + place :] if len(tail) >= self.limit - place else None
            for text in self.meter.followers(words, place + 1) if words is not None else ():
                found += self.beginnings.get(text, ())
                if place == 0:
                    found += self.last_byte(row, text)
        return found

    def last_byte(self, row: int, character: str) -> list[int]:
        """Return the byte token with which a character would be whole that is being spelled."""
        pending = self.pending(row)
        spelled = character.encode("utf-8", "surrogatepass")
        return [self.byte_ids[spelled[-1]]] if pending and pending == spelled[:-1] else []

    def pending(self, row: int) -> bytes:
        """Return the bytes of a character that is not whole yet."""
        decoder = getattr(self.streams[row], "decoder", None)
        return decoder.getstate()[0] if decoder else b""

    def push(self, row: int, token_id: int) -> None:
        """Take the next token of a sample."""
        text = self.streams[row].push(token_id).replace("\ufffd", "")
        self.tails[row] = (self.tails[row] + text)[-self.limit :]


def token_texts(tokenizer: NovelTokenizer) -> list[str]:
    """Return the text of every token as people see it; of a torn byte and of a hidden mark nothing."""
    texts = [
        part.decode("utf-8", "ignore") if isinstance(part, bytes) else part[2 * part.startswith("##") :] or part
        for part in tokenizer.shown
    ]
    return texts


class RecordedBatch(SampleBatch):
    """Samples written together with facts about every token; arguments beside these as for SampleBatch.

    Args:
        top: how many alternatives are kept of every token, before the filters and after them.
        guard: keeps the samples from copying; None lets them.
    """

    def __init__(self, *settings, top: int = 0, guard: CopyGuard | None = None, **more):
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
