"""The bytes of one file -> the titled documents in it.

bytes ── decode_bytes ──> text ── by kind ──> titled texts ── join_title ──> documents
"""

import contextlib
import json
import re
import shlex
from collections import Counter
from dataclasses import dataclass, field

from novelgpt.corpus.encodings import Decoded, decode_bytes
from novelgpt.corpus.json_text import parse_json
from novelgpt.corpus.shapes import Fields, Section, find_sections, join_title, list_sections
from novelgpt.corpus.tables import read_table
from novelgpt.messages import EXIT_INPUT, UserError

# standard input has no ending: how a text begins tells what it is
LOOKS_LIKE_JSON = re.compile(r'\s*\[\s*["{\[\]]')
LOOKS_LIKE_JSONL = re.compile(r'\s*\{\s*"')
SURROGATE = re.compile("[\ud800-\udfff]")  # no file can hold one alone


@dataclass(frozen=True)
class SourceFile:
    """What one book holds."""

    documents: list[str]
    kind: str  # txt, json, jsonl, csv or folder
    decoded: Decoded  # how its bytes were read
    repairs: dict[str, int]  # number of repaired faults, by kind
    name: str  # its path, or "standard input"
    titles: list[str] = field(default_factory=list)  # of each document, its first line; "" where there is none
    is_whole: bool = False  # one text, which may be divided into chapters
    left_out: list[str] = field(default_factory=list)  # why files of a folder are left out


def read_file(
    data: bytes, kind: str | None, fields: Fields, encoding: str | None = None, decoded: Decoded | None = None
) -> SourceFile:
    """Read the bytes of one file.

    Args:
        data: the bytes.
        kind: txt, json, jsonl or csv, as its ending says; None tells it by its beginning.
        fields: the name of the file, and the keys or columns to take.
        encoding: forced encoding; None detects it.
        decoded: how the bytes read, where that is known.

    Raises:
        UserError: undecided encoding, faulty JSON, an item that is no text, or no text at all.
    """
    decoded = decoded or decode_bytes(data, encoding, name=fields.name)
    text = decoded.text
    if not text.strip():
        raise UserError(f"{fields.name}: only blanks, expected the text of a novel", "give another file", EXIT_INPUT)
    # the ending tells the kind, but some .json files hold JSON Lines, and the other way round
    kind = kind or guess_kind(text)
    kind = json_kind(text, kind) if kind in ("json", "jsonl") else kind
    repairs: Counter = Counter()
    is_whole = kind == "txt"
    if is_whole:
        sections = [Section("", text)]
    elif kind == "csv":
        sections = read_table(text, fields)
    elif kind == "jsonl":
        sections = read_json_lines(text, fields, repairs)
    else:
        value = parse_json(text, fields.name, repairs)
        sections = find_sections(value, fields)
        is_whole = isinstance(value, dict) and len(sections) == 1
    if not sections:
        raise UserError(f"{fields.name}: no document in it, expected at least one", "give another file", EXIT_INPUT)
    if fields.title and kind != "txt" and not any(section.title for section in sections):
        message = f"{fields.name}: --title_field {fields.title}: no text has such a title"
        raise UserError(message, f"python clr_ctrl.py {shlex.quote(fields.name)}", EXIT_INPUT)
    if fields.title == "":
        sections = [Section("", section.text) for section in sections]
    joined = sections if kind == "txt" else [tidy_section(section, repairs) for section in sections]
    titles, documents = map(list, zip(*joined, strict=True))
    return SourceFile(documents, kind, decoded, dict(repairs), fields.name, titles, is_whole)


def tidy_section(section: Section, repairs: Counter) -> Section:
    """Write the title as the first line of the text, without what no file can hold."""
    kept = []
    for text in section:
        text, lone = SURROGATE.subn("", text)
        repairs += Counter({"lone surrogates": lone})
        kept.append(text)
    return join_title(Section(*kept))


def read_json_lines(text: str, fields: Fields, repairs: Counter) -> list[Section]:
    """List the titled texts of each line's JSON value; blank lines are skipped."""
    lines = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    values = [parse_json(line, fields.name, repairs, first_line=number) for number, line in lines]
    return list_sections(values, [f"line {number}" for number, _ in lines], fields)


def guess_kind(text: str) -> str:
    """Tell what standard input holds by how it begins.

    >>> guess_kind('["第一章"]'), guess_kind('{"text": "第一章"}'), guess_kind("[红楼梦 / 曹雪芹 著]")
    ('json', 'jsonl', 'txt')
    """
    return "json" if LOOKS_LIKE_JSON.match(text) else "jsonl" if LOOKS_LIKE_JSONL.match(text) else "txt"


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
