"""Steps of the network at its full size on fake tensors: devices and shapes without numbers, in seconds, in no memory.

    Engine.step ─→ Meter: launches, bytes, looks of the host, memory in use ─→ FakeTensorMode: devices and shapes

A tensor on a wrong device raises; so would a look at a number, but here it is counted and answered.
"""

import sys
import weakref
from collections import Counter
from types import SimpleNamespace

import numpy as np
import torch
import transformers
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import GPT2Config, GPT2LMHeadModel

from novelgpt.cli import TrainOptions
from novelgpt.training import engine as engine_module
from novelgpt.training.engine import Engine, Run
from novelgpt.training.memory import predict_bytes
from novelgpt.training.parallel import World
from novelgpt.training.windows import Batch
from pretended import cuda
from pretended.tensors import move_module, tensors_of

aten = torch.ops.aten
FULL = {"n_layer": 10, "n_embd": 768, "n_head": 12, "n_positions": 1024}  # 82 million parameters
VOCABULARY = 13_317
MEMORY = 140 << 30  # bytes: of an H200
BLOCK = 512  # bytes that memory is given out in


class Meter(TorchDispatchMode):
    """Counts what a step does on a device."""

    def __init__(self):
        super().__init__()
        self.launches = self.touched = self.used = self.peak = 0  # the last three in bytes
        self.looks: Counter[str] = Counter()
        self.seen = weakref.WeakSet()  # storages

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is aten._local_scalar_dense.default:
            self.note_look()
            return args[0].dtype == torch.bool  # so that whatever is asked is so
        result = func(*args, **(kwargs or {}))
        given, new = device_tensors([args, list((kwargs or {}).values())]), device_tensors([result])
        known = {tensor.untyped_storage()._cdata for tensor in given}
        is_view = not func._schema.is_mutable and all(each.untyped_storage()._cdata in known for each in new)
        if not is_view and new:
            self.launches += 1
            self.touched += sum(each.nbytes for each in {id(each): each for each in (*given, *new)}.values())
        for each in new:
            self.count_memory(each.untyped_storage())
        return result

    def count_memory(self, storage) -> None:
        """Count a storage that has just been made, until it is gone."""
        if storage in self.seen:
            return
        self.seen.add(storage)
        size = -(-storage.nbytes() // BLOCK) * BLOCK
        self.used += size
        self.peak = max(self.peak, self.used)
        weakref.finalize(storage, self.give_back, size)

    def give_back(self, size: int) -> None:
        """Count memory that is free again."""
        self.used -= size

    def note_look(self) -> None:
        """Count a look by the line of novelgpt or transformers it comes from."""
        frame = sys._getframe(1)
        while not any(part in frame.f_code.co_filename for part in ("/novelgpt/", "/transformers/")):
            frame = frame.f_back
        self.looks[f"{frame.f_code.co_filename.rpartition('/')[2]}:{frame.f_lineno}"] += 1


def device_tensors(tree) -> list[torch.Tensor]:
    """Return the tensors of a device in a tree of arguments or results."""
    return [tensor for tensor in tensors_of(tree) if tensor.device.type == "cuda"]


def fused_attention(query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, **_):
    """Send attention to the kernel that a GPU would choose: flash in 16 bits without a mask, else the efficient one."""
    if attn_mask is None and query.dtype != torch.float32:
        return aten._scaled_dot_product_flash_attention(query, key, value, dropout_p, is_causal, scale=scale)[0]
    mask = attn_mask
    if mask is not None:
        mask = mask.to(query.dtype).expand(*query.shape[:3], key.shape[2])
    settings = {"dropout_p": dropout_p, "is_causal": is_causal, "scale": scale}
    return aten._scaled_dot_product_efficient_attention(query, key, value, mask, True, **settings)[0]


def make_run(rows: int, devices: int, dtype: torch.dtype, **changes) -> Run:
    """Return a run of the full network on fake devices, which has nothing to read."""
    options = TrainOptions(**{"batch_size": rows, "lr": 2e-3, "weight_decay": 0.1, "compile": "off", **changes})
    places = [torch.device("cuda", index) for index in range(devices)]
    model = move_module(GPT2LMHeadModel(GPT2Config(**FULL, vocab_size=VOCABULARY)).train(), places[0])
    data = SimpleNamespace(stream=None)
    return Run(options, places, World(), dtype, None, model, data, dict(FULL), FULL["n_positions"], [100])


def make_batch(rows: int) -> Batch:
    """Return a batch of so many windows; its ids are never looked at."""
    ids = np.zeros((rows, FULL["n_positions"]), dtype=np.int64)
    return Batch(ids, ids, np.zeros(rows, dtype=np.int64), is_windows=True)


def take_steps(
    rows: int, *, steps: int = 2, dtype: str = "bfloat16", devices: int = 1, optimizer: str = "muon", **changes
) -> dict[str, object]:
    """Take steps of the full network; return what forward and backward of the last did, looks, peak, prediction.

    Args:
        rows: windows of a step.
        steps: how many; the moments of the optimizers are there from the second on.
        devices: how many GPUs.
        changes: options of train.py.
    """
    cuda.answer_questions(has_bf16=True, memory=MEMORY)
    torch.nn.functional.scaled_dot_product_attention = fused_attention
    # fakes are taken for a compiler's, whose way through the masks is another one
    transformers.utils.import_utils.is_fake_tensor = lambda tensor: False
    passes, accumulate = [], Engine.accumulate

    def watched(*arguments):
        before = meter.launches, meter.touched
        loss = accumulate(*arguments)
        passes.append((meter.launches - before[0], meter.touched - before[1]))
        return loss

    engine_module.Engine.accumulate = watched
    with FakeTensorMode(allow_non_fake_inputs=True), Meter() as meter:
        run = make_run(rows, devices, getattr(torch, dtype), optimizer=optimizer, **changes)
        engine = Engine(run)
        for step in range(1, steps + 1):
            engine.step(make_batch(rows), step=step, lr_share=1.0)
    sizes = {"device": "cuda", "dtype": run.dtype, "checkpointing": run.options.gradient_checkpointing}
    predicted = predict_bytes(run.config, VOCABULARY, rows, **sizes)
    launches, touched = passes[-1]
    facts = {"launches": launches, "touched": touched, "looks": dict(meter.looks), "peak": meter.peak}
    return {**facts, "predicted": predicted, "parts": engine.micro_batches}
