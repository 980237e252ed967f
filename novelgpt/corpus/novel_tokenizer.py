"""What all three kinds of tokenizer have in common, under one name for typing and for making one."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from novelgpt.corpus.tokenizer import load_tokenizer
from novelgpt.corpus.tokenizer_bpe import BpeTokenizer, train_bpe
from novelgpt.corpus.tokenizer_character import CharacterTokenizer
from novelgpt.corpus.tokenizer_wordpiece import WordPieceTokenizer
from novelgpt.corpus.vocabulary import build_vocabulary
from novelgpt.messages import EXIT_USAGE, UserError

BPE_TOKENS = 8_000


class NovelTokenizer(ABC):
    """Text <-> token ids. CharacterTokenizer, BpeTokenizer and WordPieceTokenizer all are one.

    Attributes:
        kind: "character" or "bpe" (lossless), "wordpiece" (BERT's, lossy).
        tokens, vocab_size, dtype: the vocabulary, its size, uint16 or uint32.
        cls_id, pad_id, unk_id, sep_id, mask_id, newline_id: ids that others need.
        marks: names and ids of marks and added tokens.
        fingerprint: SHA-256 of the vocabulary.

    Example::

        tokenizer = NovelTokenizer.from_file("model/final_model")
        ids = tokenizer.encode("那天夜里没有月亮。")  # (9,) uint16
        assert tokenizer.decode(ids) == "那天夜里没有月亮。"

    >>> tokenizer = NovelTokenizer.from_texts(["萧炎大喝一声"])
    >>> tokenizer.decode(tokenizer.encode("萧薰儿\\n")) == "萧薰儿\\n"
    True
    >>> isinstance(tokenizer, NovelTokenizer)
    True
    """

    kind: str
    tokens: list[str]
    vocab_size: int
    dtype: type
    marks: dict[str, int]
    cls_id: int
    pad_id: int
    unk_id: int
    sep_id: int
    mask_id: int
    newline_id: int
    fingerprint: str

    @abstractmethod
    def encode(self, text: str) -> np.ndarray:
        """Turn text into ids (N,) of the tokenizer's dtype; names of marks in it are plain text."""

    @abstractmethod
    def encode_prefix(self, text: str) -> np.ndarray:
        """Turn a prefix into ids (N,): marks are parsed, and [CLS] stands in front whether typed or not."""

    @abstractmethod
    def decode(self, ids: Sequence[int] | np.ndarray) -> str:
        """Turn ids (N,) back into text, marks as their names."""

    @abstractmethod
    def show(self, ids: Sequence[int] | np.ndarray) -> str:
        """Turn ids (N,) into text for people: [CLS] a blank line but at the beginning, [SEP] a line break."""

    @abstractmethod
    def add_tokens(self, names: Iterable[str]) -> "NovelTokenizer":
        """Return a tokenizer with further marks such as "[TIL]"."""

    @abstractmethod
    def export(self, folder: str | Path, *, model_max_length: int | None = None) -> None:
        """Write tokenizer.json, tokenizer_config.json and vocab.txt, which AutoTokenizer loads."""

    @staticmethod
    def from_file(path: str | Path) -> "NovelTokenizer":
        """Load the tokenizer of a vocabulary file, a tokenizer.json or a model folder; see load_tokenizer."""
        return load_tokenizer(path)

    @staticmethod
    def from_texts(
        texts: Sequence[str], *, kind: str = "character", vocab_size: int | None = None, min_count: int = 1
    ) -> "NovelTokenizer":
        """Fit a tokenizer to documents.

        Args:
            texts: documents.
            kind: "character" or "bpe".
            vocab_size: at most this many tokens; None takes every character, or 8,000 subwords.
            min_count: leave characters that occur less often to their bytes.

        Raises:
            UserError: another kind, or vocab_size leaves no room.
        """
        if kind == "character":
            return CharacterTokenizer(build_vocabulary(texts, vocab_size=vocab_size, min_count=min_count))
        if kind == "bpe":
            return train_bpe(texts, vocab_size=vocab_size or BPE_TOKENS, min_count=min_count)
        raise UserError(f"kind: found {kind!r}, expected 'character' or 'bpe'", 'kind="character"', EXIT_USAGE)


for tokenizer_class in (CharacterTokenizer, BpeTokenizer, WordPieceTokenizer):
    NovelTokenizer.register(tokenizer_class)
