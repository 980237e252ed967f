"""The names that other tools give to our options, so that their config files mean the same here.

They come from Hugging Face's TrainingArguments and run_clm.py, Lightning, nanoGPT and transformers' generate(). Config
files may use them: one line on stderr lists each with our name, and `--print_config` prints ours. On the command line
such a name is an error whose hint is ours.
"""

from collections.abc import Collection, Mapping, Sequence

from novelgpt.messages import EXIT_USAGE, UserError, is_main_process, say, warn

# section of a config file -> their name -> our option
NAMES = {
    "train": {
        "learning_rate": "lr", "num_train_epochs": "epochs", "max_epochs": "epochs",
        "per_device_train_batch_size": "batch_size",
        "gradient_accumulation_steps": "gradient_accumulation", "accumulate_grad_batches": "gradient_accumulation",
        "accumulate": "gradient_accumulation", "gradient_clip_val": "max_grad_norm", "grad_clip": "max_grad_norm",
        "lr_scheduler_type": "lr_scheduler", "warmup_ratio": "warmup_steps",
        "warmup_iters": "warmup_steps", "min_lr": "lr_end", "adam_beta1": "beta1", "adam_beta2": "beta2",
        "optim": "optimizer", "bf16": "precision", "use_cpu": "device", "no_cuda": "device",
        "logging_steps": "log_step", "log_interval": "log_step", "eval_interval": "eval_steps",
        "evaluation_strategy": "eval_steps", "eval_strategy": "eval_steps", "save_strategy": "save_steps",
        "logging_dir": "writer_dir", "out_dir": "output_dir", "seed_everything": "seed",
        "model_name_or_path": "pretrained_model", "config_name": "model_config", "tokenizer_name": "tokenizer_path",
        "validation_split_percentage": "valid_fraction", "resume_from_checkpoint": "resume",
        "overwrite_output_dir": "resume",
    },
    "eval": {
        "model_name_or_path": "model_path", "pretrained_model": "model_path", "ckpt_path": "model_path",
        "per_device_eval_batch_size": "batch_size", "validation_file": "text_path", "test_file": "text_path",
    },
    "generate": {
        "model_name_or_path": "model_path", "max_new_tokens": "length", "num_return_sequences": "nsamples",
        "num_samples": "nsamples", "top_k": "topk", "top_p": "topp", "prompt": "prefix", "do_sample": "temperature",
    },
}  # fmt: skip

# where their strategy "steps" finds its number of steps
EVAL_STEPS = ("eval_steps", "eval_interval", "logging_steps", "log_interval", "log_step")
STRATEGIES = {"evaluation_strategy": EVAL_STEPS, "eval_strategy": EVAL_STEPS, "save_strategy": ("save_steps",)}
# what a value of theirs is in ours; None is our default. A name that is not here passes its value on.
VALUES = {
    "lr_scheduler_type": {"constant_with_warmup": "constant"},
    "optim": dict.fromkeys(("adamw_torch", "adamw_torch_fused", "adamw_hf"), "adamw"),
    "bf16": {"true": "bf16", "false": None},
    **{name: {"true": "cpu", "false": None} for name in ("use_cpu", "no_cuda")},
    **{name: {"epoch": "0", "no": "0", "steps": "500"} for name in STRATEGIES},
    "resume_from_checkpoint": {"true": "auto", "false": "never"},
    "overwrite_output_dir": {"true": "never", "false": None},
    "do_sample": {"true": None, "false": "0"},
}
OPEN = {"lr_scheduler_type", "resume_from_checkpoint"}  # these take other values too

# keys of a run_clm or seq2seq run that change nothing here, with the values of which that is true; () is every value
NO, YES = ("false",), ("true",)
WHATEVER = (
    "cache_dir data_seed dataloader_num_workers dataloader_pin_memory ddp_find_unused_parameters disable_tqdm do_eval "
    "do_predict early_stopping eval_accumulation_steps eval_batch_size fp16_backend fp16_opt_level "
    "generation_max_length generation_num_beams half_precision_backend hub_model_id hub_token local_rank log_level "
    "logging_first_step logging_strategy low_cpu_mem_usage max_eval_samples max_seq_length max_source_length "
    "max_target_length model_revision num_beams num_workers overwrite_cache pad_to_max_length "
    "per_device_eval_batch_size predict_with_generate remove_unused_columns report_to run_name save_safetensors "
    "source_prefix summary_column tf32 use_auth_token use_fast_tokenizer val_max_target_length"
)
WITHOUT_EFFECT = {
    "train": dict.fromkeys(WHATEVER.split(), ()) | {
        "do_train": YES, "ignore_pad_token_for_loss": YES, "keep_linebreaks": YES, "greater_is_better": NO,
        "push_to_hub": NO, "dataloader_drop_last": NO, "group_by_length": NO, "streaming": NO, "ignore_data_skip": NO,
        "metric_for_best_model": ("loss", "eval_loss"), "early_stopping_metric": ("loss", "eval_loss"),
        "early_stopping_threshold": ("0",), "label_smoothing_factor": ("0",), "adam_epsilon": ("1e-8",),
        "max_steps": ("-1",), "model_type": ("gpt2",), "torch_dtype": ("auto", "float32"),
    },
    "eval": {"do_eval": YES, "do_train": NO},
    "generate": {"use_cache": (), "use_past": ()},
}  # fmt: skip
# what might surprise in an option of ours
REMARKS = {
    "batch_size": ", the batch of a whole step over all devices",
    "gradient_accumulation": ", which splits the batch of a step",
}


def hint_for(name: str, section: str) -> str | None:
    """Return a hint with our name for an option of another tool; None for a name that no other tool has.

    >>> hint_for("learning_rate", "train"), hint_for("bf16", "train"), hint_for("do_train", "train")
    ('here it is --lr', 'here it is --precision bf16', 'it has no counterpart here: leave it out')
    """
    if name in NAMES.get(section, {}):
        # a switch of theirs may be one value of our option
        switch = VALUES.get(name, {}).get("true") if name not in OPEN else None
        return f"here it is --{NAMES[section][name]}" + (f" {switch}" if switch else "")
    return "it has no counterpart here: leave it out" if name in WITHOUT_EFFECT.get(section, {}) else None


def translate(
    given: Mapping[str, object], *, section: str, path: str, beside: Mapping[str, object] | None = None
) -> dict[str, object]:
    """Return the entries of a config file under our names; report what was renamed and what has no effect.

    Args:
        given: name -> value, ours and theirs, as YAML and JSON make them; None is not given.
        section, path: the script's section in the file, and the file's path for messages.
        beside: the options on the command line by name, on which some meanings depend.

    Raises:
        UserError: an alias and ours with different values; a value that means nothing here.

    >>> translate({"epochs": 3, "learning_rate": "1e-4"}, section="train", path="my.json")
    {'epochs': 3, 'lr': '1e-4'}
    """
    # keys that change nothing are taken out first, with one warning
    names, idle = NAMES.get(section, {}), WITHOUT_EFFECT.get(section, {})
    check_idle(given, idle, path)
    result = {name: value for name, value in given.items() if name not in names and name not in idle}
    sources = {name: name for name in result}  # our option -> the name under which the file gives it
    said = []
    for name in (name for name, value in given.items() if name in names and value is not None):
        value, ours = given[name], names[name]
        meant, former = our_value(name, value, (beside or {}, given), names, path), result.get(ours)
        # a warm-up may be given as a ratio and as steps; whichever is not 0 counts
        is_ratio = name == "warmup_ratio"
        if meant is None or (is_ratio and former is not None and is_same(meant, 0)):
            continue
        said.append(describe_alias(name, value, ours, meant))
        # a strategy overrides the number of steps given with it; any other two values must agree
        settles = name in STRATEGIES or (is_ratio and is_same(former, 0))
        if former is not None and not settles and not is_same(former, meant):
            message = f"{path}: {name} {value} and {sources[ours]} {given[sources[ours]]}: one option, two values"
            raise UserError(message, f"leave one of them out; here it is called {ours}", EXIT_USAGE)
        result[ours], sources[ours] = meant, name
    if said and is_main_process():
        say(f"{path}: here {'; '.join(said)}")
    return result


def our_value(name: str, value: object, places: Sequence[Mapping], names: Mapping[str, str], path: str) -> object:
    """Return what the value of an alias is in ours, None for our default; places: the command line and the file."""
    text = spell_value(value)
    # the strategy "steps" takes its number from the file or the command line, else Hugging Face's default
    if name in STRATEGIES and text == "steps":
        steps = [place.get(spelling) for spelling in STRATEGIES[name] for place in places]
        return next((step for step in steps if step is not None and not is_same(step, 0)), VALUES[name][text])
    if text in VALUES.get(name, {}):
        return VALUES[name][text]
    # every other value of these would change the result in a way we do not have
    if name in VALUES and name not in OPEN:
        refuse_value(name, value, VALUES[name], path)
    # their units in ours: shares, percent, whole epochs, the batch of one device and one micro-batch
    if name == "warmup_ratio" and not (is_number(text) and 0 <= float(text) < 1):
        message = f"{path}: {name}: found {text!r}, expected a number from 0 to below 1"
        raise UserError(message, "warmup_steps takes a number of steps too", EXIT_USAGE)
    if name == "validation_split_percentage" and is_number(text):
        return str(float(text) / 100)
    if name in ("num_train_epochs", "max_epochs") and is_number(text) and float(text).is_integer():
        return str(int(float(text)))
    if name == "per_device_train_batch_size" and text.isdecimal():
        return str(int(text) * accumulation(places, names))
    return value


def accumulation(places: Sequence[Mapping], names: Mapping[str, str]) -> int:
    """Return the number of micro-batches, by which their batch size is multiplied, under any of its names."""
    entries = [(names.get(name, name), value) for place in places for name, value in place.items()]
    counts = [spell_value(value) for ours, value in entries if ours == "gradient_accumulation" and value is not None]
    return int(counts[0]) if counts and counts[0].isdecimal() else 1


def check_idle(given: Mapping[str, object], idle: Mapping[str, tuple[str, ...]], path: str) -> None:
    """Warn once about the keys without effect; refuse a value of theirs that would have an effect."""
    names = [name for name, value in given.items() if name in idle and value is not None]
    for name in names:
        if idle[name] and not any(is_same(given[name], value) for value in idle[name]):
            refuse_value(name, given[name], idle[name], path)
    if names and is_main_process():
        warn(f"{path}: without effect here: {', '.join(names)}")


def refuse_value(name: str, value: object, allowed: Collection[str], path: str) -> None:
    """Refuse a value that would change the result and is not supported."""
    message = f"{path}: {name}: found {spell_value(value)!r}, supported is {' or '.join(allowed)}"
    raise UserError(message, "leave it out, or see --help for what there is", EXIT_USAGE)


def describe_alias(name: str, value: object, ours: str, meant: object) -> str:
    """Describe an alias: both names, both values where they differ, and what might surprise."""
    words = f"{name} is {ours}" if is_same(value, meant) else f"{name} {spell_value(value)} is {ours} {meant}"
    return words + REMARKS.get(ours, "")


def spell_value(value: object) -> str:
    """Return a value of YAML or JSON as the command line would spell it.

    >>> spell_value(True), spell_value("True"), spell_value(["none"]), spell_value(1e-4)
    ('true', 'true', 'none', '0.0001')
    """
    if isinstance(value, (list, tuple)):
        return ",".join(map(spell_value, value))
    text = str(value)
    return text.lower() if text.lower() in ("true", "false") else text


def is_number(text: str) -> bool:
    """Tell whether a text is a number."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def is_same(one: object, other: object) -> bool:
    """Tell whether two values are the same number or the same text.

    >>> is_same("1e-4", 0.0001), is_same(True, "true"), is_same("a", "b")
    (True, True, False)
    """
    one, other = spell_value(one), spell_value(other)
    return float(one) == float(other) if is_number(one) and is_number(other) else one == other
