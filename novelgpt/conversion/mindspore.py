"""GPT-2's weights by transformers' names <-> a MindSpore checkpoint by the names of mindformers.

transformer.wte.weight  (V, D)          backbone.embedding.word_embedding.embedding_table
transformer.wpe.weight  (T, D)          backbone.embedding.position_embedding.embedding_table
h.{i}.ln_1  h.{i}.ln_2  ln_f            backbone.blocks.{i}.layernorm1  .layernorm2  backbone.layernorm
                                        with gamma for weight and beta for bias
h.{i}.attn.c_attn  (D, 3·D)             attention.dense1 dense2 dense3: query, key, value, weights (out, in)
h.{i}.attn.c_proj  (D, D)               attention.projection, (in, out) as it is
h.{i}.mlp.c_fc  h.{i}.mlp.c_proj        output.mapping  output.projection, (in, out) as they are
"""

import re
from pathlib import Path

import torch

from novelgpt.messages import EXIT_ENVIRONMENT, EXIT_STATE, UserError, say

CHECKPOINT = "model.ckpt"
HEAD = "lm_head.weight"
NETWORK = "backbone."  # prefix of every weight; anything else in a checkpoint belongs to the optimizer
MASKS = (".attention.beta", ".attention.masked_beta")  # buffers of old conversions, not weights
# our name: theirs
TABLES = {
    "wte.weight": "embedding.word_embedding.embedding_table",
    "wpe.weight": "embedding.position_embedding.embedding_table",
    "ln_f.weight": "layernorm.gamma",
    "ln_f.bias": "layernorm.beta",
}
LAYERS = {
    "ln_1.weight": "layernorm1.gamma",
    "ln_1.bias": "layernorm1.beta",
    "ln_2.weight": "layernorm2.gamma",
    "ln_2.bias": "layernorm2.beta",
    "attn.c_proj.weight": "attention.projection.weight",
    "attn.c_proj.bias": "attention.projection.bias",
    "mlp.c_fc.weight": "output.mapping.weight",
    "mlp.c_fc.bias": "output.mapping.bias",
    "mlp.c_proj.weight": "output.projection.weight",
    "mlp.c_proj.bias": "output.projection.bias",
}
DENSE = ("dense1", "dense2", "dense3")  # query, key, value
BLOCK = re.compile(r"h\.(\d+)\.(.+)")
MINDSPORE_BLOCK = re.compile(r"blocks\.(\d+)\.(.+)")


def to_mindspore(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Rename a GPT-2's weights, and split and transpose those of attention.

    >>> renamed = to_mindspore({"transformer.h.0.attn.c_attn.weight": torch.tensor([[1, 2, 3], [4, 5, 6]])})
    >>> {name.split(".", 3)[3]: weight.tolist() for name, weight in renamed.items()}
    {'attention.dense1.weight': [[1, 4]], 'attention.dense2.weight': [[2, 5]], 'attention.dense3.weight': [[3, 6]]}
    """
    renamed = {}
    for name, weight in weights.items():
        name = name.removeprefix("transformer.")
        if name in TABLES:
            renamed[NETWORK + TABLES[name]] = weight
            continue
        if name == HEAD:
            message = "--to mindspore: the head is not the embedding, and mindformers' GPT-2 knows no other"
            raise UserError(message, "--to hf", EXIT_STATE)
        index, inner = BLOCK.fullmatch(name).groups()
        block = f"{NETWORK}blocks.{index}."
        if inner in LAYERS:
            renamed[block + LAYERS[inner]] = weight
            continue
        # One matrix (D, 3·D) of ours is three of theirs, (D, D) each and transposed.
        kind = inner.removeprefix("attn.c_attn.")
        for dense, part in zip(DENSE, weight.chunk(3, dim=-1), strict=True):
            renamed[f"{block}attention.{dense}.{kind}"] = part.t() if kind == "weight" else part
    return renamed


def from_mindspore(values: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Do the reverse of to_mindspore. What is not of the network is left out; an unknown name stays as it is."""
    tables = {theirs: ours for ours, theirs in TABLES.items()}
    layers = {theirs: ours for ours, theirs in LAYERS.items()}
    # Rename what has one name on either side, and collect query, key and value of each layer.
    weights, dense = {}, {}  # dense: (layer, weight or bias) -> its parts by name
    for name, value in values.items():
        if not name.startswith(NETWORK) or name.endswith(MASKS):
            continue
        inner = name.removeprefix(NETWORK)
        match = MINDSPORE_BLOCK.fullmatch(inner)
        if inner in tables:
            weights[f"transformer.{tables[inner]}"] = value
        elif match and match[2] in layers:
            weights[f"transformer.h.{match[1]}.{layers[match[2]]}"] = value
        elif match and (part := re.fullmatch(r"attention\.(dense[123])\.(weight|bias)", match[2])):
            dense.setdefault((match[1], part[2]), {})[part[1]] = value
        else:
            weights[name] = value  # check_weights will name it
    # Join the three parts of each attention.
    for (index, kind), parts in dense.items():
        whole = [parts[name].t() if kind == "weight" else parts[name] for name in DENSE if name in parts]
        weights[f"transformer.h.{index}.attn.c_attn.{kind}"] = torch.cat(whole, dim=-1)
    return {name: weight.contiguous() for name, weight in weights.items()}


def import_mindspore():
    """Return the package, or raise with the command that installs it."""
    try:
        import mindspore
    except ImportError as problem:
        message = "mindspore: the package is not installed, and only it writes and reads MindSpore checkpoints"
        raise UserError(message, "pip install mindspore", EXIT_ENVIRONMENT) from problem
    return mindspore


def write_mindspore(path: Path, weights: dict[str, torch.Tensor]) -> None:
    """Write a checkpoint, `*.ckpt`, of weights by transformers' names, on the CPU, all in one number format."""
    mindspore = import_mindspore()
    types = {torch.float32: mindspore.float32, torch.float16: mindspore.float16, torch.bfloat16: mindspore.bfloat16}
    entries = [
        {"name": name, "data": mindspore.Tensor(weight.float().contiguous().numpy(), types[weight.dtype])}
        for name, weight in to_mindspore(weights).items()
    ]
    mindspore.save_checkpoint(entries, str(path))
    path.chmod(0o644)  # mindspore leaves it readable by its owner only


def read_mindspore(path: Path) -> dict[str, torch.Tensor]:
    """Read a checkpoint's weights in fp32 by transformers' names; UserError without the package or a checkpoint."""
    mindspore = import_mindspore()
    try:
        values = mindspore.load_checkpoint(str(path))
    except (ValueError, RuntimeError, TypeError, OSError) as problem:
        message = f"{path}: not a MindSpore checkpoint: {str(problem).split(chr(10))[0][:200]}"
        raise UserError(message, "give the .ckpt file of a GPT-2", EXIT_STATE) from problem
    others = sum(not name.startswith(NETWORK) for name in values)
    if others:
        say(f"{path}: {others:,} values that are not of the network are left out")
    return from_mindspore(
        {name: torch.from_numpy(value.astype(mindspore.float32).asnumpy()) for name, value in values.items()}
    )
