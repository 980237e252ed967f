"""Config JSON -> GPT2LMHeadModel -> a folder that every Hugging Face tool reads.

A model folder::

    config.json  generation_config.json  model.safetensors (fp32)
    tokenizer.json  tokenizer_config.json  vocab.txt  README.md
    manifest.json (size and sha256 of all of them, the corpus by hash, step and losses)

The network is transformers' own GPT2LMHeadModel, unchanged.
"""

from pathlib import Path

import torch
from torch.distributed.tensor import DTensor
from transformers import GPT2Config, GPT2LMHeadModel

from novelgpt import __version__
from novelgpt.corpus.tokenizers import NovelTokenizer, load_tokenizer
from novelgpt.files import atomic_folder, write_json, write_text
from novelgpt.messages import EXIT_STATE, UserError, warn
from novelgpt.network.config import (
    EMBEDDING,
    HEAD,
    TIED,
    check_model_folder,
    count_config_parameters,
    read_folder_config,
)
from novelgpt.network.weights import WEIGHTS, read_weights, write_safetensors

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


def build_model(config: dict, tokenizer: NovelTokenizer, *, seed: int = 0) -> GPT2LMHeadModel:
    """Make an untrained GPT-2 in fp32 on the CPU, its weights a function of the seed.

    The config is what read_model_config returns; its vocab_size is ignored, the tokenizer's counts.
    """
    with torch.random.fork_rng(devices=[]):  # leaves the caller's random numbers as they were
        torch.manual_seed(seed)
        return GPT2LMHeadModel(hf_config(config, tokenizer))


def hf_config(config: dict, tokenizer: NovelTokenizer) -> GPT2Config:
    """Return transformers' config object for a checked config and a tokenizer."""
    # No pad id: every window is full, and with one transformers would search the inputs of each pass for it.
    values = {**config, "vocab_size": tokenizer.vocab_size}
    return GPT2Config(**values, bos_token_id=tokenizer.cls_id, eos_token_id=tokenizer.cls_id)


def count_parameters(model: torch.nn.Module, *, trainable: bool = False) -> int:
    """Count the parameters of a model, or only those that are trained; a tied head counts once."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad or not trainable)


def save_model(
    model: GPT2LMHeadModel,
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


def sizes_of(config: GPT2Config) -> dict[str, int]:
    """Return the five numbers by which people know a network."""
    return {name: getattr(config, name) for name in ("n_layer", "n_embd", "n_head", "n_positions", "vocab_size")}


def model_weights(model: GPT2LMHeadModel) -> dict[str, torch.Tensor]:
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
    value = value.detach()
    return value.full_tensor() if isinstance(value, DTensor) else value


def write_configs(
    config: GPT2Config, tokenizer: NovelTokenizer, folder: Path, *, dtype: torch.dtype = torch.float32
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
    generation = {"do_sample": True, "temperature": 1.0, "top_k": 8, "top_p": 1.0}
    write_json(folder / "generation_config.json", generation | ids)


def load_model(
    folder: str | Path,
    *,
    device: str | torch.device = "cpu",
    vocabulary: str | Path | None = None,
    flag: str = "--model_path",
) -> tuple[GPT2LMHeadModel, NovelTokenizer]:
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
    folder = Path(folder)
    check_model_folder(folder, flag=flag)
    config = read_folder_config(folder)
    tokenizer = load_own_tokenizer(folder, vocabulary or folder, config)
    weights = read_weights(folder, config, tokenizer.vocab_size)
    config[TIED] = HEAD not in weights
    # Built without memory and filled by assignment: the weights are held once, and no time is spent on random ones.
    with torch.device("meta"):
        model = GPT2LMHeadModel(hf_config(config, tokenizer))
    model.load_state_dict({HEAD: weights[EMBEDDING], **weights}, assign=True)
    model.tie_weights()
    return model.to(device).eval(), tokenizer


def load_own_tokenizer(folder: Path, source: str | Path, config: dict) -> NovelTokenizer:
    """Load the tokenizer of a model; where its embedding has rows beyond the list, they become reserved tokens."""
    tokenizer = load_tokenizer(source, size=0)  # as listed, whatever the size
    size, listed = config.get("vocab_size", tokenizer.vocab_size), tokenizer.vocab_size
    if size == listed:
        return tokenizer
    words = f"{folder}: config.json has vocab_size {size}, its vocabulary {listed} tokens"
    if size < listed:
        raise UserError(words, "put back the vocab.txt that the model was trained with", EXIT_STATE)
    warn(f"{words}; the {size - listed} rows beyond them are kept as reserved tokens")
    return load_tokenizer(source, size=size)


def describe_model(config: dict, vocab_size: int) -> str:
    """Describe a network: its sizes, and on a second line the parameter count as GPT2-Chinese prints it."""
    sizes = " ".join(f"{name}={config[name]}" for name in ("n_layer", "n_embd", "n_head", "n_positions"))
    return f"{sizes} vocab_size={vocab_size}\nnumber of parameters: {count_config_parameters(config, vocab_size)}"
