"""The JSON file of a run_clm title run trains here as it stands, with two options that say what its code said."""

import csv
import json

import pytest
from helpers import read_log
from published import publish_old, tiny_gpt2

import train as train_script
from novelgpt.cli import run
from novelgpt.corpus.tokenizer import load_tokenizer

pytestmark = pytest.mark.usefixtures("no_flushing")
TITLES = '--loss_after "[TIL]" --add_tokens "[TIL],[WS]"'.replace('"', "").split()
LONG = "井里有水。" * 200  # a thousand characters: more than the block


@pytest.fixture
def title_json(tmp_path) -> dict:
    """A published network, two tables of records and the values of a whole file."""
    publish_old(tmp_path / "gpt2", tiny_gpt2(n_positions=600), n_positions=600, n_ctx=600)
    for name, records in {
        "train.csv": ["他推开门[TIL]雪", f"{LONG}[TIL]井水", "没有标题", "山上没有人[TIL]山村[WS]一"],
        "held.csv": ["水里有星星[TIL]星"],
    }.items():
        with open(tmp_path / name, "w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([["text", "title"], *([record, "标题"] for record in records)])
    return {
        "model_name_or_path": str(tmp_path / "gpt2"), "train_file": str(tmp_path / "train.csv"),
        "validation_file": str(tmp_path / "held.csv"), "text_column": "text", "summary_column": "title",
        "output_dir": str(tmp_path / "out"), "overwrite_output_dir": True, "do_train": True, "do_eval": True,
        "block_size": 600, "per_device_train_batch_size": 1, "per_device_eval_batch_size": 4,
        "gradient_accumulation_steps": 2, "learning_rate": 1e-4, "num_train_epochs": 2, "warmup_ratio": 0.1,
        "warmup_steps": 0, "logging_steps": 1, "evaluation_strategy": "steps", "save_strategy": "steps",
        "eval_steps": 500, "save_steps": 500, "save_total_limit": 3, "load_best_model_at_end": True,
        "metric_for_best_model": "eval_loss", "early_stopping_patience": 5, "preprocessing_num_workers": 1,
        "max_train_samples": 5000, "fp16": False, "use_cpu": True, "resume_from_checkpoint": False,
        "source_prefix": "summarize: ", "predict_with_generate": True, "max_target_length": 96, "num_beams": 4,
        "pad_to_max_length": True, "seed": 42, "report_to": "none",
    }  # fmt: skip


def test_the_json_of_a_title_run_trains_on_the_titles_of_its_records(title_json, tmp_path, capsys):
    path = tmp_path / "run_clm_config.json"
    path.write_text(json.dumps(title_json), encoding="utf-8")
    assert run(train_script.main, ["--config", str(path), *TITLES, "--sample_length", "0"]) == 0
    said = capsys.readouterr().err
    assert f"--train_file {title_json['train_file']}: one text a record, the same as with --rows\n" in said
    assert "train: 3 records, " in said and "1 longer than 600 tokens, cut before [TIL]; 1 without [TIL]" in said
    options = json.loads((tmp_path / "out/run.json").read_text(encoding="utf-8"))["options"]
    expected = {"rows": True, "batch_size": 2, "gradient_accumulation": 2, "warmup_steps": 0.1, "eval_steps": 500}
    assert {name: options[name] for name in expected} == expected
    assert max(record["step"] for record in read_log(tmp_path / "out")) == 4  # 2 epochs of 3 records, 2 a step
    tokenizer = load_tokenizer(tmp_path / "out/final_model")
    assert {"[TIL]", "[WS]"} <= set(tokenizer.marks)


def test_no_rows_on_the_command_line_goes_before_the_file(title_json, tmp_path, capsys):
    path = tmp_path / "run_clm_config.json"
    path.write_text(json.dumps({**title_json, "warmup_steps": None}), encoding="utf-8")
    assert run(train_script.main, ["--config", str(path), "--no-rows"]) == 2
    assert capsys.readouterr().err.endswith("error: --train_file: has no meaning without --rows\n\nhint: add --rows\n")
