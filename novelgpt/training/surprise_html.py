"""How surprising every character of a text was -> one HTML page: nothing loaded from elsewhere, all text escaped.

The colour says how many nats a character cost (0 was certain, 9 and more came out of the blue), the title of each one
the exact figure; from 7 nats on it is underlined too, so that nothing hangs on colour alone.
"""

import math
from collections.abc import Iterable, Sequence

from novelgpt.corpus.report_html import STYLE, shown, table
from novelgpt.training.surprise import Span, cut_paragraphs, mean_nats

LEVELS = 10  # colours, one a nat; the last for all above
UNDERLINED = 7  # nats
MAX_SHOWN = 300_000  # characters on a page
STRANGEST = 10  # paragraphs in the list
SHORTEST = 8  # characters of a paragraph that may be listed
SAMPLE = 60  # characters of it shown


def page_style() -> str:
    """Return the style sheet: the house's and the colours, lighter on a dark ground."""
    rules = [f".n{level}{{background:rgba(230,80,0,{0.07 * level:.2f})}}" for level in range(LEVELS)]
    dark = [f".n{level}{{background:rgba(230,80,0,{0.06 * level:.2f})}}" for level in range(LEVELS)]
    underlined = ",".join(f".n{level}" for level in range(UNDERLINED, LEVELS))
    return (
        f"{STYLE}.text{{line-height:2;white-space:pre-wrap}}.unscored{{outline:1px dotted #888}}{''.join(rules)}"
        f"{underlined}{{text-decoration:underline}}.legend span{{padding:.1rem .5rem}}"
        f"@media(prefers-color-scheme:dark){{{''.join(dark)}}}\n"
    )


def level_of(nats: float) -> str:
    """Return the style class of a number of nats.

    >>> level_of(0.2), level_of(7.9), level_of(40), level_of(math.nan)
    ('n0', 'n7', 'n9', 'unscored')
    """
    return "unscored" if math.isnan(nats) else f"n{min(LEVELS - 1, max(0, int(nats)))}"


def draw_span(span: Span) -> str:
    """Write one span of text with its colour and its figure; a line break shows as a sign.

    >>> draw_span(Span("<", 7.125))
    '<span class="n7" title="7.12 nats">&lt;</span>'
    """
    figure = "not scored" if math.isnan(span.nats) else f"{span.nats:.2f} nats"
    text = shown(span.text.replace("\n", "↵")) + "\n" * span.text.count("\n")
    return f'<span class="{level_of(span.nats)}" title="{figure}">{text}</span>'


def draw_legend() -> str:
    """Write what the colours mean."""
    words = [f'<span class="n{level}">{level}</span>' for level in range(LEVELS - 1)]
    words.append(f'<span class="n{LEVELS - 1}">{LEVELS - 1} and more</span>')
    unscored = '<span class="unscored">not scored</span>'
    return f'<p class="legend">nats a character: {"".join(words)} {unscored}; underlined from {UNDERLINED}</p>'


def draw_chapter(spans: Sequence[Span]) -> str:
    """Write a chapter under its first line."""
    lines = cut_paragraphs(spans)
    heading = paragraph_text(lines[0]) if lines else "—"
    figure = f"{mean_nats(spans):.3f} nats a character"
    return (
        f"<section><h2>{shown(heading)} <small>{figure}</small></h2>"
        f'<div class="text" lang="zh">{"".join(map(draw_span, spans))}</div></section>'
    )


def paragraph_text(spans: Iterable[Span]) -> str:
    """Return the beginning of a paragraph in one line."""
    return "".join(span.text for span in spans).strip()[:SAMPLE]


def list_strangest(chapters: Sequence[Sequence[Span]]) -> str:
    """List the paragraphs that cost most a character."""
    found = [part for spans in chapters for part in cut_paragraphs(spans)]
    found = [part for part in found if sum(len(span.text) for span in part) >= SHORTEST]
    found = [part for part in found if not math.isnan(mean_nats(part))]
    found.sort(key=mean_nats, reverse=True)
    rows = [(f"{mean_nats(part):.3f}", paragraph_text(part)) for part in found[:STRANGEST]]
    listing = table(("nats a character", "paragraph"), rows)
    return f"<h2>Strangest paragraphs</h2>{listing}" if listing else ""


def surprise_page(title: str, facts: Sequence[tuple[str, object]], chapters: Sequence[Sequence[Span]]) -> str:
    """Write the page.

    Args:
        title: what was scored.
        facts: names and figures of the table at its head.
        chapters: the spans of each chapter; beyond MAX_SHOWN characters chapters are left out, and the page says so.
    """
    kept, size = [], 0
    for spans in chapters:
        size += sum(len(span.text) for span in spans)
        if kept and size > MAX_SHOWN:
            break
        kept.append(spans)
    rest = f"<p>{len(chapters) - len(kept):,} further chapters are not shown.</p>" if len(kept) < len(chapters) else ""
    return (
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width,initial-scale=1"><title>{shown(title)}</title>'
        f"<style>{page_style()}</style></head><body><h1>{shown(title)}</h1>{table(('', ''), facts)}{draw_legend()}"
        f"{list_strangest(chapters)}<main>{''.join(map(draw_chapter, kept))}</main>{rest}</body></html>\n"
    )
