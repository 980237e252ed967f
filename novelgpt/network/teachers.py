"""Model folders -> teachers: frozen networks whose distributions another network learns from, see loss.py.

A teacher's probabilities belong to the tokens of its own vocabulary, so the other network must have the same one. It
reads whole windows, so its context must be as long. It has no gradient and no dropout; its matrices lie on every device
in the format of the products, where autocast would make them anew in each pass.
"""

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from novelgpt.compute import tune_for_cpu, tune_for_gpu
from novelgpt.corpus.tokenizers import NovelTokenizer
from novelgpt.messages import EXIT_USAGE, UserError
from novelgpt.network.model import count_parameters, load_model
from novelgpt.network.weights import hash_weights

if TYPE_CHECKING:
    from transformers import GPT2LMHeadModel


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


def place_teachers(
    teachers: "Sequence[GPT2LMHeadModel]", devices: list[torch.device], dtype: torch.dtype
) -> "dict[torch.device, list[GPT2LMHeadModel]]":
    """Return a copy of every teacher for each device, with that device's fast parts, its products in the dtype."""
    placed = {device: [copy.deepcopy(teacher).to(device) for teacher in teachers] for device in devices}
    for device, copies in placed.items():
        for each in copies:
            if device.type == "cpu":
                tune_for_cpu(each, seed=0, dtype=dtype)  # of dropout, which it has none of
            else:
                tune_for_gpu(each)
            for block in each.transformer.h:
                for layer in (block.attn.c_attn, block.attn.c_proj, block.mlp.c_fc, block.mlp.c_proj):
                    layer.to(dtype)
    return placed


def describe_teachers(folders: Sequence[Path], teachers: "Sequence[GPT2LMHeadModel]", weight: float) -> list[str]:
    """Describe in a line what is learned from whom, if there are any."""
    names = ", ".join(f"{folder} ({count_parameters(each):,})" for folder, each in zip(folders, teachers, strict=True))
    return [f"teachers (parameters): {names}; {weight:.0%} of the loss is learned from them"] if teachers else []


def teacher_identity(folders: Sequence[Path], weight: float) -> dict | None:
    """Return what the result of a run depends on of its teachers; None where it has none."""
    return {"weight": weight, "sha256": " ".join(map(hash_weights, folders))} if folders else None
