"""One call of train.py from beginning to end: tokenize, lock, go on or start, train, say how it went."""

import os
import sys
import time
from datetime import datetime
from pathlib import Path

from transformers import GPT2LMHeadModel

from novelgpt.cli import TrainOptions
from novelgpt.evaluation import compare_losses
from novelgpt.files import remove_leftovers
from novelgpt.lock import LOCK
from novelgpt.messages import EXIT_DONE, EXIT_STATE, UserError, say, warn
from novelgpt.network import describe_devices, describe_model
from novelgpt.training.checkpoint import (
    FOLDER,
    Progress,
    find_checkpoint,
    find_checkpoint_damage,
    list_checkpoints,
    prune_checkpoints,
    read_progress,
    set_later_aside,
)
from novelgpt.training.lora import plain_model
from novelgpt.training.metrics import duration_words
from novelgpt.training.outputs import FINAL, check_disk, is_written
from novelgpt.training.parallel import wait_for_all
from novelgpt.training.plan import print_plan
from novelgpt.training.selection import bring_best, check_habits, final_step, is_over
from novelgpt.training.setup import RUN_FILE, Run, check_identity, prepare_run, write_run_file
from novelgpt.training.stopping import StopSignals, seconds_until
from novelgpt.training.summary import command_words, stop_words
from novelgpt.training.trainer import Stopped, Trainer, Watch
from novelgpt.writing.generation import generate_text


def train(options: TrainOptions, *, watch: Watch | None = None, exit_at_second: bool = True) -> int:
    """Train, or go on training, as the options say. The caller holds the lock of the run folder.

    Args:
        options: of train.py.
        watch: called with every record of the log.
        exit_at_second: whether a second signal ends the process at once.

    Returns:
        Exit status: 0 when the run is finished or its time is up, 128 + signal when it was asked to stop.

    Raises:
        UserError: anything the user can mend.
    """
    began = time.monotonic()
    deadline = find_deadline(options, began)
    with StopSignals(deadline=deadline, exit_at_second=exit_at_second) as stop:
        run = prepare_run(options)
        check_habits(run.options, holds_out=run.data.num_valid > 1)
        if options.plan:
            print_plan(run)
            return EXIT_DONE
        if not run.world.is_main:
            wait_for_all(run.world)  # the first process sorts out the folder
            checkpoint = choose_checkpoint(run, set_aside=False)
            return EXIT_DONE if is_finished(options, checkpoint) else train_run(run, stop, checkpoint, watch)
        remove_leftovers(options.output_path)
        remove_leftovers(options.output_path / FOLDER)
        if options.resume == "never":
            move_run_aside(options.output_path)
        checkpoint = choose_checkpoint(run, set_aside=True)
        if is_finished(options, checkpoint):
            say(finished_words(options, read_progress(checkpoint)))
            wait_for_all(run.world)
            return EXIT_DONE
        check_disk(run)
        write_run_file(run)
        say_run(run)
        wait_for_all(run.world)
        return train_run(run, stop, checkpoint, watch)


def find_deadline(options: TrainOptions, began: float) -> float | None:
    """Return the time.monotonic() at which the run stops by itself."""
    ends = [began + 3600 * options.max_hours] if options.max_hours else []
    if options.until:
        ends.append(began + seconds_until(options.until, now=datetime.now()))
    return min(ends, default=None)


def move_run_aside(folder: Path) -> None:
    """Move everything of an earlier run into a numbered sibling folder; the lock stays."""
    if not (folder / RUN_FILE).exists() and not (folder / FOLDER).exists():
        return
    number = 1
    while (aside := folder.with_name(f"{folder.name}.{number}")).exists():
        number += 1
    aside.mkdir()
    for path in sorted(folder.iterdir()):
        if path.name not in (LOCK, ".gitkeep"):
            os.rename(path, aside / path.name)
    say(f"the former run is now {aside}")


def choose_checkpoint(run: Run, *, set_aside: bool) -> Path | None:
    """Return the checkpoint to go on from; None starts anew.

    Raises:
        UserError: the run in the folder has other settings, or the checkpoint that was named is damaged.
    """
    options, folder = run.options, run.options.output_path
    if options.resume == "never":
        return None
    if options.resume != "auto":
        return choose_named_checkpoint(run, Path(options.resume), set_aside=set_aside)
    if not (folder / RUN_FILE).exists():
        if list_checkpoints(folder):
            hint = f"put {RUN_FILE} back; or start anew with --resume never, which moves the old run aside"
            raise UserError(f"{folder}: holds checkpoints but no {RUN_FILE}", hint, EXIT_STATE)
        return None
    check_identity(run, folder)
    checkpoint = find_checkpoint(folder, set_aside=set_aside)
    if checkpoint and set_aside:
        prune_checkpoints(folder, options.save_total_limit)  # a kill may have come before the last one's
    return checkpoint


def choose_named_checkpoint(run: Run, path: Path, *, set_aside: bool) -> Path:
    """Return the checkpoint that --resume names; those of the run folder that come after it step aside."""
    if damage := find_checkpoint_damage(path):
        message = f"--resume {path}: not a whole checkpoint: {damage}"
        raise UserError(message, "--resume auto takes the newest whole one", EXIT_STATE)
    former = path.resolve().parent.parent
    if (former / RUN_FILE).exists():
        check_identity(run, former)
    elif run.world.is_main:
        warn(f"--resume {path}: no {RUN_FILE} of its run, so its settings cannot be compared")
    if set_aside:
        progress = read_progress(path)
        bring_best(run.options, former, progress.best_step)
        set_later_aside(run.options.output_path, progress.step)
    return path


def is_finished(options: TrainOptions, checkpoint: Path | None) -> bool:
    """Tell whether the run's newest checkpoint is its end and the final model is of it."""
    if checkpoint is None:
        return False
    progress = read_progress(checkpoint)
    return is_over(options, progress) and is_written(options.output_path / FINAL, final_step(options, progress))


def finished_words(options: TrainOptions, progress: Progress) -> str:
    """Say that there is nothing left to do."""
    words = f"{options.output_path}: this run is finished; --resume never starts it again"
    if progress.epoch > options.epochs:
        return words
    return f"{words}; --early_stopping_patience 0 --allow_change early_stopping_patience goes on with it"


def say_run(run: Run) -> None:
    """Print the first lines of a run: network, data, steps, device, seed."""
    options = run.options
    train_part, held = run.data.counts()
    say(describe_model(run.config, run.tokenizer.vocab_size))
    say(f"data: {train_part}; {held} held out")
    steps = f"{run.total_steps:,} = {options.epochs} epochs of about {run.epoch_steps[0]:,}"
    say(f"steps: {steps}; {run.data.batch_words()}")
    rate = f"{options.optimizer} lr {options.lr:g}, weight decay {options.weight_decay:g}, seed {options.seed}"
    processes = f", {run.world.size} processes" if run.world.size > 1 else ""
    say(f"device: {describe_devices(run.devices)}{processes}, {str(run.dtype).removeprefix('torch.')}; {rate}")


def train_run(run: Run, stop: StopSignals, checkpoint: Path | None, watch: Watch | None = None) -> int:
    """Train to the end or to the stop, and say how it went."""
    began = time.monotonic()
    first = read_progress(checkpoint).step if checkpoint else 0
    trainer = Trainer(run, stop, sample=sampler(run), watch=watch)
    try:
        progress = trainer.fit(checkpoint)
        wait_for_all(run.world)  # the first process has written all
    except Stopped:
        wait_for_all(run.world)
        if run.world.is_main:
            say_stopped(run, trainer.progress, steps=trainer.progress.step - first, seconds=time.monotonic() - began)
        return EXIT_DONE if stop.stopped_by is None else 128 + stop.stopped_by
    if run.world.is_main:
        say(f"finished {progress.step:,} steps in {duration_words(time.monotonic() - began)}")
        say(f"{verdict(progress, run)}{compare_with_ngram(progress, run)}")
    return EXIT_DONE


def say_stopped(run: Run, progress: Progress, *, steps: int, seconds: float) -> None:
    """Say where a run stands after so many steps and seconds of this session, and how it goes on."""
    command = command_words(sys.argv, resume=run.options.resume, processes=run.world.size)
    rate = seconds / steps if steps else None
    for line in stop_words(progress, run.total_steps, run.options.epochs, seconds_a_step=rate, command=command):
        say(line)


def sampler(run: Run):
    """Return the function that writes the sample after each epoch; None when none is wanted."""
    options = run.options
    if not options.sample_length or not run.world.is_main or options.shard:
        return None
    prefix = options.sample_prefix or run.data.opening(run.tokenizer)
    given = run.tokenizer.show(run.tokenizer.encode_prefix(prefix)) if run.data.mark else ""  # not shown

    def write(model: GPT2LMHeadModel) -> str:
        settings = {"length": options.sample_length, "seed": options.seed, "is_answer": bool(given)}
        return generate_text(plain_model(model), run.tokenizer, prefix, **settings)[0][len(given) :]

    return write


def verdict(progress: Progress, run: Run) -> str:
    """Say in one line how the run went and which model folder to use."""
    if progress.best_epoch is None:
        return f"nothing was held out, so no verdict; use {run.options.output_path / 'final_model'}"
    last, place = progress.history[-1]["valid_loss"], progress.history[-1]["epoch"]
    best = f"epoch {progress.best_epoch} (held-out loss {progress.best_loss:.4f})"
    if progress.epoch <= run.options.epochs:
        words = f"stopped early: {progress.since_best} evaluations in a row were not better than {best}"
        return f"{words}; use {run.options.output_path / 'best_model'}"
    if progress.best_epoch < run.options.epochs and (last is None or last > progress.best_loss + 0.02):
        return f"memorising since {best}; use {run.options.output_path / 'best_model'}"
    before = [entry["valid_loss"] for entry in progress.history if entry["epoch"] <= place - 1]  # an epoch ago
    if before and before[-1] and last and before[-1] - last > 0.02:
        return f"still improving at {best}: more epochs would help; use {run.options.output_path / 'best_model'}"
    return f"converged, best at {best}; use {run.options.output_path / 'best_model'}"


def compare_with_ngram(progress: Progress, run: Run) -> str:
    """Return how the best held-out loss stands to a 4-gram's, as the end of a sentence; nothing where none is known."""
    if progress.best_loss is None:
        return ""
    ngram = run.data.score_ngram(run.tokenizer.vocab_size)
    return "" if ngram is None else f"; {compare_losses(progress.best_loss, ngram.loss)}"
