"""Perplexity by the sliding window of the transformers documentation; each token at most once; bits by hand."""

import math

import numpy as np
import pytest
import torch
from conftest import STORY
from transformers import GPT2Config, GPT2LMHeadModel

from novelgpt.corpus.pieces import TokenStream
from novelgpt.training.evaluation import (
    Evaluation,
    evaluate_batches,
    evaluate_stream,
    evaluation_batches,
    evaluation_starts,
)
from novelgpt.training.scoring import chapter_streams, score_function, text_stream

WINDOW = 16
CPU = torch.device("cpu")


@pytest.fixture
def model():
    """A network whose losses differ widely between tokens and contexts."""
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=50, n_layer=2, n_embd=32, n_head=4, n_positions=WINDOW, initializer_range=0.3, bos_token_id=0,
        eos_token_id=0,
    )  # fmt: skip
    return GPT2LMHeadModel(config).eval()


def stream_of(num_tokens: int) -> TokenStream:
    """Return a random stream in two arrays."""
    ids = np.random.default_rng(num_tokens).integers(50, size=num_tokens).astype(np.uint16)
    return TokenStream([ids[: num_tokens // 3], ids[num_tokens // 3 :]])


def documented_nll(model, ids: torch.Tensor, stride: int) -> tuple[float, int]:
    """Score a text by the loop of huggingface.co/docs/transformers/perplexity: nats, and how many tokens."""
    total, scored, previous_end = 0.0, 0, 0
    for begin in range(0, len(ids), stride):
        end = min(begin + WINDOW, len(ids))
        targets = ids[begin:end].clone()
        targets[: len(targets) - (end - previous_end)] = -100
        counted = int((targets[1:] != -100).sum())  # the first token of a window has nothing before it
        if counted:
            with torch.no_grad():
                total += model(ids[None, begin:end], labels=targets[None]).loss.item() * counted
        scored, previous_end = scored + counted, end
        if end == len(ids):
            break
    return total, scored


@pytest.mark.parametrize("stride", [WINDOW, WINDOW // 2, 5, 1])
@pytest.mark.parametrize("num_tokens", [2, 15, 16, 17, 32, 33, 100])
def test_the_loss_equals_the_documented_sliding_window(model, num_tokens, stride):
    stream = stream_of(num_tokens)
    nll, scored = documented_nll(model, torch.from_numpy(stream.read().astype(np.int64)), stride)
    score = score_function(model, torch.float32)
    sizes = {"window": WINDOW, "stride": stride, "batch_size": 3}
    result = evaluate_stream(score, stream, **sizes, characters=num_tokens, device=CPU)
    assert result.scored == scored
    assert result.loss == pytest.approx(nll / scored, rel=1e-5)
    assert result.perplexity == pytest.approx(math.exp(nll / scored), rel=1e-4)


@pytest.mark.parametrize("window", [2, 3, 8])
def test_every_token_is_scored_at_most_once_and_all_but_the_first_when_windows_overlap(window):
    for num_tokens in range(40):
        for stride in range(1, window + 1):
            counts = np.zeros(num_tokens, dtype=int)
            for batch in evaluation_batches(stream_of(num_tokens), window, stride, 4):
                for start, labels in zip(batch.starts, batch.labels, strict=True):
                    counts[start + 1 + np.flatnonzero(labels[1:] >= 0)] += 1  # the model shifts
            assert counts.max(initial=0) <= 1
            if stride < window:
                assert counts[1:].all(), (num_tokens, stride)


def test_a_scored_token_has_the_context_that_the_stride_promises():
    contexts = {}
    for batch in evaluation_batches(stream_of(100), 16, 4, 5):
        for start, labels in zip(batch.starts, batch.labels, strict=True):
            contexts |= {start + place: place for place in range(1, 16) if labels[place] >= 0}
    assert min(contexts[place] for place in range(16, 100)) == 12


@pytest.mark.parametrize(("num_tokens", "starts"), [(0, []), (1, []), (2, [0]), (8, [0]), (9, [0, 4]), (13, [0, 4, 8])])
def test_windows_begin_at_multiples_of_the_stride_until_the_end_is_reached(num_tokens, starts):
    assert evaluation_starts(num_tokens, 8, 4).tolist() == starts


def test_parts_of_several_processes_add_up_to_the_whole(model):
    batches, score = list(evaluation_batches(stream_of(100), WINDOW, 8, 2)), score_function(model, torch.float32)
    sizes = {"tokens": 100, "characters": 90, "device": CPU}
    whole = evaluate_batches(score, batches, **sizes)
    parts = [evaluate_batches(score, batches, **sizes, rank=rank, world=3) for rank in range(3)]
    assert sum(part.scored for part in parts) == whole.scored == 99
    assert sum(part.nll for part in parts) == pytest.approx(whole.nll, rel=1e-6)


def test_an_interrupted_evaluation_gives_nothing(model):
    answers, batches = iter([False, True]), evaluation_batches(stream_of(100), WINDOW, 8, 2)
    score = score_function(model, torch.float32)
    sizes = {"tokens": 100, "characters": 90, "device": CPU}
    assert evaluate_batches(score, batches, **sizes, interrupted=lambda: next(answers)) is None


def test_bits_per_character_are_worked_by_hand():
    # 30 nats over 15 scored tokens are 2 nats a token; 20 tokens stand for 10 characters: 4 nats = 5.7708 bits each
    result = Evaluation(nll=30.0, scored=15, tokens=20, characters=10)
    assert result.loss == 2.0
    assert result.perplexity == pytest.approx(7.389056)
    assert result.nats_per_character == 4.0
    assert result.bits_per_character == pytest.approx(5.770780)


def test_a_uniform_guess_costs_the_logarithm_of_the_vocabulary(model):
    with torch.no_grad():
        model.transformer.wte.weight.zero_()  # every logit is 0
    score = score_function(model, torch.float32)
    sizes = {"window": WINDOW, "stride": 8, "batch_size": 4, "characters": 200, "device": CPU}
    result = evaluate_stream(score, stream_of(100), **sizes)
    assert result.perplexity == pytest.approx(50, rel=1e-5)
    assert result.bits_per_character == pytest.approx(math.log2(50) * 100 / 200, rel=1e-5)


def test_nothing_scored_is_not_a_number():
    empty = Evaluation(nll=0.0, scored=0, tokens=0, characters=0)
    assert math.isnan(empty.loss) and math.isnan(empty.perplexity) and math.isnan(empty.bits_per_character)


def test_a_hopeless_loss_has_a_finite_perplexity():
    assert math.isfinite(Evaluation(nll=1e9, scored=1, tokens=1, characters=1).perplexity)


def test_a_text_becomes_a_stream_with_a_mark_before_each_chapter_and_after_the_last(tiny_tokenizer):
    stream = text_stream(STORY, tiny_tokenizer)
    cls = [tiny_tokenizer.cls_id]
    assert stream.read().tolist() == [
        *cls, *tiny_tokenizer.encode(STORY[0]), *cls, *tiny_tokenizer.encode(STORY[1]), *cls,
        *tiny_tokenizer.encode(STORY[2]), *cls,
    ]  # fmt: skip
    chapters = chapter_streams(stream, tiny_tokenizer)
    assert [tiny_tokenizer.decode(part.read()[1:-1]) for part in chapters] == STORY
