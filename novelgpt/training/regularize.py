"""What keeps a network from learning a short book by heart: how much of it a run needs, and exchanged inputs.

A text that is read a few times teaches each time; read thirty times, as 15 epochs of half-overlapping windows do, it is
learnt by heart unless reading is made harder. docs/LOG.md has the measurements.
"""

from dataclasses import replace

import numpy as np

from novelgpt.training.windows import Batch

FRESH_READINGS = 4  # readings of a text that teach about as much as new text (arXiv 2305.16264)
REPLACED = 0.15
MEMORY_EPOCHS = 2  # weights are a mean over the updates of so many epochs
STREAM = 2  # third word of the seed, so that no other random numbers of the step are the same


def default_weight_decay(lr: float, epoch_steps: int, *, pretrained: bool) -> float:
    """Return the decay with which weights forget in two epochs: decay · lr is the share that they lose a step.

    Args:
        lr: peak rate.
        epoch_steps: steps of an epoch.
        pretrained: weights that know something are hardly decayed.

    Returns:
        0.1 to 1 from scratch, 0.01 for pretrained weights.

    >>> round(default_weight_decay(2e-3, 1294, pretrained=False), 3)
    0.193
    """
    if pretrained:
        return 0.01
    return min(1.0, max(0.1, 1 / (max(lr, 1e-9) * MEMORY_EPOCHS * epoch_steps)))


def default_replacement(readings: float, *, pretrained: bool) -> float:
    """Return the share of inputs to exchange for a text read so many times in a run: epochs · window / stride.

    >>> default_replacement(30, pretrained=False), default_replacement(2, pretrained=False)
    (0.15, 0.0)
    """
    return 0.0 if pretrained or readings <= FRESH_READINGS else REPLACED


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
