"""What a run says while it works: plain lines and bars on stderr, results alone on stdout."""

import contextlib
import re
import sys

from novelgpt.errors import UserError

CONTROL = re.compile(r"[^\n\t\x20-\x7e\xa0-\U0010ffff]")


def printable(text: str) -> str:
    r"""Make terminal escapes and other control characters of a quoted text visible and harmless.

    >>> printable("萧炎\x1b[31m")
    '萧炎\\x1b[31m'
    """
    return CONTROL.sub(lambda match: match.group().encode("unicode_escape").decode("ascii"), text)


def say(text: str = "") -> None:
    """Print one line of progress on stderr, above a running progress bar if there is one.

    A terminal that has gone costs the line, not the work; so does a signal's line that comes in the midst of another.
    """
    with contextlib.suppress(OSError, ValueError, RuntimeError):  # ValueError: closed; RuntimeError: "reentrant call"
        if "tqdm" in sys.modules and sys.stderr.isatty():
            sys.modules["tqdm"].tqdm.write(printable(text), file=sys.stderr)
        else:
            print(printable(text), file=sys.stderr, flush=True)


def warn(text: str) -> None:
    """Print one warning line on stderr."""
    say(f"warning: {text}")


def say_error(problem: UserError) -> int:
    """Print an error with its hint on stderr; returns its exit status."""
    say(str(problem))
    return problem.code


def progress_bar(total: int | None, *, unit: str, initial: int = 0, description: str = "", enabled: bool = True):
    """Return a tqdm bar that shows itself only on a terminal."""
    from tqdm import tqdm

    hidden = None if enabled else True  # None: hidden unless stderr is a terminal
    return tqdm(
        total=total, unit=unit, initial=initial, desc=description, disable=hidden, dynamic_ncols=True, unit_scale=True
    )
