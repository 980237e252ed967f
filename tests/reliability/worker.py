"""A process that has loaded torch once and forks a real train.py for every trial; jobs come and go as lines of JSON.

::

    {"argv": [...], "die_at": 17}                   SIGKILL before the 17th file event
    {"argv": [...], "signals": [9], "after": 0.2}   signals, sent 0.2 s after train.py began
    {"argv": [...], "file_limit": 4096}             no file may grow beyond 4,096 bytes, as on a full disk
    {"argv": [...], "spoil": [7, "nan", "loss"]}    the loss (or "gradient") of the 7th pass is no number
    {"argv": [...], "signals": [1], "deaf": true}   nobody reads what it says any more, as after a hang-up
    -> {"status": 0, "events": 412, "steps": 18, "steps_then": 0, "asked_at": -1, "seconds": 0.4, "said": "..."}

A status below 0 is the signal that killed the process. steps_then are the steps done when the last signal was sent,
asked_at those done when SIGUSR1 came in, -1 when it never did. File events are what changes the run folder: opening for
writing, renaming, removing, making folders, flushing. Flushing itself is left out: a kill loses nothing that was
written, only a power failure would.
"""

import itertools
import json
import mmap
import os
import resource
import signal
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch

import train as train_script
from novelgpt.cli import run
from novelgpt.training import checkpoint, parallel, session, stopping, trainer

sys.dont_write_bytecode = True  # it would be a file event
LIMIT = 100  # seconds a trial may take
EVENTS = ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate")
BOARD = struct.Struct("4q")  # began, steps, events, asked_at: shared by parent and child
WRITING = os.O_WRONLY | os.O_RDWR


class Child:
    """The forked process: watches its own file events and runs train.py."""

    def __init__(self, job: dict, board: mmap.mmap):
        self.job, self.board = job, board
        self.began = self.steps = self.events = 0
        self.asked_at = -1

    def note(self) -> None:
        """Show the parent where we are."""
        self.board[: BOARD.size] = BOARD.pack(self.began, self.steps, self.events, self.asked_at)

    def count_event(self) -> None:
        """Count a file event; die before it happens if it is the chosen one."""
        self.events += 1
        self.note()
        if self.events == self.job.get("die_at"):
            os.kill(os.getpid(), signal.SIGKILL)

    def on_audit(self, event: str, arguments: tuple) -> None:
        """Let Python's own file calls count."""
        if event not in EVENTS or (event == "open" and not (arguments[2] & WRITING)):
            return
        where = str(arguments[0])
        if self.job["folder"] in where or not os.path.isabs(where):  # rmtree names files by their folder's handle
            self.count_event()

    def count_calls(self, module, name: str) -> None:
        """Count an event before and after each call of a module's function."""
        inner = getattr(module, name)

        def counted(*arguments, **settings):
            self.count_event()
            result = inner(*arguments, **settings)
            self.count_event()
            return result

        setattr(module, name, counted)

    def run(self) -> int:
        """Run train.py as its command line would."""
        os.fsync = lambda _handle: self.count_event()
        self.count_calls(checkpoint, "write_safetensors")
        count_step = trainer.Trainer.count_step

        def counted_step(this, batch, result):
            count_step(this, batch, result)
            self.steps = this.progress.step
            self.note()

        trainer.Trainer.count_step = counted_step
        on_save = stopping.StopSignals.on_save

        def noted_save(this, *arguments):
            on_save(this, *arguments)
            self.asked_at = self.steps
            self.note()

        stopping.StopSignals.on_save = noted_save
        if "spoil" in self.job:
            parallel.sum_loss = spoil_pass(parallel.sum_loss, *self.job["spoil"])
        if self.job.get("file_limit") is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (self.job["file_limit"], resource.RLIM_INFINITY))
        sys.addaudithook(self.on_audit)
        sys.argv = ["train.py", *self.job["argv"]]
        self.began = 1
        self.note()
        return run(train_script.main, self.job["argv"])


def spoil_pass(sum_loss: Callable, number: int, value: str, part: str) -> Callable:
    """Return sum_loss whose loss or gradient in the given training pass, counted from 1, is multiplied by a value."""
    passes = itertools.count(1)

    def spoiled(*arguments, **settings):
        loss = sum_loss(*arguments, **settings)
        if not torch.is_grad_enabled() or next(passes) != number:
            return loss
        if part == "loss":
            return loss * float(value)
        loss.register_hook(lambda gradient: gradient * float(value))
        return loss

    return spoiled


def run_child(job: dict, board: mmap.mmap, output: int) -> None:
    """Be the child: never returns."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # a sweep may run under nohup
    os.dup2(output, 1)
    os.dup2(output, 2)
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115 (until the end)
    sys.stderr = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    status = 1
    try:
        status = Child(job, board).run()
    except KeyboardInterrupt:
        status = 128 + signal.SIGINT  # what the interpreter itself would do
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stderr.flush()
        os._exit(status)


def wait_for(child: int, board: mmap.mmap, job: dict, reader: int) -> tuple[int, int]:
    """Send the job's signals at their time, wait for the end; return wait status and the steps done at the signal."""
    steps = 0
    if "signals" in job:
        while not BOARD.unpack(board[: BOARD.size])[0]:
            time.sleep(0.0005)
        time.sleep(job["after"])
        if job.get("deaf"):
            os.close(reader)
        for number in job["signals"]:
            steps = BOARD.unpack(board[: BOARD.size])[1]
            os.kill(child, number)
            time.sleep(job.get("between", 0))
    deadline = time.monotonic() + LIMIT
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return status, steps
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
        time.sleep(0.002)


def run_job(job: dict) -> dict:
    """Fork, run, and tell how it went."""
    board = mmap.mmap(-1, BOARD.size)
    reader, writer = os.pipe()
    began = time.monotonic()
    child = os.fork()
    if child == 0:
        run_child(job, board, writer)
    os.close(writer)
    status, steps_then = wait_for(child, board, job, reader)
    seconds = time.monotonic() - began
    text = ""
    if not job.get("deaf"):
        with open(reader, "rb") as said:  # what a run says fits into a pipe
            text = said.read().decode("utf-8", "replace")
    _, steps, events, asked_at = BOARD.unpack(board[: BOARD.size])
    status = os.waitstatus_to_exitcode(status)
    result = {"status": status, "events": events, "steps": steps, "steps_then": steps_then}
    return {**result, "asked_at": asked_at, "seconds": seconds, "said": text}


def main() -> None:
    """Serve jobs until stdin ends."""
    torch.set_num_threads(1)
    assert session.train
    for line in sys.stdin:
        print(json.dumps(run_job(json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
