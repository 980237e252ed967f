"""The options of generate.py -> a session: a loaded model that continues prefixes, each token read once.

    prefix ─prefill one row─ copy to all rows ─[ choose a token a row ─ read it ]*─ cut at an end ─ samples

Sample i is a function of (seed, i) alone: its random numbers come from its own counter, its logits do not depend on its
neighbours (compute/packed.py), and its windows and its end depend on nothing but its text.
"""

import copy
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from novelgpt.cli import PRESET, PRESETS, GenerateOptions, names_with, preset_values
from novelgpt.compute import MAX_ROWS
from novelgpt.corpus.tokenizers import NovelTokenizer
from novelgpt.messages import EXIT_USAGE, UserError, say, warn
from novelgpt.network import choose_devices, choose_precision, describe_devices, read_model
from novelgpt.writing.batch import SampleBatch
from novelgpt.writing.book import Book
from novelgpt.writing.choosing import Chooser
from novelgpt.writing.copying import Copied, CopyMeter
from novelgpt.writing.decoder import Weights, decoding_device, perplexity
from novelgpt.writing.recording import RecordedBatch
from novelgpt.writing.sampling import LONGEST_NAME, Controls
from novelgpt.writing.spelling import make_spelling
from novelgpt.writing.text import CHECK_EVERY, QUOTES, Endings, Sample, StopRule, answer_rule, single_ids

if TYPE_CHECKING:
    from transformers import GPT2LMHeadModel

    from novelgpt.network import StoredModel
    from novelgpt.writing.learning import TextLearner

CONTROL_TOKENS = {f"<0x{byte:02X}>" for byte in (*range(32), 127)} - {"<0x09>", "<0x0A>"}  # all but tab and newline
MAX_TRIES = 6  # of a sample that copies too much


@dataclass
class Session:
    """A model ready to write, and all that its texts depend on beside their prefixes."""

    weights: Weights
    tokenizer: NovelTokenizer
    controls: Controls
    seed: int  # of all samples
    batch_size: int = MAX_ROWS  # samples written together
    book: Book | None = None  # what the model was trained on, None when it is not at hand
    meter: CopyMeter | None = None  # of copies, None without a book or with --no-copies
    max_copy: int | None = None  # characters that a text may copy in a row, None for any number
    learner: "TextLearner | None" = None  # of what it goes on with, None without --adapt
    chooser: Chooser | None = None  # among candidates of each text, None without --best_of
    is_stopped: Callable[[], bool] = bool  # asked between tokens: is what grows to be cut where it is? bool() says no

    def write(self, ids: list[int], rule: StopRule, num_samples: int, *, first: int = 0) -> Iterator[Sample]:
        """Write samples of a prefix, from index `first` on, a batch at a time, and yield them in order."""
        for indices in self.batches(first, num_samples):
            yield from self.limit_copies(self.write_batch(ids, rule, indices), rule)

    def batches(self, first: int, num_samples: int) -> list[range]:
        """Return which samples are written together, from index `first` on; a CPU computes at most MAX_ROWS at once."""
        size = min(self.batch_size, MAX_ROWS) if self.weights.device.type == "cpu" else self.batch_size
        indices = range(first, first + num_samples)
        return [indices[start : start + size] for start in range(0, num_samples, size)]

    def grow_batch(
        self,
        prefix: Sequence[int],
        rule: StopRule,
        indices: Sequence[int],
        *,
        attempt: int = 0,
        check_every: int = CHECK_EVERY,
    ) -> Iterator[list[Sample]]:
        """Write some samples of one prefix together and yield all of them again and again as they grow.

        Args:
            prefix: token ids, at least one.
            rule: where the samples stop.
            indices: which samples of the run; at most MAX_ROWS of them on a CPU.
            attempt: 0, or the number of a further try of the same samples.
            check_every: tokens between two yields; with --best_of they grow by whole texts.

        Yields:
            The samples in the order of the indices, the same list each time; the last time all of them have ended,
            "stopped" where is_stopped said so.
        """
        samples = [Sample(index, list(map(int, prefix)), attempt=attempt) for index in indices]
        if self.chooser is None:
            yield from self.grow(samples, rule, check_every)
            return
        for place, sample in enumerate(samples):
            samples[place] = self.write_best(sample, rule)
            yield samples

    def grow(self, samples: list[Sample], rule: StopRule, check_every: int = CHECK_EVERY) -> Iterator[list[Sample]]:
        """Write samples of one prefix to their ends and yield all of them again and again, as for grow_batch."""
        endings, prefix = Endings(self.tokenizer), samples[0].prefix
        groups = [samples]
        # what leaves the window of a text is learned for that text alone
        if self.learner and len(prefix) + rule.max_tokens + CHECK_EVERY > self.weights.context:
            groups = [[sample] for sample in samples]
        for group in groups:
            weights = self.learner.begin(prefix) if self.learner else self.weights
            kind = RecordedBatch if self.chooser else SampleBatch
            batch = kind(weights, endings, self.controls, rule, group, self.seed, learner=self.learner)
            while growing := [sample for sample in group if not sample.ended]:
                if self.is_stopped():
                    for sample in growing:
                        sample.end(len(sample.ids), "stopped")
                else:  # no more tokens than the longest text still needs: at its bound every text has ended
                    left, first = rule.max_tokens - max(len(sample.ids) for sample in growing), batch.count
                    for sample, tokens in zip(group, batch.decode_many(min(check_every, left)), strict=True):
                        sample.extend(tokens, rule, endings)
                    if self.chooser:
                        for sample, nats in zip(group, batch.nats(first), strict=True):
                            sample.nats += nats
                yield samples

    def write_best(self, sample: Sample, rule: StopRule) -> Sample:
        """Write the candidates of a sample and return the best of them."""
        began, count = time.perf_counter(), self.chooser.count
        attempts = range(sample.attempt * count, (sample.attempt + 1) * count)
        candidates = [Sample(sample.index, sample.prefix, attempt=attempt) for attempt in attempts]
        for places in self.batches(0, count):
            *_, _ = self.grow([candidates[place] for place in places], rule)
        copied = [self.measure_copies(candidate) for candidate in candidates]
        longest = [each.longest if each else 0 for each in copied]
        return self.chooser.choose(candidates, [self.show_new(each) for each in candidates], longest, began)

    def write_batch(
        self, prefix: Sequence[int], rule: StopRule, indices: Sequence[int], *, attempt: int = 0
    ) -> list[Sample]:
        """Write some samples of a prefix together, to their ends; arguments as for grow_batch."""
        *_, samples = self.grow_batch(prefix, rule, indices, attempt=attempt)
        return samples

    def limit_copies(self, samples: list[Sample], rule: StopRule) -> list[Sample]:
        """Write samples that copy more than max_copy again, a few times; return the best try of each."""
        if self.max_copy is None:
            return samples
        longest = {sample.index: self.measure_copies(sample).longest for sample in samples}  # characters
        best = {sample.index: sample for sample in samples}
        # those above the limit, again and again, as long as there are any
        for attempt in range(1, MAX_TRIES):
            again = [index for index, length in longest.items() if length > self.max_copy]
            if not again or self.is_stopped():
                break
            for sample in self.write_batch(samples[0].prefix, rule, again, attempt=attempt):
                length = self.measure_copies(sample).longest
                if length < longest[sample.index] and sample.ended != "stopped":
                    longest[sample.index], best[sample.index] = length, sample
        for index, length in longest.items():
            if length > self.max_copy:
                tries = f"the best of {MAX_TRIES} tries still copies {length} characters"
                warn(f"sample {index + 1}: {tries} (--max_copy {self.max_copy})")
        return list(best.values())

    def measure_copies(self, sample: Sample) -> Copied | None:
        """Return what a sample shares with the book, None without a meter."""
        return self.meter and self.meter.measure(self.show_new(sample))

    def show(self, sample: Sample) -> str:
        """Return a sample as people read it, prefix and continuation."""
        return self.tokenizer.show(sample.prefix + sample.ids)

    def show_new(self, sample: Sample) -> str:
        """Return only what the model wrote of it."""
        return self.show(sample)[len(self.tokenizer.show(sample.prefix)) :]


def banned_ids(tokenizer: NovelTokenizer) -> list[int]:
    """Return the ids of tokens that are not text: [UNK], [PAD], [MASK], unused ones, control characters."""
    marks = [tokenizer.unk_id, tokenizer.pad_id, tokenizer.marks.get("[MASK]")]
    other = [i for i, token in enumerate(tokenizer.tokens) if token.startswith("[unused") or token in CONTROL_TOKENS]
    return sorted({index for index in marks if index is not None} | set(other))


def make_controls(
    tokenizer: NovelTokenizer,
    device: torch.device,
    *,
    bad_words: Sequence[str] = (),
    names: Sequence[str] = (),
    **values,
) -> Controls:
    """Return controls for logits on a device; banned are tokens that are not text, halves of characters, `bad_words`.

    Runs that --dry_multiplier finds end at line breaks, quotation marks and [CLS], and at `names`.
    """
    words = tuple(torch.from_numpy(tokenizer.encode(word).astype("int64")).to(device) for word in bad_words if word)
    if values.get("dry_multiplier"):
        values |= find_breakers(tokenizer, device, names)
    banned = torch.tensor(banned_ids(tokenizer), device=device)
    spelling = make_spelling(tokenizer.byte_ids, tokenizer.vocab_size, device)
    return Controls(banned=banned, spelling=spelling, bad_words=words, **values)


def find_breakers(tokenizer: NovelTokenizer, device: torch.device, names: Sequence[str]) -> dict:
    """Return the breakers of runs as Controls has them; a name of too many tokens is left out."""
    endings = Endings(tokenizer)
    breakers = torch.zeros(tokenizer.vocab_size, dtype=torch.bool, device=device)
    breakers[sorted(endings.breaks | single_ids(tokenizer, QUOTES))] = True
    by_length: dict[int, list[list[int]]] = {}
    for name in names:
        ids = tokenizer.encode(name).tolist()
        by_length.setdefault(len(ids), []).append(ids)
    runs = (torch.tensor(ids, device=device) for size, ids in by_length.items() if 0 < size <= LONGEST_NAME)
    return {"breakers": breakers, "names": tuple(runs)}


def open_session(
    options: GenerateOptions,
    book: Book | None = None,
    *,
    loaded: tuple["GPT2LMHeadModel", NovelTokenizer] | None = None,
) -> Session:
    """Load the model and resolve what depends on it.

    Args:
        options: of generate.py; check_options has found that they fit the model.
        book: that the model was trained on; None where it is not at hand.
        loaded: what load_model returned, where the model is loaded already.

    Raises:
        UserError: a damaged model folder, or a device that is absent or cannot compute in that format.
    """
    # the device, the model and its vocabulary
    devices = choose_devices(options.device)
    device = decoding_device(devices[0])
    if len(devices) > 1 and options.device:
        warn(f"--device {options.device}: writing takes one device; using {device}")
    if device != devices[0] and options.device:
        warn("--device mps: texts are written on the CPU; tokens are drawn in float64, which mps lacks")
    model, tokenizer = loaded or read_model(options.model_path)
    kind = choose_kind(options.quantize, options.precision, device)
    # how it will choose, and its weights in the form that decodes fastest
    values = {name: getattr(options, name) for name in names_with(GenerateOptions, sampling=True)}
    values |= preset_values(options)
    names = book.speakers if book and values["dry_multiplier"] else ()
    controls = make_controls(tokenizer, device, names=names, **values)
    weights = Weights(model, kind=kind, device=device)
    sizes = f"{model.num_parameters():,} parameters, context {weights.context:,}, {weights.vocab_size:,} tokens"
    name, place = options.model_path or "the model", describe_devices([device])
    say(f"{name}: {sizes}; {kind} on {place}; --seed {options.seed}")
    # the book, in which copies are looked up
    meter = book.meter if book and options.copies else None
    if options.quantize:
        say(describe_quantization(model, weights, tokenizer, book))
    more = (weights, tokenizer, controls, options.seed, options.batch_size, book, meter, options.max_copy)
    learner = open_learner(model, tokenizer, options, kind, device) if options.adapt else None
    chooser = (
        Chooser(options.best_of, weights, tokenizer, book.documents, options.max_copy) if options.best_of > 1 else None
    )
    return Session(*more, learner, chooser)


def open_learner(model, tokenizer: NovelTokenizer, options: GenerateOptions, kind: str, device: torch.device):
    """Return the TextLearner of a model on a device; of a model folder the network is loaded only now."""
    from novelgpt.network import load_model
    from novelgpt.writing.learning import TextLearner  # loads transformers, which takes seconds

    network = model if hasattr(model, "parameters") else load_model(options.model_path)[0]
    places = {(place.type, place.index or 0) for place in (network.device, device)}
    if network is model and len(places) > 1:
        network = copy.deepcopy(model)  # the caller's own stays where it is
    return TextLearner(network.to(device), banned_ids(tokenizer), kind=kind)


def choose_kind(quantize: str | None, precision: str, device: torch.device) -> str:
    """Return the number format of the weights, "fp32", "bf16" or "int8": what --quantize or --precision say.

    With "auto" it is bf16 where the device is fast in it, else fp32; int8 is for a CPU only, elsewhere a UserError.
    """
    if quantize:
        if device.type != "cpu":
            raise UserError(f"--quantize {quantize}: found a {device.type} device", "--device cpu", EXIT_USAGE)
        return quantize
    if precision != "auto":
        return precision
    return "bf16" if choose_precision("auto", device) == torch.bfloat16 else "fp32"


def describe_quantization(
    model: "GPT2LMHeadModel | StoredModel", weights: Weights, tokenizer: NovelTokenizer, book: Book | None
) -> str:
    """Describe what eight bits cost: perplexity before and after, on the book's end, else on the model's own text."""
    # a text to measure on
    exact = Weights(model, kind="fp32")
    if book:
        ids, what = tokenizer.encode(book.documents[-1]).tolist(), "the book's last chapter"
    else:
        session = Session(exact, tokenizer, make_controls(tokenizer, exact.device), seed=0)
        (sample,) = session.write_batch([tokenizer.cls_id], StopRule(512), [0])
        ids, what = sample.ids, "the model's own writing"
    # at most one window of it, by both kinds of weights
    ids = [tokenizer.cls_id, *ids][: exact.context]
    before, after = perplexity(exact, ids), perplexity(weights, ids)
    cost = f"{before:.3f} in fp32, {after:.3f} in {weights.kind} ({after / before - 1:+.2%})"
    return f"--quantize {weights.kind}: perplexity of {what}, {len(ids):,} tokens: {cost}"


def generate_text(
    model: "GPT2LMHeadModel",
    tokenizer: NovelTokenizer,
    prefix: str,
    *,
    length: int,
    num_samples: int = 1,
    seed: int = 0,
    is_answer: bool = False,
    **chosen: float,
) -> list[str]:
    """Let a model write a few texts and return them as people read them, prefix included; for use while it is trained.

    Args:
        model: left as it is, its mode and device too.
        prefix: with or without [CLS] in front.
        length: new tokens.
        num_samples: how many texts, at most MAX_ROWS; text i is a function of (seed, i).
        is_answer: the prefix ends with a mark; see answer_rule.
        chosen: how each token is chosen, as in Controls, for example topk=8; what is not said is that of generate.py.
    """
    weights = Weights(model, kind="fp32")
    controls = make_controls(tokenizer, weights.device, **PRESETS[PRESET] | chosen)
    rule, ids = answer_rule(length) if is_answer else StopRule(length), tokenizer.encode_prefix(prefix)
    session = Session(weights, tokenizer, controls, seed)
    return [session.show(sample) for sample in session.write_batch(ids, rule, range(num_samples))]
