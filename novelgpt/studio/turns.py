"""One job or one question, carried out in turns: a block of a text is read, or a slice of tokens is written.

    prompt ─read, block by block─ [ slice: tokens of all candidates ─ characters ─ pieces ]* ─ ends

Every turn is a step of a generator, so that the engine may go round among many. What a candidate has shown is never
taken back. So there is one difference from generate.py: where a paragraph or a chapter does not end within its bound,
generate.py goes back to a sentence that is long shown here, and a candidate ends with the next sentence instead.
"""

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace

import torch

from novelgpt.corpus.records import TITLE_MARK
from novelgpt.messages import EXIT_STATE, EXIT_USAGE, UserError
from novelgpt.network import StoredModel, choose_devices, read_model
from novelgpt.studio.jobs import Choice, Job, Piece, Request, Speller, Token, longest_beginning
from novelgpt.writing.batch import first_window
from novelgpt.writing.book import Book, corpus_facts, find_book, hint_at_book
from novelgpt.writing.copying import CopyGuard, token_texts
from novelgpt.writing.decoder import Reading, Weights, decoding_device
from novelgpt.writing.generation import choose_kind, make_controls
from novelgpt.writing.prompts import add_mark, answer_limits, check_limits
from novelgpt.writing.recording import Fact, RecordedBatch, describe_tokens, read_chances, read_facts
from novelgpt.writing.sampling import Controls
from novelgpt.writing.text import CHECK_EVERY, STOPS, Endings, Sample, StopRule, answer_rule

SLICE = CHECK_EVERY  # tokens of every candidate in a turn
SHOWN_EVERY = 0.05  # seconds between two pieces of a candidate
KEPT_BYTES = 1 << 29  # of texts that were read
CONTEXT_BEFORE = 512  # tokens before what is scored


@dataclass
class Desk:
    """A loaded model, its book, and what lies ready for its next texts."""

    weights: Weights
    tokenizer: object  # the NovelTokenizer of the model
    num_parameters: int = 0
    model_path: str = ""
    book: Book | None = None  # None where it is not at hand
    book_name: str | None = None
    readings: list[Reading] = field(default_factory=list)  # texts that were read, the latest first

    def __post_init__(self) -> None:
        self.endings = Endings(self.tokenizer)
        # what people see of each token, never empty, never half a character
        texts = token_texts(self.tokenizer)
        self.names = [text or token for text, token in zip(texts, self.tokenizer.tokens, strict=True)]

    @property
    def has_titles(self) -> bool:
        """Whether the model has learned to find titles of chapters."""
        return TITLE_MARK in self.tokenizer.marks

    def check(self, request: Request) -> None:
        """Raise a UserError unless a request fits the model."""
        size = self.tokenizer.vocab_size
        check_limits(SimpleNamespace(**request.values()), context=self.weights.context, vocab_size=size)
        if request.top > size:
            message = f"top: found {request.top}, expected at most the vocabulary's {size} tokens"
            raise UserError(message, '"top": 10', EXIT_USAGE)
        if request.guard and self.book is None:
            message = "guard: the book that the model was trained on is not at hand"
            raise UserError(message, hint_at_book(self.model_path), EXIT_USAGE)
        if request.mark and (request.forced or request.mark not in self.tokenizer.marks):
            message = f"mark: found {request.mark!r:.40}, expected a token of the model, without forced text"
            raise UserError(message, '"mark": ""', EXIT_USAGE)

    def controls(self, values: Mapping[str, object]) -> Controls:
        """Return how tokens are chosen by the values of generate.py's sampling options."""
        names = self.book.speakers if self.book and values["dry_multiplier"] else ()
        return make_controls(self.tokenizer, self.weights.device, names=names, **values)

    def cache_bytes(self, rows: int) -> int:
        """Return the memory that keys and values of some rows take at most."""
        size = {"fp32": 4, "bf16": 2, "int8": 1}[self.weights.kind]
        return rows * 2 * size * len(self.weights.layers) * self.weights.width * self.weights.context

    def read(self, ids: Sequence[int], tail: int = 1) -> Reading:
        """Return the reading of a text, which begins with what it shares with an earlier one."""
        return Reading(self.weights, torch.tensor(ids, device=self.weights.device), tail=tail, earlier=self.readings)

    def keep(self, reading: Reading) -> None:
        """Keep a text that was read to its end; the oldest go where the memory for them is full."""
        others = [other for other in self.readings if not torch.equal(other.ids, reading.ids)]
        self.readings = [reading]
        room = KEPT_BYTES - reading.num_bytes
        for other in others:
            room -= other.num_bytes
            if room >= 0:
                self.readings.append(other)

    def token(self, text: str, token_id: int, fact: Fact) -> Token:
        """Return a token with its alternatives as people see them."""
        return Token(text, token_id, fact.logprob, fact.rank, self.choices(fact.top), self.choices(fact.after))

    def choices(self, pairs: Sequence[tuple[int, float]]) -> tuple[Choice, ...]:
        """Return alternatives with their texts."""
        return tuple((self.names[token_id], token_id, chance) for token_id, chance in pairs)


def open_desk(
    model_path: str,
    *,
    on_read: Callable[[], object],
    device: str | None = None,
    quantize: str | None = None,
    precision: str = "auto",
    corpus: str | None = None,
    find: Callable[[], Book | None] | None = None,
) -> Desk:
    """Load a model into memory of our own, so that its folder may change, and look for its book.

    Args:
        model_path, device, quantize, precision, corpus: as of generate.py.
        on_read: called when the files of the model are read.
        find: returns the book, which others may have, too; None: it is read here.

    Raises:
        UserError: a damaged model folder, a device that is absent or cannot compute in that format, another book.
    """
    place = decoding_device(choose_devices(device)[0])
    model, tokenizer = read_model(model_path)
    # what is read may be a file mapped into memory, and a process dies where such a file gets shorter
    model = StoredModel(model.config, {name: tensor.clone() for name, tensor in model.weights.items()})
    on_read()
    weights = Weights(model, kind=choose_kind(quantize, precision, place), device=place)
    book = find() if find else find_book(model_path, corpus)
    name = Path(corpus or corpus_facts(model_path)["path"]).stem if book else None
    return Desk(weights, tokenizer, model.num_parameters(), model_path, book, name)


class Candidate:
    """One text of a job: tokens -> pieces, up to its end.

    Args:
        job: which it is part of.
        index: from 0.
        desk: of the model.
        rule: where it stops.
        prefix: token ids that it goes on from, those of the forced text among them.
        num_forced: how many of them are the forced text.
    """

    def __init__(self, job: Job, index: int, desk: Desk, rule: StopRule, prefix: list[int], num_forced: int):
        self.job, self.desk, self.rule, self.stops = job, desk, rule, job.request.stops
        self.sample = Sample(index, prefix)
        self.speller = Speller(desk.tokenizer, prefix[: len(prefix) - num_forced])
        self.held: list[Token] = []  # not shown yet: a text that ends it may have begun in them
        self.owed = 0.0  # nats of tokens without characters, which count with the next one

    def spell(self, token_id: int, fact: Fact) -> None:
        """Take a token that is part of the text."""
        self.held.append(self.desk.token(self.speller.push(token_id), token_id, fact))

    def take(self, token_id: int, fact: Fact) -> None:
        """Take the next token that was written; it is dropped where the text ends before it."""
        if self.sample.ended:
            return
        self.sample.ids.append(token_id)
        place = len(self.sample.ids) - 1
        if reason := self.find_end(place):
            if self.rule.is_answer and reason == "length":  # of one without an end the first sentence, as generate.py
                place = self.desk.endings.find_end(self.sample.ids, 1, "sentence") or place
                self.held = self.held[:place]
            self.sample.end(place, reason)
            return
        self.spell(token_id, fact)
        if self.rule.stop == "never" and place + 1 == self.rule.length:
            self.sample.end(place + 1, "length")

    def find_end(self, place: int) -> str:
        """Return why the text ends before the token at a place, empty where it does not."""
        rule, is_end = self.rule, self.desk.endings.is_end
        if rule.stop == "never" or place < max(1, rule.length):
            return ""
        if is_end(self.sample.ids, place, rule.stop):
            return rule.stop
        # the search has a bound, and shortly before it the end of a sentence will do
        last = rule.max_tokens - 1
        is_late = place >= last - STOPS["sentence"] and not rule.is_answer
        if place >= last or (is_late and is_end(self.sample.ids, place, "sentence")):
            return "length"
        return ""

    def show(self) -> None:
        """Hand on what is certain to stand, and the end where it has come; of an answer all of it at its end."""
        if self.rule.is_answer and not self.sample.ended:
            return
        text = "".join(token.text for token in self.held)
        cut = min((place for stop in self.stops if (place := text.find(stop)) >= 0), default=None)
        if cut is not None:
            self.sample.end(len(self.sample.ids), "stop")
        elif self.sample.ended:
            cut = len(text)
        else:
            cut = len(text) - longest_beginning(text, self.stops)
        shown = self.release(cut, is_last=bool(self.sample.ended))
        if shown:
            costs = [cost for token in shown for cost in self.costs(token)]
            self.job.grow(Piece(self.sample.index, "".join(token.text for token in shown), tuple(shown)), costs)
        if self.sample.ended:
            self.job.end(self.sample.index, self.sample.ended)

    def release(self, room: int, *, is_last: bool) -> list[Token]:
        """Take the tokens that fit into so many characters out of the held ones; the last one of all is cut to fit."""
        shown = []
        while self.held and len(self.held[0].text) <= room:
            shown.append(self.held.pop(0))
            room -= len(shown[-1].text)
        if is_last and self.held and room:
            shown.append(replace(self.held[0], text=self.held[0].text[:room]))
        return shown

    def costs(self, token: Token) -> list[float]:
        """Return the nats of each character of a token."""
        self.owed -= token.logprob
        if not token.text:
            return []
        owed, self.owed = self.owed, 0.0
        return [owed, *[0.0] * (len(token.text) - 1)]


def write_job(job: Job, desk: Desk) -> Iterator[None]:
    """Write a job to its end; a step is a turn.

    Args:
        job: begun by the first turn; once it has ended, the next turn is the last.
        desk: of the model.

    Raises:
        UserError: a request that does not fit the model, a text that the vocabulary cannot spell, or a model whose
            output is not a number.
    """
    desk.check(job.request)
    controls = desk.controls(job.request.values())
    # the others go on while the meter is made that a guard needs
    if job.request.guard and not desk.book.has_meter:
        maker = threading.Thread(target=lambda: desk.book.meter, daemon=True)
        maker.start()
        while maker.is_alive() and not job.is_ended:
            maker.join(0.01)
            yield
    # read what comes before
    request, tokenizer = job.request, desk.tokenizer
    job.begin()
    if job.is_ended:
        return
    forced = tokenizer.encode(request.forced).tolist()
    prefix = tokenizer.begin(tokenizer.encode(request.prompt)).tolist() + forced
    rule = StopRule(request.length, "never" if request.ending == "length" else request.ending)
    if request.mark:
        asked = SimpleNamespace(model_path=desk.model_path, length=-1, cut_loops=False)  # as long as it may be
        rule, room = answer_limits(asked, desk.weights.context)
        rule = answer_rule(min(request.length, rule.max_tokens - 1))
        prefix = add_mark(prefix, request.mark, tokenizer, room)
    window = first_window(prefix, desk.weights.context, controls.keep_head, desk.endings)
    reading = desk.read(window, tail=len(forced) + 1)
    for _ in reading.read_blocks():
        yield
        if job.is_ended:
            return
    desk.keep(reading)
    # the candidates, each with the forced text
    candidates = [Candidate(job, index, desk, rule, prefix, len(forced)) for index in range(request.candidates)]
    for token_id, fact in zip(forced, forced_facts(reading, forced, request.top), strict=True):
        for candidate in candidates:
            candidate.spell(token_id, fact)
    # write
    guard = None
    if request.guard:
        guard = CopyGuard(
            tokenizer, desk.book.meter, request.guard, request.prompt + request.forced, request.candidates
        )
    samples = [candidate.sample for candidate in candidates]
    settings = desk.weights, desk.endings, controls, rule, samples, job.seed
    own = {"reading": reading, "is_stopped": lambda: job.is_ended}
    batch = RecordedBatch(*settings, top=request.top, guard=guard, **own)
    size = 1  # tokens until something is shown, the first one at once
    while not job.is_ended:
        yield
        size = write_slice(batch, candidates, size)


def forced_facts(reading: Reading, ids: Sequence[int], top: int) -> list[Fact]:
    """Return what the model holds of the last tokens of a text."""
    if not ids:
        return []
    if len(reading.logits) <= len(ids) or not torch.isfinite(reading.logits).all():
        message = "the model's output is not a number, or the forced text is longer than its context"
        raise UserError(message, "use an earlier checkpoint, such as model/best_model", EXIT_STATE)
    return read_facts(describe_tokens(reading.logits[:-1], torch.tensor(ids, device=reading.logits.device), top))


def write_slice(batch: RecordedBatch, candidates: list[Candidate], size: int) -> int:
    """Write SLICE tokens of every candidate and show them `size` at a time; return how many suit SHOWN_EVERY."""
    left = SLICE
    while left > 0 and not all(candidate.sample.ended for candidate in candidates):
        began, first = time.perf_counter(), batch.count
        # at the bound of the rule every candidate has ended
        bound = candidates[0].rule.max_tokens + len(candidates[0].sample.prefix) - first
        rows = batch.decode_many(min(size, left, bound))
        count = batch.count - first
        if not count:  # stopped
            break
        for candidate, ids, facts in zip(candidates, rows, batch.facts(first), strict=True):
            if candidate.sample.ended:
                continue
            for token_id, fact in zip(ids, facts, strict=True):
                candidate.take(token_id, fact)
            candidate.show()
        left -= count
        size = max(1, min(SLICE, int(SHOWN_EVERY * count / (time.perf_counter() - began))))
    return size


def score_text(
    desk: Desk, text: str, start: int, end: int, top: int, values: Mapping[str, object] | None = None
) -> Iterator[list[Token]]:
    """Find out what a model holds of a stretch of a text; a step is a turn.

    Args:
        desk: of the model.
        text: whole; only what comes before `end` is read, from its beginning where that fits into the context, else
            CONTEXT_BEFORE tokens of what comes before `start`.
        start, end: characters, 0 <= start <= end <= len(text).
        top: alternatives of each token.
        values: of generate.py's sampling options; with them each token is told which alternatives could be drawn,
            penalties counting what is read.

    Yields:
        The tokens so far, at last of the whole stretch; together they have its characters.
    """
    tokenizer, context = desk.tokenizer, desk.weights.context
    least = max(0, start - context)
    before = tokenizer.encode(text[least:start]).tolist()
    if not least:
        before = [tokenizer.cls_id, *before]
    stretch = tokenizer.encode(text[start:end]).tolist()
    # one window, or several that overlap, so that every token has something before it
    fits = not least and len(before) + len(stretch) <= context
    ids = (before if fits else before[-CONTEXT_BEFORE:]) + stretch
    first, found, speller = len(ids) - len(stretch), [], Speller(tokenizer, before)
    controls = values and desk.controls(values)
    while first < len(ids):
        low = 0 if fits else max(0, first - min(CONTEXT_BEFORE, context // 2))
        high = min(len(ids), low + context)
        reading = desk.read(ids[low:high], tail=high - first + 1)
        for _ in reading.read_blocks():
            yield found
        wanted = torch.tensor(ids[first:high], device=desk.weights.device)
        described, after = describe_tokens(reading.logits[:-1], wanted, top), []
        if controls:
            for place in range(first, high, SLICE):
                last = min(high, place + SLICE)
                rows, text_ids = slice(place - first, last - first), torch.tensor(ids[low:last], device=wanted.device)
                after += read_chances(reading.logits[:-1][rows], text_ids, described[3][rows], controls)
                yield found
        facts = read_facts(described, after)
        tokens = zip(ids[first:high], facts, strict=True)
        found += [desk.token(speller.push(token_id), token_id, fact) for token_id, fact in tokens]
        first = high
    yield found
