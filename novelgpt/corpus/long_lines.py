"""A novel in one long line -> lines that begin at its chapters, or, where it has none, with a sentence.

    …且听下回分解。第二回 雨夜来客 话说……   →   …且听下回分解。⏎第二回 雨夜来客⏎话说……

A heading inside a line is believed where others count up to it and on from it, with a chapter's text between them;
what only mentions a chapter, or lists it in a table of contents, does not.
"""

import re
from collections.abc import Sequence

from novelgpt.corpus.chapters import COUNTED, EVEN_PART, find_headings, parse_number

LONG_LINE = 2 * EVEN_PART  # characters; a shorter line is a paragraph
MIN_CHAPTER = 200  # characters from one heading to the next
MIN_CHAIN = 3  # headings that count up
MAX_STEP = 3  # from one number to the next: some headings are not found
HEADING = re.compile(rf"(?:^|(?<=[\s。！？!?…”’」』）)])){COUNTED}[回章节節集](?![合课課日目])")
TITLE = re.compile(r"\s*(?:[^\s，。！？：；、“”「」…]{1,30}(?=\s)\s*){0,3}")
MAX_TITLE = 40  # characters
SENTENCE_END = re.compile(r"[。！？!?…][”’」』）)]*")


def break_lines(lines: Sequence[str], *, single: bool) -> list[str]:
    """Return the lines of a clean text with each long one broken at its chapters, or else at ends of sentences.

    Args:
        lines: edges stripped.
        single: the lines are a whole text; a document of a list is not broken without chapters.
    """
    if max(map(len, lines), default=0) < LONG_LINE:
        return list(lines)
    broken = [part for line in lines for part in break_at_chapters(line)]
    if not single or find_headings(broken):
        return broken
    return [part for line in broken for part in break_at_sentences(line)]


def break_at_chapters(line: str) -> list[str]:
    """Break a long line before and after each heading of its chapters."""
    if len(line) < LONG_LINE:
        return [line]
    found = [match for match in HEADING.finditer(line) if len(match["number"]) <= 12]
    ends = {match.start(): match.end() for match in found}
    cuts = [0]
    for start in chapter_starts([(match.start(), parse_number(match["number"])) for match in found]):
        # the title is the words up to a gap, without punctuation
        title = TITLE.match(line, ends[start], ends[start] + MAX_TITLE)
        cuts += [start, title.end() if title else ends[start]]
    parts = [line[first:last].strip() for first, last in zip(cuts, [*cuts[1:], len(line)], strict=True)]
    return list(filter(None, parts))


def chapter_starts(places: Sequence[tuple[int, int]]) -> list[int]:
    """Choose the places whose numbers count up, the longest row first, then before and behind it the same.

    Args:
        places: (offset, number) of what looks like a heading, by offset.

    >>> chapter_starts([(0, 1), (10, 2), (20, 3), (900, 1), (1800, 2), (2000, 1), (2700, 3)])
    [900, 1800, 2700]
    """
    # of the longest row that ends with each place: its length, the place before this one, the first of all
    length, former, first = [], [], []
    last: dict[int, int] = {}  # number -> the place that rows go on from
    for index, (offset, number) in enumerate(places):
        steps = [last[number - step] for step in range(1, MAX_STEP + 1) if number - step in last]
        steps = [other for other in steps if offset - places[other][0] >= MIN_CHAPTER]
        best = max(steps, key=lambda other: length[other], default=None)
        length.append(1 if best is None else length[best] + 1)
        former.append(best)
        first.append(index if best is None else first[best])
        # a row begins as late as it can, which leaves out a table of contents, and goes on as early as it can
        other = last.get(number, index)
        if (length[index], first[index]) > (length[other], first[other]) or other == index:
            last[number] = index
    if max(length, default=0) < MIN_CHAIN:
        return []
    end = index = length.index(max(length))
    row = []
    while index is not None:
        row.insert(0, places[index][0])
        index = former[index]
    return chapter_starts(places[: first[end]]) + row + chapter_starts(places[end + 1 :])


def break_at_sentences(line: str) -> list[str]:
    """Break a long line into parts of about EVEN_PART characters, each up to the end of a sentence if it has one."""
    if len(line) < LONG_LINE:
        return [line]
    parts, start = [], 0
    while len(line) - start >= LONG_LINE:
        ends = [match.end() for match in SENTENCE_END.finditer(line, start, start + EVEN_PART)]
        end = ends[-1] if ends else start + EVEN_PART
        parts.append(line[start:end].strip())
        start = end
    return [*parts, line[start:].strip()]
