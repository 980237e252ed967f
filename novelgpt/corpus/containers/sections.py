"""Titles and paragraphs in reading order -> the sections of a book.

    begin("第一卷 风起", 1)  add(第一卷 风起)
    begin("第一章 山村", 2)  add(第一章) add(山村) add(他走了。)     →  Section("第一卷 风起 第一章 山村", "他走了。")

A title that the page repeats above its text is not repeated in the text; a title without a text below, that of a
volume, goes before the next one.
"""

import itertools
import re
from collections import Counter
from dataclasses import dataclass, replace

from novelgpt.corpus.shapes import Section

MAX_TITLE, MAX_LINE = 80, 40  # characters of a heading on the page, and of a line, that take the place of a title
LEAST_KEY, LONG_KEY, SIMILAR = 4, 8, 0.9  # letters of a title; the share of them that two have in common
LOWEST = 3  # headings of a lower level stay in the text
SHOWN = 0  # the depth of a title that the page shows: it goes before whatever comes next
MAX_LINES = 8  # that a title is printed on
VOLUME = re.compile(r"第.{1,6}[卷部集篇册辑輯冊]|[卷篇].{1,3}\b")
HAN = re.compile(r"[\u3400-\u9fff]")
NO_STORY = set(
    "封面 目录 目錄 目次 总目录 總目錄 扉页 扉頁 书名页 cover coverpage contents tableofcontents titlepage".split()
)
CONTENTS = ("目录", "目錄", "目次", "contents")
MAX_COVER = 200  # characters
SENTENCE_ENDS = "。！？…”」』"


@dataclass
class Block:
    """A paragraph of a page."""

    text: str
    linked: int = 0  # characters of it that are links
    level: int = 0  # 1 to 6 in a heading


def key_of(text: str) -> str:
    """Return the letters and digits of a title, by which two are compared.

    >>> key_of("第一章　山村 (Part 1)")
    '第一章山村part1'
    """
    return "".join(filter(str.isalnum, text)).casefold()


def is_listing(section: Section, book: str) -> bool:
    """Say whether a section is a contents list, a cover or a title page: called so, or like the book; no sentences."""
    lines = section.text.split("\n")
    names = {key_of(section.title), key_of(lines[0])} - {""}
    is_cover = bool(names & {*NO_STORY, key_of(book)}) and len(section.text) <= MAX_COVER
    if not is_cover and not any(name.endswith(CONTENTS) for name in names):
        return False
    return sum(len(line) for line in lines if line[-1] in SENTENCE_ENDS) * 2 < len(section.text)


class Binder:
    """Binds what it is given in reading order into sections.

    Args:
        book: the title of the book, which is no part of that of a section.

    Attributes:
        sections: those that are done.
    """

    def __init__(self, book: str = ""):
        self.book = book
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
        self.blocks += [block for block in blocks if block.text]

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
            self.titles = [(SHOWN, title) for title in titles if key_of(title) not in {*NO_STORY, key_of(self.book)}]

    def finish(self) -> list[Section]:
        """Return all sections."""
        self.close()
        return self.sections


def divide_at_headings(blocks: list[Block]) -> list[Section]:
    """Divide a text at its headings of the three upper levels.

    A heading that stands alone on its level above others is the title of the book, and no part of the first chapter's.

    >>> divide_at_headings([Block("一", level=2), Block("甲。"), Block("二", level=2), Block("乙。")])
    [Section(title='一', text='甲。'), Section(title='二', text='乙。')]
    """
    is_title = [0 < block.level <= LOWEST and len(block.text) <= MAX_TITLE for block in blocks]
    counts = Counter(block.level for block in itertools.compress(blocks, is_title))
    top = min(counts, default=0)
    is_book = counts[top] == 1 and any(counts[level] > 1 for level in range(top + 1, LOWEST + 1))
    binder = Binder()
    for block, title in zip(blocks, is_title, strict=True):
        if title and not (is_book and block.level == top):
            binder.begin(block.text, block.level)
        else:
            binder.add([block])
    return binder.finish()


def settle_title(titles: list[str], blocks: list[Block]) -> tuple[list[str], list[Block]]:
    """Take titles off the paragraphs that repeat them; a heading there that says more takes a title's place.

    >>> settle_title(["第一卷 风起", "山村"], [Block("第一章 山村", level=2), Block("他走了。")])
    (['第一卷 风起', '第一章 山村'], [Block(text='他走了。', linked=0, level=0)])
    """
    rest = without_title("".join(titles), blocks) if len(titles) > 1 else blocks
    settled = []
    for title in titles:
        rest = without_title(title, rest)
        heading, number = fuller_title(title, rest)
        settled.append(heading)
        rest = without_title(heading, rest[number:])
    return settled, rest


def without_title(title: str, blocks: list[Block]) -> list[Block]:
    """Return the paragraphs below a title that stands above them, once or several times, on one line or several."""
    key = key_of(title)
    printed, found = "", 0
    for number, block in enumerate(blocks[:MAX_LINES] if key else [], 1):
        printed += key_of(block.text)
        if printed and (not printed.replace(key, "") or is_similar(key, printed)):
            printed, found = "", number
    rest = blocks[found:]
    if rest and len(key) >= LEAST_KEY and (text := cut_title(key, rest[0].text)):
        return [replace(rest[0], text=text), *rest[1:]]
    return rest


def is_similar(title: str, printed: str) -> bool:
    """Say whether two longer keys are one title, but for a variant of a character or the order of its halves.

    >>> is_similar("第八回柴進門招天下客林沖棒打洪教頭", "第八回柴進門招天下客林冲棒打洪教頭")
    True
    """
    longer = max(len(title), len(printed))
    return longer >= LONG_KEY and sum((Counter(title) & Counter(printed)).values()) >= SIMILAR * longer


def cut_title(key: str, text: str) -> str:
    """Cut a title and the blank behind it off the line of text that begins with it; "" where none does.

    >>> cut_title("第一章山村", "第一章 山村　　他走了。"), cut_title("山村早晨", "山村早晨的雾")
    ('他走了。', '')
    """
    place, rest = 0, key
    while rest and place < len(text):
        sign = text[place].casefold()
        if sign.isalnum():
            if not rest.startswith(sign):
                return ""
            rest = rest[len(sign) :]
        place += 1
    return text[place:].strip() if not rest and text[place : place + 1].isspace() else ""


def fuller_title(title: str, blocks: list[Block]) -> tuple[str, int]:
    """Return what the page prints of a title where it says more, and on how many paragraphs it stands."""
    number = next((number for number, block in enumerate(blocks) if not block.level), len(blocks))
    heading = " ".join(block.text for block in blocks[:number])
    said, known = key_of(heading), key_of(title)
    if said and said in known:
        return title, number
    if said and len(heading) <= MAX_TITLE and (known in said or (HAN.search(heading) and not HAN.search(title))):
        return heading, number
    # a title that was cut off in the navigation: 第二章 童年和少, 第二章 童年和少年时代
    first = blocks[0].text if blocks else ""
    if len(known) >= 3 and is_line(first) and key_of(first).startswith(known):
        return first, 1
    return title, 0


def is_line(text: str) -> bool:
    """Say whether a paragraph may be a title: short, and without the end of a sentence."""
    return 0 < len(text) <= MAX_LINE and (text[-1].isalnum() or text[-1] in "）)》」』】？")
