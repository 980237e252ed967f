"""JSON and tables (CSV, with or without a line of column names) as they are found -> titled texts.

["第一章\\-⏎他说"]           ->   a raw line break and a lone backslash, repaired

id,title,content            第一章 山村,"他走了。"
1,第一章 山村,"他走了。"    第二章 城,"天黑了。"

Small faults of JSON are repaired and counted, others are shown with their place.
"""

import contextlib
import csv
import io
import itertools
import json
import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Sequence

from novelgpt.corpus.headings import Section
from novelgpt.corpus.shapes import (
    HAN,
    TEXT_KEYS,
    TITLE_KEYS,
    Fields,
    choose_title_key,
    find_key,
    find_sections,
    is_heading,
    is_title_like,
    list_sections,
    no_text_key,
)
from novelgpt.messages import EXIT_INPUT, UserError, printable

BACKSLASH = re.compile(r'\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})|(\\)')
STRING = re.compile(r'"(?:[^"\\]|\\.)*+"', re.DOTALL)
CONTROL = re.compile(r"[\x00-\x1f]")
MAX_DIGITS = 30  # of a number in JSON
AROUND = 10  # characters shown on either side of a fault
LONG_NAME = 30  # characters; no column has a longer name
SENTENCE_SIGNS = "。！？，；：“”…"
CELLS_HINT = "quote the cells that hold commas or line breaks"


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


def read_table(text: str, fields: Fields) -> list[Section]:
    """List the titled texts of a table, a row each; its first line names the columns, unless it is text itself.

    Raises:
        UserError: not a table, a row too short, or no column that is known to hold texts.

    >>> read_table("id,title,content\\n1,第一章,他走了。\\n", Fields("a.csv"))
    [Section(title='第一章', text='他走了。')]
    >>> read_table("1,第一章,他走了。\\n2,第二章,天黑了。\\n", Fields("a.csv"))[1]
    Section(title='第二章', text='天黑了。')
    """
    rows = list(read_rows(text, fields.name))
    heading = rows[0][1]
    is_asked = find_key(heading, fields.text, ()) is not None if fields.text else False
    named = is_asked or fields.text is not None or not is_text_row(heading)
    body = [row for row in rows[named:] if row[1]]
    text_column, title_column = (
        name_columns(heading, body, fields) if named else guess_columns([row[1] for row in body])
    )
    result = []
    for line, row in body:
        if len(row) <= text_column:
            width = len(heading)
            raise UserError(
                f"{fields.name}: line {line}: found {len(row)} cells, expected {width}", CELLS_HINT, EXIT_INPUT
            )
        title = row[title_column] if title_column is not None and title_column < len(row) else ""
        result.append(Section(title, row[text_column]))
    return result


def read_rows(text: str, name: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the rows of a table, each with the number of its last line."""
    former = csv.field_size_limit(max(len(text), 1))  # a cell may hold a whole book; the limit is global
    rows = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        for row in rows:
            yield rows.line_num, row
    except csv.Error as problem:
        raise UserError(f"{name}: line {rows.line_num}: not a table: {problem}", CELLS_HINT, EXIT_INPUT) from problem
    finally:
        csv.field_size_limit(former)


def is_text_row(cells: Sequence[str]) -> bool:
    """Tell whether the first row of a table is text already, and not the names of its columns.

    >>> is_text_row(["第一章", "他走了。"]), is_text_row(["id", "章节", "内容"])
    (True, False)
    """
    if find_key(cells, None, TEXT_KEYS):
        return False
    return any(
        len(cell) > LONG_NAME or is_heading(cell) or any(sign in cell for sign in SENTENCE_SIGNS) for cell in cells
    )


def name_columns(heading: list[str], body: Sequence[tuple[int, list[str]]], fields: Fields) -> tuple[int, int | None]:
    """Choose the columns of texts and titles by their names; a single column needs none."""
    if len(heading) == 1 and not fields.text:
        return 0, None
    key = find_key(heading, fields.text, TEXT_KEYS)
    if key is None:
        first = body[0][1][: len(heading)] if body else []
        raise no_text_key(dict(itertools.zip_longest(heading, first, fillvalue="")), fields, "")
    named = [key for key in heading if key in (fields.title,) or find_key([key], None, TITLE_KEYS)]
    objects = [{name: row[heading.index(name)] for name in named if heading.index(name) < len(row)} for _, row in body]
    title = find_key(heading, fields.title, ()) if fields.title else choose_title_key(objects, fields)
    return heading.index(key), heading.index(title) if title and title != key else None


def guess_columns(rows: Sequence[Sequence[str]]) -> tuple[int, int | None]:
    """Choose the columns of texts and titles by what is in them: the longest cells, and short ones that differ.

    >>> guess_columns([["1", "山村", "他走了。"], ["2", "城", "天黑了。"]])
    (2, 1)
    """
    columns = list(itertools.zip_longest(*rows, fillvalue=""))
    longest = max(range(len(columns)), key=lambda index: sum(map(len, columns[index])))
    titles = [
        index
        for index, cells in enumerate(columns)
        if index != longest
        and all(not cell or (is_title_like(cell.strip()) and HAN.search(cell)) for cell in cells)
        and len(set(cells)) > len(cells) // 2
    ]
    # a column of chapter headings, else the one nearest to the texts
    headings = [index for index in titles if sum(map(is_heading, columns[index])) > 1]
    return longest, min(headings or titles, key=lambda index: abs(longest - index), default=None)
