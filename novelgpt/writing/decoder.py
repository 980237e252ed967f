"""A GPT-2 and tokens -> logits of the next token, with the keys and values of all earlier tokens kept.

One layer of one step, B samples at a time::

    x (B, D) ─norm, qkv→ q k v (B, H, D/H) ─k, v into the cache at the row's length─ attend → (B, D) ─projection→ x +
    x (B, D) ─norm, fc, activation, projection→ x +

Rows may have different lengths: a row whose context is full is read again from a shorter window while the others wait:
the pinned head and the last part of the text from a sentence start; with --adapt by weights that have learned what has
left. A batch of samples is a row each::

    prefix ─prefill one row─ copy to all rows ─[ choose a token a row ─ read it ]*
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from novelgpt.compute import MAX_ROWS, Norm, Product, cache_for, capture_graph, make_feed_forward, make_product
from novelgpt.writing.sampling import Controls, choose_tokens, uniform_numbers
from novelgpt.writing.text import CHECK_EVERY, Endings, Sample, StopRule

if TYPE_CHECKING:  # takes seconds to load, and a StoredModel needs none of it
    from transformers import GPT2LMHeadModel

    from novelgpt.network import StoredModel


@dataclass(frozen=True)
class Layer:
    """The weights of one transformer block as products; the first and the last begin with a layer norm."""

    qkv: Product
    attention_out: Product
    feed_forward: Product


def decoding_device(device: torch.device) -> torch.device:
    """Return where to write for a model on a device.

    That is the same one, but for a Mac's GPU: it has no float64, in which tokens are drawn, and no graph of a step,
    so the CPU writes, in the form that is packed for it.

    >>> decoding_device(torch.device("mps"))
    device(type='cpu')
    """
    return torch.device("cpu") if device.type == "mps" else device


class Weights:
    """A GPT-2's weights in the form of `make_product`; one object serves any number of decoders.

    Args:
        model: a GPT2LMHeadModel or what read_model returned; its weights are copied or shared, never changed.
        kind: "fp32", "bf16" or "int8".
        device: where to compute; None = where the model is, as decoding_device says.
    """

    @torch.no_grad()
    def __init__(
        self, model: "GPT2LMHeadModel | StoredModel", *, kind: str = "fp32", device: torch.device | None = None
    ):
        config, weights = model.config, model.state_dict()
        self.kind, self.config = kind, config
        home = weights["transformer.wte.weight"].device
        self.device = decoding_device(home if device is None else torch.device(device))
        self.num_heads, self.width = config.n_head, config.n_embd
        self.context = config.n_positions  # tokens
        self.vocab_size = config.vocab_size

        def take(name: str) -> torch.Tensor:
            return weights[f"transformer.{name}"].detach().to(self.device, torch.float32)

        self.token_table, self.position_table = take("wte.weight"), take("wpe.weight")
        self.layers = [self.read_layer(take, f"h.{number}") for number in range(config.n_layer)]
        head = weights["lm_head.weight"].detach().to(self.device, torch.float32)
        self.head = make_product(head, None, kind, norm=self.read_norm(take, "ln_f"))

    def read_norm(self, take: Callable[[str], torch.Tensor], name: str) -> Norm:
        """Return weight, bias and epsilon of a layer norm."""
        return take(f"{name}.weight"), take(f"{name}.bias"), self.config.layer_norm_epsilon

    def read_layer(self, take: Callable[[str], torch.Tensor], block: str) -> Layer:
        """Read one block; GPT-2 stores its matrices as (in, out)."""
        names = [f"{block}.{part}" for part in ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")]
        qkv, out, *wide = [(take(f"{name}.weight").t(), take(f"{name}.bias")) for name in names]
        norm, activation = self.read_norm(take, f"{block}.ln_2"), self.config.activation_function
        return Layer(
            make_product(*qkv, self.kind, norm=self.read_norm(take, f"{block}.ln_1")),
            make_product(*out, self.kind),
            make_feed_forward(*wide, self.kind, norm=norm, activation=activation),
        )


class Decoder:
    """The cache of some samples and the two ways to fill it.

    Args:
        weights: of the model.
        rows: samples decoded at a time.
        slots: tokens a row can hold, at most the model's context.
    """

    def __init__(self, weights: Weights, *, rows: int, slots: int):
        self.weights, self.rows, self.slots = weights, rows, slots
        self.lengths = [0] * rows  # tokens in each row
        self.positions = torch.zeros(rows, dtype=torch.int64, device=weights.device)  # the same (rows,)
        sizes = (len(weights.layers), rows, weights.num_heads, weights.width // weights.num_heads, slots)
        self.cache = cache_for(weights.device)(weights.kind, *sizes, self.positions)

    @torch.no_grad()
    def prefill(self, row: int, ids: torch.Tensor, *, every: bool = False) -> torch.Tensor:
        """Read a whole text into a row, whatever it held before.

        Args:
            row: which one.
            ids: (N,) int64, 1 <= N <= slots.
            every: return the logits after every token, (N, V), instead of after the last, (1, V).
        """
        weights, length = self.weights, len(ids)
        x = weights.token_table[ids] + weights.position_table[:length]  # (N, D)
        for number, layer in enumerate(weights.layers):
            qkv = layer.qkv(x)  # (N, 3 D)
            q, k, v = qkv.view(length, 3, weights.num_heads, -1).permute(1, 2, 0, 3)  # (H, N, D/H) each
            # attend to keys and values as they are stored, so that later steps see what this one saw
            k, v = self.cache.fill(number, row, k, v)
            y = F.scaled_dot_product_attention(q[None], k[None], v[None], is_causal=True)[0]  # (H, N, D/H)
            x = x + layer.attention_out(y.transpose(0, 1).reshape(length, -1))  # (N, D)
            x = x + layer.feed_forward(x)
        self.set_length(row, length)
        return weights.head(x if every else x[-1:]).float()

    def set_length(self, row: int, length: int) -> None:
        """Set how many tokens a row holds."""
        self.lengths[row] = length
        self.positions[row] = length

    def copy_first(self) -> None:
        """Give every row what the first one holds: a prefix common to all samples is read once."""
        self.cache.copy_first(self.lengths[0])
        for row in range(1, self.rows):
            self.set_length(row, self.lengths[0])

    def step(self, tokens: torch.Tensor) -> torch.Tensor:
        """Read one more token (B,) int64 into every row; returns the logits (B, V) of the token after it."""
        logits = self.read(tokens)
        self.note_step()
        return logits

    def note_step(self) -> None:
        """Count a token that `read` put into every row."""
        self.lengths = [length + 1 for length in self.lengths]

    @torch.no_grad()
    def read(self, tokens: torch.Tensor) -> torch.Tensor:
        """Do the arithmetic of a step, all of it on the device, so that a CUDA graph can hold it."""
        # positions stay on the device; `lengths` are counted beside them, by note_step
        weights = self.weights
        x = weights.token_table[tokens] + weights.position_table[self.positions]  # (B, D)
        for number, layer in enumerate(weights.layers):
            qkv = layer.qkv(x)  # (B, 3 D)
            x = x + layer.attention_out(self.cache.attend(number, qkv))  # (B, D) fp32, whatever is added
            x = x + layer.feed_forward(x)
        self.positions += 1
        return weights.head(x).float()


def fit_window(ids: list[int], context: int, keep_head: int, endings: Endings) -> list[int]:
    """Return what is read when the context is full: the head and at most half a context from a sentence start."""
    start = endings.find_sentence(ids, max(keep_head, len(ids) - context // 2))
    return ids[:keep_head] + ids[start:]


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
        learner: TextLearner of what leaves the window of a sample, which then is the only one; None learns nothing.
        counts_nats: note how much each token surprises the model.
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
        learner=None,
        counts_nats: bool = False,
    ):
        self.weights, self.endings, self.controls, self.samples = weights, endings, controls, samples
        self.learner = learner
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
        self.nats = torch.zeros(self.history.shape, device=device) if counts_nats else None  # fp32 (B, N)
        self.column = torch.tensor([self.count], device=device)  # (1,) the count as a GPU sees it
        self.logits = self.read_prefix(prefix, is_answer=rule.is_answer)  # (B, V)
        self.capture()

    def capture(self) -> None:
        """Make a step fast where the device can, once the decoder is filled."""
        tensors = [self.column, self.decoder.positions, self.logits]
        self.replay = capture_graph(self.decode_token_on_device, self.weights.device, tensors)

    def read_prefix(self, prefix: list[int], *, is_answer: bool) -> torch.Tensor:
        """Read the common prefix once and give it to all rows; returns the logits (B, V) after it."""
        window, context = prefix, self.weights.context
        if len(prefix) + CHECK_EVERY > context:
            window = fit_window(prefix, context, self.controls.keep_head, self.endings)
        logits = self.decoder.prefill(0, torch.tensor(window, device=self.weights.device))  # (1, V)
        self.is_sound = bool(torch.isfinite(logits).all())
        self.decoder.copy_first()
        if is_answer:  # must not end before its first token
            logits[:, self.endings.chapter] = -torch.inf
        return logits.repeat(self.decoder.rows, 1)  # (B, V)

    def decode_token(self) -> None:
        """Choose the next token of every row and read it."""
        written = self.history[:, : self.count]  # (B, count)
        before = self.logits.clone() if self.nats is not None else None  # choosing changes them
        tokens = choose_tokens(self.logits, written, self.count, self.uniforms[:, self.count], self.controls)
        self.history[:, self.count] = tokens
        if before is not None:
            self.nats[:, self.count] = F.cross_entropy(before, tokens, reduction="none")
        self.logits = self.decoder.step(tokens)
        self.count += 1

    def decode_token_on_device(self) -> None:
        """Do the same with fixed shapes and without reading any number back, so that a CUDA graph can hold it."""
        uniforms = self.uniforms.index_select(1, self.column).squeeze(1)  # (B,)
        before = self.logits.clone() if self.nats is not None else None
        tokens = choose_tokens(self.logits, self.history, self.column, uniforms, self.controls)
        self.history.index_copy_(1, self.column, tokens.unsqueeze(1))
        if before is not None:
            self.nats.index_copy_(1, self.column, F.cross_entropy(before, tokens, reduction="none").unsqueeze(1))
        self.logits.copy_(self.decoder.read(tokens))
        self.column += 1

    def decode_many(self, count: int) -> list[list[int]]:
        """Decode up to `count` tokens a row, fewer where a row's context fills; returns the new ones of each row."""
        self.make_room()
        before = self.count
        # no row may fill up on the way, for only make_room can shorten it
        for _ in range(min(count, self.decoder.slots - max(self.decoder.lengths))):
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
            self.decoder.prefill(row, torch.tensor(window, device=self.weights.device))
            if self.learner:
                self.capture()

    def learn(self, ids: list[int], end: int) -> None:
        """Learn a text up to where its window begins now, and go on by the new weights."""
        self.weights = self.learner.follow(ids, end)
        self.decoder = Decoder(self.weights, rows=self.decoder.rows, slots=self.decoder.slots)
        for row in range(1, self.decoder.rows):  # of a GPU, none of them used
            self.decoder.set_length(row, self.decoder.slots // 2)

    def note_nats(self, samples: list[Sample]) -> None:
        """Give every sample the nats of its tokens."""
        begin = len(samples[0].prefix)
        for row, sample in enumerate(samples):
            sample.nats = self.nats[row, begin : begin + len(sample.ids)].tolist()


def perplexity(weights: Weights, ids: list[int]) -> float:
    """Return the perplexity of a text of at most one context, at least two tokens."""
    tokens = torch.tensor(ids, device=weights.device)
    logits = Decoder(weights, rows=1, slots=len(ids)).prefill(0, tokens, every=True)  # (N, V)
    return float(F.cross_entropy(logits[:-1], tokens[1:]).exp())
