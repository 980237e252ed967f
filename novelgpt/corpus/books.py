"""Files and folders of novels -> one JSON list of clean documents, and the facts about every book.

    file ── read_documents ──> texts ── clean_text ── find_notices ── split_chapters ──> documents + BookFacts

A text file is divided at its chapter headings. The elements of a JSON list are documents already: their borders stay,
and an element that holds several chapters is divided as well. A text too large for memory goes the same way block by
block. Books keep the order of their paths and are prepared on all cores. A book of a folder that cannot be read is left
out and reported; a file that was named on the command line must be readable.
"""

import contextlib
import itertools
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from novelgpt.corpus.chapters import (
    BrokenLines,
    Chapters,
    break_lines,
    check_numbers,
    choose_headings,
    find_second_books,
    matching_headings,
    part_lines,
    split_chapters,
)
from novelgpt.corpus.cleaning import Cleaned, clean_text
from novelgpt.corpus.doctor import BookFacts
from novelgpt.corpus.documents import (
    MAX_PROCESSES,
    SourceFile,
    join_paragraphs,
    kind_of,
    read_documents,
    stream_text,
    write_documents,
)
from novelgpt.corpus.headings import HEADING_START, SENTENCE_END, Heading, volume_of
from novelgpt.corpus.inputs import STANDARD_INPUT, file_size, find_inputs, is_plain_text
from novelgpt.corpus.notices import Notice, find_dropped, find_notices, remove_notices
from novelgpt.corpus.signs import Examination
from novelgpt.messages import EXIT_USAGE, UserError, progress_bar, say

PassThrough = Callable[[Iterator[str]], Iterator[str]]
LARGE_TEXT = 64 << 20  # bytes; a larger text is read in blocks
BLOCK_CHARACTERS = 4 << 20  # at most, in a block
NO_CHAPTERS = "none"  # what --chapters says to have parts of even length
LINE_END = re.compile(r"\n|\r(?!\Z)")


@dataclass(frozen=True)
class CleaningOptions:
    """What the user asked for."""

    chapters: str | None = None  # expression of the lines that begin a chapter, or "none"; None finds them
    keep_ads: bool = False  # leave advertisements, site lines and author's notes in
    drop: tuple[str, ...] = ()  # leave out the lines that contain this text, or this /regular expression/
    keep_private: bool = False  # leave private-use characters in
    width: str | None = None  # None, "half" or "full"
    traditional_to_simplified: bool = False
    encoding: str | None = None  # of the input; None detects it
    force_encoding: bool = False  # obey encoding even where it reads nonsense
    field: str | None = None  # key or column of the text; None tries `text`, `content` and the like
    title_field: str | None = None  # key or column of the title; None tries `title`, `chapter_name` and the like
    vocabulary_path: str | Path | None = None  # its characters are expected; GB2312's if there is no such file

    def __post_init__(self):
        if self.force_encoding and self.encoding is None:
            message = "--force_encoding: has no meaning without --encoding"
            raise UserError(message, "--encoding gb18030 --force_encoding", EXIT_USAGE)


class CleanBook:
    """The clean documents of one file, to be iterated over once; afterwards `facts` says what was done.

    A large text is prepared block by block while its documents are taken.

    Raises:
        UserError: while iterating: the file cannot be read.
    """

    def __init__(self, path: str, options: CleaningOptions):
        self.path = path
        self.options = options
        self.facts: BookFacts | None = None
        self.signs = Examination(options.vocabulary_path)
        self.receipt = Cleaned()
        self.notices: list[dict] = []
        self.removed: list[dict] = []
        self.lengths: list[dict] = []
        self.second_books: list[int] = []
        self.characters_in = self.num_blocks = 0

    def __iter__(self) -> Iterator[str]:
        if is_large(self.path):
            # block by block: a document is handed on before the next block is read
            stream = stream_text(self.path, self.options.encoding, force=self.options.force_encoding)
            for block in cut_blocks(stream, size=BLOCK_CHARACTERS):
                yield from self.prepare([block], single=True).documents
                self.num_blocks += 1
            self.finish(SourceFile([], "txt", stream.decoded, {}, self.path), self.describe_blocks())
        else:
            asked = self.options
            how = {"encoding": asked.encoding, "force": asked.force_encoding}
            source = read_documents(self.path, **how, field=asked.field, title_field=asked.title_field)
            source = join_paragraphs(source)
            titles = () if source.is_whole else source.titles
            chapters = self.prepare(source.documents, single=source.is_whole, titles=titles)
            yield from chapters.documents
            self.finish(source, chapters.how)

    def prepare(self, texts: Sequence[str], *, single: bool, titles: Sequence[str] = ()) -> Chapters:
        """Clean the next texts of the book, divide them into documents and note what was done.

        A single text, a file or a block of one, may be divided even without headings; the elements of a list are not.
        A text with a title has it as its first line.

        >>> book = CleanBook("novel.txt", CleaningOptions())
        >>> book.prepare(["第一章 山村\\r\\n　　他走了。\\n(本章完)\\n第二章 城\\n她来了。"], single=True).documents
        ['第一章 山村\\n他走了。', '第二章 城\\n她来了。']
        >>> book.notices
        [{'line': 3, 'text': '(本章完)', 'reason': 'end-of-chapter mark', 'kept': ''}]
        """
        receipt, broken, starts = clean_all(texts, self.options, single=single)
        notices = find_dropped(broken.lines, self.options.drop)
        lines = remove_notices(broken.lines, notices)

        # advertisements stand close to headings; where lines change with them, headings may come and go
        if not self.options.keep_ads:
            near = {heading.line - 1 for heading in self.choose_headings(lines, starts, titles)}
            found = find_notices(lines, near, () if single else starts)
            lines = remove_notices(lines, found)
            notices = sorted([*notices, *found], key=lambda notice: notice.line)
        for notice in notices:
            notice.line = broken.numbers[notice.line - 1]
        broken, starts = part_lines(lines, broken, starts)
        headings = self.choose_headings(broken.lines, starts, titles)
        others = find_second_books(broken.lines, headings) if single else []
        borders = broken.starts or ([0, *(line - 1 for line in others)] if others else None)
        even, borders = self.options.chapters == NO_CHAPTERS, borders if single else starts
        chapters = split_chapters(broken.lines, starts=borders, headings=headings, even=even)

        # the clean lines are examined; their numbers stay those of the file
        before = self.signs.num_lines
        dropped = {line - 1 for line, _, _ in chapters.removed}
        lines = ["" if index in dropped else line for index, line in enumerate(broken.lines)]
        self.signs.add(lines, chapters.documents, broken.numbers)
        self.characters_in += sum(map(len, texts))
        self.second_books += [before + broken.numbers[line - 1] for line in others]
        self.note_changes(receipt, notices, chapters, before, broken.numbers)
        return chapters

    def choose_headings(self, lines: list[str], starts: Sequence[int], titles: Sequence[str]) -> list[Heading]:
        """Choose the headings that divide: those of the reader's expression, or as chapters.choose_headings does."""
        if self.options.chapters == NO_CHAPTERS:
            return []
        if self.options.chapters is not None:
            return matching_headings(lines, self.options.chapters)
        titled = {start for start, title in zip(starts, titles, strict=False) if title}
        return choose_headings(lines, titled)

    def note_changes(
        self, receipt: Cleaned, notices: list[Notice], chapters: Chapters, before: int, numbers: Sequence[int]
    ) -> None:
        """Add what was changed in a part of the book, whose line 1 comes after `before` lines of the file."""
        # what the cleaning changed, what was removed, and the documents that are left
        self.receipt.add(receipt, before)
        self.notices += [{**vars(notice), "line": before + notice.line} for notice in notices]
        for line, text, reason in chapters.removed:
            self.removed.append({"line": before + numbers[line - 1], "text": text, "reason": reason})
        for line, heading, document in zip(chapters.lines, chapters.headings, chapters.documents, strict=True):
            text, number = (heading.text, heading.number) if heading else ("", None)
            place = before + numbers[line - 1]
            self.lengths.append({"line": place, "heading": text, "number": number, "characters": len(document)})

    def describe_blocks(self) -> str:
        """Say how the documents of a streamed book were found."""
        # the same words as for a whole book, as far as blocks can tell
        headings = [entry["heading"] for entry in self.lengths if entry["heading"]]
        found = f"{len(headings):,} headings such as 「{headings[0]}」" if headings else "no chapter headings"
        return f"{found}; read in {self.num_blocks:,} blocks, {len(self.lengths):,} documents"

    def finish(self, source: SourceFile, how: str) -> None:
        """Put the facts together, as the whole book is known now."""
        # numbers are checked over the whole book, as a volume may begin in one block and end in another
        decoded = source.decoded
        numbers = check_numbers((entry["number"], volume_of(entry["heading"])) for entry in self.lengths)
        self.facts = BookFacts(
            name=source.name,
            kind=source.kind,
            encoding=decoded.encoding,
            reason=decoded.reason,
            bad_bytes=decoded.bad_bytes,
            bad_offsets=list(decoded.bad_offsets),
            segments=[list(segment) for segment in decoded.segments],
            torn_lines=list(decoded.torn_lines),
            repairs=source.repairs,
            left_out=source.left_out,
            characters_in=self.characters_in,
            characters=sum(entry["characters"] for entry in self.lengths),
            documents=len(self.lengths),
            cleaned=dict(self.receipt.counts.most_common()),
            code_points=dict(self.receipt.code_points.most_common()),
            examples={
                name: [{"line": line, "text": text} for line, text in shown]
                for name, shown in self.receipt.examples.items()
            },
            notices=self.notices,
            how=how,
            chapters=sum(bool(entry["heading"]) for entry in self.lengths),
            **vars(numbers),
            second_books=self.second_books,
            headings_removed=self.removed,
            lengths=self.lengths,
            **self.signs.facts(),
        )


def clean_all(
    texts: Sequence[str], options: CleaningOptions, *, single: bool
) -> tuple[Cleaned, BrokenLines, list[int]]:
    """Clean every text and break its long lines; the list says with which of the lines each text begins."""
    total, broken, starts, num_lines = Cleaned(), BrokenLines(), [], 0
    for text in texts:
        receipt = clean_text(
            text,
            width=options.width,
            traditional_to_simplified=options.traditional_to_simplified,
            keep_private=options.keep_private,
        )
        starts.append(len(broken.lines))
        total.add(receipt, num_lines)
        broken.add(break_lines(receipt.lines, single=single), num_lines)
        num_lines += len(receipt.lines)
    if len(broken.lines) > num_lines:
        total.counts["lines made of lines too long"] += len(broken.lines) - num_lines
    return total, broken, starts


def prepare_whole(path: str, options: CleaningOptions) -> tuple[list[str], BookFacts]:
    """Return the documents and facts of a book that fits into memory."""
    book = CleanBook(path, options)
    return list(book), book.facts


def read_book(path: str, options: CleaningOptions) -> list[str]:
    """Return the documents of a file as training sees them: a .json's as they are, any other cleaned, and said so."""
    if kind_of(path) == "json":
        how = {"encoding": options.encoding, "force": options.force_encoding}
        return read_documents(path, **how, field=options.field).documents
    documents, facts = prepare_whole(path, options)
    left_out = sum(not notice["kept"] for notice in facts.notices) + len(facts.headings_removed)
    size = f"{facts.documents:,} documents, {facts.characters:,} characters"
    size = f"1 document, {facts.characters:,} characters" if facts.documents == 1 else size
    say(f"{facts.name}: cleaned as clr_ctrl.py does: {size}; lines left out: {left_out:,}")
    return documents


class Library:
    """Prepares many books in the same way."""

    def __init__(self, options: CleaningOptions):
        self.options = options
        self.facts: list[BookFacts] = []  # filled by write
        self.left_out: list[dict] = []  # path and error of each book of a folder that could not be read

    def write(
        self,
        paths: Sequence[str],
        output: str | Path,
        *,
        watch: PassThrough | None = None,
        keep: Callable[[], object] | None = None,
    ) -> None:
        """Prepare files and folders and write their documents; nothing is written when nothing is left.

        Args:
            paths, output: files and folders, and the file of the documents.
            watch: passes the documents on and does something with them, as records.TitleTable.watch does.
            keep: called when the documents are there, before the former ones are replaced.

        Raises:
            UserError: a named file cannot be read, or no text is left after cleaning.
        """
        files = find_inputs(paths)
        documents = self.documents(files, named=set(paths))
        write_documents(output, watch(documents) if watch else documents, keep)

    def documents(self, files: Sequence[str], *, named: set[str]) -> Iterator[str]:
        """Yield the documents of all books and collect their facts."""
        with (
            progress_bar(sum(map(file_size, files)), unit="B", description="clean") as bar,
            prepare_ahead(files, self.options) as take_book,
        ):
            bar.leave = False  # on a terminal an error stands alone
            for path in files:
                # a book that cannot be read is left out, unless it was named or there is no other
                try:
                    if is_large(path):
                        book = CleanBook(path, self.options)
                        yield from book
                        facts = book.facts
                    else:
                        documents, facts = take_book(path)
                        yield from documents
                    self.facts.append(facts)
                except UserError as problem:
                    if path in named or len(self.left_out) + 1 == len(files):
                        raise
                    self.left_out.append({"path": path, "error": problem.message})
                bar.update(file_size(path))
            # raised before the writer has put the file in its place
            if not any(facts.documents for facts in self.facts):
                names = ", ".join(files[:3])
                raise UserError(f"{names}: no text is left after cleaning", "give a file with the text of a novel")
            bar.leave = True


@contextlib.contextmanager
def prepare_ahead(files: Sequence[str], options: CleaningOptions) -> Iterator[Callable]:
    """Give a function from a path to its documents and facts; several files are prepared ahead on all cores."""
    # large texts are read in blocks when their turn comes; standard input cannot be read in another process
    ahead = [path for path in files if not is_large(path)]
    if len(ahead) < 2 or STANDARD_INPUT in files:
        yield lambda path: prepare_whole(path, options)
        return
    pool = ProcessPoolExecutor(min(len(ahead), os.cpu_count() or 1, MAX_PROCESSES))
    try:
        books = {path: pool.submit(prepare_whole, path, options) for path in ahead}
        yield lambda path: books.pop(path).result()  # taken out, so that a book is not kept when it is written
    finally:
        pool.shutdown(cancel_futures=True)


def cut_blocks(texts: Iterable[str], *, size: int) -> Iterator[str]:
    """Join the texts of a stream into blocks; a paragraph cut at the end of a sentence continues in the next block.

    >>> list(cut_blocks(["他走了\\n她", "来了。\\n我不走。"], size=6))
    ['他走了\\n', '她来了。\\n', '我不走。']
    """
    # until the stream has ended, what is left after a block fills another one
    text = ""
    for part, most in itertools.chain(((part, 2 * size - 1) for part in texts), [("", size)]):
        text += part
        while len(text) > most:
            cut = find_cut(text[:size])
            yield text[:cut]
            text = text[cut:]
    if text:
        yield text


def find_cut(text: str) -> int:
    """Choose where a full block ends: before its second half's last heading, after its last line, its last sentence.

    >>> find_cut("他走了。她来了"), find_cut("他走了\\n她来了")
    (4, 4)
    """
    half = len(text) // 2
    # the last match of the best kind of ending: a block should be full
    for pattern in (HEADING_START, LINE_END, SENTENCE_END):
        ends = [match.end() for match in pattern.finditer(text, half)]
        if ends:
            return ends[-1]
    return len(text)


def is_large(path: str) -> bool:
    """Tell whether a file is a text to be read in blocks."""
    return file_size(path) > LARGE_TEXT and is_plain_text(path)
