"""A novel in one long line -> lines that begin at its chapters, or, where it has none, with a sentence.

    …且听下回分解。第二回 雨夜来客 话说……   →   …且听下回分解。⏎第二回 雨夜来客⏎话说……
    …且听下回分解。第二回雨夜来客话说……     →   …且听下回分解。⏎第二回雨夜来客话说……

A heading inside a line is believed where others count up to it and on from it, with a chapter's text between them;
what only mentions a chapter, or lists it in a table of contents, does not. A title that nothing parts from the text is
left where it is.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate

from novelgpt.corpus.chapters.families import rising_rows
from novelgpt.corpus.headings import COUNTED, MAX_NUMBER, SENTENCE_END, find_headings, parse_number

LONG_LINE = 10_000  # characters; a shorter line is a paragraph
PART = 3_000  # characters of a part that ends with a sentence
HEADING = re.compile(rf"(?:^|(?<=[\s。！？!?…”’」』）)])){COUNTED}[回章节節集](?![合课課目日])")
TITLE = re.compile(r"\s*(?:[^\s，。！？：；、“”「」…]{1,30}(?=\s)\s*){1,3}")
MAX_TITLE = 40  # characters


@dataclass
class BrokenLines:
    """The lines of a text, its long ones broken."""

    lines: list[str] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)  # of the line, from 1, that each was a part of
    starts: dict[int, int] = field(default_factory=dict)  # index of a line -> chapter's number that it begins with

    def add(self, later: "BrokenLines", lines_before: int) -> None:
        """Add the lines of the text after this many lines of the file."""
        self.starts |= {len(self.lines) + start: number for start, number in later.starts.items()}
        self.lines += later.lines
        self.numbers += [lines_before + number for number in later.numbers]


def break_lines(lines: Sequence[str], *, single: bool) -> BrokenLines:
    """Break each long line of a clean text at its chapters, or else at ends of sentences.

    Args:
        lines: edges stripped.
        single: the lines are a whole text; a document of a list is not broken without chapters.
    """
    if max(map(len, lines), default=0) < LONG_LINE:
        return BrokenLines(list(lines), list(range(1, len(lines) + 1)))
    broken = BrokenLines()
    for number, line in enumerate(lines, 1):
        add_parts(broken, break_at_chapters(line), number)
    if not single or broken.starts or find_headings(broken.lines):
        return broken
    broken = BrokenLines()
    for number, line in enumerate(lines, 1):
        add_parts(broken, [(part, None) for part in break_at_sentences(line)], number)
    return broken


def part_lines(lines: Sequence[str], broken: BrokenLines, starts: Sequence[int]) -> tuple[BrokenLines, list[int]]:
    """Give the parts of lines that hold a newline by now lines of their own; starts: indices that move with them.

    >>> part_lines(["山", "水\\n人", "雪"], BrokenLines(["山", "水<p>人", "雪"], [1, 2, 3]), [0, 2])
    (BrokenLines(lines=['山', '水', '人', '雪'], numbers=[1, 2, 2, 3], starts={}), [0, 3])
    """
    parted = [line.split("\n") for line in lines]
    places = [0, *accumulate(map(len, parted))]
    numbers = [number for number, parts in zip(broken.numbers, parted, strict=True) for _ in parts]
    moved = {places[start]: chapter for start, chapter in broken.starts.items()}
    return BrokenLines([part for parts in parted for part in parts], numbers, moved), [
        places[start] for start in starts
    ]


def add_parts(broken: BrokenLines, parts: Sequence[tuple[str, int | None]], number: int) -> None:
    """Add the parts of a line, each with the number of the chapter that begins in it without a heading of its own."""
    for part, chapter in parts:
        if chapter is not None:
            broken.starts[len(broken.lines)] = chapter
        broken.lines.append(part)
        broken.numbers.append(number)


def break_at_chapters(line: str) -> list[tuple[str, int | None]]:
    """Break a long line before each heading of its chapters, and after it where a gap ends most titles.

    >>> break_at_chapters("他走了。")
    [('他走了。', None)]
    """
    if len(line) < LONG_LINE:
        return [(line, None)]
    found = [match for match in HEADING.finditer(line) if len(match["number"]) <= MAX_NUMBER]
    places = [(match.start(), parse_number(match["number"])) for match in found]
    rows = [found[index] for index in rising_rows(places)]
    # the title is the words up to a gap, without punctuation
    titles = [TITLE.match(line, match.end(), match.end() + MAX_TITLE) for match in rows]
    is_parted = 2 * sum(map(bool, titles)) > len(titles)
    cuts: dict[int, int | None] = {0: None}
    for match, title in zip(rows, titles, strict=True):
        cuts[match.start()] = None if is_parted else parse_number(match["number"])
        if is_parted:
            cuts[title.end() if title else match.end()] = None
    ends = [*list(cuts)[1:], len(line)]
    parts = ((line[start:end].strip(), chapter) for (start, chapter), end in zip(cuts.items(), ends, strict=True))
    return [(part, chapter) for part, chapter in parts if part]


def break_at_sentences(line: str) -> list[str]:
    """Break a long line into parts of about PART characters, each up to the end of a sentence if it has one."""
    if len(line) < LONG_LINE:
        return [line]
    parts, start = [], 0
    while len(line) - start >= 2 * PART:
        ends = [match.end() for match in SENTENCE_END.finditer(line, start, start + PART)]
        end = ends[-1] if ends else start + PART
        parts.append(line[start:end].strip())
        start = end
    return [*parts, line[start:].strip()]
