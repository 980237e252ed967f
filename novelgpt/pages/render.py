"""Plain values -> HTML pages, by the templates beside this module.

    base.html      the frame of every page: head, style for light and dark, blocks `title`, `style` and `body`
    tables.html    macros that more than one page uses
    report.html    the novel doctor's report: what was found in a novel, what was changed
    surprise.html  a text on which every character has the colour of what it cost a model

Whatever a page shows goes through Jinja2's autoescaping, and its control characters are made visible on the way; a
name that a template misspells is an error. A page opens from the disk and loads nothing from elsewhere.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import jinja2
from markupsafe import Markup

from novelgpt.corpus.doctor import ENCODING_NAMES, list_numbers
from novelgpt.files import write_text
from novelgpt.languages import language, localize
from novelgpt.messages import printable, say

MAX_LINES = 1_000  # rows of a table on a page; all of them are in the JSON report
MAX_BARS = 600
CHART_WIDTH, CHART_HEIGHT = 720, 160  # units of the drawing
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


def make_visible(value: object) -> object:
    r"""Make the control characters of a text visible; markup and numbers stay as they are.

    >>> make_visible("<b>\x07"), make_visible(7)
    ('<b>\\x07', 7)
    """
    return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def word(text: str) -> str:
    """Return a word or sentence that a page says, in the language of its reader; all of them pass here."""
    return localize(text, context="page")


def fill(template: str, **values: object) -> str:
    """Return a template filled with values, all of them escaped."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=make_visible,  # before escaping
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"thousands": "{:,}".format, "word": word}
    return environment.get_template(template).render(values, language=language())


def report_page(report: dict) -> str:
    """Return the novel doctor's JSON report beside the documents (`data/train.report.json`) as a page."""
    charts = [draw_lengths(book["lengths"]) if book["lengths"] else None for book in report["books"]]
    return fill(
        "report.html",
        report=report,
        books=list(zip(report["books"], charts, strict=True)),
        encoding_names=ENCODING_NAMES,
        list_numbers=list_numbers,
        max_lines=MAX_LINES,
    )


def draw_lengths(lengths: Sequence[Mapping]) -> dict:
    """Return the chart of all documents' lengths (line, heading, characters); a bar of many documents is their mean."""
    # documents to bars, as few to each as MAX_BARS allows
    per_bar = -(-len(lengths) // MAX_BARS)
    groups = [lengths[start : start + per_bar] for start in range(0, len(lengths), per_bar)]
    means = [sum(entry["characters"] for entry in group) / len(group) for group in groups]
    highest, width = max(means), CHART_WIDTH / len(groups)
    # bars to places below a round number; the shortest is still a line
    top, bars = round_up(highest), []
    for index, (group, mean) in enumerate(zip(groups, means, strict=True)):
        first, height = group[0], max(1.0, mean / top * CHART_HEIGHT)
        bars.append(
            {
                "x": f"{index * width:.2f}",
                "y": f"{CHART_HEIGHT - height:.1f}",
                "width": f"{max(width * 0.85, 0.5):.2f}",
                "height": f"{height:.1f}",
                "title": f"{first['heading'] or word('line ' + str(first['line']))}: {first['characters']:,}",
                "is_front": not first["heading"],
            }
        )
    label = word(f"characters of {len(lengths):,} documents, at most {highest:,.0f}; grey: without a heading")
    axes = {"marks": [top, top // 2, 0], "ticks": sorted({1, (len(lengths) + 1) // 2, len(lengths)})}
    return {"width": CHART_WIDTH, "height": CHART_HEIGHT, "label": label, "bars": bars, **axes}


def round_up(number: float) -> int:
    """Return the next round number that has a half, for the top of a scale.

    >>> [round_up(number) for number in (0, 7, 110, 11_854, 20_000)]
    [10, 10, 120, 12000, 20000]
    """
    unit = 10 ** max(0, len(str(math.ceil(number))) - 2)
    steps = (10, 12, 14, 16, 20, 24, 30, 40, 50, 60, 80, 100)
    return next(step * unit for step in steps if step * unit >= number)


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
