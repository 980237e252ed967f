"""The subword tokenizer: shorter than characters, exact, the same again from its folder."""

import numpy as np
import pytest
from conftest import ROOT
from helpers import ALL_CHARACTERS, TRAINING_TEXT

from novelgpt.corpus.tokenizer import load_tokenizer
from novelgpt.corpus.tokenizers.character import CharacterTokenizer
from novelgpt.corpus.tokenizers.subword import BpeTokenizer
from novelgpt.messages import UserError


@pytest.fixture(scope="module")
def small() -> CharacterTokenizer:
    return load_tokenizer(ROOT / "cache" / "vocab_small.txt")


@pytest.fixture(scope="module")
def subwords() -> BpeTokenizer:
    return BpeTokenizer.fit([TRAINING_TEXT], vocab_size=400)


@pytest.mark.slow
def test_every_code_point_comes_back_from_subwords(subwords):
    assert subwords.decode(subwords.encode(ALL_CHARACTERS)) == ALL_CHARACTERS


def test_subwords_shorten_the_text_they_were_learned_from(small, subwords):
    assert subwords.kind == "bpe" and subwords.vocab_size <= 400
    assert len(subwords.encode(TRAINING_TEXT)) < 0.5 * len(small.encode(TRAINING_TEXT))
    assert "萧炎" in subwords.tokens
    assert [token for token in subwords.tokens[281:] if any(char < "\x80" for char in token)] == []
    assert BpeTokenizer.fit([TRAINING_TEXT], vocab_size=400).fingerprint == subwords.fingerprint


def test_subwords_round_trip_their_folder(subwords, tmp_path):
    subwords.export(tmp_path)
    for path in (tmp_path, tmp_path / "tokenizer.json"):
        loaded = load_tokenizer(path)
        assert (loaded.kind, loaded.fingerprint) == ("bpe", subwords.fingerprint)
        assert np.array_equal(loaded.encode(TRAINING_TEXT), subwords.encode(TRAINING_TEXT))
    grown = subwords.add_tokens(["[对话]"])
    assert grown.marks["[对话]"] == 5
    assert grown.encode_prefix("[对话]萧炎").tolist() == [2, 5, *subwords.encode("萧炎").tolist()]


def test_rare_characters_of_a_subword_vocabulary_are_bytes():
    tokenizer = BpeTokenizer.fit([TRAINING_TEXT + "龘"], vocab_size=400, min_count=2)
    assert "龘" not in tokenizer.tokens
    assert tokenizer.decode(tokenizer.encode("萧炎龘")) == "萧炎龘"


def test_a_subword_vocabulary_needs_room_for_its_characters():
    with pytest.raises(UserError) as caught:
        BpeTokenizer.fit(["萧炎大"], vocab_size=283, reserved=20)
    assert str(caught.value) == (
        "error: --vocab_size: found 283, expected more than 284 (281 marks, reserved and bytes, 3 characters)\n\n"
        "hint: raise --vocab_size or --min_count"
    )
