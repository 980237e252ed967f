"""The novel doctor: prepared books -> facts about each, and a report: some lines for the terminal, JSON for machines.

Beside `data/train.json` lies `data/train.report.json`::

    {"output": ..., "verdict": ..., "documents": ..., "characters": ...,
     "books": [BookFacts and the verdict of one book, ...], "left_out": [{"path": ..., "error": ...}, ...]}
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

NUM_SHOWN = 20  # characters and passages listed
CONTEXT = 10  # characters on either side of an example
MIN_PASSAGE = 20  # characters of a paragraph that should not stand twice
SMALL_BOOK = 100_000  # characters; below, a model learns a book by heart sooner than its language
LOST_SHARE = 0.01  # of a book's characters
REPEATED_SHARE = 0.02  # of a book's characters
MAX_BOOK_LINES = 20  # books named one by one on the terminal
PAIRS = ("“”", "‘’", "「」", "『』", "《》", "（）", "【】")
MASK = re.compile(r"[*＊×]{2,}")
ENCODING_NAMES = {
    "utf-8": "UTF-8",
    "utf-8-sig": "UTF-8 with byte order mark",
    "gb18030": "GB18030",
    "big5": "Big5",
    "utf-16-le": "UTF-16 LE",
    "utf-16-be": "UTF-16 BE",
}
ORDINARY = re.compile(  # what is no surprise in a Chinese novel
    "[ -~\xb7\u2010-\u2027\u2030\u203b\u2103\u2460-\u2473\u3000-\u303f\u3400-\u9fff\uf900-\ufaff\uff01-\uff5e"
    "\U00020000-\U0003ffff]"
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
    quotes: dict  # "pairs" with their numbers, "ascii", "unbalanced_documents" with unequal “ ” or 「 」
    repeated_passages: dict  # paragraphs that stand more than once: "passages", "characters", "shown" with their places


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
        return str(vocabulary_path), {token for token in tokens if len(token) == 1}
    codes = bytes(byte for high in range(0xA1, 0xF8) for low in range(0xA1, 0xFF) for byte in (high, low))
    return "GB2312", set(codes.decode("gb2312", "ignore"))


class Examination:
    """What is odd about a book's signs and paragraphs, gathered part by part; vocabulary_path: see known_characters.

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
                self.places[char] = {**place, "line": place["line"] + self.num_lines}
        self.counts.update(counts)
        self.masked += len(MASK.findall(text))
        numbered = enumerate(documents, self.num_documents + 1)
        self.unbalanced += [number for number, document in numbered if not is_balanced(document)]
        self.repeated += find_repeated(lines, self.num_lines)  # within this part: a streamed book is never held whole
        self.num_documents += len(documents)
        self.num_lines += len(lines) - 1  # the next part continues in the last line of this one

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
        shown = []
        for char in common:
            sign = {"character": char, "code": f"U+{ord(char):04X}", "name": unicodedata.name(char, "")}
            shown.append({**sign, "count": self.counts[char], **self.places.get(char, {})})
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


@dataclass(frozen=True)
class Report:
    """The report of a run."""

    output: str  # the file of the documents
    books: list[BookFacts]
    left_out: list[dict]  # path and error of each book of a folder that could not be read

    @property
    def verdict(self) -> str:
        """The judgement of the only book, or how many of many are good."""
        if len(self.books) == 1:
            return judge_book(self.books[0])
        good = sum(not find_faults(book) for book in self.books)
        return f"{len(self.books):,} books: {good:,} good, {len(self.books) - good:,} to look at"

    @property
    def documents(self) -> int:
        """The documents of all books."""
        return sum(book.documents for book in self.books)

    def to_json(self) -> dict:
        """Return the whole report as plain values."""
        return {
            "output": self.output,
            "verdict": self.verdict,
            "documents": self.documents,
            "characters": sum(book.characters for book in self.books),
            "books": [{**vars(book), "verdict": judge_book(book)} for book in self.books],
            "left_out": self.left_out,
        }


def report_path(output: str | Path) -> Path:
    """Name the JSON report beside an output file.

    >>> str(report_path("data/train.json"))
    'data/train.report.json'
    """
    return Path(output).with_suffix(".report.json")


def list_numbers(numbers: Sequence[int], limit: int = 12) -> str:
    """Write chapter numbers with runs drawn together.

    >>> list_numbers([3, 7, 8, 9, 12])
    '3, 7–9, 12'
    """
    runs: list[list[int]] = []  # [first, last]
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    shown = [str(first) if first == last else f"{first}–{last}" for first, last in runs[:limit]]
    return ", ".join(shown) + (" …" if len(runs) > limit else "")


def find_faults(facts: BookFacts) -> list[str]:
    """List what a reader should look at before training on a book, the worst first."""
    # (is it so, how to say it), the worst first
    characters = max(facts.characters, 1)
    repeated, lost, against = facts.repeated_passages["characters"], facts.lost["characters"], facts.lost["against"]
    found = (
        (facts.bad_bytes, f"{facts.bad_bytes:,} bad bytes"),
        (facts.missing, f"chapters missing: {list_numbers(facts.missing, 6)}"),
        (facts.repeated, f"chapters repeated: {list_numbers(facts.repeated, 6)}"),
        (facts.out_of_order, f"chapters out of order: {list_numbers(facts.out_of_order, 6)}"),
        (repeated > REPEATED_SHARE * characters, f"{repeated / characters:.1%} of the text stands twice"),
        (lost > LOST_SHARE * characters, f"{lost / characters:.1%} of the characters are outside {against}"),
        (not facts.chapters and facts.kind == "txt", "no chapter headings"),
        (characters < SMALL_BOOK, f"only {characters:,} characters: a model soon knows it by heart"),
    )
    return [sentence for is_so, sentence in found if is_so]


def judge_book(facts: BookFacts) -> str:
    """Judge a book in one line."""
    size = f"{facts.chapters or facts.documents:,} {'chapters' if facts.chapters else 'documents'}"
    faults = find_faults(facts)
    if not faults:
        return f"good: {size}, {facts.characters:,} characters, nothing missing"
    return f"usable: {size}, {facts.characters:,} characters; look at: {'; '.join(faults)}"


def format_counts(counts: dict[str, int], limit: int = 8) -> str:
    """Write counts as `name 12, name 3`, the largest first."""
    ordered = sorted(counts.items(), key=lambda item: -item[1])
    return ", ".join(f"{name} {number:,}" for name, number in ordered[:limit]) + (" …" if len(ordered) > limit else "")


def book_lines(facts: BookFacts) -> list[str]:
    """Report on one book in about a dozen lines."""
    encoding = ENCODING_NAMES.get(facts.encoding, facts.encoding)
    lines = [f"{facts.name}: {encoding}, {facts.reason}; {facts.characters_in:,} characters read"]
    # the file
    if facts.bad_bytes:
        lines.append(f"  bad bytes: {facts.bad_bytes:,} dropped, first at byte {facts.bad_offsets[0]:,}")
    for first, last, encoding in facts.segments[:5]:
        lines.append(f"  lines {first:,} to {last:,} are {encoding}")
    if facts.repairs:
        lines.append(f"  repaired: {format_counts(facts.repairs)}")
    # the text
    lines.append(f"  cleaned: {format_counts(facts.cleaned) or 'nothing to clean'}")
    if facts.code_points:
        lines.append(f"  removed: {format_counts(facts.code_points)}")
    lines += notice_lines(facts)
    lines += chapter_lines(facts)
    lines += sign_lines(facts)
    lines.append(f"  verdict: {judge_book(facts)}")
    return lines


def notice_lines(facts: BookFacts) -> list[str]:
    """Report on advertisements: how many of which kind, and one of each of the first three kinds."""
    notices = facts.notices
    if not notices:
        return ["  advertisements and site lines: none found"]
    lines = [f"  advertisements and site lines: {format_counts(Counter(notice['reason'] for notice in notices))}"]
    first: dict[str, dict] = {}  # by reason
    for notice in notices:
        first.setdefault(notice["reason"], notice)
    return lines + [f"    line {notice['line']:,}: {notice['text'][:60]}" for notice in list(first.values())[:3]]


def chapter_lines(facts: BookFacts) -> list[str]:
    """Report on the chapters: how they were found, their lengths, what is odd about their numbers."""
    lengths = [entry["characters"] for entry in facts.lengths]  # characters of each document
    middle = sorted(lengths)[len(lengths) // 2]
    lines = [
        f"  chapters: {facts.how}",
        f"  documents: {len(lengths):,}, {min(lengths):,} to {max(lengths):,} characters, median {middle:,}",
    ]
    numbers = (("missing", facts.missing), ("repeated", facts.repeated), ("out of order", facts.out_of_order))
    odd = [f"{word} {list_numbers(found)}" for word, found in numbers if found]
    if facts.headings_removed:
        odd.append(format_counts(Counter(entry["reason"] for entry in facts.headings_removed)) + " lines dropped")
    return lines + ([f"  numbers: {'; '.join(odd)}"] if odd else [])


def sign_lines(facts: BookFacts) -> list[str]:
    """Report on odd characters, quotes, repeated passages and characters outside a vocabulary."""
    lines = []
    if facts.odd["characters"]:
        shown = " ".join(f"{entry['character']}×{entry['count']:,}" for entry in facts.odd["shown"][:10])
        lines.append(f"  odd characters: {facts.odd['characters']:,} of {facts.odd['kinds']:,} kinds: {shown}")
    # only pairs that do not match are worth a line
    quotes = facts.quotes
    unequal = ((pair, both) for pair, both in quotes["pairs"].items() if both[0] != both[1])
    pairs = ", ".join(f"{pair[0]} {both[0]:,} {pair[1]} {both[1]:,}" for pair, both in unequal)
    if pairs:
        lines.append(f"  quotes: {pairs}; unequal “ ” or 「 」 in {quotes['unbalanced_documents']:,} documents")
    repeated = facts.repeated_passages
    if repeated["passages"]:
        first = repeated["shown"][0]
        size = f"{repeated['passages']:,} paragraphs, {repeated['characters']:,} characters"
        lines.append(f"  repeated: {size}; line {first['line']:,}: {first['text'][:30]}")
    lost = facts.lost
    if lost["characters"]:
        size = f"{lost['characters']:,} characters of {lost['kinds']:,} kinds"
        lines.append(f"  outside {lost['against']}: {size}: {''.join(entry['character'] for entry in lost['shown'])}")
    return lines


def terminal_lines(report: Report) -> list[str]:
    """Write the report for the terminal: one book in about 15 lines, many books in one line each."""
    if len(report.books) == 1:
        return book_lines(report.books[0])
    lines = []
    for book in report.books:
        lines.append(f"{book.name}: {ENCODING_NAMES.get(book.encoding, book.encoding)}, {judge_book(book)}")
    # a terminal has no room for a thousand lines
    if len(lines) > MAX_BOOK_LINES:
        lines[MAX_BOOK_LINES:] = [f"… and {len(lines) - MAX_BOOK_LINES:,} more books, all in the report"]
    return [*lines, f"verdict: {report.verdict}"]
