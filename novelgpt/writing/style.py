"""Generated text held against the book: sentences, paragraphs, dialogue, quotation marks, repetition, as figures.

characters a sentence, characters a paragraph, share of dialogue, balanced quotation marks, …… a thousand characters,
distinct-4 (different runs of four among all runs of four), looping texts
"""

import re
from collections.abc import Sequence

from novelgpt.writing.endings import find_loop

SENTENCE = re.compile(r"[^。！？!?…\n]+")
DIALOGUE = re.compile(r"“([^“”]*)”|「([^「」]*)」")
OPENERS, CLOSERS = "“「『", "”」』"
NAMES = {
    "sentence_length": "characters a sentence",
    "paragraph_length": "characters a paragraph",
    "dialogue_share": "share of dialogue",
    "quotes_balanced": "paragraphs with balanced quotes",
    "ellipses": "…… per 1,000 characters",
    "distinct_4": "distinct-4",
    "loops": "share of looping texts",
}


def measure_style(texts: Sequence[str], *, window: int = 1000) -> dict[str, float]:
    """Return the figures of some texts.

    Args:
        texts: generated samples, or the chapters of a book.
        window: distinct-4 is the mean over stretches of so many characters, since it falls with length.

    >>> measure_style(["“走！”他说。\\n她笑了……"])["quotes_balanced"]
    1.0
    """
    whole = "\n".join(texts)
    characters = max(1, sum(len(text) for text in texts))
    sentences = [part for part in SENTENCE.findall(whole) if part.strip('”’」』" ')]
    paragraphs = [line for line in whole.split("\n") if line.strip()]
    dialogue = sum(len(one or other) for one, other in DIALOGUE.findall(whole))
    stretches = [text[start : start + window] for text in texts for start in range(0, len(text), window)]
    figures = {
        "sentence_length": mean([len(part) for part in sentences]),
        "paragraph_length": mean([len(line) for line in paragraphs]),
        "dialogue_share": dialogue / characters,
        "quotes_balanced": mean([is_quote_balanced(line) for line in paragraphs]),
        "ellipses": 1000 * whole.count("……") / characters,
        "distinct_4": mean([distinct_share(stretch, 4) for stretch in stretches if len(stretch) >= 4]),
        "loops": mean([find_loop([ord(char) for char in text]) is not None for text in texts]),
    }
    return {name: round(value, 4) for name, value in figures.items()}


def mean(values: Sequence[float]) -> float:
    """Return the mean; 0 of nothing."""
    return sum(values) / len(values) if values else 0.0


def is_quote_balanced(paragraph: str) -> bool:
    """Tell whether every quotation mark is opened and closed, in order.

    >>> is_quote_balanced("“走！”"), is_quote_balanced("”走“"), is_quote_balanced("“走")
    (True, False, False)
    """
    depth = 0
    for char in paragraph:
        depth += (char in OPENERS) - (char in CLOSERS)
        if depth < 0:
            return False
    return depth == 0


def distinct_share(text: str, size: int) -> float:
    """Return how many of a text's runs of `size` characters are different ones.

    >>> distinct_share("哈哈哈哈哈哈", 4)
    0.3333333333333333
    """
    runs = [text[start : start + size] for start in range(len(text) - size + 1)]
    return len(set(runs)) / len(runs)


def style_table(generated: dict[str, float], book: dict[str, float] | None) -> str:
    """Return the figures side by side, one line each; without the book one column.

    >>> print(style_table({"distinct_4": 0.9}, {"distinct_4": 0.95}).splitlines()[1])
    distinct-4                              0.900       0.950
    """
    lines = [f"{'':36}{'written':>9}" + ("" if book is None else f"{'the book':>12}")]
    for name, value in generated.items():
        lines.append(f"{NAMES[name]:36}{value:9.3f}" + ("" if book is None else f"{book[name]:12.3f}"))
    return "\n".join(lines)
