"""A run that evaluates within its epochs and ends early, killed or stopped anywhere, ends like one left alone."""

import random
import signal

import pytest

from reliability.harness import STORY, cases, contents, difference, end_of, make_tiny_run, remove, spread

SEED = 11
SPOILING = [STORY[0]] * 6 + STORY[1:]  # learning the first chapter by heart spoils the held-out ones: the best is early
HABITS = {"eval_steps": 2, "early_stopping_patience": 3, "lr": 0.03, "epochs": 6, "save_steps": 3}
HABITS |= {"replacement": "frequency"}  # by neighbours the held-out chapters are not spoilt so soon


@pytest.fixture(scope="module")
def habits(pool, tmp_path_factory) -> dict:
    """The command line of such a run, and how it goes when nobody disturbs it."""
    place = tmp_path_factory.mktemp("habits")
    argv = [*make_tiny_run(place, SPOILING, **HABITS), "--load_best_model_at_end"]
    (done,) = pool.map(lambda worker, _: worker.run(argv, place / "run"), [None])
    assert done["status"] == 0, done["said"]
    assert done["steps"] == 8  # of 36
    return {**done, "argv": argv, "contents": contents(place / "run")}


def test_a_kill_at_any_file_event_of_a_run_that_ends_early(pool, habits, tmp_path, ledger):
    def trial(worker, event):
        folder = tmp_path / f"event{event}"
        done = worker.run(habits["argv"], folder, die_at=event)
        if done["status"] != -signal.SIGKILL:
            return [f"event {event}: not killed, exit {done['status']}"]
        done = worker.run(habits["argv"], folder)
        wrong = done["said"][-2000:] if done["status"] else difference(contents(folder), habits["contents"])
        remove(folder)
        return [f"event {event}: {wrong}"] if wrong else []

    points = spread(cases(2, 200, 2000), habits["events"])
    faults = pool.faults(trial, points)
    promise = "SIGKILL at a file event of a run with evaluations within epochs that ends early: the same bytes"
    ledger(promise, faults, len(points), f"{habits['events']} file events in the run")


def test_a_stop_at_any_moment_of_a_run_that_ends_early(pool, habits, tmp_path, ledger):
    choices = random.Random(SEED)

    def trial(worker, item):
        number, after = item
        folder = tmp_path / f"stop{number}"
        worker.run(habits["argv"], folder, signals=[signal.SIGTERM], after=after)
        done = worker.run(habits["argv"], folder)
        wrong = done["said"][-2000:] if done["status"] else difference(end_of(folder), expected)
        remove(folder)
        return [f"after {after:.3f} s: {wrong}"] if wrong else []

    older = [name for name in habits["contents"] if name.startswith("checkpoints") and "step-00000008" not in name]
    expected = {name: value for name, value in habits["contents"].items() if name not in older}
    count = cases(2, 60, 600)
    times = [choices.uniform(0, 0.95 * habits["seconds"]) for _ in range(count)]
    faults = pool.faults(trial, enumerate(times))
    ledger("SIGTERM at a random moment of a run that ends early: the same bytes at the end", faults, count)
