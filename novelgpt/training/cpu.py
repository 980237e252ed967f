"""What a plain GPT2LMHeadModel needs to train fast on a CPU, without changing a weight or a result.

Four parts are exchanged in place; the state dict stays the same:

- dropout draws one cheap random byte an element instead of one slow Bernoulli number, and draws it as a function of
  (seed, step, window), so the masks do not depend on how a batch is split;
- attention goes block by block of queries, without a T x T mask or the scores above the diagonal;
- GELU is one kernel instead of eight;
- without bf16, the linear layers go through oneDNN.
"""

import ctypes
import sys

import torch
from torch import nn
from transformers import AttentionInterface, GPT2LMHeadModel

from novelgpt.products import ProductLayer
from novelgpt.training.attention import SITES_A_LAYER, blocked_attention
from novelgpt.training.dropout import KeyedDropout, Noise

ATTENTION = "novelgpt_blocked"
MALLOC_OPTIONS = {-3: 1 << 30, -1: 2**31 - 1, -2: 64 << 20}  # mmap threshold, trim threshold, top pad; bytes


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
        if dtype == torch.float32:
            for layer, name in (
                (block.attn, "c_attn"),
                (block.attn, "c_proj"),
                (block.mlp, "c_fc"),
                (block.mlp, "c_proj"),
            ):
                setattr(layer, name, ProductLayer(getattr(layer, name)))
    model.train(model.training)  # the new parts are born in training mode
    return noise


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
