r"""A story's journal: one JSON object a line, only ever appended to; and the thread that puts it onto the disk.

::

    {"record": "story", "id": "6f1c", "made": 1767369600, "name": "井边"}
    {"record": "node", "id": 0, "parent": null, "replace": [0, 0], "text": "那天夜里", "kind": "root"}
    {"record": "grow", "id": 1, "text": "，没有月亮", "nats": [0.4, 1.2, 0.3, 2.0, 0.1]}

A line is written by one call before the answer goes out, so a killed process loses nothing that was answered; a thread
of its own flushes it to the disk a moment later, for the power may fail too. A torn last line is cut off, and what
cannot be read in between is left out: a story is never refused. docs/journal.md has every record.
"""

import contextlib
import json
import os
import threading
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from novelgpt.files import atomic_writer, move_aside
from novelgpt.messages import EXIT_ENVIRONMENT, UserError

JOURNAL = "journal.jsonl"
LARGE = 4 << 20  # bytes, from which on a journal is compacted when it is opened, where that makes it much smaller
SMALLER = 0.5  # so much


def to_line(record: Mapping) -> bytes:
    r"""Return a record as a line.

    >>> to_line({"record": "head", "id": 3})
    b'{"record":"head","id":3}\n'
    """
    text = json.dumps(record, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.encode("utf-8") + b"\n"


def read_lines(data: bytes) -> tuple[list[dict], int, int]:
    r"""Read the lines of a journal.

    Args:
        data: the whole file.

    Returns:
        The records; the bytes of all whole lines; the number of lines that are no records.

    >>> read_lines(b'{"record":"head","id":3}\n\x00\x00\n{"record":"he')
    ([{'record': 'head', 'id': 3}], 28, 1)
    """
    size = data.rfind(b"\n") + 1
    records, damaged = [], 0
    for line in data[:size].split(b"\n")[:-1]:
        record = None
        with contextlib.suppress(ValueError, RecursionError):
            record = json.loads(line)
        if isinstance(record, dict):
            records.append(record)
        else:
            damaged += 1
    return records, size, damaged


class Journal:
    """A file of records that grows.

    Args:
        path: of the file; it is made with the first record.

    Attributes:
        problem: why the disk takes nothing any more; None as long as it does.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.problem: UserError | None = None
        self.handle: int | None = None
        self.size = 0  # bytes of whole lines
        self.waiting = b""  # lines that the disk did not take
        self.unflushed = False
        self.lock = threading.Lock()

    def read(self) -> tuple[list[dict], int]:
        """Return the records, and how many lines were damaged; a torn last line is cut off by the next record.

        Raises:
            UserError: the file cannot be read.
        """
        try:
            data = self.path.read_bytes()
        except OSError as problem:
            hint = f"give yourself the right to read {self.path}, or move its folder away"
            raise UserError(f"{self.path}: cannot be read: {problem.strerror}", hint, EXIT_ENVIRONMENT) from problem
        records, self.size, damaged = read_lines(data)
        return records, damaged

    def append(self, records: Iterable[Mapping], *, may_wait: bool = False) -> None:
        """Write records behind the others, all of them or none.

        Args:
            records: the new ones.
            may_wait: where the disk takes nothing, keep them for the next time, and say nothing here.

        Raises:
            UserError: the disk takes nothing: full, read-only, gone.
        """
        lines = b"".join(map(to_line, records))
        with self.lock:
            try:
                self._write(self.waiting + lines)
            except OSError as problem:
                hint = f"free some space, or give yourself the right to write in {self.path.parent}"
                message = f"{self.path}: cannot be written: {problem.strerror}"
                self.problem = UserError(message, hint, EXIT_ENVIRONMENT)
                if not may_wait:
                    raise self.problem from problem
                self.waiting += lines
            else:
                self.waiting, self.problem = b"", None

    def _write(self, lines: bytes) -> None:
        if not lines:
            return
        if self.handle is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.handle = os.open(self.path, os.O_WRONLY | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o600)
        # behind the last whole line: what a full disk or a kill has torn is written over, and what is left is cut off
        try:
            os.lseek(self.handle, self.size, os.SEEK_SET)
            rest = lines
            while rest:
                rest = rest[os.write(self.handle, rest) :]
            os.ftruncate(self.handle, self.size + len(lines))
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(self.handle, self.size)
            raise
        self.size += len(lines)
        self.unflushed = True

    def flush(self) -> bool:
        """Put everything onto the disk; False where nothing was left to do or the disk refuses."""
        with self.lock:
            if not self.unflushed or self.handle is None:
                return False
            self.unflushed = False
            handle = os.dup(self.handle)  # the next lines need not wait for the disk
        try:
            os.fsync(handle)
        except OSError as problem:
            hint = f"look at the disk of {self.path.parent}"
            self.problem = UserError(f"{self.path}: cannot be written: {problem.strerror}", hint, EXIT_ENVIRONMENT)
            return False
        finally:
            os.close(handle)
        return True

    def compact(self, records: Sequence[Mapping], *, is_damaged: bool) -> None:
        """Put records in place of all that were there.

        Args:
            records: what makes the same story.
            is_damaged: keep the former file beside it, as journal.1.jsonl.

        Raises:
            UserError: the place cannot be written.
        """
        with self.lock:
            self._close()
            data = b"".join(map(to_line, records))
            with atomic_writer(self.path, (lambda: move_aside(self.path)) if is_damaged else None) as file:
                file.write(data)
            self.size = len(data)

    def close(self) -> None:
        """Put everything onto the disk and give the file back."""
        self.append([], may_wait=True)
        self.flush()
        with self.lock:
            self._close()

    def _close(self) -> None:
        if self.handle is not None:
            os.close(self.handle)
        self.handle = None


class Worker:
    """A thread that does a piece of work whenever it is asked to, at most once in a while.

    Args:
        work: the work; it may return the seconds after which it is to be done again.
        name: of the thread.
        pause: seconds between two times.
    """

    def __init__(self, work: Callable[[], float | None], name: str, pause: float):
        self.work, self.pause = work, pause
        self.is_asked, self.is_closing = threading.Event(), threading.Event()
        self.thread = threading.Thread(target=self._run, name=name, daemon=True)
        self.thread.start()

    def ask(self) -> None:
        """Have it done soon."""
        self.is_asked.set()

    def _run(self) -> None:
        again = None
        while not self.is_closing.is_set():
            self.is_asked.wait(again)
            self.is_asked.clear()
            try:
                again = self.work()
            except Exception:  # a fault in one story must not cost the others their disk
                traceback.print_exc()
            self.is_closing.wait(self.pause)

    def close(self) -> None:
        """Have it done a last time, and end."""
        self.is_closing.set()
        self.is_asked.set()
        self.thread.join()
        self.work()
