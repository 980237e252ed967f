"""A page of the web -> its sections: menus, scripts and forms left out, divided at its headings."""

import re

from novelgpt.corpus.containers.markup import Page, decode_markup, is_menu
from novelgpt.corpus.containers.sections import Section, divide_at_headings
from novelgpt.messages import EXIT_INPUT, UserError

LOOKS_LIKE_HTML = re.compile(
    r"\s*(?:<\?xml[^<>]*>\s*)?(?:<!--.{0,1000}?-->\s*)*<(?:!DOCTYPE\s+html|html|head|body)\b", re.I | re.S
)
MENUS = ("nav", "footer", "aside")


def is_html(text: str) -> bool:
    """Say whether a text begins like a page of the web.

    >>> is_html("<!DOCTYPE html><html>"), is_html("<他>第一章")
    (True, False)
    """
    return bool(LOOKS_LIKE_HTML.match(text[:5000]))


def read_html(data: bytes | str, name: str) -> list[Section]:
    """Read a page of the web, or a book saved as one.

    Args:
        data: its bytes, whose encoding is told by what they say, or its text.
        name: its name for messages.

    Returns:
        The sections; a single heading above all of the text is the title of a single one.

    Raises:
        UserError: no text in it, or in no encoding that reads as Chinese.

    >>> read_html("<body><a href=/>首页</a><h1>第一章</h1><p>他走了。</p>", "1.html")
    [Section(title='第一章', text='他走了。')]
    """
    page = Page(data if isinstance(data, str) else decode_markup(data, name), MENUS)
    if sections := divide_at_headings([block for block in page.blocks if not is_menu(block)]):
        return sections
    raise UserError(
        f"{name}: a web page without text, only links or pictures", "save the page of a chapter", EXIT_INPUT
    )
