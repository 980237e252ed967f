"""Which lines of a clean text are chapter headings, and what their numbers are.

A heading is a short line `[volume] 第 number 回|章|节|… [title]`::

    第一回　甄士隐梦幻识通灵      第 十一 回　title      第300章title      正文 第０１２章
    上卷 第一一九回 title         第十三卷 v 第2040章 title               【第两百廿三章】
"""

import re
from dataclasses import dataclass

MAX_HEADING = 45  # characters, a volume in front not counted
MAX_VOLUME = 35  # characters of the volume in front
MIN_HEADINGS = 2  # fewer headings of a kind do not divide a text
NUMBER = "0-9０-９〇零○一二三四五六七八九十百千万两廿卅"
DIGITS = dict(zip("〇零○一二三四五六七八九两", (0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 2), strict=True))
UNITS = {"十": 10, "百": 100, "千": 1_000, "万": 10_000}
KINDS = ("回章", "节節集话話幕", "卷部篇")  # from the chapter down to what divides a text that has nothing else
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
NO_HEADING_END = tuple("。．；，：;,:、")


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
    if len(line) > MAX_HEADING + MAX_VOLUME or line.endswith(NO_HEADING_END):
        return None
    if match := HEADING.match(line):
        if len(line) - len(match["volume"] or "") > MAX_HEADING or len(match["number"]) > 12:
            return None
        if match["title"].lstrip().startswith((",", "，", "、", "。", "．")):
            return None
        return Chapter(0, line, parse_number(match["number"]), match["unit"], match["title"].strip())
    if UNNUMBERED.match(line):
        return Chapter(0, line, None, "", line)
    return None


def volume_of(heading: str) -> str:
    """Give what a heading says of the volume in front of its number; empty when nothing.

    >>> volume_of("第二卷 风起 第一章 山村")
    '第二卷 风起'
    """
    match = HEADING.match(heading)
    return (match["volume"] or "").strip() if match else ""


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
