"""A GPT-2 with a character vocabulary -> one GGUF file, which llama.cpp and programs built on it run.

llama.cpp has no tokenizer of characters with byte fallback by that name, but the one it calls "llama" (SentencePiece)
is just that when no two tokens join into a third: it looks up every character and writes the absent ones as bytes. It
writes a space as ▁ (U+2581), so the space's byte token has that name there, and a real ▁ is read as a space.

    [UNK]              UNKNOWN         <0x00> … <0xFF>    BYTE
    other marks        CONTROL         <0x20>             NORMAL, named ▁
    [unusedN]          UNUSED          characters         NORMAL

In q8_0 a row of a matrix is cut into blocks of 32 weights: an fp16 scale, the largest of them by size / 127, and 32
whole numbers from -127 to 127 that it multiplies; 8.5 bits a weight.
"""

from pathlib import Path

import torch
from transformers import GPT2Config

from novelgpt.corpus.tokenizers import NovelTokenizer
from novelgpt.messages import EXIT_ENVIRONMENT, EXIT_STATE, UserError, warn

SPACE, SPACE_SIGN = "<0x20>", "\u2581"
TANH_GELUS = ("gelu_new", "gelu_pytorch_tanh", "gelu_fast")  # the only activation of llama.cpp's GPT-2
# our name of a layer: GGUF's
TABLES = {"wte": "token_embd", "wpe": "position_embd", "ln_f": "output_norm", "lm_head": "output"}
LAYERS = {
    "ln_1": "attn_norm",
    "attn.c_attn": "attn_qkv",
    "attn.c_proj": "attn_output",
    "ln_2": "ffn_norm",
    "mlp.c_fc": "ffn_up",
    "mlp.c_proj": "ffn_down",
}
# --dtype: number format of a tensor, and of the whole file
TYPE_NAMES = {"fp32": "F32", "fp16": "F16", "bf16": "BF16", "q8_0": "Q8_0"}
FILE_TYPES = {"fp32": "ALL_F32", "fp16": "MOSTLY_F16", "bf16": "MOSTLY_BF16", "q8_0": "MOSTLY_Q8_0"}
BLOCK = 32  # weights that share a scale in q8_0
LARGEST = 127 * 65_504.0  # that it can hold, for the scale is fp16


def tensor_name(name: str) -> str:
    """Return GGUF's name of a weight.

    >>> tensor_name("transformer.h.3.attn.c_proj.bias"), tensor_name("transformer.wpe.weight")
    ('blk.3.attn_output.bias', 'position_embd.weight')
    >>> tensor_name("lm_head.weight")  # only where it is not the embedding
    'output.weight'
    """
    inner, kind = name.removeprefix("transformer.").rsplit(".", 1)
    if inner in TABLES:
        return f"{TABLES[inner]}.{kind}"
    _, index, layer = inner.split(".", 2)  # h.3.attn.c_proj
    return f"blk.{index}.{LAYERS[layer]}.{kind}"


def list_tokens(tokenizer: NovelTokenizer) -> tuple[list[str], list[str]]:
    """Return the names of the tokens in a GGUF file, all of them different, and their types.

    >>> tokenizer = NovelTokenizer.from_texts(["炎▁"])
    >>> names, kinds = list_tokens(tokenizer)
    >>> [(names[index], kinds[index]) for index in (1, 2, 5, tokenizer.tokens.index("<0x20>"))]
    [('[UNK]', 'UNKNOWN'), ('[CLS]', 'CONTROL'), ('[unused1]', 'UNUSED'), ('▁', 'NORMAL')]
    >>> names[tokenizer.tokens.index("▁")]
    '<U+2581>'
    """
    bytes_of, reserved = set(tokenizer.byte_ids.tolist()), set(tokenizer.reserved)
    names, kinds = [], []
    for index, token in enumerate(tokenizer.tokens):
        kind = "NORMAL"
        # The space takes the name ▁, so a real ▁ gets another, under which it is never looked up.
        if token == SPACE:
            token = SPACE_SIGN
        elif token == SPACE_SIGN:
            token, kind = "<U+2581>", "UNUSED"
        elif index in bytes_of:
            kind = "BYTE"
        elif index == tokenizer.unk_id:
            kind = "UNKNOWN"
        elif token in tokenizer.marks:
            kind = "CONTROL"
        elif index in reserved:
            kind = "UNUSED"
        names.append(token)
        kinds.append(kind)
    return names, kinds


def check_fit(config: GPT2Config, tokenizer: NovelTokenizer) -> None:
    """Refuse a model that llama.cpp would compute or read differently."""
    if tokenizer.kind != "character":
        message = f"--to gguf: a {tokenizer.kind} vocabulary, which llama.cpp would not read token for token as it is"
        raise UserError(message, "only models with a character vocabulary can be written as GGUF", EXIT_STATE)
    if config.activation_function not in TANH_GELUS:
        message = f"--to gguf: activation_function {config.activation_function}, llama.cpp computes gelu_new"
        raise UserError(message, "--to hf", EXIT_STATE)
    if SPACE_SIGN in tokenizer.tokens:
        warn(f"--to gguf: llama.cpp reads {SPACE_SIGN} (U+2581) as a space; the model's own token of it is not used")


def import_gguf():
    """Return the package, or raise with the command that installs it."""
    try:
        import gguf
    except ImportError as problem:
        message = "--to gguf: the package gguf is not installed"
        raise UserError(message, "pip install gguf", EXIT_ENVIRONMENT) from problem
    return gguf


def write_gguf(
    path: Path,
    weights: dict[str, torch.Tensor],
    config: GPT2Config,
    tokenizer: NovelTokenizer,
    *,
    name: str,
    dtype: str,
) -> None:
    """Write a GGUF file.

    Args:
        path, name: of the file, and of the model.
        weights: by transformers' names, in fp32 on the CPU.
        config, tokenizer: of the network; the tokenizer is of the character kind.
        dtype: number format of the matrices, a key of TYPE_NAMES. Norms, biases and positions stay fp32, and so do in
            q8_0 matrices whose width is no multiple of 32.

    Raises:
        UserError: the package is missing, llama.cpp would not compute the model exactly so, or a weight is too large.
    """
    check_fit(config, tokenizer)
    gguf = import_gguf()
    # The network's sizes, under the keys that llama.cpp reads for a GPT-2.
    writer = gguf.GGUFWriter(path, "gpt2")
    writer.add_name(name)
    writer.add_context_length(config.n_positions)
    writer.add_embedding_length(config.n_embd)
    writer.add_block_count(config.n_layer)
    writer.add_feed_forward_length(config.n_inner or 4 * config.n_embd)
    writer.add_head_count(config.n_head)
    writer.add_layer_norm_eps(config.layer_norm_epsilon)
    writer.add_file_type(getattr(gguf.LlamaFileType, FILE_TYPES[dtype]))
    if dtype == "q8_0":
        writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    # The vocabulary, then the tensors; the file is written in three parts at the end.
    add_tokenizer(writer, gguf, tokenizer)
    for place, weight in weights.items():
        add_tensor(writer, gguf, tensor_name(place), weight, dtype)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def add_tokenizer(writer, gguf, tokenizer: NovelTokenizer) -> None:
    """Write the vocabulary: [CLS] stands in front of every text, and it ends one."""
    names, kinds = list_tokens(tokenizer)
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(names)
    writer.add_token_scores([0.0] * len(names))
    writer.add_token_types([getattr(gguf.TokenType, kind) for kind in kinds])
    # bos = eos = [CLS]; llama.cpp puts it in front of a prompt by itself, and no space.
    writer.add_bos_token_id(tokenizer.cls_id)
    writer.add_eos_token_id(tokenizer.cls_id)
    writer.add_unk_token_id(tokenizer.unk_id)
    writer.add_pad_token_id(tokenizer.pad_id)
    writer.add_add_bos_token(True)
    writer.add_add_eos_token(False)
    writer.add_add_space_prefix(False)


def add_tensor(writer, gguf, name: str, weight: torch.Tensor, dtype: str) -> None:
    """Write one tensor; the matrices of the layers are transposed from (in, out) to (out, in)."""
    is_matrix = weight.dim() == 2 and name.startswith("blk.")
    values = (weight.t() if is_matrix else weight).contiguous().numpy()
    # Norms, biases and positions are small, so they stay exact.
    exact = weight.dim() == 1 or name == "position_embd.weight" or (dtype == "q8_0" and values.shape[1] % BLOCK > 0)
    if dtype == "q8_0" and abs(values).max() > LARGEST:
        message = f"--dtype q8_0: cannot hold {abs(values).max():.4g} of {name}"
        raise UserError(message, "--dtype bf16 or fp32", EXIT_STATE)
    kind = gguf.GGMLQuantizationType[TYPE_NAMES["fp32" if exact else dtype]]
    writer.add_tensor(name, gguf.quants.quantize(values, kind), raw_dtype=kind)
