"""What keeps a network from learning a short book by heart, beyond dropout and weight decay."""

from dataclasses import replace

import numpy as np

from novelgpt.training.windows import Batch

STREAM = 2  # third word of the seed, so that no other random numbers of the step are the same


def replace_inputs(batch: Batch, share: float, *, seed: int, step: int) -> Batch:
    """Exchange some tokens that the network reads for random ones of the same batch; what it shall write stays.

    Args:
        batch: a global batch, not yet split.
        share: chance of each input token to be exchanged, 0 to 1.
        seed, step: the result is a function of them, however the batch is split afterwards.

    Returns:
        A batch with the same labels.

    >>> ids = np.arange(6).reshape(2, 3)
    >>> noisy = replace_inputs(Batch(ids, ids, np.zeros(2)), 0.5, seed=0, step=1)
    >>> bool((noisy.input_ids != ids).any()), bool((noisy.labels == ids).all())
    (True, True)
    """
    random = np.random.Generator(np.random.SFC64([seed, step, STREAM]))
    ids = batch.input_ids  # (B, T)
    drawn = ids.ravel()[random.integers(ids.size, size=ids.shape)]
    is_exchanged = random.random(ids.shape, dtype=np.float32) < share
    return replace(batch, input_ids=np.where(is_exchanged, drawn, ids), is_windows=False)
