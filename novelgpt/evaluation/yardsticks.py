"""What a network has to beat: Kneser-Ney counts, a cache of the last tokens, and counting that goes on while it reads.

::

    kn4                 4-grams of the training text
    kn5                 5-grams of the training text
    kn5_cache           kn5 with a cache of what stood last in the text: all of it is within a window's reach
    kn5_online_cache    the same, and every token is learnt after it was scored

Each gives the tokens of the vocabulary chances that sum to 1. The cache holds the tokens before in the text that is
scored, each weighted exp(-distance / 100): 1,024 tokens back that is 0.00004, so ending it there would change nothing.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from novelgpt.evaluation.evaluation import scored_places
from novelgpt.evaluation.ngram import Counts
from novelgpt.messages import say

MAX_TOKENS = 20_000_000  # more are not worth the time and memory of a yardstick
CLOSE = 0.02  # nats per token that do not count as a difference
# Measured on the last tenth of five novels, decays of 50 to 400 tokens and weights of 0.03 to 0.16: what is best for
# each of them is better by 0.03 nats at most, and by 0.004 where the counting goes on
DECAY = 100  # tokens
WEIGHT = 0.08  # of the cache, 0 to 1
BUCKETS = (1, 4, 16)  # of times that a history was counted: never, 1 to 3, 4 to 15, more
ROUNDS, SMALLEST = 1000, 1e-7  # of expectation and maximisation at most; change of a weight that is none
PRIOR = 100  # tokens of all buckets together that count beside those of each: a small bucket learns little by itself


class Chances(NamedTuple):
    """What counting gives to all tokens of some texts but the first of each: (S,), float64 unless said."""

    kn4: np.ndarray
    kn5: np.ndarray
    kn5_online: np.ndarray
    cache: np.ndarray  # 0 for a token that its text has not had yet
    buckets: np.ndarray  # int64, 0 to 3, see BUCKETS: how often the longest history that kn5 knows was counted
    online_buckets: np.ndarray  # int64, 0 to 3: the same of kn5_online

    def nats(self) -> dict[str, np.ndarray]:
        """Return what every token costs by each yardstick, nats (S,)."""
        kn5, online = ((1 - WEIGHT) * counted + WEIGHT * self.cache for counted in (self.kn5, self.kn5_online))
        parts = {"kn4": self.kn4, "kn5": self.kn5, "kn5_cache": kn5, "kn5_online_cache": online}
        return {name: -np.log(chances) for name, chances in parts.items()}


def cache_chances(ids: np.ndarray, decay: float = DECAY) -> np.ndarray:
    """Return the share of each token (N,) among the tokens before it, weighted exp(-distance / decay), float64 (N,).

    The first token's is 0: nothing stands before it, and what mixes it in must leave it out there.

    >>> cache_chances(np.array([7, 8, 7]), 1 / np.log(2)).round(4).tolist()  # 1/4 of 1/2 + 1/4
    [0.0, 0.0, 0.3333]
    """
    order = np.argsort(ids, kind="stable")  # equal tokens side by side, in reading order
    ranked, sums, step = ids[order], np.ones(len(ids)), 1
    # each round doubles how many equal tokens a sum reaches back over, until what is that far away weighs nothing
    while step < min(len(ids), 40 * decay):
        distances = np.where(ranked[step:] == ranked[:-step], order[step:] - order[:-step], np.inf)
        sums[step:] += np.exp(-distances / decay) * sums[:-step]
        step *= 2
    earlier = np.empty(len(ids))
    earlier[order] = sums - 1  # a token itself is not before itself
    kept = np.exp(-1 / decay)
    totals = kept * (1 - kept ** np.arange(1, len(ids))) / (1 - kept)  # (N - 1,), of a geometric series
    return np.concatenate([np.zeros(min(1, len(ids))), earlier[1:] / totals])


def count_texts(train: Sequence[int], texts: Sequence[Sequence[int]], *, vocab_size: int) -> Chances | None:
    """Score texts by counting: the chances that every yardstick is made of.

    Args:
        train: the tokens to count, the same that the network was trained on, as a TokenStream or an array has them.
        texts: tokens of each. Each is read from its own beginning with an empty cache, but counting online goes on from
            text to text in their order: files of a folder are mostly chapters of one book.
        vocab_size: how many tokens there are.

    Returns:
        The chances; None, with a line that says so, where counting would take too long.
    """
    size = len(train) + sum(map(len, texts))
    if size > MAX_TOKENS:
        say(f"counting what follows what: left out for {size:,} tokens; at most {MAX_TOKENS:,} are counted")
        return None
    arrays = [np.asarray(text[:]) for text in texts]
    counts = Counts(np.asarray(train[:]), arrays, vocab_size=vocab_size, order=5)
    (kn4, _), (kn5, known), (online, online_known) = counts.score(4), counts.score(5), counts.score(5, online=True)
    cache = np.concatenate([*map(cache_chances, arrays), np.zeros(0)])
    buckets = (np.searchsorted(BUCKETS, times, side="right") for times in (known, online_known))
    after = counts.ages[counts.start :] > 0  # all but the first of each text
    return Chances(*(part[after] for part in (kn4, kn5, online, cache, *buckets)))


def measure_counting(
    train: Sequence[int], texts: Sequence[Sequence[int]], *, vocab_size: int, window: int, stride: int
) -> dict[str, float] | None:
    """Return the nats per token of each yardstick over the tokens that a network scores by windows of some stride.

    None where nothing is scored, or, with a line that says so, where there is too much to count.

    >>> figures = measure_counting([1, 2, 1, 2], [[1, 2], [2, 2]], vocab_size=4, window=2, stride=1)
    >>> list(figures)
    ['kn4', 'kn5', 'kn5_cache', 'kn5_online_cache']
    """
    # the chances lack the first token of each text, and so do the places of what is scored
    starts = np.cumsum([0, *(max(0, len(text) - 1) for text in texts)])
    places = [start + scored_places(len(text), window, stride) - 1 for start, text in zip(starts, texts, strict=False)]
    scored = np.concatenate(places)
    chances = count_texts(train, texts, vocab_size=vocab_size) if len(scored) else None
    return chances and {name: float(nats[scored].mean()) for name, nats in chances.nats().items()}


def compare_losses(loss: float, counting: dict[str, float], *, advice: str) -> str:
    """Say how a network's loss stands to what 5-grams with a cache cost, with advice where it is no better.

    Args:
        loss: nats per token.
        counting: nats per token of kn5_cache and kn4 on the same tokens.

    >>> compare_losses(3.5, {"kn5_cache": 4.0, "kn4": 4.1}, advice="train longer")
    '0.5000 better than counting what follows what (5-grams with a cache 4.0000, 4-grams 4.1000)'
    >>> compare_losses(4.3, {"kn5_cache": 4.0, "kn4": 4.1}, advice="train longer")
    '0.3000 worse than counting what follows what (5-grams with a cache 4.0000, 4-grams 4.1000): train longer'
    """
    beaten_by = counting["kn5_cache"] - loss
    figures = f"5-grams with a cache {counting['kn5_cache']:.4f}, 4-grams {counting['kn4']:.4f}"
    if beaten_by > CLOSE:
        return f"{beaten_by:.4f} better than counting what follows what ({figures})"
    if beaten_by > -CLOSE:
        return f"no better than counting what follows what ({figures}): {advice}"
    return f"{-beaten_by:.4f} worse than counting what follows what ({figures}): {advice}"


def fit_weights(parts: np.ndarray, start: np.ndarray | None = None, *, prior: float = 0) -> np.ndarray:
    """Return the weights (K,), summing to 1, under which a mixture of parts gives tokens the highest chance.

    By expectation and maximisation: the share that each part has in the mixture's chance of every token is its next
    weight (Dempster, Laird and Rubin 1977).

    Args:
        parts: chances (K, N); at every token one of them is above 0.
        start: weights (K,) to begin with; None for equal ones.
        prior: how many further tokens would have the weights of the start.

    >>> fit_weights(np.array([[0.5, 0.5, 0.5, 0.5], [1.0, 1.0, 1.0, 0.0]])).round(3).tolist()
    [0.5, 0.5]
    """
    weights = start = np.full(len(parts), 1 / len(parts)) if start is None else start
    for _ in range(ROUNDS):
        shares = weights[:, None] * parts  # (K, N)
        shares /= shares.sum(axis=0)
        last, weights = weights, (shares.sum(axis=1) + prior * start) / (parts.shape[1] + prior)
        if np.abs(weights - last).max() < SMALLEST:
            break
    return weights


def mix(parts: np.ndarray, buckets: np.ndarray) -> np.ndarray:
    """Return the chances (N,) of a mixture of parts whose weights each half of the tokens has from the other half.

    The weights depend on the bucket alone, that is on the history: where every part sums to 1 over the vocabulary, the
    mixture does too.

    Args:
        parts: chances (K, N), as fit_weights takes them, of a network and of `Chances`; in reading order.
        buckets: whole numbers (N,) from 0 on.
    """
    mixed = np.empty(len(buckets))
    first = np.arange(len(buckets)) < len(buckets) // 2
    for learnt in (first, ~first):
        start = fit_weights(parts[:, learnt])
        for bucket in np.unique(buckets[~learnt]):
            inside = buckets == bucket
            weights = fit_weights(parts[:, learnt & inside], start, prior=PRIOR)
            mixed[~learnt & inside] = weights @ parts[:, ~learnt & inside]
    return mixed
