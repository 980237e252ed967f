"""Per-character surprise: bytes add up to characters, and every token has the loss of its window."""

import math

import numpy as np
import pytest
import torch
from conftest import TINY

from novelgpt.corpus.pieces import TokenStream
from novelgpt.corpus.tokenizer import load_tokenizer
from novelgpt.evaluation.evaluation import evaluation_batches, make_scorer, score_batches, scored_places
from novelgpt.evaluation.report import Span, find_spans
from novelgpt.network import build_model, score_tokens


@pytest.fixture
def model(tiny_tokenizer):
    """A network whose losses differ widely between tokens."""
    network = build_model({**TINY, "attn_pdrop": 0.1}, tiny_tokenizer, seed=1).eval()
    with torch.no_grad():
        for weight in network.parameters():
            weight.mul_(4)
    return network


@pytest.mark.parametrize("stride", [16, 5])
def test_each_token_has_the_loss_of_its_window(model, stride):
    ids = np.random.default_rng(0).integers(300, size=40).astype(np.uint16)
    batches = evaluation_batches(TokenStream([ids]), 16, stride, 3)
    scores = score_batches(make_scorer(model, "fp32"), batches, torch.device("cpu"))
    nats = np.full(40, np.nan)
    nats[scored_places(40, 16, stride)] = scores.nats
    expected = np.full(40, np.nan)
    for begin in range(0, 40, stride):
        window = torch.from_numpy(ids[begin : begin + 16].astype(np.int64))
        with torch.no_grad():
            chances = model(window[None]).logits[0].log_softmax(-1)
        for place in range(1, len(window)):
            if math.isnan(expected[begin + place]):
                expected[begin + place] = -chances[place - 1, window[place]]
        if begin + 16 >= 40:
            break
    np.testing.assert_allclose(nats, expected, rtol=1e-4)
    assert scores.nll == pytest.approx(np.nansum(expected), rel=1e-5)
    assert scores.totals()[1] == np.count_nonzero(~np.isnan(expected))


def test_score_tokens_counts_what_is_right_and_holds_only_a_chunk(model):
    input_ids = torch.randint(300, (3, 16), generator=torch.Generator().manual_seed(0))
    labels = input_ids.clone()
    labels[0, 4:] = -100
    with torch.no_grad():
        chances = model(input_ids).logits[:, :-1].log_softmax(-1)  # (3, 15, V)
    labels[1, 3] = chances[1, 2].argmax()  # one that is surely right
    for chunk in (1, 7, 1024):
        nats, right = score_tokens(model, input_ids, labels, chunk=chunk)
        wanted = labels[:, 1:]
        expected = -chances.gather(2, wanted.clamp(min=0)[..., None])[..., 0] * (wanted >= 0)
        torch.testing.assert_close(nats, expected, rtol=1e-4, atol=1e-5)
        assert torch.equal(right, chances.argmax(-1).eq(wanted))
        assert right[1, 2] and not right[0, 3:].any()


def test_bytes_of_one_character_add_up_and_marks_show_their_names(tiny_tokenizer):
    ids = [*tiny_tokenizer.encode("井𠮷\n"), tiny_tokenizer.mask_id]
    assert len(ids) == 1 + 4 + 1 + 1
    spans = find_spans(ids, [math.nan, 1.0, 2.0, 3.0, 4.0, 0.5, 9.0], tiny_tokenizer)
    assert [span.text for span in spans] == ["井", "𠮷", "\n", "[MASK]"]
    assert math.isnan(spans[0].nats) and [span.nats for span in spans[1:]] == [10.0, 0.5, 9.0]


def test_broken_bytes_are_shown_at_the_end(tiny_tokenizer):
    ids = list(tiny_tokenizer.encode("𠮷")[:2])
    assert find_spans(ids, [1.0, 2.0], tiny_tokenizer) == [Span("\N{REPLACEMENT CHARACTER}", 3.0)]


def test_wordpiece_spans_show_unknown_characters_and_line_breaks(tmp_path):
    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n水\nab\n##c\n", encoding="utf-8")
    tokenizer = load_tokenizer(tmp_path / "vocab.txt")
    ids = tokenizer.encode("水龘abc ab\n")
    spans = find_spans(ids, range(len(ids)), tokenizer)
    assert [span.text for span in spans] == ["水", "[UNK]", "ab", "c", " ab", "\n"]
