"""Sweeps that prove what a run survives; `make reliability` runs them in full and writes docs/RELIABILITY.md."""
