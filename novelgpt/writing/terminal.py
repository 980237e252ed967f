"""The person at the terminal: what is seen of a text, and Ctrl-C.

A prefix is told apart from what the model wrote, characters come as they are written. Ctrl-C, SIGTERM and a closed
terminal become a question asked between two tokens, so that no character is lost.
"""

import os
import shutil
import signal
import sys
import threading

from novelgpt.messages import above_bar, is_reader_gone, printable

LONG_PREFIX = 200  # characters; of a longer one only the end is shown
# Windows has no SIGHUP, which a closed terminal sends; SIGBREAK, Ctrl-Break, is there alone
STOPPING = ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK")
FAINT, NORMAL = "\x1b[2m", "\x1b[22m"


def shorten(text: str) -> str:
    r"""Return what people see of a text to be continued: of a long one only its last line, or the end of that.

    >>> shorten("那天夜里没有月亮。\n")
    '那天夜里没有月亮。\n'
    >>> shorten("月落乌啼。" * 50 + "\n江枫渔火\n")
    '…江枫渔火\n'
    """
    if len(text) <= LONG_PREFIX:
        return text
    body = text.rstrip()
    return "…" + body.rpartition("\n")[2][-LONG_PREFIX:] + text[len(body) :]


def shows_faint() -> bool:
    """Tell whether stdout is a terminal that knows faint characters and may use them."""
    if not sys.stdout.isatty() or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return False
    return os.name != "nt" or "WT_SESSION" in os.environ  # the old console of Windows prints the escapes


class Screen:
    """stdout, which may go away: a terminal is closed, a disk is full. That ends no writing.

    Attributes:
        problem: why it takes nothing any more; None as long as it does.
        width: characters that a line of signs may have.
    """

    def __init__(self):
        self.problem: OSError | None = None
        self.is_faint = shows_faint()
        # a line of the whole width would break on some terminals
        self.width = shutil.get_terminal_size().columns - 1 if sys.stdout.isatty() else 1000  # characters

    @property
    def is_reader_gone(self) -> bool:
        """Whether whoever read stdout went away, as head does."""
        return self.problem is not None and is_reader_gone(self.problem)

    def mark_prefix(self, prefix: str) -> str:
        """Return a prefix as it is shown: harmless, not too long, faint where the terminal can."""
        shown = printable(shorten(prefix))
        return f"{FAINT}{shown}{NORMAL}" if self.is_faint and shown else shown

    def print(self, text: str) -> None:
        """Print text as it is, without a line break behind it."""
        if self.problem:
            return
        try:
            with above_bar():
                print(text, end="", flush=True)
        except OSError as problem:
            self.problem = problem
            # what is left in the buffer has no place to go, and Python would complain about it at the end
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class Growing:
    """The text of a growing sample in pieces; the very last token waits, for it may lie behind the end.

    Args:
        tokenizer: the NovelTokenizer of the model.
    """

    def __init__(self, tokenizer):
        self.stream, self.count = tokenizer.stream(), 0  # and tokens taken

    def push(self, sample) -> str:
        """Return the characters, harmless to a terminal, that are new since the last time."""
        ready = len(sample.ids) if sample.ended else len(sample.ids) - 1
        new = "".join(self.stream.push(token) for token in sample.ids[self.count : ready])
        self.count = max(ready, self.count)
        return printable(new)


class StopSignals:
    """Context manager that notes a signal instead of ending the process; the same one again ends it at once.

    Outside the main thread, which alone may do so, it takes no signals. Those that are ignored stay so, as under nohup.

    Attributes:
        number: of the signal that came; None while there was none.

    >>> with StopSignals() as stop:
    ...     signal.raise_signal(signal.SIGINT)
    >>> stop.is_set(), stop.status
    (True, 130)
    """

    def __init__(self):
        self.number: int | None = None
        self.former: dict[int, object] = {}

    def __enter__(self) -> "StopSignals":
        if threading.current_thread() is threading.main_thread():
            for number in (getattr(signal, name) for name in STOPPING if hasattr(signal, name)):
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self.former[number] = signal.signal(number, self.note)
        return self

    def __exit__(self, *_exception) -> None:
        for number, handler in self.former.items():
            signal.signal(number, handler)

    def note(self, number: int, _frame) -> None:
        """Note the first signal; a closed terminal may tell so twice, any other that comes again means now."""
        if number == self.number and number != getattr(signal, "SIGHUP", None):
            raise SystemExit(self.status)
        self.number = self.number or number

    def is_set(self) -> bool:
        """Tell whether a signal came."""
        return self.number is not None

    @property
    def status(self) -> int:
        """The exit status that tells of the signal, as a shell counts it."""
        return 128 + (self.number or 0)
