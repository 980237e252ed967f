"""Texts -> the list of tokens a model knows; the place in the list is the token's id.

The character kind, which this module builds, is laid out like this::

    [PAD] [UNK] [CLS] [SEP] [MASK]        the five marks
    [unused1] [unused2] ...               reserved for marks that a later fine-tuning adds
    <0x00> ... <0xFF>                     the 256 bytes: ASCII, the newline, and what no character token covers
    的 一 ，...                            characters

A vocabulary without byte tokens is BERT's, of the WordPiece kind. A vocab.txt is UTF-8 with one token a line, split on
the newline only (U+2028 is a legal token); the line number, counted from 0, is the token's id. A mistake in it would
silently shift ids, so everything that can be checked is.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from novelgpt.messages import EXIT_USAGE, UserError, printable, warn

MARKS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
BYTE_TOKENS = tuple(f"<0x{byte:02X}>" for byte in range(256))
UNUSED = re.compile(r"\[unused[0-9]{1,9}\]")  # a reserved token; int() of thousands of digits would fail
SMALL_SIZE = 13_317  # tokens of cache/vocab_small.txt
MAX_BYTES = 64 << 20  # of a vocabulary file
MAX_LINES = 10_000_000  # beyond any vocabulary; a wrong file is refused at once
REBUILD_HINT = "python make_vocab.py --raw_data_path data/train.json"
HINT = "give a vocabulary file like cache/vocab_small.txt, or a model folder with tokenizer.json or vocab.txt"


class Listing(NamedTuple):
    """What a vocabulary on disk says."""

    kind: str  # "character", "bpe" or "wordpiece"
    tokens: list[str]  # the place is the id
    details: dict  # further arguments of the tokenizer's class: merges of "bpe", lowercase of "wordpiece"


def is_mark_name(token: str) -> bool:
    """Tell whether a token can be a mark: two or more characters in [brackets] or <brackets>.

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


def find_marks(tokens: Sequence[str]) -> dict[str, int]:
    """Map every mark, added tokens included, to its id; reserved [unusedN] and byte tokens are not marks.

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
    """Return a vocabulary with further marks: in reserved [unusedN] places while there are any, then at the end.

    Raises:
        UserError: a name that is not two or more characters in [brackets] or <brackets>, or holds a newline.

    >>> add_names(["[unused1]", "的"], ["[对话]", "<end>"])
    ['[对话]', '的', '<end>']
    """
    tokens = list(tokens)
    free = [index for index, token in enumerate(tokens) if UNUSED.fullmatch(token)][::-1]  # the first one last, for pop
    for name in names:
        if not is_mark_name(name) or "\n" in name or UNUSED.fullmatch(name) or name in BYTE_TOKENS:
            message = f"added token {name!r}: expected two or more characters in [brackets] or <brackets>"
            raise UserError(message, "write it like [对话] or <end>", EXIT_USAGE)
        if name in tokens:  # already a mark; its id stays
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
    # numbers continue after the highest one in use, so that no name occurs twice
    first = 1 + max((int(token[7:-1]) for token in tokens if UNUSED.fullmatch(token)), default=0)
    return [*tokens, *(f"[unused{first + number}]" for number in range(size - len(tokens)))]


def count_characters(texts: Iterable[str]) -> Counter[str]:
    """Count every character of some texts.

    >>> count_characters(["好好", "学"])
    Counter({'好': 2, '学': 1})
    """
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(text)
    return counts


def first_tokens(reserved: int) -> list[str]:
    """Return what comes before the characters: marks, reserved tokens, bytes."""
    return [*MARKS, *(f"[unused{number}]" for number in range(1, reserved + 1)), *BYTE_TOKENS]


def build_vocabulary(
    texts: Iterable[str] | Mapping[str, int], *, vocab_size: int | None = None, min_count: int = 1, reserved: int = 20
) -> list[str]:
    """Fit a character vocabulary: marks, reserved tokens, bytes, then characters by falling count, ties by code point.

    Args:
        texts: documents, or the counts that count_characters made of them; ASCII stays with its byte tokens.
        vocab_size, min_count, reserved: as of NovelTokenizer.from_texts.

    >>> build_vocabulary(["萧炎大喝，萧炎"], reserved=0)[-5:]
    ['炎', '萧', '喝', '大', '，']
    """
    # what every vocabulary has
    start = first_tokens(reserved)
    if vocab_size is not None and vocab_size < len(start):
        found = f"found {vocab_size}, expected at least {len(start)} (5 marks, {reserved} reserved, 256 bytes)"
        raise UserError(f"--vocab_size: {found}", f"--vocab_size {SMALL_SIZE}", EXIT_USAGE)
    # the most frequent characters in the places that are left
    counts = texts if isinstance(texts, Mapping) else count_characters(texts)
    wanted = [char for char, count in counts.items() if count >= min_count and is_character_token(char)]
    wanted.sort(key=lambda char: (-counts[char], char))
    return start + wanted[: None if vocab_size is None else vocab_size - len(start)]


def is_character_token(char: str) -> bool:
    """Tell whether a character may have a token of its own: beyond ASCII and no surrogate."""
    return char > "\x7f" and not "\ud800" <= char <= "\udfff"


def load_vocabulary(path: str | Path) -> list[str]:
    """Read a vocab.txt; CRLF line ends and a byte order mark are accepted with a warning.

    Raises:
        UserError: missing or too large file, not UTF-8, blank or duplicate lines (with their numbers, counted from 1),
            missing marks (with the lines to add), or only some of the 256 byte tokens.
    """
    path = Path(path)
    return check_tokens(path, split_lines(path, read_bounded(path)))


def read_bounded(path: Path) -> str:
    """Read a vocabulary file as text, unless it is too large to be one."""
    # its size comes first: a wrong path may name a whole library
    try:
        if (size := path.stat().st_size) > MAX_BYTES:
            raise UserError(f"{path}: {size:,} bytes, expected a vocabulary of at most {MAX_BYTES:,}", REBUILD_HINT)
        data = path.read_bytes()
    except OSError as problem:
        raise UserError(f"{path}: cannot be read: {problem.strerror}", REBUILD_HINT) from problem
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as problem:
        line = data.count(b"\n", 0, problem.start) + 1  # counted from 1, as editors do
        raise UserError(f"{path}: line {line} is not UTF-8", "save the vocabulary as UTF-8") from problem
    if text.count("\n") > MAX_LINES:
        raise UserError(f"{path}: more than {MAX_LINES:,} lines, expected a vocabulary", REBUILD_HINT)
    return text


def split_lines(path: Path, text: str) -> list[str]:
    """Split a vocabulary at its newlines; a byte order mark and CRLF are removed with a warning."""
    if text.startswith("\ufeff"):
        warn(f"{path}: begins with a byte order mark, which is left out")
        text = text[1:]
    lines = text.split("\n")  # not splitlines, which splits at U+2028 too
    if lines[-1] == "":
        lines.pop()
    if lines and all(line.endswith("\r") for line in lines):
        warn(f"{path}: has CRLF line ends, which are read as newlines")
        lines = [line[:-1] for line in lines]
    return lines


def check_tokens(path: Path, tokens: list[str]) -> list[str]:
    """Return the tokens of a file; refuse blank and duplicate ones, missing marks, and only some of the byte tokens."""
    if not tokens:
        raise UserError(f"{path}: empty, expected one token a line", REBUILD_HINT)
    # a blank or a second line of a token would shift or hide an id
    lines: dict[str, int] = {}
    for number, token in enumerate(tokens, 1):
        if not token.strip(" \t\r"):  # U+3000 and other wide spaces are tokens
            raise UserError(f"{path}: line {number} is blank, expected a token", f"delete line {number}")
        if token in lines:
            message = f"{path}: {shorten(token)} is on line {lines[token]} and again on line {number}"
            raise UserError(message, f"delete line {number}")
        lines[token] = number
    # the five marks, and all of the byte tokens or none
    if missing := [mark for mark in MARKS if mark not in lines]:
        hint = "\n".join([f"add these lines to {path.name}:", *missing])
        raise UserError(f"{path}: the marks {', '.join(missing)} are missing", hint)
    absent = [token for token in BYTE_TOKENS if token not in lines]
    if 0 < len(absent) < 256:
        found = f"{256 - len(absent)} of the 256 byte tokens <0x00> to <0xFF>, {absent[0]} is missing"
        raise UserError(f"{path}: {found}; expected all or none", REBUILD_HINT)
    return tokens


def check_characters(path: Path, tokens: Sequence[str]) -> None:
    """Refuse a character vocabulary in which a token has several characters and is not a mark."""
    plain = set(BYTE_TOKENS)
    for number, token in enumerate(tokens, 1):
        if len(token) > 1 and token not in plain and not is_mark_name(token) and not UNUSED.fullmatch(token):
            found = f"{shorten(token)} has several characters, expected one or a mark in brackets"
            raise UserError(f"{path}: line {number}: {found}", "give the tokenizer.json that belongs to this list")


def parse_whole(path: Path, value: object, size: int) -> Listing:
    """Read the value of a tokenizer.json written by us or for a BERT model, padded to a size."""
    # take out what we need; anything may be missing or of another type
    try:
        model = value["model"]
        tokens = order_tokens({**model["vocab"], **{entry["content"]: entry["id"] for entry in value["added_tokens"]}})
        kind, merges = model["type"], [read_merge(pair) for pair in model.get("merges", [])]
        byte_wise = kind == "BPE" and model["byte_fallback"] is True and BYTE_TOKENS[0] in tokens
    except (TypeError, KeyError, ValueError, AttributeError) as problem:
        raise UserError(f"{path}: not a tokenizer.json with a vocabulary", HINT) from problem
    if not byte_wise and kind != "WordPiece":
        raise UserError(f"{path}: a tokenizer of the kind {shorten(str(kind))} without byte tokens is not known", HINT)
    # tell the kind
    tokens = pad_tokens(check_tokens(path, tokens), size)
    if kind == "WordPiece":
        lowercase = folds_case(value.get("normalizer"))
        warn_of_settings(path, value.get("normalizer"), lowercase)
        return Listing("wordpiece", tokens, {"lowercase": lowercase})
    if merges:
        return Listing("bpe", tokens, {"merges": merges})
    check_characters(path, tokens)
    return Listing("character", tokens, {})


def order_tokens(ids: Mapping[str, int]) -> list[str]:
    """List tokens by their ids; ValueError unless the ids are 0, 1, 2, … without a gap.

    >>> order_tokens({"的": 1, "[CLS]": 0})
    ['[CLS]', '的']
    """
    tokens = sorted(ids, key=lambda token: ids[token])
    if [ids[token] for token in tokens] != list(range(len(tokens))):
        raise ValueError("ids with gaps")
    return tokens


def read_merge(pair: str | Sequence[str]) -> tuple[str, str]:
    """Read one merge, a pair in new files, two words with a space between them in older ones."""
    left, right = pair.split(" ") if isinstance(pair, str) else pair  # ValueError unless two
    return left, right


def folds_case(normalizer: object) -> bool:
    """Tell whether the normalizer of a tokenizer.json lowercases text; BERT's does unless it says otherwise."""
    if isinstance(normalizer, dict) and normalizer.get("type") == "Sequence":
        return all(folds_case(part) for part in normalizer["normalizers"])
    return not isinstance(normalizer, dict) or normalizer.get("lowercase") is not False


def warn_of_settings(path: Path, settings: object, lowercase: bool) -> None:
    """Warn about unusual settings of a BERT tokenizer, which are not followed here."""
    settings = settings if isinstance(settings, dict) else {}
    usual = dict.fromkeys(("tokenize_chinese_chars", "handle_chinese_chars", "clean_text"), True)
    for name, value in {"strip_accents": lowercase, **usual}.items():  # null means the same
        if settings.get(name, value) not in (value, None):
            warn(f"{path}: {name} {json.dumps(settings[name])} is not followed; some ids may differ from BERT's")


def shorten(token: str) -> str:
    """Quote a token in at most 40 characters, without control characters."""
    return printable(token if len(token) <= 40 else token[:40] + "…")
