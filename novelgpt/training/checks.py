"""Options that contradict each other or have no effect, and missing files, are refused here, before torch is loaded."""

import importlib.util
import shlex
from collections.abc import Sequence
from pathlib import Path

from novelgpt.cli import TrainOptions, book_places, names_with, spell_command
from novelgpt.files import MANIFEST, ready_file
from novelgpt.messages import EXIT_ENVIRONMENT, EXIT_INPUT, EXIT_STATE, EXIT_USAGE, UserError, nearest_words
from novelgpt.network import check_model_folder, read_model_config

ONLY_ROWS = names_with(TrainOptions, only="rows")
ONLY_WINDOWS = names_with(TrainOptions, only="windows")
NEEDS_HELD_OUT = names_with(TrainOptions, needs="held out")


def check_inputs(options: TrainOptions, command: Sequence[str] | None = None) -> None:
    """Refuse options that contradict each other, and files and folders that are not there.

    Args:
        options, command: of the run; the hints spell the command anew.
    """
    check_options(options)

    # the network
    if options.pretrained_model:
        check_model_folder(options.pretrained_model, flag="--pretrained_model", hashes=False)
    else:
        config = read_model_config(options.network, loud=False)
        if not options.reads_rows:
            check_stride(options, config["n_positions"])

    # teachers, vocabulary and text
    for folder in options.teacher_paths:
        check_model_folder(folder, flag="--teacher", hashes=False)
    check_file(options.tokenizer_path, "python make_vocab.py")
    if options.reads_rows:
        check_file(options.train_file, "--train_file data/lines.txt")
        check_file(options.validation_file, "--validation_file data/held_out.txt")
    elif not (Path(options.tokenized_data_path) / MANIFEST).exists():
        check_corpus(options, command)


def check_file(path: str | None, hint: str) -> None:
    """Refuse a file, or a folder, that is given and not there."""
    if path and not Path(ready_file(path)).exists():
        raise UserError(f"{path}: cannot be read: No such file or directory", hint, EXIT_INPUT)


def check_corpus(options: TrainOptions, command: Sequence[str] | None) -> None:
    """Refuse to begin without pieces: either --raw makes them, of a corpus that is there, or they must be there."""
    hint = ""
    if not Path(options.raw_data_path).exists():
        place = "" if options.raw_data_path == TrainOptions.raw_data_path else f" --output {options.raw_data_path}"
        place = f" --book {shlex.quote(options.book)}" if is_of_book(options, "raw_data_path") else place
        hint = f"python clr_ctrl.py NOVEL.txt{place}"
        books = [path.name for path in Path("books").glob("*/")] if options.book else []
        if books:
            nearest = nearest_words(options.book, books, prefix="--book ", spell=shlex.quote)
            hint = f"{nearest}\na new book begins with: {hint}"
    if not options.raw:
        again = spell_command(command, raw=True)
        hint = f"{hint}\nand then: {again}" if hint else again
        message = f"{Path(options.tokenized_data_path)}: no pieces here ({MANIFEST} is missing)"
        raise UserError(message, hint, EXIT_STATE)
    if hint:
        message = f"{options.raw_data_path}: no such file, expected the chapters of a novel"
        raise UserError(message, hint, EXIT_INPUT)


def is_of_book(options: TrainOptions, name: str) -> bool:
    """Tell whether an option has the place that --book gives it."""
    return getattr(options, name) == book_places(TrainOptions, options.book).get(name)


def asked_precision(options: TrainOptions) -> str:
    """Return the precision that was asked for, by either of its two options."""
    return "fp16" if options.fp16 else options.precision


def check_options(options: TrainOptions) -> None:
    """Refuse options that contradict each other or would have no effect."""
    check_lora(options)
    check_teacher(options)
    check_place(options)
    check_rows(options)
    check_hours(options)
    if options.lr_end and options.lr_scheduler == "constant":
        message = f"--lr_end {options.lr_end:g}: a constant rate never reaches it"
        raise UserError(message, "--lr_scheduler linear", EXIT_USAGE)
    # two names of one thing may agree, and auto agrees with both
    if options.fp16 and options.precision not in ("auto", "fp16"):
        message = f"--fp16 and --precision {options.precision}: found both, expected one"
        raise UserError(message, "leave --fp16 out", EXIT_USAGE)


def check_hours(options: TrainOptions) -> None:
    """Refuse what counts steps or epochs beside hours, which leave their number open."""
    if options.hours is None:
        return
    for name in ("epochs", "eval_steps"):
        if value := getattr(options, name):
            message = f"--{name} {value} and --hours {options.hours:g}: found both, expected one"
            raise UserError(message, f"leave --{name} out", EXIT_USAGE)
    if options.warmup_steps >= 1:
        message = f"--warmup_steps {options.warmup_steps:g}: found a number of steps beside --hours, expected a share"
        raise UserError(message, "--warmup_steps 0.02", EXIT_USAGE)


def check_resolved(options: TrainOptions, *, holds_out: bool) -> None:
    """Refuse what only the data or a resolved option shows to be without effect: held-out text, the end rate, noise."""
    # a habit about evaluations without evaluations would be ignored in silence
    for name in NEEDS_HELD_OUT:
        if getattr(options, name) and not holds_out:
            message = f"--{name}: nothing is held out, so there is nothing to evaluate on"
            raise UserError(message, f"train.py{'' if options.rows else ' --raw'} --valid_fraction 0.05", EXIT_USAGE)
    if options.replacement != TrainOptions.replacement and not options.replace_inputs:
        message = f"--replacement {options.replacement}: without effect where --replace_inputs is 0"
        raise UserError(message, "--replace_inputs 0.15", EXIT_USAGE)
    if options.lr_end > options.lr:
        message = f"--lr_end: found {options.lr_end:g}, expected at most the --lr of {options.lr:g}"
        raise UserError(message, f"--lr_end {options.lr / 10:g}", EXIT_USAGE)


def check_lora(options: TrainOptions) -> None:
    """Refuse what cannot be combined with LoRA, its settings without a rank, and LoRA without peft."""
    # without a rank its settings would change nothing
    defaults = TrainOptions()
    if not options.lora_rank:
        for name in ("lora_alpha", "lora_dropout"):
            if getattr(options, name) != getattr(defaults, name):
                message = f"--{name} {getattr(options, name):g}: without effect where --lora_rank is 0"
                raise UserError(message, "--lora_rank 16", EXIT_USAGE)
        return
    if not options.pretrained_model:
        message = f"--lora_rank {options.lora_rank}: corrects a trained network, and no --pretrained_model is given"
        raise UserError(message, "--pretrained_model model/final_model --output_dir other/", EXIT_USAGE)
    if options.shard:
        message = f"--lora_rank {options.lora_rank}: does not go together with --shard"
        raise UserError(message, "leave --shard out: LoRA takes little memory", EXIT_USAGE)
    if not has_peft():
        message = f"--lora_rank {options.lora_rank}: the package peft is not installed"
        raise UserError(message, "pip install peft", EXIT_ENVIRONMENT)


def check_teacher(options: TrainOptions) -> None:
    """Refuse a list of teachers that names none, and a weight of teachers without any."""
    if options.teacher is not None and not options.teacher_paths:
        message = f"--teacher: found {options.teacher!r}, expected model folders"
        raise UserError(message, "--teacher model/best_model", EXIT_USAGE)
    is_taught = options.teacher is not None or options.second_generation
    if not is_taught and options.teacher_weight != TrainOptions.teacher_weight:
        message = f"--teacher_weight {options.teacher_weight:g}: without effect where there is no --teacher"
        raise UserError(message, "--teacher model/best_model --output_dir other/", EXIT_USAGE)
    if not options.second_generation:
        return
    if options.teacher is not None:
        message = "--teacher and --second_generation: found both, expected one of them"
        raise UserError(message, "leave --teacher out", EXIT_USAGE)
    if options.resume not in ("auto", "never"):
        message = f"--resume {options.resume}: a checkpoint is of one run, and --second_generation makes two"
        raise UserError(message, "--resume auto takes the newest whole one", EXIT_USAGE)


def check_place(options: TrainOptions) -> None:
    """Refuse to start or to learn from a model in the run folder, which the run would move aside or write over."""
    given = [("pretrained_model", options.pretrained_path)] if options.pretrained_model else []
    given += [("teacher", folder) for folder in options.teacher_paths]
    for name, folder in given:
        # resolved: the same folder may be given by another path
        place, run = folder.resolve(), options.output_path.resolve()
        is_first = name == "teacher" and options.resume != "never" and place.is_relative_to(run / "first_generation")
        if place.is_relative_to(run) and not is_first:
            message = f"--{name} {folder}: lies in the run folder {options.output_dir}"
            raise UserError(f"{message}, whose models are written over or moved", "--output_dir other/", EXIT_USAGE)


def check_rows(options: TrainOptions) -> None:
    """Refuse options of the other kind of data, and records without a file or with two held-out parts."""
    # options of windows have no meaning for rows, and the other way round
    by_rows = options.reads_rows
    given = [name for name in (ONLY_WINDOWS if by_rows else ONLY_ROWS) if is_given(options, name)]
    if given and not by_rows:
        raise UserError(f"--{given[0]}: has no meaning without --rows", "add --rows", EXIT_USAGE)
    if given:
        message = f"--{given[0]}: has no meaning with --rows, which reads one text a record"
        raise UserError(message, f"leave --{given[0]} out", EXIT_USAGE)
    if by_rows and not options.train_file:
        raise UserError("--rows: no file to train on", "--train_file data/lines.txt", EXIT_USAGE)
    if options.validation_file and is_given(options, "valid_fraction"):
        message = "--validation_file and --valid_fraction: found both, expected one of them"
        raise UserError(message, "leave --valid_fraction out", EXIT_USAGE)


def is_given(options: TrainOptions, name: str) -> bool:
    """Tell whether an option asks for something other than its default; rows never have inputs replaced anyway."""
    value = getattr(options, name)
    if (name, value) == ("replace_inputs", 0) or is_of_book(options, name):
        return False
    return value != getattr(TrainOptions(), name)


def check_stride(options: TrainOptions, window: int) -> None:
    """Refuse a stride that skips text."""
    if options.stride and options.stride > window:
        message = f"--stride {options.stride}: longer than the window of {window} tokens, so text would be skipped"
        raise UserError(message, f"--stride {window // 2}", EXIT_USAGE)


def check_windows(options: TrainOptions, num_tokens: int, window: int) -> None:
    """Refuse a stride that skips text, and a corpus with no token to learn from."""
    check_stride(options, window)
    if num_tokens < 2:
        message = f"{options.tokenized_data_path}: {num_tokens} training tokens, so nothing would be trained"
        raise UserError(message, "give a longer text to clr_ctrl.py, then train.py --raw", EXIT_INPUT)


def has_peft() -> bool:
    """Tell whether the optional package is installed; importing it would load torch."""
    return importlib.util.find_spec("peft") is not None
