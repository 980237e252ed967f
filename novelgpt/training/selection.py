"""Evaluations -> the best model, the end of the run, final_model: what is chosen, as functions of where a run stands.

An evaluation is due at the end of every epoch and, with `--eval_steps N`, at every N-th step within one. The lowest
held-out loss is best_model. With `--early_stopping_patience K` the run ends after K evaluations without a lower one;
with `--load_best_model_at_end` final_model is a copy of best_model.
"""

import math
import shutil
from pathlib import Path

import torch

from novelgpt.cli import TrainOptions, names_with
from novelgpt.evaluation import Evaluation
from novelgpt.files import MANIFEST, atomic_folder, find_damage, read_json
from novelgpt.messages import EXIT_STATE, EXIT_USAGE, UserError, say, warn
from novelgpt.training.checkpoint import Progress
from novelgpt.training.outputs import BEST, FINAL, is_written, try_model, write_model
from novelgpt.training.parallel import sum_over_processes
from novelgpt.training.setup import Run

NEEDS_HELD_OUT = names_with(TrainOptions, needs="held out")


def check_habits(options: TrainOptions, *, holds_out: bool) -> None:
    """Refuse settings that could have no effect, or contradict each other.

    Args:
        options: with the learning rate resolved.
        holds_out: whether there is a text to evaluate on.

    Raises:
        UserError: an option about evaluations when nothing is held out; an end rate that is never reached; two formats.
    """
    for name in NEEDS_HELD_OUT:
        if getattr(options, name) and not holds_out:
            message = f"--{name}: nothing is held out, so there is nothing to evaluate on"
            raise UserError(message, "train.py --raw --valid_fraction 0.05", EXIT_USAGE)
    if options.lr_end and options.lr_scheduler == "constant":
        message = f"--lr_end {options.lr_end:g}: a constant rate never reaches it"
        raise UserError(message, "--lr_scheduler linear", EXIT_USAGE)
    if options.fp16 and options.precision not in ("auto", "fp16"):
        message = f"--fp16 and --precision {options.precision}: found both, expected one"
        raise UserError(message, "leave --fp16 out", EXIT_USAGE)
    if options.lr_end > options.lr:
        message = f"--lr_end: found {options.lr_end:g}, expected at most the --lr of {options.lr:g}"
        raise UserError(message, f"--lr_end {options.lr / 10:g}", EXIT_USAGE)


def is_evaluation_due(progress: Progress, *, every: int, epoch_steps: int) -> bool:
    """Tell whether an evaluation within the epoch is due and not done yet.

    Args:
        progress: where the run stands.
        every: steps between two evaluations; 0 for none within an epoch.
        epoch_steps: optimizer steps of the epoch under way; after the last one the epoch's own evaluation comes.

    >>> is_evaluation_due(Progress(step=4, batch=4), every=2, epoch_steps=6)
    True
    >>> is_evaluation_due(Progress(step=6, batch=6), every=2, epoch_steps=6)
    False
    """
    if not every or progress.step % every or not 0 < progress.batch < epoch_steps:
        return False
    return not progress.history or progress.history[-1]["step"] != progress.step


def epoch_place(progress: Progress, epoch_steps: int) -> float:
    """Return the epochs done as a number with two decimals.

    >>> epoch_place(Progress(epoch=2, batch=3), 6)
    1.5
    """
    return round(progress.epoch - 1 + progress.batch / epoch_steps, 2)


def choose_best(run: Run, progress: Progress, evaluation: Evaluation | None, weights: dict[str, torch.Tensor]) -> None:
    """Write best_model if the last evaluation is the best one so far, and count the evaluations since the best.

    Args:
        run: every process calls this; the first one decides and writes.
        progress: where the run stands; the evaluation is the last entry of its history.
        evaluation: its result; None when nothing is held out.
        weights: what model_weights returned.
    """
    if evaluation is None:
        return
    better = math.isfinite(evaluation.loss) and (progress.best_loss is None or evaluation.loss < progress.best_loss)
    (better,) = sum_over_processes([float(better and run.world.is_main)], run.world)
    progress.since_best = 0 if better else progress.since_best + 1
    if better and (not run.world.is_main or try_model(run, progress, BEST, weights)):
        entry = progress.history[-1]
        progress.best_loss, progress.best_epoch, progress.best_step = evaluation.loss, entry["epoch"], entry["step"]


def stops_early(options: TrainOptions, progress: Progress) -> bool:
    """Tell whether the held-out loss has stayed above its best one for too many evaluations."""
    return 0 < options.early_stopping_patience <= progress.since_best


def is_over(options: TrainOptions, progress: Progress) -> bool:
    """Tell whether no step is left to take."""
    return progress.epoch > options.epochs or stops_early(options, progress)


def final_step(options: TrainOptions, progress: Progress) -> int:
    """Return the step whose weights final_model gets."""
    best = progress.best_step if options.load_best_model_at_end else None
    return progress.step if best is None else best


def write_final(run: Run, progress: Progress, weights: dict[str, torch.Tensor]) -> None:
    """Write final_model, unless a run that was killed after it has done so.

    Args:
        run: gives the options and the folder.
        progress: where the run ended.
        weights: what model_weights returned, the last ones.

    Raises:
        UserError: the disk refuses, or best_model is wanted and damaged.
    """
    folder, step = run.options.output_path, final_step(run.options, progress)
    if is_written(folder / FINAL, step):
        return
    if step == progress.step:
        write_model(run, progress, FINAL, weights)
    else:
        copy_best(folder, step)
        say(f"{folder / FINAL}: the weights of {BEST}, step {step:,}")


def copy_best(folder: Path, step: int) -> None:
    """Copy best_model to final_model.

    Raises:
        UserError: it is damaged or of another step.
    """
    damage = find_damage(folder / BEST)
    if damage is None and not is_written(folder / BEST, step):
        damage = f"not of step {step}"
    if damage:
        hint = "--no-load_best_model_at_end --allow_change load_best_model_at_end gives final_model the last weights"
        raise UserError(f"{folder / BEST}: cannot become {FINAL}: {damage}", hint, EXIT_STATE)
    copy_model(folder / BEST, folder / FINAL)


def copy_model(source: Path, target: Path) -> None:
    """Copy a whole model folder, in the place of an earlier one."""
    manifest = read_json(source / MANIFEST)
    facts = {key: value for key, value in manifest.items() if key != "files"}
    with atomic_folder(target, **facts) as hidden:
        for name in manifest["files"]:
            shutil.copyfile(source / name, hidden / name)


def bring_best(options: TrainOptions, former: Path, step: int | None) -> None:
    """Copy the best model of a run whose checkpoint is gone on from into the run folder, unless it is there.

    Args:
        options: name the run folder and the checkpoint.
        former: folder of the checkpoint's run.
        step: of its best model; None before the first evaluation.

    Raises:
        UserError: final_model is to be the best one, and neither folder holds it.
    """
    folder = options.output_path
    if step is None or is_written(folder / BEST, step):
        return
    if find_damage(former / BEST) is None and is_written(former / BEST, step):
        copy_model(former / BEST, folder / BEST)
        return
    message = f"--resume {options.resume}: {former / BEST} is not whole or not of its best step, {step:,}"
    if options.load_best_model_at_end:
        hint = "--no-load_best_model_at_end --allow_change load_best_model_at_end gives final_model the last weights"
        raise UserError(f"{message}, so it could not become {FINAL}", hint, EXIT_STATE)
    warn(f"{message}; {BEST} will be that of the next better evaluation")
