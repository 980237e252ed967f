"""Advertisements and site lines: found by what they are, removed with a reason, listed one by one.

A line goes when it is one of these; a story line with an address in it only loses the address::

    address        www.site.net, ＷＷw.xiＡo s.nett, site。ｃＯm: the letters of a domain, whatever stands between
    site sentence  speaks of downloads, votes, bookmarks, the site itself, close to a chapter border or again and again
    bookkeeping    更新时间:… 本章字数:…   (本章完)   上一页 | 目录 | 下一页
    recurring      the same line at the border of many chapters
    rule line      ------- next to a heading or to a line that goes

Speech in quotes, poems, refrains and the storytellers' closing formulas stay.
"""

import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from novelgpt.corpus import notice_patterns as patterns
from novelgpt.corpus.chapters import VOLUME_LINE
from novelgpt.corpus.cleaning import GAP
from novelgpt.corpus.notice_patterns import fold, pair_pattern, simplify

BORDER = 6  # lines that are not blank, counted from a heading or the end, within which site sentences are expected
EDGE = 30  # lines that are not blank at the end of a book
MAX_NOTICE = 160  # characters in a site sentence without an address


@dataclass
class Notice:
    """One line that is removed or shortened.

    Attributes:
        line: its number, from 1.
        text: the line as it was.
        reason: why.
        kept: what stays in its place; empty when the whole line goes.
    """

    line: int
    text: str
    reason: str
    kept: str = ""


def find_notices(lines: Sequence[str], headings: set[int], starts: Sequence[int] = ()) -> list[Notice]:
    """Find the advertisements and site lines of one book.

    Args:
        lines: its lines as clean_text gives them, blank ones included.
        headings: the indices of the lines that are chapter headings.
        starts: indices of lines that begin a document although they are no headings.

    Returns:
        what to remove or shorten, in the order of the lines.

    >>> lines = ["第一章 山村", "他走了。", "www.xiＡo-shuo.nett小.说", "(本章完)"]
    >>> [notice.reason for notice in find_notices(lines, {0})]
    ['address', 'end-of-chapter mark']
    """
    border = border_lines(lines, headings | set(starts))
    notices: dict[int, Notice] = {}
    # the first finder that names a line has the reason; rule lines go by what has gone beside them
    for finder in (find_addresses, find_keeping, find_sentences, find_recurring):
        for notice in finder(lines, headings, border):
            notices.setdefault(notice.line - 1, notice)
    find_rules(lines, headings, notices)
    return [notices[index] for index in sorted(notices)]


def remove_notices(lines: Sequence[str], notices: Sequence[Notice]) -> list[str]:
    """Return the lines without what the notices name; line numbers stay as they were.

    >>> remove_notices(["第一章", "(本章完)"], [Notice(2, "(本章完)", "end-of-chapter mark")])
    ['第一章', '']
    """
    lines = list(lines)
    for notice in notices:
        lines[notice.line - 1] = notice.kept
    return lines


def border_lines(lines: Sequence[str], headings: set[int]) -> set[int]:
    """List the lines near a heading, before the first heading and at the end of the book."""
    filled = [index for index, line in enumerate(lines) if line]
    places = [place for place, index in enumerate(filled) if index in headings]
    # without headings, the first lines are a border as well
    border: set[int] = set(filled[: places[0]]) if places else set(filled[:BORDER])
    for place in places:
        border.update(filled[max(0, place - BORDER) : place + BORDER + 1])
    border.update(filled[-EDGE:])
    return border


def lines_with(pattern: re.Pattern[str], lines: Sequence[str]) -> list[int]:
    """List the lines in which a pattern occurs, by one search over the whole text."""
    text = "\n".join(lines)
    starts, position = [], 0  # where each line begins in the text
    for line in lines:
        starts.append(position)
        position += len(line) + 1
    return sorted({bisect_right(starts, match.start()) - 1 for match in pattern.finditer(text)})


def is_speech(line: str) -> bool:
    """Tell whether a line begins as speech or holds quoted speech.

    >>> is_speech("“最新章节？”他问。"), is_speech("最新章节请到本站")
    (True, False)
    """
    return line.startswith(patterns.SPEECH) or "：“" in line or "：「" in line or "道：" in line


def find_addresses(lines: Sequence[str], headings: set[int], border: set[int]) -> list[Notice]:
    """Find web addresses, plain or disguised, and decide whether the line or only the address goes."""
    # folding is slow: only lines with a letter are looked at
    found: dict[int, list[tuple[int, int]]] = {}
    for index in lines_with(patterns.LETTER, lines):
        spans = [match.span() for match in patterns.ADDRESS.finditer(fold(lines[index]))]
        if spans:
            found[index] = spans
    sites = Counter(site_key(lines[index][start:end]) for index, spans in found.items() for start, end in spans)
    # the whole line goes if it is about the site; a story line loses an address that is disguised or stands often
    notices = []
    for index, spans in found.items():
        line = lines[index]
        kept = cut_addresses(line, spans)
        known = any(
            sites[site_key(line[start:end])] >= 3 or not patterns.PLAIN_ADDRESS.fullmatch(line[start:end])
            for start, end in spans
        )
        if index in headings:
            notices.append(Notice(index + 1, line, "address in a heading", kept))
        elif len(patterns.HAN.findall(kept)) <= 2 or is_site_text(kept):
            notices.append(Notice(index + 1, line, "address"))
        elif known:
            notices.append(Notice(index + 1, line, "address in a story line", kept))
        elif (shorter := drop_site_sentences(line, spans)) != line:
            notices.append(Notice(index + 1, line, "address in a site sentence", shorter))
    return notices


def site_key(address: str) -> str:
    """Reduce an address to its letters, without www and what follows the top-level domain.

    >>> site_key("ＷＷw.xiＡosＨuo.ｎｅt/t/xt"), site_key("http://m.xiaoshuo.net")
    ('xiaoshuo', 'xiaoshuo')
    """
    letters = re.sub(r"[^a-z0-9.。]", "", re.sub(r"^https?", "", fold(address)))
    parts = [part for part in re.split(r"[.。]", letters) if part and part not in ("www", "m", "wap")]
    return parts[0] if parts else letters


def is_site_text(kept: str) -> bool:
    """Tell whether what stands around an address speaks of the site and not of the story."""
    skeleton = re.sub(r"[^\w]|_", "", fold(kept))
    words = set(patterns.SITE_WORD.findall(skeleton))
    if is_speech(kept) or len(skeleton) > 2 * MAX_NOTICE:
        return False
    # the longer the text, the more of its words must be about a site; and two more if it tells of people
    needed = 3
    if len(patterns.HAN.findall(skeleton)) <= 15:
        needed = 1
    elif len(skeleton) <= 40:
        needed = 2
    return len(words) >= needed + (2 if patterns.STORY_WORD.search(kept) else 0)


def cut_addresses(line: str, spans: Sequence[tuple[int, int]]) -> str:
    """Take the addresses out of a line, with brackets that held nothing else."""
    for start, end in reversed(spans):
        line = line[:start] + line[end:]
    # brackets inside brackets empty from within
    while patterns.EMPTY_BRACKETS.search(line):
        line = patterns.EMPTY_BRACKETS.sub("", line)
    return GAP.sub(" ", line).strip()


def drop_site_sentences(line: str, spans: Sequence[tuple[int, int]]) -> str:
    """Take out of a story line the sentences that hold an address and speak of a site."""
    # addresses are cut from a sentence before it is judged; its offsets begin anew
    kept = []
    for match in patterns.SENTENCE.finditer(line):
        inside = [(s - match.start(), e - match.start()) for s, e in spans if match.start() <= s < match.end()]
        text = match.group()
        if not inside or not is_site_text(cut_addresses(text, [(s, min(e, len(text))) for s, e in inside])):
            kept.append(text)
    return "".join(kept).strip()


def find_keeping(lines: Sequence[str], headings: set[int], border: set[int]) -> list[Notice]:
    """Find dates and counts of characters, end-of-chapter marks and navigation."""
    notices = []
    for index in lines_with(pair_pattern(patterns.KEEPING_PAIRS), lines):
        if index in headings or len(lines[index]) > MAX_NOTICE:
            continue
        line = simplify(lines[index])
        for pattern, reason in (
            (patterns.KEEPING, "date or count of characters"),
            (patterns.END_MARK, "end-of-chapter mark"),
            (patterns.NAVIGATION, "navigation"),
            (patterns.MENU, "navigation"),
        ):
            if pattern.match(line):
                notices.append(Notice(index + 1, lines[index], reason))
                break
    return notices


def find_sentences(lines: Sequence[str], headings: set[int], border: set[int]) -> list[Notice]:
    """Find sentences that speak of the site, its reader or its votes.

    In the middle of a chapter it takes three different phrases; one less each for a line at a border of chapters, and
    for one that recurs, stands in brackets or begins with PS; one more for a line that speaks of him, her or me.
    """
    counts = Counter(lines)
    notices = []
    for index in lines_with(pair_pattern(patterns.PHRASE_PAIRS), lines):
        if index in headings or len(lines[index]) > MAX_NOTICE or is_speech(lines[index]):
            continue
        line = simplify(lines[index])
        phrases = sum(bool(phrase.search(line)) for phrase in patterns.SITE_PHRASES)
        aside = (line[0] in patterns.OPEN and line[-1] in patterns.CLOSE) or fold(line).startswith("ps")
        needed = 3
        if index in border:
            needed -= 1
        if aside or counts[lines[index]] >= 3:
            needed -= 1
        if patterns.STORY_WORD.search(line):
            needed += 1
        if phrases >= max(1, needed):
            notices.append(Notice(index + 1, lines[index], "site sentence"))
    return notices


def find_recurring(lines: Sequence[str], headings: set[int], border: set[int]) -> list[Notice]:
    """Find lines that stand, but for digits, at the border of at least five chapters and of a third of all.

    A line that ends as sentences do may be a refrain and stays; if it speaks of a site, find_sentences has it.
    """
    if len(headings) < 5:
        return []
    # lines of one shape differ in their digits only: dates and chapter numbers
    short = [index for index in border - headings if 6 <= len(lines[index]) <= MAX_NOTICE]
    shapes = {
        index: re.sub(r"\d+", "0", lines[index]) for index in short if len(patterns.HAN.findall(lines[index])) >= 6
    }
    counts = Counter(shapes.values())  # chapters at whose border a shape stands
    least = max(5, len(headings) / 3)
    return [
        Notice(index + 1, lines[index], f"recurs at the border of {counts[shape]} chapters")
        for index, shape in shapes.items()
        if counts[shape] >= least
        and not is_speech(lines[index])
        and not lines[index].endswith(patterns.SENTENCE_ENDS)
        and not patterns.FORMULA.search(simplify(lines[index]))
        and not VOLUME_LINE.match(lines[index])
    ]


def find_rules(lines: Sequence[str], headings: set[int], notices: dict[int, Notice]) -> None:
    """Add the rule lines that stand next to a heading, to a removed line, or before the first heading."""
    filled = [index for index, line in enumerate(lines) if line]
    first = min(headings, default=0)
    rules = [
        place for place, index in enumerate(filled) if len(lines[index]) >= 6 and patterns.RULE.match(lines[index])
    ]
    # once down and once up, as a rule line goes with the one beside it
    for order in (rules, rules[::-1]):
        for place in order:
            beside = filled[max(0, place - 1) : place] + filled[place + 1 : place + 2]
            index = filled[place]
            gone = any(other in headings or (other in notices and not notices[other].kept) for other in beside)
            if index not in notices and (gone or index < first):
                notices[index] = Notice(index + 1, lines[index], "rule line")
