"""LoRA through the optional package peft: a small correction is trained beside each matrix of a frozen network.

    output = input · W + (alpha / rank) · dropout(input) · A · B        W (in, out) frozen, A (in, rank), B (rank, out)

B begins at zero, so training begins at the pretrained network (Hu et al. 2021, arXiv 2106.09685). All linear layers of
the blocks get one. Rows of tokens that the network has never seen are trained, too, for nothing else could teach it
what they mean. Checkpoints hold what is trained; model folders hold W + (alpha / rank) · A · B, a plain GPT-2.
"""

from pathlib import Path

import numpy as np
import torch
from transformers import GPT2LMHeadModel

from novelgpt.network import EMBEDDING, HEAD, count_parameters, hash_weights, model_weights

LAYERS = ("c_attn", "c_proj", "c_fc")  # GPT-2's names; c_proj is one of attention and one of the MLP


def lora_identity(folder: str | None, rank: int, alpha: float, dropout: float) -> dict:
    """Return what a LoRA run depends on besides other runs: its settings and the frozen weights it corrects."""
    if not rank:
        return {"lora": None, "frozen_weights": None}
    settings = f"rank {rank}, alpha {alpha:g}, dropout {dropout:g}"
    return {"lora": settings, "frozen_weights": hash_weights(Path(folder))}


def add_lora(
    model: GPT2LMHeadModel, *, rank: int, alpha: float, dropout: float, seed: int, new_ids: np.ndarray
) -> None:
    """Freeze a network and put a correction beside every linear layer of its blocks, in place.

    Args:
        model: on the CPU, adapted to its vocabulary.
        rank, alpha: columns of A and rows of B, from 1; the correction is multiplied by alpha / rank.
        dropout: share of the correction's inputs left out in training.
        seed: A is a function of it.
        new_ids: int64 (N,), tokens whose rows of the embedding are trained with them.
    """
    from peft import LoraConfig, inject_adapter_in_model

    config = LoraConfig(
        r=rank, lora_alpha=alpha, lora_dropout=dropout, target_modules=list(LAYERS), fan_in_fan_out=True
    )

    # peft draws A from torch's global generator: seeded here, and put back
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        inject_adapter_in_model(config, model)

    # rows of new tokens are random, and frozen they would stay so
    if len(new_ids):
        tables = [model.transformer.wte] if model.config.tie_word_embeddings else [model.transformer.wte, model.lm_head]
        for table in tables:
            train_rows(table.weight, new_ids)


def describe_lora(model: GPT2LMHeadModel, new_ids: np.ndarray) -> str:
    """Describe how much of a network is trained."""
    parts = [weight for name, weight in model.named_parameters() if ".lora_" in name]
    trained, frozen = sum(part.numel() for part in parts), count_parameters(model)
    rows = f" and {len(new_ids):,} new rows of the embedding" if len(new_ids) else ""
    return f"LoRA: {trained:,} numbers in {len(parts):,} matrices{rows} are trained; {frozen - trained:,} stay"


def train_rows(weight: torch.nn.Parameter, ids: np.ndarray) -> None:
    """Train some rows of a table (V, D) and leave the others as they are."""
    mask = torch.zeros(len(weight), 1)  # (V, 1)
    mask[torch.from_numpy(ids)] = 1
    weight.requires_grad_(True)
    weight.register_hook(lambda gradient: gradient * mask.to(gradient.device, gradient.dtype))
    weight.rows_only = True  # the optimizer must not decay it


def plain_model(model: GPT2LMHeadModel) -> GPT2LMHeadModel:
    """Return a network without corrections beside its layers: itself, or a copy into which they are merged."""
    if not any(hasattr(module, "base_layer") for module in model.modules()):
        return model
    weights = model_weights(model)

    # an empty network takes the merged weights as they are, without a copy of its own
    with torch.device("meta"):
        plain = GPT2LMHeadModel(model.config)
    plain.load_state_dict({HEAD: weights[EMBEDDING], **weights}, assign=True)
    plain.tie_weights()
    return plain.to(model.transformer.wte.weight.device).train(model.training)
