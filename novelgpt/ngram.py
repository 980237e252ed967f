"""An interpolated Kneser-Ney 4-gram model of token ids in numpy: the yardstick that a network has to beat.

::

    p(w | abc) = (max(c(abcw) - d, 0) + d · types(abc) · p(w | bc)) / c(abc)        orders 4, 3, 2, 1, then 1 / V

Order 4 counts how often an n-gram occurs, the lower orders how many different tokens stand before it; d is n1 / (n1 +
2 n2) of each order, where nk is the number of n-grams counted k times (Kneser and Ney 1995; Chen and Goodman 1999).
An n-gram is one uint64 with 16 bits a token, so looking it up is a binary search.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

BITS = 16  # of a key, a token
MAX_ORDER = 64 // BITS
MAX_VOCABULARY = 1 << BITS
MAX_TOKENS = 20_000_000  # a longer training text is not worth the time and memory of a yardstick


@dataclass(frozen=True)
class Level:
    """The counts of one order n.

    Attributes:
        keys: uint64 (K,), ascending; the distinct n-grams.
        counts: float64 (K,), of occurrences or of distinct tokens before.
        histories: uint64 (H,), ascending; the distinct first n - 1 tokens.
        totals: float64 (H,), sum of the counts with that history.
        types: float64 (H,), number of n-grams with that history.
        discount: taken off every count, 0 to 1.
    """

    keys: np.ndarray
    counts: np.ndarray
    histories: np.ndarray
    totals: np.ndarray
    types: np.ndarray
    discount: float


def window_keys(ids: np.ndarray, length: int) -> np.ndarray:
    """Return every n-gram of a text as one number, the last token in the lowest bits.

    Args:
        ids: (N,) whole numbers below 65,536.
        length: tokens of an n-gram, 1 to 4.

    Returns:
        uint64 (N - length + 1,).

    >>> window_keys(np.array([1, 2, 3]), 2).tolist() == [1 << 16 | 2, 2 << 16 | 3]
    True
    """
    count = max(0, len(ids) - length + 1)
    keys = np.zeros(count, np.uint64)
    for place in range(length):
        keys = keys << np.uint64(BITS) | ids[place : place + count].astype(np.uint64)
    return keys


def make_level(keys: np.ndarray, counts: np.ndarray) -> Level:
    """Add up an order's histories and find its discount.

    Args:
        keys: (K,) distinct n-grams, ascending.
        counts: (K,) their counts.
    """
    histories, first, types = np.unique(keys >> np.uint64(BITS), return_index=True, return_counts=True)
    once, twice = int((counts == 1).sum()), int((counts == 2).sum())
    discount = once / (once + 2 * twice) if once else 0.5  # a text of few n-grams may have none that occurs once
    totals = np.add.reduceat(counts, first) if len(first) else counts
    return Level(keys, counts.astype(float), histories, totals.astype(float), types.astype(float), discount)


def fit_ngram(ids: np.ndarray, *, order: int = MAX_ORDER) -> list[Level]:
    """Count a training text.

    Args:
        ids: (N,) token ids below 65,536.
        order: of the model, 1 to 4.

    Returns:
        The levels of order 1, 2, … `order`.

    >>> [len(level.keys) for level in fit_ngram(np.array([5, 6, 5, 6, 7]), order=2)]
    [3, 3]
    """
    assert 1 <= order <= MAX_ORDER and int(ids.max(initial=0)) < 1 << BITS
    keys, counts = np.unique(window_keys(ids, order), return_counts=True)
    levels = [make_level(keys, counts)]
    for length in range(order - 1, 0, -1):
        mask = np.uint64((1 << BITS * length) - 1)
        suffixes = keys & mask  # one for each distinct token before it
        levels.append(make_level(*np.unique(suffixes, return_counts=True)))
        keys = np.unique(window_keys(ids, length))
    return levels[::-1]


def look_up(keys: np.ndarray, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return for each wanted number its place among ascending keys, and whether it is there.

    >>> look_up(np.array([3, 5]), np.array([5, 4]))[1].tolist()
    [True, False]
    """
    places = np.searchsorted(keys, wanted).clip(max=len(keys) - 1)
    return places, keys[places] == wanted


def ngram_nll(levels: Sequence[Level], ids: np.ndarray, vocab_size: int) -> np.ndarray:
    """Return what each token of a text but the first costs after the tokens before it.

    Args:
        levels: what fit_ngram returns.
        ids: (N,) token ids.
        vocab_size: how many tokens there are; one never seen in training gets its share of 1 / vocab_size.

    Returns:
        float64 (N - 1,), nats.
    """
    chance = np.full(len(ids), 1 / vocab_size)
    for length, level in enumerate(levels, start=1):
        if not len(level.keys) or len(ids) < length:
            break
        lower = chance[length - 1 :]  # the first tokens have a shorter history
        wanted = window_keys(ids, length)
        places, found = look_up(level.keys, wanted)
        counts = np.where(found, level.counts[places], 0)
        places, known = look_up(level.histories, wanted >> np.uint64(BITS))
        kept = np.maximum(counts - level.discount, 0) + level.discount * level.types[places] * lower
        chance[length - 1 :] = np.where(known, kept / level.totals[places], lower)
    return -np.log(chance[1:])


def ngram_loss(train: np.ndarray, valid: np.ndarray, vocab_size: int) -> float:
    """Return the nats per token of a held-out text under a 4-gram of the training text.

    Args:
        train, valid: (N,) token ids; valid has two or more.
        vocab_size: at most 65,536.

    >>> round(ngram_loss(np.array([5, 6] * 50), np.array([5, 6, 5, 6]), 10), 2)  # (ln 10 + ln 10 + 0.01) / 3
    1.54
    """
    return float(ngram_nll(fit_ngram(train), valid, vocab_size).mean())
