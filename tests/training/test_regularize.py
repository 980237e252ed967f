"""Exchanged inputs: how many, drawn from what, a function of seed and step; and a run that goes on exactly."""

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
from conftest import ROOT

from novelgpt.training.optim import default_weight_decay
from novelgpt.training.session import train
from novelgpt.training.windows import Batch, default_replacement, replace_inputs
from train import build_parser


@pytest.fixture
def batch() -> Batch:
    """20,000 distinct tokens, so that every exchange but one in 20,000 shows."""
    ids = np.arange(20_000).reshape(20, 1000)
    return Batch(ids, ids, np.arange(20), is_windows=True)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 1.0])
def test_the_share_of_exchanged_tokens_is_the_one_asked_for(batch, share):
    noisy = replace_inputs(batch, share, seed=3, step=7)
    # standard deviation of the share of 20,000 draws: at most 0.5 / sqrt(20,000) = 0.0035
    assert (noisy.input_ids != batch.input_ids).mean() == pytest.approx(share, abs=0.015)
    assert noisy.input_ids.dtype == batch.input_ids.dtype


def test_labels_and_places_stay_and_the_labels_are_windows_of_the_corpus_as_before(batch):
    before = batch.input_ids.copy()
    noisy = replace_inputs(batch, 0.5, seed=3, step=7)
    assert np.array_equal(noisy.labels, before) and np.array_equal(batch.input_ids, before)
    assert np.array_equal(noisy.starts, batch.starts)
    assert noisy.is_windows  # the labels: a GPU cuts them out of the corpus and takes only the others from here


def test_new_tokens_are_drawn_from_the_batch_as_often_as_they_stand_in_it():
    ids = np.repeat([5, 5, 5, 9], 5000).reshape(10, 2000)
    drawn = replace_inputs(Batch(ids, ids, np.arange(10)), 1.0, seed=0, step=1).input_ids
    assert set(np.unique(drawn)) == {5, 9}
    assert (drawn == 5).mean() == pytest.approx(0.75, abs=0.02)


def test_the_same_seed_and_step_give_the_same_tokens_and_others_give_others(batch):
    first = replace_inputs(batch, 0.3, seed=3, step=7).input_ids
    assert np.array_equal(first, replace_inputs(batch, 0.3, seed=3, step=7).input_ids)
    for seed, step in ((4, 7), (3, 8), (7, 3)):
        assert not np.array_equal(first, replace_inputs(batch, 0.3, seed=seed, step=step).input_ids)


# 1 / (lr · 2 · steps of an epoch), kept between 0.1 and 1
@pytest.mark.parametrize(
    ("lr", "epoch_steps", "pretrained", "decay"),
    [
        (2e-3, 1250, False, 0.2),
        (5e-3, 200, False, 0.5),
        (5e-3, 10, False, 1.0),
        (2e-3, 1_000_000, False, 0.1),
        (0.0, 100, False, 1.0),
        (1.5e-4, 100, True, 0.01),
    ],
)
def test_weights_forget_in_two_epochs(lr, epoch_steps, pretrained, decay):
    assert default_weight_decay(lr, epoch_steps, pretrained=pretrained) == pytest.approx(decay)


@pytest.mark.parametrize(
    ("readings", "pretrained", "share"),
    [(1, False, 0.0), (4, False, 0.0), (4.1, False, 0.15), (30, False, 0.15), (30, True, 0.0)],
)
def test_inputs_are_exchanged_where_a_text_is_read_more_than_four_times(readings, pretrained, share):
    assert default_replacement(readings, pretrained=pretrained) == share


def test_the_preset_and_the_defaults_are_the_same_recipe(tmp_path):
    texts = {"none": "train: {}", "novel": (ROOT / "config/train_novel.yaml").read_text(encoding="utf-8")}
    for name, text in texts.items():
        (tmp_path / f"{name}.yaml").write_text(text, encoding="utf-8")
    chosen = [asdict(build_parser().parse_options([f"--config={tmp_path / name}.yaml"])) for name in texts]
    different = {name for name in chosen[0] if chosen[0][name] != chosen[1][name]}
    assert different == {"optimizer", "dropout"}  # auto is muon, and every config of ours has 0.1
    assert (chosen[1]["optimizer"], chosen[1]["dropout"]) == ("muon", 0.1)


def read_losses(folder) -> list[float]:
    """Return the training losses that a run logged."""
    lines = (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()
    return [record["loss"] for record in map(json.loads, lines) if "loss" in record]


def test_a_run_with_exchanged_inputs_does_not_depend_on_how_it_is_split_or_stopped(tiny_options, tmp_path, monkeypatch):
    whole = tiny_options(replace_inputs=0.3, log_step=1)
    assert train(whole) == 0
    plain = replace(whole, replace_inputs=0.0, output_dir=str(tmp_path / "plain"))
    halves = replace(whole, gradient_accumulation=2, output_dir=str(tmp_path / "halves"))
    stopped = replace(whole, output_dir=str(tmp_path / "stopped"))
    assert train(plain) == train(halves) == 0
    with monkeypatch.context() as patch:
        asked = iter([False] * 9 + [True] * 99)
        patch.setattr("novelgpt.training.session.StopSignals.must_stop", lambda self: next(asked))
        assert train(stopped) == 0
    assert not (stopped.output_path / "final_model").exists()
    assert train(stopped) == 0
    losses = read_losses(whole.output_path)
    assert read_losses(stopped.output_path) == losses
    assert read_losses(halves.output_path) == pytest.approx(losses, rel=1e-5)
    assert read_losses(plain.output_path) != pytest.approx(losses, rel=1e-3)
