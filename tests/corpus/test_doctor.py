"""What is odd about a book, its facts, its verdict, and the report on the terminal and as JSON."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

from novelgpt.corpus.books import CleaningOptions, Library
from novelgpt.corpus.doctor import (
    Examination,
    Report,
    character_counts,
    find_faults,
    known_characters,
    list_numbers,
    report_path,
    terminal_lines,
)

STORY = "他推开门，外面下着雪，山路上一个人也没有。"


def write_novel(path, extra: str = "") -> None:
    chapters = [f"第{number}章 山村<b>\n{STORY * 3}{chr(0x4E00 + number)}\n" for number in (1, 2, 4)]
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


def test_numbers_are_drawn_together():
    assert list_numbers([1, 2, 3, 7, 9, 10], limit=2) == "1–3, 7 …"


def test_the_terminal_report_of_one_book_is_about_fifteen_lines(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_novel(tmp_path / "novel.txt")
    lines = terminal_lines(report_on("novel.txt"))
    assert lines == [
        "novel.txt: UTF-8, strict UTF-8 without a fault; 233 characters read",
        "  cleaned: control characters 1",
        "  removed: U+0007 1",
        "  advertisements and site lines: end-of-chapter mark 1",
        "    line 8: (本章完)",
        "  chapters: 3 headings such as '第1章 山村<b>'",
        "  documents: 3, 74 to 74 characters, median 74",
        "  numbers: missing 3",
        "  outside GB2312: 2 characters of 2 kinds: 丂丄",
        "  verdict: usable: 3 chapters, 222 characters; look at: chapters missing: 3; "
        "only 222 characters: a model soon knows it by heart",
    ]


def test_many_books_take_one_line_each_and_twenty_at_most(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "books").mkdir()
    for number in range(23):
        write_novel(tmp_path / "books" / f"{number:02}.txt")
    lines = terminal_lines(report_on("books"))
    assert len(lines) == 22
    assert lines[20:] == ["… and 3 more books, all in the report", "verdict: 23 books: 0 good, 23 to look at"]


def test_the_json_report_lies_beside_the_output():
    assert str(report_path("data/train.json")) == "data/train.report.json"
    assert str(report_path("corpus")) == "corpus.report.json"


def test_characters_are_counted_as_counter_does():
    text = "萧炎萧😀\nA㐀" * 7
    assert character_counts(text) == Counter(text)


def test_gb2312_has_6763_han_characters_and_a_vocabulary_is_read_line_by_line(tmp_path):
    name, known = known_characters(None)
    assert name == "GB2312"
    assert sum("\u4e00" <= char <= "\u9fff" for char in known) == 6763
    vocabulary = tmp_path / "vocab.txt"
    vocabulary.write_text("[PAD]\n<0x00>\n萧\n\u2028\n炎\n", encoding="utf-8")
    assert known_characters(vocabulary) == (str(vocabulary), {"萧", "\u2028", "炎"})


def test_an_examination_in_two_parts_says_the_same_as_in_one():
    lines = ["“萧Ж炎", STORY, STORY, "□の", ""]
    whole, parts = Examination(), Examination()
    whole.add([*lines, *lines, ""], ["“萧", "「」"])
    parts.add([*lines, ""], ["“萧"])
    parts.add([*lines, ""], ["「」"])
    first, second = whole.facts(), parts.facts()
    first["repeated_passages"] = second["repeated_passages"] = None  # found within a part only
    assert first == second


def test_odd_and_lost_characters_come_with_count_and_first_line():
    examination = Examination()
    examination.add(["一", "他Ж走", "Ж镕"], ["“一"])
    facts = examination.facts()
    assert facts["odd"]["shown"] == [
        {
            "character": "Ж",
            "code": "U+0416",
            "name": "CYRILLIC CAPITAL LETTER ZHE",
            "count": 2,
            "line": 2,
            "text": "他Ж走",
        }
    ]
    assert [(entry["character"], entry["line"]) for entry in facts["lost"]["shown"]] == [("镕", 3)]
    assert facts["quotes"]["unbalanced_documents"] == 1
