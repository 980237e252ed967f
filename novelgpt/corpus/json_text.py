"""JSON as it is found -> titled texts: small faults are repaired and counted, others are shown with their place.

["第一章\\-⏎他说"]   ->   a raw line break and a lone backslash, repaired
"""

import contextlib
import json
import re
from bisect import bisect_left
from collections import Counter

from novelgpt.corpus.shapes import Fields, Section, find_sections, list_sections
from novelgpt.messages import EXIT_INPUT, UserError, printable

BACKSLASH = re.compile(r'\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})|(\\)')
STRING = re.compile(r'"(?:[^"\\]|\\.)*+"', re.DOTALL)
CONTROL = re.compile(r"[\x00-\x1f]")
MAX_DIGITS = 30  # of a number in JSON
AROUND = 10  # characters shown on either side of a fault


def read_json(text: str, kind: str, fields: Fields, repairs: Counter) -> list[Section]:
    """List the titled texts of a JSON value, or of one on each line; faults that are repaired are counted.

    >>> read_json('["第一章"]\\n["第二章"]', "jsonl", Fields("a.jsonl"), Counter())
    [Section(title='', text='第一章'), Section(title='', text='第二章')]
    """
    if kind == "json":
        return find_sections(parse_json(text, fields.name, repairs), fields, "the whole file")
    lines = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    values = [parse_json(line, fields.name, repairs, first_line=number) for number, line in lines]
    return list_sections(values, [f"line {number}" for number, _ in lines], fields)


def json_kind(text: str, kind: str) -> str:
    """Tell JSON from JSON Lines, whatever the ending says: in the latter a value ends with the first line.

    >>> json_kind('{"text": "第一章"}\\n{"text": "第二章"}', "json"), json_kind('{\\n"text": "第一章"}', "jsonl")
    ('jsonl', 'json')
    """
    first, _, rest = text.strip().partition("\n")
    if not rest or not first.startswith(("{", '"', "[")):
        return kind
    with contextlib.suppress(ValueError, RecursionError):
        return "jsonl" if isinstance(json.loads(first, strict=False), dict | str | list) else kind
    return "json" if first.strip() in ("{", "[") else kind


def parse_json(text: str, name: str, repairs: Counter, *, first_line: int = 1) -> object:
    r"""Parse one JSON value that begins on this line of the file; raw control characters in strings and lone
    backslashes are repaired and counted, anything else is an error with line, column and the text around it.

    >>> repairs = Counter()
    >>> parse_json('["第一章\\-\n他说"]', "a.json", repairs), repairs
    (['第一章\\-\n他说'], Counter({'raw control characters': 1, 'lone backslashes': 1}))
    """
    # most files are sound: they are parsed once, strictly
    with contextlib.suppress(json.JSONDecodeError):
        return load_strictly(text, name, strict=True)

    # a lone backslash is doubled; control characters inside strings are what `strict=False` lets pass
    lone = [match.start() for match in BACKSLASH.finditer(text) if match.group(1)]
    repaired = BACKSLASH.sub(lambda match: "\\\\" if match.group(1) else match.group(), text) if lone else text
    try:
        value = load_strictly(repaired, name, strict=False)
    except json.JSONDecodeError as problem:
        # the place in the text as it came: every doubled backslash before it counts once
        place = next(place for place in range(problem.pos, -1, -1) if place + bisect_left(lone, place) <= problem.pos)
        raise syntax_error(text, place, problem.msg, name, first_line) from problem
    controls = sum(len(CONTROL.findall(match.group())) for match in STRING.finditer(repaired))
    repairs.update(+Counter({"raw control characters": controls, "lone backslashes": len(lone)}))  # without zeros
    return value


def load_strictly(text: str, name: str, *, strict: bool) -> object:
    """Parse JSON; refuse NaN, repeated keys, long numbers and deep nesting, but raise a syntax error as it is."""
    try:
        return json.loads(
            text, strict=strict, parse_constant=refuse_constant, parse_int=read_int, object_pairs_hook=read_object
        )
    except json.JSONDecodeError:
        raise
    except (ValueError, RecursionError) as problem:
        reason = problem if isinstance(problem, ValueError) else "nested too deep"
        hint = f'write {name} as a list of strings: ["第一章 …", "第二章 …"]'
        raise UserError(f"{name}: {reason}", hint, EXIT_INPUT) from problem


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


def syntax_error(text: str, place: int, message: str, name: str, first_line: int) -> UserError:
    """Make the error that shows where JSON stops being JSON."""
    line = text.count("\n", 0, place)  # lines before it
    column = place - (text.rfind("\n", 0, place) + 1) + 1
    around = text[max(0, place - AROUND) : place + AROUND]
    message = f"{name}: not JSON at line {first_line + line} column {column}: {message}: {printable(around)!r}"
    return UserError(message, f"correct that place, or give the novel as plain text: {name.rsplit('.', 1)[0]}.txt")
