"""Which inputs are exchanged, and for what, is as counted by brute force; a run with it is a function of the seed."""

import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from novelgpt.training.regularize import Exchange
from novelgpt.training.session import train
from novelgpt.training.windows import Batch, default_replacement

V = 20_000  # tokens of the vocabulary, most of which the texts lack
TEXT = np.random.default_rng(0).zipf(1.3, 30_000).clip(max=500).astype(np.uint16)


def batch_of(ids: np.ndarray) -> Batch:
    ids = ids.astype(np.int64).reshape(20, -1)
    return Batch(ids, ids, np.arange(20), is_windows=True)


@pytest.fixture
def batch() -> Batch:
    return batch_of(TEXT)


def followers_of(text: np.ndarray) -> tuple[Counter, Counter, Counter]:
    """Return how often each token stands in a text, how many different ones follow it, and how many lead to it."""
    pairs = set(zip(text[:-1].tolist(), text[1:].tolist(), strict=True))
    return Counter(text.tolist()), Counter(one for one, _ in pairs), Counter(other for _, other in pairs)


def test_chances_and_draws_are_those_worked_by_hand():
    # 1 2 1 3 1 2 1: after 1 come 2 and 3, after 2 and after 3 comes 1; four different pairs in seven tokens
    exchange = Exchange(np.array([1, 2, 1, 3, 1, 2, 1], np.uint16), 0.1, vocab_size=V, seed=0)
    mean = 4 / 7
    assert (len(exchange.chances), exchange.chances[4:].any()) == (V, False)
    assert exchange.chances[:4] == pytest.approx(
        np.array([0, 0.1 * 2 / 4, 0.1 * 1 / 2, 0.1 * 1 / 1]) / [1, *[mean] * 3]
    )
    # 1 stands behind two others, 2 and 3 behind one
    assert exchange.drawn_below[:4] == pytest.approx([0, 2 / 4, 3 / 4, 1])


@pytest.mark.parametrize("share", [0.0, 0.05, 0.15])
def test_the_share_of_exchanged_tokens_is_the_one_asked_for(batch, share):
    counts, followers, leaders = followers_of(TEXT)
    pairs = sum(followers.values())
    # a token stands in for itself at times: with the chance that it is drawn
    chance = {x: share * followers[x] / counts[x] * len(TEXT) / pairs for x in counts}
    assert max(chance.values()) <= 1
    assert sum(chance[x] * counts[x] for x in counts) / len(TEXT) == pytest.approx(share)
    seen = sum(chance[x] * counts[x] * (1 - leaders[x] / pairs) for x in counts) / len(TEXT)
    noisy = Exchange(TEXT, share, vocab_size=V, seed=3)(batch, step=7)
    assert (noisy.input_ids != batch.input_ids).mean() == pytest.approx(seen, abs=4 * 0.5 / 30_000**0.5)
    assert noisy.input_ids.dtype == batch.input_ids.dtype


def test_a_token_with_many_followers_is_exchanged_more_often_than_one_with_a_single_one():
    # 1 is followed by 2 alone; every third token is any of 50
    text = np.stack([np.full(9000, 1), np.full(9000, 2), np.random.default_rng(1).integers(10, 60, 9000)], axis=1)
    batch = batch_of(text)
    exchange = Exchange(text.ravel().astype(np.uint16), 0.1, vocab_size=V, seed=0)
    changed = exchange(batch, step=1).input_ids != batch.input_ids
    share = [changed[batch.input_ids == token].mean() for token in (1, 2)]
    # 101 pairs in 27,000 tokens: 1 has one follower in 9,000 times, 2 has fifty; of 9,000 draws, four deviations
    for one, followers in zip(share, (1, 50), strict=True):
        expected = 0.1 * followers / 9000 * 27_000 / 101
        assert one == pytest.approx(expected, abs=4 * (expected / 9000) ** 0.5)


def test_what_stands_in_is_drawn_by_how_many_tokens_lead_to_it(batch):
    _, _, leaders = followers_of(TEXT)
    exchange = Exchange(TEXT, 0.15, vocab_size=V, seed=0)
    exchange.chances[:] = 1
    drawn = np.concatenate([exchange(batch, step=step).input_ids.ravel() for step in range(10)])
    found, pairs = Counter(drawn.tolist()), sum(leaders.values())
    for token, count in leaders.most_common(20):
        assert found[token] / len(drawn) == pytest.approx(count / pairs, rel=0.1)
    assert set(found) <= set(leaders)


def test_by_frequency_all_tokens_have_the_same_chance_and_stand_in_as_often_as_they_are_read():
    ids = np.repeat([5, 5, 5, 9], 5000).reshape(10, 2000)
    whole = Exchange(ids.ravel(), 1.0, vocab_size=V, seed=0, rule="frequency")(
        Batch(ids, ids, np.arange(10)), step=1
    ).input_ids
    assert set(np.unique(whole)) == {5, 9} and (whole == 5).mean() == pytest.approx(0.75, abs=0.02)
    # 20,000 different tokens, so that every exchange but one in 20,000 shows
    batch = batch_of(np.arange(20_000))
    noisy = Exchange(batch.input_ids.ravel(), 0.3, vocab_size=V, seed=3, rule="frequency")(batch, step=7).input_ids
    assert (noisy != batch.input_ids).mean() == pytest.approx(0.3, abs=0.015)


def test_labels_and_places_stay_and_the_labels_are_windows_of_the_corpus_as_before(batch):
    before = batch.input_ids.copy()
    noisy = Exchange(TEXT, 0.5, vocab_size=V, seed=3)(batch, step=7)
    assert np.array_equal(noisy.labels, before) and np.array_equal(batch.input_ids, before)
    assert np.array_equal(noisy.starts, batch.starts)
    assert noisy.is_windows  # the labels: a GPU cuts them out of the corpus and takes only the others from here


def test_of_a_very_long_text_the_beginning_is_counted_and_what_only_its_end_has_is_left_alone(monkeypatch):
    monkeypatch.setattr("novelgpt.training.regularize.COUNTED", 1000)
    text = np.concatenate([TEXT[:1000], np.full(1000, V - 1, np.uint16)])
    noisy = Exchange(text, 0.15, vocab_size=V, seed=0)(batch_of(text), step=1).input_ids.ravel()
    assert (noisy[1000:] == V - 1).all() and (noisy[:1000] != text[:1000]).any()


def test_a_chance_above_one_is_one():
    # a text of different tokens has a follower for each time; a share of 0.9 asks for no more than 1 anywhere
    text = np.array([1, 1, 1, 1, 2, 3, 4], np.uint16)
    assert Exchange(text, 0.9, vocab_size=V, seed=0).chances.max() == 1


def test_the_same_seed_and_step_give_the_same_tokens_and_others_give_others(batch):
    first = Exchange(TEXT, 0.3, vocab_size=V, seed=3)(batch, step=7).input_ids
    assert np.array_equal(first, Exchange(TEXT, 0.3, vocab_size=V, seed=3)(batch, step=7).input_ids)
    for seed, step in ((4, 7), (3, 8), (7, 3)):
        assert not np.array_equal(first, Exchange(TEXT, 0.3, vocab_size=V, seed=seed)(batch, step=step).input_ids)


@pytest.mark.parametrize(
    ("readings", "pretrained", "share"),
    [(1, False, 0.0), (4, False, 0.0), (4.1, False, 0.15), (30, False, 0.15), (30, True, 0.0)],
)
def test_inputs_are_exchanged_where_a_text_is_read_more_than_four_times(readings, pretrained, share):
    assert default_replacement(readings, pretrained=pretrained) == share


def read_losses(folder) -> list[float]:
    """Return the training losses that a run logged."""
    lines = (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()
    return [record["loss"] for record in map(json.loads, lines) if "loss" in record]


def test_a_run_with_exchanged_inputs_does_not_depend_on_how_it_is_split_or_stopped(tiny_options, tmp_path, monkeypatch):
    whole = tiny_options(replace_inputs=0.3, log_step=1)
    assert train(whole) == 0
    plain = replace(whole, replace_inputs=0.0, output_dir=str(tmp_path / "plain"))
    halves = replace(whole, gradient_accumulation=2, output_dir=str(tmp_path / "halves"))
    stopped = replace(whole, output_dir=str(tmp_path / "stopped"))
    assert train(plain) == train(halves) == 0
    with monkeypatch.context() as patch:
        asked = iter([False] * 9 + [True] * 99)
        patch.setattr("novelgpt.training.session.StopSignals.must_stop", lambda self: next(asked))
        assert train(stopped) == 0
    assert not (stopped.output_path / "final_model").exists()
    assert train(stopped) == 0
    losses = read_losses(whole.output_path)
    assert read_losses(stopped.output_path) == losses
    assert read_losses(halves.output_path) == pytest.approx(losses, rel=1e-5)
    assert read_losses(plain.output_path) != pytest.approx(losses, rel=1e-3)
