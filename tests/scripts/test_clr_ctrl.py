"""The script from end to end: novels in, data/train.json and report out."""

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import CORPORA, NOVELS, ROOT, needs_novels

import clr_ctrl
from novelgpt.cli import run
from novelgpt.corpus import books
from novelgpt.messages import EXIT_INPUT, EXIT_USAGE

SAMPLE = ROOT / "data/sample"
STORY = "他推开门，外面下着雪，山路上一个人也没有。"
NOVEL = f"第一章 山村\r\n　　{STORY}\r\n(本章完)\r\n第二章 城\r\n　　{STORY}\x07\r\n"
CLEAN = [f"第一章 山村\n{STORY}", f"第二章 城\n{STORY}"]


@pytest.fixture(autouse=True)
def work_in_tmp_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def clean(*argv: str) -> list[str]:
    """Run the script, expect success, return the documents."""
    assert run(clr_ctrl.main, [*argv, "--output", "out.json"]) == 0
    return json.loads(Path("out.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--titles", "./kept.json"], "--titles ./kept.json: the same file as --output kept.json"),
        (["--report", "kept.json"], "--report kept.json: the same file as --output kept.json"),
        (["--report", "a", "--titles", "a"], "--titles a: the same file as --report a"),
        (
            ["--titles", "kept.report.json"],
            "--titles kept.report.json: the same file as the report kept.report.json beside --output",
        ),
    ],
)
def test_two_outputs_in_one_file_are_refused_before_anything_is_written(arguments, message, capsys):
    Path("novel.txt").write_text(NOVEL, encoding="utf-8")
    Path("kept.json").write_text("kept", encoding="utf-8")
    assert run(clr_ctrl.main, ["novel.txt", "--output", "kept.json", *arguments]) == EXIT_USAGE
    assert capsys.readouterr().err == f"error: {message}\n\nhint: give each a file of its own\n"
    assert Path("kept.json").read_text(encoding="utf-8") == "kept"
    assert sorted(path.name for path in Path().iterdir()) == ["kept.json", "novel.txt"]


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="every name of a file is Unicode here")
def test_a_file_whose_name_is_in_gbk_is_cleaned_and_named_in_every_output():
    name = os.fsdecode("红楼.txt".encode("gbk"))
    Path(name).write_bytes(NOVEL.encode("gbk"))
    assert clean(name, "--report", "report.html") == CLEAN
    report = json.loads(Path("out.report.json").read_text(encoding="utf-8"))
    assert report["books"][0]["name"] == name  # the very bytes
    assert "第一章 山村" in Path("report.html").read_text(encoding="utf-8")


def test_the_bundled_novel_becomes_exactly_its_clean_chapters():
    assert clean(str(SAMPLE / "novel.txt")) == json.loads((SAMPLE / "clean.json").read_text(encoding="utf-8"))


def test_exactly_the_planted_characters_are_removed():
    clean(str(SAMPLE / "novel.txt"))
    planted = json.loads((SAMPLE / "dirt.json").read_text(encoding="utf-8"))
    (facts,) = json.loads(Path("out.report.json").read_text(encoding="utf-8"))["books"]
    others = {"U+0009": "tabs", "U+000C": "other line ends (VT, FF, U+0085, U+2028, U+2029)"}
    found = facts["code_points"] | {code: facts["cleaned"][name] for code, name in others.items()}
    assert found == planted["characters"]
    assert facts["cleaned"]["HTML entities"] == sum(planted["entities"].values())
    assert facts["cleaned"]["CR LF line ends"] == planted["line_ends"]["CRLF"]
    assert facts["cleaned"]["trailing blanks"] == planted["trailing_blanks"]
    assert facts["cleaned"]["lines of nothing but blanks"] == planted["white_space_lines"]
    assert facts["encoding"] == planted["encoding"]
    assert [notice["text"] for notice in facts["notices"]] == planted["removed_lines"]
    headings = [entry["heading"] for entry in facts["lengths"] if entry["heading"]]
    assert headings == planted["headings"]


def test_without_a_path_the_users_novel_is_taken_and_else_the_bundled_one(capsys):
    assert run(clr_ctrl.main, []) == 0
    assert len(json.loads(Path("data/train.json").read_text(encoding="utf-8"))) == 27
    notice = "no path given and no data/input.json or data/input.txt: taking the bundled novel data/sample/novel.txt"
    captured = capsys.readouterr()
    assert captured.err.split("\n")[0] == notice
    assert captured.out == ""
    Path("data/input.txt").write_text(NOVEL, encoding="utf-8")
    assert clean() == CLEAN
    Path("data/input.json").write_text(json.dumps(["甲"]), encoding="utf-8")
    assert clean() == ["甲"]


def test_the_bundled_novel_replaces_itself_and_no_other(capsys):
    assert run(clr_ctrl.main, []) == run(clr_ctrl.main, []) == 0
    Path("我的.txt").write_text(NOVEL, encoding="utf-8")
    assert run(clr_ctrl.main, ["我的.txt"]) == 0
    kept = Path("data/train.json").read_bytes()
    capsys.readouterr()
    assert run(clr_ctrl.main, []) == EXIT_USAGE
    assert capsys.readouterr().err == (
        "error: data/train.json: holds another novel, and no path of one to clean is given\n\n"
        "hint: python clr_ctrl.py 我的.txt\n"
        "or the bundled novel in its place: python clr_ctrl.py data/sample/novel.txt\n"
    ).replace("我的.txt", "'我的.txt'")
    assert Path("data/train.json").read_bytes() == kept
    # documents that came from elsewhere, beside the report of others
    Path("out.json").write_text('["甲"]', encoding="utf-8")
    Path("data/train.report.json").rename("out.report.json")
    assert run(clr_ctrl.main, ["--output", "out.json"]) == EXIT_USAGE
    said = capsys.readouterr().err.split("\n")
    assert said[2] == "hint: python clr_ctrl.py novel.txt --output out.json"
    assert said[3].endswith(": python clr_ctrl.py data/sample/novel.txt --output out.json")


def test_another_novel_is_moved_aside_with_its_report_and_the_same_one_replaced(capsys):
    Path("one.txt").write_text(NOVEL, encoding="utf-8")
    Path("two.txt").write_text(NOVEL.replace("山村", "海边"), encoding="utf-8")
    assert run(clr_ctrl.main, ["one.txt"]) == run(clr_ctrl.main, ["./one.txt"]) == 0
    names = ["train.json", "train.report.json"]
    assert sorted(path.name for path in Path("data").iterdir()) == names
    former = [Path("data", name).read_bytes() for name in names]
    capsys.readouterr()
    # nothing is moved where cleaning fails
    Path("empty.txt").write_text("www.example.com\n", encoding="utf-8")
    assert run(clr_ctrl.main, ["empty.txt"]) == EXIT_INPUT
    assert sorted(path.name for path in Path("data").iterdir()) == names
    assert "moved" not in capsys.readouterr().err
    assert run(clr_ctrl.main, ["two.txt"]) == 0
    assert capsys.readouterr().err.split("\n")[:2] == [
        "data/train.json held other chapters, moved to data/train.1.json; --raw_data_path data/train.1.json takes them",
        "--book NAME keeps books apart: python clr_ctrl.py two.txt --book NAME",
    ]
    assert [Path("data", name).read_bytes() for name in ("train.1.json", "train.1.report.json")] == former
    assert json.loads(Path("data/train.json").read_text(encoding="utf-8"))[0] == CLEAN[0].replace("山村", "海边")
    # chapters that were changed by hand are kept too
    Path("data/train.json").write_text('["甲"]', encoding="utf-8")
    assert run(clr_ctrl.main, ["two.txt"]) == 0
    assert Path("data/train.2.json").read_text(encoding="utf-8") == '["甲"]'


def test_lines_are_dropped_by_text_or_expression_and_stand_in_the_report(capsys):
    story = NOVEL + "书友们投票吧\r\n第一卷完\r\n"
    Path("novel.txt").write_text(story, encoding="utf-8")
    flags = ["--drop", "投票", "--drop", "/^第.卷完$/", "novel.txt", "--drop", "夏天"]
    assert clean(*flags) == CLEAN
    (facts,) = json.loads(Path("out.report.json").read_text(encoding="utf-8"))["books"]
    dropped = [(notice["line"], notice["reason"]) for notice in facts["notices"]]
    assert dropped == [(3, "end-of-chapter mark"), (6, "--drop 投票"), (7, "--drop /^第.卷完$/")]
    assert "warning: --drop 夏天: no line contains it\n" in capsys.readouterr().err
    Path("clean.yaml").write_text("drop: [投票, /^第.卷完$/]\n", encoding="utf-8")
    assert clean("novel.txt", "--config", "clean.yaml") == CLEAN


@pytest.mark.parametrize(
    ("pattern", "fault"),
    [
        ("/(/", "expected a regular expression: missing ), unterminated subpattern at position 0"),
        ("", "expected a text or a /regular expression/"),
        ("//", "expected a text or a /regular expression/"),
    ],
)
def test_a_pattern_that_is_none_is_refused(pattern, fault, capsys):
    assert run(clr_ctrl.main, ["novel.txt", "--drop", pattern]) == EXIT_USAGE
    expected = f"error: --drop: found {pattern!r}, {fault}\n\nhint: python clr_ctrl.py --help\n"
    assert capsys.readouterr().err == expected


def test_a_wrong_encoding_is_refused_and_nothing_is_replaced(capsys):
    Path("novel.txt").write_text((SAMPLE / "novel.txt").read_text("gb18030"), encoding="gb18030")
    Path("out.json").write_text("kept", encoding="utf-8")
    assert run(clr_ctrl.main, ["novel.txt", "--encoding", "big5", "--output", "out.json"]) == EXIT_INPUT
    said = capsys.readouterr().err
    assert said.startswith("error: novel.txt: --encoding big5 reads 「")
    assert "」, gb18030 reads 「《九井灵潮》 作者：novelgpt 项」, " in said
    assert said.endswith("\n\nhint: --encoding gb18030, or --encoding big5 --force_encoding\n")
    assert Path("out.json").read_text(encoding="utf-8") == "kept"
    assert len(clean("novel.txt", "--encoding", "gb18030")) == 27
    assert "山" not in "".join(clean("novel.txt", "--encoding", "big5", "--force_encoding"))


def test_force_encoding_has_no_meaning_without_an_encoding(capsys):
    Path("novel.txt").write_text(NOVEL, encoding="utf-8")
    assert run(clr_ctrl.main, ["novel.txt", "--force_encoding"]) == EXIT_USAGE
    expected = "error: --force_encoding: has no meaning without --encoding"
    assert capsys.readouterr().err == f"{expected}\n\nhint: --encoding gb18030 --force_encoding\n"


def test_a_folder_counts_the_book_that_is_left_out_in_its_verdict(capsys):
    Path("books").mkdir()
    for name, text in (("a", NOVEL), ("b", NOVEL), ("c", "")):
        Path("books", f"{name}.txt").write_text(text, encoding="utf-8")
    clean("books")
    assert "verdict: 3 books: 0 good, 2 with faults, 1 left out\n" in capsys.readouterr().err


def test_a_book_with_a_line_in_two_encodings_is_kept_and_the_verdict_names_the_line(capsys):
    line = "過了半晌，門外的人才低聲說道：「我從南邊來，走了三天三夜，想討一碗熱水喝。」"
    other = "“过了半晌，门外的人才低声说道：我从南边来，走了三天三夜，想讨一碗热水喝。”"
    chapters = [f"第{number}章 山村\n{line}{number}\n".encode("big5") * 9 for number in range(1, 30)]
    Path("novel.txt").write_bytes(b"".join(chapters) + line.encode("big5") + other.encode("gb18030") + b"\n")
    documents = clean("novel.txt")
    assert documents[-1].split("\n")[-1] == line + other
    assert "look at: lines garbled or in two encodings: 523; " in capsys.readouterr().err


@needs_novels
@pytest.mark.sweep
@pytest.mark.parametrize("name", NOVELS)
def test_the_output_cleaned_again_is_the_same(name):
    first = clean(str(CORPORA / name))
    Path("out.json").rename("again.json")
    assert clean("again.json") == first
    (facts,) = json.loads(Path("out.report.json").read_text(encoding="utf-8"))["books"]
    assert facts["cleaned"] == {} and facts["notices"] == [] and facts["headings_removed"] == []


def test_elements_of_a_list_are_documents_and_are_divided_at_their_headings():
    Path("in.json").write_text(json.dumps(["前言", NOVEL, "后记一段"], ensure_ascii=False), encoding="utf-8")
    assert clean("in.json") == ["前言", *CLEAN, "后记一段"]


def test_advertisements_stay_when_asked():
    Path("novel.txt").write_text(NOVEL, encoding="utf-8")
    assert clean("novel.txt", "--keep_ads") == [CLEAN[0] + "\n(本章完)", CLEAN[1]]


def test_width_and_private_use_follow_their_options():
    Path("novel.txt").write_text(NOVEL + "Ａ\ue777", encoding="utf-8")
    assert clean("novel.txt", "--width", "half", "--keep_private")[1].endswith("A\ue777")


def test_the_output_may_replace_the_input():
    Path("out.json").write_text(json.dumps([NOVEL]), encoding="utf-8")
    assert clean("out.json") == CLEAN


def test_a_folder_of_books_is_one_run_and_an_unreadable_book_is_named(capsys):
    Path("books/more").mkdir(parents=True)
    for name in ("a.txt", "c.txt", "more/d.txt"):
        Path("books", name).write_text(NOVEL.replace("山村", name), encoding="utf-8")
    Path("books/b.txt").write_bytes(b"")
    documents = clean("books")
    assert [text.split("\n")[0] for text in documents[::2]] == ["第一章 a.txt", "第一章 c.txt", "第一章 more/d.txt"]
    report = json.loads(Path("out.report.json").read_text(encoding="utf-8"))
    assert [book["name"] for book in report["books"]] == ["books/a.txt", "books/c.txt", "books/more/d.txt"]
    error = "books/b.txt: empty, expected the text of a novel"
    assert report["left_out"] == [{"path": "books/b.txt", "error": error}]
    assert f"warning: left out: {error}\n" in capsys.readouterr().err


def test_a_large_book_that_cannot_be_read_does_not_stop_the_others(monkeypatch):
    monkeypatch.setattr(books, "LARGE_TEXT", 1_000)
    Path("books").mkdir()
    Path("books/b.txt").write_text(NOVEL, encoding="utf-8")
    Path("books/a.txt").write_bytes(bytes(range(128, 256)) * 100)
    assert clean("books") == CLEAN
    (left,) = json.loads(Path("out.report.json").read_text(encoding="utf-8"))["left_out"]
    assert left["path"] == "books/a.txt"
    assert left["error"].startswith("books/a.txt: not Chinese text in any known encoding; the nearest, gb18030, reads")


def test_a_folder_without_a_readable_book_is_an_error(capsys):
    Path("books").mkdir()
    for name in "ab":
        Path("books", f"{name}.txt").write_bytes(b"")
    assert run(clr_ctrl.main, ["books", "--output", "out.json"]) == EXIT_INPUT
    assert capsys.readouterr().err.startswith("error: books/b.txt: empty, expected the text of a novel\n")
    assert not Path("out.json").exists()


def test_nothing_left_after_cleaning_is_an_error_and_writes_nothing(capsys):
    Path("novel.txt").write_text("www.example.com\n(本章完)\n更新时间：2012-03-04\n" * 9, encoding="utf-8")
    assert run(clr_ctrl.main, ["novel.txt", "--output", "out.json"]) == EXIT_INPUT
    expected = "error: novel.txt: no text is left after cleaning\n\nhint: give a file with the text of a novel\n"
    assert capsys.readouterr().err == expected
    assert [path.name for path in Path().iterdir()] == ["novel.txt"]


def test_a_missing_file_is_an_error_and_writes_nothing(capsys):
    assert run(clr_ctrl.main, ["absent.txt", "--output", "out.json"]) == EXIT_INPUT
    assert capsys.readouterr().err.startswith("error: absent.txt: cannot be read: No such file or directory\n")
    assert list(Path().iterdir()) == []


def test_an_unknown_width_is_a_usage_error(capsys):
    assert run(clr_ctrl.main, ["--width", "wide"]) == EXIT_USAGE
    expected = "error: --width: found 'wide', expected one of half, full\n"
    assert capsys.readouterr().err.startswith(expected)


def test_the_html_report_is_written_when_asked():
    Path("novel.txt").write_text(NOVEL, encoding="utf-8")
    clean("novel.txt", "--report", "report.html")
    assert Path("report.html").read_text(encoding="utf-8").startswith("<!DOCTYPE html>")


def test_a_large_file_in_blocks_gives_the_documents_it_gives_whole(monkeypatch):
    sample = str(SAMPLE / "novel.txt")
    whole = clean(sample)
    facts = json.loads(Path("out.report.json").read_text(encoding="utf-8"))["books"][0]
    monkeypatch.setattr(books, "LARGE_TEXT", 1_000)
    monkeypatch.setattr(books, "BLOCK_CHARACTERS", 6_000)
    assert clean(sample) == whole
    streamed = json.loads(Path("out.report.json").read_text(encoding="utf-8"))["books"][0]
    for key in ("cleaned", "code_points", "notices", "lengths", "missing", "characters", "odd", "lost", "quotes"):
        assert streamed[key] == facts[key], key
    assert streamed["how"] == "26 headings such as 「第一章 第七口井」; read in 8 blocks, 27 documents"


def test_the_script_starts_without_torch_and_fast():
    code = "import sys, clr_ctrl; clr_ctrl.build_parser(); print([m for m in ('torch', 'numpy') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_cleaning_never_imports_torch():
    code = "import sys, clr_ctrl; clr_ctrl.main(sys.argv[1:]); print('torch' in sys.modules)"
    command = [sys.executable, "-c", code, "data/sample/novel.txt", "--output", str(Path("out.json").absolute())]
    assert subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout == "False\n"


@pytest.mark.slow
def test_two_gigabytes_in_one_line_stay_under_600_megabytes():
    piece = (STORY * 1_000).encode("utf-8")
    with open("line.txt", "wb") as file:
        for _ in range(2_000_000_000 // len(piece)):
            file.write(piece)
    command = [sys.executable, str(ROOT / "clr_ctrl.py"), "line.txt", "--output", "out.json"]
    subprocess.run(command, check=True, capture_output=True)
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss < 600 * 1024  # kilobytes on Linux
