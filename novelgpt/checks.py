"""Values given in Python -> the same values, ranges and messages as those given as text on the command line."""

import argparse
import os
from collections.abc import Callable, Sequence

from novelgpt.messages import EXIT_USAGE, UserError


def check_value(
    name: str,
    value: object,
    default: object,
    *,
    parse: Callable[[str], object] | None = None,
    choices: Sequence[str] | None = None,
    help: str = "",
) -> object:
    """Return a value as the command line would store it, and refuse what it would refuse.

    Args:
        name: of the option.
        value: as given; None where the default is None stands for the default.
        default: of the option.
        parse: reads the option's text and raises ArgumentTypeError; None for any text; bool for a switch whose default
            is None.
        choices: the only values, if there are such.
        help: what the option does, for the hint.

    Returns:
        The value: numbers as numbers, paths and names as text.

    Raises:
        UserError: wrong type or out of range.

    >>> from novelgpt.cli import whole
    >>> check_value("epochs", "3", 15, parse=whole(1))
    3
    >>> check_value("epochs", 0, 15, parse=whole(1))
    Traceback (most recent call last):
    novelgpt.messages.UserError: error: epochs: found '0', expected a whole number from 1 up
    <BLANKLINE>
    hint: epochs=15
    """
    if value is None and default is None:
        return value
    hint = f"{name}={default!r}" if default is not None else f"{name}: {help}"
    default = False if parse is bool else default
    problem = None
    if isinstance(default, bool) or isinstance(value, bool):
        problem = None if isinstance(default, bool) and isinstance(value, bool) else f"found {value!r}"
        problem = problem and f"{problem}, expected {'True or False' if isinstance(default, bool) else 'another kind'}"
    elif parse:
        try:
            value = parse(str(value))
        except argparse.ArgumentTypeError as refusal:
            problem = str(refusal)
    elif isinstance(value, os.PathLike):
        value = os.fspath(value)
    elif not isinstance(value, str) and not choices:
        problem = f"found {value!r}, expected text"
    if not problem and choices and value not in choices:
        problem = f"found {value!r}, expected one of {', '.join(choices)}"
    if problem:
        raise UserError(f"{name}: {problem}", hint, EXIT_USAGE)
    return value


def check_setting(action: argparse.Action, value: object) -> object:
    """Return the value of a script's option given in Python, as check_value does; several values as a list.

    Args:
        action: of the script's parser; with nargs="+" it takes a list or tuple of texts, and None is its default.
        value: as given.

    Raises:
        UserError: wrong type or out of range.
    """
    facts = {"parse": action.type, "choices": action.choices, "help": action.help}
    if action.nargs != "+":
        return check_value(action.dest, value, action.default, **facts)
    if value is None:
        return action.default
    if not isinstance(value, (list, tuple)):
        message = f"{action.dest}: found {value!r}, expected a list of texts"
        raise UserError(message, f"{action.dest}=[{value!r}]" if isinstance(value, str) else action.help, EXIT_USAGE)
    return [check_value(action.dest, item, "", **facts) for item in value]
