"""What torch.cuda is asked, answered for two pretended GPUs: devices, streams, graphs, copies between devices.

A graph records what runs on its stream's device, as CUDA does: with the weights on another one it stays empty.
"""

import contextlib
import functools
import sys
import warnings
from types import SimpleNamespace

import torch
from torch.nn.parallel import comm

from pretended.tensors import Machine, enter, tensors_of

COUNT = 2
MEMORY = 16 << 30  # bytes of each
PROPERTIES = {"major": 8, "minor": 6, "total_memory": MEMORY, "multi_processor_count": 46, "warp_size": 32}


class Stream:
    """A stream: everything runs at once, so only its device matters."""

    def __init__(self, device=None, **_):
        self.device = torch.device("cuda", index_of(device))

    def __enter__(self):
        self.context = stream(self)
        return self.context.__enter__()

    def __exit__(self, *problem):
        return self.context.__exit__(*problem)

    def wait_stream(self, other) -> None:
        """Nothing is ever under way."""

    wait_event = record_event = wait_stream

    def synchronize(self) -> None:
        """Nothing is ever under way."""


def index_of(device) -> int:
    """Return the number of a device given in any form, the current one for None."""
    if isinstance(device, Stream):
        return device.device.index
    if isinstance(device, int):
        return device
    index = None if device is None else torch.device(device).index
    return current_device() if index is None else index


def current_device() -> int:
    """Return the number of the current device, which the guard in devices.cpp keeps."""
    return torch._C._accelerator_getDeviceIndex()


def exchange_device(index: int) -> int:
    """Make a device the current one and return the former; a negative number changes nothing."""
    former = current_device()
    if index >= 0:
        torch._C._accelerator_setDeviceIndex(index)
    return former


def set_device(device) -> None:
    """Make a device the current one."""
    exchange_device(index_of(device))


STREAMS: dict[int, Stream] = {}  # the current one of each device


def current_stream(device=None) -> Stream:
    """Return the current stream of a device."""
    return STREAMS.setdefault(index_of(device), Stream(device))


@contextlib.contextmanager
def stream(chosen):
    """Make a stream and its device the current ones."""
    if chosen is None:
        yield
        return
    index = chosen.device.index
    former, former_stream = exchange_device(index), current_stream(index)
    STREAMS[index] = chosen
    try:
        yield
    finally:
        STREAMS[index] = former_stream
        exchange_device(former)


class Graph:
    """A graph that keeps the operations on its stream's device; replayed, they write into the very same memory."""

    machine: Machine

    def __init__(self, keep_graph=False):
        self.operations = []

    def capture_begin(self, *_, **__) -> None:
        """Record from here on."""
        self.stream, self.undo = current_stream(), []
        self.machine.recorder = self

    def run(self, func, args, kwargs, device):
        """Record an operation if it runs on the stream of the capture, else let it run; return its tensors."""
        if current_stream(device) is not self.stream:
            return func(*args, **kwargs)
        leaves = tensors_of([args, list(kwargs.values())])
        # nothing runs while it is recorded: what this run changes is put back at the end
        if func._schema.is_mutable:
            self.undo += [(leaf, leaf.clone()) for leaf in leaves]
        result = func(*args, **kwargs)
        known = {leaf.untyped_storage().data_ptr() for leaf in leaves}
        new = tensors_of([result])
        is_view = bool(new) and all(leaf.untyped_storage().data_ptr() in known for leaf in new)
        if func._schema.is_mutable or not is_view:
            self.operations.append((func, args, kwargs, None if func._schema.is_mutable else new))
        return result

    def capture_end(self) -> None:
        """Stop recording; as in CUDA a graph without operations is worth a warning only."""
        self.machine.recorder = None
        for tensor, value in reversed(self.undo):
            tensor.copy_(value)
        # numbers that no replay has computed yet must not look like results
        for *_, results in self.operations:
            for tensor in results or []:
                tensor.fill_(torch.nan if tensor.is_floating_point() else 0)
        if not self.operations:
            warnings.warn("The CUDA Graph is empty. This usually means that the graph was", stacklevel=2)

    def replay(self) -> None:
        """Do all operations again, in the memory in which they were recorded."""
        with torch.utils._python_dispatch._disable_current_modes():
            for func, args, kwargs, results in self.operations:
                again = func(*args, **kwargs)
                for tensor, value in zip(results or [], tensors_of([again]), strict=False):
                    tensor.copy_(value)


def copy_to(tensors, devices):
    """Return copies of tensors on each device: what comm.broadcast_coalesced does."""
    return [[tensor.detach().to(f"cuda:{index_of(device)}", copy=True) for tensor in tensors] for device in devices]


def add_up(parts, destination=None):
    """Return for each tensor the sum over devices: what comm.reduce_add_coalesced does."""
    place = f"cuda:{index_of(destination)}"
    return tuple(sum(tensor.to(place) for tensor in tensors) for tensors in zip(*parts, strict=True))


def scatter(tensor, devices, chunk_sizes=None, dim=0, streams=None):
    """Return a piece of a tensor for each device, fewer where it has not enough rows."""
    pieces = tensor.chunk(len(devices), dim) if chunk_sizes is None else tensor.split(chunk_sizes, dim)
    return tuple(piece.to(f"cuda:{index_of(device)}") for piece, device in zip(pieces, devices, strict=False))


def gather(tensors, dim=0, destination=None, **_):
    """Return tensors of several devices as one."""
    return torch.cat([tensor.to(f"cuda:{index_of(destination)}") for tensor in tensors], dim)


def apply_in_turn(modules, inputs, kwargs=None, devices=None):
    """Run replicas one after the other, each on its own device: what parallel_apply does in threads."""
    outputs = []
    for replica, given, named, device in zip(modules, inputs, kwargs, devices, strict=True):
        with torch.cuda.device(device):
            outputs.append(replica(*given, **named))
    return outputs


def properties_of(device=None) -> SimpleNamespace:
    """Return what is known of a device."""
    return SimpleNamespace(name=f"Pretended {index_of(device)}", **PROPERTIES)


def answers(*, has_bf16: bool, memory: int) -> dict:
    """Return what takes the place of the names of torch.cuda."""
    done = lambda *_, **__: None  # noqa: E731
    return {
        **dict.fromkeys(("_lazy_init", "init", "synchronize", "empty_cache", "ipc_collect", "manual_seed_all"), done),
        **dict.fromkeys(("manual_seed", "reset_peak_memory_stats"), done),
        **dict.fromkeys(("max_memory_allocated", "memory_allocated", "memory_reserved"), lambda *_: 0),
        **{"is_available": lambda: True, "is_initialized": lambda: True, "device_count": lambda: COUNT},
        "is_bf16_supported": lambda including_emulation=True: has_bf16 or including_emulation,
        "mem_get_info": lambda *_: (memory, memory),
        **{"get_device_properties": properties_of, "get_device_name": lambda *given: properties_of(*given).name},
        **{"get_device_capability": lambda *_: (PROPERTIES["major"], PROPERTIES["minor"])},
        **{"current_device": current_device, "set_device": set_device},
        **{"_exchange_device": exchange_device, "_maybe_exchange_device": exchange_device},
        **{"Stream": Stream, "current_stream": current_stream, "default_stream": current_stream, "stream": stream},
        "CUDAGraph": Graph,
        # random numbers come from the CPU
        "get_rng_state": lambda *_: torch.get_rng_state(),
        "set_rng_state": lambda state, *_: torch.set_rng_state(state),
    }


def answer_questions(*, has_bf16: bool = False, memory: int = MEMORY) -> None:
    """Let torch say that there are two GPUs, with so many bytes of memory each, and copy between them."""
    for name, answer in answers(has_bf16=has_bf16, memory=memory).items():
        # a function for each name: torch.compile wants to tell them apart
        setattr(torch.cuda, name, answer if isinstance(answer, type) else functools.partial(answer))
    comm.broadcast_coalesced, comm.reduce_add_coalesced = copy_to, add_up
    comm.scatter, comm.gather = scatter, gather
    # the module, which has the name of a function of its package
    sys.modules["torch.nn.parallel.data_parallel"].parallel_apply = apply_in_turn
    torch._C._host_emptyCache = lambda: None
    torch._C._set_only_lift_cpu_tensors(True)  # of torch.tensor: first a list of the CPU, then a copy
    torch.autograd.set_multithreading_enabled(False)  # fakes and modes belong to one thread
    torch.Tensor.pin_memory = lambda tensor, *_: tensor


def install(*, has_bf16: bool = False) -> Machine:
    """Give this process two GPUs with true numbers; it has them to its end."""
    answer_questions(has_bf16=has_bf16)
    machine = enter(Machine("cuda"))
    Graph.machine = machine
    return machine


def leave(machine: Machine) -> None:
    """Take the GPUs away again, for what is done with the CPU afterwards."""
    machine.__exit__(None, None, None)
    torch.cuda.is_available, torch.cuda.is_initialized = (lambda: False), (lambda: False)
    torch.cuda.device_count = lambda: 0
