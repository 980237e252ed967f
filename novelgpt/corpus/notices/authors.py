"""What authors say to their readers beside the story: notes, PS lines, marks of an end, votes in headings."""

import re
from bisect import bisect_right
from collections.abc import Iterator

from novelgpt.corpus.folding import fold
from novelgpt.corpus.notices.lines import MAX_NOTICE, BookLines, Notice, in_quotes, num_han

NOTE = re.compile(r"作者有[话話]要?[说說]|^\W*[题題]外[话話]\W*$", re.MULTILINE)
LEAST_BEFORE = 500  # characters of a chapter in front of a note that closes it
SHARE = 0.2  # of what stands in front of it, at most, is removed behind a note
MAX_AFTER = 1_500  # characters
# where a chapter may begin that is no heading to the rules
BEGINNING = re.compile(
    r"^[☆★◆■●]|^\W{0,3}第.{1,9}[章节節回卷部]|^\W*\d{1,4}\W*$|^[=＝]{3}.*[=＝]{3}$|^[一二三四五六七八九十]{1,3}$"
)
END_MARK = re.compile(
    r"\s*(?:\.{2,}\s*)?[（(【\[［](?:未完[待带][续續]|本章未?[完终結结]|待[续續])[^）)】\]］\n]{0,120}[）)】\]］]*"
    r"|(?<=[。！？…”」])\s*(?:未完[待带][续續]|本章完|待[续續])[\W_]*$"
)
MARKED_END = re.compile("未完|本章|待[续續]")
PS = re.compile(r"^ps\s*[\d一二三]?\s*[：:，,;；.。]")
ASIDE = re.compile(
    r"[（(【\[［][^（）()【】\[\]［］]{0,30}?(?:求.{0,3}(?:票|推荐|推薦|收藏|订阅|訂閱|打赏|打賞|鲜花|支持)|[一二三四五六七八九十\d两双加]更"
    r"|更新?[！!，,）)]|[月荐薦]票|盟主|打[赏賞]|大章|上架|\d+字)[^（）()【】\[\]［］]{0,30}[）)】\]］]"
    r"|(?:\s+|(?<=[）)】]))[^\s（(【\[［]?求(?:月票|推荐票?|收藏|订阅|打赏|票)\S*$|\s+\w?\d+\w{0,2}加更$"
)


def find_notes(book: BookLines) -> Iterator[Notice]:
    """Find author's notes, from 作者有话要说 to the end of the chapter.

    Where more would go than such notes have, at the head of a chapter too, the line alone goes.
    """
    headings = sorted(book.headings)
    for index in book.with_pattern(NOTE):
        line = book.lines[index]
        match = NOTE.search(line)
        if index in book.headings or not line or in_quotes(line, match.start()):
            continue
        before = line[: match.start()].rstrip("-—－= （(【[*＊·☆")
        if num_han(before) and before[-1] not in "。！？…”」.!?~～":
            continue
        yield book.notice(index, "author's note", before)
        for place in note_lines(book, headings, index, len(before)):
            yield book.notice(place, "author's note")


def note_lines(book: BookLines, headings: list[int], index: int, before: int) -> list[int]:
    """List the lines behind that of a note that belong to it: those to the end of the chapter if they are few."""
    number = bisect_right(headings, index)
    start = headings[number - 1] + 1 if number else 0
    end = headings[number] if number < len(headings) else len(book.lines)
    places, size = [], 0
    for place in range(index + 1, end):
        line = book.lines[place]
        if len(line) <= 40 and BEGINNING.match(line):
            break
        size += len(line)
        if size > MAX_AFTER:
            return []
        if line:
            places.append(place)
    # counted back to where the chapter begins, as far as is needed
    for place in range(index - 1, start - 1, -1):
        if before * SHARE >= size and before >= LEAST_BEFORE:
            break
        if len(book.lines[place]) <= 40 and BEGINNING.match(book.lines[place]):
            break
        before += len(book.lines[place])
    return places if before >= LEAST_BEFORE and size <= before * SHARE else []


def find_end_marks(book: BookLines) -> Iterator[Notice]:
    """Find （未完待续） and the like in brackets or behind the last sentence of a line."""
    for index in book.with_pattern(MARKED_END):
        kept = END_MARK.sub("", book.lines[index]).strip()
        if kept != book.lines[index] and index not in book.headings:
            yield book.notice(index, "end-of-chapter mark", kept)


def find_postscripts(book: BookLines) -> Iterator[Notice]:
    """Find the PS lines at the border of chapters of an author who writes them again and again."""
    found = [
        index
        for index in sorted(book.border - book.headings)
        if book.lines[index]
        and book.lines[index].lstrip("（(【[")[:1] in "pPｐＰ"
        and PS.match(fold(book.lines[index]))
    ]
    if len(found) >= 3:
        yield from (book.notice(i, "author's note") for i in found if len(book.lines[i]) <= 2 * MAX_NOTICE)


def find_asides(book: BookLines) -> Iterator[Notice]:
    """Find what asks for votes inside headings; the heading stays."""
    for index in sorted(book.headings):
        line = book.lines[index]
        kept = ASIDE.sub("", line).strip()
        if kept and kept != line:
            yield book.notice(index, "author's note in a heading", kept)
