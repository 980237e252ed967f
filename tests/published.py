"""GPT-2 folders as others publish them: a BERT vocabulary of 21,128 entries, weights and settings of several ages."""

import functools
from pathlib import Path

import torch
from transformers import BertTokenizer, GPT2Config, GPT2LMHeadModel

from novelgpt.corpus.tokenizers.base import save_vocabulary
from novelgpt.corpus.tokenizers.fitting import small_vocabulary
from novelgpt.files import write_json

BERT_SIZE = 21_128
WORDS = ["hello", "the", "www", "com", "app", "2017", "30", "ing", "##ing", "##com", "##00", "##er"]
TINY = {"n_layer": 2, "n_embd": 32, "n_head": 2, "n_positions": 64, "embd_pdrop": 0.1, "resid_pdrop": 0.1}
# the config.json of the most used Chinese GPT-2, sizes aside: idle keys, and marks of another vocabulary left in it
OLD_CONFIG = {
    "_name_or_path": "somebody/gpt2-chinese",
    "activation_function": "gelu_new",
    "architectures": ["GPT2LMHeadModel"],
    "attn_pdrop": 0.1,
    "bos_token_id": 50256,
    "eos_token_id": 50256,
    "gradient_checkpointing": False,
    "initializer_range": 0.02,
    "layer_norm_epsilon": 1e-05,
    "model_type": "gpt2",
    "n_ctx": 64,
    "n_inner": None,
    "output_past": True,
    "reorder_and_upcast_attn": False,
    "scale_attn_by_inverse_layer_idx": False,
    "scale_attn_weights": True,
    "summary_activation": None,
    "summary_first_dropout": 0.1,
    "summary_proj_to_labels": True,
    "summary_type": "cls_index",
    "summary_use_proj": True,
    "task_specific_params": {"text-generation": {"do_sample": True, "max_length": 320}},
    "tokenizer_class": "BertTokenizer",
    "torch_dtype": "float32",
    "transformers_version": "4.7.0",
    "use_cache": True,
}
MARKS = {"cls_token": "[CLS]", "mask_token": "[MASK]", "pad_token": "[PAD]", "sep_token": "[SEP]", "unk_token": "[UNK]"}
OLD_TOKENIZER_CONFIG = {
    **MARKS,
    "do_basic_tokenize": True,
    "do_lower_case": False,
    "model_max_length": 1024,
    "name_or_path": "somebody/gpt2-chinese",
    "never_split": None,
    "special_tokens_map_file": None,
    "strip_accents": None,
    "tokenize_chinese_chars": True,
    "tokenizer_class": "BertTokenizer",
}


@functools.cache
def bert_tokens() -> list[str]:
    """Return 21,128 tokens in BERT's order: marks among unused slots, ASCII, characters, words, ## pieces."""
    marks = ["[PAD]", *(f"[unused{number}]" for number in range(1, 100)), *("[UNK]", "[CLS]", "[SEP]", "[MASK]")]
    ascii_ = [chr(code) for code in range(0x21, 0x7F) if not chr(code).isupper()]
    characters = [token for token in small_vocabulary() if len(token) == 1 and not token.isspace()]
    whole = list(dict.fromkeys([*marks, "<S>", "<T>", *ascii_, *characters, *WORDS]))
    pieces = [f"##{token}" for token in [*ascii_, *characters] if f"##{token}" not in whole]
    return [*whole, *pieces][:BERT_SIZE]


def tiny_gpt2(**changes) -> GPT2LMHeadModel:
    """Return an untrained tiny network for that vocabulary whose logits are far from even."""
    torch.manual_seed(5)
    config = GPT2Config(**{**TINY, "vocab_size": BERT_SIZE, "initializer_range": 0.2, **changes})
    config.bos_token_id = config.eos_token_id = 101
    return GPT2LMHeadModel(config).eval()


def publish_new(folder: Path, model: GPT2LMHeadModel) -> Path:
    """Save network and vocabulary as today's transformers does."""
    model.save_pretrained(folder)
    save_vocabulary(folder / "list.txt", bert_tokens())
    BertTokenizer(str(folder / "list.txt")).save_pretrained(folder)
    (folder / "list.txt").unlink()
    return folder


def publish_old(folder: Path, model: GPT2LMHeadModel, **config) -> Path:
    """Save them as they lie on the hub since 2020: pytorch_model.bin with its mask buffers, vocab.txt, three JSON."""
    folder.mkdir()
    save_vocabulary(folder / "vocab.txt", bert_tokens())
    write_json(folder / "config.json", {**OLD_CONFIG, **TINY, "vocab_size": BERT_SIZE, **config})
    write_json(folder / "tokenizer_config.json", OLD_TOKENIZER_CONFIG)
    write_json(folder / "special_tokens_map.json", MARKS)
    torch.save(old_state(model), folder / "pytorch_model.bin")
    return folder


def old_state(model: GPT2LMHeadModel, prefix: str = "transformer.") -> dict[str, torch.Tensor]:
    """Return a state dict as transformers 2 to 4 wrote it: with the attention's mask and the head a second time."""
    state = {name.replace("transformer.", prefix): weight.clone() for name, weight in model.state_dict().items()}
    places = model.config.n_positions
    for index in range(model.config.n_layer):
        state[f"{prefix}h.{index}.attn.bias"] = torch.ones(1, 1, places, places).tril().to(torch.uint8)
        state[f"{prefix}h.{index}.attn.masked_bias"] = torch.tensor(-1e4)
    return state
