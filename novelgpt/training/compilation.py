"""torch.compile with a way back: whether it repays itself, whether this machine can, and a trial before the first step.

A compiler fails where the headers of Python are missing, Triton does not fit the driver, or the GPU is too old. That is
found out by a pass whose gradients are dropped, before any process waits for another one in a step::

    should_compile ─ module.compile() ─ trial pass ─┬─ came through in every process: the run is compiled
                                                    └─ failed in one: all run without it, or the error that it is
"""

import shutil
from collections.abc import Callable
from importlib.util import find_spec

import torch

from novelgpt.messages import EXIT_ENVIRONMENT, EXIT_USAGE, UserError, is_main_process, say
from novelgpt.training.memory import is_out_of_memory
from novelgpt.training.parallel import LossModule, World, any_process

COMPILE_FROM = 500  # steps from which compiling repays itself on a GPU
LEAST_CAPABILITY = (7, 0)  # of a GPU that Triton makes code for
MAX_REASON = 200  # characters of a compiler's complaint


def should_compile(mode: str, devices: list[torch.device], total_steps: float) -> bool:
    """Tell whether torch.compile is asked for ("on"), or "auto" and repays itself: one GPU and a run long enough.

    Raises:
        UserError: asked for on a CPU, whose own fast parts cannot be compiled, or for several GPUs of one process, of
            which all would call the compiled network of the first.
    """
    if mode == "on" and devices[0].type == "cpu":
        message = "--compile on: cpu trains with parts of its own, not compiled ones"
        raise UserError(message, "--compile auto", EXIT_USAGE)
    if mode == "on" and len(devices) > 1:
        message = f"--compile on: found {len(devices)} GPUs in one process, expected one process per GPU"
        raise UserError(message, "--parallel processes, or --compile auto", EXIT_USAGE)
    if mode != "auto":
        return mode == "on"
    if devices[0].type != "cuda" or len(devices) > 1 or total_steps < COMPILE_FROM:
        return False

    # what is sure to fail is not tried
    reason = why_not(devices[0])
    if reason and is_main_process():
        say(f"torch.compile: {reason}; running without it")
    return reason is None


def why_not(device: torch.device) -> str | None:
    """Say what torch.compile lacks on a GPU; None where nothing is known to be missing."""
    capability = torch.cuda.get_device_capability(device)
    if capability < LEAST_CAPABILITY:
        found, needed = (".".join(map(str, numbers)) for numbers in (capability, LEAST_CAPABILITY))
        return f"the GPU is too old for it (capability {found}, at least {needed})"
    if not has_triton():
        return "Triton is not installed"
    # the code around the kernels is C
    return None if shutil.which("cc") or shutil.which("gcc") else "no C compiler here"


def has_triton() -> bool:
    """Tell whether the package that makes the kernels is installed."""
    return find_spec("triton") is not None


def compile_if_possible(
    module: LossModule,
    try_passes: Callable[[], object],
    *,
    wanted: bool,
    mode: str,
    world: World,
    dynamic: bool | None,
) -> None:
    """Compile a loss module where every process wants to, and take that back in all if the trial fails in one.

    Several processes compile block by block, a single one the whole.

    Args:
        wanted: what should_compile said in this process, whose GPU may differ from the others'.
        try_passes: computes what will be compiled, forward and backward.
        mode: "auto" or "on", which makes a failure an error.
        dynamic: what torch.compile takes by this name: False for shapes that never change, None to find out.

    Raises:
        UserError: it failed and was asked for.
    """
    if any_process(not wanted, world):
        if wanted and world.is_main:
            say("torch.compile: not possible in another process; running without it")
        return

    # processes send gradients while the backward pass still runs: as one graph it would hand them over at its end
    parts = [module] if world.size == 1 else list(module.model.transformer.h)
    for part in parts:
        part.compile(dynamic=dynamic)

    # what fails here has not met anybody yet
    reason = find_failure(try_passes)
    if not any_process(reason is not None, world):
        return

    # the eager modules again: the compiled call is all that compile() has added
    for part in parts:
        part._compiled_call_impl = None
    reason = reason or "it failed in another process"
    if mode == "on":
        raise UserError(f"--compile on: {reason}", "--compile auto", EXIT_ENVIRONMENT)
    if world.is_main:
        say(f"torch.compile: {reason}; running without it")


def find_failure(try_passes: Callable[[], object]) -> str | None:
    """Run a trial and return in one line why it failed; None where it did not, or only for want of memory."""
    try:
        try_passes()
    except Exception as problem:  # a compiler raises whatever it likes; a fault of ours comes again without it
        if not is_out_of_memory(problem):
            lines = [line.strip() for line in str(problem).splitlines() if line.strip()]
            return " ".join(lines[:2])[:MAX_REASON] or type(problem).__name__
    return None
