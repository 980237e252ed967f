"""The rate of every step by hand, decay on matrices alone, and AdamW against one written in numpy."""

import numpy as np
import pytest
import torch

from novelgpt.network import build_model
from novelgpt.training.optim import (
    build_optimizers,
    default_lr,
    default_optimizer,
    lr_at,
    set_lr,
    split_parameters,
    warmup_count,
)


@pytest.fixture
def model(tiny_config, tiny_tokenizer):
    """An untrained tiny network."""
    return build_model(tiny_config, tiny_tokenizer)


# 10 steps, 2 of warm-up, peak 1: linear falls by 1/8 a step
RATES = {
    "linear": [0.5, 1, 7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8, 0],
    "polynomial": [0.5, 1, 49 / 64, 36 / 64, 25 / 64, 16 / 64, 9 / 64, 4 / 64, 1 / 64, 0],
    "constant": [0.5, 1, 1, 1, 1, 1, 1, 1, 1, 1],
    # (1 + cos(k·pi/8)) / 2; cos(pi/8) = 0.92388, cos(pi/4) = 0.707107, cos(3pi/8) = 0.382683
    "cosine": [0.5, 1, 0.961940, 0.853553, 0.691342, 0.5, 0.308658, 0.146447, 0.038060, 0],
}


@pytest.mark.parametrize("schedule", RATES)
def test_the_rate_of_every_step_is_the_table_worked_by_hand(schedule):
    rates = [lr_at(step, 10, peak=1.0, warmup=2, schedule=schedule) for step in range(1, 11)]
    assert rates == pytest.approx(RATES[schedule], abs=1e-6)


@pytest.mark.parametrize("schedule", ["linear", "cosine", "polynomial"])
@pytest.mark.parametrize("total", [2, 3, 10, 977, 100_000])
def test_the_last_step_has_a_rate_of_exactly_zero(schedule, total):
    for warmup in (0, 1, total // 2, total - 1):
        assert lr_at(total, total, peak=3e-4, warmup=warmup, schedule=schedule) == 0.0


def test_the_peak_is_reached_at_the_end_of_warm_up_and_never_passed():
    rates = [lr_at(step, 200, peak=1.5e-4, warmup=20) for step in range(1, 201)]
    assert max(rates) == rates[19] == 1.5e-4
    assert rates == [*sorted(rates[:20]), *sorted(rates[20:], reverse=True)]


def test_a_run_of_one_step_trains_at_the_peak():
    assert lr_at(1, 1, peak=2.0, warmup=1) == 2.0
    assert lr_at(1, 1, peak=2.0, warmup=0) == 2.0


@pytest.mark.parametrize(
    ("warmup", "total", "steps"),
    [(0, 100, 0), (0.02, 100, 2), (0.02, 101, 3), (0.5, 7, 4), (0.99, 10, 9), (1, 10, 1), (2000, 10, 9), (5, 10, 5)],
)
def test_warm_up_is_a_count_or_a_share_of_the_steps(warmup, total, steps):
    assert warmup_count(warmup, total) == steps


def test_only_matrices_are_decayed(model):
    (adamw,) = build_optimizers(model, "adamw", lr=1e-3, weight_decay=0.1, betas=(0.9, 0.999))
    decay = {id(weight): group["weight_decay"] for group in adamw.param_groups for weight in group["params"]}
    assert len(decay) == len(list(model.parameters()))
    for name, parameter in model.named_parameters():
        is_matrix = name.endswith(("wte.weight", "wpe.weight", "c_attn.weight", "c_proj.weight", "c_fc.weight"))
        assert decay[id(parameter)] == (0.1 if is_matrix else 0.0), name


def test_muon_takes_the_matrices_of_the_blocks_and_nothing_else(model):
    adamw, muon = build_optimizers(model, "muon", lr=1e-3, weight_decay=0.1, betas=(0.9, 0.999))
    turned = {id(weight) for group in muon.param_groups for weight in group["params"]}
    rest = {id(weight) for group in adamw.param_groups for weight in group["params"]}
    for name, parameter in model.named_parameters():
        in_block = name.endswith(("c_attn.weight", "c_proj.weight", "c_fc.weight"))
        assert (id(parameter) in turned, id(parameter) in rest) == (in_block, not in_block), name
    assert [len(part) for part in split_parameters(model, muon=True).values()] == [6, 2, 2, 2 * 2 * 4 + 2]


def test_query_key_and_value_are_turned_as_three_matrices(model):
    muon = build_optimizers(model, "muon", lr=1e-3, weight_decay=0.1, betas=(0.9, 0.999))[1]
    parts = {id(weight): group["parts"] for group in muon.param_groups for weight in group["params"]}
    for name, parameter in model.named_parameters():
        if id(parameter) in parts:
            assert parts[id(parameter)] == (3 if name.endswith("c_attn.weight") else 1), name


@pytest.mark.parametrize(
    ("pretrained", "shard", "expected"),
    [(False, False, "muon"), (True, False, "adamw"), (False, True, "adamw"), (True, True, "adamw")],
)
def test_whole_new_networks_are_trained_by_muon(pretrained, shard, expected):
    assert default_optimizer(pretrained=pretrained, shard=shard) == expected


# 768 / 192 = 4, whose root is 2; trained weights of any width get the ancestor's rate
@pytest.mark.parametrize(
    ("optimizer", "n_embd", "pretrained", "rate"),
    [
        ("muon", 768, False, 2e-3),
        ("muon", 3072, False, 1e-3),
        ("adamw", 768, False, 8e-4),
        ("adamw", 192, False, 1.6e-3),
        ("adamw", 192, True, 1.5e-4),
        ("muon", 192, True, 3e-4),
    ],
)
def test_the_rate_falls_with_the_root_of_the_width(optimizer, n_embd, pretrained, rate):
    assert default_lr(optimizer, n_embd, pretrained=pretrained) == pytest.approx(rate)


def test_every_group_follows_the_schedule(model):
    optimizers = build_optimizers(model, "muon", lr=0.02, weight_decay=0.1, betas=(0.9, 0.999))
    set_lr(optimizers, 0.25)
    assert {group["lr"] for optimizer in optimizers for group in optimizer.param_groups} == {0.005}


def adamw_step(weight, gradient, moments, step, *, lr, betas, decay, eps=1e-8):
    """Take one step of Loshchilov and Hutter's AdamW in double precision; moments are changed in place."""
    weight = weight - lr * decay * weight
    moments[0] += (1 - betas[0]) * (gradient - moments[0])
    moments[1] += (1 - betas[1]) * (gradient**2 - moments[1])
    mean = moments[0] / (1 - betas[0] ** step)
    square = moments[1] / (1 - betas[1] ** step)
    return weight - lr * mean / (np.sqrt(square) + eps)


def test_ten_steps_of_adamw_equal_those_written_in_numpy(model):
    betas, decay = (0.9, 0.95), 0.1
    optimizers = build_optimizers(model, "adamw", lr=1e-2, weight_decay=decay, betas=betas)
    names = ("transformer.h.0.mlp.c_fc.weight", "transformer.h.0.mlp.c_fc.bias", "transformer.wte.weight")
    parameters = dict(model.named_parameters())
    expected = {name: parameters[name].detach().double().numpy() for name in names}
    moments = {name: [np.zeros_like(expected[name]), np.zeros_like(expected[name])] for name in names}
    random = np.random.default_rng(0)
    for step in range(1, 11):
        share = lr_at(step, 10, peak=1.0, warmup=2)
        set_lr(optimizers, share)
        for name in names:
            gradient = random.normal(size=expected[name].shape).astype(np.float32)
            parameters[name].grad = torch.from_numpy(gradient)
            rates = {"lr": 1e-2 * share, "betas": betas, "decay": 0.0 if name.endswith("bias") else decay}
            expected[name] = adamw_step(expected[name], gradient.astype(float), moments[name], step, **rates)
        optimizers[0].step()
    for name in names:
        np.testing.assert_allclose(parameters[name].detach().numpy(), expected[name], rtol=1e-5, atol=1e-6)
