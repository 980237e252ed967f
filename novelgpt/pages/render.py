r"""Plain values -> HTML pages of one hand, by the templates, styles and scripts beside this module.

    templates/base.html    the frame of every page: head, switch of language and colours, blocks title, style, body
    templates/tables.html  macros that more than one page uses
    static/common.css      colours for light, dark, paper and print, and what all pages are made of
    static/common.js       language, colours and data of a page; its own script stands behind it in the same element

A page is one file that opens from the disk and loads nothing from elsewhere: its policy allows one script, by its hash.
It holds Chinese and English, as pairs of elements of which one is shown. Whatever it says of a book goes through
Jinja2's autoescaping or, as data for the script, through JSON without a "<"; signs that would not be seen, or would
turn the writing round, are made visible on the way. A name that a template misspells is an error.
"""

import base64
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

import jinja2
from markupsafe import Markup

from novelgpt.languages import language, translate
from novelgpt.messages import printable

HOME = Path(__file__).parent
# marks that turn the writing round until they are closed, as the Unicode bidirectional algorithm has them
TURNING = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def make_visible(value: object) -> object:
    r"""Make the signs of a text visible that a reader would not see; markup and numbers stay as they are.

    >>> make_visible("<b>\x07\u202e"), make_visible(7)
    ('<b>\\x07\\u202e', 7)
    """
    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    return TURNING.sub(lambda found: f"\\u{ord(found[0]):04x}", printable(value))


def both(english: object, chinese: object) -> Markup:
    """Return a pair of texts, of which a page shows the one in its reader's language; both are escaped.

    >>> print(both("3 < 4", "三"))
    <span class="en" lang="en">3 &lt; 4</span><span class="zh" lang="zh-CN">三</span>
    """
    pair = make_visible(english), make_visible(chinese)
    return Markup('<span class="en" lang="en">{}</span><span class="zh" lang="zh-CN">{}</span>').format(*pair)


def word(text: str) -> Markup | str:
    """Return a word or sentence of the table of messages as a pair; by itself where both are the same."""
    chinese = translate(text, context="page")
    return text if chinese == text else both(text, chinese)


def named(text: str) -> Markup:
    """Return the attributes that name an element for who does not see it, in either language."""
    chinese = translate(text, context="page")
    return Markup('aria-label="{0}" data-en="{0}" data-zh="{1}"').format(make_visible(text), make_visible(chinese))


def embed(value: object) -> Markup:
    r"""Return a value as JSON that may stand in a page: no part of it ends the element, and its texts are visible.

    >>> print(embed({"title": "</script>\x07井", "nats": [0.5]}))
    {"title":"\u003c/script>\\x07井","nats":[0.5]}
    """
    text = json.dumps(visible_parts(value), ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return Markup(text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029"))


def visible_parts(value: object) -> object:
    """Return JSON values with every text made visible."""
    if isinstance(value, Mapping):
        return {make_visible(name): visible_parts(part) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [visible_parts(part) for part in value]
    return make_visible(value)


@cache
def read_static(*names: str) -> Markup:
    """Return styles or scripts one behind the other, as a page takes them in."""
    text = "\n".join((HOME / "static" / name).read_text(encoding="utf-8") for name in names)
    assert "</script" not in text and "<!--" not in text  # either would end the element it stands in
    return Markup(text)


def script_hash(script: str) -> str:
    """Return what a policy calls an inline script by.

    >>> script_hash("")
    'sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU='
    """
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def fill(
    template: str,
    *,
    scripts: Sequence[str] = (),
    styles: Sequence[str] = (),
    data: Mapping[str, object] | None = None,
    **values: object,
) -> str:
    """Return a page: a template filled with values, all of them escaped.

    Args:
        template: file name in templates/, of a page that extends base.html.
        scripts, styles: file names in static/, behind what all pages have.
        data: JSON values for the script by the id of their element, `page.data(id)` there.
        values: of the template.
    """
    script = read_static("common.js", *scripts)
    policy = f"default-src 'none'; script-src '{script_hash(script)}'; style-src 'unsafe-inline'; img-src data:"
    frame = {"script": script, "style": read_static("common.css", *styles), "data": data or {}, "language": language()}
    frame["policy"] = f"{policy}; base-uri 'none'; form-action 'none'"
    return environment().get_template(template).render(**values, **frame)


@cache
def environment() -> jinja2.Environment:
    """Return what finds and fills the templates."""
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HOME / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=make_visible,  # before escaping
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    made.filters |= {"thousands": "{:,}".format, "word": word, "named": named}
    made.globals |= {"both": both, "embed": embed}
    return made
