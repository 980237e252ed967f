"""Per-character surprise: bytes add up to characters, figures equal the loss, and the page is safe and complete."""

import html.parser
import json
import math

import numpy as np
import pytest
import torch
from conftest import STORY, TINY

import eval as eval_script
from novelgpt.cli import run
from novelgpt.corpus.pieces import TokenStream
from novelgpt.corpus.tokenizer import load_tokenizer
from novelgpt.loss import score_tokens
from novelgpt.model import build_model, save_model
from novelgpt.training.scoring import score_function
from novelgpt.training.surprise import Span, find_spans, score_each_token
from novelgpt.training.surprise_html import MAX_SHOWN, surprise_page

SIZES = {"window": 16, "batch_size": 3, "characters": 0, "device": torch.device("cpu")}


@pytest.fixture
def model(tiny_tokenizer):
    """A network whose losses differ widely between tokens."""
    network = build_model({**TINY, "attn_pdrop": 0.1}, tiny_tokenizer, seed=1).eval()
    with torch.no_grad():
        for weight in network.parameters():
            weight.mul_(4)
    return network


class Reader(html.parser.HTMLParser):
    """Collects tags, and the title and text of every span of the page's text."""

    def __init__(self, page: str):
        super().__init__()
        self.open, self.tags, self.addresses, self.spans, self.title = [], set(), [], [], None
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        self.addresses += [value for name, value in attributes if name in ("src", "href")]
        if tag not in ("meta", "br"):
            self.open.append(tag)
        self.title = dict(attributes).get("title") if tag == "span" else None

    def handle_endtag(self, tag):
        assert self.open.pop() == tag
        self.title = None

    def handle_data(self, data):
        if self.title:
            self.spans.append((data.rstrip("\n"), self.title))


@pytest.mark.parametrize("stride", [16, 5])
def test_each_token_has_the_loss_of_its_window(model, stride):
    ids = np.random.default_rng(0).integers(300, size=40).astype(np.uint16)
    scorer = score_function(model, torch.float32, score_tokens)
    result, nats = score_each_token(scorer, TokenStream([ids]), stride=stride, **SIZES)
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
    assert result.nll == pytest.approx(np.nansum(expected), rel=1e-5)
    assert result.scored == np.count_nonzero(~np.isnan(expected))


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


def test_the_page_is_whole_escaped_and_needs_nothing_from_elsewhere():
    chapter = [Span("第", 2.0), Span("一", math.nan), Span("\n", 0.25)]
    chapter += [Span(char, 12.5) for char in "<script>alert(1)</script>\x07"]
    page = surprise_page("<b>&", [("loss", "1.5")], [chapter, [Span("完", 7.25)]])
    reader = Reader(page)
    assert reader.open == [] and reader.addresses == []
    assert not reader.tags & {"script", "b", "link", "img", "iframe"}
    assert "url(" not in page and "http" not in page and "prefers-color-scheme:dark" in page
    assert reader.spans[:4] == [("第", "2.00 nats"), ("一", "not scored"), ("↵", "0.25 nats"), ("<", "12.50 nats")]
    assert reader.spans[-1] == ("完", "7.25 nats")
    assert '<span class="n7" title="7.25 nats">完</span>' in page
    assert "<h2>第一 <small>" in page and '<html lang="en">' in page and 'lang="zh"' in page


def test_the_strangest_paragraphs_come_first():
    calm, strange = (
        [Span(char, nats) for char in text]
        for text, nats in (("风平浪静的一天过去。", 1.0), ("龘靐齉龗麤爩龖鱻。", 9.0))
    )
    page = surprise_page("t", [], [[*calm, Span("\n", 0.1), *strange]])
    listing = page[page.index("Strangest") : page.index("<main>")]
    assert listing.index("龘靐齉") < listing.index("风平浪静") and "9.000" in listing


def test_a_page_that_would_be_too_long_says_what_it_leaves_out():
    chapters = [[Span("长" * (MAX_SHOWN - 1), 1.0)], [Span("短长", 1.0)], [Span("完", 1.0)]]
    page = surprise_page("t", [], chapters)
    assert "<p>2 further chapters are not shown.</p>" in page and "短长" not in page


def test_eval_writes_the_page_and_the_same_figures_as_without_it(model, tiny_tokenizer, tmp_path, capsys):
    save_model(model, tiny_tokenizer, tmp_path / "saved")
    words = [f"--model_path={tmp_path / 'saved'}", f"--text={STORY[0]}", "--device=cpu"]
    assert run(eval_script.main, words) == 0
    plain = capsys.readouterr().out
    assert run(eval_script.main, [*words, f"--html={tmp_path / 'page.html'}"]) == 0
    said = capsys.readouterr()
    with_page = json.loads(said.out)
    without = json.loads(plain)
    assert with_page.pop("loss") == pytest.approx(without.pop("loss"), rel=1e-6)
    assert {name: with_page[name] for name in ("scored_tokens", "accuracy")} == {
        name: without[name] for name in ("scored_tokens", "accuracy")
    }
    assert f"written {tmp_path / 'page.html'}\n" in said.err
    reader = Reader((tmp_path / "page.html").read_text(encoding="utf-8"))
    assert "".join("\n" if text == "↵" else text for text, _ in reader.spans) == STORY[0]


def test_a_folder_in_the_place_of_the_page_is_refused(model, tiny_tokenizer, tmp_path, capsys):
    save_model(model, tiny_tokenizer, tmp_path / "saved")
    (tmp_path / "page").mkdir()
    words = [f"--model_path={tmp_path / 'saved'}", "--text=水", "--device=cpu", f"--html={tmp_path / 'page'}"]
    assert run(eval_script.main, words) == 4
    assert f"error: {tmp_path / 'page'}: cannot be written: Is a directory\n" in capsys.readouterr().err


def test_wordpiece_spans_show_unknown_characters_and_line_breaks(tmp_path):
    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n水\nab\n##c\n", encoding="utf-8")
    tokenizer = load_tokenizer(tmp_path / "vocab.txt")
    ids = tokenizer.encode("水龘abc ab\n")
    spans = find_spans(ids, range(len(ids)), tokenizer)
    assert [span.text for span in spans] == ["水", "[UNK]", "ab", "c", " ab", "\n"]
