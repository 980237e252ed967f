"""Evaluations -> the model folders that people and other tools use: one an epoch, best_model, final_model.

An evaluation is due at the end of every epoch and, with `--eval_steps N`, at every N-th step within one; with `--hours`
at about 20 places of the run, and no epoch has a folder of its own. The lowest held-out loss is best_model. With
`--early_stopping_patience K` the run ends after K evaluations without a lower one; with `--load_best_model_at_end`
final_model is a copy of best_model.
"""

import math
import shutil
from collections.abc import Callable
from pathlib import Path

import torch

from novelgpt.files import MANIFEST, atomic_folder, find_damage, read_json
from novelgpt.messages import EXIT_ENVIRONMENT, EXIT_STATE, UserError, say, warn
from novelgpt.training.checkpoint import Progress
from novelgpt.training.stopping import Stopped

FINAL, BEST = "final_model", "best_model"


class ModelKeeper:
    """Writes the model folders of a run."""

    def __init__(
        self,
        folder: Path,
        save_model: Callable,
        *,
        corpus: dict,
        mark: str | None,
        is_main: bool,
        agree: Callable[[bool], bool],
    ):
        """Keep what every model folder holds besides its weights.

        Args:
            folder: the run folder.
            save_model: network.save_model with network and tokenizer given.
            corpus: facts that tie a model to its corpus.
            mark: what follows it alone is scored; None where all is.
            is_main: whether this process writes.
            agree: tells every process whether a flag is set in any of them.
        """
        self.folder, self.save_model, self.corpus, self.mark = folder, save_model, corpus, mark
        self.is_main, self.agree = is_main, agree

    def write(self, name: str, progress: Progress, weights: dict[str, torch.Tensor]) -> None:
        """Write the weights that model_weights returned as a model folder, with the last held-out loss."""
        # the model card says how good it is, the manifest of what step and corpus
        entry = progress.history[-1] if progress.history else {"epoch": progress.epoch, "valid_loss": None}
        loss = entry["valid_loss"]
        scored = f"token after {self.mark}" if self.mark else "token"
        text = "" if loss is None else f"Epoch {entry['epoch']}, held-out loss {loss:.4f} nats per {scored}."
        facts = {"step": progress.step, "epoch": entry["epoch"], "valid_loss": loss, "corpus": self.corpus}
        self.save_model(self.folder / name, weights=weights, facts=text, **facts)

    def try_to_write(self, name: str, progress: Progress, weights: dict[str, torch.Tensor]) -> bool:
        """Write a model folder; a disk that refuses is a warning and False, and the run continues."""
        try:
            self.write(name, progress, weights)
        except UserError as problem:
            if problem.code != EXIT_ENVIRONMENT:
                raise
            warn(f"{name} of epoch {progress.epoch} not written: {problem.message}")
            return False
        return True

    def choose_best(self, progress: Progress, loss: float, weights: dict[str, torch.Tensor]) -> None:
        """Write best_model if the last evaluation is the best one so far, and count the evaluations since the best.

        Every process calls this; the first one decides and writes.
        """
        # every process takes the first one's word, since sums may differ in their last bits
        is_lower = math.isfinite(loss) and (progress.best_loss is None or loss < progress.best_loss)
        is_best = self.agree(is_lower and self.is_main)
        progress.since_best = 0 if is_best else progress.since_best + 1
        if is_best and (not self.is_main or self.try_to_write(BEST, progress, weights)):
            entry = progress.history[-1]
            progress.best_loss, progress.best_epoch, progress.best_step = loss, entry["epoch"], entry["step"]

    def write_final(self, progress: Progress, weights: dict[str, torch.Tensor], *, step: int) -> None:
        """Write final_model of the step that final_step gave, unless a run that was killed after it has done so.

        Raises:
            UserError: the disk refuses, or best_model is wanted and damaged.
        """
        # a kill may have come between this and the last checkpoint
        if is_written(self.folder / FINAL, step):
            return
        if step == progress.step:
            self.write(FINAL, progress, weights)
        else:
            copy_best(self.folder, step)
            say(f"{self.folder / FINAL}: the weights of {BEST}, step {step:,}")


def keep_sample(sample: Callable, model: torch.nn.Module, progress: Progress) -> None:
    """Print a short text that a network writes, and keep it with the last evaluation; failing is a warning.

    Raises:
        Stopped: asked to stop meanwhile.
    """
    model.eval()
    try:
        text = sample(model)
    except Stopped:
        raise
    except Exception as problem:  # whatever it is, the epoch before it is worth more
        reason = (str(problem).splitlines() or [""])[0]
        warn(f"epoch {progress.epoch}: no sample: {type(problem).__name__}: {reason}")
        return
    finally:
        model.train()
    say(f"sample: {text}")
    if progress.history:
        progress.history[-1]["sample"] = text


def final_step(progress: Progress, *, wants_best: bool) -> int:
    """Return the step whose weights final_model gets."""
    best = progress.best_step if wants_best else None  # None too where nothing was held out
    return progress.step if best is None else best


def is_written(folder: Path, step: int) -> bool:
    """Tell whether the model folder of a step is there with all its files in full size."""
    return find_damage(folder, hashes=False) is None and read_json(folder / MANIFEST).get("step") == step


def copy_best(folder: Path, step: int) -> None:
    """Copy best_model to final_model.

    Raises:
        UserError: it is damaged or of another step.
    """
    # a copy of a damaged model would look whole, so its hashes are compared first
    damage = find_damage(folder / BEST)
    if damage is None and not is_written(folder / BEST, step):
        damage = f"not of step {step}"
    if damage:
        hint = "--no-load_best_model_at_end --allow_change load_best_model_at_end gives final_model the last weights"
        raise UserError(f"{folder / BEST}: cannot become {FINAL}: {damage}", hint, EXIT_STATE)
    copy_model(folder / BEST, folder / FINAL)


def copy_model(source: Path, target: Path) -> None:
    """Copy a whole model folder, in the place of an earlier one."""
    # only what the manifest names belongs to the model
    manifest = read_json(source / MANIFEST)
    facts = {key: value for key, value in manifest.items() if key != "files"}
    with atomic_folder(target, **facts) as hidden:
        for name in manifest["files"]:
            shutil.copyfile(source / name, hidden / name)


def adopt_best(folder: Path, checkpoint: str, step: int | None, *, is_needed: bool) -> None:
    """Copy the best model, of some step if any, of the run that a named checkpoint is of, unless it is already here.

    Raises:
        UserError: it is needed, as final_model is to be the best one, and neither folder holds it.
    """
    former = Path(checkpoint).resolve().parent.parent

    # already here, as in a run that is resumed in its own folder
    if step is None or is_written(folder / BEST, step):
        return
    if find_damage(former / BEST) is None and is_written(former / BEST, step):
        copy_model(former / BEST, folder / BEST)
        return

    # lost: an error where it is needed, else a warning
    message = f"--resume {checkpoint}: {former / BEST} is not whole or not of its best step, {step:,}"
    if is_needed:
        hint = "--no-load_best_model_at_end --allow_change load_best_model_at_end gives final_model the last weights"
        raise UserError(f"{message}, so it could not become {FINAL}", hint, EXIT_STATE)
    warn(f"{message}; {BEST} will be that of the next better evaluation")
