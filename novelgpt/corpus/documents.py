"""Books -> documents (strings), and documents -> `data/train.json`.

    path ── read_blocks ──> bytes ── decode_bytes ──> text ── by kind ──> titled texts ──> documents

These kinds of files are read, each also packed as `.gz`::

    .txt .md   one document: the whole text
    .json      a list of strings, or of objects with title and text; see shapes.py for all the shapes
    .jsonl     a string or such an object on each line
    .csv       a table with columns of titles and texts
    folder     a file for each chapter; see grouping.py

What is written is always a JSON list of strings, one on each line.
"""

import json
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from novelgpt.corpus.encodings import Decoded, TextStream, decode_bytes
from novelgpt.corpus.folders import read_chapters
from novelgpt.corpus.inputs import (
    STANDARD_INPUT,
    Folder,
    cannot_read,
    find_inputs,
    kind_of,
    name_of,
    read_blocks,
    some_of,
)
from novelgpt.corpus.shapes import Fields, are_paragraphs
from novelgpt.corpus.sources import SourceFile, read_file
from novelgpt.files import atomic_writer
from novelgpt.messages import warn

MAX_PROCESSES = 61  # of a pool: Windows waits for no more at once


def read_text(path: str | Path, encoding: str | None = None) -> Decoded:
    """Read a file, `.gz` too, or standard input ("-") as one text; an encoding of None is detected, or refused."""
    return decode_bytes(b"".join(read_blocks(path)), encoding, name=name_of(path))


def stream_text(path: str | Path, encoding: str | None = None) -> TextStream:
    """Read a text file of any size in blocks of up to a million characters; see read_text and TextStream."""
    return TextStream(read_blocks(path), name_of(path), encoding)


def read_documents(
    path: str | Path, *, encoding: str | None = None, field: str | None = None, title_field: str | None = None
) -> SourceFile:
    """Read one book, whatever its encoding and kind; a file of unknown ending is taken as plain text.

    Args:
        path, encoding: as for read_text; the path may be a folder with a file for each chapter.
        field: the key or column that holds the text; None tries `text`, `content` and the like.
        title_field: the same of the title; "" takes none.

    Raises:
        UserError: unreadable, undecided encoding, faulty JSON, or an item that is no text.
    """
    fields = Fields(name_of(path), field, title_field)
    if os.path.isdir(path):
        return read_folder(path, fields, encoding)
    kind = None if str(path) == STANDARD_INPUT else kind_of(path) or "txt"
    return read_file(b"".join(read_blocks(path)), kind, fields, encoding)


def read_folder(path: str | Path, fields: Fields, encoding: str | None) -> SourceFile:
    """Read a folder whose files are the chapters of one book."""
    folder = Folder(path)
    names = folder.books().get("")
    if not names:
        raise cannot_read(fields.name, IsADirectoryError())
    return read_chapters(folder, names, fields, encoding)


def join_paragraphs(source: SourceFile) -> SourceFile:
    """Make one text of a list that holds a string for each paragraph; any other source stays as it is."""
    if source.kind in ("txt", "folder") or any(source.titles) or not are_paragraphs(source.documents):
        return source
    return replace(source, documents=["\n".join(source.documents)], titles=[""], is_whole=True)


def read_sources(
    paths: Iterable[str | Path], *, encoding: str | None = None, field: str | None = None
) -> Iterator[SourceFile]:
    """Read files, whole folders and standard input one after another; see find_inputs and read_documents."""
    for path in find_inputs(paths):
        yield read_documents(path, encoding=encoding, field=field)


def read_corpus(path: str | Path, *, field: str | None = None) -> Iterator[str]:
    """Yield the documents of a corpus file, or of a folder's files in order, and report what was repaired."""
    for source in read_sources([path], field=field):
        if source.left_out:
            warn(f"{source.name}: left out {some_of(source.left_out)}")
        if source.repairs:
            warn(f"{source.name}: repaired {', '.join(f'{name} ({count})' for name, count in source.repairs.items())}")
        yield from source.documents


def write_documents(path: str | Path, documents: Iterable[str], keep: Callable[[], object] | None = None) -> None:
    """Write strings without lone surrogates, taken one by one, as a JSON list; keep: as for atomic_writer."""
    with atomic_writer(path, keep) as file:
        # written item by item: json.dumps of the whole list would need it in memory
        separator = b"[\n"
        for document in documents:
            file.write(separator + json.dumps(document, ensure_ascii=False).encode("utf-8"))
            separator = b",\n"
        file.write(b"[]\n" if separator == b"[\n" else b"\n]\n")
