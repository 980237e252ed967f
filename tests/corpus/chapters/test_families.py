"""Headings of every kind that books have, and lines that look like them: which of them begin a document.

The stories are invented. A chapter has 1,500 characters and more: paragraphs of 200 to 400, short lines among them.
"""

import random

import pytest

from novelgpt.corpus.books import CleanBook, CleaningOptions
from novelgpt.corpus.chapters.splitting import split_chapters

SENTENCES = [
    "他推开门，外面下着雪，山路上一个人也没有。",
    "老船夫把缆绳系在木桩上，回头望了望对岸的灯火。",
    "“你来得太迟了。”她放下茶盏，声音很轻。",
    "院子里的枣树落尽了叶子，只剩几颗干瘪的果子挂在枝头。",
    "没有人记得那口井是谁挖的，只知道井水从来不曾枯过。",
    "掌柜的拨了几下算盘，又抬起头来，打量着这个陌生的客人。",
    "马车在泥泞里走了整整一夜，天亮时才看见城墙的影子。",
    "少年握紧了手里的短刀，手心里全是汗。",
    "“再等一等，”父亲说，“等风停了我们就走。”",
    "远处传来几声狗吠，随即又安静下去，像什么都没有发生过。",
    "她把信折好，压在砚台底下，吹熄了灯。",
    "河面上的冰裂开一道长长的缝，发出低沉的响声。",
    "谁也没有料到，那个卖糖人的老头竟会先开口。",
    "雨点打在瓦上，起初稀疏，后来便连成了一片。",
    "他数了数身上的铜钱，刚好够买两个馒头和一碗热汤。",
    "巷子尽头的铁匠铺还亮着火光，锤声断断续续。",
]
SHORT = ["“嗯。”", "“谁？”", "没有人说话。", "她笑了笑。", "“走吧，”他说。", "雪停了。", "“你不懂。”", "一声枪响。"]
DIGITS = "零一二三四五六七八九"


def numeral(number: int) -> str:
    """Write a number below 1,000 as it is spoken: 十二, 二十, 一百零三, 一百一十八."""
    hundreds, tens, ones = number // 100, number // 10 % 10, number % 10
    text = f"{DIGITS[hundreds]}百" if hundreds else ""
    if tens:
        text += ("" if tens == 1 and not hundreds else DIGITS[tens]) + "十"
    elif hundreds and ones:
        text += "零"
    return text + (DIGITS[ones] if ones else "")


def write_story(seed: int, *, paragraphs: int = 6) -> list[str]:
    """Return the lines of a chapter, other ones for every seed: long paragraphs, a short line after some."""
    random_ = random.Random(seed)
    story = []
    for _ in range(paragraphs):
        size, text = random_.randint(200, 380), ""
        while len(text) < size:
            text += random_.choice(SENTENCES)
        story += [text, *random_.choices(SHORT, k=random_.randint(0, 2))]
    return story


def fill(lines: list[str], seed: int) -> list[str]:
    """Write another thing for {x} in lines."""
    return [line.replace("{x}", "刀酒船灯马信伞钟碗琴鞋盐"[seed % 12]) for line in lines]


def write_book(headings: list[str], *, gap: str = "\n", inside: list[str] = (), end: str = "") -> str:
    """Return a book with a chapter below each heading, the lines of `inside` in its middle, `end` as its last line."""
    lines = []
    for seed, heading in enumerate(headings):
        story = write_story(seed)
        lines += [heading, *story[:3], *fill(inside, seed), *story[3:], *filter(None, [end.format(numeral(seed + 1))])]
    return gap.join(lines)


def first_lines(text: str) -> list[str]:
    return [document.split("\n")[0] for document in split_chapters(text).documents]


def numbered(form: str, *, count: int = 12) -> list[str]:
    """Return headings with digits for {n}, {n:02d}, a Chinese number for {c}, ① for {o} and a title for {t}."""
    titles = ["孤灯夜雨", "渡口", "旧信", "雪满山", "铜钱", "断桥", "归人", "井边", "风停了", "长夜", "远客", "枣树"]
    return [
        form.format(n=number, c=numeral(number), o=chr(0x245F + number), t=titles[(number - 1) % 12])
        for number in range(1, count + 1)
    ]


FORMS = [
    # marks of 晋江
    "☆、第{o}章",
    "☆、{n:02d}",
    "☆、第{n}章 {t}",
    "☆、{n}{t}",
    # Chinese numbers without 第
    "{c} {t}江湖远",
    "{c}　{t}",
    "{c}、{t}",
    "（{c}）",
    "({c})",
    "（{c}）{t}",
    "{c}",
    "{c}回 {t}",
    "{c}章 {t}",
    "卷之{c}",
    "卷之{c} {t}",
    "卷{c}‧{t}",
    # digits
    "{n}.{t}",
    "{n}、第{c}章 {t}",
    "{n}|【{n:02d}】",
    "{n:02d}",
    "{n}",
    "【{n:02d}】",
    "{n:03d} {t}",
    "part{n} {t}",
    "chapter{n}",
    "Chapter {n} {t}",
    "CHAPTER {n}",
    "正文 {n}",
    "分节阅读 {n}",
    # 第 with other things around it
    "第 {c} 章",
    "第 {c} 章 {t}",
    "第{n}章、{t}",
    "第{n}章，{t}",
    "第{c}章 {t}。",
    "第{c}章 {t}，{t}，",
    "第{c}章落魄{t}",
    "第{n}章{t}队长？",
    "第{c}回合歡樓{t} 叔嫂相認",
    # what stands before it
    "章节目录 第{c}章 {t}",
    "文字 第{n}章 {t}",
    "第二部【青灯路】 第{c}章 【{t}】",
    "第五篇 某某 第{c}章 {t}",
    "第五篇 江州客 第{c}章 {t}",
    "第十八集第{n}章{t}",
    "某书 第{c}回",
    "某书2－水龙谣 第{c}回 {t}",
    "某书第{c}卷 {t}",
    "◆ 《某书之断桥》 第{c}回 {t} ◆",
    "## 某书 正文 第{n:02d}章 {t}",
]


@pytest.mark.parametrize("gap", ["\n", "\n\n"], ids=["solid", "spaced"])
@pytest.mark.parametrize("form", FORMS)
def test_every_kind_of_heading_begins_a_document(form, gap):
    headings = numbered(form)
    documents = split_chapters(write_book(headings, gap=gap)).documents
    assert documents == ["\n".join([heading, *write_story(seed)]) for seed, heading in enumerate(headings)]


def test_full_width_digits_and_a_comma_make_a_heading():
    headings = [f"第{chr(0xFF10 + number)}章，渡口" for number in range(1, 10)]
    assert first_lines(write_book(headings)) == headings


def test_headings_with_a_mark_need_no_number():
    headings = ["☆、替嫁（一）", "☆、替嫁（二）", "☆、归宁", "☆、旧信（上）", "☆、旧信（下）", "☆、渡口", "☆、风停了"]
    assert first_lines(write_book(headings)) == headings


def test_what_comes_before_the_first_heading_is_a_document_of_its_own():
    headings = numbered("{n}.{t}")
    front = "断桥旧事\n某某 著\n一个卖糖人的老头，和一口从来不曾枯过的井。"
    assert first_lines(front + "\n" + write_book(headings)) == ["断桥旧事", *headings]


@pytest.mark.parametrize("form", ["{n}、{t}", "{c} {t}", "☆、{n}", "（{c}）"])
def test_prologue_and_epilogue_stand_beside_numbers_without_a_unit(form):
    headings = ["楔子", *numbered(form), "尾声"]
    assert first_lines(write_book(headings)) == headings


@pytest.mark.parametrize("form", ["{n}.{t}", "{c} {t}", "章节目录 第{c}章 {t}", "☆、{n:02d}"])
def test_a_number_left_out_or_printed_twice_ends_no_family(form):
    headings = numbered(form, count=24)
    headings[9] = form.format(n=9, c="九", t="长夜")  # in the place of 10
    del headings[5]
    assert first_lines(write_book(headings)) == headings


def test_a_prefix_on_some_of_the_headings_hides_none():
    headings = numbered("第{c}章 {t}", count=24)
    for index in (0, 5, 6, 17):
        headings[index] = "章节目录 " + headings[index]
    assert first_lines(write_book(headings)) == headings


def test_one_title_that_begins_with_a_character_of_the_guard_is_no_gap():
    headings = numbered("第{n}章 渡口", count=12)
    headings[4], headings[8] = "第5章落魄书生", "第9章队长？"
    assert first_lines(write_book(headings)) == headings


@pytest.mark.parametrize(
    ("first", "form", "at", "odd"),
    [
        (50, "第{c}章 渡口", 58, "第五十八章落魄商人"),
        (160, "第{c}章 断桥", 169, "第一百六十九章分散支援"),
        (330, "第{n}章 归人", 335, "第335章队长？"),
        (110, "第{c}回 旧信 雪满山", 118, "第一百一十八回合歡樓叔嫂相認 枯井邊主僕重逢"),
    ],
)
def test_the_guard_against_rounds_yields_where_the_number_is_the_next(first, form, at, odd):
    headings = [form.format(n=number, c=numeral(number)) for number in range(first, first + 14)]
    headings[at - first] = odd
    assert first_lines(write_book(headings, inside=["第一回合 {x}赢了", "第二回合 {x}输了"])) == headings


def test_numbers_that_begin_again_in_every_part_divide_too():
    chapters = numbered("{c}", count=6) * 3
    for index, part in ((0, "第一部 渡口"), (6, "第二部 断桥"), (12, "第三部 归人")):
        chapters[index] = f"{part}\n{chapters[index]}"
    documents = split_chapters(write_book(chapters)).documents
    assert len(documents) == 18
    for seed, document in enumerate(documents):
        assert document.endswith("\n" + "\n".join(write_story(seed)))


@pytest.mark.parametrize("form", ["第{c}章 {t}", "第 {c} 章 {t}", "{c} {t}", "{n}.{t}"])
def test_a_table_of_contents_is_none_of_the_chapters_and_takes_none_with_it(form):
    headings = numbered(form)
    text = "断桥旧事\n目录\n" + "\n".join(headings) + "\n" + write_book(headings)
    long = [document for document in split_chapters(text).documents if len(document) > 500]
    assert long == ["\n".join([heading, *write_story(seed)]) for seed, heading in enumerate(headings)]


@pytest.mark.parametrize("end", ["（第{}回完）", "第{}回完", "第{}回 完", "【第{}回 终】"])
@pytest.mark.parametrize("form", ["第{c}回 {t}", "{c} {t}"])
def test_end_marks_begin_nothing(form, end):
    headings = numbered(form)
    documents = split_chapters(write_book(headings, end=end)).documents
    assert len(documents) == len(headings)
    for seed, (heading, document) in enumerate(zip(headings, documents, strict=True)):
        assert document.startswith("\n".join([heading, *write_story(seed)]))  # the mark may be taken out


@pytest.mark.parametrize("form", ["第{n}章 {t} ", "第{c}回 {t} ", "第{c}章 "])
def test_a_novel_in_one_endless_line_is_divided_at_its_headings(tmp_path, form):
    headings = numbered(form)
    path = tmp_path / "novel.txt"
    path.write_text("".join(h + "".join(write_story(seed)) for seed, h in enumerate(headings)), encoding="utf-8")
    documents = list(CleanBook(str(path), CleaningOptions()))
    assert ["".join(document.split()) for document in documents] == [
        "".join(heading.split() + write_story(seed)) for seed, heading in enumerate(headings)
    ]


# lines that look like headings, in the middle of every chapter; {x} is another thing in each
LISTS = {
    "a list with digits": ["1、带上{x}。", "2、带上火。", "3、看好{x}。"],
    "a list with points": ["1.带上{x}", "2.带上火", "3.看好{x}"],
    "a list in a letter": ["某某，见字如面：", "一", "{x}都好。", "二", "井水未枯。", "三", "{x}已收到。"],
    "a list with titles": ["一、{x}都好", "二、井水未枯", "三、{x}已收到"],
    "a list in brackets": ["（一）{x}都好；", "（二）井水未枯；", "（三）{x}已收到。"],
    "bare scene numbers": ["1", "他没有找到{x}。", "2", "她也没有睡。", "3", "{x}还在。"],
    "scenes of some length": ["（一）", *write_story(91)[:2], "（二）", "{x}还在。", *write_story(92)[:2]],
    "a poem": ["一渡寒江{x}满舟，", "二更灯火照城楼。", "三年不见{x}归处，", "四野风声入梦愁。"],
    "a poem of short lines": ["一{x}", "二客", "三更", "四{x}", "五湖"],
    "dates": ["1937年3月1日", "1937年3月2日", "三月三日 {x}", "3月4日，晴", "1937.3.5"],
    "years": ["1936", "{x}还在。", "1937", "1938"],
    "hours": ["10:30", "{x}还在。", "11:00", "十二点"],
    "days and firsts": ["第一，看好{x}。", "第二天", "第三日 {x}", "第四个人没有说话。"],
    "rounds": ["第一回合 {x}赢了", "第二回合 {x}输了", "第三回合，平手。"],
    "rules and lessons": ["第一章程", "{x}还在。", "第一节课", "第一部分人走了", "第一集团军", "第一卷起千堆{x}"],
    "dialogue": ["“第一章写完了？”", "“一。”", "“二。”", "“三！”", "“1、带上{x}，2、带上火。”"],
    "who speaks of chapters": ["第一章我已经看过了。", "第二章里说的{x}，就是它。", "第三回中已经说过{x}，此处不提。"],
    "notes": ["①{x}：物名。", "②断桥：桥名。", "[1]见{x}。", "[2]同上。"],
    "scores": ["1比0", "{x}还在。", "2比0", "3比1"],
    "parts of a form": ["姓名：{x}", "编号：01", "卷一宗二", "part of it", "chapter and verse"],
}


@pytest.mark.parametrize("form", ["第{c}章 {t}", "第{n}回 {t}", "{n}.{t}", "{c} {t}", "☆、{n}", "章节目录 第{c}章 {t}"])
@pytest.mark.parametrize("inside", LISTS.values(), ids=LISTS)
def test_what_looks_like_a_heading_inside_a_chapter_does_not_divide_it(form, inside):
    headings = numbered(form)
    assert first_lines(write_book(headings, inside=inside)) == headings


def test_a_round_whose_number_comes_next_is_still_no_chapter():
    headings = numbered("第{c}回 {t}")
    text = write_book(headings).replace("\n第五回 ", "\n第五回合 他赢了\n没有人说话。\n第五回 ")
    assert first_lines(text) == headings


@pytest.mark.parametrize("form", ["{n}.{t}", "{c} {t}", "第{c}章 {t}"])
@pytest.mark.parametrize(
    "lines",
    [
        ["月亮走", "我也走", "走到桥头", "桥不在", "走到河口", "河水流"],
        ["“谁？”", "“我。”", "门开了。", "“是你。”"],
        ["报数！", "一", "二", "三", "四"],
    ],
    ids=["song", "password", "roll call"],
)
def test_what_is_said_in_every_chapter_in_the_same_words_is_no_table_of_contents(form, lines):
    headings = numbered(form)
    assert first_lines(write_book(headings, inside=lines)) == headings
    without = [line for seed in range(8) for line in [*write_story(seed)[:4], *lines, *write_story(seed)[4:]]]
    assert min(map(len, split_chapters("\n".join(without)).documents)) > 1_000


def test_page_numbers_do_not_divide_chapters():
    headings = numbered("第{c}章 {t}")
    lines, page = [], 0
    for seed, heading in enumerate(headings):
        lines.append(heading)
        for line in write_story(seed):
            page += 1
            lines += [line, str(page)]
    assert first_lines("\n".join(lines)) == headings


@pytest.mark.parametrize("inside", LISTS.values(), ids=LISTS)
def test_a_book_without_headings_is_not_divided_at_what_looks_like_them(inside):
    lines = [line for seed in range(10) for line in write_story(seed)]
    for place in (77, 41, 7):  # of some 120 lines
        lines[place:place] = fill(inside, place)
    documents = split_chapters("\n".join(lines)).documents
    assert "\n".join(documents).split("\n") == lines  # nothing is lost
    assert min(map(len, documents)) > 1_000
    short = {line for place in (77, 41, 7) for line in fill(inside, place) if len(line) < 30}
    assert sum(document.split("\n")[0] in short for document in documents) <= 1  # a part may begin there by chance


@pytest.mark.parametrize("gap", ["\n", "\n\n"], ids=["solid", "spaced"])
def test_a_book_without_headings_becomes_pieces_that_end_with_a_line(gap):
    lines = [line for seed in range(12) for line in write_story(seed)]
    documents = split_chapters(gap.join(lines)).documents
    assert "\n".join(documents).split("\n") == lines
    assert all(1_500 <= len(document) <= 6_000 for document in documents)


def test_a_novel_in_one_endless_line_without_headings_becomes_pieces_that_end_with_a_sentence(tmp_path):
    text = "".join("".join(write_story(seed)) for seed in range(12))
    path = tmp_path / "novel.txt"
    path.write_text(text, encoding="utf-8")
    documents = list(CleanBook(str(path), CleaningOptions()))
    assert "".join(document.replace("\n", "") for document in documents) == text
    assert all(1_500 <= len(document) <= 6_000 and document.endswith(("。", "”")) for document in documents)


def test_a_diary_of_some_days_in_a_book_without_headings_does_not_divide_it():
    days = [line for day in range(1, 8) for line in (f"三月{numeral(day)}日 雪", "井水未枯。")]
    lines = [*write_story(1, paragraphs=30), *days, *write_story(2, paragraphs=30)]
    assert min(map(len, split_chapters("\n".join(lines)).documents)) > 1_000
