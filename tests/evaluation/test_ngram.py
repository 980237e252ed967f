"""The 4-gram: against the textbook formula and figures worked by hand, and beside a network on the same split."""

import json
import math
from collections import Counter

import numpy as np
import pytest
from conftest import CORPORA, STORY

import eval as eval_script
from novelgpt.cli import run
from novelgpt.corpus.pieces import TokenStream, open_pieces
from novelgpt.evaluation import ngram
from novelgpt.evaluation.ngram import ORDER, compare_losses, fit_ngram, ngram_nll, score_ngram
from novelgpt.training.session import train


class BruteForce:
    """Interpolated Kneser-Ney by dictionaries of tuples, one token at a time."""

    def __init__(self, ids: list[int], vocab_size: int):
        order = self.order = ORDER
        self.vocab_size = vocab_size
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


@pytest.mark.parametrize("size", [15, 40, 90, 130])  # the shorter the text, the more is left to the lower orders
def test_every_token_costs_what_the_dictionaries_say(size):
    ids, vocab_size = story_ids()
    train, valid = ids[:size], [*ids[size:], 3, 3, vocab_size + 4, 2]  # repeats, and a token never seen
    expected = BruteForce(train, vocab_size + 5).nll(valid)
    found = ngram_nll(fit_ngram(np.array(train)), np.array(valid), vocab_size + 5)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_the_chances_of_all_tokens_add_up_to_one_after_any_history():
    ids, vocab_size = story_ids()
    levels = fit_ngram(np.array(ids))
    for place in (5, 40, 90):
        history = [*ids[place : place + 2], vocab_size - 1, *ids[place + 2 : place + 3]]
        texts = [[*history, token] for token in range(vocab_size)]
        last = [ngram_nll(levels, np.array(text), vocab_size)[-1] for text in texts]
        assert sum(math.exp(-nats) for nats in last) == pytest.approx(1, abs=1e-12)


def test_a_text_of_two_rounds_worked_by_hand():
    # 0 1 2 3 0 1 2 3: 0123 twice, 1230, 2301 and 3012 once; d = 3 / (3 + 2·1) = 3/5. Every 3-gram, 2-gram and token
    # has one token before it, so there d = 4/4 = 1, nothing is left of the counts, and p = 1/5 for each of 5 tokens.
    # p(3 | 012) = (2 - 3/5)/2 + 3/5·1/2·1/5 = 0.76; p(4 | 012) = 0.06; p(0 | 123) = (1 - 3/5)/1 + 3/5·1/1·1/5 = 0.52
    levels = fit_ngram(np.array([0, 1, 2, 3, 0, 1, 2, 3]))
    nats = ngram_nll(levels, np.array([0, 1, 2, 3, 0]), 5)
    np.testing.assert_allclose(np.exp(-nats), [1 / 5, 1 / 5, 0.76, 0.52], rtol=1e-12)
    assert math.exp(-ngram_nll(levels, np.array([0, 1, 2, 4]), 5)[-1]) == pytest.approx(0.06)


def test_a_lower_order_counts_what_stands_before_worked_by_hand():
    # 0 2 1 2 0 2: every 4-gram and 3-gram stands once, so there d = 1 and p is the 2-gram's. Of the 3-grams 021, 212,
    # 120, 202 the last two tokens are 21 12 20 02, once each: d = 1, so p is the 1-gram's. Tokens before 0: {2}; before
    # 1: {2}; before 2: {0, 1}. d = 2 / (2 + 2·1) = 1/2: p(2) = (2 - 1/2)/4 + 1/2·3/4·1/4 = 15/32,
    # p(0) = (1 - 1/2)/4 + 3/32 = 7/32, and a token never seen 3/32
    nats = ngram_nll(fit_ngram(np.array([0, 2, 1, 2, 0, 2])), np.array([1, 2, 0, 3]), 4)
    np.testing.assert_allclose(np.exp(-nats), [15 / 32, 7 / 32, 3 / 32], rtol=1e-12)


def test_the_four_tokens_of_a_key_keep_their_sixteen_bits():
    ids = np.array([65535, 0, 65535, 65535, 1, 0, 65535, 0, 0, 65535] * 3)
    expected = BruteForce(ids.tolist(), 65536).nll(ids.tolist())
    np.testing.assert_allclose(ngram_nll(fit_ngram(ids), ids, 65536), expected, rtol=1e-12)


@pytest.mark.parametrize("length", [1, 2, 3])
def test_a_training_text_shorter_than_the_order_is_a_model_too(length):
    train = list(range(length))
    expected = BruteForce(train, 5).nll([0, 1, 2, 3, 4])
    np.testing.assert_allclose(ngram_nll(fit_ngram(np.array(train)), np.arange(5), 5), expected, rtol=1e-12)


@pytest.mark.skipif(not CORPORA.is_dir(), reason="the shared novels are not on this machine")
def test_a_real_novel_costs_about_four_nats_a_character():
    text = (CORPORA / "hongloumeng.gbk.txt").read_bytes().decode("gb18030")
    names, ids = np.unique(np.array(list(text)), return_inverse=True)
    cut = len(ids) * 9 // 10
    assert 3.5 < ngram_nll(fit_ngram(ids[:cut]), ids[cut:], len(names)).mean() < 4.5  # three novels cost 3.96 to 4.08


def stream_of(*ids: int) -> TokenStream:
    """Return ids as a stream in two arrays."""
    return TokenStream([np.array(ids[:2], np.uint16), np.array(ids[2:], np.uint16)])


def test_all_tokens_but_the_first_are_scored_and_carried_over_to_characters():
    result = score_ngram(stream_of(1, 2, 1, 2, 3), stream_of(1, 2, 3), vocab_size=8, characters=4)
    expected = ngram_nll(fit_ngram(np.array([1, 2, 1, 2, 3])), np.array([1, 2, 3]), 8).mean()
    assert (result.scored, result.tokens, result.characters) == (2, 3, 4)
    assert result.loss == pytest.approx(expected)
    assert result.nats_per_character == pytest.approx(expected * 3 / 4)


def test_too_long_a_text_is_left_out_with_a_word(monkeypatch, capsys):
    monkeypatch.setattr(ngram, "MAX_TOKENS", 4)
    assert score_ngram(stream_of(1, 2, 1, 2, 3), stream_of(1, 2), vocab_size=8, characters=2) is None
    said = "4-gram: left out for 5 training tokens of a vocabulary of 8; at most 4 and 65,536 are counted\n"
    assert capsys.readouterr().err == said


def test_ids_that_do_not_fit_are_left_out_with_a_word(capsys):
    assert score_ngram(stream_of(1, 2), stream_of(1, 2), vocab_size=65_537, characters=2) is None
    assert "a vocabulary of 65,537" in capsys.readouterr().err


def test_a_difference_within_two_hundredths_is_none():
    said = "no better than counting what follows what (4-gram: 4.0000): rest"
    assert compare_losses(4.01, 4.0, advice="rest") == said


@pytest.mark.usefixtures("no_flushing")
def test_a_run_ends_with_the_comparison_and_eval_prints_the_same_figure(tiny_options, capsys):
    options = tiny_options(epochs=1)
    assert train(options) == 0
    pieces = open_pieces(options.tokenized_data_path)
    vocab_size = json.loads((options.output_path / "final_model/config.json").read_text())["vocab_size"]
    expected = ngram_nll(fit_ngram(pieces.train.read()), pieces.valid.read(), vocab_size).mean()
    said = capsys.readouterr().err.splitlines()
    (verdict,) = [line for line in said if "; use " in line]
    assert f" than counting what follows what (4-gram: {expected:.4f})" in verdict

    argv = [f"--model_path={options.output_path / 'final_model'}", "--device=cpu", "--baseline"]
    assert run(eval_script.main, [*argv, f"--tokenized_data_path={options.tokenized_data_path}"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["ngram_loss"] == pytest.approx(expected)
    assert result["ngram_nats_per_character"] == pytest.approx(expected * result["tokens"] / result["characters"])
