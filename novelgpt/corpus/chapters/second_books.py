"""Where another book begins in a file of several: chapters from 1 again, behind a title page.

第四十二章 归去           the first book's last chapter
他走了。
《雪落青城》              <- another book begins here
作者：乔木
第一章 初雪
"""

import re
from collections.abc import Sequence

from novelgpt.corpus.headings import VOLUME_LINE, Heading, volume_of

MIN_CHAPTERS = 10  # that a book must have before another one begins
TITLE_PAGE = 30  # lines in front of a chapter 1 in which a title page is looked for
MAX_LINE = 40  # characters of a line on a title page
AUTHOR = re.compile(r"^[\W_]*(?:作者|著者|原著|作 者|文)\s*[:：]\s*\S|^\S.{0,30}[\s/／·]+\S{2,6}\s*[著撰]$")
TITLE = re.compile(r"^[\W_]*《[^《》]{1,30}》[^。，！？完终]{0,15}$|^(?:书名|書名)\s*[:：]")


def find_second_books(lines: Sequence[str], headings: Sequence[Heading]) -> list[int]:
    """List the lines, from 1, at which another book begins.

    That is where the numbers of chapters begin again at 1 after ten or more, no volume is named, and a line with a
    title or an author stands shortly before.

    Args:
        lines: of the file, edges stripped.
        headings: those that divide it, in order.

    >>> chapters = [f"第{number}章" for number in range(1, 11)]
    >>> lines = [*chapters, "他走了。", "《雪落青城》", "作者：乔木", "第1章"]
    >>> marks = [*enumerate(chapters, 1), (14, "第1章")]
    >>> find_second_books(lines, [Heading(line, text, number % 10 or 10, "章", "") for number, (line, text)
    ...     in zip([*range(1, 11), 1], marks)])
    [12]
    """
    found, highest, former = [], 0, 0  # the last number of this book, and the line of the last chapter's heading
    for heading in headings:
        if heading.number is None:
            continue
        if heading.number <= 1 and highest >= MIN_CHAPTERS and not volume_of(heading.text):
            page = title_page(lines, first=max(former, heading.line - 1 - TITLE_PAGE), end=heading.line - 1)
            found += [page] if page else []
        highest = heading.number if heading.number <= 1 else max(highest, heading.number)
        former = heading.line
    return found


def title_page(lines: Sequence[str], first: int, end: int) -> int | None:
    """Return the line, from 1, of a title or author among these, by index; None where there is none, or a volume."""
    short = [index for index in range(first, end) if 0 < len(lines[index]) <= MAX_LINE]
    if any(VOLUME_LINE.match(lines[index]) for index in short):
        return None
    page = [index for index in short if AUTHOR.match(lines[index]) or TITLE.match(lines[index])]
    return page[0] + 1 if page else None
