"""Records -> batches of padded rows, as pure functions of (seed, epoch); the other kind of data beside windows.

::

    record 7   [CLS] 井 水 [TIL] 井 边 [CLS]  0  0  0      input_ids
               -100 -100 -100 -100 井 边 [CLS] -100 …      labels: only what follows the mark, and no padding

Padding stands on the right, so under causal attention no token of a record ever sees it. A batch is as wide as its
longest row, rounded up, so that matrix products and compiled kernels meet few different shapes.
"""

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from novelgpt.cli import TrainOptions, names_with
from novelgpt.corpus.pipeline import source_sha256
from novelgpt.corpus.records import Records, encode_records, read_records
from novelgpt.corpus.tokenizers import NovelTokenizer
from novelgpt.messages import EXIT_INPUT, EXIT_USAGE, UserError, say, warn
from novelgpt.training.windows import IGNORED, Batch, count_steps

WIDTH = 32  # rows are padded to a multiple of it, tokens
ONLY_ROWS = names_with(TrainOptions, only="rows")
ONLY_WINDOWS = names_with(TrainOptions, only="windows")


@dataclass(frozen=True)
class RowData:
    """Rows of one text each; the same attributes and methods as WindowData.

    Attributes:
        train, valid: encoded records.
        facts: path and sha256 of the training file, its text column.
        settings: what the rows depend on besides the file, as plain JSON values.
        block_size: tokens a row at most.
        mark: only what follows it is scored; None scores all.
        batch_size: rows a step.
        seed: the order of an epoch is a function of it.
    """

    train: Records
    valid: Records
    facts: dict
    settings: dict
    block_size: int
    mark: str | None
    batch_size: int
    seed: int

    stream = None  # rows are no windows of a stream

    @property
    def num_tokens(self) -> int:
        """Different tokens to learn from."""
        return len(self.train.ids)

    @cached_property
    def step_tokens(self) -> float:
        """Tokens that a step computes on the average, padding included."""
        widths = [self.width(rows) * len(rows) for rows in self.epoch_rows(1)]
        return sum(widths) / len(widths)

    @property
    def num_valid(self) -> int:
        """Tokens to be scored of the records held out, before any cut."""
        return self.valid.tokens

    @property
    def valid_characters(self) -> int:
        """Characters to be scored of the records held out."""
        return self.valid.characters

    def epoch_rows(self, epoch: int) -> Iterator[np.ndarray]:
        """Yield the records of each batch of an epoch in training order, int64 (B,)."""
        order = np.random.default_rng([self.seed, epoch, 0]).permutation(len(self.train))
        yield from (order[first : first + self.batch_size] for first in range(0, len(order), self.batch_size))

    def width(self, rows: np.ndarray) -> int:
        """Return how wide a batch of some training records is."""
        return batch_width(int(self.train.lengths(rows).max()), self.block_size)

    def epoch_batches(self, epoch: int, *, skip: int = 0) -> Iterator[Batch]:
        """Yield the batches of an epoch, counted from 1, without those that are already done."""
        for number, rows in enumerate(self.epoch_rows(epoch)):
            if number >= skip:
                yield make_rows(self.train, rows, self.block_size)

    def valid_batches(self) -> Iterator[Batch]:
        """Yield the held-out records in batches."""
        for first in range(0, len(self.valid), self.batch_size):
            rows = np.arange(first, min(first + self.batch_size, len(self.valid)))
            yield make_rows(self.valid, rows, self.block_size)

    def score_ngram(self, vocab_size: int) -> None:
        """Return None: a 4-gram counts streams of text, not records."""

    def identity(self) -> dict:
        """Return what a run's result depends on here, as plain JSON values."""
        return {"corpus": self.facts["sha256"], **self.settings}

    def corpus_facts(self) -> dict:
        """Return what ties a model folder to its corpus."""
        train = {"documents": len(self.train), "tokens": self.num_tokens}
        return {**self.facts, "train": train, "block_size": self.block_size}

    def counts(self) -> tuple[str, str]:
        """Say how much is trained on and how much is held out."""
        train, valid = (f"{len(part):,} records, {len(part.ids):,} tokens" for part in (self.train, self.valid))
        return train, valid

    def batch_words(self) -> str:
        """Say what a batch is made of."""
        scored = f", scored after {self.mark}" if self.mark else ""
        return f"records of up to {self.block_size} tokens{scored}, {self.batch_size} a step"

    def places(self, batch: Batch) -> str:
        """Say which records a batch holds."""
        return f"records {', '.join(map(str, batch.starts[:8]))}"

    def opening(self, tokenizer: NovelTokenizer) -> str:
        """Return a beginning for the sample after each epoch: a record up to the mark, or its first words."""
        part = self.valid if len(self.valid) else self.train
        end = int(part.first[0]) if self.mark else min(8, int(part.starts[1]) - 1)
        return tokenizer.decode(part.ids[1:end])


def batch_width(longest: int, block_size: int) -> int:
    """Return how wide a batch is whose longest row has so many tokens.

    >>> batch_width(33, 600), batch_width(590, 600)
    (64, 600)
    """
    return min(block_size, -(-longest // WIDTH) * WIDTH)


def make_rows(records: Records, rows: np.ndarray, block_size: int) -> Batch:
    """Pad some records to a batch.

    Args:
        records: encoded.
        rows: int64 (B,), their numbers.
        block_size: tokens a row at most.

    Returns:
        Inputs padded with 0, labels with -100 for the padding and what is not scored.
    """
    width = batch_width(int(records.lengths(rows).max()), block_size)
    input_ids = np.zeros((len(rows), width), dtype=np.int64)  # (B, T)
    labels = np.full((len(rows), width), IGNORED, dtype=np.int64)  # (B, T)
    for place, number in enumerate(rows.tolist()):
        ids, first = records.ids[records.starts[number] : records.starts[number + 1]], records.first[number]
        input_ids[place, : len(ids)] = ids
        labels[place, first : len(ids)] = ids[first:]
    return Batch(input_ids, labels, rows)


def check_row_options(options: TrainOptions) -> TrainOptions:
    """Refuse options of the other kind of data, and resolve those of this one that need no file; a file implies rows.

    Raises:
        UserError: an option of rows without --rows, one of windows with it, or no file to train on.
    """
    if options.rows is None:
        options = replace(options, rows=options.train_file is not None)
        if options.rows and os.environ.get("RANK", "0") == "0":  # the processes have not met yet
            say(f"--train_file {options.train_file}: one text a record, the same as with --rows")
    given = [name for name in (ONLY_WINDOWS if options.rows else ONLY_ROWS) if is_given(options, name)]
    if not options.rows:
        if given:
            raise UserError(f"--{given[0]}: has no meaning without --rows", "add --rows", EXIT_USAGE)
        return options
    if given:
        message = f"--{given[0]}: has no meaning with --rows, which reads one text a record"
        raise UserError(message, f"leave --{given[0]} out", EXIT_USAGE)
    if not options.train_file:
        raise UserError("--rows: no file to train on", "--train_file data/lines.txt", EXIT_USAGE)
    if options.validation_file and is_given(options, "valid_fraction"):
        message = "--validation_file and --valid_fraction: found both, expected one of them"
        raise UserError(message, "leave --valid_fraction out", EXIT_USAGE)
    return replace(options, replace_inputs=0.0)


def is_given(options: TrainOptions, name: str) -> bool:
    """Tell whether an option asks for something else than its default; exchanging no inputs is what rows do anyway."""
    value = getattr(options, name)
    return value != getattr(TrainOptions(), name) and (name, value) != ("replace_inputs", 0)


def open_rows(options: TrainOptions, tokenizer: NovelTokenizer, context: int, *, talks: bool = True) -> RowData:
    """Read, divide and encode the records of a run, and say what became of them.

    Args:
        options: checked by check_row_options.
        tokenizer: of the network.
        context: tokens that the network can hold.
        talks: this process speaks for all.

    Raises:
        UserError: a file cannot be used, the block is longer than the context, the mark is no token, or no record is
            left to train on.
    """
    block_size, mark = options.block_size or context, options.loss_after
    if block_size > context:
        message = f"--block_size {block_size}: longer than the context of {context} tokens"
        raise UserError(message, f"--block_size {context}", EXIT_USAGE)
    if mark and mark not in tokenizer.marks:
        message = f"--loss_after {mark}: not a token of the vocabulary"
        raise UserError(message, f'--add_tokens "{mark}"', EXIT_USAGE)
    texts, held = divide_records(options)
    sizes = {"block_size": block_size, "mark": mark, "num_workers": options.preprocessing_num_workers}
    train, valid = (encode_records(part, tokenizer, **sizes) for part in (texts, held))
    if not len(train):
        words = f"none of {len(texts):,} records has {mark} with text after it, so nothing would be trained"
        raise UserError(f"{options.train_file}: {words}", "write each record as: text[TIL]title", EXIT_INPUT)
    if talks:
        say_records("train", train, block_size, mark)
        say_records("held out", valid, block_size, mark)
    facts = {"path": options.train_file, "sha256": source_sha256(options.train_file), "field": options.text_column}
    settings = {
        "validation_file": options.validation_file and source_sha256(options.validation_file),
        "valid_fraction": options.valid_fraction,
        "text_column": options.text_column,
        "block_size": block_size,
        "loss_after": mark,
        "max_train_samples": options.max_train_samples,
    }
    return RowData(train, valid, facts, settings, block_size, mark, options.batch_size, options.seed)


def divide_records(options: TrainOptions) -> tuple[list[str], list[str]]:
    """Read the records and return those to train on and those held out: a file of their own, else the last ones."""
    texts = read_records(options.train_file, options.text_column)
    if options.validation_file:
        held = read_records(options.validation_file, options.text_column)
    else:
        count = min(len(texts) - 1, math.ceil(options.valid_fraction * len(texts)))
        texts, held = texts[: len(texts) - count], texts[len(texts) - count :]
    return texts[: options.max_train_samples or None], held


def say_records(name: str, records: Records, block_size: int, mark: str | None) -> None:
    """Say what became of some records; that none are held out is a warning."""
    words = [f"{len(records):,} records, {len(records.ids):,} tokens"]
    if records.cut:
        where = f"before {mark}" if mark else "at the end"
        words.append(f"{records.cut:,} longer than {block_size} tokens, cut {where}")
    if records.skipped:
        words.append(f"{records.skipped:,} without {mark} and text after it skipped")
    say(f"{name}: {'; '.join(words)}")
    if not len(records):
        warn("no record is held out: --validation_file or --valid_fraction shows when it begins to memorise")


def row_steps(data: RowData, epochs: int) -> list[int]:
    """Return the optimizer steps of every epoch."""
    return [count_steps(len(data.train), data.batch_size)] * epochs
