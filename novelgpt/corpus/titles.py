"""Clean documents -> records that teach a network to write a chapter's title: a table with the one column `text`.

    第一章 第七口井⏎青石渡的人都说……   →   青石渡的人都说……[TIL]第七口井

The table is written while the documents pass by, so that a library need not fit into memory.
"""

import csv
import io
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from novelgpt.corpus.headings import read_heading
from novelgpt.files import atomic_writer
from novelgpt.messages import EXIT_INPUT, UserError

TITLE_MARK = "[TIL]"
EDGES = " \t\u3000:：·、.-—_|~"
BRACKETS = dict(zip("】])）》>", "【[(（《<", strict=True))
WORDS = re.compile(r"\w")


@dataclass
class TitleCount:
    """What became of the documents: chapters with a title, and those left out for want of a title or of text."""

    written: int = 0
    untitled: int = 0
    empty: int = 0


def title_of(heading: str) -> str:
    """Return the words of a heading without volume and number; empty when it has no others.

    >>> [title_of(line) for line in ("上卷 第一一九回　中乡魁", "【第十章：漏诀】", "第二章 剑(上)")]
    ['中乡魁', '漏诀', '剑(上)']
    >>> [title_of(line) for line in ("第二章", "尾声 归途", "楔子", "他走了")]
    ['', '归途', '', '']
    """
    chapter = read_heading(heading)
    if chapter is None:
        return ""
    title = chapter.title if chapter.unit else " ".join(re.split(r"[\s:：]+", heading)[1:])
    title = title.strip(EDGES)
    while title and title[-1] in BRACKETS and BRACKETS[title[-1]] not in title:  # closes what the number stands in
        title = title[:-1].rstrip(EDGES)
    return title if WORDS.search(title) else ""


def watch_titles(documents: Iterable[str], path: str | Path, count: TitleCount) -> Iterator[str]:
    """Yield documents unchanged, and write a record of each chapter that has a title and text.

    Args:
        documents: clean ones; of a chapter the first line is the heading.
        path: the table; it appears when the last document was taken.
        count: filled on the way.

    Raises:
        UserError: no chapter has a title, or the table cannot be written.
    """
    with atomic_writer(path) as file:
        file.write(b"text\n")
        for document in documents:
            heading, _, text = document.partition("\n")
            title = title_of(heading)
            if not title or TITLE_MARK in document:
                count.untitled += 1
            elif not text.strip():
                count.empty += 1
            else:
                count.written += 1
                file.write(csv_line(f"{text}{TITLE_MARK}{title}"))
            yield document
        if not count.written:
            message = f"--titles {path}: none of {count.untitled + count.empty:,} documents is a chapter with a title"
            raise UserError(message, "leave --titles out", EXIT_INPUT)


def csv_line(cell: str) -> bytes:
    """Return a line of a table with one column."""
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow([cell])
    return line.getvalue().encode("utf-8")


def title_words(count: TitleCount, path: str | Path) -> str:
    """Say what became of the documents.

    >>> title_words(TitleCount(26, 1, 0), "data/titles.csv")
    'data/titles.csv: 26 chapters with titles; left out: 1 document without a title'
    """
    parts = ((count.untitled, "without a title"), (count.empty, "without text below the title"))
    left = [f"{number:,} {'document' if number == 1 else 'documents'} {what}" for number, what in parts if number]
    return f"{path}: {count.written:,} chapters with titles" + (f"; left out: {', '.join(left)}" if left else "")
