"""Markup (HTML, XHTML, XML) -> its tags and texts in order.

    <p id="a">他走了。<br/>  →  start p, text 他走了。, start br, end br

Books are full of pages that are nearly XHTML. ElementTree stops at the first `&nbsp;` or `<br>`; html.parser needs
quadratic time where tags do not end (20 s for 48 KB of `<a `, Python 3.11.7). One expression that never reaches past
the next `<` takes what a browser would take, in linear time.
"""

import re
from collections import Counter
from collections.abc import Iterator
from html import unescape

# a tag's name and attributes, also where a quote is missing; or a declaration
TAG = re.compile(r"""<(/?)([A-Za-z][\w:.-]*)((?:[^<>"']++|"[^"<]*"|'[^'<]*')*+|[^<>]*+)>|<[!?/][^<>]*>""")
# a declaration with entities of its own
DOCTYPE = re.compile(r"[^<]*+(?:<\?[^<>]*+>[^<]*+)?<!DOCTYPE[^\[>]*+\[[^\]]*+\]\s*+>", re.IGNORECASE)
ATTRIBUTE = re.compile(r"""(?<![\w:.-])([\w:.-]++)\s*+=\s*+(?:"([^"]*)"|'([^']*)'|([^\s"'>]+))""")
UNQUOTED = re.compile(r"=\s*[^\s\"'=<>]+$")  # <a href=/book/> does not end itself
LONG_NUMBER = re.compile(r"&#(?:[0-9]{8,}|[xX][0-9a-fA-F]{7,});?")
BLANKS = re.compile(r"[ \t\r\n\f\v\xa0]+")
WIDE = r"[\u2e80-\u9fff\uf900-\ufaff\uff00-\uffef\U00020000-\U0003ffff“”‘’…—]"
WRAPPED = re.compile(rf"(?<={WIDE})[ \t]*[\r\n][ \t\r\n]*(?={WIDE})")  # a line broken within Chinese has no blank there

RAW = ("script", "style", "title", "textarea")  # what is in them is no markup
LEFT_OUT = {*RAW, *"head template noscript svg iframe object audio video canvas select button rt rp rtc".split()}
NOTE = re.compile(r"type\s*=\s*.[^\"']*\b(?:foot|end|rear)?note")  # epub:type


def read_tokens(markup: str) -> Iterator[tuple[str, str, str]]:
    """Yield ("text", "", text), ("start", name, attributes) and ("end", name, ""), names without a namespace.

    An element that ends itself, `<br/>`, has ("end", "br", "/").

    >>> list(read_tokens("<w:t a='1'>1 < 2</w:t>"))
    [('start', 't', " a='1'"), ('text', '', '1 < 2'), ('end', 't', '')]
    """
    markup = without_comments(markup)
    head = DOCTYPE.match(markup)
    place = head.end() if head else 0
    for match in TAG.finditer(markup, place):
        if match.start() > place:
            yield "text", "", read_entities(markup[place : match.start()])
        place = match.end()
        if match[2]:
            name = match[2].lower().rpartition(":")[2]
            yield "end" if match[1] else "start", name, match[3]
            if match[3].endswith("/") and not match[1] and not UNQUOTED.search(match[3]):
                yield "end", name, "/"
    if place < len(markup):
        yield "text", "", read_entities(markup[place:])


def without_comments(markup: str) -> str:
    """Drop comments, and the marks around CDATA; what follows a comment that never ends stays."""
    markup = markup.replace("<![CDATA[", "").replace("]]>", "")
    first, *others = markup.split("<!--")
    # from the end: a mark without an end behind it is a comment only if a later one has an end
    parts, ends = [], False
    for part in reversed(others):
        _, end, rest = part.partition("-->")
        ends = ends or bool(end)
        parts.append(rest if ends else part)
    return first + "".join(reversed(parts))


def read_entities(text: str) -> str:
    """Put characters for `&nbsp;`, `&#x4e00;` and the like."""
    return unescape(LONG_NUMBER.sub("\ufffd", text)) if "&" in text else text


def read_attributes(value: str) -> dict[str, str]:
    """Return the attributes of a tag, names without a namespace.

    >>> read_attributes(' id="c1" epub:type="toc" href=a.html')
    {'id': 'c1', 'type': 'toc', 'href': 'a.html'}
    """
    found = ATTRIBUTE.findall(value)
    return {name.lower().rpartition(":")[2]: read_entities(a or b or c) for name, a, b, c in found}


def drop_elements(markup: str, names: set[str]) -> Iterator[tuple[str, str, str]]:
    """Yield the tokens outside of elements of these names and of notes; one that never ends is not dropped."""
    remaining = Counter(match[1].lower() for match in re.finditer(r"</(?:\w+:)?([A-Za-z]+)\s*>", markup))
    dropped, depth = "", 0
    for token in read_tokens(markup):
        kind, name, value = token
        remaining[name] -= kind == "end" and not value
        if dropped:
            if name == dropped and not (kind == "start" and dropped in RAW):
                depth += 1 if kind == "start" else -1
                dropped = dropped if depth else ""
        elif kind == "start" and remaining[name] > 0 and (name in names or is_note(name, value)):
            dropped, depth = name, 1
        else:
            yield token


def is_note(name: str, value: str) -> bool:
    """Say whether an element is a footnote, or a link to one, by what it says of itself."""
    return (name == "aside" and bool(NOTE.search(value))) or (name == "a" and "noteref" in value)


def join_text(parts: list[str]) -> str:
    """Join the texts of a paragraph as a browser shows them.

    >>> join_text(["他走了，\\n", "  她\\n来了  ", " A\\n\\tB。 "])
    '他走了，她来了 A B。'
    """
    text = WRAPPED.sub("", "".join(parts))
    return BLANKS.sub(" ", text).strip()
