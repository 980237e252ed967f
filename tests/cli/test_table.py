"""The language of the tables: what an option declares, how its text is read, what is refused in which words."""

import argparse
from dataclasses import dataclass, fields
from pathlib import Path

import pytest

from novelgpt.cli.table import (
    check_value,
    describe_option,
    describe_range,
    entries_of,
    is_switch,
    names_with,
    option,
    reader,
    real,
    whole,
    with_changes,
)
from novelgpt.messages import UserError


@dataclass(frozen=True)
class SomeOptions:
    """An option of every kind."""

    count: int = option(3, "how many", whole(1, 9), kind="number")
    share: float | None = option(None, "how much", real(0, 1, above=True), kind="number")
    loud: bool = option(False, "say it", kind="switch")
    quiet: bool | None = option(None, "say nothing", bool, kind="switch", rare=True)
    width: str = option("half", "which", choices=("half", "full"))
    source: str = option("", "from where", flag="from")
    words: tuple[str, ...] = option((), "some", many=True)
    places: tuple[str, ...] = option((), "where", positional=True)


ENTRIES = entries_of(SomeOptions)


def test_names_are_found_by_all_of_their_roles_in_the_order_of_the_table():
    assert names_with(SomeOptions) == tuple(entry.name for entry in fields(SomeOptions))
    assert names_with(SomeOptions, kind="switch") == ("loud", "quiet")
    assert names_with(SomeOptions, kind="switch", rare=True) == ("quiet",)
    assert names_with(SomeOptions, kind="text") == ()


def test_an_entry_is_known_by_its_flag():
    assert list(ENTRIES) == ["count", "share", "loud", "quiet", "width", "from", "words", "places"]
    assert [name for name, entry in ENTRIES.items() if is_switch(entry)] == ["loud", "quiet"]
    assert [name for name, entry in ENTRIES.items() if entry.metadata["many"]] == ["words", "places"]


def test_a_default_worth_knowing_stands_in_the_help():
    helps = [describe_option(entry) for entry in ENTRIES.values()]
    assert helps[:5] == ["how many (default 3)", "how much", "say it", "say nothing", "which (default half)"]
    assert helps[5:] == ["from where", "some", "where"]


@pytest.mark.parametrize(
    ("read", "good", "bad", "expected"),
    [
        (whole(1, 9), ("1", "9", " 7 "), ("0", "10", "1.0", "", "x", "nan"), "a whole number from 1 to 9"),
        (whole(0), ("0", "99"), ("-1", "1e3"), "a whole number from 0 up"),
        (real(0, 1), ("0", "1", "1e-9"), ("-0.1", "1.1", "nan", "inf", ""), "a number from 0 to 1"),
        (real(0, above=True), ("1e-9", "7"), ("0", "-1", "inf"), "a number above 0"),
        (real(0, 2, above=True), ("2",), ("0", "2.1"), "a number above 0 up to 2"),
    ],
)
def test_a_number_is_read_or_refused_with_its_range(read, good, bad, expected):
    assert [read(text) for text in good] == [float(text) for text in good]
    for text in bad:
        with pytest.raises(argparse.ArgumentTypeError) as refusal:
            read(text)
        assert str(refusal.value) == f"found {text!r}, expected {expected}"


def test_a_text_that_is_no_choice_is_refused_with_the_choices():
    assert reader(ENTRIES["width"])("full") == "full"
    with pytest.raises(argparse.ArgumentTypeError, match=r"^found 'wide', expected one of half, full$"):
        reader(ENTRIES["width"])("wide")


def test_a_range_without_end_has_one_word():
    assert describe_range("a number", 1, float("inf")) == "a number from 1 up"


@pytest.mark.parametrize(
    ("name", "value", "stored"),
    [
        ("count", "4", 4),
        ("share", None, None),
        ("share", 1, 1.0),
        ("loud", True, True),
        ("quiet", None, None),
        ("from", Path("a/b"), "a/b"),
        ("words", None, ()),
        ("words", ["a", Path("b")], ("a", "b")),
    ],
)
def test_a_value_given_in_python_is_stored_as_the_command_line_stores_it(name, value, stored):
    found = check_value(ENTRIES[name], value)
    assert (found, type(found)) == (stored, type(stored))


@pytest.mark.parametrize(
    ("name", "value", "message", "hint"),
    [
        ("count", 0, "count: found '0', expected a whole number from 1 to 9", "count=3"),
        ("count", True, "count: found True, expected another kind", "count=3"),
        ("count", None, "count: found 'None', expected a whole number from 1 to 9", "count=3"),
        ("share", 0, "share: found '0', expected a number above 0 up to 1", "share: how much"),
        ("loud", 1, "loud: found 1, expected True or False", "loud=False"),
        ("width", 7, "width: found 7, expected one of half, full", "width='half'"),
        ("from", 7, "source: found 7, expected text", "source=''"),
        ("words", "井", "words: found '井', expected a list of texts", "words=['井']"),
        ("words", 7, "words: found 7, expected a list of texts", "some"),
        ("words", [7], "words: found 7, expected text", "words: some"),
    ],
)
def test_a_wrong_value_given_in_python_is_refused_with_one_that_is_right(name, value, message, hint):
    with pytest.raises(UserError) as refusal:
        check_value(ENTRIES[name], value)
    assert (refusal.value.message, refusal.value.hint, refusal.value.code) == (message, hint, 2)


def test_changes_go_before_the_options_and_both_are_checked():
    allowed = ("count", "loud")
    assert with_changes(SomeOptions(count=2), {"count": "5"}, allowed) == SomeOptions(count=5)
    assert with_changes(SomeOptions(loud=True), {}, allowed) == SomeOptions(loud=True)
    for options, changes in ((SomeOptions(width="full"), {}), (SomeOptions(), {"width": "full"})):
        with pytest.raises(UserError, match="unknown setting width"):
            with_changes(options, changes, allowed)
    with pytest.raises(UserError, match="count: found '10'"):
        with_changes(SomeOptions(count=10), {}, allowed)
