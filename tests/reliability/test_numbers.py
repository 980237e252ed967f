"""A loss or gradient that is no number costs its own step and nothing else."""

import itertools
import json
from pathlib import Path

import torch
from safetensors.torch import load_file

from novelgpt.training.checkpoint import list_checkpoints, read_progress
from reliability.harness import cases, remove

STEPS = 20
VALUES = ("nan", "inf", "-inf")


def fault_of_numbers(folder: Path, step: int, said: str) -> str | None:
    """Say what is wrong with a run one of whose steps was spoiled."""
    found = list_checkpoints(folder)
    records = [json.loads(line) for line in (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    if [record["step"] for record in records if record.get("loss") == "nan"] != [step]:
        return "not logged as nan in that step alone"
    if f"warning: step {step}: loss or gradient is not finite; left out (windows at tokens " not in said:
        return "no warning with the windows"
    if [read_progress(path).skipped for path in found] != [int(number >= step) for number in range(1, len(found) + 1)]:
        return "not counted in that step"
    before, after = (path / "model.safetensors" for path in found[step - 2 : step]) if step > 1 else (None, None)
    if step > 1 and before.read_bytes() != after.read_bytes():
        return "the weights were changed"
    for path in folder.rglob("*.safetensors"):
        if not all(torch.isfinite(tensor).all() for tensor in load_file(path).values()):
            return f"{path.name} of {path.parent.name} is not finite"
    return None


def test_a_step_that_is_no_number(pool, tiny_run, tmp_path, ledger):
    argv = [*tiny_run, "--epochs=4", "--save_steps=1", "--save_total_limit=100", "--sample_length=0"]

    def trial(worker, case):
        step, value, part = case
        folder = tmp_path / f"{step}{value}{part}"
        done = worker.run(argv, folder, spoil=[2 * step, value, part])  # two micro-batches a step
        fault = fault_of_numbers(folder, step, done["said"]) if done["status"] == 0 else done["said"][-2000:]
        remove(folder)
        return [f"step {step}, {part} {value}: {fault}"] if fault else []

    every = list(itertools.product(range(1, STEPS + 1), VALUES, ("loss", "gradient")))
    chosen = every[:: len(every) // cases(1, len(every), len(every))]
    faults = pool.faults(trial, chosen)
    ledger("A loss or gradient that is no number: left out, counted, logged, nothing of it saved", faults, len(chosen))
