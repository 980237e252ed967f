"""Records: clean chapters -> a table that teaches a network to write titles, and any file of records -> rows of ids.

    第一章 第七口井⏎青石渡的人都说……   →   青石渡的人都说……[TIL]第七口井   →   [CLS] 青 石 … [TIL] 第 七 口 井 [CLS]

A row is framed like a document, and with a mark only what follows the mark is scored, the closing [CLS] included::

    [CLS] text [CLS]                          no mark: all but the first token is scored
    [CLS] chapter [TIL] title [CLS]           mark [TIL]: title and [CLS] are scored
          ^cut here if longer than the block

A row that is too long loses its end without a mark, and the beginning of what stands before the mark with one, so that
the scored part stays whole. Added tokens such as [TIL] count as tokens in a record; "[CLS]" is five characters there,
as in any document.
"""

import csv
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from novelgpt.corpus.chapters import read_heading
from novelgpt.corpus.documents import MAX_PROCESSES, STANDARD_INPUT, read_documents
from novelgpt.files import atomic_writer
from novelgpt.messages import EXIT_INPUT, EXIT_USAGE, UserError

TITLE_MARK = "[TIL]"
EDGES = " \t\u3000:：·、.-—_|~"
BRACKETS = dict(zip("】])）》>", "【[(（《<", strict=True))
LETTER = re.compile(r"\w")
TASK = 1 << 20  # characters a process encodes at a time
LINE_END = re.compile(r"\r\n?")


def read_title(heading: str) -> str:
    """Return the words of a heading without volume and number; empty when it has no others.

    >>> [read_title(line) for line in ("上卷 第一一九回　中乡魁", "【第十章：漏诀】", "第二章 剑(上)")]
    ['中乡魁', '漏诀', '剑(上)']
    >>> [read_title(line) for line in ("第二章", "尾声 归途", "楔子", "他走了")]
    ['', '归途', '', '']
    """
    found = read_heading(heading)
    if found is None:
        return ""
    title = found.title if found.unit else " ".join(re.split(r"[\s:：]+", heading)[1:])
    # a bracket that opens before the number closes behind the title
    title = title.strip(EDGES)
    while title and title[-1] in BRACKETS and BRACKETS[title[-1]] not in title:
        title = title[:-1].rstrip(EDGES)
    return title if LETTER.search(title) else ""


class TitleTable:
    """A table with the one column `text`, written while the documents pass by: a library need not fit into memory."""

    def __init__(self, path: str | Path):
        self.path = path
        self.written = 0  # chapters with a title and text
        self.untitled = self.empty = 0  # documents left out for want of a title or of text

    def watch(self, documents: Iterable[str]) -> Iterator[str]:
        """Yield clean documents unchanged, and write a record of each chapter that has a title and text.

        A chapter's first line is its heading. The table appears when the last document was taken.

        Raises:
            UserError: no chapter has a title, or the table cannot be written.
        """
        with atomic_writer(self.path) as file:
            file.write(b"text\n")
            # a mark inside the text would be taken for the one before the title
            for document in documents:
                heading, _, text = document.partition("\n")
                title = read_title(heading)
                if not title or TITLE_MARK in document:
                    self.untitled += 1
                elif not text.strip():
                    self.empty += 1
                else:
                    self.written += 1
                    file.write(csv_line(f"{text}{TITLE_MARK}{title}"))
                yield document
            if not self.written:
                number = self.untitled + self.empty
                message = f"--titles {self.path}: none of {number:,} documents is a chapter with a title"
                raise UserError(message, "leave --titles out", EXIT_INPUT)

    def describe(self) -> str:
        """Say what became of the documents: `data/titles.csv: 26 chapters with titles; left out: …`."""
        parts = ((self.untitled, "without a title"), (self.empty, "without text below the title"))
        left = [f"{number:,} {'document' if number == 1 else 'documents'} {what}" for number, what in parts if number]
        left_out = f"; left out: {', '.join(left)}" if left else ""
        return f"{self.path}: {self.written:,} chapters with titles{left_out}"


def csv_line(cell: str) -> bytes:
    """Return a line of a table with one column."""
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow([cell])
    return line.getvalue().encode("utf-8")


@dataclass(frozen=True)
class Records:
    """Rows end to end."""

    ids: np.ndarray  # (N,) tokens of all rows
    starts: np.ndarray  # int64 (R + 1,), where each row begins, and N
    first: np.ndarray  # int64 (R,), the first scored place in each row
    tokens: int  # of all parts to be scored, before any cut
    characters: int  # of the same parts
    cut: int  # rows that did not fit into the block
    skipped: int  # records without the mark, or with nothing to be scored

    def __len__(self) -> int:
        return len(self.first)

    def lengths(self, rows: np.ndarray) -> np.ndarray:
        """Return the tokens of some rows, int64 (B,)."""
        return self.starts[rows + 1] - self.starts[rows]


def read_records(path: str | Path, column: str | None = None) -> list[str]:
    """Read the texts of a file, blank ones left out: the lines of a `.txt`, the elements or cells of the other kinds.

    Args:
        path: a .txt, .csv, .json or .jsonl file in any encoding, each also as .gz.
        column: column or key of the text; None tries `text`, then `content`.

    Raises:
        UserError: unreadable, or without a text.
    """
    if str(path) == STANDARD_INPUT:
        raise UserError(
            "-: standard input cannot be read again later, expected a file of records", "give a file", EXIT_USAGE
        )
    if not Path(path).exists():
        hint = "name a file of your own, or make one of a novel's chapters: python clr_ctrl.py --titles data/titles.csv"
        raise UserError(f"{path}: no such file of records", hint, EXIT_INPUT)
    # the option has another name here than in clr_ctrl.py
    try:
        source = read_documents(path, field=column, title_field="")  # a record is its text alone
    except UserError as problem:
        hint = re.sub("^.*--field", "--text_column", problem.hint)
        raise UserError(problem.message, hint, problem.code) from problem
    if source.kind == "txt" and column:
        message = f"--text_column {column}: {path} has lines, not columns"
        raise UserError(message, "leave --text_column out, or give a .csv, .json or .jsonl file", EXIT_USAGE)
    # a text file holds a record a line, the other kinds an element or a cell each
    texts = [LINE_END.sub("\n", text) for text in source.documents]
    if source.kind == "txt":
        texts = [line.strip() for line in texts[0].split("\n")]
    texts = [text for text in texts if text.strip()]
    if not texts:
        raise UserError(f"{path}: no text in it, expected at least one", "give another file", EXIT_INPUT)
    return texts


def encode_records(
    texts: Sequence[str], tokenizer, *, block_size: int, mark: str | None = None, num_workers: int = 1
) -> Records:
    """Encode records into rows.

    Args:
        texts, tokenizer: the records, and a NovelTokenizer from load_tokenizer.
        block_size: tokens a row at most, from 4 up.
        mark: an added token of the vocabulary; only what follows its first occurrence is scored. None scores all.
        num_workers: processes; the result is the same for any number.

    >>> from novelgpt.corpus.tokenizers import NovelTokenizer
    >>> tokenizer = NovelTokenizer.from_texts(["井水来了"]).add_tokens(["[TIL]"])
    >>> records = encode_records(["井水来了[TIL]井", "来了"], tokenizer, block_size=6, mark="[TIL]")
    >>> tokenizer.decode(records.ids), records.first.tolist(), records.cut, records.skipped
    ('[CLS]来了[TIL]井[CLS]', [4], 1, 1)
    """
    encode = partial(encode_texts, tokenizer=tokenizer, block_size=block_size, mark=mark)
    if num_workers == 1:
        return encode(texts)
    # "spawn": a process that is copied while torch's threads run may hang
    with ProcessPoolExecutor(min(num_workers, MAX_PROCESSES), mp_context=get_context("spawn")) as pool:
        return join_records(list(pool.map(encode, divide_texts(texts))))


def divide_texts(texts: Sequence[str]) -> Iterator[list[str]]:
    """Yield the texts in order in portions of about a task."""
    portion, length = [], 0  # characters
    for text in texts:
        portion.append(text)
        length += len(text)
        if length >= TASK:
            yield portion
            portion, length = [], 0
    yield portion


def encode_texts(texts: Sequence[str], *, tokenizer, block_size: int, mark: str | None) -> Records:
    """Encode some records in this process."""
    rows = (encode_record(text, tokenizer, block_size=block_size, mark=mark) for text in texts)
    return join_records([no_records(tokenizer.dtype), *rows])


def no_records(dtype: np.dtype, skipped: int = 0) -> Records:
    """Return no rows, of some records skipped."""
    return Records(np.empty(0, dtype), np.zeros(1, np.int64), np.empty(0, np.int64), 0, 0, 0, skipped)


def encode_record(text: str, tokenizer, *, block_size: int, mark: str | None) -> Records:
    """Encode one record; it is skipped where the mark is missing or nothing follows it. See encode_records."""
    before, found, scored = text.partition(mark) if mark else ("", True, text)
    tail = tokenizer.encode_document(scored)
    if not found or not scored.strip() or not len(tail):
        return no_records(tokenizer.dtype, skipped=1)
    # room is what the scored part and both [CLS] leave of the block
    parts, first = [tail], 1
    room = block_size - len(tail) - 2
    if mark:
        # of a text that is too long the end is kept, next to the mark
        head = tokenizer.encode_document(before)
        kept = head[len(head) - min(len(head), max(0, room - 1)) :]
        parts = [kept, np.array([tokenizer.marks[mark]], tokenizer.dtype), tail]
        first = 2 + len(kept)
        room -= len(head) + 1
    ids = np.concatenate([*tokenizer.frame([np.concatenate(parts)])])[:block_size]  # (T,)
    starts = np.array([0, len(ids)], np.int64)
    # the closing [CLS] is scored as well
    return Records(ids, starts, np.array([first], np.int64), len(tail) + 1, len(scored), cut=int(room < 0), skipped=0)


def join_records(parts: Sequence[Records]) -> Records:
    """Lay the rows of several parts end to end."""
    # tokens in each row
    lengths = np.concatenate([np.diff(part.starts) for part in parts])
    counts = {name: sum(getattr(part, name) for part in parts) for name in ("tokens", "characters", "cut", "skipped")}
    ids, first = (np.concatenate([getattr(part, name) for part in parts]) for name in ("ids", "first"))
    return Records(ids, np.cumsum([0, *lengths], dtype=np.int64), first, **counts)
