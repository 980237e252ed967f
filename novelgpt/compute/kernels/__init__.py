"""Loops for which PyTorch has no operator, or only a chain of them, compiled for this very processor by compiling.py.

    loops ─┬─ attention_step    one new token a row over a cache
           └─ eight_bits        layer norm, rounding, product, GELU in one

`loops` has number formats, sums and e**x, and what training takes of them: GELU and cross-entropy.

Loops are written out where NumPy would have one call, and arrays are cut to whole rows before they are handed on: the
first halves the time to compile; without the second the compiler does not see that memory is contiguous, and the loop
is ten times slower. Compiled code is kept as long as no file of this folder, nor compiling.py, changes.
"""
