"""EPUBs of every make, made here, to their sections."""

import pytest
from containers_made import make_epub, make_opf, make_zip, page

from novelgpt.corpus.containers import read_epub
from novelgpt.corpus.documents import decode_page
from novelgpt.corpus.headings import Section
from novelgpt.messages import EXIT_INPUT, UserError

FIRST, SECOND = "他提着灯笼走了出去。", "天亮的时候雪停了。"
TWO = {"1.xhtml": page(f"<p>{FIRST}</p>"), "2.xhtml": page(f"<p>{SECOND}</p>")}
POINTS = [("第一章 山村", "1.xhtml", []), ("第二章 天明", "2.xhtml", [])]
WHOLE = [Section("第一章 山村", FIRST), Section("第二章 天明", SECOND)]


def refusal(data: bytes) -> tuple[str, str]:
    """Return message and hint of the error that a file gives."""
    with pytest.raises(UserError) as caught:
        read_epub(data, "a.epub", decode_page)
    assert caught.value.code == EXIT_INPUT
    return caught.value.message, caught.value.hint


def sections_of(pages, points=(), **more) -> list[tuple[str, str]]:
    """Return the sections of an EPUB as pairs."""
    return [
        (section.title, section.text) for section in read_epub(make_epub(pages, points, **more), "a.epub", decode_page)
    ]


def test_pages_are_read_in_the_order_of_the_spine_with_the_titles_of_the_navigation():
    pages = dict(reversed(TWO.items()))
    spine = '<itemref idref="p1"/><itemref idref="p0"/>'
    assert read_epub(make_epub(pages, POINTS, spine=spine), "a.epub", decode_page) == WHOLE


def test_the_navigation_of_epub_3_goes_before_that_of_epub_2():
    links = '<ol><li><a href="1.xhtml">第一章 <b>山村</b></a></li><li><a href="2.xhtml">第二章 天明</a></li></ol>'
    landmarks = '<nav epub:type="landmarks"><ol><li><a href="2.xhtml">正文</a></li></ol></nav>'
    nav = page(f'{landmarks}<nav epub:type="toc">{links}</nav>')
    others = {"OEBPS/nav.xhtml": nav}
    items = '<item id="nav" href="nav.xhtml" properties="nav" media-type="application/xhtml+xml"/>'
    spine = '<itemref idref="nav"/><itemref idref="p0"/><itemref idref="p1"/>'
    data = make_epub(TWO, [("错", "1.xhtml", [])], others=others, items=items, spine=spine)
    assert read_epub(data, "a.epub", decode_page) == WHOLE


def test_a_title_without_a_link_stands_where_the_next_link_leads_to():
    nav = '<nav><ol><li><span>第一卷 风起</span><ol><li><a href="1.xhtml">第一章 山村</a></li></ol></li></ol></nav>'
    others = {"OEBPS/nav.xhtml": page(nav)}
    items = '<item id="nav" href="nav.xhtml" properties="nav" media-type="application/xhtml+xml"/>'
    assert sections_of(TWO, others=others, items=items) == [("第一卷 风起 第一章 山村", f"{FIRST}\n{SECOND}")]


def test_links_into_a_page_divide_it():
    body = f'<h2 id="a">一</h2><p>{FIRST}</p><a id="b"></a><p>{SECOND}</p><div id="c"><p>完。</p></div>'
    points = [("一", "1.xhtml#a", []), ("二", "1.xhtml#b", []), ("三", "1.xhtml#c", [])]
    assert sections_of({"1.xhtml": page(body)}, points) == [("一", FIRST), ("二", SECOND), ("三", "完。")]


def test_a_page_without_a_point_continues_and_one_before_all_points_has_no_title():
    pages = {"0.xhtml": page("<p>献给母亲。</p>"), **TWO}
    assert sections_of(pages, POINTS[:1]) == [("", "献给母亲。"), ("第一章 山村", f"{FIRST}\n{SECOND}")]


@pytest.mark.parametrize(
    "volume",
    ["<h1>第一卷　风起</h1>", "", '<img src="a.png" alt="卷一"/>', "<p>第一卷</p><p>风起</p>"],
    ids=["printed", "empty", "picture", "in two lines"],
)
def test_the_title_of_a_volume_without_text_goes_before_its_first_chapter(volume):
    pages = {"v.xhtml": page(volume), **TWO}
    points = [("第一卷 风起", "v.xhtml", POINTS), ("尾声", "2.xhtml#none", [])]
    assert sections_of(pages, points)[0] == ("第一卷 风起 第一章 山村", FIRST)


@pytest.mark.parametrize(
    ("heading", "title"),
    [
        ("<h2>第一章　山村</h2>", "第一章 山村"),
        ("<h2>第一章</h2><h3>山村</h3>", "第一章 山村"),
        ("<p>第一章：山村</p><p>第一章 山村</p>", "第一章 山村"),
        ("<p>第一章 山村 第一章 山村</p>", "第一章 山村"),
        ("<h1>第一章 山村（上）</h1>", "第一章 山村（上）"),
        ("<p>第一章 山村的早晨</p>", "第一章 山村的早晨"),  # the navigation cut it off
    ],
)
def test_a_title_that_the_page_repeats_is_there_once_and_as_full_as_it_is_printed(heading, title):
    assert sections_of({"1.xhtml": page(f"{heading}<p>{FIRST}</p>")}, POINTS[:1]) == [(title, FIRST)]


def test_text_that_begins_with_the_words_of_its_title_stays_and_a_title_on_the_line_goes():
    assert sections_of({"1.xhtml": page("<p>第一章山村里下雪了。</p>")}, POINTS[:1]) == [
        ("第一章 山村", "第一章山村里下雪了。")
    ]
    assert sections_of({"1.xhtml": page(f"<p>第一章 山村　　{FIRST}</p>")}, POINTS[:1]) == [("第一章 山村", FIRST)]


def test_a_title_is_recognized_with_other_variants_of_its_characters():
    pages = {"1.xhtml": page(f"<p>第八回　柴進門招天下客　林冲棒打洪教頭</p><p>{FIRST}</p>")}
    points = [("第八回　柴進門招天下客　林沖棒打洪教頭", "1.xhtml", [])]
    assert sections_of(pages, points) == [("第八回　柴進門招天下客　林沖棒打洪教頭", FIRST)]


def test_covers_contents_and_pages_of_pictures_give_nothing():
    links = "".join(f'<p><a href="{name}">{title}</a></p>' for title, name, _ in [*POINTS, ("后记", "3.xhtml", [])])
    listed = "<p>目录</p><p>第一章 山村</p><p>第二章 天明</p>"
    pages = {
        "cover.xhtml": page('<svg><title>封</title><image href="a.jpg"/></svg>'),
        "title.xhtml": page("<p>山村旧事</p><p>某人 著</p>"),
        "links.xhtml": page(f"<h1>目录</h1>{links}"),
        "listed.xhtml": page(listed),
        **TWO,
    }
    points = [("封面", "cover.xhtml", []), ("扉页", "title.xhtml", []), ("目录", "listed.xhtml", []), *POINTS]
    assert sections_of(pages, points) == [("第一章 山村", FIRST), ("第二章 天明", SECOND)]


def test_the_title_page_of_the_book_is_no_chapter():
    opf = make_opf(["title.xhtml", *TWO]).replace("<package>", "<package><dc:title>山村旧事</dc:title>")
    pages = {"title.xhtml": page("<h1>山村旧事</h1><p>某人 著</p>"), **TWO}
    for points in (POINTS, [("山村旧事", "title.xhtml", []), *POINTS]):
        for title_page in (pages, {**pages, "title.xhtml": page("<h1>山村旧事</h1>")}):
            assert (
                read_epub(make_epub(title_page, points, others={"OEBPS/content.opf": opf}), "a.epub", decode_page)
                == WHOLE
            )


def test_a_page_that_leads_to_one_chapter_only_is_the_title_of_a_volume():
    pages = {"v.xhtml": page("<h1>第一卷 风起</h1><p><a href='1.xhtml'>第一章 山村</a></p>"), **TWO}
    points = [("第一卷 风起", "v.xhtml", POINTS), ("完", "2.xhtml", [])]
    assert sections_of(pages, points)[0] == ("第一卷 风起 第一章 山村", FIRST)


def test_text_on_a_page_with_a_list_of_chapters_stays():
    links = "".join(f'<p><a href="1.xhtml">{title}</a></p>' for title in "甲乙丙丁")
    pages = {"1.xhtml": page(f"<h2>后记</h2><p>{FIRST}</p><p>小标题</p><p>{SECOND}</p>{links}")}
    assert sections_of(pages, [("后记", "1.xhtml", [])]) == [("后记", f"{FIRST}\n小标题\n{SECOND}")]


def test_a_navigation_that_is_not_finished_is_helped_by_the_first_lines_of_pages():
    long = "<p>" + "雪一直下到天亮。" * 4000 + "</p>"  # 32,000 characters
    pages = {"0.xhtml": page(long), **{f"{n}.xhtml": page(f"<p>第{n}章</p>{long}") for n in (1, 2)}}
    found = sections_of(pages, [("正文", "0.xhtml", [])])
    assert [(title, len(text)) for title, text in found] == [("正文", 32000), ("第1章", 32000), ("第2章", 32000)]
    short = {name: markup.replace(long, f"<p>{FIRST}</p>") for name, markup in pages.items()}
    text = f"{FIRST}\n第1章\n{FIRST}\n第2章\n{FIRST}"
    assert sections_of(short, [("正文", "0.xhtml", [])]) == [("正文", text)]


def test_what_is_read_by_the_way_comes_last():
    spine = '<itemref idref="p0" linear="no"/><itemref idref="p1"/>'
    assert sections_of(TWO, POINTS, spine=spine) == [("第二章 天明", SECOND), ("第一章 山村", FIRST)]


def test_names_are_found_whatever_way_they_are_written():
    pages = {"正文/第一章 a.xhtml": page(f"<p>{FIRST}</p>")}
    opf = make_opf(["%E6%AD%A3%E6%96%87/%E7%AC%AC%E4%B8%80%E7%AB%A0%20A.xhtml"])
    points = [("一", "./正文/../正文/第一章%20a.xhtml#x", [])]
    assert sections_of(pages, points, others={"OEBPS/content.opf": opf}) == [("一", FIRST)]


def test_markup_is_turned_into_paragraphs_as_a_reader_shows_them():
    body = """<div>他说：<br/>「走吧。」</div><p>  她
    <b>笑</b>了&nbsp;&amp;&#x4e00;A
    b </p><p><ruby>漢<rp>(</rp><rt>hàn</rt><rp>)</rp>字<rt>zì</rt></ruby></p>
    <table><tr><td>甲</td><td>乙</td></tr></table><ul><li>丙</li></ul><p>雪<sup><a href="#n">[1]</a></sup>停了。
    <a epub:type="noteref" href="#n">注</a></p><pre>一
二</pre><aside epub:type="footnote" id="n"><p>注解。</p></aside><script>if (a < b) x("</p>")</script><p>1 < 2 > 0</p>"""
    text = "他说：\n「走吧。」\n她笑了 &一A b\n漢字\n甲\n乙\n丙\n雪停了。\n一\n二\n1 < 2 > 0"
    assert sections_of({"1.xhtml": page(body)}) == [("", text)]


def test_markup_that_is_not_well_formed_loses_no_text():
    broken = (
        f"<html><head><title>x</title><body><p class='a>{FIRST}<p>她说：<好>&nbsp&hearts;<i>{SECOND}</p></div><p>末"
    )
    assert sections_of({"1.xhtml": broken}) == [("", f"{FIRST}\n她说：<好> ♥{SECOND}\n末")]


def test_elements_that_never_end_hide_nothing():
    pages = {
        f"{n}.xhtml": f"<body>{head}<p>{FIRST}</p>" for n, head in enumerate(("<script>", "<!-- ", "<rt>", "<svg>"))
    }
    assert sections_of(pages) == [("", "\n".join([FIRST] * 4))]


@pytest.mark.parametrize("encoding", ["gbk", "big5", "utf-8-sig", "utf-16"])
def test_pages_in_other_encodings_are_read(encoding):
    text = "他提著燈籠走了出去，天亮的時候雪停了。老人已經走了，桌上只留下一把長劍。" * 3
    markup = page(f"<p>{text}</p>").replace("?>", f' encoding="{encoding}"?>', 1)
    assert sections_of({"1.xhtml": markup.encode(encoding)}) == [("", text)]


def test_a_short_page_is_read_in_the_encoding_that_it_declares():
    short = '<?xml version="1.0" encoding="gbk"?><html><body><p>联通</p></body></html>'.encode("gbk")
    assert sections_of({"1.xhtml": short, "2.xhtml": TWO["2.xhtml"]}) == [("", f"联通\n{SECOND}")]


def test_without_a_spine_the_pages_come_in_natural_order_and_that_is_said(capsys):
    pages = {f"{n}.xhtml": page(f"<p>{n}。</p>") for n in (10, 9, 1)}
    assert sections_of(pages, spine="") == [("", "1。\n9。\n10。")]
    assert (
        "a.epub: an EPUB without a spine: its 3 pages are read in the order of their names" in capsys.readouterr().err
    )
    assert sections_of(pages, others={"META-INF/container.xml": None, "OEBPS/content.opf": None}) == [
        ("", "1。\n9。\n10。")
    ]


def test_missing_and_unreadable_pages_are_left_out_with_a_warning(capsys):
    pages = {**TWO, "3.xhtml": b"\x89PNG\r\n\x1a\n", "4.xhtml": b""}
    opf = make_opf(["0.xhtml", *pages])
    data = make_epub(pages, POINTS, others={"OEBPS/content.opf": opf})
    assert read_epub(data, "a.epub", decode_page) == WHOLE
    warning = "a.epub: 2 of 5 pages are missing or cannot be read: OEBPS/0.xhtml, OEBPS/3.xhtml"
    assert warning in capsys.readouterr().err


def test_names_in_gbk_are_read():
    # as Chinese Windows packs them: the bytes of the name are GBK and no flag says otherwise
    data = make_epub({"XXXX.xhtml": TWO["1.xhtml"]}, others={"OEBPS/content.opf": make_opf(["一章.xhtml"])})
    renamed = data.replace(b"XXXX", "一章".encode("gbk"))
    assert read_epub(renamed, "a.epub", decode_page) == [Section("", FIRST)]


def encryption(algorithm: str, name: str) -> dict[str, str]:
    """Return the file that says what is encrypted."""
    data = f'<EncryptionMethod Algorithm="{algorithm}"/><CipherData><CipherReference URI="{name}"/></CipherData>'
    return {"META-INF/encryption.xml": f"<encryption><enc:EncryptedData>{data}</enc:EncryptedData></encryption>"}


def test_a_book_with_drm_is_refused_and_obfuscated_fonts_are_not():
    aes = encryption("http://www.w3.org/2001/04/xmlenc#aes128-cbc", "OEBPS/1.xhtml")
    message = "a.epub: copy-protected (DRM): its pages are encrypted, and only the shop's reader opens them"
    assert refusal(make_epub(TWO, POINTS, others=aes)) == (message, "get it without protection")
    font = encryption("http://www.idpf.org/2008/embedding", "OEBPS/a.ttf")
    assert read_epub(make_epub(TWO, POINTS, others=font), "a.epub", decode_page) == WHOLE


def test_what_is_no_whole_epub_is_refused_in_words():
    data = make_epub(TWO, POINTS)
    damaged = ("a.epub: damaged, or not whole", "fetch or pack it again")
    assert refusal(data[:-100]) == damaged
    assert refusal(b"PK\x03\x04" + b"x" * 100) == damaged
    assert refusal(make_zip({"a.txt": "字"})) == ("a.epub: an EPUB without pages", "fetch it again")
    pictures = make_epub({"1.xhtml": page('<img src="a.png"/>')})
    assert refusal(pictures) == ("a.epub: an EPUB without text, only pictures", "give the novel as text")


def test_a_bomb_is_refused():
    data = make_zip({"mimetype": "application/epub+zip", "1.xhtml": b" " * (65 << 20)})
    found = refusal(data)
    hint = "unpack it yourself if it really is a book"
    assert found == ("a.epub: unpacks to more than 67,108,864 bytes, 100 times its size", hint)
