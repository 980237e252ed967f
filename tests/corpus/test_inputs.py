"""Folders and archives to books: natural order, chapters of one book, what is left out and named."""

import gzip
import io
import json
import os
import tarfile
import zipfile
from pathlib import Path

import pytest
from containers_made import make_docx

from novelgpt.cli import run
from novelgpt.commands import clean
from novelgpt.corpus import inputs
from novelgpt.corpus.books import CleaningOptions, Library
from novelgpt.corpus.documents import read_corpus, read_documents, source_sha256
from novelgpt.corpus.grouping import natural_key
from novelgpt.corpus.inputs import find_inputs
from novelgpt.messages import UserError

STORY = "他推开门，外面下着雪，山路上一个人也没有，桥头那盏灯还亮着。"
NOVEL = "".join(f"第{number}章 山村\n{STORY}\n" for number in range(1, 4))


@pytest.fixture(autouse=True)
def work_in_tmp_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def put(name, content=NOVEL):
    """Write a file of text or bytes, and its folders."""
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Path(name).write_bytes(content if isinstance(content, bytes) else content.encode())


def put_zip(name, files):
    """Write an archive of texts or bytes."""
    with zipfile.ZipFile(name, "w") as archive:
        for inner, content in files.items():
            archive.writestr(inner, content)


def put_tar(name, files):
    """Write a packed archive of texts."""
    with tarfile.open(name, "w:gz") as archive:
        for inner, content in files.items():
            entry = tarfile.TarInfo(inner)
            entry.size = len(content.encode())
            archive.addfile(entry, io.BytesIO(content.encode()))


def chapter(number, title="雨夜"):
    """Write a chapter."""
    return f"第{number}章 {title}\n{STORY}{number}\n"


def first_lines(path, **options):
    """Return the first line of each document of a book."""
    return [text.split("\n")[0] for text in read_documents(path, **options).documents]


@pytest.mark.parametrize(
    "names",
    [
        ["1", "2", "9", "10", "11", "100"],
        ["第2章", "第9章", "第10章", "第100章"],
        ["第一章", "第二章", "第九章", "第十章", "第十一章", "第二十章", "第一百零三章"],
        ["序章", "第1章", "第2章", "尾声", "番外 一", "番外 二"],
        ["楔子", "一、山村", "二、城", "十、桥"],
        ["卷一 风起", "卷二 云涌", "卷十 归去"],
        ["斗破（上）", "斗破（中）", "斗破（下）"],
        ["上卷", "中卷", "下卷"],
        ["chapter 2 (1)", "chapter 2 (10)", "chapter 11 (1)"],
        ["vol01_001", "vol01_002", "vol02_001"],
        ["００１", "００２", "０１０"],
    ],
)
def test_names_are_in_the_order_a_reader_expects(names):
    shuffled = names[1::2] + names[::2]
    assert sorted(shuffled, key=natural_key) == names


def test_a_folder_of_novels_stays_one_in_natural_order(capsys):
    for name in ("10 雪.txt", "9 风.txt", "更多/2.jsonl", "更多/1.md"):
        put(f"books/{name}", json.dumps({"text": NOVEL}, ensure_ascii=False) if name.endswith("l") else NOVEL)
    expected = ["9 风.txt", "10 雪.txt", "更多/1.md", "更多/2.jsonl"]
    assert find_inputs(["books"]) == [f"books/{name}" for name in expected]
    assert find_inputs(["books/更多", "books/9 风.txt", "-"]) == [
        f"books/{name}" for name in (*expected[2:], expected[0])
    ] + ["-"]
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("encoding", ["utf-8", "gb18030", "utf-16"])
@pytest.mark.parametrize("packed", [False, True])
def test_a_folder_with_a_file_a_chapter_is_one_book(packed, encoding):
    for number in (1, 2, 3, 10, 11, 20):
        data = chapter(number).encode(encoding)
        put(f"雨夜行/{number}.txt{'.gz' * packed}", gzip.compress(data) if packed else data)
    assert find_inputs(["雨夜行"]) == ["雨夜行"]
    source = read_documents("雨夜行")
    assert source.titles == [f"第{number}章 雨夜" for number in (1, 2, 3, 10, 11, 20)]
    assert source.documents == [f"第{number}章 雨夜\n{STORY}{number}\n" for number in (1, 2, 3, 10, 11, 20)]
    assert source.decoded.encoding == {"utf-16": "utf-16-le"}.get(encoding, encoding)
    assert (source.kind, source.name) == ("folder", "雨夜行")


def test_the_folder_of_a_book_gives_one_report_with_all_its_chapters():
    for number in range(1, 13):
        put(f"雨夜行/{number}.txt", f"第{number}章 雨夜\n{STORY}\n")
    library = Library(CleaningOptions())
    library.write(["雨夜行"], "out.json")
    (facts,) = library.facts
    assert (facts.name, facts.chapters, facts.missing, facts.left_out) == ("雨夜行", 12, [], [])
    assert [text.split("\n")[0] for text in json.loads(Path("out.json").read_bytes())] == [
        f"第{number}章 雨夜" for number in range(1, 13)
    ]


def test_titles_come_from_the_first_line_or_the_name_of_the_file():
    names = ["01 山村.txt", "02_第2章 城.txt", "03.txt", "04 桥头.txt", "05 雪.txt"]
    texts = [STORY, STORY, f"第三章 灯\n{STORY}", f"桥头\n{STORY}", f"第5章 大雪\n{STORY}"]
    for name, text in zip(names, texts, strict=True):
        put(f"book/{name}", text)
    assert read_documents("book").titles == ["山村", "第2章 城", "第三章 灯", "桥头", "第5章 大雪"]
    assert first_lines("book") == ["山村", "第2章 城", "第三章 灯", "桥头", "第5章 大雪"]
    library = Library(CleaningOptions())
    library.write(["book"], "out.json")
    assert library.facts[0].chapters == 5


def test_names_without_numbers_are_chapters_by_their_first_lines():
    for number, name in enumerate("山城桥雪灯", 1):
        put(f"book/{name}.txt", chapter(number))
    assert find_inputs(["book"]) == ["book"]
    assert first_lines("book") == [f"第{number}章 雨夜" for number in range(1, 6)]


def test_volumes_of_a_book_are_one_book_and_folders_of_books_are_several():
    for volume in ("第一卷 风起", "第二卷 云涌", "第十卷 归去"):
        for number in range(1, 7 if volume != "第十卷 归去" else 3):
            put(f"book/{volume}/{number}.txt", chapter(number))
    assert find_inputs(["book"]) == ["book"]
    assert first_lines("book") == [f"第{number}章 雨夜" for number in (*range(1, 7), *range(1, 7), 1, 2)]
    for name in ("雨夜行", "雪落青城"):
        for number in range(1, 7):
            put(f"books/{name}/{number}.txt", chapter(number))
    put("books/单本.txt")
    assert find_inputs(["books"]) == ["books/单本.txt", "books/雨夜行", "books/雪落青城"]


@pytest.mark.parametrize(
    "files",
    [
        {f"{number}.txt": NOVEL for number in range(1, 9)},  # short novels, each from chapter 1
        {f"{number}.txt": NOVEL * 900 for number in range(1, 9)},  # long ones
        {f"{number}.txt": chapter(number) for number in range(1, 5)},  # too few to tell
        {f"{name}.txt": STORY for name in "山城桥雪灯"},  # stories
    ],
)
def test_what_is_no_chapter_stays_a_book_of_its_own(files):
    for name, text in files.items():
        put(f"books/{name}", text)
    assert sorted(find_inputs(["books"])) == sorted(f"books/{name}" for name in files)


def test_what_cannot_be_read_is_left_out_and_named_once(capsys):
    for number in range(1, 21):
        put(f"book/{number}.txt", chapter(number) if number not in (3, 7) else b"")
    put("book/5.txt", b"%PDF-1.4\n" + b"\x00\xff" * 99)
    put("book/toc.json", json.dumps([{"name": "第1章", "path": "1.txt"}]))
    put("book/cover.jpg", b"\xff\xd8")
    put("book/README.md", "# book")
    os.symlink("nowhere", "book/21.txt")
    os.symlink("22.txt", "book/22.txt")
    os.symlink("..", "book/up")
    os.mkfifo("book/23.txt")
    assert run(clean.main, ["book", "--output", "out.json"]) == 0
    lines = capsys.readouterr().err.split("\n")
    warnings = sorted(line for line in lines if line.startswith("warning"))
    assert warnings == [
        "warning: left out, beside the chapters of a book: book/toc.json",
        "warning: left out, cannot be read: book/21.txt, book/22.txt, book/23.txt",
        "warning: left out, links to folders: book/up",
        "warning: left out, no kind of file that is read: book/cover.jpg",
        "warning: left out, no novels by their names: book/README.md",
        "warning: left out: book/3.txt: empty, expected a chapter",
        "warning: left out: book/5.txt: a PDF file, not text",
        "warning: left out: book/7.txt: empty, expected a chapter",
    ]
    (facts,) = json.loads(Path("out.report.json").read_bytes())["books"]
    assert (facts["documents"], len(facts["left_out"])) == (17, 3)
    assert "files left out: 3" in facts["verdict"]


def test_many_strangers_are_named_in_one_line(capsys):
    put("books/a.txt")
    for number in range(300):
        put(f"books/{number}.jpg", b"")
    assert find_inputs(["books"]) == ["books/a.txt"]
    shown = ", ".join(f"books/{number}.jpg" for number in range(5))
    assert capsys.readouterr().err == f"warning: left out, no kind of file that is read: {shown} and 295 more\n"


def test_many_books_that_cannot_be_read_are_named_in_a_few_lines(capsys):
    put("books/山.txt")
    for name in "abcdefghijklmnop":
        put(f"books/{name}.txt", b"")
    assert run(clean.main, ["books", "--output", "out.json"]) == 0
    warnings = [line for line in capsys.readouterr().err.split("\n") if line.startswith("warning")]
    assert warnings[0] == "warning: left out: books/a.txt: empty, expected the text of a novel"
    assert warnings[-1] == "warning: left out: 6 more files, all in out.report.json"
    assert len(warnings) == 11


def test_books_in_formats_that_are_not_read_are_left_out_with_the_command(capsys):
    put("books/a.txt")
    put("books/b.mobi", b"x" * 60 + b"BOOKMOBI")
    put("books/c.azw3", b"x" * 60 + b"BOOKMOBI")
    assert find_inputs(["books"]) == ["books/a.txt"]
    assert capsys.readouterr().err == (
        "warning: left out, a Kindle book (mobi, azw3): books/b.mobi, books/c.azw3; to read it: "
        "ebook-convert books/b.mobi books/b.txt  # from Calibre\n"
    )
    with pytest.raises(UserError) as caught:
        read_documents("books/b.mobi")
    assert str(caught.value) == (
        "error: books/b.mobi: a Kindle book (mobi, azw3), not text\n\n"
        "hint: ebook-convert books/b.mobi books/b.txt  # from Calibre"
    )


@pytest.mark.parametrize("put_archive", [put_zip, put_tar])
def test_novels_in_an_archive_are_books_of_their_own(put_archive, capsys):
    name = "books.zip" if put_archive is put_zip else "books.tar.gz"
    put_archive(name, {"乙.txt": NOVEL, "丙/甲.txt": NOVEL, "cover.jpg": "x", "README.txt": "x"})
    assert find_inputs([name]) == [f"{name}/乙.txt", f"{name}/丙/甲.txt"]
    assert sorted(capsys.readouterr().err.split("\n")) == [
        "",
        f"warning: left out, no kind of file that is read: {name}/cover.jpg",
        f"warning: left out, no novels by their names: {name}/README.txt",
    ]
    source = read_documents(f"{name}/丙/甲.txt")
    assert (source.documents, source.name, source.is_whole) == ([NOVEL], f"{name}/丙/甲.txt", True)
    assert list(read_corpus(name)) == [NOVEL, NOVEL]
    put("folder/单.txt")
    Path(name).rename(f"folder/{name}")
    assert len(find_inputs(["folder"])) == 3
    assert len(source_sha256("folder")) == 64


@pytest.mark.parametrize("put_archive", [put_zip, put_tar])
def test_an_archive_of_chapters_is_one_book(put_archive, monkeypatch):
    name = "book.zip" if put_archive is put_zip else "book.tgz"
    put_archive(name, {f"{number}.txt": chapter(number) for number in (10, 1, 2, 9, 3)})
    titles = [f"第{number}章 雨夜" for number in (1, 2, 3, 9, 10)]
    assert find_inputs([name]) == [name]
    assert read_documents(name).titles == titles
    put_archive(name, {f"雨夜行/{number}.txt": chapter(number) for number in (10, 1, 2, 9, 3)})
    assert find_inputs([name]) == [f"{name}/雨夜行"]
    assert read_documents(f"{name}/雨夜行").titles == titles
    # and from standard input
    data = Path(name).read_bytes()
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data)))
    assert read_documents("-").titles == titles


def test_what_is_in_a_file_counts_more_than_its_ending():
    put_zip("book.txt", {f"{number}.txt": chapter(number) for number in range(1, 6)})
    assert find_inputs(["book.txt"]) == ["book.txt"]
    assert len(read_documents("book.txt").documents) == 5
    put("packed.txt", gzip.compress(NOVEL.encode()))
    assert read_documents("packed.txt").documents == [NOVEL]
    put("page.txt", f"<!DOCTYPE html><html><body><h1>第一章 山村</h1><p>{STORY}</p></body></html>")
    assert read_documents("page.txt").documents == [f"第一章 山村\n{STORY}"]
    put("text.zip", NOVEL)
    assert read_documents("text.zip").documents == [NOVEL]
    put("text.epub", NOVEL)
    assert read_documents("text.epub").documents == [NOVEL]


def test_a_damaged_archive_in_a_folder_is_left_out_and_the_others_go_on(capsys):
    put("books/a.txt")
    put("books/b.zip", b"PK\x03\x04" + b"\x00" * 50)
    assert run(clean.main, ["books", "--output", "out.json"]) == 0
    (left,) = json.loads(Path("out.report.json").read_bytes())["left_out"]
    assert left["path"] == "books/b.zip" and left["error"].startswith("books/b.zip: ")
    assert f"warning: left out: {left['error']}\n" in capsys.readouterr().err


def test_web_pages_of_a_folder_are_the_chapters_of_a_book():
    for number in range(1, 7):
        put(
            f"site/{number}.html",
            f"<html><body><a href='/'>首页</a><h1>第{number}章 雨夜</h1><p>{STORY}</p></body></html>",
        )
    assert find_inputs(["site"]) == ["site"]
    assert first_lines("site") == [f"第{number}章 雨夜" for number in range(1, 7)]


def test_json_files_of_a_folder_are_the_chapters_of_a_book():
    for number in range(1, 13):
        put(f"book/{number}.json", json.dumps({"title": f"第{number}章 雨夜", "content": STORY}, ensure_ascii=False))
    assert find_inputs(["book"]) == ["book"]
    assert read_documents("book").titles == [f"第{number}章 雨夜" for number in range(1, 13)]


def test_chapters_too_short_for_their_encoding_are_read_together():
    texts = [f"第{number}章\n{STORY[:4]}" for number in range(1, 30)]
    for number, text in enumerate(texts, 1):
        put(f"book/{number}.txt", text.encode("gb18030"))
    put("book/30.txt", f"第30章\n{STORY}")
    source = read_documents("book")
    assert source.documents == [*texts, f"第30章\n{STORY}"]
    assert (source.decoded.encoding, source.decoded.reason) == ("mixed", "its files are in gb18030 and utf-8")


def test_bad_bytes_of_a_chapter_are_counted_at_their_place_in_the_book():
    data = [chapter(number).encode("gb18030") for number in range(1, 31)]
    data[4] = data[4][:-1] + b"\xff\n"
    for number, content in enumerate(data, 1):
        put(f"book/{number}.txt", content)
    decoded = read_documents("book").decoded
    assert (decoded.bad_bytes, decoded.bad_offsets) == (1, (sum(map(len, data[:5])) - 2,))


def test_a_folder_that_is_no_book_is_no_corpus_file():
    put("books/a.txt")
    with pytest.raises(UserError) as caught:
        read_documents("books")
    assert (
        str(caught.value)
        == "error: books: cannot be read: a folder, expected a file\n\nhint: give a file that can be read"
    )


def test_a_folder_is_hashed_by_names_and_contents_in_order():
    put("books/2.txt", "甲")
    put("books/10.txt", "乙")
    first = source_sha256("books")
    put("books/2.txt", "丙")
    second = source_sha256("books")
    Path("books/2.txt").rename("books/1.txt")
    assert len({first, second, source_sha256("books")}) == 3


def test_the_words_of_a_folder_without_novels():
    put("books/cover.jpg", b"x")
    with pytest.raises(UserError) as caught:
        find_inputs(["books"])
    assert str(caught.value) == (
        "error: books: nothing to read, expected at least one novel\n\n"
        "hint: put the novel there as .txt, .epub, .docx, .html, .json or .csv"
    )


@pytest.mark.sweep
def test_a_folder_of_100_000_files_takes_seconds_and_one_line(capsys):
    put("books/a.txt")
    for number in range(100_000):
        Path(f"books/{number}.jpg").touch()
    assert find_inputs(["books"]) == ["books/a.txt"]
    assert len(capsys.readouterr().err.split("\n")) == 2


def test_a_folder_without_rights_is_named(capsys, monkeypatch):
    put("books/a.txt")
    put("books/closed/b.txt")

    scan = os.scandir

    def refuse(path):
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied")
        return scan(path)

    monkeypatch.setattr(inputs.os, "scandir", refuse)
    assert find_inputs(["books"]) == ["books/a.txt"]
    assert capsys.readouterr().err == "warning: left out, cannot be read: books/closed\n"


def test_an_encoding_for_an_e_book_is_said_to_have_no_effect(capsys):
    Path("a.docx").write_bytes(make_docx("<w:p><w:r><w:t>他走了。</w:t></w:r></w:p>"))
    assert read_documents("a.docx", encoding="big5").documents == ["他走了。"]
    assert capsys.readouterr().err == "warning: a.docx: --encoding has no effect, its format says how it reads\n"
    read_documents("a.docx")
    assert capsys.readouterr().err == ""
