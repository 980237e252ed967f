"""The character and subword tokenizers: exact both ways, marks only where they are parsed, text for people."""

import hashlib
import random

import numpy as np
import pytest
from conftest import NOVELS, ROOT, read_novel
from helpers import ALL_CHARACTERS, NASTY, TRAINING_TEXT
from hypothesis import given, settings
from hypothesis import strategies as st

from novelgpt.corpus.tokenizer import load_tokenizer
from novelgpt.corpus.tokenizers.base import save_vocabulary
from novelgpt.corpus.tokenizers.character import CHUNK, CharacterTokenizer
from novelgpt.corpus.tokenizers.subword import BpeTokenizer
from novelgpt.corpus.tokenizers.vocabulary import BYTE_TOKENS, MARKS, build_vocabulary
from novelgpt.messages import EXIT_USAGE, UserError


@pytest.fixture(scope="module")
def small() -> CharacterTokenizer:
    return load_tokenizer(ROOT / "cache" / "vocab_small.txt")


@pytest.fixture(scope="module")
def subwords() -> BpeTokenizer:
    return BpeTokenizer.fit([TRAINING_TEXT], vocab_size=400)


def test_ids_are_the_line_numbers_of_the_characters_and_of_their_bytes(tmp_path):
    tokens = [*MARKS, *BYTE_TOKENS, "萧", "，"]  # bytes from 5 on, 萧 261, ， 262
    save_vocabulary(tmp_path / "vocab.txt", tokens)
    tokenizer = load_tokenizer(tmp_path / "vocab.txt")
    # 炎 is E7 82 8E, 𠮷 is F0 A0 AE B7, é is C3 A9
    expected = [261, 5 + 0xE7, 5 + 0x82, 5 + 0x8E, 262, 5 + 0x41, 5 + 0x0A]
    expected += [5 + byte for byte in (0xF0, 0xA0, 0xAE, 0xB7, 0xC3, 0xA9)] + [261]
    assert tokenizer.encode("萧炎，A\n𠮷é萧").tolist() == expected


def test_attributes(small):
    assert (small.kind, small.vocab_size, small.dtype) == ("character", 13_317, np.uint16)
    assert (small.pad_id, small.unk_id, small.cls_id, small.sep_id, small.mask_id) == (0, 1, 2, 3, 4)
    assert small.newline_id == small.tokens.index("<0x0A>") == 115
    assert small.marks == {name: index for index, name in enumerate(MARKS)}
    assert small.encode("炎").dtype == np.uint16
    data = (ROOT / "cache" / "vocab_small.txt").read_bytes()
    assert small.fingerprint == hashlib.sha256(data).hexdigest()


def test_65536_tokens_need_four_bytes_an_id():
    tokens = [*MARKS, *BYTE_TOKENS, *ALL_CHARACTERS[128 : 128 + 65_536 - 261]]
    tokenizer = CharacterTokenizer(tokens)
    assert tokenizer.encode(tokens[-1]).tolist() == [65_535]
    assert tokenizer.encode("炎").dtype == np.uint32
    assert tokenizer.encode("\U000e0000").tolist() == [5 + byte for byte in (0xF3, 0xA0, 0x80, 0x80)]
    assert CharacterTokenizer(tokens[:-1]).encode("炎").dtype == np.uint16


@pytest.mark.parametrize("name", NOVELS)
def test_novels_come_back_exactly(small, name):
    text = read_novel(name)
    assert small.decode(small.encode(text)) == text


def test_every_code_point_comes_back(small, subwords):
    assert small.decode(small.encode(ALL_CHARACTERS)) == ALL_CHARACTERS
    shuffled = random.Random(0).sample(ALL_CHARACTERS, 20_000)
    assert subwords.decode(subwords.encode("".join(shuffled))) == "".join(shuffled)


@pytest.mark.parametrize("text", NASTY)
def test_odd_texts_come_back_and_hold_no_mark(small, subwords, text):
    for tokenizer in (small, subwords):
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids) == text
        assert not set(ids.tolist()) & set(tokenizer.marks.values())


@settings(max_examples=300, deadline=None)
@given(st.text())
def test_any_text_comes_back(text):
    tokenizer = load_small_once()
    assert tokenizer.decode(tokenizer.encode(text)) == text
    stream = tokenizer.stream()
    assert "".join(stream.push(index) for index in tokenizer.encode(text).tolist()) + stream.flush() == text


def load_small_once(cache: dict = {}) -> CharacterTokenizer:  # noqa: B006 (one tokenizer for all examples)
    if not cache:
        cache["small"] = load_tokenizer(ROOT / "cache" / "vocab_small.txt")
    return cache["small"]


def test_chunks_join_without_a_seam(small):
    text = ("萧" * (CHUNK - 1)) + "𠮷龘é" * 3 + ("炎" * CHUNK) + "\n"
    expected = np.concatenate([small.encode(part) for part in (text[: CHUNK // 2], text[CHUNK // 2 :])])
    assert np.array_equal(small.encode(text), expected)
    assert small.decode(expected) == text


def test_a_lone_surrogate_is_refused_with_its_place(small, subwords):
    for tokenizer, start in ((small, CHUNK + 7), (subwords, 7)):
        with pytest.raises(UserError) as caught:
            tokenizer.encode("炎" * start + "\ud83d")
        assert str(caught.value) == (
            f"error: character {start:,} of the text is the lone surrogate U+D83D\n\n"
            "hint: clean the text first: python clr_ctrl.py"
        )


def test_a_prefix_means_the_same_with_and_without_its_mark(small):
    expected = [small.cls_id, *small.encode("萧炎大喝一声").tolist()]
    assert small.encode_prefix("[CLS]萧炎大喝一声").tolist() == expected
    assert small.encode_prefix("萧炎大喝一声").tolist() == expected
    assert small.encode_prefix("").tolist() == small.encode_prefix("[CLS]").tolist() == [small.cls_id]
    assert small.encode_prefix("").dtype == small.dtype


def test_marks_inside_a_prefix_are_parsed_and_unknown_brackets_are_text(small):
    ids = small.encode_prefix("一[SEP]二[CLS][unused1]").tolist()
    text = small.encode("[unused1]").tolist()
    one, two = small.tokens.index("一"), small.tokens.index("二")
    assert ids == [small.cls_id, one, small.sep_id, two, small.cls_id, *text]


def test_marks_decode_as_their_names_and_are_shown_as_line_breaks(small):
    one, two = small.tokens.index("一"), small.tokens.index("二")
    ids = [2, one, 3, two, 0, 4, 1, 5, 2, one, 2]  # [unused1] is 5
    assert small.decode(ids) == "[CLS]一[SEP]二[PAD][MASK][UNK][unused1][CLS]一[CLS]"
    assert small.show(ids) == "一\n二\n\n一\n\n"
    assert small.show([2, 2]) == small.show([]) == small.decode([]) == ""


def test_people_see_no_half_of_a_character_at_the_end(small):
    byte, yan = small.tokens.index("<0x00>"), small.tokens.index("炎")
    for half in ([0xE7], [0xE7, 0x82], [0xF0, 0xA0, 0xAE]):
        ids = [yan, *(byte + each for each in half)]
        assert small.show(ids) == "炎" and small.decode(ids) == "炎\ufffd"
    assert small.show([yan, byte + 0xE7, yan]) == "炎\ufffd炎"  # in the middle it is seen


def test_bytes_that_form_no_character_become_the_replacement_character(small):
    byte = small.tokens.index("<0x00>")
    yan = small.tokens.index("炎")
    assert small.decode([byte + 0xE7, byte + 0x82, yan, byte + 0x41]) == "\ufffd炎A"
    assert small.decode([yan, byte + 0xFF, byte + 0xFF]) == "炎\ufffd\ufffd"


def test_a_stream_gives_characters_only_when_they_are_whole(small):
    byte = small.tokens.index("<0x00>")
    stream = small.stream()
    # 𠮷 is F0 A0 AE B7; then a mark, then half a character
    ids = [byte + 0xF0, byte + 0xA0, byte + 0xAE, byte + 0xB7, 2, small.tokens.index("炎"), byte + 0xE7]
    assert [stream.push(index) for index in ids] == ["", "", "", "𠮷", "\n\n", "炎", ""]
    assert stream.flush() == "\ufffd"


@pytest.mark.parametrize("wrong", [-1, 13_317])
def test_an_id_outside_the_vocabulary_is_refused(small, wrong):
    with pytest.raises(ValueError, match=f"token id {wrong}, expected 0 to 13316"):
        small.decode([5, wrong])


def test_added_tokens_take_reserved_places_first_and_then_the_end():
    tokenizer = CharacterTokenizer(build_vocabulary(["好"], reserved=1))
    grown = tokenizer.add_tokens(["[问]题]", "<end>", "[CLS]"])
    assert grown.vocab_size == tokenizer.vocab_size + 1
    assert grown.marks["[问]题]"] == 5 and grown.marks["<end>"] == tokenizer.vocab_size
    assert grown.encode_prefix("[问]题]好<end>").tolist() == [2, 5, grown.tokens.index("好"), tokenizer.vocab_size]
    assert grown.decode(grown.encode("[问]题]")) == "[问]题]" and 5 not in grown.encode("[问]题]")
    assert grown.fingerprint != tokenizer.fingerprint


@pytest.mark.parametrize("name", ["题", "[]", "[a]", "[unused7]", "<0x41>", "[a\nb]", "对话"])
def test_a_name_without_brackets_cannot_be_added(small, name):
    with pytest.raises(UserError) as caught:
        small.add_tokens([name])
    assert caught.value.code == EXIT_USAGE
    assert str(caught.value) == (
        f"error: added token {name!r}: expected two or more characters in [brackets] or <brackets>\n\n"
        "hint: write it like [对话] or <end>"
    )
