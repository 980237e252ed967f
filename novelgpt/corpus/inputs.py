"""Paths as a user gives them -> books, and the bytes of their files.

    books/              -> books/凡人.txt, books/红楼梦 (a folder with a file a chapter), books/老书.zip/斗破.txt
    novel.txt, novel.gz, -  -> the same

A book is named by a path: of a file, of a folder that holds its chapters, or of either within an archive.
"""

import gzip
import hashlib
import os
import re
import sys
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from novelgpt.corpus.grouping import group_books, path_key
from novelgpt.files import ready_file
from novelgpt.messages import EXIT_INPUT, EXIT_USAGE, UserError, warn

FILE_KINDS = {".txt": "txt", ".md": "txt", ".json": "json", ".jsonl": "jsonl", ".csv": "csv"}
STANDARD_INPUT = "-"
READ_BYTES = 1 << 20  # read at a time
HEAD_BYTES = 2_000  # of a chapter, that hold its first line
MAX_RATIO = 100  # unpacked to packed size; books pack 2 to 5 times
FREE_BYTES = 64 << 20  # up to this unpacked size any ratio is believed
MAX_NAMED = 5  # files in a warning
# what lies beside books and is none
NO_BOOK = re.compile(
    r"(?:readme|licen[sc]e|copying|changelog|contributing|contributors|authors|code_of_conduct|security|todo|summary"
    r"|requirements|robots|package|package-lock|tsconfig|manifest|cmakelists)(?:[._-][\w-]*)?\.[a-z]+",
    re.IGNORECASE,
)


def kind_of(path: str | Path) -> str | None:
    """Tell the kind of a file by its ending, `.gz` aside; None for an unknown ending.

    >>> kind_of("斗破.TXT.gz"), kind_of("cover.jpg")
    ('txt', None)
    """
    return FILE_KINDS.get(os.path.splitext(str(path).lower().removesuffix(".gz"))[1])


def name_of(path: str | Path) -> str:
    """Name a path for people."""
    return "standard input" if str(path) == STANDARD_INPUT else str(path)


class Folder:
    """The files below a folder that may hold books; see `left_out` for those that do not.

    Hidden files are passed over, links to folders are not followed.

    Raises:
        UserError: the folder cannot be read.
    """

    def __init__(self, path: str | Path):
        self.path = str(path)
        self.files: dict[str, int] = {}  # path within the folder, parts divided by "/", and size in bytes
        self.left_out: dict[str, list[str]] = {}  # reason -> paths within the folder
        waiting = [""]
        while waiting:
            place = waiting.pop()
            try:
                with os.scandir(os.path.join(self.path, place)) as entries:
                    waiting += filter(None, [self.add(entry, place) for entry in entries])
            except OSError as problem:
                if not place:
                    raise cannot_read(self.path, problem) from problem
                self.leave_out(f"cannot be read: {problem.strerror}", place)

    def add(self, entry: os.DirEntry, place: str) -> str:
        """Take note of a file; return the path of a folder that is to be looked into."""
        path = f"{place}/{entry.name}" if place else entry.name
        if entry.name.startswith("."):
            return ""
        if entry.is_dir(follow_symlinks=False):
            return path
        if entry.is_dir():
            self.leave_out("links to folders", path)
        elif kind_of(path) is None:
            self.leave_out("no kind of book", path)
        elif NO_BOOK.fullmatch(entry.name):
            self.leave_out("no book by its name", path)
        else:
            self.files[path] = size_of(entry)
        return ""

    def leave_out(self, reason: str, path: str) -> None:
        """Take note of a file that is no book."""
        self.left_out.setdefault(reason, []).append(path)

    def read(self, path: str) -> bytes:
        """Return the bytes of a file."""
        return b"".join(read_blocks(os.path.join(self.path, path)))

    def first_line(self, path: str) -> str:
        """Return the first line of a file that is not blank, in UTF-8 or GB18030; "" where it cannot be read."""
        try:
            head = next(read_blocks(os.path.join(self.path, path)), b"")[:HEAD_BYTES]
        except UserError:
            return ""
        return first_line_of(head)

    def books(self) -> dict[str, list[str]]:
        """Return the paths of the books in the folder, "" for the folder itself, each with its files in order."""
        return group_books(self.files, self.first_line)


def first_line_of(head: bytes) -> str:
    """Read the first line that is not blank of the beginning of a text, whether in UTF-8 or in GB18030.

    >>> first_line_of("\\n第一章 山村\\n他走了".encode("gbk"))
    '第一章 山村'
    """
    try:
        text = head[:-3].decode("utf-8-sig") if len(head) > HEAD_BYTES - 3 else head.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = head.decode("gb18030", "ignore")
    return next(filter(None, map(str.strip, text.split("\n"))), "")


def size_of(entry: os.DirEntry) -> int:
    """Return the size of a file of a folder; 0 where there is none to be had."""
    try:
        return entry.stat().st_size
    except OSError:  # a link that leads nowhere; reading it says so
        return 0


def find_inputs(paths: Iterable[str | Path]) -> list[str]:
    """List the books that paths stand for: files as given, those of folders in natural order, "-" as it is.

    What lies in folders and is no book is left out with a warning, hidden files without.

    Raises:
        UserError: a path does not exist, or there is nothing to read.
    """
    found: list[str] = []
    for path in map(str, paths):
        if path == STANDARD_INPUT or not os.path.isdir(path):
            found.append(path)
            continue
        folder = Folder(path)
        found += [os.path.join(path, *book.split("/")) if book else path for book in folder.books()]
        for reason, names in folder.left_out.items():
            warn(f"left out, {reason}: {some_of([os.path.join(path, name) for name in sorted(names, key=path_key)])}")
    if not found:
        message = f"{', '.join(map(str, paths)) or 'no path'}: nothing to read, expected at least one novel"
        raise UserError(message, "put the novel there as .txt, .json, .jsonl or .csv", EXIT_INPUT)
    return list(dict.fromkeys(found))


def some_of(names: list[str]) -> str:
    """Name the first of many.

    >>> some_of(["a", "b"])
    'a, b'
    """
    return ", ".join(names[:MAX_NAMED]) + (f" and {len(names) - MAX_NAMED:,} more" if len(names) > MAX_NAMED else "")


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
    except (EOFError, zlib.error, gzip.BadGzipFile) as problem:
        raise UserError(f"{name}: damaged .gz file: {problem}", "fetch or pack it again", EXIT_INPUT) from problem
    except OSError as problem:
        raise cannot_read(name, problem) from problem


def cannot_read(name: str, problem: OSError) -> UserError:
    """Make the error for a file or folder that cannot be read."""
    reason = "a folder, expected a file" if isinstance(problem, IsADirectoryError) else problem.strerror
    return UserError(f"{name}: cannot be read: {reason}", "give a file that can be read", EXIT_INPUT)


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
    if not os.path.isdir(path):
        return hash_file(path)
    names = sorted(Folder(path).files, key=path_key)
    lines = [f"{name} {hash_file(os.path.join(path, name))}\n" for name in names]
    return hashlib.sha256("".join(lines).encode("utf-8", "surrogateescape")).hexdigest()


def hash_file(name: str | Path) -> str:
    """Return the SHA-256 of what read_blocks yields of a file."""
    digest = hashlib.sha256()
    for block in read_blocks(name):
        digest.update(block)
    return digest.hexdigest()


def file_size(path: str) -> int:
    """Give the size of a book in bytes; 0 for standard input or a missing file."""
    if os.path.isdir(path):
        return sum(Folder(path).files.values())
    return os.path.getsize(path) if os.path.isfile(path) else 0
