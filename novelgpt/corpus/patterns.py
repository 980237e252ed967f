"""A reader's own expression -> the lines that match, within a limit of time.

Some expressions never end on some lines, such as `(a+)+$` on a row of a: the search of a book may take MAX_SECONDS.
"""

import contextlib
import re
import signal
import threading
from collections.abc import Iterator, Sequence

from novelgpt.messages import EXIT_USAGE, UserError

MAX_SECONDS = 20.0  # for the lines of one book


def matching_lines(expression: str, lines: Sequence[str]) -> list[int]:
    """List the indices of the lines in which an expression is found.

    Raises:
        UserError: the search takes longer than MAX_SECONDS; no limit where the system has no interval timer.

    >>> matching_lines("^第.回", ["第一回", "他走了。"])
    [0]
    """
    search = re.compile(expression).search
    with time_limit(expression):
        return [index for index, line in enumerate(lines) if search(line)]


@contextlib.contextmanager
def time_limit(expression: str) -> Iterator[None]:
    """Raise a UserError in the main thread when the block takes longer than MAX_SECONDS."""
    if not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number, frame):
        message = f"/{expression}/: not done with one book after {MAX_SECONDS:g} seconds"
        raise UserError(message, "a simpler expression, without a repetition inside a repetition", EXIT_USAGE)

    former = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, MAX_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, former)
