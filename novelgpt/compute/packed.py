"""A weight matrix in the form in which this processor multiplies it fastest.

Writing one token reads every weight once, so its speed is that of memory: fp32 four bytes a weight, bf16 two, int8 one.
In fp32 and bf16 oneDNN multiplies. It wants the matrix rearranged once beforehand, and PyTorch does that by operators
of its own compiler that carry no promise; so `can_pack` tries them first, and a plain product takes over where they are
missing. In int8 a loop of ours multiplies (eight_bits.py): one call does what takes oneDNN three, and reading ahead
keeps the memory busy.

A product is a function x (B, in) fp32 -> y (B, out) fp32, on a GPU also of bf16 and to bf16. Each one is made *row
stable*: the result of a row does not depend, to the last bit, on how many other rows are computed with it. So a sample
is the same in every batch.
"""

import functools
from collections.abc import Callable

import torch
import torch.nn.functional as F

from novelgpt.compute.eight_bits import int8_product
from novelgpt.compute.loops import TANH_GELU
from novelgpt.messages import warn

Product = Callable[[torch.Tensor], torch.Tensor]
Norm = tuple[torch.Tensor, torch.Tensor, float]  # weight and bias (in,) fp32, epsilon

MAX_ROWS = 16  # rows computed at once on a CPU; results are measured to be equal for 1 to this many


def make_product(
    weight: torch.Tensor, bias: torch.Tensor | None, kind: str, *, norm: Norm | None = None, gelu: bool = False
) -> Product:
    """Return the fastest product with a matrix.

    Args:
        weight, bias: (out, in) and (out,), fp32.
        kind: "fp32", "bf16" or "int8" (CPU only); sums are fp32 in all of them (int32 in int8).
        norm: a layer norm applied to x first.
        gelu: apply GPT-2's GELU, the tanh form, to the result.

    >>> product = make_product(torch.eye(2), torch.ones(2), "fp32")
    >>> product(torch.tensor([[1.0, 2.0]])).tolist()
    [[2.0, 3.0]]
    """
    product = new_product(weight, bias, kind, norm=norm, gelu=gelu)
    # On GPUs the caller always computes MAX_ROWS rows, so nothing has to be measured there.
    if weight.device.type != "cpu":
        return product
    least = 1 if kind == "int8" else least_rows(kind, *weight.shape, bias is not None)  # sums of integers have no order

    def padded(x: torch.Tensor) -> torch.Tensor:
        rows = x.shape[0]
        return product(x) if rows >= least else product(F.pad(x, (0, 0, 0, least - rows)))[:rows]

    return product if least == 1 else padded


def make_feed_forward(widen: tuple, narrow: tuple, kind: str, *, norm: Norm, activation: str) -> Product:
    """Return the feed-forward half of a block as one function x (B, D) -> (B, D).

    Args:
        widen, narrow: weight (out, in) and bias (out,) of the two matrices.
        kind, norm: as in make_product.
        activation: the config's name of the function between them.
    """
    # The usual GELU is part of the first product; any other activation is a call of its own.
    is_gelu = activation in TANH_GELU
    first, second = make_product(*widen, kind, norm=norm, gelu=is_gelu), make_product(*narrow, kind)
    if is_gelu:
        return lambda x: second(first(x))
    from transformers.activations import ACT2FN  # seconds, which only such a model takes

    between = ACT2FN[activation]
    return lambda x: second(between(first(x)))


def new_product(
    weight: torch.Tensor, bias: torch.Tensor | None, kind: str, *, norm: Norm | None = None, gelu: bool = False
) -> Product:
    """Return the fastest product with a matrix, row stable or not."""
    on_cpu = weight.device.type == "cpu"
    if kind == "int8" and on_cpu:
        return int8_product(weight, bias, norm, gelu)
    product = choose_form(weight.device, kind)(weight, bias, kind, gelu)
    if norm is None:
        return product
    *weights, epsilon = norm
    return lambda x: product(F.layer_norm(x, x.shape[-1:], *weights, epsilon))


def choose_form(device: torch.device, kind: str) -> Callable[..., Product]:
    """Return how products in fp32 and bf16 are computed on a device."""
    if device.type != "cpu":
        return gpu_product
    return packed_product if can_pack(kind) else plain_product


def gpu_product(weight: torch.Tensor, bias: torch.Tensor | None, kind: str, gelu: bool) -> Product:
    """Multiply by PyTorch's public operators; what is bf16 stays so up to the next product, for a cast is a launch."""
    dtype = torch.bfloat16 if kind == "bf16" else torch.float32
    weight, bias = weight.to(dtype).contiguous(), None if bias is None else bias.to(dtype)
    if gelu:
        return lambda x: F.gelu(F.linear(x.to(dtype), weight, bias), approximate="tanh")
    return lambda x: F.linear(x.to(dtype), weight, bias)


def plain_product(weight: torch.Tensor, bias: torch.Tensor | None, kind: str, gelu: bool) -> Product:
    """Do the same on a CPU where nothing can be packed, with results in fp32, as the loops there want them."""
    dtype = torch.bfloat16 if kind == "bf16" else torch.float32
    weight, bias = weight.to(dtype).contiguous(), None if bias is None else bias.to(dtype)
    if gelu:
        return lambda x: F.gelu(F.linear(x.to(dtype), weight, bias).float(), approximate="tanh")
    return lambda x: F.linear(x.to(dtype), weight, bias).float()


def packed_product(weight: torch.Tensor, bias: torch.Tensor | None, kind: str, gelu: bool = False) -> Product:
    """Multiply with the matrix rearranged by oneDNN, in fp32 or bf16; with GELU, bf16 is handed on as bf16."""
    dtype = torch.bfloat16 if kind == "bf16" else torch.float32
    multiply = torch.ops.mkldnn._linear_pointwise.default
    packed = torch.ops.mkldnn._reorder_linear_weight(weight.to(dtype).contiguous(), MAX_ROWS)
    bias = None if bias is None else bias.to(dtype)
    if gelu:
        return lambda x: multiply(x.to(dtype), packed, bias, "gelu", [], "tanh")
    return lambda x: multiply(x.to(dtype), packed, bias, "none", [], "").float()


@functools.cache
def can_pack(kind: str) -> bool:
    """Try the private operators on a small matrix; warn once where they are missing or wrong."""
    # linspace, not random: nothing here may move the caller's random numbers
    weight, x = torch.linspace(-1, 1, 64 * 32).reshape(64, 32), torch.linspace(-1, 1, 32).reshape(1, 32)
    try:
        close = torch.allclose(packed_product(weight, None, kind)(x), x @ weight.T, rtol=0.02, atol=0.1)
        problem = "" if close else "its product is wrong"
    except (AttributeError, NotImplementedError, RuntimeError) as fault:
        problem = str(fault).splitlines()[0]
    if problem:
        warn(f"{kind}: this PyTorch has no packed product here ({problem}); using the slower plain one in {kind}")
    return not problem


@functools.cache
def least_rows(kind: str, num_outputs: int, num_inputs: int, has_bias: bool) -> int:
    """Return the least number of rows from which on, up to MAX_ROWS, every row comes out the same to the last bit.

    This is measured, since libraries choose their kernels by shape and promise nothing. Every term of the sums has its
    negative further on, so only rounding errors remain: another order of summing changes nearly every number.
    """
    # x and weights whose products cancel.
    generator = torch.Generator().manual_seed(0)
    half = torch.randn(num_outputs, num_inputs // 2, generator=generator)
    weight = F.pad(torch.cat([half, half], 1), (0, num_inputs % 2))  # (out, in)
    half = torch.randn(MAX_ROWS, num_inputs // 2, generator=generator)
    x = F.pad(torch.cat([half, -half], 1), (0, num_inputs % 2))  # (rows, in)
    # The largest batch is the reference; find the largest one that differs from it in any row.
    product = new_product(weight, torch.zeros(num_outputs) if has_bias else None, kind)
    expected = product(x)
    different = [rows for rows in range(1, MAX_ROWS) if not torch.equal(product(x[:rows]), expected[:rows])]
    return max(different, default=0) + 1
