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
# Title and rule at the head, menus of two pasted web pages, tail rule and download site; beside them 120 dates.
HONGLOUMENG = [1, 6, *range(1350, 1356), 1357, *range(3550, 3556), 3557, 3611, 3612]
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


def test_hongloumeng_loses_dates_menus_and_the_download_site_and_keeps_its_blurb():
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


def test_the_blurb_before_the_first_chapter_stays_and_the_line_that_names_the_file_goes():
    head = ["[雪夜 / 无名氏 著 ]", "", "内容简介:", "　一个少年上山的故事，讲了三代人。", "又名《山路》。"]
    lines = [*head, "------章节内容开始-------", "第一章 山村", *[STORY] * 9, "第二章 城", *[STORY] * 9]
    assert [(notice.line, notice.reason) for notice in notices_in(lines)] == [
        *[(1, "title of the file"), (6, "rule line")]
    ]


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


# A paragraph, what is stuck to it, and what stays: worked by hand.
@pytest.mark.parametrize(
    ("line", "kept"),
    [
        ("山路上没有人。<strong>小说txt下载Http://wWw.xuezhongshu.com/</strong>", "山路上没有人。"),
        ("雪下得很大，山路上看不见一个行人。首发网址 http://www.xuezhongshu.com", "雪下得很大，山路上看不见一个行人。"),
        (
            "雪下得很大，山路上看不见一个行人，首发网址ｈｔｔｐs://m.ｘuezhongshu.com",
            "雪下得很大，山路上看不见一个行人，",
        ),
        ("“天黑了，快走！”陈伯说。百度云搜索,搜小说就是方便 http://www.xuezhong.com", "“天黑了，快走！”陈伯说。"),
        ("陈伯看着天上的雪。请记住雪夜 最新章节 第65章 当众出丑网址：", "陈伯看着天上的雪。"),
        ("陈伯看着天上的雪。百镀一下“雪夜爪书屋”最新章节第一时间免费阅读。", "陈伯看着天上的雪。"),
        ("“天黑了！”请记住雪夜 最新章节 第6章 天黑了！网址：", "“天黑了！”"),
        ("陈伯坐在门口等着雪停。[雪中小说网]", "陈伯坐在门口等着雪停。"),
        (
            "逢上这种日子[雪-中 小 说 站会员转载 w ｗ w . ｘ ｚ L . c ｎ ]，下山的人才会很多。",
            "逢上这种日子，下山的人才会很多。",
        ),
        ("“走吧。”t,xt,小,说天,堂www、xuezhongshuotxt.net", "“走吧。”"),
        ("第九章 夜路【http://www.xuezhong.com】百度云搜索资源，搜小说，搜电影就是好用。", "第九章 夜路"),
        ("门开了！ ... ［本章未完，请点击下一页继续阅读！］", "门开了！"),
        ("门开了。（未完待续。如果喜欢这部作品，欢迎投推荐票、月票。）", "门开了。"),
        ("门开了。未完待续……", "门开了。"),
        ("门开了。<br/><br/>雪还在下。</p>", "门开了。\n雪还在下。"),
        ("陈<big>雪中书网</big>伯站<var></var>起来。", "陈伯站起来。"),
        ("门开了。<!--BookContent Start--><script>read(1);</script>", "门开了。"),
        ("[img]http://www.xuezhong.com/1.gif[/img]门开了，雪还在下。", "门开了，雪还在下。"),
    ],
)
def test_a_paragraph_loses_what_is_stuck_to_it_and_no_character_more(line, kept):
    assert [notice.kept for notice in notices_in(write_book(line))] == [kept]


@pytest.mark.parametrize(
    "line",
    [
        "一秒记住 http://www.xuezhongshu.com",
        "申明:本书由雪中网(www.xuezhong.com)自网络收集整理制作,仅供交流学习使用,版权归原作者所有,如果喜欢,请支持正版.",
        "t!xt-小说天\\堂 最新章节 免费阅读",
        "请记住本书首发域名：。雪中网手机版阅读网址：",
        "ps:书友们，推荐一款免费小说app，支持小说下载、听书、零广告。请您关注微信公众号：xuezhong 书友们快关注起来吧！",
        "<!--",
        "</tent>",
        "（求推荐票，求收藏！）",
    ],
)
def test_lines_of_sites_without_an_address_go_too(line):
    lines = write_book(line)
    lines[3] += "<tent>"  # a tag that the book closes is a tag
    assert [notice.text for notice in notices_in(lines) if not notice.kept] == [line]


@pytest.mark.parametrize(
    "line",
    [
        "恺撒打开浏览器输入“www.cassell.edu”。",
        "“www.cassell.org”，学院的网站，怎么也打不开。",
        "那天陈伯上http://www.hunter-union.com.cn/接了任务，再也没有回来。",
        "直播间里的观众纷纷打赏，月票和推荐票满天飞。",
        "“求你了，给我投一张月票！”",
        "贾里说，记住，先写收信人地址，再写收信人姓名，然后写寄信人地址。",
        "汪淼在地址栏中输入那个很容易记住的游戏网址，网页上显示了一行字。",
        "那群小伙子在那份报纸（小型无广告）上看到了这些消息。",
        "山村学会（http://www.xuehui.org），那里有全部的照片。",
        "半夜三更，山下传来狗叫，大家都醒了。",
        "陈伯手打着伞，动手打开了门。",
        "a<b，<小明>说，1<2>0。",
        "陈伯（山里的老人）在雪里站了很久。",
    ],
)
def test_stories_that_speak_of_sites_and_votes_keep_their_lines(line):
    assert texts(write_book(line)) == []


def test_a_name_written_into_many_sentences_is_cut_out_of_them():
    parts = ["雪下得", "他走过", "山路上", "门里的", "灯灭了"]
    lines = write_book(*[f"{part}学习园地手打很久很久，没有人说话。" for part in parts], "他动手打开门。")
    assert [(notice.kept, notice.reason) for notice in notices_in(lines)] == [
        (f"{part}很久很久，没有人说话。", "name in a sentence") for part in parts
    ]


def write_chapters(*inner: str, story: int = 40) -> list[str]:
    """Three chapters of that many story lines, the first with these lines at its end."""
    return [
        *["第一章 山村", *[STORY] * story, *inner],
        *["第二章 城", *[STORY] * story],
        *["第三章 河", *[STORY] * story],
    ]


def test_an_authors_note_goes_to_the_end_of_the_chapter():
    note = ["作者有话要说： 今天更新晚了。", "", "明天早上再写。", "晚安。"]
    assert texts(write_chapters(*note)) == [note[0], note[2], note[3]]
    assert {notice.reason for notice in notices_in(write_chapters(*note))} == {"author's note"}


def test_of_a_note_at_the_head_of_a_chapter_the_line_alone_goes():
    lines = write_chapters()
    lines.insert(1, "作者有话要说： 今天更新晚了。")
    assert texts(lines) == ["作者有话要说： 今天更新晚了。"]


def test_where_more_follows_a_note_than_notes_have_it_stays():
    follows = ["雪停了，陈伯推开门。"] * 90  # 900 characters behind 840 of the chapter
    assert texts(write_chapters("作者有话说：求评论。", *follows)) == ["作者有话说：求评论。"]


def test_a_note_ends_where_a_line_looks_like_a_heading():
    lines = write_chapters("作者有话要说： 晚安。", "☆、山村（二）", "雪停了。")
    assert texts(lines) == ["作者有话要说： 晚安。"]


def test_speech_about_an_authors_note_is_no_note():
    assert texts(write_chapters("“你看了作者有话要说吗？”陈伯问。", STORY)) == []


def test_postscripts_of_an_author_who_writes_them_often_go():
    lines = [part for n in range(1, 5) for part in (f"第{n}章", *[f"{n}{STORY}"] * 9, f"PS：记得喂猫{n}")]
    assert texts(lines) == [f"PS：记得喂猫{n}" for n in range(1, 5)]
    assert texts(lines[:22]) == []  # twice may be letters of a story


@pytest.mark.parametrize(
    ("heading", "kept"),
    [
        ("第一章 山村（求推荐票）", "第一章 山村"),
        ("第一章 山村（四更求收藏）", "第一章 山村"),
        ("第一章 山村（上）求票求订阅", "第一章 山村（上）"),
        ("第一章 山村 300钻石加更", "第一章 山村"),
        ("第一章 山村[雪中小说网]", "第一章 山村"),
    ],
)
def test_a_heading_loses_what_asks_for_votes_and_stays_a_heading(heading, kept):
    lines = [heading, *[STORY] * 9, "第二章 城（上）", STORY]
    assert [(notice.line, notice.kept) for notice in notices_in(lines)] == [(1, kept)]


def test_framed_notices_at_head_and_tail_go_and_a_motto_stays():
    framed, motto = "☆请勿用于商业行为，一切后果自负☆", "山高水长，后会有期。"
    lines = [framed, motto, *write_chapters(), motto, framed]
    assert texts(lines) == [framed, framed]


def test_a_box_around_the_name_of_a_site_goes():
    box = ["╔═══════════╗", "║ 雪中txt文学论坛 ║", "║ 欢迎光临 ║", "╚═══════════╝"]
    lines = [*box, *write_chapters()]
    assert texts(lines) == box
    table = ["┏ ┓", "┃ 1 2 ┃", "┗ ┛"]  # a figure of the story
    assert texts([*write_chapters(*table)]) == []


WORDS = [
    "他走了。",
    "“最新章节",
    "！”",
    "（求月票）",
    "www.abc.com ",
    "<p>",
    "手打",
    "[某小说网]",
    "…",
    "，",
    "3.5",
    "一秒记住",
    "（",
]


@given(st.lists(st.sampled_from(WORDS), min_size=1, max_size=12).map("".join))
def test_what_stays_of_a_line_are_its_characters_in_their_order(line):
    for notice in find_notices([line, STORY], set()):
        rest = iter(notice.text)
        assert all(char in rest for char in notice.kept if not char.isspace())


def test_removing_keeps_the_line_numbers():
    notices = [
        Notice(2, "(本章完)", "end-of-chapter mark"),
        Notice(3, "他www.a.com走", "address in a story line", "他走"),
    ]
    assert remove_notices(["第一章", "(本章完)", "他www.a.com走"], notices) == ["第一章", "", "他走"]


def test_a_heading_loses_what_a_site_says_behind_its_address_however_long_the_line_is():
    site = "【http://www.abcd58.com】一五八云盘搜索资源，搜小说，搜电影就是好用，快来看看最新章节吧，天天都有，永远免费"
    lines = ["第一章 山", STORY, f"第二章 水{site}", STORY]
    (notice,) = find_notices(lines, {0})
    assert (notice.line, notice.reason, notice.kept) == (3, "address in a heading", "第二章 水")
