"""What torch.compile makes of the loss module of training, found on the CPU by a backend that only counts.

pretended GPU: Engine with --compile on, its steps ─→ how it compiles, what it is called with
CPU: the very module, its weights taken back, compiled the same way ─→ graphs, breaks, calls of attention
"""

import importlib
from types import SimpleNamespace

import numpy as np
import torch
from torch._dynamo.utils import counters
from transformers import GPT2Config, GPT2LMHeadModel

from novelgpt.cli import TrainOptions
from novelgpt.training.engine import Engine, Run
from novelgpt.training.parallel import LossModule, World
from novelgpt.training.windows import Batch
from pretended import cuda
from pretended.tensors import unwrap

SMALL = {"n_layer": 2, "n_embd": 32, "n_head": 2, "n_positions": 16}
VOCABULARY = 300
ROWS = 4  # of a whole batch


class Backend:
    """Keeps every graph, and computes it as it is."""

    def __init__(self):
        self.graphs = []

    def __call__(self, graph, inputs):
        self.graphs.append((graph, inputs))
        return graph.forward

    def attention(self) -> list[list]:
        """Return of each call of attention whether it is causal and whether it has a mask."""
        nodes = [node for graph, _ in self.graphs for node in graph.graph.nodes if "scaled_dot" in str(node.target)]
        return [[node.kwargs.get("is_causal", False), node.kwargs.get("attn_mask") is not None] for node in nodes]

    def num_symbolic(self) -> int:
        """Return how many graphs take a size that is a symbol."""
        return sum(any(isinstance(value, torch.SymInt) for value in inputs) for _, inputs in self.graphs)


def make_run(dtype: torch.dtype) -> Run:
    """Return a run of a small network on the first GPU."""
    options = TrainOptions(batch_size=ROWS, lr=1e-3, weight_decay=0.1, compile="on", optimizer="adamw")
    model = GPT2LMHeadModel(GPT2Config(**SMALL, vocab_size=VOCABULARY)).train()
    device = torch.device("cuda", 0)
    data = SimpleNamespace(stream=None, num_valid=100)
    return Run(options, [device], World(), dtype, None, model.to(device), data, dict(SMALL), 16, [1000])


def watch_engine(history: list[str], dtype: torch.dtype) -> tuple[LossModule, dict, list]:
    """Let an engine take steps on a pretended GPU; return its module, how it compiles and what it calls it with."""
    settings, calls, forward = {}, [], LossModule.forward

    def watched(module, input_ids, labels, *, score=False):
        calls.append((len(input_ids), labels is input_ids, score))
        return forward(module, input_ids, labels, score=score)

    machine = cuda.install(has_bf16=True)
    compiles, torch.nn.Module.compile = torch.nn.Module.compile, lambda module, **given: settings.update(given)
    LossModule.forward = watched
    engine = Engine(make_run(dtype))
    for step, name in enumerate(history, 1):
        take_step(engine, name, step)
    LossModule.forward, torch.nn.Module.compile = forward, compiles
    cuda.leave(machine)
    return engine.loss_module, settings, calls


def take_step(engine: Engine, name: str, step: int) -> None:
    """Take a step of a whole or a short batch, whose inputs are its labels or some of them exchanged; or score one."""
    ids = np.full((2 if "short" in name else ROWS, SMALL["n_positions"]), step)
    if name == "score":
        tensors = torch.from_numpy(ids).to(engine.device), torch.from_numpy(ids.copy()).to(engine.device)
        with torch.no_grad():
            engine.loss_module(*tensors, score=True)
        return
    inputs = ids.copy() if "exchanged" in name else ids
    starts = np.arange(len(ids))
    engine.step(Batch(inputs, ids, starts, is_windows=inputs is ids), step=step, lr_share=1.0)


def take_back(module: LossModule) -> None:
    """Give a module its weights on the CPU."""
    moved = {}
    for part in module.modules():
        for name, parameter in part._parameters.items():
            if parameter is not None:
                moved.setdefault(id(parameter), torch.nn.Parameter(unwrap(parameter).detach()))
                part._parameters[name] = moved[id(parameter)]


def leave_out_cpu_parts() -> None:
    """Let the loss take the operators of a GPU for tensors of the CPU too."""
    importlib.import_module("novelgpt.network.loss").CPU_FORMATS = ()
    importlib.import_module("novelgpt.compute.tuning").HAS_ONEDNN = False


def compile_as_engine(history: list[str], dtype: str) -> dict:
    """Return what torch.compile makes of the calls of an engine: graphs and whether their sizes are symbols."""
    module, settings, calls = watch_engine(history, getattr(torch, dtype))
    take_back(module)
    leave_out_cpu_parts()
    backend = Backend()
    module.compile(backend=backend, **settings)
    counters.clear()
    numbers = torch.Generator().manual_seed(0)
    for rows, is_same, score in calls:
        ids = torch.randint(VOCABULARY, (rows, SMALL["n_positions"]), generator=numbers)
        labels = ids if is_same else ids.clone()
        if score:
            with torch.no_grad():
                module(ids, labels, score=True)
        else:
            module(ids, labels).sum().backward()
    facts = {"graphs": len(backend.graphs), "symbolic": backend.num_symbolic(), "attention": backend.attention()}
    return {**facts, "breaks": sum(counters["graph_break"].values()), "calls": calls}
