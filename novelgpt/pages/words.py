"""Figures of a run -> what its page says of them, in both languages: names, lengths of time, moments, colours."""

import math
import time

from markupsafe import Markup

from novelgpt.pages.render import both

LEVELS = 10  # colours of surprise, one a nat
GOALS = {
    "kn4": ("4-grams", "四元计数"),
    "kn5": ("5-grams", "五元计数"),
    "kn5_cache": ("5-grams with a cache", "五元计数加缓存"),
    "kn5_online_cache": ("5-grams that go on counting", "边读边数的五元计数"),
}
KINDS = {
    "opening": ("From the book's opening", "从全书的开头写起"),
    "own": ("From your own words", "从你给的开头写起"),
    "held_out": ("From text it has never read", "从它没读过的原文写起"),
}
STYLE = {
    "sentence_length": ("characters in a sentence", "每句字数", ".1f"),
    "paragraph_length": ("characters in a paragraph", "每段字数", ".1f"),
    "dialogue_share": ("within quotation marks", "引号内的比例", ".0%"),
    "quotes_balanced": ("paragraphs that close their quotes", "引号成对的段落", ".0%"),
    "ellipses": ("…… in 1,000 characters", "每千字的省略号", ".1f"),
    "distinct_4": ("variety (100%: nothing repeated)", "变化（100%：没有重复）", ".0%"),
    "loops": ("texts caught in a loop", "陷入循环的文本", ".0%"),
}


def level_of(cost: float | None) -> int | None:
    """Return the colour of so many nats.

    >>> level_of(0.4), level_of(7.9), level_of(40.0), level_of(None)
    (0, 7, 9, None)
    """
    return None if cost is None else min(LEVELS - 1, max(0, int(cost)))


def spell_perplexity(loss: float) -> str:
    """Return the perplexity of a loss.

    >>> spell_perplexity(4.0), spell_perplexity(9000.0)
    ('54.6', '—')
    """
    return f"{math.exp(loss):,.1f}" if loss < 100 else "—"


def span(seconds: float) -> Markup:
    """Return a length of time as people say it.

    >>> print(span(7260).striptags())
    2 h 1 min2 小时 1 分
    """
    whole = max(0, round(min(seconds, 1e12)))
    hours, minutes = whole // 3600, whole % 3600 // 60
    if hours:
        return both(f"{hours} h {minutes} min", f"{hours} 小时 {minutes} 分")
    return (
        both(f"{minutes} min {whole % 60} s", f"{minutes} 分 {whole % 60} 秒")
        if minutes
        else both(f"{whole} s", f"{whole} 秒")
    )


def clock(moment: float) -> str:
    """Return a moment (Unix seconds) by the clock of this machine; nothing for one that no calendar has."""
    try:
        return time.strftime("%Y-%m-%d %H:%M", time.localtime(moment))
    except (ValueError, OverflowError, OSError):
        return ""
