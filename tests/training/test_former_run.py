"""A run and a model that an earlier version of novelgpt left behind: resumed, scored and continued to the same end."""

import hashlib
import json
import shutil

import pytest
import torch
from conftest import ROOT
from helpers import read_log

from novelgpt import TrainOptions, evaluate, generate, train
from novelgpt.files import find_damage, read_json

FORMER = ROOT / "tests" / "fixtures" / "former_run"

pytestmark = pytest.mark.usefixtures("no_flushing")


@pytest.fixture
def expected() -> dict:
    """What the earlier version wrote when it resumed its run."""
    return json.loads((FORMER / "expected.json").read_text(encoding="utf-8"))


@pytest.fixture
def one_thread():
    """Compute by one thread, as the earlier version did: sums in another order differ in their last bits."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def former(tmp_path) -> TrainOptions:
    """The options of the unfinished run, in a copy of its folder; what was left open then is left open again."""
    shutil.copytree(FORMER, tmp_path / "former_run")
    values = read_json(FORMER / "run" / "run.json")["options"]
    values |= {"optimizer": "auto", "lr": None, "weight_decay": None, "replacement": "frequency"}
    paths = {"model_config": "config.json", "tokenizer_path": "vocab.txt", "tokenized_data_path": "pieces"}
    paths = {name: str(tmp_path / "former_run" / path) for name, path in {**paths, "output_dir": "run"}.items()}
    return TrainOptions(**{**values, **paths})


def test_an_unfinished_run_of_an_earlier_version_ends_like_there(former, expected, one_thread):
    assert train(former).finished
    folder = former.output_path
    ours, theirs = read_log(folder), expected["log"]
    assert [record["step"] for record in ours] == [record["step"] for record in theirs]
    for one, other in zip(ours, theirs, strict=True):
        assert one == pytest.approx(other, rel=1e-5)
    files = {
        "final_model": folder / "final_model" / "model.safetensors",
        "weights": folder / "checkpoints" / "step-00000018" / "model.safetensors",
        "optimizer": folder / "checkpoints" / "step-00000018" / "optimizer.safetensors",
    }
    assert find_damage(folder / "final_model") is None
    if (torch.__version__, torch.backends.cpu.get_cpu_capability()) == (expected["torch"], expected["cpu"]):
        hashes = {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items()}
        assert hashes == {name: expected[name] for name in files}  # other processors and versions round otherwise
        assert ours == theirs


def test_a_model_folder_of_an_earlier_version_scores_and_writes_the_same(former, expected, one_thread):
    model = former.output_path / "best_model"
    report = evaluate(model, pieces=former.tokenized_data_path, device="cpu")
    assert report["loss"] == pytest.approx(expected["loss"], rel=1e-6)
    settings = {"length": 12, "nsamples": 2, "seed": 7, "device": "cpu", "precision": "fp32", "stop": "never"}
    assert [text.text for text in generate(model, "井", preset="seed", **settings)] == expected["texts"]
