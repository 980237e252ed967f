"""The 4-gram against the textbook formula written with dictionaries, and against a distribution worked by hand."""

import math
from collections import Counter

import numpy as np
import pytest
from conftest import STORY, read_novel

from novelgpt.ngram import MAX_ORDER, fit_ngram, ngram_loss, ngram_nll


class BruteForce:
    """Interpolated Kneser-Ney by dictionaries of tuples, one token at a time."""

    def __init__(self, ids: list[int], order: int, vocab_size: int):
        self.order, self.vocab_size = order, vocab_size
        grams = {n: Counter(zip(*(ids[k:] for k in range(n)), strict=False)) for n in range(1, order + 1)}
        self.counts = {order: grams[order]}
        for n in range(1, order):
            self.counts[n] = Counter(gram[1:] for gram in grams[n + 1])  # each distinct longer one counts once

    def chance(self, history: tuple, token: int) -> float:
        """Return p(token | history), at most order - 1 tokens of history."""
        counts = self.counts[len(history) + 1]
        lower = self.chance(history[1:], token) if history else 1 / self.vocab_size
        after = [count for gram, count in counts.items() if gram[:-1] == history]
        if not after:
            return lower
        once, twice = (sum(count == k for count in counts.values()) for k in (1, 2))
        discount = once / (once + 2 * twice) if once else 0.5
        kept = max(counts[(*history, token)] - discount, 0)
        return (kept + discount * len(after) * lower) / sum(after)

    def nll(self, ids: list[int]) -> list[float]:
        """Return the nats of every token but the first."""
        histories = [tuple(ids[max(0, place - self.order + 1) : place]) for place in range(1, len(ids))]
        return [-math.log(self.chance(history, token)) for history, token in zip(histories, ids[1:], strict=True)]


def story_ids() -> tuple[list[int], int]:
    """Return the tiny story as character numbers, and how many characters there are."""
    text = "\n".join(STORY * 2)
    names = {character: index for index, character in enumerate(sorted(set(text)))}
    return [names[character] for character in text], len(names)


@pytest.mark.parametrize("order", range(1, MAX_ORDER + 1))
def test_every_token_costs_what_the_dictionaries_say(order):
    ids, vocab_size = story_ids()
    train, valid = ids[:130], [*ids[130:], 3, 3, vocab_size + 4, 2]  # repeats, and a token never seen
    expected = BruteForce(train, order, vocab_size + 5).nll(valid)
    found = ngram_nll(fit_ngram(np.array(train), order=order), np.array(valid), vocab_size + 5)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_the_chances_of_all_tokens_add_up_to_one_after_any_history():
    ids, vocab_size = story_ids()
    levels = fit_ngram(np.array(ids))
    for place in (5, 40, 90):
        history = [*ids[place : place + 2], vocab_size - 1, *ids[place + 2 : place + 3]]
        texts = [[*history, token] for token in range(vocab_size)]
        last = [ngram_nll(levels, np.array(text), vocab_size)[-1] for text in texts]
        assert sum(math.exp(-nats) for nats in last) == pytest.approx(1, abs=1e-12)


def test_a_bigram_worked_by_hand():
    # 0 1 0 1 2: bigrams 01 twice, 10 once, 12 once; d = 2 / (2 + 2·1) = 1/2. Tokens before 0: {1}, 1: {0}, 2: {1}:
    # order 1 counts 1 1 1, d = 3 / 3 = 1, so p(w) = 0/3 + 1·3/3 · 1/4 = 1/4 for each of 4 tokens.
    # p(1 | 0) = (2 - 1/2)/2 + 1/2·1/2·1/4 = 13/16; p(2 | 1) = (1 - 1/2)/2 + 1/2·2/2·1/4 = 3/8; p(3 | 2) = 1/4
    levels = fit_ngram(np.array([0, 1, 0, 1, 2]), order=2)
    nats = ngram_nll(levels, np.array([0, 1, 2, 3]), 4)
    np.testing.assert_allclose(np.exp(-nats), [13 / 16, 3 / 8, 1 / 4], rtol=1e-12)


def test_the_four_tokens_of_a_key_keep_their_sixteen_bits():
    ids = np.array([65535, 0, 65535, 65535, 1, 0, 65535, 0, 0, 65535] * 3)
    expected = BruteForce(ids.tolist(), 4, 65536).nll(ids.tolist())
    np.testing.assert_allclose(ngram_nll(fit_ngram(ids), ids, 65536), expected, rtol=1e-12)


@pytest.mark.parametrize("length", [1, 2, 3])
def test_a_training_text_shorter_than_the_order_is_a_model_too(length):
    train = list(range(length))
    expected = BruteForce(train, 4, 5).nll([0, 1, 2, 3, 4])
    np.testing.assert_allclose(ngram_nll(fit_ngram(np.array(train)), np.arange(5), 5), expected, rtol=1e-12)


def test_a_real_novel_costs_about_four_nats_a_character():
    text = read_novel("hongloumeng.gbk.txt")
    names, ids = np.unique(np.array(list(text)), return_inverse=True)
    cut = len(ids) * 9 // 10
    assert 3.5 < ngram_loss(ids[:cut], ids[cut:], len(names)) < 4.5  # three novels cost 3.96 to 4.08
