"""The names of other tools mean ours in files; the command line tells ours; what cannot be said here is refused."""

import json
from dataclasses import asdict

import pytest
import yaml

import clr_ctrl as clean_script
import eval as eval_script
import generate as generate_script
import train as train_script
from novelgpt.cli.aliases import NAMES, VALUES, WITHOUT_EFFECT
from novelgpt.cli.options import precision_name
from novelgpt.messages import UserError

SCRIPTS = {"train": train_script, "eval": eval_script, "generate": generate_script}
# the JSON of a published title run, with the names of the rows' files and samples left out
TITLE_RUN = {
    "model_name_or_path": "models/gpt2-base-chinese",
    "do_train": True,
    "do_eval": True,
    "source_prefix": "summarize: ",
    "output_dir": "model/titles",
    "overwrite_output_dir": True,
    "resume_from_checkpoint": False,
    "per_device_train_batch_size": 4,
    "per_device_eval_batch_size": 4,
    "predict_with_generate": True,
    "save_steps": 1000,
    "eval_steps": 1000,
    "logging_steps": 100,
    "learning_rate": 1e-4,
    "save_total_limit": 3,
    "load_best_model_at_end": True,
    "evaluation_strategy": "epoch",
    "save_strategy": "epoch",
    "num_train_epochs": 3,
    "max_seq_length": 512,
    "max_target_length": 96,
    "generation_max_length": 96,
    "fp16": True,
    "early_stopping": True,
    "warmup_ratio": 0.1,
    "early_stopping_patience": 5,
}


def parse(*argv: str, section: str = "train"):
    """Parse a command line of a script."""
    return SCRIPTS[section].build_parser().parse_options(list(argv))


def refusal_of(*argv: str, section: str = "train") -> tuple[str, str, int]:
    """Return message, hint and code of a refused command line."""
    with pytest.raises(UserError) as caught:
        parse(*argv, section=section)
    return caught.value.message, caught.value.hint, caught.value.code


@pytest.fixture
def write(tmp_path):
    """Return a function that writes values as JSON and gives the path."""

    def write_json(values: dict, name: str = "my.json") -> str:
        text = json.dumps(values) if name.endswith(".json") else yaml.safe_dump(values)
        (tmp_path / name).write_text(text, encoding="utf-8")
        return str(tmp_path / name)

    return write_json


TRANSLATIONS = [
    ("learning_rate", "2e-5", "lr", 2e-5),
    ("num_train_epochs", "3", "epochs", 3),
    ("num_train_epochs", "3.0", "epochs", 3),
    ("max_epochs", "4", "epochs", 4),
    ("per_device_train_batch_size", "4", "batch_size", 4),
    ("gradient_accumulation_steps", "2", "gradient_accumulation", 2),
    ("accumulate_grad_batches", "2", "gradient_accumulation", 2),
    ("accumulate", "16", "gradient_accumulation", 16),
    ("gradient_clip_val", "0.5", "max_grad_norm", 0.5),
    ("grad_clip", "0.5", "max_grad_norm", 0.5),
    ("lr_scheduler_type", "cosine", "lr_scheduler", "cosine"),
    ("lr_scheduler_type", "constant_with_warmup", "lr_scheduler", "constant"),
    ("warmup_ratio", "0.1", "warmup_steps", 0.1),
    ("adam_beta1", "0.8", "beta1", 0.8),
    ("adam_beta2", "0.95", "beta2", 0.95),
    ("optim", "adamw_torch", "optimizer", "adamw"),
    ("bf16", "true", "precision", "bf16"),
    ("bf16", "false", "precision", "auto"),
    ("use_cpu", "True", "device", "cpu"),
    ("logging_steps", "7", "log_step", 7),
    ("eval_interval", "7", "eval_steps", 7),
    ("logging_dir", "runs", "writer_dir", "runs"),
    ("model_name_or_path", "m", "pretrained_model", "m"),
    ("tokenizer_name", "v.txt", "tokenizer_path", "v.txt"),
    ("config_name", "c.json", "model_config", "c.json"),
    ("validation_split_percentage", "10", "valid_fraction", 0.1),
    ("resume_from_checkpoint", "true", "resume", "auto"),
    ("resume_from_checkpoint", "false", "resume", "never"),
    ("resume_from_checkpoint", "model/checkpoints/step-00000010", "resume", "model/checkpoints/step-00000010"),
    ("overwrite_output_dir", "true", "resume", "never"),
    ("overwrite_output_dir", "false", "resume", "auto"),
    ("min_lr", "1e-5", "lr_end", 1e-5),
    ("precision", "16", "precision", "fp16"),
    ("precision", "bf16-mixed", "precision", "bf16"),
    ("precision", "32", "precision", "fp32"),
]


@pytest.mark.parametrize(("name", "text", "ours", "value"), TRANSLATIONS)
def test_a_name_of_another_tool_means_ours_in_files(write, name, text, ours, value):
    read = [parse("--config", write({name: text}))]
    read += [parse("--config", write({"train": {name: yaml.safe_load(text)}}, "my.yaml"))]
    assert [getattr(options, ours) for options in read] == [value] * 2
    assert all(not hasattr(options, name) for options in read if name != ours)


@pytest.mark.parametrize("section", NAMES)
def test_a_name_of_another_tool_on_the_command_line_is_told_ours(section):
    for name, ours in NAMES[section].items():
        message, hint, code = refusal_of(f"--{name}", "1", section=section)
        assert (message, code) == (f"unknown option --{name}", 2)
        assert hint.split()[:4] == ["here", "it", "is", f"--{ours}"]


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        ("--learning_rate 1e-4", "here it is --lr"),
        ("--num_train_epochs=3", "here it is --epochs"),
        ("--epochs 3 --bf16", "here it is --precision bf16"),
        ("--no_cuda", "here it is --device cpu"),
        ("--overwrite_output_dir", "here it is --resume never"),
        ("--warmup_ratio 0.1", "here it is --warmup_steps"),
        ("--evaluation_strategy epoch", "here it is --eval_steps"),
        ("--do_train", "it has no counterpart here: leave it out"),
        ("--report_to none wandb", "it has no counterpart here: leave it out"),
    ],
)
def test_the_hint_of_a_foreign_name_is_what_to_write(words, hint):
    name = next(word for word in words.split() if word != "--epochs" and word.startswith("--")).split("=")[0]
    assert refusal_of(*words.split()) == (f"unknown option {name}", hint, 2)


def test_every_alias_stands_for_an_option_there_is_and_hides_none():
    for section, names in NAMES.items():
        own = set(SCRIPTS[section].build_parser().entries)
        assert set(names.values()) <= own
        assert not {*names, *WITHOUT_EFFECT[section]} & own
        assert not set(names) & set(WITHOUT_EFFECT[section])
    assert set(VALUES) <= {name for names in NAMES.values() for name in names}


@pytest.mark.parametrize(
    ("section", "values", "ours"),
    [
        (
            "generate",
            {"top_k": 5, "top_p": 0.9, "max_new_tokens": 20, "num_return_sequences": 3, "prompt": "井"},
            {"topk": 5, "topp": 0.9, "length": 20, "nsamples": 3, "prefix": "井"},
        ),
        ("generate", {"do_sample": False, "precision": 32, "use_cache": True}, {"temperature": 0, "precision": "fp32"}),
        ("eval", {"model_name_or_path": "m", "per_device_eval_batch_size": 4}, {"model_path": "m", "batch_size": 4}),
    ],
)
def test_the_other_scripts_take_their_names_too(write, section, values, ours):
    options = parse("--config", write(values), section=section)
    assert {name: getattr(options, name) for name in ours} == ours


def test_an_alias_is_said_once_and_printed_as_ours(write, capsys):
    path = write({"learning_rate": "1e-4"})
    with pytest.raises(SystemExit):
        parse("--config", path, "--print_config")
    said = capsys.readouterr()
    assert said.err == f"{path}: here learning_rate is lr\n"
    assert "\n  lr: 0.0001\n" in said.out and "learning_rate" not in said.out


def test_no_alias_stands_in_the_help():
    text = train_script.build_parser().format_help()
    assert not [name for name in NAMES["train"] if f"--{name} " in text]


def test_only_the_first_of_several_processes_says_it(write, capsys, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    assert parse("--config", write({"learning_rate": 1e-4, "do_train": True})).lr == 1e-4
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("theirs", ["gradient_accumulation_steps", "gradient_accumulation", "accumulate"])
def test_a_batch_of_one_device_is_multiplied_by_the_accumulation(write, capsys, theirs):
    options = parse("--config", write({"per_device_train_batch_size": 2, theirs: 16}))
    assert (options.batch_size, options.gradient_accumulation) == (32, 16)
    assert "per_device_train_batch_size 2 is batch_size 32, the batch of a whole step" in capsys.readouterr().err
    own = parse("--config", write({"batch_size": 32, theirs: 16}))  # the batch of a step: split, not multiplied
    assert (own.batch_size, own.gradient_accumulation) == (32, 16)


@pytest.mark.parametrize("further", [{}, {"gradient_accumulation_steps": 4}, {"gradient_accumulation": 4}])
def test_the_accumulation_of_a_batch_of_one_device_may_stand_on_the_command_line(write, further):
    path = write({"per_device_train_batch_size": 2, **further})
    options = parse("--config", path, "--gradient_accumulation", "16")
    assert (options.batch_size, options.gradient_accumulation) == (32, 16)


def test_an_alias_and_ours_may_say_the_same_but_not_something_else(write):
    assert parse("--config", write({"learning_rate": "1e-4", "lr": "0.0001"})).lr == 1e-4
    path = write({"learning_rate": "1e-4", "lr": "2e-4"})
    assert refusal_of("--config", path) == (
        f"{path}: learning_rate 1e-4 and lr 2e-4: one option, two values",
        "leave one of them out; here it is called lr",
        2,
    )
    path = write({"max_epochs": 3, "num_train_epochs": 4})
    assert refusal_of("--config", path) == (
        f"{path}: num_train_epochs 4 and max_epochs 3: one option, two values",
        "leave one of them out; here it is called epochs",
        2,
    )


def test_the_command_line_goes_before_an_alias_in_the_file(write):
    path = write({"learning_rate": 1e-4, "overwrite_output_dir": True})
    options = parse("--config", path, "--lr", "2e-4", "--resume", "auto")
    assert (options.lr, options.resume) == (2e-4, "auto")


@pytest.mark.parametrize("name", ["my.json", "my.yaml"])
def test_the_file_of_a_title_run_is_understood(write, capsys, name):
    path = write(TITLE_RUN, name)
    options = asdict(parse("--config", path))
    expected = {
        "pretrained_model": "models/gpt2-base-chinese", "output_dir": "model/titles", "resume": "never",
        "batch_size": 4, "save_steps": 0, "eval_steps": 0, "log_step": 100, "lr": 1e-4, "save_total_limit": 3,
        "load_best_model_at_end": True, "epochs": 3, "fp16": True, "warmup_steps": 0.1, "early_stopping_patience": 5,
        "gradient_accumulation": 1,
    }  # fmt: skip
    assert {key: options[key] for key in expected} == expected
    warnings = [line for line in capsys.readouterr().err.split("\n") if line.startswith("warning: ")]
    assert len(warnings) == 1
    head, _, keys = warnings[0].partition("without effect here: ")
    assert head == f"warning: {path}: "
    assert set(keys.split(", ")) == {
        "do_train", "do_eval", "source_prefix", "per_device_eval_batch_size", "predict_with_generate", "max_seq_length",
        "max_target_length", "generation_max_length", "early_stopping",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("values", "steps"),
    [
        ({"eval_strategy": "steps", "eval_steps": 50}, (50, 0)),
        ({"eval_strategy": "steps", "logging_steps": 70}, (70, 0)),  # their default is the one of the log lines
        ({"eval_strategy": "steps"}, (500, 0)),
        ({"eval_strategy": "epoch", "eval_steps": 50}, (0, 0)),
        ({"eval_strategy": "no"}, (0, 0)),
        ({"save_strategy": "steps"}, (0, 500)),
        ({"save_strategy": "steps", "save_steps": 30}, (0, 30)),
        ({"save_strategy": "epoch", "save_steps": 30}, (0, 0)),
    ],
)
def test_their_strategies_are_our_numbers_of_steps(write, values, steps):
    options = parse("--config", write(values))
    assert (options.eval_steps, options.save_steps) == steps


@pytest.mark.parametrize(
    ("values", "argv", "steps"),
    [
        ({"eval_strategy": "steps"}, "--eval_steps 20", (20, 0)),
        ({"eval_strategy": "steps"}, "--log_step 70", (70, 0)),
        ({"save_strategy": "steps", "save_steps": 20}, "--save_steps 30", (0, 30)),
        ({"evaluation_strategy": "epoch", "save_strategy": "no"}, "--eval_steps 20", (20, 0)),
    ],
)
def test_their_strategies_find_the_numbers_of_the_command_line(write, values, argv, steps):
    options = parse("--config", write(values), *argv.split())
    assert (options.eval_steps, options.save_steps) == steps


def test_a_printed_number_of_no_steps_is_none_that_their_strategies_could_take(write):
    strategies = {"eval_strategy": "steps", "save_strategy": "steps"}
    options = parse("--config", write({"eval_steps": 0, "save_steps": 0, "log_step": 70, **strategies}))
    assert (options.eval_steps, options.save_steps) == (70, 500)


@pytest.mark.parametrize(("ratio", "steps", "warmup"), [(0.1, 0, 0.1), (0.0, 70, 70), (0, 0, 0)])
def test_of_the_ratio_and_the_steps_of_a_warm_up_the_one_that_is_not_0_counts(write, ratio, steps, warmup):
    values = {"warmup_ratio": ratio, "warmup_steps": steps}
    both = dict(reversed(values.items()))
    read = [parse("--config", write(values)), parse("--config", write(both))]
    assert [options.warmup_steps for options in read] == [warmup] * 2
    with pytest.raises(UserError):
        parse("--config", write({"warmup_ratio": 0.1, "warmup_steps": 70}))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"metric_for_best_model": "accuracy"}, "found 'accuracy', supported is loss or eval_loss"),
        ({"greater_is_better": True}, "found 'true', supported is false"),
        ({"do_train": False}, "found 'false', supported is true"),
        ({"push_to_hub": True}, "found 'true', supported is false"),
        ({"max_steps": 100}, "found '100', supported is -1"),
        ({"label_smoothing_factor": 0.1}, "found '0.1', supported is 0"),
        ({"adam_epsilon": 1e-6}, "found '1e-06', supported is 1e-8"),
        ({"optim": "adafactor"}, "found 'adafactor', supported is adamw_torch or adamw_torch_fused or adamw_hf"),
        ({"eval_strategy": "often"}, "found 'often', supported is epoch or no or steps"),
        ({"bf16": "maybe"}, "found 'maybe', supported is true or false"),
    ],
)
def test_a_key_that_would_change_the_result_and_is_not_supported_is_refused(write, values, message):
    path = write(values)
    (name,) = values
    hint = "leave it out, or see --help for what there is"
    assert refusal_of("--config", path) == (f"{path}: {name}: {message}", hint, 2)


def test_a_share_of_warm_up_is_no_count(write):
    path = write({"warmup_ratio": 1})
    assert refusal_of("--config", path) == (
        f"{path}: warmup_ratio: found '1', expected a number from 0 to below 1",
        "warmup_steps takes a number of steps too",
        2,
    )


def test_values_without_effect_and_nulls_pass_in_silence_or_with_one_warning(write, capsys):
    parse("--config", write({"adam_epsilon": 1e-8, "max_steps": -1, "greater_is_better": False}))
    assert capsys.readouterr().err.endswith("without effect here: adam_epsilon, max_steps, greater_is_better\n")
    parse("--config", write({"source_prefix": None, "learning_rate": None, "push_to_hub": None}))
    assert capsys.readouterr().err == ""


def test_switches_and_lists_of_words_of_other_tools(write):
    theirs = {"do_train": True, "report_to": ["none", "wandb"], "overwrite_output_dir": True, "max_steps": -1}
    options = parse("--config", write(theirs | {"do_eval": True, "fp16": True, "epochs": 3}))
    assert (options.resume, options.fp16, options.epochs) == ("never", True, 3)


def test_our_switches_take_the_truth_values_of_other_tools_on_the_command_line(write):
    words = "--fp16 True --random_phase false --deterministic=TRUE --raw=0 --shard 1 --epochs 1"
    options = parse(*words.split())
    assert (options.fp16, options.random_phase, options.deterministic, options.raw) == (True, False, True, False)
    assert (options.shard, options.epochs) == (True, 1)
    path = write({"load_best_model_at_end": True, "rows": True})
    options = parse("--config", path, "--load_best_model_at_end", "False", "--rows", "0")
    assert (options.load_best_model_at_end, options.rows) == (False, False)


@pytest.mark.parametrize(
    ("argv", "name"), [("--fp16 maybe", "maybe"), ("--no-fp16 true", "true"), ("--debug true", "true")]
)
def test_another_word_after_a_switch_is_unknown(argv, name):
    assert refusal_of(*argv.split())[0] == f"a word that belongs to no option: {name}"


def test_a_word_after_a_switch_of_a_script_that_reads_files_is_a_file():
    options = clean_script.build_parser().parse_options(["--keep_ads", "true", "--traditional_to_simplified=true"])
    assert (options.keep_ads, options.paths, options.traditional_to_simplified) == (True, ("true",), True)


@pytest.mark.parametrize(
    ("argv", "message", "hint"),
    [
        ("--learning_rat 1", "unknown option --learning_rat", "did you mean --lr?"),
        ("--num_train_epoch 1", "unknown option --num_train_epoch", "did you mean --epochs?"),
    ],
)
def test_a_misspelt_name_of_theirs_is_told_ours(argv, message, hint):
    assert refusal_of(*argv.split()) == (message, hint, 2)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"learning_rate": 7}, "--lr: found '7', expected a number from 0 to 1"),
        ({"max_epochs": 2.5}, "--epochs: found '2.5', expected a whole number from 1 to 1000000"),
    ],
)
def test_a_wrong_value_of_theirs_is_refused_under_our_name(write, values, message):
    path = write(values)
    found = refusal_of("--config", path)
    assert (found[0], found[2]) == (f"{path}: {message}", 2)
    assert found[1].endswith("--help")


def test_a_misspelt_key_of_theirs_is_told_what_it_is_here(write):
    path = write({"learningrate": 1})
    assert refusal_of("--config", path) == (f"{path}: unknown key learningrate", "did you mean lr?", 2)


@pytest.mark.parametrize("name", ["fp16", "auto", "half", ""])
def test_a_format_that_is_no_alias_stays(name):
    assert precision_name(name) == name
