"""Headings, tables of contents, volumes, and texts without any of them."""

import pytest
from conftest import read_novel

from novelgpt.corpus.chapters.splitting import ChapterNumbers, Chapters, check_numbers, split_chapters
from novelgpt.corpus.cleaning import clean_text
from novelgpt.corpus.headings import find_headings, parse_number, read_heading, volume_of

NOVELS = [
    ("hongloumeng.gbk.txt", 120, 1),
    ("xiyouji.utf16le.txt", 100, 0),
    ("qijian.big5.txt", 180, 2),
    ("sanguo.utf8.txt", 120, 0),
    ("chunfeng.utf8bom.txt", 60, 1),
]
STORY = "他推开门，外面下着雪，山路上一个人也没有。"


def numbers_of(chapters: Chapters) -> ChapterNumbers:
    return check_numbers((heading.number, volume_of(heading.text)) for heading in chapters.found)


def write_book(*headings: str) -> str:
    return "\n".join(f"{heading}\n{STORY}{heading}" for heading in headings)


@pytest.mark.parametrize(
    ("line", "number"),
    [
        ("第一回　甄士", 1),
        ("第1回　甄士", 1),
        ("第001回", 1),
        ("第　一　回　　灵根", 1),
        ("第 十一 回　　唐太宗", 11),
        ("第一〇〇回　　径回东土", 100),
        ("第一零零回", 100),
        ("第一一九回", 119),
        ("第一百一十九回", 119),
        ("第一百十九回", 119),
        ("上卷 第一回  甄士", 1),
        ("正文 第一回 山村", 1),
        ("第十三卷 v 第2040章 归来", 2040),
        ("第三卷　风起云涌　第１２章 归来", 12),
        ("第300章归来", 300),
        ("第1章", 1),
        ("第○七章 归来", 7),
        ("第两百廿三章 归来", 223),
        ("第卅章 归来", 30),
        ("第一千零二十四章", 1024),
        ("【第七章 归来】", 7),
        ("## 第七章 归来", 7),
        ("第十集 大結局", 10),
    ],
)
def test_headings_of_every_form_are_read(line, number):
    assert read_heading(line).number == number


@pytest.mark.parametrize(
    "line",
    [
        "第四回中既将薛家母子在荣府内寄居等事略已表明，此回则暂不能写矣。",
        "第一部分，是最难的",
        "第一章，我们已经说过了",
        "第三回合",
        "第一节课",
        "“第一章”",
        "他翻开第一章",
        "第二章我们说到他：",
        "第一章" + "长" * 60,
        "第章 没有数字",
        "话说第一回",
    ],
)
def test_story_lines_are_no_headings(line):
    assert read_heading(line) is None


@pytest.mark.parametrize(
    "number", [1, 9, 10, 11, 20, 21, 99, 100, 101, 110, 111, 120, 999, 1000, 1001, 1010, 1100, 2040]
)
def test_numbers_are_read_in_both_chinese_notations(number):
    digits = "零一二三四五六七八九"
    positional = "".join(digits[int(digit)] for digit in str(number))
    text, zero = "", False
    for place, unit in ((1000, "千"), (100, "百"), (10, "十"), (1, "")):
        digit = number // place % 10
        if digit:
            text += ("零" if zero and text else "") + digits[digit] + unit
        zero = not digit
    assert parse_number(positional) == parse_number(text) == number


def test_front_matter_is_a_document_of_its_own():
    chapters = split_chapters("九井灵潮\n某某著\n\n" + write_book("第一章 山村", "第二章 城"))
    assert chapters.documents == [
        "九井灵潮\n某某著",
        f"第一章 山村\n{STORY}第一章 山村",
        f"第二章 城\n{STORY}第二章 城",
    ]
    assert chapters.lines == [1, 4, 6]
    assert [heading and heading.number for heading in chapters.headings] == [None, 1, 2]


def test_a_table_of_contents_is_removed_and_reported():
    names = ["第一章 山村", "第二章 城", "第三章 海", "第四章 岛"]
    chapters = split_chapters("目录\n" + "\n".join(names) + "\n\n" + write_book(*names))
    assert chapters.documents == [f"{name}\n{STORY}{name}" for name in names]
    assert chapters.removed == [(line, text, "table of contents") for line, text in enumerate(["目录", *names], 1)]


def test_contents_in_another_notation_than_the_body_are_recognised():
    contents = "\n".join(f"第{number:03}回　归来" for number in range(1, 4))
    chapters = split_chapters(contents + "\n" + write_book("第一回　归来", "第二回　归来", "第三回　归来"))
    assert len(chapters.found) == 3
    assert len(chapters.removed) == 3


def test_a_doubled_heading_leaves_one():
    chapters = split_chapters(f"第一章 山村\n第一章　山村\n{STORY}\n第二章\n第二章 城\n{STORY}")
    assert chapters.documents == [f"第一章 山村\n{STORY}", f"第二章 城\n{STORY}"]
    assert chapters.removed == [(2, "第一章　山村", "heading doubled"), (4, "第二章", "heading doubled")]


def test_two_long_chapters_of_one_name_are_both_kept_and_reported():
    chapters = split_chapters("\n".join(["第一章 山村", STORY * 30, "第一章 山村", STORY * 30, "第二章", STORY]))
    assert len(chapters.documents) == 3
    assert numbers_of(chapters).repeated == [1]


def test_a_volume_line_goes_in_front_of_the_heading_below_it():
    chapters = split_chapters(f"第一卷 风起\n\n第一章 山村\n{STORY}\n第二卷\n第一章 城\n{STORY}\n第二章 海\n{STORY}")
    assert [document.split("\n")[0] for document in chapters.documents] == [
        "第一卷 风起 第一章 山村",
        "第二卷 第一章 城",
        "第二章 海",
    ]
    assert numbers_of(chapters) == ChapterNumbers(volumes=2)


def test_a_volume_with_a_preface_is_a_document_of_its_own():
    chapters = split_chapters(f"第一章\n{STORY}\n第二卷 云涌\n{STORY}\n第二章\n{STORY}")
    assert chapters.documents[1] == f"第二卷 云涌\n{STORY}"
    assert len(chapters.found) == 2


def test_epilogues_without_a_number_are_chapters():
    chapters = split_chapters(write_book("第一章", "第二章", "尾声", "番外一 雪"))
    assert [heading.number for heading in chapters.found] == [1, 2, None, None]


def test_sections_inside_chapters_do_not_divide():
    chapters = split_chapters(write_book("第一章 山", "第一节 早晨", "第二节 晚上", "第二章 城", "第一节 早晨"))
    assert [heading.number for heading in chapters.found] == [1, 2]


def test_missing_repeated_and_misplaced_numbers_are_reported():
    chapters = split_chapters(write_book(*(f"第{number}章 {index}" for index, number in enumerate([1, 2, 5, 4, 5, 8]))))
    assert numbers_of(chapters) == ChapterNumbers(missing=[3, 6, 7], repeated=[5], out_of_order=[4])


def test_a_text_that_begins_in_the_middle_misses_nothing():
    assert numbers_of(split_chapters(write_book("第2040章 归", "第2041章 来"))).missing == []


def test_a_text_without_headings_is_split_at_rare_blank_lines():
    section = "\n".join([STORY] * 100)
    chapters = split_chapters("\n\n".join([section] * 6))
    assert chapters.documents == [section] * 6
    assert chapters.how == "no chapter headings: split at blank lines into 6 documents"


def test_where_every_second_line_is_blank_longer_gaps_count():
    section = "\n\n".join([STORY] * 100)
    chapters = split_chapters("\n\n\n\n".join([section] * 6))
    assert chapters.documents == ["\n".join([STORY] * 100)] * 6
    assert chapters.how == "no chapter headings: split at 2 or more blank lines into 6 documents"


def test_a_text_without_headings_and_gaps_is_split_into_even_parts_at_paragraph_ends():
    lines = [f"{number}{STORY}" for number in range(1_000)]
    chapters = split_chapters("\n\n".join(lines))
    assert "\n".join(chapters.documents).split("\n") == lines
    assert chapters.how == "no chapter headings: split into 8 even parts"
    lengths = [len(document) for document in chapters.documents]
    assert max(lengths) - min(lengths) < 100


def test_a_short_text_without_headings_stays_whole():
    assert split_chapters(f"{STORY}\n\n{STORY}").documents == [f"{STORY}\n{STORY}"]


def test_a_text_of_one_line_stays_whole():
    assert split_chapters(STORY * 1_000).how == "no chapter headings: kept as one document"


def test_elements_of_a_list_keep_their_borders():
    lines = ["前言", "第一章 山", STORY, "第二章 城", STORY, "后来的事"]
    chapters = split_chapters(lines, starts=[0, 5])
    assert chapters.documents == ["前言", f"第一章 山\n{STORY}", f"第二章 城\n{STORY}", "后来的事"]


def test_a_text_of_blanks_gives_nothing():
    assert split_chapters("\n\n").documents == []


@pytest.mark.parametrize(("name", "count", "front"), NOVELS)
def test_every_chapter_of_the_real_novels_is_found(name, count, front):
    lines = clean_text(read_novel(name)).lines
    chapters = split_chapters(lines)
    numbered = [heading.number for heading in chapters.found if heading.number is not None]
    assert numbered == list(range(1, count + 1))
    assert len(chapters.documents) == count + front
    assert [heading.text for heading in chapters.found if heading.number is None] == (["序"] if front == 2 else [])
    assert numbers_of(chapters) == ChapterNumbers()
    kept = {line for document in chapters.documents for line in document.split("\n")}
    dropped = {line for _, line, _ in chapters.removed}
    heads = {heading.text for heading in chapters.found}
    lost = {line for line in lines if line and line not in kept | dropped}
    assert all(any(head.startswith(line) or head.endswith(line) for head in heads) for line in lost)


def test_headings_of_a_table_of_contents_are_found_too():
    lines = ["第一章", "第二章", "第一章", "文", "第二章", "文"]
    assert [heading.line for heading in find_headings(lines)] == [1, 2, 3, 5]


def test_numbers_far_apart_list_the_first_thousand_that_are_missing():
    missing = check_numbers([(1, ""), (10**11, "")]).missing
    assert missing == list(range(2, 1002))
