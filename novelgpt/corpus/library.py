"""Files and folders of novels -> one JSON list of clean documents, book after book, on all cores.

Books keep the order of their paths. A book of a folder that cannot be read is left out and said so; a file that was
named on the command line must be readable.
"""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

from novelgpt.console import progress_bar
from novelgpt.corpus.books import Book, Treatment, prepare_texts
from novelgpt.corpus.documents import read_documents, write_documents
from novelgpt.corpus.examination import examine
from novelgpt.corpus.inputs import STANDARD_INPUT, find_inputs
from novelgpt.corpus.report import verdict
from novelgpt.errors import UserError


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

    def write(self, paths: Sequence[str], output: str | Path) -> None:
        """Prepare files and folders and write their documents; nothing is written when nothing is left.

        Raises:
            UserError: a named file cannot be read, or no text is left after cleaning.
        """
        files = find_inputs(paths)
        write_documents(output, self.documents(files, named=set(paths)))

    def documents(self, files: Sequence[str], *, named: set[str]) -> Iterator[str]:
        """Yield the documents of all books and collect their facts."""
        num_documents = 0
        with progress_bar(sum(map(file_size, files)), unit="B", description="clean") as bar:
            for path, book in zip(files, self.books(files), strict=True):
                bar.update(file_size(path))
                if isinstance(book, UserError):
                    if path in named:
                        raise book
                    self.left_out.append({"path": path, "error": book.message})
                    continue
                self.facts.append(book.facts)
                num_documents += len(book.documents)
                yield from book.documents
        if not num_documents:
            names = ", ".join(files[:3])
            raise UserError(f"{names}: no text is left after cleaning", "give a file with the text of a novel")

    def books(self, files: Sequence[str]) -> Iterator[Book | UserError]:
        """Prepare the files in order, several at a time where there are several."""
        if len(files) == 1 or STANDARD_INPUT in files:
            yield from map(self.prepare, files)
            return
        with ProcessPoolExecutor(min(len(files), os.cpu_count() or 1)) as pool:
            yield from pool.map(self.prepare, files)


def file_size(path: str) -> int:
    """Give the size of a file in bytes; 0 for standard input or a missing file."""
    return os.path.getsize(path) if os.path.isfile(path) else 0


def prepare_file(
    path: str, *, treatment: Treatment, encoding: str | None, field: str | None, vocabulary_path: str | Path | None
) -> Book | UserError:
    """Read, clean, divide and examine one file; a fault of the file is returned, not raised."""
    try:
        source = read_documents(path, encoding=encoding, field=field)
        book = prepare_texts(source.documents, treatment, single=source.kind == "txt")
    except UserError as problem:
        return problem
    decoded = source.decoded
    book.facts = {
        "name": source.name,
        "kind": source.kind,
        "encoding": decoded.encoding,
        "reason": decoded.reason,
        "bad_bytes": decoded.bad_bytes,
        "bad_offsets": list(decoded.bad_offsets),
        "segments": [list(segment) for segment in decoded.segments],
        "repairs": source.repairs,
        **book.facts,
    }
    examine(book, vocabulary_path)
    book.facts["verdict"] = verdict(book.facts) if book.documents else "nothing left"
    book.lines = []
    return book
