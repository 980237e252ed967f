"""A weights file of any age -> named fp32 tensors that fit a config, checked before anything is allocated.

Both `model.safetensors` and the older `pytorch_model.bin` are read, the latter only with the loader that runs no code.
"""

import errno
import json
import struct
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from novelgpt.errors import EXIT_STATE, UserError

WEIGHTS = "model.safetensors"
OLD_WEIGHTS = "pytorch_model.bin"
MAX_HEADER_BYTES = 64 << 20


def read_weights(folder: Path, config: dict, vocab_size: int) -> dict[str, torch.Tensor]:
    """Read fp32 weights under today's names and check that they are exactly the config's."""
    expected = expected_shapes(config, vocab_size)
    if (folder / WEIGHTS).is_file():
        check_safetensors_header(folder / WEIGHTS)
        weights = read_safetensors(folder / WEIGHTS)
    elif (folder / OLD_WEIGHTS).is_file():
        weights = read_old_weights(folder / OLD_WEIGHTS)
    else:
        message = f"{folder}: neither {WEIGHTS} nor {OLD_WEIGHTS} in it"
        raise UserError(message, "give a folder with the weights of a GPT-2", EXIT_STATE)
    weights = rename_weights(weights)
    check_weights(weights, expected, place=folder)
    return {name: weight.to(torch.float32) for name, weight in weights.items()}


def check_weights(weights: dict[str, torch.Tensor], expected: dict[str, tuple[int, ...]], *, place: Path) -> None:
    """Raise unless named weights are exactly the expected ones in name and shape.

    Args:
        weights: by today's names.
        expected: what expected_shapes returned.
        place: where they come from, for the message.
    """
    problems = [f"{name} is missing" for name in expected if name not in weights]
    problems += [f"{name} is unknown" for name in weights if name not in expected]
    for name, shape in expected.items():
        if name in weights and tuple(weights[name].shape) != shape:
            problems.append(f"{name} is {list(weights[name].shape)}, expected {list(shape)}")
    if problems:
        more = f" and {len(problems) - 1} more" if len(problems) > 1 else ""
        message = f"{place}: weights do not fit config.json: {problems[0]}{more}"
        raise UserError(message, "put back the config.json that belongs to these weights", EXIT_STATE)


def write_safetensors(tensors: dict[str, torch.Tensor], path: Path) -> None:
    """Write named CPU tensors.

    Raises:
        OSError: the disk refuses, which the library itself reports as an error of its own kind.
    """
    try:
        save_file(tensors, path, metadata={"format": "pt"})
    except SafetensorError as problem:
        raise OSError(errno.EIO, str(problem)) from problem


def check_safetensors_header(path: Path) -> None:
    """Raise unless the header of a safetensors file is sane and describes just the bytes that follow it."""
    hint = "download or save the weights again"
    try:
        with open(path, "rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > min(MAX_HEADER_BYTES, path.stat().st_size - 8):
                raise ValueError(f"a header of {length:,} bytes")
            header = json.loads(file.read(length))
        ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
        if max(ends, default=0) != path.stat().st_size - 8 - length:
            raise ValueError(
                f"{path.stat().st_size - 8 - length:,} bytes of data, the header says {max(ends, default=0):,}"
            )
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, struct.error, RecursionError) as problem:
        raise UserError(f"{path}: not a whole safetensors file: {problem}", hint, EXIT_STATE) from problem


def read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    """Read all tensors of a safetensors file."""
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as problem:
        message = f"{path}: not a whole safetensors file: {problem}"
        raise UserError(message, "download or save the weights again", EXIT_STATE) from problem


def read_old_weights(path: Path) -> dict[str, torch.Tensor]:
    """Read a PyTorch state dict with the loader that runs no code."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as problem:  # the loader raises many kinds; all mean the same to the user
        first = str(problem).split("\n")[0][:200]
        message = f"{path}: not a plain state dict of tensors: {first}"
        raise UserError(message, "ask its author for model.safetensors", EXIT_STATE) from problem
    state = state.get("state_dict", state) if isinstance(state, dict) else state
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise UserError(
            f"{path}: not a plain state dict of tensors", "ask its author for model.safetensors", EXIT_STATE
        )
    return state


def rename_weights(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Give weights of older tools today's names; drop attention-mask buffers and the tied head's second copy.

    >>> sorted(rename_weights({"module.wte.weight": 1, "h.0.attn.bias": 2, "h.0.ln_1.gamma": 3}))
    ['transformer.h.0.ln_1.weight', 'transformer.wte.weight']
    """
    renamed = {}
    for name, weight in weights.items():
        for prefix in ("_orig_mod.", "module.", "model."):
            name = name.removeprefix(prefix)
        if name == "lm_head.weight" or name.endswith((".attn.bias", ".attn.masked_bias")):
            continue
        name = name.replace(".gamma", ".weight").replace(".beta", ".bias")
        renamed[name if name.startswith("transformer.") else f"transformer.{name}"] = weight
    return renamed


def expected_shapes(config: dict, vocab_size: int) -> dict[str, tuple[int, ...]]:
    """Map every weight of the config's GPT-2 to its shape, without allocating anything."""
    d = config["n_embd"]
    m = config.get("n_inner") or 4 * d
    shapes = {"transformer.wte.weight": (vocab_size, d), "transformer.wpe.weight": (config["n_positions"], d)}
    inner = {"ln_1": (d,), "ln_2": (d,), "attn.c_attn": (d, 3 * d), "attn.c_proj": (d, d)}
    inner |= {"mlp.c_fc": (d, m), "mlp.c_proj": (m, d)}
    blocks = {f"transformer.h.{i}.{name}": shape for i in range(config["n_layer"]) for name, shape in inner.items()}
    for name, shape in {**blocks, "transformer.ln_f": (d,)}.items():
        shapes |= {f"{name}.weight": shape, f"{name}.bias": shape[-1:]}
    return shapes
