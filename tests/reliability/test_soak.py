"""One run that is killed, stopped and refused disk space again and again ends like one that was left alone."""

import random
import signal

from reliability.harness import cases, difference, end_of, remove

SEED = 8


def random_fault(choices: random.Random, events: int, seconds: float) -> dict:
    """Choose what befalls the next start, early enough that the run gets a few steps further at a time."""
    kind = choices.choice(("event", "time", "stop", "stop", "disk"))
    if kind == "event":
        return {"die_at": choices.randint(1, events // 2)}
    if kind == "disk":
        return {"file_limit": choices.randrange(200_000)}
    signals = [signal.SIGKILL] if kind == "time" else [choices.choice((signal.SIGINT, signal.SIGTERM, signal.SIGHUP))]
    return {"signals": signals, "after": choices.uniform(0.01, seconds / 3)}


def test_a_run_of_many_faults(pool, tiny_run, undisturbed, tmp_path, ledger):
    expected = {name: value for name, value in undisturbed["contents"].items() if "step-00000016" not in name}
    count, num_faults, befell = cases(1, 5, 200), cases(3, 24, 24), []

    def trial(worker, number):
        folder, choices = tmp_path / f"soak{number}", random.Random(SEED + number)
        for start in range(num_faults):
            done = worker.run(tiny_run, folder, **random_fault(choices, undisturbed["events"], undisturbed["seconds"]))
            if "Traceback" in done["said"]:
                return [f"start {start}: {done['said'][-2000:]}"]
            befell.append(done["status"] != 0)
        done = worker.run(tiny_run, folder)
        wrong = difference(end_of(folder), expected)
        remove(folder)
        return [f"run {number}: exit {done['status']}, differs in {wrong}"] if done["status"] or wrong else []

    faults = pool.faults(trial, range(count))
    promise = "A run of many faults (kills, stops, full disks) in a row: the same end"
    ledger(promise, faults, count, f"{sum(befell)} faults struck in {count} runs")
