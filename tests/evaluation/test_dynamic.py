"""Dynamic evaluation: against a plain loop of transformers and torch.optim, and what it may not see or change."""

import json

import numpy as np
import pytest
import torch
from conftest import STORY, make_tiny_options
from transformers import GPT2Config, GPT2LMHeadModel

import eval as eval_script
from novelgpt.cli import run
from novelgpt.corpus.tokenizer import load_tokenizer
from novelgpt.evaluation import LearningCopy, evaluation_batches, score_adapted, score_batches
from novelgpt.evaluation.evaluation import make_scorer
from novelgpt.files import read_json, write_json
from novelgpt.network import build_model, save_model

WINDOW = 16
CPU = torch.device("cpu")
BOLD = {"lr": 0.1, "pull": 0.05}  # large enough to be seen in a short text


@pytest.fixture
def model():
    """A network whose losses differ widely between tokens and contexts, in training mode and with dropout."""
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=50, n_layer=2, n_embd=32, n_head=4, n_positions=WINDOW, initializer_range=0.15, bos_token_id=0,
        eos_token_id=0,
    )  # fmt: skip
    return GPT2LMHeadModel(config).train()


def text_of(num_tokens: int) -> np.ndarray:
    """Return random tokens."""
    return np.random.default_rng(num_tokens).integers(50, size=num_tokens)


def static_nats(model, text: np.ndarray, stride: int) -> np.ndarray:
    """Score a text by the model as it is."""
    return score_batches(make_scorer(model, "fp32"), evaluation_batches(text, WINDOW, stride, 4), CPU).nats


def plain_loop(model, text: np.ndarray, stride: int, stretch: int) -> list[float]:
    """Score a text and learn it by transformers and torch.optim alone."""
    twin = GPT2LMHeadModel(model.config).eval()
    twin.load_state_dict(model.state_dict())
    trained = {name: value.clone() for name, value in twin.named_parameters()}
    optimizer = torch.optim.SGD(twin.parameters(), lr=BOLD["lr"], momentum=0.9)
    nats, done = [], 1  # `done` tokens are dealt with: the first is never predicted
    for begin in range(0, len(text), stride):
        window_end = min(begin + WINDOW, len(text))
        while done < window_end:
            done = max(done, begin + 1)  # with windows end to end the first of each has no context
            end = min(done + stretch, window_end)
            chances = twin(torch.from_numpy(text[None, begin:end])).logits[0].log_softmax(-1)
            losses = [-chances[place - 1 - begin, text[place]] for place in range(done, end)]
            nats += [loss.item() for loss in losses]
            optimizer.zero_grad()
            (sum(losses) / len(losses)).backward()
            norm = sum(value.grad.square().sum() for value in twin.parameters()).sqrt()
            for value in twin.parameters():
                value.grad.div_(max(norm, 1))
            optimizer.step()
            with torch.no_grad():
                for name, value in twin.named_parameters():
                    value.copy_(0.95 * value + 0.05 * trained[name])
            done = end
    return nats


@pytest.mark.parametrize(("stride", "stretch"), [(8, 8), (8, 3), (5, 32), (16, 6)])
def test_the_scores_equal_a_plain_loop_of_transformers_and_torch(model, stride, stretch):
    text = text_of(60)
    scores = score_adapted(LearningCopy(model, **BOLD), text, WINDOW, stride, stretch=stretch)
    np.testing.assert_allclose(scores.nats, plain_loop(model, text, stride, stretch), rtol=1e-5, atol=1e-5)
    assert np.abs(scores.nats - static_nats(model, text, stride)).max() > 0.1  # the steps are not lost in rounding
    assert scores.nll == pytest.approx(scores.nats.sum(dtype=np.float64), rel=1e-6)


@pytest.mark.parametrize("changed", [1, 8, 9, 20, 40, 59])
def test_what_follows_changes_no_earlier_score(model, changed):
    text = text_of(60)
    other = text.copy()
    other[changed:] = (other[changed:] + 7) % 50
    ours, others = (score_adapted(LearningCopy(model, **BOLD), each, WINDOW, 8, stretch=5) for each in (text, other))
    assert np.array_equal(ours.nats[: changed - 1], others.nats[: changed - 1])  # score i is of token i + 1
    assert ours.nats[changed - 1] != others.nats[changed - 1]


def test_the_network_stays_as_it_is_byte_for_byte(model):
    before = {name: value.numpy().tobytes() for name, value in model.state_dict().items()}
    score_adapted(LearningCopy(model, **BOLD), text_of(60), WINDOW, 8)
    assert {name: value.numpy().tobytes() for name, value in model.state_dict().items()} == before
    assert model.training and all(weight.grad is None for weight in model.parameters())


@pytest.mark.parametrize("standing", [{"lr": 0.0, "pull": 0.3}, {"lr": 0.02, "pull": 1.0}])
@pytest.mark.parametrize("stride", [16, 8, 3])
def test_a_copy_that_stands_still_has_the_ordinary_scores(model, stride, standing):
    text = text_of(60)
    scores = score_adapted(LearningCopy(model, **standing), text, WINDOW, stride, stretch=4)
    np.testing.assert_allclose(scores.nats, static_nats(model, text, stride), rtol=1e-6, atol=1e-6)


def test_every_text_starts_from_the_trained_weights(model):
    copy = LearningCopy(model, **BOLD)
    first = score_adapted(copy, text_of(60), WINDOW, 8)
    score_adapted(copy, text_of(40), WINDOW, 8)
    assert np.array_equal(score_adapted(copy, text_of(60), WINDOW, 8).nats, first.nats)


def test_a_text_that_repeats_itself_is_learned_as_it_is_read(model):
    text = np.tile(text_of(30), 20)  # the period is longer than the window
    scores = score_adapted(LearningCopy(model), text, WINDOW, 8)
    static = static_nats(model, text, 8)
    assert scores.nats.mean() < static.mean() - 0.1
    assert scores.nats[-60:].mean() < scores.nats[:60].mean() - 0.2


@pytest.mark.parametrize("num_tokens", [0, 1, 2])
def test_a_text_of_a_token_or_two_is_scored_as_ever(model, num_tokens):
    text = text_of(num_tokens)
    scores = score_adapted(LearningCopy(model), text, WINDOW, 8)
    np.testing.assert_allclose(scores.nats, static_nats(model, text, 8), rtol=1e-6)
    assert len(scores.nats) == max(0, num_tokens - 1)


def test_products_in_bf16_lead_to_nearly_the_same_scores(model):
    exact, rounded = (
        score_adapted(LearningCopy(model, precision=precision), text_of(60), WINDOW, 8).nats
        for precision in ("fp32", "bf16")
    )
    assert 0 < np.abs(exact - rounded).max() < 0.1


@pytest.fixture
def folder(tmp_path):
    """A model folder; pieces lie beside it."""
    options = make_tiny_options(tmp_path)
    tokenizer = load_tokenizer(options.tokenizer_path)
    model = build_model(read_json(tmp_path / "config.json"), tokenizer, seed=1)
    save_model(model, tokenizer, tmp_path / "saved")
    return tmp_path / "saved"


def score(capsys, folder, *argv: str) -> tuple[dict, str]:
    """Run eval.py; return the object it prints, and what it says."""
    assert run(eval_script.main, [f"--model_path={folder}", "--device=cpu", *argv]) == 0
    said = capsys.readouterr()
    return json.loads(said.out), said.err


def adapted_loss(folder, documents: list[str]) -> float:
    """Score documents by a copy of a saved network."""
    tokenizer = load_tokenizer(folder)
    ids = np.concatenate([*tokenizer.frame(map(tokenizer.encode_document, documents))])
    network = GPT2LMHeadModel.from_pretrained(folder)
    return score_adapted(LearningCopy(network), ids.astype(np.int64), WINDOW, 8).nats.mean()


def test_the_report_keeps_its_figures_and_names_the_adaptive_ones_apart(folder, capsys):
    files = {path: path.read_bytes() for path in folder.iterdir()}
    words = [f"--tokenized_data_path={folder.parent / 'pieces'}", "--baseline", f"--html={folder.parent / 'page.html'}"]
    plain, _ = score(capsys, folder, *words)
    report, said = score(capsys, folder, *words, "--adapt")
    added = {name: report.pop(name) for name in set(report) - set(plain)}
    assert report == plain
    assert added["adapted"] is True
    assert added["adapted_protocol"] == {"lr": 0.01, "momentum": 0.9, "max_norm": 1.0, "pull": 0.001, "stretch": 32}
    assert added["adapted_loss"] < plain["loss"]  # chapters of the held-out part repeat
    ratio = plain["tokens"] / plain["characters"]
    assert added["adapted_nats_per_character"] == pytest.approx(added["adapted_loss"] * ratio)
    assert added["adapted_bits_per_character"] == pytest.approx(added["adapted_loss"] * ratio / np.log(2))
    assert len(added) == 5
    change, bits = added["adapted_loss"] - plain["loss"], added["adapted_bits_per_character"]
    line = f"learning as it reads: loss {added['adapted_loss']:.4f} ({change:+.4f}) bits per character {bits:.4f}"
    assert line in said.split("\n")
    assert f"{added['adapted_loss']:.4f}" in (folder.parent / "page.html").read_text(encoding="utf-8")
    assert {path: path.read_bytes() for path in folder.iterdir()} == files


def test_every_text_and_every_chapter_adapts_from_the_trained_weights(folder, capsys, tmp_path):
    (tmp_path / "books").mkdir()
    books = {"a.json": STORY, "b.json": STORY[1:]}
    for name, documents in books.items():
        write_json(tmp_path / "books" / name, documents)
    report, _ = score(capsys, folder, f"--text_path={tmp_path / 'books'}", "--adapt", "--per_chapter")
    losses = [adapted_loss(folder, documents) for documents in books.values()]
    assert [text["adapted_loss"] for text in report["texts"]] == pytest.approx(losses, rel=1e-6)
    scored = [text["scored_tokens"] for text in report["texts"]]
    assert report["adapted_loss"] == pytest.approx(np.average(losses, weights=scored), rel=1e-6)
    alone = [adapted_loss(folder, [chapter]) for chapter in STORY]
    assert [chapter["adapted_loss"] for chapter in report["texts"][0]["chapters"]] == pytest.approx(alone, rel=1e-6)
