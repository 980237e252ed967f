"""Loops for which PyTorch has no operator, or only a chain of them, compiled for this very processor by compiling.py.

    arithmetic ─┬─ training      GELU, cross-entropy
                ├─ attention     one new token a row over a cache
                └─ eight_bits    layer norm, rounding, product, GELU in one

Loops are written out where NumPy would have one call, and arrays cut to whole rows before they are handed on: the first
halves the time to compile, and without the second the compiler sees no run of memory and the loop is ten times slower.
Code is kept as long as no file of this folder, nor compiling.py, changes.
"""
