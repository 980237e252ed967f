"""Files that appear complete or not at all, hashes, and one run per folder.

Every file is written to a hidden sibling, flushed to the disk and renamed; every folder likewise, with a manifest
written last::

    step-00000500/
      model.safetensors, ...
      manifest.json    {"files": {"model.safetensors": {"bytes": 327630408, "sha256": "..."}}, ...}

so a reader that finds the name finds the whole thing, whatever happened to the writer.
"""

import contextlib
import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from novelgpt.errors import EXIT_ENVIRONMENT, EXIT_STATE, UserError

MANIFEST = "manifest.json"
LOCK = ".lock"
HASH_BLOCK = 1 << 20  # bytes
MAX_JSON_BYTES = 64 << 20  # a larger manifest, config or state file is not ours


def fsync_path(path: Path) -> None:
    """Force a file or folder onto the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def atomic_writer(path: str | Path) -> Iterator[BinaryIO]:
    """Open a binary file that takes its name only when the block ends without an error.

    Args:
        path: final name; missing parent folders are made. An existing file is replaced at the end.

    Raises:
        UserError: the place cannot be written (rights, full disk, a folder of that name).
    """
    path = Path(path)
    hidden = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(hidden, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(hidden, path)
        fsync_path(path.parent)
    except OSError as problem:
        hint = f"free some space or choose another place than {path.parent}"
        raise UserError(f"{path}: cannot be written: {problem.strerror}", hint, EXIT_ENVIRONMENT) from problem
    finally:
        with contextlib.suppress(OSError):
            hidden.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Write UTF-8 text atomically, newlines as they are."""
    with atomic_writer(path) as file:
        file.write(text.encode("utf-8"))


def write_json(path: str | Path, value: object, *, indent: int | None = 2) -> None:
    """Write a value as strict JSON (no NaN), readable Chinese, atomically."""
    write_text(path, json.dumps(value, ensure_ascii=False, indent=indent, allow_nan=False) + "\n")


def read_json(path: str | Path, *, code: int = EXIT_STATE) -> object:
    """Read a small JSON file that one of our own commands wrote.

    Raises:
        UserError: missing, larger than 64 MiB, or not JSON; with the place of the first fault.
    """
    path = Path(path)
    hint = f"restore {path.name} or write it again with the command that made it"
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            raise UserError(f"{path}: {path.stat().st_size:,} bytes, expected at most {MAX_JSON_BYTES:,}", hint, code)
        return json.loads(path.read_bytes())
    except OSError as problem:
        raise UserError(f"{path}: cannot be read: {problem.strerror}", hint, code) from problem
    except (ValueError, RecursionError) as problem:
        raise UserError(f"{path}: not valid JSON: {problem}", hint, code) from problem


def sha256_of(path: str | Path) -> str:
    """Return the SHA-256 of a file's bytes in hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(HASH_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def write_manifest(folder: Path, **facts: object) -> None:
    """Flush every file of a folder to the disk and list them, size and hash, in its manifest."""
    files = {}
    for path in sorted(folder.iterdir()):
        if path.name != MANIFEST and path.is_file():
            fsync_path(path)
            files[path.name] = {"bytes": path.stat().st_size, "sha256": sha256_of(path)}
    write_json(folder / MANIFEST, {"files": files, **facts})


def find_damage(folder: str | Path, *, hashes: bool = True, needed: Iterable[str] = ()) -> str | None:
    """Say what is wrong with a folder that should match its manifest; None when nothing is.

    Args:
        folder: a folder written by atomic_folder.
        hashes: read every byte and compare the hashes; False compares names and sizes only.
        needed: files that the manifest must name.
    """
    folder = Path(folder)
    try:
        entries = read_json(folder / MANIFEST)["files"].items()
        expected = {str(name): (int(entry["bytes"]), str(entry["sha256"])) for name, entry in entries}
    except UserError as problem:
        return problem.message
    except (TypeError, KeyError, ValueError, AttributeError, OverflowError) as problem:
        return f"{folder / MANIFEST}: not a manifest ({type(problem).__name__}: {problem})"
    for name in needed:
        if name not in expected:
            return f"{MANIFEST} does not name {name}"
    for name, (size, digest) in expected.items():
        try:
            damage = find_file_damage(folder / name, name, size, digest if hashes else None)
        except (OSError, ValueError) as problem:  # ValueError: a NUL in the name
            damage = f"{name!r} cannot be read: {problem}"
        if damage:
            return damage
    return None


def find_file_damage(path: Path, name: str, size: int, digest: str | None) -> str | None:
    """Say how a file differs from its manifest entry; None when it does not."""
    if Path(name).name != name or path.is_symlink():
        return f"{MANIFEST} names {name!r}, which is not a file of its own folder"
    if not path.is_file():
        return f"{name} is missing"
    if (found := path.stat().st_size) != size:
        return f"{name} has {found:,} bytes, expected {size:,}"
    if digest is not None and sha256_of(path) != digest:
        return f"{name} has changed: its sha256 differs from the manifest"
    return None


@contextlib.contextmanager
def atomic_folder(path: str | Path, **facts: object) -> Iterator[Path]:
    """Yield a hidden sibling folder to fill; at the end it gets its manifest and its name.

    Args:
        path: final name. A folder of that name is replaced, and put back when the replacement fails.
        facts: further keys of the manifest.

    Raises:
        UserError: the place cannot be written.
    """
    path = Path(path)
    hidden = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        shutil.rmtree(hidden, ignore_errors=True)
        hidden.mkdir(parents=True)
        yield hidden
        write_manifest(hidden, **facts)
        replace_folder(hidden, path)
    except OSError as problem:
        hint = f"free some space or choose another place than {path.parent}"
        raise UserError(f"{path}: cannot be written: {problem.strerror}", hint, EXIT_ENVIRONMENT) from problem
    finally:
        shutil.rmtree(hidden, ignore_errors=True)


def old_name(path: Path) -> Path:
    """Name the hidden folder that holds a folder's former content while it is replaced."""
    return path.with_name(f".{path.name}.old")


def replace_folder(new: Path, path: Path) -> None:
    """Rename a complete folder to its final name; a kill in between is mended by recover_folder."""
    shutil.rmtree(old_name(path), ignore_errors=True)
    if path.exists():
        os.rename(path, old_name(path))
    os.rename(new, path)
    fsync_path(path.parent)
    shutil.rmtree(old_name(path), ignore_errors=True)


def recover_folder(path: str | Path) -> None:
    """Give a folder back its former content if a kill struck between the two renames of its replacement."""
    path = Path(path)
    if old_name(path).exists() and not path.exists():
        os.rename(old_name(path), path)


def remove_leftovers(folder: str | Path) -> None:
    """Delete the hidden siblings that killed writers left in a folder. Call it under the run lock."""
    for path in Path(folder).glob(".*.tmp"):
        shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
    for path in Path(folder).glob(".*.old"):
        recover_folder(path.with_name(path.name[1:-4]))
        shutil.rmtree(path, ignore_errors=True)


def move_aside(path: str | Path) -> Path | None:
    """Rename what stands at a path to the first free `name.1`, `name.2`, … and return that name; None if nothing stood.

    The number goes before the ending: samples.txt becomes samples.1.txt.
    """
    path = Path(path)
    if not path.exists():
        return None
    number = 1
    while (aside := path.with_name(f"{path.stem}.{number}{path.suffix}")).exists():
        number += 1
    os.rename(path, aside)
    return aside


@contextlib.contextmanager
def run_lock(folder: str | Path, *, flag: str = "--output_dir") -> Iterator[None]:
    """Hold a folder for one run. The operating system releases the lock when the process ends, however it ends.

    A folder that was made for the lock and is still empty at the end is removed again.

    Args:
        folder: made if missing.
        flag: the option that names another folder, for the hint.

    Raises:
        UserError: another process holds it; the message names its pid and start time.
    """
    folder = Path(folder)
    is_new = not folder.exists()
    with open_lock(folder) as handle:
        if not lock_handle(handle) or not is_same_file(handle, folder / LOCK):
            handle.seek(0)
            message = f"{folder}: in use by {handle.read(200).decode('utf-8', 'replace').strip() or 'another process'}"
            raise UserError(message, f"wait for it, or give {flag} another folder", EXIT_ENVIRONMENT)
        handle.truncate(0)
        with contextlib.suppress(OSError):  # a full disk; the lock itself is held all the same
            handle.write(f"pid {os.getpid()}, started {time.strftime('%Y-%m-%d %H:%M:%S')}".encode())
        try:
            yield
        finally:
            if is_new:
                remove_if_unused(folder)


def open_lock(folder: Path) -> BinaryIO:
    """Open a folder's lock file; make both where they are missing."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return open(folder / LOCK, "a+b", buffering=0)
    except OSError as problem:
        message = f"{folder}: cannot be written: {problem.strerror}"
        raise UserError(message, f"choose another place than {folder}", EXIT_ENVIRONMENT) from problem


def is_same_file(handle: BinaryIO, path: Path) -> bool:
    """Tell whether a name still leads to an open file; it does not where its last holder has just removed it."""
    with contextlib.suppress(OSError):
        return os.path.samestat(os.fstat(handle.fileno()), path.stat())
    return False


def remove_if_unused(folder: Path) -> None:
    """Remove a folder that holds nothing but its lock."""
    if [path.name for path in folder.iterdir()] == [LOCK]:
        (folder / LOCK).unlink()
        folder.rmdir()


def lock_handle(handle: BinaryIO) -> bool:
    """Take the operating system's exclusive lock on an open file; False when somebody else has it."""
    try:
        import fcntl
    except ImportError:
        import msvcrt

        try:
            handle.seek(1 << 20)  # beyond the text that others read
            msvcrt.locking(handle.fileno(), msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True
    with contextlib.suppress(OSError):
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    return False
