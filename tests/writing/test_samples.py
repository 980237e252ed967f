"""Sample files: their form, what happens to earlier ones, what a kill leaves."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from helpers import parse_samples

from novelgpt.messages import EXIT_ENVIRONMENT, EXIT_USAGE, UserError
from novelgpt.writing.samples import SampleFolder, format_sample


def test_a_sample_stands_between_forty_and_ninety_signs():
    assert format_sample(3, "萧炎\n走了") == f"{'=' * 40} SAMPLE 3 {'=' * 40}\n萧炎\n走了\n{'=' * 90}\n"


def test_samples_are_in_both_files(tmp_path):
    folder = SampleFolder(tmp_path / "new" / "mnt")
    for text in ("萧炎", "一\n二"):
        folder.add(f"…{text}", text, {"seed": 7})
    assert parse_samples(folder.text_path.read_text(encoding="utf-8")) == ["…萧炎", "…一\n二"]
    lines = [json.loads(line) for line in folder.lines_path.read_text(encoding="utf-8").splitlines()]
    assert lines == [{"number": 1, "seed": 7, "text": "萧炎"}, {"number": 2, "seed": 7, "text": "一\n二"}]


def test_earlier_samples_are_moved_aside(tmp_path):
    for round_ in range(3):
        SampleFolder(tmp_path).add(f"text {round_}", f"text {round_}", {})
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "samples.1.jsonl", "samples.1.txt", "samples.2.jsonl", "samples.2.txt", "samples.jsonl", "samples.txt",
    ]  # fmt: skip
    texts = [(tmp_path / f"samples{n}.txt").read_text().split("\n")[1] for n in (".1", ".2", "")]
    assert texts == ["text 0", "text 1", "text 2"]


def test_growing_texts_are_kept_and_go_at_the_end(tmp_path):
    folder = SampleFolder(tmp_path)
    folder.keep_unfinished(lambda: {1: "too early"})
    assert not folder.unfinished_path.exists()
    folder.saved -= 100
    folder.keep_unfinished(lambda: {2: "二", 1: "一"})
    assert parse_samples(folder.unfinished_path.read_text(encoding="utf-8")) == ["一", "二"]
    folder.close()
    assert not folder.unfinished_path.exists()


def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "mnt").write_text("")
    with pytest.raises(UserError) as caught:
        SampleFolder(tmp_path / "mnt")
    assert str(caught.value) == (
        f"error: --save_samples_path {tmp_path / 'mnt'}: File exists, expected a folder to write to\n\n"
        "hint: --save_samples_path mnt/, or another folder that you may write to"
    )
    assert caught.value.code == EXIT_ENVIRONMENT


def test_a_file_name_for_the_folder_is_refused(tmp_path):
    with pytest.raises(UserError) as caught:
        SampleFolder(tmp_path / "out" / "one.txt")
    assert str(caught.value) == (
        f"error: --save_samples_path {tmp_path / 'out' / 'one.txt'}: named like a file, expected a folder\n\n"
        f"hint: --save_samples_path {tmp_path / 'out'}"
    )
    assert caught.value.code == EXIT_USAGE


WRITER = """
import sys
from novelgpt.writing.samples import SampleFolder
folder = SampleFolder(sys.argv[1])
for number in range(1, 100000):
    text = f"text {number} " + "萧炎" * 3000
    folder.add(text, text, {"seed": number})
    print(number, flush=True)
"""


@pytest.mark.slow
def test_a_kill_at_any_moment_leaves_every_finished_sample_and_whole_files(tmp_path):
    for turn in range(50):
        place = tmp_path / str(turn)
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(place)], stdout=subprocess.PIPE, text=True, env={**os.environ}
        )
        process.stdout.readline()
        time.sleep(0.003 * turn)
        process.send_signal(signal.SIGKILL)
        finished = 1 + len(process.stdout.read().split())
        process.wait()
        texts = parse_samples((place / "samples.txt").read_text(encoding="utf-8"))
        lines = [json.loads(line) for line in (place / "samples.jsonl").read_text(encoding="utf-8").splitlines()]
        assert len(lines) >= len(texts) >= finished
        assert [line["text"] for line in lines][: len(texts)] == texts


def test_growing_texts_of_an_earlier_run_are_moved_aside(tmp_path, capsys):
    (tmp_path / "samples.unfinished.txt").write_text("月落", encoding="utf-8")
    SampleFolder(tmp_path)
    aside = tmp_path / "samples.unfinished.1.txt"
    assert aside.read_text(encoding="utf-8") == "月落"
    assert capsys.readouterr().err == f"moved the samples of an earlier run to {aside}\n"


def test_a_folder_that_takes_no_file_is_refused_at_once(tmp_path, monkeypatch):
    def fail(**values):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("novelgpt.writing.samples.tempfile.TemporaryFile", fail)
    with pytest.raises(UserError) as caught:
        SampleFolder(tmp_path)
    assert caught.value.message == f"--save_samples_path {tmp_path}: Permission denied, expected a folder to write to"
    assert caught.value.code == EXIT_ENVIRONMENT
