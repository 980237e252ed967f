"""A novel in one line is divided at its chapters, or at sentences; nothing of it is lost."""

import pytest
from conftest import read_novel

from novelgpt.corpus.chapters.families import rising_rows
from novelgpt.corpus.chapters.long_lines import break_lines
from novelgpt.corpus.chapters.splitting import split_chapters
from novelgpt.corpus.cleaning import clean_text

STORY = "他推开门，外面下着雪，山路上一个人也没有。"
NUMBERS = "一二三四五六七八九"


def write_chapters(count: int, *, title: str = " 雨夜来客 ", end: str = "") -> list[str]:
    """Return chapters of 2,100 characters and more, each with its heading and a title before the text."""
    return [f"第{NUMBERS[number]}回{title}{STORY * 100}{end}" for number in range(count)]


def test_a_novel_in_one_line_is_divided_at_its_headings():
    broken = break_lines(["序言。" + " ".join(write_chapters(6))], single=True)
    lines = broken.lines
    assert (broken.numbers, broken.starts) == ([1] * 13, {})
    assert lines == ["序言。", *(part for number in NUMBERS[:6] for part in (f"第{number}回 雨夜来客", STORY * 100))]
    assert len(split_chapters(lines).found) == 6


def test_a_title_of_two_halves_is_kept_and_one_without_a_gap_stays_in_the_text():
    titled = break_lines(["".join(write_chapters(6, title="　风雪夜　故人来　"))], single=True)
    assert titled.lines[2:4] == ["第二回　风雪夜　故人来", STORY * 100]
    chapters = write_chapters(6, title="")
    untitled = break_lines(["序言。", "".join(chapters)], single=True)
    assert untitled.lines == ["序言。", *chapters]
    assert (untitled.numbers, untitled.starts) == ([1, 2, 2, 2, 2, 2, 2], {index: index for index in range(1, 7)})
    split = split_chapters(untitled.lines, starts=untitled.starts)
    assert (split.documents, split.how) == (untitled.lines, "6 chapters whose headings run into the text")
    assert [(heading.text, heading.number) for heading in split.found] == [("", number) for number in range(1, 7)]


def test_a_table_of_contents_and_mentions_are_no_headings():
    contents = "".join(f"第{number}回 雨夜来客 " for number in NUMBERS[:6])
    chapters = write_chapters(6, end="此事见第二回。毕竟如何，且看第九回分解。")
    lines = break_lines([contents + "".join(chapters)], single=True).lines
    assert lines[0] == contents.strip()
    assert [line for line in lines[1:] if len(line) < 20] == [f"第{number}回 雨夜来客" for number in NUMBERS[:6]]


@pytest.mark.parametrize(
    ("places", "expected"),
    [
        ([(0, 1), (10, 2), (20, 3), (900, 1), (1800, 2), (2000, 1), (2700, 3)], [900, 1800, 2700]),
        ([(0, 1), (500, 2), (1000, 4), (1500, 5)], [0, 500, 1000, 1500]),  # the third is not found
        ([(0, 1), (500, 2), (1000, 3), (1500, 1), (2000, 2), (2500, 3), (3000, 4)], [*range(0, 3500, 500)]),  # volumes
        ([(0, 1), (500, 2)], []),  # two may be chance
        ([(0, 7), (500, 3), (1000, 9)], []),
        ([], []),
    ],
)
def test_headings_are_those_that_count_up(places, expected):
    assert [places[index][0] for index in rising_rows(places)] == expected


def test_a_long_text_without_chapters_is_broken_at_sentence_ends():
    line = "".join(f"{number}{STORY}" for number in range(1_000))
    lines = break_lines([line], single=True).lines
    assert "".join(lines) == line
    assert all(part.endswith("。") and 2_900 <= len(part) < 6_000 for part in lines)
    assert split_chapters(lines).how == "no chapter headings: split into 7 even parts"


def test_a_long_text_without_a_sentence_is_broken_anywhere():
    assert list(map(len, break_lines(["山" * 23_000], single=True).lines)) == [*[3_000] * 6, 5_000]


def test_paragraphs_and_elements_of_a_list_stay_whole():
    paragraphs = ["第一章 山", STORY * 400, "", STORY]  # 8,400 characters: a long paragraph
    assert break_lines(paragraphs, single=True).lines == paragraphs
    assert break_lines([STORY * 1_000], single=False).lines == [STORY * 1_000]
    assert break_lines(["第一章 山", "第二章 城", STORY * 1_000], single=True).lines[2:] == [STORY * 1_000]


@pytest.mark.parametrize(
    ("name", "count"),
    [("hongloumeng.gbk.txt", 120), ("qijian.big5.txt", 180), ("sanguo.utf8.txt", 120), ("xiyouji.utf16le.txt", 100)],
)
@pytest.mark.parametrize("gap", ["　　", " ", ""])
def test_every_chapter_of_a_real_novel_is_found_when_all_of_it_is_one_line(name, count, gap):
    documents = split_chapters(clean_text(read_novel(name)).lines).documents
    line = gap.join("\n".join(documents).split("\n"))
    broken = break_lines(clean_text(line).lines, single=True)
    found = split_chapters(broken.lines, starts=broken.starts or None).found
    assert [heading.number for heading in found] == list(range(1, count + 1))
    assert "".join("".join(broken.lines).split()) == "".join(line.split())
