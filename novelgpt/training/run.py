"""Options -> everything a run needs, checked before the first step: devices, vocabulary, pieces, network, step counts.

Contradictions are refused first, then the processes meet, then vocabulary, pieces and network are loaded, each of them
once. Last, every option that was left open is resolved; from then on only `run.options` is used.

run.json keeps what the result depends on; an unfinished run is resumed only under the same identity:

    {"options": every option resolved, "identity": the options below and the hashes of corpus, vocabulary and network,
     "left_open": the options that were resolved, "versions": of Python and the packages, "book": its first words and
     length, "command": the words that started it or null, "total_steps": ...}
"""

import json
import math
import platform
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
import transformers
from transformers import GPT2LMHeadModel

from novelgpt import __version__
from novelgpt.cli import TrainOptions, names_with, spell_command
from novelgpt.corpus.documents import read_corpus, source_sha256
from novelgpt.corpus.pieces import Pieces, make_pieces, open_pieces
from novelgpt.corpus.tokenizers import NovelTokenizer
from novelgpt.files import read_json, write_json
from novelgpt.messages import EXIT_STATE, EXIT_USAGE, UserError, say, warn
from novelgpt.network import (
    build_model,
    check_model_config,
    check_versions,
    choose_devices,
    choose_precision,
    compute_deterministically,
    load_teachers,
    read_model_config,
    teacher_identity,
)
from novelgpt.training.adapting import (
    add_lora,
    choose_tokenizer,
    choose_vocabulary,
    describe_added,
    describe_lora,
    load_pretrained,
    lora_identity,
)
from novelgpt.training.checks import (
    ONLY_WINDOWS,
    asked_precision,
    check_inputs,
    check_resolved,
    check_windows,
)
from novelgpt.training.engine import Run
from novelgpt.training.memory import check_weights_fit
from novelgpt.training.optim import default_lr, default_optimizer, default_weight_decay, lr_at, warmup_count
from novelgpt.training.parallel import World, first_process_alone, join_world, telling_errors_once, wait_for_first
from novelgpt.training.rows import open_rows
from novelgpt.training.windows import WindowData, default_replacement

RUN_FILE = "run.json"
CHANGEABLE = names_with(TrainOptions, resume="changeable")  # may differ when a run is resumed
FIXED = names_with(TrainOptions, resume="fixed")  # the position in the run means nothing without them
A_FOLDER_EACH = "(a folder for each book: clr_ctrl.py NOVEL.txt --book NAME, then train.py --raw --book NAME)"
EPOCHS, BATCH_SIZE = 15, 8  # where neither they nor hours are given
DROPOUTS = ("embd_pdrop", "resid_pdrop", "attn_pdrop")


def prepare_run(options: TrainOptions, command: Sequence[str] | None = None) -> Run:
    """Load and check everything a run needs.

    Args:
        options: of train.py.
        command: the words that started it, script first; None where it was no command line.

    Raises:
        UserError: anything missing, damaged or contradictory, and a run that would train nothing.
    """
    check_versions()
    check_inputs(options, command)

    # devices: the processes meet before anything is read
    devices = choose_devices(options.device, takes_several=True)
    world = join_world(devices[0])
    if options.deterministic:
        compute_deterministically(devices[0])
    flag = "--fp16" if options.fp16 else "--precision"
    dtype = choose_precision(asked_precision(options), devices[0], flag=flag)
    with telling_errors_once(world):
        run = load_run(options, devices, world, dtype, command)
    return replace(run, asked=options, command=command)


def load_run(
    options: TrainOptions,
    devices: list[torch.device],
    world: World,
    dtype: torch.dtype,
    command: Sequence[str] | None,
) -> Run:
    """Load vocabulary, data and network, check that they fit, and resolve what was left open."""
    if options.reads_rows and options.rows is None and world.is_main:
        say(f"--train_file {options.train_file}: one text a record, the same as with --rows")

    # what is usual where it is not given, and no hours have chosen it
    usual = {"batch_size": options.batch_size or BATCH_SIZE, "model_config": options.network}
    options = replace(options, **usual, epochs=options.epochs or (None if options.hours else EPOCHS))

    # vocabulary and pieces come before the network, which may take most of the memory
    tokenizer = choose_tokenizer(options.tokenizer_path, options.pretrained_model, options.add_tokens)
    pieces = None if options.reads_rows else open_run_pieces(options, tokenizer, world, command)
    model, config = load_network(options, tokenizer, loud=world.is_main)

    # data: records are cut to the network's context, windows are as long as it
    if pieces is None:
        data = open_rows(options, tokenizer, config["n_positions"], loud=world.is_main)
        window = data.block_size
    else:
        window = config["n_positions"]
        options = replace(options, stride=options.stride or window // 2)
        check_windows(options, len(pieces.train), window)
        data = WindowData(pieces, window, options.stride, options.batch_size, options.seed, options.random_phase)
    steps = data.count_steps(options.epochs or 1)

    # what was left open depends on all of the above
    options = resolve_options(options, n_embd=config["n_embd"], window=window, epoch_steps=steps[0])
    check_resolved(options, holds_out=data.num_valid > 1)
    teachers = load_teachers(options.teacher_paths, tokenizer, window=window)
    return Run(options, devices, world, dtype, tokenizer, model.to(devices[0]), data, config, window, steps, teachers)


def resolve_options(options: TrainOptions, *, n_embd: int, window: int, epoch_steps: int) -> TrainOptions:
    """Replace every option that was left open, each rule after those it depends on."""
    # first the optimizer, whose name decides on the rate, which decides on the decay
    pretrained = options.pretrained_model is not None
    optimizer, lr, decay, share = options.optimizer, options.lr, options.weight_decay, options.replace_inputs
    if optimizer == "auto":
        optimizer = default_optimizer(pretrained=pretrained, shard=options.shard)
    if lr is None:
        lr = default_lr(optimizer, n_embd, pretrained=pretrained, lora=options.lora_rank > 0)
    if decay is None:
        decay = default_weight_decay(lr, epoch_steps, pretrained=pretrained)
    if options.reads_rows:
        share = 0.0
    elif share is None:
        readings = (options.epochs or math.inf) * window / options.stride  # hours are taken to allow many
        share = default_replacement(readings, pretrained=pretrained)
    rules = {"optimizer": optimizer, "lr": lr, "weight_decay": decay, "replace_inputs": share}
    return replace(options, rows=options.reads_rows, precision=asked_precision(options), **rules)


def open_run_pieces(
    options: TrainOptions, tokenizer: NovelTokenizer, world: World, command: Sequence[str] | None = None
) -> Pieces:
    """Open the pieces of a run, made first where --raw asks for it.

    The first process alone reads every byte of corpus and pieces, once; the others look at names, sizes and headers.

    Raises:
        UserError: no pieces, or damaged ones, or the corpus, the vocabulary or a given option has changed since.
    """
    folder, defaults = options.tokenized_data_path, TrainOptions()
    again = spell_command(command, raw=True)
    vocabulary = choose_vocabulary(options.tokenizer_path, options.pretrained_model)
    sizes = {"num_pieces": options.num_pieces, "valid_fraction": options.valid_fraction}
    sizes["min_length"] = options.min_length
    # --raw: the first process makes them, and has read every byte by then
    if options.raw and world.is_main:
        settings = sizes | ({"add_tokens": options.add_tokens} if options.add_tokens else {})
        with first_process_alone(world, "pieces"):
            return make_pieces(options.raw_data_path, folder, tokenizer, tokenizer_path=vocabulary, **settings)

    # else they must be there already, from the first process or from tokenize_corpus.py
    if options.raw:
        wait_for_first(world, "pieces")
    pieces = open_pieces(folder, hashes=world.is_main)

    # only what was asked for is compared, so that pieces of any options train without repeating them
    made = pieces.manifest
    given = {name: value for name, value in sizes.items() if value != getattr(defaults, name)}
    if options.add_tokens or "add_tokens" in made["options"]:
        given["add_tokens"] = options.add_tokens
    is_named = options.raw or options.raw_data_path != defaults.raw_data_path
    corpus = options.raw_data_path if is_named else made["source"].get("path")
    if world.is_main and corpus and Path(corpus).exists() and source_sha256(corpus) != made["source"]["sha256"]:
        is_readable = made["vocabulary"]["sha256"] == tokenizer.fingerprint
        old = tokenizer.decode(pieces.train[1:13]) if is_readable else "…"
        there = f"{first_words(old)}, from {made['source'].get('path')}, {made['train']['tokens']:,} tokens"
        now = f"{first_words(next(iter(read_corpus(corpus)), ''))}, from {corpus}"
        message = f"{Path(folder)}: the pieces are of another text\n  pieces: {there}\n  now: {now}"
        raise UserError(message, f"{again}\n{A_FOLDER_EACH}", EXIT_STATE)
    try:
        pieces.check_fresh({"vocabulary_sha256": tokenizer.fingerprint, "options": given})
    except UserError as problem:
        raise UserError(problem.message, again, problem.code) from problem
    return pieces


def load_network(
    options: TrainOptions, tokenizer: NovelTokenizer, *, loud: bool = True
) -> tuple[GPT2LMHeadModel, dict]:
    """Return the network to train, in fp32 on the CPU, and its config; report what was changed of one if loud."""
    # what is reported is collected, since only the first process reports
    lines = describe_added(options.add_tokens, tokenizer)
    if options.pretrained_model:
        folder, vocabulary = options.pretrained_path, options.tokenizer_path
        model, config, adaptation = load_pretrained(folder, tokenizer, vocabulary=vocabulary, seed=options.seed)
        lines += [f"{options.pretrained_model}: {adaptation.describe()}"] if adaptation.has_changed else []
    else:
        config = read_model_config(options.network, loud=loud)
        check_weights_fit(config, tokenizer.vocab_size, name=f"--model_config {options.network}")
        model = build_model(config, tokenizer, seed=options.seed)
    if options.dropout is not None:
        set_dropout(model, config, options.dropout)

    # last: the corrections wrap the layers as they are by now
    if options.lora_rank:
        settings = {"rank": options.lora_rank, "alpha": options.lora_alpha, "dropout": options.lora_dropout}
        add_lora(model, **settings, seed=options.seed, new_ids=adaptation.new_ids)
        lines.append(describe_lora(model, adaptation.new_ids))
    for line in lines if loud else []:
        say(line)
    return model, config


def set_dropout(model: GPT2LMHeadModel, config: dict, rate: float) -> None:
    """Give embedding, residual and attention dropout one rate."""
    config |= dict.fromkeys(DROPOUTS, rate)
    check_model_config(config, name="--dropout")
    # for the layers that are made from the config, and for those that are there
    for name in DROPOUTS:
        setattr(model.config, name, rate)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = rate


def identity(run: Run) -> dict:
    """Return what the result of a run depends on, as plain JSON values."""
    options = run.options
    names = [name for name in CHANGEABLE + FIXED if not (options.rows and name in ONLY_WINDOWS)]
    config = {key: value for key, value in sorted(run.config.items()) if key not in ("vocab_size", *DROPOUTS)}
    values = {
        **{name: getattr(options, name) for name in names},
        "dropout": [run.config.get(name, 0.1) for name in DROPOUTS],  # 0.1 is GPT-2's own
        "pretrained_model": options.pretrained_model,
        **lora_identity(options.pretrained_model, options.lora_rank, options.lora_alpha, options.lora_dropout),
        "teacher": teacher_identity(options.teacher_paths, options.teacher_weight),
        "vocabulary": run.tokenizer.fingerprint,
        **run.data.identity(),
        "model_config": config,
    }
    return json.loads(json.dumps(values))


def write_run_file(run: Run) -> None:
    """Write run.json; its command is null where the run was not started by one."""
    # versions are kept for people; they do not count for the identity
    versions = {
        "novelgpt": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "numpy": np.__version__,
    }
    command = None if run.command is None else list(run.command)
    values = {"options": asdict(run.options), "left_open": left_open(run), "identity": identity(run)}
    values |= {"versions": versions, "book": describe_book(run), "command": command, "total_steps": run.total_steps}
    write_json(run.options.output_path / RUN_FILE, values)


def left_open(run: Run) -> list[str]:
    """Return the options that the run itself has resolved, for none was given."""
    asked, resolved = vars(run.asked), vars(run.options)
    return [name for name in asked if asked[name] is None and resolved[name] is not None]


def describe_book(run: Run) -> str:
    """Describe a text by its first words and its length, so that people tell it from another."""
    return f"{first_words(run.data.opening(run.tokenizer.decode))}, {run.data.describe_counts()[0]}"


def first_words(text: str) -> str:
    """Quote the beginning of the first line of a text.

    >>> first_words("\\n第一回　石头\\n女娲炼石补天。")
    '“第一回　石头”'
    """
    return f"“{text.strip().partition(chr(10))[0][:12]}”"


def check_identity(run: Run, folder: Path, *, is_over: Callable[[dict], bool]) -> None:
    """Raise when the earlier run in a folder had another identity, with every difference and the commands that go on.

    What --allow_change names may differ; with it, what was left open in both runs and follows from it.

    Args:
        run, folder: the run that is to go on, and where the earlier one lies.
        is_over: tells by the options of the earlier one whether it has come to its end.
    """
    former = read_run_file(folder / RUN_FILE)
    was, now = former["identity"], identity(run)

    # what --allow_change names must be something that may change at all
    allowed = [name.strip() for name in run.options.allow_change.split(",") if name.strip()]
    if unknown := sorted(set(allowed) - set(CHANGEABLE)):
        message = f"--allow_change: found {unknown[0]!r}, expected some of {', '.join(CHANGEABLE)}"
        raise UserError(message, "--allow_change lr", EXIT_USAGE)

    changed = [name for name in now if now[name] != was.get(name)]
    follows = set(left_open(run)) & set(former.get("left_open", ()))
    causes = [name for name in changed if name not in follows] or changed
    if "corpus" in causes:
        raise another_book(run, folder, former)
    if set(causes) <= set(allowed):
        return

    # a vocabulary is known to people by its place
    given = (former["options"], asdict(run.options))
    places = [choose_vocabulary(values.get("tokenizer_path"), values.get("pretrained_model")) for values in given]
    if places[0] != places[1] and "vocabulary" in changed:
        was["vocabulary"], now["vocabulary"] = places
    lines = [f"{name}: {format_change(was.get(name), now[name])}" for name in changed]
    kind = "a finished run" if is_over(former["options"]) else "an unfinished run"
    message = f"{folder}: holds {kind} with other settings\n  " + "\n  ".join(lines)
    ways = []
    if set(causes) <= set(CHANGEABLE):
        wanted = ",".join(dict.fromkeys([*allowed, *causes]))
        ways.append(f"to go on with the change: {spell_command(run.command, allow_change=wanted)}")
    elif former.get("command") and not is_over(former["options"]):
        ways.append(f"to go on as before: {spell_command(former['command'], resume=None)}")
    ways.append(f"to start anew, the old run moved aside: {spell_command(run.command, resume='never')}")
    raise UserError(message, "\n".join(ways), EXIT_STATE)


def another_book(run: Run, folder: Path, former: dict) -> UserError:
    """Return the error of a run folder that belongs to another book."""
    words = former.get("book") or former["options"].get("train_file") or former["options"].get("raw_data_path")
    now = describe_book(run)
    kind = "another version of this book" if words.split(",")[0] == now.split(",")[0] else "another book"
    message = f"{folder}: holds a run of {kind}\n  there: {words}\n  now: {now}"
    number = 2
    while (place := folder.with_name(f"{folder.name}{number}")).exists():
        number += 1
    return UserError(message, f"{spell_command(run.command, output_dir=place)}\n{A_FOLDER_EACH}", EXIT_STATE)


def warn_of_new_rate(run: Run, path: Path, step: int) -> None:
    """Warn where the learning rate goes up at a step because a run is longer now than its former run.json says."""
    if not path.exists() or None in (total := (former := read_run_file(path))["total_steps"], run.total_steps):
        return  # by the clock nothing is known beforehand
    if total == run.total_steps:
        return
    was, options = former["identity"], run.options
    warmup, then = warmup_count(was["warmup_steps"], total), {"schedule": was["lr_scheduler"], "end": was["lr_end"]}
    before = lr_at(min(step, total), total, peak=was["lr"], warmup=warmup, **then)
    course = {"schedule": options.lr_scheduler, "end": options.lr_end}
    after = lr_at(step + 1, run.total_steps, peak=options.lr, warmup=run.warmup, **course)
    if after >= 1.5 * before:
        warn(
            f"step {step:,}: the learning rate goes up from {before:.2g} to {after:.2g}, where the longer run has it; "
            "the loss rises with it for a while"
        )


def read_run_file(path: Path) -> dict:
    """Read a run.json; an option that its identity lacks came later and was then at its default."""
    former = read_json(path)
    if not isinstance(former, dict) or not isinstance(former.get("identity"), dict):
        raise UserError(f"{path}: not written by train.py", "start again with --resume never", EXIT_STATE)
    defaults = {name: getattr(TrainOptions(), name) for name in CHANGEABLE}
    fp16 = {"precision": "fp16"} if former.get("options", {}).get("fp16") else {}  # once kept there alone
    # inputs were once replaced by one rule alone
    rule = {"replacement": "frequency"} if former["identity"].get("replace_inputs") else {}
    return former | {"identity": defaults | rule | former["identity"] | fp16}


def format_change(was: object, now: object) -> str:
    """Format what a setting was and is: of two mappings what differs, hashes by their first twelve.

    >>> format_change({"n_layer": 4, "n_embd": 64}, {"n_layer": 6, "n_embd": 64})
    'n_layer: was 4, now 6'
    """
    if isinstance(was, dict) and isinstance(now, dict):
        names = [name for name in now | was if was.get(name) != now.get(name)]
        return "; ".join(f"{name}: {format_change(was.get(name), now.get(name))}" for name in names)
    texts = [
        value[:12] if isinstance(value, str) and len(value) == 64 else json.dumps(value, ensure_ascii=False)
        for value in (was, now)
    ]
    return f"was {texts[0]}, now {texts[1]}"
