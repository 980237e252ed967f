"""What people are told: errors with the fix beside them, lines, warnings and bars. Results alone go to stdout.

Every script ends a failed run with two paragraphs on stderr and an exit code::

    error: data/train.json: line 3 column 7: expected ',' and found '"'

    hint: python clr_ctrl.py data/train.json
"""

import contextlib
import difflib
import errno
import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from novelgpt.languages import localize

EXIT_DONE = 0
EXIT_USAGE = 2  # a flag or config value is wrong
EXIT_INPUT = 3  # a novel, vocabulary, config file or piece set is wrong
EXIT_ENVIRONMENT = 4  # device, disk, rights, lock
EXIT_STATE = 5  # a saved model or checkpoint is damaged or does not fit
EXIT_DIVERGED = 6  # the loss is no longer a number
EXIT_HANGUP = 129  # the terminal was closed, 128 + SIGHUP
EXIT_PIPE = 141  # whoever read our output went away

TELLING = 2.0  # seconds for another process to tell an error that this one has, too
CONTROL = re.compile(r"[^\n\t\x20-\x7e\xa0-\U0010ffff]")  # a terminal would obey these
# script of a checkout -> its name under the one command `novelgpt`
COMMANDS = {"clr_ctrl.py": "clean", "make_vocab.py": "vocab", "tokenize_corpus.py": "tokenize"}
COMMANDS |= {f"{name}.py": name for name in ("train", "eval", "generate", "studio", "convert")}
SCRIPT = re.compile(
    rf"(torchrun(?: --\S+)* )?(?<![\w./-])(?:python )?({'|'.join(map(re.escape, COMMANDS))})(?!\w)", re.ASCII
)


class UserError(Exception):
    """A fault the user can repair.

    Args:
        message: what was found, where, and what was expected; one line or a short block.
        hint: the command or value that repairs it.
        code: exit status of the script, one of the EXIT_ constants.

    >>> error = UserError("--topp: found 2, expected 0 to 1", "--topp 0.9", EXIT_USAGE)
    >>> print(error)
    error: --topp: found 2, expected 0 to 1
    <BLANKLINE>
    hint: --topp 0.9
    """

    def __init__(self, message: str, hint: str, code: int = EXIT_INPUT):
        super().__init__(message, hint, code)
        self.message = message
        self.hint = hint
        self.code = code
        self.is_told: bool | None = None  # by another process that has it too; None: the processes have not met

    def __str__(self) -> str:
        message, hint = localize(self.message), localize(self.hint)
        return f"{localize('error: ')}{message}\n\n{localize('hint: ')}{hint}"


def printable(text: str) -> str:
    r"""Make terminal escapes and other control characters of a quoted text visible and harmless.

    >>> printable("萧炎\x1b[31m")
    '萧炎\\x1b[31m'
    """
    return CONTROL.sub(lambda match: match.group().encode("unicode_escape").decode("ascii"), text)


def command_line() -> list[str]:
    """Return the words that started this process, the program first."""
    return list(sys.argv)


def is_command() -> bool:
    """Tell whether this process was started as `novelgpt …` or `python -m novelgpt …`, and not by a script."""
    program = Path(command_line()[0])
    return program.stem == "novelgpt" or program.parts[-2:] == ("novelgpt", "__main__.py")


def as_started(text: str) -> str:
    """Spell the commands of a text in the way this process was started: `python clr_ctrl.py` or `novelgpt clean`."""
    if not is_command():
        return text
    text = text.replace("python -m novelgpt ", "novelgpt ")
    return SCRIPT.sub(lambda found: f"{found[1] + '-m ' if found[1] else ''}novelgpt {COMMANDS[found[2]]}", text)


def shown(text: str) -> str:
    """Return a text as people see it: in their language, with their commands, harmless to a terminal."""
    return printable(as_started(localize(text)))


def say(text: str = "") -> None:
    """Print one line of progress on stderr, above a running progress bar if there is one.

    A terminal that has gone costs the line, not the work; so does a signal's line that comes in the midst of another.
    """
    print_line(shown(text))


def print_line(line: str) -> None:
    """Print a line as it is, as say() does."""
    # ValueError: closed; RuntimeError: "reentrant call"
    with contextlib.suppress(OSError, ValueError, RuntimeError), above_bar():
        print(line, file=sys.stderr, flush=True)


@contextlib.contextmanager
def above_bar() -> Iterator[None]:
    """Take a running progress bar off the terminal while something is printed, and put it back below it."""
    if "tqdm" not in sys.modules or not sys.stderr.isatty():
        yield
        return
    bars = sys.modules["tqdm"].tqdm
    if sys.stdout.isatty():
        with bars.external_write_mode():
            yield
        return
    # head or tee may show what they read a moment later: the bar comes back with its next update
    for bar in list(getattr(bars, "_instances", ())):
        bar.clear()
        bar.last_print_t = time.time()
    yield


def warn(text: str) -> None:
    """Print one warning line on stderr."""
    print_line(shown("warning: ") + shown(text))


def say_error(problem: UserError) -> int:
    """Print an error with its hint on stderr, once for all processes that have it; returns its exit status.

    Before the processes of torchrun have met, all of one machine meet the same error, and the first one speaks.
    """
    is_first_here = os.environ.get("LOCAL_RANK", "0") == "0"
    if not problem.is_told and (is_first_here or problem.is_told is False):
        print_line(f"{shown('error: ')}{shown(problem.message)}\n\n{shown('hint: ')}{shown(problem.hint)}")
    else:
        time.sleep(TELLING)  # torchrun ends the one that speaks as soon as another has ended
    return problem.code


def is_reader_gone(problem: OSError) -> bool:
    """Tell whether whoever read our output went away; Windows calls that an invalid argument, of no file."""
    is_invalid = os.name == "nt" and problem.errno == errno.EINVAL and problem.filename is None
    return isinstance(problem, BrokenPipeError) or is_invalid


def is_main_process() -> bool:
    """Tell whether this is the only process, or the first of those that torchrun started."""
    return os.environ.get("RANK", "0") == "0"


def progress_bar(
    total: int | None,
    *,
    unit: str,
    initial: int = 0,
    description: str = "",
    enabled: bool = True,
    leave: bool = True,
    form: str | None = None,
):
    """Return a tqdm bar that shows itself only on a terminal; leave: its last state stays; form: tqdm's bar_format."""
    from tqdm import tqdm

    hidden = None if enabled else True  # None: hidden unless stderr is a terminal
    settings = {"disable": hidden, "leave": leave, "dynamic_ncols": True, "unit_scale": True, "bar_format": form}
    settings |= {"unit": localize(unit, context="bar"), "desc": localize(description, context="bar")}
    return tqdm(total=total, initial=initial, **settings)


def nearest_words(
    name: str,
    names: Sequence[str],
    *,
    prefix: str = "",
    aliases: Mapping[str, str] | None = None,
    spell: Callable[[str], str] = str,
    otherwise: str | None = None,
) -> str:
    """Say which known name an unknown one resembles, else list them all or say `otherwise`.

    Of an alias it says the name it stands for; names are printed as spell returns them, behind the prefix.
    """
    aliases = {alias: meant for alias, meant in (aliases or {}).items() if meant in names}
    close = difflib.get_close_matches(name, [*names, *aliases], n=1, cutoff=0.5)
    if close:
        return f"did you mean {prefix}{spell(aliases.get(close[0], close[0]))}?"
    return otherwise or "known: " + ", ".join(prefix + spell(known) for known in names)
