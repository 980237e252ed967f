"""A disk that is full leaves the former state whole, and the run goes on once there is room."""

import shutil
import signal

from novelgpt.files import find_damage
from novelgpt.training.checkpoint import FILES
from reliability.harness import cases, contents, difference, remove

LARGEST = 250_000  # bytes; more than any file of the tiny run


def test_a_disk_that_fills_up(pool, tiny_run, undisturbed, tmp_path, ledger):
    begun = tmp_path / "begun"
    (done,) = pool.map(lambda worker, _: worker.run(tiny_run, begun, die_at=undisturbed["events"] // 2), [None])
    assert done["status"] == -signal.SIGKILL
    former = sorted(path for path in (begun / "checkpoints").glob("step-*") if not find_damage(path, needed=FILES))
    count = cases(1, 50, 500)

    def trial(worker, number):
        folder, room = tmp_path / f"disk{number}", number * LARGEST // count
        shutil.copytree(begun, folder)
        done = worker.run(tiny_run, folder, file_limit=room)
        remains = sorted(
            path for path in (folder / "checkpoints").glob("step-*") if not find_damage(path, needed=FILES)
        )
        if done["status"] not in (0, 4) or "Traceback" in done["said"]:
            return [f"{room} bytes: exit {done['status']}: {done['said'][-2000:]}"]
        if not remains or remains[-1].name < former[-1].name:
            return [f"{room} bytes: the former state is gone"]
        done = worker.run(tiny_run, folder)
        wrong = difference(contents(folder), undisturbed["contents"])
        remove(folder)
        return [f"{room} bytes: exit {done['status']}, differs in {wrong}"] if done["status"] or wrong else []

    faults = pool.faults(trial, range(count))
    promise = "A disk full at so many bytes: no traceback, the former state whole, the same end once there is room"
    ledger(promise, faults, count)
