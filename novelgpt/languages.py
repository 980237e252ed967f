r"""English messages -> Chinese ones, where the reader's language is Chinese. Files, logs and exceptions stay English.

The table chinese.po is in gettext's format. A msgid is a message as it stands in the code, {} for every value in it;
the msgstr has as many {}, or {1} and {0} where the Chinese wants another order::

    msgid "{}: no such folder, expected {}"
    msgstr "{}：没有这个文件夹，这里应为{}"

A single word of a page or a bar has `msgctxt "page"` or "bar" above it. A value may be a message itself (a range, a
reason), and so may each part of a list or of a text of several lines.
"""

import json
import locale
import os
import re
from collections.abc import Iterator
from functools import cache, lru_cache
from pathlib import Path

LANGUAGES = ("zh", "en")
VARIABLES = ("LANGUAGE", "LC_ALL", "LC_MESSAGES", "LANG")  # the first one that is set decides, as in gettext
ENTRY = re.compile(r'^(?:msgctxt "(\w+)"\n)?msgid ((?:".*"\n)+)msgstr ((?:".*"\n?)+)', re.MULTILINE)
CONTEXT = "\x04"  # stands between a row's context and its message, as in gettext
WORD = re.compile(r"[A-Za-z]{2}|\b[hs]\b")  # without one there is nothing to translate
NUMBERS = re.compile(r"[\dA-FU+,.:%–…× ]+")  # a list of counts and code points
VALUE = re.compile(r"( ?)\{(\d*)\}( ?)")
WIDE = "\u2e80"  # what comes behind it is Chinese, or stands in Chinese text
FEW_LETTERS = 7
GAP = re.compile(r"(?<=\S)( {2,})(?=\S)")  # between columns
LONGEST = 4000  # characters of a message; what is longer is a text that is shown
MANY = 20  # parts of a list that are no longer tried together
COUNTED = re.compile(r"([\d,]+ )?(.+?)( [\d,–]+(?: …)?)?", re.DOTALL)
EDGES = re.compile(r"([,;]? +|[ \n]*)(.*?)([ \n]*)", re.DOTALL)
SEPARATORS = {"\n\n": "\n\n", "\n": "\n", "; ": "；", ": ": "：", ", ": "，"}


def language() -> str:
    """Return the language of the reader, "zh" or "en", by the environment, else by the settings of the system."""
    for name in VARIABLES:
        if os.environ.get(name):
            return choose_language(os.environ[name])
    return choose_language(locale.setlocale(locale.LC_CTYPE))  # asks only; Windows sets no such variable


def choose_language(names: str) -> str:
    """Return the first language of ours among those of a setting; English where there is none.

    >>> [choose_language(names) for names in ("zh_CN.GBK", "fr:zh:en", "en_US:zh_CN", "Chinese_China.936", "C")]
    ['zh', 'zh', 'en', 'zh', 'en']
    """
    for name in names.lower().split(":"):
        if name.startswith(("zh", "chinese")):
            return "zh"
        if name.startswith("en") or name in ("c", "posix"):
            return "en"
    return "en"


def localize(text: str, *, context: str = "") -> str:
    """Return a message in the reader's language; what the table does not know stays as it is.

    Args:
        text: the message in English.
        context: "page" or "bar" for a single word of a page or a bar, which elsewhere may be the name of something.
    """
    return text if language() == "en" else translate(text, context=context)


def translate(text: str, *, context: str = "") -> str:
    """Return a message in Chinese, whoever reads: a page holds both languages; context as of localize."""
    return chinese_table().get(f"{context}{CONTEXT}{text}") or to_chinese(text)


def read_table(text: str) -> dict[str, str]:
    r"""Return the rows of a .po file, msgid -> msgstr.

    >>> read_table('msgid ""\n"{} h "\n"{} min"\nmsgstr "{} 小时 {} 分"\n')
    {'{} h {} min': '{} 小时 {} 分'}
    """
    rows = ((context + CONTEXT * bool(context), *map(join_lines, row)) for context, *row in ENTRY.findall(text))
    return {context + source: target for context, source, target in rows}


def join_lines(quoted: str) -> str:
    """Return the text of quoted lines of a .po file."""
    return "".join(json.loads(line) for line in quoted.splitlines())


@cache
def chinese_table() -> dict[str, str]:
    """Return the table, messages without values and with them."""
    table = read_table(Path(__file__).with_name("chinese.po").read_text(encoding="utf-8"))
    del table[""]  # its head
    return table


@cache
def templates() -> list[list[str]]:
    """Return what stands around the values of each message, the message with the most such letters first."""
    messages = (message.split("{}") for message in chinese_table() if "{}" in message)
    return sorted(messages, key=lambda parts: -sum(map(len, parts)))


@lru_cache(10_000)
def to_chinese(text: str) -> str:
    """Return a message in Chinese: of all ways to read it the one that leaves the least English.

    Of equal ways it is the simplest: a single message, several in a row, a message whose value is several.
    """
    if NUMBERS.fullmatch(text):
        return text.replace(", ", SEPARATORS[", "])
    if text in chinese_table() or not WORD.search(text):
        return chinese_table().get(text, text)
    # a message may be part of another one, behind a comma or between blanks
    before, words, after = EDGES.fullmatch(text).groups()
    if words != text:
        return SEPARATORS.get(before, before) + to_chinese(words) + after
    ways = [*fill_templates(text), (1, text), *((2, way) for way in translate_parts(text))]
    return min(ways, key=lambda way: (sum(char.isascii() and char.isalpha() for char in way[1]), way[0]))[1]


def fill_templates(text: str) -> Iterator[tuple[int, str]]:
    """Yield the Chinese of each message that a text may be, 0 before it; 3 where a value would be several messages."""
    for parts in templates():
        if (values := match_values(parts, text)) is None:
            continue
        # a few letters between two values are no message if these are whole sentences
        is_weak = not parts[0] and not parts[-1] and len("".join(parts).replace(" ", "")) < FEW_LETTERS
        most = 3 if is_weak else len(text)  # blanks in a value
        if not any(GAP.search(value) or value.count(" ") > most for value in values):
            chinese = fill(chinese_table()["{}".join(parts)], [to_chinese(value) for value in values])
            yield 3 * any("; " in value or ", " in value for value in values), chinese
    # lists of counts have "control characters 12"
    before, name, after = COUNTED.fullmatch(text).groups("")
    if name in chinese_table():
        yield 0, before + chinese_table()[name] + after


def match_values(parts: list[str], text: str) -> tuple[str, ...] | None:
    """Return the values in a text that the parts stand around; None where it is another text."""
    is_candidate = text.startswith(parts[0]) and text.endswith(parts[-1]) and all(part in text for part in parts)
    if not is_candidate or len(text) > LONGEST:
        return None
    # only what has several lines itself may match several lines
    flags = re.DOTALL if any("\n" in part for part in parts) else 0
    found = re.fullmatch("(.*?)".join(map(re.escape, parts)), text, flags)
    return found.groups() if found else None


def fill(message: str, values: list[str]) -> str:
    """Put values into a Chinese message, without the blanks between two Chinese characters.

    >>> fill("得到 {} ，应为 {}", ["x", "整数"]), fill("{1} 的 {0}", ["数", "大于 0"])
    ('得到 x ，应为整数', '大于 0 的数')
    """
    rest = iter(values)

    def put(match: re.Match[str]) -> str:
        value = values[int(match[2])] if match[2] else next(rest)
        if not value:
            return match[1] if match[3] else ""
        left, right = message[: match.start()][-1:], message[match.end() :][:1]
        before = "" if left > WIDE and value[:1] > WIDE else match[1]
        return before + value + ("" if value[-1:] > WIDE and right > WIDE else match[3])

    return VALUE.sub(put, message)


def translate_parts(text: str) -> Iterator[str]:
    """Yield the Chinese of a text that is several messages: paragraphs, lines, or a list that a separator divides."""
    if len(columns := GAP.split(text)) > 1:
        yield join_columns(columns)
    for separator, chinese in SEPARATORS.items():
        pieces = text.split(separator)
        if len(pieces) > MANY or (len(pieces) > 1 and "\n" in separator):
            yield chinese.join(map(to_chinese, pieces))
            return
        if separator == ", " and len(pieces) > 2:
            yield chinese.join(map(to_chinese, pieces))  # where nothing reads better, all commas of a list are alike
        # one of the messages may hold the separator itself
        for place in range(1, len(pieces)):
            halves = (separator.join(pieces[:place]), separator.join(pieces[place:]))
            yield chinese.join(map(to_chinese, halves))


def join_columns(columns: list[str]) -> str:
    """Return the Chinese of columns with gaps between them, as wide as they were: a Chinese character takes two cells.

    >>> join_columns(["memory:", "    ", "line 3:"])
    '内存：     第 3 行：'
    """
    line = ""
    for column, gap in zip(columns[::2], [*columns[1::2], ""], strict=True):
        shown = to_chinese(column)
        wider, there = (sum(1 + (char > WIDE) for char in text) for text in (shown, column))
        line += shown + (" " * max(len(gap) + there - wider, 1) if gap else "")
    return line
