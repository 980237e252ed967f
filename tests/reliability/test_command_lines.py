"""A wrong value on any command line is exit 2 and a message that names the flag, the value and what is allowed."""

import argparse
import itertools
from dataclasses import Field

import clr_ctrl
import eval as eval_script
import generate
import make_vocab
import tokenize_corpus
import train as train_script
from novelgpt.cli import run
from novelgpt.cli.table import entries_of, is_switch, reader
from reliability.harness import cases

SCRIPTS = (train_script, generate, eval_script, clr_ctrl, make_vocab, tokenize_corpus)
VALUES = (
    "abc", "", " ", "nan", "inf", "-inf", "-1", "-2", "-0.5", "0", "0.5", "1.5", "2", "1e999", "9" * 30, "0x10", "1,2",
    "25:00", "7", "\x1b[31m", "-" * 3, "十", "None", "true",
)  # fmt: skip
ALLOWED = ("expected", "ignored explicit argument")  # what comes before the range


def bad_values(entry: Field) -> list[str]:
    """Return the values that an option must refuse: all but what its own rule lets pass; none for free text."""
    if is_switch(entry):
        return ["maybe", "3"]
    return [value for value in VALUES if not accepts(entry, value)]


def accepts(entry: Field, value: str) -> bool:
    """Tell whether an option lets a value pass."""
    try:
        reader(entry)(value)
    except argparse.ArgumentTypeError:
        return False
    return True


def bad_pairs(script) -> list[tuple[tuple[str, str], ...]]:
    """Return pairs of wrong options of a script, every two of its flags together and the values in turn."""
    entries = entries_of(script.build_parser().table)
    values = {f"--{name}": itertools.cycle(found) for name, entry in entries.items() if (found := bad_values(entry))}
    return [tuple((flag, next(values[flag])) for flag in pair) for pair in itertools.permutations(values, 2)]


def fault_of_line(status: int, out: str, err: str, pair: tuple[tuple[str, str], ...]) -> str | None:
    """Say what is wrong with the answer to a wrong command line; None when nothing is."""
    first, _, hint = err.partition("\n\n")
    if status != 2 or out or "Traceback" in err:
        return f"exit {status}: {err[-500:]}"
    flag, value = pair[0]
    shown = repr(value).replace("\\\\", "\\") if value.isprintable() else "\\x1b"
    if not first.startswith(f"error: {flag}") or shown.strip("'") not in first:
        return f"does not name {flag} and {shown}: {err}"
    if not any(word in first for word in ALLOWED):
        return f"does not say what is allowed: {err}"
    return None if hint.startswith("hint: ") and hint.strip() != "hint:" else f"no hint: {err}"


def test_wrong_values_on_all_command_lines(capsys, ledger):
    lines = [(script, pair) for script in SCRIPTS for pair in bad_pairs(script)]
    count = cases(100, len(lines), len(lines))
    faults = []
    for script, pair in lines[:: len(lines) // count][:count]:
        words = [f"{flag}={value}" for flag, value in pair]
        try:
            status = run(script.main, words)
        except Exception as problem:  # what a user would see as a traceback
            status = repr(problem)
        said = capsys.readouterr()
        if fault := fault_of_line(status, said.out, said.err, pair):
            faults.append(f"{script.__name__}.py {words}: {fault}")
    ledger("Wrong values on a command line: exit 2, the message names flag, value and range", faults, count)
    assert len(lines) >= 1500
