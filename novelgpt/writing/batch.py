"""Samples of one prefix decoded together, a row each, however far they run beyond the context.

    prefix ─prefill one row─ copy to all rows ─[ choose a token a row ─ read it ]*

When a row's context is full, the row continues from a shorter window: the pinned head and the last part of the text
from a sentence start, read again; with --adapt by weights that have learned what has left.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

from novelgpt.compute import MAX_ROWS, capture_graph
from novelgpt.messages import EXIT_STATE, UserError
from novelgpt.writing.decoder import Decoder, Reading, Weights
from novelgpt.writing.sampling import Controls, choose_tokens, uniform_numbers
from novelgpt.writing.text import CHECK_EVERY, Endings, Sample, StopRule

if TYPE_CHECKING:
    from novelgpt.writing.learning import TextLearner


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
        learner: of what leaves the window of a sample, which then is the only one; None learns nothing.
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
        learner: "TextLearner | None" = None,
        reading: Reading | None = None,
        is_stopped: Callable[[], bool] = bool,
    ):
        self.weights, self.endings, self.controls, self.samples = weights, endings, controls, samples
        self.learner, self.reading, self.is_stopped = learner, reading, is_stopped
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
            if self.learner:
                self.learn(ids, len(ids) - len(window) + self.controls.keep_head)
            for _logits in self.decoder.read_blocks(row, torch.tensor(window, device=self.weights.device)):
                if self.is_stopped():
                    return
            if self.learner:
                self.replay = self.capture()

    def learn(self, ids: list[int], end: int) -> None:
        """Learn a text up to where its window begins now, and go on by the new weights."""
        self.weights = self.learner.follow(ids, end)
        self.decoder = Decoder(self.weights, rows=self.decoder.rows, slots=self.decoder.slots)
        for row in range(1, self.decoder.rows):  # of a GPU, none of them used
            self.decoder.set_length(row, self.decoder.slots // 2)
