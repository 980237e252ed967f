"""Files and folders that appear complete or not at all, and their hashes.

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
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from novelgpt.messages import EXIT_ENVIRONMENT, EXIT_STATE, UserError

MANIFEST = "manifest.json"
MAX_JSON_BYTES = 64 << 20  # no manifest, config or state file of ours is larger
IS_WINDOWS = not hasattr(os, "O_DIRECTORY")  # there nothing in use is removed or renamed, and no folder flushed
PAUSES = (0.02, 0.1, 0.3, 1.0)  # seconds between tries to rename what somebody reads
# what comes with this program: in the wheel inside the package, in a checkout beside it
PACKAGE = Path(__file__).parent
HOME = PACKAGE / "ready" if (PACKAGE / "ready").is_dir() else PACKAGE.parent
READY_FILES = ("config/*.yaml", "config/*.json", "cache/vocab_small.txt", "data/sample/novel.txt")


def ready_file(path: str | Path) -> str | Path:
    """Return a path as given, or, where nothing is there, the file of that name that comes with this program.

    >>> ready_file("data/train.json")
    'data/train.json'
    """
    ours = HOME / path
    is_known = any(Path(path).match(pattern) for pattern in READY_FILES)
    return ours if is_known and not Path(path).exists() and ours.is_file() else path


def patiently(rename: Callable, old: Path, new: Path) -> None:
    """Rename a file or folder; Windows refuses that while anyone reads it, and virus scanners read what is new.

    Args:
        rename: os.rename, or os.replace, which takes the name of what is there.
        old, new: the names.
    """
    for pause in PAUSES if IS_WINDOWS else ():
        try:
            return rename(old, new)
        except PermissionError:
            time.sleep(pause)
    return rename(old, new)


def fsync_path(path: Path) -> None:
    """Force a file or folder onto the disk; Windows opens no folder, and flushes only what is open for writing."""
    if IS_WINDOWS and path.is_dir():
        return
    handle = os.open(path, os.O_RDWR if IS_WINDOWS else os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def atomic_writer(path: str | Path, keep: Callable[[], object] | None = None) -> Iterator[BinaryIO]:
    """Open a binary file that takes its name, replacing what has it, only when the block ends without an error.

    Args:
        path: final name; missing parent folders are made.
        keep: called when everything is on the disk, before what has the name is replaced.

    Raises:
        UserError: the place cannot be written (rights, full disk, a folder of that name).
    """
    # The pid keeps two writers of one name apart, and the dot and ending tell remove_leftovers what may go.
    path = Path(path)
    hidden = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(hidden, "wb") as file:
            yield file
            # Content first, then the name, then the folder that holds it: a power cut finds either file, whole.
            file.flush()
            os.fsync(file.fileno())
        if keep:
            keep()
        patiently(os.replace, hidden, path)
        fsync_path(path.parent)
    except OSError as problem:
        hint = f"free some space or choose another place than {path.parent}"
        raise UserError(f"{path}: cannot be written: {problem.strerror}", hint, EXIT_ENVIRONMENT) from problem
    finally:  # nothing to remove where the rename was reached
        with contextlib.suppress(OSError):
            hidden.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Write UTF-8 text atomically, newlines as they are."""
    with atomic_writer(path) as file:
        file.write(to_bytes(text))


def to_bytes(text: str) -> bytes:
    r"""Return a text in UTF-8; what no UTF-8 has comes as JSON spells it: bytes of a file's name in another encoding.

    >>> to_bytes(os.fsdecode("月.txt".encode("gbk")))
    b'\\udcd4\\udcc2.txt'
    """
    return text.encode("utf-8", "backslashreplace")


def write_json(path: str | Path, value: object) -> None:
    """Write a value as strict JSON (no NaN), readable Chinese, atomically."""
    write_text(path, json.dumps(value, ensure_ascii=False, indent=2, allow_nan=False) + "\n")


def read_json(path: str | Path, *, code: int = EXIT_STATE) -> object:
    """Read a JSON file of ours; UserError where it is missing, larger than 64 MiB or not JSON."""
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
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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
    # What the manifest says; it may have been written by anything.
    try:
        entries = read_json(folder / MANIFEST)["files"].items()
        expected = {str(name): (int(entry["bytes"]), str(entry["sha256"])) for name, entry in entries}
    except UserError as problem:
        return problem.message
    except (TypeError, KeyError, ValueError, AttributeError, OverflowError) as problem:
        return f"{folder / MANIFEST}: not a manifest ({type(problem).__name__}: {problem})"
    # Then what is there.
    for name in needed:
        if name not in expected:
            return f"{MANIFEST} does not name {name}"
    for name, (size, digest) in expected.items():
        try:
            if damage := find_file_damage(folder / name, name, size, digest if hashes else None):
                return damage
        except (OSError, ValueError) as problem:  # ValueError: a NUL in the name
            return f"{name!r} cannot be read: {problem}"
    return None


def find_file_damage(path: Path, name: str, size: int, digest: str | None) -> str | None:
    """Say how a file differs from its manifest entry; None when it does not."""
    # A manifest that came with a download must not make us read elsewhere.
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
        path: final name; a folder that has it is replaced, and put back when that fails.
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
    """Rename a complete folder to its final name; a kill in between is repaired by recover_folder."""
    shutil.rmtree(old_name(path), ignore_errors=True)
    # A folder cannot be renamed onto a full one, so the old one steps aside first.
    if path.exists():
        patiently(os.rename, path, old_name(path))
    patiently(os.rename, new, path)
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
    # An old folder is either the only copy, which gets its name back, or no longer needed.
    for path in Path(folder).glob(".*.old"):
        recover_folder(path.with_name(path.name[1:-4]))  # .best_model.old -> best_model
        shutil.rmtree(path, ignore_errors=True)


def move_aside(path: str | Path) -> Path | None:
    """Rename what stands at a path to the first free name, samples.txt to samples.1.txt; return it, or None."""
    path = Path(path)
    if not path.exists():
        return None
    number = 1
    while (aside := path.with_name(f"{path.stem}.{number}{path.suffix}")).exists():
        number += 1
    os.rename(path, aside)
    return aside
