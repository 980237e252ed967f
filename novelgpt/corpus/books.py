"""One book as found -> its clean documents and everything the report says about it.

    Source ── clean_text ── find_notices ── split_chapters ──> Book(documents, facts)

A text file is divided at its chapter headings. The elements of a JSON list are documents already: their borders stay,
and an element that holds several chapters is divided as well.
"""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field

from novelgpt.corpus.chapters import Chapters, split_chapters
from novelgpt.corpus.cleaning import Cleaned, clean_text
from novelgpt.corpus.notices import find_notices, remove_notices

MAX_NUMBERS = 1_000  # numbers of missing chapters kept


@dataclass(frozen=True)
class Treatment:
    """What the user asked for.

    Attributes:
        keep_ads: leave advertisements and site lines in.
        keep_private: leave private-use characters in.
        width: None, "half" or "full".
        traditional_to_simplified: convert the script.
    """

    keep_ads: bool = False
    keep_private: bool = False
    width: str | None = None
    traditional_to_simplified: bool = False


@dataclass
class Book:
    """The clean documents of one book and the facts for its report.

    Attributes:
        documents: texts, paragraphs separated by one newline; of a streamed book to be taken once.
        facts: plain values ready for JSON; of a streamed book complete when the last document is taken.
        lines: the clean lines with their blank ones, numbered as in the file; for looking up examples.
    """

    documents: Iterable[str]
    facts: dict
    lines: list[str] = field(default_factory=list, repr=False)


def prepare_texts(texts: Sequence[str], treatment: Treatment, *, single: bool) -> Book:
    """Clean the texts of one book and divide them into documents.

    Args:
        texts: one text, or the elements of a list.
        treatment: what the user asked for.
        single: the text is a whole file and may be divided even without headings.

    >>> text = "第一章 山村\\r\\n　　他走了。\\n(本章完)\\n第二章 城\\n她来了。"
    >>> book = prepare_texts([text], Treatment(), single=True)
    >>> book.documents
    ['第一章 山村\\n他走了。', '第二章 城\\n她来了。']
    >>> book.facts["notices"]
    [{'line': 3, 'text': '(本章完)', 'reason': 'end-of-chapter mark', 'kept': ''}]
    """
    receipt, starts = clean_all(texts, treatment)
    lines = receipt.lines
    notices = [] if treatment.keep_ads else find_notices(lines, () if single else starts)
    lines = remove_notices(lines, notices)
    chapters = split_chapters(lines, starts=None if single else starts)
    facts = {
        "characters_in": sum(map(len, texts)),
        "characters": sum(map(len, chapters.documents)),
        "documents": len(chapters.documents),
        **receipt_facts(receipt),
        "notices": [asdict(notice) for notice in notices],
        **chapter_facts(chapters),
    }
    dropped = {line - 1 for line, _, _ in chapters.removed}
    return Book(chapters.documents, facts, ["" if index in dropped else line for index, line in enumerate(lines)])


def clean_all(texts: Sequence[str], treatment: Treatment) -> tuple[Cleaned, list[int]]:
    """Clean every text; the receipt's lines run through all of them, and the second list says where each begins."""
    total, starts = Cleaned(), []
    for text in texts:
        receipt = clean_text(
            text,
            width=treatment.width,
            traditional_to_simplified=treatment.traditional_to_simplified,
            keep_private=treatment.keep_private,
        )
        before = len(total.lines)
        starts.append(before)
        total.lines += receipt.lines
        total.counts.update(receipt.counts)
        total.code_points.update(receipt.code_points)
        for name, shown in receipt.examples.items():
            places = total.examples.setdefault(name, [])
            places += [(before + line, around) for line, around in shown][: 3 - len(places)]
    return total, starts


def receipt_facts(receipt: Cleaned) -> dict:
    """Write the receipt of the cleaning as plain values."""
    return {
        "cleaned": dict(receipt.counts.most_common()),
        "code_points": dict(receipt.code_points.most_common()),
        "examples": {
            name: [{"line": line, "text": text} for line, text in shown] for name, shown in receipt.examples.items()
        },
    }


def chapter_facts(chapters: Chapters) -> dict:
    """Write what is known of the chapters as plain values."""
    return {
        "how": chapters.how,
        "chapters": len(chapters.found),
        "volumes": chapters.volumes,
        "missing": chapters.missing[:MAX_NUMBERS],
        "repeated": chapters.repeated[:MAX_NUMBERS],
        "out_of_order": chapters.out_of_order[:MAX_NUMBERS],
        "headings_removed": [{"line": line, "text": text, "reason": reason} for line, text, reason in chapters.removed],
        "lengths": [
            {
                "line": line,
                "heading": chapter.heading if chapter else "",
                "number": chapter.number if chapter else None,
                "characters": len(document),
            }
            for line, chapter, document in zip(chapters.lines, chapters.chapters, chapters.documents, strict=True)
        ],
    }
