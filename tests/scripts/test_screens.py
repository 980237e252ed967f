"""What a terminal shows: texts whole, on lines of their own; bars that say where a run stands, none beside a text."""

import re
import sys

import pytest
from conftest import ROOT, make_tiny_options
from helpers import parse_samples, save_model_and_book

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no pseudo-terminals here")
if sys.platform != "win32":
    from screens import Terminal, screen_of

# the other widths are tested by the sweeps
WIDE, NARROW = (pytest.param(columns, marks=pytest.mark.sweep) for columns in (150, 20))
BAR = re.compile(r"\d+%\||tokens \[|tokens/s\]")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a corpus and a small model that knows it."""
    return save_model_and_book(tmp_path_factory.mktemp("screens"))


def write(warm_python, place, *options: object, columns: int) -> tuple[list[str], list[str]]:
    """Write texts on a terminal; return the screen's lines and the saved texts."""
    model = ["--model_path", place / "model", "--device", "cpu", "--seed", 1, "--precision", "fp32"]
    saved = ["--save_samples", "--save_samples_path", place / "mnt"]
    lines = screen_of([warm_python, ROOT / "generate.py", *model, *saved, *options], place, columns=columns)
    return lines, parse_samples((place / "mnt/samples.txt").read_text(encoding="utf-8"))


def han(text: str) -> str:
    """Return the Chinese characters alone: the network is random, and what it writes between them no terminal shows."""
    return re.sub(r"[^\u4e00-\u9fff]", "", text)


@pytest.mark.parametrize("columns", [80, WIDE])
@pytest.mark.parametrize("options", [["--stream"], []], ids=["streamed", "at the end"])
def test_the_texts_stand_on_the_screen_and_no_bar_beside_them(warm_python, place, options, columns):
    sizes = ["--nsamples", 3, "--batch_size", 1, "--length", 120, "--no-cut_loops", "--stop", "never"]
    sizes += ["--preset", "seed"]  # whose texts of this network have no sign that moves a line of the terminal
    lines, saved = write(warm_python, place, *sizes, *options, columns=columns)
    assert len(saved) == 3
    for sample in saved:
        assert len(han(sample)) > 20 and han(sample) in han("".join(lines))
    assert [line for line in lines if BAR.search(line)] == []
    signs = "=" * min(40, (columns - 11) // 2)  # a rule is one line, short of the terminal's edge
    assert [line for line in lines if " SAMPLE " in line] == [
        f"{signs} SAMPLE {number} {signs}" for number in (1, 2, 3)
    ]
    assert lines.count("=" * min(90, columns - 1)) == 3


def test_a_text_that_comes_by_another_program_stands_beside_no_bar(warm_python, place):
    words = [warm_python, ROOT / "generate.py", "--model_path", place / "model", "--device", "cpu", "--seed", 1]
    words += ["--nsamples", 4, "--batch_size", 1, "--length", 60, "--no-cut_loops", "--stop", "never"]
    lines = screen_of(["sh", "-c", f"{' '.join(map(str, words))} | cat"], place, columns=150)
    rules = [f"{'=' * 40} SAMPLE {number} {'=' * 40}" for number in (1, 2, 3, 4)]
    assert [line for line in lines if " SAMPLE " in line] == rules
    assert [line for line in lines if BAR.search(line)] == []


SHOW = """
import os, sys
from pathlib import Path
from novelgpt.training.log import RunLog
log = RunLog(Path(sys.argv[1]), 1570)
log.resume(place=0, length=0)
log.bar.update(337)
log.bar.mininterval = 0
log.move_bar(338, 4, 15, 4.21337)
if len(sys.argv) > 2:
    log.show(sys.argv[2])
os._exit(0)  # as it stands
"""


@pytest.mark.parametrize(
    ("columns", "pattern"),
    [
        (20, r"338/1,570 steps \|.\|"),
        (80, r"338/1,570 steps \|█.+\| epoch 4/15, loss 4\.2134, [\d:]+ left"),
        (150, r"338/1,570 steps \|█.{70,}\| epoch 4/15, loss 4\.2134, [\d:]+ left"),
    ],
)
def test_the_bar_of_training_shows_steps_epoch_and_loss_on_one_line(warm_python, tmp_path, columns, pattern):
    lines = screen_of([warm_python, "-c", SHOW, tmp_path], ROOT, columns=columns)
    assert len(lines) == 1 and re.fullmatch(pattern, lines[0]), lines


def test_the_bar_says_what_is_under_way_between_two_steps(warm_python, tmp_path):
    words = [warm_python, "-c", SHOW, tmp_path, "evaluating: batch 3"]
    lines = screen_of(words, ROOT)
    assert len(lines) == 1 and re.fullmatch(r"338/1,570 steps \|█.+\| evaluating: batch 3, [\d:]+ left", lines[0])


@pytest.mark.parametrize("text", ["", "www.example.com"])
def test_an_error_of_cleaning_stands_without_its_bar(warm_python, tmp_path, text):
    (tmp_path / "novel.txt").write_text(text, encoding="utf-8")
    terminal = Terminal([warm_python, ROOT / "clr_ctrl.py", "novel.txt"], tmp_path)
    assert terminal.end() == 3
    assert terminal.lines[0].startswith("error: novel.txt: ")
    assert not any("B/s" in line for line in terminal.lines)


@pytest.mark.parametrize("columns", [NARROW, 80])
def test_lines_and_bar_of_a_run_do_not_mix(warm_python, tmp_path, columns):
    options = make_tiny_options(tmp_path, epochs=2, sample_length=5)
    flags = ("model_config", "tokenizer_path", "tokenized_data_path", "output_dir", "epochs", "batch_size", "stride")
    words = [f"--{name}={getattr(options, name)}" for name in (*flags, "lr", "log_step", "sample_length", "device")]
    lines = screen_of([warm_python, ROOT / "train.py", *words], tmp_path, columns=columns)
    bars = [line for line in lines if "steps |" in line]
    assert len(bars) == 1 and bars[0].startswith("12/12 steps |")
    said = "".join(lines)
    assert said.count("sample: ") == 2 and said.count("held-out loss") >= 3
    assert "finished 12 steps in " in said.replace(bars[0], "")


def joined(lines: list[str]) -> str:
    """Return the lines of a screen as one text without spaces, for a narrow one breaks lines anywhere."""
    return "".join(lines).replace(" ", "")


def open_terminal(warm_python, place, *options: object, columns: int = 80, **environment: str) -> Terminal:
    """Start generate.py with the small model on a terminal."""
    model = ["--model_path", place / "model", "--device", "cpu", "--seed", 1, "--precision", "fp32"]
    words = [warm_python, ROOT / "generate.py", *model, *options]
    return Terminal(words, place, columns=columns, **environment)


ENDLESS = ["--stop", "never", "--no-cut_loops", "--nsamples", 1]
PLAIN = [{"NO_COLOR": "1"}, {"TERM": "dumb"}]


@pytest.mark.parametrize("columns", [NARROW, 80, WIDE])
@pytest.mark.parametrize("options", [["--stream"], []], ids=["streamed", "at the end"])
def test_the_prefix_is_fainter_than_what_the_model_wrote(warm_python, place, options, columns):
    words = [*ENDLESS, "--length", 30, "--prefix", "江枫渔火对愁眠", *options]
    terminal = open_terminal(warm_python, place, *words, columns=columns)
    assert terminal.end() == 0
    assert terminal.faint == "江枫渔火对愁眠"
    body = "".join(terminal.lines).partition("江枫渔火对愁眠")[2].partition("=" * 20)[0]
    assert len(han(body)) > 3


@pytest.mark.parametrize("environment", PLAIN, ids=["NO_COLOR", "dumb"])
def test_where_colours_are_not_wanted_nothing_is_faint(warm_python, place, environment):
    terminal = open_terminal(warm_python, place, *ENDLESS, "--length", 5, "--prefix", "江枫渔火", **environment)
    assert terminal.end() == 0
    assert terminal.faint == "" and "江枫渔火" in "\n".join(terminal.lines)
    assert "[2m" not in "\n".join(terminal.lines)


def test_of_a_long_prefix_its_last_line_is_shown(warm_python, place):
    (place / "chapter.txt").write_text("月落乌啼霜满天。\n" * 100 + "江枫渔火对愁眠，", encoding="utf-8")
    terminal = open_terminal(warm_python, place, *ENDLESS, "--length", 5, "--prefix_file", place / "chapter.txt")
    assert terminal.end() == 0
    assert terminal.faint == "…江枫渔火对愁眠，" and "月落" not in "\n".join(terminal.lines)


def test_what_a_gbk_terminal_cannot_show_raises_nothing(warm_python, place):
    gbk = {"PYTHONIOENCODING": "gbk", "LANG": "zh_CN.GBK"}
    words = ["--interactive", "--length", 20, "--save_samples_path", place / "gbk", "--prefix", "江枫𠮷渔火"]
    terminal = open_terminal(warm_python, place, *words, **gbk)
    terminal.wait_for("\n>")
    assert terminal.faint == "江枫\\U00020bb7渔火"
    for line in ("月落乌啼", ""):
        terminal.type(f"{line}\n")
    while "\n".join(terminal.lines).count("\n>") < 3:
        assert terminal.read(), "\n".join(terminal.lines)
    terminal.type("ｑ\n")
    assert terminal.end() == 0
    assert (place / "gbk/story.txt").read_text(encoding="utf-8").startswith("江枫𠮷渔火月落乌啼")
    assert "Traceback" not in "\n".join(terminal.lines)


@pytest.mark.parametrize("columns", [NARROW, 80, WIDE])
def test_a_story_is_typed_at_a_sign_that_waits(warm_python, place, columns):
    folder = place / f"story{columns}"
    words = ["--interactive", "--length", 10, "--save_samples_path", folder, "--prefix", "江枫渔火"]
    terminal = open_terminal(warm_python, place, *words, columns=columns)
    terminal.wait_for("\n>")
    assert terminal.faint == "江枫渔火"
    terminal.type("对愁眠。\n")
    terminal.wait_for("added;")
    terminal.type("\n")
    while "\n".join(terminal.lines).count("\n>") < 3:
        assert terminal.read(), "\n".join(terminal.lines)
    terminal.type("q\n")
    assert terminal.end() == 0
    lines = terminal.lines
    assert "江枫渔火" in lines and "> 对愁眠。" in lines and "> q" in lines
    story = (folder / "story.txt").read_text(encoding="utf-8")
    assert story.startswith("江枫渔火对愁眠。") and han(story.removeprefix("江枫渔火对愁眠。")) in han("".join(lines))
    assert "thestoryiskeptin" in joined(lines)


@pytest.mark.parametrize(
    ("columns", "options", "sign"),
    [
        (80, ["--stream"], "江枫渔火"),
        (80, [], "k/1.00M"),  # the bar has counted a thousand tokens; a narrow one does not say so
        *(pytest.param(columns, ["--stream"], "江枫渔火", marks=pytest.mark.sweep) for columns in (20, 150)),
        pytest.param(150, [], "k/1.00M", marks=pytest.mark.sweep),
    ],
)
def test_ctrl_c_cuts_a_text_on_the_screen(warm_python, place, columns, options, sign):
    words = [*ENDLESS, "--length", 1_000_000, "--prefix", "江枫渔火", *options]
    terminal = open_terminal(warm_python, place, *words, columns=columns)
    terminal.wait_for(sign)
    terminal.type("\x03")
    assert terminal.end() == 130
    text = joined(terminal.lines)
    assert re.search(r"\[cuthereafter[\d,]+tokens\]" + "=" * min(90, columns - 1), text), text
    assert "stopped:thetextsarecutwheretheywere,andkept" in text


def test_the_bar_says_which_end_is_searched_for(warm_python, place):
    words = ["--stop", "chapter", "--no-cut_loops", "--nsamples", 1, "--length", 1, "--bad_words", "[CLS]"]
    terminal = open_terminal(warm_python, place, *words, "--prefix", "江枫渔火")
    terminal.wait_for("searching for a chapter's end")
    terminal.type("\x03")
    assert terminal.end() == 130


def test_ctrl_c_ends_a_part_and_the_sign_waits_again(warm_python, place):
    words = ["--interactive", "--length", 1_000_000, "--stop", "never", "--no-cut_loops", "--prefix", "江枫渔火"]
    terminal = open_terminal(warm_python, place, *words, "--save_samples_path", place / "parts")
    terminal.wait_for("\n>")
    terminal.type("\n")
    before = len(terminal.lines)
    while len(terminal.lines) < before + 3:  # the model is writing
        assert terminal.read(), "\n".join(terminal.lines)
    terminal.type("\x03")
    while not terminal.lines[-1].startswith(">"):
        assert terminal.read(), "\n".join(terminal.lines)
    terminal.type("\x03")  # while it waits: the end
    assert terminal.end() == 130
    story = (place / "parts/story.txt").read_text(encoding="utf-8")
    assert story.startswith("江枫渔火") and len(han(story)) > 30


@pytest.mark.parametrize("is_saved", [True, False])
def test_the_text_of_a_terminal_that_is_closed_is_in_a_file(warm_python, place, is_saved):
    folder = place / f"closed{is_saved}"
    words = [*ENDLESS, "--length", 1_000_000, "--stream", "--prefix", "江枫渔火", "--save_samples_path", folder]
    terminal = open_terminal(warm_python, place, *words, *(["--save_samples"] if is_saved else []))
    terminal.wait_for("江枫渔火")
    assert terminal.hang_up() == 129
    (text,) = parse_samples((folder / "samples.txt").read_text(encoding="utf-8"))
    assert re.fullmatch(r"江枫渔火.*\n\[cut here after [\d,]+ tokens\]", text, re.DOTALL), text
