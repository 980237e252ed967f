"""How much memory a step takes, what is there, and into how many parts a batch must be split to fit.

Per parameter: weight, gradient and two moments in fp32 (16 bytes; Muon keeps one moment). Per token and layer: what the
backward pass needs again, about 38 bytes times the width where products are in 16 bits (inputs of the linear layers and
of GELU in 16 bits, two residual streams in fp32, two dropout masks), 72 in fp32. On a CPU the attention's probabilities
are kept too, half of a square and a block's width. The loss holds one chunk of logits. Teachers are frozen weights,
hidden states and a chunk of logits each.
"""

import os
from collections.abc import Callable, Sequence

import torch

from novelgpt.compute import QUERY_BLOCK
from novelgpt.messages import EXIT_ENVIRONMENT, UserError
from novelgpt.network import count_config_parameters

BYTES_PER_PARAMETER = 16
GRADIENT_BYTES = 4  # of them
BYTES_PER_FROZEN = 4
ACTIVATION_BYTES = {2: 38, 4: 72}  # by bytes a product's number; times width, a token and layer
LOGIT_BYTES = 10  # fp32 scores, their gradient, 16-bit logits
FIXED_BYTES = 600 << 20  # the libraries themselves
USABLE = 0.85  # of what is free
# in the words of Windows, of Linux, of Apple's and NVIDIA's GPUs, of cuBLAS
NO_MEMORY = ("not enough memory", "can't allocate memory", "out of memory", "ALLOC_FAILED")
HEAD_CHUNK = {"cpu": 1024, "cuda": 8192, "mps": 1024}  # positions whose logits exist at a time


class DoesNotFit(UserError):
    """Not even single rows fit into the memory; the weights are those of the last whole step."""


def rows_at_a_time(batch_size: int, parts: int, *, replicas: int) -> int:
    """Return the most rows that one device computes at a time when its share of a batch is split into some parts.

    >>> rows_at_a_time(8, 1, replicas=1), rows_at_a_time(8, 2, replicas=3)
    (8, 2)
    """
    rows = -(-batch_size // replicas)  # of one device
    return -(-rows // parts)


def predict_bytes(
    config: dict,
    vocab_size: int,
    rows: int,
    *,
    device: str,
    dtype: torch.dtype,
    checkpointing: bool = False,
    accumulates: bool = False,
    trained: int | None = None,
    window: int | None = None,
    teachers: Sequence[tuple[int, int]] = (),
) -> int:
    """Predict the memory that a training step takes on one device.

    Args:
        config, vocab_size: a checked network config, tokens of the vocabulary.
        rows, window: rows computed at a time, tokens a row; None for the network's context.
        device, dtype: its type, for example "cpu"; format of the matrix products.
        checkpointing: activations are computed again, and only the inputs of the blocks are kept.
        accumulates: a batch is computed in several parts, so gradients are there from the second one on.
        trained: parameters with gradient and moments; None for all.
        teachers: parameters and width of each.
    """
    # what is kept of every token for the backward pass
    parameters = count_config_parameters(config, vocab_size)
    length = window or config["n_positions"]
    tokens = rows * length
    width, layers = config["n_embd"], config["n_layer"]
    size = torch.finfo(dtype).bits // 8
    a_layer = ACTIVATION_BYTES[size] * width * tokens
    if device == "cpu":
        a_layer += size * config["n_head"] * tokens * (length + min(QUERY_BLOCK, length)) // 2
    logits = LOGIT_BYTES * min(HEAD_CHUNK[device], tokens) * vocab_size * (1 + len(teachers))
    taught = sum(BYTES_PER_FROZEN * count + size * other_width * tokens for count, other_width in teachers)

    # copies of the weights in 16 bits, both ends of the network, weights with gradients and moments
    casts = size * parameters if size == 2 else 0
    ends = 24 * width * tokens
    frozen = 0 if trained is None else max(0, parameters - trained)
    gradients = GRADIENT_BYTES * (parameters - frozen)
    weights = BYTES_PER_PARAMETER * (parameters - frozen) + BYTES_PER_FROZEN * frozen - gradients

    # checkpointing: the first pass ends with the logits; on the way back come a block at a time and the gradients
    if checkpointing:
        forward, backward = logits + gradients * accumulates, a_layer + gradients
        activations = 4 * layers * width * tokens + max(forward, backward)
    else:
        activations = layers * a_layer + logits + gradients
    return FIXED_BYTES + weights + casts + activations + ends + taught


def check_weights_fit(config: dict, vocab_size: int, *, name: str) -> None:
    """Raise when not even the weights of a network, called `name`, fit into the free memory; none is allocated yet."""
    needed, there = 4 * count_config_parameters(config, vocab_size), available_bytes(torch.device("cpu"))
    if needed > there:
        message = f"{name}: the weights alone take {needed / 1e9:,.1f} GB, {there / 1e9:,.1f} GB of memory are free"
        raise UserError(message, "a smaller network, for example config/model_config_small.json", EXIT_ENVIRONMENT)


def available_bytes(device: torch.device) -> int:
    """Return the free memory of a GPU, or of the machine."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        # Linux counts what its caches would give back
        with open("/proc/meminfo", encoding="ascii") as file:
            facts = dict(line.split(":") for line in file)
        return int(facts["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 8 << 30


def is_out_of_memory(problem: Exception) -> bool:
    """Tell whether an error says that memory ran out, on a GPU or on the CPU."""
    words = str(problem)
    return isinstance(problem, (torch.OutOfMemoryError, MemoryError)) or any(sign in words for sign in NO_MEMORY)


def choose_parts(needed: Callable[[int], int], rows: int, available: int, *, least: int = 1) -> int:
    """Return the smallest number of micro-batches that fits, doubling from the least one.

    Args:
        needed: number of micro-batches -> predicted bytes.
        rows: of the whole batch (of one device).
        available: bytes.
        least: micro-batches asked for.

    >>> choose_parts(lambda parts: 80 // parts, 8, 50)
    2
    """
    parts = least
    while parts < rows and needed(parts) > USABLE * available:
        parts = min(rows, 2 * parts)
    return parts
