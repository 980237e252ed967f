"""Records -> batches of padded rows, as pure functions of (seed, epoch); the other kind of data beside windows.

::

    record 7   [CLS] 井 水 [TIL] 井 边 [CLS]  0  0  0      input_ids
               -100 -100 -100 -100 井 边 [CLS] -100 …      labels: only what follows the mark, and no padding

Padding stands on the right, so under causal attention no token of a record ever sees it. A batch is as wide as its
longest row, rounded up, so that matrix products and compiled kernels meet few different shapes.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np

from novelgpt.cli import TrainOptions
from novelgpt.corpus.documents import source_sha256
from novelgpt.corpus.records import Records, encode_records, read_records
from novelgpt.corpus.tokenizers import NovelTokenizer
from novelgpt.messages import EXIT_INPUT, EXIT_USAGE, UserError, say, warn
from novelgpt.training.windows import LOOKED_AT, NOT_SCORED, Batch, count_steps

WIDTH = 32  # rows are padded to a multiple of it, tokens


@dataclass(frozen=True)
class RowData:
    """Rows of one text each; see TrainingData for its members."""

    train: Records
    valid: Records
    source: dict  # path and sha256 of the training file, its text column
    settings: dict  # what the rows depend on besides the file, as plain JSON values
    block_size: int  # tokens a row at most
    mark: str | None  # only what follows it is scored; None scores all
    batch_size: int  # rows a step
    seed: int  # the order of an epoch is a function of it

    stream = None  # rows are no windows of a stream

    @property
    def num_tokens(self) -> int:
        return len(self.train.ids)

    @property
    def num_rows(self) -> int:
        return len(self.train)

    @cached_property
    def step_tokens(self) -> float:
        """Tokens that a step computes on the average, padding included."""
        widths = [self.width(rows) * len(rows) for rows in self.epoch_rows(1)]  # tokens a batch, padding included
        return sum(widths) / len(widths)

    @property
    def num_valid(self) -> int:
        return self.valid.tokens

    @property
    def valid_characters(self) -> int:
        return self.valid.characters

    def count_steps(self, epochs: int) -> list[int]:
        return [count_steps(len(self.train), self.batch_size)] * epochs

    def epoch_rows(self, epoch: int) -> Iterator[np.ndarray]:
        """Yield the records of each batch of an epoch in training order, int64 (B,)."""
        order = np.random.default_rng([self.seed, epoch, 0]).permutation(len(self.train))
        yield from (order[first : first + self.batch_size] for first in range(0, len(order), self.batch_size))

    def width(self, rows: np.ndarray) -> int:
        """Return how wide a batch of some training records is."""
        return batch_width(int(self.train.lengths(rows).max()), self.block_size)

    def epoch_batches(self, epoch: int, *, skip: int = 0) -> Iterator[Batch]:
        # batches that are done cost nothing: rows are padded only when they are asked for
        for number, rows in enumerate(self.epoch_rows(epoch)):
            if number >= skip:
                yield make_rows(self.train, rows, self.block_size)

    def valid_batches(self) -> Iterator[Batch]:
        for first in range(0, len(self.valid), self.batch_size):
            rows = np.arange(first, min(first + self.batch_size, len(self.valid)))
            yield make_rows(self.valid, rows, self.block_size)

    def yardsticks(self, vocab_size: int) -> None:
        return None  # streams of text are counted, not records

    def compare_with_ngram(self, loss: float, vocab_size: int, advice: str) -> None:
        return None

    def documents(self, show: Callable[[np.ndarray], str]) -> list[str]:
        borders = pairwise(self.train.starts[self.train.starts <= LOOKED_AT].tolist())
        return [show(self.train.ids[first:last]) for first, last in borders]

    def identity(self) -> dict:
        return {"corpus": self.source["sha256"], **self.settings}

    def corpus_facts(self) -> dict:
        train = {"documents": len(self.train), "tokens": self.num_tokens}
        return {**self.source, "train": train, "block_size": self.block_size}

    def describe_counts(self) -> tuple[str, str]:
        train, valid = (f"{len(part):,} records, {len(part.ids):,} tokens" for part in (self.train, self.valid))
        return train, valid

    def describe_batch(self) -> str:
        scored = f", scored after {self.mark}" if self.mark else ""
        return f"records of up to {self.block_size} tokens{scored}, {self.batch_size} a step"

    def describe_places(self, batch: Batch) -> str:
        return f"records {', '.join(map(str, batch.starts[:8]))}"

    def opening(self, decode: Callable[[np.ndarray], str]) -> str:
        """Return a beginning for the sample after each epoch: a record up to the mark, or its first words."""
        part = self.valid if len(self.valid) else self.train
        # up to the mark, so that the network writes what follows it; without one a few words
        end = int(part.first[0]) if self.mark else min(8, int(part.starts[1]) - 1)
        return decode(part.ids[1:end])


def batch_width(longest: int, block_size: int) -> int:
    """Return how wide a batch is whose longest row has so many tokens.

    >>> batch_width(33, 600), batch_width(590, 600)
    (64, 600)
    """
    return min(block_size, -(-longest // WIDTH) * WIDTH)


def make_rows(records: Records, rows: np.ndarray, block_size: int) -> Batch:
    """Pad some records, `rows` int64 (B,), to a batch; labels are -100 for the padding and what is not scored."""
    width = batch_width(int(records.lengths(rows).max()), block_size)
    input_ids = np.zeros((len(rows), width), dtype=np.int64)  # (B, T)
    labels = np.full((len(rows), width), NOT_SCORED, dtype=np.int64)  # (B, T)

    # each record from the left, its labels from the first scored token on
    for place, number in enumerate(rows.tolist()):
        ids, first = records.ids[records.starts[number] : records.starts[number + 1]], records.first[number]
        input_ids[place, : len(ids)] = ids
        labels[place, first : len(ids)] = ids[first:]
    return Batch(input_ids, labels, rows)


def hold_out_last(texts: list[str], fraction: float) -> tuple[list[str], list[str]]:
    """Divide records into those to train on, one at least, and the last ones, at least a fraction of all.

    >>> hold_out_last(["a", "b", "c", "d"], 0.3)
    (['a', 'b'], ['c', 'd'])
    """
    count = min(len(texts) - 1, math.ceil(fraction * len(texts)))
    return texts[: len(texts) - count], texts[len(texts) - count :]


def report_records(name: str, records: Records, block_size: int, mark: str | None) -> None:
    """Print what became of some records; that none are held out is a warning."""
    words = [f"{len(records):,} records, {len(records.ids):,} tokens"]
    if records.cut:
        where = f"before {mark}" if mark else "at the end"
        words.append(f"{records.cut:,} longer than {block_size} tokens, cut {where}")
    if records.skipped:
        words.append(f"{records.skipped:,} without {mark} and text after it skipped")
    say(f"{name}: {'; '.join(words)}")
    if not len(records):  # only what is held out can be empty here
        warn("no record is held out: --validation_file or --valid_fraction shows when it begins to memorise")


def check_block(block_size: int, context: int) -> None:
    """Refuse records longer than the network can read."""
    if block_size > context:
        message = f"--block_size {block_size}: longer than the context of {context} tokens"
        raise UserError(message, f"--block_size {context}", EXIT_USAGE)


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
