"""Load a model of any kind, cast its weights, write it as another kind: what the door of this folder offers.

In fp32 every number stays as it is. bf16 keeps 8 bits of each (an error of up to 0.4 %), fp16 keeps 11 (0.05 %) but
none above 65,504.
"""

from dataclasses import dataclass, field
from pathlib import Path

import torch
from transformers import GPT2LMHeadModel

from novelgpt.conversion.gguf import write_gguf
from novelgpt.conversion.mindspore import CHECKPOINT, read_mindspore, write_mindspore
from novelgpt.corpus.tokenizers import NovelTokenizer, load_tokenizer
from novelgpt.files import MANIFEST, atomic_folder, atomic_writer, read_json, ready_file, sha256_of
from novelgpt.messages import EXIT_STATE, EXIT_USAGE, UserError
from novelgpt.network import (
    OLD_WEIGHTS,
    WEIGHTS,
    build_model,
    check_model_folder,
    check_weights,
    count_parameters,
    expected_shapes,
    load_model,
    read_folder_config,
    read_model_config,
    save_model,
    write_configs,
)

# name of --dtype: format of the weights
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
MAGIC = b"GGUF"  # the first bytes of such a file
KEPT_FACTS = ("step", "epoch", "valid_loss", "corpus")  # of the source's manifest, kept in the new one


@dataclass(frozen=True)
class SourceModel:
    """A loaded model that is to be written as another kind."""

    model: GPT2LMHeadModel  # in fp32 on the CPU
    tokenizer: NovelTokenizer
    facts: dict = field(default_factory=dict)  # for the new manifest: the source's files, what its manifest says

    @property
    def parameters(self) -> int:
        """Number of parameters."""
        return count_parameters(self.model)


def check_output(source: str, output: str, kind: str) -> None:
    """Refuse to write over the source, or over anything that is not a model.

    Args:
        source: what is converted.
        output, kind: as of write_model.

    Raises:
        UserError: with the place.
    """
    # The source must survive, so neither it nor a folder above it may be replaced.
    old, new = Path(source), Path(output)
    if new.resolve() == old.resolve():
        raise UserError(f"{output}: source and output are the same", "give another output", EXIT_USAGE)
    if kind != "gguf" and new.resolve() in old.resolve().parents:
        message = f"{output}: holds the source, so it is not replaced"
        raise UserError(message, "give the name of a new folder", EXIT_USAGE)
    # What stands at the output is replaced only where it is of the same kind.
    if kind == "gguf" and new.is_dir():
        raise UserError(f"{output}: is a folder, expected a file", f"{new / 'model.gguf'}", EXIT_USAGE)
    if kind == "gguf" and new.is_file() and not is_gguf(new):
        message = f"{output}: exists and is no GGUF file, so it is not replaced"
        raise UserError(message, "give the name of a new file", EXIT_USAGE)
    if kind != "gguf" and new.exists() and not (new / MANIFEST).is_file():
        message = f"{output}: exists and is not a model folder of ours, so it is not replaced"
        raise UserError(message, "give the name of a new folder", EXIT_USAGE)


def is_gguf(path: Path) -> bool:
    """Tell whether a file is a GGUF file, or empty."""
    with open(path, "rb") as file:
        return file.read(len(MAGIC)) in (MAGIC, b"")


def open_source(
    path: str | Path, kind: str = "auto", *, model_config: str | None = None, tokenizer_path: str | None = None
) -> SourceModel:
    """Load what is to be converted.

    Args:
        path: a model folder, a folder that write_model wrote for MindSpore, or a MindSpore checkpoint.
        kind: "hf", "mindspore", or "auto".
        model_config, tokenizer_path: config JSON and vocabulary of a lone checkpoint; the latter also of a folder
            that holds none.

    Raises:
        UserError: nothing there, damaged, or weights that do not fit the config.
    """
    # What it is: MindSpore's by the name of its checkpoint, else a Hugging Face folder.
    path = Path(path)
    if kind == "auto":
        kind = "mindspore" if path.suffix == ".ckpt" or (path / CHECKPOINT).is_file() else "hf"
    if kind == "hf":
        if model_config:
            raise UserError(f"--model_config: {path} has its own", "leave it out", EXIT_USAGE)
        model, tokenizer = load_model(path, vocabulary=tokenizer_path, flag="")
        # model.safetensors or model-00001-of-00002.safetensors, but not the index beside them
        stems = {Path(name).stem for name in (WEIGHTS, OLD_WEIGHTS)}
        files = [file for file in sorted(path.iterdir()) if file.stem.split("-")[0] in stems and file.suffix != ".json"]
        return SourceModel(model, tokenizer, source_facts(path, files))
    return open_mindspore(path, model_config, tokenizer_path)


def source_facts(folder: Path, files: list[Path]) -> dict:
    """Return what the manifest of a converted model says about its source: weights by hash, and its own facts."""
    manifest = read_json(folder / MANIFEST) if (folder / MANIFEST).is_file() else {}
    kept = {name: manifest[name] for name in KEPT_FACTS if name in manifest}
    return {"source": {str(file): sha256_of(file) for file in files}, **kept}


def open_mindspore(path: Path, model_config: str | None, tokenizer_path: str | None) -> SourceModel:
    """Load a MindSpore checkpoint: of a folder of ours, or a lone one whose config and vocabulary are given."""
    # Which checkpoint, and the config and vocabulary that belong to it.
    folder = path if path.is_dir() else path.parent
    checkpoint = path / CHECKPOINT if path.is_dir() else path
    if path.is_dir():
        check_model_folder(path, flag="")
    config_path = Path(ready_file(model_config or folder / "config.json"))
    if not checkpoint.is_file() or not config_path.is_file():
        missing = checkpoint if not checkpoint.is_file() else config_path
        hint = "give a .ckpt file, with --model_config and --tokenizer_path if it stands alone"
        raise UserError(f"{missing}: no such file", hint, EXIT_STATE)
    config = read_model_config(model_config) if model_config else read_folder_config(folder)
    tokenizer = load_tokenizer(tokenizer_path or folder)
    # Weights that fit, in a network that is built for them; the head is the embedding, as MindSpore has no other.
    weights = read_mindspore(checkpoint)
    check_weights(weights, expected_shapes(config, tokenizer.vocab_size), place=checkpoint)
    model = build_model(config, tokenizer).eval()
    model.load_state_dict({**weights, "lm_head.weight": weights["transformer.wte.weight"]})
    return SourceModel(model, tokenizer, source_facts(folder, [checkpoint]))


def cast_weights(model: GPT2LMHeadModel, dtype: str) -> dict[str, torch.Tensor]:
    """Return a model's weights in another number format, if it can hold them; a tied head is the embedding only."""
    weights = {name: weight.detach().to(DTYPES[dtype]).contiguous() for name, weight in model.named_parameters()}
    for name, weight in weights.items():
        if not torch.isfinite(weight).all():  # fp16 ends at 65,504
            found = model.get_parameter(name).abs().max().item()
            message = f"--dtype {dtype}: cannot hold {found:.4g} of {name}"
            raise UserError(message, "--dtype bf16 or fp32" if dtype == "fp16" else "repair the source", EXIT_STATE)
    return weights


def write_model(source: SourceModel, output: str | Path, kind: str, *, dtype: str = "fp32") -> None:
    """Write a model, complete or not at all.

    Args:
        source: what open_source returned.
        output: folder, or file for gguf.
        kind, dtype: "hf", "gguf" or "mindspore"; "fp32", "bf16" or "fp16", for gguf also "q8_0".

    Raises:
        UserError: a missing package, a network or vocabulary that the other side does not know, a full disk.
    """
    # Cast first, so that what the format cannot hold is refused before anything is written; q8_0 rounds in the end.
    weights = cast_weights(source.model, "fp32" if dtype == "q8_0" else dtype)
    config, tokenizer = source.model.config, source.tokenizer
    facts = {**source.facts, "dtype": dtype}
    if kind == "gguf":
        with atomic_writer(output) as file:
            exact = cast_weights(source.model, "fp32")  # write_gguf rounds the matrices itself
            write_gguf(Path(file.name), exact, config, tokenizer, name=Path(output).stem, dtype=dtype)
    elif kind == "mindspore":
        with atomic_folder(output, **facts) as hidden:
            write_mindspore(hidden / CHECKPOINT, weights)
            write_configs(config, tokenizer, hidden)
            tokenizer.export(hidden, model_max_length=config.n_positions)
    else:
        card = f"Weights in {dtype}, converted."
        save_model(source.model, tokenizer, output, weights=weights, facts=card, **facts)
