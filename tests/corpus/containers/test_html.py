"""Pages of the web, made here, to their sections."""

import time

import pytest

from novelgpt.corpus.containers import is_html, read_html
from novelgpt.corpus.documents import decode_page
from novelgpt.messages import EXIT_INPUT, UserError

FIRST, SECOND = "他提着灯笼走了出去。", "天亮的时候雪停了。"
CHAPTER = f"""<!DOCTYPE html><HTML><HEAD><META charset=gb2312><TITLE>第一章_某某小说网</TITLE><style>p {{}}</style>
</HEAD><BODY><div class=nav><A HREF=/>首页</A> &gt; <A HREF=/xuanhuan/>玄幻</A> &gt; <A HREF=/1/>山村旧事</A></div>
<nav><p>全部分类</p></nav><h1>第一章 山村</h1><div id=content>&nbsp;&nbsp;&nbsp;&nbsp;{FIRST}<br><br>
&nbsp;&nbsp;&nbsp;&nbsp;{SECOND}<script>read("<p>字</p>")</script></div><select><option>大<option>小</select>
<p><a href=0.html>上一章</a> <a href=./>目录</a> <a href=2.html>下一章</a></p><footer>版权所有</footer></BODY></HTML>"""


def sections_of(data) -> list[tuple[str, str]]:
    """Return the sections of a page as pairs."""
    text = data if isinstance(data, str) else decode_page(data, "1.html")
    return [(section.title, section.text) for section in read_html(text, "1.html")]


@pytest.mark.parametrize("data", [CHAPTER, CHAPTER.encode(), CHAPTER.encode("gbk")], ids=["text", "UTF-8", "GBK"])
def test_of_the_page_of_a_chapter_the_story_is_left(data):
    assert sections_of(data) == [("第一章 山村", f"{FIRST}\n{SECOND}")]


def test_a_book_on_one_page_is_divided_at_its_headings_and_its_name_is_no_chapter():
    chapters = f"<h2>第一章</h2><p>{FIRST}</p><h2>第二章</h2><p>{SECOND}</p><h4>小节</h4><p>完。</p>"
    found = sections_of(f"<h1>山村旧事</h1><p>某人 著</p>{chapters}")
    assert found == [("", "山村旧事\n某人 著"), ("第一章", FIRST), ("第二章", f"{SECOND}\n小节\n完。")]
    volumes = f"<h1>第一卷</h1>{chapters}<h1>第二卷</h1><h2>第三章</h2><p>末。</p>"
    assert [title for title, _ in sections_of(volumes)] == ["第一卷 第一章", "第二章", "第二卷 第三章"]


def test_plain_text_with_the_ending_of_a_page_keeps_its_lines():
    lines = [f"第{number}天，{FIRST}" for number in range(300)]
    assert sections_of("<html><body>" + "\n".join(lines) + "</body></html>") == [("", "\n".join(lines))]


def test_links_in_the_story_are_story():
    text = "他说起了长安，那是很远的地方。"
    assert sections_of(f"<p>{text.replace('长安', '<a href=x>长安</a>')}</p>") == [("", text)]
    assert sections_of(f"<a href=x><p>{FIRST * 30}</p>") == [("", FIRST * 30)]  # a link that never ends


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("\n<!doctype HTML>", True),
        ("<?xml version='1.0'?>\n<html>", True),
        ("<!-- 存档 --><html lang=zh>", True),
        ("<他>走了", False),
        ("<p>第一章</p>", False),
        ("", False),
    ],
)
def test_a_page_is_told_by_its_beginning(text, answer):
    assert is_html(text) is answer


def test_a_page_of_links_is_refused_in_words():
    with pytest.raises(UserError) as caught:
        read_html("<p><a href=1>第一章</a></p>", "index.html")
    message = "index.html: a web page without text, only links or pictures"
    assert (caught.value.message, caught.value.hint) == (message, "save the page of a chapter")
    assert caught.value.code == EXIT_INPUT


BIG = 1 << 18
MONSTERS = {
    "one tag": "<div " + "a" * BIG + ">字",
    "tag without end": "字<div " + "a" * BIG,
    "quotes": "<a " + "'" * BIG + ">字",
    "brackets": "<" * BIG + "字",
    "tags without end": "<a" * BIG + "字",
    "comments without end": "<!--" * BIG + "字",
    "scripts without end": "<script>" * (BIG // 8) + "字",
    "nested": "<div>" * (BIG // 5) + "字",
    "spans": "<span>" * (BIG // 6) + "字",
    "doctypes": "<!DOCTYPE [" * (BIG // 11) + "字",
    "entities": "&" * BIG + "字",
    "number": "&#" + "9" * BIG + ";字",
    "blanks": "字" + " " * BIG + "字",
    "line breaks": "字" + "\r\n" * BIG + "字",
    "ruby": "<ruby>" * (BIG // 6) + "字" + "</ruby>" * (BIG // 7),
    "attributes": "<a " + "b=c " * (BIG // 4) + ">字",
    "cdata": "<![CDATA[" * (BIG // 9) + "字",
    "xml": "<?xml " * (BIG // 6) + "字",
    "links": "<a href=x>" * (BIG // 10) + "字",
    "sup": "<sup>字" * (BIG // 6),
}


@pytest.mark.parametrize("name", MONSTERS)
def test_a_monstrous_page_is_read_in_linear_time(name):
    began = time.process_time()
    try:
        assert any("字" in text for _, text in sections_of(MONSTERS[name]))
    except UserError as problem:
        assert problem.message.endswith("only links or pictures")
    assert is_html(MONSTERS[name]) is False
    assert time.process_time() - began < 1.5  # of 256 KB and more; quadratic time would be minutes


@pytest.mark.sweep
def test_fifty_megabytes_in_one_tag_take_seconds():
    text = "雪一直下到天亮。" * (50 << 20 >> 3)  # 50 million characters
    began = time.process_time()
    assert sections_of(f"<p>{text}</p>") == [("", text)]
    assert time.process_time() - began < 20
