"""Lines that belong to the file and not to the story: dates, navigation, title pages, boxes, what recurs, rules."""

import re
from collections import Counter
from collections.abc import Iterator

from novelgpt.corpus.folding import pair_pattern, simplify_site_words
from novelgpt.corpus.headings import VOLUME_LINE
from novelgpt.corpus.notices.lines import (
    EDGE,
    HAN,
    MAX_NOTICE,
    SITE_WORD,
    BookLines,
    Notice,
    is_speech,
    num_han,
)

SENTENCE_ENDS = tuple("。！？…：；．.!?:;”’」』")
KEY = "(?:(?:最后|最近)?更新(?:时间|日期)|发[布表](?:时间|日期)|(?:本章|总)?字数|上传时间|首发时间)"
BOOKKEEPING = re.compile(
    rf"^[\[【(（]?(?:{KEY}\s*[:：]\s*\d[\d\-:：/.\s年月日时分秒字]{{0,30}}[,，|｜]*\s*)+[\]】)）]?$"
)
ON_NEXT = "点击下一[页章]继续阅读"
END_MARK = re.compile(
    rf"^[\W_]*(?:本章(?:完|终|结束|已完|未完|到此结束)|未完待续|待续|请看下一?[页章]|下一?章更精彩|{ON_NEXT})"
    rf"(?:[，,\s]*(?:未完待续|待续|请看下一?[页章]|{ON_NEXT}))?[\W_]*$"
)
NAVIGATION = re.compile(r"^(?:[\W_]*(?:[上下前后]一?[页章]|返?回?(?:首页|目录|书[页目])|加入书[签架]))+[\W_]*$")
MENU = re.compile(r"^[^\s|｜│]{1,6}(?:\s*[|｜│]\s*[^\s|｜│]{1,6}){4,}$")
BOOKKEEPING_PAIRS = """更新 字数 发布 发表 上传 首发 本章 待续 看下 下章 点击 首页 目录 书页 书目 书签 书架
上一 下一 前一 后一 上页 下页 前页 后页 上章 前章 后章 回首 回目"""
BOOK_LINE = re.compile(r"^[\[【][^\[\]【】]{1,40}[/／][^\[\]【】]{1,30}著\s*[\]】]$")
BOX = re.compile("[┏┓┗┛╔╗╚╝]")
RULE = re.compile(r"^(?:[-=_*—─━~～#＊＝－·•+]\s?){6,}$|^[-=_*—─━~～#＊＝－]{3,}[^\W_]{1,12}[-=_*—─━~～#＊＝－]{3,}$")
# The storytellers' formulas recur at the border of chapters by right.
FORMULA = re.compile("分解|正是|[诗词歌赋]曰|有诗|话说|却说|且说|后事|如何|听")
FRAMED = re.compile(r"^[☆★◆◇●○■□※*＊=＝~～-].*[☆★◆◇●○■□※*＊=＝~～-]$")


def find_bookkeeping(book: BookLines) -> Iterator[Notice]:
    """Find dates and counts of characters, end-of-chapter marks and navigation."""
    for index in book.with_pattern(pair_pattern(BOOKKEEPING_PAIRS)):
        if index in book.headings or len(book.lines[index]) > MAX_NOTICE:
            continue
        line = simplify_site_words(book.lines[index])
        for pattern, reason in (
            (BOOKKEEPING, "date or count of characters"),
            (END_MARK, "end-of-chapter mark"),
            (NAVIGATION, "navigation line"),
            (MENU, "navigation line"),
        ):
            if pattern.match(line):
                yield book.notice(index, reason)
                break


def find_front_matter(book: BookLines) -> Iterator[Notice]:
    """Find the lines before the first heading that name the book."""
    for index in range(min(book.headings, default=0)):
        if BOOK_LINE.match(simplify_site_words(book.lines[index])):
            yield book.notice(index, "title of the file")


def find_boxes(book: BookLines) -> Iterator[Notice]:
    """Find the pictures of signs that frame the name of a site, at the head and at the tail of a book."""
    for edge in (book.filled[:EDGE], book.filled[-EDGE:]):
        framed = [index for index in edge if BOX.search(book.lines[index])]
        if len(framed) < 2:
            continue
        inside = [index for index in edge if framed[0] <= index <= framed[-1]]
        text = "".join(book.lines[index] for index in inside)
        if book.headings.isdisjoint(inside) and num_han(text) <= 10 * len(inside) and SITE_WORD.search(text):
            yield from (book.notice(index, "box of signs") for index in inside if book.lines[index])


def find_repeated(book: BookLines) -> Iterator[Notice]:
    """Find lines that stand both at the head and at the tail of a book, framed by signs or with a word of a site."""
    first = min(book.headings, default=book.filled[EDGE // 3] if len(book.filled) > EDGE // 3 else 0)
    head = {book.lines[index]: index for index in book.filled[:EDGE] if index < first}
    for index in book.filled[-EDGE:]:
        line = book.lines[index]
        if (
            line in head
            and head[line] < index
            and num_han(line) >= 4
            and (FRAMED.match(line) or SITE_WORD.search(line))
        ):
            for place in (head[line], index):
                yield book.notice(place, "at head and tail of the book")


def find_recurring(book: BookLines) -> Iterator[Notice]:
    """Find lines that stand, but for digits, at the border of at least five chapters and of a third of all.

    A line that ends as sentences do may be a refrain and stays; if it speaks of a site, find_sentences has it.
    """
    if len(book.headings) < 5:
        return
    # lines of one shape differ in their digits only: dates and chapter numbers
    lines = {index: book.lines[index] for index in sorted(book.border - book.headings)}
    short = {i: line for i, line in lines.items() if 6 <= len(line) <= MAX_NOTICE and not line.endswith(SENTENCE_ENDS)}
    shapes = {i: re.sub(r"\d+", "0", line) for i, line in short.items() if len(HAN.findall(line)) >= 6}
    counts = Counter(shapes.values())  # chapters at whose border a shape stands
    least = max(5, len(book.headings) / 3)
    for index, shape in shapes.items():
        line = book.lines[index]
        if counts[shape] >= least and not (
            is_speech(line) or FORMULA.search(simplify_site_words(line)) or VOLUME_LINE.match(line)
        ):
            yield book.notice(index, f"recurs at the border of {counts[shape]} chapters")


def find_rules(book: BookLines) -> Iterator[Notice]:
    """Find the rule lines that stand next to a heading, to a removed line, or before the first heading."""
    filled, gone = book.filled, {index for index in book.filled if not book.lines[index]}
    first = min(book.headings, default=0)
    is_rule = [len(book.lines[index]) >= 6 and bool(RULE.match(book.lines[index])) for index in filled]
    rules = [place for place, found in enumerate(is_rule) if found]
    # once down and once up, as a rule line goes with the one beside it
    for order in (rules, rules[::-1]):
        for place in order:
            beside = filled[max(0, place - 1) : place] + filled[place + 1 : place + 2]
            index = filled[place]
            if index not in gone and (index < first or any(i in book.headings or i in gone for i in beside)):
                gone.add(index)
                yield book.notice(index, "rule line")
