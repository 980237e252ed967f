"""The promised name novelgpt.corpus.tokenizer.load_tokenizer; the code is in tokenizers/."""

from novelgpt.corpus.tokenizers import load_tokenizer

__all__ = ["load_tokenizer"]
