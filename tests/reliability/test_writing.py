"""generate.py killed at any moment: what was finished is in the files, and the files are whole."""

import json
import os
import random
import subprocess

import pytest

from novelgpt.corpus.tokenizer import load_tokenizer
from novelgpt.corpus.tokenizers.base import save_vocabulary
from novelgpt.corpus.tokenizers.vocabulary import build_vocabulary
from novelgpt.network import build_model, check_model_config, save_model
from reliability.harness import ROOT, STORY, TINY, cases

SAMPLES = cases(12, 60, 60)

# loads torch once; reads {"argv": [...], "after": seconds or null} a line, forks a generate.py for each, kills it so
# long after it began, and prints {"status": ..., "seconds": ..., "said": what it wrote to stdout}
FORKER = r"""
import json, os, signal, sys, time
import torch, transformers
import generate
import novelgpt.writing.generation, novelgpt.writing.samples
from novelgpt.cli import run

def child(argv, output):
    os.dup2(output, 1)
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)
    torch.set_num_threads(1)
    status = 1
    try:
        status = run(generate.main, argv)
        sys.stdout.flush()
    finally:
        os._exit(status)

for line in sys.stdin:
    job = json.loads(line)
    reader, writer = os.pipe()
    began = time.monotonic()
    pid = os.fork()
    if pid == 0:
        child(job["argv"], writer)
    os.close(writer)
    if job["after"] is not None:
        time.sleep(job["after"])
        os.kill(pid, signal.SIGKILL)
    with open(reader, encoding="utf-8") as said:  # what it says fits into a pipe
        text = said.read()
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    print(json.dumps({"status": status, "seconds": time.monotonic() - began, "said": text}), flush=True)
"""


@pytest.fixture(scope="module")
def write(tmp_path_factory, warm_python):
    """Return a function that lets generate.py write into a folder and kills it after some seconds."""
    folder = tmp_path_factory.mktemp("model")
    save_vocabulary(folder / "vocab.txt", build_vocabulary(STORY))
    tokenizer = load_tokenizer(folder / "vocab.txt")
    config = check_model_config(dict(TINY), name="tiny")
    save_model(build_model(config, tokenizer, seed=1), tokenizer, folder / "model")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [warm_python, "-c", FORKER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=ROOT,
        env=environment,
    )
    options = {"model_path": folder / "model", "prefix": "乔一斗", "nsamples": SAMPLES, "batch_size": 4, "length": 30}
    options |= {"seed": 3, "device": "cpu", "precision": "fp32"}
    argv = [f"--{name}={value}" for name, value in options.items()] + ["--save_samples", "--no-cut_loops"]

    def job(place, after: float | None) -> dict:
        words = [*argv, f"--save_samples_path={place}"]
        process.stdin.write(json.dumps({"argv": words, "after": after}) + "\n")
        process.stdin.flush()
        return json.loads(process.stdout.readline())

    yield job
    process.stdin.close()
    process.wait()


def fault_of_files(place, finished: int, expected: list[str]) -> str | None:
    """Say what is wrong with the files of a killed run that had shown so many finished samples; None when nothing."""
    path = place / "samples.jsonl"
    try:
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        texts = [json.loads(line)["text"] for line in lines]
    except ValueError as problem:
        return f"samples.jsonl is broken: {problem}"
    if len(texts) < finished:
        return f"{finished} samples were finished, {len(texts)} are in the file"
    if texts != expected[: len(texts)]:
        return "other texts than of the undisturbed run"
    whole = place / "samples.txt"
    shown = whole.read_text(encoding="utf-8") if whole.exists() else ""
    blocks = shown.count(" SAMPLE ")
    if blocks < finished or (shown and not shown.endswith("=" * 90 + "\n")):
        return f"samples.txt holds {blocks} of {finished} samples"
    return None


def test_kill_9_while_writing_loses_no_finished_sample(write, tmp_path, ledger):
    undisturbed = write(tmp_path / "whole", None)
    assert undisturbed["status"] == 0
    lines = (tmp_path / "whole" / "samples.jsonl").read_text(encoding="utf-8").splitlines()
    expected = [json.loads(line)["text"] for line in lines]
    assert len(set(expected)) == SAMPLES
    choices, faults, seen = random.Random(8), [], set()
    count = cases(1, 50, 500)
    for number in range(count):
        place = tmp_path / str(number)
        done = write(place, choices.uniform(0.05, 1) * undisturbed["seconds"])
        finished = done["said"].count("=" * 90 + "\n")
        seen.add(finished)
        if fault := fault_of_files(place, finished, expected):
            faults.append(fault)
    assert count < 50 or len(seen) > 10, "the kills came at few different moments only"
    ledger("generate.py, SIGKILL at a random time: every finished sample is saved, no file is broken", faults, count)
