"""Every setting of a training run with its default, range and help: the one place they are written.

`train.py` makes its flags from this table, `--print_config` prints it, `run.json` stores it.
"""

import argparse
from collections.abc import Callable
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path

from novelgpt.alias_table import precision_name
from novelgpt.cli import real, whole


def token_names(text: str) -> str:
    """Read token names with commas between them.

    >>> token_names("[TIL], [WS]")
    '[TIL],[WS]'
    """
    return ",".join(name.strip() for name in text.split(",") if name.strip())


def option(default, text: str, parse: Callable | None = None, choices: tuple[str, ...] | None = None):
    """Declare one option: its default, its help, how its text is read."""
    return field(default=default, metadata={"help": text, "parse": parse, "choices": choices})


def count_or_share(text: str) -> float:
    """Read a number of steps (whole, from 0) or a share of all steps (a fraction below 1).

    >>> count_or_share("2000"), count_or_share("0.02")
    (2000, 0.02)
    """
    value = real(0)(text)
    if value >= 1 and value != int(value):
        raise argparse.ArgumentTypeError(f"found {text!r}, expected a share below 1 or a whole number of steps")
    return int(value) if value >= 1 or value == 0 else value


def clock_time(text: str) -> str:
    """Check a time of day.

    >>> clock_time("07:00")
    '07:00'
    """
    hour, colon, minute = text.partition(":")
    if not (colon and hour.isdecimal() and minute.isdecimal() and int(hour) < 24 and int(minute) < 60):
        raise argparse.ArgumentTypeError(f"found {text!r}, expected a time from 00:00 to 23:59")
    return text


@dataclass(frozen=True)
class TrainOptions:
    """Settings of a run. Lengths are in tokens, rates per step; None means: decided by the machine or the data.

    >>> options = TrainOptions(epochs=3, output_dir="runs/first")
    >>> options.epochs, options.batch_size, options.output_path.name
    (3, 8, 'first')
    """

    model_config: str = option("config/model_config_small.json", "config JSON of the network to train from scratch")
    tokenizer_path: str | None = option(None, "vocabulary; default: the model's own, else cache/vocab_small.txt")
    add_tokens: str | None = option(
        None, "further tokens of the vocabulary, for example [TIL],[WS]; reserved places first", token_names
    )
    raw_data_path: str = option("data/train.json", "cleaned chapters, written by clr_ctrl.py")
    tokenized_data_path: str = option("data/tokenized/", "folder of the numbered piece files")
    raw: bool = option(False, "tokenize raw_data_path into pieces first")
    num_pieces: int = option(100, "piece files to cut the tokens into", whole(1, 1_000_000))
    min_length: int = option(0, "leave out chapters of fewer characters (counted and reported)", whole(0))
    valid_fraction: float = option(0.05, "share of the tokens held out at the end of the book", real(0, 0.9))
    rows: bool | None = option(
        None, "train on one text a record of --train_file instead of windows of a book; default: if one is given", bool
    )
    train_file: str | None = option(None, "records: .txt (one a line), .csv, .json or .jsonl; with --rows")
    validation_file: str | None = option(None, "records held out; default: the last valid_fraction of --train_file")
    text_column: str | None = option(None, "column or key of the text; default: text, else content")
    block_size: int | None = option(None, "tokens a record, more are cut off; default: the context", whole(4))
    loss_after: str | None = option(None, "score only what follows this token in a record, for example [TIL]")
    max_train_samples: int = option(0, "train on the first so many records only; 0 = all", whole(0))
    preprocessing_num_workers: int = option(1, "processes that tokenize records; same result", whole(1, 1024))
    pretrained_model: str | None = option(None, "model folder to start from instead of random weights")
    lora_rank: int = option(
        0,
        "train corrections of this rank and freeze the rest of pretrained_model (needs peft); 0 = off",
        whole(0, 4096),
    )
    lora_alpha: float = option(32.0, "corrections count by alpha / rank", real(0, 10_000, above=True))
    lora_dropout: float = option(0.0, "dropout of the corrections' inputs", real(0, 0.9))
    output_dir: str = option("model/", "folder of the run: model folders, checkpoints, run.json, log.jsonl")
    epochs: int = option(15, "passes over the windows", whole(1, 1_000_000))
    batch_size: int = option(8, "windows a step, over all devices and micro-batches", whole(1, 1_000_000))
    stride: int = option(512, "tokens from one window's start to the next, at most the context", whole(1))
    random_phase: bool = option(True, "move the grid of windows by a random amount in every epoch")
    lr: float | None = option(None, "peak learning rate; default: by the optimizer and the network's width", real(0, 1))
    warmup_steps: float = option(0.02, "steps of linear warm-up, a count or a share of all steps", count_or_share)
    lr_scheduler: str = option(
        "linear",
        "course of the rate after warm-up; polynomial falls with the square of what is left",
        choices=("linear", "cosine", "constant", "polynomial"),
    )
    lr_end: float = option(0.0, "learning rate of the last step, where the schedule falls to", real(0, 1))
    optimizer: str = option(
        "auto", "of the blocks' matrices; auto = muon from scratch, else adamw", choices=("auto", "adamw", "muon")
    )
    weight_decay: float | None = option(
        None, "decay of the matrices, not of biases and norms; default: forget in 2 epochs, 0.1 to 1", real(0, 100)
    )
    beta1: float = option(0.9, "decay of Adam's first moment", real(0, 0.9999))
    beta2: float = option(0.999, "decay of Adam's second moment", real(0, 0.999999))
    max_grad_norm: float = option(1.0, "gradient norm above which gradients are scaled down; 0 = never", real(0))
    dropout: float | None = option(
        None, "one rate for embedding, residual and attention; default: the config's", real(0, 0.9)
    )
    replace_inputs: float | None = option(
        None,
        "share of the tokens read in training exchanged for random ones; default: 0.15 if all is read over 4 times",
        real(0, 0.9),
    )
    gradient_accumulation: int = option(1, "micro-batches that a batch is split into; same update", whole(1, 1_000_000))
    gradient_checkpointing: bool = option(
        False, "recompute activations in the backward pass: less memory, a third slower"
    )
    shard: bool = option(False, "under torchrun: share every weight out over the processes (FSDP2)")
    precision: str = option(
        "auto", "number format of the matrix products", precision_name, choices=("auto", "bf16", "fp16", "fp32")
    )
    fp16: bool = option(False, "the same as --precision fp16")
    compile: str = option("auto", "torch.compile: auto = on GPUs when the run repays it", choices=("auto", "on", "off"))
    device: str | None = option(None, "GPU numbers such as 0,1, or mps, or cpu; default: every GPU there is")
    deterministic: bool = option(
        False, "on GPUs only operations that give the same bits in every run; slower (CPUs do so anyway)"
    )
    seed: int = option(0, "initial weights, window order and dropout are functions of it", whole(0, 2**31 - 1))
    plan: bool = option(False, "print what the run would do and take on this machine, and stop")
    resume: str = option("auto", "auto = go on with an unfinished run; never = move it aside; or a checkpoint's folder")
    allow_change: str = option("", "options that may differ from the unfinished run's, for example lr,epochs,log_step")
    save_steps: int = option(0, "steps between two checkpoints; 0 = by time and at the end of epochs", whole(0))
    save_minutes: float = option(15, "minutes between two checkpoints; 0 = at the end of epochs only", real(0))
    eval_steps: int = option(0, "steps between two evaluations within an epoch; 0 = at its end only", whole(0))
    early_stopping_patience: int = option(
        0, "end after so many evaluations in a row without a lower held-out loss; 0 = train to the end", whole(0)
    )
    load_best_model_at_end: bool = option(False, "final_model gets the weights of best_model")
    save_total_limit: int = option(2, "resumable checkpoints to keep", whole(1))
    max_hours: float = option(0, "stop by itself after so many hours, ready to go on; 0 = no limit", real(0))
    until: str | None = option(None, "stop by itself when the clock shows this time, for example 07:00", clock_time)
    log_step: int = option(200, "steps between two log lines", whole(1))
    writer_dir: str | None = option(None, "folder for TensorBoard curves; default: none")
    sample_prefix: str = option("", "prefix of the sample written after each epoch; default: the book's own opening")
    sample_length: int = option(100, "tokens of the sample written after each epoch; 0 = no sample", whole(0, 100_000))

    @property
    def pretrained_path(self) -> Path:
        """The model folder to start from; only where one is given."""
        return Path(self.pretrained_model)

    @property
    def output_path(self) -> Path:
        """The run folder."""
        return Path(self.output_dir)


def add_train_options(parser: argparse.ArgumentParser) -> None:
    """Give a parser one flag for each option of the table."""
    for entry in fields(TrainOptions):
        assert entry.default is not MISSING
        words = entry.metadata["help"].replace("%", "%%")
        if isinstance(entry.default, bool) or entry.metadata["parse"] is bool:
            parser.add_argument(
                f"--{entry.name}", action=argparse.BooleanOptionalAction, default=entry.default, help=words
            )
            continue
        shown = "" if entry.default in (None, "") else f" (default {entry.default})"
        parser.add_argument(
            f"--{entry.name}",
            default=entry.default,
            type=entry.metadata["parse"] or str,
            choices=entry.metadata["choices"],
            help=words + shown,
        )
