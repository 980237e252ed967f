"""A GPT-2 and tokens -> logits of the next token, with the keys and values of all earlier tokens kept.

One layer of one step, B samples at a time::

    x (B, D) ─norm, qkv→ q k v (B, H, D/H) ─k, v into the cache at the row's length─ attend → (B, D) ─projection→ x +
    x (B, D) ─norm, fc, activation, projection→ x +

Rows may have different lengths: a row whose context is full is read again from a shorter window while the others wait.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from novelgpt.compute import Norm, Product, cache_for, make_feed_forward, make_product

if TYPE_CHECKING:  # takes seconds to load, and a StoredModel needs none of it
    from transformers import GPT2LMHeadModel

    from novelgpt.network import StoredModel

BLOCK = 128  # tokens of a text read at a time, whole tiles of the cache


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

    def prefill(self, row: int, ids: torch.Tensor, *, every: bool = False) -> torch.Tensor:
        """Read a whole text into a row, whatever it held before.

        Args:
            row: which one.
            ids: (N,) int64, 1 <= N <= slots.
            every: return the logits after every token, (N, V), instead of after the last, (1, V).
        """
        found = list(self.read_blocks(row, ids, tail=len(ids) if every else 1))
        return torch.cat(found) if every else found[-1]

    def read_blocks(self, row: int, ids: torch.Tensor, *, start: int = 0, tail: int = 1) -> Iterator[torch.Tensor]:
        """Read a text into a row a block at a time; what a block gives depends on itself and those before it alone.

        So a text that begins like one that was read, by whole blocks, goes on from there and is the same to the bit.

        Args:
            row: which one.
            ids: (N,) int64 of the whole text, 1 <= N <= slots.
            start: tokens that the row holds already, a multiple of BLOCK below N.
            tail: after how many of the last tokens logits are wanted, at least 1.

        Yields:
            (M, V) behind each block: the wanted logits after its tokens, M from 0 to BLOCK.
        """
        # keys and values of the whole text as attention wants them, at the same distances whatever its length
        weights, length = self.weights, len(ids)
        shape = (len(weights.layers), 2, weights.num_heads, weights.context, weights.width // weights.num_heads)
        read = torch.empty(shape, dtype=self.cache.dtype, device=weights.device)  # (L, 2, H, C, D/H)
        for number in range(len(weights.layers) if start else 0):
            read[number, 0, :, :start], read[number, 1, :, :start] = self.cache.read(number, row, start)
        for first in range(start, length, BLOCK):
            stop = min(first + BLOCK, length)
            yield self.read_block(
                row, ids[first:stop], first, read, num_logits=max(0, stop - max(first, length - tail))
            )

    @torch.no_grad()
    def read_block(
        self, row: int, ids: torch.Tensor, start: int, read: torch.Tensor, *, num_logits: int
    ) -> torch.Tensor:
        """Read the tokens (N,) that follow `start` others, of which `read` has keys and values; returns (M, V)."""
        weights, length, stop = self.weights, len(ids), start + len(ids)
        x = weights.token_table[ids] + weights.position_table[start:stop]  # (N, D)
        seen = torch.ones(length, stop, dtype=torch.bool, device=weights.device).tril(start) if start else None
        for number, layer in enumerate(weights.layers):
            qkv = layer.qkv(x)  # (N, 3 D)
            q, k, v = qkv.view(length, 3, weights.num_heads, -1).permute(1, 2, 0, 3)  # (H, N, D/H) each
            # attend to keys and values as they are stored, so that later steps see what this one saw
            read[number, 0, :, start:stop], read[number, 1, :, start:stop] = self.cache.fill(number, row, k, v, start)
            keys, values = read[number, :, None, :, :stop]  # (1, H, S, D/H) each
            y = F.scaled_dot_product_attention(q[None], keys, values, seen, is_causal=not start)[0]  # (H, N, D/H)
            x = x + layer.attention_out(y.transpose(0, 1).reshape(length, -1))  # (N, D)
            x = x + layer.feed_forward(x)
        self.set_length(row, stop)
        # the last one alone: what it gives must not depend on how many others are wanted
        wanted = [x[length - num_logits : -1], x[-1:]] if num_logits > 1 else [x[length - num_logits :]]
        return torch.cat(
            [weights.head(rows).float() for rows in wanted if len(rows)] or [x.new_empty(0, weights.vocab_size)]
        )

    def set_length(self, row: int, length: int) -> None:
        """Set how many tokens a row holds."""
        self.lengths[row] = length
        self.positions[row] = length

    def copy_first(self) -> None:
        """Give every row what the first one holds: a prefix common to all samples is read once."""
        self.cache.copy_first(self.lengths[0])
        for row in range(1, self.rows):
            self.set_length(row, self.lengths[0])

    def copy_from(self, other: "Decoder", length: int) -> None:
        """Give the first row the first tokens of the first row of another decoder of the same weights."""
        self.cache.copy_from(other.cache, length)
        self.set_length(0, length)

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


class Reading:
    """A text that a network reads, a block at a time; samples begin with it, and later texts with what they share.

    Args:
        weights: of the model.
        ids: (N,) int64 of the whole text, at most a context.
        tail: after how many of the last tokens logits are wanted, at least 1.
        earlier: texts that were read to their ends; this one begins with the longest whole blocks of them.

    Attributes:
        start: tokens taken from an earlier text.
        logits: (min(tail, N), V), complete when the last block is read.
    """

    def __init__(self, weights: Weights, ids: torch.Tensor, *, tail: int = 1, earlier: "Sequence[Reading]" = ()):
        self.ids, self.tail = ids, min(tail, len(ids))
        self.decoder = Decoder(weights, rows=1, slots=-(-len(ids) // BLOCK) * BLOCK)
        self.logits = torch.empty(0, weights.vocab_size, device=weights.device)
        shared = [reading.count_shared(ids) for reading in earlier]
        best = max(range(len(shared)), key=shared.__getitem__, default=None)
        self.start = 0
        if best is not None and shared[best]:
            self.start = self.take_from(earlier[best], shared[best])

    def count_shared(self, ids: torch.Tensor) -> int:
        """Return with how many tokens of this text another one begins."""
        length = min(len(ids), len(self.ids))
        different = torch.nonzero(ids[:length] != self.ids[:length])
        return int(different[0]) if len(different) else length

    def take_from(self, other: "Reading", shared: int) -> int:
        """Copy what two texts share, all of it where they are the same, else whole blocks; return the tokens."""
        # after the last `tail` tokens logits are needed, which only reading them gives
        length = len(self.ids)
        is_same = shared == length == len(other.ids) and len(other.logits) >= self.tail
        start = length if is_same else min(shared, length - self.tail) // BLOCK * BLOCK
        self.decoder.copy_from(other.decoder, start)
        if is_same:
            self.logits = other.logits[len(other.logits) - self.tail :]
        return start

    def read_blocks(self) -> Iterator[None]:
        """Read what is left of the text; a step is a block."""
        if self.start < len(self.ids):
            for logits in self.decoder.read_blocks(0, self.ids, start=self.start, tail=self.tail):
                self.logits = torch.cat([self.logits, logits])
                yield

    @property
    def num_bytes(self) -> int:
        """The memory it holds."""
        return self.decoder.cache.num_bytes + self.logits.nbytes


def perplexity(weights: Weights, ids: list[int]) -> float:
    """Return the perplexity of a text of at most one context, at least two tokens."""
    tokens = torch.tensor(ids, device=weights.device)
    logits = Decoder(weights, rows=1, slots=len(ids)).prefill(0, tokens, every=True)  # (N, V)
    return float(F.cross_entropy(logits[:-1], tokens[1:]).exp())
