"""Advertisements and site lines go, story lines stay."""

import json

import pytest
from conftest import ROOT, read_novel
from hypothesis import given
from hypothesis import strategies as st

from novelgpt.corpus.cleaning import clean_text
from novelgpt.corpus.headings import dividing_headings, find_headings
from novelgpt.corpus.notices import Notice, find_dropped, find_notices, remove_notices

STORY = "他推开门，外面下着雪，山路上一个人也没有。"
# Read by eye: the two lines at the head, the line after each chapter, the footer. Golden; change only with the file.
CHUNFENG = [
    *(1, 2, 32, 124, 194, 239, 260, 318, 377, 414, 477, 518, 532, 616, 648, 701, 727, 753, 831, 898, 935, 979, 1042),
    *(1091, 1130, 1161, 1204, 1228, 1283, 1335, 1369, 1425, 1487, 1572, 1647, 1717, 1782, 1840, 1915, 1971, 2025, 2061),
    *(2086, 2152, 2209, 2273, 2315, 2376, 2395, 2431, 2491, 2538, 2597, 2692, 2747, 2813, 2832, 2850, 2878, 2903, 2931),
    *(2965, 2967),
]
# Title, blurb and rule at the head, menus of two pasted web pages, tail rule and download site; beside them 120 dates.
HONGLOUMENG = [1, 3, 4, 6, *range(1350, 1356), 1357, *range(3550, 3556), 3557, 3611, 3612]
FULL = {char: chr(ord(char) + 0xFEE0) for char in "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"}
LOOK_ALIKE = {"a": "а", "c": "с", "e": "е", "o": "о", "p": "р", "x": "х", "i": "і", "k": "κ", "t": "τ", "w": "ԝ"}


def read_lines(name: str) -> list[str]:
    return clean_text(read_novel(name)).lines


def notices_in(lines: list[str]) -> list[Notice]:
    """Find the notices of lines, beside the headings that are in them."""
    return find_notices(lines, {heading.line - 1 for heading in dividing_headings(find_headings(lines))})


def write_book(*inner: str, chapters: int = 1) -> list[str]:
    """A book of chapters with eight story lines above and below the inner lines."""
    lines = []
    for number in range(1, chapters + 2):
        story = [f"{number}{index}{STORY}" for index in range(8)]
        lines += [f"第{number}章 山村", *story, *(inner if number <= chapters else ()), *story]
    return lines


def texts(lines: list[str]) -> list[str]:
    return [notice.text for notice in notices_in(lines)]


def test_chunfeng_loses_its_63_advertisements_and_nothing_else():
    notices = notices_in(read_lines("chunfeng.utf8bom.txt"))
    assert [notice.line for notice in notices] == CHUNFENG
    assert {notice.kept for notice in notices} == {""}


def test_sanguo_loses_its_120_end_marks_and_nothing_else():
    assert texts(read_lines("sanguo.utf8.txt")) == ["(本章完)"] * 120


def test_xiyouji_loses_nothing():
    assert texts(read_lines("xiyouji.utf16le.txt")) == []


def test_qijian_loses_the_navigation_of_one_pasted_page():
    assert texts(read_lines("qijian.big5.txt")) == ["後一頁", "前一頁", "回首頁"]


def test_hongloumeng_loses_its_blurb_dates_menus_and_the_download_site():
    notices = notices_in(read_lines("hongloumeng.gbk.txt"))
    dates = [notice.line for notice in notices if notice.text.startswith("更新时间:2007-1-12 23:59:")]
    assert len(dates) == 120
    assert sorted({notice.line for notice in notices} - set(dates)) == HONGLOUMENG


def test_the_bundled_novel_loses_exactly_the_planted_lines():
    text = (ROOT / "data/sample/novel.txt").read_bytes().decode("gb18030")
    planted = json.loads((ROOT / "data/sample/dirt.json").read_text(encoding="utf-8"))["removed_lines"]
    assert texts(clean_text(text).lines) == planted


@pytest.mark.parametrize(
    "line",
    [
        "www.example.com",
        "http://www.example.com/book/12/",
        "ＷＷＷ．ｅｘａｍｐｌｅ．ｃｏｍ",
        "ｗ w ｗ . e x a m p l e . n e t 小 说 天 堂",
        "ԝԝԝ.ехаmрlе.соm 首发",
        "看书就到１６κ.Сn",
        "更多好书，请到 wap.example.org 下载",
        "更新时间：2012-03-04 11:22:33  本章字数：3021",
        "更新時間:2012-3-4 本章字數:3021",
        "(本章完)",
        "（本章未完，请看下一页）",
        "（未完待续）",
        "【本章完】",
        "上一页 目录 下一页",
        "上一章 | 返回目录 | 下一章",
        "首页 | 玄幻 | 武侠 | 言情 | 历史 | 排行",
        "最新章节请到本站免费阅读，无弹窗广告",
        "【手机用户请收藏本站，更新最快】",
        "PS：求月票，求推荐票！",
        "本書首發本站，請加入書架，最新章節免費閱讀",
    ],
)
def test_site_lines_go_in_the_middle_of_a_chapter(line):
    assert texts(write_book(line)) == [line]


@pytest.mark.parametrize(
    "line",
    [
        "“……”",
        "“好！”",
        "……",
        "“你去www.baidu.com上搜一下。”",
        "他打开电脑，登录www.baidu.com，找了半天也没有找到她。",
        "“最新章节什么时候更新？”她捧着手机阅读小说网站。",
        "他在小说网站上看最新章节，手机没电了。",
        "来源：江湖传闻",
        "品质：上品",
        "* * *",
        "＊＊＊＊＊＊＊＊",
        "第二天早上。",
        "未知胜负如何，且看下文分解。",
        "完",
        "他说OK，然后去买了一台iPhone。",
        "Dr. Net 和 Mr. Com 来了。",
        "wwwwwww",
        "哈哈哈哈哈哈",
    ],
)
def test_story_lines_stay_in_the_middle_of_a_chapter(line):
    assert texts(write_book(line)) == []


@pytest.mark.parametrize(
    "line",
    [
        "且听下回分解。",
        "未知胜负如何，且看下文分解。",
        "“……”",
        "“好！”",
        "诗曰：",
        "师父！师父！你快回来！",
        "这正是：",
    ],
)
def test_refrains_and_formulas_stay_at_the_end_of_every_chapter(line):
    lines = [part for number in range(1, 31) for part in (f"第{number}回 山村", chr(0x4E00 + number) + STORY, line)]
    assert texts(lines) == []


def test_a_line_at_the_border_of_many_chapters_goes_whatever_it_says():
    line = "天边一只小小鸟提醒您休息一下"
    lines = [part for number in range(1, 31) for part in (f"第{number}回", *[chr(0x4E00 + number) + STORY] * 9, line)]
    notices = notices_in(lines)
    assert [notice.text for notice in notices] == [line] * 30
    assert notices[0].reason == "recurs at the border of 30 chapters"


def test_an_address_inside_a_story_line_is_cut_out_and_the_line_stays():
    line = "他走了过去（ｗwW.exAmple.cOm），看见她站在雪里，很久没有说话，也没有回头。"
    (notice,) = notices_in(write_book(line))
    assert notice.kept == "他走了过去，看见她站在雪里，很久没有说话，也没有回头。"
    assert notice.reason == "address in a story line"


def test_an_address_in_a_heading_leaves_the_heading():
    lines = ["第一章 山村(www.example.com)", STORY, "第二章 城", STORY]
    assert notices_in(lines) == [Notice(1, lines[0], "address in a heading", "第一章 山村")]


@pytest.mark.parametrize(
    "line",
    [
        "本作品仅供读者预览,请在下载24小时内删除，不得用作商业用途；如果喜欢，请购买正版图书!",
        "《雪夜》电子版仅供试读，請在下載後24小時內刪除。",
        "喜欢这个故事的朋友请购买正版！",
    ],
)
@pytest.mark.parametrize("place", [1, -1])
def test_the_request_to_delete_the_file_goes_at_either_end_of_a_book(line, place):
    lines = write_book()
    lines.insert(place if place > 0 else len(lines), line)
    assert texts(lines) == [line]


@pytest.mark.parametrize(
    "line",
    ["他说过，借来的书要在24小时内还给她。", "商业街上卖正版书的铺子都关了门。", "内容简介写在书的背面，她没有看。"],
)
@pytest.mark.parametrize("place", [1, 9, -1])
def test_a_story_that_speaks_of_books_and_hours_stays(line, place):
    lines = write_book()
    lines.insert(place, line)
    assert texts(lines) == []


def test_title_and_blurb_before_the_first_chapter_go_up_to_a_rule_or_the_next_title():
    head = ["[雪夜 / 无名氏 著 ]", "", "书籍介绍:", "　一个少年上山的故事，讲了三代人。", "又名《山路》。"]
    lines = [*head, "------章节内容开始-------", "第一章 山村", *[STORY] * 9, "第二章 城", *[STORY] * 9]
    assert [(notice.line, notice.reason) for notice in notices_in(lines)] == [
        *[(1, "title of the file"), (3, "blurb"), (4, "blurb"), (5, "blurb"), (6, "rule line")]
    ]
    lines[5] = "前言"
    lines.insert(6, STORY)
    assert [notice.line for notice in notices_in(lines)] == [1, 3, 4, 5]
    labelled = ["【内容简介】少年上山。", "第一章 山村", *[STORY] * 9, "第二章 城", *[STORY] * 9]
    assert texts(labelled) == ["【内容简介】少年上山。"]


@pytest.mark.parametrize(
    "lines",
    [
        ["第一章 山村", "内容简介：", *[STORY] * 9, "第二章 城", STORY],  # behind the first heading
        ["内容简介：", *[STORY] * 99, "第一章 山村", STORY, "第二章 城", STORY],  # too long for a blurb
        ["内容简介：", *[STORY] * 9],  # no chapter at which it would end
        ["他写的内容简介：没有人看。", "第一章 山村", STORY, "第二章 城", STORY],
    ],
)
def test_what_may_be_the_story_is_no_blurb(lines):
    assert texts(lines) == []


def test_lines_are_dropped_by_text_and_by_expression():
    lines = ["求票！第一卷", "他走了。", "", "第二卷", "a.c", "abc"]
    dropped = find_dropped(lines, ("求票", "/^第.卷$/", "a.c"))
    assert [(notice.line, notice.reason) for notice in dropped] == [
        *[(1, "--drop 求票"), (4, "--drop /^第.卷$/"), (5, "--drop a.c")]
    ]
    assert remove_notices(lines, dropped) == ["", "他走了。", "", "", "", "abc"]


def test_rule_lines_go_next_to_headings_and_removed_lines_only():
    rule = "-" * 30
    lines = ["第一章", rule, STORY, rule, STORY, STORY, rule, "www.example.com", "第二章", STORY]
    assert [notice.line for notice in notices_in(lines)] == [2, 7, 8]


@given(st.data())
def test_a_disguised_domain_is_found_however_its_letters_are_written(data):
    name = data.draw(st.text("abcdefghiklmnoprstuvxyz", min_size=4, max_size=12))
    top = data.draw(st.sampled_from(["com", "net", "org", "cn"]))
    disguised = ""
    for char in f"www.{name}.{top}":
        forms = [char, char.upper(), FULL.get(char, char), LOOK_ALIKE.get(char, char)]
        disguised += data.draw(st.sampled_from(forms)) + data.draw(st.sampled_from(["", "", "", " ", "*", "-", "、"]))
    assert texts(write_book(disguised + "小.说")) == [disguised + "小.说"]


def test_removing_keeps_the_line_numbers():
    notices = [
        Notice(2, "(本章完)", "end-of-chapter mark"),
        Notice(3, "他www.a.com走", "address in a story line", "他走"),
    ]
    assert remove_notices(["第一章", "(本章完)", "他www.a.com走"], notices) == ["第一章", "", "他走"]
