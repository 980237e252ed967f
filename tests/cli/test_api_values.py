"""Values given to the Python API: taken as the command line takes them, and refused with its words."""

from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch
from conftest import STORY, TINY

from novelgpt import (
    EvaluateOptions,
    GenerateOptions,
    NovelTokenizer,
    UserError,
    evaluate,
    generate,
    load_model,
    train,
)
from novelgpt.files import read_json
from novelgpt.network import build_model, compute_deterministically, save_model


@pytest.fixture
def folder(tmp_path):
    """A model folder."""
    tokenizer = NovelTokenizer.from_texts(STORY)
    save_model(build_model({**TINY, "attn_pdrop": 0.1}, tokenizer, seed=1), tokenizer, tmp_path / "saved")
    return tmp_path / "saved"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"stride": 0}, "stride: found '0', expected a whole number from 1 up"),
        ({"stride": -1}, "stride: found '-1', expected a whole number from 1 up"),
        ({"batch_size": 0}, "batch_size: found '0', expected a whole number from 1 up"),
        ({"batch_size": -1}, "batch_size: found '-1', expected a whole number from 1 up"),
        ({"precision": "foo"}, "precision: found 'foo', expected one of auto, bf16, fp16, fp32"),
        ({"device": 0}, "device: found 0, expected text"),
        ({"encoding": 8}, "encoding: found 8, expected text"),
        ({"html": True}, "html: found True, expected another kind"),
        ({"adapt": "yes"}, "adapt: found 'yes', expected True or False"),
        ({"per_chapter": "yes"}, "per_chapter: found 'yes', expected True or False"),
        ({"pieces": 5}, "pieces: found 5, expected text"),
    ],
)
def test_evaluate_refuses_what_the_command_line_refuses(folder, settings, message):
    with pytest.raises(UserError) as refusal:
        evaluate(folder, STORY[0], **settings)
    assert refusal.value.message == message


def test_evaluate_reads_values_as_the_command_line_does(folder, tmp_path):
    same = evaluate(folder, STORY[0], stride="4", batch_size="2", precision="32", html=tmp_path / "a.html")
    assert same == evaluate(folder, STORY[0], stride=4, batch_size=2, precision="fp32", html=str(tmp_path / "b.html"))
    assert (tmp_path / "a.html").is_file()


def test_train_takes_paths_texts_and_other_names_of_formats(tiny_options, tmp_path):
    plain = tiny_options(epochs=1, lr=1e-2)
    names = ("model_config", "tokenizer_path", "tokenized_data_path")
    paths = {name: Path(getattr(plain, name)) for name in names}
    values = {"epochs": "1", "lr": "1e-2", "precision": "32", "output_dir": tmp_path / "other"}
    result = train(replace(plain, **paths, **values))
    stored = read_json(tmp_path / "other/run.json")["options"]
    assert (stored["epochs"], stored["lr"], stored["precision"]) == (1, 0.01, "fp32")
    assert stored["output_dir"] == str(tmp_path / "other")
    assert result.best_loss == train(plain).best_loss
    further = replace(plain, pretrained_model=result.model, tokenizer_path=None, output_dir=tmp_path / "further")
    assert train(further).finished


def test_generate_reads_values_as_the_command_line_does(folder):
    model = load_model(folder)
    settings = {"seed": 3, "stop": "never", "nsamples": 1, "device": "cpu", "cut_loops": False}
    same = generate(model, "水", length="10", topk="4", precision="32", bad_words=None, **settings)
    assert same == generate(model, "水", length=10, topk=4, precision="fp32", **settings)
    assert generate(model, "水", length=10, bad_words=("井", "剑"), **settings)[0].ids


@pytest.mark.parametrize(("value", "shown"), [("萧炎", "'萧炎'"), (7, "7"), ({"井": 1}, "{'井': 1}")])
def test_bad_words_that_are_no_list_are_refused(folder, value, shown):
    with pytest.raises(UserError) as refusal:
        generate(folder, "水", bad_words=value)
    assert refusal.value.message == f"bad_words: found {shown}, expected a list of texts"


def test_a_bad_word_that_is_no_text_is_refused(folder):
    with pytest.raises(UserError) as refusal:
        generate(folder, "水", bad_words=["井", 7])
    assert refusal.value.message == "bad_words: found 7, expected text"


def test_fp16_without_a_gpu_is_refused_in_the_words_of_the_script(folder):
    with pytest.raises(UserError) as refusal:
        evaluate(folder, STORY[0], precision="16", device="cpu")
    assert refusal.value.message == "--precision fp16: cpu does not compute in fp16"


@pytest.mark.parametrize("former", [(False, False), (True, True)])
def test_train_puts_the_choice_of_operations_back(tiny_options, monkeypatch, former):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(former[0], warn_only=former[1])
    try:
        train(tiny_options(epochs=1), progress=lambda record: compute_deterministically(torch.device("cuda")))
        now = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    finally:
        torch.use_deterministic_algorithms(before)
    assert now == former


def test_options_and_changes_by_name_mean_the_same(folder, tmp_path):
    model = load_model(folder)
    options = GenerateOptions(seed=3, stop="never", nsamples=1, device="cpu", cut_loops=False, length=5)
    assert generate(model, "水", options, length=8) == generate(model, "水", replace(options, length=8))
    settings = {entry.name: getattr(options, entry.name) for entry in fields(options)}
    by_name = {name: settings[name] for name in ("seed", "stop", "nsamples", "device", "cut_loops", "length")}
    assert generate(model, "水", options) == generate(model, "水", **by_name)
    assert evaluate(model, STORY[0], options=EvaluateOptions(stride=4)) == evaluate(model, STORY[0], stride=4)


def test_train_takes_changes_by_name_over_options(tiny_options, tmp_path):
    result = train(tiny_options(epochs=5), epochs=1, output_dir=tmp_path / "other")
    assert result.finished and result.folder == tmp_path / "other"
    assert read_json(tmp_path / "other/run.json")["options"]["epochs"] == 1


@pytest.mark.parametrize(
    ("call", "message", "hint"),
    [
        (lambda: train(epoch=3), "unknown setting epoch", "did you mean epochs?"),
        (lambda: evaluate("m", "水", strid=3), "unknown setting strid", "did you mean stride?"),
        (lambda: evaluate("m", "水", text_path="a"), "unknown setting text_path", None),
        (lambda: evaluate("m", "水", options=EvaluateOptions(text="a")), "unknown setting text", None),
        (lambda: generate("m", "水", GenerateOptions(stream=True)), "unknown setting stream", None),
        (lambda: generate("m", "水", top_p=0.5), "unknown setting top_p", "did you mean topp?"),
    ],
)
def test_a_name_that_means_nothing_in_python_is_refused_with_the_nearest(call, message, hint):
    with pytest.raises(UserError) as refusal:
        call()
    assert (refusal.value.message, refusal.value.code) == (message, 2)
    assert hint is None or refusal.value.hint == hint
