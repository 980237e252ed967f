"""E-books, office files, web pages and archives -> sections of text; by the standard library alone.

markup     tags and texts of HTML and XML
sections   titles and paragraphs in reading order -> sections
epub       .epub, in the order of its spine, divided by its navigation
docx       .docx, divided by its headings
html       the paragraphs of a page; one of the web, without its menus
archives   .zip and .tar, packed or not
"""

from novelgpt.corpus.containers.archives import FREE_BYTES, MAX_RATIO, Archive, file_kind
from novelgpt.corpus.containers.docx import read_docx
from novelgpt.corpus.containers.epub import read_epub
from novelgpt.corpus.containers.html import is_html, read_html
from novelgpt.corpus.containers.sections import Section

__all__ = [
    "FREE_BYTES",
    "MAX_RATIO",
    "Archive",
    "Section",
    "file_kind",
    "is_html",
    "read_docx",
    "read_epub",
    "read_html",
]
