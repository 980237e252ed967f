"""Word files, made here, to their sections."""

import pytest
from containers_made import make_docx, make_zip

from novelgpt.corpus.containers import read_docx
from novelgpt.corpus.documents import decode_page
from novelgpt.messages import EXIT_INPUT, UserError

STYLES = (
    '<w:style w:styleId="1"><w:name w:val="heading 1"/></w:style>'
    '<w:style w:styleId="Heading2"/>'
    '<w:style w:styleId="own"><w:basedOn w:val="1"/><w:name w:val="我的标题"/></w:style>'
    '<w:style w:styleId="lvl"><w:pPr><w:outlineLvl w:val="1"/></w:pPr></w:style>'
    '<w:style w:styleId="cn"><w:name w:val="标题 3"/></w:style>'
    '<w:style w:styleId="TOCHeading"><w:basedOn w:val="1"/><w:outlineLvl w:val="9"/></w:style>'
    '<w:style w:styleId="TOC1"><w:name w:val="toc 1"/></w:style>'
)


def paragraph(text: str, style: str = "", more: str = "") -> str:
    """Return a paragraph of one run."""
    kind = f'<w:pPr><w:pStyle w:val="{style}"/>{more}</w:pPr>' if style or more else ""
    return f'<w:p>{kind}<w:r><w:t xml:space="preserve">{text}</w:t></w:r></w:p>'


def sections_of(body: str, styles: str = STYLES) -> list[tuple[str, str]]:
    """Return the sections of a Word file as pairs."""
    return [(section.title, section.text) for section in read_docx(make_docx(body, styles), "a.docx", decode_page)]


def test_headings_divide_the_text_by_their_styles_or_their_level():
    body = (
        paragraph("书名", "Title") + paragraph("第一卷", "1") + paragraph("第一章  山村", "lvl") + paragraph("他走了。")
    )
    body += paragraph("第二章", "Heading2") + paragraph("她来了。") + paragraph("第三章", "own") + paragraph("雪停了。")
    body += (
        paragraph("第四章", "cn")
        + paragraph("门开了。")
        + paragraph("尾声", "", '<w:outlineLvl w:val="0"/>')
        + paragraph("完。")
    )
    assert sections_of(body) == [
        ("", "书名"),
        ("第一卷 第一章 山村", "他走了。"),
        ("第二章", "她来了。"),
        ("第三章", "雪停了。"),
        ("第四章", "门开了。"),
        ("尾声", "完。"),
    ]


def test_without_headings_all_is_one_section():
    assert sections_of(paragraph("第一章 山村") + "<w:p/>" + paragraph("他走了。"), "") == [
        ("", "第一章 山村\n他走了。")
    ]


def test_runs_are_joined_and_breaks_tabs_and_entities_are_what_they_mean():
    body = (
        '<w:p><w:pPr><w:tabs><w:tab w:val="left"/></w:tabs></w:pPr><w:r><w:t>他</w:t></w:r><w:r><w:t>走</w:t><w:br/>'
        "<w:t>A</w:t><w:tab/><w:t>B</w:t><w:noBreakHyphen/><w:t>&lt;&#x4e00;&gt;</w:t></w:r></w:p>"
    )
    assert sections_of(body) == [("", "他走\nA\tB-<一>")]


@pytest.mark.parametrize(
    "left_out",
    [
        "<w:del><w:r><w:delText>旧</w:delText></w:r></w:del>",
        "<w:moveFrom><w:r><w:t>旧</w:t></w:r></w:moveFrom>",
        "<w:r><w:rPr><w:vanish/></w:rPr><w:t>旧</w:t></w:r>",
        "<w:r><w:instrText>PAGE</w:instrText></w:r>",
        '<w:r><w:footnoteReference w:id="2"/></w:r>',
        "<w:r><w:ruby><w:rt><w:r><w:t>旧</w:t></w:r></w:rt></w:ruby></w:r>",
    ],
)
def test_what_was_deleted_is_hidden_or_no_text_is_left_out(left_out):
    assert sections_of(f"<w:p><w:ins><w:r><w:t>新</w:t></w:r></w:ins>{left_out}<w:r><w:t>来</w:t></w:r></w:p>") == [
        ("", "新来")
    ]


def test_a_table_of_contents_is_left_out():
    assert sections_of(
        paragraph("目录", "TOCHeading")
        + paragraph("第一章 山村 1", "TOC1")
        + paragraph("第一章 山村", "1")
        + paragraph("他走了。")
    ) == [("第一章 山村", "他走了。")]


def test_cells_and_text_boxes_are_paragraphs_and_a_text_box_is_read_once():
    box = f"<w:txbxContent>{paragraph('框里')}</w:txbxContent>"
    choice = f"<mc:AlternateContent><mc:Choice>{box}</mc:Choice><mc:Fallback>{box}</mc:Fallback></mc:AlternateContent>"
    body = f"<w:tbl><w:tr><w:tc>{paragraph('甲')}</w:tc><w:tc>{paragraph('乙')}</w:tc></w:tr></w:tbl>"
    body += f"<w:p><w:r>{choice}</w:r><w:r><w:t>框外</w:t></w:r></w:p>"
    assert sections_of(body) == [("", "甲\n乙\n框里\n框外")]


@pytest.mark.parametrize(
    ("data", "message", "hint"),
    [
        (
            make_docx("<w:p><w:r><w:drawing/></w:r></w:p>"),
            "a.docx: a Word file without text, only pictures",
            "give the novel as text",
        ),
        (make_zip({"word/x.xml": ""}), "a.docx: a Word file without a document in it", "save it anew in Word"),
        (make_docx(paragraph("甲"))[:-30], "a.docx: damaged, or not whole", "fetch or pack it again"),
    ],
    ids=["pictures", "no document", "truncated"],
)
def test_a_word_file_without_text_is_refused_in_words(data, message, hint):
    with pytest.raises(UserError) as caught:
        read_docx(data, "a.docx", decode_page)
    assert (caught.value.message, caught.value.hint, caught.value.code) == (message, hint, EXIT_INPUT)
