"""Options -> everything a run needs, checked before the first step: devices, vocabulary, pieces, network, step counts.

Contradictions are refused first, then the processes meet, then vocabulary, pieces and network are loaded, each of them
once. Last, every option that was left open is resolved; from then on only `run.options` is used.

run.json keeps what the result depends on; an unfinished run is resumed only under the same identity:

    {"options": every option resolved, "identity": the options below and the hashes of corpus, vocabulary and network,
     "versions": of Python and the packages, "command": the words that started it or null, "total_steps": ...}
"""

import json
import platform
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
import transformers
from transformers import GPT2LMHeadModel

from novelgpt import __version__
from novelgpt.cli import TrainOptions, names_with
from novelgpt.corpus.documents import source_sha256
from novelgpt.corpus.pieces import Pieces, make_pieces, open_pieces
from novelgpt.corpus.records import encode_records, read_records
from novelgpt.corpus.tokenizers import NovelTokenizer
from novelgpt.files import read_json, write_json
from novelgpt.messages import EXIT_INPUT, EXIT_STATE, EXIT_USAGE, UserError, say
from novelgpt.network import (
    build_model,
    check_model_config,
    check_versions,
    choose_devices,
    choose_precision,
    compute_deterministically,
    describe_devices,
    describe_model,
    read_model_config,
)
from novelgpt.training.adapting import choose_tokenizer, choose_vocabulary, describe_added, load_pretrained
from novelgpt.training.checks import (
    asked_precision,
    check_block,
    check_options,
    check_resolved,
    check_stride,
    check_windows,
    reads_rows,
)
from novelgpt.training.engine import Run
from novelgpt.training.lora import add_lora, describe_lora, lora_identity
from novelgpt.training.memory import check_weights_fit
from novelgpt.training.optim import default_lr, default_optimizer, default_weight_decay
from novelgpt.training.parallel import World, join_world, wait_for_all
from novelgpt.training.rows import RowData, hold_out_last, report_records
from novelgpt.training.windows import WindowData, default_replacement

RUN_FILE = "run.json"
CHANGEABLE = names_with(TrainOptions, resume="changeable")  # may differ when a run is resumed
FIXED = names_with(TrainOptions, resume="fixed")  # the position in the run means nothing without them
DROPOUTS = ("embd_pdrop", "resid_pdrop", "attn_pdrop")


def prepare_run(options: TrainOptions) -> Run:
    """Load and check everything a run needs.

    Raises:
        UserError: anything missing, damaged or contradictory, and a run that would train nothing.
    """
    check_versions()
    check_options(options)

    # devices: the processes meet before anything is read
    devices = choose_devices(options.device, takes_several=True)
    world = join_world(devices[0])
    if options.deterministic:
        compute_deterministically(devices[0])
    dtype = choose_precision(asked_precision(options), devices[0])
    if reads_rows(options) and options.rows is None and world.is_main:
        say(f"--train_file {options.train_file}: one text a record, the same as with --rows")

    # a config file is small: what is wrong with it is said before a corpus is read
    if not options.pretrained_model:
        context = read_model_config(options.model_config)["n_positions"]
        if not reads_rows(options):
            check_stride(options, context)

    # vocabulary and pieces come before the network, which may take most of the memory
    tokenizer = choose_tokenizer(options.tokenizer_path, options.pretrained_model, options.add_tokens)
    pieces = None if reads_rows(options) else open_run_pieces(options, tokenizer, world)
    model, config = load_network(options, tokenizer, loud=world.is_main)

    # data: records are cut to the network's context, windows are as long as it
    if pieces is None:
        data = open_rows(options, tokenizer, config["n_positions"], loud=world.is_main)
        window = data.block_size
    else:
        window = config["n_positions"]
        check_windows(options, len(pieces.train), window)
        data = WindowData(pieces, window, options.stride, options.batch_size, options.seed, options.random_phase)
    steps = data.count_steps(options.epochs)

    # what was left open depends on all of the above
    options = resolve_options(options, n_embd=config["n_embd"], window=window, epoch_steps=steps[0])
    check_resolved(options, holds_out=data.num_valid > 1)
    return Run(options, devices, world, dtype, tokenizer, model.to(devices[0]), data, config, window, steps)


def describe_run(run: Run) -> list[str]:
    """Return the first lines of a run: network, data, steps, device, seed."""
    options = run.options
    train_part, held = run.data.describe_counts()
    steps = f"{run.total_steps:,} = {options.epochs} epochs of about {run.epoch_steps[0]:,}"
    rate = f"{options.optimizer} lr {options.lr:g}, weight decay {options.weight_decay:g}, seed {options.seed}"
    processes = f", {run.world.size} processes" if run.world.size > 1 else ""
    return [
        describe_model(run.config, run.tokenizer.vocab_size),
        f"data: {train_part}; {held} held out",
        f"steps: {steps}; {run.data.describe_batch()}",
        f"device: {describe_devices(run.devices)}{processes}, {str(run.dtype).removeprefix('torch.')}; {rate}",
    ]


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
    if reads_rows(options):
        share = 0.0
    elif share is None:
        share = default_replacement(options.epochs * window / options.stride, pretrained=pretrained)
    rules = {"optimizer": optimizer, "lr": lr, "weight_decay": decay, "replace_inputs": share}
    return replace(options, rows=reads_rows(options), precision=asked_precision(options), **rules)


def open_run_pieces(options: TrainOptions, tokenizer: NovelTokenizer, world: World) -> Pieces:
    """Open the pieces of a run, made first where --raw asks for it.

    The first process alone reads every byte of corpus and pieces, once; the others look at names, sizes and headers.

    Raises:
        UserError: no pieces, or damaged ones, or the corpus, the vocabulary or a given option has changed since.
    """
    folder, defaults = options.tokenized_data_path, TrainOptions()
    vocabulary = choose_vocabulary(options.tokenizer_path, options.pretrained_model)
    sizes = {"num_pieces": options.num_pieces, "valid_fraction": options.valid_fraction}
    sizes["min_length"] = options.min_length
    # --raw: the first process makes them, and has read every byte by then
    if options.raw and world.is_main:
        settings = sizes | ({"add_tokens": options.add_tokens} if options.add_tokens else {})
        pieces = make_pieces(options.raw_data_path, folder, tokenizer, tokenizer_path=vocabulary, **settings)
        wait_for_all(world)
        return pieces

    # else they must be there already, from the first process or from tokenize_corpus.py
    wait_for_all(world)
    pieces = open_pieces(folder, hashes=world.is_main)

    # only what was asked for is compared, so that pieces of any options train without repeating them
    made = pieces.manifest
    given = {name: value for name, value in sizes.items() if value != getattr(defaults, name)}
    if options.add_tokens or "add_tokens" in made["options"]:
        given["add_tokens"] = options.add_tokens
    expect = {"vocabulary_sha256": tokenizer.fingerprint, "vocabulary_path": vocabulary, "options": given}
    is_named = options.raw or options.raw_data_path != defaults.raw_data_path
    corpus = options.raw_data_path if is_named else made["source"].get("path")
    if world.is_main and corpus and Path(corpus).exists():
        expect["source_sha256"] = source_sha256(corpus)
    pieces.check_fresh(expect)
    return pieces


def open_rows(options: TrainOptions, tokenizer: NovelTokenizer, context: int, *, loud: bool) -> RowData:
    """Read, divide and encode the records of a run, and report what became of them if loud.

    Raises:
        UserError: a file cannot be used, the block is longer than the context, the mark is no token, or no record is
            left to train on.
    """
    # what the network cannot read is refused before the files are
    block_size, mark = options.block_size or context, options.loss_after
    check_block(block_size, context)
    if mark and mark not in tokenizer.marks:
        message = f"--loss_after {mark}: not a token of the vocabulary"
        raise UserError(message, f'--add_tokens "{mark}"', EXIT_USAGE)

    # text -> records to train on and records held out -> ids
    texts = read_records(options.train_file, options.text_column)
    if options.validation_file:
        held = read_records(options.validation_file, options.text_column)
    else:
        texts, held = hold_out_last(texts, options.valid_fraction)
    texts = texts[: options.max_train_samples or None]  # after the division: what is held out stays the same
    sizes = {"block_size": block_size, "mark": mark, "num_workers": options.preprocessing_num_workers}
    train, valid = (encode_records(part, tokenizer, **sizes) for part in (texts, held))
    if not len(train):
        found = f"none of {len(texts):,} records has {mark} with text after it, so nothing would be trained"
        raise UserError(f"{options.train_file}: {found}", "write each record as: text[TIL]title", EXIT_INPUT)
    if loud:
        report_records("train", train, block_size, mark)
        report_records("held out", valid, block_size, mark)

    # what ties a model folder to its corpus, and what the result depends on besides
    source = {"path": options.train_file, "sha256": source_sha256(options.train_file), "field": options.text_column}
    settings = {
        "validation_file": options.validation_file and source_sha256(options.validation_file),
        "valid_fraction": options.valid_fraction,
        "text_column": options.text_column,
        "block_size": block_size,
        "loss_after": mark,
        "max_train_samples": options.max_train_samples,
    }
    return RowData(train, valid, source, settings, block_size, mark, options.batch_size, options.seed)


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
        config = read_model_config(options.model_config)
        check_weights_fit(config, tokenizer.vocab_size, name=f"--model_config {options.model_config}")
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
    values = asdict(options)
    config = {key: value for key, value in sorted(run.config.items()) if key not in ("vocab_size", *DROPOUTS)}
    return {
        **{name: values[name] for name in CHANGEABLE + FIXED},
        "dropout": [run.config.get(name, 0.1) for name in DROPOUTS],  # 0.1 is GPT-2's own
        "pretrained_model": options.pretrained_model,
        **lora_identity(options.pretrained_model, options.lora_rank, options.lora_alpha, options.lora_dropout),
        "vocabulary": run.tokenizer.fingerprint,
        **run.data.identity(),
        "model_config": config,
    }


def write_run_file(run: Run, command: Sequence[str] | None = None) -> None:
    """Write run.json; `command` is what the run was started with, script first, None where it was no command line."""
    # versions are kept for people; they do not count for the identity
    versions = {
        "novelgpt": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "numpy": np.__version__,
    }
    values = {"options": asdict(run.options), "identity": identity(run), "versions": versions}
    words = None if command is None else list(command)
    write_json(run.options.output_path / RUN_FILE, {**values, "command": words, "total_steps": run.total_steps})


def check_identity(run: Run, folder: Path) -> None:
    """Raise when the earlier run in a folder had another identity, with every difference that is not allowed."""
    former = former_identity(folder / RUN_FILE)
    now = json.loads(json.dumps(identity(run)))

    # what --allow_change names must be something that may change at all
    allowed = {name.strip() for name in run.options.allow_change.split(",") if name.strip()}
    if unknown := sorted(allowed - set(CHANGEABLE)):
        message = f"--allow_change: found {unknown[0]!r}, expected some of {', '.join(CHANGEABLE)}"
        raise UserError(message, "--allow_change lr", EXIT_USAGE)

    changed = [name for name in now if now[name] != former.get(name) and name not in allowed]
    if changed:
        lines = [f"{name}: was {format_setting(former.get(name))}, now {format_setting(now[name])}" for name in changed]
        hint = "resume with the former options; or start over with --resume never, which moves the old run aside"
        if set(changed) <= set(CHANGEABLE):
            hint += f"; or resume with the change: --allow_change {','.join(changed)}"
        message = f"{folder}: holds an unfinished run with other settings\n  " + "\n  ".join(lines)
        raise UserError(message, hint, EXIT_STATE)


def former_identity(path: Path) -> dict:
    """Read the identity in a run.json; an option that it lacks came later and was then at its default."""
    former = read_json(path)
    if not isinstance(former, dict) or not isinstance(former.get("identity"), dict):
        raise UserError(f"{path}: not written by train.py", "start again with --resume never", EXIT_STATE)
    defaults = {name: getattr(TrainOptions(), name) for name in CHANGEABLE}
    fp16 = {"precision": "fp16"} if former.get("options", {}).get("fp16") else {}  # once kept there alone
    return defaults | former["identity"] | fp16


def format_setting(value: object) -> str:
    """Format a setting in at most 60 characters; hashes by their first twelve."""
    text = value[:12] if isinstance(value, str) and len(value) == 64 else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."
