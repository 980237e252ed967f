"""The novel doctor's report as one HTML page: nothing loaded from elsewhere, readable on a phone, all text escaped."""

from collections.abc import Iterable, Sequence
from html import escape

from novelgpt.corpus.doctor import ENCODING_NAMES, list_numbers
from novelgpt.messages import printable

MAX_LINES = 1_000  # removed lines listed on the page; all of them are in the JSON report
MAX_BARS = 600
CHART_WIDTH, CHART_HEIGHT = 720, 160
STYLE = """
body{font:16px/1.6 system-ui,"PingFang SC","Microsoft YaHei","Noto Sans CJK SC",sans-serif;
margin:0 auto;max-width:60rem;padding:1rem;color:#222;background:#fff;overflow-wrap:anywhere}
h1{font-size:1.4rem}h2{font-size:1.15rem;margin-top:2rem}h3{font-size:1rem;margin-bottom:.3rem}
.verdict{padding:.7rem 1rem;border-radius:.5rem;background:#fff3d6;border-left:.4rem solid #d99000}
.good{background:#e3f5e6;border-color:#2a8a3a}
table{border-collapse:collapse;width:100%;font-size:.9rem}td,th{text-align:left;vertical-align:top;padding:.2rem .5rem;
border-bottom:1px solid #ddd}td.n{text-align:right;white-space:nowrap}svg{width:100%;height:auto;background:#f6f7f9}
rect{fill:#3b6ea8}rect.front{fill:#b9c4d0}details{margin:.4rem 0}summary{cursor:pointer}small{color:#666}
@media(prefers-color-scheme:dark){body{color:#ddd;background:#181a1b}.verdict{background:#4a3a12}.good{background:#173d1e}
td,th{border-color:#444}svg{background:#222}}
"""


def shown(text: object) -> str:
    """Make a text safe for HTML and its control characters visible.

    >>> shown("<b>\\x07")
    '&lt;b&gt;\\\\x07'
    """
    return escape(printable(str(text)))


def table(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Write a table; whole numbers are set right."""
    body = "".join(f"<tr>{''.join(map(cell, row))}</tr>" for row in rows)
    return f"<table><tr>{''.join(f'<th>{shown(head)}</th>' for head in heads)}</tr>{body}</table>" if body else ""


def cell(value: object) -> str:
    """Write one cell.

    >>> cell(1200), cell("第一章")
    ('<td class="n">1,200</td>', '<td>第一章</td>')
    """
    return f'<td class="n">{value:,}</td>' if isinstance(value, int) else f"<td>{shown(value)}</td>"


def section(title: str, *parts: str, closed: bool = False) -> str:
    """Write a part of the page under its title; nothing when it is empty."""
    body = "".join(parts)
    if not body:
        return ""
    if closed:
        return f"<details><summary>{shown(title)}</summary>{body}</details>"
    return f"<h3>{shown(title)}</h3>{body}"


def draw_lengths(lengths: Sequence[dict]) -> str:
    """Draw the length of every document as an inline SVG; many documents share a bar, which shows their mean."""
    per_bar = -(-len(lengths) // MAX_BARS)
    bars = [lengths[start : start + per_bar] for start in range(0, len(lengths), per_bar)]
    means = [sum(entry["characters"] for entry in bar) / len(bar) for bar in bars]
    highest, width = max(means), CHART_WIDTH / len(bars)
    rects = "".join(
        draw_bar(index, bar, mean / highest, width) for index, (bar, mean) in enumerate(zip(bars, means, strict=True))
    )
    label = f"lengths of {len(lengths):,} documents, the longest bar {highest:,.0f} characters"
    return (
        f'<svg viewBox="0 0 {CHART_WIDTH} {CHART_HEIGHT}" role="img" aria-label="{label}">{rects}</svg>'
        f"<p><small>{label}; grey: without a heading</small></p>"
    )


def draw_bar(index: int, bar: Sequence[dict], share: float, width: float) -> str:
    """Draw one bar; its title names the document and its length."""
    height = max(1.0, share * (CHART_HEIGHT - 10))
    title = f"{bar[0]['heading'] or 'line ' + str(bar[0]['line'])}: {bar[0]['characters']:,}"
    kind = "" if bar[0]["heading"] else ' class="front"'
    return (
        f'<rect{kind} x="{index * width:.2f}" y="{CHART_HEIGHT - height:.1f}" width="{max(width * 0.85, 0.5):.2f}" '
        f'height="{height:.1f}"><title>{shown(title)}</title></rect>'
    )


def reading_section(facts: dict) -> str:
    """Say how the file was read."""
    rows = [
        ("encoding", ENCODING_NAMES.get(facts["encoding"], facts["encoding"])),
        ("why", facts["reason"]),
        ("characters read", facts["characters_in"]),
        ("characters kept", facts["characters"]),
        ("bad bytes", facts["bad_bytes"]),
    ]
    rows += [(f"lines {first:,} to {last:,}", encoding) for first, last, encoding in facts["segments"]]
    rows += [(f"repaired: {name}", number) for name, number in facts["repairs"].items()]
    return section("Reading", table(("", ""), rows))


def chapter_section(facts: dict) -> str:
    """Show the chapters, their lengths and what is odd about their numbers."""
    rows = [("found", facts["how"]), ("documents", facts["documents"]), ("chapters", facts["chapters"])]
    rows += [
        (name, list_numbers(facts[key], 100))
        for name, key in (("missing", "missing"), ("repeated", "repeated"), ("out of order", "out_of_order"))
        if facts[key]
    ]
    every = [(entry["line"], entry["heading"] or "—", entry["characters"]) for entry in facts["lengths"][:MAX_LINES]]
    return section(
        "Chapters",
        draw_lengths(facts["lengths"]) if facts["lengths"] else "",
        table(("", ""), rows),
        section("every document", table(("line", "heading", "characters"), every), closed=True),
    )


def cleaning_section(facts: dict) -> str:
    """Show what was changed, with the first three places of each kind."""
    rows = [
        (
            name,
            number,
            " ⏎ ".join(f"line {place['line']:,}: {place['text']}" for place in facts["examples"].get(name, [])),
        )
        for name, number in facts["cleaned"].items()
    ]
    points = list(facts["code_points"].items())[:MAX_LINES]
    return section(
        "Cleaned",
        table(("what", "how often", "where first"), rows),
        section("removed code points", table(("code point", "how often"), points), closed=True),
    )


def removed_section(facts: dict) -> str:
    """List the advertisements, site lines and dropped headings."""
    removed = facts["notices"] + facts["headings_removed"]
    rows = [
        (entry["line"], entry["reason"], entry["text"] + (f" → {entry['kept']}" if entry.get("kept") else ""))
        for entry in removed[:MAX_LINES]
    ]
    more = f"<p>{len(removed) - MAX_LINES:,} more in the JSON report</p>" if len(removed) > MAX_LINES else ""
    return section(f"Removed lines: {len(removed):,}", table(("line", "why", "text"), rows), more)


def sign_section(facts: dict) -> str:
    """Show odd characters, quotes, repeated passages and characters outside the vocabulary."""
    heads = ("character", "code point", "name", "how often", "line", "for example")
    odd, lost = (
        table(
            heads,
            (
                [entry.get(key, "") for key in ("character", "code", "name", "count", "line", "text")]
                for entry in part["shown"]
            ),
        )
        for part in (facts["odd"], facts["lost"])
    )
    quotes = facts["quotes"]
    pairs = [(pair, *both) for pair, both in quotes["pairs"].items()]
    balance = (
        f"<p>“ and ” differ in {quotes['unbalanced_documents']:,} documents; ASCII quotes: {quotes['ascii']:,}</p>"
    )
    repeated = facts["repeated_passages"]
    passages = [(entry["line"], entry["times"], entry["text"]) for entry in repeated["shown"]]
    return (
        section(f"Odd characters: {facts['odd']['characters']:,}", odd)
        + section(f"Outside {facts['lost']['against']}: {facts['lost']['characters']:,} characters", lost)
        + section("Quotes", table(("pair", "opening", "closing"), pairs), balance)
        + section(f"Repeated paragraphs: {repeated['passages']:,}", table(("line", "times", "text"), passages))
    )


def book_section(facts: dict) -> str:
    """Write the part of the page about one book."""
    good = " good" if facts["verdict"].startswith("good") else ""
    return (
        f'<h2>{shown(facts["name"])}</h2><p class="verdict{good}">{shown(facts["verdict"])}</p>'
        + chapter_section(facts)
        + reading_section(facts)
        + cleaning_section(facts)
        + removed_section(facts)
        + sign_section(facts)
    )


def html_page(report: dict) -> str:
    """Write the whole report as one HTML page.

    Args:
        report: the JSON of doctor.Report.
    """
    many = f'<p class="verdict">{shown(report["verdict"])}</p>' if len(report["books"]) > 1 else ""
    books = "".join(map(book_section, report["books"]))
    left_out = table(("left out", "why"), ((entry["path"], entry["error"]) for entry in report["left_out"]))
    return (
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1"><title>Report on the novel</title>'
        f"<style>{STYLE}</style></head><body><h1>{shown(report['output'])}: {report['documents']:,} documents, "
        f"{report['characters']:,} characters</h1>{many}{left_out}{books}</body></html>\n"
    )
