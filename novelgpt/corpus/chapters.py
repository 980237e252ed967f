"""Clean lines -> one document per chapter, the heading as its first line, and what is odd about the numbers.

Headings that only list what comes later are a table of contents, and of a heading that stands twice one is enough. A
volume line of its own (`第一部分`, `上卷 风起`) goes in front of the heading below it. Text before the first heading
is a document of its own. A text without headings is split where blank lines are rare enough to mean something, else
into even parts at paragraph ends, and the result says so.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from novelgpt.corpus.headings import VOLUME_LINE, Chapter, find_chapters, volume_of

MAX_LISTED = 15  # characters of text below a heading that is only listed in a table of contents
MAX_BETWEEN = 400  # characters, of menus and the like, between the two of a doubled heading
PART = 5_000  # characters of one even part
MIN_SECTION = 500  # characters; sections between blank lines must be longer on average
CONTENTS_WORD = re.compile(r"^[【\[]?\s*目\s*[录錄]\s*[】\]]?$")
PUNCTUATION = re.compile(r"[\W_]+")


@dataclass
class Chapters:
    """The documents of one text, and how they were found.

    Attributes:
        documents: the text of each; of a chapter the first line is its heading.
        lines: the line at which each document begins, from 1.
        chapters: the heading of each document; None for front matter and parts without a heading.
        how: one sentence on how the text was split.
        removed: (line, text, reason) of headings that were dropped: contents and doubled ones.
        missing, repeated, out_of_order: chapter numbers, as found volume by volume.
        volumes: how often the numbers begin anew, plus one.
    """

    documents: list[str] = field(default_factory=list)
    lines: list[int] = field(default_factory=list)
    chapters: list[Chapter | None] = field(default_factory=list)
    how: str = ""
    removed: list[tuple[int, str, str]] = field(default_factory=list)
    missing: list[int] = field(default_factory=list)
    repeated: list[int] = field(default_factory=list)
    out_of_order: list[int] = field(default_factory=list)
    volumes: int = 1

    @property
    def found(self) -> list[Chapter]:
        """The headings that begin a document."""
        return [chapter for chapter in self.chapters if chapter]


def split_chapters(text: str | list[str], *, starts: Sequence[int] | None = None) -> Chapters:
    r"""Split a clean text into documents.

    Args:
        text: a text or its lines, edges stripped; blank lines help where there are no headings.
        starts: the indices of the lines that begin documents already, as the elements of a JSON list do; they stay
            borders, and nothing is divided for want of headings. None for the text of one file.

    Returns:
        the documents without blank lines, and what was found. A text of blanks gives no document.

    >>> split_chapters("序言\n\n第一章 山村\n他走了。\n\n第二章 城\n她来了。").documents
    ['序言', '第一章 山村\n他走了。', '第二章 城\n她来了。']
    """
    lines = text.split("\n") if isinstance(text, str) else text
    result = Chapters()
    headings = find_chapters(lines)
    borders: dict[int, Chapter | None] = dict.fromkeys(starts or [0])
    if not headings:
        result.how = f"no chapter headings: {len(borders):,} documents as they came"
        fill_documents(lines, borders if starts else dict.fromkeys(divide_plain(lines, result)), result)
        return result
    headings = drop_contents(lines, headings, result)
    headings = drop_doubled(lines, headings, result)
    gone = {line - 1 for line, _, _ in result.removed}
    lines = ["" if index in gone else line for index, line in enumerate(lines)]
    fill_documents(lines, borders | place_volumes(lines, headings), result)
    check_numbers(headings, result)
    result.how = f"{len(result.found):,} headings such as {headings[0].heading!r}"
    return result


def fill_documents(lines: list[str], starts: dict[int, Chapter | None], result: Chapters) -> None:
    """Join the lines from each start to the next into a document, and drop the empty ones."""
    order = sorted(starts)
    for start, end in zip(order, [*order[1:], len(lines)], strict=True):
        document = "\n".join(filter(None, lines[start:end]))
        if document:
            result.documents.append(document)
            result.lines.append(start + 1)
            result.chapters.append(starts[start])


def text_below(lines: list[str], headings: list[Chapter]) -> list[int]:
    """Count the characters between each heading and the next, volume lines and the word 目录 left out."""
    ends = [chapter.line - 1 for chapter in headings[1:]] + [len(lines)]
    return [
        sum(
            len(line)
            for line in lines[chapter.line : end]
            if line and not VOLUME_LINE.match(line) and not CONTENTS_WORD.match(line)
        )
        for chapter, end in zip(headings, ends, strict=True)
    ]


def drop_contents(lines: list[str], headings: list[Chapter], result: Chapters) -> list[Chapter]:
    """Remove tables of contents: runs of three or more headings without text whose chapters stand elsewhere."""
    lengths = text_below(lines, headings)
    with_text = Counter((c.number, c.unit) for c, n in zip(headings, lengths, strict=True) if n > MAX_LISTED)
    listed: list[int] = []
    start = 0
    while start < len(headings):
        end = start
        while end < len(headings) and lengths[end] <= MAX_LISTED:
            end += 1
        # The last entry of a contents list has text below it only because it is the last: it counts when its
        # chapter comes once more.
        if end < len(headings) and end > start:
            last = (headings[end].number, headings[end].unit)
            again = any((c.number, c.unit) == last for c in headings[end + 1 :])
            end += again and not same_heading(headings[end], headings[end - 1])
        run = range(start, end)
        known = sum(with_text[(headings[i].number, headings[i].unit)] > 0 for i in run)
        if len(run) >= 3 and known >= 0.8 * len(run):
            listed.extend(run)
        start = max(end, start + 1)
    if not listed:
        return headings
    chosen = set(listed)
    for index in listed:
        chapter = headings[index]
        result.removed.append((chapter.line, chapter.heading, "table of contents"))
    first, last = headings[listed[0]].line, headings[listed[-1]].line
    for number in range(max(1, first - 5), last + 1):
        line = lines[number - 1]
        if CONTENTS_WORD.match(line) or (number > first - 3 and line and VOLUME_LINE.match(line)):
            result.removed.append((number, line, "table of contents"))
    result.removed.sort()
    return [chapter for index, chapter in enumerate(headings) if index not in chosen]


def same_heading(one: Chapter, other: Chapter) -> bool:
    """Tell whether two headings name the same chapter: one number, and titles that agree as far as both have one."""
    if (one.number, one.unit) != (other.number, other.unit):
        return False
    first, second = (PUNCTUATION.sub("", chapter.title) for chapter in (one, other))
    return first.startswith(second) or second.startswith(first)


def drop_doubled(lines: list[str], headings: list[Chapter], result: Chapters) -> list[Chapter]:
    """Of neighbouring headings that name the same chapter, with little between them, keep the fuller one."""
    kept: list[Chapter] = []
    lengths = dict(zip((chapter.line for chapter in headings), text_below(lines, headings), strict=True))
    for chapter in headings:
        if kept and same_heading(kept[-1], chapter) and lengths[kept[-1].line] <= MAX_BETWEEN:
            lesser = (
                kept.pop() if len(kept[-1].heading) < len(chapter.heading) and not lengths[kept[-1].line] else chapter
            )
            result.removed.append((lesser.line, lesser.heading, "heading doubled"))
            chapter = chapter if lesser is not chapter else kept.pop()
        kept.append(chapter)
    return kept


def place_volumes(lines: list[str], headings: list[Chapter]) -> dict[int, Chapter | None]:
    """Write volume lines in front of the heading they stand above, and say where every document starts.

    A volume line with text of its own before the next heading starts a document without a heading. Changes lines.
    """
    starts: dict[int, Chapter | None] = {chapter.line - 1: chapter for chapter in headings}
    for chapter in headings:
        index = chapter.line - 2
        while index >= 0 and not lines[index]:
            index -= 1
        if index >= 0 and index not in starts and VOLUME_LINE.match(lines[index]):
            lines[chapter.line - 1] = chapter.heading = f"{lines[index]} {chapter.heading}"
            lines[index] = ""
    for index, line in enumerate(lines):
        if index not in starts and index > headings[0].line and line and VOLUME_LINE.match(line):
            starts[index] = None
    return starts


def check_numbers(headings: list[Chapter], result: Chapters) -> None:
    """Find numbers that are missing, repeated or out of order; a new 1 begins a new volume.

    >>> result = Chapters()
    >>> check_numbers([Chapter(0, "", number, "章", "") for number in (1, 2, 4, 4, 1, 3, 2)], result)
    >>> result.missing, result.repeated, result.out_of_order, result.volumes
    ([3], [4], [2], 2)
    """
    seen: set[int] = set()
    highest = 0

    def close_volume() -> None:
        if seen:
            result.missing.extend(sorted(set(range(min(seen), max(seen))) - seen)[:1000])

    volume = ""
    for chapter in headings:
        number = chapter.number
        if number is None:
            continue
        former, volume = volume, volume_of(chapter.heading) or volume
        if number <= 1 and number in seen and (highest > 1 or volume != former):
            close_volume()
            seen, highest = {number}, number
            result.volumes += 1
        elif number in seen:
            result.repeated.append(number)
        else:
            if number < highest:
                result.out_of_order.append(number)
            seen.add(number)
            highest = max(highest, number)
    close_volume()


def divide_plain(lines: list[str], result: Chapters) -> list[int]:
    """Choose where documents start in a text without headings."""
    total = sum(map(len, lines))
    if total <= PART or sum(map(bool, lines)) == 1:
        result.how = "no chapter headings: kept as one document"
        return [0]
    for gap in (1, 2, 3):
        starts = section_starts(lines, gap)
        if len(starts) >= 2 and total / len(starts) >= MIN_SECTION:
            blank = "blank lines" if gap == 1 else f"{gap} or more blank lines"
            result.how = f"no chapter headings: split at {blank} into {len(starts):,} documents"
            return starts
    starts = even_starts(lines, total)
    result.how = f"no chapter headings: split into {len(starts):,} even parts at paragraph ends"
    return starts


def section_starts(lines: list[str], gap: int) -> list[int]:
    """List the lines that follow `gap` or more blank lines, and the first line.

    >>> section_starts(["a", "", "b", "", "", "c"], 2)
    [0, 5]
    """
    starts, blanks = [0], 0
    for index, line in enumerate(lines):
        if line:
            if blanks >= gap and index > blanks:
                starts.append(index)
            blanks = 0
        else:
            blanks += 1
    return starts


def even_starts(lines: list[str], total: int) -> list[int]:
    """List the lines that begin parts of about PART characters each."""
    num_parts = max(1, round(total / PART))
    starts, passed = [0], 0
    for index, line in enumerate(lines):
        if len(starts) < num_parts and passed >= len(starts) * total / num_parts and index > starts[-1]:
            starts.append(index)
        passed += len(line)
    return starts
