"""What a plain GPT2LMHeadModel needs to train fast on a CPU or a GPU, without changing a weight or a result.

On a CPU four parts are replaced in place; the state dict stays the same:

- dropout and attention are those of attention.py;
- GELU is one loop instead of eight operators;
- in fp32 the linear layers go through oneDNN. PyTorch sends fp32 products on a CPU to MKL, which runs at a third of its
  speed on processors that are not Intel's; oneDNN, which PyTorch ships too, is fast on all of them. bf16 products go
  to oneDNN anyway, and GPUs have their own library.

On a GPU attention is PyTorch's own, called so that it can be flash attention, and GELU one kernel.

The head's products and its cross-entropy, which the loss does in chunks, are here too.
"""

import ctypes
import sys
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd.function import once_differentiable
from transformers import AttentionInterface, GPT2LMHeadModel

from novelgpt.compute import loops
from novelgpt.compute.attention import SITES_PER_LAYER, KeyedDropout, Noise, blocked_attention, causal_attention
from novelgpt.compute.compiling import CPU_FORMATS, as_array, share_threads

HAS_ONEDNN = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
# names in the registry of transformers, which makes no mask for those that it does not know
ATTENTION, CAUSAL_ATTENTION = "novelgpt_blocked", "novelgpt_causal"
# of glibc: M_MMAP_THRESHOLD, M_TRIM_THRESHOLD, M_TOP_PAD; bytes
MALLOC_OPTIONS = {-3: 1 << 30, -1: 2**31 - 1, -2: 64 << 20}


def tune_for_cpu(model: GPT2LMHeadModel, *, seed: int, dtype: torch.dtype = torch.float32) -> Noise:
    """Replace dropout, attention, GELU and, where the products are in fp32, the linear layers of a GPT-2 in place.

    Args:
        model: in fp32 on the CPU; its weights and its state dict stay as they are.
        seed: of the dropout masks, 0 or more.
        dtype: of the matrix products, torch.float32 or torch.bfloat16.

    Returns:
        The source of noise, a function of the seed, whose set_position the training loop calls before each pass.
    """
    # Attention is a function that the config names; transformers hands it the block's own module.
    noise = Noise(seed)
    AttentionInterface.register(ATTENTION, blocked_attention)
    model.config._attn_implementation = ATTENTION
    # A number for every place of dropout, so that no two draw the same masks: the embedding, three a layer, LoRA's.
    transformer = model.transformer
    transformer.drop = KeyedDropout(transformer.drop.p, noise, 0)
    for index, block in enumerate(transformer.h):
        block.attn.noise = noise
        block.attn.resid_dropout = KeyedDropout(block.attn.resid_dropout.p, noise, SITES_PER_LAYER * index + 2)
        block.mlp.dropout = KeyedDropout(block.mlp.dropout.p, noise, SITES_PER_LAYER * index + 3)
        if model.config.activation_function in loops.TANH_GELU:
            block.mlp.act = Gelu()
        tune_linear_layers(block, noise, SITES_PER_LAYER * len(transformer.h) + 1 + 4 * index, dtype)
    model.train(model.training)  # new modules start in training mode, whatever the model is in
    return noise


def tune_for_gpu(model: GPT2LMHeadModel) -> None:
    """Replace attention and GELU of a GPT-2 in place by those of a GPU, without changing a weight or a result."""
    AttentionInterface.register(CAUSAL_ATTENTION, causal_attention)
    model.config._attn_implementation = CAUSAL_ATTENTION
    # The tanh form of transformers is eight operators, one of which autocast makes fp32: 2.6 times the memory traffic.
    if model.config.activation_function in loops.TANH_GELU:
        for block in model.transformer.h:
            block.mlp.act = nn.GELU(approximate="tanh")


def multiply(left: torch.Tensor, right: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """Return left (N, K) · right (K, M) (+ bias) without a graph, both of one dtype and device and of any strides.

    >>> multiply(torch.ones(2, 3), torch.ones(3, 1)).tolist()
    [[3.0], [3.0]]
    """
    if HAS_ONEDNN and left.device.type == "cpu" and left.dtype == torch.float32:
        return torch.ops.mkldnn._linear_pointwise(left, right.t(), bias, "none", [], "")
    return left @ right if bias is None else torch.addmm(bias, left, right)


class LinearFunction(torch.autograd.Function):
    """input · weight + bias, all three products of a training step through `multiply`."""

    @staticmethod
    def forward(ctx, inputs, weight, bias):
        """Return (N, M) from inputs (N, K), weight (K, M), bias (M,)."""
        ctx.save_for_backward(inputs, weight)
        return multiply(inputs, weight, bias)

    @staticmethod
    def backward(ctx, gradient):
        """Return the gradients; None for weight and bias where they are frozen."""
        inputs, weight = ctx.saved_tensors
        gradient = gradient.contiguous()  # (N, M)
        if not ctx.needs_input_grad[1]:
            return multiply(gradient, weight.t()), None, None
        weight_gradient = multiply(gradient.t(), inputs).t()  # (K, M), by the faster of the two orders
        return multiply(gradient, weight.t()), weight_gradient, gradient.sum(0)


class LinearLayer(nn.Module):
    """GPT-2's Conv1D, a linear layer with an (in, out) weight, through oneDNN. Shares the original's parameters."""

    def __init__(self, conv: nn.Module):
        super().__init__()
        self.weight, self.bias = conv.weight, conv.bias

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Map (..., in) to (..., out)."""
        flat = hidden.reshape(-1, hidden.shape[-1])  # (N, in)
        return LinearFunction.apply(flat, self.weight, self.bias).view(*hidden.shape[:-1], -1)


class Gelu(nn.Module):
    """GELU in its tanh form, as GPT-2 has it."""

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Map (..., D) to the same; fp32 and bf16 in one loop."""
        return GeluFunction.apply(hidden) if hidden.dtype in CPU_FORMATS else F.gelu(hidden, approximate="tanh")


class GeluFunction(torch.autograd.Function):
    """GELU that remembers its input; one loop over the numbers each way."""

    @staticmethod
    def forward(ctx, hidden):
        """Return GELU of (..., D)."""
        hidden = hidden.contiguous()
        ctx.save_for_backward(hidden)
        result = torch.empty_like(hidden)
        share_threads()
        loops.gelu(rows_of(hidden), rows_of(result))
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        """Return the gradient times the derivative."""
        (hidden,) = ctx.saved_tensors
        result = torch.empty_like(hidden)
        loops.gelu_backward(rows_of(hidden), rows_of(gradient.contiguous()), rows_of(result))
        return result


def rows_of(tensor: torch.Tensor) -> np.ndarray:
    """Return the memory of (..., D) as an array (N, D)."""
    return as_array(tensor).reshape(-1, tensor.shape[-1])


def tune_linear_layers(block: nn.Module, noise: Noise, site: int, dtype: torch.dtype) -> None:
    """Replace the four linear layers of a block in fp32; where LoRA stands beside one, its dropout too."""
    places = ((block.attn, "c_attn"), (block.attn, "c_proj"), (block.mlp, "c_fc"), (block.mlp, "c_proj"))
    for number, (part, name) in enumerate(places):
        layer = getattr(part, name)
        if hasattr(layer, "base_layer"):  # LoRA's wrapper: the layer itself is inside
            dropout = layer.lora_dropout["default"]
            layer.lora_dropout["default"] = KeyedDropout(getattr(dropout, "p", 0.0), noise, site + number)
            part, name, layer = layer, "base_layer", layer.base_layer
        if dtype == torch.float32:
            setattr(part, name, LinearLayer(layer))


def row_losses_on_cpu(
    logits: torch.Tensor,
    labels: torch.Tensor,
    needs_gradient: bool,
    teachers: Sequence[torch.Tensor] = (),
    teacher_weight: float = 0.0,
) -> torch.Tensor:
    """Return the cross-entropy (C,) of every row, fp32 nats; where a gradient is needed, it overwrites the logits.

    Logits (C, V) are in one of CPU_FORMATS; labels (C,) are int64, a negative one does not count. Logits of teachers,
    each like these, turn the gradient into that of loops.cross_entropy with them.
    """
    # A label beyond the vocabulary would be read from foreign memory.
    if len(labels) and labels.max() >= logits.shape[1]:
        raise IndexError(f"label {int(labels.max())} of {logits.shape[1]} tokens")
    losses = torch.empty(len(logits))  # (C,)
    share_threads()
    taught = torch.stack(list(teachers), 1) if teachers else logits.new_empty(len(logits), 0, 0)  # (C, K, V)
    arrays = (as_array(logits), labels.numpy(), losses.numpy())
    loops.cross_entropy(*arrays, needs_gradient, as_array(taught), np.float32(teacher_weight))
    return losses


def keep_freed_memory() -> bool:
    """Let glibc keep freed memory, since fresh pages cost a tuned step 10 to 12 %; False if it has no such switch."""
    library = ctypes.CDLL(None) if sys.platform.startswith("linux") else None
    if not hasattr(library, "mallopt"):
        return False
    return all(library.mallopt(option, value) == 1 for option, value in MALLOC_OPTIONS.items())
