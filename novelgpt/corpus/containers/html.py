"""A page, of the web or of a book -> its paragraphs; a page of the web -> its sections, without its menus.

<h2 id="c1">第一章</h2><p>他走了，<br/>她来了。</p>  →  第一章 | 他走了， | 她来了。   and c1 → 0
"""

import re

from novelgpt.corpus.containers.markup import LEFT_OUT, drop_elements, join_text, read_attributes
from novelgpt.corpus.containers.sections import Block, Section, divide_at_headings
from novelgpt.messages import EXIT_INPUT, UserError

HEADINGS = ("h1", "h2", "h3", "h4", "h5", "h6")
BLOCKS = {*HEADINGS, *"p div li ul ol dl dt dd table tr td th blockquote section article body html hr br pre".split()}
BLOCKS |= set("center form fieldset figure figcaption header footer main aside nav address details summary".split())
LONG_TEXT = 2000  # characters without a tag, in which line breaks are meant
MAX_MENU = 200  # characters of a line of links
MAX_MARK = 6  # characters of a link to a note, such as [12]
LOOKS_LIKE_HTML = re.compile(
    r"\s*(?:<\?xml[^<>]*>\s*)?(?:<!--.{0,1000}?-->\s*)*<(?:!DOCTYPE\s+html|html|head|body)\b", re.I | re.S
)
MENUS = ("nav", "footer", "aside")


def is_html(text: str) -> bool:
    """Say whether a text begins like a page of the web.

    >>> is_html("<!DOCTYPE html><html>"), is_html("<他>第一章")
    (True, False)
    """
    return bool(LOOKS_LIKE_HTML.match(text[:5000]))


def read_html(text: str, name: str) -> list[Section]:
    """Read a page of the web, or a book saved as one.

    Args:
        text, name: the page, and its name for messages.

    Returns:
        The sections; a single heading above all of the text is the title of a single one.

    Raises:
        UserError: no text in it.

    >>> read_html("<body><a href=/>首页</a><h1>第一章</h1><p>他走了。</p>", "1.html")
    [Section(title='第一章', text='他走了。')]
    """
    page = Page(text, MENUS)
    if sections := divide_at_headings([block for block in page.blocks if not is_menu(block)]):
        return sections
    message = f"{name}: a web page without text, only links or pictures"
    raise UserError(message, "save the page of a chapter", EXIT_INPUT)


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
        attributes = read_attributes(value) if "=" in value else {}
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
