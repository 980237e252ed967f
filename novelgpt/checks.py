"""Values given in Python -> the same ranges and messages as those given as text on the command line."""

import argparse
from collections.abc import Callable, Sequence

from novelgpt.errors import EXIT_USAGE, UserError


def check_value(
    name: str,
    value: object,
    default: object,
    *,
    parse: Callable[[str], object] | None = None,
    choices: Sequence[str] | None = None,
    help: str = "",
) -> None:
    """Refuse a value that the command line would refuse.

    Args:
        name: of the option.
        value: as given; None where the default is None stands for the default.
        default: of the option.
        parse: reads the option's text and raises ArgumentTypeError; None for any text; bool for a switch whose default
            is None.
        choices: the only values, if there are such.
        help: what the option does, for the hint.

    Raises:
        UserError: wrong type or out of range.

    >>> from novelgpt.cli import whole
    >>> check_value("epochs", 3, 15, parse=whole(1))
    >>> check_value("epochs", 0, 15, parse=whole(1))
    Traceback (most recent call last):
    novelgpt.errors.UserError: error: epochs: found '0', expected a whole number from 1 up
    <BLANKLINE>
    hint: epochs=15
    """
    if value is None and default is None:
        return
    hint = f"{name}={default!r}" if default is not None else f"{name}: {help}"
    default = False if parse is bool else default
    problem = None
    if isinstance(default, bool) or isinstance(value, bool):
        problem = None if isinstance(default, bool) and isinstance(value, bool) else f"found {value!r}"
        problem = problem and f"{problem}, expected {'True or False' if isinstance(default, bool) else 'another kind'}"
    elif choices and value not in choices:
        problem = f"found {value!r}, expected one of {', '.join(choices)}"
    elif parse:
        try:
            parse(str(value))
        except argparse.ArgumentTypeError as refusal:
            problem = str(refusal)
    elif not isinstance(value, str) and not hasattr(value, "__fspath__"):
        problem = f"found {value!r}, expected text"
    if problem:
        raise UserError(f"{name}: {problem}", hint, EXIT_USAGE)
