"""The chunked loss equals transformers' own, its gradients equal autograd through whole logits."""

import pytest
import torch
import torch.nn.functional as F
from transformers import GPT2Config, GPT2LMHeadModel

from novelgpt.network import sum_loss


@pytest.fixture
def model():
    """A small network without dropout, its weights large enough that losses differ between tokens."""
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=101, n_layer=2, n_embd=32, n_head=4, n_positions=24, initializer_range=0.2, bos_token_id=0,
        eos_token_id=0, embd_pdrop=0.0, resid_pdrop=0.0, attn_pdrop=0.0,
    )  # fmt: skip
    return GPT2LMHeadModel(config)


@pytest.fixture
def teachers():
    """Two networks of other sizes over the same tokens, in eval mode as they must be."""
    torch.manual_seed(9)
    sizes = {"vocab_size": 101, "n_positions": 32, "initializer_range": 0.3, "bos_token_id": 0, "eos_token_id": 0}
    shapes = ({"n_layer": 1, "n_embd": 48, "n_head": 3}, {"n_layer": 2, "n_embd": 16, "n_head": 2})
    return [GPT2LMHeadModel(GPT2Config(**sizes, **shape)).eval() for shape in shapes]


@pytest.fixture
def batch():
    """Three rows of ids, and labels of which some are not scored: single ones, a whole row's beginning, a whole row."""
    generator = torch.Generator().manual_seed(1)
    input_ids = torch.randint(101, (4, 24), generator=generator)
    labels = input_ids.clone()
    labels[0, 5] = -100
    labels[1, :13] = -100
    labels[2, -1] = -100
    labels[3] = -100
    return input_ids, labels


def reference_loss(model, input_ids, labels):
    """Return the sum that transformers' own mean loss stands for."""
    return model(input_ids=input_ids, labels=labels).loss * (labels[:, 1:] != -100).sum()


@pytest.mark.parametrize("chunk", [1, 7, 23, 92, 1024])
def test_the_sum_equals_the_loss_of_transformers(model, batch, chunk):
    expected = reference_loss(model, *batch).item()
    assert sum_loss(model, *batch, chunk=chunk).item() == pytest.approx(expected, rel=1e-6)


def test_the_sum_equals_a_cross_entropy_in_double_precision(model, batch):
    input_ids, labels = batch
    logits = model(input_ids).logits.double()
    total = 0.0
    for row in range(4):
        for place in range(1, 24):  # position t predicts token t + 1
            if labels[row, place] >= 0:
                total -= torch.log_softmax(logits[row, place - 1], dim=0)[labels[row, place]].item()
    assert sum_loss(model, input_ids, labels).item() == pytest.approx(total, rel=1e-6)


@pytest.mark.parametrize("chunk", [1, 10, 33, 1024])
def test_gradients_equal_autograd_through_whole_logits(model, batch, chunk):
    reference_loss(model, *batch).backward()
    expected = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    model.zero_grad()
    sum_loss(model, *batch, chunk=chunk).backward()
    assert "lm_head.weight" not in expected  # tied: its gradient arrives at the token embedding
    for name, parameter in model.named_parameters():
        scale = expected[name].abs().max().item()
        torch.testing.assert_close(parameter.grad, expected[name], rtol=1e-4, atol=1e-5 * scale, msg=name)


def test_a_scaled_loss_scales_its_gradients(model, batch):
    sum_loss(model, *batch).backward()
    once = model.transformer.wte.weight.grad.clone()
    model.zero_grad()
    (sum_loss(model, *batch) / 8).backward()
    torch.testing.assert_close(model.transformer.wte.weight.grad, once / 8)


def test_gradients_of_two_micro_batches_add_up_to_those_of_the_batch(model, batch):
    input_ids, labels = batch
    sum_loss(model, input_ids, labels).backward()
    whole = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    model.zero_grad()
    for rows in (slice(0, 1), slice(1, 4)):
        sum_loss(model, input_ids[rows], labels[rows]).backward()
    for name, parameter in model.named_parameters():
        scale = whole[name].abs().max().item()
        torch.testing.assert_close(parameter.grad, whole[name], rtol=1e-4, atol=1e-5 * scale, msg=name)


def test_bf16_products_stay_close_to_fp32(model, batch):
    exact = sum_loss(model, *batch)
    exact.backward()
    gradient = model.transformer.wte.weight.grad.clone()
    model.zero_grad()
    reduced = sum_loss(model, *batch, dtype=torch.bfloat16)
    reduced.backward()
    assert reduced.dtype == torch.float32
    assert reduced.item() == pytest.approx(exact.item(), rel=1e-2)
    error = (model.transformer.wte.weight.grad - gradient).norm() / gradient.norm()
    assert error < 0.03
    assert model.transformer.wte.weight.grad.dtype == torch.float32


def test_a_batch_without_scored_tokens_is_zero_with_zero_gradients(model, batch):
    input_ids, _ = batch
    nothing = torch.full_like(input_ids, -100)
    loss = sum_loss(model, input_ids, nothing)
    loss.backward()
    assert loss.item() == 0.0
    assert all(parameter.grad.abs().max() == 0 for parameter in model.parameters())


def test_without_gradients_the_sum_is_the_same(model, batch):
    with torch.no_grad():
        silent = sum_loss(model, *batch)
    assert silent.item() == sum_loss(model, *batch).item()
    assert not silent.requires_grad


def test_the_first_label_of_a_row_never_counts(model, batch):
    input_ids, labels = batch
    other = labels.clone()
    other[:, 0] = 3
    assert sum_loss(model, input_ids, other).item() == sum_loss(model, input_ids, labels).item()


def taught_loss(model, teachers, weight, noisy_ids, clean_ids, labels):
    """Return what training with teachers minimises, through whole logits and PyTorch's own divergence."""
    scored = labels[:, 1:] >= 0
    ours = model(noisy_ids).logits[:, :-1][scored].log_softmax(-1)  # (N, V)
    with torch.no_grad():
        mean = torch.stack([each(clean_ids).logits[:, :-1][scored].softmax(-1) for each in teachers]).mean(0)
    known = F.nll_loss(ours, labels[:, 1:][scored], reduction="sum")
    return (1 - weight) * known + weight * F.kl_div(ours, mean, reduction="sum"), known


@pytest.mark.parametrize(("count", "weight", "chunk"), [(1, 0.5, 1024), (1, 1.0, 7), (2, 0.5, 10), (2, 0.125, 1)])
def test_with_teachers_gradients_equal_autograd_through_the_divergence(model, teachers, batch, count, weight, chunk):
    clean_ids, labels = batch
    noisy_ids = clean_ids.clone()
    noisy_ids[:, ::4] = 3
    noisy_ids = torch.where(labels.ge(0), noisy_ids, clean_ids)  # where nothing is scored, nothing is replaced
    taught, known = taught_loss(model, teachers[:count], weight, noisy_ids, clean_ids, labels)
    taught.backward()
    expected = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    model.zero_grad()
    settings = {"chunk": chunk, "teachers": teachers[:count], "teacher_weight": weight}
    loss = sum_loss(model, noisy_ids, labels, **settings)
    loss.backward()
    assert loss.item() == pytest.approx(known.item(), rel=1e-6)  # what is reported is the plain cross-entropy
    for name, parameter in model.named_parameters():
        scale = expected[name].abs().max().item()
        torch.testing.assert_close(parameter.grad, expected[name], rtol=1e-4, atol=1e-5 * scale, msg=name)
    assert all(parameter.grad is None for each in teachers for parameter in each.parameters())


def test_with_teachers_bf16_products_stay_close_to_fp32(model, teachers, batch):
    taught_loss(model, teachers, 0.5, batch[0], *batch)[0].backward()
    gradient = model.transformer.wte.weight.grad.clone()
    model.zero_grad()
    sum_loss(model, *batch, dtype=torch.bfloat16, teachers=teachers, teacher_weight=0.5).backward()
    assert (model.transformer.wte.weight.grad - gradient).norm() < 0.03 * gradient.norm()
