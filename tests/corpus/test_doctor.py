"""The facts of a book, its verdict, and the report on the terminal, as JSON and as HTML."""

from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from novelgpt.corpus.books import CleaningOptions, Library
from novelgpt.corpus.doctor import Report, find_faults, list_numbers, report_path, terminal_lines
from novelgpt.corpus.report_html import html_page

STORY = "他推开门，外面下着雪，山路上一个人也没有。"
VOID = {"meta"}


class Strict(HTMLParser):
    """Collect tags and attributes; fail where a tag is closed that is not open."""

    def __init__(self):
        super().__init__()
        self.open, self.tags, self.links = [], Counter(), []

    def handle_starttag(self, tag, attributes):
        self.tags[tag] += 1
        self.links += [value for name, value in attributes if name in ("src", "href", "srcset", "xlink:href")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def write_novel(path, extra: str = "") -> None:
    chapters = [f"第{number}章 山村<b>\n{STORY * 3}{chr(0x4E00 + number)}\n" for number in (1, 2, 4)]
    path.write_text("".join(chapters) + "\x07" + extra + "\n(本章完)\n", encoding="utf-8")


def report_on(*paths, output="train.json") -> Report:
    library = Library(CleaningOptions())
    library.write([str(path) for path in paths], output)
    return Report(output, library.facts, library.left_out)


def test_faults_are_listed_the_worst_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("novel.txt").write_text(f"第1章\n{STORY}\n第3章 甲\n{STORY}\n第3章 乙\n{STORY}", encoding="utf-8")
    (facts,) = report_on("novel.txt").books
    # 25 + 27 + 27 characters, of which the story stands twice too often: 42
    assert find_faults(replace(facts, bad_bytes=2)) == [
        "2 bad bytes",
        "chapters missing: 2",
        "chapters repeated: 3",
        "53.2% of the text stands twice",
        "only 79 characters: a model soon knows it by heart",
    ]


def test_numbers_are_drawn_together():
    assert list_numbers([1, 2, 3, 7, 9, 10], limit=2) == "1–3, 7 …"


def test_the_terminal_report_of_one_book_is_about_fifteen_lines(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_novel(tmp_path / "novel.txt")
    lines = terminal_lines(report_on("novel.txt"))
    assert lines == [
        "novel.txt: UTF-8, strict UTF-8 without a fault; 233 characters read",
        "  cleaned: control characters 1",
        "  removed: U+0007 1",
        "  advertisements and site lines: end-of-chapter mark 1",
        "    line 8: (本章完)",
        "  chapters: 3 headings such as '第1章 山村<b>'",
        "  documents: 3, 74 to 74 characters, median 74",
        "  numbers: missing 3",
        "  outside GB2312: 2 characters of 2 kinds: 丂丄",
        "  verdict: usable: 3 chapters, 222 characters; look at: chapters missing: 3; "
        "only 222 characters: a model soon knows it by heart",
    ]


def test_many_books_take_one_line_each_and_twenty_at_most(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "books").mkdir()
    for number in range(23):
        write_novel(tmp_path / "books" / f"{number:02}.txt")
    lines = terminal_lines(report_on("books"))
    assert len(lines) == 22
    assert lines[20:] == ["… and 3 more books, all in the report", "verdict: 23 books: 0 good, 23 to look at"]


def test_the_page_is_well_formed_loads_nothing_and_escapes_what_the_book_says(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_novel(tmp_path / "novel.txt", extra="<script>alert(1)</script>Ж\nwww.example.com<img src=x>小说\n")
    page = html_page(report_on("novel.txt").to_json())
    parser = Strict()
    parser.feed(page)
    assert parser.open == [] and parser.links == []
    assert parser.tags["script"] == parser.tags["img"] == parser.tags["b"] == 0
    assert parser.tags["svg"] == 1 and parser.tags["rect"] == 3
    assert 'name="viewport"' in page and "http://" not in page and "https://" not in page
    assert "第1章 山村&lt;b&gt;: 74" in page
    assert "\\x07" in page and "\x07" not in page


@pytest.mark.parametrize("number", [600, 601, 2500])
def test_many_chapters_share_the_bars_of_the_picture(number):
    from novelgpt.corpus.report_html import draw_lengths

    page = draw_lengths([{"line": 1, "heading": "第1章", "characters": 10}] * number)
    assert page.count("<rect") == -(-number // -(-number // 600)) <= 600


def test_the_json_report_lies_beside_the_output():
    assert str(report_path("data/train.json")) == "data/train.report.json"
    assert str(report_path("corpus")) == "corpus.report.json"
