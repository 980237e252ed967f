"""LoRA: only the corrections are trained, a run goes on bit for bit, and what is exported is a plain GPT-2."""

import json
import os
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import STORY
from helpers import StopAfter, fit, load_network_of, result_of
from safetensors.torch import load_file
from transformers import GPT2LMHeadModel

from novelgpt.cli import TrainOptions, run
from novelgpt.files import write_json
from novelgpt.messages import UserError
from novelgpt.network import build_model, load_model, model_weights, save_model, sum_loss
from novelgpt.training.adapting import add_lora, plain_model
from novelgpt.training.checkpoint import list_checkpoints
from novelgpt.training.checks import check_lora
from novelgpt.training.engine import Engine
from novelgpt.training.optim import default_lr
from novelgpt.training.run import prepare_run
from novelgpt.training.session import train
from novelgpt.training.windows import epoch_batches
from train import main as train_main

INPUT = torch.tensor([[2, 270, 271, 272, 273]])


pytestmark = pytest.mark.usefixtures("no_flushing")


@pytest.fixture
def lora_options(tiny_options, pretrained):
    """Return a function from changes to the options of a LoRA run."""
    pytest.importorskip("peft", reason="LoRA needs the package peft")

    def make(**changes) -> TrainOptions:
        settings = {"pretrained_model": str(pretrained), "lora_rank": 4, "lora_dropout": 0.1, "epochs": 2}
        return tiny_options(**{**settings, **changes})

    return make


def logits_of(model) -> torch.Tensor:
    """Return the logits of a short text."""
    with torch.no_grad():
        return model(INPUT).logits[0]


def test_the_corrections_begin_at_nothing_and_alone_are_trained(lora_options, pretrained, capsys):
    model, _, _ = load_network_of(lora_options())
    assert torch.equal(logits_of(model.eval()), logits_of(load_model(pretrained)[0]))
    trained = {name for name, weight in model.named_parameters() if weight.requires_grad}
    # 2 blocks of 4 linear layers, an A and a B each; per block 4 · (32+96 + 32+32 + 32+128 + 128+32) numbers
    assert len(trained) == 16 and all(".lora_A." in name or ".lora_B." in name for name in trained)
    assert capsys.readouterr().err == "LoRA: 4,096 numbers in 16 matrices are trained; 36,672 stay\n"


def test_the_merged_weights_are_those_of_the_formula(lora_options):
    model, _, _ = load_network_of(lora_options(lora_alpha=10.0))
    torch.manual_seed(0)
    for name, weight in model.named_parameters():
        if ".lora_B." in name:
            torch.nn.init.normal_(weight)
    parameters = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    merged = model_weights(model)
    assert set(merged) == {name.replace("base_layer.", "") for name in parameters if ".lora_" not in name}
    place = "transformer.h.1.mlp.c_proj"
    down, up = (parameters[f"{place}.lora_{part}.default.weight"] for part in "AB")  # (4, 128), (32, 4)
    expected = parameters[f"{place}.base_layer.weight"] + 10 / 4 * (up @ down).t()  # (128, 32)
    assert torch.allclose(merged[f"{place}.weight"], expected, atol=1e-6)
    assert torch.equal(merged["transformer.wpe.weight"], parameters["transformer.wpe.weight"])
    plain = plain_model(model)
    assert type(plain) is GPT2LMHeadModel and plain.lm_head.weight is plain.transformer.wte.weight
    assert torch.allclose(logits_of(plain.eval()), logits_of(model.eval()), atol=1e-4)
    assert all(torch.equal(weight, parameters[name]) for name, weight in model.named_parameters())  # not merged into it
    assert plain_model(plain) is plain


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_step_has_the_loss_and_the_gradients_of_peft_alone(lora_options, precision):
    """The tuned layers against the untouched ones of transformers and peft, without dropout."""
    options = lora_options(lora_dropout=0.0, dropout=0.0, precision=precision, lr=0.0, max_grad_norm=0.0)
    reference, _, _ = load_network_of(options)
    prepared = prepare_run(options)
    torch.manual_seed(1)
    for (name, weight), (_, other) in zip(reference.named_parameters(), prepared.model.named_parameters(), strict=True):
        if ".lora_B." in name:
            torch.nn.init.normal_(weight, std=0.05)
            other.data.copy_(weight.data)
    engine = Engine(prepared)
    batch = next(epoch_batches(prepared.data.pieces.train, 16, 8, 4, seed=0, epoch=1))
    input_ids, labels = torch.from_numpy(batch.input_ids), torch.from_numpy(batch.labels)
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bf16"):
        expected = reference.train()(input_ids, labels=labels).loss
    expected.backward()
    loss = sum_loss(prepared.model.train(), input_ids, labels, dtype=dtype) / (4 * 15)
    loss.backward()
    tolerance = 2e-2 if precision == "bf16" else 1e-5
    assert loss.item() == pytest.approx(expected.item(), rel=tolerance)
    theirs = {name: weight.grad for name, weight in reference.named_parameters() if weight.grad is not None}
    ours = {name: weight.grad for name, weight in prepared.model.named_parameters() if weight.grad is not None}
    assert set(ours) == set(theirs) and len(ours) == 16
    for name, gradient in theirs.items():
        assert torch.allclose(ours[name], gradient, rtol=10 * tolerance, atol=tolerance * gradient.abs().max()), name
    assert engine.loss_module.model is prepared.model


@pytest.mark.parametrize("accumulation", [1, 4])
def test_a_run_goes_on_bit_for_bit_and_trains_nothing_else(lora_options, pretrained, tmp_path, accumulation):
    options = lora_options(gradient_accumulation=accumulation)
    assert fit(options)
    broken = replace(options, output_dir=str(tmp_path / "broken"))
    stops = 0
    while not fit(broken, StopAfter(9)):
        stops += 1
    assert stops >= 2
    assert result_of(broken.output_path) == result_of(options.output_path)
    state = load_file(list_checkpoints(options.output_path)[-1] / "model.safetensors")
    assert len(state) == 16 and sum(tensor.numel() for tensor in state.values()) == 4096
    before = load_file(pretrained / "model.safetensors")
    after = load_file(options.output_path / "final_model" / "model.safetensors")
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    layers = ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
    assert changed == {f"transformer.h.{index}.{layer}.weight" for index in (0, 1) for layer in layers}


def test_a_batch_in_parts_gives_the_same_update(lora_options, tmp_path):
    whole, parts = lora_options(epochs=1), lora_options(epochs=1, gradient_accumulation=4)
    assert fit(whole)
    assert fit(replace(parts, output_dir=str(tmp_path / "parts")))
    first, second = (
        load_file(folder / "final_model" / "model.safetensors") for folder in (whole.output_path, tmp_path / "parts")
    )
    for name, weight in first.items():
        assert torch.allclose(second[name], weight, atol=1e-5), name


def test_the_exported_folder_is_a_plain_gpt2_that_has_learned(lora_options, pretrained):
    options = lora_options(lr=None, epochs=3, sample_length=5)
    assert train(options) == 0
    final = options.output_path / "final_model"
    theirs = GPT2LMHeadModel.from_pretrained(final)
    ours, tokenizer = load_model(final)
    assert torch.allclose(logits_of(theirs), logits_of(ours), atol=1e-5)
    text = torch.tensor([[tokenizer.cls_id, *tokenizer.encode(STORY[0][:14]).tolist()]])
    with torch.no_grad():
        assert theirs(text, labels=text).loss < load_model(pretrained)[0](text, labels=text).loss - 0.1
    log = [json.loads(line) for line in (options.output_path / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    assert max(record.get("lr", 0) for record in log) <= default_lr("adamw", 32, pretrained=True, lora=True) == 1.5e-3


def test_the_sample_of_a_run_is_written_with_the_corrections(lora_options):
    model, _, tokenizer = load_network_of(lora_options())
    from novelgpt.writing.generation import generate_text

    torch.manual_seed(0)
    for name, weight in model.named_parameters():
        if ".lora_B." in name:
            torch.nn.init.normal_(weight)
    plain = plain_model(model.eval())
    texts = [generate_text(plain, tokenizer, "乔", length=8, seed=0)[0] for _ in range(2)]
    theirs = generate_text(load_model(lora_options().pretrained_model)[0], tokenizer, "乔", length=8, seed=0)[0]
    assert texts[0] == texts[1] != theirs


def test_new_tokens_learn_their_rows_and_no_other_row_moves(lora_options, tmp_path):
    write_json(tmp_path / "train.json", [f"{text}[TIL]{text[:5]}" for text in STORY * 3])
    options = lora_options(raw=True, raw_data_path=str(tmp_path / "train.json"), add_tokens="[TIL]", weight_decay=0.5)
    begun, _, _ = load_network_of(options)
    begun = begun.transformer.wte.weight.detach().clone()
    assert fit(options)
    weights = load_file(options.output_path / "final_model" / "model.safetensors")["transformer.wte.weight"]
    moved = np.flatnonzero((weights != begun).any(1).numpy())
    assert moved.tolist() == [5]
    broken = replace(options, output_dir=str(tmp_path / "broken"))
    while not fit(broken, StopAfter(9)):
        pass
    assert result_of(broken.output_path) == result_of(options.output_path)


def test_a_run_does_not_go_on_over_other_frozen_weights_or_settings(
    lora_options, pretrained, tiny_config, tiny_tokenizer
):
    options = lora_options(epochs=1)
    assert train(options) == 0
    with pytest.raises(UserError) as caught:
        train(replace(options, lora_rank=8))
    words = 'lora: was "rank 4, alpha 32, dropout 0.1", now "rank 8, alpha 32, dropout 0.1"'
    assert caught.value.message == f"{options.output_dir}: holds an unfinished run with other settings\n  {words}"
    save_model(build_model(tiny_config, tiny_tokenizer, seed=4), tiny_tokenizer, pretrained)
    with pytest.raises(UserError) as caught:
        train(options)
    assert "\n  frozen_weights: was " in caught.value.message


def test_lora_without_a_trained_network_is_refused(tiny_options):
    with pytest.raises(UserError) as caught:
        check_lora(tiny_options(lora_rank=8))
    assert str(caught.value) == (
        "error: --lora_rank 8: corrects a trained network, and no --pretrained_model is given\n\n"
        "hint: --pretrained_model model/final_model --output_dir other/"
    )
    assert caught.value.code == 2


def test_lora_does_not_share_weights_out(tiny_options):
    with pytest.raises(UserError) as caught:
        check_lora(tiny_options(lora_rank=8, pretrained_model="m", shard=True))
    assert str(caught.value) == (
        "error: --lora_rank 8: does not go together with --shard\n\nhint: leave --shard out: LoRA takes little memory"
    )


@pytest.mark.parametrize(("name", "value"), [("lora_alpha", 16.0), ("lora_dropout", 0.5)])
def test_a_setting_of_lora_without_a_rank_is_refused(tiny_options, name, value):
    with pytest.raises(UserError) as caught:
        check_lora(tiny_options(**{name: value}))
    assert (
        str(caught.value) == f"error: --{name} {value:g}: without effect where --lora_rank is 0\n\nhint: --lora_rank 16"
    )


def test_missing_peft_is_one_line_with_the_command_that_installs_it(monkeypatch, capsys, tmp_path):
    monkeypatch.setitem(sys.modules, "peft", None)
    words = ["--lora_rank=8", "--pretrained_model=m", f"--output_dir={tmp_path / 'run'}"]
    assert run(train_main, words) == 4
    assert capsys.readouterr().err == (
        "error: --lora_rank 8: the package peft is not installed\n\nhint: pip install peft\n"
    )
    assert os.listdir(tmp_path) in ([], ["run"])


def test_the_corrections_are_a_function_of_the_seed(pretrained):
    pytest.importorskip("peft", reason="LoRA needs the package peft")
    made = []
    for seed in (0, 0, 1):
        model, _ = load_model(pretrained)
        torch.manual_seed(9)
        add_lora(model, rank=2, alpha=1.0, dropout=0.0, seed=seed, new_ids=np.empty(0, np.int64))
        made.append(model.transformer.h[0].attn.c_attn.lora_A["default"].weight.detach())
    assert torch.equal(made[0], made[1]) and not torch.equal(made[0], made[2])
