"""Clean lines -> one document per chapter, the heading as its first line, and what is odd about the numbers.

A heading is a short line `[volume] 第 number 回|章|节|… [title]`::

    第一回　甄士隐梦幻识通灵      第 十一 回　title      第300章title      正文 第０１２章
    上卷 第一一九回 title         第十三卷 v 第2040章 title               【第两百廿三章】

Headings that only list what comes later are a table of contents, and of a heading that stands twice one is enough. A
volume line of its own (`第一部分`, `上卷 风起`) goes in front of the heading below it. Text before the first heading
is a document of its own. A text without headings is split where blank lines are rare enough to mean something, else
into even parts at paragraph ends, and the result says so.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

MAX_HEADING = 45  # characters
MIN_HEADINGS = 2  # fewer headings of a kind do not divide a text
MAX_LISTED = 15  # characters of text below a heading that is only listed in a table of contents
MAX_BETWEEN = 400  # characters, of menus and the like, between the two of a doubled heading
PART = 5_000  # characters of one even part
MIN_SECTION = 500  # characters; sections between blank lines must be longer on average
NUMBER = "0-9０-９〇零○一二三四五六七八九十百千万两廿卅"
DIGITS = dict(zip("〇零○一二三四五六七八九两", (0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 2), strict=True))
UNITS = {"十": 10, "百": 100, "千": 1_000, "万": 10_000}
KINDS = ("回章", "节節集话話幕", "卷部篇")  # from the chapter down to what divides a text that has nothing else
COUNTED = rf"第\s*(?P<number>[{NUMBER}](?:\s*[{NUMBER}])*)\s*"
VOLUME = rf"(?:[上中下][卷部册冊篇]|正文|卷\s?[{NUMBER}]+|第\s?[{NUMBER}]+\s?(?:部分|[卷部集篇册冊]))"
DECORATION = r"[#＃*＊=＝\-【\[(（《<☆★◆■●\s]*"
HEADING = re.compile(
    rf"^{DECORATION}(?P<volume>{VOLUME}(?:[\s:：·][^\n第。！？]{{0,15}})?\s*)?{COUNTED}"
    rf"(?P<unit>[回章节節集话話幕卷部篇])(?![合课課目日车車点分家队隊落份件])(?P<title>[^\n]{{0,{MAX_HEADING}}})$",
    re.MULTILINE,
)
VOLUME_LINE = re.compile(rf"^{DECORATION}{VOLUME}(?:[\s:：·][^\n。，；！？]{{0,20}})?[】\])）》>]*$")
UNNUMBERED = re.compile(
    r"^(?:楔子|序章|序幕|引子|尾[声聲]|[终終]章|后记|後記|大[结結]局|番外[^\s。，！？：；“”]{0,6})(?:[\s:：][^\n。，；]{0,25})?$",
    re.MULTILINE,
)
NO_HEADING_END = tuple("。．；，：;,:、")
CONTENTS_WORD = re.compile(r"^[【\[]?\s*目\s*[录錄]\s*[】\]]?$")
PUNCTUATION = re.compile(r"[\W_]+")


@dataclass
class Chapter:
    """One heading as found.

    Attributes:
        line: number of the heading's line, from 1.
        heading: the line itself.
        number: the chapter's number, or None for 楔子, 尾声 and the like.
        unit: 回, 章, …; empty for a heading without a number.
        title: what follows the number.
    """

    line: int
    heading: str
    number: int | None
    unit: str
    title: str


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


def parse_number(text: str) -> int:
    """Read a chapter number in digits or Chinese, positional or with units.

    >>> [parse_number(text) for text in ("012", "３", "一 百零八", "百十九", "一一九", "两千零四十", "廿三", "卅")]
    [12, 3, 108, 119, 119, 2040, 23, 30]
    """
    text = re.sub(r"\s", "", text).replace("廿", "二十").replace("卅", "三十")
    if not any(char in UNITS for char in text):
        return int("".join(str(DIGITS[char]) if char in DIGITS else char for char in text))
    total, section, digit = 0, 0, ""
    for char in text:
        if char == "万":
            total, section, digit = (total + section + int(digit or 0)) * UNITS[char], 0, ""
        elif char in UNITS:
            section, digit = section + int(digit or 1) * UNITS[char], ""
        else:
            digit += str(DIGITS[char]) if char in DIGITS else str(int(char))
    return total + section + int(digit or 0)


def read_heading(line: str) -> Chapter | None:
    """Read one stripped line as a heading; None when it is not one. The line number is left at 0.

    >>> read_heading("上卷 第一一九回  中乡魁宝玉却尘缘").number
    119
    >>> read_heading("第四回中既将薛家母子在荣府内寄居等事略已表明，此回则暂不能写矣。") is None
    True
    """
    if len(line) > MAX_HEADING or line.endswith(NO_HEADING_END):
        return None
    if match := HEADING.match(line):
        if len(match["number"]) > 12 or match["title"].lstrip().startswith((",", "，", "、", "。", "．")):
            return None
        return Chapter(0, line, parse_number(match["number"]), match["unit"], match["title"].strip())
    if UNNUMBERED.match(line):
        return Chapter(0, line, None, "", line)
    return None


def find_chapters(text: str | list[str]) -> list[Chapter]:
    """Find the lines of a clean text that are chapter headings, tables of contents and doubled ones included.

    Only the kind that divides the text finest counts: 回 and 章 before 节, 集, 话, 幕 before 卷, 部, 篇.

    Args:
        text: a text or its lines, edges stripped.

    Returns:
        the headings in the order of the text; empty when fewer than two lines look like one.

    >>> [(chapter.line, chapter.number, chapter.title) for chapter in find_chapters("第一章 山村\\n他走了。\\n第2章")]
    [(1, 1, '山村'), (3, 2, '')]
    """
    lines = text.split("\n") if isinstance(text, str) else text
    found = []
    for number, line in enumerate(lines, 1):
        if (
            1 < len(line) <= MAX_HEADING
            and ("第" in line or UNNUMBERED.match(line))
            and (chapter := read_heading(line))
        ):
            chapter.line = number
            found.append(chapter)
    for kind in KINDS:
        if sum(chapter.unit in kind for chapter in found if chapter.unit) >= MIN_HEADINGS:
            return [chapter for chapter in found if not chapter.unit or chapter.unit in kind]
    return []


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

    for number in (chapter.number for chapter in headings if chapter.number is not None):
        if number <= 1 and highest > 1 and number in seen:
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
    if total <= PART:
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
