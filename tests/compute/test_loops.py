"""Arithmetic and the loops of training, compiled, against NumPy step by step and against PyTorch."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numba import njit

from novelgpt.compute import loops
from novelgpt.compute.compiling import OPTIONS, as_array
from novelgpt.compute.tuning import Gelu, row_losses_on_cpu
from novelgpt.network.loss import cross_entropy_sum, row_losses

DTYPES = [torch.float32, torch.bfloat16]
NO_WEIGHT = np.float32(0)


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@njit(**OPTIONS)  # kept nowhere: Numba would not see that other files have changed
def through_fp32(x, y):
    """Write x, taken to fp32 and from there, into y."""
    for i in range(len(x)):
        y[i] = loops.narrow(loops.widen(x[i]), y[i])


@njit(**OPTIONS)  # kept nowhere: Numba would not see that other files have changed
def exp_of_each(x, y):
    for i in range(len(x)):
        y[i] = loops.exp(x[i])


def exp_as_written(x: np.ndarray) -> np.ndarray:
    """Return loops.exp by NumPy, one rounded fp32 operation after the other."""
    f = np.float32
    x = np.clip(x, f(-87), f(87))
    n = np.floor(x * f(1.4426950408889634) + f(0.5))
    r = x - n * f(0.693359375) - n * f(-2.12194440054690583e-4)
    series = np.full_like(x, f(1 / 5040))
    for factor in (1 / 720, 1 / 120, 1 / 24, 1 / 6, 1 / 2, 1, 1):
        series = series * r + f(factor)
    return series * np.ldexp(f(1), n.astype(np.int32))


def test_exp_is_that_of_numpy():
    x = np.linspace(-87, 87, 100_001, dtype=np.float32)
    y = np.empty_like(x)
    exp_of_each(x, y)
    assert np.abs(y / np.exp(x.astype(np.float64)) - 1).max() < 4e-7
    exp_of_each(np.array([-1000, 1000, np.nan], np.float32), y)
    assert y[0] < 2e-38 and 1e37 < y[1] < np.inf and np.isnan(y[2])


def test_arithmetic_is_done_as_written_to_the_last_bit():
    x = np.random.default_rng(0).normal(0, 20, 10_007).astype(np.float32)
    y = np.empty_like(x)
    exp_of_each(x, y)
    assert (y == exp_as_written(x)).all()


def test_bf16_is_rounded_as_pytorch_rounds_it():
    bits = np.random.default_rng(0).integers(0, 2**32, 100_000, dtype=np.uint32)
    ties = np.arange(0, 2**16, dtype=np.uint32) << 16 | 0x8000  # halfway between two numbers of bf16
    numbers = np.concatenate([bits, ties]).view(np.float32)
    numbers = np.concatenate([numbers[~np.isnan(numbers)], np.array([np.inf, -np.inf, np.nan], np.float32)])
    ours = torch.empty(len(numbers), dtype=torch.bfloat16)
    through_fp32(numbers, as_array(ours))
    assert torch.equal(ours[:-1], torch.from_numpy(numbers[:-1]).bfloat16()) and torch.isnan(ours[-1])
    wide = np.empty(len(numbers), np.float32)
    through_fp32(as_array(ours), wide)
    assert (wide[:-1] == ours[:-1].float().numpy()).all() and np.isnan(wide[-1])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(3, 5, 70), (1, 1, 1), (2, 256)])
def test_gelu_and_its_derivative_are_those_of_torch(dtype, shape):
    tolerance = 1e-6 if dtype == torch.float32 else 0.01  # of bf16's eight bits
    x, gradient = 3 * torch.randn(shape), torch.randn(shape)
    ours, theirs = (x.to(dtype).requires_grad_() for _ in range(2))
    y, expected = Gelu()(ours), F.gelu(theirs, approximate="tanh")
    y.backward(gradient.to(dtype))
    expected.backward(gradient.to(dtype))
    assert y.dtype == ours.grad.dtype == dtype
    assert torch.allclose(y, expected, rtol=tolerance, atol=tolerance)
    assert torch.allclose(ours.grad, theirs.grad, rtol=tolerance, atol=tolerance)


def test_gelu_takes_tensors_that_do_not_lie_in_one_piece():
    ours, theirs = (torch.arange(24.0).view(4, 6).sub(12).div(4).t().requires_grad_() for _ in range(2))
    Gelu()(ours).backward(torch.ones(4, 6).t())
    F.gelu(theirs, approximate="tanh").sum().backward()
    assert torch.allclose(ours.grad, theirs.grad, atol=1e-6)


def no_teachers(logits) -> np.ndarray:
    """Return the scores (N, K, V) of no teachers in the format of logits (N, V)."""
    return np.empty((len(logits), 0, 0), as_array(logits).dtype if torch.is_tensor(logits) else logits.dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [1, 63, 64, 1001])
def test_cross_entropy_and_its_gradient_are_those_of_torch(dtype, size):
    logits = (5 * torch.randn(6, size)).to(dtype)
    labels = torch.tensor([0, size - 1, -100, size // 2, -100, 0])
    exact = logits.double().requires_grad_()
    expected = F.cross_entropy(exact, labels, reduction="none")
    expected.sum().backward()
    losses, kept = torch.empty(6), logits.clone()
    others = (no_teachers(logits), NO_WEIGHT)
    loops.cross_entropy(as_array(kept), labels.numpy(), losses.numpy(), False, *others)
    assert torch.equal(kept, logits)
    assert torch.allclose(losses.double(), expected, atol=1e-5)
    loops.cross_entropy(as_array(logits), labels.numpy(), losses.numpy(), True, *others)
    assert torch.allclose(losses.double(), expected, atol=1e-5)
    assert torch.allclose(logits.double(), exact.grad, rtol=1 / 256 if dtype == torch.bfloat16 else 1e-5, atol=1e-7)


@pytest.mark.parametrize("compute", [row_losses_on_cpu, row_losses])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("count", "weight"), [(1, 0.5), (2, 0.5), (3, 0.125), (1, 1.0)])
def test_with_teachers_the_gradient_is_that_of_torchs_divergence_and_the_loss_the_cross_entropy(
    compute, dtype, count, weight
):
    logits, *teachers = (3 * torch.randn(5, 131) for _ in range(1 + count))
    logits, teachers = logits.to(dtype), [each.to(dtype) for each in teachers]
    labels = torch.tensor([0, 130, -100, 65, 7])
    scored = labels >= 0
    exact = logits.double().requires_grad_()
    known = F.cross_entropy(exact, labels, reduction="none")
    mean = torch.stack([each.double().softmax(1) for each in teachers]).mean(0)
    divergence = F.kl_div(exact.log_softmax(1)[scored], mean[scored], reduction="sum")
    ((1 - weight) * known.sum() + weight * divergence).backward()
    losses = compute(logits, labels, True, teachers, weight)
    assert torch.allclose(losses.double(), known, atol=1e-5)
    assert torch.allclose(logits.double(), exact.grad, rtol=1 / 256 if dtype == torch.bfloat16 else 1e-5, atol=1e-6)


@pytest.mark.parametrize("compute", [row_losses_on_cpu, row_losses])
@pytest.mark.parametrize("dtype", DTYPES)
def test_teachers_without_weight_change_no_bit(compute, dtype):
    logits, teacher = torch.randn(2, 6, 1001).to(dtype)
    plain, labels = logits.clone(), torch.tensor([0, 5, -100, 1000, 3, 3])
    assert torch.equal(compute(logits, labels, True, [teacher], 0.0), compute(plain, labels, True))
    assert torch.equal(logits, plain)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_what_is_no_number_makes_a_loss_that_is_none(bad):
    logits, losses = torch.randn(2, 100), torch.empty(2)
    logits[0, 7] = bad
    others = (no_teachers(logits), NO_WEIGHT)
    loops.cross_entropy(logits.numpy(), np.array([3, 3]), losses.numpy(), True, *others)
    assert torch.isnan(losses[0]) and torch.isnan(logits[0]).any()
    assert torch.isfinite(losses[1]) and torch.isfinite(logits[1]).all()


def test_a_row_is_the_same_alone_and_among_others():
    logits, losses = torch.randn(30, 1001).numpy(), np.empty(30, np.float32)
    together = logits.copy()
    loops.cross_entropy(together, np.arange(30), losses, True, no_teachers(logits), NO_WEIGHT)
    for row in range(30):
        assert loops.row_cross_entropy(logits[row], row, True, no_teachers(logits)[row], NO_WEIGHT) == losses[row]
    assert (logits == together).all()


def test_a_label_that_is_no_token_is_refused():
    with pytest.raises(IndexError, match="label 100 of 100 tokens"):
        cross_entropy_sum(torch.randn(2, 100), torch.tensor([1, 100]), True)


def test_gelu_in_other_formats_is_pytorchs():
    x = torch.randn(3, 5, dtype=torch.float64)
    assert torch.equal(Gelu()(x), F.gelu(x, approximate="tanh"))
