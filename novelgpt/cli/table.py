"""One option, one line: its default, help, range and roles, in a frozen dataclass from which everything else follows.

::

    @dataclass(frozen=True)
    class GenerateOptions:
        min_p: float = option(0.0, "drop tokens less likely than this share of the best one", real(0, 1), sampling=True)

Flags, keys of config files, `--print_config`, the checks of values given in Python, what identifies a run: each reads
this table. A *role* is any further keyword of `option`; `names_with` finds the options that have it.
"""

import argparse
import math
import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import Field, field, fields, replace
from pathlib import Path

from novelgpt.messages import EXIT_USAGE, UserError, nearest_words

# how generate.py chooses each token, unless it is told: these values and no others are what --preset stands for
NO_FILTER = {"temperature": 1.0, "topk": 0, "topp": 1.0, "min_p": 0.0, "typical": 1.0, "dry_multiplier": 0.0}
PRESETS = {
    "seed": NO_FILTER | {"topk": 8},  # of GPT2-Chinese, the ancestor
    "steady": NO_FILTER | {"temperature": 0.9, "topp": 0.9},
    "balanced": NO_FILTER | {"topp": 0.98},
    "bold": NO_FILTER,
}
PRESET = "balanced"  # the default


def option(
    default: object,
    help: str,
    read: Callable[[str], object] | None = None,
    *,
    choices: tuple[str, ...] | None = None,
    many: bool = False,
    positional: bool = False,
    metavar: str | None = None,
    flag: str | None = None,
    **roles: object,
):
    """Declare one option of a script; stands where a dataclass has a default.

    Args:
        default: where neither a config file nor the command line gives a value; None: decided later. True and False
            make a switch.
        help: one line for people; a default worth knowing is added to it.
        read: turns text into the value and raises ArgumentTypeError; None keeps the text; bool makes a switch whose
            default is None.
        choices: the only values.
        many, positional: takes several values, as a tuple; positional ones stand without a flag on the command line.
        metavar: what stands for the value in `--help`.
        flag: the name on the command line and in config files, where that cannot be the field's name.
        roles: what else holds for it, for example only="windows".
    """
    facts = {"help": help, "read": read, "choices": choices, "many": many or positional, "positional": positional}
    return field(default=default, metadata={**facts, "metavar": metavar, "flag": flag, **roles})


def names_with(table: type, **roles: object) -> tuple[str, ...]:
    """Return the names of the options that have these roles, in the order of the table.

    >>> from novelgpt.cli import TrainOptions
    >>> names_with(TrainOptions, needs="held out")
    ('eval_steps', 'early_stopping_patience', 'load_best_model_at_end')
    """
    return tuple(entry.name for entry in fields(table) if roles.items() <= entry.metadata.items())


def entries_of(table: type) -> dict[str, Field]:
    """Map the name of every option on the command line and in config files to its entry in the table."""
    return {entry.metadata["flag"] or entry.name: entry for entry in fields(table)}


def book_places(table: type, book: str | None, *, but: Collection[str] = ()) -> dict[str, str]:
    """Map the options that have the role `in_book` to where they lie for a book; no book, no places.

    Args:
        table: the script's options.
        book: its name.
        but: the options that are given otherwise. Beside a given pretrained_model the vocabulary is the model's own.

    >>> from novelgpt.cli import TokenizeOptions
    >>> book_places(TokenizeOptions, "红楼梦", but=["tokenized_data_path"])
    {'raw_data_path': 'books/红楼梦/train.json'}
    """
    entries = [entry for entry in fields(table) if book and "in_book" in entry.metadata and entry.name not in but]
    places = {entry: f"books/{book}/{entry.metadata['in_book']}" for entry in entries}
    return {
        entry.name: place
        for entry, place in places.items()
        if "if_there" not in entry.metadata or (Path(place).exists() and "pretrained_model" not in but)
    }


def preset_values(options) -> dict[str, object]:
    """Return how tokens are chosen by GenerateOptions: what they say themselves, and for the rest what the preset says.

    >>> from novelgpt.cli import GenerateOptions
    >>> values = preset_values(GenerateOptions(preset="seed", temperature=0.8))
    >>> values["temperature"], values["topk"]
    (0.8, 8)
    """
    given = {name: getattr(options, name) for name in NO_FILTER}
    return PRESETS[options.preset] | {name: value for name, value in given.items() if value is not None}


def is_switch(entry: Field) -> bool:
    """Tell whether an option is on or off, so that its flag takes no value."""
    return isinstance(entry.default, bool) or entry.metadata["read"] is bool


def describe_option(entry: Field) -> str:
    """Return the help of an option with its default, where that is not told by the help itself."""
    words = entry.metadata["help"]
    return words if entry.default in (None, "", (), False) else f"{words} (default {entry.default})"


def whole(low: int, high: float = math.inf) -> Callable[[str], int]:
    """Return a reader of whole numbers from low to high."""
    return number_reader(int, "a whole number", low, high)


def real(low: float, high: float = math.inf, *, above: bool = False) -> Callable[[str], float]:
    """Return a reader of finite numbers from low (or above it) to high."""
    return number_reader(float, "a number", low, high, above=above)


def number_reader(
    kind: type, noun: str, low: float, high: float, *, above: bool = False
) -> Callable[[str], int | float]:
    """Return a reader of numbers of a kind, int or float, in a range."""

    def read(text: str) -> int | float:
        try:
            value = kind(text)
        except ValueError:
            value = math.nan  # refused below, like "nan" itself
        if not low <= value <= high or value == math.inf or (above and value == low):
            expected = describe_range(noun, low, high, above=above)
            raise argparse.ArgumentTypeError(f"found {text!r}, expected {expected}")
        return value

    return read


def describe_range(noun: str, low: float, high: float, *, above: bool = False) -> str:
    """Name the numbers of a range, for example "a whole number from 1 to 100"."""
    if above:
        return f"{noun} above {low}" if high == math.inf else f"{noun} above {low} up to {high}"
    return f"{noun} from {low} up" if high == math.inf else f"{noun} from {low} to {high}"


def reader(entry: Field) -> Callable[[object], object]:
    """Return the function that turns the text of an option into its value, and refuses what is none of its choices."""
    read, choices = entry.metadata["read"], entry.metadata["choices"]

    def read_choice(text: object) -> object:
        value = read(text) if read else text
        if choices and value not in choices:
            raise argparse.ArgumentTypeError(f"found {value!r}, expected one of {', '.join(choices)}")
        return value

    return read_choice


def with_changes(options, changes: Mapping[str, object], allowed: tuple[str, ...]):
    """Return options with some of them changed by name, as the command line would store them.

    Args:
        options: an object of a table; numbers may be text, and paths may be Path objects.
        changes: name -> value, given in Python.
        allowed: the names that may differ from the defaults.

    Raises:
        UserError: a name that means nothing here, or a value that the command line would refuse, in the same words.
    """
    # options that mean nothing to a caller in Python are refused, whether in the object or by name
    given = [entry.name for entry in fields(options) if getattr(options, entry.name) != entry.default]
    for name in (*given, *changes):
        if name not in allowed:
            raise UserError(f"unknown setting {name}", nearest_words(name, allowed), EXIT_USAGE)
    values = {entry.name: getattr(options, entry.name) for entry in fields(options)} | changes
    return replace(options, **{entry.name: check_value(entry, values[entry.name]) for entry in fields(options)})


def check_value(entry: Field, value: object) -> object:
    """Return the value of one option as the command line would store it; UserError: of a wrong type or out of range."""
    many, help_text = entry.metadata["many"], entry.metadata["help"]
    if value is None and (entry.default is None or many):
        return entry.default
    # the hint is a value that is right: the default, or what the option does where there is none
    right = f"{entry.name}: {help_text}" if entry.default is None or many else f"{entry.name}={entry.default!r}"
    try:
        if not many:
            return read_value(entry, value)
        if isinstance(value, (list, tuple)):
            return tuple(read_value(entry, item) for item in value)
    except argparse.ArgumentTypeError as refusal:
        raise UserError(f"{entry.name}: {refusal}", right, EXIT_USAGE) from None
    hint = f"{entry.name}=[{value!r}]" if isinstance(value, str) else help_text
    raise UserError(f"{entry.name}: found {value!r}, expected a list of texts", hint, EXIT_USAGE)


def read_value(entry: Field, value: object) -> object:
    """Return a single value, read as its text would be; raise ArgumentTypeError as a reader of text does."""
    # True is also the number 1 in Python, and no option means that by it
    if is_switch(entry) or isinstance(value, bool):
        if is_switch(entry) and isinstance(value, bool):
            return value
        kind = "True or False" if is_switch(entry) else "another kind"
        raise argparse.ArgumentTypeError(f"found {value!r}, expected {kind}")
    # numbers may be given as text, and paths as Path objects
    if entry.metadata["read"]:
        value = str(value)
    elif isinstance(value, os.PathLike):
        value = os.fspath(value)
    elif not isinstance(value, str) and not entry.metadata["choices"]:
        raise argparse.ArgumentTypeError(f"found {value!r}, expected text")
    return reader(entry)(value)
