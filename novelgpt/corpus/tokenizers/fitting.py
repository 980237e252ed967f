"""Texts -> their vocabulary file and a report of how well it fits, as `make_vocab.py` writes them."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from novelgpt.corpus.tokenizers.base import NovelTokenizer, save_vocabulary
from novelgpt.corpus.tokenizers.vocabulary import (
    SMALL_SIZE,
    build_vocabulary,
    count_characters,
    first_tokens,
    is_character_token,
)
from novelgpt.messages import printable, say

NUM_EXAMPLES = 20  # characters that fall to bytes, the most frequent first
EXAMPLE_WIDTH = 30  # characters
SMALL_RESERVED = 100  # [unusedN] of cache/vocab_small.txt


class Coverage(NamedTuple):
    """How well a vocabulary fits a text."""

    characters: int  # of the text
    covered: int  # characters that have a token of their own or are ASCII
    tokens: int  # that the text becomes
    missing: list[tuple[str, int]]  # characters written as two to four byte tokens with their counts, commonest first


def write_small_vocabulary(path: str | Path) -> None:
    """Write the vocabulary that fits any Chinese novel; see small_vocabulary."""
    tokens = small_vocabulary()
    save_vocabulary(path, tokens)
    say(f"wrote {path}: {len(tokens):,} tokens")


def fit_vocabulary(
    documents: Iterable[str], vocab_path: str | Path, *, kind: str, vocab_size: int | None, width: int, **sizes: int
) -> str:
    """Build the vocabulary of a corpus and write it.

    Args:
        documents: texts of the corpus, read once.
        vocab_path: the file to write; for kind "bpe" a folder.
        kind, vocab_size: as for NovelTokenizer.from_texts, but "bpe" has 13,317 tokens for None.
        width: of the embedding whose size is reported, in numbers a token.
        sizes: min_count and reserved, as for NovelTokenizer.from_texts.

    Returns:
        The report: coverage, what falls to bytes, tokens per character, parameters of the embedding.

    Raises:
        UserError: vocab_size is too small.
    """
    texts = list(documents)
    counts = count_characters(texts)
    # build and write; subwords are reported beside the characters that they replace
    if kind == "bpe":
        tokenizer = NovelTokenizer.from_texts(texts, kind=kind, vocab_size=vocab_size or SMALL_SIZE, **sizes)
        tokenizer.export(vocab_path)
        tokens, plain = tokenizer.tokens, build_vocabulary(counts, **sizes)
        rates = {kind: sum(len(tokenizer.encode(text)) for text in texts), "character": coverage(counts, plain).tokens}
    else:
        tokens = build_vocabulary(counts, vocab_size=vocab_size, **sizes)
        save_vocabulary(vocab_path, tokens)
        rates = {kind: coverage(counts, tokens).tokens}
    say(f"wrote {vocab_path}: {len(tokens):,} tokens")
    # report
    fit = coverage(counts, tokens)
    lines = [f"{vocab_path}: {len(tokens):,} tokens of kind {kind}", *coverage_lines(fit, texts)]
    for name, num_ids in rates.items():
        lines.append(f"tokens per character ({name}): {num_ids / max(fit.characters, 1):.3f}")
    return "\n".join([*lines, size_line(len(tokens), width)])


def coverage(counts: Mapping[str, int], tokens: Sequence[str]) -> Coverage:
    """Compare the characters of a text, with their counts, with a character vocabulary.

    >>> coverage({"萧": 1, "炎": 1, "a": 1}, ["萧"])
    Coverage(characters=3, covered=2, tokens=5, missing=[('炎', 1)])
    """
    known = set(tokens)
    missing = [(char, count) for char, count in counts.items() if char > "\x7f" and char not in known]
    missing.sort(key=lambda entry: (-entry[1], entry[0]))
    characters, lost = sum(counts.values()), sum(count for _, count in missing)
    in_bytes = sum(len(char.encode("utf-8", "surrogatepass")) * count for char, count in missing)
    return Coverage(characters, characters - lost, characters - lost + in_bytes, missing)


def coverage_lines(fit: Coverage, texts: Sequence[str]) -> list[str]:
    """Report how much of a text has tokens of its own, and show what has not, with a line it occurs in."""
    share = 100 * fit.covered / max(fit.characters, 1)
    lost = fit.characters - fit.covered
    lines = [
        f"covered: {fit.covered:,} of {fit.characters:,} characters ({share:.3f} %)",
        f"written as bytes: {lost:,} characters of {len(fit.missing):,} kinds",
    ]
    # a rare character is often damage, which its line tells at a glance
    places = example_lines(dict(fit.missing[:NUM_EXAMPLES]), texts)
    for char, count in fit.missing[:NUM_EXAMPLES]:
        lines.append(f"  U+{ord(char):04X} {printable(char)} × {count:,}: {printable(places[char])}")
    if len(fit.missing) > NUM_EXAMPLES:
        lines.append(f"  and {len(fit.missing) - NUM_EXAMPLES:,} more kinds")
    return lines


def example_lines(chars: Mapping[str, int], texts: Sequence[str]) -> dict[str, str]:
    """Find what surrounds the first occurrence of each character, within its line."""
    examples: dict[str, str] = {}
    for text in texts:
        for char in chars.keys() - examples.keys():
            place = text.find(char)
            if place >= 0:
                start, stop = text.rfind("\n", 0, place) + 1, text.find("\n", place)
                line = text[start : None if stop < 0 else stop]
                first = max(0, place - start - EXAMPLE_WIDTH // 2)
                examples[char] = line[first : first + EXAMPLE_WIDTH]
    return examples


def size_line(vocab_size: int, width: int) -> str:
    """Report how many parameters a vocabulary costs as an embedding, compared with the small vocabulary.

    >>> size_line(5_000, 768)
    'embedding at width 768: 3,840,000 parameters, 6,387,456 fewer than the 10,227,456 of 13,317 tokens'
    """
    difference = (vocab_size - SMALL_SIZE) * width
    comparison = f"{abs(difference):,} {'more' if difference > 0 else 'fewer'} than" if difference else "as many as"
    return (
        f"embedding at width {width}: {vocab_size * width:,} parameters, "
        f"{comparison} the {SMALL_SIZE * width:,} of {SMALL_SIZE:,} tokens"
    )


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
        *sorted(level2, key=lambda char: char not in shared),  # sorting is stable: by code within both groups
    ]
    # dict.fromkeys keeps the first place of each character
    return [*first_tokens(SMALL_RESERVED), *dict.fromkeys(characters)][:SMALL_SIZE]


def decode_rows(codec: str, first: int, last: int) -> list[str]:
    """List the characters of a two-byte code, by code, whose first byte lies between two values.

    >>> decode_rows("gb2312", 0xB0, 0xB0)[:4]
    ['啊', '阿', '埃', '挨']
    """
    # second bytes are of the upper half, and in Big5 of part of the lower
    trails = [*range(0x40, 0x7F if codec == "big5" else 0x40), *range(0xA1, 0xFF)]
    pairs = (bytes([lead, trail]) for lead in range(first, last + 1) for trail in trails)
    return [char for pair in pairs if is_character_token(char := pair.decode(codec, "replace")[0]) and char != "\ufffd"]
