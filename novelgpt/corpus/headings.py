"""One clean line -> the heading it is, with its number, or no heading.

A heading is a short line `[volume] 第 number 回|章|节|… [title]`, or one of the words that stand for a number::

    第一回　甄士隐梦幻识通灵      第 十一 回　title      第300章title      正文 第０１２章      ☆、第①章
    上卷 第一一九回 title         第十三卷 v 第2040章 title               【第两百廿三章】      楔子

Other kinds of headings are told by the whole book only: families.py.
"""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

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
BLANK = " \u3000"  # in a clean line
VOLUME = (
    rf"(?:[上中下][卷部册冊篇]|正文|卷[{BLANK}]?[{NUMBER}]+|第[{BLANK}]?[{NUMBER}]+[{BLANK}]?(?:部分|[卷部集篇册冊]))"
)
DECORATION = r"[#＃*＊=＝\-【\[(（《<☆★◆■●、\s]*"
HEADING = re.compile(
    rf"^{DECORATION}(?P<volume>{VOLUME}(?:[\s:：·【][^\n。！？]{{0,20}}?)?\s*)?{COUNTED}"
    rf"(?P<unit>[回章节節集话話幕卷部篇])(?![合课課目日车車点分家队隊落份件程])(?P<title>[^\n]{{0,{MAX_HEADING}}})$",
    re.MULTILINE,
)
VOLUME_LINE = re.compile(rf"^{DECORATION}{VOLUME}(?:[\s:：·][^\n。，；！？]{{0,20}})?[】\])）》>]*$")
# blanks are written out, so that in a whole text nothing runs into the next line
UNNUMBERED = re.compile(
    rf"^[☆★◆■●、{BLANK}]*(?:{VOLUME}[{BLANK}]*)?(?:楔[{BLANK}]?子|序章|序幕|引[{BLANK}]?子|尾[{BLANK}]?[声聲]|[终終]章"
    rf"|[后後][{BLANK}]?[记記]|大[结結]局|番外[^\s。，！？：；“”]{{0,6}})(?:[{BLANK}:：][^\n。，；]{{0,25}})?$",
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
SENTENCE_END = re.compile(r"[。！？!?…][”’」』）)]*")
# what is a heading only among others that are like it
ROMAN = {"I": 1, "V": 5, "X": 10, "L": 50, "C": 100}
NUMBERED = re.compile(
    rf"^(?P<prefix>[^\d①-⑳{CHINESE_NUMBER}\s，。！？；：“”…（(【\[][^\d①-⑳{CHINESE_NUMBER}，。！？；：“”…（(【\[]{{0,11}}|)"
    rf"(?P<open>[【\[(（〔〖《]?)\s*(?P<number>\d{{1,5}}|[{CHINESE_NUMBER}]+|[①-⑳])(?P<close>\s*[】\])）〕〗》]|)"
    rf"(?P<unit>[{CHAPTER_UNITS}]?)(?P<point>[\s、.．:：,，·‧・\-—_|｜>]*)(?P<title>.*)$"
)
FIRST_NUMBER = re.compile(rf".{{0,14}}?[\d①-⑳{CHINESE_NUMBER}]")  # quicker than what follows it
ROMAN_NUMBER = re.compile(r"^(?P<number>[IVXLC]{1,7})(?:[\s.、．]+(?P<title>.*))?$")
CHAPTER = re.compile(rf"^(?P<prefix>.*?){COUNTED}(?P<unit>[回章节節话話幕])(?P<title>.*)$")
VOLUME_CHAPTER = re.compile(rf"^(?P<prefix>.*?){COUNTED}(?P<unit>[集卷部篇])(?P<title>.*)$")
SENTENCE = re.compile("[。！？；“”「」：，…]")
DIGIT = re.compile(rf"[\d{CHINESE_NUMBER}]+")
NO_HEADING_END = tuple("。．；，：;,:、")


@dataclass(frozen=True)
class Heading:
    """One heading as found."""

    line: int  # number of its line, from 1
    text: str  # the line itself, a volume line above it in front
    number: int | None  # None for 楔子, 尾声 and the like
    unit: str  # 回, 章, …, or what a family's headings share; empty for a heading without a number
    title: str  # what follows the number


@dataclass(frozen=True)
class Section:
    """A part of a book as its file divides it, most often a chapter."""

    title: str  # "" where there is none
    text: str  # paragraphs divided by line breaks


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


def read_numbered(line: str, number: int = 0) -> tuple[Heading, tuple] | None:
    """Read a line as a numbered heading of any family, and give the key of the family; None where it is none.

    >>> lines = ("（十二）", "part 3 门", "2|【02】", "卷之一　香客", "XIV", "番外 第8章，雪")
    >>> [read_numbered(line)[0].number for line in lines]
    [12, 3, 2, 1, 14, 8]
    >>> read_numbered("一个人走来") is None
    True
    """
    for pattern in (CHAPTER, VOLUME_CHAPTER) if "第" in line else ():
        if match := pattern.match(line):
            prefix = DIGIT.sub("", match["prefix"])
            if len(match["number"]) <= MAX_NUMBER and not SENTENCE.search(prefix):
                key = ("第", match["unit"], "".join(re.findall(r"\w", prefix))[:2])
                return Heading(number, line, parse_number(match["number"]), match["unit"], match["title"].strip()), key
    if match := ROMAN_NUMBER.match(line):
        return Heading(number, line, parse_roman(match["number"]), "I", match["title"] or ""), ("I", "")
    match = NUMBERED.match(line) if FIRST_NUMBER.match(line) else None
    if not match or len(match["number"]) > MAX_NUMBER or len(match["title"]) > MAX_HEADING:
        return None
    return read_loosely(match, line, number)


def read_loosely(match: re.Match[str], line: str, number: int) -> tuple[Heading, tuple] | None:
    """Read a match of NUMBERED; None where the number is a part of a sentence."""
    prefix, title = match["prefix"].strip("、 \u3000.-_之").casefold(), match["title"]
    kind = "0" if match["number"].isdigit() else "一"
    # what parts the number from the title: a bracket, a unit, a point, a blank; digits may stand right before a title
    is_parted = match["close"] or match["unit"] or match["point"] or not title or title[0] in "（(【[《"
    is_direct = not is_parted and kind == "0" and len(title) <= MAX_HEADING // 2 and not SENTENCE.search(title)
    if not (is_parted or is_direct) or "。" in title or (not prefix and match["point"].strip() in ("，", ",")):
        return None
    style = (match["open"], match["unit"], "" if prefix else "direct" if is_direct else match["point"].strip()[:1])
    heading = Heading(number, line, parse_number(match["number"]), match["unit"] or prefix or kind, title)
    return heading, (prefix, kind, *style)


def parse_roman(text: str) -> int:
    """Read a Roman number.

    >>> [parse_roman(text) for text in ("III", "XIV", "XLIX")]
    [3, 14, 49]
    """
    values = [ROMAN[char] for char in text]
    return sum(-one if one < two else one for one, two in zip(values, [*values[1:], 0], strict=True))


def volume_of(heading: str) -> str:
    """Give what a heading says of the volume in front of its number, or "".

    >>> volume_of("第二卷 风起 第一章 山村")
    '第二卷 风起'
    """
    match = HEADING.match(heading)
    return (match["volume"] or "").strip() if match else ""


def find_headings(lines: Sequence[str]) -> list[Heading]:
    """Find the lines of a clean text that look like headings, tables of contents and doubled ones included.

    >>> [(heading.line, heading.number) for heading in find_headings(["第一章 山村", "他走了。", "第2章"])]
    [(1, 1), (3, 2)]
    """
    unnumbered = set(unnumbered_lines(lines))
    return [
        heading
        for number, line in enumerate(lines, 1)
        if ("第" in line or number in unnumbered)
        and 1 < len(line) <= MAX_HEADING + MAX_VOLUME
        and (heading := read_heading(line, number))
    ]


def unnumbered_lines(lines: Sequence[str]) -> list[int]:
    """List the lines, from 1, that begin with one of the words that stand for a number.

    >>> unnumbered_lines(["楔子", "他走了。", "后记"])
    [1, 3]
    """
    # one search over the whole text
    text, found, number, last = "\n".join(lines), [], 1, 0
    for match in UNNUMBERED.finditer(text):
        number += text.count("\n", last, match.start())
        last = match.start()
        found.append(number)
    return found


def dividing_headings(headings: Sequence[Heading]) -> list[Heading]:
    """Choose the headings of the first of UNIT_LEVELS with two or more, and those without a number; else none.

    A level that has but a single number says something else: 第一集团军, 第一卷起.
    """
    for level in UNIT_LEVELS:
        numbers = [heading.number for heading in headings if heading.unit and heading.unit in level]
        if len(numbers) >= MIN_HEADINGS and (len(set(numbers)) > 1 or len(numbers) == MIN_HEADINGS):
            return [heading for heading in headings if not heading.unit or heading.unit in level]
    return []
