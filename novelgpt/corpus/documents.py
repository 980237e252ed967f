"""Paths as a user gives them -> documents (strings), and documents -> `data/train.json`.

    paths ── find_inputs ──> files ── read_blocks ──> bytes ── decode_bytes ──> text ── by kind ──> documents

These kinds of files are read, each also packed as `.gz`::

    .txt     one document: the whole text
    .json    a list of strings, or of objects with `text`, `content` or the field asked for
    .jsonl   a string or such an object on each line
    .csv     a table with a heading line and a column `text`, `content`, the one asked for, or the only one

What is written is always a JSON list of strings, one on each line.
"""

import contextlib
import csv
import gzip
import hashlib
import io
import itertools
import json
import os
import re
import shlex
import sys
import zlib
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from novelgpt.corpus.encodings import Decoded, TextStream, decode_bytes
from novelgpt.files import atomic_writer, ready_file
from novelgpt.messages import EXIT_INPUT, EXIT_USAGE, UserError, printable, warn

FILE_KINDS = {".txt": "txt", ".json": "json", ".jsonl": "jsonl", ".csv": "csv"}
STANDARD_INPUT, MAX_PROCESSES = "-", 61  # of a pool: Windows waits for no more at once
READ_BYTES = 1 << 20  # read at a time
MAX_RATIO = 100  # unpacked to packed size; books pack 2 to 5 times
FREE_BYTES = 64 << 20  # up to this unpacked size any ratio is believed
FIELDS = ("text", "content")
# standard input has no ending: how a text begins tells what it is
LOOKS_LIKE_JSON = re.compile(r'\s*\[\s*["{\]]')
LOOKS_LIKE_JSONL = re.compile(r'\s*\{\s*"')
JSON_TYPES = {dict: "an object", list: "a list", bool: "true or false", int: "a number", float: "a number"}
JSON_TYPES |= {str: "a string", type(None): "null"}
BACKSLASH = re.compile(r'\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})|(\\)')
STRING = re.compile(r'"(?:[^"\\]|\\.)*+"', re.DOTALL)
CONTROL = re.compile(r"[\x00-\x1f]")
SURROGATE = re.compile("[\ud800-\udfff]")  # no file can hold one alone
MAX_DIGITS = 30  # of a number in JSON
AROUND = 10  # characters shown on either side of a fault


def kind_of(path: str | Path) -> str | None:
    """Tell the kind of a file by its ending, `.gz` aside; None for an unknown ending.

    >>> kind_of("斗破.TXT.gz"), kind_of("cover.jpg")
    ('txt', None)
    """
    return FILE_KINDS.get(os.path.splitext(str(path).lower().removesuffix(".gz"))[1])


def find_inputs(paths: Iterable[str | Path]) -> list[str]:
    """List the files that paths stand for: files as given, folders searched through in sorted order, "-" as it is.

    In folders, files of unknown endings are left out with a warning, hidden ones without.

    Raises:
        UserError: a path does not exist, or there is nothing to read.
    """
    # in a folder lie covers and notes as well: only known endings are read there
    found, skipped = [], []
    for path in map(str, paths):
        if path == STANDARD_INPUT or not os.path.isdir(path):
            found.append(path)
            continue
        for name in walk_files(path):
            (found if kind_of(name) else skipped).append(name)
    if skipped:
        shown = ", ".join(skipped[:5]) + (f" and {len(skipped) - 5} more" if len(skipped) > 5 else "")
        warn(f"left out, not {', '.join(FILE_KINDS)} or .gz of these: {shown}")
    if not found:
        message = f"{', '.join(map(str, paths)) or 'no path'}: nothing to read, expected at least one novel"
        raise UserError(message, "put the novel there as .txt, .json, .jsonl or .csv", EXIT_INPUT)
    return list(dict.fromkeys(found))


def walk_files(folder: str) -> Iterator[str]:
    """Yield the files below a folder in sorted order, hidden ones left out; links to folders are not followed."""
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (os.path.join(place, name) for name in sorted(names) if not name.startswith("."))


def read_blocks(path: str | Path) -> Iterator[bytes]:
    """Yield the bytes of a file, or of standard input, in blocks of at most 1 MiB; `.gz` is unpacked.

    Raises:
        UserError: missing, a folder, unreadable, a damaged or absurdly well packed .gz.
    """
    name = name_of(path)
    try:
        if str(path) == STANDARD_INPUT:
            while block := sys.stdin.buffer.read(READ_BYTES):
                yield block
            return
        with open(ready_file(path), "rb") as file:
            packed = str(path).lower().endswith(".gz")
            yield from unpack(file, name) if packed else iter(lambda: file.read(READ_BYTES), b"")
    except (OSError, EOFError, zlib.error) as problem:
        if not isinstance(problem, OSError) or isinstance(problem, gzip.BadGzipFile):
            raise UserError(f"{name}: damaged .gz file: {problem}", "fetch or pack it again", EXIT_INPUT) from problem
        reason = "a folder, expected a file" if isinstance(problem, IsADirectoryError) else problem.strerror
        raise UserError(f"{name}: cannot be read: {reason}", "give a file that can be read", EXIT_INPUT) from problem


def name_of(path: str | Path) -> str:
    """Name a path for people."""
    return "standard input" if str(path) == STANDARD_INPUT else str(path)


def unpack(file, name: str) -> Iterator[bytes]:
    """Yield the unpacked blocks of an open .gz file; a file that unpacks to an absurd size is refused."""
    size, limit = 0, max(FREE_BYTES, MAX_RATIO * os.fstat(file.fileno()).st_size)
    with gzip.GzipFile(fileobj=file) as unpacked:
        while block := unpacked.read(READ_BYTES):
            size += len(block)
            if size > limit:
                message = f"{name}: unpacks to more than {limit:,} bytes, {MAX_RATIO} times its size"
                raise UserError(message, "unpack it yourself if it really is a book", EXIT_INPUT)
            yield block


def source_sha256(path: str | Path) -> str:
    """Return the SHA-256 of a corpus: of a file's bytes, or of the names and hashes of a folder's files.

    Raises:
        UserError: nothing there, or standard input, which cannot be compared later.
    """
    if str(path) == STANDARD_INPUT:
        message = "--raw_data_path -: standard input cannot be read again later, expected a file"
        raise UserError(message, "--raw_data_path data/train.json", EXIT_USAGE)
    hashes = {name: hash_file(name) for name in find_inputs([path])}
    if list(hashes) == [str(path)]:
        return hashes[str(path)]
    lines = [f"{Path(name).relative_to(path).as_posix()} {digest}\n" for name, digest in hashes.items()]
    return hashlib.sha256("".join(lines).encode("utf-8", "surrogateescape")).hexdigest()


def hash_file(name: str) -> str:
    """Return the SHA-256 of what read_blocks yields of a file."""
    digest = hashlib.sha256()
    for block in read_blocks(name):
        digest.update(block)
    return digest.hexdigest()


@dataclass(frozen=True)
class SourceFile:
    """What one input file holds."""

    documents: list[str]
    kind: str  # txt, json, jsonl or csv
    decoded: Decoded  # how its bytes were read
    repairs: dict[str, int]  # number of repaired faults, by kind
    name: str  # its path, or "standard input"


def read_text(path: str | Path, encoding: str | None = None, *, force: bool = False) -> Decoded:
    """Read a file, `.gz` too, or standard input ("-") as one text; encoding and force as for decode_bytes."""
    return decode_bytes(b"".join(read_blocks(path)), encoding, force=force, name=name_of(path))


def stream_text(path: str | Path, encoding: str | None = None, *, force: bool = False) -> TextStream:
    """Read a text file of any size in blocks of up to a million characters; see read_text and TextStream."""
    return TextStream(read_blocks(path), name_of(path), encoding, force=force)


def read_documents(
    path: str | Path, *, encoding: str | None = None, force: bool = False, field: str | None = None
) -> SourceFile:
    """Read one file, whatever its encoding and kind; one of unknown ending is taken as plain text.

    Args:
        path, encoding, force: as for read_text.
        field: the key or column that holds the text; None tries `text`, then `content`.

    Raises:
        UserError: unreadable, undecided encoding, faulty JSON, or an item that is no text.
    """
    name = name_of(path)
    decoded = read_text(path, encoding, force=force)
    if not decoded.text.strip():
        raise UserError(f"{name}: only blanks, expected the text of a novel", "give another file", EXIT_INPUT)
    # the ending tells the kind, but some .json files hold JSON Lines
    kind = guess_kind(decoded.text) if str(path) == STANDARD_INPUT else kind_of(path) or "txt"
    if kind == "json" and is_json_lines(decoded.text):
        kind = "jsonl"
    if kind == "txt":
        return SourceFile([decoded.text], kind, decoded, {}, name)
    repairs = Counter()
    readers = {"json": read_json_list, "jsonl": read_json_lines, "csv": read_table}
    documents = []
    for text in readers[kind](decoded.text, name, field, repairs):
        kept, lone = SURROGATE.subn("", text)
        documents.append(kept)
        if lone:
            repairs["lone surrogates"] += lone
    if not documents:
        raise UserError(f"{name}: no document in it, expected at least one", "give another file", EXIT_INPUT)
    return SourceFile(documents, kind, decoded, dict(repairs), name)


def read_sources(paths: Iterable[str | Path], *, field: str | None = None) -> Iterator[SourceFile]:
    """Read files, whole folders and standard input one after another; see find_inputs and read_documents."""
    for path in find_inputs(paths):
        yield read_documents(path, field=field)


def read_corpus(path: str | Path, *, field: str | None = None) -> Iterator[str]:
    """Yield the documents of a corpus file, or of a folder's files in order, and report what was repaired."""
    for source in read_sources([path], field=field):
        if source.repairs:
            warn(f"{source.name}: repaired {', '.join(f'{name} ({count})' for name, count in source.repairs.items())}")
        yield from source.documents


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
    value = parse_json(text, name, repairs)
    if not isinstance(value, list):
        raise wrong_type(name, "the whole file", value, "a list of strings")
    # each item is checked, so that a message can name the first that is no text
    for index, item in enumerate(value):
        yield take_text(item, f"item {index}", name, field)


def read_json_lines(text: str, name: str, field: str | None, repairs: Counter) -> Iterator[str]:
    """Yield the text of each line's JSON value; blank lines are skipped."""
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            yield take_text(parse_json(line, name, repairs, first_line=number), f"line {number}", name, field)


def take_text(item: object, place: str, name: str, field: str | None) -> str:
    """Take the text out of one item of a list: itself, or the value of its text field."""
    if isinstance(item, str):
        return item
    # an object: the field asked for, or the first of the usual ones
    if not isinstance(item, dict):
        raise wrong_type(name, place, item, "a string or an object with a text")
    key = choose_field(item, field, name, place)
    if not isinstance(item[key], str):
        raise wrong_type(name, f"{place}, key {key!r}", item[key], "a string")
    return item[key]


def choose_field(texts: Mapping[str, object], field: str | None, name: str, place: str) -> str:
    """Choose the key of the text: the one asked for, or the first of the usual ones; place: "" in a table."""
    wanted = (field,) if field else FIELDS
    if key := next((key for key in wanted if key in texts), None):
        return key
    lengths = {key: len(text) for key, text in texts.items() if isinstance(text, str)}  # the longest is the likeliest
    found = printable(", ".join(key[:20] for key in [*texts][:8]) or "no key")
    expected = " or ".join(map(repr, wanted))
    table = f"{name}: found the columns {found}, expected {expected}"
    message = f"{name}: {place}: found {found}, expected {expected}" if place else table
    path = name.replace(name_of(STANDARD_INPUT), STANDARD_INPUT)
    words = ["python", "clr_ctrl.py", path, "--field", max(lengths, key=lengths.get, default="text")]
    raise UserError(message, shlex.join(words), EXIT_INPUT)


def wrong_type(name: str, place: str, value: object, expected: str) -> UserError:
    """Make the error for a JSON value of the wrong type."""
    hint = 'write a list of strings: ["第一章 …", "第二章 …"]'
    return UserError(f"{name}: {place}: found {JSON_TYPES[type(value)]}, expected {expected}", hint, EXIT_INPUT)


def parse_json(text: str, name: str, repairs: Counter, *, first_line: int = 1) -> object:
    r"""Parse one JSON value that begins on this line of the file; raw control characters in strings and lone
    backslashes are repaired and counted, anything else is an error with line, column and the text around it.

    >>> repairs = Counter()
    >>> parse_json('["第一章\\-\n他说"]', "a.json", repairs), repairs
    (['第一章\\-\n他说'], Counter({'raw control characters': 1, 'lone backslashes': 1}))
    """
    # most files are sound: they are parsed once, strictly
    with contextlib.suppress(json.JSONDecodeError):
        return load_strictly(text, name, strict=True)

    # a lone backslash is doubled; control characters inside strings are what `strict=False` lets pass
    lone = [match.start() for match in BACKSLASH.finditer(text) if match.group(1)]
    repaired = BACKSLASH.sub(lambda match: "\\\\" if match.group(1) else match.group(), text) if lone else text
    try:
        value = load_strictly(repaired, name, strict=False)
    except json.JSONDecodeError as problem:
        # the place in the text as it came: every doubled backslash before it counts once
        place = next(place for place in range(problem.pos, -1, -1) if place + bisect_left(lone, place) <= problem.pos)
        raise syntax_error(text, place, problem.msg, name, first_line) from problem
    controls = sum(len(CONTROL.findall(match.group())) for match in STRING.finditer(repaired))
    repairs.update(+Counter({"raw control characters": controls, "lone backslashes": len(lone)}))  # without zeros
    return value


def load_strictly(text: str, name: str, *, strict: bool) -> object:
    """Parse JSON; refuse NaN, repeated keys, long numbers and deep nesting, but raise a syntax error as it is."""
    try:
        return json.loads(
            text, strict=strict, parse_constant=refuse_constant, parse_int=read_int, object_pairs_hook=read_object
        )
    except json.JSONDecodeError:
        raise
    except (ValueError, RecursionError) as problem:
        reason = problem if isinstance(problem, ValueError) else "nested too deep"
        hint = f'write {name} as a list of strings: ["第一章 …", "第二章 …"]'
        raise UserError(f"{name}: {reason}", hint, EXIT_INPUT) from problem


def refuse_constant(word: str) -> None:
    """Refuse NaN and Infinity."""
    raise ValueError(f"found {word}, which is not JSON")


def read_int(digits: str) -> int:
    """Read a number of sane length."""
    if len(digits) > MAX_DIGITS:
        raise ValueError(f"found a number of {len(digits):,} digits, expected at most {MAX_DIGITS}")
    return int(digits)


def read_object(pairs: list[tuple[str, object]]) -> dict:
    """Make a dict of an object whose keys all differ."""
    value = dict(pairs)
    if len(value) < len(pairs):
        key = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        raise ValueError(f"found the key {printable(key[:40])!r} twice in one object")
    return value


def syntax_error(text: str, place: int, message: str, name: str, first_line: int) -> UserError:
    """Make the error that shows where JSON stops being JSON."""
    line = text.count("\n", 0, place)  # lines before it
    column = place - (text.rfind("\n", 0, place) + 1) + 1
    around = text[max(0, place - AROUND) : place + AROUND]
    message = f"{name}: not JSON at line {first_line + line} column {column}: {message}: {printable(around)!r}"
    return UserError(message, f"correct that place, or give the novel as plain text: {name.rsplit('.', 1)[0]}.txt")


def read_table(text: str, name: str, field: str | None, repairs: Counter) -> Iterator[str]:
    """Yield the cells of a table's text column; its first line names the columns."""
    former = csv.field_size_limit(max(len(text), 1))  # a cell may hold a whole book; the limit is global
    try:
        rows = csv.reader(io.StringIO(text, newline=""), strict=True)
        heading, first = next(rows), next(rows, [])  # column names, and the first document
        texts = dict(itertools.zip_longest(heading, first[: len(heading)], fillvalue=""))
        single = len(heading) == 1 and not field  # a single column needs no name
        column = 0 if single else heading.index(choose_field(texts, field, name, ""))
        for row in itertools.chain([first], rows):
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


def write_documents(path: str | Path, documents: Iterable[str], keep: Callable[[], object] | None = None) -> None:
    """Write strings without lone surrogates, taken one by one, as a JSON list; keep: as for atomic_writer."""
    with atomic_writer(path, keep) as file:
        # written item by item: json.dumps of the whole list would need it in memory
        separator = b"[\n"
        for document in documents:
            file.write(separator + json.dumps(document, ensure_ascii=False).encode("utf-8"))
            separator = b",\n"
        file.write(b"[]\n" if separator == b"[\n" else b"\n]\n")
