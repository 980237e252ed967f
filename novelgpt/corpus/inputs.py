"""Paths as a user gives them -> files to read, and files -> bytes, packed ones unpacked on the way."""

import gzip
import hashlib
import os
import sys
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from novelgpt.messages import EXIT_INPUT, EXIT_USAGE, UserError, warn

KINDS = {".txt": "txt", ".json": "json", ".jsonl": "jsonl", ".csv": "csv"}
STANDARD_INPUT = "-"
READ_BLOCK = 1 << 20  # bytes
MAX_RATIO = 100  # unpacked to packed size; books pack 2 to 5 times
FREE_BYTES = 64 << 20  # an unpacked file up to this size may have any ratio


def kind_of(path: str | Path) -> str | None:
    """Tell the kind of a file by its ending, `.gz` aside; None for an unknown ending.

    >>> kind_of("斗破.TXT.gz"), kind_of("cover.jpg")
    ('txt', None)
    """
    name = str(path).lower().removesuffix(".gz")
    return KINDS.get(os.path.splitext(name)[1])


def find_inputs(paths: Iterable[str | Path]) -> list[str]:
    """List the files that paths stand for: files as given, folders searched through, "-" as it is.

    Files of a folder come in sorted order; unknown endings there are left out with a warning, hidden files without.

    Raises:
        UserError: a path does not exist, or there is nothing to read.
    """
    found, skipped = [], []
    for path in map(str, paths):
        if path == STANDARD_INPUT or not os.path.isdir(path):
            found.append(path)
            continue
        for name in walk_files(path):
            (found if kind_of(name) else skipped).append(name)
    if skipped:
        shown = ", ".join(skipped[:5]) + (f" and {len(skipped) - 5} more" if len(skipped) > 5 else "")
        warn(f"left out, not {', '.join(KINDS)} or .gz of these: {shown}")
    if not found:
        places = ", ".join(map(str, paths)) or "no path"
        hint = "put the novel there as .txt, .json, .jsonl or .csv"
        raise UserError(f"{places}: nothing to read, expected at least one novel", hint, EXIT_INPUT)
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
            while block := sys.stdin.buffer.read(READ_BLOCK):
                yield block
            return
        with open(path, "rb") as file:
            packed = str(path).lower().endswith(".gz")
            yield from unpack(file, name) if packed else iter(lambda: file.read(READ_BLOCK), b"")
    except OSError as problem:
        if isinstance(problem, gzip.BadGzipFile):
            raise damaged(name, str(problem)) from problem
        reason = "a folder, expected a file" if isinstance(problem, IsADirectoryError) else problem.strerror
        raise UserError(f"{name}: cannot be read: {reason}", "give the path of a novel", EXIT_INPUT) from problem


def name_of(path: str | Path) -> str:
    """Name a path for people."""
    return "standard input" if str(path) == STANDARD_INPUT else str(path)


def unpack(file, name: str) -> Iterator[bytes]:
    """Yield the unpacked blocks of an open .gz file, as long as it stays believable."""
    size, limit = 0, max(FREE_BYTES, MAX_RATIO * os.fstat(file.fileno()).st_size)
    try:
        with gzip.GzipFile(fileobj=file) as unpacked:
            while block := unpacked.read(READ_BLOCK):
                size += len(block)
                if size > limit:
                    message = f"{name}: unpacks to more than {limit:,} bytes, {MAX_RATIO} times its size"
                    raise UserError(message, "unpack it yourself if it really is a book", EXIT_INPUT)
                yield block
    except (EOFError, zlib.error) as problem:
        raise damaged(name, str(problem)) from problem


def damaged(name: str, reason: str) -> UserError:
    """Make the error for a .gz file that cannot be unpacked."""
    return UserError(f"{name}: damaged .gz file: {reason}", "fetch or pack it again", EXIT_INPUT)


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
