"""Files and folders of novels -> one JSON list of clean documents, book after book, on all cores.

Books keep the order of their paths. A book of a folder that cannot be read is left out and said so; a file that was
named on the command line must be readable.
"""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

from novelgpt.corpus.blocks import BLOCK, add_facts, check_blocks, cut_blocks
from novelgpt.corpus.books import Book, Treatment, prepare_texts
from novelgpt.corpus.documents import Source, read_documents, stream_text, write_documents
from novelgpt.corpus.examination import Examination
from novelgpt.corpus.inputs import STANDARD_INPUT, find_inputs, kind_of
from novelgpt.corpus.report import verdict
from novelgpt.corpus.titles import TitleCount, watch_titles
from novelgpt.messages import UserError, progress_bar

LARGE = 64 << 20  # bytes; a larger text is read in blocks


class Library:
    """Prepare many books alike.

    Args:
        treatment: what the user asked for.
        encoding: forced encoding, or None.
        field: key or column of the text, or None.
        vocabulary_path: the vocabulary the characters are held against; GB2312 where there is no such file.

    Attributes:
        facts: what the report says about each book, filled by write.
        left_out: path and error of each book of a folder that could not be read.
        titles: how many chapters had titles, if they were asked for.
    """

    def __init__(
        self,
        treatment: Treatment,
        *,
        encoding: str | None = None,
        field: str | None = None,
        vocabulary_path: str | Path | None = None,
    ):
        self.prepare = partial(
            prepare_file, treatment=treatment, encoding=encoding, field=field, vocabulary_path=vocabulary_path
        )
        self.facts: list[dict] = []
        self.left_out: list[dict] = []
        self.titles = TitleCount()

    def write(self, paths: Sequence[str], output: str | Path, *, titles: str | Path | None = None) -> None:
        """Prepare files and folders and write their documents; nothing is written when nothing is left.

        Args:
            paths: files and folders.
            output: the documents.
            titles: also write the chapters with their titles as records; None for no such file.

        Raises:
            UserError: a named file cannot be read, no text is left after cleaning, or no chapter has a title.
        """
        files = find_inputs(paths)
        documents = self.documents(files, named=set(paths))
        if titles is not None:
            documents = watch_titles(documents, titles, self.titles)
        write_documents(output, documents)

    def documents(self, files: Sequence[str], *, named: set[str]) -> Iterator[str]:
        """Yield the documents of all books and collect their facts."""
        num_documents = 0
        with progress_bar(sum(map(file_size, files)), unit="B", description="clean") as bar:
            for path, book in zip(files, self.books(files), strict=True):
                if isinstance(book, UserError):
                    if path in named or len(self.left_out) + 1 == len(files):
                        raise book
                    self.left_out.append({"path": path, "error": book.message})
                    continue
                for document in book.documents:
                    num_documents += 1
                    yield document
                self.facts.append(book.facts)
                bar.update(file_size(path))
        if not num_documents:
            names = ", ".join(files[:3])
            raise UserError(f"{names}: no text is left after cleaning", "give a file with the text of a novel")

    def books(self, files: Sequence[str]) -> Iterator[Book | UserError]:
        """Prepare the files in order, several at a time where there are several; large ones alone, as a stream."""
        small = [path for path in files if not is_large(path)]
        if len(small) < 2 or STANDARD_INPUT in files:
            prepared: Iterator[Book | UserError] = map(self.prepare, small)
            yield from (self.stream(path) if is_large(path) else next(prepared) for path in files)
            return
        with ProcessPoolExecutor(min(len(small), os.cpu_count() or 1)) as pool:
            prepared = pool.map(self.prepare, small)
            yield from (self.stream(path) if is_large(path) else next(prepared) for path in files)

    def stream(self, path: str) -> Book:
        """Return a book whose documents are prepared block by block while they are taken."""
        facts: dict = {}
        return Book(stream_documents(path, facts, **self.prepare.keywords), facts)


def file_size(path: str) -> int:
    """Give the size of a file in bytes; 0 for standard input or a missing file."""
    return os.path.getsize(path) if os.path.isfile(path) else 0


def is_large(path: str) -> bool:
    """Tell whether a file is a text to be read in blocks."""
    return file_size(path) > LARGE and kind_of(path) in ("txt", None) and not path.lower().endswith(".gz")


def prepare_file(
    path: str, *, treatment: Treatment, encoding: str | None, field: str | None, vocabulary_path: str | Path | None
) -> Book | UserError:
    """Read, clean, divide and examine one file; a fault of the file is returned, not raised."""
    try:
        source = read_documents(path, encoding=encoding, field=field)
        book = prepare_texts(source.documents, treatment, single=source.kind == "txt")
    except UserError as problem:
        return problem
    examination = Examination(vocabulary_path)
    examination.add(book.lines, book.documents)
    book.facts = {**source_facts(source), **book.facts, **examination.facts()}
    book.facts["verdict"] = verdict(book.facts)
    book.lines = []
    return book


def source_facts(source: Source) -> dict:
    """Write how a file was read as plain values."""
    decoded = source.decoded
    return {
        "name": source.name,
        "kind": source.kind,
        "encoding": decoded.encoding,
        "reason": decoded.reason,
        "bad_bytes": decoded.bad_bytes,
        "bad_offsets": list(decoded.bad_offsets),
        "segments": [list(segment) for segment in decoded.segments],
        "repairs": source.repairs,
    }


def stream_documents(
    path: str,
    facts: dict,
    *,
    treatment: Treatment,
    encoding: str | None,
    field: str | None,
    vocabulary_path: str | Path | None,
) -> Iterator[str]:
    """Yield the documents of a large text block by block; the facts are complete when the last one is taken."""
    examination = Examination(vocabulary_path)
    gathered: dict = {}
    num_blocks = 0
    stream = stream_text(path, encoding)
    for block in cut_blocks(stream, size=BLOCK):
        book = prepare_texts([block], treatment, single=True)
        add_facts(gathered, book.facts, examination.num_lines)
        examination.add(book.lines, book.documents)
        num_blocks += 1
        yield from book.documents
    check_blocks(gathered, num_blocks)
    source = Source([], "txt", stream.decoded, name=path)
    facts.update({**source_facts(source), **gathered, **examination.facts()})
    facts["verdict"] = verdict(facts)
