"""A text and what each of its characters cost a model -> a page on which they have the colour of their surprise.

The text stands in the page as paragraphs, which a browser lays out as they come into view. What its characters cost is
data, two digits to the base of 36 each, in fiftieths of a nat; a paragraph is coloured when it is near::

    他走了。↵     "0k1c0200zz"    0.40, 0.96, 0.04, 0.00; zz: not scored

So a million characters, 3 MB of text and 2 MB of figures, open at once. A paragraph with a span that is shown as
several characters has the lengths of all behind a bar: "0k1c|1,4".
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from novelgpt.files import write_text
from novelgpt.messages import say
from novelgpt.pages.render import fill, make_visible

LEVELS = 10  # colours of surprise, one a nat; the last for all above
UNDERLINED = 7  # nats; from here on nothing hangs on colour alone
STEPS = 50  # of a nat, in the data
DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
NOT_SCORED = "zz"
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
            nothing was scored.
    """
    shown, costs, ranked = [], [], []
    for spans in chapters:
        paragraphs, first = [], len(costs)
        for paragraph in cut_paragraphs(spans):
            text, mean = paragraph_text(paragraph), mean_nats(paragraph)
            # a mean of a few characters says little, and none of them may have been scored
            if sum(len(span.text) for span in paragraph) >= SHORTEST and not math.isnan(mean):
                ranked.append((mean, len(costs), text[:SAMPLE]))
            visible = [show_breaks(span.text) for span in paragraph]
            paragraphs.append((len(costs), "".join(visible)))
            costs.append(encode_nats(paragraph, visible))
        mean = mean_nats(spans)
        figure = None if math.isnan(mean) else f"{mean:.3f}"
        heading = next((text.strip("↵ 　")[:SAMPLE] for _, text in paragraphs if text.strip("↵ 　")), "—")
        shown.append({"heading": heading, "figure": figure, "first": first, "paragraphs": paragraphs, "mean": mean})
    ranked.sort(key=lambda entry: -entry[0])
    highest = max((chapter["mean"] for chapter in shown if not math.isnan(chapter["mean"])), default=0.0)
    return fill(
        "surprise.html",
        scripts=["surprise.js"],
        styles=["surprise.css"],
        data={"nats": costs},
        title=title,
        facts=facts,
        levels=LEVELS,
        strangest=[(f"{mean:.3f}", place, text) for mean, place, text in ranked[:STRANGEST]],
        chapters=shown,
        highest=highest or 1.0,
    )


def encode_nats(spans: Iterable, visible: Sequence[str]) -> str:
    """Return what spans cost as the page's script reads it, with the lengths of what is shown where one is not 1.

    >>> from types import SimpleNamespace as Span
    >>> encode_nats([Span(nats=0.4), Span(nats=math.nan), Span(nats=99.0)], "他走了")
    '0kzzzy'
    >>> encode_nats([Span(nats=0.4)], ["走了"])
    '0k|2'
    """
    codes = "".join(encode_cost(span.nats) for span in spans)
    lengths = [len(text) for text in visible]
    return codes if all(length == 1 for length in lengths) else f"{codes}|{','.join(map(str, lengths))}"


def encode_cost(nats: float) -> str:
    """Return a number of nats in two digits; what is above 25.88 is that.

    >>> [encode_cost(nats) for nats in (0.0, 0.4, 7.25, 40.0, math.nan)]
    ['00', '0k', 'a2', 'zy', 'zz']
    """
    if math.isnan(nats):
        return NOT_SCORED
    number = min(36 * 36 - 2, max(0, round(nats * STEPS)) if math.isfinite(nats) else 36 * 36 - 2)
    return DIGITS[number // 36] + DIGITS[number % 36]


def show_breaks(text: str) -> str:
    r"""Return a span as it is shown: a sign for a line break, and signs that nobody would see.

    >>> show_breaks("完\n"), show_breaks("\x07")
    ('完↵', '\\x07')
    """
    return make_visible(text.replace("\n", "↵"))


def mean_nats(spans: Iterable) -> float:
    """Return the nats per character of the scored spans; NaN without any."""
    scored = [span for span in spans if not math.isnan(span.nats)]
    count = sum(len(span.text) for span in scored)
    return sum(span.nats for span in scored) / count if count else math.nan


def cut_paragraphs(spans: Iterable) -> Iterator[list]:
    """Cut spans after every line break; blank lines go with the paragraph behind them."""
    part: list = []
    for span in spans:
        part.append(span)
        if span.text.endswith("\n") and "".join(each.text for each in part).strip():
            yield part
            part = []
    if part:
        yield part


def paragraph_text(spans: Iterable) -> str:
    """Return a paragraph in one line."""
    return "".join(span.text for span in spans).strip()
