"""The clean lines of a book -> its chapters.

long_lines    a line as long as a book is broken where its chapters begin
families      short lines that are alike and count up: headings of unusual kinds
contents      tables of contents, headings that stand twice
second_books  where another book begins in the same file
splitting     the headings are chosen and the documents made; the numbers of the chapters are checked
"""

from novelgpt.corpus.chapters.long_lines import BrokenLines, break_lines, part_lines
from novelgpt.corpus.chapters.second_books import find_second_books
from novelgpt.corpus.chapters.splitting import (
    Chapters,
    check_numbers,
    choose_headings,
    matching_headings,
    split_chapters,
)

__all__ = [
    "BrokenLines",
    "Chapters",
    "break_lines",
    "check_numbers",
    "choose_headings",
    "find_second_books",
    "matching_headings",
    "part_lines",
    "split_chapters",
]
