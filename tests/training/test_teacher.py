"""Training on teachers' distributions: who may teach, what a run says and remembers of them, and that it goes on."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from conftest import STORY
from helpers import assert_survives_stops, fit, read_log, refusal_of, stopping_after
from transformers import GPT2LMHeadModel

from novelgpt.corpus.tokenizers import NovelTokenizer
from novelgpt.files import sha256_of
from novelgpt.network import build_model, load_model, save_model
from novelgpt.network import loss as loss_module
from novelgpt.training import session
from novelgpt.training.checks import check_inputs
from novelgpt.training.engine import Engine
from novelgpt.training.regularize import Exchange
from novelgpt.training.run import prepare_run

pytestmark = pytest.mark.usefixtures("no_flushing")


@pytest.fixture
def make_teacher(tiny_config, tiny_tokenizer, tmp_path):
    """Return a function that saves a network of strong opinions, wider than the one that learns; returns its folder."""

    def make(name: str = "teacher", *, seed: int = 5, tokenizer=tiny_tokenizer, **changes) -> str:
        config = {**tiny_config, "n_embd": 48, "initializer_range": 0.3, **changes}
        save_model(build_model(config, tokenizer, seed=seed), tokenizer, tmp_path / name)
        return str(tmp_path / name)

    return make


def all_weights(run) -> torch.Tensor:
    """Return a copy of all weights in one row."""
    return torch.cat([weight.detach().flatten() for weight in run.model.parameters()])


def update_of(options) -> torch.Tensor:
    """Take the first step of a run and return how far all weights went."""
    run = prepare_run(options)
    before = all_weights(run)
    assert Engine(run).step(next(run.data.epoch_batches(1)), step=1, lr_share=1.0).finite
    return all_weights(run) - before


def divergence_after(steps: int, options, teacher: str) -> float:
    """Train for some steps on one batch; return the mean KL divergence, nats, from a teacher on it."""
    run = prepare_run(options)
    engine, batch = Engine(run), next(run.data.epoch_batches(1))
    for step in range(1, steps + 1):
        engine.step(batch, step=step, lr_share=1.0)
    ids = torch.from_numpy(batch.input_ids)
    with torch.no_grad():
        models = (run.model.eval(), load_model(teacher)[0])
        ours, theirs = (model(ids).logits.log_softmax(-1).flatten(0, 1) for model in models)
    return F.kl_div(ours, theirs, log_target=True, reduction="batchmean").item()


def test_a_network_comes_near_to_a_strong_teacher(tiny_options, make_teacher):
    teacher = make_teacher()
    alone, half, whole = (
        divergence_after(60, tiny_options(**given), teacher)
        for given in ({}, {"teacher": teacher}, {"teacher": teacher, "teacher_weight": 1.0})
    )
    assert whole < 0.5 * half and half < 0.5 * alone


def test_the_model_folder_of_a_taught_run_is_a_plain_gpt2(tiny_options, make_teacher):
    options = tiny_options(teacher=make_teacher(), epochs=1)
    assert fit(options)
    _, facts = GPT2LMHeadModel.from_pretrained(options.output_path / "final_model", output_loading_info=True)
    assert not any(facts.values())


def test_the_loss_of_the_log_is_the_plain_cross_entropy_whatever_the_teacher_says(tiny_options, make_teacher, tmp_path):
    options = tiny_options(epochs=1, log_step=1)
    taught = replace(options, teacher=make_teacher(), output_dir=str(tmp_path / "taught"))
    assert fit(options) and fit(taught)
    first = [read_log(each.output_path)[1] for each in (options, taught)]  # of the weights as they begin
    assert first[0]["step"] == 1 and first[0]["loss"] == first[1]["loss"]
    assert read_log(options.output_path)[-2]["loss"] != read_log(taught.output_path)[-2]["loss"]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_weight_of_a_teacher_decides_between_it_and_the_text(tiny_options, make_teacher, precision):
    options = tiny_options(precision=precision, dropout=0.0)
    plain = update_of(options)
    updates = [update_of(replace(options, teacher=make_teacher(), teacher_weight=share)) for share in (0.0, 0.01, 1.0)]
    assert torch.equal(updates[0], plain)
    nearness = [F.cosine_similarity(update, plain, dim=0).item() for update in updates]
    assert nearness[0] > nearness[1] > 0.9 > nearness[2]


@pytest.mark.parametrize("changes", [{"gradient_accumulation": 3}, {"gradient_checkpointing": True}])
def test_a_batch_in_parts_and_activations_computed_again_give_the_same_update(tiny_options, make_teacher, changes):
    teachers = f"{make_teacher()},{make_teacher('other', seed=6, n_embd=16)}"
    options = tiny_options(teacher=teachers, batch_size=8, replace_inputs=0.2)
    expected = update_of(options)
    assert (update_of(replace(options, **changes)) - expected).norm() < 1e-4 * expected.norm()


def test_a_teacher_reads_the_text_as_it_is_where_the_network_reads_noise(tiny_options, make_teacher, monkeypatch):
    run = prepare_run(tiny_options(teacher=make_teacher(), replace_inputs=0.5))
    read = []
    hidden_and_head = loss_module.hidden_and_head
    monkeypatch.setattr(
        loss_module, "hidden_and_head", lambda model, ids, dtype: read.append(ids) or hidden_and_head(model, ids, dtype)
    )
    batch = next(run.data.epoch_batches(1))
    Engine(run).step(
        Exchange(run.data.stream, 0.5, vocab_size=run.tokenizer.vocab_size, seed=0)(batch, step=1), step=1, lr_share=1.0
    )
    teacher, network = read
    assert torch.equal(teacher, torch.from_numpy(batch.input_ids))
    assert 0.3 < (network != teacher).float().mean() < 0.6


def test_a_teacher_stays_as_it_is_and_has_no_gradient(tiny_options, make_teacher):
    run = prepare_run(tiny_options(teacher=make_teacher()))
    before = load_model(make_teacher())[0].state_dict()
    engine = Engine(run)
    engine.step(next(run.data.epoch_batches(1)), step=1, lr_share=1.0)
    ((placed,),) = engine.loss_module.teachers.values()
    assert all(torch.equal(placed.state_dict()[name], weight) for name, weight in before.items())
    assert not any(weight.requires_grad or weight.grad is not None for weight in placed.parameters())
    assert not placed.training and all(placed is not part for part in engine.loss_module.modules())


def test_records_are_learned_from_a_teacher_too(row_options, make_teacher):
    options = row_options(epochs=1)
    teacher = make_teacher(n_positions=20, tokenizer=prepare_run(options).tokenizer)
    assert not torch.equal(update_of(replace(options, teacher=teacher)), update_of(options))


def test_a_run_with_a_teacher_goes_on_where_it_stopped(tiny_options, make_teacher, tmp_path):
    options = tiny_options(teacher=make_teacher(), epochs=2, replace_inputs=0.15)
    assert_survives_stops(options, tmp_path, 7, least=2)


def test_a_run_says_who_teaches_and_how_much(tiny_options, make_teacher, capsys):
    options = tiny_options(teacher=f"{make_teacher()}, {make_teacher('other')}", teacher_weight=0.25, epochs=1)
    assert session.train(options) == 0
    # 48 · (334 + 16) in the embeddings, 2 · (12 · 48² + 13 · 48) in the blocks, 96 in the last norm
    one, two = options.teacher_paths
    said = f"teachers (parameters): {one} (73,440), {two} (73,440); 25% of the loss is learned from them"
    assert said in capsys.readouterr().err.splitlines()


def test_an_unfinished_run_refuses_another_teacher(tiny_options, make_teacher):
    options = tiny_options(teacher=make_teacher())
    with stopping_after(9):
        assert session.train(options) == 0
    first = sha256_of(options.teacher_paths[0] / "model.safetensors")
    second = sha256_of(Path(make_teacher("other", seed=6)) / "model.safetensors")
    changed = {
        f"sha256: was {first[:12]}, now {second[:12]}": {"teacher": make_teacher("other", seed=6)},
        "weight: was 0.5, now 0.75": {"teacher_weight": 0.75},
        f'was {{"weight": 0.5, "sha256": "{first}"}}, now null': {"teacher": None},
    }
    for words, changes in changed.items():
        problem = refusal_of(session.train, replace(options, **changes))
        folder = options.output_path
        assert problem.message == f"{folder}: holds an unfinished run with other settings\n  teacher: {words}"
        assert problem.code == 5
    assert session.train(replace(options, teacher=str(make_teacher("moved")))) == 0  # the same weights elsewhere


def test_a_teacher_of_another_vocabulary_is_refused(tiny_options, tiny_config, tmp_path):
    tokenizer = NovelTokenizer.from_texts(STORY[:1])
    save_model(build_model(tiny_config, tokenizer), tokenizer, tmp_path / "foreign")
    problem = refusal_of(prepare_run, tiny_options(teacher=str(tmp_path / "foreign")))
    assert str(problem) == (
        f"error: --teacher {tmp_path / 'foreign'}: of another vocabulary: found {tokenizer.vocab_size} tokens, "
        f"expected the 334 of this run\n\nhint: --tokenizer_path {tmp_path / 'foreign'}"
    )
    assert problem.code == 2


def test_a_teacher_with_a_shorter_context_is_refused(tiny_options, make_teacher):
    teacher = make_teacher(n_positions=15)
    problem = refusal_of(prepare_run, tiny_options(teacher=teacher))
    assert str(problem) == (
        f"error: --teacher {teacher}: reads 15 tokens at a time, expected at least the 16 of this run\n\n"
        "hint: a --model_config with n_ctx 15"
    )
    assert problem.code == 2
    assert prepare_run(tiny_options(teacher=make_teacher("long", n_positions=17))).teachers


def test_what_is_no_teacher_is_refused_before_anything_is_loaded(tiny_options, tmp_path):
    (tmp_path / "run" / "best_model").mkdir(parents=True)
    (tmp_path / "run" / "best_model" / "config.json").write_text("{}")
    (tmp_path / "empty").mkdir()
    folder = tmp_path / "empty"
    cases = {
        f"{folder}: no config.json in it, so not a model folder": ({"teacher": str(folder)}, 5),
        f"{folder}/no: no such folder, expected a model folder": ({"teacher": f"{folder}/no"}, 5),
        "--teacher: found ' , ', expected model folders": ({"teacher": " , "}, 2),
        "--teacher_weight 0.25: without effect where there is no --teacher": ({"teacher_weight": 0.25}, 2),
        f"--teacher {tmp_path}/run/best_model: lies in the run folder {tmp_path}/run, "
        "whose models are written over or moved": ({"teacher": f"{tmp_path}/run/best_model"}, 2),
    }
    for message, (changes, code) in cases.items():
        problem = refusal_of(check_inputs, tiny_options(**changes))
        assert (problem.message, problem.code) == (message, code)


def test_the_memory_of_teachers_is_predicted_and_shown(tiny_options, make_teacher, monkeypatch):
    options = tiny_options(batch_size=16)
    monkeypatch.setattr("novelgpt.training.memory.HEAD_CHUNK", {"cpu": 32})
    plain = Engine(prepare_run(options)).predict_bytes(2)
    taught = Engine(prepare_run(replace(options, teacher=make_teacher()))).predict_bytes(2)
    # 73,440 weights and 8 rows of 16 tokens, 48 wide, in fp32; a chunk of 32 logits over 334 tokens
    assert taught - plain == 4 * 73_440 + 4 * 48 * 8 * 16 + 10 * 32 * 334
