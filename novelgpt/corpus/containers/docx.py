"""A Word file (.docx) -> its sections, divided at its headings.

    word/styles.xml     style → outline level, its own, its ancestors' or by its name: Heading 1, 标题 1
    word/document.xml   <w:p> paragraphs of <w:r> runs of <w:t> texts

What was deleted, hidden text, tables of contents, notes and comments are left out.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from novelgpt.corpus.archives import open_zip, read_packed, zip_entries
from novelgpt.corpus.containers.markup import drop_elements, read_attributes, read_tokens
from novelgpt.corpus.containers.sections import Block, Section, divide_at_headings
from novelgpt.messages import EXIT_INPUT, UserError

DOCUMENT = re.compile(r"word/document\d*\.xml")
STYLES = "word/styles.xml"
HEADING = re.compile(r"(?:heading|标题|標題)\s*([1-9])", re.IGNORECASE)
CONTENTS = re.compile(r"(?:toc|目录|目錄)\s*(?:[1-9]|heading|标题|標題)", re.IGNORECASE)
DROPPED = {"del", "movefrom", "fallback", "rt"}
IS_CONTENTS = 99  # the level of a line of a table of contents
SIGNS = {"tab": "\t", "br": "\n", "cr": "\n", "nobreakhyphen": "-"}
OFF = ("0", "false", "off")


def read_docx(data: bytes, name: str, decode: Callable[[bytes, str], str]) -> list[Section]:
    """Read a Word file.

    Args:
        data, name: the bytes of the file, and its name for messages.
        decode: from the bytes of a part and its name to its text.

    Raises:
        UserError: damaged, absurdly large, or without text.
    """
    with open_zip(data, name) as archive:
        members = dict(zip_entries(archive))
        path = next((path for path in members if DOCUMENT.fullmatch(path)), None)
        if path is None:
            raise UserError(f"{name}: a Word file without a document in it", "save it anew in Word", EXIT_INPUT)
        parts = {
            part: read_packed(archive, members[part], f"{name}/{part}") for part in (path, STYLES) if part in members
        }
        texts = {part: decode(data, f"{name}/{part}") for part, data in parts.items()}
    levels = read_levels(texts.get(STYLES, ""))
    if sections := divide_at_headings(list(read_blocks(texts[path], levels))):
        return sections
    raise UserError(f"{name}: a Word file without text, only pictures", "give the novel as text", EXIT_INPUT)


def read_levels(markup: str) -> dict[str, int]:
    """Map each style of a Word file to the level of its headings: 1 to 9, 0 for text, IS_CONTENTS.

    >>> read_levels('<w:style w:styleId="a1"><w:name w:val="heading 2"/></w:style>')
    {'a1': 2}
    """
    levels, parents, style = {}, {}, ""
    for kind, tag, value in read_tokens(markup):
        if kind != "start":
            continue
        attributes = read_attributes(value)
        word = attributes.get("val", "")
        if tag == "style":
            style = attributes.get("styleid", "")
            name_style(levels, style, style)
        elif tag == "name":
            name_style(levels, style, word)
        elif tag == "outlinelvl" and word.isdecimal() and levels.get(style) != IS_CONTENTS:
            levels[style] = (int(word) + 1) % 10  # level 9 is that of text
        elif tag == "basedon":
            parents[style] = word
    # a style that says nothing is like the one it is based on
    for style in parents:
        known, seen = style, set()
        while known not in levels and known in parents and known not in seen:
            seen.add(known)
            known = parents[known]
        levels.setdefault(style, levels.get(known, 0))
    return levels


def name_style(levels: dict[str, int], style: str, name: str) -> None:
    """Note the level of a style that its name says."""
    if match := HEADING.fullmatch(name):
        levels.setdefault(style, int(match[1]))
    elif CONTENTS.fullmatch(name):
        levels[style] = IS_CONTENTS


@dataclass
class Paragraph:
    """A paragraph that is being read."""

    parts: list[str] = field(default_factory=list)
    level: int = 0


def read_blocks(markup: str, levels: dict[str, int]) -> Iterator[Block]:
    """Yield the lines of all paragraphs, those of a table of contents left out; a heading is one line."""
    for text, level in read_paragraphs(markup, levels):
        if level != IS_CONTENTS:
            lines = text.split("\n") if level == 0 else [" ".join(text.split())]
            yield from (Block(line.strip(), level=level) for line in lines if line.strip())


def read_paragraphs(markup: str, levels: dict[str, int]) -> Iterator[tuple[str, int]]:
    """Yield the text of each paragraph with the level of its heading, 0 for text; a text box before what holds it."""
    stack, in_text, in_run, is_hidden = [], False, False, False
    for kind, tag, value in drop_elements(markup, DROPPED):
        if tag == "p":
            if kind == "start":
                stack.append(Paragraph())
            elif stack:
                done = stack.pop()
                yield "".join(done.parts).strip(), done.level
        elif not stack:
            continue
        elif tag == "r":
            in_run, is_hidden = kind == "start", False
        elif tag == "t":
            in_text = kind == "start"
        elif kind == "text" and in_text and not is_hidden:
            stack[-1].parts.append(value)
        elif kind != "start":
            continue
        elif tag in SIGNS and in_run:
            stack[-1].parts.append(SIGNS[tag])
        elif tag == "vanish" and in_run:
            is_hidden = read_attributes(value).get("val") not in OFF
        elif tag == "pstyle":
            stack[-1].level = levels.get(read_attributes(value).get("val", ""), 0)
        elif tag == "outlinelvl":
            level = read_attributes(value).get("val", "9")
            stack[-1].level = (int(level) + 1) % 10 if level.isdecimal() else 0
