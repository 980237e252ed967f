"""A run killed anywhere goes on with the same command and ends byte for byte like one left alone."""

import random
import signal

from reliability.harness import cases, contents, difference, remove, spread

SEED = 5


def fault_of(worker, argv, folder, undisturbed, what: str) -> list[str]:
    """Go on with the same command; say how the end differs, if it does."""
    done = worker.run(argv, folder)
    if done["status"] != 0:
        return [f"{what}: exit {done['status']}: {done['said'][-2000:]}"]
    wrong = difference(contents(folder), undisturbed["contents"])
    remove(folder)
    return [f"{what}: differs in {wrong}"] if wrong else []


def test_a_kill_at_any_file_event(pool, tiny_run, undisturbed, tmp_path, ledger):
    def trial(worker, event):
        folder = tmp_path / f"event{event}"
        done = worker.run(tiny_run, folder, die_at=event)
        if done["status"] != -signal.SIGKILL:
            return [f"event {event}: not killed, exit {done['status']}"]
        return fault_of(worker, tiny_run, folder, undisturbed, f"event {event}")

    points = spread(cases(2, 300, 5000), undisturbed["events"])
    faults = pool.faults(trial, points)
    figure = f"{undisturbed['events']} file events in the run"
    ledger("SIGKILL at a file event: same command, same bytes at the end", faults, len(points), figure)


def test_a_kill_at_any_file_event_of_two_generations(pool, tiny_run, tmp_path, ledger):
    both = [*tiny_run, "--second_generation", "--epochs=1"]
    (done,) = pool.map(lambda worker, _: worker.run(both, tmp_path / "whole"), [None])
    assert done["status"] == 0, done["said"]
    whole = {**done, "contents": contents(tmp_path / "whole")}
    assert {"first_generation/run.json", "run.json"} <= set(whole["contents"])

    def trial(worker, event):
        folder = tmp_path / f"event{event}"
        killed = worker.run(both, folder, die_at=event)
        if killed["status"] != -signal.SIGKILL:
            return [f"event {event}: not killed, exit {killed['status']}"]
        return fault_of(worker, both, folder, whole, f"event {event}")

    points = spread(cases(4, 200, 2000), whole["events"])
    faults = pool.faults(trial, points)
    ledger("SIGKILL in either generation: same command, same bytes at the end", faults, len(points))


def test_a_kill_at_any_time(pool, tiny_run, undisturbed, tmp_path, ledger):
    random_times = random.Random(SEED)
    hits = []

    def trial(worker, number_and_time):
        number, after = number_and_time
        folder = tmp_path / f"time{number}"
        done = worker.run(tiny_run, folder, signals=[signal.SIGKILL], after=after)
        hits.append(done["status"] == -signal.SIGKILL)
        return fault_of(worker, tiny_run, folder, undisturbed, f"after {after:.3f} s")

    count = cases(1, 100, 2000)
    times = [random_times.uniform(0, 0.95 * undisturbed["seconds"]) for _ in range(count)]
    faults = pool.faults(trial, enumerate(times))
    promise = "SIGKILL at a random time: same command, same bytes at the end"
    ledger(promise, faults, count, f"{sum(hits)} struck before the end")


def test_a_kill_while_it_recovers_from_a_kill(pool, tiny_run, undisturbed, tmp_path, ledger):
    choices = random.Random(SEED)

    def trial(worker, points):
        number, first, second = points
        folder = tmp_path / f"twice{number}"
        worker.run(tiny_run, folder, die_at=first)
        worker.run(tiny_run, folder, die_at=second)
        return fault_of(worker, tiny_run, folder, undisturbed, f"events {first} and {second}")

    count = cases(1, 100, 1000)
    first = [choices.randint(1, undisturbed["events"]) for _ in range(count)]
    second = [choices.randint(1, 60) for _ in range(count)]  # the clean-up and the first things it writes
    faults = pool.faults(trial, zip(range(count), first, second, strict=True))
    ledger("SIGKILL again during the recovery: same command, same bytes at the end", faults, count)
