"""HTML and BBCode that were left in a text: tags go, <br/> and </p> become line breaks."""

import re
from collections.abc import Iterator

from novelgpt.corpus.notices.lines import BookLines, Notice

MARK = re.compile(r"<[A-Za-z/!]|-->|\[/?(?:img|url|b|i|u|size|color|font|align|quote|email)\b")
COMMENT = re.compile(r"<!--.{0,2000}?-->|<!--|-->")
ELEMENT = re.compile(
    r"<(?P<name>script|style)\b[^<>]{0,400}>.{0,2000}?</(?P=name)\s*>|\[(?P<code>img)\].{0,400}?\[/(?P=code)\]+", re.I
)
# a site writes its name between the letters of a story, in tags that no reader sees
HIDDEN = re.compile(
    r"<(?P<name>[a-z]{1,8})>(?:[^<>\n]{0,12}(?:[书书說说学文吧]网|小说|书[屋吧库城]|www|\.com|\.net|txt)[^<>\n]{0,12})?"
    r"</(?P=name)>",
    re.I,
)
TAG = re.compile(r"</?(?P<name>[A-Za-z][A-Za-z0-9_]{0,24})(?:[\s/][^<>]{0,400})?>")
CODE = re.compile(r"\[/?(?:img|url|b|i|u|size|color|font|align|quote|email)(?:=[^\[\]]{0,200})?\]+")
BREAKS = frozenset("br p div li tr hr ul ol table center blockquote h1 h2 h3 h4 h5 h6 dd dt dl".split())
NAMES = BREAKS | frozenset(
    "a abbr acronym b big body button cite code dfn em font footer form head header html i iframe img".split()
    + "link mark meta nav noscript option pre q s samp script select small span strike strong style sub sup td".split()
    + "input ins kbd th title tt u var".split()
)
CLOSING = re.compile(r"</([A-Za-z][A-Za-z0-9_]{0,24})\s*>")


def find_markup(book: BookLines) -> Iterator[Notice]:
    """Find HTML tags, comments and scripts, and the square brackets of forums."""
    marked = book.with_pattern(MARK)
    names = NAMES.union(name.lower() for index in marked for name in CLOSING.findall(book.lines[index]))
    for index in marked:
        kept = strip_markup(book.lines[index], names)
        if kept != book.lines[index]:
            yield book.notice(index, "HTML", kept)


def strip_markup(line: str, names: frozenset[str] = NAMES) -> str:
    r"""Return a line without tags of these names, with a newline where a paragraph or line ends between texts.

    >>> strip_markup("他<tt>某书网</tt>走了。<br/><strong>天黑</strong>了，a<b，<小明>说。")
    '他走了。\n天黑了，a<b，<小明>说。'
    """

    def replace(tag: re.Match[str]) -> str:
        name = tag["name"].lower()
        return "\n" if name in BREAKS else "" if name in names else tag.group()

    for pattern in (COMMENT, ELEMENT, HIDDEN):
        line = pattern.sub("", line)
    line = CODE.sub("", TAG.sub(replace, line))
    return "\n".join(part.strip() for part in line.split("\n") if part.strip())
