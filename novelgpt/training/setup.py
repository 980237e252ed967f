"""Options -> everything a run needs, checked before the first step: devices, pieces, vocabulary, network, step counts.

A run is identified by what its result depends on: the options below and the hashes of corpus, vocabulary and network.
An unfinished run goes on only under the same identity.
"""

import json
import platform
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
import transformers
from transformers import GPT2LMHeadModel

from novelgpt import __version__
from novelgpt.cli import TrainOptions, names_with
from novelgpt.corpus.manifest import check_fresh
from novelgpt.corpus.pieces import Pieces, open_pieces
from novelgpt.corpus.pipeline import expected_state, tokenize_corpus
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
    read_model_config,
)
from novelgpt.training.adapting import added_words, check_place, choose_tokenizer, load_pretrained, vocabulary_path
from novelgpt.training.data import WindowData
from novelgpt.training.lora import add_lora, check_lora, lora_identity, lora_words
from novelgpt.training.memory import check_weights_fit
from novelgpt.training.optim import default_lr, default_optimizer
from novelgpt.training.parallel import World, join_world, local_device, wait_for_all
from novelgpt.training.regularize import default_replacement, default_weight_decay
from novelgpt.training.rows import RowData, check_row_options, open_rows, row_steps
from novelgpt.training.windows import count_steps, count_windows, epoch_phase

RUN_FILE = "run.json"
PIECE_OPTIONS = ("num_pieces", "valid_fraction", "min_length")
DROPOUTS = ("embd_pdrop", "resid_pdrop", "attn_pdrop")
CHANGEABLE = names_with(TrainOptions, resume="changeable")  # may differ when a run goes on
FIXED = names_with(TrainOptions, resume="fixed")  # the position in the run means nothing without them
IDENTITY = CHANGEABLE + FIXED


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
    data: WindowData | RowData
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
    check_lora(options)
    check_place(options)
    options = check_row_options(options)
    all_devices = choose_devices(options.device)
    world = join_world(all_devices[0])
    if options.raw and world.is_main:
        make_pieces(options)
    wait_for_all(world)
    devices = local_device(all_devices)
    if options.deterministic:
        compute_deterministically(devices[0])
    if options.fp16 and options.precision == "auto":
        options = replace(options, precision="fp16")
    dtype = choose_precision(options.precision, devices[0])
    model, config, tokenizer = load_or_build(options, loud=world.is_main)
    options = resolve_optimizer(options, config["n_embd"])
    if options.rows:
        data = open_rows(options, tokenizer, config["n_positions"], talks=world.is_main)
        window, steps = data.block_size, row_steps(data, options.epochs)
    else:
        data, window = open_windows(options, tokenizer, config["n_positions"]), config["n_positions"]
        steps = plan_steps(options, data.num_tokens, window)
    options = resolve_regularisation(options, window, steps[0])
    return Run(options, devices, world, dtype, tokenizer, model.to(devices[0]), data, config, window, steps)


def open_windows(options: TrainOptions, tokenizer: NovelTokenizer, window: int) -> WindowData:
    """Open the pieces as windows of the network's context."""
    if options.stride > window:
        message = f"--stride {options.stride}: longer than the window of {window} tokens, so text would be skipped"
        raise UserError(message, f"--stride {window // 2}", EXIT_USAGE)
    pieces = open_fresh_pieces(options, tokenizer)
    return WindowData(pieces, window, options.stride, options.batch_size, options.seed, options.random_phase)


def resolve_optimizer(options: TrainOptions, n_embd: int) -> TrainOptions:
    """Put the optimizer and the rate that fit the network where none was asked for."""
    pretrained = options.pretrained_model is not None
    if options.optimizer == "auto":
        options = replace(options, optimizer=default_optimizer(pretrained=pretrained, shard=options.shard))
    if options.lr is None:
        options = replace(
            options, lr=default_lr(options.optimizer, n_embd, pretrained=pretrained, lora=options.lora_rank > 0)
        )
    return options


def resolve_regularisation(options: TrainOptions, window: int, epoch_steps: int) -> TrainOptions:
    """Put the weight decay and the share of exchanged inputs that fit the run where none was asked for."""
    pretrained = options.pretrained_model is not None
    decay, share = options.weight_decay, options.replace_inputs
    if decay is None:
        decay = default_weight_decay(options.lr, epoch_steps, pretrained=pretrained)
    if share is None:
        share = default_replacement(options.epochs * window / options.stride, pretrained=pretrained)
    return replace(options, weight_decay=decay, replace_inputs=share)


def make_pieces(options: TrainOptions) -> None:
    """Tokenize the corpus, unless the pieces are already those of this corpus, vocabulary and options."""
    settings = {name: getattr(options, name) for name in PIECE_OPTIONS}
    settings |= {"add_tokens": options.add_tokens} if options.add_tokens else {}
    expect = expected_state(options.raw_data_path, choose_tokenizer(options), **settings)
    try:
        open_pieces(options.tokenized_data_path, expect=expect)
    except UserError:  # missing, stale or damaged: all are mended by writing them anew
        tokenize_corpus(options.raw_data_path, options.tokenized_data_path, vocabulary_path(options), **settings)
    else:
        say(f"{options.tokenized_data_path}: up to date")


def open_fresh_pieces(options: TrainOptions, tokenizer: NovelTokenizer) -> Pieces:
    """Open the pieces and refuse them when corpus, vocabulary or an option that was given has changed since."""
    pieces = open_pieces(options.tokenized_data_path)
    defaults = TrainOptions()
    given = {name: getattr(options, name) for name in PIECE_OPTIONS}
    given = {name: value for name, value in given.items() if value != getattr(defaults, name)}
    if options.add_tokens or "add_tokens" in pieces.manifest["options"]:
        given["add_tokens"] = options.add_tokens
    source = pieces.manifest["source"].get("path", "")
    if options.raw_data_path != defaults.raw_data_path or options.raw:
        source = options.raw_data_path
    expect = expected_state(source, tokenizer, **given) | {"vocabulary_path": vocabulary_path(options)}
    check_fresh(Path(options.tokenized_data_path), pieces.manifest, expect)
    return pieces


def load_or_build(options: TrainOptions, *, loud: bool = True) -> tuple[GPT2LMHeadModel, dict, object]:
    """Return the network to train, its config and its tokenizer; say what was changed of a pretrained one if loud."""
    tokenizer = choose_tokenizer(options)
    words = added_words(options, tokenizer)
    if options.pretrained_model:
        model, config, adaptation = load_pretrained(options, tokenizer)
        words += [f"{options.pretrained_model}: {adaptation.words}"] if adaptation.has_changed else []
    else:
        config = read_model_config(options.model_config)
        check_weights_fit(config, tokenizer.vocab_size, name=f"--model_config {options.model_config}")
        model = build_model(config, tokenizer, seed=options.seed)
    if options.dropout is not None:
        set_dropout(model, config, options.dropout)
    if options.lora_rank:
        settings = {"rank": options.lora_rank, "alpha": options.lora_alpha, "dropout": options.lora_dropout}
        add_lora(model, **settings, seed=options.seed, new_ids=adaptation.new_ids)
        words.append(lora_words(model, adaptation.new_ids))
    for line in words if loud else []:
        say(line)
    return model, config, tokenizer


def set_dropout(model: GPT2LMHeadModel, config: dict, rate: float) -> None:
    """Give embedding, residual and attention dropout one rate."""
    config |= dict.fromkeys(DROPOUTS, rate)
    check_model_config(config, name="--dropout")
    for name in DROPOUTS:
        setattr(model.config, name, rate)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = rate


def plan_steps(options: TrainOptions, num_tokens: int, window: int) -> list[int]:
    """Return the exact number of optimizer steps of every epoch.

    Raises:
        UserError: the corpus has no token to learn from.
    """
    if num_tokens < 2:
        message = f"{options.tokenized_data_path}: {num_tokens} training tokens, so nothing would be trained"
        raise UserError(message, "give a longer text to clr_ctrl.py, then train.py --raw", EXIT_INPUT)
    phases = [
        epoch_phase(options.seed, epoch, options.stride) if options.random_phase else 0
        for epoch in range(1, options.epochs + 1)
    ]
    windows = [count_windows(num_tokens, window, options.stride, phase) for phase in phases]
    return [count_steps(count, options.batch_size) for count in windows]


def identity(run: Run) -> dict:
    """Return what the result of a run depends on, as plain JSON values."""
    options = asdict(run.options)
    config = {key: value for key, value in sorted(run.config.items()) if key not in ("vocab_size", *DROPOUTS)}
    return {
        **{name: options[name] for name in IDENTITY},
        "dropout": [run.config.get(name, 0.1) for name in DROPOUTS],  # 0.1 is GPT-2's own
        "pretrained_model": options["pretrained_model"],
        **lora_identity(run.options),
        "vocabulary": run.tokenizer.fingerprint,
        **run.data.identity(),
        "model_config": config,
    }


def write_run_file(run: Run) -> None:
    """Write run.json: resolved options, identity, versions."""
    versions = {
        "novelgpt": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "numpy": np.__version__,
    }
    values = {"options": asdict(run.options), "identity": identity(run), "versions": versions}
    write_json(run.options.output_path / RUN_FILE, {**values, "command": sys.argv, "total_steps": run.total_steps})


def check_identity(run: Run, folder: Path) -> None:
    """Raise when the earlier run in a folder had another identity, with every difference that is not allowed."""
    path = folder / RUN_FILE
    former = former_identity(path)
    now = json.loads(json.dumps(identity(run)))
    allowed = {name.strip() for name in run.options.allow_change.split(",") if name.strip()}
    unknown = sorted(allowed - set(CHANGEABLE))
    if unknown:
        raise UserError(
            f"--allow_change: found {unknown[0]!r}, expected some of {', '.join(CHANGEABLE)}",
            "--allow_change lr",
            EXIT_USAGE,
        )
    changed = [
        f"{name}: was {shorten(former.get(name))}, now {shorten(now[name])}"
        for name in now
        if now[name] != former.get(name) and name not in allowed
    ]
    if changed:
        names = [line.split(":")[0] for line in changed]
        hint = "go on with the former options; or start anew with --resume never, which moves the old run aside"
        if set(names) <= set(CHANGEABLE):
            hint += f"; or go on with the change: --allow_change {','.join(names)}"
        message = f"{folder}: holds an unfinished run with other settings\n  " + "\n  ".join(changed)
        raise UserError(message, hint, EXIT_STATE)


def former_identity(path: Path) -> dict:
    """Read the identity in a run.json; what it lacks came later and was then at its default."""
    former = read_json(path)
    if not isinstance(former, dict) or not isinstance(former.get("identity"), dict):
        raise UserError(f"{path}: not written by train.py", "start again with --resume never", EXIT_STATE)
    defaults = {name: getattr(TrainOptions(), name) for name in CHANGEABLE}
    fp16 = {"precision": "fp16"} if former.get("options", {}).get("fp16") else {}  # once kept there alone
    return defaults | former["identity"] | fp16


def shorten(value: object) -> str:
    """Say a setting in at most 60 characters; hashes by their first twelve."""
    text = value[:12] if isinstance(value, str) and len(value) == 64 else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."
