"""The name under which others import it."""

from novelgpt.corpus.tokenizers import load_tokenizer

__all__ = ["load_tokenizer"]
