"""Muon against torch.optim.Muon, matrix by matrix, and its matrices against the singular values they must have."""

from dataclasses import replace

import pytest
import torch

from novelgpt.training.optim import Muon, orthogonalize
from novelgpt.training.session import train

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


def test_a_run_by_muon_that_was_stopped_ends_with_the_same_weights(tiny_options, tmp_path, monkeypatch):
    whole = tiny_options(optimizer="muon")
    stopped = replace(whole, output_dir=str(tmp_path / "stopped"))
    assert train(whole) == 0
    with monkeypatch.context() as patch:
        asked = iter([False] * 9 + [True] * 99)
        patch.setattr("novelgpt.training.session.StopSignals.must_stop", lambda self: next(asked))
        assert train(stopped) == 0
    assert not (stopped.output_path / "final_model").exists()
    assert train(stopped) == 0
    first, second = (run.output_path / "final_model/model.safetensors" for run in (whole, stopped))
    assert first.read_bytes() == second.read_bytes()
