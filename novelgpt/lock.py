"""One run per folder: a lock of the operating system, which dies with its holder, and who that is.

`FOLDER/.lock` holds one line: `pid 4711, started 2026-01-02 23:30:00`.
"""

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from novelgpt.messages import EXIT_ENVIRONMENT, UserError

LOCK = ".lock"
HOLDER_SECONDS = 0.3  # how long to wait for the holder's line


@contextlib.contextmanager
def run_lock(folder: str | Path, *, flag: str = "--output_dir") -> Iterator[None]:
    """Hold a folder for one run; the operating system releases the lock however the process ends.

    Args:
        folder: made if missing, and removed again if it is new and still empty at the end.
        flag: the option that names another folder, for the hint.

    Raises:
        UserError: another process holds it; the message names its pid and start time.
    """
    # Whoever gets the lock holds the folder. The line about the holder is for people; nothing depends on it.
    folder = Path(folder)
    is_new = not folder.exists()
    with open_lock(folder) as handle:
        # Between our opening and locking, a former holder may have removed the file; then our lock guards nothing.
        if not lock_handle(handle) or not is_same_file(handle, folder / LOCK):
            message = f"{folder}: in use by {read_holder(handle) or 'another process'}"
            raise UserError(message, f"wait for it, or give {flag} another folder", EXIT_ENVIRONMENT)
        handle.truncate(0)
        with contextlib.suppress(OSError):  # a full disk; the lock itself is held all the same
            handle.write(f"pid {os.getpid()}, started {time.strftime('%Y-%m-%d %H:%M:%S')}".encode())
        try:
            yield
        finally:
            if is_new and [path.name for path in folder.iterdir()] == [LOCK]:  # the run wrote nothing
                remove_lock(handle, folder / LOCK)
                folder.rmdir()


def remove_lock(handle: BinaryIO, path: Path) -> None:
    """Remove a lock file that is held, so that nobody gets it in between; Windows removes none that is open."""
    try:
        path.unlink()
    except PermissionError:
        handle.close()
        path.unlink()


def read_holder(handle: BinaryIO) -> str:
    """Return what the holder wrote about itself, which it does right after taking the lock."""
    deadline = time.monotonic() + HOLDER_SECONDS
    while True:
        handle.seek(0)
        holder = handle.read(200).decode("utf-8", "replace").strip()
        if holder or time.monotonic() > deadline:
            return holder
        time.sleep(0.01)


def open_lock(folder: Path) -> BinaryIO:
    """Open a folder's lock file; make both where they are missing."""
    # Appending, since opening must not empty the holder's line.
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return open(folder / LOCK, "a+b", buffering=0)
    except OSError as problem:
        message = f"{folder}: cannot be written: {problem.strerror}"
        raise UserError(message, f"choose another place than {folder}", EXIT_ENVIRONMENT) from problem


def is_same_file(handle: BinaryIO, path: Path) -> bool:
    """Tell whether a path still names an open file, which it does not where the last holder has just removed it."""
    with contextlib.suppress(OSError):
        return os.path.samestat(os.fstat(handle.fileno()), path.stat())
    return False


def lock_handle(handle: BinaryIO) -> bool:
    """Take the operating system's exclusive lock on an open file; False where another process has it."""
    with contextlib.suppress(OSError):
        try:
            import fcntl

            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except ImportError:
            import msvcrt

            handle.seek(1 << 20)  # beyond the text that others read
            msvcrt.locking(handle.fileno(), msvcrt.LK_NBLCK, 1)
        return True
    return False
