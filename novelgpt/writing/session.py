"""The options of generate.py -> a loaded model that writes sample after sample."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

from novelgpt.cli import GenerateOptions, names_with
from novelgpt.compute import MAX_ROWS
from novelgpt.corpus.tokenizers import NovelTokenizer, load_tokenizer
from novelgpt.messages import EXIT_USAGE, UserError, printable, say, warn
from novelgpt.network import choose_devices, choose_precision, describe_devices, load_model
from novelgpt.writing.book import Book, corpus_facts, find_book
from novelgpt.writing.copying import Copied, CopyMeter
from novelgpt.writing.decoder import Decoder, Weights
from novelgpt.writing.generation import BLOCK, make_controls, write_samples
from novelgpt.writing.plan import Plan, Sample, answer_plan
from novelgpt.writing.prompts import marked_prefix
from novelgpt.writing.sampling import Controls
from novelgpt.writing.style import measure_style

Watch = Callable[[list[Sample]], None]
MAX_TRIES = 6  # of a sample that copies more than --max_copy


def ignore(samples: list[Sample]) -> None:
    """Watch nothing."""


@dataclass
class Session:
    """A model ready to write.

    Attributes:
        options: of generate.py.
        weights: of the model in the form that decodes fastest.
        tokenizer: of the model.
        plan, controls: what is written and how tokens are chosen.
        book: what the model was trained on, None when it is not at hand.
        meter: of copies, None without a book or with --no-copies.
    """

    options: GenerateOptions
    weights: Weights
    tokenizer: NovelTokenizer
    plan: Plan
    controls: Controls
    book: Book | None
    meter: CopyMeter | None

    def text_of(self, sample: Sample) -> str:
        """Return a sample as people read it: all of it, or only what a mark asked for."""
        return self.new_text_of(sample) if self.options.mark else self.tokenizer.show(sample.prefix + sample.ids)

    def new_text_of(self, sample: Sample) -> str:
        """Return what the model wrote of it, without the prefix."""
        return self.tokenizer.show(sample.prefix + sample.ids)[len(self.tokenizer.show(sample.prefix)) :]

    def copied_of(self, sample: Sample) -> Copied | None:
        """Return what a sample shares with the book."""
        return self.meter and self.meter.measure(self.new_text_of(sample))

    def facts_of(self, sample: Sample, prompt: str) -> dict:
        """Return a sample's line in samples.jsonl, all but its text."""
        options, copied = self.options, self.copied_of(sample)
        return {
            "prompt": prompt,
            "seed": options.seed,
            "index": sample.index,
            "attempt": sample.attempt,
            "ended": sample.ended,
            "tokens": len(sample.ids),
            "model": str(options.model_path),
            "precision": self.weights.kind,
            "settings": {name: getattr(options, name) for name in names_with(GenerateOptions, recorded=True)},
            "style": measure_style([self.new_text_of(sample)]),
            "copied": copied and asdict(copied),
        }

    def prefix_ids(self, prompt: str) -> list[int]:
        """Return the ids of a prefix; with a mark, as much as rows had in training, less room for the answer."""
        if not self.options.mark:
            return self.tokenizer.encode_prefix(prompt).tolist()
        context, row = self.weights.context, row_length(self.options.model_path, self.weights.context)
        room = max(row // 2, min(row, context - BLOCK) - self.plan.most)
        return marked_prefix(prompt, self.options.mark, self.tokenizer, room)

    def plan_after(self, prefix: Sequence[int]) -> Plan:
        """Return the plan of the texts after a prefix; --length -1 fills what the prefix leaves of the context."""
        if self.options.length != -1 or self.options.mark:
            return self.plan
        return replace(self.plan, length=max(1, self.weights.context - len(prefix)))

    def write(self, prompt: str, *, first: int = 0, watch: Watch = ignore, block: int = BLOCK) -> Iterator[Sample]:
        """Write the samples of a prefix, a batch at a time, and yield them in order.

        Args:
            prompt: the prefix as typed.
            first: index of its first sample in the run.
            watch: called with the batch's samples as they grow.
            block: tokens between two calls of watch.
        """
        prefix = self.prefix_ids(prompt)
        plan, size = self.plan_after(prefix), self.options.batch_size
        if self.weights.device.type == "cpu":
            size = min(size, MAX_ROWS)
        for start in range(first, first + self.options.nsamples, size):
            indices = range(start, min(start + size, first + self.options.nsamples))
            samples = self.write_batch(prefix, indices, plan=plan, watch=watch, block=block)
            yield from self.limit_copies(samples, prefix, plan)

    def write_batch(self, prefix: list[int], indices: Sequence[int], *, plan: Plan | None = None, **values):
        """Write some samples together; see write_samples."""
        values |= {"plan": plan or self.plan, "controls": self.controls, "seed": self.options.seed}
        return write_samples(self.weights, self.tokenizer, prefix, indices, **values)

    def limit_copies(self, samples: list[Sample], prefix: list[int], plan: Plan) -> list[Sample]:
        """Write samples with a longer copied run than --max_copy again, a few times; of each the best try is kept."""
        limit = self.options.max_copy
        if limit is None:
            return samples
        longest = {sample.index: self.copied_of(sample).longest for sample in samples}
        best = {sample.index: sample for sample in samples}
        for attempt in range(1, MAX_TRIES):
            again = [index for index, length in longest.items() if length > limit]
            if not again:
                break
            for sample in self.write_batch(prefix, again, plan=plan, attempt=attempt):
                length = self.copied_of(sample).longest
                if length < longest[sample.index]:
                    longest[sample.index], best[sample.index] = length, sample
        for index, length in longest.items():
            if length > limit:
                words = f"the best of {MAX_TRIES} tries still copies {length} characters"
                warn(f"sample {index + 1}: {words} (--max_copy {limit})")
        return list(best.values())


def open_session(options: GenerateOptions, *, loaded: tuple | None = None) -> Session:
    """Load the model and resolve what depends on it.

    Args:
        options: of generate.py.
        loaded: what load_model returned, where the model is loaded already.

    Raises:
        UserError: a damaged model folder, another vocabulary, or an option that does not fit the model.
    """
    devices = choose_devices(options.device)
    device = devices[0]
    if len(devices) > 1 and options.device:
        warn(f"--device {options.device}: writing takes one device; using {device}")
    model, tokenizer = loaded or load_model(options.model_path)
    check_vocabulary(options.tokenizer_path, tokenizer, options.model_path)
    kind = choose_kind(options, device)
    plan, controls = read_plan(options, model), read_controls(options, tokenizer, device)
    weights = Weights(model, kind=kind, device=device)
    name = options.model_path or "the model"
    say(f"{name}: {describe(model)}; {kind} on {describe_devices([device])}; --seed {options.seed}")
    book = find_book(options.model_path, options.corpus) if options.model_path or options.corpus else None
    if book is None and options.max_copy is not None:
        message = "--max_copy: the book that the model was trained on is not at hand"
        raise UserError(message, "--corpus data/train.json", EXIT_USAGE)
    if options.max_copy is not None and not options.copies:
        raise UserError("--max_copy: --no-copies measures no copies", "leave --no-copies out", EXIT_USAGE)
    meter = book.copy_meter() if book and options.copies else None
    session = Session(options, weights, tokenizer, plan, controls, book, meter)
    if options.quantize:
        say(quantization_cost(model, session))
    return session


def quantization_cost(model: torch.nn.Module, session: Session) -> str:
    """Say what eight bits cost: perplexity before and after, on the book's end, else on the model's own text."""
    exact, tokenizer = Weights(model, kind="fp32"), session.tokenizer
    if session.book:
        ids, what = tokenizer.encode(session.book.documents[-1]).tolist(), "the book's last chapter"
    else:
        controls = make_controls(tokenizer, exact.device)
        (sample,) = write_samples(exact, tokenizer, [tokenizer.cls_id], [0], plan=Plan(512), controls=controls, seed=0)
        ids, what = sample.ids, "the model's own writing"
    ids = [tokenizer.cls_id, *ids][: exact.context]
    before, after = perplexity(exact, ids), perplexity(session.weights, ids)
    words = f"{before:.3f} in fp32, {after:.3f} in {session.weights.kind} ({after / before - 1:+.2%})"
    return f"--quantize {session.weights.kind}: perplexity of {what}, {len(ids):,} tokens: {words}"


def perplexity(weights: Weights, ids: list[int]) -> float:
    """Return the perplexity of a text of at most one context, at least two tokens."""
    tokens = torch.tensor(ids, device=weights.device)
    logits = Decoder(weights, rows=1, slots=len(ids)).prefill(0, tokens, every=True)  # (N, V)
    return float(torch.nn.functional.cross_entropy(logits[:-1], tokens[1:]).exp())


def describe(model: torch.nn.Module) -> str:
    """Say a model's size."""
    config = model.config
    parameters = sum(weight.numel() for weight in model.parameters())
    return f"{parameters:,} parameters, context {config.n_positions:,}, {config.vocab_size:,} tokens"


def choose_kind(options: GenerateOptions, device: torch.device) -> str:
    """Return the number format of the weights: what --quantize or --precision say, else the fastest exact one here."""
    if options.quantize:
        if device.type != "cpu":
            raise UserError(f"--quantize {options.quantize}: found a {device.type} device", "--device cpu", EXIT_USAGE)
        return options.quantize
    if options.precision != "auto":
        return options.precision
    return "bf16" if choose_precision("auto", device) == torch.bfloat16 else "fp32"


def check_vocabulary(path: str | None, tokenizer: NovelTokenizer, model_path: str) -> None:
    """Raise unless a vocabulary file is the model's own."""
    if path is None:
        return
    given = load_tokenizer(Path(path))
    hint = f"leave --tokenizer_path out: {model_path} has its own vocabulary"
    if given.vocab_size != tokenizer.vocab_size:
        message = f"--tokenizer_path {path}: {given.vocab_size:,} tokens, the model has {tokenizer.vocab_size:,}"
        raise UserError(message, hint, EXIT_USAGE)
    if given.fingerprint != tokenizer.fingerprint:
        place = next(i for i, pair in enumerate(zip(given.tokens, tokenizer.tokens, strict=True)) if pair[0] != pair[1])
        words = f"{printable(given.tokens[place])!r}, in the model {printable(tokenizer.tokens[place])!r}"
        raise UserError(f"--tokenizer_path {path}: line {place + 1} is {words}", hint, EXIT_USAGE)


def row_length(model_path: str, context: int) -> int:
    """Return how many tokens a row of the model had in training: its block_size, else the context."""
    return min(context, corpus_facts(model_path).get("block_size") or context)


def read_plan(options: GenerateOptions, model: torch.nn.Module) -> Plan:
    """Turn options into a plan; --length -1 is the whole context, until Session.plan_after takes the prefix off.

    What a mark asks for may take a quarter of the tokens that a row had in training.
    """
    length, context = options.length, model.config.n_positions
    if options.mark:
        row = row_length(options.model_path, context)
        most = max(1, row // 4)
        if length > most and length != GenerateOptions.length:
            warn(f"--length {length}: what --mark asks for gets at most {most} tokens, a quarter of a row of {row}")
        return answer_plan(most if length == -1 else min(length, most), cut_loops=options.cut_loops)
    if options.keep_head > context // 4:
        message = f"--keep_head: found {options.keep_head}, expected at most {context // 4}, a quarter of the context"
        raise UserError(message, f"--keep_head {context // 4}", EXIT_USAGE)
    return Plan(context if length == -1 else length, options.stop, options.cut_loops, options.keep_head)


def read_controls(options: GenerateOptions, tokenizer: NovelTokenizer, device: torch.device) -> Controls:
    """Turn options into controls."""
    if options.topk > tokenizer.vocab_size:
        message = f"--topk: found {options.topk:,}, expected at most the vocabulary's {tokenizer.vocab_size:,} tokens"
        raise UserError(message, "--topk 8", EXIT_USAGE)
    values = {name: getattr(options, name) for name in names_with(GenerateOptions, sampling=True)}
    return make_controls(tokenizer, device, **values)
