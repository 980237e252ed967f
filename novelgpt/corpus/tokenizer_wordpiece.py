"""The BERT WordPiece tokenizer of an existing Chinese GPT-2: its ids exactly, as fast as a table. Lossy as BERT is.

A newline becomes [SEP]; every line between is what `BertTokenizer(vocab)` makes of it without marks around: lower case,
no accents, no spaces, [UNK] for what the vocabulary lacks. "[CLS]" in a text is text. The Rust tokenizer answers once
for every character that stands for itself (Han, punctuation) and once for every distinct run of the others (Latin
words, digits, kana)::

    "大喝Hello！\\n" ─table→ 大 喝 run ！ [SEP] ─reference, kept→ 大 喝 hello ！ [SEP]
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from novelgpt.corpus.export import export_folder, new_wordpiece_backend
from novelgpt.corpus.tokens import (
    CODE_POINTS,
    UNUSED,
    WordStream,
    add_names,
    check_ids,
    code_points,
    drop_leading,
    encode_with_marks,
    find_marks,
    fingerprint_of,
    id_dtype,
)

CHUNK = 1 << 20  # characters looked up at a time
MAX_RUNS = 1 << 16  # runs kept before all are forgotten
DROPPED, IN_RUN, UNASKED = -1, -2, -3  # table entries that are no ids


class WordPieceTokenizer:
    """Text <-> ids of a BERT vocabulary; the attributes and methods are those of CharacterTokenizer.

    Args:
        tokens: the vocabulary; the place is the id, wherever the marks stand.
        lowercase: whether the model was trained on lower case, as Chinese BERT vocabularies are.

    >>> tokenizer = WordPieceTokenizer(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "大", "喝", "a", "##b"])
    >>> tokenizer.encode("大 喝Ab龘\\n").tolist()
    [5, 6, 7, 8, 1, 3]
    >>> tokenizer.decode([5, 6, 7, 8, 7, 3])
    '大喝ab a\\n'
    """

    kind = "wordpiece"

    def __init__(self, tokens: Sequence[str], *, lowercase: bool = True):
        self.tokens = list(tokens)
        self.lowercase = lowercase
        self.vocab_size = len(self.tokens)
        self.dtype = id_dtype(self.vocab_size)
        self.marks = find_marks(self.tokens)
        self.pad_id, self.unk_id, self.cls_id = (self.marks[name] for name in ("[PAD]", "[UNK]", "[CLS]"))
        self.sep_id, self.mask_id = self.marks["[SEP]"], self.marks["[MASK]"]
        self.newline_id = self.sep_id
        self.fingerprint = fingerprint_of(self.tokens, [("lowercase", str(lowercase))])
        self.reference = new_wordpiece_backend(self.tokens, lowercase=lowercase)
        self.table = np.full(CODE_POINTS, UNASKED, np.int32)  # (1114112,)
        self.table[ord("\n")] = self.sep_id
        self.runs: dict[str, np.ndarray] = {}

    def encode(self, text: str) -> np.ndarray:
        """Turn text into ids (N,); newlines become [SEP].

        Raises:
            UserError: a lone surrogate, which is no character; the message names its place.
        """
        parts, start = [np.empty(0, self.dtype)], 0
        while start < len(text):
            stop = (text.find("\n", start + CHUNK) + 1) or len(text)  # no run crosses a newline
            parts += self.encode_chunk(text, start, stop)
            start = stop
        return np.concatenate(parts).astype(self.dtype, copy=False)

    def encode_chunk(self, text: str, start: int, stop: int) -> list[np.ndarray]:
        """Encode one stretch of a text into arrays to be joined."""
        codes = code_points(text, start, stop)  # (N,)
        entries = self.table[codes]  # (N,)
        if (entries == UNASKED).any():
            for code in np.unique(codes[entries == UNASKED]).tolist():
                self.table[code] = self.ask(chr(code))
            entries = self.table[codes]
        borders = np.flatnonzero(np.diff(entries == IN_RUN, prepend=False, append=False)).tolist()
        parts, place = [], 0
        for begin, end in zip(borders[::2], borders[1::2], strict=True):
            parts += [entries[place:begin], self.encode_run(text[start + begin : start + end])]
            place = end
        return [part[part != DROPPED].astype(self.dtype) for part in [*parts, entries[place:]]]

    def ask(self, char: str) -> int:
        """Find out from the reference what a character becomes: an id of its own, nothing, or part of a run."""
        normal = self.reference.normalizer.normalize_str(f"a{char}a")
        words = [word for word, _ in self.reference.pre_tokenizer.pre_tokenize_str(normal)]
        ids = self.reference.encode(char).ids
        if len(words) < 2 or words[0] != "a" or words[-1] != "a" or len(ids) > 1:
            return IN_RUN
        return ids[0] if ids else DROPPED

    def encode_run(self, run: str) -> np.ndarray:
        """Encode a run of characters that do not stand for themselves, remembering the answer."""
        if run not in self.runs:
            if len(self.runs) >= MAX_RUNS:
                self.runs.clear()
            self.runs[run] = np.array(self.reference.encode(run).ids, np.int32)
        return self.runs[run]

    def encode_prefix(self, text: str) -> np.ndarray:
        """Turn a prefix into ids (N,): marks are parsed, and [CLS] stands in front whether typed or not."""
        return encode_with_marks(text, self.marks, self.encode, self.cls_id)

    def decode(self, ids: Sequence[int] | np.ndarray) -> str:
        """Turn ids into text: [SEP] a newline, other marks as their names, a space only between Latin words."""
        stream = WordStream(self.tokens, {"[SEP]": "\n"})
        return "".join(map(stream.push, check_ids(ids, self.vocab_size)))

    def show(self, ids: Sequence[int] | np.ndarray) -> str:
        """Turn ids into text for people: [CLS] a blank line but at the beginning, [SEP] a line break, no other mark."""
        stream = self.stream()
        return "".join(map(stream.push, drop_leading(check_ids(ids, self.vocab_size), self.cls_id)))

    def stream(self) -> WordStream:
        """Return an object whose push(token_id) yields text as `show` writes it."""
        hidden = {token: "" for token in self.tokens if token in self.marks or UNUSED.fullmatch(token)}
        return WordStream(self.tokens, {**hidden, "[CLS]": "\n\n", "[SEP]": "\n"})

    def add_tokens(self, names: Iterable[str]) -> "WordPieceTokenizer":
        """Return a tokenizer with further marks, in reserved [unusedN] places first, else at the end."""
        return WordPieceTokenizer(add_names(self.tokens, names), lowercase=self.lowercase)

    def export(self, folder: str | Path, *, model_max_length: int | None = None) -> None:
        """Write tokenizer.json, tokenizer_config.json and vocab.txt, which AutoTokenizer loads."""
        backend = new_wordpiece_backend(self.tokens, lowercase=self.lowercase, marks=self.marks)
        export_folder(folder, backend, self.tokens, model_max_length=model_max_length)
