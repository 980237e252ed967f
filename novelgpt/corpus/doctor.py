"""The facts of prepared books -> the novel doctor's report: a few lines for the terminal, JSON for machines.

Beside `data/train.json` lies `data/train.report.json`::

    {"output": ..., "verdict": ..., "documents": ..., "characters": ...,
     "books": [BookFacts and the verdict of one book, ...], "left_out": [{"path": ..., "error": ...}, ...]}
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from novelgpt.corpus.facts import BookFacts
from novelgpt.files import write_json

SMALL_BOOK = 100_000  # characters; below, a model learns a book by heart sooner than its language
LOST_SHARE = 0.01  # of a book's characters
REPEATED_SHARE = 0.02  # of a book's characters
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
class Report:
    """The report of a run.

    Attributes:
        output: the file of the documents.
        books: the facts of each book.
        left_out: path and error of each book of a folder that could not be read.
    """

    output: str
    books: list[BookFacts]
    left_out: list[dict]

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


def write_report(report: Report) -> None:
    """Write the report as JSON beside the documents."""
    write_json(report_path(report.output), report.to_json())


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
    repeated, lost = facts.repeated_passages["characters"], facts.lost["characters"]
    found = (
        (facts.bad_bytes, f"{facts.bad_bytes:,} bad bytes"),
        (facts.missing, f"chapters missing: {list_numbers(facts.missing, 6)}"),
        (facts.repeated, f"chapters repeated: {list_numbers(facts.repeated, 6)}"),
        (facts.out_of_order, f"chapters out of order: {list_numbers(facts.out_of_order, 6)}"),
        (repeated > REPEATED_SHARE * characters, f"{repeated / characters:.1%} of the text stands twice"),
        (
            lost > LOST_SHARE * characters,
            f"{lost / characters:.1%} of the characters are outside {facts.lost['against']}",
        ),
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
    lines = [f"{facts.name}: {name_encoding(facts)}, {facts.reason}; {facts.characters_in:,} characters read"]
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
    shown: set[str] = set()  # reasons
    for notice in notices:
        if notice["reason"] not in shown and len(shown) < 3:
            shown.add(notice["reason"])
            lines.append(f"    line {notice['line']:,}: {notice['text'][:60]}")
    return lines


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
    pairs = ", ".join(
        f"{pair[0]} {both[0]:,} {pair[1]} {both[1]:,}" for pair, both in quotes["pairs"].items() if both[0] != both[1]
    )
    if pairs:
        lines.append(f"  quotes: {pairs}; unequal “ ” in {quotes['unbalanced_documents']:,} documents")
    repeated = facts.repeated_passages
    if repeated["passages"]:
        first = repeated["shown"][0]
        lines.append(
            f"  repeated: {repeated['passages']:,} paragraphs, {repeated['characters']:,} characters; "
            f"line {first['line']:,}: {first['text'][:30]}"
        )
    lost = facts.lost
    if lost["characters"]:
        shown = "".join(entry["character"] for entry in lost["shown"])
        lines.append(
            f"  outside {lost['against']}: {lost['characters']:,} characters of {lost['kinds']:,} kinds: {shown}"
        )
    return lines


def name_encoding(facts: BookFacts) -> str:
    """Write the encoding of a book for people."""
    return ENCODING_NAMES.get(facts.encoding, facts.encoding)


def terminal_lines(report: Report) -> list[str]:
    """Write the report for the terminal: one book in about 15 lines, many books in one line each."""
    if len(report.books) == 1:
        return book_lines(report.books[0])
    lines = [f"{book.name}: {name_encoding(book)}, {judge_book(book)}" for book in report.books]
    # a terminal is no place for a thousand lines
    if len(lines) > MAX_BOOK_LINES:
        lines[MAX_BOOK_LINES:] = [f"… and {len(lines) - MAX_BOOK_LINES:,} more books, all in the report"]
    return [*lines, f"verdict: {report.verdict}"]
