"""Token ids on disk: documents -> piece files and back, as one long stream."""

from novelgpt.corpus.pieces.pieces import Pieces, TokenStream, open_pieces
from novelgpt.corpus.pieces.tokenize import make_pieces, tokenize_corpus, write_pieces

__all__ = ["Pieces", "TokenStream", "make_pieces", "open_pieces", "tokenize_corpus", "write_pieces"]
