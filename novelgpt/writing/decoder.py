"""The weights of a GPT-2 -> logits of the next token, with keys and values of all earlier tokens kept.

One layer of one step, B samples at a time::

    x (B, D) ─norm, qkv→ q k v (B, H, D/H) ─k, v into the cache at the row's length─ attend → (B, D) ─projection→ x +
    x (B, D) ─norm, fc, activation, projection→ x +

Rows may stand at different lengths: a row whose context is full is filled anew while the others wait.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from transformers import GPT2LMHeadModel
from transformers.activations import ACT2FN

from novelgpt.writing.linear import Product, make_product


@dataclass(frozen=True)
class Layer:
    """The weights of one transformer block as products and norms."""

    norm_1: tuple[torch.Tensor, torch.Tensor]
    qkv: Product
    attention_out: Product
    norm_2: tuple[torch.Tensor, torch.Tensor]
    widen: Product
    narrow: Product


class Weights:
    """A GPT-2's weights in the form of `make_product`; one object serves any number of decoders.

    Args:
        model: its weights are copied or shared, never changed; dropout plays no part.
        kind: "fp32", "bf16" or "int8".
        device: where to compute; None = where the model is.
    """

    @torch.no_grad()
    def __init__(self, model: GPT2LMHeadModel, *, kind: str = "fp32", device: torch.device | None = None):
        config, body = model.config, model.transformer
        self.kind, self.config = kind, config
        self.device = torch.device(device) if device is not None else body.wte.weight.device
        self.num_heads, self.width, self.epsilon = config.n_head, config.n_embd, config.layer_norm_epsilon
        self.context = config.n_positions  # tokens
        self.vocab_size = config.vocab_size
        self.activation = fast_activation(config.activation_function)
        self.token_table, self.place_table = self.fp32(body.wte.weight), self.fp32(body.wpe.weight)
        self.layers = [self.read_layer(block) for block in body.h]
        self.last_norm = self.read_norm(body.ln_f)
        self.head = make_product(self.fp32(model.lm_head.weight), None, kind)

    def fp32(self, weight: torch.Tensor) -> torch.Tensor:
        """Return a weight in fp32 on our device."""
        return weight.detach().to(self.device, torch.float32)

    def read_norm(self, norm: torch.nn.LayerNorm) -> tuple[torch.Tensor, torch.Tensor]:
        """Return weight and bias of a layer norm."""
        return self.fp32(norm.weight), self.fp32(norm.bias)

    def read_layer(self, block: torch.nn.Module) -> Layer:
        """Read one block; GPT-2 stores its matrices as (in, out)."""
        matrices = (block.attn.c_attn, block.attn.c_proj, block.mlp.c_fc, block.mlp.c_proj)
        qkv, out, widen, narrow = (
            make_product(self.fp32(matrix.weight).t().contiguous(), self.fp32(matrix.bias), self.kind)
            for matrix in matrices
        )
        return Layer(self.read_norm(block.ln_1), qkv, out, self.read_norm(block.ln_2), widen, narrow)

    def norm(self, x: torch.Tensor, norm: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        """Apply a layer norm."""
        return F.layer_norm(x, (self.width,), *norm, self.epsilon)

    def feed_forward(self, layer: Layer, x: torch.Tensor) -> torch.Tensor:
        """Return x (N, D) after the second half of a block."""
        return x + layer.narrow(self.activation(layer.widen(self.norm(x, layer.norm_2))))


def fast_activation(name: str):
    """Return an activation function by its GPT-2 name; gelu_new is the tanh form of GELU, which PyTorch has whole."""
    if name in ("gelu_new", "gelu_pytorch_tanh", "gelu_fast"):
        return lambda x: F.gelu(x, approximate="tanh")
    return ACT2FN[name]


class Decoder:
    """The cache of some samples and the two ways to fill it.

    Args:
        weights: of the model.
        rows: samples decoded at a time.
        slots: tokens a row can hold, at most the model's context.

    Attributes:
        lengths: tokens in each row.
        places: the same as a tensor (rows,) on the device.
    """

    def __init__(self, weights: Weights, *, rows: int, slots: int):
        self.weights, self.rows, self.slots = weights, rows, slots
        head_width = weights.width // weights.num_heads
        shape = (len(weights.layers), rows, weights.num_heads, slots, head_width)
        # half precision halves what a GPU reads; a CPU converts so slowly that fp32 is faster
        dtype = torch.bfloat16 if weights.device.type == "cuda" and weights.kind == "bf16" else torch.float32
        self.keys = torch.zeros(shape, dtype=dtype, device=weights.device)  # (L, B, H, S, D/H)
        self.values = torch.zeros_like(self.keys)
        self.lengths = [0] * rows
        self.places = torch.zeros(rows, dtype=torch.int64, device=weights.device)
        self.row_numbers = torch.arange(rows, device=weights.device)
        self.slot_numbers = torch.arange(slots, device=weights.device)
        self.attend = self.attend_used if weights.device.type == "cpu" else self.attend_masked

    @torch.no_grad()
    def prefill(self, row: int, ids: torch.Tensor, *, every: bool = False) -> torch.Tensor:
        """Read a whole text into a row, whatever it held before.

        Args:
            row: which one.
            ids: (N,) int64, 1 <= N <= slots.
            every: return the logits after every token, (N, V), instead of after the last, (1, V).
        """
        weights, length = self.weights, len(ids)
        x = weights.token_table[ids] + weights.place_table[:length]  # (N, D)
        for number, layer in enumerate(weights.layers):
            qkv = layer.qkv(weights.norm(x, layer.norm_1))  # (N, 3 D)
            q, k, v = qkv.view(length, 3, weights.num_heads, -1).permute(1, 2, 0, 3)  # (H, N, D/H) each
            self.keys[number, row, :, :length] = k
            self.values[number, row, :, :length] = v
            y = F.scaled_dot_product_attention(q[None], k[None], v[None], is_causal=True)[0]
            x = x + layer.attention_out(y.transpose(0, 1).reshape(length, -1))
            x = weights.feed_forward(layer, x)
        self.set_length(row, length)
        return weights.head(weights.norm(x if every else x[-1:], weights.last_norm))

    def set_length(self, row: int, length: int) -> None:
        """Say how many tokens a row holds."""
        self.lengths[row] = length
        self.places[row] = length

    def copy_first(self) -> None:
        """Give every row what the first one holds: a prefix common to all samples is read once."""
        used = self.lengths[0]
        for cache in (self.keys, self.values):
            cache[:, 1:, :, :used] = cache[:, :1, :, :used]
        for row in range(1, self.rows):
            self.set_length(row, used)

    def step(self, tokens: torch.Tensor) -> torch.Tensor:
        """Read one more token into every row.

        Args:
            tokens: (B,) int64.

        Returns:
            logits (B, V) of the token after it.
        """
        logits = self.read(tokens)
        self.note_step()
        return logits

    def note_step(self) -> None:
        """Count a token that `read` put into every row."""
        self.lengths = [length + 1 for length in self.lengths]

    @torch.no_grad()
    def read(self, tokens: torch.Tensor) -> torch.Tensor:
        """Do the arithmetic of a step, all of it on the device, so that a CUDA graph can hold it."""
        weights = self.weights
        x = weights.token_table[tokens] + weights.place_table[self.places]  # (B, D)
        for number, layer in enumerate(weights.layers):
            qkv = layer.qkv(weights.norm(x, layer.norm_1))  # (B, 3 D)
            q, k, v = qkv.view(self.rows, 3, weights.num_heads, -1).unbind(1)  # (B, H, D/H) each
            y = self.attend(q, k, v, self.keys[number], self.values[number])  # (B, D)
            x = weights.feed_forward(layer, x + layer.attention_out(y))
        self.places += 1
        return weights.head(weights.norm(x, weights.last_norm))

    def attend_used(self, q, k, v, keys, values) -> torch.Tensor:
        """Attend over the slots in use only, all rows at once where they are equally long."""
        if min(self.lengths) == max(self.lengths):
            return attend_slots(q, k, v, keys, values, self.lengths[0])
        rows = [
            attend_slots(*(part[row : row + 1] for part in (q, k, v, keys, values)), length)
            for row, length in enumerate(self.lengths)
        ]
        return torch.cat(rows)

    def attend_masked(self, q, k, v, keys, values) -> torch.Tensor:
        """Attend over all slots, the unused ones masked: fixed shapes and no look at the lengths, as a GPU wants it."""
        keys[self.row_numbers, :, self.places] = k.to(keys.dtype)
        values[self.row_numbers, :, self.places] = v.to(values.dtype)
        used = self.slot_numbers <= self.places[:, None]  # (B, S)
        y = F.scaled_dot_product_attention(
            q[:, :, None].to(keys.dtype), keys, values, attn_mask=used[:, None, None]
        )  # (B, H, 1, D/H)
        return y.reshape(self.rows, -1).to(q.dtype)


def attend_slots(q, k, v, keys, values, length: int) -> torch.Tensor:
    """Put k and v (B, H, D/H) into a slot and attend over it and all before it; returns (B, D).

    Two batched products, not the fused attention: for a single query they are as fast, and a row's result does not
    depend on the other rows.
    """
    keys[:, :, length] = k
    values[:, :, length] = v
    query = (q * q.shape[-1] ** -0.5).unsqueeze(2)  # (B, H, 1, D/H)
    scores = torch.matmul(query, keys[:, :, : length + 1].transpose(2, 3))  # (B, H, 1, S)
    return torch.matmul(scores.softmax(-1), values[:, :, : length + 1]).flatten(1)  # (B, D)
