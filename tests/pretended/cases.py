"""Whole calls of the Python API on pretended devices with true numbers; see server.py for how they are run."""

import os
from collections import Counter
from dataclasses import asdict

import torch
from helpers import stopping_after

from novelgpt import api
from novelgpt.cli import TrainOptions
from novelgpt.training.engine import Engine
from pretended import cuda, mps


def begin(kind: str = "cuda", *, has_bf16: bool = False, room: int | None = None):
    """Give this process its pretended devices, and no disk to wait for."""
    os.fsync = lambda handle: None
    machine = mps.install() if kind == "mps" else cuda.install(has_bf16=has_bf16)
    machine.room = room
    return machine


def facts_of(machine) -> dict:
    """Return what a machine counted."""
    return {"looks": dict(machine.looks), "launches": machine.launches}


def note_step_looks(machine) -> Counter:
    """Return a count of looks that grows with those within the steps of an engine, not with those between them."""
    found, step = Counter(), Engine.step

    def watched(engine, *arguments, **settings):
        before = Counter(machine.looks)
        result = step(engine, *arguments, **settings)
        found.update(machine.looks - before)
        return result

    Engine.step = watched
    return found


def train(options: dict, *, questions: int | None = None, **devices) -> dict:
    """Train, up to a question of the loop whether to stop; return how it ended and the looks of its steps."""
    machine = begin(**devices)
    step_looks = note_step_looks(machine)
    if questions is None:
        result = api.train(TrainOptions(**options))
    else:
        with stopping_after(questions):
            result = api.train(TrainOptions(**options))
    return {"status": result.status, "step": result.step, "finished": result.finished, "step_looks": dict(step_looks)}


def generate(model: str, prefix: str, options: dict, **devices) -> dict:
    """Let a model write; return texts, looks and launches."""
    machine = begin(**devices)
    written = api.generate(model, prefix, **options)
    return {"texts": [asdict(each) for each in written], **facts_of(machine)}


def evaluate(model: str, text: str, options: dict, **devices) -> dict:
    """Measure a model by a text; return the report."""
    begin(**devices)
    return api.evaluate(model, text, **options)


def make_doubles() -> None:
    """Ask a pretended Mac for what it has not."""
    begin("mps")
    torch.ones(3, device="mps").double()


def add_across() -> None:
    """Add tensors of two devices."""
    begin()
    torch.ones(2, device="cuda:0") + torch.ones(2, device="cuda:1")


def differentiate() -> dict:
    """Compute a gradient on the second GPU."""
    machine = begin()
    weight = torch.tensor([1.0, 1.0, 1.0], device="cuda:1", requires_grad=True)
    (torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], device="cuda:1") * weight).sum().backward()
    gradient = weight.grad.tolist()
    return {"gradient": gradient, "device": str(weight.grad.device), "looks": dict(machine.looks)}


def replay_doubling(current: int) -> list[float]:
    """Record the doubling of a number on the second GPU, with another current device, and replay it three times."""
    begin()
    torch.cuda.set_device(current)
    number, graph = torch.ones(1, device="cuda:1"), torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        number.add_(number * 1.0)
    values = number.tolist()
    for _ in range(3):
        graph.replay()
        values += number.tolist()
    return values


def read_while_recording() -> None:
    """Read a number within a graph."""
    begin()
    number = torch.ones(1, device="cuda:0")
    with torch.cuda.graph(torch.cuda.CUDAGraph()):
        float(number)


def allocate(room: int) -> None:
    """Ask for 4 MiB."""
    begin(room=room)
    torch.empty(1 << 20, device="cuda:0")
