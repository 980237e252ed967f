"""Markup (HTML, XHTML, XML) -> its tags and texts in order, and the paragraphs of a page.

    <h2 id="c1">第一章</h2><p>他走了，<br/>她来了。</p>  →  第一章 | 他走了， | 她来了。   and c1 → 0

Books are full of pages that are nearly XHTML: ElementTree stops at the first `&nbsp;` or `<br>`, html.parser of the
standard library needs quadratic time for some of them. One expression that never reaches past the next `<` takes
what a browser would take, in linear time.
"""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from html import unescape

from novelgpt.corpus.encodings import decode_bytes
from novelgpt.corpus.signatures import refuse_foreign
from novelgpt.messages import UserError

# a tag's name and attributes, also where a quote is missing; or a declaration
TAG = re.compile(r"""<(/?)([A-Za-z][\w:.-]*)((?:[^<>"']++|"[^"<]*"|'[^'<]*')*+|[^<>]*+)>|<[!?/][^<>]*>""")
DOCTYPE = re.compile(
    r"[^<]*+(?:<\?[^<>]*+>[^<]*+)?<!DOCTYPE[^\[>]*+\[[^\]]*+\]\s*+>", re.IGNORECASE
)  # with its own entities
ATTRIBUTE = re.compile(r"""(?<![\w:.-])([\w:.-]++)\s*+=\s*+(?:"([^"]*)"|'([^']*)'|([^\s"'>]+))""")
UNQUOTED = re.compile(r"=\s*[^\s\"'=<>]+$")  # <a href=/book/> does not end itself
LONG_NUMBER = re.compile(r"&#(?:[0-9]{8,}|[xX][0-9a-fA-F]{7,});?")  # no character has one
DECLARED = re.compile(rb"""(?:encoding|charset)\s*=\s*["']?([\w-]+)""")

BLANKS = re.compile(r"[ \t\r\n\f\v\xa0]+")
WIDE = r"[\u2e80-\u9fff\uf900-\ufaff\uff00-\uffef\U00020000-\U0003ffff“”‘’…—]"
WRAPPED = re.compile(rf"(?<={WIDE})[ \t]*[\r\n][ \t\r\n]*(?={WIDE})")  # a line broken within Chinese has no blank there
LONG_TEXT = 2000  # characters without a tag, in which line breaks are meant

HEADINGS = ("h1", "h2", "h3", "h4", "h5", "h6")
BLOCKS = {
    *HEADINGS,
    *"p div li ul ol dl dt dd table tr td th blockquote section article body html hr br pre center form".split(),
}
BLOCKS |= set("fieldset figure figcaption header footer main aside nav address details summary".split())
RAW = ("script", "style", "title", "textarea")  # what is in them is no markup
LEFT_OUT = {*RAW, *"head template noscript svg iframe object audio video canvas select button rt rp rtc".split()}
NOTE = re.compile(r"type\s*=\s*.[^\"']*\b(?:foot|end|rear)?note")  # epub:type
MAX_MENU = 200  # characters of a line of links
MAX_MARK = 6  # characters of a link to a note, such as [12]


def read_tokens(markup: str) -> Iterator[tuple[str, str, str]]:
    """Yield ("text", "", text), ("start", name, attributes) and ("end", name, ""), names without a namespace.

    An element that ends itself, `<br/>`, has ("end", "br", "/").

    >>> list(read_tokens("<w:t a='1'>1 < 2</w:t>"))
    [('start', 't', " a='1'"), ('text', '', '1 < 2'), ('end', 't', '')]
    """
    markup = without_comments(markup)
    head = DOCTYPE.match(markup)
    place = head.end() if head else 0
    for match in TAG.finditer(markup, place):
        if match.start() > place:
            yield "text", "", read_entities(markup[place : match.start()])
        place = match.end()
        if match[2]:
            name = match[2].lower().rpartition(":")[2]
            yield "end" if match[1] else "start", name, match[3]
            if match[3].endswith("/") and not match[1] and not UNQUOTED.search(match[3]):
                yield "end", name, "/"
    if place < len(markup):
        yield "text", "", read_entities(markup[place:])


def without_comments(markup: str) -> str:
    """Drop comments, and the marks around CDATA; what follows a comment that never ends stays."""
    markup = markup.replace("<![CDATA[", "").replace("]]>", "")
    first, *others = markup.split("<!--")
    # from the end: a mark without an end behind it is a comment only if a later one has an end
    parts, ends = [], False
    for part in reversed(others):
        _, end, rest = part.partition("-->")
        ends = ends or bool(end)
        parts.append(rest if ends else part)
    return first + "".join(reversed(parts))


def read_entities(text: str) -> str:
    """Put characters for `&nbsp;`, `&#x4e00;` and the like."""
    return unescape(LONG_NUMBER.sub("\ufffd", text)) if "&" in text else text


def read_attributes(value: str) -> dict[str, str]:
    """Return the attributes of a tag, names without a namespace.

    >>> read_attributes(' id="c1" epub:type="toc" href=a.html')
    {'id': 'c1', 'type': 'toc', 'href': 'a.html'}
    """
    found = ATTRIBUTE.findall(value)
    return {name.lower().rpartition(":")[2]: read_entities(a or b or c) for name, a, b, c in found}


def decode_markup(data: bytes, name: str) -> str:
    """Decode a page: UTF-8 without a fault, else by what its bytes say, else by what it declares.

    Raises:
        UserError: no text, or in no encoding that reads as Chinese.
    """
    refuse_foreign(data, name)
    try:
        text = data.decode("utf-8-sig")
        if "\0" not in text:
            return text
    except UnicodeDecodeError:
        pass
    declared = DECLARED.search(data[:4096])
    try:
        return decode_bytes(data, name=name).text
    except UserError:
        if not declared:
            raise
        return decode_bytes(data, declared[1].decode("ascii"), name=name).text


@dataclass
class Block:
    """A paragraph of a page."""

    text: str
    linked: int = 0  # characters of it that are links
    level: int = 0  # 1 to 6 in a heading


class Page:
    """The paragraphs of a page, its menus and scripts left out.

    Args:
        markup: the page.
        left_out: names of further elements without text of the story.

    Attributes:
        blocks: the paragraphs.
        anchors: id → number of the paragraph that begins there, or behind it.
    """

    def __init__(self, markup: str, left_out: tuple[str, ...] = ()):
        self.blocks: list[Block] = []
        self.anchors: dict[str, int] = {}
        self.parts: list[str] = []  # of the paragraph that is open
        self.linked = self.level = self.preformatted = self.mark = 0
        self.in_link = False
        for kind, name, value in drop_elements(markup, LEFT_OUT.union(left_out)):
            if kind == "text":
                self.add(value)
            elif kind == "start":
                self.start(name, value)
            else:
                self.end(name)
        self.close()

    def add(self, text: str) -> None:
        """Take a piece of text."""
        lines = [text]
        if self.preformatted or (len(text) > LONG_TEXT and "\n" in text):
            lines = text.splitlines()
        for number, line in enumerate(lines):
            if number:
                self.close()
            self.parts.append(line)
            self.linked += len(line.strip()) if self.in_link else 0

    def start(self, name: str, value: str) -> None:
        """Take the beginning of an element."""
        if name in BLOCKS:
            self.close()
            self.level = HEADINGS.index(name) + 1 if name in HEADINGS else self.level
            self.preformatted += name == "pre"
        elif name == "sup":
            self.mark = len(self.parts)
        attributes = read_attributes(value)
        if attributes:
            for key in {attributes.get("id"), attributes.get("name") if name == "a" else None} - {None}:
                self.anchors.setdefault(key, len(self.blocks) + any(part.strip() for part in self.parts))
        if name == "a":
            self.in_link = "href" in attributes

    def end(self, name: str) -> None:
        """Take the end of an element."""
        if name in BLOCKS and name != "br":
            self.close()
            self.level = 0 if name in HEADINGS else self.level
            self.preformatted = max(0, self.preformatted - (name == "pre"))
        elif name == "a":
            self.in_link = False
        elif name == "sup":  # the number of a note
            text = "".join(self.parts[self.mark :])
            if self.linked >= len(text.strip()) and len(text) <= MAX_MARK:
                self.linked -= len(text.strip())
                del self.parts[self.mark :]

    def close(self) -> None:
        """End the paragraph that is open."""
        if text := join_text(self.parts):
            self.blocks.append(Block(text, self.linked, self.level))
        self.parts, self.linked, self.mark = [], 0, 0


def is_menu(block: Block) -> bool:
    """Say whether a line is mostly links."""
    return block.linked * 2 > len(block.text) and len(block.text) <= MAX_MENU


def drop_elements(markup: str, names: set[str]) -> Iterator[tuple[str, str, str]]:
    """Yield the tokens outside of elements of these names and of notes; one that never ends is not dropped."""
    remaining = Counter(match[1].lower() for match in re.finditer(r"</(?:\w+:)?([A-Za-z]+)\s*>", markup))
    dropped, depth = "", 0
    for token in read_tokens(markup):
        kind, name, value = token
        remaining[name] -= kind == "end" and not value
        if dropped:
            if name == dropped and not (kind == "start" and dropped in RAW):
                depth += 1 if kind == "start" else -1
                dropped = dropped if depth else ""
        elif kind == "start" and remaining[name] > 0 and (name in names or is_note(name, value)):
            dropped, depth = name, 1
        else:
            yield token


def is_note(name: str, value: str) -> bool:
    """Say whether an element is a footnote, or a link to one, by what it says of itself."""
    return (name == "aside" and bool(NOTE.search(value))) or (name == "a" and "noteref" in value)


def join_text(parts: list[str]) -> str:
    """Join the texts of a paragraph as a browser shows them.

    >>> join_text(["他走了，\\n", "  她\\n来了  ", " A\\n\\tB。 "])
    '他走了，她来了 A B。'
    """
    text = WRAPPED.sub("", "".join(parts))
    return BLANKS.sub(" ", text).strip()
