"""What every kind of tokenizer does alike: ids of marks, prefixes with marks in them, ids back to text."""

import codecs
import hashlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from novelgpt.corpus.vocabulary import BYTE_TOKENS, MARKS, is_mark_name
from novelgpt.messages import EXIT_USAGE, UserError

CODE_POINTS = 0x110000
LATIN = frozenset("0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
UNUSED = re.compile(r"\[unused[0-9]{1,9}\]")


def id_dtype(vocab_size: int) -> type:
    """Return the numpy type of token ids: two bytes, or four from 65,536 tokens on.

    >>> id_dtype(13_317).__name__, id_dtype(65_536).__name__
    ('uint16', 'uint32')
    """
    return np.uint16 if vocab_size < 1 << 16 else np.uint32


def fingerprint_of(tokens: Sequence[str], merges: Iterable[tuple[str, str]] = ()) -> str:
    """Return the SHA-256 of a vocabulary in hexadecimal: of its tokens a line each, then of its merges."""
    lines = [*tokens, *(f"{left} {right}" for left, right in merges)]
    return hashlib.sha256("".join(line + "\n" for line in lines).encode("utf-8")).hexdigest()


def find_marks(tokens: Sequence[str]) -> dict[str, int]:
    """Map every mark and added token to its id; reserved [unusedN] and byte tokens are none.

    >>> find_marks(["[CLS]", "[unused1]", "<0x0A>", "的", "[对话]"])
    {'[CLS]': 0, '[对话]': 4}
    """
    plain = set(BYTE_TOKENS)
    return {
        token: index
        for index, token in enumerate(tokens)
        if token in MARKS or (is_mark_name(token) and token not in plain and not UNUSED.fullmatch(token))
    }


def add_names(tokens: Sequence[str], names: Iterable[str]) -> list[str]:
    """Return a vocabulary with further marks, which take the reserved [unusedN] places first, else the end.

    Raises:
        UserError: a name that is not two or more characters in [brackets] or <brackets>, or holds a newline.

    >>> add_names(["[unused1]", "的"], ["[对话]", "<end>"])
    ['[对话]', '的', '<end>']
    """
    tokens = list(tokens)
    free = [index for index, token in enumerate(tokens) if UNUSED.fullmatch(token)][::-1]
    for name in names:
        if not is_mark_name(name) or "\n" in name or UNUSED.fullmatch(name) or name in BYTE_TOKENS:
            hint = "write it like [对话] or <end>"
            message = f"added token {name!r}: expected two or more characters in [brackets] or <brackets>"
            raise UserError(message, hint, EXIT_USAGE)
        if name in tokens:
            continue
        if free:
            tokens[free.pop()] = name
        else:
            tokens.append(name)
    return tokens


def pad_tokens(tokens: Sequence[str], size: int) -> list[str]:
    """Return a vocabulary with further reserved tokens at its end, up to a size.

    >>> pad_tokens(["[CLS]", "[unused7]"], 4)
    ['[CLS]', '[unused7]', '[unused8]', '[unused9]']
    """
    first = 1 + max((int(token[7:-1]) for token in tokens if UNUSED.fullmatch(token)), default=0)
    return [*tokens, *(f"[unused{first + number}]" for number in range(size - len(tokens)))]


def code_points(text: str, start: int, stop: int) -> np.ndarray:
    """Return the code points of a stretch of a text, uint32 (stop - start,).

    Raises:
        UserError: a lone surrogate, which is no character; the message names its place.
    """
    try:
        return np.frombuffer(text[start:stop].encode("utf-32-le"), "<u4")
    except UnicodeEncodeError as problem:
        place = start + problem.start
        message = f"character {place:,} of the text is the lone surrogate U+{ord(text[place]):04X}"
        raise UserError(message, "clean the text first: python clr_ctrl.py") from problem


def encode_with_marks(
    text: str, marks: Mapping[str, int], encode: Callable[[str], np.ndarray], cls_id: int
) -> np.ndarray:
    """Encode a prefix in which marks count as marks; [CLS] is put in front if the prefix does not begin with it.

    Args:
        text: what the user typed.
        marks: names and ids.
        encode: turns text without marks into ids.
        cls_id: of [CLS].

    Returns:
        ids (N,), at least [CLS] alone.
    """
    ids = encode_marked(text, marks, encode)  # (N,)
    if len(ids) == 0 or ids[0] != cls_id:
        ids = np.concatenate([np.array([cls_id], ids.dtype), ids])  # (N + 1,)
    return ids


def encode_marked(text: str, marks: Mapping[str, int], encode: Callable[[str], np.ndarray]) -> np.ndarray:
    """Turn a text in which some marks count as marks into ids (N,)."""
    pattern = "|".join(re.escape(name) for name in sorted(marks, key=len, reverse=True))
    parts = [encode("")]
    for part in re.split(f"({pattern})", text) if marks else [text]:
        parts.append(np.array([marks[part]], parts[0].dtype) if part in marks else encode(part))
    return np.concatenate(parts)


def encode_document(tokenizer, text: str) -> np.ndarray:
    """Turn a document into ids (N,): added tokens such as [TIL] are tokens wherever they stand, [CLS] is text.

    >>> from novelgpt.corpus.tokenizer_character import CharacterTokenizer
    >>> from novelgpt.corpus.vocabulary import build_vocabulary
    >>> tokenizer = CharacterTokenizer(build_vocabulary(["萧炎"], reserved=1)).add_tokens(["[TIL]"])
    >>> encode_document(tokenizer, "萧[TIL]").tolist(), len(encode_document(tokenizer, "[CLS]"))
    ([263, 5], 5)
    """
    added = {name: index for name, index in tokenizer.marks.items() if name not in MARKS and name in text}
    return encode_marked(text, added, tokenizer.encode)


def check_ids(ids: Sequence[int] | np.ndarray, vocab_size: int) -> list[int]:
    """Return ids as a list of Python integers.

    Raises:
        ValueError: an id outside the vocabulary.
    """
    array = np.asarray(ids, dtype=np.int64).reshape(-1)
    if len(array) and not 0 <= array.min() <= array.max() < vocab_size:
        wrong = array.min() if array.min() < 0 else array.max()
        raise ValueError(f"token id {wrong}, expected 0 to {vocab_size - 1}")
    return array.tolist()


def token_bytes(tokens: Sequence[str]) -> list[bytes]:
    """Return the UTF-8 bytes that each token stands for: a byte token for one byte, any other for its name."""
    plain = {token: bytes([byte]) for byte, token in enumerate(BYTE_TOKENS)}
    return [plain.get(token) or token.encode("utf-8") for token in tokens]


def shown_bytes(pieces: Sequence[bytes], tokens: Sequence[str], marks: Mapping[str, int]) -> list[bytes]:
    """Return what people see of each token: [CLS] a blank line, [SEP] a line break, other marks nothing."""
    shown = [b"" if UNUSED.fullmatch(token) else piece for token, piece in zip(tokens, pieces, strict=True)]
    for name, index in marks.items():
        shown[index] = {"[CLS]": b"\n\n", "[SEP]": b"\n"}.get(name, b"")
    return shown


def drop_leading(ids: list[int], cls_id: int) -> list[int]:
    """Leave out the [CLS] at the very beginning, where no blank line is due.

    >>> drop_leading([2, 2, 7, 2], 2)
    [7, 2]
    """
    start = next((place for place, token_id in enumerate(ids) if token_id != cls_id), len(ids))
    return ids[start:]


class ByteStream:
    """Turns token ids into text for people one at a time, holding bytes back until a character is whole.

    Args:
        pieces: the bytes of each token.

    >>> stream = ByteStream([b"\\xe7", b"\\x82", b"\\x8e", b"!"])
    >>> [stream.push(token_id) for token_id in (0, 1, 2, 3)]
    ['', '', '炎', '!']
    """

    def __init__(self, pieces: Sequence[bytes]):
        self.pieces = pieces
        self.decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, token_id: int) -> str:
        """Take the next token and return the characters that are whole now; broken bytes become U+FFFD."""
        return self.decoder.decode(self.pieces[token_id])

    def flush(self) -> str:
        """Return U+FFFD for a character that never became whole, else nothing."""
        return self.decoder.decode(b"", final=True)


class WordStream:
    """Turns WordPiece ids into text one at a time: `##` joins, and only Latin words get a space between them.

    Args:
        tokens: the vocabulary.
        texts: what to write for certain tokens instead of their names.

    >>> stream = WordStream(["大", "new", "##s", "[SEP]"], {"[SEP]": "\\n"})
    >>> [stream.push(token_id) for token_id in (0, 1, 2, 1, 3)]
    ['大', 'new', 's', ' new', '\\n']
    """

    def __init__(self, tokens: Sequence[str], texts: Mapping[str, str]):
        self.tokens = tokens
        self.texts = texts
        self.last = ""

    def push(self, token_id: int) -> str:
        """Take the next token and return the text it adds."""
        token = self.tokens[token_id]
        joins = token.startswith("##") and len(token) > 2
        text = token[2:] if joins else self.texts.get(token, token)
        if not joins and self.last in LATIN and text[:1] in LATIN:
            text = " " + text
        self.last = text[-1:] or self.last
        return text

    def flush(self) -> str:
        """Return what is held back, which is never anything here."""
        return ""
