"""A model and a prefix -> texts, token by token, each token read once.

    prefix ─prefill one row─ copy to all rows ─[ choose a token a row ─ read it ]*─ cut at an end ─ samples

When a row's context is full, the row goes on from a shorter window: the pinned head and the last part of the text from
a sentence start, read anew. Sample i is a function of (seed, i) alone: its numbers come from its own counter, its
logits do not depend on its neighbours (compute/packed.py), and its windows and its end depend on nothing but its text.
"""

from collections.abc import Callable, Sequence

import torch
from transformers import GPT2LMHeadModel

from novelgpt.compute import MAX_ROWS, capture_graph
from novelgpt.corpus.tokenizers import NovelTokenizer
from novelgpt.messages import EXIT_STATE, UserError
from novelgpt.writing.decoder import Decoder, Weights
from novelgpt.writing.endings import Endings
from novelgpt.writing.plan import BLOCK, Plan, Sample, answer_plan
from novelgpt.writing.sampling import Controls, choose_tokens, uniform_numbers

CONTROLS = {f"<0x{byte:02X}>" for byte in (*range(32), 127)} - {"<0x09>", "<0x0A>"}  # all but tab and newline


def fit_window(ids: list[int], context: int, keep_head: int, endings: Endings) -> list[int]:
    """Return the part of a text from which it goes on when the context is full.

    Args:
        ids: the whole text.
        context: tokens the model can hold.
        keep_head: tokens of the beginning to keep, at most a quarter of the context.
        endings: of the vocabulary.

    Returns:
        The head and the last tokens from a sentence start, at most half a context of them.
    """
    start = endings.sentence_start(ids, max(keep_head, len(ids) - context // 2))
    return ids[:keep_head] + ids[start:]


class Batch:
    """Some samples decoded together.

    Args:
        weights: of the model.
        endings: of its vocabulary.
        controls: how tokens are chosen.
        plan: what is to be written.
        seed: of the run.
        samples: to be filled; all have the same prefix.
    """

    def __init__(
        self, weights: Weights, endings: Endings, controls: Controls, plan: Plan, *, seed: int, samples: list[Sample]
    ):
        self.weights, self.endings, self.controls, self.plan, self.samples = weights, endings, controls, plan, samples
        prefix, device = samples[0].prefix, weights.device
        # a GPU always computes MAX_ROWS rows, since its kernels change with their number and more rows cost nothing
        rows = len(samples) if device.type == "cpu" else max(MAX_ROWS, len(samples))
        steps = plan.most + BLOCK
        self.decoder = Decoder(weights, rows=rows, slots=min(weights.context, len(prefix) + steps))
        self.count = len(prefix)  # columns of the history written
        self.history = torch.zeros(rows, self.count + steps, dtype=torch.int64, device=device)  # (B, N)
        self.history[:, : self.count] = torch.tensor(prefix, device=device)
        self.uniforms = torch.zeros(rows, self.count + steps, dtype=torch.float64, device=device)  # (B, N)
        for row, sample in enumerate(samples):
            numbers = uniform_numbers(seed, sample.index, steps, attempt=sample.attempt)
            self.uniforms[row, self.count :] = torch.from_numpy(numbers)
        self.place = torch.tensor([self.count], device=device)  # (1,) the count as a GPU sees it
        self.logits = self.read_prefix(prefix)  # (B, V)
        self.replay = capture_graph(self.decode_token_on_device, device, [self.place, self.decoder.places, self.logits])

    def read_prefix(self, prefix: list[int]) -> torch.Tensor:
        """Read the common prefix once and give it to all rows; returns the logits (B, V) after it."""
        window, context = prefix, self.weights.context
        if len(prefix) + BLOCK > context:
            window = fit_window(prefix, context, self.plan.keep_head, self.endings)
        logits = self.decoder.prefill(0, torch.tensor(window, device=self.weights.device))  # (1, V)
        if not torch.isfinite(logits).all():
            message = "the model's output is not a number"
            raise UserError(message, "use an earlier checkpoint, such as model/best_model", EXIT_STATE)
        self.decoder.copy_first()
        if self.plan.is_answer:
            logits[:, self.endings.chapter] = -torch.inf  # an answer is not empty
        return logits.repeat(self.decoder.rows, 1)

    def decode_token(self) -> None:
        """Choose the next token of every row and read it."""
        written = self.history[:, : self.count]
        tokens = choose_tokens(self.logits, written, self.count, self.uniforms[:, self.count], self.controls)
        self.history[:, self.count] = tokens
        self.logits = self.decoder.step(tokens)
        self.count += 1

    def decode_token_on_device(self) -> None:
        """Do the same with fixed shapes and without a look at any number, so that a CUDA graph can hold it."""
        uniforms = self.uniforms.index_select(1, self.place).squeeze(1)
        tokens = choose_tokens(self.logits, self.history, self.place, uniforms, self.controls)
        self.history.index_copy_(1, self.place, tokens.unsqueeze(1))
        self.logits.copy_(self.decoder.read(tokens))
        self.place += 1

    def decode_many(self, count: int) -> list[list[int]]:
        """Decode up to `count` tokens a row, fewer where a row's context fills; returns the new ones of each row."""
        self.make_room()
        before = self.count
        for _ in range(min(count, self.decoder.slots - max(self.decoder.lengths))):
            if self.replay is None:
                self.decode_token()
            else:
                self.replay()
                self.decoder.note_step()
                self.count += 1
        return self.history[: len(self.samples), before : self.count].tolist()

    def make_room(self) -> None:
        """Read the window of every row whose context is full anew; what a finished row holds matters to nobody."""
        for row in range(self.decoder.rows):
            if self.decoder.lengths[row] < self.decoder.slots:
                continue
            if row >= len(self.samples) or self.samples[row].ended:
                self.decoder.set_length(row, self.decoder.slots // 2)
                continue
            ids = self.history[row, : self.count].tolist()
            window = fit_window(ids, self.weights.context, self.plan.keep_head, self.endings)
            self.decoder.prefill(row, torch.tensor(window, device=self.weights.device))


def write_samples(
    weights: Weights,
    tokenizer: NovelTokenizer,
    prefix: Sequence[int],
    indices: Sequence[int],
    *,
    plan: Plan,
    controls: Controls,
    seed: int,
    attempt: int = 0,
    block: int = BLOCK,
    watch: Callable[[list[Sample]], None] = lambda samples: None,
) -> list[Sample]:
    """Write some samples of one prefix together.

    Args:
        weights: of the model.
        tokenizer: of the model.
        prefix: token ids, at least one.
        indices: which samples of the run; at most MAX_ROWS of them on a CPU.
        plan: what is to be written.
        controls: how tokens are chosen.
        seed: of the run.
        attempt: for further tries of the same samples.
        block: tokens between two calls of watch.
        watch: called with all samples after every block, and once more at the end.

    Returns:
        The samples in the order of the indices, all ended.
    """
    endings = Endings(tokenizer)
    samples = [Sample(index, list(map(int, prefix)), attempt=attempt) for index in indices]
    batch = Batch(weights, endings, controls, plan, seed=seed, samples=samples)
    while not all(sample.ended for sample in samples):
        left = plan.most - max(len(sample.ids) for sample in samples if not sample.ended)
        for sample, tokens in zip(samples, batch.decode_many(min(block, left)), strict=True):
            sample.extend(tokens, plan, endings)
        watch(samples)
    return samples


def banned_ids(tokenizer: NovelTokenizer) -> list[int]:
    """Return the ids of tokens that are no text: [UNK], [PAD], [MASK], unused ones, control characters."""
    marks = [tokenizer.unk_id, tokenizer.pad_id, tokenizer.marks.get("[MASK]")]
    other = [i for i, token in enumerate(tokenizer.tokens) if token.startswith("[unused") or token in CONTROLS]
    return sorted({index for index in marks if index is not None} | set(other))


def make_controls(
    tokenizer: NovelTokenizer, device: torch.device, *, bad_words: Sequence[str] = (), **values
) -> Controls:
    """Return controls whose banned tokens and words lie on the device.

    Args:
        tokenizer: of the model.
        device: of the logits.
        bad_words: texts never to be written.
        values: the other fields of Controls.
    """
    words = tuple(torch.from_numpy(tokenizer.encode(word).astype("int64")).to(device) for word in bad_words if word)
    return Controls(banned=torch.tensor(banned_ids(tokenizer), device=device), bad_words=words, **values)


def generate_text(
    model: GPT2LMHeadModel,
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
    """Let a model write a few texts; for use in the middle of a training.

    Args:
        model: left as it is, its mode and device too.
        tokenizer: of the model.
        prefix: with or without [CLS] in front.
        length: new tokens.
        num_samples: how many texts, at most MAX_ROWS.
        seed: text i is a function of (seed, i).
        temperature, topk, topp: as in Controls.
        is_answer: the prefix ends with a mark; see answer_plan.

    Returns:
        The texts, prefix included, as people read them.
    """
    weights = Weights(model, kind="fp32")
    controls = make_controls(tokenizer, weights.device, temperature=temperature, topk=topk, topp=topp)
    samples = write_samples(
        weights,
        tokenizer,
        tokenizer.encode_prefix(prefix),
        range(num_samples),
        plan=answer_plan(length) if is_answer else Plan(length),
        controls=controls,
        seed=seed,
    )
    return [tokenizer.show(sample.prefix + sample.ids) for sample in samples]
