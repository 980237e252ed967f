"""What a GPU gets, executed on a CPU with the CPU's own parts switched off: causal attention, one GELU, one graph."""

import copy
from dataclasses import replace

import pytest
import torch
from helpers import counting_launches
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import GPT2Config, GPT2LMHeadModel

from novelgpt.compute import tune_for_gpu
from novelgpt.corpus.tokenizers.character import CharacterTokenizer
from novelgpt.corpus.tokenizers.vocabulary import build_vocabulary
from novelgpt.evaluation.evaluation import make_scorer
from novelgpt.files import read_json
from novelgpt.network import place_teachers, save_model
from novelgpt.training import compilation
from novelgpt.training.engine import Engine
from novelgpt.training.parallel import LossModule, World
from novelgpt.training.run import prepare_run

pytestmark = pytest.mark.pretended  # a dozen compilations
CHUNK = 16  # positions; 4 rows of 23 make 6 chunks of the head
LENGTHS = (24, 9, 2)  # the context, and windows shorter than it


@pytest.fixture(autouse=True)
def without_cpu_parts(monkeypatch):
    """Let the head's products and its cross-entropy be those of a GPU."""
    monkeypatch.setattr("novelgpt.network.loss.CPU_FORMATS", ())
    monkeypatch.setattr("novelgpt.compute.tuning.HAS_ONEDNN", False)


def small_model(**changes) -> GPT2LMHeadModel:
    """Return a network whose weights are large enough to matter, without dropout."""
    torch.manual_seed(0)
    rates = {"embd_pdrop": 0.0, "resid_pdrop": 0.0, "attn_pdrop": 0.0}
    values = {"vocab_size": 101, "n_layer": 2, "n_embd": 32, "n_head": 4, "n_positions": 24, "initializer_range": 0.2}
    return GPT2LMHeadModel(GPT2Config(**{**values, **rates, "bos_token_id": 0, "eos_token_id": 0, **changes}))


def make_batch(length: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return ids (4, T) and labels of which a row's beginning is not scored."""
    input_ids = torch.randint(101, (4, length), generator=torch.Generator().manual_seed(length))
    labels = input_ids.clone()
    labels[1, : length // 2] = -100
    return input_ids, labels


def gradients_of(model, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return the gradients of a loss by name, and take them off the model."""
    loss.sum().backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    model.zero_grad(set_to_none=True)
    return gradients


def assert_equal_gradients(ours: dict, theirs: dict) -> None:
    """Compare gradients to 1e-5 of the greatest of each."""
    for name, expected in theirs.items():
        torch.testing.assert_close(ours[name], expected, rtol=1e-5, atol=1e-5 * expected.abs().max().item(), msg=name)


class Counting:
    """A compiler that counts graphs and keeps how attention is called in them; it computes by the eager kernels."""

    def __init__(self):
        torch._dynamo.reset()
        self.graphs, self.attention = 0, []

    def __call__(self, graph, inputs):
        from torch._dynamo.backends.debugging import aot_eager

        self.graphs += 1
        for module in graph.modules():
            for node in getattr(getattr(module, "graph", None), "nodes", ()):
                if "scaled_dot_product_attention" in str(node.target):
                    self.attention.append(node.kwargs)
        return aot_eager(graph, inputs)


class NoLooks(TorchDispatchMode):
    """Refuse every operation by which the host reads a number of the device."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        assert func.overloadpacket not in (torch.ops.aten._local_scalar_dense, torch.ops.aten.is_nonzero), func
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(("length", "dropout"), [(24, 0.1), (9, 0.0)])
def test_attention_is_causal_without_a_mask_in_one_graph(length, dropout):
    model, compiler = small_model(attn_pdrop=dropout).train(), Counting()
    tune_for_gpu(model)
    module = LossModule(model, torch.float32, CHUNK)
    module.compile(backend=compiler)
    gradients_of(model, module(*make_batch(length)))
    assert compiler.graphs == 1
    assert len(compiler.attention) == 2  # one a layer
    for call in compiler.attention:
        assert (call["is_causal"], call.get("attn_mask"), call["dropout_p"]) == (True, None, dropout)


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("activation", ["gelu_new", "gelu", "relu"])
def test_loss_and_gradients_equal_those_of_transformers(length, activation):
    model = small_model(activation_function=activation).train()
    input_ids, labels = make_batch(length)
    scored = (labels[:, 1:] >= 0).sum()
    expected = model(input_ids, labels=labels).loss * scored
    theirs = gradients_of(model, expected)
    tune_for_gpu(model)
    loss = LossModule(model, torch.float32, CHUNK)(input_ids, labels)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert_equal_gradients(gradients_of(model, loss), theirs)


def test_a_step_reads_no_number_of_the_device():
    model = small_model(attn_pdrop=0.1).train()
    tune_for_gpu(model)
    batch = make_batch(24)
    with NoLooks():
        LossModule(model, torch.bfloat16, CHUNK)(*batch).sum().backward()


def test_gelu_is_one_operator_and_only_where_it_is_the_tanh_form():
    model, other = small_model(), small_model(activation_function="relu")
    for each in (model, other):
        tune_for_gpu(each)
    assert {repr(block.mlp.act) for block in model.transformer.h} == {"GELU(approximate='tanh')"}
    assert not any(isinstance(block.mlp.act, torch.nn.GELU) for block in other.transformer.h)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("score", [False, True])
def test_the_loss_is_one_graph_with_the_numbers_of_eager_operators(dtype, score):
    model, compiler = small_model().train(not score), Counting()
    tune_for_gpu(model)
    module, batch = LossModule(model, dtype, CHUNK), make_batch(24)
    eager = module(*batch, score=score)
    theirs = {} if score else gradients_of(model, eager)
    module.compile(backend=compiler)
    torch._dynamo.utils.counters.clear()
    ours = module(*batch, score=score)
    if score:
        assert torch.equal(ours[1], eager[1])
        torch.testing.assert_close(ours[0], eager[0], rtol=1e-5, atol=1e-5)
    else:
        torch.testing.assert_close(ours, eager, rtol=1e-5, atol=1e-5)
        assert_equal_gradients(gradients_of(model, ours), theirs)
    assert (compiler.graphs, sum(torch._dynamo.utils.counters["graph_break"].values())) == (1, 0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_loss_with_teachers_is_one_graph_with_the_numbers_of_eager_operators(monkeypatch, dtype):
    model, compiler, (input_ids, labels) = small_model().train(), Counting(), make_batch(24)
    tune_for_gpu(model)
    others = [small_model(n_embd=width).eval().requires_grad_(False) for width in (32, 64)]
    monkeypatch.setattr("novelgpt.network.loss.tune_for_cpu", lambda model, **_: tune_for_gpu(model))
    placed = place_teachers(others, [torch.device("cpu")], dtype)
    module = LossModule(model, dtype, CHUNK, placed, 0.5)
    eager = module(input_ids, labels)
    theirs = gradients_of(model, eager)
    module.compile(backend=compiler)
    torch._dynamo.utils.counters.clear()
    ours = module(input_ids, labels)
    torch.testing.assert_close(ours, eager, rtol=1e-5, atol=1e-5)
    assert_equal_gradients(gradients_of(model, ours), theirs)
    assert (compiler.graphs, sum(torch._dynamo.utils.counters["graph_break"].values())) == (1, 0)


def test_a_step_of_the_82M_network_at_8_windows_takes_at_most_620_launches_and_32_gigabytes():
    with FakeTensorMode(allow_non_fake_inputs=True), counting_launches() as launches:  # shapes only, no memory
        model = small_model(vocab_size=13_317, n_layer=10, n_embd=768, n_head=12, n_positions=1024).train()
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.1
        tune_for_gpu(model)
        for block in model.transformer.h:
            block.attn.attn_dropout.p = 0.0  # with dropout a CPU has no attention in one operator, as a GPU has
        input_ids = torch.zeros(8, 1024, dtype=torch.int64)
        launches.clear()
        LossModule(model, torch.bfloat16, 8192)(input_ids, input_ids).sum().backward()
    dropouts = sum(name == "bernoulli_" for name, _ in launches)
    assert dropouts == 21
    assert len(launches) - 2 * dropouts <= 620  # three operators on a CPU are one on a GPU
    assert sum(size for _, size in launches) <= 32e9


def test_tuning_changes_neither_names_nor_weights_nor_the_saved_config(tmp_path):
    tokenizer = CharacterTokenizer(build_vocabulary(["井中月"], reserved=2))
    model = small_model(vocab_size=tokenizer.vocab_size)
    before = copy.deepcopy(model.state_dict())
    save_model(model, tokenizer, tmp_path / "plain")
    tune_for_gpu(model)
    save_model(model, tokenizer, tmp_path / "tuned")
    after = model.state_dict()
    assert list(after) == list(before) and all(torch.equal(after[name], before[name]) for name in before)
    plain, tuned = (read_json(tmp_path / name / "config.json") for name in ("plain", "tuned"))
    assert tuned == plain
    assert GPT2LMHeadModel.from_pretrained(tmp_path / "tuned").config.activation_function == "gelu_new"


def test_the_engine_of_a_device_that_is_no_cpu_is_tuned(tiny_options):
    run = prepare_run(tiny_options())
    Engine(replace(run, devices=[torch.device("mps")]))  # nothing is computed, so nothing need be there
    assert run.model.config._attn_implementation == "novelgpt_causal"
    assert isinstance(run.model.transformer.h[0].mlp.act, torch.nn.GELU)


def test_the_scorer_of_a_device_that_is_no_cpu_is_tuned():
    scorer = make_scorer(small_model().to("meta"), "fp32")
    (twin,) = scorer.args
    assert twin.config._attn_implementation == "novelgpt_causal"


def test_several_processes_compile_a_few_graphs_of_a_block_with_the_numbers_of_eager_operators(monkeypatch):
    model = small_model(n_layer=5)
    tune_for_gpu(model)
    module, batch, counting = LossModule(model, torch.float32, CHUNK), make_batch(24), Counting()
    expected = gradients_of(model, loss := module(*batch))
    compile_block = torch.nn.Module.compile
    monkeypatch.setattr(
        torch.nn.Module, "compile", lambda self, **settings: compile_block(self, backend=counting, **settings)
    )
    monkeypatch.setattr(compilation, "any_process", lambda flag, world: flag)
    settings = {"wanted": True, "mode": "on", "world": World(0, 2), "dynamic": False}
    compilation.compile_if_possible(module, lambda: module(*batch).sum().backward(), **settings)
    model.zero_grad(set_to_none=True)
    assert 1 <= counting.graphs <= 3  # the blocks share them
    assert [block._compiled_call_impl is None for block in model.transformer.h] == [False] * 5
    compiled = module(*batch)
    torch.testing.assert_close(compiled, loss)
    assert_equal_gradients(gradients_of(model, compiled), expected)
    assert counting.attention and all(call["is_causal"] and not call.get("attn_mask") for call in counting.attention)
