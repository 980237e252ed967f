"""A vocabulary on disk <-> its tokens and the kind of tokenizer they belong to.

    vocab.txt with the byte tokens <0x00> to <0xFF>   character
    vocab.txt without them                            wordpiece
    tokenizer.json                                    wordpiece, or bpe if it has merges, else character

A vocab.txt is UTF-8 with one token a line, split on the newline only (U+2028 is a legal token); the line number,
counted from 0, is the token's id. A mistake in it would silently shift ids, so everything that can be checked is.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from novelgpt.corpus.tokenizers.vocabulary import BYTE_TOKENS, MARKS, UNUSED, is_mark_name, pad_tokens
from novelgpt.files import read_json, write_text
from novelgpt.messages import EXIT_INPUT, UserError, printable, warn

MAX_BYTES = 64 << 20  # of a vocabulary file
MAX_LINES = 10_000_000  # beyond any vocabulary; a wrong file is refused at once
REBUILD_HINT = "python make_vocab.py --raw_data_path data/train.json"
HINT = "give a vocabulary file like cache/vocab_small.txt, or a model folder with tokenizer.json or vocab.txt"


@dataclass(frozen=True)
class Listing:
    """What a vocabulary on disk says.

    Attributes:
        kind: "character", "bpe" or "wordpiece".
        tokens: the place is the id.
        details: further arguments of the tokenizer's class: merges of "bpe", lowercase of "wordpiece".
    """

    kind: str
    tokens: list[str]
    details: dict = field(default_factory=dict)


def read_vocabulary(path: Path, size: int | None) -> Listing:
    """Read a vocabulary file, a tokenizer.json or a model folder; see NovelTokenizer.from_file."""
    if path.is_dir():
        return read_folder(path, folder_size(path) if size is None else size)
    if path.suffix == ".json":
        return read_whole(path, size or 0)
    return read_plain(path, pad_tokens(load_vocabulary(path), size or 0))


def read_folder(folder: Path, size: int) -> Listing:
    """Read what a model folder holds: tokenizer.json, or vocab.txt with the added_tokens.json of older tools."""
    whole, plain = folder / "tokenizer.json", folder / "vocab.txt"
    # tokenizer.json decides, since it knows merges and case; the list beside it must agree
    tokens = load_vocabulary(plain) if plain.exists() else []
    if whole.exists():
        listing = read_whole(whole, size)
        if tokens != listing.tokens[: len(tokens)]:
            raise UserError(
                f"{folder}: tokenizer.json and vocab.txt do not hold the same tokens", "delete the wrong one"
            )
        return listing
    # older folders hold a plain list, and what was added later in a file of its own
    if tokens:
        return read_plain(plain, pad_tokens(with_added(folder / "added_tokens.json", tokens), size))
    raise UserError(f"{folder}: neither tokenizer.json nor vocab.txt", HINT)


def has_vocabulary(folder: str | Path) -> bool:
    """Tell whether a model folder holds a vocabulary of its own; those of GPT2-Chinese do not."""
    return any((Path(folder) / name).exists() for name in ("tokenizer.json", "vocab.txt"))


def folder_size(folder: Path) -> int:
    """Return the number of embedding rows that a model folder's config.json gives, or 0 if it gives none."""
    config = read_json(folder / "config.json", code=EXIT_INPUT) if (folder / "config.json").exists() else {}
    size = config.get("vocab_size") if isinstance(config, dict) else None
    return size if isinstance(size, int) and size <= MAX_LINES else 0


def with_added(path: Path, tokens: list[str]) -> list[str]:
    """Append the tokens of an added_tokens.json, such as `{"[TIL]": 21128}`, to a plain list."""
    added = read_json(path, code=EXIT_INPUT) if path.exists() else {}
    try:
        return order_tokens({**{token: index for index, token in enumerate(tokens)}, **added})
    except (TypeError, ValueError) as problem:
        message = f"{path}: its ids do not continue after the {len(tokens):,} tokens of vocab.txt"
        raise UserError(message, "put back the vocab.txt that belongs to it") from problem


def read_plain(path: Path, tokens: list[str]) -> Listing:
    """Tell the kind of a plain list: character if it has byte tokens, else BERT's WordPiece."""
    if BYTE_TOKENS[0] not in tokens:  # one is enough: check_marks has seen all or none
        lowercase = wants_lowercase(path.parent / "tokenizer_config.json")
        return Listing("wordpiece", tokens, {"lowercase": lowercase})
    check_characters(path, tokens)
    return Listing("character", tokens)


def wants_lowercase(config_path: Path) -> bool:
    """Tell whether the tokenizer_config.json beside a BERT vocabulary keeps to lower case, the default."""
    config = read_json(config_path, code=EXIT_INPUT) if config_path.exists() else {}
    lowercase = not isinstance(config, dict) or config.get("do_lower_case") is not False
    warn_of_settings(config_path, config, lowercase)
    return lowercase


def warn_of_settings(path: Path, settings: object, lowercase: bool) -> None:
    """Warn about unusual settings of a BERT tokenizer, which are not followed here."""
    settings = settings if isinstance(settings, dict) else {}
    usual = {
        "strip_accents": lowercase,  # null means the same
        "tokenize_chinese_chars": True,
        "handle_chinese_chars": True,
        "clean_text": True,
    }
    for name, value in usual.items():
        if settings.get(name, value) not in (value, None):
            warn(f"{path}: {name} {json.dumps(settings[name])} is not followed; some ids may differ from BERT's")


def check_characters(path: Path, tokens: Sequence[str]) -> None:
    """Refuse a character vocabulary in which a token has several characters and is not a mark."""
    plain = set(BYTE_TOKENS)
    for number, token in enumerate(tokens, 1):
        if len(token) > 1 and token not in plain and not is_mark_name(token) and not UNUSED.fullmatch(token):
            raise UserError(
                f"{path}: line {number}: {shorten(token)} has several characters, expected one or a mark in brackets",
                "give the tokenizer.json that belongs to this list",
            )


def read_whole(path: Path, size: int) -> Listing:
    """Read a tokenizer.json written by us or for a BERT model, padded to a size."""
    value = read_json(path, code=EXIT_INPUT)
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
    # the same checks as for a plain list
    check_lines(path, tokens)
    check_marks(path, tokens)
    tokens = pad_tokens(tokens, size)
    # tell the kind
    if kind == "WordPiece":
        lowercase = folds_case(value.get("normalizer"))
        warn_of_settings(path, value.get("normalizer"), lowercase)
        return Listing("wordpiece", tokens, {"lowercase": lowercase})
    if merges:
        return Listing("bpe", tokens, {"merges": merges})
    check_characters(path, tokens)
    return Listing("character", tokens)


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


def load_vocabulary(path: str | Path) -> list[str]:
    """Read a vocabulary file of either kind and check everything that could shift or lose an id.

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
    """Read a vocabulary file as text, unless it is too large to be one."""
    # its size comes first: a wrong path may name a whole library
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


def check_lines(path: Path, tokens: Sequence[str]) -> None:
    """Refuse blank and duplicate lines: either would shift or hide an id."""
    if not tokens:
        raise UserError(f"{path}: empty, expected one token a line", REBUILD_HINT)
    first_lines: dict[str, int] = {}
    for number, token in enumerate(tokens, 1):
        if not token.strip(" \t\r"):  # U+3000 and other wide spaces are tokens
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
    """Quote a token in at most 40 characters, without control characters."""
    return printable(token if len(token) <= 40 else token[:40] + "…")


def save_vocabulary(path: str | Path, tokens: Sequence[str]) -> None:
    """Write a vocabulary file atomically, one token a line."""
    write_text(path, "\n".join(tokens) + "\n")
