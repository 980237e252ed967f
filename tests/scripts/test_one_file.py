"""One file drives a whole experiment: the printed options give the identical run, and three scripts read their own."""

import json
from dataclasses import fields, replace

import pytest
import yaml
from helpers import read_log

import eval as eval_script
import generate as generate_script
import train as train_script
from novelgpt import TrainOptions
from novelgpt.cli import run

pytestmark = pytest.mark.usefixtures("no_flushing")


def printed(*argv: str, capsys) -> str:
    """Return what train.py prints with --print_config."""
    assert run(train_script.main, [*argv, "--print_config"]) == 0
    return capsys.readouterr().out


def flags_of(options: TrainOptions) -> list[str]:
    """Return the command line of a run."""
    given = {entry.name: getattr(options, entry.name) for entry in fields(options)}
    values = {name: value for name, value in given.items() if value is not None and not isinstance(value, bool)}
    return [f"--{name}={value}" for name, value in values.items()]


def test_the_printed_options_give_the_identical_golden_step_and_run(tiny_options, tmp_path, capsys):
    still = {"embd_pdrop": 0.0, "resid_pdrop": 0.0, "attn_pdrop": 0.0}
    options = tiny_options(config=still, log_step=1, epochs=1)
    words = flags_of(options)
    assert run(train_script.main, words) == 0
    capsys.readouterr()
    again = replace(options, output_dir=str(tmp_path / "again"))
    for name, convert in (("a.yaml", str), ("a.json", lambda text: json.dumps(yaml.safe_load(text)))):
        (tmp_path / name).write_text(convert(printed(*flags_of(again), capsys=capsys)), encoding="utf-8")
        assert run(train_script.main, ["--config", str(tmp_path / name), "--resume", "never"]) == 0
        logs = [read_log(folder.output_path) for folder in (options, again)]
        assert logs[0] == logs[1]
        first = next(record for record in logs[1] if "loss" in record)
        assert (first["step"], first["loss"]) == (1, pytest.approx(5.82056, rel=2e-6))  # as in test_trainer.py
        weights = [folder.output_path / "final_model" / "model.safetensors" for folder in (options, again)]
        assert weights[0].read_bytes() == weights[1].read_bytes()
    identities = [json.loads((folder.output_path / "run.json").read_text())["identity"] for folder in (options, again)]
    assert identities[0] == identities[1]


@pytest.mark.parametrize("name", ["e.yaml", "e.json"])
def test_one_file_goes_through_training_evaluation_and_writing(tiny_options, tmp_path, capsys, name):
    options = tiny_options(epochs=1)
    words = (word.removeprefix("--").partition("=") for word in flags_of(options))
    values = {
        "train": {key: value for key, _, value in words} | {"learning_rate": options.lr},
        "eval": {"model_path": str(options.output_path / "best_model"), "device": "cpu", "stride": 8}
        | {"tokenized_data_path": options.tokenized_data_path},
        "generate": {"model_name_or_path": str(options.output_path / "final_model"), "device": "cpu", "top_k": 3}
        | {"nsamples": 2, "length": 5, "seed": 1, "prefix": "井", "copies": False},
    }
    path = tmp_path / name
    path.write_text(json.dumps(values) if name.endswith("json") else yaml.safe_dump(values), encoding="utf-8")
    assert run(train_script.main, ["--config", str(path)]) == 0
    capsys.readouterr()
    assert run(eval_script.main, ["--config", str(path)]) == 0
    scored = json.loads(capsys.readouterr().out)
    manifest = json.loads((options.output_path / "best_model" / "manifest.json").read_text(encoding="utf-8"))
    assert scored["loss"] == pytest.approx(manifest["valid_loss"], rel=1e-6)
    assert scored["stride"] == 8
    assert run(generate_script.main, ["--config", str(path)]) == 0
    written = capsys.readouterr().out
    assert run(generate_script.main, ["--config", str(path), "--topk", "3", "--seed", "1"]) == 0
    assert written and capsys.readouterr().out == written
