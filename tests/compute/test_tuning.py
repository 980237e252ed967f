"""The CPU parts change no result: attention equals torch's, dropout is what it says and a function of its place."""

import copy

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from novelgpt.compute import tune_for_cpu
from novelgpt.training.engine import checkpoint_activations

LENGTHS = (1, 5, 255, 256, 257, 600)


def small_model(**changes) -> GPT2LMHeadModel:
    """Return an untuned network whose weights are large enough to matter."""
    torch.manual_seed(0)
    values = {"vocab_size": 61, "n_layer": 2, "n_embd": 32, "n_head": 4, "n_positions": 640, "initializer_range": 0.2}
    return GPT2LMHeadModel(GPT2Config(**{**values, "bos_token_id": 0, "eos_token_id": 0, **changes}))


def attend(model, query, key, value, *, dropout: float, scaling: float | None = None):
    """Call the attention that a tuned model uses, as transformers calls it; (B, H, T, D/H) in, (B, H, T, D/H) out."""
    module = model.transformer.h[0].attn
    function = ALL_ATTENTION_FUNCTIONS[model.config._attn_implementation]
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    output, _ = function(module, query, key, value, None, scaling=scaling, dropout=dropout)
    return output.transpose(1, 2)


def random_heads(length: int, *, rows: int = 2, heads: int = 3, width: int = 8) -> list[torch.Tensor]:
    """Return query, key and value (B, H, T, D/H) that want gradients."""
    generator = torch.Generator().manual_seed(length)
    return [torch.randn(rows, heads, length, width, generator=generator).requires_grad_() for _ in range(3)]


def gradients_of(output: torch.Tensor, parts: list[torch.Tensor]) -> tuple[torch.Tensor, ...]:
    """Return the gradients of a weighted sum that treats every output differently."""
    weights = torch.sin(torch.arange(output.numel(), dtype=torch.float32)).view(output.shape)
    return torch.autograd.grad((output * weights).sum(), parts)


@pytest.fixture
def tuned():
    """A tuned network in training mode and its source of noise."""
    model = small_model().train()
    return model, tune_for_cpu(model, seed=7)


@pytest.mark.parametrize("length", LENGTHS)
def test_attention_and_its_gradients_equal_torch(tuned, length):
    parts = random_heads(length)
    ours = attend(tuned[0], *parts, dropout=0.0)
    theirs = torch.nn.functional.scaled_dot_product_attention(*parts, is_causal=True)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=2e-6)
    for mine, expected in zip(gradients_of(ours, parts), gradients_of(theirs, parts), strict=True):
        torch.testing.assert_close(mine, expected, rtol=1e-3, atol=2e-5)


def dropped_probabilities(tuned, query, key, dropout: float) -> torch.Tensor:
    """Read the attention's dropped probabilities (T, T) off its output for values that are the identity."""
    model, noise = tuned
    length, width = query.shape[-2:]
    wide = [torch.nn.functional.pad(part, (0, length - width)) for part in (query, key)]
    noise.set_position(3, 5)
    identity = torch.eye(length)[None, None]
    return attend(model, *wide, identity, dropout=dropout, scaling=width**-0.5)[0, 0].detach()


@pytest.mark.parametrize("length", [9, 255, 257, 400])
def test_attention_with_dropout_equals_the_plain_formula_with_the_same_mask(tuned, length):
    model, noise = tuned
    query, key, value = random_heads(length, rows=1, heads=1)
    kept = dropped_probabilities(tuned, query, key, 0.1) != 0  # (T, T)
    future = torch.ones(length, length, dtype=torch.bool).triu(1)
    assert not (kept & future).any()
    plain = (query @ key.transpose(2, 3) * 8**-0.5).masked_fill(future, -torch.inf).softmax(dim=-1)
    expected = (plain * kept * (256 / (256 - 26))) @ value  # 26 of the 256 byte values drop
    noise.set_position(3, 5)
    ours = attend(model, query, key, value, dropout=0.1)
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=5e-6)
    mine, theirs = gradients_of(ours, [query, key, value]), gradients_of(expected, [query, key, value])
    for one, two in zip(mine, theirs, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-3, atol=5e-5)


def test_gradients_use_the_masks_of_their_own_forward_pass(tuned):
    model, noise = tuned
    parts = random_heads(300, rows=1)
    noise.set_position(3, 0)
    expected = gradients_of(attend(model, *parts, dropout=0.5), parts)
    noise.set_position(3, 0)
    output = attend(model, *parts, dropout=0.5)
    noise.set_position(4, 2)  # the loop has moved on before the backward pass
    for mine, other in zip(gradients_of(output, parts), expected, strict=True):
        assert torch.equal(mine, other)


def test_attention_keeps_the_share_it_says(tuned):
    query = torch.zeros(1, 1, 400, 4)  # equal scores: no probability is 0 by itself
    kept = dropped_probabilities(tuned, query, query, 0.1) != 0
    past = torch.ones(400, 400, dtype=torch.bool).tril()
    share = kept[past].float().mean().item()  # 80,200 draws: the standard error is 0.001
    assert share == pytest.approx(230 / 256, abs=0.005)


@pytest.mark.parametrize(("p", "dropped"), [(0.1, 26), (0.3, 77), (0.5, 128)])
def test_dropout_keeps_the_share_it_says_and_the_mean(p, dropped):
    model = small_model(embd_pdrop=p).train()
    noise = tune_for_cpu(model, seed=0)
    noise.set_position(1, 0)
    output = model.transformer.drop(torch.ones(4, 100, 200))  # 80,000 draws
    assert output.unique().tolist() == [0.0, pytest.approx(256 / (256 - dropped))]
    assert (output != 0).float().mean().item() == pytest.approx(1 - dropped / 256, abs=0.01)
    assert output.mean().item() == pytest.approx(1, abs=0.02)


def test_dropout_passes_the_gradient_through_what_it_kept(tuned):
    model, noise = tuned
    hidden = torch.randn(2, 9, 32, requires_grad=True)
    noise.set_position(1, 0)
    output = model.transformer.drop(hidden)
    (gradient,) = torch.autograd.grad(output.sum(), hidden)
    torch.testing.assert_close(output, hidden * gradient)
    assert (gradient == 0).sum() > 0


def test_masks_differ_between_steps_rows_places_and_seeds():
    def mask(module, noise, step, first_row):
        noise.set_position(step, first_row)
        return (module(torch.ones(1, 20, 32)) != 0).numpy().tobytes()

    masks = set()
    for seed in (0, 1):
        model = small_model().train()
        noise = tune_for_cpu(model, seed=seed)
        block = model.transformer.h[1]
        for module in (model.transformer.drop, block.attn.resid_dropout, block.mlp.dropout):
            masks |= {mask(module, noise, step, row) for step in (1, 2) for row in (0, 1)}
    assert len(masks) == 2 * 3 * 2 * 2


@pytest.mark.parametrize("split", [[1, 3], [2, 2], [1, 1, 1, 1]])
def test_masks_do_not_depend_on_how_a_batch_is_split(tuned, split):
    model, noise = tuned
    input_ids = torch.randint(61, (4, 270), generator=torch.Generator().manual_seed(0))
    noise.set_position(12, 0)
    whole = model.transformer(input_ids).last_hidden_state
    first = 0
    for rows in split:
        noise.set_position(12, first)
        part = model.transformer(input_ids[first : first + rows]).last_hidden_state
        torch.testing.assert_close(part, whole[first : first + rows], rtol=1e-4, atol=1e-5)
        first += rows


def test_the_same_place_gives_the_same_pass(tuned):
    model, noise = tuned
    input_ids = torch.arange(40)[None]
    noise.set_position(2, 1)
    one = model.transformer(input_ids).last_hidden_state
    noise.set_position(9, 0)
    other = model.transformer(input_ids).last_hidden_state
    noise.set_position(2, 1)
    assert torch.equal(model.transformer(input_ids).last_hidden_state, one)
    assert not torch.equal(other, one)


@pytest.mark.parametrize("training", [True, False])
def test_tuning_keeps_the_mode_of_every_part(training):
    model = small_model().train(training)
    tune_for_cpu(model, seed=0)
    assert {module.training for module in model.modules()} == {training}


def test_without_training_nothing_is_dropped(tuned):
    model, noise = tuned
    model.eval()
    noise.set_position(1, 0)
    one = model(torch.arange(50)[None]).logits
    noise.set_position(2, 3)
    assert torch.equal(model(torch.arange(50)[None]).logits, one)


def test_tuning_changes_neither_names_nor_weights():
    model = small_model()
    before = copy.deepcopy(model.state_dict())
    tune_for_cpu(model, seed=0)
    after = model.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert model.lm_head.weight is model.transformer.wte.weight


@pytest.mark.parametrize("activation", ["gelu_new", "gelu", "relu"])
@pytest.mark.parametrize("length", [3, 300])
def test_a_tuned_model_gives_the_logits_of_transformers(activation, length):
    model = small_model(activation_function=activation).eval()
    input_ids = torch.randint(61, (2, length), generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        expected = model(input_ids).logits
        tune_for_cpu(model, seed=0)
        torch.testing.assert_close(model(input_ids).logits, expected, rtol=1e-4, atol=1e-4)


def test_gradients_of_a_tuned_model_equal_those_of_transformers():
    rates = {"embd_pdrop": 0.0, "resid_pdrop": 0.0, "attn_pdrop": 0.0}
    model = small_model(**rates).train()
    input_ids = torch.randint(61, (2, 270), generator=torch.Generator().manual_seed(3))
    model(input_ids, labels=input_ids).loss.backward()
    expected = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    model.zero_grad()
    tune_for_cpu(model, seed=0)
    model(input_ids, labels=input_ids).loss.backward()
    for name, parameter in model.named_parameters():
        scale = expected[name].abs().max().item()
        torch.testing.assert_close(parameter.grad, expected[name], rtol=1e-3, atol=1e-4 * scale, msg=name)


def test_recomputed_activations_use_the_same_masks(tuned):
    model, noise = tuned
    input_ids = torch.randint(61, (2, 40), generator=torch.Generator().manual_seed(3))

    def gradients():
        noise.set_position(5, 0)
        model.zero_grad()
        model(input_ids, labels=input_ids, use_cache=False).loss.backward()
        return {name: parameter.grad.clone() for name, parameter in model.named_parameters()}

    plain = gradients()
    checkpoint_activations(model)
    for name, gradient in gradients().items():
        torch.testing.assert_close(gradient, plain[name], msg=name)
