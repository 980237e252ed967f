"""Of two starts in one folder at the same moment, one wins and the other is told within a second."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from reliability.harness import ROOT, cases

SOON = 1.0  # seconds; a quiet machine, and one processor for each of the two


def start(argv: list[str], folder: Path) -> subprocess.Popen:
    """Start a real train.py."""
    command = [sys.executable, "train.py", *argv, f"--output_dir={folder}"]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def wait_for_loser(both: list[subprocess.Popen], limit: float = 60) -> subprocess.Popen | None:
    """Return the first of two processes that ends; None when neither does."""
    deadline = time.monotonic() + limit
    while time.monotonic() < deadline:
        for process in both:
            if process.poll() is not None:
                return process
        time.sleep(0.002)
    return None


def double_start(argv: list[str], folder: Path) -> tuple[float, str | None]:
    """Start two; return after how many seconds the loser was gone, and what was wrong."""
    began = time.monotonic()
    both = [start(argv, folder), start(argv, folder)]
    loser = wait_for_loser(both)
    seconds = time.monotonic() - began
    winner = both[1 - both.index(loser)] if loser else both[0]
    alive = winner.poll() is None
    holder = (folder / ".lock").read_text(encoding="utf-8") if alive else ""
    for process in both:
        if process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
    said = [process.communicate()[1] for process in both]
    if loser is None or loser.returncode != 4:
        return seconds, f"exit {loser and loser.returncode}: {said}"
    if f": in use by pid {winner.pid}, started 20" not in said[both.index(loser)] or "hint: " not in said[0] + said[1]:
        return seconds, f"the loser said {said[both.index(loser)]}"
    return seconds, None if alive and holder.startswith(f"pid {winner.pid},") else "the winner is gone"


def test_double_starts(tiny_run, tmp_path, ledger):
    count, faults, seconds = cases(1, 50, 1000), [], []
    for number in range(count):
        took, fault = double_start(tiny_run, tmp_path / f"run{number}")
        seconds.append(took)
        faults += [f"start {number}: {fault}"] if fault else []
    median = sorted(seconds)[len(seconds) // 2]
    within = sum(took <= SOON for took in seconds)
    figure = f"the loser was gone after {median:.2f} s (median; {within} of {count} within {SOON:g} s)"
    ledger("Two starts in one folder at once: one winner, the other exits 4 and names it", faults, count, figure)
    with_lock_of_a_dead_run(tiny_run, tmp_path / "run0")


def with_lock_of_a_dead_run(argv: list[str], folder: Path) -> None:
    """The lock of a killed run is free: the next start gets it."""
    process = start(argv, folder)
    deadline = time.monotonic() + 60
    while not (folder / ".lock").read_text(encoding="utf-8").startswith(f"pid {process.pid},"):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    process.kill()
    process.communicate()
