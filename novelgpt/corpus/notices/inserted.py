"""The name of a typist or site that was written into the middle of sentences, again and again."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import takewhile

from novelgpt.corpus.notices.lines import BookLines, Notice

LEAST = 5  # sentences into which the same name is written
# 手打 is what typists sign with, and what a hand does: to open, to break, somebody …
TRIGGER = re.compile(
    r"(?<=(\w\w))(?:第一时间)?(?:手打(?![开断了个得死人架我你他她它在电败下拳字过碎破成起来晕跑颤飞残通昏跌出响落掉入造翻伤住的错招量扫照磨理"
    r"发平退折狂自穿麻哈猎铁着赢圈滑向到不])|最快更新)"
)
ANY = re.compile("手打|最快更新")  # finds the lines to look at
MAX_NAME = 8  # characters


def find_inserted(book: BookLines) -> Iterator[Notice]:
    """Find a name in front of 手打 or 最快更新 that stands in many sentences, and cut both out of them."""
    places = {index: list(TRIGGER.finditer(book.lines[index])) for index in book.with_pattern(ANY)}
    before = Counter(match.group(1) for found in places.values() for match in found)
    names: dict[str, str] = {}
    for ending, count in before.items():
        if count >= LEAST:
            starts = [m.string[: m.start()] for found in places.values() for m in found if m.group(1) == ending]
            names[ending] = common_ending(starts)
    for index, found in places.items():
        line = book.lines[index]
        for match in reversed(found):
            if match.group(1) in names:
                start = match.start() - len(shared_ending(line[: match.start()], names[match.group(1)]))
                line = line[:start] + line[match.end() :]
        if line != book.lines[index] and index not in book.headings:
            yield book.notice(index, "name in a sentence", line.strip())


def common_ending(texts: Sequence[str]) -> str:
    """Give the longest ending of which each longer one is still that of most texts.

    >>> common_ending(["他走学习园地", "雪学习园地", "天黑学习园地", "园地"])
    '学习园地'
    """
    ending = ""
    while len(ending) < MAX_NAME:
        longer = Counter(
            text[-len(ending) - 1 :] for text in texts if text.endswith(ending) and len(text) > len(ending)
        )
        best, count = longer.most_common(1)[0] if longer else ("", 0)
        if count < 0.6 * len(texts):
            break
        ending = best
    return ending


def shared_ending(text: str, other: str) -> str:
    """Give the longest ending of both texts.

    >>> shared_ending("习园地", "学习园地")
    '习园地'
    """
    same = list(takewhile(lambda pair: pair[0] == pair[1], zip(reversed(text), reversed(other), strict=False)))
    return text[len(text) - len(same) :]
