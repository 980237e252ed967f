"""Options -> everything a run needs, checked before the first step: devices, vocabulary, pieces, network, step counts.

Contradictions are refused first, then the processes meet, then vocabulary, pieces and network are loaded, each of them
once. Last, every option that was left open is resolved; from then on only `run.options` is used.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from transformers import GPT2LMHeadModel

from novelgpt.cli import TrainOptions
from novelgpt.corpus.documents import source_sha256
from novelgpt.corpus.pieces import Pieces, make_pieces, open_pieces
from novelgpt.corpus.records import encode_records, read_records
from novelgpt.corpus.tokenizers import NovelTokenizer
from novelgpt.messages import EXIT_INPUT, EXIT_USAGE, UserError, say
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
    check_windows,
    reads_rows,
)
from novelgpt.training.data import TrainingData, WindowData
from novelgpt.training.lora import add_lora, describe_lora
from novelgpt.training.memory import check_weights_fit
from novelgpt.training.optim import default_lr, default_optimizer, default_weight_decay
from novelgpt.training.parallel import World, join_world, local_device, wait_for_all
from novelgpt.training.rows import RowData, hold_out_last, report_records
from novelgpt.training.windows import default_replacement

DROPOUTS = ("embd_pdrop", "resid_pdrop", "attn_pdrop")


@dataclass(frozen=True)
class Run:
    """A run that is ready to start.

    Attributes:
        options: with every None resolved.
        devices: of this process.
        world: this process among all.
        dtype: format of the matrix products.
        tokenizer, model, data: loaded; the model is in fp32 on devices[0].
        config: the checked network config.
        window: tokens a row: the network's context, or the block of records.
        epoch_steps: optimizer steps of each epoch.
    """

    options: TrainOptions
    devices: list[torch.device]
    world: World
    dtype: torch.dtype
    tokenizer: NovelTokenizer
    model: GPT2LMHeadModel
    data: TrainingData
    config: dict
    window: int
    epoch_steps: list[int]

    @property
    def total_steps(self) -> int:
        """Optimizer steps of the whole run."""
        return sum(self.epoch_steps)


def prepare_run(options: TrainOptions) -> Run:
    """Load and check everything a run needs.

    Raises:
        UserError: anything missing, damaged or contradictory, and a run that would train nothing.
    """
    check_versions()
    check_options(options)

    # devices: the processes meet before anything is read
    all_devices = choose_devices(options.device)
    world = join_world(all_devices[0])
    devices = local_device(all_devices)
    if options.deterministic:
        compute_deterministically(devices[0])
    dtype = choose_precision(asked_precision(options), devices[0])
    if reads_rows(options) and options.rows is None and world.is_main:
        say(f"--train_file {options.train_file}: one text a record, the same as with --rows")

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
    """Replace every option that was left open, each rule after those it depends on.

    Args:
        options: as they were given.
        n_embd: width of the network.
        window: tokens a row.
        epoch_steps: optimizer steps of the first epoch.
    """
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
