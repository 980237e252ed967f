"""The options of generate.py -> a session: a loaded model that continues prefixes, each token read once.

    prefix ─prefill one row─ copy to all rows ─[ choose a token a row ─ read it ]*─ cut at an end ─ samples

When a row's context is full, the row continues from a shorter window: the pinned head and the last part of the text
from a sentence start, read again. Sample i is a function of (seed, i) alone: its random numbers come from its own
counter, its logits do not depend on its neighbours (compute/packed.py), and its windows and its end depend on nothing
but its text.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from novelgpt.cli import GenerateOptions, names_with
from novelgpt.compute import MAX_ROWS, capture_graph
from novelgpt.corpus.tokenizers import NovelTokenizer
from novelgpt.messages import EXIT_STATE, EXIT_USAGE, UserError, say, warn
from novelgpt.network import choose_devices, choose_precision, describe_devices, read_model
from novelgpt.writing.book import Book
from novelgpt.writing.copying import Copied, CopyMeter
from novelgpt.writing.decoder import Decoder, Reading, Weights, decoding_device, perplexity
from novelgpt.writing.sampling import Controls, choose_tokens, uniform_numbers
from novelgpt.writing.text import CHECK_EVERY, Endings, Sample, StopRule, answer_rule

if TYPE_CHECKING:
    from transformers import GPT2LMHeadModel

    from novelgpt.network import StoredModel

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
    is_stopped: Callable[[], bool] = bool  # asked between tokens: is what grows to be cut where it is? bool() says no

    def write(self, ids: list[int], rule: StopRule, num_samples: int) -> Iterator[Sample]:
        """Write the first samples of a prefix, a batch at a time, and yield them in order."""
        for indices in self.batches(0, num_samples):
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
            check_every: tokens between two yields.

        Yields:
            The samples in the order of the indices, the same list each time; the last time all of them have ended,
            "stopped" where is_stopped said so.
        """
        endings = Endings(self.tokenizer)
        samples = [Sample(index, list(map(int, prefix)), attempt=attempt) for index in indices]
        batch = SampleBatch(self.weights, endings, self.controls, rule, samples, self.seed)
        while not all(sample.ended for sample in samples):
            growing = [sample for sample in samples if not sample.ended]
            if self.is_stopped():
                for sample in growing:
                    sample.end(len(sample.ids), "stopped")
            else:  # no more tokens than the longest text still needs: at its bound every text has ended
                left = rule.max_tokens - max(len(sample.ids) for sample in growing)
                for sample, tokens in zip(samples, batch.decode_many(min(check_every, left)), strict=True):
                    sample.extend(tokens, rule, endings)
            yield samples

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


def fit_window(ids: list[int], context: int, keep_head: int, endings: Endings) -> list[int]:
    """Return what is read when the context is full: the head and at most half a context from a sentence start."""
    start = endings.find_sentence(ids, max(keep_head, len(ids) - context // 2))
    return ids[:keep_head] + ids[start:]


def first_window(prefix: list[int], context: int, keep_head: int, endings: Endings) -> list[int]:
    """Return what is read of a prefix: all of it, or what fit_window leaves where there is no room to go on."""
    return prefix if len(prefix) + CHECK_EVERY <= context else fit_window(prefix, context, keep_head, endings)


class SampleBatch:
    """Some samples of one prefix decoded together, a row each.

    The history holds every text whole, from its prefix on; the decoder holds only the window that each row reads now.

    Args:
        weights: of the model.
        endings: of its vocabulary.
        controls: how each token is chosen.
        rule: where the texts stop; it bounds the columns of the history, tokens.
        samples: at least one, all of the same prefix; at most MAX_ROWS on a CPU.
        seed: of the run; the random numbers of a sample are a function of it, its index and its attempt.
        reading: of the window of the prefix, complete; None reads it.
        is_stopped: asked between tokens and between blocks that are read: are these texts to grow no further? Once it
            has said yes it says so always.
    """

    def __init__(
        self,
        weights: Weights,
        endings: Endings,
        controls: Controls,
        rule: StopRule,
        samples: list[Sample],
        seed: int,
        *,
        reading: Reading | None = None,
        is_stopped: Callable[[], bool] = bool,
    ):
        self.weights, self.endings, self.controls, self.samples = weights, endings, controls, samples
        self.reading, self.is_stopped = reading, is_stopped
        prefix, device = samples[0].prefix, weights.device
        # a GPU always computes MAX_ROWS rows, since its kernels change with their number and more rows cost nothing
        rows = len(samples) if device.type == "cpu" else max(MAX_ROWS, len(samples))
        steps = rule.max_tokens + CHECK_EVERY
        self.decoder = Decoder(weights, rows=rows, slots=min(weights.context, len(prefix) + steps))
        # every text from its prefix on, with columns left for what will be written
        self.count = len(prefix)  # columns written so far
        self.history = torch.zeros(rows, self.count + steps, dtype=torch.int64, device=device)  # (B, N)
        self.history[:, : self.count] = torch.tensor(prefix, device=device)
        # all random numbers are drawn beforehand, so that no neighbour and no batch size can change them
        self.uniforms = torch.zeros(rows, self.count + steps, dtype=torch.float64, device=device)  # (B, N)
        for row, sample in enumerate(samples):
            numbers = uniform_numbers(seed, sample.index, steps, attempt=sample.attempt)
            self.uniforms[row, self.count :] = torch.from_numpy(numbers)
        self.column = torch.tensor([self.count], device=device)  # (1,) the count as a GPU sees it
        self.logits = self.read_prefix(prefix, is_answer=rule.is_answer)  # (B, V)
        self.replay = self.capture()

    def capture(self) -> Callable[[], None] | None:
        """Return what decodes a token faster than decode_token does, None where nothing does."""
        tensors = [self.column, self.decoder.positions, self.logits]
        return capture_graph(self.decode_token_on_device, self.weights.device, tensors)

    def read_prefix(self, prefix: list[int], *, is_answer: bool) -> torch.Tensor:
        """Read the common prefix once and give it to all rows; returns the logits (B, V) after it."""
        if self.reading:
            self.decoder.copy_from(self.reading.decoder, len(self.reading.ids))
            logits = self.reading.logits[-1:].clone()  # (1, V)
        else:
            window = first_window(prefix, self.weights.context, self.controls.keep_head, self.endings)
            logits = self.decoder.prefill(0, torch.tensor(window, device=self.weights.device))
        if not torch.isfinite(logits).all():
            message = "the model's output is not a number"
            raise UserError(message, "use an earlier checkpoint, such as model/best_model", EXIT_STATE)
        self.decoder.copy_first()
        if is_answer:  # must not end before its first token
            logits[:, self.endings.chapter] = -torch.inf
        return logits.repeat(self.decoder.rows, 1)  # (B, V)

    def choose(self, history: torch.Tensor, count: torch.Tensor | int, uniforms: torch.Tensor) -> torch.Tensor:
        """Return the next token (B,) of every row; arguments as for choose_tokens."""
        return choose_tokens(self.logits, history, count, uniforms, self.controls)

    def decode_token(self) -> None:
        """Choose the next token of every row and read it."""
        tokens = self.choose(self.history[:, : self.count], self.count, self.uniforms[:, self.count])
        self.history[:, self.count] = tokens
        self.logits = self.decoder.step(tokens)
        self.count += 1

    def decode_token_on_device(self) -> None:
        """Do the same with fixed shapes and without reading any number back, so that a CUDA graph can hold it."""
        uniforms = self.uniforms.index_select(1, self.column).squeeze(1)  # (B,)
        tokens = self.choose(self.history, self.column, uniforms)
        self.history.index_copy_(1, self.column, tokens.unsqueeze(1))
        self.logits.copy_(self.decoder.read(tokens))
        self.column += 1

    def decode_many(self, count: int) -> list[list[int]]:
        """Decode up to `count` tokens a row, fewer where a row's context fills; returns the new ones of each row."""
        self.make_room()
        before = self.count
        # no row may fill up on the way, for only make_room can shorten it
        for _ in range(min(count, self.decoder.slots - max(self.decoder.lengths))):
            if self.is_stopped():
                break
            if self.replay is None:
                self.decode_token()
            else:
                self.replay()
                self.decoder.note_step()
                self.count += 1
        return self.history[: len(self.samples), before : self.count].tolist()

    def make_room(self) -> None:
        """Read the window of every row whose context is full again."""
        for row in range(self.decoder.rows):
            if self.decoder.lengths[row] < self.decoder.slots:
                continue
            # what a finished or unused row writes is never read: it must only not run over
            if row >= len(self.samples) or self.samples[row].ended:
                self.decoder.set_length(row, self.decoder.slots // 2)
                continue
            ids = self.history[row, : self.count].tolist()
            window = fit_window(ids, self.weights.context, self.controls.keep_head, self.endings)
            for _logits in self.decoder.read_blocks(row, torch.tensor(window, device=self.weights.device)):
                if self.is_stopped():
                    return


def banned_ids(tokenizer: NovelTokenizer) -> list[int]:
    """Return the ids of tokens that are not text: [UNK], [PAD], [MASK], unused ones, control characters."""
    marks = [tokenizer.unk_id, tokenizer.pad_id, tokenizer.marks.get("[MASK]")]
    other = [i for i, token in enumerate(tokenizer.tokens) if token.startswith("[unused") or token in CONTROL_TOKENS]
    return sorted({index for index in marks if index is not None} | set(other))


def make_controls(
    tokenizer: NovelTokenizer, device: torch.device, *, bad_words: Sequence[str] = (), **values
) -> Controls:
    """Return controls for logits on a device; banned are tokens that are not text, and `bad_words`."""
    words = tuple(torch.from_numpy(tokenizer.encode(word).astype("int64")).to(device) for word in bad_words if word)
    return Controls(banned=torch.tensor(banned_ids(tokenizer), device=device), bad_words=words, **values)


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
    controls = make_controls(tokenizer, device, **values)
    weights = Weights(model, kind=kind, device=device)
    sizes = f"{model.num_parameters():,} parameters, context {weights.context:,}, {weights.vocab_size:,} tokens"
    name, place = options.model_path or "the model", describe_devices([device])
    say(f"{name}: {sizes}; {kind} on {place}; --seed {options.seed}")
    # the book, in which copies are looked up
    meter = CopyMeter(book.documents, book.cache_path) if book and options.copies else None
    if options.quantize:
        say(describe_quantization(model, weights, tokenizer, book))
    return Session(weights, tokenizer, controls, options.seed, options.batch_size, book, meter, options.max_copy)


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
    temperature: float = 1.0,
    topk: int = 8,
    topp: float = 1.0,
    is_answer: bool = False,
) -> list[str]:
    """Let a model write a few texts and return them as people read them, prefix included; for use while it is trained.

    Args:
        model: left as it is, its mode and device too.
        prefix: with or without [CLS] in front.
        length: new tokens.
        num_samples: how many texts, at most MAX_ROWS; text i is a function of (seed, i).
        temperature, topk, topp: as in Controls.
        is_answer: the prefix ends with a mark; see answer_rule.
    """
    weights = Weights(model, kind="fp32")
    controls = make_controls(tokenizer, weights.device, temperature=temperature, topk=topk, topp=topp)
    rule, ids = answer_rule(length) if is_answer else StopRule(length), tokenizer.encode_prefix(prefix)
    session = Session(weights, tokenizer, controls, seed)
    return [session.show(sample) for sample in session.write_batch(ids, rule, range(num_samples))]
