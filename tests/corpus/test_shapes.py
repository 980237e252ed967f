"""JSON and CSV in the shapes that crawlers write: every text with its title."""

import json
import shlex

import pytest

from novelgpt.corpus.books import CleanBook, CleaningOptions
from novelgpt.corpus.documents import join_paragraphs, read_documents
from novelgpt.messages import UserError

STORY = "山门外有人敲门，少年提着灯笼走了出去。"
OTHER = "老人已经走了，桌上只留下一把长剑。"
LONG = OTHER * 8  # longer than any fact about a book
PAIR = [("第一章 雨夜", STORY), ("第二章 天明", OTHER)]
BOTH = [f"{title}\n{text}" for title, text in PAIR]


def put(folder, name, content):
    """Write a file and return its path."""
    path = folder / name
    path.write_text(content if isinstance(content, str) else json.dumps(content, ensure_ascii=False), encoding="utf-8")
    return path


def records(title, text):
    """Return the two chapters as objects with these keys."""
    return [{title: heading, text: story} for heading, story in PAIR]


@pytest.mark.parametrize(
    "value",
    [
        records("title", "content"),
        records("title", "text"),
        records("chapterName", "chapterContent"),
        records("chapter_title", "body"),
        records("Name", "TEXT"),
        records("章节", "内容"),
        records("标题", "正文"),
        [{"title": title, "content": [{"text": text}]} for title, text in PAIR],
        [list(pair) for pair in PAIR],
        {"data": records("title", "content")},
        {"chapters": records("title", "content")},
        {"data": {"list": records("title", "content")}},
        {"book": "雨夜行", "author": "乔木", "tags": ["武侠", "古风"], "chapters": records("name", "content")},
        {"title": "雨夜行", "content": records("title", "content")},
        {"1": records("title", "text")[0], "2": records("title", "text")[1], "3": {"title": "第三章", "text": "完。"}},
        [{"title": "雨夜行", "chapter": title, "content": text} for title, text in PAIR],  # the book's title
        dict(PAIR),
        {"书名": "雨夜行", "作者": "乔木"} | dict(PAIR),
        {title: {"content": text} for title, text in PAIR},
        [{title: text} for title, text in PAIR],
    ],
    ids=lambda value: json.dumps(value, ensure_ascii=False)[:50],
)
@pytest.mark.parametrize("encoding", ["utf-8", "gb18030"])
def test_chapters_in_json_keep_their_titles(tmp_path, value, encoding):
    path = tmp_path / "a.json"
    path.write_bytes(json.dumps(value, ensure_ascii=False).encode(encoding))
    source = read_documents(path)
    assert source.documents[:2] == BOTH
    assert source.titles[:2] == [title for title, _ in PAIR]
    assert not source.is_whole


def test_paragraphs_of_a_list_are_lines(tmp_path):
    path = put(tmp_path, "a.json", [{"title": "第一章", "content": ["他走了。", "天黑了。"]}])
    assert read_documents(path).documents == ["第一章\n他走了。\n天黑了。"]


def test_volumes_come_before_their_chapters(tmp_path):
    value = [{"name": f"第{number}卷 风起", "chapters": records("title", "text")} for number in "一二"]
    path = put(tmp_path, "a.json", value)
    assert read_documents(path).titles == ["第一卷 风起", PAIR[0][0], PAIR[1][0], "第二卷 风起", PAIR[0][0], PAIR[1][0]]
    book = CleanBook(str(path), CleaningOptions())
    documents = list(book)
    assert [text.split("\n")[0] for text in documents] == [
        "第一卷 风起 第一章 雨夜", "第二章 天明", "第二卷 风起 第一章 雨夜", "第二章 天明",
    ]  # fmt: skip
    assert (book.facts.chapters, book.facts.volumes) == (4, 2)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", "\n".join(json.dumps(item, ensure_ascii=False) for item in records("title", "content"))),
        ("b.jsonl", "\n".join(json.dumps(pair, ensure_ascii=False) for pair in PAIR)),
        ("c.jsonl", json.dumps({"data": records("title", "content")}, indent=1, ensure_ascii=False)),
        ("a.csv", "title,content\n" + "".join(f'"{title}","{text}"\n' for title, text in PAIR)),
        ("b.csv", "id,章节,内容\n" + "".join(f'{n},{title},"{text}"\n' for n, (title, text) in enumerate(PAIR))),
        ("c.csv", "".join(f'{title},"{text}"\n' for title, text in PAIR)),
        ("d.csv", "".join(f'{n},{title},http://a.cn/{n},"{text}"\n' for n, (title, text) in enumerate(PAIR))),
        ("e.csv", "".join(f'"{text}",{title}\n' for title, text in PAIR)),
    ],
)
def test_lines_and_tables_keep_their_titles(tmp_path, name, content):
    source = read_documents(put(tmp_path, name, content))
    assert (source.documents, source.titles) == (BOTH, [title for title, _ in PAIR])


def test_a_title_is_not_repeated_where_the_text_begins_with_it(tmp_path):
    def first_lines(title, text):
        return read_documents(put(tmp_path, "a.json", [{"title": title, "text": text}])).documents[0].split("\n")[:2]

    assert first_lines("第一章 雨夜", f"第一章 雨夜\n{STORY}") == ["第一章 雨夜", STORY]
    assert first_lines("第一章 雨夜", f"\n　　第一章　雨夜\r\n\n{STORY}") == ["第一章 雨夜", ""]
    assert first_lines("雨夜", f"第一章 雨夜\n{STORY}") == ["第一章 雨夜", STORY]
    assert first_lines("第一章 雨夜", f"第一章\n{STORY}") == ["第一章 雨夜", STORY]
    assert first_lines("第一章 雨夜", f"第一章 雨夜 {STORY}") == ["第一章 雨夜", STORY]
    assert first_lines("第一章 雨夜", f"第二章 天明\n{STORY}") == ["第一章 雨夜", "第二章 天明"]
    assert first_lines("雨夜", f"雨夜里{STORY}") == ["雨夜", f"雨夜里{STORY}"]


def test_a_chapter_that_was_not_fetched_keeps_its_title(tmp_path):
    value = [*records("title", "content"), {"title": "第三章 远行", "content": None}]
    assert read_documents(put(tmp_path, "a.json", value)).documents == [*BOTH, "第三章 远行"]


@pytest.mark.parametrize("value", [{"text": "\n".join(BOTH)}, {"title": "雨夜行", "text": "\n".join(BOTH)}])
def test_one_text_in_an_object_is_divided_like_a_text_file(tmp_path, value):
    path = put(tmp_path, "a.json", value)
    assert read_documents(path).is_whole
    assert list(CleanBook(str(path), CleaningOptions()))[-2:] == BOTH


@pytest.mark.parametrize("name", ["a.json", "a.jsonl", "a.csv"])
def test_a_string_for_each_paragraph_becomes_one_text_with_chapters(tmp_path, name):
    chapters = [[f"第{number}章 雨夜", *[f"他走了{line}步。" for line in range(9)]] for number in range(1, 7)]
    lines = [line for chapter in chapters for line in chapter]
    if name == "a.json":
        content = json.dumps(lines, ensure_ascii=False)
    else:
        content = "\n".join(json.dumps(line, ensure_ascii=False) if name == "a.jsonl" else line for line in lines)
    path = put(tmp_path, name, content)
    assert read_documents(path).documents == lines  # a corpus is taken as it is
    assert list(CleanBook(str(path), CleaningOptions())) == ["\n".join(chapter) for chapter in chapters]


@pytest.mark.parametrize(
    "documents",
    [
        [f"第{number}章 雨夜\n{STORY}" for number in range(1, 40)],  # chapters
        [STORY] * 40,  # short texts without a heading
        [f"第{number}章 雨夜 {STORY * 20}" for number in range(1, 40)],  # chapters in one line
        ["第一章 雨夜", "他走了。"] * 5,  # too few to tell
    ],
)
def test_documents_are_not_taken_for_paragraphs(tmp_path, documents):
    source = read_documents(put(tmp_path, "a.json", documents))
    assert join_paragraphs(source) is source


def test_a_title_field_names_the_titles(tmp_path):
    value = [{"topic": title, "name": "乔木", "body": text} for title, text in PAIR]
    path = put(tmp_path, "a.json", value)
    assert read_documents(path, title_field="topic").documents == BOTH
    assert read_documents(path, title_field="").documents == [STORY, OTHER]
    path = put(tmp_path, "a.csv", "topic,body\n" + "".join(f'{title},"{text}"\n' for title, text in PAIR))
    assert read_documents(path, title_field="Topic", field="body").documents == BOTH
    with pytest.raises(UserError) as caught:
        read_documents(path, title_field="head")
    assert str(caught.value) == (
        f"error: {path}: --title_field head: no text has such a title\n\nhint: python clr_ctrl.py {path}"
    )


def test_titles_under_an_unknown_key_are_not_dropped_without_a_word(tmp_path, capsys):
    path = put(tmp_path, "a.json", [{"topic": title, "text": text, "url": "a.cn"} for title, text in PAIR])
    assert read_documents(path).documents == [STORY, OTHER]
    warning = f"warning: {path}: 'topic' may be the titles, which are left out: --title_field topic takes them\n"
    assert capsys.readouterr().err == warning


@pytest.mark.parametrize(
    ("name", "content", "message", "hint"),
    [
        (
            "a.json",
            [{f"a long name of a key {number}": "x" for number in range(30)}],
            "item 0: found " + ", ".join(["a long name of a key"] * 8) + ", …, expected 'text' or 'content'",
            "text",
        ),
        ("a.csv", "甲,乙\n1,他走了。\n", "found the columns 甲, 乙, expected 'text' or 'content'", "乙"),
        (
            "a.json",
            {"data": [{"story": "他走了。"}]},
            "key 'data', item 0: found story, expected 'text' or 'content'",
            "story",
        ),
    ],
)
def test_a_message_shows_only_the_beginnings_of_names(tmp_path, name, content, message, hint):
    path = put(tmp_path, name, content)
    with pytest.raises(UserError) as caught:
        read_documents(path)
    hint = shlex.join(["python", "clr_ctrl.py", str(path), "--field", hint])
    assert str(caught.value) == f"error: {path}: {message}\n\nhint: {hint}"


def test_an_object_without_texts_and_one_nested_too_deep_are_refused(tmp_path):
    path = put(tmp_path, "a.json", {"name": "雨夜行", "words": 3})
    with pytest.raises(UserError) as caught:
        read_documents(path)
    assert caught.value.message == f"{path}: the whole file: found an object, expected a list of strings"
    path = put(tmp_path, "b.json", '{"data":' * 12 + f'["{LONG}"]' + "}" * 12)
    with pytest.raises(UserError) as caught:
        read_documents(path)
    # so deep no text is looked for
    assert caught.value.message == f"{path}: the whole file: found an object, expected a list of strings"
