"""Where texts end: sentences, paragraphs, chapters, loops, bounds."""

import pytest
import torch

from novelgpt.corpus.style import find_loop
from novelgpt.corpus.tokenizers.character import CharacterTokenizer
from novelgpt.corpus.tokenizers.vocabulary import build_vocabulary
from novelgpt.writing.text import Endings, Sample, StopRule

TEXT = "萧炎大喝一声，那人抬起头来。“走！”她说道：风起了……山中无人？月落乌啼霜满天江枫渔火对愁眠"


@pytest.fixture(scope="module")
def tokenizer():
    return CharacterTokenizer(build_vocabulary([TEXT], reserved=3))


def ids_of(tokenizer, text: str) -> list[int]:
    return tokenizer.encode_prefix(text).tolist()[1:]


@pytest.mark.parametrize(
    ("text", "first", "stop", "expected"),
    [
        ("人来。走", 1, "sentence", "人来。"),
        ("她说：“走！”人", 1, "sentence", "她说：“走！”"),
        ("风起……人", 1, "sentence", "风起……"),
        ("风起……", 1, "sentence", None),  # another … may follow
        ("人来。走。她", 4, "sentence", "人来。走。"),
        ("人来\n走", 1, "sentence", "人来"),
        ("人来。走\n她", 1, "paragraph", "人来。走"),
        ("人来\n走[CLS]她", 1, "chapter", "人来\n走"),
        ("人来\n走。", 1, "chapter", None),
    ],
)
def test_texts_end_where_sentences_paragraphs_and_chapters_end(tokenizer, text, first, stop, expected):
    ids = ids_of(tokenizer, text)
    place = Endings(tokenizer).find_end(ids, first, stop)
    assert (None if place is None else tokenizer.decode(ids[:place])) == expected


def test_a_sample_ends_at_the_first_sentence_end_after_its_length(tokenizer):
    endings = Endings(tokenizer)
    sample = Sample(0, [2])
    sample.extend(ids_of(tokenizer, "人来。走。风起"), StopRule(3, "sentence"), endings)
    assert (tokenizer.decode(sample.ids), sample.ended) == ("人来。", "sentence")
    sample = Sample(0, [2])
    sample.extend(ids_of(tokenizer, "人来。走走走走。风起"), StopRule(4, "sentence"), endings)
    assert (tokenizer.decode(sample.ids), sample.ended) == ("人来。走走走走。", "sentence")


def test_a_search_without_an_end_stops_at_its_bound(tokenizer):
    sample = Sample(0, [2])
    sample.extend(ids_of(tokenizer, "人" * 300), StopRule(50, "sentence"), Endings(tokenizer))
    assert (len(sample.ids), sample.ended) == (250, "bound")
    sample = Sample(0, [2])
    sample.extend(ids_of(tokenizer, "人" * 60 + "。" + "来" * 1000), StopRule(50, "paragraph"), Endings(tokenizer))
    assert (len(sample.ids), sample.ended) == (61, "bound")


def test_a_loop_is_cut_after_its_first_round_however_the_tokens_come(tokenizer):
    ids = ids_of(tokenizer, "月落乌啼" + "山中无人。" * 40)
    for size in (1, 7, 16, len(ids)):
        sample = Sample(0, [2])
        for first in range(0, len(ids), size):
            sample.extend(ids[first : first + size], StopRule(1000, cut_loops=True), Endings(tokenizer))
        assert (tokenizer.decode(sample.ids), sample.ended) == ("月落乌啼山中无人。", "loop")


def test_a_loop_is_four_rounds_and_sixty_tokens_of_at_most_120_each():
    generator = torch.Generator().manual_seed(0)
    for period in (1, 2, 17, 119, 120, 121):
        start = torch.randint(0, 1000, (50,), generator=generator).tolist()
        round_ = torch.randint(0, 1000, (period,), generator=generator).tolist()
        length = max(60, 4 * period)
        ids = start + (round_ * length)[:length]
        assert find_loop(ids) == (50 + period if period <= 120 else None)
        assert find_loop(ids[:-1]) is None
