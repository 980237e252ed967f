"""Texts -> their vocabulary file and a report of how well it fits, as `make_vocab.py` writes them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from novelgpt.corpus.tokenizers.base import NovelTokenizer
from novelgpt.corpus.tokenizers.loading import save_vocabulary
from novelgpt.corpus.tokenizers.vocabulary import SMALL_SIZE, build_vocabulary, count_characters, small_vocabulary
from novelgpt.messages import printable, say

NUM_EXAMPLES = 20  # characters that fall to bytes, the most frequent first
EXAMPLE_WIDTH = 30  # characters


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


def write_small_vocabulary(path: str | Path) -> None:
    """Write the vocabulary that fits any Chinese novel; see small_vocabulary."""
    tokens = small_vocabulary()
    save_vocabulary(path, tokens)
    say(f"wrote {path}: {len(tokens):,} tokens")


def fit_vocabulary(
    documents: Iterable[str],
    vocab_path: str | Path,
    *,
    kind: str = "character",
    vocab_size: int | None = None,
    min_count: int = 1,
    reserved: int = 20,
    width: int,
) -> str:
    """Build the vocabulary of a corpus, write it, and report on it.

    Args:
        documents: texts of the corpus, read once.
        vocab_path: the file to write; for kind "bpe" a folder.
        kind: "character" or "bpe".
        vocab_size: at most this many tokens; None is all characters, and 13,317 for "bpe".
        min_count: rarer characters are written as bytes.
        reserved: how many [unusedN] tokens to keep free.
        width: of the embedding whose size is reported, in numbers a token.

    Returns:
        The report: coverage, what falls to bytes, tokens per character, parameters of the embedding.

    Raises:
        UserError: vocab_size is too small.
    """
    texts = list(documents)
    counts = count_characters(texts)
    # build and write
    if kind == "bpe":
        sizes = {"vocab_size": vocab_size or SMALL_SIZE, "min_count": min_count, "reserved": reserved}
        tokenizer = NovelTokenizer.from_texts(texts, kind=kind, **sizes)
        tokenizer.export(vocab_path)
        tokens, num_ids = tokenizer.tokens, sum(len(tokenizer.encode(text)) for text in texts)
    else:
        tokens = build_vocabulary(counts, vocab_size=vocab_size, min_count=min_count, reserved=reserved)
        save_vocabulary(vocab_path, tokens)
        num_ids = coverage(counts, tokens).tokens
    say(f"wrote {vocab_path}: {len(tokens):,} tokens")
    # report; subwords beside the characters that they replace
    fit = coverage(counts, tokens)
    lines = [f"{vocab_path}: {len(tokens):,} tokens of kind {kind}", *coverage_lines(fit, texts)]
    lines.append(rate_line(kind, num_ids, fit.characters))
    if kind == "bpe":
        plain = build_vocabulary(counts, min_count=min_count, reserved=reserved)
        lines.append(rate_line("character", coverage(counts, plain).tokens, fit.characters))
    return "\n".join([*lines, size_line(len(tokens), width)])


def coverage(counts: Mapping[str, int], tokens: Sequence[str]) -> Coverage:
    """Compare the characters of a text with a character vocabulary.

    Args:
        counts: how often each character occurs.
        tokens: the vocabulary.

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


def rate_line(kind: str, num_ids: int, characters: int) -> str:
    """Report how many tokens a character costs.

    >>> rate_line("bpe", 65, 100)
    'tokens per character (bpe): 0.650'
    """
    return f"tokens per character ({kind}): {num_ids / max(characters, 1):.3f}"


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
