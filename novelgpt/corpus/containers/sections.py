"""Titles and paragraphs in reading order -> the sections of a book.

    begin("第一卷 风起", 1)  add(第一卷 风起)
    begin("第一章 山村", 2)  add(第一章) add(山村) add(他走了。)     →  Section("第一卷 风起 第一章 山村", "他走了。")

A title that the page repeats above its text is not repeated in the text; a title without a text below, that of a
volume, goes before the next one.
"""

import re
from dataclasses import dataclass

from novelgpt.corpus.containers.markup import Block

MAX_TITLE = 80  # characters of a heading on the page that is taken instead of the title of the navigation
SHOWN = 0  # the depth of a title that the page shows: it goes before whatever comes next
MAX_LINES = 8  # that a title is printed on
VOLUME = re.compile(r"第.{1,6}[卷部集篇册辑輯冊]|[卷篇].{1,3}\b")
HAN = re.compile(r"[\u3400-\u9fff]")
NO_STORY = set(
    "封面 目录 目錄 目次 总目录 總目錄 扉页 扉頁 书名页 cover coverpage contents tableofcontents titlepage".split()
)


@dataclass(frozen=True)
class Section:
    """A part of a book as its file divides it, most often a chapter."""

    title: str  # "" where there is none
    text: str  # paragraphs divided by line breaks


def key_of(text: str) -> str:
    """Return the letters and digits of a title, by which two are compared.

    >>> key_of("第一章　山村 (Part 1)")
    '第一章山村part1'
    """
    return "".join(filter(str.isalnum, text)).casefold()


class Binder:
    """Binds what it is given in reading order into sections.

    Attributes:
        sections: those that are done.
    """

    def __init__(self):
        self.sections: list[Section] = []
        self.titles: list[tuple[int, str]] = []  # (depth, title) since the last text
        self.blocks: list[Block] = []

    def begin(self, title: str, depth: int) -> None:
        """Begin a section; depth: 1 for a part of the book, 2 for a part of that."""
        self.close()
        # of what had no text stay the titles of volumes: what is now divided, and pages that showed them
        self.titles = [(above, known) for above, known in self.titles if above < depth or VOLUME.match(known)]
        if title and key_of(title) not in [key_of(known) for _, known in self.titles]:
            self.titles.append((depth, title))

    def add(self, blocks: list[Block]) -> None:
        """Add paragraphs to the section."""
        self.blocks += blocks

    def close(self) -> None:
        """End the section that is open; one without text leaves its title to the next."""
        if not self.blocks:
            return
        titles, blocks = settle_title([title for _, title in self.titles], self.blocks)
        self.blocks = []
        if blocks:
            self.sections.append(Section(" ".join(titles), "\n".join(block.text for block in blocks)))
            self.titles = []
        else:
            self.titles = [(SHOWN, title) for title in titles if key_of(title) not in NO_STORY]

    def finish(self) -> list[Section]:
        """Return all sections."""
        self.close()
        return self.sections


def settle_title(titles: list[str], blocks: list[Block]) -> tuple[list[str], list[Block]]:
    """Take the title off the paragraphs that repeat it; a heading there that says more takes its place.

    >>> settle_title(["第一卷 风起", "山村"], [Block("第一章 山村", level=2), Block("他走了。")])
    (['第一卷 风起', '第一章 山村'], [Block(text='他走了。', linked=0, level=0)])
    """
    if not titles:
        return titles, blocks
    # the page repeats all of the titles, or the last ones, on one line or several
    wanted = {key_of("".join(titles[start:])) for start in range(len(titles))} - {""}
    printed = ""
    for number, block in enumerate(blocks[:MAX_LINES], 1):
        printed += key_of(block.text)
        if printed in wanted:
            return settle_title(titles, blocks[number:])
    # or its headings say more than the navigation, or a part of it
    number = next((number for number, block in enumerate(blocks) if not block.level), len(blocks))
    heading = " ".join(block.text for block in blocks[:number])
    said, known = key_of(heading), key_of(titles[-1])
    if said and said in known:
        return titles, blocks[number:]
    if said and len(heading) <= MAX_TITLE and (known in said or (HAN.search(heading) and not HAN.search(titles[-1]))):
        return [*titles[:-1], heading], blocks[number:]
    return titles, blocks
