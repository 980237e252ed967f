"""What generate.py shows on a terminal: texts whole, on lines of their own, and no dead bar beside them."""

import re
import sys

import pytest
from conftest import ROOT
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
