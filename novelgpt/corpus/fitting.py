"""A corpus -> its vocabulary file and a page that says how well it fits, as `make_vocab.py` writes them."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from novelgpt.corpus.documents import read_corpus
from novelgpt.corpus.tokenizer_bpe import train_bpe
from novelgpt.corpus.vocabulary import (
    SMALL_SIZE,
    Coverage,
    build_vocabulary,
    count_characters,
    coverage,
    save_vocabulary,
)
from novelgpt.messages import printable, say

NUM_EXAMPLES = 20
EXAMPLE_WIDTH = 30  # characters
WIDTH = 768  # of the small model's embedding


def fit_vocabulary(
    raw_data_path: str | Path,
    vocab_path: str | Path,
    *,
    kind: str = "character",
    vocab_size: int | None = None,
    min_count: int = 1,
    reserved: int = 20,
) -> str:
    """Build the vocabulary of a corpus, write it, and report on it.

    Args:
        raw_data_path: the corpus.
        vocab_path: the file to write; for kind "bpe" a folder.
        kind: "character" or "bpe".
        vocab_size: at most this many tokens; None is all characters, and 13,317 for "bpe".
        min_count: rarer characters are left to their bytes.
        reserved: how many [unusedN] tokens to keep free.

    Returns:
        The report: coverage, what falls to bytes, tokens per character, parameters of the embedding.

    Raises:
        UserError: the corpus cannot be read, or vocab_size is too small.
    """
    texts = list(read_corpus(raw_data_path))
    counts = count_characters(texts)
    if kind == "bpe":
        tokenizer = train_bpe(texts, vocab_size=vocab_size or SMALL_SIZE, min_count=min_count, reserved=reserved)
        tokenizer.export(vocab_path)
        tokens, num_ids = tokenizer.tokens, sum(len(tokenizer.encode(text)) for text in texts)
    else:
        tokens = build_vocabulary(counts, vocab_size=vocab_size, min_count=min_count, reserved=reserved)
        save_vocabulary(vocab_path, tokens)
        num_ids = coverage(counts, tokens).tokens
    say(f"wrote {vocab_path}: {len(tokens):,} tokens")
    fit = coverage(counts, tokens)
    lines = [f"{vocab_path}: {len(tokens):,} tokens of kind {kind}", *coverage_lines(fit, texts)]
    lines.append(rate_line(kind, num_ids, fit.characters))
    if kind == "bpe":
        plain = build_vocabulary(counts, min_count=min_count, reserved=reserved)
        lines.append(rate_line("character", coverage(counts, plain).tokens, fit.characters))
    return "\n".join([*lines, size_line(len(tokens))])


def coverage_lines(fit: Coverage, texts: Sequence[str]) -> list[str]:
    """Say how much of a text has tokens of its own and show what has not, each with a line it stands in."""
    share = 100 * fit.covered / max(fit.characters, 1)
    lost = fit.characters - fit.covered
    lines = [
        f"covered: {fit.covered:,} of {fit.characters:,} characters ({share:.3f} %)",
        f"written as bytes: {lost:,} characters of {len(fit.missing):,} kinds",
    ]
    places = example_lines(dict(fit.missing[:NUM_EXAMPLES]), texts)
    for char, count in fit.missing[:NUM_EXAMPLES]:
        lines.append(f"  U+{ord(char):04X} {printable(char)} × {count:,}: {printable(places[char])}")
    if len(fit.missing) > NUM_EXAMPLES:
        lines.append(f"  and {len(fit.missing) - NUM_EXAMPLES:,} more kinds")
    return lines


def example_lines(chars: Mapping[str, int], texts: Sequence[str]) -> dict[str, str]:
    """Find for each character the surroundings of its first place, within its line."""
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
    """Say how many tokens a character costs.

    >>> rate_line("bpe", 65, 100)
    'tokens per character (bpe): 0.650'
    """
    return f"tokens per character ({kind}): {num_ids / max(characters, 1):.3f}"


def size_line(vocab_size: int) -> str:
    """Say what a vocabulary costs as the embedding of the small model.

    >>> size_line(5_000)
    'embedding at width 768: 3,840,000 parameters, 6,387,456 fewer than the 10,227,456 of 13,317 tokens'
    """
    difference = (vocab_size - SMALL_SIZE) * WIDTH
    comparison = f"{abs(difference):,} {'more' if difference > 0 else 'fewer'} than" if difference else "as many as"
    return (
        f"embedding at width {WIDTH}: {vocab_size * WIDTH:,} parameters, "
        f"{comparison} the {SMALL_SIZE * WIDTH:,} of {SMALL_SIZE:,} tokens"
    )
