"""What this machine has: `--device 0,1` -> the torch devices that are there, their number format, the libraries."""

import contextlib
import os
import re
from collections.abc import Iterable, Iterator
from importlib.metadata import PackageNotFoundError, version

import torch

from novelgpt.messages import EXIT_ENVIRONMENT, EXIT_USAGE, UserError, is_main_process, say, warn

NO_GPU = "there is no GPU"
HINT = "--device 0 or --device 0,1 for GPUs, --device mps, --device cpu"
# torch: its restricted loader was unsafe before; transformers: a config could load code; safetensors: atomic saves;
# numba: the loops of compute were never compiled by an older one
FLOORS = {"torch": (2, 10), "transformers": (5, 3), "safetensors": (0, 8), "numba": (0, 68)}


def choose_devices(text: str | None = None, *, takes_several: bool = False) -> list[torch.device]:
    """Turn the `--device` option into at least one device that exists, several only for GPUs; make the first current.

    Under torchrun it is the one device of this process; else the GPUs that are named. torch's current device counts
    where no tensor says otherwise: for streams, CUDA graphs and questions about "the" GPU.

    Args:
        text: GPU numbers separated by commas ("0,1", "cuda:0"), "cuda" for the first GPU, "cpu", "mps", or None for the
            first GPU (else MPS, else CPU): replicas in one process are slower than one fast card alone. Where there is
            no GPU at all, the CPU is used with a warning.
        takes_several: the caller can use more than one, so those left idle are worth a line.

    Raises:
        UserError: not of that form, a number given twice, a GPU that is absent where others are there, or more
            processes than GPUs.

    >>> choose_devices("cpu")
    [device(type='cpu')]
    """
    devices = own_devices(find_devices(text), text, takes_several=takes_several)
    if devices[0].type == "cuda":
        torch.cuda.set_device(devices[0])
    return devices


def find_devices(text: str | None) -> list[torch.device]:
    """Return the devices that the option names; every GPU for None."""
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if text is None:
        if not count and (reason := explain_no_gpu()) != NO_GPU:
            warn_once(f"no GPU can be used: {reason}; using the CPU")
        return gpus(range(count)) or [torch.device("mps" if torch.backends.mps.is_available() else "cpu")]
    # by name: the CPU, or Apple's GPU where there is one
    words = [word.strip().lower() for word in text.split(",")]
    if words == ["cpu"]:
        return [torch.device("cpu")]
    if words == ["mps"]:
        if torch.backends.mps.is_available():
            return [torch.device("mps")]
        warn_once("--device mps: no Apple GPU here; using the CPU")
        return [torch.device("cpu")]
    # by number, each once
    numbers = ["0"] if words == ["cuda"] else [word.removeprefix("cuda:") for word in words]
    if not all(number.isascii() and number.isdigit() for number in numbers):
        raise UserError(f"--device: found {text!r}, expected GPU numbers, cuda, mps or cpu", HINT, EXIT_USAGE)
    if len(set(map(int, numbers))) < len(numbers):
        raise UserError(f"--device: found {text!r}, expected every GPU once", HINT, EXIT_USAGE)
    return present_gpus([int(number) for number in numbers], count, name=",".join(words))


def present_gpus(numbers: list[int], count: int, *, name: str) -> list[torch.device]:
    """Return the numbered GPUs of those there are; the CPU, said aloud, where there is none."""
    absent = [number for number in numbers if number >= count]
    words = f"--device {name}: no GPU {', '.join(map(str, absent))}"
    if absent and count:
        # a run of days must not begin on another device than was meant
        there = f"GPUs 0 to {count - 1} are there" if count > 1 else "GPU 0 is there"
        hint = f"--device {','.join(map(str, range(count)))}"
        if visible := os.environ.get("CUDA_VISIBLE_DEVICES"):
            hint += f"; CUDA_VISIBLE_DEVICES={visible} hides the others and numbers what is left from 0"
        raise UserError(f"{words}; {there}", hint, EXIT_ENVIRONMENT)
    if absent:
        warn_once(f"{words} ({explain_no_gpu()}); using the CPU")
    return gpus([number for number in numbers if number < count]) or [torch.device("cpu")]


def own_devices(devices: list[torch.device], text: str | None, *, takes_several: bool) -> list[torch.device]:
    """Keep what is for this process: under torchrun the device of its number on this machine."""
    is_gpu, count = devices[0].type == "cuda", len(devices)
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        local = int(os.environ.get("LOCAL_RANK", "0"))
        processes = max(int(os.environ.get("LOCAL_WORLD_SIZE", "1")), local + 1)
        # two processes on one GPU cannot talk to each other
        if is_gpu and processes > count:
            named = f" of --device {text}" if text else ""
            found = f"{count} GPUs{named}" if count > 1 else f"1 GPU{named}"
            message = f"torchrun: {processes} processes on this machine for {found}, expected one each"
            raise UserError(message, f"torchrun --nproc_per_node={count} train.py …", EXIT_ENVIRONMENT)
        return [devices[local % count]]
    if text is None and count > 1:
        if takes_several:
            named = ",".join(map(str, range(count)))
            say(f"taking GPU 0; there are {count}: --device {named} uses {'both' if count == 2 else 'all'}")
        return devices[:1]
    return devices


def gpus(numbers: Iterable[int]) -> list[torch.device]:
    """Return CUDA devices by number."""
    return [torch.device("cuda", number) for number in numbers]


def explain_no_gpu() -> str:
    """Say why no GPU can be used."""
    if torch.version.cuda is None:
        return NO_GPU
    try:
        torch.cuda.init()  # fails, and its words tell an old driver from none
    except (RuntimeError, AssertionError) as problem:
        if "driver" in str(problem) and "too old" in str(problem):
            return f"the NVIDIA driver is too old for this torch, built for CUDA {torch.version.cuda}"
    return NO_GPU


def warn_once(text: str) -> None:
    """Warn in the first process alone."""
    if is_main_process():
        warn(text)


def choose_precision(name: str, device: torch.device, *, flag: str = "--precision") -> torch.dtype:
    """Resolve `--precision` into the dtype of the matrix products; weights and sums stay fp32.

    Args:
        name: "bf16", "fp16" (with a loss scaler; UserError on anything but a GPU), "fp32", or "auto": bf16 where it is
            fast (GPUs from Ampere on, CPUs with AVX512_BF16 or AMX), fp16 on older GPUs and fp32 elsewhere.
        device: the one that computes.
        flag: the option that asks for it, --precision or --fp16.
    """
    # torch answers for its current device, which choose_devices has set
    has_bf16 = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    if name == "auto":
        if device.type == "cuda":
            return torch.bfloat16 if has_bf16 else torch.float16
        return torch.bfloat16 if device.type == "cpu" and has_fast_bf16() else torch.float32
    if name == "fp16" and device.type != "cuda":
        words = flag if flag == "--fp16" else f"{flag} {name}"
        raise UserError(f"{words}: {device.type} does not compute in fp16", "--precision bf16 or fp32", EXIT_USAGE)
    if name == "bf16" and device.type == "cuda" and not has_bf16:
        warn_once(f"--precision bf16: {device} only emulates it, slowly; --precision fp16 is fast there")
    return {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}[name]


def compute_deterministically(device: torch.device) -> None:
    """Let torch use only operations that give the same bits in every run; where it has none, torch raises.

    A CPU does so anyway, for one model of processor and number of threads; there this changes nothing, and says so.
    """
    if device.type == "cpu":
        if is_main_process():
            say("--deterministic: the CPU gives the same bits in every run anyway")
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read at the first matrix product
    torch.use_deterministic_algorithms(True)


@contextlib.contextmanager
def restoring_determinism() -> Iterator[None]:
    """Undo compute_deterministically at the end of the block: a library call leaves torch's settings as they were."""
    former = torch.get_deterministic_debug_mode()  # off, warnings or errors
    try:
        yield
    finally:
        torch.set_deterministic_debug_mode(former)


def has_fast_bf16() -> bool:
    """Tell whether this processor has bf16 dot products."""
    # private functions: where a version of torch has neither, bf16 has to be asked for
    names = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, name, bool)() for name in names)


def describe_devices(devices: list[torch.device]) -> str:
    """Name the devices for people: `cpu (2 threads)`, `2 x NVIDIA H200`.

    >>> describe_devices([torch.device("cpu")]).startswith("cpu (")
    True
    """
    if devices[0].type == "cpu":
        count, there = torch.get_num_threads(), os.cpu_count()
        return f"cpu (1 thread of {there} processors)" if count == 1 else f"cpu ({count} threads of {there} processors)"
    if devices[0].type == "mps":
        return "mps"
    names = [torch.cuda.get_device_name(device) for device in devices]
    return f"{len(names)} x {names[0]}" if len(names) > 1 else names[0]


def check_versions(find=version) -> None:
    """Raise when a library is missing or too old; find: package -> version text, or raises PackageNotFoundError."""
    for package, floor in FLOORS.items():
        needed = ".".join(map(str, floor))
        try:
            found = find(package)
        except PackageNotFoundError:
            found = "no version"
        # "2.13.0+cpu" -> (2, 13); a missing package gives (), which is below every floor
        numbers = tuple(int(number) for number in re.findall(r"\d+", found)[:2])
        if numbers < floor:
            message = f"{package}: found {found}, expected {needed} or newer"
            raise UserError(message, "pip install -r requirements.txt", EXIT_ENVIRONMENT)
