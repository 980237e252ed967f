"""The command line of a script -> an object of its table; and the one place that turns errors into exit codes.

The precedence is: defaults < places of `--book` < `--config FILE` (YAML or JSON) < command line. Each value is read
once, from the place that decides. Wherever a value is wrong, the message names its flag, what was found and what was
expected.
"""

import argparse
import errno
import os
import re
import shlex
import signal
import sys
import traceback
import unicodedata
from collections.abc import Callable, Collection, Sequence
from dataclasses import Field
from itertools import pairwise
from typing import Generic, NoReturn, TypeVar

from novelgpt.cli.aliases import NAMES, hint_for
from novelgpt.cli.config_file import print_options, read_options
from novelgpt.cli.table import book_places, describe_option, entries_of, is_switch, reader
from novelgpt.languages import LANGUAGES, language, localize
from novelgpt.messages import (
    COMMANDS,
    EXIT_DONE,
    EXIT_ENVIRONMENT,
    EXIT_PIPE,
    EXIT_USAGE,
    UserError,
    as_started,
    command_line,
    is_command,
    is_reader_gone,
    nearest_words,
    say,
    say_error,
)

Options = TypeVar("Options")
IS_RANK = "NOVELGPT_RANK"  # set in the environment of the processes that a command of ours has started
BEGAN = "NOVELGPT_BEGAN"  # set there too: what time.monotonic() showed when that command started
TRUTHS = {"true": True, "1": True, "false": False, "0": False}  # a switch's value on the command line
PART = re.compile(r"[!-\u2e7f]+ ?|.[，。；：、！？）”]*")  # what stands on one line: a word, or a wide character


class HelpText(argparse.RawDescriptionHelpFormatter):
    """Help as argparse formats it, in the reader's language."""

    def add_usage(self, usage, actions, groups, prefix=None) -> None:
        """Begin with the word for usage."""
        super().add_usage(usage, actions, groups, localize("usage: ") if prefix is None else prefix)

    def start_section(self, heading: str | None) -> None:
        """Begin a group of options."""
        super().start_section(localize(heading) if heading else heading)

    def _format_text(self, text: str) -> str:
        return super()._format_text(localize(text))

    def _expand_help(self, action: argparse.Action) -> str:
        return localize(super()._expand_help(action))

    def _split_lines(self, text: str, width: int) -> list[str]:
        return wrap_cells(text, width) if language() == "zh" else super()._split_lines(text, width)


def wrap_cells(text: str, width: int) -> list[str]:
    """Break a text so that each line takes at most so many cells of a terminal; a Chinese character takes two.

    >>> wrap_cells("全部窗口训练几遍（默认 15）", 10)
    ['全部窗口训', '练几遍（默', '认 15）']
    """
    lines = [""]
    for part in PART.findall(text):
        taken = sum(1 + (unicodedata.east_asian_width(char) in "WF") for char in lines[-1] + part.rstrip())
        if taken > width and lines[-1]:
            lines.append("")
        lines[-1] += part
    return [line.rstrip() for line in lines]


class Parser(argparse.ArgumentParser, Generic[Options]):
    """The command line of a script.

    Args:
        table: the script's options, a frozen dataclass.
        description: the script's docstring.
        section: the script's section in a config file, for example "train".
        prog: name of the script; None for what was started.
    """

    def __init__(self, table: type[Options], description: str, *, section: str, prog: str | None = None):
        # an option that is not given is left out of the result, so that a config file may give it
        settings = {"argument_default": argparse.SUPPRESS, "allow_abbrev": False}
        settings |= {"formatter_class": HelpText}
        self.script = prog or os.path.basename(command_line()[0])
        super().__init__(as_started(self.script), description=description, **settings)
        self.table, self.section, self.entries = table, section, entries_of(table)
        self.has_positional = any(entry.metadata["positional"] for entry in self.entries.values())
        self.given: frozenset[str] = frozenset()  # options that parse_options found in a config file or on the line
        # what every script has; none of it may stand in a config file
        text = "YAML or JSON file with options; the command line overrides it"
        self.add_argument("--config", metavar="FILE", help=text)
        self.add_argument("--print_config", action="store_true", help="print the resolved options as YAML and stop")
        self.add_argument("--debug", action="store_true", help="show the traceback of an error")
        text = "language of messages and help; default: that of the system"
        self.add_argument("--lang", type=read_language, metavar="{zh,en}", help=text)
        for name, entry in self.entries.items():
            self.add_option(name, entry)

    def add_option(self, name: str, entry: Field) -> None:
        """Add the flag of one option of the table."""
        facts, settings = entry.metadata, {"help": describe_option(entry).replace("%", "%%")}
        if is_switch(entry):
            self.add_argument(f"--{name}", action=argparse.BooleanOptionalAction, **settings)
            return
        # the reader refuses what is none of the choices, in the words of config files and Python
        shown = "{" + ",".join(facts["choices"]) + "}" if facts["choices"] else facts["metavar"]
        settings |= {"type": reader(entry), "metavar": shown}
        if facts["positional"]:
            self.add_argument(name, nargs="*", **settings)
        elif facts["many"] and self.has_positional:  # words behind the value are not further values
            self.add_argument(f"--{name}", action="append", **settings)
        else:
            self.add_argument(f"--{name}", nargs="+" if facts["many"] else None, **settings)

    def format_help(self) -> str:
        """Return the help, its commands spelled in the way this one was started."""
        return as_started(super().format_help())

    def parse_options(self, argv: Sequence[str] | None = None) -> Options:
        """Resolve defaults, those of a book, config file and command line; `--print_config` prints them and exits.

        Args:
            argv: without the program's name; None is the real command line.

        Raises:
            UserError: an unknown option or key (with the nearest name), a value of the wrong type or out of range.
        """
        words = self.spell_switches(list(command_line()[1:] if argv is None else argv))
        parsed, unknown = self.parse_known_args(words)
        if unknown:
            self.refuse_word(unknown[0])
        values = {name: value for name, value in vars(parsed).items() if name in self.entries}
        # the file comes second: what some foreign names in it mean depends on the command line, which overrides it
        if "config" in parsed:
            values = read_options(parsed.config, self.table, section=self.section, beside=values) | values
        values |= book_places(self.table, values.get("book"), but=values)
        lists = {name: tuple(value) for name, value in values.items() if isinstance(value, list)}
        options = self.table(**{self.entries[name].name: value for name, value in (values | lists).items()})
        self.given = frozenset(values)
        if "print_config" in parsed:
            print_options(options, self.section)
            raise SystemExit(EXIT_DONE)
        return options

    def command(self, argv: Sequence[str] | None = None) -> list[str]:
        """Return the words that start this command again, after `python`; argv as in parse_options."""
        if argv is None:
            return command_line()
        return ["-m", "novelgpt", COMMANDS[self.script], *argv] if is_command() else [self.script, *argv]

    def error(self, message: str) -> NoReturn:
        """Raise what argparse complains about as a UserError."""
        raise UserError(message.removeprefix("argument "), f"python {self.script} --help", EXIT_USAGE)

    def refuse_word(self, word: str) -> NoReturn:
        """Raise the error of a word that is no option, with our name of what another tool calls so, or the nearest."""
        usage = f"python {self.script} --help"
        if not word.startswith("-"):
            is_text = "prefix_file" in self.entries and os.path.isfile(word)
            hint = f"--prefix_file {shlex.quote(word)}" if is_text else usage
            raise UserError(f"a word that belongs to no option: {word}", hint, EXIT_USAGE)
        name = word.split("=")[0].lstrip("-")
        flags = [flag for flag, entry in self.entries.items() if not entry.metadata["positional"]]
        nearest = nearest_words(name, flags, prefix="--", aliases=NAMES.get(self.section), otherwise=usage)
        raise UserError(f"unknown option --{name}", hint_for(name, self.section) or nearest, EXIT_USAGE)

    def spell_switches(self, words: list[str]) -> list[str]:
        """Take `--fp16 True` and `--fp16=False` as other tools do: return the command line with our switches alone.

        Where a script has positional arguments, a word after a switch is one of them.
        """
        switches = {f"--{name}" for name, entry in self.entries.items() if is_switch(entry)}
        end = words.index("--") if "--" in words else len(words)  # behind it are no flags
        result: list[str] = []
        for word in words[:end]:
            flag, _, text = word.partition("=")  # --fp16=True
            if not self.has_positional and result and result[-1] in switches and word.lower() in TRUTHS:
                flag, text = result.pop(), word  # --fp16 True
            if flag in switches and text.lower() in TRUTHS:
                word = flag if TRUTHS[text.lower()] else f"--no-{flag.removeprefix('--')}"
            result.append(word)
        return result + words[end:]


def read_language(text: str) -> str:
    """Read the value of --lang, which run() has obeyed before."""
    if text not in LANGUAGES:
        raise argparse.ArgumentTypeError(f"found {text!r}, expected one of {', '.join(LANGUAGES)}")
    return text


def set_language(words: Sequence[str]) -> None:
    """Let all that is said from now on be in the language of `--lang`, by the processes started from here too."""
    for word, following in pairwise([*words, ""]):
        if word == "--":
            return
        value = following if word == "--lang" else word.removeprefix("--lang=")
        if value in LANGUAGES and value != word:
            os.environ["LANGUAGE"] = value


def spell_command(command: Sequence[str] | None, **changes: object) -> str:
    """Spell the command that was given with some options changed, or the call where there was none.

    Args:
        command: its words, script first; None from Python.
        changes: option -> its value; True for a switch, None to leave the option out.

    >>> spell_command(["train.py", "--resume=never", "--output_dir", "my model"], raw=True, resume=None)
    "python train.py --output_dir 'my model' --raw"
    >>> spell_command(None, raw=True), spell_command(None)
    ('novelgpt.train(…, raw=True)', 'the same call of novelgpt.train')
    """
    given = {name: value for name, value in changes.items() if value is not None}
    if command is None:
        words = ", ".join(f"{name}={value!r}" for name, value in given.items())
        return f"novelgpt.train(…, {words})" if words else "the same call of novelgpt.train"
    # torchrun starts several of them; our own processes are started by the command itself
    processes = 1 if IS_RANK in os.environ else int(os.environ.get("WORLD_SIZE", "1"))
    start = ["python"] if processes == 1 else ["torchrun", f"--nproc_per_node={processes}"]
    flags = [word for name, value in given.items() for word in (f"--{name}", *([] if value is True else [str(value)]))]
    return shlex.join([*start, *without_options(command, changes), *flags])


def without_options(words: Sequence[str], names: Collection[str]) -> list[str]:
    """Leave options out of a command, each with its value; one that follows directly is no value.

    >>> without_options(["train.py", "--lr=1", "--raw", "--resume", "never", "--epochs", "3"], ["lr", "raw", "resume"])
    ['train.py', '--epochs', '3']
    """
    kept, is_value = [], False
    for word in words:
        is_flag = word.startswith("--")
        flag, equals, _ = word.removeprefix("--").partition("=")
        is_left_out = is_flag and flag in names
        if not is_left_out and not (is_value and not is_flag):
            kept.append(word)
        is_value = is_left_out and not equals
    return kept


def run(main: Callable[[Sequence[str] | None], int], argv: Sequence[str] | None = None) -> int:
    """Call a script's main and return its exit status; a UserError becomes its message, never a traceback.

    Args:
        main: takes argv and returns the status.
        argv: without the program's name; None is the real command line.
    """
    words = command_line()[1:] if argv is None else argv
    debug = "--debug" in words
    set_language(words)
    is_closed = open_missing_streams()
    # a terminal without Chinese shows escapes
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    try:
        status = call(main, argv)
        sys.stdout.flush()
        return status
    except UserError as problem:
        if debug:
            traceback.print_exc()
        return say_error(problem)
    except OSError as problem:
        is_full, is_closed = problem.errno == errno.ENOSPC, is_closed and problem.errno == errno.EBADF
        if not (is_full or is_closed or is_reader_gone(problem)):
            raise
        # what is left in the buffer of stdout has no place to go, and Python would complain about it at the end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if is_full:
            return say_error(UserError("no space left on the disk", "free some space", EXIT_ENVIRONMENT))
        hint = ">/dev/null throws it away, >result.txt keeps it"
        closed = UserError("stdout is closed: the result cannot be shown", hint, EXIT_ENVIRONMENT)
        return say_error(closed) if is_closed else EXIT_PIPE
    except KeyboardInterrupt:
        say("stopped")
        return 128 + signal.SIGINT  # as a shell counts it
    except MemoryError:
        hint = "close other programs, or use a smaller batch or input"
        return say_error(UserError("not enough memory", hint, EXIT_ENVIRONMENT))


def call(main: Callable[[Sequence[str] | None], int], argv: Sequence[str] | None) -> int:
    """Return the status of a main that may end itself, as --help does."""
    try:
        return main(argv)
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else EXIT_DONE


def open_missing_streams() -> bool:
    """Give stdin, stdout and stderr that the shell has closed (>&-) a place of their own; return whether stdout was.

    No other file may get their numbers: it would be written into. Nothing can be read there, what stderr gets is lost,
    and stdout takes nothing, which is told as an error where there was something to be shown.
    """
    is_closed = sys.stdout is None
    for name, access, mode in (("stdin", os.O_RDONLY, "r"), ("stdout", os.O_RDONLY, "w"), ("stderr", os.O_WRONLY, "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.open(os.devnull, access), mode, encoding="utf-8"))  # noqa: SIM115
    return is_closed
