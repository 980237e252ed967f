"""A pretrained network and another vocabulary -> the same network with an embedding row for each of its tokens.

    old:  [CLS] [SEP]  萧  炎  a          new:  [CLS] [TIL]  萧  炎  焱
            │     ×     │   │  ×                  │     +     │   │   +
            └───────────┼───┼─── kept ────────────┘           │   │       3 kept, 2 new, 2 dropped

A row whose token is the same is kept bit for bit. A new row is the mean of all old rows plus a little noise: whatever
the network computes, the new tokens then together take no more of the probability than their share of the vocabulary
allows, while small random rows may take nearly all of it (Hewitt 2021, "Initializing New Word Embeddings for Pretrained
Language Models"; transformers' resize_token_embeddings does the same). A head of its own follows the embedding.

LoRA, through the optional package peft, trains a small correction beside each matrix of a frozen network::

    output = input · W + (alpha / rank) · dropout(input) · A · B        W (in, out) frozen, A (in, rank), B (rank, out)

B begins at zero, so training begins at the pretrained network (Hu et al. 2021, arXiv 2106.09685). All linear layers of
the blocks get one. Rows of tokens that the network has never seen are trained, too, for nothing else could teach it
what they mean. Checkpoints hold what is trained; model folders hold W + (alpha / rank) · A · B, a plain GPT-2.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from transformers import GPT2LMHeadModel

from novelgpt.corpus.tokenizers import NovelTokenizer, has_vocabulary, load_tokenizer
from novelgpt.messages import EXIT_USAGE, UserError
from novelgpt.network import (
    EMBEDDING,
    HEAD,
    TIED,
    check_model_folder,
    count_parameters,
    hash_weights,
    load_model,
    model_weights,
    read_folder_config,
)

DEFAULT_VOCABULARY = "cache/vocab_small.txt"
LAYERS = ("c_attn", "c_proj", "c_fc")  # GPT-2's names; c_proj is one of attention and one of the MLP
NOISE = 0.1  # of the old rows' standard deviation, so that new tokens can part
ASCII = {f"<0x{byte:02X}>": chr(byte) for byte in range(0x21, 0x7F)}  # <0x61> is BERT's a


@dataclass(frozen=True)
class Adaptation:
    """What became of an embedding."""

    sources: np.ndarray  # int64 (V,), the old row of each token; -1 for a new one
    dropped: int  # old rows that no token takes

    @property
    def new_ids(self) -> np.ndarray:
        """The tokens whose rows are new, int64 (N,)."""
        return np.flatnonzero(self.sources < 0)

    @property
    def has_changed(self) -> bool:
        """Whether any row is new, dropped or elsewhere."""
        return self.dropped > 0 or not np.array_equal(self.sources, np.arange(len(self.sources)))

    def describe(self) -> str:
        """Describe the counts."""
        new = len(self.new_ids)
        return f"{len(self.sources) - new:,} rows of the embedding kept, {new:,} new, {self.dropped:,} dropped"


def choose_vocabulary(tokenizer_path: str | None, pretrained_model: str | None) -> str:
    """Return where a run's vocabulary comes from, added tokens aside."""
    return tokenizer_path or pretrained_model or DEFAULT_VOCABULARY


def choose_tokenizer(
    tokenizer_path: str | None, pretrained_model: str | None, add_tokens: str | None
) -> NovelTokenizer:
    """Load the vocabulary of a run, the model's own or the default one where none is given, with its added tokens.

    Raises:
        UserError: no model folder, no vocabulary, or a token that cannot be added.
    """
    path = choose_vocabulary(tokenizer_path, pretrained_model)
    if pretrained_model and not (Path(pretrained_model) / "config.json").is_file():
        check_model_folder(pretrained_model, flag="--pretrained_model")  # reports what is there instead
    if path == pretrained_model and not has_vocabulary(Path(pretrained_model)):
        message = f"{pretrained_model}: holds no vocabulary, neither tokenizer.json nor vocab.txt"
        raise UserError(message, "give the one that it was trained with: --tokenizer_path vocab.txt", EXIT_USAGE)
    return load_tokenizer(path, add_tokens=add_tokens)


def describe_added(add_tokens: str | None, tokenizer: NovelTokenizer) -> list[str]:
    """Describe which ids the added tokens have, in a line if there are any."""
    names = [name.strip() for name in (add_tokens or "").split(",") if name.strip()]
    places = [f"{name} is {tokenizer.marks[name]:,}" for name in names]
    return [f"--add_tokens: {', '.join(places)}"] if places else []


def load_pretrained(
    folder: Path, tokenizer: NovelTokenizer, *, vocabulary: str | None, seed: int
) -> tuple[GPT2LMHeadModel, dict, Adaptation]:
    """Load the network to start from and give it a run's vocabulary.

    Args:
        folder: of the model.
        tokenizer: of the run.
        vocabulary: whose tokens the embedding is of, where the folder holds no vocabulary of its own.
        seed: the rows of new tokens are a function of it.

    Returns:
        (network in fp32 on the CPU, its checked config, what became of its embedding).
    """
    own_vocabulary = None if not folder.is_dir() or has_vocabulary(folder) else vocabulary

    # the embedding is of the model's own vocabulary until its rows are matched
    model, own = load_model(folder, vocabulary=own_vocabulary, flag="--pretrained_model")
    config = read_folder_config(folder) | {TIED: model.config.tie_word_embeddings}
    adaptation = match_rows(own, tokenizer)
    if own.tokens != tokenizer.tokens:
        adapt_embeddings(model, tokenizer, adaptation, seed=seed)
    return model, config, adaptation


def match_rows(old: NovelTokenizer, new: NovelTokenizer) -> Adaptation:
    """Find the old row of every token of a new vocabulary.

    Tokens are the same that have one name; so are an ASCII character of BERT and its byte token, and what stands for a
    newline in either.

    >>> from novelgpt.corpus.tokenizers.wordpiece import WordPieceTokenizer
    >>> old = WordPieceTokenizer(["[PAD]", "[unused1]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "萧"])
    >>> adaptation = match_rows(old, old.add_tokens(["[TIL]", "[WS]"]))
    >>> adaptation.sources.tolist(), adaptation.dropped
    ([0, -1, 2, 3, 4, 5, 6, -1], 1)
    """
    # a token of the very name goes before one of the same spelling
    ids = {name: index for index, name in enumerate(visible_tokens(old.tokens))}
    ids |= {token: index for index, token in enumerate(old.tokens)}
    sources = np.array([ids.get(name, -1) for name in visible_tokens(new.tokens)], np.int64)  # (V,)
    sources[new.newline_id] = old.newline_id  # [SEP] in BERT's vocabularies, a byte token in ours
    return Adaptation(sources, old.vocab_size - len(np.unique(sources[sources >= 0])))


def visible_tokens(tokens: Sequence[str]) -> list[str]:
    """Write the byte tokens of visible ASCII as their characters.

    >>> visible_tokens(["<0x61>", "<0x0A>", "萧"])
    ['a', '<0x0A>', '萧']
    """
    return [ASCII.get(token, token) for token in tokens]


def adapt_embeddings(model: GPT2LMHeadModel, tokenizer: NovelTokenizer, adaptation: Adaptation, *, seed: int) -> None:
    """Give a network the embedding, and the head, of another vocabulary, in place; new rows follow from the seed."""
    embedding, config = model.transformer.wte, model.config

    # a tied head is the embedding itself; another one gets rows of its own
    embedding.weight = torch.nn.Parameter(new_table(embedding.weight, adaptation, seed=seed))
    if config.tie_word_embeddings:
        model.lm_head.weight = embedding.weight
    else:
        model.lm_head.weight = torch.nn.Parameter(new_table(model.lm_head.weight, adaptation, seed=seed + 1))

    # what else knows the size of the vocabulary
    embedding.num_embeddings = model.lm_head.out_features = config.vocab_size = tokenizer.vocab_size
    config.bos_token_id = config.eos_token_id = tokenizer.cls_id


@torch.no_grad()
def new_table(old: torch.Tensor, adaptation: Adaptation, *, seed: int) -> torch.Tensor:
    """Return the rows (V, D) of a new vocabulary from those of the old one (V', D).

    >>> table = new_table(torch.tensor([[1.0, 2.0], [3.0, 2.0]]), Adaptation(np.array([1, -1]), 1), seed=0)
    >>> table[0].tolist(), [round(value) for value in table[1].tolist()]
    ([3.0, 2.0], [2, 2])
    """
    generator = torch.Generator().manual_seed(seed)

    # the mean of all rows plus a little noise, then every old row where it belongs
    noise = torch.randn(len(adaptation.sources), old.shape[1], generator=generator)  # (V, D)
    table = old.mean(0) + NOISE * old.std(0) * noise
    kept = torch.from_numpy(adaptation.sources >= 0)
    table[kept] = old[torch.from_numpy(adaptation.sources)[kept]]
    return table


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
