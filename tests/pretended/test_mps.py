"""train(), generate() and evaluate() on a pretended Mac, whose GPU refuses float64."""

from dataclasses import asdict, replace

import pytest
import torch
from helpers import fit

from novelgpt import api
from pretended.beside import SAME, hold_nothing_out, losses_of, samples_of, train_beside_cpu


def test_float64_is_refused_in_the_words_of_a_mac(pretended):
    words = "Cannot convert a MPS Tensor to float64 dtype as the MPS framework doesn't support float64."
    answer = pretended.ask("make_doubles")
    assert answer["problem"][:2] == ["TypeError", f"{words} Please use float32 instead."]


def test_the_losses_and_samples_are_those_of_the_cpu(pretended, quiet_options):
    options = quiet_options(sample_length=20)
    train_beside_cpu(pretended, options, "mps", kind="mps")
    assert len(samples_of(options.output_path)) == 2  # one an epoch
    assert samples_of(f"{options.output_dir}-there") == samples_of(options.output_path)


def test_the_texts_are_those_of_the_cpu(pretended, finished):
    model = str(finished(dropout=0.0, log_step=1).output_path / "final_model")
    options = {"length": 40, "nsamples": 2, "seed": 5, "precision": "fp32", "topp": 0.9}
    expected = api.generate(model, "闻人雀的剑", **options, device="cpu")
    for device in ("mps", None):  # the one that is taken on every Mac
        done = pretended.run(
            "generate", model=model, prefix="闻人雀的剑", options={**options, "device": device}, kind="mps"
        )
        assert [each["text"] for each in done["texts"]] == [each.text for each in expected]


def test_the_report_is_that_of_the_cpu(pretended, finished):
    model = str(finished(dropout=0.0, log_step=1).output_path / "final_model")
    text = "乔一斗坐在井边，数着水里的星星。"
    expected = api.evaluate(model, text, device="cpu", precision="fp32")
    report = pretended.run("evaluate", model=model, text=text, options={"device": "mps"}, kind="mps")
    assert report["loss"] == pytest.approx(expected["loss"], rel=1e-6)
    assert report["precision"] == "fp32"


@pytest.mark.parametrize("has_held_out", [False, True])
def test_a_batch_too_large_for_the_memory_is_split(pretended, quiet_options, has_held_out):
    # see test_training.py for the bytes; the head's weights have no added rows here
    options = quiet_options()
    if not has_held_out:
        hold_nothing_out(options)
    elsewhere = replace(options, device="mps", output_dir=f"{options.output_dir}-there")
    assert fit(options)
    answer = pretended.ask("train", options=asdict(elsewhere), kind="mps", room=60_000)
    assert answer["problem"] is None, answer["problem"][2]
    assert losses_of(elsewhere.output_path) == pytest.approx(losses_of(options.output_path), rel=SAME)


def test_memory_that_runs_out_on_a_cpu_is_known_by_the_words_of_this_system(tiny_options, monkeypatch, capsys):
    from novelgpt.training import engine

    forward = engine.LossModule.forward

    def limited(module, input_ids, labels, **settings):
        if len(input_ids) > 2 and not settings:
            torch.empty(10**15)  # what no machine has
        return forward(module, input_ids, labels, **settings)

    monkeypatch.setattr(engine.LossModule, "forward", limited)
    assert fit(tiny_options())
    assert "computed in 2 parts, same update" in capsys.readouterr().err
