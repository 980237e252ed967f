"""Files of many shapes -> documents (strings), and documents -> `data/train.json`.

Read are, each also packed as `.gz`::

    .txt     one document: the whole text
    .json    a list of strings, or of objects with `text`, `content` or the field asked for
    .jsonl   a string or such an object on each line
    .csv     a table with a heading line and a column `text`, `content`, the one asked for, or the only one

Written is always a JSON list of strings, one on each line.
"""

import contextlib
import csv
import io
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from novelgpt.corpus.decoding import Decoded, decode_bytes
from novelgpt.corpus.inputs import STANDARD_INPUT, find_inputs, kind_of, name_of, read_blocks
from novelgpt.corpus.json_repair import drop_surrogates, parse_json
from novelgpt.corpus.streaming import TextStream
from novelgpt.files import atomic_writer
from novelgpt.messages import EXIT_INPUT, UserError, warn

FIELDS = ("text", "content")
LOOKS_LIKE_JSON = re.compile(r'\s*\[\s*["{\]]')
LOOKS_LIKE_JSONL = re.compile(r'\s*\{\s*"')
JSON_TYPES = {dict: "an object", list: "a list", bool: "true or false", int: "a number", float: "a number"}


@dataclass(frozen=True)
class Source:
    """What one input file holds.

    Args:
        documents: its texts.
        kind: txt, json, jsonl or csv.
        decoded: how its bytes were read.
        repairs: number of repaired faults of each kind.
        name: its path, or "standard input".
    """

    documents: list[str]
    kind: str
    decoded: Decoded | None
    repairs: dict[str, int] = field(default_factory=dict)
    name: str = "input"


def read_documents(path: str | Path, *, encoding: str | None = None, field: str | None = None) -> Source:
    """Read one file, whatever its encoding and shape.

    Args:
        path: a file, or "-" for standard input. A file of unknown ending is taken as plain text.
        encoding: forced encoding; None finds out.
        field: the key or column that holds the text; None tries `text`, then `content`.

    Raises:
        UserError: unreadable, undecided encoding, faulty JSON, or an item that is no text.
    """
    name = name_of(path)
    decoded = decode_bytes(b"".join(read_blocks(path)), encoding, name=name)
    if not decoded.text.strip():
        raise UserError(f"{name}: only blanks, expected the text of a novel", "give another file", EXIT_INPUT)
    kind = guess_kind(decoded.text) if str(path) == STANDARD_INPUT else kind_of(path) or "txt"
    repairs = Counter()
    if kind == "json" and is_json_lines(decoded.text):
        kind = "jsonl"
    readers = {"json": read_json_list, "jsonl": read_json_lines, "csv": read_table}
    if kind == "txt":
        return Source([decoded.text], kind, decoded, {}, name)
    documents = [drop_surrogates(text, repairs) for text in readers[kind](decoded.text, name, field, repairs)]
    if not documents:
        raise UserError(f"{name}: no document in it, expected at least one", "give another file", EXIT_INPUT)
    return Source(documents, kind, decoded, dict(repairs), name)


def read_sources(
    paths: Iterable[str | Path], *, encoding: str | None = None, field: str | None = None
) -> Iterator[Source]:
    """Read files, whole folders and standard input ("-"), one source a file.

    Raises:
        UserError: nothing to read, or any file is at fault.
    """
    for path in find_inputs(paths):
        yield read_documents(path, encoding=encoding, field=field)


def stream_text(path: str | Path, encoding: str | None = None) -> TextStream:
    """Read a text file of any size in blocks; see TextStream.

    Args:
        path: a plain text file, `.gz` too, or "-" for standard input.
        encoding: forced encoding; None finds out by the first mebibyte.

    Returns:
        An iterable of blocks of up to a million characters; its `decoded` says afterwards how the file was read.
    """
    return TextStream(path, encoding)


def guess_kind(text: str) -> str:
    """Tell what standard input holds by how it begins.

    >>> guess_kind('["第一章"]'), guess_kind('{"text": "第一章"}'), guess_kind("[红楼梦 / 曹雪芹 著]")
    ('json', 'jsonl', 'txt')
    """
    return "json" if LOOKS_LIKE_JSON.match(text) else "jsonl" if LOOKS_LIKE_JSONL.match(text) else "txt"


def is_json_lines(text: str) -> bool:
    """Say whether a .json file holds one object on each line instead of a list."""
    first, _, rest = text.strip().partition("\n")
    if not first.startswith(("{", '"')) or not rest:
        return False
    with contextlib.suppress(ValueError, RecursionError):
        return isinstance(json.loads(first, strict=False), dict | str)
    return False


def read_json_list(text: str, name: str, field: str | None, repairs: Counter) -> Iterator[str]:
    """Yield the texts of a JSON list."""
    value, found = parse_json(text, name)
    repairs.update(found)
    if not isinstance(value, list):
        raise wrong_type(name, "the whole file", value, "a list of strings")
    for index, item in enumerate(value):
        yield text_of(item, f"item {index}", name, field)


def read_json_lines(text: str, name: str, field: str | None, repairs: Counter) -> Iterator[str]:
    """Yield the text of each line's JSON value; blank lines are skipped."""
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            value, found = parse_json(line, name, first_line=number)
            repairs.update(found)
            yield text_of(value, f"line {number}", name, field)


def text_of(item: object, place: str, name: str, field: str | None) -> str:
    """Take the text out of one item of a list: itself, or the value of its text field."""
    if isinstance(item, str):
        return item
    if not isinstance(item, dict):
        raise wrong_type(name, place, item, "a string or an object with a text")
    key = next((key for key in ((field,) if field else FIELDS) if key in item), None)
    if key is None:
        keys = ", ".join(list(item)[:8]) or "no key"
        wanted = repr(field) if field else "'text' or 'content'"
        raise UserError(f"{name}: {place}: found {keys}, expected {wanted}", "--field NAME_OF_THE_KEY", EXIT_INPUT)
    if not isinstance(item[key], str):
        raise wrong_type(name, f"{place}, key {key!r}", item[key], "a string")
    return item[key]


def wrong_type(name: str, place: str, value: object, expected: str) -> UserError:
    """Make the error for a JSON value of the wrong type."""
    found = "null" if value is None else "a string" if isinstance(value, str) else JSON_TYPES[type(value)]
    hint = 'write a list of strings: ["第一章 …", "第二章 …"]'
    return UserError(f"{name}: {place}: found {found}, expected {expected}", hint, EXIT_INPUT)


def read_table(text: str, name: str, field: str | None, repairs: Counter) -> Iterator[str]:
    """Yield the cells of a table's text column; its first line names the columns."""
    former = csv.field_size_limit(max(len(text), 1))
    try:
        rows = csv.reader(io.StringIO(text, newline=""), strict=True)
        heading = next(rows)
        column = text_column(heading, name, field)
        for row in rows:
            if row and len(row) <= column:
                message = f"{name}: line {rows.line_num}: found {len(row)} cells, expected {len(heading)}"
                raise UserError(message, "quote the cells that hold commas or line breaks", EXIT_INPUT)
            if row:
                yield row[column]
    except csv.Error as problem:
        message = f"{name}: line {rows.line_num}: not a table: {problem}"
        raise UserError(message, "quote the cells that hold commas or line breaks", EXIT_INPUT) from problem
    finally:
        csv.field_size_limit(former)


def text_column(heading: list[str], name: str, field: str | None) -> int:
    """Find the column that holds the text."""
    wanted = (field,) if field else FIELDS
    for candidate in wanted:
        if candidate in heading:
            return heading.index(candidate)
    if len(heading) == 1 and not field:
        return 0
    names = ", ".join(heading[:8])
    expected = " or ".join(map(repr, wanted))
    raise UserError(f"{name}: found the columns {names}, expected {expected}", "--field NAME_OF_THE_COLUMN", EXIT_INPUT)


def write_documents(path: str | Path, documents: Iterable[str]) -> None:
    """Write documents as a JSON list of strings, one on each line; the file appears complete or not at all.

    Args:
        path: final name, usually data/train.json.
        documents: strings without lone surrogates; taken one by one, so that a corpus need not fit into memory.

    Raises:
        UserError: the place cannot be written.
    """
    with atomic_writer(path) as file:
        separator = b"[\n"
        for document in documents:
            file.write(separator + json.dumps(document, ensure_ascii=False).encode("utf-8"))
            separator = b",\n"
        file.write(b"[]\n" if separator == b"[\n" else b"\n]\n")


def read_corpus(path: str | Path, *, field: str | None = None) -> Iterator[str]:
    """Yield the documents of a corpus file, or of a folder's files in order, and report what was repaired."""
    for source in read_sources([path], field=field):
        if source.repairs:
            warn(f"{source.name}: repaired {', '.join(f'{name} ({count})' for name, count in source.repairs.items())}")
        yield from source.documents
