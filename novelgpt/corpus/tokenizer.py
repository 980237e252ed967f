"""A vocabulary on disk -> the tokenizer that belongs to it.

    vocab.txt with the byte tokens <0x00> to <0xFF>   character   lossless                   tokenizer_character.py
    vocab.txt without them                            wordpiece   a BERT vocabulary, lossy   tokenizer_wordpiece.py
    tokenizer.json with merges                        bpe         subwords, lossless         tokenizer_bpe.py

All kinds have the same attributes and methods; see CharacterTokenizer.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from novelgpt.corpus.tokenizer_bpe import BpeTokenizer
from novelgpt.corpus.tokenizer_character import CharacterTokenizer
from novelgpt.corpus.tokenizer_wordpiece import WordPieceTokenizer
from novelgpt.corpus.tokens import UNUSED
from novelgpt.corpus.vocabulary import BYTE_TOKENS, check_lines, check_marks, is_mark_name, load_vocabulary, shorten
from novelgpt.errors import EXIT_INPUT, UserError
from novelgpt.files import read_json

HINT = "give a vocabulary file like cache/vocab_small.txt, or a model folder with tokenizer.json or vocab.txt"


def load_tokenizer(path: str | Path) -> CharacterTokenizer | WordPieceTokenizer | BpeTokenizer:
    """Load the tokenizer of a vocabulary file, a tokenizer.json or a model folder.

    Args:
        path: a vocabulary file, a tokenizer.json, or a folder that holds either.

    Raises:
        UserError: nothing there, not a vocabulary, a tokenizer of a kind that is not ours, or a folder whose
            tokenizer.json and vocab.txt do not agree.
    """
    path = Path(path)
    if path.is_dir():
        return load_folder(path)
    return load_json(path) if path.suffix == ".json" else from_tokens(path, load_vocabulary(path))


def load_folder(folder: Path) -> CharacterTokenizer | WordPieceTokenizer | BpeTokenizer:
    """Load what a model folder holds."""
    whole, listing = folder / "tokenizer.json", folder / "vocab.txt"
    if whole.exists():
        tokenizer = load_json(whole)
        if listing.exists() and load_vocabulary(listing) != tokenizer.tokens:
            raise UserError(
                f"{folder}: tokenizer.json and vocab.txt do not hold the same tokens", "delete the wrong one"
            )
        return tokenizer
    if listing.exists():
        return from_tokens(listing, load_vocabulary(listing))
    raise UserError(f"{folder}: neither tokenizer.json nor vocab.txt", HINT)


def from_tokens(path: Path, tokens: list[str]) -> CharacterTokenizer | WordPieceTokenizer:
    """Make the tokenizer of a plain list: a character vocabulary if it has byte tokens, else BERT's."""
    if BYTE_TOKENS[0] not in tokens:
        return WordPieceTokenizer(tokens, lowercase=wants_lowercase(path.parent / "tokenizer_config.json"))
    check_characters(path, tokens)
    return CharacterTokenizer(tokens)


def wants_lowercase(config_path: Path) -> bool:
    """Tell what the tokenizer_config.json beside a BERT vocabulary says about case; lower case if there is none."""
    config = read_json(config_path, code=EXIT_INPUT) if config_path.exists() else {}
    return not isinstance(config, dict) or config.get("do_lower_case") is not False


def check_characters(path: Path, tokens: Sequence[str]) -> None:
    """Refuse a character vocabulary with tokens of several characters that are no marks."""
    plain = set(BYTE_TOKENS)
    for number, token in enumerate(tokens, 1):
        if len(token) > 1 and token not in plain and not is_mark_name(token) and not UNUSED.fullmatch(token):
            raise UserError(
                f"{path}: line {number}: {shorten(token)} has several characters, expected one or a mark in brackets",
                "give the tokenizer.json that belongs to this list",
            )


def load_json(path: Path) -> CharacterTokenizer | WordPieceTokenizer | BpeTokenizer:
    """Load a tokenizer.json that we or a BERT model wrote."""
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
    if kind == "WordPiece":
        return WordPieceTokenizer(tokens, lowercase=folds_case(value.get("normalizer")))
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
