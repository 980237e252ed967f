"""Command lines and config files: one precedence, one kind of message, one place that turns errors into exit codes.

defaults < `--config FILE` (YAML or JSON) < command line. A config file holds either a script's options themselves or
sections named after the scripts, of which each script reads its own, so that one file can drive a whole experiment::

    train: {epochs: 15, batch_size: 8}
    generate: {topk: 8, nsamples: 10}

The spelling of other tools is taken too (aliases.py).
"""

import argparse
import errno
import math
import os
import signal
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from novelgpt.aliases import sort_words, translate, translate_words, vocabulary_of
from novelgpt.config_file import read_config, spell_yaml
from novelgpt.messages import (
    EXIT_DONE,
    EXIT_ENVIRONMENT,
    EXIT_PIPE,
    EXIT_USAGE,
    UserError,
    nearest_words,
    say,
    say_error,
)

SECTIONS = ("train", "eval", "generate", "clean", "vocabulary", "tokenize", "convert")
TRUTHS = {"true": True, "1": True, "false": False, "0": False}  # a switch's value on the command line
OWN_OPTIONS = ("config", "print_config", "debug", "help")


def whole(low: int, high: int | None = None) -> Callable[[str], int]:
    """Return an argparse type for a whole number from low to high.

    >>> whole(1, 8)("3")
    3
    """

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = None
        if value is None or value < low or (high is not None and value > high):
            raise argparse.ArgumentTypeError(f"found {text!r}, expected a whole number {range_words(low, high)}")
        return value

    return parse


def real(low: float, high: float = math.inf, *, above: bool = False) -> Callable[[str], float]:
    """Return an argparse type for a finite number from low (or above it) to high.

    >>> real(0, 1)("5e-1")
    0.5
    """

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not math.isfinite(value) or value < low or value > high or (above and value == low):
            words = f"above {low}" + (f" up to {high}" if high < math.inf else "") if above else range_words(low, high)
            raise argparse.ArgumentTypeError(f"found {text!r}, expected a number {words}")
        return value

    return parse


def range_words(low: float, high: float | None) -> str:
    """Say a range: `from 1 to 8`, `from 1 up`."""
    return f"from {low} up" if high is None or high == math.inf else f"from {low} to {high}"


def new_parser(description: str) -> argparse.ArgumentParser:
    """Make a parser with the options every script has, described by the script's docstring."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument(
        "--config", metavar="FILE", help="YAML or JSON file with options; the command line goes before it"
    )
    parser.add_argument("--print_config", action="store_true", help="print the resolved options as YAML and stop")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser


def config_actions(parser: argparse.ArgumentParser) -> dict[str, argparse.Action]:
    """Map the name of every option and positional argument that a config file may set to its argparse action."""
    return {action.dest: action for action in parser._actions if action.dest not in OWN_OPTIONS}


def option_actions(parser: argparse.ArgumentParser) -> dict[str, argparse.Action]:
    """Map the name of every option of a script's own to its argparse action."""
    return {name: action for name, action in config_actions(parser).items() if action.option_strings}


def parse_options(
    parser: argparse.ArgumentParser, argv: Sequence[str] | None = None, *, section: str
) -> argparse.Namespace:
    """Resolve defaults, config file and command line into one namespace; `--print_config` prints it and exits.

    Args:
        parser: a parser from new_parser with the script's own options added.
        argv: command line without the program's name; None is the real one.
        section: the script's section in a config file, for example "train".

    Raises:
        UserError: an unknown option or key (with the nearest name), a value of the wrong type or out of range.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    parser.error = lambda message: fail_usage(parser, message, section)
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--config")
    first.error = parser.error
    config_path = first.parse_known_args(argv)[0].config
    values = section_values(config_path, section) if config_path else {}
    words = vocabulary_of(section, option_actions(parser), "--")
    argv = spell_switches(argv, parser)
    given = config_arguments(parser, values, config_path, section, beside=sort_words(argv, words)[1])
    options = parse_all(parser, given, translate_words(argv, words, beside=values), config_path)
    if options.print_config:
        print_options(parser, options, section)
        raise SystemExit(EXIT_DONE)
    return options


def spell_switches(argv: list[str], parser: argparse.ArgumentParser) -> list[str]:
    """Take `--fp16 True` and `--fp16=False` as other tools do: return the command line with our switches alone.

    Where a script has positional arguments, a word after a switch is one of them.
    """
    actions = config_actions(parser).values()
    switches = {flag: action for action in actions if action.nargs == 0 for flag in action.option_strings[:1]}
    takes_words = all(action.option_strings for action in actions)
    last = argv.index("--") if "--" in argv else len(argv)
    result = []
    for place, word in enumerate(argv[:last]):
        flag, equals, text = word.partition("=")
        before = argv[place - 1] if place else ""
        if flag in switches and equals and text.lower() in TRUTHS:
            result += value_arguments(switches[flag], TRUTHS[text.lower()], "")
        elif takes_words and before in switches and word.lower() in TRUTHS:
            result[-1:] = value_arguments(switches[before], TRUTHS[word.lower()], "")
        else:
            result.append(word)
    return result + argv[last:]


def parse_all(
    parser: argparse.ArgumentParser, given: list[str], argv: list[str], path: str | None
) -> argparse.Namespace:
    """Parse the words of a config file and those of the command line; an error of the former names the file."""
    try:
        return parser.parse_args(given + argv)
    except UserError as problem:
        try:
            parser.parse_args(argv)
        except UserError as own:
            raise own from None
        raise UserError(f"{path}: {problem.message}", problem.hint, problem.code) from problem


def fail_usage(parser: argparse.ArgumentParser, message: str, section: str) -> None:
    """Turn argparse's complaint into a UserError that names the flag and what was expected."""
    unknown = message.removeprefix("unrecognized arguments: ")
    hint = f"python {Path(sys.argv[0]).name} --help"
    if unknown != message:
        name = unknown.split()[0].split("=")[0].lstrip("-")
        own = option_actions(parser)
        aliases = vocabulary_of(section, own, "--").names
        message, hint = f"unknown option --{name}", nearest_words(name, list(own), prefix="--", aliases=aliases)
    elif message.startswith("argument "):
        message = message.removeprefix("argument ")
    raise UserError(message, hint, EXIT_USAGE)


def section_values(path: str, section: str) -> dict[str, object]:
    """Return the entries of a config file for one script, as they stand there."""
    values = read_config(path)
    if any(name in SECTIONS and (isinstance(value, dict) or value is None) for name, value in values.items()):
        for name in values:
            if name not in SECTIONS:
                raise UserError(f"{path}: unknown section {name}", nearest_words(str(name), SECTIONS), EXIT_USAGE)
        values = {} if values.get(section) is None else values[section]
        if not isinstance(values, dict):
            message = f"{path}: section {section}: found {values!r}, expected options"
            raise UserError(message, "write one `  option: value` a line below it", EXIT_USAGE)
    return values


def config_arguments(
    parser: argparse.ArgumentParser,
    values: dict[str, object],
    path: str | None,
    section: str,
    *,
    beside: Mapping[str, object] | None = None,
) -> list[str]:
    """Translate the entries of a config file into the command line that says the same.

    Args:
        parser, section: of the script.
        values: from section_values.
        path: of the file, for messages.
        beside: what the command line gives, name -> value.
    """
    actions = config_actions(parser)
    words = vocabulary_of(section, actions, f"{path}: ")
    arguments = []
    for name, value in translate(values, words, beside).items():
        if name not in actions:
            hint = nearest_words(str(name), list(actions), aliases=words.names)
            raise UserError(f"{path}: unknown key {name}", hint, EXIT_USAGE)
        if actions[name].nargs in ("*", "+") and isinstance(value, (list, str)):
            parser.set_defaults(**{name: [str(item) for item in ([value] if isinstance(value, str) else value)]})
        else:
            arguments += value_arguments(actions[name], value, path)
    return arguments


def value_arguments(action: argparse.Action, value: object, path: str) -> list[str]:
    """Spell one config entry as command-line words; a null leaves the default."""
    flag = next((name for name in action.option_strings if name.startswith("--")), "")
    if value is None:
        return []
    if action.nargs == 0:
        if not isinstance(value, bool):
            hint = f"{action.dest}: true"
            raise UserError(f"{path}: {action.dest}: found {value!r}, expected true or false", hint, EXIT_USAGE)
        negative = [name for name in action.option_strings if name.startswith("--no-")]
        return [flag] if value else negative[:1]
    if isinstance(value, (dict, bool)):
        raise UserError(
            f"{path}: {action.dest}: found {value!r}, expected one value", f"see {flag} in --help", EXIT_USAGE
        )
    if isinstance(value, list):
        value = ",".join(map(str, value))
    return [f"{flag}={value}"]


def print_options(parser: argparse.ArgumentParser, options: argparse.Namespace, section: str) -> None:
    """Print every option as YAML under the script's section, its help as a comment."""
    readable = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"  # a file is read as UTF-8
    lines = [f"{section}:"]
    for name, action in config_actions(parser).items():
        comment = " ".join((action.help or "").replace("%%", "%").split())
        comment = comment if readable else comment.encode("ascii", "backslashreplace").decode()
        lines += [f"  # {comment}", f"  {name}: {spell_yaml(getattr(options, name), readable=readable)}"]
    print("\n".join(lines))


def run(main: Callable[[Sequence[str] | None], int], argv: Sequence[str] | None = None) -> int:
    """Call a script's main and return its exit status; a UserError becomes its message, never a traceback.

    Args:
        main: takes the argument list (None: the real one) and returns the status.
        argv: command line without the program's name.
    """
    debug = "--debug" in (sys.argv[1:] if argv is None else argv)
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
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left in its buffer has no place
        full = UserError("no space left on the disk", "free some space", EXIT_ENVIRONMENT)
        return say_error(full) if has_reader else EXIT_PIPE
    except KeyboardInterrupt:
        say("stopped")
        return 128 + signal.SIGINT
    except MemoryError:
        hint = "close other programs, or use a smaller batch or input"
        return say_error(UserError("not enough memory", hint, EXIT_ENVIRONMENT))
