"""Advertisements, site lines and author's notes: found by what they are, removed with a reason, listed one by one.

    HTML            <p> </strong> <!--BookContent Start--> [img]; <br/> and </p> stand for line breaks
    address         www.site.net, ＷＷw.xiＡo s.nett, site。ｃＯm, and the clause around it if it speaks of a site
    end mark        (本章完)   (未完待续。)   also at the end of a paragraph
    bookkeeping     更新时间:… 本章字数:…   上一页 | 目录 | 下一页
    author's note   作者有话要说：… to the end of the chapter; PS lines; （求推荐票） in a heading
    site sentence   speaks of downloads, votes, the site itself: at a border of chapters, in brackets, again and again
    front matter    [书名 / 作者 著], boxes, and lines that stand at the head and at the tail of the file
    recurring       the same line at the border of many chapters
    rule line       ------- next to a heading or to a line that goes

A paragraph to which something of this is stuck loses that sentence only. Speech in quotes, poems, refrains, addresses
that a story tells of and the storytellers' closing formulas stay. Each finder sees the lines as those before it have
left them.
"""

import re
from collections.abc import Sequence

from novelgpt.corpus.notices.addresses import find_addresses
from novelgpt.corpus.notices.authors import find_asides, find_end_marks, find_notes, find_postscripts
from novelgpt.corpus.notices.lines import BookLines, Notice
from novelgpt.corpus.notices.markup import find_markup
from novelgpt.corpus.notices.matter import (
    find_bookkeeping,
    find_boxes,
    find_front_matter,
    find_recurring,
    find_repeated,
    find_rules,
)
from novelgpt.corpus.notices.sentences import find_inserted, find_sentences
from novelgpt.corpus.patterns import matching_lines

__all__ = ["Notice", "find_dropped", "find_notices", "remove_notices"]
# rule lines go by what has gone beside them, and so come last
FINDERS = (
    *(find_markup, find_boxes, find_addresses, find_bookkeeping, find_end_marks, find_front_matter, find_repeated),
    *(find_notes, find_postscripts, find_asides, find_inserted, find_sentences, find_recurring, find_rules),
)


def find_notices(lines: Sequence[str], headings: set[int], starts: Sequence[int] = ()) -> list[Notice]:
    """Find the advertisements, site lines and author's notes of one book, in the order of its lines.

    Args:
        lines: its lines as clean_text gives them, blank ones included.
        headings, starts: indices of the chapter headings, and of other lines that begin a document.

    >>> lines = ["第一章 山村", "他走了。", "www.xiＡo-shuo.nett小.说", "(本章完)"]
    >>> [notice.reason for notice in find_notices(lines, {0})]
    ['address', 'end-of-chapter mark']
    """
    book = BookLines(list(lines), headings, starts)
    notices: dict[int, Notice] = {}
    # of a line that several finders shorten, the last one has the reason
    for finder in FINDERS:
        for found in list(finder(book)):
            index = found.line - 1
            book.lines[index] = found.kept
            notices[index] = Notice(found.line, lines[index], found.reason, found.kept)
    return [notices[index] for index in sorted(notices)]


def find_dropped(lines: Sequence[str], patterns: Sequence[str]) -> list[Notice]:
    """Find the lines that hold one of these texts, or match one written as /regular expression/.

    >>> [notice.reason for notice in find_dropped(["求票", "第一卷", "他走了。"], ["求票", "/^第.卷$/"])]
    ['--drop 求票', '--drop /^第.卷$/']
    """
    found: dict[int, Notice] = {}
    for pattern in patterns:
        is_expression = len(pattern) > 2 and pattern[0] == pattern[-1] == "/"
        for index in matching_lines(pattern[1:-1] if is_expression else re.escape(pattern), lines):
            if lines[index]:
                found.setdefault(index, Notice(index + 1, lines[index], f"--drop {pattern}"))
    return [found[index] for index in sorted(found)]


def remove_notices(lines: Sequence[str], notices: Sequence[Notice]) -> list[str]:
    """Return the lines without what the notices name; line numbers stay as they were.

    >>> remove_notices(["第一章", "(本章完)"], [Notice(2, "(本章完)", "end-of-chapter mark")])
    ['第一章', '']
    """
    lines = list(lines)
    for notice in notices:
        lines[notice.line - 1] = notice.kept
    return lines
