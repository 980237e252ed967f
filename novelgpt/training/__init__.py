"""Piece files of token ids -> checkpoints."""
