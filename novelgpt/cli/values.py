"""The text of an option -> its value, checked."""

import argparse
import re

from novelgpt.cli.table import real

# number formats as other tools name them -> ours
FORMAT_NAMES = {
    "16": "fp16", "16-mixed": "fp16", "float16": "fp16", "32": "fp32", "32-true": "fp32", "float32": "fp32",
    "no": "fp32", "bf16-mixed": "bf16", "bfloat16": "bf16",
}  # fmt: skip
NO_FOLDER = re.compile(r'[/\\<>:"|?*]|^(con|prn|aux|nul|com\d|lpt\d)(\.|$)', re.IGNORECASE)  # Windows' rules, too


def precision_name(text: str) -> str:
    """Return our name of a number format; a name that is none of another tool's stays.

    >>> precision_name("16"), precision_name("bf16-mixed"), precision_name("bf16")
    ('fp16', 'bf16', 'bf16')
    """
    return FORMAT_NAMES.get(text, text)


def token_names(text: str) -> str:
    """Read token names with commas between them.

    >>> token_names("[TIL], [WS]")
    '[TIL],[WS]'
    """
    return ",".join(name.strip() for name in text.split(",") if name.strip())


def count_or_share(text: str) -> float:
    """Read a number of steps (whole, from 0) or a share of all steps (a fraction below 1).

    >>> count_or_share("2000"), count_or_share("0.02")
    (2000, 0.02)
    """
    value = real(0)(text)
    if value >= 1 and value != int(value):
        raise argparse.ArgumentTypeError(f"found {text!r}, expected a share below 1 or a whole number of steps")
    return int(value) if value >= 1 or value == 0 else value


def book_name(text: str) -> str:
    """Check that the name of a book can be the name of a folder on every system.

    >>> book_name("红楼梦 上")
    '红楼梦 上'
    """
    is_clean = text.isprintable() and text == text.strip().rstrip(".")
    if not text or not is_clean or NO_FOLDER.search(text):
        raise argparse.ArgumentTypeError(f"found {text!r}, expected a name for a folder, such as hongloumeng")
    return text


def clock_time(text: str) -> str:
    """Check a time of day.

    >>> clock_time("07:00")
    '07:00'
    """
    hour, colon, minute = text.partition(":")
    if not (colon and hour.isdecimal() and minute.isdecimal() and int(hour) < 24 and int(minute) < 60):
        raise argparse.ArgumentTypeError(f"found {text!r}, expected a time from 00:00 to 23:59")
    return text


def drop_pattern(text: str) -> str:
    """Check what lines are left out by: a text, or an expression between slashes.

    >>> drop_pattern("购买正版"), drop_pattern("/^第.*卷$/")
    ('购买正版', '/^第.*卷$/')
    """
    if not text.strip("/ "):
        raise argparse.ArgumentTypeError(f"found {text!r}, expected a text or a /regular expression/")
    check_expression(text[1:-1] if text[0] == text[-1] == "/" else "", text)
    return text


def chapter_pattern(text: str) -> str:
    """Check the expression of the lines that begin a chapter, or the word none.

    >>> chapter_pattern("^第.+回")
    '^第.+回'
    """
    if not text.strip():
        raise argparse.ArgumentTypeError(f"found {text!r}, expected a regular expression or none")
    check_expression(text, text)
    return text


def check_expression(expression: str, text: str) -> None:
    """Raise where an expression, found in this text, cannot be read."""
    try:
        re.compile(expression)
    except re.error as problem:
        raise argparse.ArgumentTypeError(f"found {text!r}, expected a regular expression: {problem}") from problem
