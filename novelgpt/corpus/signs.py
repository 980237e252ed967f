"""Lines and documents of a clean book -> what is odd about its signs and paragraphs, each kind with a first place."""

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

NUM_SHOWN = 20  # characters and passages listed
CONTEXT = 10  # characters on either side of an example
MIN_PASSAGE = 20  # characters of a paragraph that should not stand twice
PAIRS = ("“”", "‘’", "「」", "『』", "《》", "（）", "【】")
MASK = re.compile(r"[*＊×]{2,}")
ORDINARY = re.compile(  # what is no surprise in a Chinese novel
    "[ -~\xb7\u2010-\u2027\u2030\u203b\u2103\u2460-\u2473\u3000-\u303f\u3400-\u9fff\uf900-\ufaff\uff01-\uff5e"
    "\U00020000-\U0003ffff]"
)


def is_ordinary(char: str) -> bool:
    """Tell whether a character is no surprise in a Chinese novel.

    >>> [is_ordinary(char) for char in "萧，Aの□Ж"]
    [True, True, True, False, False, False]
    """
    return bool(ORDINARY.match(char))


def character_counts(text: str) -> dict[str, int]:
    """Count every character of a text; as collections.Counter does, ten times faster.

    >>> character_counts("山外山")
    {'外': 1, '山': 2}
    """
    counts = np.bincount(np.frombuffer(text.encode("utf-32-le"), np.uint32))  # (highest code point + 1,)
    present = np.flatnonzero(counts)
    return {chr(code): number for code, number in zip(present.tolist(), counts[present].tolist(), strict=True)}


def known_characters(vocabulary_path: str | Path | None) -> tuple[str, set[str]]:
    """Name and list the characters to check a book against: a vocabulary's, or GB2312's if there is no such file."""
    if vocabulary_path and Path(vocabulary_path).is_file():
        tokens = Path(vocabulary_path).read_text(encoding="utf-8").split("\n")
        return Path(vocabulary_path).name, {token for token in tokens if len(token) == 1}
    codes = bytes(byte for high in range(0xA1, 0xF8) for low in range(0xA1, 0xFF) for byte in (high, low))
    return "GB2312", set(codes.decode("gb2312", "ignore"))


class Examination:
    """What is odd about a book's signs and paragraphs, gathered part by part; vocabulary_path: see known_characters.

    >>> examination = Examination()
    >>> examination.add(["第一章", "他Ж走"], ["第一章\\n他Ж走"], [1, 2])
    >>> examination.facts()["odd"]["shown"][0]["line"]
    2
    """

    def __init__(self, vocabulary_path: str | Path | None = None):
        self.against, self.known = known_characters(vocabulary_path)
        self.counts: Counter[str] = Counter()
        self.places: dict[str, dict] = {}
        self.unbalanced: list[int] = []
        self.num_documents = self.num_lines = self.masked = 0
        self.repeated: list[dict] = []

    def add(self, lines: Sequence[str], documents: Sequence[str], numbers: Sequence[int]) -> None:
        """Look at the next part of the book: its clean lines, blank ones included, its documents, the lines' numbers.

        The numbers count from 1 in this part; the parts of a broken line share one.
        """
        text = "\n".join(lines)
        # only odd characters are shown with a place, and only with their first
        counts = character_counts(text)
        for char in counts:
            if char not in self.places and char > "~" and (char not in self.known or not is_ordinary(char)):
                place = first_place(char, text)
                self.places[char] = {**place, "line": numbers[place["line"] - 1] + self.num_lines}
        self.counts.update(counts)
        around = (text[max(0, match.start() - 1) : match.end() + 1] for match in MASK.finditer(text))
        self.masked += sum(any(map(str.isalnum, part)) for part in around)  # others are rules between scenes
        numbered = enumerate(documents, self.num_documents + 1)
        self.unbalanced += [number for number, document in numbered if not is_balanced(document)]
        for entry in find_repeated(lines):  # within this part: a streamed book is never held whole
            self.repeated.append({**entry, "line": numbers[entry["line"] - 1] + self.num_lines})
        self.num_documents += len(documents)
        self.num_lines += numbers[-1] - 1  # the next part continues in the last line of this one

    def facts(self) -> dict:
        """Return `odd`, `masked`, `gaps`, `lost`, `quotes` and `repeated_passages` of BookFacts."""
        odd = [char for char in self.counts if char != "\n" and not is_ordinary(char)]
        lost = [char for char in self.counts if char > "~" and char not in self.known]
        pairs = {pair: [self.counts[pair[0]], self.counts[pair[1]]] for pair in PAIRS}
        return {
            "odd": self.count_signs(odd),
            "masked": self.masked,
            "gaps": self.counts["〓"] + self.counts["□"],
            "lost": {"against": self.against, **self.count_signs(lost)},
            "quotes": {
                "pairs": {pair: both for pair, both in pairs.items() if any(both)},
                "ascii": self.counts['"'],
                "unbalanced_documents": len(self.unbalanced),
                "unbalanced_shown": self.unbalanced[:NUM_SHOWN],
            },
            "repeated_passages": {
                "passages": len(self.repeated),
                "characters": sum(entry["characters"] for entry in self.repeated),
                "shown": sorted(self.repeated, key=lambda entry: -entry["characters"])[:NUM_SHOWN],
            },
        }

    def count_signs(self, chars: Sequence[str]) -> dict:
        """Say how many of these characters there are, of how many kinds, and show the commonest with a place each."""
        common = sorted(chars, key=lambda char: (-self.counts[char], char))[:NUM_SHOWN]
        shown = [
            {"character": char, "code": f"U+{ord(char):04X}", "name": unicodedata.name(char, "")}
            | {"count": self.counts[char], **self.places.get(char, {})}
            for char in common
        ]
        return {"characters": sum(self.counts[char] for char in chars), "kinds": len(chars), "shown": shown}


def first_place(part: str, text: str) -> dict:
    """Give line and surroundings of the first occurrence of a part in a text.

    >>> first_place("Ж", "第一章\\n他Ж走")
    {'line': 2, 'text': '他Ж走'}
    """
    position = text.find(part)
    start = max(text.rfind("\n", 0, position) + 1, position - CONTEXT)
    return {"line": text.count("\n", 0, position) + 1, "text": text[start : position + CONTEXT].partition("\n")[0]}


def is_balanced(document: str) -> bool:
    """Tell whether “ and ” stand in a document equally often, and 「 and 」.

    >>> is_balanced("“来！”"), is_balanced("“来！")
    (True, False)
    """
    return document.count("“") == document.count("”") and document.count("「") == document.count("」")


def find_repeated(lines: Sequence[str]) -> list[dict]:
    """Find paragraphs of MIN_PASSAGE characters or more that stand more than once: how often, where first.

    >>> find_repeated(["一" * 20, "二" * 20, "一" * 20])[0]["times"]
    2
    """
    counts = Counter(line for line in lines if len(line) >= MIN_PASSAGE)
    again = {line: times for line, times in counts.items() if times > 1}
    first = {line: number for number, line in reversed(list(enumerate(lines, 1))) if line in again}
    return [
        {"line": first[line], "times": times, "characters": len(line) * (times - 1), "text": line[: 6 * CONTEXT]}
        for line, times in again.items()
    ]
