"""A pretended Mac: one GPU with true numbers, no float64, and its own words when the memory runs out."""

import ctypes

import torch

from pretended.library import build_library
from pretended.tensors import Machine, enter


def plain_attention(query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, **_):
    """Compute attention by products: torch's choice of a kernel knows no Mac in a build for another system."""
    compute = torch.ops.aten._scaled_dot_product_attention_math
    return compute(query, key, value, attn_mask, dropout_p, is_causal, scale=scale)[0]


def install() -> Machine:
    """Give this process an Apple GPU, and no other; it has it to its end."""
    ctypes.CDLL(str(build_library())).become_mac()
    torch.backends.mps.is_available = torch.backends.mps.is_built = lambda: True
    for name in ("manual_seed", "empty_cache", "synchronize"):
        setattr(torch.mps, name, lambda *_: None)
    torch.nn.functional.scaled_dot_product_attention = plain_attention
    torch.mps.device_count = lambda: 1
    torch._C._set_only_lift_cpu_tensors(True)  # of torch.tensor: first a list of the CPU, then a copy
    return enter(Machine("mps"))
