"""A weights file of any age -> named fp32 tensors that fit a config, checked before anything is allocated.

Both `model.safetensors` and the older `pytorch_model.bin` are read, the latter only by the loader that runs no code.

    model.safetensors | pytorch_model.bin | an index of several ─rename─ today's names ─check─ fp32 tensors
"""

import errno
import json
import struct
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from novelgpt.files import IS_WINDOWS, read_json, sha256_of
from novelgpt.messages import EXIT_STATE, UserError, warn
from novelgpt.network.config import EMBEDDING, HEAD, TIED, expected_shapes

WEIGHTS = "model.safetensors"
OLD_WEIGHTS = "pytorch_model.bin"
MAX_HEADER_BYTES = 64 << 20  # of safetensors; a longer one is no weights file


def read_weights(folder: Path, config: dict, vocab_size: int) -> dict[str, torch.Tensor]:
    """Read fp32 weights under today's names and check that they are exactly those of a checked config.

    A head that the file holds beside the embedding stays in the result only where it is another matrix; the network is
    then untied whatever the config says, as in transformers.

    Raises:
        UserError: no weights, a damaged file, a weight that is missing, unknown or of another shape.
    """
    weights = rename_weights({name: value for path in weight_files(folder) for name, value in read_file(path).items()})
    if HEAD in weights and config.get(TIED, True):
        if is_same_matrix(weights[HEAD], weights.get(EMBEDDING)):
            del weights[HEAD]  # many tools save the tied head a second time
        else:
            warn(f"{folder}: {HEAD} is not the embedding, so it stays a matrix of its own")
            config = {**config, TIED: False}
    check_weights(weights, expected_shapes(config, vocab_size), place=folder)
    return {name: weight.to(torch.float32) for name, weight in weights.items()}


def check_weights(weights: dict[str, torch.Tensor], expected: dict[str, tuple[int, ...]], *, place: Path) -> None:
    """Raise unless weights are exactly those of expected_shapes in name and shape; place: their folder or file."""
    problems = [f"{name} is missing" for name in expected if name not in weights]
    problems += [f"{name} is unknown" for name in weights if name not in expected]
    for name, shape in expected.items():
        if name in weights and tuple(weights[name].shape) != shape:
            problems.append(f"{name} is {list(weights[name].shape)}, expected {list(shape)}")
    if problems:
        more = f" and {len(problems) - 1} more" if len(problems) > 1 else ""
        message = f"{place}: weights do not fit config.json: {problems[0]}{more}"
        raise UserError(message, "put back the config.json that belongs to these weights", EXIT_STATE)


def weight_files(folder: Path) -> list[Path]:
    """Return the weights file of a model folder, or the files beside an index that it names; UserError without any."""
    for name in (WEIGHTS, OLD_WEIGHTS):
        if (folder / name).is_file():
            return [folder / name]
        index = folder / f"{name}.index.json"
        if index.is_file():
            return indexed_files(index)
    message = f"{folder}: neither {WEIGHTS} nor {OLD_WEIGHTS} in it"
    raise UserError(message, "give a folder with the weights of a GPT-2", EXIT_STATE)


def hash_weights(folder: Path) -> str:
    """Return the SHA-256 of the weights file of a model folder; of several files one after the other."""
    return " ".join(map(sha256_of, weight_files(folder)))


def indexed_files(index: Path) -> list[Path]:
    """Return the files that an index names, all of them beside it."""
    values = read_json(index)  # {"weight_map": {"transformer.wte.weight": "model-00001-of-00002.safetensors", ...}}
    places = values.get("weight_map") if isinstance(values, dict) else None
    names = sorted(set(map(str, places.values()))) if isinstance(places, dict) else []
    if not names or any(Path(name).name != name for name in names):
        raise UserError(f"{index}: names no weight files beside it", "download the model again", EXIT_STATE)
    return [index.with_name(name) for name in names]


def read_file(path: Path) -> dict[str, torch.Tensor]:
    """Read one weights file of either kind."""
    if path.suffix != ".safetensors":
        return read_old_weights(path)
    check_safetensors_header(path)
    return read_safetensors(path)


def is_same_matrix(head: torch.Tensor, embedding: torch.Tensor | None) -> bool:
    """Tell whether a head is the embedding."""
    return embedding is not None and head.shape == embedding.shape and torch.equal(head, embedding)


def write_safetensors(tensors: dict[str, torch.Tensor], path: Path) -> None:
    """Write named CPU tensors; OSError where the disk refuses."""
    try:
        save_file(tensors, path, metadata={"format": "pt"})
    except SafetensorError as problem:  # the library's own kind
        raise OSError(errno.EIO, str(problem)) from problem
    path.chmod(0o644)  # safetensors leaves it readable by its owner only


def check_safetensors_header(path: Path) -> None:
    """Raise unless the header of a safetensors file is sane and describes exactly the bytes that follow it.

    The library maps the file into memory; a truncated one would be found only when a tensor's bytes are touched.
    """
    try:
        with open(path, "rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))  # bytes of the JSON header that follows
            if length > min(MAX_HEADER_BYTES, path.stat().st_size - 8):
                raise ValueError(f"a header of {length:,} bytes")
            header = json.loads(file.read(length))
        ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
        found, expected = path.stat().st_size - 8 - length, max(ends, default=0)
        if found != expected:
            raise ValueError(f"{found:,} bytes of data, the header says {expected:,}")
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, struct.error, RecursionError) as problem:
        raise broken_file(path, problem) from problem


def read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    """Read all tensors of a safetensors file; on Windows copied, for they map it, and what is mapped cannot go."""
    try:
        tensors = load_file(path)
        return {name: tensor.clone() for name, tensor in tensors.items()} if IS_WINDOWS else tensors
    except (SafetensorError, OSError, ValueError) as problem:
        raise broken_file(path, problem) from problem


def broken_file(path: Path, problem: Exception) -> UserError:
    """Return the error for a safetensors file that is not whole."""
    message = f"{path}: not a whole safetensors file: {problem}"
    return UserError(message, "download or save the weights again", EXIT_STATE)


def read_old_weights(path: Path) -> dict[str, torch.Tensor]:
    """Read a PyTorch state dict by the loader that runs no code."""
    message, hint = f"{path}: not a plain state dict of tensors", "ask its author for model.safetensors"
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as problem:  # the loader raises many kinds; all mean the same to the user
        first = str(problem).split("\n")[0][:200]
        raise UserError(f"{message}: {first}", hint, EXIT_STATE) from problem
    # Lightning and others put the weights one level deeper.
    state = state.get("state_dict", state) if isinstance(state, dict) else state
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise UserError(message, hint, EXIT_STATE)
    return state


def rename_weights(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Give weights of older tools today's names; drop attention-mask buffers.

    >>> sorted(rename_weights({"module.wte.weight": 1, "h.0.attn.bias": 2, "h.0.ln_1.gamma": 3}))
    ['transformer.h.0.ln_1.weight', 'transformer.wte.weight']
    """
    renamed = {}
    for name, weight in weights.items():
        # Left by torch.compile, DataParallel and wrappers.
        for prefix in ("_orig_mod.", "module.", "model."):
            name = name.removeprefix(prefix)
        if name.endswith((".attn.bias", ".attn.masked_bias")):
            continue
        # TensorFlow's names of a layer norm, and the bare GPT2Model, which has no prefix
        name = name.replace(".gamma", ".weight").replace(".beta", ".bias")
        renamed[name if name.startswith(("transformer.", "lm_head.")) else f"transformer.{name}"] = weight
    return renamed
