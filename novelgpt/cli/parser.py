"""The command line of a script -> an object of its table; and the one place that turns errors into exit codes.

The precedence is: defaults < `--config FILE` (YAML or JSON) < command line. Each value is read once, from the place
that decides. Wherever a value is wrong, the message names its flag, what was found and what was expected.
"""

import argparse
import errno
import os
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import Field
from typing import Generic, NoReturn, TypeVar

from novelgpt.cli.aliases import NAMES, hint_for
from novelgpt.cli.config_file import print_options, read_options
from novelgpt.cli.table import describe_option, entries_of, is_switch, reader
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
    nearest_words,
    say,
    say_error,
)

Options = TypeVar("Options")
TRUTHS = {"true": True, "1": True, "false": False, "0": False}  # a switch's value on the command line


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
        settings |= {"formatter_class": argparse.RawDescriptionHelpFormatter}
        self.script = prog or os.path.basename(command_line()[0])
        super().__init__(as_started(self.script), description=description, **settings)
        self.table, self.section, self.entries = table, section, entries_of(table)
        # what every script has; none of it may stand in a config file
        text = "YAML or JSON file with options; the command line overrides it"
        self.add_argument("--config", metavar="FILE", help=text)
        self.add_argument("--print_config", action="store_true", help="print the resolved options as YAML and stop")
        self.add_argument("--debug", action="store_true", help="show the traceback of an error")
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
        else:
            self.add_argument(f"--{name}", nargs="+" if facts["many"] else None, **settings)

    def format_help(self) -> str:
        """Return the help, its commands spelled in the way this one was started."""
        return as_started(super().format_help())

    def parse_options(self, argv: Sequence[str] | None = None) -> Options:
        """Resolve defaults, config file and command line; `--print_config` prints the result and exits.

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
        lists = {name: tuple(value) for name, value in values.items() if isinstance(value, list)}
        options = self.table(**{self.entries[name].name: value for name, value in (values | lists).items()})
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
        name = word.split("=")[0].lstrip("-")
        flags = [flag for flag, entry in self.entries.items() if not entry.metadata["positional"]]
        nearest = nearest_words(name, flags, prefix="--", aliases=NAMES.get(self.section))
        raise UserError(f"unknown option --{name}", hint_for(name, self.section) or nearest, EXIT_USAGE)

    def spell_switches(self, words: list[str]) -> list[str]:
        """Take `--fp16 True` and `--fp16=False` as other tools do: return the command line with our switches alone.

        Where a script has positional arguments, a word after a switch is one of them.
        """
        switches = {f"--{name}" for name, entry in self.entries.items() if is_switch(entry)}
        has_positional = any(entry.metadata["positional"] for entry in self.entries.values())
        end = words.index("--") if "--" in words else len(words)  # behind it are no flags
        result: list[str] = []
        for word in words[:end]:
            flag, _, text = word.partition("=")  # --fp16=True
            if not has_positional and result and result[-1] in switches and word.lower() in TRUTHS:
                flag, text = result.pop(), word  # --fp16 True
            if flag in switches and text.lower() in TRUTHS:
                word = flag if TRUTHS[text.lower()] else f"--no-{flag.removeprefix('--')}"
            result.append(word)
        return result + words[end:]


def run(main: Callable[[Sequence[str] | None], int], argv: Sequence[str] | None = None) -> int:
    """Call a script's main and return its exit status; a UserError becomes its message, never a traceback.

    Args:
        main: takes argv and returns the status.
        argv: without the program's name; None is the real command line.
    """
    debug = "--debug" in (command_line()[1:] if argv is None else argv)
    # a terminal without Chinese shows escapes
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    try:
        status = main(argv)
        sys.stdout.flush()
        return status
    except UserError as problem:
        if debug:
            traceback.print_exc()
        return say_error(problem)
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else EXIT_DONE
    except OSError as problem:
        has_reader = not isinstance(problem, BrokenPipeError)
        if has_reader and problem.errno != errno.ENOSPC:
            raise
        # what is left in the buffer of stdout has no place to go, and Python would complain about it at the end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        full = UserError("no space left on the disk", "free some space", EXIT_ENVIRONMENT)
        return say_error(full) if has_reader else EXIT_PIPE
    except KeyboardInterrupt:
        say("stopped")
        return 128 + signal.SIGINT  # as a shell counts it
    except MemoryError:
        hint = "close other programs, or use a smaller batch or input"
        return say_error(UserError("not enough memory", hint, EXIT_ENVIRONMENT))
