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
that a story tells of and the storytellers' closing formulas stay.
"""

from novelgpt.corpus.notices.finding import find_dropped, find_notices, remove_notices
from novelgpt.corpus.notices.lines import Notice

__all__ = ["Notice", "find_dropped", "find_notices", "remove_notices"]
