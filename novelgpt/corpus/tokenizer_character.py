"""The character tokenizer: one token a character, a character outside the list as its UTF-8 bytes. Loses nothing.

A table over all 1,114,112 code points turns text into ids at the speed of memory::

    "炎a𠮷" ─UTF-32→ U+708E U+0061 U+20BB7 ─table→ 3205 <0x61> none ─bytes→ 3205 <0x61> <0xF0> <0xA0> <0xAE> <0xB7>

The Hugging Face form of the same is a BPE model without merges and with byte fallback; the ids are equal.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from novelgpt.corpus.export import export_folder, new_byte_backend
from novelgpt.corpus.tokens import (
    CODE_POINTS,
    ByteStream,
    add_names,
    check_ids,
    code_points,
    drop_leading,
    encode_with_marks,
    find_marks,
    fingerprint_of,
    id_dtype,
    shown_bytes,
    token_bytes,
)
from novelgpt.corpus.vocabulary import BYTE_TOKENS

CHUNK = 1 << 18  # characters encoded at a time, so that the work stays in the processor's cache


class CharacterTokenizer:
    """Text <-> ids of a character vocabulary, exactly, for every Unicode string.

    Args:
        tokens: the vocabulary with its marks and all 256 byte tokens; the place is the id.

    Attributes:
        kind: "character".
        tokens, vocab_size, dtype: the vocabulary, its size, uint16 or uint32.
        cls_id, pad_id, unk_id, sep_id, mask_id, newline_id: ids that others need.
        marks: names and ids of marks and added tokens.
        fingerprint: SHA-256 of the vocabulary.

    >>> from novelgpt.corpus.vocabulary import build_vocabulary
    >>> tokenizer = CharacterTokenizer(build_vocabulary(["萧炎大喝一声"], reserved=0))
    >>> tokenizer.encode("萧炎!").tolist()
    [266, 265, 38]
    >>> tokenizer.decode(tokenizer.encode("萧薰儿\\n")) == "萧薰儿\\n"
    True
    """

    kind = "character"

    def __init__(self, tokens: Sequence[str]):
        self.tokens = list(tokens)
        self.vocab_size = len(self.tokens)
        self.dtype = id_dtype(self.vocab_size)
        ids = {token: index for index, token in enumerate(self.tokens)}
        self.pad_id, self.unk_id, self.cls_id = ids["[PAD]"], ids["[UNK]"], ids["[CLS]"]
        self.sep_id, self.mask_id, self.newline_id = ids["[SEP]"], ids["[MASK]"], ids["<0x0A>"]
        self.marks = find_marks(self.tokens)
        self.fingerprint = fingerprint_of(self.tokens)
        self.byte_ids = np.array([ids[token] for token in BYTE_TOKENS], self.dtype)  # (256,)
        self.table = new_table(self.tokens, self.byte_ids)  # (1114112,)
        self.pieces = token_bytes(self.tokens)
        self.shown = shown_bytes(self.pieces, self.tokens, self.marks)

    def encode(self, text: str) -> np.ndarray:
        """Turn text into ids (N,); "[CLS]" in it is five characters, not a mark.

        Raises:
            UserError: a lone surrogate, which is no character; the message names its place.
        """
        chunks = [self.encode_chunk(text, start) for start in range(0, len(text), CHUNK)]
        return chunks[0] if len(chunks) == 1 else np.concatenate([np.empty(0, self.dtype), *chunks])

    def encode_chunk(self, text: str, start: int) -> np.ndarray:
        """Encode one stretch of a text."""
        codes = code_points(text, start, start + CHUNK)  # (N,)
        ids = self.table[codes]  # (N,)
        missing = ids == none_of(self.dtype)
        return self.expand(codes, ids, missing) if missing.any() else ids

    def expand(self, codes: np.ndarray, ids: np.ndarray, missing: np.ndarray) -> np.ndarray:
        """Put the byte tokens of the missing characters in their places."""
        spelled = "".join(map(chr, codes[missing].tolist())).encode("utf-8")
        lengths = np.where(missing, 2 + (codes > 0x7FF).astype(np.int64) + (codes > 0xFFFF), 1)  # (N,)
        whole = np.repeat(ids, lengths)  # (N + further bytes,)
        whole[np.repeat(missing, lengths)] = self.byte_ids[np.frombuffer(spelled, np.uint8)]
        return whole

    def encode_prefix(self, text: str) -> np.ndarray:
        """Turn a prefix into ids (N,): marks are parsed, and [CLS] stands in front whether typed or not.

        >>> from novelgpt.corpus.vocabulary import build_vocabulary
        >>> tokenizer = CharacterTokenizer(build_vocabulary(["萧炎"], reserved=0))
        >>> tokenizer.encode_prefix("萧炎").tolist() == tokenizer.encode_prefix("[CLS]萧炎").tolist() == [2, 262, 261]
        True
        """
        return encode_with_marks(text, self.marks, self.encode, self.cls_id)

    def decode(self, ids: Sequence[int] | np.ndarray) -> str:
        """Turn ids back into text, marks as their names; bytes that form no character become U+FFFD."""
        pieces = self.pieces
        return b"".join([pieces[index] for index in check_ids(ids, self.vocab_size)]).decode("utf-8", "replace")

    def show(self, ids: Sequence[int] | np.ndarray) -> str:
        """Turn ids into text for people: [CLS] a blank line but at the beginning, [SEP] a line break, no other mark."""
        kept = drop_leading(check_ids(ids, self.vocab_size), self.cls_id)
        return b"".join([self.shown[index] for index in kept]).decode("utf-8", "replace")

    def stream(self) -> ByteStream:
        """Return an object whose push(token_id) yields text as `show` writes it, whole characters only."""
        return ByteStream(self.shown)

    def add_tokens(self, names: Iterable[str]) -> "CharacterTokenizer":
        """Return a tokenizer with further marks, in reserved [unusedN] places first, else at the end."""
        return CharacterTokenizer(add_names(self.tokens, names))

    def export(self, folder: str | Path, *, model_max_length: int | None = None) -> None:
        """Write tokenizer.json, tokenizer_config.json and vocab.txt, which AutoTokenizer loads."""
        backend = new_byte_backend(self.tokens, [], self.marks)
        export_folder(folder, backend, self.tokens, model_max_length=model_max_length)


def none_of(dtype: type) -> int:
    """Return the table's entry for a character without a token: the largest number of the type."""
    return int(np.iinfo(dtype).max)


def new_table(tokens: Sequence[str], byte_ids: np.ndarray) -> np.ndarray:
    """Return the id of every code point (1114112,), ASCII as its byte token."""
    table = np.full(CODE_POINTS, none_of(byte_ids.dtype.type), byte_ids.dtype)
    table[:128] = byte_ids[:128]
    single = [(ord(token), index) for index, token in enumerate(tokens) if len(token) == 1]
    if single:
        codes, indices = np.array(single).T
        table[codes] = indices
    return table
