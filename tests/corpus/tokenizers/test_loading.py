"""Vocabularies on disk: what is refused, and in which words."""

import json

import pytest

from novelgpt.corpus.tokenizer import load_tokenizer
from novelgpt.corpus.tokenizers.base import save_vocabulary
from novelgpt.corpus.tokenizers.vocabulary import BYTE_TOKENS, MARKS
from novelgpt.messages import UserError

MALFORMED = [
    "[]",
    "{}",
    '{"model": 3, "added_tokens": []}',
    '{"model": {"type": "BPE", "vocab": {"a": 1}, "merges": []}, "added_tokens": []}',
    '{"model": {"type": "BPE", "vocab": {"a": 0}, "merges": [3], "byte_fallback": true}, "added_tokens": []}',
    '{"model": {"type": "BPE", "vocab": ["a"], "merges": [], "byte_fallback": true}, "added_tokens": []}',
    '{"model": {"type": "BPE", "vocab": {"a": "0"}, "merges": []}, "added_tokens": [3]}',
]


def test_a_listing_of_subwords_is_refused_as_a_character_vocabulary(tmp_path):
    save_vocabulary(tmp_path / "vocab.txt", [*MARKS, *BYTE_TOKENS, "萧", "萧炎"])
    with pytest.raises(UserError) as caught:
        load_tokenizer(tmp_path / "vocab.txt")
    assert str(caught.value) == (
        f"error: {tmp_path / 'vocab.txt'}: line 263: 萧炎 has several characters, "
        "expected one or a mark in brackets\n\n"
        "hint: give the tokenizer.json that belongs to this list"
    )


def test_a_folder_without_a_vocabulary_is_refused(tmp_path):
    with pytest.raises(UserError) as caught:
        load_tokenizer(tmp_path)
    assert str(caught.value) == (
        f"error: {tmp_path}: neither tokenizer.json nor vocab.txt\n\n"
        "hint: give a vocabulary file like cache/vocab_small.txt, or a model folder with tokenizer.json or vocab.txt"
    )


@pytest.mark.parametrize("text", MALFORMED)
def test_a_tokenizer_json_without_a_vocabulary_is_refused(tmp_path, text):
    path = tmp_path / "tokenizer.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError) as caught:
        load_tokenizer(path)
    assert caught.value.message == f"{path}: not a tokenizer.json with a vocabulary"


def test_a_byte_level_tokenizer_of_another_model_is_refused(tmp_path):
    path = tmp_path / "tokenizer.json"
    model = {"type": "BPE", "vocab": {"a": 0}, "merges": [], "byte_fallback": False}
    path.write_text(json.dumps({"model": model, "added_tokens": []}), encoding="utf-8")
    with pytest.raises(UserError) as caught:
        load_tokenizer(path)
    assert caught.value.message == f"{path}: a tokenizer of the kind BPE without byte tokens is not known"
