"""The product in eight bits against plain arithmetic on whole numbers, on this processor and as others do it."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import ROOT
from numba.core.registry import cpu_target

from novelgpt.compute import eight_bits
from novelgpt.compute.eight_bits import MOST_INPUTS, PANEL, ROWS, int8_product

NONE = np.zeros(0, np.float32)


def rounded(x: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """Return x (N, M) in steps of scales (N,), as whole numbers."""
    return np.rint(x / scales[:, None]).astype(np.int64)


def expected_product(x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """Return what eight bits make of x (B, N) and weight (M, N): whole sums, exact, times two scales."""
    row_scales, scales = (np.abs(each).max(1) / np.float32(127) for each in (x, weight))
    sums = rounded(x, row_scales) @ rounded(weight, scales).T
    return sums * row_scales[:, None].astype(np.float64) * scales + bias


@pytest.mark.parametrize(
    ("rows", "inputs", "outputs"),
    [(1, 1, 1), (1, 768, PANEL), (3, 5, PANEL + 1), (ROWS, 4, 7), (ROWS + 1, 70, 2 * PANEL - 1), (40, 131, 50)],
)
def test_a_product_is_that_of_whole_numbers(rows, inputs, outputs):
    generator = np.random.default_rng(0)
    x, weight = (generator.normal(size=(each, inputs)).astype(np.float32) for each in (rows, outputs))
    bias = generator.normal(size=outputs).astype(np.float32)
    ours = int8_product(*map(torch.from_numpy, (weight, bias)))(torch.from_numpy(x)).numpy()
    assert ours == pytest.approx(expected_product(x, weight, bias), rel=1e-5, abs=1e-6)


def test_the_greatest_sums_do_not_overflow_and_greater_ones_are_refused():
    x, weight = -torch.ones(2, MOST_INPUTS), torch.ones(3, MOST_INPUTS)
    ours = int8_product(weight, None)(x)
    assert ours.numpy() == pytest.approx(np.full((2, 3), -float(MOST_INPUTS)))
    with pytest.raises(ValueError, match=r"^66312 inputs, at most 66311 can be added up in 32 bits$"):
        int8_product(torch.ones(3, MOST_INPUTS + 1), None)


def test_an_x_of_another_width_is_refused():
    with pytest.raises(ValueError, match=r"^x of shape \(4, 74\) for a matrix with 70 inputs$"):
        int8_product(torch.randn(50, 70), None)(torch.randn(4, 74))


def test_an_x_that_does_not_lie_in_one_piece_gives_the_same():
    weight, x = torch.randn(50, 70), torch.randn(70, 5)
    assert torch.equal(int8_product(weight, None)(x.t()), int8_product(weight, None)(x.t().contiguous()))


def test_a_product_by_hand():
    x = np.array([[127.0, -127.0, 0.4, 0.6], [0, 0, 0, 0]], np.float32)  # a step of 1: 127, -127, 0, 1; all zero
    codes = np.array([[1, 2, 100, -3], [127, 0, 0, 0]], np.int8)
    scales, bias, y = np.array([0.5, 1], np.float32), np.array([10, -1], np.float32), np.empty((2, 2), np.float32)
    eight_bits.multiply_rounded(x, NONE, NONE, np.float32(0), eight_bits.pack_weights(codes), scales, bias, False, y)
    # (127 - 254 + 0 - 3) / 2 + 10 and 127 * 127 - 1
    assert y.tolist() == [[-55, 16128], [10, -1]]


def test_layer_norm_comes_before_and_gelu_after():
    torch.manual_seed(0)
    x, weight, bias = torch.randn(5, 100) * 5 + 2, torch.randn(60, 100), torch.randn(60)
    gain, shift = torch.randn(100), torch.randn(100)
    normal = F.layer_norm(x, (100,), gain, shift, 1e-5)
    expected = torch.from_numpy(expected_product(normal.numpy(), weight.numpy(), bias.numpy()))
    ours = int8_product(weight, bias, (gain, shift, 1e-5))(x)
    assert (ours - expected).abs().max() < 0.02 * expected.abs().max()  # a code may be rounded the other way
    with_gelu = int8_product(weight, bias, (gain, shift, 1e-5), True)(x)
    assert torch.allclose(with_gelu, F.gelu(ours, approximate="tanh"), atol=1e-6)


def test_a_row_is_the_same_alone_and_among_others():
    torch.manual_seed(0)
    product = int8_product(torch.randn(70, 90), torch.randn(70), (torch.randn(90), torch.randn(90), 1e-5), True)
    x = torch.randn(2 * ROWS + 1, 90)
    together = product(x)
    for row in range(len(x)):
        assert torch.equal(product(x[row : row + 1]), together[row : row + 1])
    for count in range(1, len(x)):
        assert torch.equal(product(x[:count]), together[:count])
    order = torch.randperm(len(x))
    assert torch.equal(product(x[order]), together[order])


@pytest.mark.parametrize("place", [0, 30, 66])
@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_a_row_with_something_that_is_no_number_gives_none(bad, place):
    torch.manual_seed(0)
    x = torch.randn(2, 70)
    x[0, place] = bad
    y = int8_product(torch.randn(9, 70), None)(x)
    assert torch.isnan(y[0]).all() and torch.isfinite(y[1]).all()


def features(*, without: tuple[str, ...]) -> str:
    """Return this processor's features for Numba, some of them taken away."""
    ours = cpu_target.target_context.codegen().magic_tuple()[2].split(",")
    return ",".join("-" + each[1:] if any(word in each for word in without) else each for each in ours)


OTHER_PROCESSORS = {  # words in the features they lack
    "256 bits": ("avx512", "evex"),
    "no VNNI": ("avx512", "evex", "vnni"),
    "no AVX": ("avx", "evex", "vnni", "fma", "f16c", "vaes", "vpclmul"),
}
PRODUCT = """
import sys
import torch
from novelgpt.compute import eight_bits
from novelgpt.compute.eight_bits import int8_product
torch.manual_seed(0)
weight, x, norm = torch.randn(50, 70), torch.randn(5, 70), (torch.randn(70), torch.randn(70), 1e-5)
x[4, 0] = torch.inf
torch.save(int8_product(weight, None, norm, True)(x), sys.argv[1])
print(eight_bits.INSTRUCTION)
"""


@pytest.mark.slow
@pytest.mark.parametrize("processor", OTHER_PROCESSORS)
def test_other_processors_give_the_same_to_the_last_bit(processor, tmp_path):
    settings = {"NUMBA_CACHE_DIR": str(tmp_path), "NUMBA_CPU_NAME": "generic"}
    settings["NUMBA_CPU_FEATURES"] = features(without=OTHER_PROCESSORS[processor])
    command = [sys.executable, "-c", PRODUCT, str(tmp_path / "y.pt")]
    instruction = subprocess.check_output(command, cwd=ROOT, env={**os.environ, **settings}, text=True)
    has_vnni = processor == "256 bits" and "+avxvnni" in settings["NUMBA_CPU_FEATURES"]
    assert ("256" in instruction) if has_vnni else (instruction == "None\n")
    torch.manual_seed(0)
    weight, x, norm = torch.randn(50, 70), torch.randn(5, 70), (torch.randn(70), torch.randn(70), 1e-5)
    theirs, ours = torch.load(tmp_path / "y.pt"), int8_product(weight, None, norm, True)(x)
    assert torch.equal(theirs[:4], ours[:4]) and torch.isnan(theirs[4]).all()
