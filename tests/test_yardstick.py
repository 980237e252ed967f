"""The 4-gram beside the network: the same tokens scored, the same split, words for either outcome."""

import json

import numpy as np
import pytest

import eval as eval_script
from novelgpt.cli import run
from novelgpt.corpus.pieces import TokenStream, open_pieces
from novelgpt.ngram import ngram_loss
from novelgpt.training import yardstick
from novelgpt.training.session import train

pytestmark = pytest.mark.usefixtures("no_flushing")


def stream_of(*ids: int) -> TokenStream:
    """Return ids as a stream in two arrays."""
    return TokenStream([np.array(ids[:2], np.uint16), np.array(ids[2:], np.uint16)])


def test_all_tokens_but_the_first_are_scored_and_carried_over_to_characters():
    result = yardstick.score_ngram(stream_of(1, 2, 1, 2, 3), stream_of(1, 2, 3), vocab_size=8, characters=4)
    expected = ngram_loss(np.array([1, 2, 1, 2, 3]), np.array([1, 2, 3]), 8)
    assert (result.scored, result.tokens, result.characters) == (2, 3, 4)
    assert result.loss == pytest.approx(expected)
    assert result.nats_per_character == pytest.approx(expected * 3 / 4)


def test_too_long_a_text_is_left_out_with_a_word(monkeypatch, capsys):
    monkeypatch.setattr(yardstick, "MAX_TOKENS", 4)
    assert yardstick.score_ngram(stream_of(1, 2, 1, 2, 3), stream_of(1, 2), vocab_size=8, characters=2) is None
    said = "4-gram: left out for 5 training tokens of a vocabulary of 8; at most 4 and 65,536 are counted\n"
    assert capsys.readouterr().err == said


def test_ids_that_do_not_fit_are_left_out_with_a_word(capsys):
    assert yardstick.score_ngram(stream_of(1, 2), stream_of(1, 2), vocab_size=65_537, characters=2) is None
    assert "a vocabulary of 65,537" in capsys.readouterr().err


def test_a_difference_within_two_hundredths_is_none():
    assert yardstick.compare_words(4.01, 4.0) == "level with a 4-gram of the same text (4.0000)"


def test_a_run_ends_with_the_comparison_and_eval_prints_the_same_figure(tiny_options, capsys):
    options = tiny_options(epochs=1)
    assert train(options) == 0
    pieces = open_pieces(options.tokenized_data_path)
    vocab_size = json.loads((options.output_path / "final_model/config.json").read_text())["vocab_size"]
    expected = ngram_loss(pieces.train.read(), pieces.valid.read(), vocab_size)
    last = capsys.readouterr().err.splitlines()[-1]
    assert f"a 4-gram of the same text ({expected:.4f})" in last

    argv = [f"--model_path={options.output_path / 'final_model'}", "--device=cpu", "--baseline"]
    assert run(eval_script.main, [*argv, f"--tokenized_data_path={options.tokenized_data_path}"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["ngram_loss"] == pytest.approx(expected)
    assert result["ngram_nats_per_character"] == pytest.approx(expected * result["tokens"] / result["characters"])
