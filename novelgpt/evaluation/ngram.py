"""An interpolated Kneser-Ney 4-gram of the training tokens, in numpy: a network that loses to it has failed.

::

    p(w | abc) = (max(c(abcw) - d, 0) + d · types(abc) · p(w | bc)) / c(abc)        orders 4, 3, 2, 1, then 1 / V

Order 4 counts how often an n-gram occurs, the lower orders how many different tokens stand before it; d is n1 / (n1 +
2 n2) of each order, where nk is the number of n-grams counted k times (Kneser and Ney 1995; Chen and Goodman 1999).
An n-gram is one uint64 with 16 bits a token, so looking it up is a binary search.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from novelgpt.evaluation.evaluation import Evaluation
from novelgpt.messages import say

BITS = 16  # of a key, a token
ORDER = 64 // BITS  # tokens of the longest n-gram
MAX_VOCABULARY = 1 << BITS
MAX_TOKENS = 20_000_000  # a longer training text is not worth the time and memory of a yardstick
CLOSE = 0.02  # nats per token that do not count as a difference


class Level(NamedTuple):
    """The counts of one order n."""

    keys: np.ndarray  # uint64 (K,), ascending; the distinct n-grams
    counts: np.ndarray  # float64 (K,), of occurrences or of distinct tokens before
    histories: np.ndarray  # uint64 (H,), ascending; the distinct first n - 1 tokens
    totals: np.ndarray  # float64 (H,), sum of the counts with that history
    types: np.ndarray  # float64 (H,), number of n-grams with that history
    discount: float  # taken off every count, 0 to 1


def window_keys(ids: np.ndarray, length: int) -> np.ndarray:
    """Return every n-gram of ids (N,) below 65,536 as one uint64 (N - length + 1,), the last token in the lowest bits.

    >>> window_keys(np.array([1, 2, 3]), 2).tolist() == [1 << 16 | 2, 2 << 16 | 3]
    True
    """
    # move what is there up by one token and put the next one below, for all places at once
    count = max(0, len(ids) - length + 1)
    keys = np.zeros(count, np.uint64)
    for place in range(length):
        keys = keys << np.uint64(BITS) | ids[place : place + count].astype(np.uint64)
    return keys


def make_level(keys: np.ndarray, counts: np.ndarray) -> Level:
    """Add up the histories of an order's n-grams (K,), ascending, and find its discount."""
    # keys ascend, so those with one history (all but the last token) lie side by side
    histories, first, types = np.unique(keys >> np.uint64(BITS), return_index=True, return_counts=True)
    once, twice = int((counts == 1).sum()), int((counts == 2).sum())
    discount = once / (once + 2 * twice) if once else 0.5  # a text of few n-grams may have none that occurs once
    totals = np.add.reduceat(counts, first) if len(first) else counts
    return Level(keys, counts.astype(float), histories, totals.astype(float), types.astype(float), discount)


def fit_ngram(ids: np.ndarray) -> list[Level]:
    """Count a training text of token ids (N,) below 65,536; return the levels of order 1, 2, 3, 4.

    >>> [len(level.keys) for level in fit_ngram(np.array([5, 6, 5, 6, 7]))]
    [3, 3, 2, 2]
    """
    assert int(ids.max(initial=0)) < MAX_VOCABULARY
    keys, counts = np.unique(window_keys(ids, ORDER), return_counts=True)
    levels = [make_level(keys, counts)]
    for length in range(ORDER - 1, 0, -1):
        # cut the first token off each distinct longer n-gram: a suffix is left once for each token seen before it
        mask = np.uint64((1 << BITS * length) - 1)
        levels.append(make_level(*np.unique(keys & mask, return_counts=True)))
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
    """Return what each of ids (N,) but the first costs after those before it: nats, float64 (N - 1,)."""
    # from the shortest order to the longest: each mixes its own counts with the chance that the order below gave
    chance = np.full(len(ids), 1 / vocab_size)  # (N,); all that is left for a token never seen in training
    for length, level in enumerate(levels, start=1):
        if not len(level.keys) or len(ids) < length:
            break
        lower = chance[length - 1 :]  # (N - length + 1,); the first tokens have a shorter history
        wanted = window_keys(ids, length)
        places, found = look_up(level.keys, wanted)
        counts = np.where(found, level.counts[places], 0)
        # a history that was never seen leaves the lower order's chance as it is
        places, known = look_up(level.histories, wanted >> np.uint64(BITS))
        kept = np.maximum(counts - level.discount, 0) + level.discount * level.types[places] * lower
        chance[length - 1 :] = np.where(known, kept / level.totals[places], lower)
    return -np.log(chance[1:])


def score_ngram(train: Sequence[int], text: Sequence[int], *, vocab_size: int, characters: int) -> Evaluation | None:
    """Score a text by a 4-gram of the training tokens.

    Args:
        train: the tokens to count, the same that the network was trained on, as a TokenStream or an array has them.
        text: the tokens to score, all but the first.
        vocab_size, characters: how many tokens there are, and characters of the text.

    Returns:
        The evaluation; None, with a line that says so, where counting would take too long or ids do not fit.
    """
    if len(train) > MAX_TOKENS or vocab_size > MAX_VOCABULARY:
        sizes = f"{len(train):,} training tokens of a vocabulary of {vocab_size:,}"
        say(f"4-gram: left out for {sizes}; at most {MAX_TOKENS:,} and {MAX_VOCABULARY:,} are counted")
        return None
    nats = ngram_nll(fit_ngram(train[:]), text[:], vocab_size)
    return Evaluation(float(nats.sum()), len(nats), len(text), characters)


def compare_losses(loss: float, ngram: float, *, advice: str) -> str:
    """Say how a network's loss compares with the 4-gram's, both in nats per token, with advice where it is no better.

    >>> compare_losses(3.5, 4.0, advice="train longer")
    '0.5000 better than counting what follows what (4-gram: 4.0000)'
    >>> compare_losses(4.3, 4.0, advice="train longer")
    '0.3000 worse than counting what follows what (4-gram: 4.0000): train longer'
    """
    if loss < ngram - CLOSE:
        return f"{ngram - loss:.4f} better than counting what follows what (4-gram: {ngram:.4f})"
    if loss < ngram + CLOSE:
        return f"no better than counting what follows what (4-gram: {ngram:.4f}): {advice}"
    return f"{loss - ngram:.4f} worse than counting what follows what (4-gram: {ngram:.4f}): {advice}"
