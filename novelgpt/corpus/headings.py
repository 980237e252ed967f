"""One clean line -> the heading it is, with its number, or no heading.

A heading is a short line `[volume] 第 number 回|章|节|… [title]`, or one of the words that stand for a number::

    第一回　甄士隐梦幻识通灵      第 十一 回　title      第300章title      正文 第０１２章      ☆、第①章
    上卷 第一一九回 title         第十三卷 v 第2040章 title               【第两百廿三章】      楔子

Other kinds of headings are told by the whole book only: families.py.
"""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from novelgpt.corpus.patterns import matching_lines

MAX_HEADING = 45  # characters, a volume in front not counted
MAX_VOLUME = 35  # characters of the volume in front
MIN_HEADINGS = 2  # fewer headings of a kind do not divide a text
MAX_NUMBER = 12  # characters of a number
CHINESE_NUMBER = "〇零○一二三四五六七八九十百千万两廿卅壹贰叁肆伍陆柒捌玖拾佰仟"
NUMBER = f"0-9０-９①-⑳{CHINESE_NUMBER}"
DIGITS = dict(zip("〇零○一二三四五六七八九两", (0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 2), strict=True))
UNITS = {"十": 10, "百": 100, "千": 1_000, "万": 10_000}
PLAIN_NUMBER = str.maketrans(dict(zip("壹贰叁肆伍陆柒捌玖拾佰仟", "一二三四五六七八九十百千", strict=True)))
CHAPTER_UNITS = "回章节節集话話幕"
UNIT_LEVELS = ("回章", "节節集話话幕", "卷部篇")  # the first level of which there are headings divides the text
COUNTED = rf"第\s*(?P<number>[{NUMBER}](?:\s*[{NUMBER}])*)\s*"
VOLUME = rf"(?:[上中下][卷部册冊篇]|正文|卷\s?[{NUMBER}]+|第\s?[{NUMBER}]+\s?(?:部分|[卷部集篇册冊]))"
DECORATION = r"[#＃*＊=＝\-【\[(（《<☆★◆■●、\s]*"
HEADING = re.compile(
    rf"^{DECORATION}(?P<volume>{VOLUME}(?:[\s:：·【][^\n。！？]{{0,20}}?)?\s*)?{COUNTED}"
    rf"(?P<unit>[回章节節集话話幕卷部篇])(?![合课課目日车車点分家队隊落份件程])(?P<title>[^\n]{{0,{MAX_HEADING}}})$",
    re.MULTILINE,
)
VOLUME_LINE = re.compile(rf"^{DECORATION}{VOLUME}(?:[\s:：·][^\n。，；！？]{{0,20}})?[】\])）》>]*$")
UNNUMBERED = re.compile(
    rf"^[☆★◆■●、\s]*(?:{VOLUME}\s*)?(?:楔\s?子|序章|序幕|引\s?子|尾\s?[声聲]|[终終]章|[后後]\s?[记記]|大[结結]局|番外[^\s。，！？：；“”]{{0,6}})"
    r"(?:[\s:：][^\n。，；]{0,25})?$",
    re.MULTILINE,
)
# headings of what stands before the first chapter
FRONT = re.compile(
    r"^[^\s，。！？：；“”]{0,12}(?:[自代译譯原新]?\s?序\s?[言一二三四]?|[前引]\s?言)[：:]?(?:\s[^。！？；]{0,20})?$"
)
# where a large text is cut into blocks: in front of a line that begins like a heading
HEADING_START = re.compile(rf"[\n\r]\s*(?=[^\s第]{{0,12}}\s*{COUNTED}[回章节節集话話][^\n\r]{{0,40}}[\n\r])")
INNER = re.compile(rf"{COUNTED}[回章节節话話]")
END_OF_VOLUME = re.compile(r"^\s*[（(【\[]?(?:[全已]?[完终終]|[完终終]结|[结結]束)\W*$")
NO_HEADING_END = tuple("。．；，：;,:、")


@dataclass(frozen=True)
class Heading:
    """One heading as found."""

    line: int  # number of its line, from 1
    text: str  # the line itself, a volume line above it in front
    number: int | None  # None for 楔子, 尾声 and the like
    unit: str  # 回, 章, …, or what a family's headings share; empty for a heading without a number
    title: str  # what follows the number


def parse_number(text: str) -> int:
    """Read a chapter number in digits or Chinese, positional or with units.

    >>> [parse_number(text) for text in ("012", "３", "一 百零八", "百十九", "一一九", "两千零四十", "廿三", "卅", "⑫")]
    [12, 3, 108, 119, 119, 2040, 23, 30, 12]
    """
    text = re.sub(r"\s", "", text).translate(PLAIN_NUMBER).replace("廿", "二十").replace("卅", "三十")
    if not any(char in UNITS for char in text):
        return int("".join(str(digit_of(char)) for char in text))
    # with units: 万 multiplies all before it, 十 百 千 the digit before them, which is 1 where there is none
    total, section, digit = 0, 0, ""
    for char in text:
        if char == "万":
            total, section, digit = (total + section + int(digit or 0)) * UNITS[char], 0, ""
        elif char in UNITS:
            section, digit = section + int(digit or 1) * UNITS[char], ""
        else:
            digit += str(digit_of(char))
    return total + section + int(digit or 0)


def digit_of(char: str) -> int:
    """Return the value of a digit; a circled one may be up to 20."""
    return DIGITS[char] if char in DIGITS else int(unicodedata.numeric(char))


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
        if len(line) - len(match["volume"] or "") > MAX_HEADING or len(match["number"]) > MAX_NUMBER:
            return None
        is_volume = match["unit"] in "集卷部篇"
        if match["title"].lstrip().startswith((",", "，", "、", "。", "．")):
            return None
        if is_volume and (INNER.search(match["title"]) or END_OF_VOLUME.match(match["title"])):
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
        if 1 < len(line) <= MAX_HEADING + MAX_VOLUME
        and ("第" in line or UNNUMBERED.match(line))
        and (heading := read_heading(line, number))
    ]


def matching_headings(lines: Sequence[str], expression: str, numbers: Iterable[int] | None = None) -> list[Heading]:
    """Find the lines that match a reader's expression, with the first number in each; numbers: as for find_headings.

    >>> matching_headings(["卷首", "【三】门", "他走了。"], "^【")
    [Heading(line=2, text='【三】门', number=3, unit='回', title='【三】门')]
    """
    asked = range(1, len(lines) + 1) if numbers is None else sorted(numbers)
    found = matching_lines(expression, [lines[number - 1] for number in asked])
    headings = []
    for number in (asked[place] for place in found if lines[asked[place] - 1]):
        line = lines[number - 1]
        counted = re.search(f"[{NUMBER}]+", line)
        value = parse_number(counted.group()) if counted and len(counted.group()) <= MAX_NUMBER else None
        headings.append(Heading(number, line, value, CHAPTER_UNITS[0] if value is not None else "", line))
    return headings


def dividing_headings(headings: Sequence[Heading]) -> list[Heading]:
    """Choose the headings of the first of UNIT_LEVELS with two or more, and those without a number; else none.

    A level that has but a single number says something else: 第一集团军, 第一卷起.
    """
    for level in UNIT_LEVELS:
        numbers = [heading.number for heading in headings if heading.unit and heading.unit in level]
        if len(numbers) >= MIN_HEADINGS and (len(set(numbers)) > 1 or len(numbers) == MIN_HEADINGS):
            return [heading for heading in headings if not heading.unit or heading.unit in level]
    return []
