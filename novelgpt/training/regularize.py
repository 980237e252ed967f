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
stands in is what fits in many places, not what is frequent in one. docs/LOG.md has the measurements.
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
        seed: with the step, all that chance depends on, however a batch is split afterwards.
    """

    def __init__(self, stream: Stream, share: float, *, seed: int):
        ids = stream[:COUNTED].astype(np.int64)
        counts = np.bincount(ids)
        pairs = np.unique(ids[:-1] * len(counts) + ids[1:])  # each pair of neighbours once
        followers, leaders = (np.bincount(side, minlength=len(counts)) for side in np.divmod(pairs, len(counts)))

        # so that the mean over the text is the share
        self.seed, mean = seed, len(pairs) / len(ids)
        self.chances = np.minimum(share * followers / np.maximum(counts, 1) / mean, 1).astype(np.float32)  # (V,)
        self.drawn_below = np.cumsum(leaders) / len(pairs)  # (V,): a number in [0, 1) draws the first token above it

    def __call__(self, batch: Batch, *, step: int) -> Batch:
        """Return a global batch, not yet split, with some of its inputs exchanged and the same labels.

        >>> exchange = Exchange(np.array([1, 2, 1, 3, 1, 4]), 1.0, seed=0)
        >>> ids = np.array([[1, 2, 1, 3]])
        >>> exchange(Batch(ids, ids, np.zeros(1)), step=1).labels
        array([[1, 2, 1, 3]])
        """
        random = np.random.Generator(np.random.SFC64([self.seed, step, RANDOM_STREAM]))
        ids = batch.input_ids  # (B, T)
        drawn = np.searchsorted(self.drawn_below, random.random(ids.shape), side="right")
        is_exchanged = random.random(ids.shape, dtype=np.float32) < self.chances[ids]
        return replace(batch, input_ids=np.where(is_exchanged, drawn, ids))
