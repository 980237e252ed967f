"""Interpolated Kneser-Ney counts of any order, in numpy: of the training text alone, or going on while a text is read.

::

    p(w | abc) = (max(c(abcw) - d, 0) + d · types(abc) · p(w | bc)) / c(abc)        the longest order first, then 1 / V

The longest order counts how often an n-gram occurs, the others how many different tokens stand before it; d is n1 / (n1
+ 2 n2) of each order, where nk is the number of n-grams that the training text counts k times (Kneser and Ney 1995;
Chen and Goodman 1999). An n-gram is the rank of (rank of its first n - 1 tokens, last token), so every order and every
vocabulary fits::

    tokens      甲 乙 丙 | 甲 乙        one text and the beginning of another; an n-gram lies inside one of them
    1-grams      1  2  3    1  2
    2-grams      0  1  2    0  1        0 where a text is younger than that
    new          -  ✓  ✓    -  -        where a 2-gram stands for the first time, its last token is counted as a 1-gram
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Level(NamedTuple):
    """The n-grams of one order at every place of the texts, (N,) each."""

    histories: np.ndarray  # int32, which n - 1 tokens stand before; from 1 on, 0 where fewer do
    grams: np.ndarray  # int32, which n tokens end here; from 1 on, 0 where fewer do
    new: np.ndarray  # bool, whether that n-gram ends here for the first time


class Found(NamedTuple):
    """What the counts of one order say at some places, (S,) each."""

    counts: np.ndarray  # int64, of the n-gram
    totals: np.ndarray  # int64, of all n-grams with its history
    types: np.ndarray  # int64, how many those are


def rank_grams(tokens: np.ndarray, ages: np.ndarray, order: int) -> list[Level]:
    """Number the n-grams of every order up to one.

    Args:
        tokens: (N,), texts one after another.
        ages: (N,), tokens of its text that stand before each; 0 begins a text.

    >>> [level.grams.tolist() for level in rank_grams(np.array([5, 6, 7, 5, 6]), np.array([0, 1, 2, 0, 1]), 2)]
    [[1, 2, 3, 1, 2], [0, 1, 2, 0, 1]]
    """
    levels, size = [], int(tokens.max(initial=0)) + 1
    histories = np.ones(len(tokens), np.int32)  # no token stands before a 1-gram: all have the same history
    for length in range(1, order + 1):
        places = np.flatnonzero(ages >= length - 1)
        keys = histories[places].astype(np.int64) * size + tokens[places]
        _, first, ranks = np.unique(keys, return_index=True, return_inverse=True)
        grams, new = np.zeros(len(tokens), np.int32), np.zeros(len(tokens), bool)
        grams[places], new[places[first]] = ranks + 1, True
        levels.append(Level(histories, grams, new))
        # what ends one place before is what the next order has in front of its last token
        histories = np.where(ages > 0, np.roll(grams, 1), 0)
    return levels


def count_earlier(keys: np.ndarray, marks: np.ndarray) -> np.ndarray:
    """Return how many marked places (N,) with the same key stand before each place, int64 (N,).

    >>> count_earlier(np.array([3, 3, 8, 3]), np.array([True, True, True, False])).tolist()
    [0, 1, 0, 2]
    """
    order = np.argsort(keys, kind="stable")  # equal keys side by side, in reading order
    ranked, marked = keys[order], marks[order].astype(np.int64)
    earlier = np.cumsum(marked) - marked
    starts = np.flatnonzero(np.diff(ranked, prepend=-1))
    result = np.empty(len(keys), np.int64)
    result[order] = earlier - np.repeat(earlier[starts], np.diff(starts, append=len(keys)))
    return result


class Counts:
    """A training text and texts to score, counted.

    The counts of a place are those of the training text, and `online` those of all tokens before it too: each token is
    scored first and learnt then, at every order, through all texts in their order. Discounts are the training text's.
    """

    def __init__(self, train: np.ndarray, texts: Sequence[np.ndarray], *, vocab_size: int, order: int):
        """Number all n-grams.

        Args:
            train: token ids (N,).
            texts: token ids of each; no n-gram reaches from one into the next.
            vocab_size: how many tokens there are; any number.
            order: tokens of the longest n-gram, 1 or more.
        """
        parts = [train, *texts]
        self.tokens = np.concatenate(parts).astype(np.int32)
        self.ages = np.concatenate([np.arange(len(part), dtype=np.int32) for part in parts])
        self.start, self.vocab_size = len(train), vocab_size  # place of the first token to score
        self.levels = rank_grams(self.tokens, self.ages, order)

    def counted(self, length: int, order: int) -> np.ndarray:
        """Return at which places (N,) an n-gram of some length is counted, under a longest order."""
        return self.levels[length - 1].grams > 0 if length == order else self.levels[length].new

    def count_training(self, length: int, order: int) -> tuple[np.ndarray, float]:
        """Return how often the training text counts each n-gram (G,), and the discount."""
        grams = self.levels[length - 1].grams
        learnt = grams[: self.start][self.counted(length, order)[: self.start]]
        counts = np.bincount(learnt, minlength=int(grams.max(initial=0)) + 1)
        once, twice = int((counts == 1).sum()), int((counts == 2).sum())
        return counts, once / (once + 2 * twice) if once else 0.5  # a short text may have none that occurs once

    def find(self, length: int, counts: np.ndarray, counted: np.ndarray, *, online: bool) -> Found:
        """Look the n-grams of all places to score up in the training text's counts (G,)."""
        level = self.levels[length - 1]
        owner = np.zeros(len(counts), np.int32)  # (G,), the history of each n-gram
        owner[level.grams] = level.histories
        size = int(level.histories.max(initial=0)) + 1
        totals = np.bincount(level.histories[: self.start][counted[: self.start]], minlength=size)
        types = np.bincount(owner[counts > 0], minlength=size)
        histories, grams, learnt = (part[self.start :] for part in (level.histories, level.grams, counted))
        found = Found(counts[grams], totals[histories], types[histories])
        if not online:
            return found

        # what the texts have added by then; an n-gram is a new type where it is counted for the first time
        seen = found.counts + count_earlier(grams, learnt)
        fresh = learnt & (seen == 0)
        more = (count_earlier(histories, marks) for marks in (learnt, fresh))
        return Found(seen, *(old + new for old, new in zip(found[1:], more, strict=True)))

    def score(self, order: int, *, online: bool = False) -> tuple[np.ndarray, np.ndarray]:
        """Return the chance of every token of the texts, and how often the longest known history was counted.

        Args:
            order: tokens of the longest n-gram, at most that of the counts.
            online: learn each token after it was scored.

        Returns:
            float64 and int64 (S,), for the texts one after another; the first token of a text has no history.
        """
        # from the shortest order to the longest: each mixes its own counts with the chance that the order below gave
        chances = np.full(len(self.tokens) - self.start, 1 / self.vocab_size)  # all that is left for an unseen token
        support = np.zeros(len(chances), np.int64)
        for length in range(1, order + 1):
            counts, discount = self.count_training(length, order)
            found = self.find(length, counts, self.counted(length, order), online=online)
            kept = np.maximum(found.counts - discount, 0) + discount * found.types * chances
            # a history that was never seen leaves the lower order's chance as it is
            known = found.totals > 0
            chances = np.where(known, kept / np.maximum(found.totals, 1), chances)
            support = np.where(known & (length > 1), found.totals, support)
        return chances, support
