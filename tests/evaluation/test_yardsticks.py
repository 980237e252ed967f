"""The yardsticks: their cache by loops, their mixtures by search, their figures beside a network's on one split."""

import json
import math

import numpy as np
import pytest
from conftest import CORPORA

import eval as eval_script
from novelgpt.cli import run
from novelgpt.corpus.pieces import TokenStream, open_pieces
from novelgpt.evaluation import compare_losses, count_texts, measure_counting, mix, yardsticks
from novelgpt.evaluation.ngram import Counts
from novelgpt.evaluation.yardsticks import PRIOR, WEIGHT, cache_chances, fit_weights
from novelgpt.training.session import train

NAMES = ["kn4", "kn5", "kn5_cache", "kn5_online_cache"]


def draw_texts(*sizes: int, vocab_size: int = 7, seed: int = 0) -> list[np.ndarray]:
    """Return random texts in which some tokens are frequent."""
    draw = np.random.default_rng(seed)
    return [draw.zipf(1.4, size).clip(max=vocab_size).astype(np.uint16) - 1 for size in sizes]


def brute_cache(ids: list[int], decay: float) -> list[float]:
    """Return the decayed share of each token among those before it, by a loop."""
    shares = [0.0]
    for place in range(1, len(ids)):
        weights = [math.exp((before - place) / decay) for before in range(place)]
        shares.append(sum(w for w, token in zip(weights, ids, strict=False) if token == ids[place]) / sum(weights))
    return shares


@pytest.mark.parametrize(("size", "decay"), [(0, 100), (1, 100), (2, 100), (300, 100), (300, 3), (300, 0.5), (90, 1e4)])
def test_the_cache_is_what_stood_before_weighted_by_its_distance(size, decay):
    ids = draw_texts(size, vocab_size=20)[0]
    expected = brute_cache(ids.tolist(), decay)[:size]
    np.testing.assert_allclose(cache_chances(ids, decay), expected, rtol=1e-9, atol=1e-15)


def test_every_yardstick_gives_the_tokens_chances_that_add_up_to_one():
    train_ids, text = draw_texts(200, 60)
    for place in (1, 2, 7, 30, 59):
        after = [count_texts(train_ids, [[*text[:place], token]], vocab_size=9).nats() for token in range(9)]
        for name in NAMES:
            assert sum(math.exp(-nats[name][-1]) for nats in after) == pytest.approx(1, abs=1e-12)


def test_what_comes_later_changes_no_figure():
    train_ids, text, other = draw_texts(200, 80, 40)
    found = [count_texts(train_ids, [part], vocab_size=7) for part in (text, np.concatenate([text[:50], other]))]
    for ours, theirs in zip(*found, strict=True):
        np.testing.assert_array_equal(ours[:49], theirs[:49])


def test_the_first_token_of_each_text_is_left_out_and_the_cache_begins_anew():
    train_ids, *texts = draw_texts(300, 50, 1, 30)
    chances = count_texts(train_ids, texts, vocab_size=7)
    assert [len(part) for part in chances] == [49 + 29] * 6
    alone = [count_texts(train_ids, [text], vocab_size=7) for text in texts]
    for name in ("kn4", "kn5", "cache", "buckets"):
        np.testing.assert_array_equal(getattr(chances, name), np.concatenate([getattr(part, name) for part in alone]))


def test_counting_goes_on_from_text_to_text():
    train_ids, first, second = draw_texts(300, 50, 30)
    both = count_texts(train_ids, [first, second, first], vocab_size=7)
    for name in ("kn5_online", "online_buckets"):
        np.testing.assert_array_equal(
            getattr(both, name)[:49], getattr(count_texts(train_ids, [first], vocab_size=7), name)
        )
    assert np.log(both.kn5_online[-49:]).sum() > np.log(both.kn5_online[:49]).sum() + 10  # it is known by then


def test_the_figures_are_the_chances_put_together():
    train_ids, text = draw_texts(300, 90)
    chances = count_texts(TokenStream([train_ids]), [TokenStream([text[:40], text[40:]])], vocab_size=7)
    counts = Counts(train_ids, [text], vocab_size=7, order=5)
    kn4, kn5 = (counts.score(order)[0][1:] for order in (4, 5))
    online, known = (part[1:] for part in counts.score(5, online=True))
    cache = np.array(brute_cache(text.tolist(), 100))[1:]
    parts = [kn4, kn5, (1 - WEIGHT) * kn5 + WEIGHT * cache, (1 - WEIGHT) * online + WEIGHT * cache]
    nats = chances.nats()
    assert list(nats) == NAMES
    for found, expected in zip(nats.values(), parts, strict=True):
        np.testing.assert_allclose(found, -np.log(expected), rtol=1e-9)
    assert chances.online_buckets.tolist() == [sum(times >= edge for edge in (1, 4, 16)) for times in known]


@pytest.mark.parametrize("stride", [5, 16])
def test_the_tokens_are_those_that_the_network_scores(stride):
    train_ids, *texts = draw_texts(300, 50, 33, 1)
    found = measure_counting(train_ids, texts, vocab_size=7, window=16, stride=stride)
    nats = count_texts(train_ids, texts, vocab_size=7).nats()
    # windows end to end have no context for their first tokens: 0, 16, 32, 48 of 50 and 0, 16, 32 of 33
    left_out = {16, 32, 48, 50 + 16, 50 + 32} if stride == 16 else set()
    scored = [place not in left_out for place in range(83) if place not in (0, 50)]
    assert found == {name: pytest.approx(nats[name][scored].mean(), rel=1e-12) for name in NAMES}


def test_too_long_a_text_is_left_out_with_a_word(monkeypatch, capsys):
    monkeypatch.setattr(yardsticks, "MAX_TOKENS", 6)
    sizes = {"vocab_size": 8, "window": 4, "stride": 2}
    assert measure_counting([1, 2, 1, 2, 3], [[1, 2]], **sizes) is None
    said = "counting what follows what: left out for 7 tokens; at most 6 are counted\n"
    assert capsys.readouterr().err == said
    assert measure_counting([1, 2, 1, 2], [[1, 2]], **sizes)


def test_where_nothing_is_scored_there_are_no_figures(capsys):
    assert measure_counting([1, 2, 1, 2, 3], [[1], []], vocab_size=8, window=4, stride=2) is None
    assert capsys.readouterr().err == ""


def test_a_difference_within_two_hundredths_is_none():
    said = "no better than counting what follows what (5-grams with a cache 4.0000, 4-grams 4.0300): rest"
    assert compare_losses(4.01, {"kn5_cache": 4.0, "kn4": 4.03}, advice="rest") == said


def search(score, parts: int) -> np.ndarray:
    """Return the best of all weights in hundredths by a score of them."""
    grid = np.stack(np.meshgrid(*[np.arange(101)] * (parts - 1), indexing="ij")).reshape(parts - 1, -1)
    grid = np.concatenate([grid, 100 - grid.sum(axis=0, keepdims=True)])
    weights = np.maximum(grid[:, grid[-1] >= 0] / 100, 1e-9)
    return weights[:, np.argmax([score(column) for column in weights.T])]


@pytest.mark.parametrize("number", [2, 3])
def test_the_weights_are_the_best_that_a_search_finds(number):
    parts = np.random.default_rng(number).beta(0.3, 2, (number, 400)) + 1e-3
    best = search(lambda weights: np.log(weights @ parts).sum(), number)
    weights = fit_weights(parts)
    np.testing.assert_allclose(weights, best, atol=0.006)
    assert weights.sum() == pytest.approx(1)
    assert np.log(weights @ parts).sum() >= np.log(best @ parts).sum()


def test_a_part_that_is_always_worse_gets_nothing():
    assert fit_weights(np.array([[0.5] * 50, [0.1] * 50])).tolist() == pytest.approx([1, 0], abs=1e-5)


def test_each_half_is_mixed_by_weights_of_the_other_half_for_each_bucket():
    draw = np.random.default_rng(3)
    parts, buckets = draw.beta(0.3, 2, (2, 600)) + 1e-3, draw.integers(3, size=600)
    parts[0, buckets == 1] *= 3
    buckets[:300][buckets[:300] == 2] = 0  # a bucket that only the second half has
    mixed = mix(parts, buckets)
    for ours, others in ((slice(0, 300), slice(300, 600)), (slice(300, 600), slice(0, 300))):
        learnt = parts[:, others]
        start = search(lambda weights, learnt=learnt: np.log(weights @ learnt).sum(), 2)
        for bucket in set(buckets[ours].tolist()):
            inside = parts[:, others][:, buckets[others] == bucket]
            best = search(
                lambda weights, inside=inside, start=start: (
                    np.log(weights @ inside).sum() + PRIOR * start @ np.log(weights)
                ),
                2,
            )
            chosen = buckets[ours] == bucket
            np.testing.assert_allclose(mixed[ours][chosen], best @ parts[:, ours][:, chosen], rtol=0.05)


def test_a_mixture_of_true_chances_is_one():
    # the weights are fitted to what came; whatever had come instead, they would be the same in the other half
    draw = np.random.default_rng(4)
    tables = draw.dirichlet(np.ones(5), (3, 200))  # (K, N, V)
    tokens, buckets = draw.integers(5, size=200), draw.integers(2, size=200)
    total = np.zeros(100)
    for token in range(5):
        tokens[100:] = token
        parts = np.take_along_axis(tables, tokens[None, :, None], axis=2)[..., 0]
        total += mix(parts, buckets)[100:]
    np.testing.assert_allclose(total, 1, rtol=1e-12)


@pytest.mark.skipif(not CORPORA.is_dir(), reason="the shared novels are not on this machine")
def test_each_yardstick_of_a_real_novel_is_harder_to_beat_than_the_one_before():
    text = (CORPORA / "chunfeng.utf8bom.txt").read_text(encoding="utf-8-sig")
    names, ids = np.unique(np.array(list(text)), return_inverse=True)
    cut = len(ids) * 9 // 10
    sizes = {"vocab_size": len(names), "window": 64, "stride": 32}
    kn4, kn5, kn5_cache, kn5_online_cache = measure_counting(ids[:cut], [ids[cut:]], **sizes).values()
    assert 5.5 > kn4 > kn5 > kn5_cache > kn5_online_cache > 4  # cleaned: 4.98, 4.97, 4.82, 4.55


@pytest.mark.usefixtures("no_flushing")
def test_a_run_ends_with_the_comparison_and_eval_prints_the_same_figure(tiny_options, capsys):
    options = tiny_options(epochs=1)
    assert train(options) == 0
    pieces = open_pieces(options.tokenized_data_path)
    config = json.loads((options.output_path / "final_model/config.json").read_text())
    expected = count_texts(pieces.train, [pieces.valid], vocab_size=config["vocab_size"]).nats()
    expected = {name: nats.mean() for name, nats in expected.items()}
    figures = f"(5-grams with a cache {expected['kn5_cache']:.4f}, 4-grams {expected['kn4']:.4f})"
    said = capsys.readouterr().err.splitlines()
    (verdict,) = [line for line in said if "; use " in line]
    assert f" than counting what follows what {figures}" in verdict

    argv = [f"--model_path={options.output_path / 'final_model'}", "--device=cpu", "--baseline"]
    assert run(eval_script.main, [*argv, f"--tokenized_data_path={options.tokenized_data_path}"]) == 0
    out, err = capsys.readouterr()
    result = json.loads(out)
    assert result["baselines"] == pytest.approx(expected)
    assert result["ngram_loss"] == pytest.approx(expected["kn4"])
    assert result["ngram_nats_per_character"] == pytest.approx(
        expected["kn4"] * result["tokens"] / result["characters"]
    )
    assert f" than counting what follows what {figures}" in err
