"""A vocabulary on disk -> the tokenizer that belongs to it.

    vocab.txt with the byte tokens <0x00> to <0xFF>    character   lossless, tokenizer_character.py

All kinds have the same attributes and methods; see CharacterTokenizer.
"""

from pathlib import Path

from novelgpt.corpus.tokenizer_character import CharacterTokenizer
from novelgpt.corpus.tokens import UNUSED
from novelgpt.corpus.vocabulary import BYTE_TOKENS, is_mark_name, load_vocabulary, shorten
from novelgpt.errors import UserError


def load_tokenizer(path: str | Path) -> CharacterTokenizer:
    """Load the tokenizer of a vocabulary file or of a model folder.

    Args:
        path: a vocabulary file, or a folder that holds vocab.txt.

    Raises:
        UserError: nothing there, or not a vocabulary.
    """
    path = Path(path)
    if path.is_dir():
        path = path / "vocab.txt"
    tokens = load_vocabulary(path)
    check_characters(path, tokens)
    return CharacterTokenizer(tokens)


def check_characters(path: Path, tokens: list[str]) -> None:
    """Refuse a character vocabulary with tokens of several characters that are no marks."""
    plain = set(BYTE_TOKENS)
    for number, token in enumerate(tokens, 1):
        if len(token) > 1 and token not in plain and not is_mark_name(token) and not UNUSED.fullmatch(token):
            raise UserError(
                f"{path}: line {number}: {shorten(token)} has several characters, expected one or a mark in brackets",
                "give the tokenizer.json that belongs to this list",
            )
