"""What is odd about a book, its facts, its verdict, and the report on the terminal and as JSON."""

from dataclasses import replace
from pathlib import Path

from novelgpt.corpus.books import CleaningOptions, Library
from novelgpt.corpus.doctor import (
    Report,
    find_faults,
    find_remarks,
    list_numbers,
    report_path,
    terminal_lines,
)

STORY = "他推开门，外面下着雪，山路上一个人也没有。"


def write_novel(path, extra: str = "") -> None:
    chapters = [f"第{number}章 山村<3\n{STORY * 3}{chr(0x4E00 + number)}\n" for number in (1, 2, 4)]
    path.write_text("".join(chapters) + "\x07" + extra + "\n(本章完)\n", encoding="utf-8")


def report_on(*paths, output="train.json") -> Report:
    library = Library(CleaningOptions())
    library.write([str(path) for path in paths], output)
    return Report(output, library.facts, library.left_out)


def test_faults_are_listed_the_worst_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("novel.txt").write_text(f"第1章\n{STORY}\n第3章 甲\n{STORY}\n第3章 乙\n{STORY}", encoding="utf-8")
    (facts,) = report_on("novel.txt").books
    # 25 + 27 + 27 characters, of which the story stands twice too often: 42
    assert find_faults(replace(facts, bad_bytes=2)) == [
        "2 bad bytes",
        "chapters missing: 2",
        "chapters repeated: 3",
        "53.2% of the text stands twice",
        "only 79 characters: a model soon knows it by heart",
    ]


def test_a_good_book_has_nothing_missing_or_is_said_what_to_look_at(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    story = [f"{STORY[:10]}{number:04}{STORY[10:]}" for number in range(5_000)]  # 25 characters and a newline each
    chapters = [["第" + str(number + 1) + "章 山村", *story[number * 500 : number * 500 + 500]] for number in range(10)]
    lines = [line for chapter in chapters for line in chapter]  # 9 · 6 + 7 of the headings, 5,000 · 26 of the story
    Path("novel.txt").write_text("\n".join(lines), encoding="utf-8")
    assert report_on("novel.txt").verdict == "good: 10 chapters, 130,061 characters, nothing missing"
    lines += ["手到\ue001来，又到\ue002去。", "他姓**，叫××。", story[0], "□"]
    Path("novel.txt").write_text("\n".join(lines), encoding="utf-8")
    assert report_on("novel.txt").verdict == (
        "good: 10 chapters, 130,110 characters; but look at: missing characters (〓 or □): 3; "
        "words hidden by ** or ××: 2; paragraphs that stand more than once: 1"
    )
    (facts,) = report_on("novel.txt").books
    assert find_remarks(replace(facts, masked=0, repeated_passages={"passages": 0, "characters": 0, "shown": []})) == [
        "missing characters (〓 or □): 3"
    ]


def test_documents_too_long_or_too_short_for_chapters_are_a_fault(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_novel(Path("novel.txt"))
    (facts,) = report_on("novel.txt").books
    sound = replace(facts, missing=[], repeated_passages={**facts.repeated_passages, "characters": 0}, characters=10**6)

    def with_lengths(*lengths: int, heading: str = "第1章"):
        entries = [{"line": 1, "heading": heading, "number": 1, "characters": length} for length in lengths]
        return find_faults(replace(sound, lengths=entries))

    assert with_lengths(3_000, 4_000, 60_000) == []
    assert with_lengths(3_000, 4_000, 60_001) == ["a document of 60,001 characters, the middle one has 4,000"]
    assert with_lengths(900, 1_000, 20_001) == ["a document of 20,001 characters, the middle one has 1,000"]
    assert with_lengths(90, 99, 500) == ["very short documents: 99 characters in the middle"]
    assert with_lengths(900, 999, 5_000, heading="一 山") == ["3 headings of an unusual kind such as 「一 山」"]


def test_numbers_are_drawn_together():
    assert list_numbers([1, 2, 3, 7, 9, 10], limit=2) == "1–3, 7 …"


def test_the_terminal_report_of_one_book_is_about_fifteen_lines(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_novel(tmp_path / "novel.txt")
    lines = terminal_lines(report_on("novel.txt"))
    assert lines == [
        "novel.txt: UTF-8, strict UTF-8 without a fault; 230 characters read",
        "  cleaned: control characters 1",
        "  removed: U+0007 1",
        "  advertisements and site lines: end-of-chapter mark 1",
        "    line 8: (本章完)",
        "  chapters: 3 headings such as 「第1章 山村<3」",
        "  documents: 3, 73 to 73 characters, median 73",
        "  numbers: missing 3",
        "  outside GB2312: 2 characters of 2 kinds: 丂丄",
        "  verdict: usable: 3 chapters, 219 characters; look at: chapters missing: 3; "
        "only 219 characters: a model soon knows it by heart",
    ]


def test_many_books_take_one_line_each_and_twenty_at_most(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "books").mkdir()
    for number in range(23):
        write_novel(tmp_path / "books" / f"{number:02}.txt")
    lines = terminal_lines(report_on("books"))
    assert len(lines) == 22
    assert lines[20:] == ["… and 3 more books, all in the report", "verdict: 23 books: 0 good, 23 with faults"]


def test_the_json_report_lies_beside_the_output():
    assert str(report_path("data/train.json")) == "data/train.report.json"
    assert str(report_path("corpus")) == "corpus.report.json"
