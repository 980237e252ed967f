"""Matrix products through the library that is fastest for the place.

PyTorch sends fp32 products on a CPU to MKL, which runs at a third of its speed on processors that are not Intel's;
oneDNN, which PyTorch ships too, is fast on all of them. bf16 products go to oneDNN anyway, and GPUs have their own
library.
"""

import torch
from torch import nn

HAS_ONEDNN = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def multiply(left: torch.Tensor, right: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """Return left · right (+ bias) without a graph.

    Args:
        left: (N, K), any strides.
        right: (K, M), any strides, of the same dtype and device.
        bias: (M,).

    >>> multiply(torch.ones(2, 3), torch.ones(3, 1)).tolist()
    [[3.0], [3.0]]
    """
    if HAS_ONEDNN and left.device.type == "cpu" and left.dtype == torch.float32:
        return torch.ops.mkldnn._linear_pointwise(left, right.t(), bias, "none", [], "")
    return left @ right if bias is None else torch.addmm(bias, left, right)


class Product(torch.autograd.Function):
    """input · weight + bias with all three products of a training step through multiply."""

    @staticmethod
    def forward(ctx, inputs, weight, bias):
        """Return (N, M) from inputs (N, K), weight (K, M), bias (M,)."""
        ctx.save_for_backward(inputs, weight)
        return multiply(inputs, weight, bias)

    @staticmethod
    def backward(ctx, gradient):
        """Return the gradients of inputs, weight and bias; None for weight and bias where they are frozen."""
        inputs, weight = ctx.saved_tensors
        gradient = gradient.contiguous()
        if not ctx.needs_input_grad[1]:
            return multiply(gradient, weight.t()), None, None
        weight_gradient = multiply(gradient.t(), inputs).t()  # the faster of the two orders
        return multiply(gradient, weight.t()), weight_gradient, gradient.sum(0)


class ProductLayer(nn.Module):
    """GPT-2's Conv1D, a linear layer with an (in, out) weight, through Product. Shares the original's parameters."""

    def __init__(self, conv: nn.Module):
        super().__init__()
        self.weight = conv.weight
        self.bias = conv.bias

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Map (..., in) to (..., out)."""
        flat = hidden.reshape(-1, hidden.shape[-1])
        return Product.apply(flat, self.weight, self.bias).view(*hidden.shape[:-1], -1)
