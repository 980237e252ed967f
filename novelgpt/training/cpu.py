"""What a plain GPT2LMHeadModel needs to train fast on a CPU, without changing a weight or a result.

Four parts are exchanged in place; the state dict stays the same:

- dropout draws one cheap random byte an element instead of one slow Bernoulli number, and draws it as a function of
  (seed, step, window), so the masks do not depend on how a batch is split;
- attention goes block by block of queries: no T x T mask, and no score matrix kept for the backward pass;
- GELU is one kernel instead of eight;
- without bf16, the linear layers go through oneDNN.
"""

import ctypes
import functools
import sys

import numpy as np
import torch
from torch import nn
from transformers import AttentionInterface, GPT2LMHeadModel

from novelgpt.products import ProductLayer

BLOCK = 256  # queries a block
ATTENTION = "novelgpt_blocked"
SITES_A_LAYER = 3  # attention, after attention, after the MLP
MALLOC_OPTIONS = {-3: 1 << 30, -1: 2**31 - 1, -2: 64 << 20}  # mmap threshold, trim threshold, top pad; bytes


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


def keep_mask(draws: np.random.Generator, shape: tuple[int, ...], p: float) -> torch.Tensor:
    """Draw which elements stay: int8, -1 (all bits) to keep and 0 to drop."""
    return random_bytes(draws, tuple(shape)).ge_(drop_threshold(p)).view(torch.int8).neg_()


def mask_(values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Zero in place what a keep_mask drops: an AND on the bits, ten times faster than a masked fill."""
    bits = torch.int16 if values.element_size() == 2 else torch.int32
    values.view(bits).bitwise_and_(mask.to(bits))
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
        shape = tuple(hidden.shape[1:])
        masks = [keep_mask(self.noise.generator(row, self.site), shape, self.p) for row in range(len(hidden))]
        return MaskedScale.apply(hidden, torch.stack(masks), keep_scale(self.p))


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


class BlockedAttention(torch.autograd.Function):
    """Causal attention, one window and one block of queries at a time; probabilities are computed again backwards.

    Both the scale of the scores and that of dropout are applied to narrow tensors, never to the (H, Q, K) ones.
    """

    @staticmethod
    def forward(ctx, query, key, value, scale, p, noise, site):
        """Return (B, T, H, D/H) from query, key, value of (B, H, T, D/H)."""
        ctx.save_for_backward(query, key, value)
        ctx.settings = scale, p, noise, noise and (noise.step, noise.first_row), site
        rows, heads, length, width = query.shape
        output = query.new_empty(rows, length, heads, width)
        for row in range(rows):
            draws = noise.generator(row, site) if p else None
            scaled_query, scaled_value = query[row] * scale, value[row] * keep_scale(p)
            for start in range(0, length, BLOCK):
                end = min(start + BLOCK, length)
                weights = block_probabilities(scaled_query, key[row], start, end)  # (H, Q, K)
                if p:
                    mask_(weights, keep_mask(draws, weights.shape, p))
                output[row, start:end] = torch.bmm(weights, scaled_value[:, :end]).transpose(0, 1)
        return output

    @staticmethod
    def backward(ctx, gradient):
        """Return the gradients of query, key and value."""
        query, key, value = ctx.saved_tensors
        scale, p, noise, position, site = ctx.settings
        if p:
            noise.set_position(*position)
        gradients = [torch.empty_like(part) for part in (query, key, value)]
        for row in range(len(query)):
            draws = noise.generator(row, site) if p else None
            parts = row_backward(query[row] * scale, key[row], value[row], gradient[row] * keep_scale(p), p, draws)
            for whole, part in zip(gradients, parts, strict=True):
                whole[row] = part
        gradients[0].mul_(scale)
        return *gradients, None, None, None, None


def row_backward(scaled_query, key, value, gradient, p, draws):
    """Return one window's gradients of scaled query, key, value (H, T, D/H); gradient is (T, H, D/H), scaled too."""
    query_gradient = torch.empty_like(scaled_query)
    key_gradient, value_gradient = (torch.zeros(part.shape, dtype=torch.float32) for part in (key, value))
    gradient = gradient.transpose(0, 1).contiguous()  # (H, T, D/H)
    for start in range(0, key.shape[1], BLOCK):
        end = min(start + BLOCK, key.shape[1])
        weights = block_probabilities(scaled_query, key, start, end)  # (H, Q, K)
        from_output = gradient[:, start:end]  # (H, Q, D/H)
        from_weights = torch.bmm(from_output, value[:, :end].transpose(1, 2))  # (H, Q, K)
        used = weights
        if p:
            mask = keep_mask(draws, weights.shape, p)
            used = mask_(weights.clone(), mask)
            mask_(from_weights, mask)
        value_gradient[:, :end] += torch.bmm(used.transpose(1, 2), from_output)
        from_scores = torch._softmax_backward_data(from_weights, weights, -1, weights.dtype)
        query_gradient[:, start:end] = torch.bmm(from_scores, key[:, :end])
        key_gradient[:, :end] += torch.bmm(from_scores.transpose(1, 2), scaled_query[:, start:end])
    return query_gradient, key_gradient, value_gradient


def block_probabilities(scaled_query, key, start: int, end: int) -> torch.Tensor:
    """Return softmax(query · keyᵀ) of queries start … end over keys 0 … end, (H, end - start, end)."""
    scores = torch.bmm(scaled_query[:, start:end], key[:, :end].transpose(1, 2))
    scores[:, :, start:].masked_fill_(future_mask(end - start), -torch.inf)
    return torch.softmax(scores, dim=-1)


@functools.cache
def future_mask(size: int) -> torch.Tensor:
    """Return the strict upper triangle: what a query must not see in its own block."""
    return torch.ones(size, size, dtype=torch.bool).triu_(1)


def blocked_attention(module, query, key, value, attention_mask, *, scaling, dropout=0.0, **_):
    """Attention function in the form transformers calls; the mask is always causal, so none may be given."""
    assert attention_mask is None
    site = SITES_A_LAYER * module.layer_idx + 1
    p = dropout if drop_threshold(dropout) else 0.0
    return BlockedAttention.apply(query, key, value, scaling, p, module.noise, site), None


def tune_for_cpu(model: GPT2LMHeadModel, *, seed: int, dtype: torch.dtype = torch.float32) -> Noise:
    """Exchange dropout, attention, GELU and, in fp32, the linear layers of a GPT-2 in place.

    Args:
        model: trained on the CPU; its weights and their names stay.
        seed: the dropout masks are a function of it.
        dtype: format of the matrix products.

    Returns:
        The source of noise, whose set_position the training loop calls.
    """
    noise = Noise(seed)
    AttentionInterface.register(ATTENTION, blocked_attention)
    model.config._attn_implementation = ATTENTION
    transformer = model.transformer
    transformer.drop = KeyedDropout(transformer.drop.p, noise, 0)
    for index, block in enumerate(transformer.h):
        block.attn.noise = noise
        block.attn.resid_dropout = KeyedDropout(block.attn.resid_dropout.p, noise, SITES_A_LAYER * index + 2)
        block.mlp.dropout = KeyedDropout(block.mlp.dropout.p, noise, SITES_A_LAYER * index + 3)
        if model.config.activation_function in ("gelu_new", "gelu_pytorch_tanh", "gelu_fast"):
            block.mlp.act = nn.GELU(approximate="tanh")
        tune_linear_layers(block, noise, SITES_A_LAYER * len(transformer.h) + 1 + 4 * index, dtype)
    model.train(model.training)  # the new parts are born in training mode
    return noise


def tune_linear_layers(block: nn.Module, noise: Noise, site: int, dtype: torch.dtype) -> None:
    """Exchange the four linear layers of a block in fp32; where LoRA stands beside one, its dropout too."""
    places = ((block.attn, "c_attn"), (block.attn, "c_proj"), (block.mlp, "c_fc"), (block.mlp, "c_proj"))
    for number, (part, name) in enumerate(places):
        layer = getattr(part, name)
        if hasattr(layer, "base_layer"):
            dropout = layer.lora_dropout["default"]
            layer.lora_dropout["default"] = KeyedDropout(getattr(dropout, "p", 0.0), noise, site + number)
            part, name, layer = layer, "base_layer", layer.base_layer
        if dtype == torch.float32:
            setattr(part, name, ProductLayer(layer))


def keep_large_blocks() -> bool:
    """Tell glibc's allocator to keep large blocks instead of returning them after every operation.

    Fresh pages cost a tuned step 10 to 12 %. Returns False where the C library has no such switch.
    """
    if not sys.platform.startswith("linux"):
        return False
    library = ctypes.CDLL(None)
    if not hasattr(library, "mallopt"):
        return False
    return all(library.mallopt(option, value) == 1 for option, value in MALLOC_OPTIONS.items())
