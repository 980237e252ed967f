"""Ctrl-C, a closed terminal, a closed pipe and a full disk while texts are written: every character is kept."""

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT
from helpers import call_generate, parse_samples, save_model_and_book

from novelgpt.messages import EXIT_ENVIRONMENT, EXIT_PIPE, UserError, is_reader_gone
from novelgpt.writing import samples as samples_module
from novelgpt.writing.batch import SampleBatch
from novelgpt.writing.terminal import StopSignals

CUT = "[cut here after {} tokens]"
ENDLESS = ("--prefix", "萧炎", "--stop", "never", "--no-cut_loops", "--length", "100", "--nsamples", "2")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a corpus and a small model that knows it."""
    return save_model_and_book(tmp_path_factory.mktemp("interrupts"))


@pytest.fixture(scope="module")
def undisturbed(place, tmp_path_factory):
    """The texts that nothing stops."""
    folder = tmp_path_factory.mktemp("undisturbed")
    assert call_generate(place, *ENDLESS, "--save_samples", "--save_samples_path", str(folder)) == 0
    return [record["text"] for record in read_records(folder)]


def is_beginning(text: str, whole: str) -> bool:
    """Tell whether a text is the beginning of another."""
    return whole.startswith(text)


def read_records(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "samples.jsonl").read_text(encoding="utf-8").splitlines()]


def call_at(monkeypatch, count: int, act) -> None:
    """Let something happen within the count-th call of decode_many, before its tokens are decoded."""
    decode, calls = SampleBatch.decode_many, iter(range(1, 10**6))

    def decode_many(batch, *arguments):
        if next(calls) == count:
            act()
        return decode(batch, *arguments)

    monkeypatch.setattr(SampleBatch, "decode_many", decode_many)


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
@pytest.mark.parametrize("mode", [["--save_samples"], []], ids=["saved", "printed"])
@pytest.mark.skipif(sys.platform == "win32", reason="no SIGHUP, and no signal to oneself")
def test_what_is_written_when_a_signal_comes_is_kept_and_marked(
    place, undisturbed, tmp_path, monkeypatch, capsys, name, mode
):
    number = getattr(signal, name)
    call_at(monkeypatch, 3, lambda: signal.raise_signal(number))  # after 32 tokens; the step under way is finished
    assert call_generate(place, *ENDLESS, *mode, "--save_samples_path", str(tmp_path)) == 128 + number
    shown, said = capsys.readouterr()
    texts = parse_samples(shown)
    assert len(texts) == 2 and all(text.endswith("\n" + CUT.format(48)) for text in texts)
    assert "stopped: the texts are cut where they were, and kept\n" in said
    if not mode:
        assert list(tmp_path.iterdir()) == []
        return
    records = read_records(tmp_path)
    assert [record["ended"] for record in records] == ["stopped", "stopped"]
    assert all(is_beginning(record["text"], whole) for whole, record in zip(undisturbed, records, strict=True))
    assert all(record["tokens"] == 48 and len(record["text"]) > 20 for record in records)
    saved = parse_samples((tmp_path / "samples.txt").read_text(encoding="utf-8"))
    assert saved == [f"{record['text']}\n{CUT.format(48)}" for record in records]
    assert not (tmp_path / "samples.unfinished.txt").exists()


def test_a_streamed_text_is_cut_where_the_signal_came(place, undisturbed, monkeypatch, capsys):
    call_at(monkeypatch, 20, lambda: signal.raise_signal(signal.SIGINT))  # the 20th token is still written
    assert call_generate(place, *ENDLESS, "--stream") == 130
    (text,) = parse_samples(capsys.readouterr().out)  # the second one was never begun
    assert text.endswith("\n" + CUT.format(20))


def test_finished_texts_stay_whole_and_those_not_begun_are_left_out(place, undisturbed, tmp_path, monkeypatch):
    call_at(monkeypatch, 10, lambda: signal.raise_signal(signal.SIGINT))  # 100 tokens are 7 calls
    words = [*ENDLESS[:-1], "3", "--batch_size", "1", "--save_samples", "--save_samples_path", str(tmp_path)]
    assert call_generate(place, *words) == 130
    first, second = read_records(tmp_path)
    assert (first["text"], first["ended"]) == (undisturbed[0], "length")
    assert is_beginning(second["text"], undisturbed[1]) and second["ended"] == "stopped"


def test_a_signal_before_the_first_token_leaves_no_text(place, tmp_path, monkeypatch, capsys):
    begin = SampleBatch.read_prefix
    monkeypatch.setattr(
        SampleBatch, "read_prefix", lambda *a, **b: signal.raise_signal(signal.SIGINT) or begin(*a, **b)
    )
    assert call_generate(place, *ENDLESS, "--save_samples", "--save_samples_path", str(tmp_path)) == 130
    shown, said = capsys.readouterr()
    assert shown == "" and "stopped before the first token\n" in said


def test_the_same_signal_again_ends_at_once_but_a_terminal_closes_twice():
    with pytest.raises(SystemExit) as end, StopSignals():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
    assert end.value.code == 130
    with StopSignals() as stop:
        for name in ("SIGHUP", "SIGHUP", "SIGTERM"):
            signal.raise_signal(getattr(signal, name))
    assert stop.status == 129


def test_what_ignores_signals_goes_on_ignoring_them():
    former = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as under nohup
    try:
        with StopSignals() as stop:
            signal.raise_signal(signal.SIGHUP)
        assert not stop.is_set() and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, former)


def fill_disk(monkeypatch, until: int) -> None:
    """Let the first so many files that are to be written meet a full disk."""
    write, calls = samples_module.write_text, iter(range(1, 10**6))

    def write_text(path, text):
        if next(calls) <= until:
            raise UserError(f"{path}: cannot be written: No space left on device", "free some space", EXIT_ENVIRONMENT)
        write(path, text)

    monkeypatch.setattr(samples_module, "write_text", write_text)


@pytest.mark.parametrize(("until", "status"), [(2, 0), (10**6, EXIT_ENVIRONMENT)])
def test_a_full_disk_ends_no_writing_and_every_text_is_printed(
    place, undisturbed, tmp_path, monkeypatch, capsys, until, status
):
    fill_disk(monkeypatch, until)
    words = [*ENDLESS, "--batch_size", "1", "--save_samples", "--save_samples_path", str(tmp_path)]
    assert call_generate(place, *words) == status
    shown, said = capsys.readouterr()
    assert len(parse_samples(shown)) == 2
    full = f"{tmp_path / 'samples.jsonl'}: cannot be written: No space left on device"
    assert said.count(f"warning: {full}; the writing goes on, and all texts are saved again at the end\n") == 1
    if status:
        assert said.endswith(f"error: {full}\n\nhint: free some space\n")
    else:  # there was room again at the end
        assert [record["text"] for record in read_records(tmp_path)] == undisturbed


def run_generate(warm_python, place, folder, *arguments: str, **streams) -> subprocess.CompletedProcess:
    model = ["--model_path", place / "model", "--seed", "1", "--device", "cpu"]
    command = [warm_python, ROOT / "generate.py", *model, *arguments]
    return subprocess.run(command, cwd=folder, stderr=subprocess.PIPE, text=True, check=False, **streams)


def closed_pipe():
    """Return the writing end of a pipe that nobody reads."""
    reader, writer = os.pipe()
    os.close(reader)
    return os.fdopen(writer, "wb")


@pytest.mark.skipif(sys.platform == "win32", reason="the pipe of a process that has ended is another there")
def test_when_nobody_reads_the_files_get_everything_and_without_them_it_ends(place, undisturbed, tmp_path, warm_python):
    for folder, words in (("with", ["--save_samples"]), ("without", [])):
        (tmp_path / folder).mkdir()
        with closed_pipe() as pipe:
            words = [*ENDLESS, "--batch_size", "1", *words]
            done = run_generate(warm_python, place, tmp_path / folder, *words, stdout=pipe)
        assert done.returncode == EXIT_PIPE and "Traceback" not in done.stderr
    assert [record["text"] for record in read_records(tmp_path / "with/mnt")] == undisturbed
    assert not (tmp_path / "without/mnt").exists()


def test_windows_calls_a_closed_pipe_an_invalid_argument(monkeypatch):
    invalid = OSError(errno.EINVAL, "Invalid argument")
    assert is_reader_gone(BrokenPipeError()) and not is_reader_gone(invalid)
    monkeypatch.setattr("os.name", "nt")
    assert is_reader_gone(invalid)
    assert not is_reader_gone(OSError(errno.EINVAL, "Invalid argument", "a?.txt"))
    assert not is_reader_gone(OSError(errno.ENOSPC, "No space left on device"))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_texts_that_stdout_does_not_take_get_files(place, undisturbed, tmp_path, warm_python):
    with open("/dev/full", "w") as full:
        done = run_generate(warm_python, place, tmp_path, *ENDLESS, "--batch_size", "1", stdout=full)
    assert done.returncode == EXIT_ENVIRONMENT
    assert "warning: stdout takes no more text; the samples are in mnt/samples.txt\n" in done.stderr
    assert done.stderr.endswith("error: no space left on the disk\n\nhint: free some space\n")
    assert [record["text"] for record in read_records(tmp_path / "mnt")] == undisturbed


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_texts_that_no_place_takes_stand_on_stderr(place, undisturbed, tmp_path, warm_python):
    (tmp_path / "mnt").write_text("in the way of the folder")
    with open("/dev/full", "w") as full:
        done = run_generate(warm_python, place, tmp_path, *ENDLESS, stdout=full)
    assert done.returncode == EXIT_ENVIRONMENT
    assert all(text[:4] in done.stderr for text in undisturbed) and done.stderr.count(" SAMPLE ") == 2


WITH_A_READER_THAT_GOES = """
import os, signal, sys
sys.path.insert(0, os.environ["PYTHONPATH"])
from novelgpt.cli import run
from novelgpt.commands.generate import main
from novelgpt.writing.batch import SampleBatch
decode, calls = SampleBatch.decode_many, iter(range(1, 10**6))
def decode_many(batch, *arguments):
    if next(calls) == 3:
        signal.raise_signal(signal.SIGINT)
    return decode(batch, *arguments)
SampleBatch.decode_many = decode_many
sys.exit(run(main, sys.argv[1:]))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no signal to oneself")
def test_ctrl_c_that_ends_the_reader_too_leaves_the_texts_in_files(place, undisturbed, tmp_path, warm_python):
    words = ["--model_path", place / "model", "--seed", "1", "--device", "cpu", *ENDLESS]
    with closed_pipe() as pipe:  # as of `generate.py | tee out.txt`
        done = subprocess.run(
            [warm_python, "-c", WITH_A_READER_THAT_GOES, *words], cwd=tmp_path, stdout=pipe, stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(ROOT)}, text=True, check=False,
        )  # fmt: skip
    assert done.returncode == 130, done.stderr
    assert [record["ended"] for record in read_records(tmp_path / "mnt")] == ["stopped", "stopped"]
