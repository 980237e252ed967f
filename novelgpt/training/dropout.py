"""Dropout whose masks are cheap and a function of (seed, step, window, place), however a batch is split.

One random byte an element instead of one slow Bernoulli number, and an AND on the bits instead of a masked fill.
"""

import numpy as np
import torch
from torch import nn


class Noise:
    """Random bytes as a function of (seed, step, window in the global batch, place in the network)."""

    def __init__(self, seed: int):
        """Start a source of noise; call set_position before every forward pass."""
        self.seed = seed
        self.set_position(0, 0)

    def set_position(self, step: int, first_row: int) -> None:
        """Say which step is computed, and which row of the global batch is the first of this micro-batch."""
        self.step = step
        self.first_row = first_row

    def generator(self, row: int, site: int) -> np.random.Generator:
        """Return the random stream of one row of the micro-batch at one place."""
        return np.random.Generator(np.random.SFC64([self.seed, self.step, self.first_row + row, site]))


def random_bytes(generator: np.random.Generator, shape: tuple[int, ...]) -> torch.Tensor:
    """Draw uniform uint8 numbers."""
    count = int(np.prod(shape))
    words = generator.integers(0, 2**64 - 1, size=-(-count // 8), dtype=np.uint64, endpoint=True)
    return torch.from_numpy(words.view(np.uint8)[:count]).view(shape)


def drop_threshold(p: float) -> int:
    """Return how many of the 256 byte values drop an element: p rounded to 1/256.

    >>> drop_threshold(0.1) / 256
    0.1015625
    """
    return round(p * 256)


def keep_scale(p: float) -> float:
    """Return the factor that keeps the mean when a share p is dropped."""
    return 256 / (256 - drop_threshold(p))


def keep_masks(draws: list[np.random.Generator], shape: tuple[int, ...], p: float) -> torch.Tensor:
    """Draw which elements stay, (N, *shape) from N generators: int8, -1 (all bits) to keep and 0 to drop."""
    parts = [random_bytes(generator, shape) for generator in draws]
    drawn = parts[0][None] if len(parts) == 1 else torch.stack(parts)
    return drawn.ge_(drop_threshold(p)).view(torch.int8).neg_()


def as_wide_as(values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Return a mask of keep_masks in integers as wide as the values, for an AND on their bits."""
    return mask.to(torch.int16 if values.element_size() == 2 else torch.int32)


def mask_(values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Zero in place what a mask of keep_masks drops: ten times faster than a masked fill."""
    mask = as_wide_as(values, mask)
    values.view(mask.dtype).bitwise_and_(mask)
    return values


class KeyedDropout(nn.Module):
    """Dropout of (B, T, D) whose mask is a function of (seed, step, window, site)."""

    def __init__(self, p: float, noise: Noise, site: int):
        super().__init__()
        self.p = p
        self.noise = noise
        self.site = site

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Zero a share p of the elements and scale the others up so that the mean stays."""
        if not self.training or drop_threshold(self.p) == 0:
            return hidden
        draws = [self.noise.generator(row, self.site) for row in range(len(hidden))]
        return MaskedScale.apply(hidden, keep_masks(draws, tuple(hidden.shape[1:]), self.p), keep_scale(self.p))


class MaskedScale(torch.autograd.Function):
    """hidden · scale, and 0 where the mask says so; remembers one byte an element."""

    @staticmethod
    def forward(ctx, hidden, mask, scale):
        """Return the masked and scaled tensor."""
        ctx.save_for_backward(mask)
        ctx.scale = scale
        return mask_(hidden * scale, mask)

    @staticmethod
    def backward(ctx, gradient):
        """Mask and scale the gradient the same way."""
        (mask,) = ctx.saved_tensors
        return mask_(gradient * ctx.scale, mask), None, None
