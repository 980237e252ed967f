"""One loss function over whatever devices there are: a single one, DataParallel, or DistributedDataParallel.

Every replica returns the sum of its losses, one number; logits never travel. `--batch_size` is the global batch: the
rows are split over processes, replicas and micro-batches, and the sums are divided by the one count of scored tokens.
"""

import contextlib
import gc
import itertools
import os
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel
from transformers import GPT2LMHeadModel

from novelgpt.messages import EXIT_ENVIRONMENT, UserError, say
from novelgpt.network import score_tokens, sum_loss

MEETING = timedelta(minutes=10)  # for all processes to start
ROLL_CALL = timedelta(seconds=30)  # for those that live to answer
LOST = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "remote process exited")
SILENT = "Timed out waiting"


class LossModule(nn.Module):
    """A GPT-2 whose forward pass is its loss; what replicas and processes run.

    Teachers lie whole on every device. They are no submodules, which would travel and be shared out with the weights.
    """

    def __init__(
        self,
        model: GPT2LMHeadModel,
        dtype: torch.dtype,
        chunk: int,
        teachers: dict[torch.device, list[GPT2LMHeadModel]] | None = None,
        teacher_weight: float = 0.0,
    ):
        super().__init__()
        self.model = model
        self.dtype = dtype
        self.chunk = chunk
        self.teachers, self.teacher_weight = teachers or {}, teacher_weight

    def forward(self, input_ids: torch.Tensor, labels: torch.Tensor, *, score: bool = False):
        """Return the summed loss of (B, T) rows as fp32 (1,), so that replicas can be gathered.

        With score, every token by itself and without gradients: nats fp32 and right bool, (B, T-1) each. Both are the
        forward pass of one module, because that is what gathers shared-out weights and what is compiled.
        """
        if score:
            return score_tokens(self.model, input_ids, labels, dtype=self.dtype, chunk=self.chunk)
        taught = {"teachers": self.teachers.get(input_ids.device, ()), "teacher_weight": self.teacher_weight}
        loss = sum_loss(self.model, input_ids, labels, dtype=self.dtype, chunk=self.chunk, **taught)
        return torch.stack((loss,))  # no view: FSDP2 puts a hook on what it is given


@dataclass(frozen=True)
class World:
    """This process among all: rank 0 writes files and talks."""

    rank: int = 0
    size: int = 1
    store: dist.Store | None = field(default=None, compare=False, repr=False)  # where the processes leave word

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and talks."""
        return self.rank == 0


def join_world(device: torch.device) -> World:
    """Join the processes that torchrun started; alone when it did not.

    Raises:
        UserError: some of them have not come within the time of MEETING.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return World()
    if dist.is_initialized():
        return World(dist.get_rank(), dist.get_world_size())

    # a roll call first, for the meeting itself does not say who is missing
    reason = ""
    try:
        store, rank, size = next(dist.rendezvous("env://", timeout=MEETING))
        world = World(rank, size, dist.PrefixStore("novelgpt", store))
        if missing := find_missing(world, "start", MEETING):
            reason = describe_missing(missing, size)
        else:
            # gloo for what the CPU sums up, nccl for gradients on GPUs
            backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
            dist.init_process_group(backend, store=dist.PrefixStore("torch", store), rank=rank, world_size=size)
    except (RuntimeError, ValueError) as problem:
        reason = first_line(problem)
    if reason:
        hint = "start with torchrun --nproc_per_node=N train.py …"
        raise UserError(f"torchrun: the processes could not meet: {reason}", hint, EXIT_ENVIRONMENT)
    return world


def find_missing(world: World, name: str, limit: timedelta) -> list[int]:
    """Answer a roll call of that name, and return the ranks that have not answered within the limit."""
    missing, end = [], time.monotonic() + limit.total_seconds()
    try:
        world.store.set(f"{name}/{world.rank}", "here")
    except RuntimeError:  # the first process keeps the store, unless torchrun does
        return [0]
    for rank in range(world.size):
        try:
            world.store.wait([f"{name}/{rank}"], timedelta(seconds=max(0.01, end - time.monotonic())))
        except RuntimeError:
            missing.append(rank)
    return missing


def describe_missing(ranks: list[int], size: int) -> str:
    """Name processes that have not come.

    >>> describe_missing([1, 3], 4)
    'processes 1, 3 of 4 have not come'
    """
    numbers = ", ".join(map(str, ranks))
    return (
        f"processes {numbers} of {size} have not come"
        if len(ranks) > 1
        else f"process {numbers} of {size} has not come"
    )


def first_line(problem: Exception) -> str:
    """Return the first line of an error, without path and speculation."""
    line = (str(problem).splitlines() or [type(problem).__name__])[0]
    return re.sub(r"^\[/\S*/", "[", line).split(". This is")[0]


@contextlib.contextmanager
def explaining_losses(world: World) -> Iterator[None]:
    """Turn the errors of a process that can no longer reach another into words.

    Raises:
        UserError: another process has ended, or has not answered for half an hour and which one it is.
    """
    try:
        yield
    except RuntimeError as problem:
        words = first_line(problem)
        hint = "see what ended it; the same command goes on from the last checkpoint"
        this = f"torchrun: process {world.rank} of {world.size}"
        if any(sign in str(problem) for sign in LOST):
            raise UserError(f"{this} has lost another one ({words})", hint, EXIT_ENVIRONMENT) from problem
        # all that live have waited as long and answer now
        if SILENT in str(problem) and world.store is not None:
            ranks = ", ".join(map(str, find_missing(world, "lost", ROLL_CALL))) or "another one"
            raise UserError(f"{this} waited for process {ranks} in vain ({words})", hint, EXIT_ENVIRONMENT) from problem
        raise


@contextlib.contextmanager
def telling_errors_once(world: World) -> Iterator[None]:
    """Let the first process that fails tell its error, and name itself; what the others then meet follows from it."""
    try:
        yield
    except UserError as problem:
        if world.store is not None and problem.is_told is None:
            problem.is_told = not claim_word(world)
            if world.rank and not problem.message.startswith("torchrun: "):
                problem.message = f"process {world.rank} of {world.size}: {problem.message}"
        raise


def claim_word(world: World) -> bool:
    """Tell whether this process is the first to ask, which then speaks for all."""
    try:
        return world.store.compare_set("told", "", str(world.rank)) == str(world.rank).encode()
    except RuntimeError:  # a first process that kept the store itself, without torchrun, has ended
        return True


@contextlib.contextmanager
def first_process_alone(world: World, name: str) -> Iterator[None]:
    """Let the first process do what the others wait for, however long it takes: they `wait_for_first(world, name)`."""
    word = "failed"
    try:
        if world.size > 1:
            say(f"{name}: made by the first process; the others wait")
        yield
        word = "done"
    finally:
        if world.store is not None:
            world.store.set(name, word)
        elif world.size > 1 and word == "done":
            wait_for_all(world)


def wait_for_first(world: World, name: str) -> None:
    """Wait until the first process has done what has a name; without a store of words as long as for any barrier.

    Raises:
        UserError: it has failed, or ended.
    """
    if world.store is None:
        return wait_for_all(world)
    word = None
    while word is None:
        try:
            world.store.wait([name], ROLL_CALL)
            word = world.store.get(name)
        except dist.DistStoreError:  # not yet
            continue
        except RuntimeError as problem:
            word = first_line(problem).encode()
    if word != b"done":
        problem = UserError(f"torchrun: the first process has not made {name}", "see what ended it", EXIT_ENVIRONMENT)
        problem.is_told = True  # by the first process
        raise problem
    return None


@contextlib.contextmanager
def leaving_world(world: World, *, is_asked: Callable[[], bool]) -> Iterator[None]:
    """Part from the other processes at the end of the block if asked by then, once all have come to it.

    Whoever fails in the block does not wait for them.
    """
    yield
    if world.size == 1 or not is_asked():
        return
    # A wrapped network holds the group of processes, and the group waits for its threads when it goes, which may want
    # to drop tensors of Python: so the network goes first, and the threads have come to rest by the time all are here.
    gc.collect()
    if world.store is not None:
        find_missing(world, "end", ROLL_CALL)
    dist.destroy_process_group()


def wrap_model(module: LossModule, devices: list[torch.device], world: World, *, shard: bool = False) -> nn.Module:
    """Spread a loss module over the devices of this process and over the other processes.

    Args:
        shard: give every process a part of each weight only (FSDP2), for networks that outgrow one device.

    Raises:
        UserError: sharding without torchrun.
    """
    if shard and world.size == 1:
        hint = "torchrun --nproc_per_node=2 train.py --shard …"
        raise UserError("--shard: one process only, so there is nothing to share out", hint, EXIT_ENVIRONMENT)

    # block by block, so that only one block is whole at a time
    if shard:
        # on the device of the run: without a mesh all would go to torch's own choice
        mesh = init_device_mesh(devices[0].type, (world.size,))
        for block in module.model.transformer.h:
            fully_shard(block, mesh=mesh)
        return fully_shard(module, mesh=mesh)
    # processes: gradients are averaged bucket by bucket while the backward pass still runs; the graph is not called
    # static, for a resumed run may compute a batch in another number of parts
    if world.size > 1:
        ids = [devices[0].index] if devices[0].type == "cuda" else None
        return DistributedDataParallel(module, device_ids=ids, gradient_as_bucket_view=True)
    # several devices of one process
    if len(devices) > 1:
        return nn.DataParallel(module, device_ids=[device.index for device in devices])
    return module


def own_rows(count: int, world: World) -> range:
    """Return which rows of a global batch this process computes, contiguous and as even as possible.

    >>> [list(own_rows(5, World(rank, 2))) for rank in range(2)]
    [[0, 1, 2], [3, 4]]
    """
    # the first processes take one row more each
    share, extra = divmod(count, world.size)
    first = world.rank * share + min(world.rank, extra)
    return range(first, first + share + (world.rank < extra))


def micro_batches(count: int, world: World, parts: int) -> list[range]:
    """Return which rows of a global batch this process computes, one micro-batch after the other.

    Every process gets equally many, since all of them meet in each; one with fewer rows gets empty ones.

    >>> [micro_batches(3, World(rank, 2), 4) for rank in range(2)]
    [[range(0, 1), range(1, 2)], [range(2, 3), range(3, 3)]]
    >>> micro_batches(8, World(), 3)
    [range(0, 2), range(2, 5), range(5, 8)]
    """
    # as many parts as the process with the most rows can fill
    rows = own_rows(count, world)
    parts = min(parts, -(-count // world.size))

    # fewer rows than parts: single rows, then empty ones
    if len(rows) < parts:
        borders = [min(rows.start + number, rows.stop) for number in range(parts + 1)]
    else:
        borders = [rows.start + number * len(rows) // parts for number in range(parts + 1)]
    return [range(first, last) for first, last in itertools.pairwise(borders)]


def without_sync(module: nn.Module, *, last: bool):
    """Return the context of a micro-batch: gradients travel between processes only after the last one."""
    if isinstance(module, DistributedDataParallel) and not last:
        return module.no_sync()
    if hasattr(module, "set_requires_gradient_sync"):
        module.set_requires_gradient_sync(last)
    return contextlib.nullcontext()


def all_processes(flag: torch.Tensor, world: World) -> torch.Tensor:
    """Return whether a bool on the device is true in every process, without the host waiting for it."""
    if world.size == 1:
        return flag

    # the least of the flags: 1 only where all are 1
    count = flag.to(torch.float32)
    dist.all_reduce(count, op=dist.ReduceOp.MIN)
    return count > 0


def sum_over_processes(values: list[float], world: World) -> list[float]:
    """Add numbers up over all processes, on the CPU."""
    if world.size == 1:
        return values

    # on the CPU, by gloo: the devices need not wait
    tensor = torch.tensor(values, dtype=torch.float64)
    with explaining_losses(world):
        dist.all_reduce(tensor)
    return tensor.tolist()


def of_first_process(number: float, world: World) -> float:
    """Return a number as the first process has it, in every process, on the CPU."""
    return sum_over_processes([number if world.is_main else 0.0], world)[0]


def largest_of_processes(number: int, world: World) -> int:
    """Return the largest of a number over all processes, on the CPU."""
    if world.size == 1:
        return number
    tensor = torch.tensor(number)
    with explaining_losses(world):
        dist.all_reduce(tensor, op=dist.ReduceOp.MAX)
    return int(tensor)


def any_process(flag: bool, world: World) -> bool:
    """Tell whether a flag is set in any process; every process must ask."""
    return sum_over_processes([float(flag)], world)[0] > 0


def wait_for_all(world: World) -> None:
    """Let every process arrive here before any continues."""
    if world.size > 1:
        with explaining_losses(world):
            dist.barrier()
