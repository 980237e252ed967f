"""Kneser-Ney counts: against the textbook formula and figures worked by hand, of a training text and going on."""

from collections import Counter

import numpy as np
import pytest
from conftest import CORPORA, STORY

from novelgpt.evaluation.ngram import Counts


class BruteForce:
    """Interpolated Kneser-Ney by dictionaries of tuples, one token at a time."""

    def __init__(self, texts: list[list[int]], vocab_size: int, order: int, discounts: dict | None = None):
        self.vocab_size, self.order = vocab_size, order
        grams = {n: Counter(gram for ids in texts for gram in grams_of(ids, n)) for n in range(1, order + 1)}
        self.counts = {order: grams[order]}
        for n in range(1, order):
            self.counts[n] = Counter(gram[1:] for gram in grams[n + 1])  # each distinct longer one counts once
        self.discounts = discounts or {n: self.discount(n) for n in self.counts}

    def discount(self, n: int) -> float:
        """Return what is taken off every count."""
        once, twice = (sum(count == k for count in self.counts[n].values()) for k in (1, 2))
        return once / (once + 2 * twice) if once else 0.5

    def following(self, history: tuple) -> list[int]:
        """Return the counts of everything that follows a history."""
        return [count for gram, count in self.counts[len(history) + 1].items() if gram[:-1] == history]

    def chance(self, history: tuple, token: int) -> float:
        """Return p(token | history), at most order - 1 tokens of history."""
        lower = self.chance(history[1:], token) if history else 1 / self.vocab_size
        after, discount = self.following(history), self.discounts[len(history) + 1]
        if not after:
            return lower
        kept = max(self.counts[len(history) + 1][(*history, token)] - discount, 0)
        return (kept + discount * len(after) * lower) / sum(after)

    def support(self, history: tuple) -> int:
        """Return how often the longest known end of a history was counted."""
        known = (sum(self.following(history[start:])) for start in range(len(history)))
        return next(filter(None, known), 0)


def grams_of(ids: list[int], n: int) -> list[tuple]:
    """Return the n-grams of a text."""
    return list(zip(*(ids[k:] for k in range(n)), strict=False))


def chances_at(counts: Counts, places, order: int, *, online: bool) -> np.ndarray:
    """Return the chances of all tokens (P, V) at places (P,) of the texts laid end to end."""
    chances = np.full((len(places), counts.vocab_size), 1 / counts.vocab_size)
    for length in range(1, order + 1):
        histories, counted = counts.levels[length - 1].histories, counts.counted(length, order)
        _, discount = counts.count_training(length, order)
        for row, place in zip(chances, np.asarray(places) + counts.start, strict=True):
            end = place if online else counts.start
            followed = counted[:end] & (histories[:end] == histories[place])
            found = np.bincount(counts.tokens[:end][followed], minlength=counts.vocab_size)
            if found.any():
                kept = np.maximum(found - discount, 0) + discount * np.count_nonzero(found) * row
                row[:] = kept / found.sum()
    return chances


def brute_scores(train, texts, vocab_size, order, *, online):
    """Return chance and support of every token of the texts, each counted anew where counting goes on."""
    model = BruteForce([train], vocab_size, order)
    chances, supports = [], []
    for number, ids in enumerate(texts):
        for place, token in enumerate(ids):
            if online:
                seen = [train, *texts[:number], ids[:place]]
                model = BruteForce(seen, vocab_size, order, model.discounts)
            history = tuple(ids[max(0, place - order + 1) : place])
            chances.append(model.chance(history, token))
            supports.append(model.support(history))
    return chances, supports


def count(train, *texts, vocab_size: int, order: int = 4) -> Counts:
    """Count lists of token ids."""
    return Counts(np.array(train), [np.array(ids) for ids in texts], vocab_size=vocab_size, order=order)


def story_ids() -> tuple[list[int], int]:
    """Return the tiny story as character numbers, and how many characters there are."""
    text = "\n".join(STORY * 2)
    names = {character: index for index, character in enumerate(sorted(set(text)))}
    return [names[character] for character in text], len(names)


@pytest.mark.parametrize("order", [1, 2, 4, 5])
@pytest.mark.parametrize("size", [15, 40, 130])  # the shorter the text, the more is left to the lower orders
def test_every_token_costs_what_the_dictionaries_say(size, order):
    ids, vocab_size = story_ids()
    train, text = ids[:size], [*ids[size:], 3, 3, vocab_size + 4, 2]  # repeats, and a token never seen
    expected = brute_scores(train, [text], vocab_size + 5, order, online=False)
    for found, wanted in zip(
        count(train, text, vocab_size=vocab_size + 5, order=order).score(order), expected, strict=True
    ):
        np.testing.assert_allclose(found, wanted, rtol=1e-12)


@pytest.mark.parametrize(
    ("seed", "vocab_size", "order"), [(0, 2, 3), (1, 3, 5), (2, 6, 4), (3, 4, 2), (4, 3, 1), (5, 2, 6)]
)
@pytest.mark.parametrize("online", [False, True])
def test_random_texts_cost_what_the_dictionaries_say_through_all_texts(seed, vocab_size, order, online):
    draw = np.random.default_rng(seed)
    train, *texts = (draw.integers(vocab_size, size=size).tolist() for size in (30, 25, 1, 20))
    texts.append(texts[0])  # what was learnt of a text is known in the next
    expected = brute_scores(train, texts, vocab_size, order, online=online)
    found = count(train, *texts, vocab_size=vocab_size, order=order).score(order, online=online)
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-12)
    assert found[1].tolist() == expected[1]


def test_a_shorter_order_is_scored_from_the_counts_of_a_longer_one():
    ids, vocab_size = story_ids()
    for online in (False, True):
        shorter, longer = (count(ids[:90], ids[90:], vocab_size=vocab_size, order=order) for order in (3, 5))
        np.testing.assert_array_equal(shorter.score(3, online=online), longer.score(3, online=online))


@pytest.mark.parametrize("online", [False, True])
def test_the_chances_of_all_tokens_add_up_to_one_at_a_thousand_places(online):
    draw = np.random.default_rng(0)
    train, *texts = (draw.zipf(1.3, size).clip(max=60) - 1 for size in (3000, 900, 400))
    counts = count(train, *texts, vocab_size=62, order=5)  # two tokens that never come
    scored, tokens = counts.score(5, online=online)[0], np.concatenate(texts)
    places = draw.choice(1300, 1000, replace=False)
    chances = chances_at(counts, places, 5, online=online)
    np.testing.assert_allclose(chances.sum(axis=1), 1, rtol=1e-12)
    assert chances.min() > 0
    np.testing.assert_allclose(chances[range(1000), tokens[places]], scored[places], rtol=1e-12)


@pytest.mark.parametrize("online", [False, True])
def test_a_text_that_ends_otherwise_costs_the_same_until_then(online):
    draw = np.random.default_rng(1)
    train, text, other = (draw.integers(5, size=size) for size in (200, 300, 120))
    changed = np.concatenate([text[:180], other])
    found = [count(train, part, vocab_size=5, order=5).score(5, online=online) for part in (text, changed)]
    np.testing.assert_array_equal(*(np.stack(part)[:, :180] for part in found))
    assert (found[0][0][180:] != found[1][0][180:]).any()


def test_a_text_of_two_rounds_worked_by_hand():
    # 0 1 2 3 0 1 2 3: 0123 twice, 1230, 2301 and 3012 once; d = 3 / (3 + 2·1) = 3/5. Every 3-gram, 2-gram and token
    # has one token before it, so there d = 4/4 = 1, nothing is left of the counts, and p = 1/5 for each of 5 tokens.
    # p(3 | 012) = (2 - 3/5)/2 + 3/5·1/2·1/5 = 0.76; p(4 | 012) = 0.06; p(0 | 123) = (1 - 3/5)/1 + 3/5·1/1·1/5 = 0.52
    counts = count([0, 1, 2, 3, 0, 1, 2, 3], [0, 1, 2, 3, 0], [0, 1, 2, 4], vocab_size=5)
    chances, support = counts.score(4)
    np.testing.assert_allclose(chances, [1 / 5, 1 / 5, 1 / 5, 0.76, 0.52, 1 / 5, 1 / 5, 1 / 5, 0.06], rtol=1e-12)
    assert support.tolist() == [0, 1, 1, 2, 1, 0, 1, 1, 2]  # 012 twice, the others once, as 3-, 2- and 1-grams do


def test_a_lower_order_counts_what_stands_before_worked_by_hand():
    # 0 2 1 2 0 2: every 4-gram and 3-gram stands once, so there d = 1 and p is the 2-gram's. Of the 3-grams 021, 212,
    # 120, 202 the last two tokens are 21 12 20 02, once each: d = 1, so p is the 1-gram's. Tokens before 0: {2}; before
    # 1: {2}; before 2: {0, 1}. d = 2 / (2 + 2·1) = 1/2: p(2) = (2 - 1/2)/4 + 1/2·3/4·1/4 = 15/32,
    # p(0) = (1 - 1/2)/4 + 3/32 = 7/32, and a token never seen 3/32
    chances, _ = count([0, 2, 1, 2, 0, 2], [1, 2, 0, 3], vocab_size=4).score(4)
    np.testing.assert_allclose(chances[1:], [15 / 32, 7 / 32, 3 / 32], rtol=1e-12)


def test_counting_that_goes_on_worked_by_hand():
    # 0 1 0 1: 01 twice, 10 once, d = 1 / (1 + 2·1) = 1/3; 0 and 1 have one token before them, so there d = 1 and p =
    # 1/3 for each of 3 tokens. p(1 | 1) = 1/3·1/1·1/3 = 1/9. Then 11 is learnt: 1 now has two tokens before it, so the
    # 1-gram's p(0) = (1 - 1)/3 + 1·2/3·1/3 = 2/9, and p(0 | 1) = (1 - 1/3)/2 + 1/3·2/2·2/9 = 11/27
    counts = count([0, 1, 0, 1], [1, 1, 0], vocab_size=3, order=2)
    np.testing.assert_allclose(counts.score(2, online=True)[0], [1 / 3, 1 / 9, 11 / 27], rtol=1e-12)
    np.testing.assert_allclose(counts.score(2)[0], [1 / 3, 1 / 9, 2 / 3 + 1 / 9], rtol=1e-12)


def test_any_vocabulary_fits():
    ids = [3_000_000, 0, 65536, 3_000_000, 1, 0, 65535, 0, 0, 3_000_000] * 3
    expected, _ = brute_scores(ids, [ids], 3_000_001, 5, online=False)
    np.testing.assert_allclose(count(ids, ids, vocab_size=3_000_001, order=5).score(5)[0], expected, rtol=1e-12)


@pytest.mark.parametrize("online", [False, True])
@pytest.mark.parametrize("length", [0, 1, 2, 3])
def test_a_training_text_shorter_than_the_order_is_a_model_too(length, online):
    train, text = list(range(length)), [0, 1, 2, 3, 4, 0, 1]
    expected, _ = brute_scores(train, [text], 5, 4, online=online)
    np.testing.assert_allclose(count(train, text, vocab_size=5).score(4, online=online)[0], expected, rtol=1e-12)


@pytest.mark.sweep
@pytest.mark.skipif(not CORPORA.is_dir(), reason="the shared novels are not on this machine")
@pytest.mark.parametrize("online", [False, True])
def test_the_chances_of_a_real_novel_add_up_to_one_at_a_thousand_places(online):
    text = (CORPORA / "hongloumeng.gbk.txt").read_bytes().decode("gb18030")
    names, ids = np.unique(np.array(list(text)), return_inverse=True)
    cut = len(ids) * 9 // 10
    counts = Counts(ids[:cut], [ids[cut:]], vocab_size=len(names), order=5)
    scored = counts.score(5, online=online)[0]
    places = np.random.default_rng(0).choice(len(scored), 1000, replace=False)
    chances = chances_at(counts, places, 5, online=online)
    np.testing.assert_allclose(chances.sum(axis=1), 1, rtol=1e-9)
    np.testing.assert_allclose(chances[range(1000), ids[cut:][places]], scored[places], rtol=1e-9)
