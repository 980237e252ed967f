"""What the shell has closed (>&-): no traceback, a status that tells, nothing lost."""

import subprocess
import sys

import pytest
from conftest import ROOT
from helpers import parse_samples, save_model_and_book

pytestmark = [pytest.mark.sweep, pytest.mark.skipif(sys.platform == "win32", reason="a shell of its own")]
CLOSED = (
    "error: stdout is closed: the result cannot be shown\n\nhint: >/dev/null throws it away, >result.txt keeps it\n"
)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a corpus and a small model that knows it."""
    return save_model_and_book(tmp_path_factory.mktemp("closed"))


def call(folder, script: str, words: str) -> tuple[int, str]:
    """Run a script of the checkout by a shell, and return its status and what stderr got."""
    line = f"{sys.executable} {ROOT / script} {words}"
    done = subprocess.run(line, shell=True, cwd=folder, capture_output=True, text=True, check=False)
    assert done.stdout == ""
    return done.returncode, done.stderr


def test_samples_are_saved_where_stdout_is_closed(place, tmp_path):
    words = f"--model_path {place / 'model'} --length 5 --nsamples 2 --device cpu --save_samples --stop never >&-"
    status, said = call(tmp_path, "generate.py", words)
    assert status == 4 and said.endswith(CLOSED) and "Traceback" not in said
    assert len(parse_samples((tmp_path / "mnt/samples.txt").read_text(encoding="utf-8"))) == 2


def test_what_cannot_be_shown_is_an_error_and_an_error_that_cannot_be_told_has_its_status(place, tmp_path):
    assert call(tmp_path, "generate.py", "--print_config >&-") == (4, CLOSED)
    assert call(tmp_path, "clr_ctrl.py", "nix 2>&-") == (3, "")
    assert call(tmp_path, "clr_ctrl.py", "nix >&- 2>&- <&-") == (3, "")
    status, said = call(tmp_path, "clr_ctrl.py", f"{place / 'train.json'} >&-")  # has no result to show
    assert status == 0 and (tmp_path / "data/train.json").exists(), said


def test_closed_input_ends_the_writing_by_turns(place, tmp_path):
    words = f"--model_path {place / 'model'} --interactive --prefix 江枫 --save_samples_path {tmp_path} <&- >/dev/null"
    status, said = call(tmp_path, "generate.py", words)
    assert status == 0 and (tmp_path / "story.txt").read_text(encoding="utf-8") == "江枫", said
