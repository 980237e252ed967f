"""A prepared book -> what is odd about it: rare signs, quotes, repeated passages, characters outside a vocabulary."""

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from novelgpt.corpus.books import Book

NUM_SHOWN = 20  # characters and passages listed
CONTEXT = 10  # characters on either side of an example
MIN_PASSAGE = 20  # characters of a paragraph that should not stand twice
PAIRS = ("“”", "‘’", "「」", "『』", "《》", "（）", "【】")
MASK = re.compile(r"[*＊×]{2,}")
ORDINARY = (  # what is no surprise in a Chinese novel, by first and last code point
    (0x20, 0x7E),
    (0xB7, 0xB7),
    (0x2010, 0x2027),
    (0x2030, 0x2030),
    (0x203B, 0x203B),
    (0x2103, 0x2103),
    (0x2460, 0x2473),
    (0x3000, 0x303F),
    (0x3400, 0x9FFF),
    (0xF900, 0xFAFF),
    (0xFF01, 0xFF5E),
    (0x20000, 0x3FFFF),
)


def is_ordinary(char: str) -> bool:
    """Tell whether a character is no surprise in a Chinese novel.

    >>> [is_ordinary(char) for char in "萧，Aの□Ж"]
    [True, True, True, False, False, False]
    """
    return any(first <= ord(char) <= last for first, last in ORDINARY)


def count_characters(text: str) -> dict[str, int]:
    """Count every character of a text; as collections.Counter does, ten times faster.

    >>> count_characters("山外山")
    {'外': 1, '山': 2}
    """
    import numpy as np

    counts = np.bincount(np.frombuffer(text.encode("utf-32-le"), np.uint32))
    present = np.flatnonzero(counts)
    return {chr(code): number for code, number in zip(present.tolist(), counts[present].tolist(), strict=True)}


def known_characters(vocabulary_path: str | Path | None) -> tuple[str, set[str]]:
    """Give the name and the characters of the set a book is held against.

    Args:
        vocabulary_path: a vocabulary file, one token a line; None, or a file that is not there, stands for GB2312.
    """
    if vocabulary_path and Path(vocabulary_path).is_file():
        tokens = Path(vocabulary_path).read_text(encoding="utf-8").split("\n")
        return str(vocabulary_path), {token for token in tokens if len(token) == 1}
    codes = bytes(byte for high in range(0xA1, 0xF8) for low in range(0xA1, 0xFF) for byte in (high, low))
    return "GB2312", set(codes.decode("gb2312", "ignore"))


def examine(book: Book, vocabulary_path: str | Path | None = None) -> None:
    """Add to a book's facts what is odd about its text: `odd`, `quotes`, `repeated_passages`, `lost`."""
    text = "\n".join(book.lines)
    counts = count_characters(text)
    against, known = known_characters(vocabulary_path)
    odd = {char: number for char, number in counts.items() if char != "\n" and not is_ordinary(char)}
    lost = {char: number for char, number in counts.items() if char > "~" and char not in known}
    book.facts["odd"] = describe_characters(odd, text)
    book.facts["masked"] = len(MASK.findall(text))
    book.facts["lost"] = {"against": against, **describe_characters(lost, text)}
    book.facts["quotes"] = check_quotes(book.documents, counts)
    book.facts["repeated_passages"] = find_repeated(book.lines)


def describe_characters(counts: dict[str, int], text: str) -> dict:
    """Say how many characters there are of how many kinds, and show the commonest with the first place of each."""
    common = sorted(counts, key=lambda char: (-counts[char], char))[:NUM_SHOWN]
    return {
        "characters": sum(counts.values()),
        "kinds": len(counts),
        "shown": [{**describe(char), "count": counts[char], **first_place(char, text)} for char in common],
    }


def describe(char: str) -> dict:
    """Name a character: itself, its code point, its Unicode name."""
    return {"character": char, "code": f"U+{ord(char):04X}", "name": unicodedata.name(char, "")}


def first_place(part: str, text: str) -> dict:
    """Give line and surroundings of the first occurrence of a part in a text.

    >>> first_place("Ж", "第一章\\n他Ж走")
    {'line': 2, 'text': '他Ж走'}
    """
    position = text.find(part)
    start = max(text.rfind("\n", 0, position) + 1, position - CONTEXT)
    return {"line": text.count("\n", 0, position) + 1, "text": text[start : position + CONTEXT].partition("\n")[0]}


def check_quotes(documents: Sequence[str], counts: dict[str, int]) -> dict:
    """Count opening and closing signs, and the documents in which “ and ” (or 「 and 」) differ in number."""
    unbalanced = [
        number
        for number, text in enumerate(documents, 1)
        if text.count("“") != text.count("”") or text.count("「") != text.count("」")
    ]
    pairs = {pair: [counts.get(pair[0], 0), counts.get(pair[1], 0)] for pair in PAIRS}
    return {
        "pairs": {pair: both for pair, both in pairs.items() if any(both)},
        "ascii": counts.get('"', 0),
        "unbalanced_documents": len(unbalanced),
        "unbalanced_shown": unbalanced[:NUM_SHOWN],
    }


def find_repeated(lines: Sequence[str]) -> dict:
    """Find paragraphs of MIN_PASSAGE characters or more that stand more than once.

    >>> find_repeated(["一" * 20, "二" * 20, "一" * 20])["characters"]
    20
    """
    counts = Counter(line for line in lines if len(line) >= MIN_PASSAGE)
    again = [line for line, times in counts.items() if times > 1]
    again.sort(key=lambda line: -len(line) * (counts[line] - 1))
    return {
        "passages": len(again),
        "characters": sum(len(line) * (counts[line] - 1) for line in again),
        "shown": [
            {"line": lines.index(line) + 1, "times": counts[line], "text": line[: 6 * CONTEXT]}
            for line in again[:NUM_SHOWN]
        ],
    }
