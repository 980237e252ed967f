"""A GPT-2 config JSON, checked key by key before anything is built from it.

Config files are ours (`config/model_config_small.json`), GPT2-Chinese's of 24 keys, or the `config.json` of a model
folder. A key outside the tables below is refused, so no setting is silently ignored and none can name code.
"""

import math
from pathlib import Path

from novelgpt.files import read_json
from novelgpt.messages import EXIT_STATE, EXIT_USAGE, UserError, nearest_words, say

# name: (type, lowest, highest); these define the network
NUMBERS = {
    "n_layer": (int, 1, 200),
    "n_embd": (int, 1, 16_384),
    "n_head": (int, 1, 256),
    "n_positions": (int, 2, 65_536),
    "n_inner": (int, 1, 65_536),
    "vocab_size": (int, 1, 10_000_000),
    "embd_pdrop": (float, 0.0, 0.99),
    "resid_pdrop": (float, 0.0, 0.99),
    "attn_pdrop": (float, 0.0, 0.99),
    "layer_norm_epsilon": (float, 1e-12, 0.1),
    "initializer_range": (float, 1e-6, 1.0),
}
ACTIVATIONS = ("gelu_new", "gelu", "gelu_pytorch_tanh", "gelu_fast", "relu", "silu", "swish", "tanh")
TIED = "tie_word_embeddings"  # false: the head has a matrix of its own
EMBEDDING, HEAD = "transformer.wte.weight", "lm_head.weight"  # names of weights
# GPT-2 variants that this project does not build: the key may stand there with the usual value only
FIXED = {
    "model_type": "gpt2",
    "scale_attn_weights": True,
    "scale_attn_by_inverse_layer_idx": False,
    "reorder_and_upcast_attn": False,
    "add_cross_attention": False,
    "is_encoder_decoder": False,
    "pruned_heads": {},
}
# written by other tools, or implied by the vocabulary; they change nothing here
WITHOUT_EFFECT = (
    "_attn_implementation_autoset _commit_hash _name_or_path _num_labels architectures bad_words_ids "
    "begin_suppress_tokens bos_token_id chunk_size_feed_forward cls_token_id cross_attention_hidden_size "
    "decoder_start_token_id diversity_penalty do_sample dtype early_stopping encoder_no_repeat_ngram_size "
    "eos_token_id exponential_decay_length_penalty finetuning_task forced_bos_token_id forced_eos_token_id "
    "gradient_checkpointing id2label is_decoder label2id length_penalty mask_token_id max_length min_length "
    "no_repeat_ngram_size num_beam_groups num_beams num_labels num_return_sequences output_attentions "
    "output_hidden_states output_past output_scores pad_token_id predict_special_tokens prefix problem_type "
    "remove_invalid_values repetition_penalty return_dict return_dict_in_generate sep_token_id summary_activation "
    "summary_first_dropout summary_proj_to_labels summary_type summary_use_proj suppress_tokens "
    "task_specific_params temperature tf_legacy_loss tie_encoder_decoder tokenizer_class top_k top_p torch_dtype "
    "torchscript transformers_version typical_p unk_token_id use_bfloat16 use_cache xla_device "
).split()
SMALL = {"n_layer": 10, "n_embd": 768, "n_head": 12, "n_positions": 1024}  # shown where one is missing
KEYS = [*NUMBERS, "n_ctx", "activation_function", TIED, *FIXED, *WITHOUT_EFFECT]
# every Hugging Face folder has these, so nobody needs to be told
SILENT = ("architectures", "transformers_version", "dtype", "torch_dtype", "use_cache")


def read_model_config(path: str | Path) -> dict:
    """Read the config JSON of a network to build, and print which of its keys have no effect.

    Args:
        path: a config JSON file.

    Returns:
        GPT-2 config keys with checked values: n_layer, n_embd, n_head, n_positions and whatever else the file sets.

    Raises:
        UserError: not a JSON object, an unknown key (with the nearest name), a wrong type, a value out of range.
    """
    values = read_object(path, EXIT_USAGE)
    unused = [name for name in values if name in WITHOUT_EFFECT and name not in SILENT]
    if unused:
        say(f"{path}: without effect here: {', '.join(unused)}")
    return check_model_config(values, name=str(path))


def read_folder_config(folder: str | Path) -> dict:
    """Read the config.json of a model folder as read_model_config does, without the line about idle keys.

    Where its n_ctx differs from n_positions, the latter counts: for the tools that wrote both, n_ctx was a mask's size.
    """
    path = Path(folder) / "config.json"
    values = read_object(path, EXIT_STATE)
    if values.get("n_positions") is not None:
        values.pop("n_ctx", None)
    return check_model_config(values, name=str(path), code=EXIT_STATE)


def read_object(path: str | Path, code: int) -> dict:
    """Read a JSON object."""
    values = read_json(path, code=code)
    if not isinstance(values, dict):
        raise UserError(
            f"{path}: found a {type(values).__name__}, expected a JSON object", '{"n_layer": 10, "n_embd": 768}', code
        )
    return values


def check_model_config(values: dict, *, name: str, code: int = EXIT_USAGE) -> dict:
    """Check a parsed config and return the keys that define the network.

    Args:
        values: what stood in the file.
        name: of the file, for messages.
        code: exit status of a refusal.

    >>> check_model_config({"n_layer": 2, "n_embd": 8, "n_head": 2, "n_ctx": 16}, name="tiny")
    {'n_layer': 2, 'n_embd': 8, 'n_head': 2, 'n_positions': 16}
    """
    # Names first: a misspelled key would otherwise be reported as a missing one.
    for key in values:
        if key not in KEYS:
            raise UserError(f"{name}: unknown key {key}", nearest_words(str(key), KEYS), code)
    # Each value by itself; null means "not given", as other tools write it.
    checked = {key: check_number(key, values[key], name, code) for key in NUMBERS if values.get(key) is not None}
    for key, usual in FIXED.items():
        if values.get(key, usual) not in (usual, None):
            hint = f"set it to {str(usual).lower()} or leave it out"
            raise UserError(f"{name}: {key}: found {values[key]!r}, expected {usual!r}", hint, code)
    if values.get(TIED) is not None:
        checked[TIED] = check_switch(TIED, values[TIED], name, code)
    if values.get("activation_function") is not None:
        checked["activation_function"] = check_activation(values["activation_function"], name, code)
    # Then what belongs together: the two names of the context, the four required sizes, width and heads.
    if values.get("n_ctx") is not None:
        context = check_number("n_ctx", values["n_ctx"], name, code)
        if checked.setdefault("n_positions", context) != context:
            message = (
                f"{name}: n_ctx is {context} and n_positions is {checked['n_positions']}, expected the same number"
            )
            raise UserError(message, f'"n_ctx": {context}, "n_positions": {context}', code)
    for key in SMALL:
        if key not in checked:
            raise UserError(f"{name}: {key} is missing", f'"{key}": {SMALL[key]}', code)
    if checked["n_embd"] % checked["n_head"]:
        width, heads = checked["n_embd"], checked["n_head"]
        divisor = max(d for d in range(1, heads + 1) if width % d == 0)  # the nearest number of heads below
        message = f"{name}: n_embd {width} is not divisible by n_head {heads}"
        raise UserError(message, f'"n_head": {divisor}', code)
    return checked


def check_number(key: str, value: object, name: str, code: int) -> int | float:
    """Return a config number of the right type and range, or raise with key, value and range."""
    kind, low, high = NUMBERS["n_positions" if key == "n_ctx" else key]
    kinds = (int,) if kind is int else (int, float)
    # True is an int in Python, and JSON's Infinity and NaN are floats: none of them is a size
    is_number = isinstance(value, kinds) and not isinstance(value, bool) and abs(value) < math.inf
    if not is_number or not low <= value <= high:
        words = "a whole number" if kind is int else "a number"
        message = f"{name}: {key}: found {value!r}, expected {words} from {low} to {high}"
        raise UserError(message, f'"{key}": {min(high, max(low, value)) if is_number else low}', code)
    return value


def check_switch(key: str, value: object, name: str, code: int) -> bool:
    """Return true or false, or raise."""
    if not isinstance(value, bool):
        raise UserError(f"{name}: {key}: found {value!r}, expected true or false", f'"{key}": true', code)
    return value


def check_activation(value: object, name: str, code: int) -> str:
    """Return a known activation function's name, or raise."""
    if value not in ACTIVATIONS:
        message = f"{name}: activation_function: found {value!r}, expected one of {', '.join(ACTIVATIONS)}"
        raise UserError(message, '"activation_function": "gelu_new"', code)
    return value


def expected_shapes(config: dict, vocab_size: int) -> dict[str, tuple[int, ...]]:
    """Map every weight of the GPT-2 that a checked config describes to its shape; a tied head appears as the embedding.

    V·d + T·d numbers in the embeddings; in each block 2 layer norms (4d), attention (4d² + 4d) and the MLP
    (2·d·m + m + d); a last layer norm 2d; an untied head another V·d.
    """
    d = config["n_embd"]
    m = config.get("n_inner") or 4 * d  # width of the MLP
    shapes = {EMBEDDING: (vocab_size, d), "transformer.wpe.weight": (config["n_positions"], d)}
    shapes |= {} if config.get(TIED, True) else {HEAD: (vocab_size, d)}
    # Matrices are (in, out), as GPT-2's Conv1D has them; a bias is as long as its weight's last dimension.
    inner = {"ln_1": (d,), "ln_2": (d,), "attn.c_attn": (d, 3 * d), "attn.c_proj": (d, d)}
    inner |= {"mlp.c_fc": (d, m), "mlp.c_proj": (m, d)}
    blocks = {f"transformer.h.{i}.{name}": shape for i in range(config["n_layer"]) for name, shape in inner.items()}
    for name, shape in {**blocks, "transformer.ln_f": (d,)}.items():
        shapes |= {f"{name}.weight": shape, f"{name}.bias": shape[-1:]}
    return shapes


def count_config_parameters(config: dict, vocab_size: int) -> int:
    """Count the parameters of the GPT-2 that a checked config describes, without building it.

    >>> small = {"n_layer": 10, "n_embd": 768, "n_head": 12, "n_positions": 1024}
    >>> count_config_parameters(small, 13317)
    81894144
    """
    return sum(math.prod(shape) for shape in expected_shapes(config, vocab_size).values())
