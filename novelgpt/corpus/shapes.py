"""Values of JSON and CSV, in the shapes that crawlers write -> titled texts.

    ["第一章 …", "第二章 …"]                          texts without a title
    [{"title": "第一章 …", "content": "…"}, …]        also with a list of paragraphs as content
    [["第一章 …", "…"], …]                            a title and its text
    {"data": […]}, {"book": …, "chapters": […]}       a list of the above, whatever its key and what is beside it
    {"第一章 …": "…", "第二章 …": "…"}                titles as keys
    {"text": "…"}                                     one text, divided like a .txt

Keys count without their case, blanks, hyphens and underlines. A title becomes the first line of its text, unless the
text begins with it.
"""

import re
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from novelgpt.corpus.chapters import read_heading
from novelgpt.messages import EXIT_INPUT, UserError, printable, warn

# keys without case, blanks, hyphens and underlines, the likeliest first
TEXT_KEYS = ("text", "content", "contents", "body", "chaptercontent", "chaptertext", "chapterbody", "paragraphs")
TEXT_KEYS += ("正文", "内容", "內容", "章节内容", "章節內容", "文本")
TITLE_KEYS = ("title", "chaptertitle", "chaptername", "heading", "headline", "name", "chapter", "标题", "標題", "题目")
TITLE_KEYS += ("章节标题", "章節標題", "章节名", "章節名", "章节名称", "章節名稱", "章名", "章节", "章節")
FILLING = re.compile(r"[\s_-]")
NOT_A_WORD = re.compile(r"[\W_]+")
HAN = re.compile("[\u3400-\u9fff]")
JSON_TYPES = {dict: "an object", list: "a list", bool: "true or false", int: "a number", float: "a number"}
JSON_TYPES |= {str: "a string", type(None): "null"}
MAX_DEPTH = 8  # of lists and objects around the texts
MAX_TITLE = 100  # characters
LONG_TEXT = 100  # characters; a longer value is no author and no address
MAX_SHOWN, SHOWN_KEY = 8, 20  # keys in a message, and characters of each
LIST_HINT = 'write a list of strings: ["第一章 …", "第二章 …"]'
MIN_PARAGRAPHS, LONG_PARAGRAPH = 20, 300  # strings in a list, characters of the middle one


@dataclass(frozen=True)
class Section:
    """A part of a book as its file divides it, most often a chapter."""

    title: str  # "" where there is none
    text: str  # paragraphs divided by line breaks


@dataclass(frozen=True)
class Fields:
    """Where texts and titles are looked for."""

    name: str  # of the file, for messages
    text: str | None = None  # key or column that was asked for; None: any of TEXT_KEYS
    title: str | None = None  # the same of the title; "" for none


def plain_key(key: str) -> str:
    """Return a key as keys are compared.

    >>> plain_key("Chapter_Name")
    'chaptername'
    """
    return FILLING.sub("", key).lower()


def find_key(keys: Sequence[str], asked: str | None, usual: Sequence[str]) -> str | None:
    """Return the key that was asked for, spelled as it is there, or the first of the usual ones; None without.

    >>> find_key(["ID", "Content"], None, TEXT_KEYS)
    'Content'
    """
    if asked in keys:
        return asked
    plain = {plain_key(key): key for key in reversed(keys)}
    return next((plain[word] for word in ([plain_key(asked)] if asked else usual) if word in plain), None)


def find_sections(value: object, fields: Fields, place: str, depth: int = 0) -> list[Section]:
    """List the titled texts in a value of JSON.

    Args:
        value: of json.loads.
        fields: the keys to take.
        place: of the value in the file, for messages.
        depth: lists and objects around it.

    Raises:
        UserError: no texts in it, or something else where a text should be.

    >>> find_sections({"data": [{"Title": "第一章", "content": ["他走了。"]}]}, Fields("a.json"), "the whole file")
    [Section(title='第一章', text='他走了。')]
    """
    if isinstance(value, list):
        places = [f"{place}, item {index}" if depth else f"item {index}" for index in range(len(value))]
        return list_sections(value, places, fields, depth)
    if isinstance(value, dict):
        return object_sections(value, fields, place, depth)
    raise wrong_type(fields.name, place, value, "a list of strings")


def list_sections(items: list, places: Sequence[str], fields: Fields, depth: int = 0) -> list[Section]:
    """List the titled texts of a list: strings, objects, or lists of strings; places: of its items in the file."""
    objects = [item for item in items if isinstance(item, dict)]
    title_key = choose_title_key(objects, fields)
    if not title_key and (key := unused_titles(objects, fields)):
        warn(f"{fields.name}: {key!r} may be the titles, which are left out: --title_field {key} takes them")
    result = []
    for item, place in zip(items, places, strict=True):
        if isinstance(item, str):
            result.append(Section("", item))
        elif isinstance(item, list) and item and all(isinstance(part, str) for part in item):
            result.append(section_of_strings(item))
        elif isinstance(item, dict):
            result += object_sections(item, fields, place, depth + 1, title_key)
        else:
            raise wrong_type(fields.name, place, item, "a string or an object with a text")
    return result


def section_of_strings(parts: list[str]) -> Section:
    """Take a list of strings as title and paragraphs, or as paragraphs alone.

    >>> section_of_strings(["第一章", "他走了。"])
    Section(title='第一章', text='他走了。')
    """
    first = parts[0].strip()
    is_title = len(parts) > 1 and is_title_like(first) and (len(parts) == 2 or is_heading(first))
    return Section(first, "\n".join(parts[1:])) if is_title else Section("", "\n".join(parts))


def is_heading(text: str) -> bool:
    """Tell whether a line reads as the heading of a chapter."""
    return read_heading(text.strip()) is not None


def is_title_like(text: str) -> bool:
    """Tell whether a string may be a title: a short line."""
    return 0 < len(text) <= MAX_TITLE and "\n" not in text and not text.endswith(("。", "，", "？”", "！”", "。”"))


def choose_title_key(objects: Sequence[dict], fields: Fields) -> str | None:
    """Choose the key of the titles in a list of objects: the one asked for, or the first usual one whose values differ.

    A title that all objects share is the book's.

    >>> choose_title_key([{"title": "书", "chapter": "一"}, {"title": "书", "chapter": "二"}], Fields(""))
    'chapter'
    """
    if fields.title is not None:
        return next(filter(None, (find_key([*item], fields.title, ()) for item in objects)), None)
    values: dict[str, set[str]] = {}
    for item in objects:
        for key, value in item.items():
            if plain_key(key) in TITLE_KEYS and isinstance(value, str) and value.strip():
                values.setdefault(key, set()).add(value)
    found = [key for key, different in values.items() if len(different) > 1 or len(objects) == 1]
    return min(found, key=lambda key: TITLE_KEYS.index(plain_key(key)), default=None)


def object_sections(item: dict, fields: Fields, place: str, depth: int, title_key: str | None = None) -> list[Section]:
    """List the titled texts of an object: its own text, the texts of what it wraps, or those whose titles are keys."""
    if depth > MAX_DEPTH:
        raise UserError(f"{fields.name}: nested too deep", LIST_HINT, EXIT_INPUT)
    key = find_key([*item], fields.text, TEXT_KEYS)
    is_top = depth == 0
    title_key = title_key or (choose_title_key([item], fields) if is_top else None)
    title = item.get(title_key) if title_key else ""
    title = title if isinstance(title, str) else ""
    if key is not None and (text := text_of(item[key])) is not None:
        return [Section(title, text)]

    # a book or a volume: lists or objects with texts; a volume's title comes before its chapters
    if wrapped := wrapped_values(item):
        inner = [Section(title, "")] if title and not is_top else []
        inner_key = choose_title_key([value for _, value in wrapped if isinstance(value, dict)], fields)
        for name, value in wrapped:
            where = f"key {printable(name[:SHOWN_KEY])!r}"
            if isinstance(value, list):
                inner += find_sections(value, fields, where, depth + 1)
                continue
            sections = object_sections(value, fields, where, depth + 1, inner_key)
            is_named = len(sections) == 1 and not sections[0].title and HAN.search(name)
            inner += [Section(name, sections[0].text)] if is_named else sections
        return inner
    if key is not None:
        raise wrong_type(fields.name, f"{place}, key {key!r}", item[key], "a string")

    # titles as keys
    named = {} if fields.text else keyed_texts(item, is_top)
    if len(named) == 1 and not HAN.search(*named):
        return [Section("", *named.values())]
    if named:
        return [Section(name, text) for name, text in named.items()]
    if is_top and not fields.text:
        raise wrong_type(fields.name, place, item, "a list of strings")
    raise no_text_key(item, fields, place)


def text_of(value: object) -> str | None:
    """Return a string, or the paragraphs of a list, as one text; None where it is neither.

    >>> text_of(["他走了。", {"text": "天黑了。"}])
    '他走了。\\n天黑了。'
    """
    if value is None or isinstance(value, str):
        return value or ""  # null: a chapter that was not fetched
    if not isinstance(value, list):
        return None
    parts = []
    for part in value:
        if isinstance(part, dict) and not find_key([*part], None, TITLE_KEYS):
            part = part.get(find_key([*part], None, TEXT_KEYS))
        if not isinstance(part, str):
            return None
        parts.append(part)
    return "\n".join(parts)


def wrapped_values(item: dict) -> list[tuple[str, object]]:
    """List the values that hold the texts of a book or volume: beside them lie lists of tags and objects of facts."""
    weights = {key: weigh(value) for key, value in item.items() if isinstance(value, list | dict)}
    heaviest = max(weights.values(), default=0)
    lists = [key for key in weights if isinstance(item[key], list) and weights[key]]
    # objects by the number of a chapter all count; of several lists those that are not far smaller than the largest
    many = len(weights) > 2 and not lists
    chosen = [key for key, weight in weights.items() if weight and (many or 10 * weight >= heaviest)]
    return [(key, item[key]) for key in chosen]


def weigh(value: object, depth: int = 0) -> int:
    """Count the characters of all strings within a value, as deep as texts are looked for."""
    if isinstance(value, str):
        return len(value)
    if depth > MAX_DEPTH or not isinstance(value, list | dict):
        return 0
    return sum(weigh(part, depth + 1) for part in (value.values() if isinstance(value, dict) else value))


def keyed_texts(item: dict, is_top: bool) -> dict[str, str]:
    """Return the texts of an object whose keys are titles; facts about the book beside them are left out."""
    texts = {key: text for key, value in item.items() if value is not None and (text := text_of(value)) is not None}
    return {key: text for key, text in texts.items() if is_heading(key) or (is_top and len(text) > LONG_TEXT)}


def wrong_type(name: str, place: str, value: object, expected: str) -> UserError:
    """Make the error for a JSON value of the wrong type."""
    return UserError(f"{name}: {place}: found {JSON_TYPES[type(value)]}, expected {expected}", LIST_HINT, EXIT_INPUT)


def no_text_key(texts: Mapping[str, object], fields: Fields, place: str) -> UserError:
    """Make the error for an object, or a table's heading and first line (place: ""), without a known text key."""
    found = printable(", ".join(key[:SHOWN_KEY] for key in [*texts][:MAX_SHOWN]) or "no key")
    found += ", …" if len(texts) > MAX_SHOWN else ""
    expected = repr(fields.text) if fields.text else "'text' or 'content'"
    table = f"{fields.name}: found the columns {found}, expected {expected}"
    message = f"{fields.name}: {place}: found {found}, expected {expected}" if place else table
    # the longest value is the likeliest; a name that is no name is not shown
    lengths = {key: len(text) for key, text in texts.items() if isinstance(text, str) and len(key) <= SHOWN_KEY}
    path = fields.name.replace("standard input", "-")
    words = ["python", "clr_ctrl.py", path, "--field", max(lengths, key=lengths.get, default="text")]
    return UserError(message, shlex.join(words), EXIT_INPUT)


def join_title(section: Section) -> Section:
    """Write the title as the first line of the text, which may begin with it or with a fuller heading.

    >>> join_title(Section("山村", "第一章 山村\\n他走了。"))
    Section(title='第一章 山村', text='第一章 山村\\n他走了。')
    >>> join_title(Section("第一章 山村", "第一章　山村 他走了。")).text
    '第一章 山村\\n他走了。'
    """
    title, text = " ".join(section.title.split()), section.text
    if not title:
        return Section("", text)
    first, _, rest = text.lstrip().partition("\n")
    first = " ".join(first.split())
    bare, bare_first = NOT_A_WORD.sub("", title), NOT_A_WORD.sub("", first)
    if bare and (bare == bare_first or is_fuller(first, bare_first, title, bare)):
        title = max(title, first, key=len) if bare != bare_first else title
    elif bare and first.startswith(f"{title} "):
        rest = text.lstrip()[find_end(text.lstrip(), bare) :].lstrip(" \t\u3000")
    else:
        rest = text
    return Section(title, f"{title}\n{rest}" if rest.strip() else title)


def is_fuller(first: str, bare_first: str, title: str, bare: str) -> bool:
    """Tell whether a first line is the same heading as a title, one of them in fewer words."""
    return is_heading(first) and bool(bare_first) and (bare in bare_first or bare_first in bare)


def find_end(text: str, letters: str) -> int:
    """Return the place behind the last of these letters, which the text begins with, other signs between them aside."""
    place = 0
    for letter in letters:
        place = text.index(letter, place) + 1
    return place


def are_paragraphs(texts: Sequence[str]) -> bool:
    """Tell whether a list holds a string for each paragraph of one text: short lines, some of them headings.

    >>> are_paragraphs(["第一章", *["他走了。"] * 9] * 2), are_paragraphs(["第一章\\n他走了。"] * 20)
    (True, False)
    """
    if len(texts) < MIN_PARAGRAPHS or sum("\n" in text.strip() for text in texts) > len(texts) // 20:
        return False
    if sorted(map(len, texts))[len(texts) // 2] > LONG_PARAGRAPH:
        return False
    headings = sum(map(is_heading, texts))
    return 2 <= headings <= len(texts) // 2


def unused_titles(objects: Sequence[dict], fields: Fields) -> str | None:
    """Return a key beside the texts whose short values differ and hold words, as titles do.

    >>> unused_titles([{"题": "山村", "text": "他走了。"}, {"题": "城", "text": "天黑了。"}], Fields("a.json"))
    '题'
    """
    if fields.title is not None or len(objects) < 2:
        return None
    texts = find_key([*objects[0]], fields.text, TEXT_KEYS)
    for key, count in Counter(key for item in objects for key in item).items():
        values = [item[key].strip() for item in objects if isinstance(item.get(key), str)]
        short = sum(HAN.search(value) is not None and is_title_like(value) for value in values)
        if key != texts and count == len(objects) and short > 0.9 * count and len(set(values)) > 0.9 * count:
            return key
    return None
