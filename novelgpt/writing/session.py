"""The options of generate.py -> a loaded model, ready to write sample after sample."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from transformers import GPT2LMHeadModel

from novelgpt.cli import GenerateOptions, names_with
from novelgpt.corpus.tokenizers import NovelTokenizer
from novelgpt.messages import EXIT_USAGE, UserError, printable, say, warn
from novelgpt.network import choose_devices, choose_precision, describe_devices, load_model
from novelgpt.writing.book import Book, find_book
from novelgpt.writing.copying import Copied, CopyMeter, limit_copies
from novelgpt.writing.decoder import Weights, perplexity
from novelgpt.writing.generation import grow_samples, make_controls, split_indices, write_samples
from novelgpt.writing.sampling import Controls
from novelgpt.writing.text import Sample, StopRule


@dataclass
class Session:
    """A model ready to write, and all that its texts depend on beside their prefixes.

    Attributes:
        weights: of the model in the form that decodes fastest.
        tokenizer: of the model.
        controls: how tokens are chosen.
        seed: of all samples.
        batch_size: samples written together.
        book: what the model was trained on, None when it is not at hand.
        meter: of copies, None without a book or with --no-copies.
        max_copy: characters that a text may copy in a row, None for any number.
    """

    weights: Weights
    tokenizer: NovelTokenizer
    controls: Controls
    seed: int
    batch_size: int
    book: Book | None
    meter: CopyMeter | None
    max_copy: int | None

    def write(self, ids: list[int], rule: StopRule, num_samples: int) -> Iterator[Sample]:
        """Write the first samples of a prefix, a batch at a time, and yield them in order."""
        for indices in self.batches(0, num_samples):
            yield from self.limit_copies(self.write_batch(ids, rule, indices), rule)

    def batches(self, first: int, num_samples: int) -> list[range]:
        """Return which samples are written together, from index `first` on."""
        return split_indices(range(first, first + num_samples), self.batch_size, self.weights.device)

    def grow_batch(
        self, ids: list[int], rule: StopRule, indices: Sequence[int], **values: int
    ) -> Iterator[list[Sample]]:
        """Write some samples of a prefix together and yield them as they grow; values: attempt, check_every."""
        return grow_samples(
            self.weights, self.tokenizer, ids, indices, rule=rule, controls=self.controls, seed=self.seed, **values
        )

    def write_batch(self, ids: list[int], rule: StopRule, indices: Sequence[int], *, attempt: int = 0) -> list[Sample]:
        """Write some samples of a prefix together, to their ends."""
        *_, samples = self.grow_batch(ids, rule, indices, attempt=attempt)
        return samples

    def limit_copies(self, samples: list[Sample], rule: StopRule) -> list[Sample]:
        """Write samples with a longer copied run than --max_copy again; of each the best try is returned."""
        if self.max_copy is None:
            return samples

        def rewrite(indices: list[int], attempt: int) -> list[Sample]:
            return self.write_batch(samples[0].prefix, rule, indices, attempt=attempt)

        return limit_copies(samples, self.max_copy, rewrite, lambda sample: self.measure_copies(sample).longest)

    def measure_copies(self, sample: Sample) -> Copied | None:
        """Return what a sample shares with the book, None without a meter."""
        return self.meter and self.meter.measure(self.show_new(sample))

    def show(self, sample: Sample) -> str:
        """Return a sample as people read it, prefix and continuation."""
        return self.tokenizer.show(sample.prefix + sample.ids)

    def show_new(self, sample: Sample) -> str:
        """Return only what the model wrote of it."""
        return self.show(sample)[len(self.tokenizer.show(sample.prefix)) :]


def open_session(options: GenerateOptions, *, loaded: tuple[GPT2LMHeadModel, NovelTokenizer] | None = None) -> Session:
    """Load the model and resolve what depends on it.

    Args:
        options: of generate.py.
        loaded: what load_model returned, where the model is loaded already.

    Raises:
        UserError: a damaged model folder, another vocabulary, or an option that does not fit the model.
    """
    # the model, its vocabulary, and the options that must fit them
    devices = choose_devices(options.device)
    device = devices[0]
    if len(devices) > 1 and options.device:
        warn(f"--device {options.device}: writing takes one device; using {device}")
    model, tokenizer = loaded or load_model(options.model_path)
    check_vocabulary(options.tokenizer_path, tokenizer, options.model_path)
    kind = choose_kind(options.quantize, options.precision, device)
    check_limits(options, context=model.config.n_positions, vocab_size=tokenizer.vocab_size)
    # how it will choose, and its weights in the form that decodes fastest
    values = {name: getattr(options, name) for name in names_with(GenerateOptions, sampling=True)}
    controls = make_controls(tokenizer, device, **values)
    weights = Weights(model, kind=kind, device=device)
    name = options.model_path or "the model"
    say(f"{name}: {describe_model(model)}; {kind} on {describe_devices([device])}; --seed {options.seed}")
    # the book, in which copies are looked up
    book, meter = open_book(options)
    if options.quantize:
        say(describe_quantization(model, weights, tokenizer, book))
    return Session(weights, tokenizer, controls, options.seed, options.batch_size, book, meter, options.max_copy)


def choose_kind(quantize: str | None, precision: str, device: torch.device) -> str:
    """Return the number format of the weights: what --quantize or --precision say, else the fastest exact one here."""
    if quantize:
        if device.type != "cpu":
            raise UserError(f"--quantize {quantize}: found a {device.type} device", "--device cpu", EXIT_USAGE)
        return quantize
    if precision != "auto":
        return precision
    return "bf16" if choose_precision("auto", device) == torch.bfloat16 else "fp32"


def check_vocabulary(path: str | None, tokenizer: NovelTokenizer, model_path: str) -> None:
    """Raise unless a vocabulary file is the model's own."""
    if path is None:
        return
    # first the size, then the first line that differs
    given = NovelTokenizer.from_file(path)
    hint = f"leave --tokenizer_path out: {model_path} has its own vocabulary"
    if given.vocab_size != tokenizer.vocab_size:
        message = f"--tokenizer_path {path}: {given.vocab_size:,} tokens, the model has {tokenizer.vocab_size:,}"
        raise UserError(message, hint, EXIT_USAGE)
    if given.fingerprint != tokenizer.fingerprint:
        pairs = zip(given.tokens, tokenizer.tokens, strict=True)
        line, (ours, theirs) = next((line, pair) for line, pair in enumerate(pairs, 1) if pair[0] != pair[1])
        message = f"--tokenizer_path {path}: line {line} is {printable(ours)!r}, in the model {printable(theirs)!r}"
        raise UserError(message, hint, EXIT_USAGE)


def check_limits(options: GenerateOptions, *, context: int, vocab_size: int) -> None:
    """Refuse a head longer than a quarter of the context, and more candidates than there are tokens."""
    if options.keep_head > context // 4:
        message = f"--keep_head: found {options.keep_head}, expected at most {context // 4}, a quarter of the context"
        raise UserError(message, f"--keep_head {context // 4}", EXIT_USAGE)
    if options.topk > vocab_size:
        message = f"--topk: found {options.topk:,}, expected at most the vocabulary's {vocab_size:,} tokens"
        raise UserError(message, "--topk 8", EXIT_USAGE)


def open_book(options: GenerateOptions) -> tuple[Book | None, CopyMeter | None]:
    """Return the book of the model, if it is at hand, and the meter of copies, if they are to be measured."""
    book = find_book(options.model_path, options.corpus) if options.model_path or options.corpus else None
    if book is None and options.max_copy is not None:
        message = "--max_copy: the book that the model was trained on is not at hand"
        raise UserError(message, "--corpus data/train.json", EXIT_USAGE)
    if options.max_copy is not None and not options.copies:
        raise UserError("--max_copy: --no-copies measures no copies", "leave --no-copies out", EXIT_USAGE)
    return book, CopyMeter(book.documents, book.cache_path) if book and options.copies else None


def describe_model(model: GPT2LMHeadModel) -> str:
    """Describe the size of a model."""
    config = model.config
    parameters = sum(weight.numel() for weight in model.parameters())
    return f"{parameters:,} parameters, context {config.n_positions:,}, {config.vocab_size:,} tokens"


def describe_quantization(
    model: GPT2LMHeadModel, weights: Weights, tokenizer: NovelTokenizer, book: Book | None
) -> str:
    """Describe what eight bits cost: perplexity before and after, on the book's end, else on the model's own text."""
    # a text to measure on
    exact = Weights(model, kind="fp32")
    if book:
        ids, what = tokenizer.encode(book.documents[-1]).tolist(), "the book's last chapter"
    else:
        rule, controls = StopRule(512), make_controls(tokenizer, exact.device)
        (sample,) = write_samples(exact, tokenizer, [tokenizer.cls_id], [0], rule=rule, controls=controls, seed=0)
        ids, what = sample.ids, "the model's own writing"
    # at most one window of it, by both kinds of weights
    ids = [tokenizer.cls_id, *ids][: exact.context]
    before, after = perplexity(exact, ids), perplexity(weights, ids)
    cost = f"{before:.3f} in fp32, {after:.3f} in {weights.kind} ({after / before - 1:+.2%})"
    return f"--quantize {weights.kind}: perplexity of {what}, {len(ids):,} tokens: {cost}"
