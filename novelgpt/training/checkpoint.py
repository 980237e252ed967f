"""The resumable state of a run: complete or absent, verified before it is used, newest valid one wins.

::

    model/checkpoints/step-00000500/
      model.safetensors      weights, fp32
      optimizer.safetensors  moments and step counts, named optimizer/weight/key
      state.json             step, epoch, batches done in it, log length, best epoch, history, skipped steps
      manifest.json          size and sha256 of the three, written last

Every random number of a run is a function of (seed, step), and the order of the windows of (seed, epoch), so the
position is the whole random state.
"""

import math
import os
import re
import shutil
import time
from collections.abc import Iterable
from dataclasses import MISSING, Field, asdict, dataclass, field, fields
from pathlib import Path

import torch
from torch.distributed.tensor import DTensor, distribute_tensor

from novelgpt.files import MANIFEST, atomic_folder, find_damage, patiently, read_json, write_json
from novelgpt.messages import EXIT_DIVERGED, EXIT_STATE, UserError, is_main_process, say, warn
from novelgpt.network import WEIGHTS, check_safetensors_header, gather_tensor, read_safetensors, write_safetensors

FOLDER = "checkpoints"
OPTIMIZER = "optimizer.safetensors"
STATE = "state.json"
FILES = (WEIGHTS, OPTIMIZER, STATE)
NAME = re.compile(r"step-(\d{8})")
RETRY_SECONDS = 60  # after a checkpoint that the disk refused


@dataclass
class Progress:
    """Where a run stands. Everything in it goes into state.json."""

    step: int = 0  # optimizer steps done, skipped ones included
    epoch: int = 1  # the epoch under way, from 1
    batch: int = 0  # batches of that epoch that are done
    best_loss: float | None = None  # lowest held-out loss so far, nats per token; None before the first evaluation
    best_epoch: float | None = None  # the epoch of it; a fraction within an epoch
    history: list[dict] = field(default_factory=list)  # one entry an evaluation: epoch, step, valid_loss
    skipped: int = 0  # steps left out because loss or gradient was not finite
    bad_in_a_row: int = 0  # how many of them were the last ones
    log_bytes: int = 0  # length of log.jsonl when this was saved
    loss_sum: float = 0.0  # nats since the last log line
    loss_tokens: int = 0  # scored tokens since then
    micro_batches: int = 0  # parts a batch was computed in; sums in another order differ in the last bit
    scaler: dict = field(default_factory=dict)  # state of the fp16 loss scaler
    best_step: int | None = None  # the step of the best held-out loss
    since_best: int = 0  # evaluations since then
    clock: dict = field(default_factory=dict)  # where a run of hours stands in its time, see pace.ClockPace


def checkpoint_path(run_dir: Path, step: int) -> Path:
    """Return the folder of a step's checkpoint."""
    return run_dir / FOLDER / f"step-{step:08d}"


def list_checkpoints(run_dir: Path) -> list[Path]:
    """Return the checkpoint folders of a run, oldest first, whether valid or not."""
    folder = run_dir / FOLDER
    return sorted(path for path in folder.iterdir() if NAME.fullmatch(path.name)) if folder.is_dir() else []


def save_checkpoint(
    run_dir: Path,
    progress: Progress,
    weights: dict[str, torch.Tensor],
    optimizer: dict[str, torch.Tensor],
    *,
    keep: int,
) -> Path:
    """Write the state of a run, and remove all but the newest `keep` once it is verified; return its folder.

    Raises:
        UserError: a number is not finite, or the disk refuses; every older checkpoint is then still there.
    """
    path = checkpoint_path(run_dir, progress.step)

    # a state with a number that is none would end every run that is resumed from it
    for name, tensor in {**weights, **optimizer}.items():
        if not torch.isfinite(tensor).all():
            hint = "resume from the last good checkpoint with a lower --lr"
            raise UserError(f"{path}: not saved: {name} is not finite", hint, EXIT_DIVERGED)

    # the folder appears complete or not at all, and is read back before any older one goes
    with atomic_folder(path, step=progress.step) as hidden:
        write_safetensors(weights, hidden / WEIGHTS)
        write_safetensors(optimizer, hidden / OPTIMIZER)
        write_json(hidden / STATE, asdict(progress))
    damage = find_checkpoint_damage(path)
    if damage:
        raise UserError(f"{path}: damaged right after it was written: {damage}", "check the disk", EXIT_STATE)
    prune_checkpoints(run_dir, keep)
    return path


def prune_checkpoints(run_dir: Path, keep: int) -> None:
    """Remove all but the newest checkpoints; incomplete folders do not count as kept."""
    # damaged ones are kept beside them: somebody may want to look
    complete = [path for path in list_checkpoints(run_dir) if find_damage(path, hashes=False, needed=FILES) is None]
    for path in complete[:-keep]:
        hidden = path.with_name(f".{path.name}.{os.getpid()}.tmp")  # a kill in between leaves no half checkpoint
        patiently(os.rename, path, hidden)
        shutil.rmtree(hidden, ignore_errors=True)


def find_checkpoint(run_dir: Path, *, set_aside: bool = True) -> Path | None:
    """Return the newest valid checkpoint; with set_aside, rename damaged ones to `.bad` and warn of file and reason.

    Raises:
        UserError: there are checkpoints, and none is valid.
    """
    # the newest whole one wins; looking for it costs reading it once
    damaged = 0
    for path in reversed(list_checkpoints(run_dir)):
        damage = find_checkpoint_damage(path)
        if damage is None:
            return path
        damaged += 1
        if set_aside:
            warn(f"{path}: set aside as {rename_aside(path, '.bad').name}: {damage}")
    if damaged:
        message = f"{run_dir / FOLDER}: none of {damaged} checkpoints is whole"
        hint = "start again with --resume never, or copy a whole checkpoint back"
        raise UserError(message, hint, EXIT_STATE)
    return None


def find_checkpoint_damage(path: Path) -> str | None:
    """Say what is wrong with a checkpoint: its files, or that it is not of the step it is called after."""
    damage = find_damage(path, needed=FILES)
    if damage:
        return damage
    try:
        # all files are whole, but they may have been copied together from several steps
        steps = [read_progress(path).step, read_json(path / MANIFEST).get("step")]
    except UserError as problem:
        return problem.message
    if name := NAME.fullmatch(path.name):
        steps.append(int(name[1]))
    same = all(step == steps[0] for step in steps)
    return None if same else f"{STATE}, {MANIFEST} and the name are of steps {', '.join(map(str, steps))}"


def set_later_aside(run_dir: Path, step: int) -> None:
    """Rename the checkpoints after a step to `.later`: a run resumed from that step takes another course."""
    for path in list_checkpoints(run_dir):
        if int(NAME.fullmatch(path.name)[1]) > step:
            say(f"{path}: set aside as {rename_aside(path, '.later').name}")


def rename_aside(path: Path, ending: str) -> Path:
    """Rename a checkpoint, in the place of an earlier one of that name, and return the new path."""
    aside = path.with_name(path.name + ending)
    if aside.is_dir():
        shutil.rmtree(aside)
    aside.unlink(missing_ok=True)
    os.rename(path, aside)
    return aside


def read_progress(path: Path) -> Progress:
    """Read where a verified checkpoint stands.

    Raises:
        UserError: not a Progress; the message names the first value that is none.
    """
    # an unknown or missing key is a TypeError of the constructor
    values = read_json(path / STATE)
    hint = "start again with --resume never"
    try:
        progress = Progress(**values)
    except TypeError as problem:
        raise UserError(f"{path / STATE}: written by another version: {problem}", hint, EXIT_STATE) from problem

    # values of a wrong type would fail much later, in the middle of a step
    for entry in fields(Progress):
        value = getattr(progress, entry.name)
        if not is_value_of(entry, value):
            expected = getattr(entry.type, "__name__", entry.type)
            message = f"{path / STATE}: {entry.name}: found {value!r:.60}, expected {expected}"
            raise UserError(message, hint, EXIT_STATE)
    return progress


def is_value_of(entry: Field, value: object) -> bool:
    """Tell whether a value read from JSON can be that of a field of Progress: its type, finite, not negative."""
    if value is None:
        return entry.default is None
    if isinstance(value, list):
        return entry.default_factory is list and all(isinstance(item, dict) for item in value)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return isinstance(value, dict) and entry.default_factory is dict
    if isinstance(value, float) and not ("float" in str(entry.type) and math.isfinite(value)):
        return False
    return entry.default_factory is MISSING and value >= (1 if entry.name == "epoch" else 0)


def training_weights(model: torch.nn.Module, *, keep: bool = True) -> dict[str, torch.Tensor]:
    """Return the parameters that are trained by name, on the CPU, each tied one once; nothing unless told to keep."""
    return gather_on_host(((name, value) for name, value in model.named_parameters() if value.requires_grad), keep=keep)


def optimizer_tensors(
    optimizers: list[torch.optim.Optimizer], model: torch.nn.Module, *, keep: bool = True
) -> dict[str, torch.Tensor]:
    """Return the optimizers' state by name `index/weight/key`, on the CPU; nothing unless told to keep."""
    # the optimizer knows parameters by identity, a file by name
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    state = (
        (f"{index}/{names[id(parameter)]}/{key}", torch.as_tensor(value))
        for index, optimizer in enumerate(optimizers)
        for parameter, entry in optimizer.state.items()
        for key, value in entry.items()
    )
    return gather_on_host(state, keep=keep)


def gather_on_host(tensors: Iterable[tuple[str, torch.Tensor]], *, keep: bool) -> dict[str, torch.Tensor]:
    """Gather tensors one by one and copy them to the CPU; without keep, only give this process's parts."""
    copies = {}
    for name, value in tensors:
        whole = gather_tensor(value)  # every process of a run that shares them out must come by here
        if keep:
            copies[name] = whole.to("cpu", copy=True).contiguous()
    return copies


def load_checkpoint(path: Path, model: torch.nn.Module, optimizers: list[torch.optim.Optimizer]) -> Progress:
    """Fill model and optimizers from a verified checkpoint.

    Raises:
        UserError: the checkpoint is of another network or optimizer.
    """
    # headers first: a damaged one could ask for any amount of memory
    for name in (WEIGHTS, OPTIMIZER):
        check_safetensors_header(path / name)
    weights = read_safetensors(path / WEIGHTS)
    parameters = {name: value for name, value in model.named_parameters() if value.requires_grad}
    if {name: tuple(value.shape) for name, value in weights.items()} != {
        name: tuple(value.shape) for name, value in parameters.items()
    }:
        hint = "use the --model_config of that run, or --resume never"
        raise UserError(f"{path}: holds the weights of another network", hint, EXIT_STATE)

    # weights, then moments, then the position
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(like_parameter(weights[name], parameter))
    load_optimizer_tensors(optimizers, parameters, read_safetensors(path / OPTIMIZER), path)
    progress = read_progress(path)
    if is_main_process():
        say(f"resuming from {path}: step {progress.step}, epoch {progress.epoch}")
    return progress


def load_optimizer_tensors(
    optimizers: list[torch.optim.Optimizer], parameters: dict, tensors: dict[str, torch.Tensor], path: Path
) -> None:
    """Put saved moments back where optimizer_tensors found them."""
    known = {str(index): optimizer for index, optimizer in enumerate(optimizers)}
    for label, value in tensors.items():
        index, name, key = [*label.split("/"), "", ""][:3]
        parameter = parameters.get(name)
        if index not in known or parameter is None or value.shape not in ((), parameter.shape):
            hint = "use the --optimizer of that run, or --resume never"
            raise UserError(f"{path}: holds the state of another optimizer", hint, EXIT_STATE)

        # step counts stay on the host, unless the fused optimizer reads them on the device
        on_host = key == "step" and not optimizers[int(index)].defaults.get("fused")
        placed = value if on_host else like_parameter(value, parameter)
        optimizers[int(index)].state[parameter][key] = placed


def like_parameter(value: torch.Tensor, parameter: torch.Tensor) -> torch.Tensor:
    """Put a whole tensor where a parameter lies, shared out over the processes if the parameter is."""
    value = value.to(parameter.device)
    if isinstance(parameter, DTensor) and value.ndim:
        return distribute_tensor(value, parameter.device_mesh, parameter.placements)
    return value


class Saver:
    """Knows when the last checkpoint was written and of which position, and thus when the next one is due."""

    def __init__(self, run_dir: Path, *, save_minutes: float, keep: int):
        """Start the clock: `save_minutes` between two checkpoints, 0 for never; the newest `keep` of them stay."""
        self.run_dir, self.save_seconds, self.keep = run_dir, 60 * save_minutes, keep
        self.saved_at = time.monotonic()
        self.saved: tuple[int, int, int] | None = None  # step, epoch and batch; main only
        self.is_refused = False  # the last try failed

    def time_is_up(self) -> bool:
        """Tell whether a checkpoint is due by this process's clock."""
        seconds = time.monotonic() - self.saved_at
        return 0 < self.save_seconds < seconds or (self.is_refused and seconds > RETRY_SECONDS)

    def is_saved(self, progress: Progress) -> bool:
        """Tell whether the newest checkpoint is of just this position."""
        return self.saved == (progress.step, progress.epoch, progress.batch)

    def start(self) -> None:
        """Note that a checkpoint is being made, on every process."""
        self.saved_at = time.monotonic()

    def save(
        self,
        progress: Progress,
        weights: dict[str, torch.Tensor],
        moments: dict[str, torch.Tensor],
        *,
        is_last: bool,
    ) -> None:
        """Write a checkpoint of what training_weights and optimizer_tensors return; one that fails is a warning.

        Raises:
            UserError: it could not be written, and the run ends with it (is_last).
        """
        self.is_refused = True
        try:
            path = save_checkpoint(self.run_dir, progress, weights, moments, keep=self.keep)
        except UserError as problem:
            warn(f"no checkpoint at step {progress.step}: {problem.message}; the former one stays")
            if is_last:
                raise
            return
        self.is_refused = False
        self.saved = (progress.step, progress.epoch, progress.batch)
        say(f"saved {path}")
