"""Paths as a user gives them -> books, and the bytes of their files.

    books/                                            stands for
      凡人.txt                                        books/凡人.txt
      红楼梦/  1.txt … 120.txt                        books/红楼梦, one book of 120 chapters
      老书.zip                                        books/老书.zip/三国.txt, books/老书.zip/水浒.epub
      cover.jpg                                       nothing: left out, and said so
    novel.epub, novel, -                              the same

A book is named by a path: of a file, of a folder that holds its chapters, or of either within an archive.
"""

import gzip
import os
import re
import sys
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from novelgpt.corpus.containers import FREE_BYTES, MAX_RATIO, Archive, file_kind
from novelgpt.corpus.grouping import ending_of, group_books, path_key, title_of
from novelgpt.corpus.signatures import NAMES, converting_command
from novelgpt.files import ready_file
from novelgpt.messages import EXIT_INPUT, UserError, warn

FILE_KINDS = {".txt": "txt", ".md": "txt", ".json": "json", ".jsonl": "jsonl", ".csv": "csv"}
FILE_KINDS |= {".epub": "epub", ".docx": "docx", ".html": "html", ".htm": "html", ".xhtml": "html"}
FILE_KINDS |= dict.fromkeys((".zip", ".tar", ".tgz", ".tbz2", ".txz"), "archive")
PACKED = re.compile(r"\.gz$|(?<=\.tar)\.(?:bz2|xz)$")
STANDARD_INPUT = "-"
READ_BYTES = 1 << 20  # read at a time
HEAD_BYTES = 2_000  # of a chapter, that hold its first line
MAX_NAMED = 5  # files in a warning
MANY, SIDE_KINDS = 10, ("json", "jsonl", "csv", "html")  # chapters for each file of another kind beside them
# what lies beside books and is none
NO_BOOK = re.compile(
    r"(?:readme|licen[sc]e|copying|changelog|contributing|contributors|authors|code_of_conduct|security|todo|summary"
    r"|requirements|robots|package|package-lock|tsconfig|manifest|cmakelists)(?:[._-][\w-]*)?\.[a-z]+",
    re.IGNORECASE,
)
# books in formats that are not read
FOREIGN = dict.fromkeys((".mobi", ".azw", ".azw3", ".prc"), "mobi") | {".kfx": "kfx", ".pdf": "pdf", ".rar": "rar"}
FOREIGN |= {".7z": "7z", ".doc": "doc", ".chm": "chm", ".rtf": "rtf", ".djvu": "djvu", ".umd": "umd", ".lit": "lit"}


def kind_of(path: str | Path) -> str | None:
    """Tell the kind of a file by its ending, `.gz` aside; None for an unknown ending.

    >>> kind_of("斗破.TXT.gz"), kind_of("books.tar.gz"), kind_of("cover.jpg")
    ('txt', 'archive', None)
    """
    return FILE_KINDS.get(os.path.splitext(PACKED.sub("", str(path).lower()))[1])


def name_of(path: str | Path) -> str:
    """Name a path for people."""
    return "standard input" if str(path) == STANDARD_INPUT else str(path)


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
            yield from (
                unpack(file, name, os.fstat(file.fileno()).st_size)
                if packed
                else iter(lambda: file.read(READ_BYTES), b"")
            )
    except (EOFError, zlib.error, gzip.BadGzipFile) as problem:
        raise UserError(f"{name}: damaged .gz file: {problem}", "fetch or pack it again", EXIT_INPUT) from problem
    except OSError as problem:
        raise cannot_read(name, problem) from problem


def cannot_read(name: str, problem: OSError) -> UserError:
    """Make the error for a file or folder that cannot be read."""
    reason = "a folder, expected a file" if isinstance(problem, IsADirectoryError) else problem.strerror
    return UserError(f"{name}: cannot be read: {reason}", "give a file that can be read", EXIT_INPUT)


def unpack(file: BinaryIO, name: str, packed: int) -> Iterator[bytes]:
    """Yield the unpacked blocks of an open .gz file of so many bytes; one that unpacks to an absurd size is refused."""
    size, limit = 0, max(FREE_BYTES, MAX_RATIO * packed)
    with gzip.GzipFile(fileobj=file) as unpacked:
        while block := unpacked.read(READ_BYTES):
            size += len(block)
            if size > limit:
                message = f"{name}: unpacks to more than {limit:,} bytes, {MAX_RATIO} times its size"
                raise UserError(message, "unpack it yourself if it really is a book", EXIT_INPUT)
            yield block


class Shelf:
    """Files that may hold books.

    Attributes:
        name: of the folder or archive.
        files: path within it, parts divided by "/", and size in bytes.
        left_out: what is no book, by reason.
    """

    def __init__(self, name: str):
        self.name = name
        self.files: dict[str, int] = {}
        self.left_out: dict[str, list[str]] = {}

    def add(self, path: str, size: int) -> None:
        """Put a file among the books, or among what is none by its name."""
        name = path.rpartition("/")[2]
        if kind_of(path) is None:
            self.leave_out(FOREIGN.get(os.path.splitext(name.lower())[1], "unknown"), path)
        elif NO_BOOK.fullmatch(name):
            self.leave_out("named", path)
        else:
            self.files[path] = size

    def leave_out(self, reason: str, path: str) -> None:
        """Take note of what is no book; reason: a word of warn_left_out."""
        self.left_out.setdefault(reason, []).append(path)

    def read(self, path: str) -> bytes:
        """Return the bytes of a file; UserError where it cannot be read."""
        raise NotImplementedError

    def first_line(self, path: str) -> str:
        """Return the first line of a text that is not blank, "" where it cannot be read."""
        try:
            return first_line_of(self.read(path)[:HEAD_BYTES]) if kind_of(path) == "txt" else ""
        except UserError:
            return ""

    def title_of(self, path: str, text: str) -> str:
        """Return the title of a chapter: its first line where that is a heading, else what the file's name says."""
        return title_of(path, text)

    def names(self) -> list[str]:
        """Return the paths of the files in natural order."""
        return sorted(self.files, key=path_key)

    def books(self) -> dict[str, list[str]]:
        """Return the paths of the books, "" where the whole is one, each with its files in order.

        A few files of other kinds that lie beside many chapters are no books.
        """
        books = group_books(self.files, self.first_line)
        for place, names in [(place, names) for place, names in books.items() if place not in self.files]:
            folder, ending = f"{place}/" if place else "", ending_of(names[0])
            others = [path for path in books if path in self.files and path.startswith(folder)]
            beside = [path for path in others if not path.endswith(ending) and kind_of(path) in SIDE_KINDS]
            for path in beside if len(names) >= MANY * len(beside) else ():
                del books[path]
                self.leave_out("beside", path)
        return books

    def converting_command(self, kind: str, name: str) -> str:
        """Return the command that makes text of a file in a format that is not read."""
        return converting_command(kind, name)

    def warn_left_out(self) -> None:
        """Say what is left out, one line for each reason."""
        for reason, paths in self.left_out.items():
            names = [f"{self.name}/{path}" for path in sorted(paths, key=path_key)]
            shown = some_of(names)
            if reason in NAMES:
                warn(f"left out, {NAMES[reason]}: {shown}; to read it: {self.converting_command(reason, names[0])}")
            elif reason == "link":
                warn(f"left out, links to folders: {shown}")
            elif reason == "named":
                warn(f"left out, no novels by their names: {shown}")
            elif reason == "beside":
                warn(f"left out, beside the chapters of a book: {shown}")
            elif reason == "unreadable":
                warn(f"left out, cannot be read: {shown}")
            else:
                warn(f"left out, no kind of file that is read: {shown}")


class Folder(Shelf):
    """The files below a folder; hidden ones are passed over, links to folders are not followed.

    Raises:
        UserError: the folder cannot be read.
    """

    def __init__(self, path: str | Path):
        super().__init__(str(path).rstrip("/") or "/")
        waiting = [""]
        while waiting:
            place = waiting.pop()
            try:
                with os.scandir(os.path.join(self.name, place)) as entries:
                    waiting += filter(None, [self.look_at(entry, place) for entry in entries])
            except OSError as problem:
                if not place:
                    raise cannot_read(self.name, problem) from problem
                self.leave_out("unreadable", place)

    def look_at(self, entry: os.DirEntry, place: str) -> str:
        """Take note of a file; return the path of a folder that is to be looked into."""
        path = f"{place}/{entry.name}" if place else entry.name
        if entry.name.startswith("."):
            return ""
        if entry.is_dir(follow_symlinks=False):
            return path
        try:
            if entry.is_dir():
                self.leave_out("link", path)
            elif entry.is_file():
                self.add(path, entry.stat().st_size)
            else:  # a link that leads nowhere, a pipe
                self.leave_out("unreadable", path)
        except OSError:  # a link in a circle
            self.leave_out("unreadable", path)
        return ""

    def read(self, path: str) -> bytes:
        """Return the bytes of a file; UserError where it cannot be read."""
        return b"".join(read_blocks(os.path.join(self.name, path)))


class ArchiveShelf(Shelf):
    """The files of an archive, given by its path or its bytes; a context manager.

    Raises:
        UserError: damaged, or absurdly large.
    """

    def __init__(self, source: str | Path | bytes, name: str):
        super().__init__(name)
        self.archive = Archive(source, name)
        for path, size in self.archive.sizes.items():
            self.add(path, size)

    def __enter__(self) -> "ArchiveShelf":
        return self

    def __exit__(self, *_problem: object) -> None:
        self.archive.close()

    def read(self, path: str) -> bytes:
        """Return the bytes of a file; UserError where it cannot be read."""
        return self.archive.read(path)

    def converting_command(self, kind: str, name: str) -> str:
        """Return the command that takes the files out of the archive."""
        return converting_command("zip" if self.name.lower().endswith(".zip") else "tar", self.name)


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


def some_of(names: list[str]) -> str:
    """Name the first of many.

    >>> some_of(["a", "b"])
    'a, b'
    """
    return ", ".join(names[:MAX_NAMED]) + (f" and {len(names) - MAX_NAMED:,} more" if len(names) > MAX_NAMED else "")


def find_inputs(paths: Iterable[str | Path]) -> list[str]:
    """List the books that paths stand for: files as given, those of folders in natural order, "-" as it is.

    What lies in folders and is no book is left out with a warning, hidden files without.

    Raises:
        UserError: a path does not exist, or there is nothing to read.
    """
    found = [book for path in map(str, paths) for book in books_of(path)]
    if not found:
        message = f"{', '.join(map(str, paths)) or 'no path'}: nothing to read, expected at least one novel"
        raise UserError(message, "put the novel there as .txt, .epub, .docx, .html, .json or .csv", EXIT_INPUT)
    return list(dict.fromkeys(found))


def books_of(path: str) -> Iterator[str]:
    """Yield the books that a path stands for."""
    if path != STANDARD_INPUT and os.path.isdir(path):
        folder = Folder(path)
        for book in folder.books():
            inner = os.path.join(path, *book.split("/")) if book else path
            yield from books_of_archive(inner) if book in folder.files and kind_of(inner) == "archive" else [inner]
        folder.warn_left_out()
    elif path != STANDARD_INPUT and is_archive(path):
        yield from books_of_archive(path)
    else:
        yield path


def books_of_archive(path: str) -> Iterator[str]:
    """Yield the books in an archive; itself where it is one, or cannot be read, which is said when its turn comes."""
    try:
        with ArchiveShelf(path, path) as shelf:
            books = list(shelf.books()) or [""]
            shelf.warn_left_out()
    except UserError:
        books = [""]
    yield from (f"{path}/{book}" if book else path for book in books)


def is_archive(path: str | Path) -> bool:
    """Tell whether a file is an archive of texts, by what is in it."""
    try:
        return os.path.isfile(path) and file_kind(path) in ("zip", "tar")
    except OSError:
        return False


def split_member(path: str | Path) -> tuple[str, str] | None:
    """Divide the path of a book within an archive; None for any other.

    >>> split_member("no.zip/斗破.txt") is None
    True
    """
    archive = Path(path)
    while not archive.exists() and archive != archive.parent:
        archive = archive.parent
    inside = Path(path).relative_to(archive).as_posix() if archive.is_file() else "."
    return (str(archive), inside) if inside != "." and is_archive(archive) else None
