"""Texts -> the list of tokens a model knows, and the file that list lives in.

A vocabulary file is UTF-8 with one token a line, split on the newline only (U+2028 is a legal token); the line number,
counted from 0, is the token's id. The character kind, which this module builds, is laid out so::

    [PAD] [UNK] [CLS] [SEP] [MASK]        the five marks
    [unused1] [unused2] ...               room for marks that a later fine-tuning adds
    <0x00> ... <0xFF>                     the 256 bytes: ASCII, the newline, and what no character token covers
    的 一 ，...                            characters

A file without byte tokens is read as a BERT WordPiece vocabulary; see tokenizer.py.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from novelgpt.files import write_text
from novelgpt.messages import EXIT_USAGE, UserError, printable, warn

MARKS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
BYTE_TOKENS = tuple(f"<0x{byte:02X}>" for byte in range(256))
SMALL_SIZE = 13_317  # tokens of cache/vocab_small.txt
SMALL_RESERVED = 100  # [unusedN] of cache/vocab_small.txt
MAX_BYTES = 64 << 20  # of a vocabulary file
MAX_LINES = 10_000_000
REBUILD_HINT = "python make_vocab.py --raw_data_path data/train.json"


def load_vocabulary(path: str | Path) -> list[str]:
    """Read a vocabulary file of either kind and check everything that would shift or lose an id.

    Args:
        path: a UTF-8 file, one token a line; CRLF line ends and a byte order mark are accepted with a warning.

    Returns:
        The tokens; the place in the list is the id.

    Raises:
        UserError: missing or too large file, not UTF-8, blank or duplicate lines (with their numbers, counted from 1),
            missing marks (with the lines to add), or only some of the 256 byte tokens.
    """
    path = Path(path)
    tokens = split_lines(path, read_bounded(path))
    check_lines(path, tokens)
    check_marks(path, tokens)
    return tokens


def read_bounded(path: Path) -> str:
    """Read a vocabulary file as text after looking at its size."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise UserError(
                f"{path}: {path.stat().st_size:,} bytes, expected a vocabulary of at most {MAX_BYTES:,}", REBUILD_HINT
            )
        data = path.read_bytes()
    except OSError as problem:
        raise UserError(f"{path}: cannot be read: {problem.strerror}", REBUILD_HINT) from problem
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as problem:
        line = data.count(b"\n", 0, problem.start) + 1
        raise UserError(f"{path}: line {line} is not UTF-8", "save the vocabulary as UTF-8") from problem
    if text.count("\n") > MAX_LINES:
        raise UserError(f"{path}: more than {MAX_LINES:,} lines, expected a vocabulary", REBUILD_HINT)
    return text


def split_lines(path: Path, text: str) -> list[str]:
    """Split a vocabulary at its newlines, taking off a byte order mark and CRLF with a warning."""
    if text.startswith("\ufeff"):
        warn(f"{path}: begins with a byte order mark, which is left out")
        text = text[1:]
    lines = text.split("\n")
    if lines[-1] == "":
        lines.pop()
    if lines and all(line.endswith("\r") for line in lines):
        warn(f"{path}: has CRLF line ends, which are read as newlines")
        lines = [line[:-1] for line in lines]
    return lines


def check_lines(path: Path, tokens: Sequence[str]) -> None:
    """Refuse blank and duplicate lines: either would shift or hide an id."""
    if not tokens:
        raise UserError(f"{path}: empty, expected one token a line", REBUILD_HINT)
    first_lines: dict[str, int] = {}
    for number, token in enumerate(tokens, 1):
        if not token.strip(" \t\r"):
            raise UserError(f"{path}: line {number} is blank, expected a token", f"delete line {number}")
        if token in first_lines:
            raise UserError(
                f"{path}: {shorten(token)} is on line {first_lines[token]} and again on line {number}",
                f"delete line {number}",
            )
        first_lines[token] = number


def check_marks(path: Path, tokens: Sequence[str]) -> None:
    """Refuse a vocabulary without its five marks or with only some of the byte tokens."""
    known = set(tokens)
    missing = [mark for mark in MARKS if mark not in known]
    if missing:
        lines = "\n".join(missing)
        raise UserError(
            f"{path}: the marks {', '.join(missing)} are missing", f"add these lines to {path.name}:\n{lines}"
        )
    num_bytes = sum(token in known for token in BYTE_TOKENS)
    if 0 < num_bytes < 256:
        first = next(token for token in BYTE_TOKENS if token not in known)
        raise UserError(
            f"{path}: {num_bytes} of the 256 byte tokens <0x00> to <0xFF>, {first} is missing; expected all or none",
            REBUILD_HINT,
        )


def shorten(token: str) -> str:
    """Quote a token harmlessly and in at most 40 characters."""
    return printable(token if len(token) <= 40 else token[:40] + "…")


def save_vocabulary(path: str | Path, tokens: Sequence[str]) -> None:
    """Write a vocabulary file atomically, one token a line."""
    write_text(path, "\n".join(tokens) + "\n")


def is_mark_name(token: str) -> bool:
    """Tell whether a token can be a mark or added token: two or more characters in [brackets] or <brackets>.

    >>> is_mark_name("[CLS]"), is_mark_name("<|say|>"), is_mark_name("萧炎")
    (True, True, False)
    """
    return len(token) > 3 and token[0] + token[-1] in ("[]", "<>")


def split_names(text: str | None) -> list[str]:
    """Split the value of `--add_tokens` at its commas; None has no names.

    >>> split_names("[TIL], [WS]"), split_names(None)
    (['[TIL]', '[WS]'], [])
    """
    return [name.strip() for name in (text or "").split(",") if name.strip()]


def count_characters(texts: Iterable[str]) -> Counter[str]:
    """Count every character of some texts.

    >>> count_characters(["好好", "学"])
    Counter({'好': 2, '学': 1})
    """
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(text)
    return counts


def frame(reserved: int) -> list[str]:
    """Return what stands before the characters: marks, reserved tokens, bytes."""
    return [*MARKS, *(f"[unused{number}]" for number in range(1, reserved + 1)), *BYTE_TOKENS]


def build_vocabulary(
    texts: Iterable[str] | Mapping[str, int], *, vocab_size: int | None = None, min_count: int = 1, reserved: int = 20
) -> list[str]:
    """Fit a character vocabulary to some texts.

    Args:
        texts: documents, or the counts that count_characters made of them.
        vocab_size: at most this many tokens, the most frequent characters first; None takes all.
        min_count: leave characters that occur less often to their bytes.
        reserved: how many [unusedN] tokens to keep free for added tokens.

    Returns:
        Marks, reserved tokens, bytes, then characters by falling count, ties by code point. ASCII stays with its byte
        tokens.

    Raises:
        UserError: vocab_size leaves no room for marks and bytes.

    >>> build_vocabulary(["萧炎大喝，萧炎"], reserved=0)[-5:]
    ['炎', '萧', '喝', '大', '，']
    """
    start = frame(reserved)
    if vocab_size is not None and vocab_size < len(start):
        raise UserError(
            f"--vocab_size: found {vocab_size}, expected at least {len(start)} "
            f"({len(MARKS)} marks, {reserved} reserved, 256 bytes)",
            f"--vocab_size {SMALL_SIZE}",
            EXIT_USAGE,
        )
    counts = texts if isinstance(texts, Mapping) else count_characters(texts)
    wanted = [char for char, count in counts.items() if count >= min_count and is_character_token(char)]
    wanted.sort(key=lambda char: (-counts[char], char))
    return start + wanted[: None if vocab_size is None else vocab_size - len(start)]


def is_character_token(char: str) -> bool:
    """Tell whether a character may have a token of its own: beyond ASCII and no surrogate."""
    return char > "\x7f" and not "\ud800" <= char <= "\udfff"


def small_vocabulary() -> list[str]:
    """Build the tokens of cache/vocab_small.txt: 13,317, for any Chinese novel, from Python's own codecs alone.

    In this order, each character once: the whole of GB2312; the punctuation of GBK's first nine rows (— and · among it,
    which Python's GB2312 maps elsewhere); Big5's symbols and its level 1 (common traditional characters); and of its
    level 2 as many as fit, first those that the Japanese or the Korean standard has too, for these occur in texts.

    >>> len(small_vocabulary())
    13317
    """
    level2 = decode_rows("big5", 0xC9, 0xF9)
    shared = {*decode_rows("euc_jp", 0xB0, 0xF4), *decode_rows("euc_kr", 0xCA, 0xFD)}
    characters = [
        *decode_rows("gb2312", 0xA1, 0xF7),
        *decode_rows("gbk", 0xA1, 0xA9),
        *decode_rows("big5", 0xA1, 0xC8),
        *sorted(level2, key=lambda char: char not in shared),
    ]
    return [*frame(SMALL_RESERVED), *dict.fromkeys(characters)][:SMALL_SIZE]


def decode_rows(codec: str, first: int, last: int) -> list[str]:
    """List the characters of a two-byte code, by code, whose first byte lies between two values.

    >>> decode_rows("gb2312", 0xB0, 0xB0)[:4]
    ['啊', '阿', '埃', '挨']
    """
    pairs = (bytes([lead, trail]) for lead in range(first, last + 1) for trail in trail_bytes(codec))
    return [char for pair in pairs if is_character_token(char := pair.decode(codec, "replace")[0]) and char != "\ufffd"]


def trail_bytes(codec: str) -> Iterator[int]:
    """Yield the second bytes of the two-byte codes: the upper half, and for Big5 part of the lower."""
    if codec == "big5":
        yield from range(0x40, 0x7F)
    yield from range(0xA1, 0xFF)


@dataclass(frozen=True)
class Coverage:
    """How well a vocabulary fits a text.

    Attributes:
        characters: of the text.
        covered: characters that have a token of their own or are ASCII.
        tokens: that the text becomes.
        missing: characters written as two to four byte tokens, with their counts, the most frequent first.
    """

    characters: int
    covered: int
    tokens: int
    missing: list[tuple[str, int]]


def coverage(counts: Mapping[str, int], tokens: Sequence[str]) -> Coverage:
    """Compare the characters of a text with a character vocabulary.

    Args:
        counts: how often each character occurs.
        tokens: the vocabulary.

    >>> coverage(Counter("萧炎a"), [*BYTE_TOKENS, "萧"])
    Coverage(characters=3, covered=2, tokens=5, missing=[('炎', 1)])
    """
    known = set(tokens)
    missing = [(char, count) for char, count in counts.items() if char > "\x7f" and char not in known]
    missing.sort(key=lambda entry: (-entry[1], entry[0]))
    characters, lost = sum(counts.values()), sum(count for _, count in missing)
    in_bytes = sum(len(char.encode("utf-8", "surrogatepass")) * count for char, count in missing)
    return Coverage(characters, characters - lost, characters - lost + in_bytes, missing)
