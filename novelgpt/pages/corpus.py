"""The novel doctor's report -> a page: what was found in a novel, what was changed."""

import math
from collections.abc import Mapping, Sequence

from novelgpt.corpus.doctor import ENCODING_NAMES, list_numbers
from novelgpt.pages.render import fill, word

MAX_LINES = 1_000  # rows of a table on a page; all of them are in the JSON report
MAX_BARS = 600
CHART_WIDTH, CHART_HEIGHT = 720, 160  # units of the drawing


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
