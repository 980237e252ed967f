"""Books made by other programs, pandoc and Calibre, read back as they were written. `make test-extras` runs this."""

import shutil
import subprocess

import pytest

from novelgpt.corpus.containers import read_docx, read_epub, read_html
from novelgpt.corpus.documents import decode_page
from novelgpt.corpus.headings import Section

pytestmark = pytest.mark.extras
BOOK = [
    Section("第一章 山村", "他提着灯笼走了出去。\n“谁？”他问，<没有人>回答 & 雪还在下。"),
    Section("第二章 A Letter", "天亮的时候雪停了。\nDear friend, 信上说，come home.\n她*笑*了，又哭了。"),
    Section("第三章", "門開了，𠮷田先生站在門外……"),
]


def run_program(*words: object) -> None:
    """Run a program; without it the test is skipped."""
    name = str(words[0])
    if shutil.which(name) is None:
        pytest.skip(f"{name} is not installed")
    subprocess.run([str(word) for word in words], check=True, capture_output=True, timeout=120)


@pytest.fixture
def source(tmp_path):
    """The book in Markdown."""
    path = tmp_path / "book.md"
    escaped = [(title, text.replace("<", r"\<").replace("*", r"\*").split("\n")) for title, text in map(astuple, BOOK)]
    path.write_text("\n\n".join(f"# {title}\n\n" + "\n\n".join(lines) for title, lines in escaped), encoding="utf-8")
    return path


def astuple(section: Section) -> tuple[str, str]:
    """Return title and text of a section."""
    return section.title, section.text


@pytest.mark.parametrize("kind", ["epub2", "epub3"])
def test_an_epub_of_pandoc_is_read_back_equal(kind, source, tmp_path):
    path = tmp_path / "book.epub"
    run_program(
        "pandoc", source, "--from=markdown-smart", f"--to={kind}", "--metadata=title:山村旧事", "--toc", "-o", path
    )
    assert read_epub(path.read_bytes(), "book.epub", decode_page) == BOOK


def test_a_word_file_of_pandoc_is_read_back_equal(source, tmp_path):
    path = tmp_path / "book.docx"
    run_program("pandoc", source, "--from=markdown-smart", "--toc", "-o", path)
    assert read_docx(path.read_bytes(), "book.docx", decode_page) == BOOK


def test_a_page_of_pandoc_is_read_back_equal(source, tmp_path):
    path = tmp_path / "book.html"
    run_program(
        "pandoc", source, "--from=markdown-smart", "--metadata=title:山村旧事", "--standalone", "--toc", "-o", path
    )
    assert read_html(path.read_text(encoding="utf-8"), "book.html")[-3:] == BOOK


@pytest.mark.parametrize("kind", ["epub", "docx"])
def test_a_book_of_calibre_is_read_back_equal(kind, source, tmp_path):
    page, path = tmp_path / "book.html", tmp_path / f"book.{kind}"
    chapters = [
        (title, text.replace("&", "&amp;").replace("<", "&lt;").split("\n")) for title, text in map(astuple, BOOK)
    ]
    body = "".join(f"<h1>{title}</h1>" + "".join(f"<p>{line}</p>" for line in lines) for title, lines in chapters)
    page.write_text(f"<html><meta charset=utf-8><body>{body}</body></html>", encoding="utf-8")
    run_program("ebook-convert", page, path)
    assert (read_epub if kind == "epub" else read_docx)(path.read_bytes(), path.name, decode_page) == BOOK
