"""A product in eight bits with what stands around it: layer norm, rounding, product, bias, GELU.

    x (B, N) ─norm─ one scale a row ─ codes -127..127 ─┐
    weights -127..127, kept as 1..255 = code + 128 ────┴─ whole sums ─ scales ─ + bias ─ GELU ─ y (B, M)

A processor with VNNI adds four products of numbers 0..255 and -128..127 to an integer in one instruction, for every
lane of a register; elsewhere the same is written out. Sums are integers, so every order gives the same and rows do not
affect each other. They fit into 32 bits up to MOST_INPUTS inputs.
"""

import functools

import numpy as np
import torch
from llvmlite import ir
from numba import prange, types
from numba.core import cgutils
from numba.core.registry import cpu_target
from numba.extending import intrinsic

from novelgpt.compute.compiling import compiled, share_threads
from novelgpt.compute.loops import LEAST_SCALE, add_up, as_bytes, gelu_gate, greater, greatest, prefetch_line

LIMIT, OFFSET = 127, 128  # greatest code, and what is added to the codes of weights
GROUP = 4  # codes of one lane
MOST_INPUTS = (2**31 - 1) // (LIMIT * (LIMIT + OFFSET))
AHEAD = 6144  # bytes from what is read to what the memory should send next; measured

FORMS = {  # feature of a processor: integers in a register, rows whose sums fill the registers, instruction
    "+avx512vnni": (16, 12, "llvm.x86.avx512.vpdpbusd.512"),
    "+avxvnni": (8, 4, "llvm.x86.avx512.vpdpbusd.256"),
}
# what Numba compiles for: this processor, or what NUMBA_CPU_FEATURES makes of it
FEATURES = cpu_target.target_context.codegen().magic_tuple()[2].split(",")
VECTOR, ROWS, INSTRUCTION = next((form for feature, form in FORMS.items() if feature in FEATURES), (8, 2, None))
PANEL = 2 * VECTOR  # outputs at a time


def int8_product(weight: torch.Tensor, bias: torch.Tensor | None, norm: tuple | None = None, gelu: bool = False):
    """Return a product in eight bits, as packed.make_product: one scale for each output, and one for each row of x."""
    share_threads()
    # Each output's largest weight becomes 127; a row of zeros gets the least scale instead of 0.
    scale = weight.abs().amax(1).clamp(min=LIMIT * float(LEAST_SCALE)) / LIMIT  # (out,)
    packed = pack_weights((weight / scale[:, None]).round().to(torch.int8).numpy())
    # The loop takes arrays only: an empty gain means no layer norm, a bias of zeros none.
    none = np.zeros(0, np.float32)
    gain, shift, epsilon = (none, none, 0.0) if norm is None else (norm[0].numpy(), norm[1].numpy(), norm[2])
    bias = np.zeros(len(scale), np.float32) if bias is None else bias.numpy()
    before, after = (gain, shift, np.float32(epsilon)), (scale.numpy(), bias, gelu)

    def product(x: torch.Tensor) -> torch.Tensor:
        if x.shape[1:] != weight.shape[1:]:
            raise ValueError(f"x of shape {tuple(x.shape)} for a matrix with {weight.shape[1]} inputs")
        y = torch.empty(x.shape[0], len(scale))  # (B, out)
        multiply_rounded(x.contiguous().numpy(), *before, packed, *after, y.numpy())
        return y

    return product


def pack_weights(codes: np.ndarray) -> np.ndarray:
    """Return codes (M, N) int8 of a matrix in panels (M / PANEL, N / GROUP, PANEL, GROUP) uint8, padded with zeros.

    >>> packed = pack_weights(np.array([[1, 2, 3]], np.int8))
    >>> packed[0, 0, 0].tolist(), packed.shape == (1, 1, PANEL, GROUP)
    ([129, 130, 131, 128], True)
    """
    outputs, inputs = codes.shape
    if inputs > MOST_INPUTS:
        raise ValueError(f"{inputs} inputs, at most {MOST_INPUTS} can be added up in 32 bits")
    panels, groups = -(-outputs // PANEL), -(-inputs // GROUP)
    room = np.zeros((panels * PANEL, groups * GROUP), np.int16)
    room[:outputs, :inputs] = codes
    # (panels, PANEL, groups, GROUP): what a register reads at once comes last
    panels_first = room.reshape(panels, PANEL, groups, GROUP).transpose(0, 2, 1, 3)
    return np.ascontiguousarray(panels_first + OFFSET, dtype=np.uint8)


@intrinsic
def add_up_panel(typing_context, weights, codes, sums):
    """Write the products of a panel (N / GROUP, PANEL, GROUP) with ROWS rows of codes into sums (ROWS, PANEL) int32.

    Written in LLVM's own language, since Python has no way to say that the sums stay in registers.
    """

    def emit(context, builder, signature, arguments):
        pairs = zip(signature.args, arguments, strict=True)
        arrays = [context.make_array(kind)(context, builder, each) for kind, each in pairs]
        panel, codes, sums = (as_bytes(builder, array.data) for array in arrays)
        groups = cgutils.unpack_tuple(builder, arrays[0].shape, 3)[0]
        emit_panel(builder, panel, codes, sums, groups)
        return context.get_dummy_value()

    return types.void(weights, codes, sums), emit


def emit_panel(builder: ir.IRBuilder, panel: ir.Value, codes: ir.Value, sums: ir.Value, groups: ir.Value) -> None:
    """Emit the loop over the groups of codes, all sums in registers."""
    number, place = ir.IntType(32), ir.IntType(64)
    vector, register = ir.VectorType(number, VECTOR), ir.VectorType(ir.IntType(8), GROUP * VECTOR)
    # Two registers of sums for each row, all starting at zero.
    totals = [cgutils.alloca_once_value(builder, ir.Constant(vector, None)) for _ in range(2 * ROWS)]
    width = builder.mul(groups, place(GROUP))  # of a row of codes, bytes
    with cgutils.for_range(builder, groups) as loop:
        # The weights of this group: both halves of the panel, and a hint to fetch what comes later.
        here = builder.gep(panel, [builder.mul(loop.index, place(PANEL * GROUP))])
        both = []
        for half in range(2):
            there = builder.gep(here, [place(half * VECTOR * GROUP)])
            both.append(load(builder, there, register))
            prefetch_line(builder, builder.gep(there, [place(AHEAD)]))
        # Four codes of each row, copied into every lane, times the weights.
        for row in range(ROWS):
            start = builder.add(builder.mul(width, place(row)), builder.mul(loop.index, place(GROUP)))
            four = load(builder, builder.gep(codes, [start]), number)
            spread = builder.bitcast(fill_vector(builder, vector, four), register)
            for half, total in enumerate(totals[2 * row : 2 * row + 2]):
                builder.store(add_products(builder, builder.load(total), both[half], spread), total)
    # Registers to memory, once.
    for index, total in enumerate(totals):
        there = builder.gep(sums, [place(index * VECTOR * GROUP)])
        builder.store(builder.load(total), builder.bitcast(there, vector.as_pointer()), align=1)


def load(builder: ir.IRBuilder, pointer: ir.Value, kind: ir.Type) -> ir.Value:
    """Emit a load from any address."""
    return builder.load(builder.bitcast(pointer, kind.as_pointer()), align=1)


def fill_vector(builder: ir.IRBuilder, vector: ir.VectorType, number: ir.Value) -> ir.Value:
    """Emit a vector that holds one number in every lane."""
    nothing, lanes = ir.Constant(vector, ir.Undefined), ir.VectorType(ir.IntType(32), vector.count)
    first = builder.insert_element(nothing, number, ir.IntType(32)(0))
    return builder.shuffle_vector(first, nothing, ir.Constant(lanes, [0] * vector.count))


def add_products(builder: ir.IRBuilder, total: ir.Value, weights: ir.Value, codes: ir.Value) -> ir.Value:
    """Emit: to each number of a total, add four products of weights 0..255 and codes -128..127."""
    if INSTRUCTION:
        signature = ir.FunctionType(total.type, [total.type, weights.type, codes.type])
        function = cgutils.get_or_insert_function(builder.module, signature, INSTRUCTION)
        return builder.call(function, [total, weights, codes])
    # Without the instruction: widen to 16 bits, multiply even and odd numbers, add twice.
    half = ir.VectorType(ir.IntType(16), weights.type.count)
    weights, codes = builder.zext(weights, half), builder.sext(codes, half)
    pairs = [multiply_wide(builder, take(builder, weights, part, 2), take(builder, codes, part, 2)) for part in (0, 1)]
    both = builder.add(*pairs)  # of neighbours: one instruction of most processors
    return builder.add(total, builder.add(take(builder, both, 0, 2), take(builder, both, 1, 2)))


def multiply_wide(builder: ir.IRBuilder, one: ir.Value, other: ir.Value) -> ir.Value:
    """Emit the products of two vectors of 16 bits in 32 bits."""
    wide = ir.VectorType(ir.IntType(32), one.type.count)
    return builder.mul(builder.sext(one, wide), builder.sext(other, wide))


def take(builder: ir.IRBuilder, vector: ir.Value, start: int, step: int) -> ir.Value:
    """Emit the numbers start, start + step, … of a vector."""
    places = list(range(start, vector.type.count, step))
    mask = ir.Constant(ir.VectorType(ir.IntType(32), len(places)), places)
    return builder.shuffle_vector(vector, ir.Constant(vector.type, ir.Undefined), mask)


@compiled
def normalize(x, gain, shift, epsilon):
    """Replace x (N,) by its layer norm."""
    count, size = x.shape[0], np.float32(x.shape[0])
    mean = add_up(x, count) / size
    for i in range(count):
        x[i] -= mean
    factor = np.float32(1) / np.sqrt(add_up(x * x, count) / size + epsilon)
    for i in range(count):
        x[i] = x[i] * factor * gain[i] + shift[i]


@compiled
def round_row(x, gain, shift, epsilon, codes):
    """Write x (N,), after a layer norm unless gain is empty, as codes; returns their scale and what OFFSET adds.

    Where a number is not finite the scale is nan and the codes stay as they are.
    """
    numbers, total = x.copy(), np.int32(0)
    if gain.shape[0]:
        normalize(numbers, gain, shift, epsilon)
    scale = greater(LEAST_SCALE, greatest(np.abs(numbers), x.shape[0])) / np.float32(LIMIT)
    if not np.isfinite(scale):
        return np.float32(np.nan), total
    for i in range(x.shape[0]):
        codes[i] = np.int8(np.rint(numbers[i] / scale))
    for i in range(x.shape[0]):
        total += np.int32(codes[i])
    return scale, np.int32(OFFSET * total)


@compiled
def finish_row(sums, surplus, row_scale, scales, bias, with_gelu, y):
    """Write what sums (PANEL,) stand for, less their surplus, into y (at most PANEL,); GELU may follow."""
    for i in range(y.shape[0]):
        y[i] = np.float32(sums[i] - surplus) * (row_scale * scales[i]) + bias[i]
    for i in range(y.shape[0] if with_gelu else 0):
        y[i] *= gelu_gate(y[i])


@functools.partial(compiled, parallel=True)
def multiply_rounded(x, gain, shift, epsilon, weights, scales, bias, with_gelu, y):
    """Write the product of x (B, N) and a matrix from pack_weights into y (B, M), GPT-2's GELU of it if wanted.

    All numbers are fp32: gain (N,), empty where no layer norm comes before, shift, epsilon, scales (M,), what a step of
    each output's codes is worth, and bias (M,).
    """
    # Rows to codes, padded to a multiple of ROWS by zeros.
    rows = x.shape[0]
    codes = np.zeros((-(-rows // ROWS) * ROWS, weights.shape[1] * GROUP), np.int8)
    row_scales, surplus = np.empty(rows, np.float32), np.empty(rows, np.int32)
    for row in range(rows):
        row_scales[row], surplus[row] = round_row(x[row], gain, shift, epsilon, codes[row])
    # Every thread takes some panels of the matrix and reads each of them once for ROWS rows.
    for panel in prange(weights.shape[0]):
        first, last = panel * PANEL, min((panel + 1) * PANEL, y.shape[1])
        sums = np.empty((ROWS, PANEL), np.int32)
        for start in range(0, rows, ROWS):
            add_up_panel(weights[panel], codes[start : start + ROWS], sums)
            for row in range(start, min(start + ROWS, rows)):
                there = y[row, first:last]
                own = (surplus[row], row_scales[row], scales[first:last], bias[first:last], with_gelu)
                finish_row(sums[row - start], *own, there)
