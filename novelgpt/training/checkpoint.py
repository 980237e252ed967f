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

import os
import re
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch.distributed.tensor import DTensor, distribute_tensor

from novelgpt.console import say, warn
from novelgpt.errors import EXIT_STATE, UserError
from novelgpt.files import atomic_folder, find_damage, read_json, write_json
from novelgpt.model import whole_tensor
from novelgpt.weights import WEIGHTS, write_safetensors

FOLDER = "checkpoints"
OPTIMIZER = "optimizer.safetensors"
STATE = "state.json"
FILES = (WEIGHTS, OPTIMIZER, STATE)
NAME = re.compile(r"step-(\d{8})")


@dataclass
class Progress:
    """Where a run stands. Everything in it goes into state.json.

    Attributes:
        step: optimizer steps done, skipped ones included.
        epoch: the epoch under way, from 1.
        batch: batches of that epoch that are done.
        best_loss: lowest held-out loss so far, nats per token; None before the first evaluation.
        best_epoch: the epoch of it.
        history: one entry an evaluated epoch: epoch, step, valid_loss.
        skipped: steps left out because loss or gradient was not finite.
        bad_in_a_row: how many of them were the last ones.
        log_bytes: length of log.jsonl when this was saved.
        loss_sum, loss_tokens: nats and scored tokens since the last log line.
        micro_batches: how many parts a batch was computed in; sums in another order differ in the last bit.
        scaler: state of the fp16 loss scaler.
    """

    step: int = 0
    epoch: int = 1
    batch: int = 0
    best_loss: float | None = None
    best_epoch: int | None = None
    history: list[dict] = field(default_factory=list)
    skipped: int = 0
    bad_in_a_row: int = 0
    log_bytes: int = 0
    loss_sum: float = 0.0
    loss_tokens: int = 0
    micro_batches: int = 0
    scaler: dict = field(default_factory=dict)


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
    """Write the state of a run and remove older states once the new one is verified.

    Args:
        run_dir: the run folder.
        progress: where the run stands.
        weights: what training_weights returns.
        optimizer: what optimizer_tensors returns.
        keep: how many of the newest valid checkpoints stay, from 1.

    Returns:
        The new folder.

    Raises:
        UserError: the disk refuses; every older checkpoint is then still there.
    """
    path = checkpoint_path(run_dir, progress.step)
    with atomic_folder(path, step=progress.step) as hidden:
        write_safetensors(weights, hidden / WEIGHTS)
        write_safetensors(optimizer, hidden / OPTIMIZER)
        write_json(hidden / STATE, asdict(progress))
    damage = find_damage(path, needed=FILES)
    if damage:
        raise UserError(f"{path}: damaged right after it was written: {damage}", "check the disk", EXIT_STATE)
    prune_checkpoints(run_dir, keep)
    return path


def prune_checkpoints(run_dir: Path, keep: int) -> None:
    """Remove all but the newest checkpoints; incomplete folders do not count as kept."""
    complete = [path for path in list_checkpoints(run_dir) if find_damage(path, hashes=False, needed=FILES) is None]
    for path in complete[:-keep]:
        hidden = path.with_name(f".{path.name}.{os.getpid()}.tmp")  # a kill in between leaves no half checkpoint
        os.rename(path, hidden)
        shutil.rmtree(hidden, ignore_errors=True)


def find_checkpoint(run_dir: Path, *, set_aside: bool = True) -> Path | None:
    """Return the newest valid checkpoint.

    Args:
        run_dir: the run folder.
        set_aside: rename damaged checkpoints to `.bad`, with a warning that names file and reason.

    Raises:
        UserError: there are checkpoints, and none is valid.
    """
    damaged = 0
    for path in reversed(list_checkpoints(run_dir)):
        damage = find_damage(path, needed=FILES)
        if damage is None:
            return path
        damaged += 1
        if not set_aside:
            continue
        aside = path.with_name(path.name + ".bad")
        shutil.rmtree(aside, ignore_errors=True)
        os.rename(path, aside)
        warn(f"{path}: set aside as {aside.name}: {damage}")
    if damaged:
        message = f"{run_dir / FOLDER}: none of {damaged} checkpoints is whole"
        hint = "start again with --resume never, or copy a whole checkpoint back"
        raise UserError(message, hint, EXIT_STATE)
    return None


def read_progress(path: Path) -> Progress:
    """Read where a verified checkpoint stands."""
    values = read_json(path / STATE)
    try:
        return Progress(**values)
    except TypeError as problem:
        message = f"{path / STATE}: written by another version: {problem}"
        raise UserError(message, "start again with --resume never", EXIT_STATE) from problem


def training_weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Return the parameters by name, on the CPU, each tied one once."""
    return {name: whole_tensor(value).to("cpu", copy=True).contiguous() for name, value in model.named_parameters()}


def optimizer_tensors(optimizers: list[torch.optim.Optimizer], model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Return the optimizers' state by name `index/weight/key`, on the CPU."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {
        f"{index}/{names[id(parameter)]}/{key}": whole_tensor(torch.as_tensor(value)).to("cpu", copy=True).contiguous()
        for index, optimizer in enumerate(optimizers)
        for parameter, entry in optimizer.state.items()
        for key, value in entry.items()
    }


def load_checkpoint(path: Path, model: torch.nn.Module, optimizers: list[torch.optim.Optimizer]) -> Progress:
    """Fill model and optimizers from a verified checkpoint.

    Raises:
        UserError: the checkpoint is of another network or optimizer.
    """
    weights = load_file(path / WEIGHTS)
    parameters = dict(model.named_parameters())
    if {name: tuple(value.shape) for name, value in weights.items()} != {
        name: tuple(value.shape) for name, value in parameters.items()
    }:
        hint = "use the --model_config of that run, or --resume never"
        raise UserError(f"{path}: holds the weights of another network", hint, EXIT_STATE)
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(like_parameter(weights[name], parameter))
    load_optimizer_tensors(optimizers, parameters, load_file(path / OPTIMIZER), path)
    progress = read_progress(path)
    say(f"going on from {path}: step {progress.step}, epoch {progress.epoch}")
    return progress


def load_optimizer_tensors(
    optimizers: list[torch.optim.Optimizer], parameters: dict, tensors: dict[str, torch.Tensor], path: Path
) -> None:
    """Put saved moments back where optimizer_tensors found them."""
    for label, value in tensors.items():
        index, name, key = label.split("/")
        if int(index) >= len(optimizers) or name not in parameters:
            hint = "use the --optimizer of that run, or --resume never"
            raise UserError(f"{path}: holds the state of another optimizer", hint, EXIT_STATE)
        parameter = parameters[name]
        on_host = key == "step" and not optimizers[int(index)].defaults.get("fused")
        placed = value if on_host else like_parameter(value, parameter)
        optimizers[int(index)].state[parameter][key] = placed


def like_parameter(value: torch.Tensor, parameter: torch.Tensor) -> torch.Tensor:
    """Put a whole tensor where a parameter lies, shared out over the processes if the parameter is."""
    value = value.to(parameter.device)
    if isinstance(parameter, DTensor) and value.ndim:
        return distribute_tensor(value, parameter.device_mesh, parameter.placements)
    return value
