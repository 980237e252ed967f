"""Options -> everything a run needs, checked before the first step: devices, vocabulary, pieces, network, step counts.

Contradictions are refused first, then the processes meet, then vocabulary, pieces and network are loaded, each of them
once. Last, every option that was left open is resolved; from then on only `run.options` is used.
"""

from dataclasses import dataclass, replace

import torch
from transformers import GPT2LMHeadModel

from novelgpt.devices import choose_devices, choose_precision, compute_deterministically, device_words
from novelgpt.messages import EXIT_ENVIRONMENT, EXIT_INPUT, EXIT_USAGE, UserError, say
from novelgpt.model import build_model, describe_model
from novelgpt.model_config import check_model_config, read_model_config
from novelgpt.training.adapting import choose_tokenizer, choose_vocabulary, describe_added, load_pretrained
from novelgpt.training.data import TrainingData, WindowData, open_pieces_of
from novelgpt.training.lora import add_lora, describe_lora, has_peft
from novelgpt.training.memory import check_weights_fit
from novelgpt.training.optim import default_lr, default_optimizer, default_weight_decay
from novelgpt.training.options import TrainOptions
from novelgpt.training.parallel import World, join_world, local_device
from novelgpt.training.rows import open_rows
from novelgpt.training.windows import default_replacement
from novelgpt.versions import check_versions

DROPOUTS = ("embd_pdrop", "resid_pdrop", "attn_pdrop")
ONLY_ROWS = "train_file validation_file text_column block_size loss_after max_train_samples preprocessing_num_workers"
ONLY_WINDOWS = "raw raw_data_path tokenized_data_path num_pieces min_length stride random_phase replace_inputs"
NEEDS_HELD_OUT = ("eval_steps", "early_stopping_patience", "load_best_model_at_end")


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
    tokenizer: object
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
    pieces = (
        None if reads_rows(options) else open_pieces_of(**piece_settings(options), tokenizer=tokenizer, world=world)
    )
    model, config = load_network(options, tokenizer, loud=world.is_main)

    # data: records are cut to the network's context, windows are as long as it
    if pieces is None:
        data = open_records(options, tokenizer, config["n_positions"], loud=world.is_main)
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
        f"device: {device_words(run.devices)}{processes}, {str(run.dtype).removeprefix('torch.')}; {rate}",
    ]


def reads_rows(options: TrainOptions) -> bool:
    """Tell whether a run reads one text a record; a file of records implies it."""
    return options.train_file is not None if options.rows is None else options.rows


def asked_precision(options: TrainOptions) -> str:
    """Return the precision that was asked for, by either of its two options."""
    return "fp16" if options.fp16 else options.precision


def resolve_options(options: TrainOptions, *, n_embd: int, window: int, epoch_steps: int) -> TrainOptions:
    """Replace every option that was left open, each rule after those it depends on.

    Args:
        options: as they were given.
        n_embd: width of the network.
        window: tokens a row.
        epoch_steps: optimizer steps of the first epoch.
    """
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


# --- loading ---


def piece_settings(options: TrainOptions) -> dict:
    """Return what decides on the pieces of a run, as arguments of open_pieces_of."""
    defaults = TrainOptions()
    settings = {
        "num_pieces": options.num_pieces,
        "valid_fraction": options.valid_fraction,
        "min_length": options.min_length,
    }
    has_source = options.raw or options.raw_data_path != defaults.raw_data_path
    return {
        "folder": options.tokenized_data_path,
        "raw": options.raw,
        "raw_data_path": options.raw_data_path if has_source else None,
        "tokenizer_path": choose_vocabulary(options.tokenizer_path, options.pretrained_model),
        "add_tokens": options.add_tokens,
        "settings": settings,
        "given": {name: value for name, value in settings.items() if value != getattr(defaults, name)},
    }


def open_records(options: TrainOptions, tokenizer, context: int, *, loud: bool) -> TrainingData:
    """Open the records of a run, one text a row."""
    return open_rows(
        options.train_file,
        tokenizer,
        validation_file=options.validation_file,
        valid_fraction=options.valid_fraction,
        text_column=options.text_column,
        max_train_samples=options.max_train_samples,
        context=context,
        block_size=options.block_size,
        mark=options.loss_after,
        batch_size=options.batch_size,
        seed=options.seed,
        num_workers=options.preprocessing_num_workers,
        loud=loud,
    )


def load_network(options: TrainOptions, tokenizer, *, loud: bool = True) -> tuple[GPT2LMHeadModel, dict]:
    """Return the network to train, in fp32 on the CPU, and its config; report what was changed of one if loud."""
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
    for name in DROPOUTS:
        setattr(model.config, name, rate)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = rate


# --- what is refused ---


def check_options(options: TrainOptions) -> None:
    """Refuse options that contradict each other or would have no effect, before anything is loaded.

    Raises:
        UserError: names the option, what it contradicts, and what to give instead.
    """
    check_lora(options)
    check_place(options)
    check_rows(options)
    if options.lr_end and options.lr_scheduler == "constant":
        message = f"--lr_end {options.lr_end:g}: a constant rate never reaches it"
        raise UserError(message, "--lr_scheduler linear", EXIT_USAGE)
    if options.fp16 and options.precision not in ("auto", "fp16"):
        message = f"--fp16 and --precision {options.precision}: found both, expected one"
        raise UserError(message, "leave --fp16 out", EXIT_USAGE)


def check_resolved(options: TrainOptions, *, holds_out: bool) -> None:
    """Refuse what only the data or a resolved option shows to be without effect.

    Args:
        options: from resolve_options.
        holds_out: whether there is a text to evaluate on.

    Raises:
        UserError: an option about evaluations when nothing is held out, or an end rate above the peak.
    """
    for name in NEEDS_HELD_OUT:
        if getattr(options, name) and not holds_out:
            message = f"--{name}: nothing is held out, so there is nothing to evaluate on"
            raise UserError(message, "train.py --raw --valid_fraction 0.05", EXIT_USAGE)
    if options.lr_end > options.lr:
        message = f"--lr_end: found {options.lr_end:g}, expected at most the --lr of {options.lr:g}"
        raise UserError(message, f"--lr_end {options.lr / 10:g}", EXIT_USAGE)


def check_lora(options: TrainOptions) -> None:
    """Refuse what cannot be combined with LoRA, its settings without a rank, and LoRA without peft."""
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


def check_place(options: TrainOptions) -> None:
    """Refuse to start from a model in the run folder, which the run would move aside or write over."""
    if options.pretrained_model and options.pretrained_path.resolve().is_relative_to(options.output_path.resolve()):
        message = f"--pretrained_model {options.pretrained_model}: lies in the run folder {options.output_dir}"
        raise UserError(f"{message}, whose models are written over or moved", "--output_dir other/", EXIT_USAGE)


def check_rows(options: TrainOptions) -> None:
    """Refuse options of the other kind of data, and records without a file or with two held-out parts."""
    by_rows = reads_rows(options)
    given = [name for name in (ONLY_WINDOWS if by_rows else ONLY_ROWS).split() if is_given(options, name)]
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
    return value != getattr(TrainOptions(), name) and (name, value) != ("replace_inputs", 0)


def check_windows(options: TrainOptions, num_tokens: int, window: int) -> None:
    """Refuse a stride that skips text, and a corpus with no token to learn from."""
    if options.stride > window:
        message = f"--stride {options.stride}: longer than the window of {window} tokens, so text would be skipped"
        raise UserError(message, f"--stride {window // 2}", EXIT_USAGE)
    if num_tokens < 2:
        message = f"{options.tokenized_data_path}: {num_tokens} training tokens, so nothing would be trained"
        raise UserError(message, "give a longer text to clr_ctrl.py, then train.py --raw", EXIT_INPUT)
