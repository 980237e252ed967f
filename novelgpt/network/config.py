"""A GPT-2 config JSON, checked key by key before anything is built from it.

Config files are ours (`config/model_config_small.json`), GPT2-Chinese's of 24 keys, or the `config.json` of a model
folder. A key outside the tables below is refused, so no setting is silently ignored and none can name code.
"""

import math
import re
import shlex
from pathlib import Path

from novelgpt.cli import spell_command
from novelgpt.corpus.tokenizers import NovelTokenizer, load_tokenizer
from novelgpt.files import MANIFEST, find_damage, read_json, ready_file
from novelgpt.messages import EXIT_STATE, EXIT_USAGE, UserError, nearest_words, say, warn

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
RUN_MODEL = re.compile(r"final_model|best_model|model_epoch(\d+)")  # what train.py writes into a run folder
HUB_NAME = re.compile(r"[\w-][\w.-]*/[\w.-]+")  # owner/model, as on huggingface.co
# every Hugging Face folder has these, so nobody needs to be told
SILENT = ("architectures", "transformers_version", "dtype", "torch_dtype", "use_cache")


def read_model_config(path: str | Path, *, loud: bool = True) -> dict:
    """Read the config JSON of a network to build, and print which of its keys have no effect if loud.

    Returns:
        GPT-2 config keys with checked values: n_layer, n_embd, n_head, n_positions and whatever else the file sets.

    Raises:
        UserError: not a JSON object, an unknown key (with the nearest name), a wrong type, a value out of range.
    """
    values = read_object(path, EXIT_USAGE)
    unused = [name for name in values if name in WITHOUT_EFFECT and name not in SILENT]
    if unused and loud:
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
    values = read_json(ready_file(path), code=code)
    if not isinstance(values, dict):
        message = f"{path}: found a {type(values).__name__}, expected a JSON object"
        raise UserError(message, '{"n_layer": 10, "n_embd": 768}', code)
    return values


def check_model_config(values: dict, *, name: str, code: int = EXIT_USAGE) -> dict:
    """Check a parsed config and return the keys that define the network; name: of its file, code: of a refusal.

    >>> check_model_config({"n_layer": 2, "n_embd": 8, "n_head": 2, "n_ctx": 16}, name="tiny")
    {'n_layer': 2, 'n_embd': 8, 'n_head': 2, 'n_positions': 16}
    """

    def refuse(problem: str, hint: str) -> None:
        raise UserError(f"{name}: {problem}", hint, code)

    # Names first: a misspelled key would otherwise be reported as a missing one.
    for key in values:
        if key not in KEYS:
            refuse(f"unknown key {key}", nearest_words(str(key), KEYS))
    # Each value by itself; null means "not given", as other tools write it.
    given = {key: value for key, value in values.items() if value is not None}
    for key in (*NUMBERS, *FIXED, TIED, "activation_function", "n_ctx"):
        if key in given and (wanted := find_fault(key, given[key])):
            expected, hint = wanted
            refuse(f"{key}: found {given[key]!r}, expected {expected}", hint)
    checked = {key: given[key] for key in (*NUMBERS, TIED, "activation_function") if key in given}
    # Then what belongs together: the two names of the context, the four required sizes, width and heads.
    context = given.get("n_ctx")
    if context is not None and (size := checked.setdefault("n_positions", context)) != context:
        hint = f'"n_ctx": {context}, "n_positions": {context}'
        refuse(f"n_ctx is {context} and n_positions is {size}, expected the same number", hint)
    for key in SMALL:
        if key not in checked:
            refuse(f"{key} is missing", f'"{key}": {SMALL[key]}')
    width, heads = checked["n_embd"], checked["n_head"]
    if width % heads:
        divisor = max(d for d in range(1, heads + 1) if width % d == 0)  # the nearest number of heads below
        refuse(f"n_embd {width} is not divisible by n_head {heads}", f'"n_head": {divisor}')
    return checked


def find_fault(key: str, value: object) -> tuple[str, str] | None:
    """Return what stands there in a right config and a hint that repairs this one; None where the value is right."""
    if key in FIXED:
        hint = f"set it to {str(FIXED[key]).lower()} or leave it out"
        return None if value == FIXED[key] else (repr(FIXED[key]), hint)
    if key == TIED:
        return None if isinstance(value, bool) else ("true or false", f'"{key}": true')
    if key == "activation_function":
        return None if value in ACTIVATIONS else (f"one of {', '.join(ACTIVATIONS)}", f'"{key}": "gelu_new"')
    kind, low, high = NUMBERS["n_positions" if key == "n_ctx" else key]
    # True is an int in Python, and JSON's Infinity and NaN are floats: none of them is a size
    kinds = (int,) if kind is int else (int, float)
    is_number = isinstance(value, kinds) and not isinstance(value, bool) and abs(value) < math.inf
    if is_number and low <= value <= high:
        return None
    words = "a whole number" if kind is int else "a number"
    return f"{words} from {low} to {high}", f'"{key}": {min(high, max(low, value)) if is_number else low}'


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

    >>> count_config_parameters(SMALL, 13317)
    81894144
    """
    return sum(math.prod(shape) for shape in expected_shapes(config, vocab_size).values())


def check_model_folder(folder: str | Path, *, flag: str = "--model_path", hashes: bool = True) -> None:
    """Raise unless a folder holds config.json and weights that match its manifest, when it has one.

    Args:
        folder: of a model.
        flag: the option that names it, for the hints; "" where it stands alone on the command line.
        hashes: read every byte; False compares names and sizes, at once.

    Raises:
        UserError: no such folder, no model in it, or a damaged one.
    """
    folder = Path(folder)
    if folder.is_file():
        hint = f"{flag} {folder.parent}".strip()
        raise UserError(f"{folder}: is a file, expected a model folder", hint, EXIT_STATE)
    if not folder.is_dir():
        raise missing_folder(folder, flag)
    if not (folder / "config.json").is_file():
        inner = find_models(folder) or sorted(path.parent for path in folder.glob("*/config.json"))
        hint = f"{flag} {inner[0]}".strip() if inner else "give a folder such as model/final_model"
        raise UserError(f"{folder}: no config.json in it, so not a model folder", hint, EXIT_STATE)
    # Folders of other tools have no manifest; there the shapes of the weights are all that can be checked.
    if (folder / MANIFEST).exists() and (damage := find_damage(folder, hashes=hashes)):
        others = [other for other in find_models(folder.parent) if other.name != folder.name]
        hint = f"{flag} {others[0]}".strip() if others else "use another model folder of the run, or train again"
        raise UserError(f"{folder}: damaged: {damage}", hint, EXIT_STATE)


def missing_folder(folder: Path, flag: str) -> UserError:
    """Return the error of a model folder that is not there; its hint is the one to take, or how to get one."""
    others, name, parts = find_models(folder.parent), folder.as_posix(), folder.parts
    is_of_run = RUN_MODEL.fullmatch(folder.name)
    unfinished = describe_unfinished(folder) if is_of_run else None
    message, hint = unfinished or (
        f"{folder}: no such folder, expected a model folder",
        "give a folder such as model/final_model",
    )
    if others:
        hint = f"{flag} {others[0]}".strip()
    elif is_of_run and not unfinished:
        is_of_book = len(parts) > 3 and parts[-4] == "books"  # books/NAME/model/final_model
        hint = "python train.py --raw" + (f" --book {shlex.quote(parts[-3])}" if is_of_book else "")
    elif HUB_NAME.fullmatch(name) and not folder.parent.is_dir():
        message = f"{name}: no such folder, and models are not downloaded by their names"
        load = f"pip install huggingface_hub\nhf download {name} --local-dir {folder.name}"
        hint = f"{load}\nand then: {f'{flag} {folder.name}'.strip()}"
    return UserError(message, hint, EXIT_STATE)


def describe_unfinished(folder: Path) -> tuple[str, str] | None:
    """Say how far the run is that has yet to write a model folder, and the command that goes on; None: it is none."""
    path, is_ended = folder.parent / "run.json", (folder.parent / "final_model" / "config.json").is_file()
    former = read_json(path) if path.is_file() and not is_ended else None
    if not isinstance(former, dict) or not isinstance(former.get("options"), dict) or "total_steps" not in former:
        return None
    names = [path.name[5:] for path in folder.parent.glob("checkpoints/step-*") if path.name[5:].isdecimal()]
    step, total = max(map(int, names), default=0), former["total_steps"]
    message = f"{folder}: no such folder: training has not ended, {step:,} steps are saved"
    if total is not None:  # no hours end it
        message = f"{folder}: no such folder: training has not ended, {step:,} of {total:,} steps are saved"
    # a --resume other than auto would begin where that run began
    changes = {} if former["options"].get("resume", "auto") == "auto" else {"resume": "auto"}
    return message, spell_command(former.get("command"), **changes)


def find_models(run_folder: Path) -> list[Path]:
    """Return the model folders of a run, the best one first, then the last ones."""
    found = {path.parent: RUN_MODEL.fullmatch(path.parent.name) for path in run_folder.glob("*_*/config.json")}
    # final_model has no number and is later than all that have one
    epochs = {path: int(match[1] or 10**9) for path, match in found.items() if match}
    return sorted(epochs, key=lambda path: (path.name != "best_model", -epochs[path]))


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
