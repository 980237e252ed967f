"""The novel doctor's report and the documents it is about -> a page: what was found, what was changed, what there is.

Its chart has a bar for each document; a slider, or a click, opens what is known of one: heading, line, length, surprise
by pairs counted in all the others, repeated paragraphs. Of a book too large to be read once more it has the report.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence

from novelgpt.corpus.doctor import ENCODING_NAMES, list_numbers
from novelgpt.corpus.style import measure_style, score_documents
from novelgpt.pages.render import fill, named, word

MAX_LINES = 1_000  # rows of a table on a page; all of them are in the JSON report
MAX_BARS = 600
CHART_WIDTH, CHART_HEIGHT = 720, 160  # units of the drawing
BEGINNING = 120  # characters of a document that are shown
REPEATED = 20  # characters of a paragraph that should not stand twice
STYLE = {  # figure -> English, Chinese, form
    "sentence_length": ("characters in a sentence", "每句字数", "{:.1f}"),
    "paragraph_length": ("characters in a paragraph", "每段字数", "{:.1f}"),
    "dialogue_share": ("within quotation marks", "对话所占", "{:.0%}"),
    "quotes_balanced": ("paragraphs that close their quotes", "引号成对的段落", "{:.0%}"),
    "ellipses": ("…… in 1,000 characters", "每千字的……", "{:.1f}"),
    "distinct_4": ("variety (100%: nothing repeated)", "用词变化（100%：没有重复）", "{:.0%}"),
    "loops": ("texts caught in a loop", "陷入循环的文档", "{:.0%}"),
}


def report_page(report: dict, documents: Sequence[str] = (), plans: Sequence[Mapping] = ()) -> str:
    """Return the novel doctor's JSON report beside the documents (`data/train.report.json`) as a page.

    Args:
        report: as Report.to_json returns it.
        documents: of all books, in order; empty where they are too many, and then what needs them is left out.
        plans: what training will see of them by each network: name, parameters, tokens, windows, context.
    """
    has_all = len(documents) == sum(len(book["lengths"]) for book in report["books"]) > 0
    books, facts, first = [], [], 0
    for book in report["books"]:
        count = len(book["lengths"])
        own = documents[first : first + count] if has_all else []
        first += count
        look = look_closer(own)
        books.append((book, draw_lengths(book["lengths"], look["repeats"]) if count else None, look))
        facts.append(document_facts(book["lengths"], own, look))
    return fill(
        "report.html",
        scripts=["corpus.js"],
        styles=["corpus.css"],
        data={"books": facts},
        report=report,
        books=books,
        plans=plans,
        style_names=STYLE,
        encoding_names=ENCODING_NAMES,
        list_numbers=list_numbers,
        max_lines=MAX_LINES,
    )


def look_closer(documents: Sequence[str]) -> dict:
    """Return what only the documents of a book themselves tell: style, and surprise and repeated paragraphs of each."""
    if not documents:
        return {"style": {}, "surprise": [], "strangest": [], "repeats": [], "characters": 0, "kinds": 0}
    lines = [[line for line in document.split("\n") if len(line) >= REPEATED] for document in documents]
    times = Counter(line for part in lines for line in part)
    surprise = score_documents(documents)
    scored = [(nats, number) for number, nats in enumerate(surprise) if nats is not None]
    middle = sorted(scored)[len(scored) // 2][0] if scored else 0.0
    # far above the middle one: of another book, or garbled
    strange = [(nats, number) for nats, number in sorted(scored, reverse=True)[:5] if nats > middle + 0.5]
    return {
        "style": measure_style(documents),
        "surprise": surprise,
        "middle": middle,
        "strangest": [(number, documents[number].strip().partition("\n")[0], nats) for nats, number in strange],
        "repeats": [sum(times[line] > 1 for line in part) for part in lines],
        "characters": sum(map(len, documents)),
        "kinds": len(set().union(*map(set, documents))),
    }


def document_facts(lengths: Sequence[Mapping], documents: Sequence[str], look: Mapping) -> dict:
    """Return what the chart opens: parallel lists of all documents' headings, lines, characters and the rest."""
    beginnings = [" ".join(document.split("\n", 1)[-1].split())[:BEGINNING] for document in documents]
    return {
        "headings": [entry["heading"] for entry in lengths],
        "lines": [entry["line"] for entry in lengths],
        "characters": [entry["characters"] for entry in lengths],
        "surprise": [None if nats is None else round(nats, 3) for nats in look["surprise"]],
        "repeats": look["repeats"],
        "beginnings": beginnings,
        "bar": -(-len(lengths) // MAX_BARS) if lengths else 1,
    }


def draw_lengths(lengths: Sequence[Mapping], repeats: Sequence[int] = ()) -> dict:
    """Return the chart of all documents' lengths (line, heading, characters); a bar of many documents is their mean.

    Args:
        lengths: at least one.
        repeats: repeated paragraphs of each document, drawn as a mark below its bar; empty where they are not known.
    """
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
                "heading": first["heading"],
                "line": first["line"],
                "characters": first["characters"],
                "is_front": not first["heading"],
                "is_repeated": any(repeats[index * per_bar : (index + 1) * per_bar]),
            }
        )
    text = f"characters of {len(lengths):,} documents, at most {highest:,.0f}; grey: without a heading"
    label = {"label": word(text), "name": named(text)}
    axes = {"marks": [top, top // 2, 0], "ticks": sorted({1, (len(lengths) + 1) // 2, len(lengths)})}
    return {"width": CHART_WIDTH, "height": CHART_HEIGHT, "bars": bars, "count": len(lengths), **label, **axes}


def round_up(number: float) -> int:
    """Return the next round number that has a half, for the top of a scale.

    >>> [round_up(number) for number in (0, 7, 110, 11_854, 20_000)]
    [10, 10, 120, 12000, 20000]
    """
    unit = 10 ** max(0, len(str(math.ceil(number))) - 2)
    steps = (10, 12, 14, 16, 20, 24, 30, 40, 50, 60, 80, 100)
    return next(step * unit for step in steps if step * unit >= number)
