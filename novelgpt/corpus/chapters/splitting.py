"""Clean lines -> one document per chapter, the heading as its first line.

Which lines are headings is told by each of them (headings.py), or by all of them together where those are too few
(families.py), or by the reader's own expression.

Headings that only list what comes later are a table of contents, and of a heading that stands twice one is enough. A
volume line of its own (`第一部分`, `上卷 风起`) goes in front of the heading below it. Text before the first heading
is a document of its own. A text without headings is split where blank lines part chapters, else at paragraph ends into
parts of about 3,000 characters, and the result says so.
"""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice, pairwise
from statistics import median

from novelgpt.corpus.chapters.contents import drop_contents, drop_doubled, find_contents, listed_headings, text_below
from novelgpt.corpus.chapters.families import (
    LONG_PIECE,
    add_unnumbered,
    choose_family,
    drop_end_marks,
    fill_gaps,
    leaves_too_much,
    mean_piece,
    piece_lengths,
)
from novelgpt.corpus.headings import (
    CHAPTER_UNITS,
    MAX_NUMBER,
    NUMBER,
    VOLUME_LINE,
    Heading,
    dividing_headings,
    find_headings,
    parse_number,
    read_heading,
)
from novelgpt.corpus.patterns import matching_lines

EVEN_PART = 3_000  # characters of a part of a text without headings
SECTION = (1_500, 60_000)  # characters of the middle and the longest section between blank lines that are chapters
MAX_NUMBERS = 1_000  # odd chapter numbers of each kind


@dataclass
class Chapters:
    """The documents of one text, and how they were found."""

    documents: list[str] = field(default_factory=list)  # a chapter's first line is its heading
    lines: list[int] = field(default_factory=list)  # at which each document begins, from 1
    headings: list[Heading | None] = field(default_factory=list)  # None: front matter and parts without a heading
    how: str = ""  # the text was split
    removed: list[tuple[int, str, str]] = field(default_factory=list)  # line, text, reason of headings dropped

    @property
    def found(self) -> list[Heading]:
        """The headings that begin a document."""
        return [heading for heading in self.headings if heading]


def choose_headings(lines: Sequence[str], titled: Collection[int] = ()) -> list[Heading]:
    """Choose the headings that divide a text; tables of contents and doubled ones are still among them.

    Args:
        lines: edges stripped.
        titled: indices of lines that are headings by what the file says, as the navigation of an e-book does.
    """
    headings = drop_end_marks(dividing_headings(find_headings(lines)))
    if titled:
        named = (index for index in titled if names_chapter(lines, index, titled))
        given = {index + 1: title_heading(lines[index], index + 1) for index in named}
        chosen = {heading.line: heading for heading in headings} | given
        return [chosen[line] for line in sorted(chosen)]
    headings = divide_better(lines, headings)
    for start, end in long_pieces(lines, headings) if headings else ():
        inside = divide_better(lines[start:end], [])
        headings += [replace(heading, line=start + heading.line) for heading in inside]
    headings.sort(key=lambda heading: heading.line)
    if not headings:
        return []
    headings = drop_end_marks(fill_gaps(lines, headings))
    listed = set(find_contents(headings, text_below(lines, headings)))
    first = next((heading.line for index, heading in enumerate(headings) if index not in listed), 0)
    return add_unnumbered(lines, headings, first=first)


def divide_better(lines: Sequence[str], headings: list[Heading]) -> list[Heading]:
    """Return other headings where these leave too much of a text undivided and others divide it far better."""
    lengths = piece_lengths(lines, headings)
    if headings and not leaves_too_much(lengths):
        return headings
    found = (drop_end_marks(find(lines)) for find in (listed_headings, choose_family))
    better = (other for other in found if 2 * mean_piece(piece_lengths(lines, other)) < mean_piece(lengths))
    return next(better, headings)


def long_pieces(lines: Sequence[str], headings: Sequence[Heading]) -> list[tuple[int, int]]:
    """List the indices of the first line and behind the last of the pieces that are far too long for a chapter."""
    borders = [0, *(heading.line for heading in headings), len(lines)]
    pieces = zip(pairwise(borders), piece_lengths(lines, headings), strict=True)
    return [(start, end - (end < len(lines))) for (start, end), length in pieces if length > LONG_PIECE]


def names_chapter(lines: Sequence[str], index: int, titled: Collection[int]) -> bool:
    """Tell whether a titled line names a chapter: no volume whose first chapter follows at once."""
    below = next((place for place in range(index + 1, len(lines)) if lines[place]), None)
    return bool(lines[index]) and not (VOLUME_LINE.match(lines[index]) and below in titled)


def matching_headings(lines: Sequence[str], expression: str) -> list[Heading]:
    """Find the lines that match a reader's expression, with the first number in each.

    >>> matching_headings(["卷首", "【三】门", "他走了。"], "^【")
    [Heading(line=2, text='【三】门', number=3, unit='回', title='【三】门')]
    """
    headings = []
    for index in matching_lines(expression, lines):
        counted = re.search(f"[{NUMBER}]{{1,{MAX_NUMBER}}}", lines[index])
        number = parse_number(counted.group()) if counted else None
        if lines[index]:
            unit = CHAPTER_UNITS[0] if counted else ""
            headings.append(Heading(index + 1, lines[index], number, unit, lines[index]))
    return headings


def title_heading(line: str, number: int) -> Heading:
    """Make the heading of a line, of this number, that is one by what the file says.

    >>> title_heading("缘起", 7), title_heading("第3章 门", 9).number
    (Heading(line=7, text='缘起', number=None, unit='', title='缘起'), 3)
    """
    return read_heading(line, number) or Heading(number, line, None, "", line)


def split_chapters(
    text: str | list[str],
    *,
    starts: Sequence[int] | Mapping[int, int] | None = None,
    headings: list[Heading] | None = None,
    even: bool = False,
) -> Chapters:
    r"""Split a clean text into documents without blank lines; a text of blanks gives none.

    Args:
        text: a text or its lines, edges stripped; blank lines help where there are no headings.
        starts: the indices of lines that begin documents already, as the elements of a JSON list do, and stay borders
            whether there are headings or not; or those of the lines that begin with the number of a chapter but have
            no heading of their own, and that number. None for the text of one file.
        headings: what choose_headings gives for these lines; None finds them.
        even: a text without headings is divided into even parts, whatever its blank lines part.

    >>> split_chapters("序言\n\n第一章 山村\n他走了。\n\n第二章 城\n她来了。").documents
    ['序言', '第一章 山村\n他走了。', '第二章 城\n她来了。']
    """
    lines = text.split("\n") if isinstance(text, str) else text
    headings = choose_headings(lines) if headings is None else headings
    counted = starts if isinstance(starts, Mapping) else {}
    borders: dict[int, Heading | None] = dict.fromkeys(starts or [0])
    borders |= {start: Heading(start + 1, "", number, "", "") for start, number in counted.items()}
    result = Chapters()
    if not headings:
        result.how = f"no chapter headings: {len(borders):,} documents as they came"
        if counted:
            borders.setdefault(0, None)
            result.how = f"{len(counted):,} chapters whose headings run into the text"
        fill_documents(lines, borders if starts else dict.fromkeys(divide_plain(lines, result, even=even)), result)
        return result

    # what is listed or stands twice goes first; the headings left are the borders, beside those there were before
    headings = drop_contents(lines, headings, result.removed)
    headings = drop_doubled(lines, headings, result.removed)
    gone = {line - 1 for line, _, _ in result.removed}
    lines = ["" if index in gone else line for index, line in enumerate(lines)]
    fill_documents(lines, borders | place_volumes(lines, headings), result)
    result.how = f"{len(headings):,} headings such as 「{headings[0].text}」"
    return result


def fill_documents(lines: list[str], starts: dict[int, Heading | None], result: Chapters) -> None:
    """Join the lines from each start to the next into a document, and drop the empty ones."""
    order = sorted(starts)
    for start, end in zip(order, [*order[1:], len(lines)], strict=True):
        document = "\n".join(filter(None, lines[start:end]))
        if document:
            result.documents.append(document)
            result.lines.append(start + 1)
            result.headings.append(starts[start])


def place_volumes(lines: list[str], headings: list[Heading]) -> dict[int, Heading | None]:
    """Write volume lines in front of the heading they stand above, and say where every document starts.

    A volume line with text of its own before the next heading starts a document without a heading. Changes lines.
    """
    starts: dict[int, Heading | None] = {heading.line - 1: heading for heading in headings}
    # volume lines directly above a heading, blank lines aside
    for heading in headings:
        above = heading.line - 2
        while above >= 0 and not lines[above]:
            above -= 1
        if above >= 0 and above not in starts and VOLUME_LINE.match(lines[above]):
            lines[heading.line - 1] = f"{lines[above]} {heading.text}"
            lines[above] = ""
            starts[heading.line - 1] = replace(heading, text=lines[heading.line - 1])
    # volume lines with text of their own
    for index, line in enumerate(lines):
        if index not in starts and index > headings[0].line and VOLUME_LINE.match(line) and line != "正文":
            starts[index] = None
    return starts


def divide_plain(lines: list[str], result: Chapters, *, even: bool = False) -> list[int]:
    """Choose where documents start in a text without headings."""
    total = sum(map(len, lines))
    if total <= EVEN_PART or sum(map(bool, lines)) == 1:
        result.how = "no chapter headings: kept as one document"
        return [0]
    # the smallest gap that parts chapters
    for gap in () if even else (1, 2, 3):
        starts = section_starts(lines, gap)
        lengths = [sum(map(len, lines[start:end])) for start, end in pairwise([*starts, len(lines)])]
        if len(starts) >= 2 and median(lengths) >= SECTION[0] and max(lengths) <= SECTION[1]:
            blank = "blank lines" if gap == 1 else f"{gap} or more blank lines"
            result.how = f"no chapter headings: split at {blank} into {len(starts):,} documents"
            return starts
    starts = even_starts(lines, total)
    result.how = f"no chapter headings: split into {len(starts):,} even parts"
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
    """List the lines that begin parts of about EVEN_PART characters each."""
    num_parts = max(1, round(total / EVEN_PART))
    starts, passed = [0], 0
    for index, line in enumerate(lines):
        if passed + len(line) / 2 >= len(starts) * total / num_parts and len(starts) < num_parts and index > starts[-1]:
            starts.append(index)
        passed += len(line)
    return starts


@dataclass
class ChapterNumbers:
    """What is odd about the numbers of chapters, volume by volume; the first MAX_NUMBERS of each kind."""

    missing: list[int] = field(default_factory=list)
    repeated: list[int] = field(default_factory=list)
    out_of_order: list[int] = field(default_factory=list)
    volumes: int = 1  # how often the numbers begin again, plus one


def check_numbers(chapters: Iterable[tuple[int | None, str]]) -> ChapterNumbers:
    """Find numbers that are missing, repeated or out of order; a new 1 begins a new volume.

    A chapter is its number, or None, and the volume that its heading names, or "".

    >>> check_numbers((number, "") for number in (1, 2, 4, 4, 1, 3, 2))
    ChapterNumbers(missing=[3], repeated=[4], out_of_order=[2], volumes=2)
    """
    missing, repeated, out_of_order, volumes = [], [], [], 1
    seen: set[int] = set()  # numbers of the present volume
    highest, volume = 0, ""
    for number, named in chapters:
        if number is None:
            continue
        former, volume = volume, named or volume
        if number <= 1 and number in seen and (highest > 1 or volume != former):
            missing += missing_numbers(seen)
            seen, highest = {number}, number
            volumes += 1
        elif number in seen:
            repeated.append(number)
        else:
            if number < highest:
                out_of_order.append(number)
            seen.add(number)
            highest = max(highest, number)
    missing += missing_numbers(seen)
    return ChapterNumbers(missing[:MAX_NUMBERS], repeated[:MAX_NUMBERS], out_of_order[:MAX_NUMBERS], volumes)


def missing_numbers(seen: set[int]) -> list[int]:
    """List the first numbers missing between the smallest and the largest of a set."""
    between = range(min(seen, default=0), max(seen, default=0))
    return list(islice((number for number in between if number not in seen), MAX_NUMBERS))
