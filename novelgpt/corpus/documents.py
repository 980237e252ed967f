"""Books -> documents (strings), and documents -> `data/train.json`.

    path ── read_blocks ──> bytes ── decode_bytes ──> text ── by kind ──> titled texts ──> documents

These kinds of books are read, files also packed as `.gz`::

    .txt .md   one document: the whole text
    .json      a list of strings, or of objects with title and text; see shapes.py for all the shapes
    .jsonl     a string or such an object on each line
    .csv       a table with columns of titles and texts
    .epub .docx .html    the sections of an e-book, an office file, a web page; see containers/
    folder .zip .tar     a file for each chapter, or several books; see grouping.py

What is written is always a JSON list of strings, one on each line.
"""

import contextlib
import hashlib
import io
import json
import os
import re
import shlex
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate
from pathlib import Path

from novelgpt.corpus.archives import file_kind
from novelgpt.corpus.containers import is_html, read_docx, read_epub, read_html
from novelgpt.corpus.encodings import Decoded, TextStream, decode_bytes
from novelgpt.corpus.headings import Section
from novelgpt.corpus.inputs import (
    STANDARD_INPUT,
    ArchiveShelf,
    Folder,
    Shelf,
    cannot_read,
    find_inputs,
    kind_of,
    name_of,
    read_blocks,
    some_of,
    split_member,
    unpack,
)
from novelgpt.corpus.shapes import Fields, are_paragraphs, join_title
from novelgpt.corpus.tables import json_kind, read_json, read_table
from novelgpt.files import atomic_writer
from novelgpt.messages import EXIT_INPUT, EXIT_USAGE, UserError, warn

MAX_PROCESSES = 61  # of a pool: Windows waits for no more at once
# standard input has no ending: how a text begins tells what it is
LOOKS_LIKE_JSON = re.compile(r'\s*\[\s*["{\[\]]')
LOOKS_LIKE_JSONL = re.compile(r'\s*\{\s*"')
DECLARED = re.compile(rb"""(?:encoding|charset)\s*=\s*["']?([\w-]+)""")  # of a page, by itself
SURROGATE = re.compile("[\ud800-\udfff]")  # no file can hold one alone
BETWEEN = "\n\x1e\x1e\n"  # between chapters that are decoded together
UNICODE_MARKS = (b"\xff\xfe", b"\xfe\xff")  # of UTF-16 and UTF-32
MAX_OFFSETS = 5  # bad bytes reported with their places


@dataclass(frozen=True)
class SourceFile:
    """What one book holds."""

    documents: list[str]
    kind: str  # as kind_of says, or folder
    decoded: Decoded  # how its bytes were read
    repairs: dict[str, int]  # number of repaired faults, by kind
    name: str  # its path, or "standard input"
    titles: list[str] = field(default_factory=list)  # of each document, its first line; "" where there is none
    is_whole: bool = False  # one text, which may be divided into chapters
    left_out: list[str] = field(default_factory=list)  # why files of a folder are left out


def read_text(path: str | Path, encoding: str | None = None, *, force: bool = False) -> Decoded:
    """Read a file, `.gz` too, or standard input ("-") as one text; encoding and force as for decode_bytes."""
    return decode_bytes(b"".join(read_blocks(path)), encoding, force=force, name=name_of(path))


def stream_text(path: str | Path, encoding: str | None = None, *, force: bool = False) -> TextStream:
    """Read a text file of any size in blocks of up to a million characters; see read_text and TextStream."""
    return TextStream(read_blocks(path), name_of(path), encoding, force=force)


def read_documents(
    path: str | Path,
    *,
    encoding: str | None = None,
    force: bool = False,
    field: str | None = None,
    title_field: str | None = None,
) -> SourceFile:
    """Read one book, whatever its encoding and kind; a file of unknown ending is taken as plain text.

    Args:
        path, encoding, force: as for read_text; the path may be a folder with a file for each chapter.
        field: the key or column that holds the text; None tries `text`, `content` and the like.
        title_field: the same of the title; "" takes none.

    Raises:
        UserError: unreadable, undecided encoding, faulty JSON, or an item that is no text.
    """
    fields = Fields(name_of(path), field, title_field, encoding, force)
    if os.path.isdir(path):
        return read_shelf(Folder(path), "", fields)
    if member := split_member(path):
        with ArchiveShelf(member[0], member[0]) as shelf:
            return read_shelf(shelf, member[1], fields)
    data = b"".join(read_blocks(path))
    if file_kind(data) in ("zip", "tar"):
        with ArchiveShelf(data, fields.name) as shelf:
            return read_shelf(shelf, "", fields)
    kind = None if str(path) == STANDARD_INPUT else kind_of(path) or "txt"
    return read_file(data, kind, fields)


def read_shelf(shelf: Shelf, place: str, fields: Fields) -> SourceFile:
    """Read a book in a folder or an archive: the file of this path, or the folder of chapters, "" for all there is."""
    if place in shelf.files:
        return read_file(shelf.read(place), kind_of(place), fields)
    books = shelf.books()
    if place not in books and (place or isinstance(shelf, Folder)):
        raise cannot_read(fields.name, IsADirectoryError())
    names = books.get(place) or [name for names in books.values() for name in names]
    if not names:
        message = f"{fields.name}: nothing to read, expected at least one novel"
        raise UserError(message, f"give another file than {fields.name}", EXIT_INPUT)
    return read_chapters(shelf, names, fields)


def read_file(data: bytes, kind: str | None, fields: Fields, decoded: Decoded | None = None) -> SourceFile:
    """Read the bytes of one file.

    Args:
        data: the bytes.
        kind: what kind_of says; None tells it by its beginning.
        fields: the name of the file, and what is asked of it.
        decoded: how the bytes read, where that is known.

    Raises:
        UserError: undecided encoding, faulty JSON, an item that is no text, or no text at all.
    """
    # what is in a file tells its kind better than its ending
    inside = file_kind(data)
    if inside == "gzip":
        data = b"".join(unpack(io.BytesIO(data), fields.name, len(data)))
        inside = file_kind(data)
    repairs: Counter = Counter()
    if inside in ("epub", "docx"):
        if fields.encoding:
            warn(f"{fields.name}: --encoding has no effect, its format says how it reads")
        kind, decoded = inside, Decoded("", "utf-8", "as its format has it")
        sections = (read_epub if kind == "epub" else read_docx)(data, fields.name, decode_page)
    else:
        decoded = decoded or decode_bytes(data, fields.encoding, force=fields.force, name=fields.name)
        kind = kind_of_text(decoded.text, kind, fields.name)
        sections = read_sections(decoded.text, kind, fields, repairs)
    if not sections:
        raise UserError(f"{fields.name}: no document in it, expected at least one", "give another file", EXIT_INPUT)
    if fields.title and kind in ("json", "jsonl", "csv") and not any(section.title for section in sections):
        message = f"{fields.name}: --title_field {fields.title}: no text has such a title"
        raise UserError(message, f"python clr_ctrl.py {shlex.quote(fields.name)}", EXIT_INPUT)
    if fields.title == "":
        sections = [Section("", section.text) for section in sections]
    # a book without any title in it is one text; the texts of a list stay apart
    is_list = kind in ("jsonl", "csv") or (kind == "json" and decoded.text.lstrip().startswith("["))
    if kind in ("epub", "docx", "html") and not any(section.title for section in sections):
        sections = [Section("", "\n".join(section.text for section in sections))]
    is_whole = len(sections) == 1 and not is_list
    joined = sections if kind == "txt" else [tidy_section(section, repairs) for section in sections]
    documents, titles = [section.text for section in joined], [section.title for section in joined]
    return SourceFile(documents, kind, decoded, dict(repairs), fields.name, titles, is_whole)


def decode_page(data: bytes, name: str) -> str:
    """Decode a page of an e-book: UTF-8 without a fault, else by what its bytes say, else by what it declares."""
    with contextlib.suppress(UnicodeDecodeError):
        if "\0" not in (text := data.decode("utf-8-sig")):
            return text
    try:
        return decode_bytes(data, name=name).text
    except UserError:
        if not (declared := DECLARED.search(data[:4096])):
            raise
        return decode_bytes(data, declared[1].decode("ascii"), name=name).text


def kind_of_text(text: str, kind: str | None, name: str) -> str:
    """Tell the kind of a text by its ending, or its beginning where that is better; kind: by its ending."""
    if not text.strip():
        raise UserError(f"{name}: only blanks, expected the text of a novel", "give another file", EXIT_INPUT)
    if kind in ("html", "txt", None) and is_html(text):
        return "html"
    if kind in (None, "epub", "docx", "archive"):
        kind = guess_kind(text)
    # some .json files hold JSON Lines, and the other way round
    return json_kind(text, kind) if kind in ("json", "jsonl") else kind


def read_sections(text: str, kind: str, fields: Fields, repairs: Counter) -> list[Section]:
    """List the titled texts in a text of this kind."""
    if kind == "txt":
        return [Section("", text)]
    if kind in ("html", "csv"):
        return read_html(text, fields.name) if kind == "html" else read_table(text, fields)
    return read_json(text, kind, fields, repairs)


def guess_kind(text: str) -> str:
    """Tell what standard input holds by how it begins.

    >>> guess_kind('["第一章"]'), guess_kind('{"text": "第一章"}'), guess_kind("[红楼梦 / 曹雪芹 著]")
    ('json', 'jsonl', 'txt')
    """
    return "json" if LOOKS_LIKE_JSON.match(text) else "jsonl" if LOOKS_LIKE_JSONL.match(text) else "txt"


def tidy_section(section: Section, repairs: Counter) -> Section:
    """Write the title as the first line of the text, without what no file can hold."""
    (title, first), (text, second) = (SURROGATE.subn("", part) for part in (section.title, section.text))
    repairs += Counter({"lone surrogates": first + second})
    return join_title(Section(title, text))


def read_chapters(shelf: Shelf, names: Sequence[str], fields: Fields) -> SourceFile:
    """Read the files of one book; places in it count through all of them.

    Args:
        shelf: the folder or archive where they are.
        names: their paths there, in order.
        fields: the name of the book, and what is asked of its files.

    Raises:
        UserError: none of them can be read.
    """
    parts: dict[str, bytes] = {}
    left_out: list[str] = []
    for name in names:
        path = f"{shelf.name}/{name}"
        try:
            if (data := shelf.read(name)).strip():
                parts[name] = data
            else:
                left_out.append(f"{path}: empty, expected a chapter")
        except UserError as problem:
            left_out.append(problem.message)

    together = decode_together(parts, fields.name) if fields.encoding is None else {}
    sources: list[SourceFile] = []
    sizes: list[int] = []  # bytes
    for name, data in parts.items():
        own = replace(fields, name=f"{shelf.name}/{name}")
        try:
            source = read_file(data, kind_of(name) or "txt", own, together.get(name))
            sources.append(
                source if len(source.documents) > 1 or any(source.titles) else with_title(source, shelf, name)
            )
            sizes.append(len(data))
        except UserError as problem:
            left_out.append(problem.message)
    if not sources:
        raise UserError(left_out[0], f"give another folder than {fields.name}", EXIT_INPUT)
    return bind(sources, sizes, fields.name, left_out)


def decode_together(parts: dict[str, bytes], name: str) -> dict[str, Decoded]:
    """Decode the texts that are in no Unicode as one, which tells their encoding better; by name.

    Returns:
        Nothing for a file that is decoded on its own: in Unicode, or where together they cannot be read.
    """
    names = [part for part, data in parts.items() if not is_unicode(data) and file_kind(data) is None]
    if len(names) < 2:
        return {}
    try:
        whole = decode_bytes(BETWEEN.encode().join(parts[part] for part in names), name=name)
    except UserError:
        return {}
    texts = whole.text.split(BETWEEN)
    if len(texts) != len(names):
        return {}
    decoded = [Decoded(text, whole.encoding, whole.reason) for text in texts]
    # places in all of them become places in one
    starts = [0, *accumulate(len(parts[part]) + len(BETWEEN) for part in names)]  # bytes
    for offset in whole.bad_offsets:
        index = bisect_right(starts, offset) - 1
        places = (*decoded[index].bad_offsets, offset - starts[index])
        decoded[index] = replace(decoded[index], bad_offsets=places)
    first = next((index for index, one in enumerate(decoded) if one.bad_offsets), 0)
    decoded[first] = replace(decoded[first], bad_bytes=whole.bad_bytes)
    starts = [0, *accumulate(text.count("\n") + BETWEEN.count("\n") for text in texts)]  # lines
    for line in whole.torn_lines:
        index = bisect_right(starts, line - 1) - 1
        decoded[index] = replace(decoded[index], torn_lines=(*decoded[index].torn_lines, line - starts[index]))
    return dict(zip(names, decoded, strict=True))


def is_unicode(data: bytes) -> bool:
    """Tell whether bytes are UTF-8 without a fault, or UTF-16 or UTF-32 with a mark."""
    try:
        return data.startswith(UNICODE_MARKS) or bool(data.decode("utf-8"))
    except UnicodeDecodeError:
        return False


def with_title(source: SourceFile, shelf: Shelf, name: str) -> SourceFile:
    """Give a chapter its title: its first line where that is a heading, else by the file's name."""
    (text,) = source.documents
    section = join_title(Section(shelf.title_of(name, text), text))
    return replace(source, documents=[section.text], titles=[section.title])


def bind(sources: Sequence[SourceFile], sizes: Sequence[int], name: str, left_out: list[str]) -> SourceFile:
    """Put the chapters of a book together; sizes: of their files in bytes."""
    repairs: Counter = Counter()
    offsets, torn = [], []
    before = lines = 0  # bytes and lines of the chapters so far
    for source, size in zip(sources, sizes, strict=True):
        repairs.update(source.repairs)
        offsets += [before + offset for offset in source.decoded.bad_offsets]
        torn += [lines + line for line in source.decoded.torn_lines]
        before += size
        lines += sum(text.count("\n") + 1 for text in source.documents)
    encodings = sorted({source.decoded.encoding for source in sources})
    is_mixed = len(encodings) > 1
    decoded = Decoded(
        text="",
        encoding="mixed" if is_mixed else encodings[0],
        reason=f"its files are in {' and '.join(encodings)}" if is_mixed else sources[0].decoded.reason,
        bad_bytes=sum(source.decoded.bad_bytes for source in sources),
        bad_offsets=tuple(offsets[:MAX_OFFSETS]),
        torn_lines=tuple(torn),
    )
    documents = [text for source in sources for text in source.documents]
    titles = [title for source in sources for title in source.titles]
    return SourceFile(documents, "folder", decoded, dict(repairs), name, titles, left_out=left_out)


def join_paragraphs(source: SourceFile) -> SourceFile:
    """Make one text of a list that holds a string for each paragraph; any other source stays as it is."""
    if source.kind in ("txt", "folder") or any(source.titles) or not are_paragraphs(source.documents):
        return source
    return replace(source, documents=["\n".join(source.documents)], titles=[""], is_whole=True)


def read_sources(paths: Iterable[str | Path], *, field: str | None = None) -> Iterator[SourceFile]:
    """Read files, whole folders and standard input one after another; see find_inputs and read_documents."""
    for path in find_inputs(paths):
        yield read_documents(path, field=field)


def read_corpus(path: str | Path, *, field: str | None = None) -> Iterator[str]:
    """Yield the documents of a corpus file, or of a folder's files in order, and report what was repaired."""
    for source in read_sources([path], field=field):
        if source.left_out:
            warn(f"{source.name}: left out {some_of(source.left_out)}")
        if source.repairs:
            warn(f"{source.name}: repaired {', '.join(f'{name} ({count})' for name, count in source.repairs.items())}")
        yield from source.documents


def source_sha256(path: str | Path) -> str:
    """Return the SHA-256 of a corpus: of a file's bytes, or of the names and hashes of a folder's files.

    Raises:
        UserError: nothing there, or standard input, which cannot be compared later.
    """
    if str(path) == STANDARD_INPUT:
        message = "--raw_data_path -: standard input cannot be read again later, expected a file"
        raise UserError(message, "--raw_data_path data/train.json", EXIT_USAGE)
    if not os.path.isdir(path):
        return hash_file(path)
    names = Folder(path).names()
    lines = [f"{name} {hash_file(os.path.join(path, name))}\n" for name in names]
    return hashlib.sha256("".join(lines).encode("utf-8", "surrogateescape")).hexdigest()


def hash_file(name: str | Path) -> str:
    """Return the SHA-256 of what read_blocks yields of a file."""
    digest = hashlib.sha256()
    for block in read_blocks(name):
        digest.update(block)
    return digest.hexdigest()


def write_documents(path: str | Path, documents: Iterable[str], keep: Callable[[], object] | None = None) -> None:
    """Write strings without lone surrogates, taken one by one, as a JSON list; keep: as for atomic_writer."""
    with atomic_writer(path, keep) as file:
        # written item by item: json.dumps of the whole list would need it in memory
        separator = b"[\n"
        for document in documents:
            file.write(separator + json.dumps(document, ensure_ascii=False).encode("utf-8"))
            separator = b",\n"
        file.write(b"[]\n" if separator == b"[\n" else b"\n]\n")
