"""What a terminal shows: texts whole, on lines of their own; bars that say where a run stands, none beside a text."""

import re
import sys

import pytest
from conftest import ROOT, make_tiny_options
from helpers import parse_samples, save_model_and_book

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no pseudo-terminals here")
if sys.platform != "win32":
    from screens import screen_of

BANNER = "=" * 40
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


@pytest.mark.parametrize("columns", [80, 150])
@pytest.mark.parametrize("options", [["--stream"], []], ids=["streamed", "at the end"])
def test_the_texts_stand_on_the_screen_and_no_bar_beside_them(warm_python, place, options, columns):
    sizes = ["--nsamples", 3, "--batch_size", 1, "--length", 120, "--no-cut_loops", "--stop", "never"]
    lines, saved = write(warm_python, place, *sizes, *options, columns=columns)
    assert len(saved) == 3
    for sample in saved:
        assert len(han(sample)) > 20 and han(sample) in han("".join(lines))
    assert [line for line in lines if BAR.search(line)] == []
    assert len([line for line in lines if line.startswith(f"{BANNER} SAMPLE ")]) == 3


SHOW = """
import os, sys
from pathlib import Path
from novelgpt.training.log import RunLog
log = RunLog(Path(sys.argv[1]), 1570)
log.resume(step=0, length=0)
log.bar.update(337)
log.bar.mininterval = 0
log.move_bar(4, 15, 4.21337)
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


@pytest.mark.parametrize("columns", [20, 80])
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
