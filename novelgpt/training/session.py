"""One call of train.py from beginning to end: prepare, resume or start, train, report how it went."""

import contextlib
import math
import os
import shlex
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path

from novelgpt.cli import GenerateOptions, TrainOptions, book_places, spell_command
from novelgpt.files import remove_leftovers
from novelgpt.lock import LOCK
from novelgpt.messages import EXIT_DONE, EXIT_STATE, UserError, say, warn
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
from novelgpt.training.engine import Run
from novelgpt.training.keeping import (
    FIRST,
    adopt_best,
    best_model,
    has_come_to_its_end,
    has_ended,
    is_finished,
)
from novelgpt.training.log import PAGE, Watch, format_duration
from novelgpt.training.pace import TooShort
from novelgpt.training.parallel import explaining_losses, leaving_world, telling_errors_once, wait_for_all
from novelgpt.training.preflight import check_disk, describe_long_warmup, describe_run, make_story, print_plans
from novelgpt.training.run import (
    RUN_FILE,
    check_identity,
    prepare_run,
    warn_of_new_rate,
    write_run_file,
)
from novelgpt.training.stopping import Stopped, StopSignals, describe_stop, seconds_until
from novelgpt.training.trainer import Trainer

NOISE = 0.02  # nats a token that are no difference
# how a verdict begins, and what the log calls it
KINDS = {"still improving": "learning", "nothing more to gain": "converged", "memorising": "memorising"}
KINDS |= {"stopped early": "memorising", "nothing was held out": "none"}


def train(
    options: TrainOptions,
    *,
    command: Sequence[str] | None = None,
    watch: Watch | None = None,
    exit_at_second: bool = True,
    began: float | None = None,
    clock: Callable[[], float] = time.monotonic,
    deadline: tuple[float | None, str] | None = None,
) -> int | None:
    """Train, or resume a run, as the options say. The caller holds the lock of the run folder.

    Args:
        options: of train.py.
        command: the words that started it, script first, for run.json and what a stopped run says; None for none.
        watch: called with every record of the log.
        exit_at_second: whether a second signal ends the process at once.
        began, clock: what hours go by, and what it showed when the command started; None for when it is loaded.
        deadline: what find_deadline returned; None to ask it now.

    Returns:
        Exit status: 0 at the end or when time is up, 128 + signal for a stop; None where a second generation may begin.

    Raises:
        UserError: anything the user can repair.
    """
    end, limit = deadline or find_deadline(options, time.monotonic())
    goes_on = options.second_generation and not options.plan  # unless it is stopped
    # a process that ends with this call parts from the others; another call under torchrun would need them again
    with StopSignals(deadline=end, limit=limit, exit_at_second=exit_at_second) as stop:
        run = prepare_run(options, command)
        with leaving_world(run.world, is_asked=lambda: exit_at_second and not goes_on), telling_errors_once(run.world):
            if run.options.plan:
                print_plans(run)
                return EXIT_DONE

            checkpoint = begin_together(run)
            if is_finished(run.options, checkpoint):
                return None if goes_on else EXIT_DONE

            # the steps: to the end, or until a signal or the clock stops them
            entered, first = time.monotonic(), read_progress(checkpoint).step if checkpoint else 0
            trainer = Trainer(run, stop, **tell_of(run), watch=watch, clock=clock, began=began)
            try:
                with explaining_losses(run.world), forgetting_if_too_short(run):
                    trainer.fit(checkpoint)
                    if goes_on:  # with the next call, where a stop was asked for in the last moment
                        trainer.check_stop()
            except Stopped:
                goes_on = False
                wait_for_all(run.world)  # the first process has saved
                taken = {"steps": trainer.progress.step - first, "seconds": time.monotonic() - entered}
                report_stop(run, trainer.progress, **taken, reason=stop.reason())
                return EXIT_DONE if stop.stopped_by is None else 128 + stop.stopped_by
            finally:
                progress = trainer.progress
                del trainer  # and with it the wrapped network, which holds the group of processes
            wait_for_all(run.world)
            report_end(run, progress, seconds=time.monotonic() - entered)
            return None if goes_on else EXIT_DONE


def tell_of(run: Run) -> dict:
    """Return what a trainer tells of a run and what writes its samples; nothing in processes but the first."""
    if not run.world.is_main:
        return {}
    story = make_story(run, partial(judge, run=run))
    return {"story": story, "sample": story.writers[0] if story.writers else None}


def begin_together(run: Run) -> Path | None:
    """Let the first process put the run folder in order, and the others look when it is done."""
    checkpoint = begin(run) if run.world.is_main else None
    wait_for_all(run.world)
    return checkpoint if run.world.is_main else choose_checkpoint(run, set_aside=False)


def begin(run: Run) -> Path | None:
    """Put the run folder in order, report what is about to run, and return the checkpoint to resume."""
    folder = run.options.output_path

    # what a kill left half written
    remove_leftovers(folder)
    remove_leftovers(folder / FOLDER)
    is_first = run.options.second_generation
    if run.options.resume == "never":
        move_run_aside(folder.parent if is_first else folder)
    # what is there decides: nothing, an unfinished run of the same identity, or a finished one
    checkpoint = choose_checkpoint(run, set_aside=True)
    if is_finished(run.options, checkpoint):
        say_finished(run, read_progress(checkpoint))
        return checkpoint
    if is_first and (folder.parent / RUN_FILE).exists():
        hint = f"to start anew, the old run moved aside: {spell_command(run.command, resume='never')}"
        raise UserError(f"{folder.parent}: holds a run that did not learn from {folder}", hint, EXIT_STATE)

    # from here on something will be written
    check_disk(run)
    if checkpoint:
        warn_of_new_rate(run, run_file_of(checkpoint), read_progress(checkpoint).step)
    write_run_file(run)
    for line in describe_run(run):
        say(line)
    if run.options.hours:  # what the verdict is compared with is counted now, while the time can still be planned
        run.data.compare_with_ngram(math.inf, run.tokenizer.vocab_size, "")
    if words := describe_long_warmup(run):
        warn(words)
    say(f"to watch in a browser: {folder / PAGE}")
    return checkpoint


@contextlib.contextmanager
def forgetting_if_too_short(run: Run) -> Iterator[None]:
    """Let a run that had too few hours from its beginning leave no settings that would refuse more of them."""
    try:
        yield
    except TooShort:
        if run.world.is_main and not list_checkpoints(run.options.output_path):
            (run.options.output_path / RUN_FILE).unlink()
        raise


def find_deadline(options: TrainOptions, began: float) -> tuple[float | None, str]:
    """Return the time.monotonic() at which the run stops by itself, and the reason; (None, "") for never."""
    ends = []
    if options.max_hours:
        ends.append((began + 3600 * options.max_hours, f"--max_hours {options.max_hours:g} is over"))
    if options.until:  # the next time the clock shows it, tomorrow if need be
        ends.append((began + seconds_until(options.until, now=datetime.now()), f"--until {options.until} is past"))
    return min(ends, default=(None, ""))


def move_run_aside(folder: Path) -> None:
    """Move everything of an earlier run into a numbered sibling folder; the lock stays."""
    if not any((folder / name).exists() for name in (RUN_FILE, FOLDER, FIRST)):
        return

    # model.1, model.2, …: no earlier run is ever overwritten
    number = 1
    while (aside := folder.with_name(f"{folder.name}.{number}")).exists():
        number += 1
    aside.mkdir()
    for path in sorted(folder.iterdir()):
        if path.name not in (LOCK, ".gitkeep"):  # the lock is held by this very run
            os.rename(path, aside / path.name)
    say(f"the former run is now {aside}")


def choose_checkpoint(run: Run, *, set_aside: bool) -> Path | None:
    """Return the checkpoint to resume; None starts over.

    Raises:
        UserError: the run in the folder has other settings, or the checkpoint that was named is damaged.
    """
    options, folder = run.options, run.options.output_path
    if options.resume == "never":
        return None
    if options.resume != "auto":
        return choose_named_checkpoint(run, Path(options.resume), set_aside=set_aside)

    # no run here yet; checkpoints without run.json cannot be compared, so they are not touched
    if not (folder / RUN_FILE).exists():
        if list_checkpoints(folder):
            hint = f"put {RUN_FILE} back; or start over with --resume never, which moves the old run aside"
            raise UserError(f"{folder}: holds checkpoints but no {RUN_FILE}", hint, EXIT_STATE)
        return None

    # the same identity, then the newest checkpoint that is whole
    check_identity(run, folder, is_over=partial(has_come_to_its_end, folder))
    checkpoint = find_checkpoint(folder, set_aside=set_aside)
    if checkpoint and set_aside:
        prune_checkpoints(folder, options.save_total_limit)  # a kill may have come before the last one's
    return checkpoint


def run_file_of(checkpoint: Path) -> Path:
    """Return where the run.json of a checkpoint's run lies."""
    return checkpoint.resolve().parent.parent / RUN_FILE


def choose_named_checkpoint(run: Run, path: Path, *, set_aside: bool) -> Path:
    """Return the checkpoint that --resume names; those of the run folder that come after it step aside."""
    if damage := find_checkpoint_damage(path):
        message = f"--resume {path}: not a whole checkpoint: {damage}"
        raise UserError(message, "--resume auto takes the newest whole one", EXIT_STATE)

    # the run that the checkpoint belongs to may lie in another folder
    former = run_file_of(path)
    if former.exists():
        check_identity(run, former.parent, is_over=partial(has_come_to_its_end, former.parent))
    elif run.world.is_main:
        warn(f"--resume {path}: no {RUN_FILE} of its run, so its settings cannot be compared")
    if set_aside:  # only the first process changes the folder
        progress, folder = read_progress(path), run.options.output_path
        adopt_best(folder, run.options.resume, progress.best_step, is_needed=run.options.load_best_model_at_end)
        set_later_aside(folder, progress.step)
    return path


def say_finished(run: Run, progress: Progress) -> None:
    """Say that there is nothing left to do, how to write, and how to go on all the same."""
    say(f"{run.options.output_path}: this run is finished; --resume never starts it again")
    if run.options.second_generation:  # what comes next is the second one
        return
    say_what_next(progress, run)
    command = going_on(run, **(twice(run) if has_ended(progress, run.options) else {"early_stopping_patience": 0}))
    say(f"for more epochs: {command}" if run.options.hours is None else f"for more hours: {command}")


def twice(run: Run) -> dict[str, object]:
    """Return the option that makes a run twice as long."""
    options = run.options
    return {"epochs": 2 * options.epochs} if options.hours is None else {"hours": f"{2 * options.hours:g}"}


def report_stop(run: Run, progress: Progress, *, steps: int, seconds: float, reason: str) -> None:
    """Print why a run stopped, where it stands after so many steps and seconds of this session, how it is resumed."""
    if run.world.is_main:
        # a --resume other than auto would begin where this run began
        changes = {} if run.options.resume == "auto" else {"resume": "auto"}
        words = {"reason": reason, "command": spell_command(run.command, **changes)}
        rate = seconds / steps if steps else None
        sizes = {"epochs": run.options.epochs, "hours": run.options.hours, "seconds_per_step": rate}
        for line in describe_stop(progress, run.total_steps, **sizes, **words):
            say(line)


def report_end(run: Run, progress: Progress, *, seconds: float) -> None:
    """Print how a run went that came to its end after so many seconds of this session."""
    if run.world.is_main:
        say(f"finished {progress.step:,} steps in {format_duration(seconds)}")
        say(describe_verdict(progress, run))
        if run.options.second_generation:  # its model is there to teach
            return
        say_what_next(progress, run)
        if describe_outcome(progress, run).startswith("still improving"):
            command = going_on(run, **twice(run))
            say(f"for twice as many: {command}" if run.options.hours is None else f"for twice as long: {command}")


def say_what_next(progress: Progress, run: Run) -> None:
    """Print the command that writes with the best model of a run."""
    if not run.data.mark:  # that of titles needs a text
        say(f"write with it: {writing_command(best_model(progress, run.options), run.options)}")


def going_on(run: Run, **changes: object) -> str:
    """Spell the command that goes on with a finished run under changed options."""
    allowed = ",".join(dict.fromkeys(filter(None, (*run.options.allow_change.split(","), *changes))))
    return spell_command(run.command, **changes, allow_change=allowed, resume=None)


def writing_command(folder: Path, options: TrainOptions) -> str:
    """Spell the command that writes with a model of a run.

    >>> writing_command(Path("model/final_model"), TrainOptions()), writing_command(Path("a b"), TrainOptions())
    ('python generate.py', "python generate.py --model_path 'a b'")
    """
    place = book_places(TrainOptions, options.book).get("output_dir", "")
    book = options.book if options.output_path == Path(place) else None
    usual = book_places(GenerateOptions, book).get("model_path", GenerateOptions.model_path)
    words = [*(["--book", book] if book else []), *([] if folder == Path(usual) else ["--model_path", str(folder)])]
    return shlex.join(["python", "generate.py", *words])  # one process writes, whatever has trained


def describe_outcome(progress: Progress, run: Run) -> str:
    """Say in one line how the run went and which model folder to use."""
    model = best_model(progress, run.options)
    if progress.best_epoch is None:
        return f"nothing was held out, so no verdict; use {model}"

    # the best epoch against the last one
    last, place = progress.history[-1]["valid_loss"], progress.history[-1]["epoch"]
    best = f"epoch {progress.best_epoch} (held-out loss {progress.best_loss:.4f})"
    if not has_ended(progress, run.options):
        words = f"stopped early: {progress.since_best} evaluations in a row were not better than {best}"
        return f"{words}; use {model}"
    if progress.best_epoch < place and (last is None or last > progress.best_loss + NOISE):
        return f"memorising since {best}; use {model}"
    hours = run.options.hours
    then = place - 1 if hours is None else max(place - 1, place / 2)  # an epoch ago, or half of a run of few
    before = [entry["valid_loss"] for entry in progress.history if entry["epoch"] <= then]
    is_new = hours is not None and not before  # a run of few hours has been evaluated at its end alone
    if is_new or (before and before[-1] and last and before[-1] - last > NOISE):
        if hours is None:
            return f"still improving at {best}: more epochs would help; use {model}"
        return f"still improving at {best}: more hours would help; use {model}"
    return f"nothing more to gain, best at {best}; use {model}"


def describe_verdict(progress: Progress, run: Run) -> str:
    """Say how the run went, and how the best held-out loss stands to counting."""
    outcome = describe_outcome(progress, run)
    improves = outcome.startswith("still improving")
    advice = "train longer" if improves else "a longer book or a smaller network would help"
    return f"{outcome}{compare_with_ngram(progress, run, advice)}"


def judge(progress: Progress, run: Run) -> dict[str, str]:
    """Return the verdict on a run for its log: text, model folder, kind."""
    text = describe_verdict(progress, run)
    kind = next(kind for begins, kind in KINDS.items() if text.startswith(begins))
    last = progress.history[-1]["valid_loss"] if progress.history else None
    if text.startswith("stopped early") and last is not None and last <= progress.best_loss + NOISE:
        kind = "converged"
    counting = None if kind == "none" else run.data.yardsticks(run.tokenizer.vocab_size)
    if counting and kind in ("learning", "converged") and progress.best_loss > counting["kn5_cache"] - NOISE:
        kind = "below_counting"
    return {"text": text, "model": best_model(progress, run.options).name, "kind": kind}


def compare_with_ngram(progress: Progress, run: Run, advice: str) -> str:
    """Return how the best held-out loss stands to counting, as the end of a sentence; nothing where none is known."""
    if progress.best_loss is None:
        return ""
    words = run.data.compare_with_ngram(progress.best_loss, run.tokenizer.vocab_size, advice)
    return "" if words is None else f"; {words}"
