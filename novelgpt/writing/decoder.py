"""A GPT-2 and tokens -> logits of the next token, with the keys and values of all earlier tokens kept.

One layer of one step, B samples at a time::

    x (B, D) ─norm, qkv→ q k v (B, H, D/H) ─k, v into the cache at the row's length─ attend → (B, D) ─projection→ x +
    x (B, D) ─norm, fc, activation, projection→ x +

Rows may have different lengths: a row whose context is full is read again from a shorter window while the others wait.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from novelgpt.compute import Norm, Product, cache_for, make_feed_forward, make_product

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


def perplexity(weights: Weights, ids: list[int]) -> float:
    """Return the perplexity of a text of at most one context, at least two tokens."""
    tokens = torch.tensor(ids, device=weights.device)
    logits = Decoder(weights, rows=1, slots=len(ids)).prefill(0, tokens, every=True)  # (N, V)
    return float(F.cross_entropy(logits[:-1], tokens[1:]).exp())
