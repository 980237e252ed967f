"""What a table of contents tells: which headings only list a chapter, and which plain lines begin one."""

import pytest

from novelgpt.corpus.chapters.contents import CONTENTS, listed_headings
from novelgpt.corpus.chapters.splitting import split_chapters

PAGE = "他推开门，外面下着雪，山路上一个人也没有。" * 20
TITLES = ["山村", "旅途", "重逢", "归来", "尾声"]


def body(titles: list[str]) -> list[str]:
    return [line for title in titles for line in (title, PAGE)]


def test_plain_titles_that_a_table_of_contents_names_divide_the_text_and_the_table_goes():
    chapters = split_chapters("\n".join(["书名", "目录", *TITLES, *body(TITLES)]))
    assert chapters.documents == ["书名", *(f"{title}\n{PAGE}" for title in TITLES)]
    gone = [(2, "目录"), *((number, title) for number, title in enumerate(TITLES, 3))]
    assert chapters.removed == [(line, text, CONTENTS) for line, text in gone]


def test_entries_with_pages_and_dots_or_a_subtitle_below_them_are_found():
    entries = [
        line for number, title in enumerate(TITLES) for line in (f"{title} …… {10 * number + 1}", f"{title}之后")
    ]
    found = listed_headings([*entries, *body(TITLES)])
    assert [heading.line for heading in found] == [1, 3, 5, 7, 9, 11, 13, 15, 17, 19]


@pytest.mark.parametrize(
    "lines",
    [
        [*TITLES, *TITLES, *([PAGE] * 9)],  # a list twice, without text between its lines
        [*TITLES[:3], *body(TITLES[:3])],  # three lines are too few
        ["谁？", "是我。", "“进来。”", "“好。”", PAGE, "谁？", "是我。", "“进来。”", "“好。”", PAGE],  # speech
        ["山村", "雨", "风", "雪", "河", PAGE, *body(["雪", "山村"])],  # most do not stand again in order
    ],
)
def test_other_lines_that_stand_twice_are_no_table_of_contents(lines):
    assert listed_headings(lines) == []
