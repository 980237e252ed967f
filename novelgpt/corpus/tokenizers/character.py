"""The character tokenizer: one token per character, a character outside the list as its UTF-8 bytes. Loses nothing.

A table over all 1,114,112 code points turns text into ids at the speed of memory::

    "炎a𠮷" ─UTF-32→ U+708E U+0061 U+20BB7 ─table→ 3205 <0x61> none ─bytes→ 3205 <0x61> <0xF0> <0xA0> <0xAE> <0xB7>

The Hugging Face form of the same is a BPE model without merges and with byte fallback; the ids are equal.
"""

from collections.abc import Sequence

import numpy as np

from novelgpt.corpus.tokenizers.base import CODE_POINTS, NovelTokenizer, code_points
from novelgpt.corpus.tokenizers.vocabulary import build_vocabulary

CHUNK = 1 << 18  # characters encoded at a time, so that the work stays in the processor's cache


class CharacterTokenizer(NovelTokenizer):
    """Text <-> ids of a character vocabulary, exactly, for every Unicode string.

    Args:
        tokens: the vocabulary with its marks and all 256 byte tokens; the place is the id.

    >>> tokenizer = CharacterTokenizer.fit(["萧炎大喝一声"], reserved=0)
    >>> tokenizer.encode("萧炎!").tolist()
    [266, 265, 38]
    >>> tokenizer.decode(tokenizer.encode("萧薰儿\\n")) == "萧薰儿\\n"
    True
    """

    kind = "character"

    def __init__(self, tokens: Sequence[str]):
        super().__init__(tokens)
        self.none = np.iinfo(self.dtype).max  # the entry of a character without a token
        self.table = np.full(CODE_POINTS, self.none, self.dtype)  # (1114112,)
        self.table[:128] = self.byte_ids[:128]  # ASCII, which has no other tokens
        for index, token in enumerate(self.tokens):
            if len(token) == 1:
                self.table[ord(token)] = index

    @classmethod
    def fit(cls, texts: Sequence[str], **sizes: int | None) -> "CharacterTokenizer":
        """Fit a vocabulary to texts; see build_vocabulary."""
        return cls(build_vocabulary(texts, **sizes))

    def encode(self, text: str) -> np.ndarray:
        """Turn text into ids (N,); "[CLS]" in it is five characters, not a mark."""
        chunks = [self.encode_chunk(text, start) for start in range(0, len(text), CHUNK)]
        return chunks[0] if len(chunks) == 1 else np.concatenate([np.empty(0, self.dtype), *chunks])

    def encode_chunk(self, text: str, start: int) -> np.ndarray:
        """Encode one stretch of a text."""
        codes = code_points(text, start, start + CHUNK)  # (N,)
        ids = self.table[codes]  # (N,)
        missing = ids == self.none  # (N,)
        return self.expand(codes, ids, missing) if missing.any() else ids

    def expand(self, codes: np.ndarray, ids: np.ndarray, missing: np.ndarray) -> np.ndarray:
        """Put the byte tokens of the missing characters in their places."""
        # two to four UTF-8 bytes for each of them
        spelled = "".join(map(chr, codes[missing].tolist())).encode("utf-8")
        lengths = np.where(missing, 2 + (codes > 0x7FF).astype(np.int64) + (codes > 0xFFFF), 1)  # (N,)
        # make room for the bytes, then fill it
        whole = np.repeat(ids, lengths)  # (N + further bytes,)
        whole[np.repeat(missing, lengths)] = self.byte_ids[np.frombuffer(spelled, np.uint8)]
        return whole
