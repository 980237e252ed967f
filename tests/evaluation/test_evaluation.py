"""The one scoring loop: against the sliding window of the transformers documentation and one token at a time."""

import math

import numpy as np
import pytest
import torch
from conftest import STORY, TINY
from transformers import GPT2Config, GPT2LMHeadModel

from novelgpt.corpus.pieces import TokenStream
from novelgpt.evaluation.evaluation import (
    Evaluation,
    evaluation_batches,
    evaluation_starts,
    make_scorer,
    score_batches,
    scored_places,
)
from novelgpt.evaluation.report import Measure, Text, chapter_streams, find_chapters, text_stream
from novelgpt.network import build_model

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


def evaluate(model, stream: TokenStream, stride: int, batch_size: int, characters: int = 1) -> Evaluation:
    """Score a stream by the loop."""
    batches = evaluation_batches(stream, WINDOW, stride, batch_size)
    nll, scored, right = score_batches(make_scorer(model, "fp32"), batches, CPU).totals()
    return Evaluation(nll, scored, len(stream), characters, right)


@pytest.mark.parametrize("stride", [WINDOW, WINDOW // 2, 5, 1])
@pytest.mark.parametrize("num_tokens", [2, 15, 16, 17, 32, 33, 100])
def test_the_loss_equals_the_documented_sliding_window(model, num_tokens, stride):
    stream = stream_of(num_tokens)
    nll, scored = documented_nll(model, torch.from_numpy(stream.read().astype(np.int64)), stride)
    result = evaluate(model, stream, stride, 3)
    assert result.scored == scored
    assert result.loss == pytest.approx(nll / scored, rel=1e-5)
    assert result.perplexity == pytest.approx(math.exp(nll / scored), rel=1e-4)


@pytest.mark.parametrize("window", [2, 3, 8])
def test_every_token_is_scored_at_most_once_and_all_but_the_first_when_windows_overlap(window):
    for num_tokens in range(40):
        for stride in range(1, window + 1):
            counts, order = np.zeros(num_tokens, dtype=int), []
            for batch in evaluation_batches(stream_of(num_tokens), window, stride, 4):
                for start, labels in zip(batch.starts, batch.labels, strict=True):
                    places = start + 1 + np.flatnonzero(labels[1:] >= 0)  # the model shifts
                    counts[places] += 1
                    order += places.tolist()
            assert order == scored_places(num_tokens, window, stride).tolist()
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
    batches, scorer = list(evaluation_batches(stream_of(100), WINDOW, 8, 2)), make_scorer(model, "fp32")
    nll, scored, right = score_batches(scorer, batches, CPU).totals()
    parts = [score_batches(scorer, batches, CPU, rank=rank, world=3).totals() for rank in range(3)]
    assert sum(part[1] for part in parts) == scored == 99
    assert sum(part[2] for part in parts) == right
    assert sum(part[0] for part in parts) == pytest.approx(nll, rel=1e-6)


def test_what_is_raised_between_two_batches_ends_the_evaluation_for_every_process(model):
    class Stopped(Exception):
        pass

    asked = []

    def stop_at_the_third() -> None:
        asked.append(torch.is_grad_enabled())
        if len(asked) == 3:
            raise Stopped

    batches, scorer = list(evaluation_batches(stream_of(100), WINDOW, 8, 2)), make_scorer(model, "fp32")
    for rank in range(2):  # also before the batches of other processes, since all of them meet in the question
        with pytest.raises(Stopped):
            score_batches(scorer, batches, CPU, before_batch=stop_at_the_third, rank=rank, world=2)
        assert len(asked) == 3 and torch.is_grad_enabled()
        asked.clear()


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
    result = evaluate(model, stream_of(100), 8, 4, characters=200)
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


def one_token_at_a_time(model, ids: list[int], window: int, stride: int) -> dict[int, tuple[float, bool]]:
    """Return nats and rightness of every scored token, each by a pass of its own over what stands before it."""
    scores = {}
    for place in range(1, len(ids)):
        begin = max(0, -(-(place - window + 1) // stride)) * stride  # the first window that reaches it
        if begin < place:
            with torch.no_grad():
                chances = model(torch.tensor([ids[begin:place]])).logits[0, -1].double().log_softmax(-1)
            scores[place] = -chances[ids[place]].item(), int(chances.argmax()) == ids[place]
    return scores


@pytest.mark.parametrize(("stride", "batch_size"), [(16, 3), (8, 1), (5, 4), (1, 7)])
def test_loss_accuracy_chapters_and_surprise_equal_one_token_at_a_time(tiny_tokenizer, stride, batch_size):
    network = build_model({**TINY, "attn_pdrop": 0.1}, tiny_tokenizer, seed=1).eval()
    with torch.no_grad():
        for weight in network.parameters():
            weight.mul_(4)  # so that losses differ
    stream = text_stream(STORY, tiny_tokenizer)
    text = Text("story", stream, sum(map(len, STORY)))
    measure = Measure(network, tiny_tokenizer, stride=stride, batch_size=batch_size)

    # the whole: with and without a page
    expected = one_token_at_a_time(network, stream.read().tolist(), WINDOW, stride)
    scores, pages = measure.score(stream), []
    np.testing.assert_allclose(scores.nats, [nats for nats, _ in expected.values()], rtol=1e-4, atol=1e-5)
    assert scores.right.tolist() == [right for _, right in expected.values()]
    for page in (None, lambda *arguments: pages.append(arguments)):
        report = measure.report([text], per_chapter=True, page=page)
        assert report["scored_tokens"] == len(expected)
        assert report["loss"] == pytest.approx(sum(nats for nats, _ in expected.values()) / len(expected), rel=1e-5)
        assert report["accuracy"] == sum(right for _, right in expected.values()) / len(expected)

    # each chapter by itself, between its marks
    for chapter, part in zip(report["chapters"], chapter_streams(stream, tiny_tokenizer), strict=True):
        alone = one_token_at_a_time(network, part.read().tolist(), WINDOW, stride)
        assert chapter["loss"] == pytest.approx(sum(nats for nats, _ in alone.values()) / len(alone), rel=1e-5)
        assert chapter["accuracy"] == sum(right for _, right in alone.values()) / len(alone)

    # what the page shows: every character of the story is one token
    ((_, _, chapters),) = pages
    shown = [(span.text, span.nats) for spans in chapters for span in spans]
    places = [place for place, token in enumerate(stream.read().tolist()) if token != tiny_tokenizer.cls_id]
    assert "".join(character for character, _ in shown) == "".join(STORY)
    wanted = [expected.get(place, (math.nan,))[0] for place in places]
    np.testing.assert_allclose([nats for _, nats in shown], wanted, rtol=1e-4, atol=1e-5)


def test_a_token_that_is_not_scored_has_no_figure(tiny_tokenizer):
    stream = text_stream(STORY[:1], tiny_tokenizer)
    places = scored_places(len(stream), WINDOW, WINDOW)
    ((first, *rest),) = find_chapters(stream.read(), places, np.ones(len(places)), tiny_tokenizer)
    assert first.nats == 1.0 and [number for number, span in enumerate(rest, 2) if math.isnan(span.nats)] == [16, 32]


@pytest.mark.parametrize("num_tokens", [0, 1])
def test_a_text_without_a_token_to_predict_is_no_number(model, num_tokens):
    result = evaluate(model, TokenStream([np.zeros(num_tokens, np.uint16)]), 8, 4)
    assert (result.nll, result.scored, result.right) == (0.0, 0, 0) and math.isnan(result.loss)
