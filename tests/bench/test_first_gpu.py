"""bench/first_gpu.sh: every step is a command that its scripts take, and all of them run through on a CPU."""

import importlib
import os
import re
import shlex
import subprocess
import sys

import pytest
from conftest import ROOT
from test_benches import bench

SCRIPT = ROOT / "bench/first_gpu.sh"
COMMAND = re.compile(r"[\w/.]+\.py(?: +(?!>|&&|\|)[^\s;']+)*")
STEPS = ["versions", "novel as pieces", "600 small steps", "tokens/s", "without torch.compile", "one step of 8 windows"]
STEPS += [
    "stop and resume",
    "writing 1 and 10",
    "same text on the CPU",
    "--device 0,1",
    "torchrun",
    "--shard",
    "second",
]


def run(*words: object, cards: int = 2, **settings) -> subprocess.CompletedProcess:
    """Run the script with this Python."""
    environment = {**os.environ, "PYTHON": sys.executable, "CARDS": str(cards), "OMP_NUM_THREADS": "1"}
    command = ["bash", SCRIPT, *map(str, words)]
    return subprocess.run(command, env=environment, capture_output=True, encoding="utf-8", check=False, **settings)


def commands(text: str) -> list[list[str]]:
    """Return every call of a Python file, as words."""
    return [shlex.split(found.replace("\\", " ")) for found in COMMAND.findall(text.replace("\\\n", " "))]


@pytest.mark.parametrize("words", [[], ["--tiny", "--device", "cpu"]])
def test_every_step_is_a_command_that_its_script_takes(words, tmp_path):
    done = run("--dry", "--out", tmp_path / "first.txt", *words)
    assert done.returncode == 0 and done.stderr == ""
    found = commands(done.stdout)
    assert len(found) > 15 and list(tmp_path.iterdir()) == []
    for path, *arguments in found:
        assert (ROOT / path).is_file(), path
        if path == "bench/bench_train.py":
            bench.build_parser().parse_args(arguments)
        elif "/" not in path:
            parser = importlib.import_module(path.removesuffix(".py")).build_parser()
            assert parser.parse_known_args(arguments)[1] == [], path


def test_one_card_has_no_steps_for_two_and_a_gpu_has_them_all():
    assert "two cards" not in run("--dry", cards=1).stdout
    names = [line.split("\t")[0] for line in run("--dry").stdout.splitlines() if "\t" in line]
    for step in STEPS:
        assert any(step in name for name in names), step
    assert "--device 1,2" in run("--dry", "--device", "1").stdout


def test_an_unknown_option_is_refused():
    done = run("--devices", "0")
    assert (done.returncode, done.stderr) == (
        2,
        "unknown option --devices; known: --tiny --dry --device NAME --out FILE\n",
    )


@pytest.mark.sweep
def test_all_steps_run_through_on_a_cpu_into_one_file(tmp_path):
    done = run("--tiny", "--device", "cpu", "--out", tmp_path / "first.txt")
    text = (tmp_path / "first.txt").read_text(encoding="utf-8")
    summary = text.split("==== summary\n")[1].splitlines()
    assert len(summary) == 15 and all(re.search(r" ok +\d+ s$", line) for line in summary), text[-6000:]
    for said in ("tokens/s", "predicted)", "same bytes", "same text", "Self CPU", "finished"):
        assert said in text
    assert done.stdout.endswith(f"all of it: {tmp_path / 'first.txt'}\n")
    assert [path.name for path in tmp_path.iterdir()] == ["first.txt"]
