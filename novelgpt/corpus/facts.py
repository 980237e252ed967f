"""A prepared book -> the facts of its report: what was changed, and what is odd about numbers, signs and passages."""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np

MAX_NUMBERS = 1_000  # odd chapter numbers of each kind
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


@dataclass(frozen=True)
class BookFacts:
    """Everything the report says about one book: a book in the report's JSON has these keys in this order.

    Lines are counted from 1 in the file as it came. A *place* is `{"line": ..., "text": ...}`, and *signs* are
    `{"characters": how many, "kinds": how many different ones, "shown": the commonest, each with a place}`.
    """

    # how the file was read
    name: str  # its path, or "standard input"
    kind: str  # txt, json, jsonl or csv
    encoding: str
    reason: str  # why this encoding
    bad_bytes: int  # dropped, as they are not part of any character
    bad_offsets: list[int]  # places of the first of them in the file
    segments: list[list]  # [first line, last line, encoding] of each part of a file in several encodings
    repairs: dict[str, int]  # repaired faults of JSON, by kind

    # how the text was cleaned and divided
    characters_in: int
    characters: int  # in the documents
    documents: int
    cleaned: dict[str, int]  # how often each class of change was made, the commonest first
    code_points: dict[str, int]  # how often each removed character stood there, by "U+0007"
    examples: dict[str, list[dict]]  # the first places of each class of change
    notices: list[dict]  # line, text, reason, kept: the advertisements and site lines removed or shortened
    how: str  # how the documents were found
    chapters: int  # documents with a heading
    volumes: int
    missing: list[int]  # chapter numbers, as are the next two
    repeated: list[int]
    out_of_order: list[int]
    headings_removed: list[dict]  # line, text, reason: listed in a table of contents, or doubled
    lengths: list[dict]  # line, heading, number, characters of each document

    # what is odd about the clean text
    odd: dict  # signs that are a surprise in a Chinese novel
    masked: int  # words masked by asterisks
    lost: dict  # signs outside a vocabulary, whose name is under "against"
    quotes: dict  # "pairs" of opening and closing quotes with their numbers, "ascii", documents with unequal “ and ”
    repeated_passages: dict  # paragraphs that stand more than once: "passages", "characters", "shown" with their places


@dataclass
class ChapterNumbers:
    """What is odd about the numbers of chapters.

    Attributes:
        missing, repeated, out_of_order: chapter numbers, as found volume by volume.
        volumes: how often the numbers begin anew, plus one.
    """

    missing: list[int] = field(default_factory=list)
    repeated: list[int] = field(default_factory=list)
    out_of_order: list[int] = field(default_factory=list)
    volumes: int = 1


def check_numbers(chapters: Iterable[tuple[int | None, str]]) -> ChapterNumbers:
    """Find numbers that are missing, repeated or out of order; a new 1 begins a new volume.

    Args:
        chapters: the number of each chapter, None for one without, and the volume that its heading names, or "".

    >>> check_numbers((number, "") for number in (1, 2, 4, 4, 1, 3, 2))
    ChapterNumbers(missing=[3], repeated=[4], out_of_order=[2], volumes=2)
    """
    result = ChapterNumbers()
    seen: set[int] = set()  # numbers of the present volume
    highest, volume = 0, ""
    for number, named in chapters:
        if number is None:
            continue
        former, volume = volume, named or volume
        if number <= 1 and number in seen and (highest > 1 or volume != former):
            result.missing += missing_numbers(seen)
            seen, highest = {number}, number
            result.volumes += 1
        elif number in seen:
            result.repeated.append(number)
        else:
            if number < highest:
                result.out_of_order.append(number)
            seen.add(number)
            highest = max(highest, number)
    result.missing += missing_numbers(seen)
    return result


def missing_numbers(seen: set[int]) -> list[int]:
    """List the first numbers missing between the smallest and the largest of a set."""
    between = range(min(seen, default=0), max(seen, default=0))
    return list(islice((number for number in between if number not in seen), MAX_NUMBERS))


def is_ordinary(char: str) -> bool:
    """Tell whether a character is no surprise in a Chinese novel.

    >>> [is_ordinary(char) for char in "萧，Aの□Ж"]
    [True, True, True, False, False, False]
    """
    return any(first <= ord(char) <= last for first, last in ORDINARY)


def character_counts(text: str) -> dict[str, int]:
    """Count every character of a text; as collections.Counter does, ten times faster.

    >>> character_counts("山外山")
    {'外': 1, '山': 2}
    """
    counts = np.bincount(np.frombuffer(text.encode("utf-32-le"), np.uint32))  # (highest code point + 1,)
    present = np.flatnonzero(counts)
    return {chr(code): number for code, number in zip(present.tolist(), counts[present].tolist(), strict=True)}


def known_characters(vocabulary_path: str | Path | None) -> tuple[str, set[str]]:
    """Give the name and the characters of the set that a book is checked against.

    Args:
        vocabulary_path: a vocabulary file, one token a line; None, or a file that is not there, stands for GB2312.
    """
    if vocabulary_path and Path(vocabulary_path).is_file():
        tokens = Path(vocabulary_path).read_text(encoding="utf-8").split("\n")
        return str(vocabulary_path), {token for token in tokens if len(token) == 1}
    codes = bytes(byte for high in range(0xA1, 0xF8) for low in range(0xA1, 0xFF) for byte in (high, low))
    return "GB2312", set(codes.decode("gb2312", "ignore"))


class Examination:
    """What is odd about a book's signs and paragraphs, gathered part by part.

    Args:
        vocabulary_path: see known_characters.

    >>> examination = Examination()
    >>> examination.add(["第一章", "他Ж走"], ["第一章\\n他Ж走"])
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

    def add(self, lines: Sequence[str], documents: Sequence[str]) -> None:
        """Look at the next part of the book: its clean lines, blank ones included, and its documents."""
        text = "\n".join(lines)
        # only odd characters are shown with a place, and only with their first
        counts = character_counts(text)
        for char in counts:
            if char not in self.places and char > "~" and (char not in self.known or not is_ordinary(char)):
                place = first_place(char, text)
                self.places[char] = {"line": place["line"] + self.num_lines, "text": place["text"]}
        self.counts.update(counts)
        self.masked += len(MASK.findall(text))
        self.unbalanced += [
            self.num_documents + number for number, document in enumerate(documents, 1) if not is_balanced(document)
        ]
        self.repeated += find_repeated(lines, self.num_lines)
        self.num_documents += len(documents)
        self.num_lines += len(lines) - 1  # the next part goes on in the last line of this one

    def facts(self) -> dict:
        """Return `odd`, `masked`, `lost`, `quotes` and `repeated_passages` of BookFacts."""
        odd = [char for char in self.counts if char != "\n" and not is_ordinary(char)]
        lost = [char for char in self.counts if char > "~" and char not in self.known]
        pairs = {pair: [self.counts[pair[0]], self.counts[pair[1]]] for pair in PAIRS}
        return {
            "odd": self.count_signs(odd),
            "masked": self.masked,
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
        return {
            "characters": sum(self.counts[char] for char in chars),
            "kinds": len(chars),
            "shown": [
                {**name_character(char), "count": self.counts[char], **self.places.get(char, {})} for char in common
            ],
        }


def name_character(char: str) -> dict:
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


def is_balanced(document: str) -> bool:
    """Tell whether “ and ” stand in a document equally often, and 「 and 」.

    >>> is_balanced("“来！”"), is_balanced("“来！")
    (True, False)
    """
    return document.count("“") == document.count("”") and document.count("「") == document.count("」")


def find_repeated(lines: Sequence[str], lines_before: int = 0) -> list[dict]:
    """Find paragraphs of MIN_PASSAGE characters or more that stand more than once: how often, where first.

    >>> find_repeated(["一" * 20, "二" * 20, "一" * 20])[0]["times"]
    2
    """
    counts = Counter(line for line in lines if len(line) >= MIN_PASSAGE)
    again = {line: times for line, times in counts.items() if times > 1}
    first = {line: number for number, line in reversed(list(enumerate(lines, lines_before + 1))) if line in again}
    return [
        {"line": first[line], "times": times, "characters": len(line) * (times - 1), "text": line[: 6 * CONTEXT]}
        for line, times in again.items()
    ]
