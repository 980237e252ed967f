"""Clean lines -> one document per chapter, the heading as its first line.

A heading is a short line `[volume] 第 number 回|章|节|… [title]`::

    第一回　甄士隐梦幻识通灵      第 十一 回　title      第300章title      正文 第０１２章
    上卷 第一一九回 title         第十三卷 v 第2040章 title               【第两百廿三章】

Headings that only list what comes later are a table of contents, and of a heading that stands twice one is enough. A
volume line of its own (`第一部分`, `上卷 风起`) goes in front of the heading below it. Text before the first heading
is a document of its own. A text without headings is split where blank lines are rare enough to mean something, else
into even parts at paragraph ends, and the result says so.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice

MAX_HEADING = 45  # characters, a volume in front not counted
MAX_VOLUME = 35  # characters of the volume in front
MIN_HEADINGS = 2  # fewer headings of a kind do not divide a text
NUMBER = "0-9０-９〇零○一二三四五六七八九十百千万两廿卅"
DIGITS = dict(zip("〇零○一二三四五六七八九两", (0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 2), strict=True))
UNITS = {"十": 10, "百": 100, "千": 1_000, "万": 10_000}
UNIT_LEVELS = ("回章", "节節集话話幕", "卷部篇")  # the first level of which there are headings divides the text
COUNTED = rf"第\s*(?P<number>[{NUMBER}](?:\s*[{NUMBER}])*)\s*"
VOLUME = rf"(?:[上中下][卷部册冊篇]|正文|卷\s?[{NUMBER}]+|第\s?[{NUMBER}]+\s?(?:部分|[卷部集篇册冊]))"
DECORATION = r"[#＃*＊=＝\-【\[(（《<☆★◆■●\s]*"
HEADING = re.compile(
    rf"^{DECORATION}(?P<volume>{VOLUME}(?:[\s:：·][^\n第。！？]{{0,20}})?\s*)?{COUNTED}"
    rf"(?P<unit>[回章节節集话話幕卷部篇])(?![合课課目日车車点分家队隊落份件])(?P<title>[^\n]{{0,{MAX_HEADING}}})$",
    re.MULTILINE,
)
VOLUME_LINE = re.compile(rf"^{DECORATION}{VOLUME}(?:[\s:：·][^\n。，；！？]{{0,20}})?[】\])）》>]*$")
UNNUMBERED = re.compile(
    r"^(?:楔子|序章|序幕|引子|尾[声聲]|[终終]章|后记|後記|大[结結]局|番外[^\s。，！？：；“”]{0,6})(?:[\s:：][^\n。，；]{0,25})?$",
    re.MULTILINE,
)
# where a large text is cut into blocks: in front of a line that begins like a heading
HEADING_START = re.compile(rf"[\n\r]\s*(?=[^\s第]{{0,12}}\s*{COUNTED}[回章节節集话話][^\n\r]{{0,40}}[\n\r])")
NO_HEADING_END = tuple("。．；，：;,:、")
MAX_LISTED = 15  # characters of text below a heading that is only listed in a table of contents
MAX_BETWEEN = 400  # characters, of menus and the like, between the two of a doubled heading
EVEN_PART = 5_000  # characters
MIN_SECTION = 500  # characters; sections between blank lines must be longer on average
MAX_NUMBERS = 1_000  # odd chapter numbers of each kind
CONTENTS_WORD = re.compile(r"^[【\[]?\s*目\s*[录錄]\s*[】\]]?$")
PUNCTUATION = re.compile(r"[\W_]+")
CONTENTS, DOUBLED = "table of contents", "heading doubled"


@dataclass(frozen=True)
class Heading:
    """One heading as found."""

    line: int  # number of its line, from 1
    text: str  # the line itself, a volume line above it in front
    number: int | None  # None for 楔子, 尾声 and the like
    unit: str  # 回, 章, …; empty for a heading without a number
    title: str  # what follows the number


def parse_number(text: str) -> int:
    """Read a chapter number in digits or Chinese, positional or with units.

    >>> [parse_number(text) for text in ("012", "３", "一 百零八", "百十九", "一一九", "两千零四十", "廿三", "卅")]
    [12, 3, 108, 119, 119, 2040, 23, 30]
    """
    text = re.sub(r"\s", "", text).replace("廿", "二十").replace("卅", "三十")
    if not any(char in UNITS for char in text):
        return int("".join(str(DIGITS[char]) if char in DIGITS else char for char in text))
    # with units: 万 multiplies all before it, 十 百 千 the digit before them, which is 1 where there is none
    total, section, digit = 0, 0, ""
    for char in text:
        if char == "万":
            total, section, digit = (total + section + int(digit or 0)) * UNITS[char], 0, ""
        elif char in UNITS:
            section, digit = section + int(digit or 1) * UNITS[char], ""
        else:
            digit += str(DIGITS[char]) if char in DIGITS else str(int(char))
    return total + section + int(digit or 0)


def read_heading(line: str, number: int = 0) -> Heading | None:
    """Read one stripped line, of this number, as a heading; None when it is not one.

    >>> read_heading("上卷 第一一九回  中乡魁宝玉却尘缘").number
    119
    >>> read_heading("第四回中既将薛家母子在荣府内寄居等事略已表明，此回则暂不能写矣。") is None
    True
    """
    if len(line) > MAX_HEADING + MAX_VOLUME or line.endswith(NO_HEADING_END):
        return None
    # a sentence may begin like a heading: it is too long, or continues after the number with a comma
    if match := HEADING.match(line):
        if len(line) - len(match["volume"] or "") > MAX_HEADING or len(match["number"]) > 12:
            return None
        if match["title"].lstrip().startswith((",", "，", "、", "。", "．")):
            return None
        return Heading(number, line, parse_number(match["number"]), match["unit"], match["title"].strip())
    return Heading(number, line, None, "", line) if UNNUMBERED.match(line) else None


def volume_of(heading: str) -> str:
    """Give what a heading says of the volume in front of its number, or "".

    >>> volume_of("第二卷 风起 第一章 山村")
    '第二卷 风起'
    """
    match = HEADING.match(heading)
    return (match["volume"] or "").strip() if match else ""


def find_headings(lines: Sequence[str], numbers: Iterable[int] | None = None) -> list[Heading]:
    """Find the lines of a clean text that look like headings, tables of contents and doubled ones included.

    Args:
        lines: the lines, edges stripped.
        numbers: the lines to look at, from 1, in the order of the result; None for all.

    >>> [(heading.line, heading.number) for heading in find_headings(["第一章 山村", "他走了。", "第2章"])]
    [(1, 1), (3, 2)]
    """
    asked = enumerate(lines, 1) if numbers is None else ((number, lines[number - 1]) for number in numbers)
    return [
        heading
        for number, line in asked
        if 1 < len(line) <= MAX_HEADING
        and ("第" in line or UNNUMBERED.match(line))
        and (heading := read_heading(line, number))
    ]


def dividing_headings(headings: Sequence[Heading]) -> list[Heading]:
    """Choose the headings of the first of UNIT_LEVELS with two or more, and those without a number; else none."""
    for level in UNIT_LEVELS:
        if sum(heading.unit in level for heading in headings if heading.unit) >= MIN_HEADINGS:
            return [heading for heading in headings if not heading.unit or heading.unit in level]
    return []


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


def split_chapters(
    text: str | list[str], *, starts: Sequence[int] | None = None, headings: list[Heading] | None = None
) -> Chapters:
    r"""Split a clean text into documents without blank lines; a text of blanks gives none.

    Args:
        text: a text or its lines, edges stripped; blank lines help where there are no headings.
        starts: the indices of lines that begin documents already, as the elements of a JSON list do, and stay borders
            whether there are headings or not. None for the text of one file.
        headings: what dividing_headings gives for these lines; None finds them.

    >>> split_chapters("序言\n\n第一章 山村\n他走了。\n\n第二章 城\n她来了。").documents
    ['序言', '第一章 山村\n他走了。', '第二章 城\n她来了。']
    """
    lines = text.split("\n") if isinstance(text, str) else text
    headings = dividing_headings(find_headings(lines)) if headings is None else headings
    borders: dict[int, Heading | None] = dict.fromkeys(starts or [0])
    result = Chapters()
    if not headings:
        result.how = f"no chapter headings: {len(borders):,} documents as they came"
        fill_documents(lines, borders if starts else dict.fromkeys(divide_plain(lines, result)), result)
        return result

    # what is listed or stands twice goes first; the headings left are the borders, beside those there were before
    headings = drop_contents(lines, headings, result)
    headings = drop_doubled(lines, headings, result)
    gone = {line - 1 for line, _, _ in result.removed}
    lines = ["" if index in gone else line for index, line in enumerate(lines)]
    fill_documents(lines, borders | place_volumes(lines, headings), result)
    result.how = f"{len(result.found):,} headings such as 「{result.found[0].text}」"
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


def text_below(lines: list[str], headings: list[Heading]) -> list[int]:
    """Count the characters between each heading and the next, volume lines and the word 目录 left out."""
    ends = [heading.line - 1 for heading in headings[1:]] + [len(lines)]
    below = (lines[heading.line : end] for heading, end in zip(headings, ends, strict=True))
    return [
        sum(len(line) for line in part if line and not VOLUME_LINE.match(line) and not CONTENTS_WORD.match(line))
        for part in below
    ]


def drop_contents(lines: list[str], headings: list[Heading], result: Chapters) -> list[Heading]:
    """Remove tables of contents, with the word 目录 and the volume lines that stand among them or just above."""
    listed = find_contents(headings, text_below(lines, headings))
    if not listed:
        return headings
    result.removed += [(headings[index].line, headings[index].text, CONTENTS) for index in listed]
    # the word 目录 may stand a few lines above the list, a volume line just above
    first, last = headings[listed[0]].line, headings[listed[-1]].line
    for number in range(max(1, first - 5), last + 1):
        line = lines[number - 1]
        if CONTENTS_WORD.match(line) or (number > first - 3 and line and VOLUME_LINE.match(line)):
            result.removed.append((number, line, CONTENTS))
    result.removed.sort()
    chosen = set(listed)
    return [heading for index, heading in enumerate(headings) if index not in chosen]


def find_contents(headings: list[Heading], lengths: list[int]) -> list[int]:
    """List the headings, by index, of runs of three or more without text whose chapters stand elsewhere."""
    keys = [(heading.number, heading.unit) for heading in headings]
    with_text = {key for key, length in zip(keys, lengths, strict=True) if length > MAX_LISTED}
    listed: list[int] = []
    start = 0
    while start < len(headings):
        end = start
        while end < len(headings) and lengths[end] <= MAX_LISTED:
            end += 1
        # The last entry of a contents list has text below it only because it is the last: it counts when its
        # chapter comes once more.
        if start < end < len(headings) and keys[end] in keys[end + 1 :]:
            end += not same_heading(headings[end], headings[end - 1])
        run = range(start, end)
        known = sum(keys[index] in with_text for index in run)
        if len(run) >= 3 and known >= 0.8 * len(run):
            listed.extend(run)
        start = max(end, start + 1)
    return listed


def same_heading(one: Heading, other: Heading) -> bool:
    """Tell whether two headings name the same chapter: one number, and titles that agree as far as both have one."""
    if (one.number, one.unit) != (other.number, other.unit):
        return False
    first, second = (PUNCTUATION.sub("", heading.title) for heading in (one, other))
    return first.startswith(second) or second.startswith(first)


def drop_doubled(lines: list[str], headings: list[Heading], result: Chapters) -> list[Heading]:
    """Of neighbouring headings that name the same chapter, with little between them, keep the fuller one."""
    kept: list[Heading] = []
    lengths = dict(zip((heading.line for heading in headings), text_below(lines, headings), strict=True))
    for heading in headings:
        if kept and same_heading(kept[-1], heading) and lengths[kept[-1].line] <= MAX_BETWEEN:
            former = kept.pop()
            fuller = len(former.text) < len(heading.text) and not lengths[former.line]
            heading, lesser = (heading, former) if fuller else (former, heading)
            result.removed.append((lesser.line, lesser.text, DOUBLED))
        kept.append(heading)
    return kept


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
        if index not in starts and index > headings[0].line and line and VOLUME_LINE.match(line):
            starts[index] = None
    return starts


def divide_plain(lines: list[str], result: Chapters) -> list[int]:
    """Choose where documents start in a text without headings."""
    total = sum(map(len, lines))
    if total <= EVEN_PART or sum(map(bool, lines)) == 1:
        result.how = "no chapter headings: kept as one document"
        return [0]
    # the smallest gap that is rare enough to mean something
    for gap in (1, 2, 3):
        starts = section_starts(lines, gap)
        if len(starts) >= 2 and total / len(starts) >= MIN_SECTION:
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
        if len(starts) < num_parts and passed >= len(starts) * total / num_parts and index > starts[-1]:
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
