"""A run gone on with from any step ends byte for byte like one left alone."""

import shutil

import pytest

from reliability.harness import cases, contents, difference, make_tiny_run, remove, spread

EPOCH = 6
STEPS = EPOCH * cases(2, 10, 10)


@pytest.mark.parametrize("accumulation", [1, 4])
def test_going_on_at_every_step(pool, tmp_path, accumulation, ledger):
    epochs = STEPS // EPOCH
    changes = {"epochs": epochs, "gradient_accumulation": accumulation, "save_steps": 1, "save_total_limit": 100}
    argv = make_tiny_run(tmp_path, **changes, sample_length=0)
    whole = tmp_path / "whole"
    (done,) = pool.map(lambda worker, _: worker.run(argv, whole), [None])
    assert (done["status"], done["steps"]) == (0, STEPS)
    expected = contents(whole)

    def trial(worker, step):
        folder = tmp_path / f"from{step}"
        shutil.copytree(whole, folder, ignore=lambda _, names: later(names, step))
        done = worker.run(argv, folder)
        wrong = difference(contents(folder), expected)
        remove(folder)
        return [] if done["status"] == 0 and done["steps"] == STEPS and not wrong else [f"step {step}: {wrong}"]

    points = spread(cases(1, STEPS, STEPS), STEPS)
    faults = pool.faults(trial, [step for step in points if step < STEPS] + [0])
    promise = f"Going on at every step of {STEPS} in {epochs} epochs, accumulation {accumulation}: difference 0"
    ledger(promise, faults, len([step for step in points if step < STEPS]) + 1)


def later(names: list[str], step: int) -> list[str]:
    """Return which names of a run folder were not there yet when a step had just been saved."""
    epochs = [name for name in names if name.startswith("model_epoch") and int(name[11:]) > step // EPOCH]
    return ["final_model", *epochs, *(name for name in names if name.startswith("step-") and int(name[5:]) > step)]
