"""Archives -> the files in them: .zip, .tar, .tar.gz, .tar.bz2, .tar.xz, and one such archive within another.

Nothing is ever unpacked to a path: a file is read by its name into memory, after a look at what it claims to be.
"""

import bz2
import gzip
import io
import lzma
import os
import stat
import struct
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import BinaryIO

from novelgpt.corpus.signatures import HEAD_BYTES, container_kind
from novelgpt.messages import EXIT_INPUT, UserError

MAX_RATIO = 100  # unpacked to packed size; books pack 2 to 5 times
FREE_BYTES = 64 << 20  # up to this unpacked size any ratio is believed
MAX_BYTES = 512 << 20  # of one file, as it is read into memory
READ_BYTES = 1 << 20  # at a time
MAX_NAMES = 200_000  # files of one archive
UTF8_NAME, ENCRYPTED = 0x800, 0x1  # flags of a file in a zip
STREAMS = {"gzip": gzip.open, "bz2": bz2.BZ2File, "xz": lzma.LZMAFile}
ENDINGS = (".zip", ".tar", ".tgz", ".tbz2", ".txz", ".tar.gz", ".tar.bz2", ".tar.xz")
DAMAGES = (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, struct.error, EOFError, ValueError)
DAMAGES += (OSError, OverflowError, RecursionError)
IGNORED = ("__MACOSX", "Thumbs.db", "desktop.ini")
# what a zip is by a file in it, or by its first one, whose name stands at this place
INSIDE = {"META-INF/container.xml": "epub", "word/document.xml": "docx"}
FIRST_FILES, ZIP_NAME = {b"mimetype": "epub", b"[Content_Types].xml": "docx"}, 30
DAMAGE_HINT = "fetch or pack it again"
SIZE_HINT = "unpack it yourself if it really is a book"


@contextmanager
def damage_told(name: str) -> Iterator[None]:
    """Turn whatever a damaged archive raises into a UserError."""
    try:
        yield
    except DAMAGES as problem:
        raise UserError(f"{name}: damaged, or not whole", DAMAGE_HINT, EXIT_INPUT) from problem
    except NotImplementedError as problem:  # a way of packing that Python does not know
        message = f"{name}: packed in a way that is not read"
        raise UserError(message, "pack it again as an ordinary zip", EXIT_INPUT) from problem


def open_source(source: str | Path | bytes) -> BinaryIO:
    """Open a file or bytes for reading."""
    return io.BytesIO(source) if isinstance(source, bytes) else open(source, "rb")


def file_kind(source: str | Path | bytes) -> str | None:
    """Tell what a file is by what is in it: "epub", "docx", "zip", "tar" (also a packed one), "gzip", "pdf" and so on.

    Args:
        source: the path of a file, or its bytes.

    Returns:
        None for what may be text.

    Raises:
        OSError: the file cannot be read.
    """
    with open_source(source) as file:
        head = file.read(HEAD_BYTES)
        kind = container_kind(head)
        file.seek(0)
        if kind == "zip":
            return zip_kind(file, head)
        if kind in STREAMS:
            try:
                with STREAMS[kind](file) as unpacked:
                    return "tar" if container_kind(unpacked.read(HEAD_BYTES)) == "tar" else kind
            except DAMAGES:
                return kind
    return kind


def zip_kind(file: BinaryIO, head: bytes) -> str:
    """Tell what a zip is; of a damaged one by its first file."""
    try:
        with zipfile.ZipFile(file) as archive:
            names = archive.namelist()
    except (*DAMAGES, NotImplementedError):
        return next((kind for name, kind in FIRST_FILES.items() if head.startswith(name, ZIP_NAME)), "zip")
    found = next((kind for name, kind in INSIDE.items() if name in names), "zip")
    return "epub" if found == "zip" and any(name.lower().endswith(".opf") for name in names) else found


def open_zip(data: bytes, name: str) -> zipfile.ZipFile:
    """Open a book that is a zip; UserError: damaged, or absurdly large when unpacked."""
    with damage_told(name):
        archive = zipfile.ZipFile(io.BytesIO(data))
    refuse_bomb(sum(member.file_size for member in archive.infolist()), len(data), name)
    return archive


def refuse_bomb(size: int, packed: int, name: str) -> None:
    """Raise UserError where so many packed bytes unpack to an absurd size."""
    limit = max(FREE_BYTES, MAX_RATIO * packed)
    if size > limit:
        message = f"{name}: unpacks to more than {limit:,} bytes, {MAX_RATIO} times its size"
        raise UserError(message, SIZE_HINT, EXIT_INPUT)


def read_packed(archive: zipfile.ZipFile, member: zipfile.ZipInfo, path: str) -> bytes:
    """Return the bytes of a file in a zip; UserError as of Archive.read."""
    refuse_member(member, path)
    with damage_told(path):
        return archive.read(member)


class Archive:
    """The files of an archive, each read by its name; a context manager.

    Args:
        source: the path of the archive, or its bytes.
        name: its name for messages; the path where it is left out.
        inside: whether it lies in an archive itself; then those in it are refused.

    Attributes:
        sizes: the files in the order of the archive, without folders and hidden ones, and their unpacked bytes;
            `inner.zip/a.txt` lies in a second archive.

    Raises:
        UserError: damaged, or absurdly large.

    >>> packed = io.BytesIO()
    >>> with zipfile.ZipFile(packed, "w") as file:
    ...     file.writestr("第一章.txt", "他走了。")
    >>> with Archive(packed.getvalue(), "book.zip") as archive:
    ...     archive.names, archive.read("第一章.txt").decode()
    (['第一章.txt'], '他走了。')
    """

    def __init__(self, source: str | Path | bytes, name: str | None = None, *, inside: bool = False):
        self.name = name or str(source)
        self.inside = inside
        self.inner: Archive | None = None  # the one that was read last
        self.file = open_source(source)
        try:
            self.packed = self.file.seek(0, os.SEEK_END)  # bytes
            self.file.seek(0)
            with damage_told(self.name):
                self.members = self.list_members()
            self.sizes = {name: size for own in self.members for name, size in self.expand(own).items()}
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "Archive":
        return self

    def __exit__(self, *_problem: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        if self.inner:
            self.inner.close()
        self.file.close()

    def list_members(self) -> dict[str, zipfile.ZipInfo | tarfile.TarInfo]:
        """Open the archive and list its files by name."""
        kind = container_kind(self.file.read(HEAD_BYTES))
        self.file.seek(0)
        if kind in STREAMS:
            packed, self.file = self.file, tempfile.TemporaryFile()  # noqa: SIM115 - close() closes it
            unpack_stream(packed, kind, self.file, self.packed, self.name)
        self.archive = zipfile.ZipFile(self.file) if kind == "zip" else tarfile.TarFile(fileobj=self.file)
        entries = zip_entries(self.archive) if kind == "zip" else tar_entries(self.archive)
        members, size = {}, 0
        for name, member in entries:
            if is_hidden(name):
                continue
            members[name] = member
            size += size_of(member)
            refuse_bomb(size, self.packed, self.name)
            if len(members) > MAX_NAMES:
                raise UserError(f"{self.name}: more than {MAX_NAMES:,} files", SIZE_HINT, EXIT_INPUT)
        return members

    @property
    def names(self) -> list[str]:
        """The files in the order of the archive."""
        return [*self.sizes]

    def expand(self, name: str) -> dict[str, int]:
        """List the files of an archive in this one with their sizes; itself where it is none, or cannot be read."""
        own = {name: size_of(self.members[name])}
        if self.inside or not name.lower().endswith(ENDINGS):
            return own
        try:
            return {f"{name}/{inner}": size for inner, size in self.open_inner(name).sizes.items()}
        except UserError:
            return own

    def open_inner(self, name: str) -> "Archive":
        """Open an archive in this one; the last one stays open."""
        path = f"{self.name}/{name}"
        if self.inner is None or self.inner.name != path:
            if self.inner:
                self.inner.close()
            self.inner = None
            self.inner = Archive(self.read_member(name), path, inside=True)
        return self.inner

    def read(self, name: str) -> bytes:
        """Return the bytes of one of `names`.

        Raises:
            UserError: encrypted, damaged, a link, a path that leads out, absurdly large, or one archive too many.
        """
        if name not in self.members:
            outer = next(own for own in self.members if name.startswith(f"{own}/") and own.lower().endswith(ENDINGS))
            return self.open_inner(outer).read(name.removeprefix(f"{outer}/"))
        if name.lower().endswith(ENDINGS):
            if self.inside:
                message = f"{self.name}/{name}: an archive in an archive in an archive, expected at most one in another"
                raise UserError(message, "unpack the outer one yourself", EXIT_INPUT)
            self.open_inner(name)  # says what is wrong with it
        return self.read_member(name)

    def read_member(self, name: str) -> bytes:
        """Return the bytes of a file that lies in this very archive."""
        member, path = self.members[name], f"{self.name}/{name}"
        refuse_member(member, path)
        with damage_told(path):
            is_zip = isinstance(member, zipfile.ZipInfo)
            with self.archive.open(member) if is_zip else self.archive.extractfile(member) as file:
                data = file.read()
        if len(data) < size_of(member):
            raise UserError(f"{path}: damaged, or not whole", DAMAGE_HINT, EXIT_INPUT)
        return data


def unpack_stream(packed: BinaryIO, kind: str, whole: BinaryIO, size: int, name: str) -> None:
    """Unpack a packed tar of so many bytes into a file, unless it becomes absurdly large."""
    with packed, STREAMS[kind](packed) as unpacked:
        while block := unpacked.read(READ_BYTES):
            whole.write(block)
            refuse_bomb(whole.tell(), size, name)
    whole.seek(0)


def zip_entries(archive: zipfile.ZipFile) -> Iterator[tuple[str, zipfile.ZipInfo]]:
    """Yield the files of a zip, names as they were meant."""
    for member in archive.infolist():
        name = member.filename
        if not member.flag_bits & UTF8_NAME:  # zipfile has read them as cp437; Chinese Windows writes GBK
            name = read_name(name.encode("cp437", "replace"))
        if member.CRC == 0:  # some sites write none
            del member.CRC
        if not name.endswith(("/", "\\")):
            yield name.replace("\\", "/"), member


def tar_entries(archive: tarfile.TarFile) -> Iterator[tuple[str, tarfile.TarInfo]]:
    """Yield all of a tar but its folders."""
    for member in archive:
        if member.size < 0 or member.offset_data < member.offset:  # such a tar has no end
            raise tarfile.ReadError("a file of negative size")
        if not member.isdir():
            yield read_name(member.name.encode("utf-8", "surrogateescape")), member


def read_name(name: bytes) -> str:
    """Decode the name of a file.

    >>> read_name("第一章.txt".encode()), read_name("第一章.txt".encode("gbk"))
    ('第一章.txt', '第一章.txt')
    """
    try:
        return name.decode("utf-8")
    except UnicodeDecodeError:
        return name.decode("gb18030", "replace")


def is_hidden(name: str) -> bool:
    """Say whether a file is hidden, or one that a system leaves behind."""
    return any((part[0] == "." and part != "..") or part in IGNORED for part in PurePosixPath(name).parts)


def size_of(member: zipfile.ZipInfo | tarfile.TarInfo) -> int:
    """Return the unpacked size of a file in bytes."""
    return member.file_size if isinstance(member, zipfile.ZipInfo) else member.size


def refuse_member(member: zipfile.ZipInfo | tarfile.TarInfo, path: str) -> None:
    """Raise UserError for what is not read: links, devices, paths that lead out, encrypted and absurdly large files."""
    is_zip = isinstance(member, zipfile.ZipInfo)
    own = PurePosixPath((member.filename if is_zip else member.name).replace("\\", "/"))
    if own.is_absolute() or ".." in own.parts or PureWindowsPath(own).drive:
        message = f"{path}: a path that leads out of the archive, expected one below it"
        raise UserError(message, "unpack it yourself if you trust it", EXIT_INPUT)
    if stat.S_ISLNK(member.external_attr >> 16) if is_zip else not member.isreg():
        raise UserError(f"{path}: a link or a device, expected a file", "give the file that it means", EXIT_INPUT)
    if is_zip and member.flag_bits & ENCRYPTED:
        message = f"{path}: encrypted, the archive has a password"
        raise UserError(message, "unpack it yourself with the password", EXIT_INPUT)
    size = size_of(member)
    limit = min(MAX_BYTES, max(FREE_BYTES, MAX_RATIO * member.compress_size if is_zip else MAX_BYTES))
    if size > limit:
        message = f"{path}: a file of {size:,} bytes, expected at most {limit:,}"
        raise UserError(message, SIZE_HINT, EXIT_INPUT)
