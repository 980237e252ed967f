"""JSON as people write it -> Python values: small faults are repaired and counted, others reported with their place.

Repaired are the two faults that nearly every hand-made corpus has: raw control characters inside strings (line breaks
pasted into a value) and lone backslashes (`\\-`, `\\u` without four digits). Anything else is an error with line,
column and the text around it.
"""

import json
import re
from collections import Counter

from novelgpt.messages import EXIT_INPUT, UserError, printable

BACKSLASH = re.compile(r'\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})|(\\)')
STRING = re.compile(r'"(?:[^"\\]|\\.)*+"', re.DOTALL)
CONTROL = re.compile(r"[\x00-\x1f]")
SURROGATE = re.compile("[\ud800-\udfff]")
MAX_DIGITS = 30  # of a number
AROUND = 10  # characters shown on either side of a fault


def parse_json(text: str, name: str, *, first_line: int = 1) -> tuple[object, Counter]:
    r"""Parse one JSON value.

    Args:
        text: the value, spaces around it allowed.
        name: the file's name for messages.
        first_line: number of the text's first line in the file.

    Returns:
        The value, and how often each kind of fault was repaired.

    Raises:
        UserError: not JSON, NaN or Infinity, a repeated key, too deep, a number of more than 30 digits.

    >>> parse_json('["第一章\\-\n他说"]', "a.json")
    (['第一章\\-\n他说'], Counter({'raw control characters': 1, 'lone backslashes': 1}))
    """
    repairs = Counter()
    # most files are sound: they are parsed once, strictly
    try:
        return load_strictly(text, name, strict=True), repairs
    except json.JSONDecodeError:
        pass

    # a lone backslash is doubled; control characters inside strings are what `strict=False` lets pass
    lone = [match.start() for match in BACKSLASH.finditer(text) if match.group(1)]
    repaired = BACKSLASH.sub(lambda match: "\\\\" if match.group(1) else match.group(), text) if lone else text
    try:
        value = load_strictly(repaired, name, strict=False)
    except json.JSONDecodeError as problem:
        # the place in the text as it came: every doubled backslash before it counts once
        place = next(place for place in range(problem.pos, -1, -1) if place + count_below(lone, place) <= problem.pos)
        raise syntax_error(text, place, problem.msg, name, first_line) from problem
    if controls := sum(len(CONTROL.findall(match.group())) for match in STRING.finditer(repaired)):
        repairs["raw control characters"] = controls
    if lone:
        repairs["lone backslashes"] = len(lone)
    return value, repairs


def count_below(places: list[int], limit: int) -> int:
    """Count the places before a limit."""
    return sum(place < limit for place in places)


def load_strictly(text: str, name: str, *, strict: bool) -> object:
    """Parse JSON, and refuse what JSON does not have or no corpus needs; a syntax error is raised as it is."""
    try:
        return json.loads(
            text, strict=strict, parse_constant=refuse_constant, parse_int=read_int, object_pairs_hook=read_object
        )
    except json.JSONDecodeError:
        raise
    except (ValueError, RecursionError) as problem:
        raise refusal(name, str(problem) if isinstance(problem, ValueError) else "nested too deep") from problem


def refuse_constant(word: str) -> None:
    """Refuse NaN and Infinity."""
    raise ValueError(f"found {word}, which is not JSON")


def read_int(digits: str) -> int:
    """Read a number of sane length."""
    if len(digits) > MAX_DIGITS:
        raise ValueError(f"found a number of {len(digits):,} digits, expected at most {MAX_DIGITS}")
    return int(digits)


def read_object(pairs: list[tuple[str, object]]) -> dict:
    """Make a dict of an object whose keys all differ."""
    value = dict(pairs)
    if len(value) < len(pairs):
        key = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        raise ValueError(f"found the key {printable(key[:40])!r} twice in one object")
    return value


def refusal(name: str, message: str) -> UserError:
    """Make the error for JSON that parses but cannot be what was meant."""
    return UserError(f"{name}: {message}", f'write {name} as a list of strings: ["第一章 …", "第二章 …"]', EXIT_INPUT)


def syntax_error(text: str, place: int, message: str, name: str, first_line: int) -> UserError:
    """Make the error that shows where JSON stops being JSON."""
    line = text.count("\n", 0, place)  # lines before it
    column = place - (text.rfind("\n", 0, place) + 1) + 1
    around = text[max(0, place - AROUND) : place + AROUND]
    message = f"{name}: not JSON at line {first_line + line} column {column}: {message}: {printable(around)!r}"
    return UserError(message, f"correct that place, or give the novel as plain text: {name.rsplit('.', 1)[0]}.txt")


def drop_surrogates(text: str, repairs: Counter) -> str:
    r"""Remove lone surrogates, which no file can hold, and count them.

    >>> drop_surrogates("萧\ud83d炎", Counter())
    '萧炎'
    """
    kept, count = SURROGATE.subn("", text)
    if count:
        repairs["lone surrogates"] += count
    return kept
