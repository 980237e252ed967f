"""The lines of a book as the finders of notices see them: with headings, borders of chapters, pieces and quotes."""

import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

BORDER = 6  # lines that are not blank, counted from a heading or the end, within which notices are expected
EDGE = 30  # lines that are not blank at the end of a book
MAX_NOTICE = 160  # characters of a line that goes for what it says
HAN = re.compile("[\u4e00-\u9fff\u3400-\u4dbf]")
OPEN, CLOSE = "（(【[［｛{〔<＜", "）)】]］｝}〕>＞"
QUOTES = ("“”", "「」", "『』", "‘’")
SPEECH = ("“", "‘", "「", "『", '"', "'", "—", "…")
# whoever tells of him, her or me tells a story
STORY_WORD = re.compile("[他她它]|我(?!们)|[了着][，。]")
# what sites speak of, and stories much less
SITE_WORD = re.compile(
    "小说|天堂|书[吧库城屋网评友]|网[站址]|阅读|下载|手机|首发|更新|章节|手打|文学|免费|登[陆录]|访问|域名|地址|中文网|txt|最[新快]|收藏"
    "|电子书|推荐|记住|搜索|看书|好书|正版|论坛|关注|百度"
)
CLAUSE = re.compile(r"[^，,、：:；;\s]*[，,、：:；;\s]*")
STORY_ENDS = tuple("。！？…”’」』，：；—,.!?:;~")  # of a paragraph to which an advertisement is stuck
QUOTE_ENDS = tuple("”’」』")
HEADED = re.compile("第.{1,9}[章回节]")
MAX_STUCK = 30  # Chinese characters of a sentence without an address that goes with the one beside it
MIN_STORY = 8  # Chinese characters of a clause without a word of a site that are taken for story
# a group in brackets (to the next comma if it is not closed), or a sentence with its end; a point ends a sentence
# behind two Chinese characters
ENDS = "。！？…!?~～"
LEFT, RIGHT = "（(【[［", "）)】]］"
PIECE = re.compile(
    rf"[{re.escape(LEFT)}][^{re.escape(LEFT + RIGHT)}]{{0,200}}[{re.escape(RIGHT)}][{ENDS}\s]*"
    rf"|[{re.escape(LEFT)}][^{ENDS}，,{re.escape(LEFT)}]*"
    rf"|(?:[^{ENDS}.{re.escape(LEFT)}]|(?<![\u4e00-\u9fff]{{2}})\.)*"
    rf"(?:(?:[{ENDS}]|(?<=[\u4e00-\u9fff]{{2}})\.+)+[”’」』\"）)\]]*\s*)?"
)


@dataclass
class Notice:
    """One line that is removed or shortened."""

    line: int  # its number, from 1
    text: str  # the line as it was
    reason: str
    kept: str = ""  # what stays in its place, "\\n" for a line break of HTML; empty when the whole line goes


@dataclass
class BookLines:
    """The lines of one book while notices are taken out of them; their numbers stay."""

    lines: list[str]
    headings: set[int]  # indices of the lines that are chapter headings
    starts: Sequence[int] = ()  # of other lines that begin a document

    def __post_init__(self) -> None:
        # of the lines as they come; later ones are parts of these, so that what is not in these is not in those
        self.text = "\n".join(self.lines)
        self.offsets = line_offsets(self.lines)
        self.filled = [index for index, line in enumerate(self.lines) if line]

    @cached_property
    def border(self) -> set[int]:
        """The lines near a heading, before the first heading and at the end of the book."""
        known = self.headings.union(self.starts)
        places = [place for place, index in enumerate(self.filled) if index in known]
        # without headings, the first lines are a border as well
        border = set(self.filled[: places[0]] if places else self.filled[:BORDER]) | set(self.filled[-EDGE:])
        for place in places:
            border.update(self.filled[max(0, place - BORDER) : place + BORDER + 1])
        return border

    def with_pattern(self, pattern: re.Pattern[str]) -> list[int]:
        """List the lines in which a pattern occurs, by one search over the whole text."""
        return sorted({bisect_right(self.offsets, match.start()) - 1 for match in pattern.finditer(self.text)})

    def notice(self, index: int, reason: str, kept: str = "") -> Notice:
        """Say that of a line only this is kept."""
        return Notice(index + 1, self.lines[index], reason, kept)


def line_offsets(lines: Sequence[str]) -> list[int]:
    """List where each line begins in the text of all, and where that ends.

    >>> line_offsets(["他走了", "", "天黑"])
    [0, 4, 5, 8]
    """
    return [0, *accumulate(len(line) + 1 for line in lines)]


def num_han(text: str) -> int:
    """Count the Chinese characters of a text."""
    return len(HAN.findall(text))


def is_speech(line: str) -> bool:
    """Tell whether a line begins as speech or holds quoted speech.

    >>> is_speech("“最新章节？”他问。"), is_speech("最新章节请到本站")
    (True, False)
    """
    return line.startswith(SPEECH) or "：“" in line or "：「" in line or "道：" in line


def in_quotes(line: str, position: int) -> bool:
    """Tell whether a quote is open before a position of a line.

    >>> in_quotes("他说：“走。走！”天黑了。", 6), in_quotes("他说：“走。走！”天黑了。", 9)
    (True, False)
    """
    if any(line.count(left, 0, position) > line.count(right, 0, position) for left, right in QUOTES):
        return True
    return line.count('"', 0, position) % 2 == 1


def split_pieces(line: str) -> Iterator[tuple[int, int]]:
    """Yield start and end of each sentence and each group in brackets, the whole line through.

    >>> [("他走了。[某网] 天黑"[start:end]) for start, end in split_pieces("他走了。[某网] 天黑")]
    ['他走了。', '[某网] ', '天黑']
    """
    return (match.span() for match in PIECE.finditer(line) if match.group())
