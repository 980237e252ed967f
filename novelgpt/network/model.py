"""Config JSON -> GPT2LMHeadModel -> a folder that every Hugging Face tool reads.

A model folder::

    config.json  generation_config.json  model.safetensors (fp32)
    tokenizer.json  tokenizer_config.json  vocab.txt  README.md
    manifest.json (size and sha256 of all of them, the corpus by hash, step and losses)

The network is transformers' own GPT2LMHeadModel, unchanged.

A teacher is one whose distributions another network learns from, see loss.py. Its probabilities belong to the tokens
of its own vocabulary, so the other one must have the same; it reads whole windows, so its context must be as long.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import torch

from novelgpt import __version__
from novelgpt.corpus.tokenizers import NovelTokenizer
from novelgpt.files import atomic_folder, write_json, write_text
from novelgpt.messages import EXIT_STATE, EXIT_USAGE, UserError
from novelgpt.network.config import (
    EMBEDDING,
    HEAD,
    TIED,
    check_model_folder,
    count_config_parameters,
    load_own_tokenizer,
    read_folder_config,
)
from novelgpt.network.weights import WEIGHTS, hash_weights, read_weights, write_safetensors

if TYPE_CHECKING:  # it takes seconds to load, and writing goes without it
    from transformers import GPT2Config, GPT2LMHeadModel

CARD = """---
library_name: transformers
pipeline_tag: text-generation
language: zh
---
# A Chinese GPT-2

{parameters:,} parameters, {n_layer} layers, {n_embd} wide, {n_head} heads, context
{n_positions}, {vocab_size:,} tokens. Trained with novelgpt {version}. {facts}

`[CLS]` stands before every chapter and after the last one; it is the beginning, the separator and the end.

    from transformers import AutoModelForCausalLM, AutoTokenizer
    tokenizer = AutoTokenizer.from_pretrained("path/to/this/folder")
    model = AutoModelForCausalLM.from_pretrained("path/to/this/folder")
    inputs = tokenizer("[CLS]…", return_tensors="pt")
    print(tokenizer.decode(model.generate(**inputs, max_new_tokens=200)[0]))
"""


@dataclass(frozen=True)
class StoredModel:
    """A GPT-2 as its folder holds it: all that writing needs, without the network that training needs.

    Attributes:
        config: n_layer, n_embd, n_head, n_positions, vocab_size, layer_norm_epsilon, activation_function.
        weights: named as in expected_shapes, fp32; without the head where that is the embedding.
    """

    config: SimpleNamespace
    weights: dict[str, torch.Tensor]

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Return the weights as GPT2LMHeadModel does, with the head."""
        return {HEAD: self.weights[EMBEDDING], **self.weights}

    def num_parameters(self) -> int:
        """Count the parameters; a tied head counts once."""
        return sum(weight.numel() for weight in self.weights.values())


def build_model(config: dict, tokenizer: NovelTokenizer, *, seed: int = 0) -> "GPT2LMHeadModel":
    """Make an untrained GPT-2 in fp32 on the CPU, its weights a function of the seed.

    The config is what read_model_config returns; its vocab_size is ignored, the tokenizer's counts.
    """
    from transformers import GPT2LMHeadModel

    with torch.random.fork_rng(devices=[]):  # leaves the caller's random numbers as they were
        torch.manual_seed(seed)
        return GPT2LMHeadModel(hf_config(config, tokenizer))


def hf_config(config: dict, tokenizer: NovelTokenizer) -> "GPT2Config":
    """Return transformers' config object for a checked config and a tokenizer."""
    from transformers import GPT2Config

    # No pad id: every window is full, and with one transformers would search the inputs of each pass for it.
    values = {**config, "vocab_size": tokenizer.vocab_size}
    return GPT2Config(**values, bos_token_id=tokenizer.cls_id, eos_token_id=tokenizer.cls_id)


def count_parameters(model: torch.nn.Module, *, trainable: bool = False) -> int:
    """Count the parameters of a model, or only those that are trained; a tied head counts once."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad or not trainable)


def save_model(
    model: "GPT2LMHeadModel",
    tokenizer: NovelTokenizer,
    folder: str | Path,
    *,
    weights: dict[str, torch.Tensor] | None = None,
    facts: str = "",
    **manifest: object,
) -> None:
    """Write a complete model folder, or nothing.

    Args:
        model, tokenizer: weights on any device, stored in fp32 unless others are given; exported beside them.
        folder: replaced if it exists.
        weights: what model_weights returned, where it was called already; or the same in another number format.
        facts: a sentence for the model card.
        manifest: further entries of manifest.json, for example step and corpus hash.

    Raises:
        UserError: a weight is not finite (nothing is saved), or the disk refuses.
    """
    # A network that diverged must not replace a good folder, so this is checked before anything is written.
    weights = model_weights(model) if weights is None else weights
    bad = [name for name, weight in weights.items() if not torch.isfinite(weight).all()]
    if bad:
        message = f"{folder}: not saved: {len(bad)} weights are not finite, the first is {bad[0]}"
        raise UserError(message, "resume from the last good checkpoint with a lower --lr", EXIT_STATE)
    # Weights, configs, vocabulary and card appear together, under the manifest that names them all.
    with atomic_folder(folder, **manifest) as hidden:
        write_safetensors(weights, hidden / WEIGHTS)
        write_configs(model.config, tokenizer, hidden, dtype=next(iter(weights.values())).dtype)
        tokenizer.export(hidden, model_max_length=model.config.n_positions)
        parameters = sum(weight.numel() for weight in weights.values())
        card = CARD.format(parameters=parameters, version=__version__, facts=facts, **sizes_of(model.config))
        write_text(hidden / "README.md", card)


def sizes_of(config: "GPT2Config") -> dict[str, int]:
    """Return the five numbers by which people know a network."""
    return {name: getattr(config, name) for name in ("n_layer", "n_embd", "n_head", "n_positions", "vocab_size")}


def model_weights(model: "GPT2LMHeadModel") -> dict[str, torch.Tensor]:
    """Return the weights as saved: fp32, contiguous, on the CPU; a tied head appears as the embedding only.

    LoRA's corrections are merged into the weights beside which they stand. Under FSDP every process must call this,
    since each holds only a part.
    """
    # The plain weights, under the names they have without LoRA's wrapper.
    merged = {}
    for name, weight in model.named_parameters():
        if ".lora_" not in name:
            merged[name.replace(".base_layer.", ".")] = gather_tensor(weight).to("cpu", torch.float32)
    # What each adapter has learned is added to the weight that it corrects.
    for name, module in model.named_modules():
        if hasattr(module, "get_delta_weight"):
            merged[f"{name}.weight"] = merged[f"{name}.weight"] + module.get_delta_weight("default").detach().cpu()
    return {name: weight.contiguous() for name, weight in merged.items()}


def gather_tensor(value: torch.Tensor) -> torch.Tensor:
    """Return a tensor without its graph, gathered from all processes where each holds only a part."""
    from torch.distributed.tensor import DTensor

    value = value.detach()
    return value.full_tensor() if isinstance(value, DTensor) else value


def write_configs(
    config: "GPT2Config", tokenizer: NovelTokenizer, folder: Path, *, dtype: torch.dtype = torch.float32
) -> None:
    """Write config.json and generation_config.json so that any transformers from 4.57 on reads them."""
    # No version and no private key, which older readers would refuse or warn about.
    values = config.to_diff_dict()
    for name in ("transformers_version", "_attn_implementation_internal"):
        values.pop(name, None)
    # What to_diff_dict leaves out because it is GPT-2's default, but other tools look for.
    values |= {"architectures": ["GPT2LMHeadModel"], "model_type": "gpt2", "n_ctx": config.n_positions}
    values |= sizes_of(config)
    ids = {"bos_token_id": tokenizer.cls_id, "eos_token_id": tokenizer.cls_id, "pad_token_id": tokenizer.pad_id}
    write_json(folder / "config.json", {**values, **ids, "torch_dtype": str(dtype).removeprefix("torch.")})
    # The defaults of generate.py, so that transformers' own generate writes in the same manner.
    generation = {"do_sample": True, "temperature": 1.0, "top_k": 0, "top_p": 0.98}
    write_json(folder / "generation_config.json", generation | ids)


def load_model(
    folder: str | Path,
    *,
    device: str | torch.device = "cpu",
    vocabulary: str | Path | None = None,
    flag: str = "--model_path",
) -> tuple["GPT2LMHeadModel", NovelTokenizer]:
    """Read a model folder: (GPT2LMHeadModel in fp32 in eval mode, tokenizer).

    Args:
        folder: written by save_model, or any GPT-2 folder with config.json, weights and a vocabulary.
        device: where the weights go.
        vocabulary: the one that the model was trained with, for a folder that holds none; None = the folder's own.
        flag: the option that names the folder, for hints.

    Raises:
        UserError: not a folder, a file missing or damaged, weights that do not fit the config, another vocabulary.

    Example::

        model, tokenizer = load_model("model/final_model")
        ids = tokenizer.encode_prefix("那天夜里没有月亮。")  # (10,) with the [CLS] in front
    """
    from transformers import GPT2LMHeadModel

    stored, tokenizer = read_model(folder, vocabulary=vocabulary, flag=flag)
    # Built without memory and filled by assignment: the weights are held once, and no time is spent on random ones.
    with torch.device("meta"):
        model = GPT2LMHeadModel(hf_config(vars(stored.config), tokenizer))
    model.load_state_dict(stored.state_dict(), assign=True)
    model.tie_weights()
    return model.to(device).eval(), tokenizer


def read_model(
    folder: str | Path, *, vocabulary: str | Path | None = None, flag: str = "--model_path"
) -> tuple[StoredModel, NovelTokenizer]:
    """Read a model folder as load_model does, but build no network."""
    folder = Path(folder)
    check_model_folder(folder, flag=flag)
    config = read_folder_config(folder)
    tokenizer = load_own_tokenizer(folder, vocabulary or folder, config)
    weights = read_weights(folder, config, tokenizer.vocab_size)
    usual = {"layer_norm_epsilon": 1e-5, "activation_function": "gelu_new"}  # of GPT-2
    config = {**usual, **config, TIED: HEAD not in weights, "vocab_size": tokenizer.vocab_size}
    return StoredModel(SimpleNamespace(**config), weights), tokenizer


def describe_model(config: dict, vocab_size: int) -> str:
    """Describe a network: its sizes, and on a second line the parameter count as GPT2-Chinese prints it."""
    sizes = " ".join(f"{name}={config[name]}" for name in ("n_layer", "n_embd", "n_head", "n_positions"))
    return f"{sizes} vocab_size={vocab_size}\nnumber of parameters: {count_config_parameters(config, vocab_size)}"


def load_teachers(folders: Sequence[Path], tokenizer: NovelTokenizer, *, window: int) -> "tuple[GPT2LMHeadModel, ...]":
    """Load the teachers of a run, in fp32 on the CPU.

    Args:
        folders: of the models, each with its vocabulary.
        tokenizer: of the network that learns.
        window: tokens that it reads at a time.

    Raises:
        UserError: no model, one of another vocabulary, or one with a shorter context.
    """
    return tuple(load_teacher(folder, tokenizer, window) for folder in folders)


def load_teacher(folder: Path, tokenizer: NovelTokenizer, window: int) -> "GPT2LMHeadModel":
    """Load one of them."""
    teacher, own = load_model(folder, flag="--teacher")
    if own.fingerprint != tokenizer.fingerprint:
        sizes = f"found {own.vocab_size:,} tokens, expected the {tokenizer.vocab_size:,} of this run"
        message = f"--teacher {folder}: of another vocabulary: {sizes}"
        raise UserError(message, f"--tokenizer_path {folder}", EXIT_USAGE)
    context = teacher.config.n_positions
    if context < window:
        message = f"--teacher {folder}: reads {context} tokens at a time, expected at least the {window} of this run"
        raise UserError(message, f"a --model_config with n_ctx {context}", EXIT_USAGE)
    return teacher.requires_grad_(False)


def describe_teachers(folders: Sequence[Path], teachers: "Sequence[GPT2LMHeadModel]", weight: float) -> list[str]:
    """Describe in a line what is learned from whom, if there are any."""
    names = ", ".join(f"{folder} ({count_parameters(each):,})" for folder, each in zip(folders, teachers, strict=True))
    return [f"teachers (parameters): {names}; {weight:.0%} of the loss is learned from them"] if teachers else []


def teacher_identity(folders: Sequence[Path], weight: float) -> dict | None:
    """Return what the result of a run depends on of its teachers; None where it has none."""
    return {"weight": weight, "sha256": " ".join(map(hash_weights, folders))} if folders else None
