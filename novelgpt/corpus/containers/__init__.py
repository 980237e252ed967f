"""E-books, office files and web pages -> sections of text; by the standard library alone.

markup     tags and texts of HTML and XML
sections   titles and paragraphs in reading order -> sections
epub       .epub, in the order of its spine, divided by its navigation
docx       .docx, divided by its headings
html       the paragraphs of a page; one of the web, without its menus

How bytes become text is told by whoever calls: the functions take a decoder.
"""

from novelgpt.corpus.containers.docx import read_docx
from novelgpt.corpus.containers.epub import read_epub
from novelgpt.corpus.containers.html import is_html, read_html

__all__ = ["is_html", "read_docx", "read_epub", "read_html"]
