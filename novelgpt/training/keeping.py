"""Evaluations -> the model folders that people and other tools use: one an epoch, best_model, final_model.

An evaluation is due at the end of every epoch and, with `--eval_steps N`, at every N-th step within one; with `--hours`
at about 20 places of the run, and no epoch has a folder of its own. The lowest held-out loss is best_model. With
`--early_stopping_patience K` the run ends after K evaluations without a lower one; with `--load_best_model_at_end`
final_model is a copy of best_model.

With `--second_generation` a run folder holds another one, and the best model there teaches the network here::

    model/first_generation/   a run like any other, with the seed that was given
    model/                    the second one: the next seed, and first_generation/best_model as --teacher

Either is resumed as any run is, so the same command goes on wherever it was interrupted. A first generation that has
come to its end is not trained again, even where the second one goes on under changed options.
"""

import math
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import torch

from novelgpt.cli import TrainOptions
from novelgpt.files import MANIFEST, atomic_folder, find_damage, read_json
from novelgpt.messages import EXIT_ENVIRONMENT, EXIT_STATE, UserError, say, warn
from novelgpt.training.checkpoint import Progress, list_checkpoints, read_progress
from novelgpt.training.pace import is_over
from novelgpt.training.stopping import Stopped

FINAL, BEST = "final_model", "best_model"
FIRST = "first_generation"
SEEDS = 2**31  # as many as there are
FIRST_SHARE = 0.4  # of the hours of two generations, for the first


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
        tell: Callable[..., None],
    ):
        """Keep what every model folder holds besides its weights.

        Args:
            folder: the run folder.
            save_model: network.save_model with network and tokenizer given.
            corpus: facts that tie a model to its corpus.
            mark: what follows it alone is scored; None where all is.
            is_main: whether this process writes.
            agree: tells every process whether a flag is set in any of them.
            tell: called with "save" and the name of every model folder that is written.
        """
        self.folder, self.save_model, self.corpus, self.mark = folder, save_model, corpus, mark
        self.is_main, self.agree, self.tell = is_main, agree, tell

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
        self.tell("save", model=name)
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
        if not is_written(self.folder / FINAL, step):
            if step == progress.step:
                self.write(FINAL, progress, weights)
            else:
                copy_best(self.folder, step)
                say(f"{self.folder / FINAL}: the weights of {BEST}, step {step:,}")


def keep_sample(
    sample: Callable, model: torch.nn.Module, progress: Progress, *, further: Callable | None
) -> list[dict]:
    """Print a short text that a network writes, and keep it with the last evaluation; failing is a warning.

    Args:
        sample, model: what writes it, and the network.
        progress: whose last evaluation keeps it.
        further: returns records of this text and of further ones, for the log; see Story.samples.

    Returns:
        Those records; all of them or, where a text fails, none.

    Raises:
        Stopped: asked to stop meanwhile.
    """
    model.eval()
    try:
        text = sample(model)
        records = further(text, model)
    except Stopped:
        raise
    except Exception as problem:  # whatever it is, the epoch before it is worth more
        reason = (str(problem).splitlines() or [""])[0]
        warn(f"epoch {progress.epoch}: no sample: {type(problem).__name__}: {reason}")
        return []
    finally:
        model.train()
    say(f"sample: {text}")
    if progress.history:
        progress.history[-1]["sample"] = text
    return records


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


def is_finished(options: TrainOptions, checkpoint: Path | None) -> bool:
    """Tell whether the run's newest checkpoint is its end and the final model is of it."""
    if checkpoint is None:
        return False
    # a kill between the last checkpoint and final_model leaves a run that is over and not finished
    progress = read_progress(checkpoint)
    step = final_step(progress, wants_best=options.load_best_model_at_end)
    is_at_end = has_ended(progress, options, patience=options.early_stopping_patience)
    return is_at_end and is_written(options.output_path / FINAL, step)


def has_ended(progress: Progress, options: TrainOptions, *, patience: int = 0) -> bool:
    """Tell whether no step of a run is left; an early stop counts where its patience is given."""
    return is_over(progress, epochs=options.epochs, hours=options.hours, patience=patience)


def has_come_to_its_end(folder: Path, options: dict) -> bool:
    """Tell whether the run in a folder has done all that its options, as run.json has them, asked for."""
    checkpoints, patience = list_checkpoints(folder), options.get("early_stopping_patience", 0)
    lengths = {"epochs": options["epochs"], "hours": options.get("hours")}
    return bool(checkpoints) and is_over(read_progress(checkpoints[-1]), **lengths, patience=patience)


def best_model(progress: Progress, options: TrainOptions) -> Path:
    """Return the model folder to use: final_model where it has the best weights or nothing was held out."""
    step = final_step(progress, wants_best=options.load_best_model_at_end)
    is_final = progress.best_epoch is None or progress.best_step == step
    return options.output_path / (FINAL if is_final else BEST)


def generations(options: TrainOptions) -> Iterator[TrainOptions]:
    """Yield the options of the run, or of both generations; those of the second one once the first is at its end."""
    if not options.second_generation:
        yield options
        return
    yield first_generation(options)
    yield second_generation(options)


def first_generation(options: TrainOptions) -> TrainOptions:
    """Return the options of the first of two generations.

    Args:
        options: as they were given, with second_generation; it stays set and tells the run that another one follows.

    Returns:
        Those options in a folder of their own. Of what --allow_change names, a finished run keeps its own values.
    """
    curves = None if options.writer_dir is None else str(Path(options.writer_dir) / FIRST)
    first = replace(options, output_dir=str(options.output_path / FIRST), writer_dir=curves)
    if options.hours is not None:
        first = replace(first, hours=FIRST_SHARE * options.hours)
    path = first.output_path / "run.json"
    if options.resume == "never" or not path.exists():
        return first
    former, allowed = read_json(path), [name.strip() for name in options.allow_change.split(",")]
    former = former.get("options", {}) if isinstance(former, dict) else {}  # the run itself says what is wrong with it
    own = replace(first, **{name: former[name] for name in allowed if name in former})
    checkpoints = list_checkpoints(first.output_path)
    return own if checkpoints and is_finished(own, checkpoints[-1]) else first


def second_generation(options: TrainOptions) -> TrainOptions:
    """Return the options of the second of two generations, whose first one has come to its end.

    Args:
        options: as they were given.
    """
    first = options.output_path / FIRST
    progress = read_progress(list_checkpoints(first)[-1])
    has_best = progress.best_epoch is not None  # else nothing was held out
    changes = {"teacher": str(first / (BEST if has_best else FINAL)), "seed": (options.seed + 1) % SEEDS}
    if options.hours is not None:
        changes["hours"] = options.hours - progress.clock["used"] / 3600
    # a former run has stepped aside before the first generation, if it was to
    return replace(options, second_generation=False, resume="auto", **changes)
