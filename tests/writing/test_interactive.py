"""Writing by turns: what the keys do to the text and its file, and which story goes on."""

import json
import signal
import sys

import pytest
from helpers import assert_generate_fails, call_generate, save_model_and_book

from novelgpt.messages import EXIT_ENVIRONMENT, UserError
from novelgpt.writing import interactive
from novelgpt.writing.batch import SampleBatch
from novelgpt.writing.interactive import is_of_another

PREFIX = "萧炎大喝一声"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a corpus and a small model that knows it."""
    return save_model_and_book(tmp_path_factory.mktemp("turns"))


@pytest.fixture
def turn(place, tmp_path, monkeypatch):
    """Return a function that types lines and returns the story, of which the first one may begin it."""

    def type_lines(*lines: str, options: tuple = (), status: int = 0) -> str:
        monkeypatch.setattr("sys.stdin", iter([line + "\n" for line in lines]))
        words = ["--interactive", "--save_samples_path", str(tmp_path), "--length", "8", *options]
        assert call_generate(place, *words) == status
        return (tmp_path / "story.txt").read_text(encoding="utf-8")

    return type_lines


@pytest.fixture
def begin(turn):
    """Return a function like turn that begins a new story with PREFIX."""
    return lambda *lines: turn(*lines, options=("--prefix", PREFIX))


def test_the_model_and_the_person_write_by_turns(begin, turn, capsys):
    assert begin("q") == PREFIX
    once = turn("", "q")
    assert once.startswith(PREFIX) and len(once) > len(PREFIX)
    assert turn("", "u") == once
    other = turn("", "r")
    assert other.startswith(once) and other != once
    assert turn("那大虫", "e 江枫渔火") == other + "江枫渔火"
    assert turn("t 0", "r") == other + "江枫渔火"
    said = capsys.readouterr().err
    assert "temperature 0\n" in said and "added; Enter lets the model go on\n" in said
    assert "the last part is replaced\n" in said and "nothing written yet\n" in said


def test_plain_text_is_added_whatever_it_looks_like(begin, turn):
    assert begin("那大虫", "　　他笑了。", "run", "e那", "tt") == f"{PREFIX}那大虫　　他笑了。rune那tt"
    assert begin("+ r", "+ ？", "+ q") == f"{PREFIX}r？q"
    assert begin("+ 　　第二段") == f"{PREFIX}　　第二段"


def test_full_width_keys_of_an_input_method_are_keys(begin, capsys):
    assert begin("＋　月落", "ｕ", "＋ 乌啼", "ｅ　江枫", "ｔ ０.5", "？", "ｑ", "never read") == f"{PREFIX}江枫"
    said = capsys.readouterr().err
    assert "temperature 0.5\n" in said and said.count("Enter    the model goes on") == 2


def test_capitals_and_words_for_a_key_are_keys(begin, capsys):
    assert begin("月落", "U", "t0.8", "Ｔ0.7", "T 0.6", "help", "R", "E 江枫", "Quit", "never read") == f"{PREFIX}江枫"
    said = capsys.readouterr().err
    assert [line for line in said.splitlines() if line.startswith("temperature")] == [
        "temperature 0.8", "temperature 0.7", "temperature 0.6",
    ]  # fmt: skip
    assert said.count("Enter    the model goes on") == 2 and "nothing written yet\n" in said
    assert begin("月落", "exit", "never read") == f"{PREFIX}月落"
    assert begin("+ quit", "to quit", "t0.8x") == f"{PREFIX}quitto quitt0.8x"


def test_a_key_begins_a_new_paragraph(begin, turn):
    assert begin("N", "　　月落", "n", "u", "ｎ", "乌啼") == f"{PREFIX}\n　　月落\n乌啼"
    assert turn("q") == f"{PREFIX}\n　　月落\n乌啼"


def test_a_key_that_lacks_something_says_what(begin, capsys):
    assert begin("t", "t 热", "t -1", "e", "+", "u") == PREFIX
    said = capsys.readouterr().err
    assert said.count("t takes a number from 0 to 100, for example: t 0.8\n") == 3
    assert "e takes a text, for example: e 她走了。\n" in said and "+ takes a text, for example: + 她走了。\n" in said
    assert "nothing to undo; the text begins:\n" in said


def test_the_story_that_goes_on_is_named_and_a_prefix_begins_another(begin, turn, tmp_path, capsys):
    begin("+ 月落")
    capsys.readouterr()
    assert turn("+ 乌啼") == f"{PREFIX}月落乌啼"
    shown, said = capsys.readouterr()
    story = tmp_path / "story.txt"
    assert f"going on with {story}, 8 characters; --prefix TEXT begins a new story\n" in said
    assert shown.startswith(f"{PREFIX}月落\n")
    for number in range(1, 12):  # many evenings
        assert turn("+ 风起", options=("--prefix", "江枫")) == "江枫风起"
        aside = tmp_path / f"story.{number}.txt"
        line = f"the former story was moved to {aside}; --prefix_file {aside} goes on with it\n"
        assert f"{line}a new story, kept in {story}\n" in capsys.readouterr().err
    assert (tmp_path / "story.1.txt").read_text(encoding="utf-8") == f"{PREFIX}月落乌啼"


def test_of_a_long_story_the_last_line_is_shown(begin, turn, tmp_path, capsys):
    begin("q")
    (tmp_path / "story.txt").write_text("月落乌啼霜满天。\n" * 100 + "江枫渔火对愁眠。", encoding="utf-8")
    capsys.readouterr()
    turn("q")
    shown, said = capsys.readouterr()
    assert shown == "…江枫渔火对愁眠。\n" and f"{tmp_path / 'story.txt'}, 908 characters;" in said


def test_the_story_of_another_book_gives_way_aloud(begin, turn, tmp_path, capsys):
    begin("+ 月落")
    facts = json.loads((tmp_path / "story.json").read_text(encoding="utf-8"))
    assert facts["model"].endswith("model") and len(facts["corpus"]) == 64
    facts |= {"model": "other/model", "corpus": "0" * 64}
    (tmp_path / "story.json").write_text(json.dumps(facts), encoding="utf-8")
    capsys.readouterr()
    assert turn("q") != f"{PREFIX}月落"
    said = capsys.readouterr().err
    assert f"warning: {tmp_path / 'story.txt'} is a story of another book, by other/model\n" in said
    assert (tmp_path / "story.1.txt").read_text(encoding="utf-8") == f"{PREFIX}月落"


@pytest.mark.parametrize(
    ("former", "expected"),
    [
        ({"model": "a", "corpus": "1"}, False),  # trained again elsewhere
        ({"model": "b", "corpus": "2"}, True),
        ({"model": "b", "corpus": None}, False),
        ({"model": "a", "corpus": None}, True),
        (None, False),  # of an older program
    ],
)
def test_stories_are_told_apart_by_their_book_else_by_their_model(former, expected):
    assert is_of_another(former, {"model": "b", "corpus": "1"}) is expected


def test_what_is_no_utf_8_is_no_end_of_writing_by_turns(begin, place, tmp_path, monkeypatch, capsys):
    assert begin("月\udcff\x1b[31m", "u", "月\udcff") == f"{PREFIX}月\ufffd"
    assert "\x1b" not in capsys.readouterr().out
    story = tmp_path / "story.txt"
    story.write_bytes(b"ab\xff")
    hint = f"move it away; its text, in any encoding, may be the beginning: --prefix_file {tmp_path / 'moved.txt'}"
    words = ["--interactive", "--save_samples_path", str(tmp_path)]
    assert_generate_fails(place, capsys, words, f"{story}: not UTF-8, byte 2 is 0xff", hint, 3)


def test_a_file_is_the_beginning_of_what_is_written_by_turns(turn, tmp_path):
    (tmp_path / "chapter.txt").write_text("月落乌啼", encoding="utf-8")
    beginning = ("--prefix_file", str(tmp_path / "chapter.txt"))
    assert turn("+ 霜满天", options=beginning) == "月落乌啼霜满天"
    assert turn("q", options=beginning) == "月落乌啼"
    assert (tmp_path / "story.1.txt").read_text(encoding="utf-8") == "月落乌啼霜满天"


@pytest.mark.parametrize(("fails", "status"), [(1, 0), (9, 4)])
def test_a_full_disk_is_said_and_the_text_saved_once_there_is_room(
    begin, turn, tmp_path, monkeypatch, capsys, fails, status
):
    begin("q")
    write, calls = interactive.write_text, iter(range(100))

    def write_text(path, text):
        if 1 <= next(calls) <= fails:  # the first one is that of the beginning
            raise UserError(f"{path}: cannot be written: No space left on device", "free some space", EXIT_ENVIRONMENT)
        write(path, text)

    monkeypatch.setattr(interactive, "write_text", write_text)
    story = turn("月落", "q", status=status)
    assert story == PREFIX + ("" if status else "月落")
    full = f"{tmp_path / 'story.txt'}: cannot be written: No space left on device"
    line = f"warning: {full}; free some space: the whole text is saved with the next change, or by q\n"
    assert capsys.readouterr().err.count(line) == 1


def stop_at_third(monkeypatch, name: str) -> None:
    decode, calls = SampleBatch.decode_many, iter(range(1, 10**6))

    def decode_many(batch, *arguments):
        if next(calls) == 3:
            signal.raise_signal(getattr(signal, name))
        return decode(batch, *arguments)

    monkeypatch.setattr(SampleBatch, "decode_many", decode_many)


@pytest.mark.skipif(sys.platform == "win32", reason="no signal to oneself")
def test_ctrl_c_ends_a_part_and_keeps_it_and_whatever_else_comes_ends_the_writing_too(begin, turn, monkeypatch, capsys):
    with monkeypatch.context() as patch:
        stop_at_third(patch, "SIGINT")  # of 8 tokens
        part = begin("", "+ 月落").removeprefix(PREFIX)
    assert part.endswith("月落") and 1 <= len(part.removesuffix("月落")) <= 3
    stop_at_third(monkeypatch, "SIGTERM")
    kept = turn("", "+ never read", status=143)
    assert kept.startswith(PREFIX + part) and "never" not in kept
    assert capsys.readouterr().err.endswith("story.txt\n")


@pytest.mark.skipif(sys.platform == "win32", reason="no signal to oneself")
def test_ctrl_c_while_it_waits_quits(begin, place, tmp_path, monkeypatch, capsys):
    def typed():
        yield "+ 月落\n"
        raise KeyboardInterrupt

    monkeypatch.setattr("sys.stdin", typed())
    words = ["--interactive", "--save_samples_path", str(tmp_path), "--prefix", PREFIX]
    assert call_generate(place, *words) == 130
    story = tmp_path / "story.txt"
    assert story.read_text(encoding="utf-8") == f"{PREFIX}月落"
    assert capsys.readouterr().err.endswith(f"the story is kept in {story}\nstopped\n")


# --- stories of studio.py ---


def test_a_story_of_the_studio_is_gone_on_with_and_every_part_is_a_version(place, tmp_path, monkeypatch, capsys):
    from novelgpt.studio import Stories

    def type_lines(*lines: str, options: tuple = ()) -> dict:
        monkeypatch.setattr("sys.stdin", iter([line + "\n" for line in lines]))
        words = ["--interactive", "--story", "井边", "--save_samples_path", str(tmp_path), "--length", "8", *options]
        assert call_generate(place, *words) == 0
        stories = Stories(tmp_path / "stories")
        view = stories.get(stories.list_all()[0]["id"]).view()
        stories.close()
        return view

    begun = type_lines("那大虫", "", options=("--prefix", PREFIX))
    first = begun["nodes"][-1]["text"]
    assert begun["name"] == "井边" and begun["text"] == f"{PREFIX}那大虫{first}"
    assert [node["kind"] for node in begun["nodes"]] == ["root", "typed", "model"]
    # r writes a version beside the last one, u goes back; nothing is ever lost
    again = type_lines("r", "u")
    assert again["id"] == begun["id"] and again["text"] == PREFIX + "那大虫"
    assert [node["text"] for node in again["nodes"][:3]] == [PREFIX, "那大虫", first]
    assert [node["parent"] for node in again["nodes"]] == [None, 0, 1, 1] and again["redo"] == 3
    assert type_lines("u", "u")["text"] == PREFIX
    # another name, or a prefix, begins another one
    assert len(list((tmp_path / "stories").glob("*/journal.jsonl"))) == 1
    assert type_lines("q", options=("--prefix", "风起"))["text"] == "风起"
    assert len(list((tmp_path / "stories").glob("*/story.txt"))) == 2
    assert not (tmp_path / "story.txt").exists() and "nothing to undo" in capsys.readouterr().err


def test_a_story_without_interactive_is_refused(place, capsys):
    message, hint = "--story: has no effect without --interactive", "add --interactive, or leave --story out"
    assert_generate_fails(place, capsys, ["--story", "井边"], message, hint, 2)
