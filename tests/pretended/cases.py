"""Whole calls of the Python API on pretended devices with true numbers; see server.py for how they are run."""

import os
from collections import Counter
from dataclasses import asdict

from helpers import stopping_after
from pretended import cuda

from novelgpt import api
from novelgpt.cli import TrainOptions
from novelgpt.training.engine import Engine


def begin(kind: str = "cuda", *, has_bf16: bool = False, room: int | None = None):
    """Give this process its pretended devices, and no disk to wait for."""
    os.fsync = lambda handle: None
    machine = cuda.install(has_bf16=has_bf16)
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
