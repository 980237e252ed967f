"""Several processes, as torchrun would start them: one helper imports torch once and forks those of every case."""

import json
import os
import subprocess
from pathlib import Path

import pytest
from conftest import ROOT

# reads [{"world": N, "options": {...}, "stop_at": step or null, "save_at": ...}, ...] and prints the exit codes of
# each case's processes; at stop_at all are asked to stop and must find that step reached, at save_at the last one
# alone is asked to save; a case that is_slow takes its time to save; memory gives each process its free bytes;
# dies_at is a step after which the last process is gone
FORKER = r"""
import datetime, json, os, signal, sys, time
import torch
from torch.distributed import TCPStore
from novelgpt import api, messages
from novelgpt.messages import UserError, say_error
from novelgpt.training import checkpoint, engine, parallel, run
from novelgpt.cli import TrainOptions
from novelgpt.training.trainer import Trainer

def work(rank, case, port):
    os.fsync = lambda handle: None  # no power fails in a test
    messages.TELLING = 0.0  # nobody ends the others here
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(case["world"]), MASTER_ADDR="127.0.0.1")
    os.environ.update(MASTER_PORT=str(port), TORCHELASTIC_USE_AGENT_STORE="True")
    torch.set_num_threads(1)
    count_step = Trainer.count_step
    def ask(trainer, batch, result):
        count_step(trainer, batch, result)
        if trainer.progress.step == case["stop_at"]:
            trainer.stop.deadline = 0.0
        if trainer.progress.step == case.get("dies_at") and rank == case["world"] - 1:
            os._exit(9)
        if trainer.progress.step == case["save_at"] and rank == case["world"] - 1:
            trainer.stop.save_asked = True
    Trainer.count_step = ask
    save_checkpoint = checkpoint.save_checkpoint
    def save_slowly(*arguments, **settings):
        time.sleep(0.3 if case.get("is_slow") else 0)
        return save_checkpoint(*arguments, **settings)
    checkpoint.save_checkpoint = save_slowly
    if "slow_pieces" in case:
        make_pieces = run.make_pieces
        run.make_pieces = lambda *words, **more: time.sleep(case["slow_pieces"]) or make_pieces(*words, **more)
    if "roll_call" in case:
        parallel.ROLL_CALL = datetime.timedelta(seconds=case["roll_call"])
    if case.get("no_memory") == rank:
        def refuse(*_arguments):
            raise MemoryError
        engine.Engine.accumulate = refuse
    if "row_limit" in case and rank == case["world"] - 1:
        forward = parallel.LossModule.forward
        def limited(module, input_ids, labels, **settings):
            if len(input_ids) > case["row_limit"]:
                raise MemoryError
            return forward(module, input_ids, labels, **settings)
        parallel.LossModule.forward = limited
    if "memory" in case:
        engine.available_bytes = lambda device: case["memory"][rank]
    sys.stdout = sys.stderr  # what a plan prints
    try:
        result = api.train(TrainOptions(**case["options"]), exit_at_second=True)
    except UserError as problem:
        return say_error(problem)
    status = result.status
    if case["stop_at"] and result.step != case["stop_at"]:
        print(rank, result, file=sys.stderr)
        status = 98  # it read the folder before the first process was done
    if torch.distributed.is_initialized():
        print(rank, "has not left the others", file=sys.stderr)
        status = 97
    return status

def run_case(case):
    store, children = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False), []  # as torchrun keeps one
    for rank in range(case["world"]):
        child = os.fork()
        if child == 0:
            try:
                status = work(rank, case, store.port)
            except BaseException as problem:
                print(rank, repr(problem), file=sys.stderr)
                status = 99
            sys.stderr.flush()
            os._exit(status)
        children.append(child)
    deadline, codes = time.monotonic() + 40, {}
    while len(codes) < len(children) and time.monotonic() < deadline:
        for child in set(children) - set(codes):
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                codes[child] = os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    for child in set(children) - set(codes):
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    return [codes.get(child, "hangs") for child in children]

print(json.dumps([run_case(case) for case in json.load(sys.stdin)]))
"""


def run_cases(python: Path, cases: list[dict]) -> str:
    """Run cases one after the other, all of which must end well; return what they said."""
    codes, said = try_cases(python, cases)
    assert codes == [[0] * case["world"] for case in cases], said[-3000:]
    return said


def try_cases(python: Path, cases: list[dict]) -> tuple[list[list], str]:
    """Run cases one after the other; return the exit codes of their processes, and what they said."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [python, "-c", FORKER]
    done = subprocess.run(
        command, input=json.dumps(cases), capture_output=True, text=True, env=environment, cwd=ROOT, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    codes = json.loads(done.stdout.split("\n")[-2])
    return codes, done.stderr


def losses_of(case: dict) -> list[tuple[int, float]]:
    """Return step and loss, training and held-out, of a run's log."""
    with open(os.path.join(case["options"]["output_dir"], "log.jsonl"), encoding="utf-8") as file:
        records = [record for line in file if "event" not in (record := json.loads(line))]
    return [(record["step"], record.get("loss", record.get("valid_loss"))) for record in records]


def assert_same_losses(case: dict, expected: dict) -> None:
    """Compare two runs' logs to 1e-5."""
    ours, theirs = losses_of(case), losses_of(expected)
    assert [step for step, _ in ours] == [step for step, _ in theirs]
    assert [loss for _, loss in ours] == pytest.approx([loss for _, loss in theirs], rel=1e-5)
