"""Writing by turns: what the commands do to the text and its file."""

import pytest
from helpers import assert_generate_fails, call_generate, save_model_and_book


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a corpus and a small model that knows it."""
    return save_model_and_book(tmp_path_factory.mktemp("turns"))


def test_writing_by_turns_keeps_the_text_in_a_file(place, tmp_path, monkeypatch, capsys):
    def turn(*lines: str) -> str:
        monkeypatch.setattr("sys.stdin", iter([line + "\n" for line in lines]))
        assert call_generate(place, "--interactive", "--save_samples_path", str(tmp_path), "--length", "8") == 0
        return (tmp_path / "story.txt").read_text(encoding="utf-8")

    assert turn("q") == "萧炎大喝一声"
    once = turn("", "q")
    assert once.startswith("萧炎大喝一声") and len(once) > 6
    assert turn("", "u") == once
    other = turn("", "r")
    assert other.startswith(once) and other != once
    assert turn("+ 月落乌啼", "e 江枫渔火") == other + "江枫渔火"
    assert turn("t 0", "nonsense", "r") == other + "江枫渔火"
    assert "temperature 0\n" in capsys.readouterr().err


def test_what_is_no_utf_8_is_no_end_of_writing_by_turns(place, tmp_path, monkeypatch, capsys):
    words = ["--interactive", "--save_samples_path", str(tmp_path)]
    monkeypatch.setattr("sys.stdin", iter(["+ 月\udcff\x1b[31m\n", "u\n", "+ 月\udcff\n", "q\n"]))
    assert call_generate(place, *words) == 0
    assert (tmp_path / "story.txt").read_text(encoding="utf-8") == "萧炎大喝一声月\ufffd"
    (tmp_path / "story.txt").write_bytes(b"ab\xff")
    monkeypatch.setattr("sys.stdin", iter(["q\n"]))
    capsys.readouterr()
    story = tmp_path / "story.txt"
    hint = f"move it away; its text, in any encoding, may be the beginning: --prefix_file {tmp_path / 'moved.txt'}"
    assert_generate_fails(place, capsys, words, f"{story}: not UTF-8, byte 2 is 0xff", hint, 3)


def test_a_file_is_the_beginning_of_what_is_written_by_turns(place, tmp_path, monkeypatch, capsys):
    (tmp_path / "chapter.txt").write_text("月落乌啼", encoding="utf-8")
    words = ["--interactive", "--save_samples_path", str(tmp_path), "--prefix_file", str(tmp_path / "chapter.txt")]
    monkeypatch.setattr("sys.stdin", iter(["q\n"]))
    assert call_generate(place, *words) == 0
    assert (tmp_path / "story.txt").read_text(encoding="utf-8") == "月落乌啼"
    assert "not used" not in capsys.readouterr().err
    (tmp_path / "story.txt").write_text("风起了", encoding="utf-8")
    monkeypatch.setattr("sys.stdin", iter(["q\n"]))
    assert call_generate(place, *words) == 0
    assert (tmp_path / "story.txt").read_text(encoding="utf-8") == "风起了"
    given, story = tmp_path / "chapter.txt", tmp_path / "story.txt"
    line = f"warning: --prefix_file {given}: not used, since {story} is continued; move it away to start a new one\n"
    assert line in capsys.readouterr().err
