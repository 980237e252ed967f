"""A run that is asked to stop loses at most the step under way, says how it goes on, and ends like one left alone."""

import random
import re
import signal
from pathlib import Path

from novelgpt.training.checkpoint import find_checkpoint, read_progress
from reliability.harness import cases, difference, end_of, remove

SEED = 6
RESUMED = 5  # one stop in so many is also gone on with to the end


def fault_of_stop(done: dict, number: int, folder: Path) -> str | None:
    """Say what is wrong with the exit status or the saved step of a stopped run; None when nothing is."""
    status = 128 - done["status"] if done["status"] < 0 else done["status"]  # as a shell counts
    if status == 0:
        return None if (folder / "final_model").is_dir() else "exit 0 without a final model"
    if status != 128 + number or "Traceback" in done["said"]:
        return f"exit {done['status']}: {done['said'][-2000:]}"
    if done["steps_then"] == 0:
        return None
    saved = find_checkpoint(folder, set_aside=False)
    step = read_progress(saved).step if saved else 0
    return None if step >= done["steps_then"] else f"saved step {step}, {done['steps_then']} were done"


def sweep_signals(pool, argv, undisturbed, tmp_path, number: int, count: int, **job) -> list[str]:
    """Send a signal at random moments of the run; return what went wrong."""
    choices = random.Random(SEED + number)
    expected = {name: value for name, value in undisturbed["contents"].items() if "step-00000016" not in name}

    def trial(worker, item):
        index, after = item
        folder = tmp_path / f"{number}-{index}"
        done = worker.run(argv, folder, signals=[number], after=after, **job)
        fault = fault_of_stop(done, number, folder)
        if fault is None and index % RESUMED == 0:
            done = worker.run(argv, folder)
            fault = done["said"][-2000:] if done["status"] else difference(end_of(folder), expected)
        remove(folder)
        return [f"after {after:.3f} s: {fault}"] if fault else []

    times = [choices.uniform(0, 0.95 * undisturbed["seconds"]) for _ in range(count)]
    return pool.faults(trial, enumerate(times))


def test_ctrl_c_at_any_moment(pool, tiny_run, undisturbed, tmp_path, ledger):
    count = cases(1, 200, 2000)
    faults = sweep_signals(pool, tiny_run, undisturbed, tmp_path, signal.SIGINT, count)
    ledger(
        "Ctrl-C at a random moment: at most one step lost, exit 130, a sample goes on to the same end", faults, count
    )


def test_sigterm_at_any_moment(pool, tiny_run, undisturbed, tmp_path, ledger):
    count = cases(1, 200, 2000)
    faults = sweep_signals(pool, tiny_run, undisturbed, tmp_path, signal.SIGTERM, count)
    ledger(
        "SIGTERM at a random moment: at most one step lost, exit 143, a sample goes on to the same end", faults, count
    )


def test_a_terminal_that_is_closed_at_any_moment(pool, tiny_run, undisturbed, tmp_path, ledger):
    count = cases(1, 50, 500)
    faults = sweep_signals(pool, tiny_run, undisturbed, tmp_path, signal.SIGHUP, count, deaf=True)
    promise = "SIGHUP and no reader any more, at a random moment: at most one step lost, exit 129, the same end"
    ledger(promise, faults, count)


def test_a_signal_sent_twice(pool, tiny_run, undisturbed, tmp_path, ledger):
    choices = random.Random(SEED)

    def trial(worker, index):
        folder = tmp_path / f"again{index}"
        after, between = choices.uniform(0.05, 0.9 * undisturbed["seconds"]), choices.uniform(0.001, 0.02)
        done = worker.run(tiny_run, folder, signals=[signal.SIGINT] * 2, after=after, between=between)
        fault = None if done["status"] in (0, 130) else f"exit {done['status']}: {done['said'][-2000:]}"
        if fault is None:
            done = worker.run(tiny_run, folder)
            fault = done["said"][-2000:] if done["status"] else ""
        expected = {name: value for name, value in undisturbed["contents"].items() if "step-00000016" not in name}
        fault = fault or difference(end_of(folder), expected)
        remove(folder)
        return [f"after {after:.3f} s and {between:.3f} s: {fault}"] if fault else []

    count = cases(1, 20, 200)
    faults = pool.faults(trial, range(count))
    ledger("Ctrl-C twice: leaves at once, the disk is valid, goes on to the same end", faults, count)


EPOCH = 6  # steps; at the end of each a checkpoint is written anyway


def fault_of_save(done: dict) -> str | None:
    """Say what is wrong with the checkpoints of a run that got SIGUSR1; None when nothing is."""
    saved = [int(step) for step in re.findall(r"\nsaved \S*step-(\d+)", done["said"])]
    extra = [step for position, step in enumerate(saved) if step % EPOCH or step in saved[:position]]
    asked = done["asked_at"]
    due = [[asked], [asked + 1]]  # between the two steps, or within the second
    if asked % EPOCH in (EPOCH - 1, 0):
        due.append([])  # the epoch's own checkpoint came between, or the run was over
    if done["status"] == 0 and asked >= 0 and extra in due and set(saved) >= {EPOCH, 2 * EPOCH, 3 * EPOCH}:
        return None
    return f"exit {done['status']}, asked after step {asked}, checkpoints of steps {saved}"


def test_sigusr1_saves_and_goes_on(pool, tiny_run, tmp_path, undisturbed, ledger):
    def trial(worker, index):
        folder = tmp_path / f"save{index}"
        argv = [*tiny_run, "--save_steps=0", "--save_minutes=0", "--save_total_limit=100"]
        after, done = choices[index] * undisturbed["seconds"], {"asked_at": -1, "status": 0}
        while done["asked_at"] < 0 and done["status"] == 0:  # the run was over before the signal came: earlier, then
            remove(folder)
            done = worker.run(argv, folder, signals=[signal.SIGUSR1], after=after)
            after *= 0.8
        remove(folder)
        fault = fault_of_save(done)
        return [fault] if fault else []

    count = cases(1, 50, 500)
    choices = [random.Random(SEED + index).uniform(0.3, 0.8) for index in range(count)]
    faults = pool.faults(trial, range(count))
    ledger("SIGUSR1: a checkpoint more, and the run goes on", faults, count)
