"""What a run leaves in its folder for people and other tools: a model folder an epoch, the best one, the final one."""

import shutil
from pathlib import Path

import torch

from novelgpt.files import MANIFEST, find_damage, read_json
from novelgpt.messages import EXIT_ENVIRONMENT, UserError, warn
from novelgpt.network import count_parameters, save_model
from novelgpt.training.checkpoint import Progress
from novelgpt.training.setup import Run

FINAL, BEST = "final_model", "best_model"
CHECKPOINT_BYTES = 12  # a parameter: the weight and two moments in fp32
MODEL_BYTES = 4  # a parameter


def write_model(run: Run, progress: Progress, name: str, weights: dict[str, torch.Tensor]) -> None:
    """Write the network as it stands as a model folder of the run.

    Args:
        run: gives vocabulary, config and corpus.
        progress: where the run stands; the last entry of its history is the held-out loss.
        name: of the folder.
        weights: what model_weights returned.
    """
    entry = progress.history[-1] if progress.history else {"epoch": progress.epoch, "valid_loss": None}
    loss = entry["valid_loss"]
    scored = f"token after {run.data.mark}" if run.data.mark else "token"
    words = "" if loss is None else f"Epoch {entry['epoch']}, held-out loss {loss:.4f} nats per {scored}."
    facts = {"step": progress.step, "epoch": entry["epoch"], "valid_loss": loss, "corpus": run.data.corpus_facts()}
    save_model(run.model, run.tokenizer, run.options.output_path / name, weights=weights, facts=words, **facts)


def try_model(run: Run, progress: Progress, name: str, weights: dict[str, torch.Tensor]) -> bool:
    """Write a model folder; a disk that refuses is a warning and False, and the run goes on."""
    try:
        write_model(run, progress, name, weights)
    except UserError as problem:
        if problem.code != EXIT_ENVIRONMENT:
            raise
        warn(f"{name} of epoch {progress.epoch} not written: {problem.message}")
        return False
    return True


def is_written(folder: Path, step: int) -> bool:
    """Tell whether the model folder of a step is there with all its files in full size."""
    return find_damage(folder, hashes=False) is None and read_json(folder / MANIFEST).get("step") == step


def predicted_bytes(run: Run) -> dict[str, int]:
    """Predict the disk a run takes: its model folders and its checkpoints, one more than are kept at a time."""
    trained = count_parameters(run.model, trainable=True)
    return {
        "models": (run.options.epochs + 2) * MODEL_BYTES * count_parameters(run.model),
        "checkpoints": (run.options.save_total_limit + 1) * CHECKPOINT_BYTES * trained,
    }


def check_disk(run: Run) -> None:
    """Compare the free space with what the run will write.

    Raises:
        UserError: not even two checkpoints and a model fit.
    """
    folder = run.options.output_path
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    needed = sum(predicted_bytes(run).values())
    trained = count_parameters(run.model, trainable=True)
    least = 2 * CHECKPOINT_BYTES * trained + MODEL_BYTES * count_parameters(run.model)
    if free < least:
        message = f"{folder}: {free / 1e9:.1f} GB free, at least {least / 1e9:.1f} GB are needed to save anything"
        raise UserError(message, f"free some space, or --output_dir on another disk than {folder}", EXIT_ENVIRONMENT)
    if free < needed:
        warn(f"{folder}: {free / 1e9:.1f} GB free, the whole run writes up to {needed / 1e9:.1f} GB")
