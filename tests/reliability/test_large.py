"""The 82M network on this machine's processor: how soon it stops, and what its checkpoints cost."""

import json
import signal
import subprocess
import sys
import time

import pytest
import torch

from novelgpt.files import find_damage
from novelgpt.training.checkpoint import FILES, Progress, find_checkpoint, save_checkpoint
from reliability.harness import ROOT, remove

STOP_SECONDS = 10.0
SAVE_STEPS = 500
COST = 0.02  # of the time of a run that saves every SAVE_STEPS
BATCH, WINDOW = 8, 1024
PARAMETERS = 81_894_144


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """A run of the default network on the bundled novel, stopped in its second step: folder, status, seconds."""
    folder = tmp_path_factory.mktemp("large")
    command = [sys.executable, "train.py", "--raw", "--raw_data_path=data/sample/clean.json", "--device=cpu"]
    command += [f"--tokenized_data_path={folder / 'pieces'}", f"--output_dir={folder / 'run'}", "--log_step=1"]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        try:
            for line in process.stderr:
                if line.startswith("step 1/"):
                    break
            time.sleep(1.5)  # into the second step
            began = time.monotonic()
            process.send_signal(signal.SIGINT)
            said = process.communicate()[1]
        finally:
            process.kill()
    yield folder / "run", process.returncode, time.monotonic() - began, said
    remove(folder)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_an_82m_run_stops_soon(stopped, ledger):
    run_dir, status, seconds, said = stopped
    checkpoint = find_checkpoint(run_dir, set_aside=False)
    assert status == 130 and checkpoint.name == "step-00000001", said
    assert find_damage(checkpoint, needed=FILES) is None
    faults = [] if seconds <= STOP_SECONDS else [f"{seconds:.1f} s"]
    promise = f"An 82M run on the CPU is saved and gone within {STOP_SECONDS:g} s of Ctrl-C"
    ledger(promise, faults, 1, f"{seconds:.1f} s")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_checkpoints_cost_little(stopped, tmp_path, ledger):
    records = [json.loads(line) for line in (stopped[0] / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    step = BATCH * WINDOW / next(record["tokens_per_second"] for record in records if "lr" in record)
    weights = {"w": torch.ones(PARAMETERS)}
    moments = {f"0/w/{key}": torch.ones(PARAMETERS) for key in ("exp_avg", "exp_avg_sq")}
    began = time.monotonic()
    save_checkpoint(tmp_path, Progress(step=1), weights, moments, keep=1)
    save = time.monotonic() - began
    remove(tmp_path)
    share = save / (save + SAVE_STEPS * step)
    faults = [] if share <= COST else [f"{share:.2%}"]
    figure = f"{share:.3%}: {save:.1f} s a checkpoint, {step:.1f} s a step"
    promise = f"Checkpoints cost under {COST:.0%} of an 82M run on the CPU that saves every {SAVE_STEPS} steps"
    ledger(promise, faults, 1, figure)
