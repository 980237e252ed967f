"""`train.py --device 0,1` -> one process per GPU, all started from the same command.

    train.py ─┬─ train.py as rank 0 on the first GPU: holds the lock, talks, writes
              └─ train.py as rank 1 on the second GPU

They meet as those of torchrun do. Signals go to all of them once; when one dies, the others are ended, for they would
wait for it. torchrun itself still starts runs over several machines; here its agent would end after a SIGUSR1, and
give a rank 30 seconds to save.
"""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence

from novelgpt.cli import BEGAN, IS_RANK, TrainOptions
from novelgpt.messages import EXIT_DONE, EXIT_ENVIRONMENT, EXIT_USAGE, UserError, say

FORWARDED = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1")  # the last two do not exist on Windows
GRACE = 10.0  # seconds that ranks have to end by themselves after one has ended with an error
PR_SET_PDEATHSIG = 1  # from Linux's prctl.h


def count_processes(options: TrainOptions, command: Sequence[str] | None) -> int:
    """Return how many processes a run is to be started as; 1: it goes on in this one.

    `--parallel auto` takes processes, for the replicas of one process send all weights and gradients through the first
    GPU in every micro-batch and share one interpreter; threads on Windows, whose torch has no NCCL, from Python, where
    there is no command to start again, and for --plan.

    Raises:
        UserError: --parallel where something else decides.
    """
    if IS_RANK in os.environ:
        return 1
    mode, is_spread = options.parallel, "," in (options.device or "")
    if mode != "auto" and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UserError("--parallel: torchrun has started the processes", "leave --parallel out", EXIT_USAGE)
    if mode == "processes" and not (command and is_spread):
        message = "--parallel processes: needs several GPUs and a command that can be started again"
        raise UserError(message, "python train.py --device 0,1 --parallel processes", EXIT_USAGE)
    if mode == "threads" or not is_spread or command is None or options.plan:
        return 1

    # torch is loaded only now, for the processes may be all that needs it
    import torch

    from novelgpt.network import find_devices

    if not torch.cuda.is_available():
        return 1
    count = len(find_devices(options.device))
    return count if mode == "processes" or sys.platform != "win32" else 1


def launch(command: Sequence[str], count: int, began: float | None = None) -> int:
    """Run a command as so many processes; return the exit status of the first that failed, else 0.

    Args:
        command, count: its words, how many.
        began: what time.monotonic() showed when it started, from where hours count; None for now.

    Raises:
        UserError: one was killed; the others are ended.
    """
    from torch.distributed import TCPStore

    environment = {**os.environ, IS_RANK: "1", BEGAN: repr(began or time.monotonic())}
    environment |= {"WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count)}
    # as torchrun does, this process keeps the store through which they meet, so that it outlives each of them
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    environment |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store.port), "TORCHELASTIC_USE_AGENT_STORE": "True"}
    say(f"starting {count} processes, one per GPU (--parallel threads: one process for all)")
    ranks: list[subprocess.Popen] = []
    with forwarding_signals(ranks) as sent:
        for rank in range(count):
            ranks.append(start_rank(command, {**environment, "RANK": str(rank), "LOCAL_RANK": str(rank)}))
        first = wait_for_first_failure(ranks)
        if first is None:
            return EXIT_DONE
        end_others(ranks, seconds=GRACE if ranks[first].returncode > 0 else 0)
    status = ranks[first].returncode
    if -status in sent:  # it came before the rank could do more than die
        return 128 - status
    if status < 0:
        message = f"process {first + 1} of {count} died of {signal.Signals(-status).name}; the others were ended"
        raise UserError(message, "the same command resumes from the last checkpoint", EXIT_ENVIRONMENT)
    return status


def start_rank(command: Sequence[str], environment: dict[str, str]) -> subprocess.Popen:
    """Start one process of a run, in a session of its own: Ctrl-C reaches it through this process alone."""
    preexec = die_with_parent if sys.platform == "linux" else None
    return subprocess.Popen([sys.executable, *command], env=environment, start_new_session=True, preexec_fn=preexec)


def die_with_parent() -> None:
    """Ask Linux to send SIGTERM to this process when the one that started it is gone."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


@contextlib.contextmanager
def forwarding_signals(ranks: list[subprocess.Popen]) -> Iterator[list[int]]:
    """Send on to every rank the signals that come to this process, and yield the list of those sent.

    The former handlers come back at the end.
    """
    sent: list[int] = []

    def send(number: int, _frame) -> None:
        sent.append(number)
        for rank in ranks:
            rank.send_signal(number)  # does nothing where the rank has ended

    numbers = [getattr(signal, name) for name in FORWARDED if hasattr(signal, name)]
    former = {number: signal.signal(number, send) for number in numbers}
    try:
        yield sent
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


def wait_for_first_failure(ranks: list[subprocess.Popen]) -> int | None:
    """Wait until a rank ends with an error, or all have ended; return that rank, or None."""
    while True:
        codes = [rank.poll() for rank in ranks]
        failed = [number for number, code in enumerate(codes) if code]
        if failed or None not in codes:
            # a rank that was killed explains those that miss it
            return min(failed, key=lambda number: codes[number], default=None)
        time.sleep(0.05)


def end_others(ranks: list[subprocess.Popen], *, seconds: float) -> None:
    """Let the other ranks end by themselves, and kill those that have not after so many seconds."""
    deadline = time.monotonic() + seconds
    for rank in ranks:
        with contextlib.suppress(subprocess.TimeoutExpired):
            rank.wait(max(0.0, deadline - time.monotonic()))
        rank.kill()
        rank.wait()
