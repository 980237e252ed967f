"""The novel doctor: prepared books -> facts about each, and a report: some lines for the terminal, JSON for machines.

Beside `data/train.json` lies `data/train.report.json`::

    {"output": ..., "verdict": ..., "documents": ..., "characters": ...,
     "books": [BookFacts and the verdict of one book, ...], "left_out": [{"path": ..., "error": ...}, ...]}
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

SMALL_BOOK = 100_000  # characters; below, a model learns a book by heart sooner than its language
LOST_SHARE = 0.01  # of a book's characters
REPEATED_SHARE = 0.02  # of a book's characters
LONG_DOCUMENT = 60_000  # characters; a longer one may hold chapters whose headings were not found
MAX_BOOK_LINES = 20  # books named one by one on the terminal
ENCODING_NAMES = {
    "utf-8": "UTF-8",
    "utf-8-sig": "UTF-8 with byte order mark",
    "gb18030": "GB18030",
    "big5": "Big5",
    "utf-16-le": "UTF-16 LE",
    "utf-16-be": "UTF-16 BE",
}


@dataclass(frozen=True)
class BookFacts:
    """Everything the report says about one book: a book in the report's JSON has these keys in this order.

    Lines are counted from 1 in the file as it came, where a line too long for a paragraph counts as its parts. A
    *place* is `{"line": ..., "text": ...}`, and *signs* are `{"characters": how many, "kinds": how many different ones,
    "shown": the commonest, each with a place}`.
    """

    # how the file was read
    name: str  # its path, or "standard input"
    kind: str  # txt, json, jsonl, csv, epub, docx, html or folder
    encoding: str
    reason: str  # why this encoding
    bad_bytes: int  # dropped, as they are not part of any character
    bad_offsets: list[int]  # places of the first of them in the file
    segments: list[list]  # [first line, last line, encoding] of each part of a file in several encodings
    torn_lines: list[int]  # partly in another encoding
    repairs: dict[str, int]  # repaired faults of JSON, by kind
    left_out: list[str]  # why files of a folder that is a book are not in it

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
    gaps: int  # marks that stand for a missing character, 〓 and □
    lost: dict  # signs outside a vocabulary, whose name is under "against"
    quotes: dict  # "pairs" with their numbers, "ascii", "unbalanced_documents" with unequal “ ” or 「 」
    repeated_passages: dict  # paragraphs that stand more than once: "passages", "characters", "shown" with their places


@dataclass(frozen=True)
class Report:
    """The report of a run."""

    output: str  # the file of the documents
    books: list[BookFacts]
    left_out: list[dict]  # path and error of each book of a folder that could not be read

    @property
    def verdict(self) -> str:
        """The judgement of the only book, or how many of many are good."""
        total, left = len(self.books) + len(self.left_out), len(self.left_out)
        if total == 1:
            return judge_book(self.books[0])
        good = sum(not find_faults(book) for book in self.books)
        counts = f"{total:,} books: {good:,} good, {total - left - good:,} with faults"
        return f"{counts}, {left:,} left out" if left else counts

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
    """Return chapter numbers with runs drawn together.

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
    characters = max(facts.characters, 1)
    repeated, lost, against = facts.repeated_passages["characters"], facts.lost["characters"], facts.lost["against"]
    found = (
        (facts.bad_bytes, f"{facts.bad_bytes:,} bad bytes"),
        (facts.torn_lines, f"lines partly in another encoding: {list_numbers(facts.torn_lines, 6)}"),
        (facts.missing, f"chapters missing: {list_numbers(facts.missing, 6)}"),
        (facts.repeated, f"chapters repeated: {list_numbers(facts.repeated, 6)}"),
        (facts.out_of_order, f"chapters out of order: {list_numbers(facts.out_of_order, 6)}"),
        (repeated > REPEATED_SHARE * characters, f"{repeated / characters:.1%} of the text stands twice"),
        (lost > LOST_SHARE * characters, f"{lost / characters:.1%} of the characters are outside {against}"),
        (not facts.chapters and facts.kind == "txt", "no chapter headings"),
        (characters < SMALL_BOOK, f"only {characters:,} characters: a model soon knows it by heart"),
    )
    return [sentence for is_so, sentence in found if is_so]


def find_remarks(facts: BookFacts) -> list[str]:
    """List what a reader of a good book may want to look at."""
    longest = max((entry["characters"] for entry in facts.lengths), default=0)
    repeated = facts.repeated_passages["passages"]
    found = (
        (facts.left_out, f"files left out: {len(facts.left_out):,}"),
        (facts.gaps, f"missing characters (〓 or □): {facts.gaps:,}"),
        (facts.masked, f"words hidden by ** or ××: {facts.masked:,}"),
        (repeated, f"paragraphs that stand more than once: {repeated:,}"),
        (longest > LONG_DOCUMENT, f"a chapter of {longest:,} characters"),
    )
    return [sentence for is_so, sentence in found if is_so]


def judge_book(facts: BookFacts) -> str:
    """Judge a book in one line."""
    size = f"{facts.chapters or facts.documents:,} {'chapters' if facts.chapters else 'documents'}"
    size += f", {facts.characters:,} characters"
    remarks = find_remarks(facts)
    if faults := find_faults(facts):
        return f"usable: {size}; look at: {'; '.join(faults + remarks)}"
    return f"good: {size}; but look at: {'; '.join(remarks)}" if remarks else f"good: {size}, nothing missing"


def format_counts(counts: dict[str, int], limit: int = 8) -> str:
    """Return counts as `name 12, name 3`, the largest first."""
    ordered = sorted(counts.items(), key=lambda item: -item[1])
    return ", ".join(f"{name} {number:,}" for name, number in ordered[:limit]) + (" …" if len(ordered) > limit else "")


def book_lines(facts: BookFacts) -> list[str]:
    """Report on one book in about a dozen lines."""
    encoding = ENCODING_NAMES.get(facts.encoding, facts.encoding)
    lines = [f"{facts.name}: {encoding}, {facts.reason}; {facts.characters_in:,} characters read"]
    if facts.bad_bytes:
        lines.append(f"  bad bytes: {facts.bad_bytes:,} dropped, first at byte {facts.bad_offsets[0]:,}")
    for first, last, encoding in facts.segments[:5]:
        lines.append(f"  lines {first:,} to {last:,} are {encoding}")
    if facts.repairs:
        lines.append(f"  repaired: {format_counts(facts.repairs)}")
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
    first = {notice["reason"]: notice for notice in reversed(notices)}  # of each reason
    shown = sorted(first.values(), key=lambda notice: notice["line"])[:3]
    return lines + [f"    line {notice['line']:,}: {notice['text'][:60]}" for notice in shown]


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
    """Return the report for the terminal: one book in about 15 lines, many books in one line each."""
    if len(report.books) == 1 and not report.left_out:
        return book_lines(report.books[0])
    names = (ENCODING_NAMES.get(book.encoding, book.encoding) for book in report.books)
    lines = [f"{book.name}: {name}, {judge_book(book)}" for book, name in zip(report.books, names, strict=True)]
    # a terminal has no room for a thousand lines
    if len(lines) > MAX_BOOK_LINES:
        lines[MAX_BOOK_LINES:] = [f"… and {len(lines) - MAX_BOOK_LINES:,} more books, all in the report"]
    return [*lines, f"verdict: {report.verdict}"]
