"""How other tools call what this one has: options, values, number formats, and keys of theirs that do nothing here.

The names are those of Hugging Face's TrainingArguments and run_clm.py, Lightning, nanoGPT and transformers' generate().
"""

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

# what a value of theirs is in ours; None is our default. A name that is not here passes its value on.
VALUES = {
    "lr_scheduler_type": {"constant_with_warmup": "constant"},
    "optim": dict.fromkeys(("adamw_torch", "adamw_torch_fused", "adamw_hf"), "adamw"),
    "bf16": {"true": "bf16", "false": None},
    "use_cpu": {"true": "cpu", "false": None},
    "no_cuda": {"true": "cpu", "false": None},
    "evaluation_strategy": {"epoch": "0", "no": "0", "steps": "500"},
    "eval_strategy": {"epoch": "0", "no": "0", "steps": "500"},
    "save_strategy": {"epoch": "0", "no": "0", "steps": "500"},
    "resume_from_checkpoint": {"true": "auto", "false": "never"},
    "overwrite_output_dir": {"true": "never", "false": None},
    "do_sample": {"true": None, "false": "0"},
}
CLOSED = {"optim", "bf16", "use_cpu", "no_cuda", "evaluation_strategy", "eval_strategy", "save_strategy"}
CLOSED |= {"overwrite_output_dir", "do_sample"}  # these take no other value
STRATEGIES = {"evaluation_strategy": "eval_steps", "eval_strategy": "eval_steps", "save_strategy": "save_steps"}
STEPS = {"eval_steps": ("eval_steps", "eval_interval", "logging_steps", "log_interval", "log_step")}
STEPS |= {"save_steps": ("save_steps",)}  # where their strategy "steps" finds its number

# keys of a run_clm or seq2seq run that change nothing here, with the values of which that is true; () is every value
ANY: tuple[str, ...] = ()
NO, YES = ("false",), ("true",)
WITHOUT_EFFECT = {
    "train": {
        "do_train": YES, "do_eval": ANY, "do_predict": ANY, "predict_with_generate": ANY, "source_prefix": ANY,
        "max_source_length": ANY, "max_target_length": ANY, "val_max_target_length": ANY, "max_seq_length": ANY,
        "generation_max_length": ANY, "generation_num_beams": ANY, "num_beams": ANY, "early_stopping": ANY,
        "summary_column": ANY, "pad_to_max_length": ANY, "ignore_pad_token_for_loss": YES, "max_eval_samples": ANY,
        "per_device_eval_batch_size": ANY, "eval_accumulation_steps": ANY, "eval_batch_size": ANY,
        "metric_for_best_model": ("loss", "eval_loss"), "greater_is_better": NO, "early_stopping_threshold": ("0",),
        "early_stopping_metric": ("loss", "eval_loss"), "logging_strategy": ANY, "logging_first_step": ANY,
        "report_to": ANY, "run_name": ANY, "disable_tqdm": ANY, "log_level": ANY, "push_to_hub": NO,
        "hub_model_id": ANY, "hub_token": ANY, "cache_dir": ANY, "overwrite_cache": ANY, "use_fast_tokenizer": ANY,
        "model_revision": ANY, "use_auth_token": ANY, "model_type": ("gpt2",),
        "torch_dtype": ("auto", "float32"),
        "low_cpu_mem_usage": ANY, "dataloader_num_workers": ANY, "dataloader_pin_memory": ANY, "num_workers": ANY,
        "dataloader_drop_last": NO, "remove_unused_columns": ANY, "group_by_length": NO, "keep_linebreaks": YES,
        "streaming": NO, "label_smoothing_factor": ("0",), "adam_epsilon": ("1e-8",), "max_steps": ("-1",),
        "fp16_opt_level": ANY, "fp16_backend": ANY, "half_precision_backend": ANY, "save_safetensors": ANY,
        "ddp_find_unused_parameters": ANY, "local_rank": ANY, "ignore_data_skip": NO, "data_seed": ANY, "tf32": ANY,
    },
    "eval": {"do_eval": YES, "do_train": NO},
    "generate": {"use_cache": ANY, "use_past": ANY},
}  # fmt: skip
PRECISIONS = {
    "16": "fp16", "16-mixed": "fp16", "float16": "fp16", "32": "fp32", "32-true": "fp32", "float32": "fp32",
    "no": "fp32", "bf16-mixed": "bf16", "bfloat16": "bf16",
}  # fmt: skip


REMARKS = {
    "batch_size": ", the batch of a whole step over all devices",
    "gradient_accumulation": ", which splits the batch of a step",
}


def precision_name(text: str) -> str:
    """Return our name of a number format; a name that is none of another tool's stays.

    >>> precision_name("16"), precision_name("bf16-mixed"), precision_name("bf16")
    ('fp16', 'bf16', 'bf16')
    """
    return PRECISIONS.get(text, text)
