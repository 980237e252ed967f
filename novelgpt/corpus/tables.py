"""Tables of texts (CSV, with or without a line of column names) -> titled texts.

id,title,content            第一章 山村,"他走了。"
1,第一章 山村,"他走了。"    第二章 城,"天黑了。"
"""

import csv
import io
import itertools
from collections.abc import Iterator, Sequence

from novelgpt.corpus.shapes import (
    HAN,
    TEXT_KEYS,
    TITLE_KEYS,
    Fields,
    Section,
    choose_title_key,
    find_key,
    is_heading,
    is_title_like,
    no_text_key,
)
from novelgpt.messages import EXIT_INPUT, UserError

LONG_NAME = 30  # characters; no column has a longer name
SENTENCE_SIGNS = "。！？，；：“”…"
CELLS_HINT = "quote the cells that hold commas or line breaks"


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
