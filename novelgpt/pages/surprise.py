"""A text and what each of its characters cost a model -> a page on which they have the colour of their surprise."""

import math
from collections.abc import Iterable, Sequence
from pathlib import Path

from novelgpt.files import write_text
from novelgpt.messages import say
from novelgpt.pages.render import fill, word

LEVELS = 10  # colours of surprise, one a nat; the last for all above
UNDERLINED = 7  # nats; from here on nothing hangs on colour alone
MAX_SHOWN = 300_000  # characters of a text on a page
STRANGEST = 10  # paragraphs in the list
SHORTEST = 8  # characters of a paragraph that may be listed
SAMPLE = 60  # characters of it shown
FIGURES = (
    *("loss", "adapted_loss", "perplexity", "accuracy", "bits_per_character"),
    *("scored_tokens", "unknown_tokens", "window", "stride", "model"),
)


def write_surprise_page(path: str | Path, title: str, report: dict, chapters: Sequence[Sequence]) -> None:
    """Write the page of characters of eval.py.

    Args:
        path, title, chapters: the file, and as of surprise_page.
        report: what eval.py prints; its figures stand at the head of the page.
    """
    figures = {name.replace("_", " "): report[name] for name in FIGURES if name in report}
    facts = [(name, f"{value:.4f}" if isinstance(value, float) else value) for name, value in figures.items()]
    write_text(path, surprise_page(title, facts, chapters))
    say(f"written {path}")


def surprise_page(title: str, facts: Sequence[tuple[str, object]], chapters: Sequence[Sequence]) -> str:
    """Return a text with the surprise of every character.

    Args:
        title: what was scored.
        facts: names and figures of the table at its head.
        chapters: the spans of each chapter: a text, nearly always of one character, and its surprise in nats, NaN where
            nothing was scored. Beyond MAX_SHOWN characters chapters are left out, and the page says so.
    """
    # whole chapters while they fit, and always the first; a browser chokes on millions of spans
    kept, size = [], 0
    for spans in chapters:
        size += sum(len(span.text) for span in spans)
        if kept and size > MAX_SHOWN:
            break
        kept.append(spans)
    return fill(
        "surprise.html",
        title=title,
        facts=facts,
        levels=LEVELS,
        underlined=UNDERLINED,
        strangest=find_strangest(chapters),
        chapters=[show_chapter(spans) for spans in kept],
        left_out=len(chapters) - len(kept),
    )


def show_chapter(spans: Sequence) -> dict:
    """Return what the page shows of a chapter: its first line, its figure, and kind, title and text of each span."""
    paragraphs = cut_paragraphs(spans)
    # a class and a title for each span: the colour tells the size, the pointer the figure
    return {
        "heading": paragraph_text(paragraphs[0]) if paragraphs else "—",
        "figure": word(f"surprise {mean_nats(spans):.3f}"),
        "spans": [(level_of(span.nats), describe_nats(span.nats), show_breaks(span.text)) for span in spans],
    }


def level_of(nats: float) -> str:
    """Return the style class of a number of nats.

    >>> level_of(0.2), level_of(7.9), level_of(40), level_of(math.nan)
    ('n0', 'n7', 'n9', 'unscored')
    """
    return "unscored" if math.isnan(nats) else f"n{min(LEVELS - 1, max(0, int(nats)))}"


def describe_nats(nats: float) -> str:
    """Return the figure that a character shows under the pointer."""
    return word("not scored") if math.isnan(nats) else f"{nats:.2f}"


def show_breaks(text: str) -> str:
    r"""Put a visible sign before line breaks.

    >>> show_breaks("完\n")
    '完↵\n'
    """
    return text.replace("\n", "↵") + "\n" * text.count("\n")


def find_strangest(chapters: Iterable[Sequence]) -> list[tuple[str, str]]:
    """Return figure and beginning of the paragraphs that cost most a character, the strangest first."""
    paragraphs = [part for spans in chapters for part in cut_paragraphs(spans)]
    # a mean of a few characters says little, and none of them may have been scored
    long = [part for part in paragraphs if sum(len(span.text) for span in part) >= SHORTEST]
    scored = [part for part in long if not math.isnan(mean_nats(part))]
    scored.sort(key=mean_nats, reverse=True)
    return [(f"{mean_nats(part):.3f}", paragraph_text(part)) for part in scored[:STRANGEST]]


def mean_nats(spans: Iterable) -> float:
    """Return the nats per character of the scored spans; NaN without any."""
    scored = [span for span in spans if not math.isnan(span.nats)]
    count = sum(len(span.text) for span in scored)
    return sum(span.nats for span in scored) / count if count else math.nan


def cut_paragraphs(spans: Iterable) -> list[list]:
    """Cut spans after every line break; blank paragraphs are left out."""
    parts: list[list] = [[]]
    for span in spans:
        parts[-1].append(span)
        if span.text.endswith("\n"):
            parts.append([])
    return [part for part in parts if "".join(span.text for span in part).strip()]


def paragraph_text(spans: Iterable) -> str:
    """Return the beginning of a paragraph in one line."""
    return "".join(span.text for span in spans).strip()[:SAMPLE]
