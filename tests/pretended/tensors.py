"""Numbers on the CPU that say they lie on a GPU: every operation checks where its tensors are, then computes truly.

    operation on DeviceTensors ─same device?─ ─a look of the host?─ ─while a graph is recorded?─ CPU ─→ DeviceTensor

What is counted: looks, the places at which the host waits for a number, and launches, operations that move numbers.
"""

import sys
from collections import Counter

import torch
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten
LOOKS = {aten._local_scalar_dense.default, aten.equal.default, aten.nonzero.default, aten.masked_select.default}
COPIES = {aten.copy_.default, aten._to_copy.default}  # may go from one device to another
INDEXED = {aten.index.Tensor, aten.index_put.default, aten.index_put_.default}  # by numbers of the host too


class DeviceTensor(torch.Tensor):
    """A tensor of a pretended device around one of the CPU, `inner`."""

    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, inner, device):
        facts = {"strides": inner.stride(), "storage_offset": inner.storage_offset(), "dtype": inner.dtype}
        return torch.Tensor._make_wrapper_subclass(cls, inner.shape, device=device, **facts)

    def __init__(self, inner, device):
        self.inner = inner

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        raise AssertionError(f"{func} outside of the pretended machine: in a thread of its own?")

    def tolist(self):
        """Return the numbers, which torch refuses of other classes than its own."""
        return self.cpu().tolist()


class Machine(TorchDispatchMode):
    """A machine with devices of one type, cuda or mps; entered once, for the whole process."""

    def __init__(self, kind: str):
        super().__init__()
        self.kind = kind
        self.looks: Counter[str] = Counter()  # file:line in novelgpt or transformers -> looks
        self.launches = 0
        self.recorder = None  # of the graph that is being recorded, see cuda.py
        self.room: int | None = None  # bytes of the largest tensor that there is memory for; None: any

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        tensors = tensors_of([args, list(kwargs.values())])
        device = self.find_device(func, tensors, kwargs.get("device"))
        if device is None:
            return func(*args, **kwargs)
        if device.type == "cpu" or func in LOOKS:
            self.note_look(func)
        wrappers = {id(tensor.inner): tensor for tensor in tensors if isinstance(tensor, DeviceTensor)}
        args = change_each(args, unwrap)
        kwargs = {name: change_each(value, unwrap) for name, value in kwargs.items()}
        if "device" in kwargs:
            kwargs["device"] = torch.device("cpu")
        result = self.compute(func, args, kwargs, device)
        if device.type == "cpu":
            return change_each(result, lambda value: value.clone() if id(value) in wrappers else value)
        return change_each(result, lambda value: self.wrap(value, device, wrappers))

    def compute(self, func, args, kwargs, device):
        """Do an operation on the CPU, or have it recorded; numbers read by the host are waited for in either case."""
        self.launches += 1
        if func is aten._fused_sdp_choice.default:
            return 0  # plain products: the fused kernels of GPUs are not here
        if self.recorder is not None and device.type == self.kind:
            return self.recorder.run(func, args, kwargs, device)
        return func(*args, **kwargs)

    def find_device(self, func, tensors, target) -> torch.device | None:
        """Return where the result lies, None where no pretended device takes part; raises where devices are mixed."""
        ours = [tensor for tensor in tensors if isinstance(tensor, DeviceTensor)]
        if target is not None and (ours or torch.device(target).type == self.kind):
            return self.whole(torch.device(target))
        if not ours:
            return None
        others = [tensor for tensor in tensors if not isinstance(tensor, DeviceTensor) and tensor.ndim]
        if func not in COPIES:
            found = {tensor.device for tensor in ours} | {other.device for other in others if func not in INDEXED}
            if len(found) > 1:
                places = ", ".join(sorted(map(str, found)))
                raise RuntimeError(f"{func}: Expected all tensors to be on the same device, found {places}")
        # copy_ writes into its first tensor, which may be on the CPU
        return tensors[0].device if func is aten.copy_.default else ours[0].device

    def whole(self, device: torch.device) -> torch.device:
        """Give a device without a number the current one."""
        if device.type != self.kind or device.index is not None:
            return device
        return torch.device(self.kind, torch._C._accelerator_getDeviceIndex() if self.kind == "cuda" else 0)

    def wrap(self, value, device, wrappers):
        """Return a result of the CPU as one of the device: the same object where the operation was in place."""
        if not isinstance(value, torch.Tensor):
            return value
        if id(value) in wrappers:
            return wrappers[id(value)]
        if self.kind == "mps" and value.dtype == torch.float64:
            # the words of torch on a Mac
            words = "Cannot convert a MPS Tensor to float64 dtype as the MPS framework doesn't support float64."
            raise TypeError(f"{words} Please use float32 instead.")
        if self.room is not None and value.nbytes > self.room:
            raise self.out_of_memory(value.nbytes)
        return DeviceTensor(value, device)

    def out_of_memory(self, size: int) -> RuntimeError:
        """Return the error of a device whose memory has run out, in its own words."""
        if self.kind == "cuda":
            return torch.OutOfMemoryError(f"CUDA out of memory. Tried to allocate {size / 2**20:.2f} MiB.")
        words = f"MPS backend out of memory (MPS allocated: 1.00 GB, max allowed: 1.00 GB). Tried to allocate {size} B"
        return RuntimeError(words)

    def note_look(self, func) -> None:
        """Count where the host waits for the device; while a graph is recorded CUDA refuses it."""
        if self.recorder is not None:
            raise RuntimeError(f"{func}: operation not permitted when stream is capturing")
        frame = sys._getframe(1)
        while frame and not any(part in frame.f_code.co_filename for part in ("/novelgpt/", "/transformers/")):
            frame = frame.f_back
        place = f"{frame.f_code.co_filename.rpartition('site-packages/')[2]}:{frame.f_lineno}" if frame else "elsewhere"
        self.looks[place.rpartition("/novelgpt/")[2]] += 1


def tensors_of(values) -> list[torch.Tensor]:
    """Return the tensors in lists of lists; by hand, since torch's own walk takes most of the time of a small step."""
    found = []
    for value in values:
        if isinstance(value, torch.Tensor):
            found.append(value)
        elif isinstance(value, (list, tuple)):
            found += tensors_of(value)
    return found


def change_each(value, change):
    """Return lists of lists with every entry changed."""
    if isinstance(value, (list, tuple)):
        return type(value)([change_each(entry, change) for entry in value])
    return change(value)


def unwrap(value):
    """Return the tensor on the CPU of a pretended one, anything else as it is."""
    return value.inner if isinstance(value, DeviceTensor) else value


def move_module(module, *args, **kwargs):
    """Do what Module.to does, by new parameters: tensors of another class cannot be exchanged within the old ones."""
    moved = {}
    for part in module.modules():
        for name, parameter in part._parameters.items():
            if parameter is None:
                continue
            if id(parameter) not in moved:  # a tied weight is moved once
                tensor = parameter.detach().to(*args, **kwargs)
                same = tensor.device == parameter.device and tensor.dtype == parameter.dtype
                moved[id(parameter)] = parameter if same else new_parameter(tensor, parameter)
            part._parameters[name] = moved[id(parameter)]
        for name, buffer in part._buffers.items():
            part._buffers[name] = None if buffer is None else buffer.to(*args, **kwargs)
    return module


def new_parameter(tensor, former):
    """Return a parameter with everything that was hung onto the former one."""
    parameter = torch.nn.Parameter(tensor, requires_grad=former.requires_grad)
    for name, value in vars(former).items():
        if name not in vars(parameter):  # what makes it a tensor of its class is its own
            setattr(parameter, name, value)
    return parameter


def enter(machine: Machine) -> Machine:
    """Let a machine see every operation of this thread, backward passes too, and move modules its way."""
    torch.autograd.set_multithreading_enabled(False)
    torch.nn.Module.to = move_module
    return machine.__enter__()
