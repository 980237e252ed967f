"""A vocabulary on disk -> the tokenizer that belongs to it.

    vocab.txt with the byte tokens <0x00> to <0xFF>   character   lossless                   tokenizer_character.py
    vocab.txt without them                            wordpiece   a BERT vocabulary, lossy   tokenizer_wordpiece.py
    tokenizer.json with merges                        bpe         subwords, lossless         tokenizer_bpe.py

All kinds have the same attributes and methods; see CharacterTokenizer.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from novelgpt.corpus.tokenizer_bpe import BpeTokenizer
from novelgpt.corpus.tokenizer_character import CharacterTokenizer
from novelgpt.corpus.tokenizer_wordpiece import WordPieceTokenizer
from novelgpt.corpus.tokens import UNUSED, pad_tokens
from novelgpt.corpus.vocabulary import (
    BYTE_TOKENS,
    MAX_LINES,
    check_lines,
    check_marks,
    is_mark_name,
    load_vocabulary,
    shorten,
)
from novelgpt.files import read_json
from novelgpt.messages import EXIT_INPUT, UserError, warn

HINT = "give a vocabulary file like cache/vocab_small.txt, or a model folder with tokenizer.json or vocab.txt"


def load_tokenizer(
    path: str | Path, *, size: int | None = None
) -> CharacterTokenizer | WordPieceTokenizer | BpeTokenizer:
    """Load the tokenizer of a vocabulary file, a tokenizer.json or a model folder.

    Args:
        path: a vocabulary file, a tokenizer.json, or a folder that holds either.
        size: append reserved tokens up to this many, 0 for none; None is what a model folder's config.json says, for
            an embedding may have rows beyond the list.

    Raises:
        UserError: nothing there, not a vocabulary, a tokenizer of a kind that is not ours, or a folder whose
            tokenizer.json and vocab.txt do not agree.
    """
    path = Path(path)
    if path.is_dir():
        return load_folder(path, folder_size(path) if size is None else size)
    if path.suffix == ".json":
        return load_json(path, size or 0)
    return from_tokens(path, pad_tokens(load_vocabulary(path), size or 0))


def load_folder(folder: Path, size: int) -> CharacterTokenizer | WordPieceTokenizer | BpeTokenizer:
    """Load what a model folder holds: tokenizer.json, or vocab.txt with the added_tokens.json of older tools."""
    whole, listing = folder / "tokenizer.json", folder / "vocab.txt"
    tokens = load_vocabulary(listing) if listing.exists() else []
    if whole.exists():
        tokenizer = load_json(whole, size)
        if tokens != tokenizer.tokens[: len(tokens)]:
            raise UserError(
                f"{folder}: tokenizer.json and vocab.txt do not hold the same tokens", "delete the wrong one"
            )
        return tokenizer
    if tokens:
        return from_tokens(listing, pad_tokens(with_added(folder / "added_tokens.json", tokens), size))
    raise UserError(f"{folder}: neither tokenizer.json nor vocab.txt", HINT)


def has_vocabulary(folder: str | Path) -> bool:
    """Tell whether a model folder holds a vocabulary of its own; GPT2-Chinese writes none."""
    return any((Path(folder) / name).exists() for name in ("tokenizer.json", "vocab.txt"))


def folder_size(folder: Path) -> int:
    """Return the rows of a model folder's embedding as its config.json has them; 0 where that says nothing."""
    config = read_json(folder / "config.json", code=EXIT_INPUT) if (folder / "config.json").exists() else {}
    size = config.get("vocab_size") if isinstance(config, dict) else None
    return size if isinstance(size, int) and size <= MAX_LINES else 0


def with_added(path: Path, tokens: list[str]) -> list[str]:
    """Return a plain list with the tokens that stand beside it, `{"[TIL]": 21128}`, at its end."""
    added = read_json(path, code=EXIT_INPUT) if path.exists() else {}
    try:
        return order_tokens({**{token: index for index, token in enumerate(tokens)}, **added})
    except (TypeError, ValueError) as problem:
        message = f"{path}: its ids do not go on after the {len(tokens):,} tokens of vocab.txt"
        raise UserError(message, "put back the vocab.txt that belongs to it") from problem


def from_tokens(path: Path, tokens: list[str]) -> CharacterTokenizer | WordPieceTokenizer:
    """Make the tokenizer of a plain list: a character vocabulary if it has byte tokens, else BERT's."""
    if BYTE_TOKENS[0] not in tokens:
        return WordPieceTokenizer(tokens, lowercase=wants_lowercase(path.parent / "tokenizer_config.json"))
    check_characters(path, tokens)
    return CharacterTokenizer(tokens)


def wants_lowercase(config_path: Path) -> bool:
    """Tell what the tokenizer_config.json beside a BERT vocabulary says about case; lower case if there is none."""
    config = read_json(config_path, code=EXIT_INPUT) if config_path.exists() else {}
    lowercase = not isinstance(config, dict) or config.get("do_lower_case") is not False
    warn_of_settings(config_path, config, lowercase)
    return lowercase


def warn_of_settings(path: Path, settings: object, lowercase: bool) -> None:
    """Name the settings of a BERT tokenizer that are rarely changed and not followed here."""
    settings = settings if isinstance(settings, dict) else {}
    usual = {
        "strip_accents": lowercase,
        "tokenize_chinese_chars": True,
        "handle_chinese_chars": True,
        "clean_text": True,
    }
    for name, value in usual.items():
        if settings.get(name, value) not in (value, None):
            warn(f"{path}: {name} {json.dumps(settings[name])} is not followed; some ids may differ from BERT's")


def check_characters(path: Path, tokens: Sequence[str]) -> None:
    """Refuse a character vocabulary with tokens of several characters that are no marks."""
    plain = set(BYTE_TOKENS)
    for number, token in enumerate(tokens, 1):
        if len(token) > 1 and token not in plain and not is_mark_name(token) and not UNUSED.fullmatch(token):
            raise UserError(
                f"{path}: line {number}: {shorten(token)} has several characters, expected one or a mark in brackets",
                "give the tokenizer.json that belongs to this list",
            )


def load_json(path: Path, size: int) -> CharacterTokenizer | WordPieceTokenizer | BpeTokenizer:
    """Load a tokenizer.json that we or a BERT model wrote, padded to a size."""
    value = read_json(path, code=EXIT_INPUT)
    try:
        model = value["model"]
        tokens = order_tokens({**model["vocab"], **{entry["content"]: entry["id"] for entry in value["added_tokens"]}})
        kind, merges = model["type"], [read_merge(pair) for pair in model.get("merges", [])]
        byte_wise = kind == "BPE" and model["byte_fallback"] is True and BYTE_TOKENS[0] in tokens
    except (TypeError, KeyError, ValueError, AttributeError) as problem:
        raise UserError(f"{path}: not a tokenizer.json with a vocabulary", HINT) from problem
    if not byte_wise and kind != "WordPiece":
        raise UserError(f"{path}: a tokenizer of the kind {shorten(str(kind))} without byte tokens is not known", HINT)
    check_lines(path, tokens)
    check_marks(path, tokens)
    tokens = pad_tokens(tokens, size)
    if kind == "WordPiece":
        lowercase = folds_case(value.get("normalizer"))
        warn_of_settings(path, value.get("normalizer"), lowercase)
        return WordPieceTokenizer(tokens, lowercase=lowercase)
    if merges:
        return BpeTokenizer(tokens, merges)
    check_characters(path, tokens)
    return CharacterTokenizer(tokens)


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
    """Read one merge, written as a pair or as two words with a space between."""
    left, right = pair.split(" ") if isinstance(pair, str) else pair
    return left, right


def folds_case(normalizer: object) -> bool:
    """Tell whether a tokenizer.json's normalizer turns text into lower case; BERT's does unless it says otherwise."""
    if isinstance(normalizer, dict) and normalizer.get("type") == "Sequence":
        return all(folds_case(part) for part in normalizer["normalizers"])
    return not isinstance(normalizer, dict) or normalizer.get("lowercase") is not False
