"""One process a GPU from the same command; tested on the CPU, where the processes meet by gloo."""

import os
import shlex
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from conftest import ROOT
from helpers import refusal_of
from processes import losses_of

from novelgpt.cli import IS_RANK, TrainOptions
from novelgpt.launch import count_processes, launch

COMMAND = ["train.py", "--device", "0,1"]
LAUNCH = """
import sys
from novelgpt.cli import run
from novelgpt.launch import launch
sys.executable = sys.argv.pop(1)
print(run(lambda argv: launch(argv[1:], int(argv[0])), sys.argv[1:]))
"""


@pytest.fixture
def two_gpus(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)


def words_of(options: TrainOptions) -> list[str]:
    """Return the command line of options."""
    default = asdict(TrainOptions())
    changed = {name: value for name, value in asdict(options).items() if value != default[name]}
    return ["train.py", *(f"--{name}={value}" for name, value in changed.items())]


@pytest.mark.parametrize(
    ("count", "options", "command"),
    [
        (2, {"device": "0,1"}, COMMAND),
        (2, {"device": "0,1", "parallel": "processes"}, COMMAND),
        (1, {"device": "0,1", "parallel": "threads"}, COMMAND),
        (1, {"device": "0,1", "plan": True}, COMMAND),
        (1, {"device": "0,1"}, None),  # from Python
        (1, {"device": "1"}, COMMAND),
        (1, {}, COMMAND),
    ],
)
def test_several_gpus_of_a_command_have_a_process_each_unless_threads_are_asked_for(two_gpus, count, options, command):
    assert count_processes(TrainOptions(**options), command) == count


def test_windows_and_a_started_rank_go_on_in_their_process(two_gpus, monkeypatch):
    options = TrainOptions(device="0,1")
    monkeypatch.setattr("novelgpt.launch.sys.platform", "win32")
    assert count_processes(options, COMMAND) == 1
    assert count_processes(replace(options, parallel="processes"), COMMAND) == 2
    monkeypatch.setenv(IS_RANK, "1")
    assert count_processes(replace(options, parallel="processes"), COMMAND) == 1


def test_without_a_gpu_nothing_is_started(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert count_processes(TrainOptions(device="0,1"), COMMAND) == 1


def test_parallel_where_something_else_decides_is_refused(monkeypatch):
    error = refusal_of(count_processes, TrainOptions(device="0", parallel="processes"), COMMAND)
    assert error.message == "--parallel processes: needs several GPUs and a command that can be started again"
    monkeypatch.setenv("WORLD_SIZE", "2")
    error = refusal_of(count_processes, TrainOptions(device="0,1", parallel="threads"), COMMAND)
    assert error.message == "--parallel: torchrun has started the processes"


@pytest.fixture
def start(tmp_path, warm_python):
    """Return a function that starts train.py as so many processes."""

    def start_run(options: TrainOptions, count: int = 2, python=warm_python) -> subprocess.Popen:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        words = [python, "-c", LAUNCH, python, str(count), *words_of(options)]
        return subprocess.Popen(words, cwd=ROOT, env=environment, text=True, stdout=-1, stderr=-1)

    return start_run


def test_two_processes_have_the_losses_of_one_and_one_log(tiny_options, start, finished):
    options = tiny_options(log_step=1, batch_size=8, epochs=2)
    said = start(options).communicate(timeout=100)
    assert said[0] == "0\n", said[1]
    assert said[1].startswith("starting 2 processes, one per GPU (--parallel threads: one process for all)\n")
    assert said[1].count("finished ") == 1
    whole = finished(log_step=1, batch_size=8, epochs=2)
    ours, theirs = (losses_of({"options": asdict(run)}) for run in (options, whole))
    assert [step for step, _ in ours] == [step for step, _ in theirs]
    assert [loss for _, loss in ours] == pytest.approx([loss for _, loss in theirs], rel=1e-5)


def wait_for_step(options: TrainOptions, step: int) -> None:
    """Wait until a run has logged a step."""
    log, deadline = options.output_path / "log.jsonl", time.monotonic() + 60
    while not (log.exists() and f'"step": {step},' in log.read_text(encoding="utf-8")):
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.sweep
def test_one_ctrl_c_stops_all_of_them_with_one_line_and_the_command_that_goes_on(tiny_options, start):
    options = tiny_options(log_step=1, epochs=4000)
    process = start(options, python=sys.executable)
    wait_for_step(options, 3)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert out == "130\n", err
    assert err.count("SIGINT: saving, then stopping (again: stop at once)\n") == 1
    assert f"continue with: python {shlex.join(words_of(options))}\n" in err
    assert len(list((options.output_path / "checkpoints").glob("step-*"))) >= 1


RANK = """
import os, sys, time
open(sys.argv[1] + os.environ["RANK"], "w").write(" ".join(map(os.environ.get, ("LOCAL_RANK", "WORLD_SIZE"))))
if os.environ["RANK"] == sys.argv[2]:
    {end}
time.sleep(100)
"""


def run_ranks(folder: Path, end: str, *, ending: int) -> int:
    """Run two ranks, of which one ends in some way and the other sleeps; return the status."""
    (folder / "rank.py").write_text(RANK.format(end=end), encoding="utf-8")
    return launch([str(folder / "rank.py"), str(folder / "rank"), str(ending)], 2)


def test_when_one_is_killed_the_others_are_ended_and_it_is_said(tmp_path):
    told = "os.path.exists(sys.argv[1] + '0') and os.path.getsize(sys.argv[1] + '0')"  # the other one has begun
    end = f"while not ({told}): time.sleep(0.01)\n    os.kill(os.getpid(), 9)"
    error = refusal_of(run_ranks, tmp_path, end, ending=1)
    assert error.message == "process 2 of 2 died of SIGKILL; the others were ended"
    assert error.hint == "the same command resumes from the last checkpoint"
    assert [(tmp_path / f"rank{rank}").read_text() for rank in range(2)] == ["0 2", "1 2"]


def test_when_one_ends_with_an_error_its_status_is_the_run_s(tmp_path, monkeypatch):
    monkeypatch.setattr("novelgpt.launch.GRACE", 0.1)
    assert run_ranks(tmp_path, "sys.exit(3)", ending=0) == 3


def test_the_former_handlers_come_back(tmp_path, monkeypatch):
    former = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr("novelgpt.launch.GRACE", 0.1)
    run_ranks(tmp_path, "sys.exit(3)", ending=0)
    assert signal.getsignal(signal.SIGTERM) is former
