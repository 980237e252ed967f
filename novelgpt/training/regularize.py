"""Tokens that a network reads -> the same with some exchanged, so that a book read many times is not learned by heart.

A text that is read a few times teaches the network each time. One that is read thirty times, as 15 epochs of
half-overlapping windows do, is learned by heart unless reading is made harder: some input tokens are then replaced by
others; what the network shall write stays.

Which and by what is as Kneser and Ney smooth counts (Xie et al. 2017, arXiv 1703.02573, "Data Noising as Smoothing in
Neural Network Language Models")::

    chance of token x = share · N(x,·) / c(x) / mean          token that stands in: y with chance N(·,y) / all pairs

N(x,·) is how many different tokens follow x in the training text, N(·,y) how many different ones stand before y, c(x)
how often x stands there, and the mean makes the share of all tokens the one asked for. A token that is followed by
something new each time tells little and is exchanged often; one that is always followed by the same is left alone. What
stands in is what fits in many places, not what is frequent in one. docs/LOG.md has the measurements, and those of the
plain rule, --replacement frequency: the same chance for all, and tokens of the batch itself.
"""

from dataclasses import replace

import numpy as np

from novelgpt.training.windows import Batch, Stream

COUNTED = 20_000_000  # tokens, at most, of which the neighbours are counted: two seconds
RANDOM_STREAM = 2  # third word of the seed, so that no other random numbers of the step are the same


class Exchange:
    """Exchanges tokens of batches for others, as the module says.

    Args:
        stream: the training text.
        share: of the tokens that are exchanged, 0 to 1; fewer where that would need a chance above 1.
        vocab_size: V; what the first COUNTED tokens of the text lack is left alone.
        seed: with the step, all that chance depends on, however a batch is split afterwards.
        rule: "neighbours", or "frequency" for the plain one.
    """

    def __init__(self, stream: Stream, share: float, *, vocab_size: int, seed: int, rule: str = "neighbours"):
        self.seed, self.chances, self.drawn_below = seed, np.float32(share), None
        if rule == "neighbours":
            self.count_neighbours(stream[:COUNTED].astype(np.int64), share, vocab_size)

    def count_neighbours(self, ids: np.ndarray, share: float, vocab_size: int) -> None:
        """Count what follows what in a text (N,), and make chances (V,) and draws of it."""
        counts = np.bincount(ids, minlength=vocab_size)
        pairs = np.unique(ids[:-1] * vocab_size + ids[1:])  # each pair of neighbours once
        followers, leaders = (np.bincount(side, minlength=vocab_size) for side in np.divmod(pairs, vocab_size))
        mean = len(pairs) / len(ids)  # over the text, so that the share comes out
        self.chances = np.minimum(share * followers / np.maximum(counts, 1) / mean, 1).astype(np.float32)
        self.drawn_below = np.cumsum(leaders) / len(pairs)  # a number in [0, 1) draws the first token above it

    def __call__(self, batch: Batch, *, step: int) -> Batch:
        """Return a global batch, not yet split, with some of its inputs exchanged and the same labels.

        >>> exchange = Exchange(np.array([1, 2, 1, 3, 1, 4]), 1.0, vocab_size=5, seed=0)
        >>> ids = np.array([[1, 2, 1, 3]])
        >>> exchange(Batch(ids, ids, np.zeros(1)), step=1).labels
        array([[1, 2, 1, 3]])
        """
        random = np.random.Generator(np.random.SFC64([self.seed, step, RANDOM_STREAM]))
        ids, chances = batch.input_ids, self.chances  # (B, T)
        if self.drawn_below is None:
            drawn = ids.ravel()[random.integers(ids.size, size=ids.shape)]
        else:
            drawn = np.searchsorted(self.drawn_below, random.random(ids.shape), side="right")
            chances = chances[ids]  # (B, T)
        return replace(batch, input_ids=np.where(random.random(ids.shape, dtype=np.float32) < chances, drawn, ids))
