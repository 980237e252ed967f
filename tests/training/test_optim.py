"""The rate of every step by hand, decay on matrices alone, AdamW against numpy, Muon against torch.optim.Muon."""

import os
import subprocess
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import ROOT
from helpers import counting_launches

from novelgpt.network import build_model
from novelgpt.network.weights import read_safetensors
from novelgpt.training.checkpoint import OPTIMIZER, list_checkpoints
from novelgpt.training.optim import (
    Muon,
    build_optimizers,
    default_lr,
    default_optimizer,
    default_weight_decay,
    lr_at,
    orthogonalize,
    set_lr,
    split_parameters,
    warmup_count,
)
from novelgpt.training.session import train


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


# --- Muon ---


SHAPES = [(24, 24), (24, 96), (96, 24), (24, 96), (1, 8)]


def random_weights(seed: int, shapes) -> list[torch.nn.Parameter]:
    """Return parameters drawn from a normal distribution."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.nn.Parameter(torch.randn(shape, generator=generator)) for shape in shapes]


def take_steps(optimizer, weights, gradients) -> None:
    """Take one step for each list of gradients."""
    for step in gradients:
        for weight, gradient in zip(weights, step, strict=True):
            weight.grad = gradient.clone()
        optimizer.step()


def test_every_matrix_moves_as_by_torchs_muon():
    ours, theirs = random_weights(0, SHAPES), random_weights(0, SHAPES)
    gradients = [[weight.detach() for weight in random_weights(step, SHAPES)] for step in (1, 2, 3)]
    options = {"lr": 0.02, "weight_decay": 0.1}
    take_steps(Muon([{"params": ours}], **options), ours, gradients)
    reference = torch.optim.Muon(theirs, **options, momentum=0.95, nesterov=True, adjust_lr_fn="match_rms_adamw")
    take_steps(reference, theirs, gradients)
    for mine, other, start in zip(ours, theirs, random_weights(0, SHAPES), strict=True):
        moved = (other - start).detach()
        assert (mine - other).detach().norm() < 0.02 * moved.norm()  # both turn in bf16, 8 bits of precision


def test_query_key_and_value_in_one_matrix_move_as_three_matrices():
    (together,) = random_weights(0, [(16, 48)])
    apart = [torch.nn.Parameter(part.clone()) for part in together.detach().chunk(3, 1)]
    gradients = [weight.detach() for weight in random_weights(1, [(16, 48)] * 3)]
    options = {"lr": 0.02, "weight_decay": 0.1}
    take_steps(Muon([{"params": [together], "parts": 3}], **options), [together], [[one] for one in gradients])
    take_steps(Muon([{"params": apart}], **options), apart, [one.chunk(3, 1) for one in gradients])
    assert torch.equal(together, torch.cat(apart, 1))


@pytest.mark.parametrize("shape", [(3, 32, 32), (2, 16, 64), (2, 64, 16)])
def test_singular_values_come_close_to_one(shape):
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(orthogonalize(matrices).float())
    assert 0.6 < values.median() < 1.3 and values.max() < 1.4


def test_a_step_of_a_square_matrix_has_the_size_of_an_adamw_step():
    (weight,) = random_weights(0, [(64, 64)])
    before = weight.detach().clone()
    take_steps(Muon([{"params": [weight]}], lr=0.01, weight_decay=0.0), [weight], [[torch.randn(64, 64)]])
    rms = (weight - before).detach().square().mean().sqrt().item()
    assert rms == pytest.approx(0.2 * 0.01, rel=0.25)  # 0.2 of the rate; singular values within a quarter of 1


def test_a_weight_without_gradient_stays():
    first, second = random_weights(0, [(8, 8), (8, 8)])
    before = second.detach().clone()
    first.grad = torch.randn(8, 8)
    Muon([{"params": [first, second]}], lr=0.1, weight_decay=0.5).step()
    assert torch.equal(second, before)


def test_a_step_that_found_inf_changes_nothing_and_the_next_goes_on_as_if_it_had_not_been():
    weights, others = random_weights(0, SHAPES), random_weights(0, SHAPES)
    gradients = [[weight.detach() for weight in random_weights(step, SHAPES)] for step in (1, 2)]
    broken = [torch.full(shape, float("nan")) for shape in SHAPES]
    muon, other = (Muon([{"params": part}], lr=0.02, weight_decay=0.1) for part in (weights, others))
    for step, found in ((gradients[0], 0.0), (broken, 1.0), (gradients[1], 0.0)):
        muon.found_inf = torch.tensor([found])
        take_steps(muon, weights, [step])
    take_steps(other, others, gradients)
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(weights, others, strict=True))


BLOCK = [((8, 24), 3), ((8, 8), 1), ((8, 32), 1), ((32, 8), 1)]  # shape and parts of the matrices of a block 8 wide
HABITS = {"lr": 0.02, "weight_decay": 0.1, "dtype": torch.float32}


def muon_of_blocks(num_layers: int, *, seed: int = 0, **habits) -> tuple[Muon, list[torch.nn.Parameter]]:
    """Return the optimizer of a network's blocks in groups as build_optimizers makes them, and its weights."""
    weights = [(random_weights(seed + i, [shape])[0], parts) for i in range(num_layers) for shape, parts in BLOCK]
    groups = [{"params": [weight for weight, parts in weights if parts == n], "parts": n} for n in (1, 3)]
    return Muon(groups, **{**HABITS, **habits}), [weight for group in groups for weight in group["params"]]


def gradients_like(weights, seed: int) -> list[torch.Tensor]:
    """Return gradients of some weights."""
    return [weight.detach() for weight in random_weights(seed, [weight.shape for weight in weights])]


def step_together(muon: Muon) -> None:
    """Take a step in the form of a GPU."""
    with torch.no_grad():
        muon.step_together(muon.kept())


def take_steps_together(muon, weights, gradients) -> None:
    """Do the same as take_steps in the form of a GPU."""
    for step in gradients:
        for weight, gradient in zip(weights, step, strict=True):
            weight.grad = gradient.clone()
        step_together(muon)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-3)])
def test_all_weights_together_move_as_one_by_one(dtype, tolerance):
    (one, alone), (other, together) = (muon_of_blocks(3, dtype=dtype) for _ in range(2))
    gradients = [gradients_like(alone, 9 + step) for step in range(3)]
    take_steps(one, alone, gradients)
    take_steps_together(other, together, gradients)
    for mine, theirs in zip(together, alone, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=tolerance)
        ours, expected = (muon.state[weight]["momentum_buffer"] for muon, weight in ((other, mine), (one, theirs)))
        torch.testing.assert_close(ours, expected, rtol=1e-6, atol=1e-6)


def test_a_step_of_ten_layers_takes_at_most_sixty_launches():
    muon, weights = muon_of_blocks(10, dtype=torch.bfloat16)
    muon.found_inf = torch.zeros(())
    take_steps_together(muon, weights, [gradients_like(weights, 1)])
    with counting_launches() as launches:
        step_together(muon)
    assert len(launches) <= 60, launches


def test_moments_put_back_by_name_go_on_where_they_were():
    whole, weights = muon_of_blocks(2)
    gradients = [gradients_like(weights, 9 + step) for step in range(4)]
    take_steps_together(whole, weights, gradients)
    stopped, others = muon_of_blocks(2)
    take_steps_together(stopped, others, gradients[:2])
    resumed, copies = muon_of_blocks(2)
    for copy, other in zip(copies, others, strict=True):
        copy.data.copy_(other)
        moments = stopped.state[other]
        assert list(moments) == ["momentum_buffer"] and moments["momentum_buffer"].shape == other.shape
        resumed.state[copy]["momentum_buffer"] = moments["momentum_buffer"].clone()
    take_steps_together(resumed, copies, gradients[2:])
    assert all(torch.equal(copy, weight) for copy, weight in zip(copies, weights, strict=True))


def test_together_too_a_weight_without_gradient_stays_and_found_inf_leaves_a_step_out():
    (muon, weights), (other, others) = muon_of_blocks(2), muon_of_blocks(2)
    gradients = [gradients_like(weights, 9 + step) for step in range(2)]
    broken = [torch.full_like(weight, float("nan")) for weight in weights]
    frozen = weights[0].detach().clone()
    for step, found in ((gradients[0], 0.0), (broken, 1.0), (gradients[1], 0.0)):
        muon.found_inf = torch.tensor(found)
        weights[0].requires_grad_(False)
        take_steps_together(muon, weights[1:], [step[1:]])
    take_steps_together(other, others[1:], [gradients[0][1:], gradients[1][1:]])
    assert torch.equal(weights[0], frozen)
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(weights[1:], others[1:], strict=True))


def test_weights_on_a_device_that_is_no_cpu_move_together(monkeypatch):
    taken = []
    monkeypatch.setattr(Muon, "step_each", lambda muon, kept: taken.append("each"))
    monkeypatch.setattr(Muon, "step_together", lambda muon, kept: taken.append("together"))
    for device in ("cpu", "meta"):
        weight = torch.nn.Parameter(torch.zeros(4, 4, device=device))
        weight.grad = torch.zeros(4, 4, device=device)
        Muon([{"params": [weight]}], lr=0.1, weight_decay=0.0).step()
    assert taken == ["each", "together"]


SHARING = r"""
import os, sys, traceback, torch, torch.distributed as dist
sys.path[:0] = ["tests", "tests/training"]
import test_optim as tests
from novelgpt.training import optim

def work(rank):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method="file://" + sys.argv[1], rank=rank, world_size=2)
    whole, alone = tests.muon_of_blocks(3)
    sharing, together = tests.muon_of_blocks(3, rank=rank, world=2)
    gradients = [tests.gradients_like(alone, 9 + step) for step in range(3)]
    tests.take_steps_together(whole, alone, gradients)
    sizes, orthogonalize = [], optim.orthogonalize
    optim.orthogonalize = lambda matrices, dtype: sizes.append(len(matrices)) or orthogonalize(matrices, dtype)
    tests.take_steps_together(sharing, together, gradients)
    assert sizes == [6, 3] * 3, sizes  # half of 3 layers' 12 squares, and of 6 wide ones
    for mine, theirs in zip(together, alone, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-6)
    everything = torch.cat([weight.detach().flatten() for weight in together])
    both = [torch.empty_like(everything) for _ in range(2)]
    dist.all_gather(both, everything)
    assert torch.equal(*both)
    dist.destroy_process_group()

children = []
for rank in range(2):
    if not (child := os.fork()):
        status = 1
        try:
            work(rank)
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(status)
    children.append(child)
sys.exit(max(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children))
"""


@pytest.mark.sweep
def test_two_processes_turn_half_of_the_matrices_each_and_have_the_weights_of_one(warm_python, tmp_path):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
    command = [warm_python, "-c", SHARING, str(tmp_path / "meeting")]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT, check=False, timeout=60)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.sweep
@pytest.mark.parametrize("form", [Muon.step_each, Muon.step_together])
def test_a_run_by_muon_that_was_stopped_ends_with_the_same_weights(tiny_options, tmp_path, monkeypatch, form):
    monkeypatch.setattr(Muon, "step_each", form)
    whole = tiny_options(optimizer="muon")
    stopped = replace(whole, output_dir=str(tmp_path / "stopped"))
    assert train(whole) == 0
    with monkeypatch.context() as patch:
        asked = iter([False] * 9 + [True] * 99)
        patch.setattr("novelgpt.training.session.StopSignals.must_stop", lambda self: next(asked))
        assert train(stopped) == 0
    assert not (stopped.output_path / "final_model").exists()
    moments = read_safetensors(list_checkpoints(stopped.output_path)[-1] / OPTIMIZER)
    assert moments["1/transformer.h.0.attn.c_attn.weight/momentum_buffer"].shape == (32, 96)  # each by its name
    assert len([name for name in moments if name.startswith("1/")]) == 2 * 4  # layers, and matrices of each
    assert train(stopped) == 0
    first, second = (run.output_path / "final_model/model.safetensors" for run in (whole, stopped))
    assert first.read_bytes() == second.read_bytes()
