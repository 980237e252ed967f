"""What all tokenizers share: one class, the same marks, texts for people, and documents framed by [CLS] everywhere."""

import io
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import ROOT

from novelgpt.corpus import tokenizers
from novelgpt.corpus.pieces import open_pieces, write_pieces
from novelgpt.corpus.records import encode_records
from novelgpt.corpus.tokenizers import NovelTokenizer, load_tokenizer
from novelgpt.corpus.tokenizers.base import save_vocabulary
from novelgpt.corpus.tokenizers.character import CharacterTokenizer
from novelgpt.corpus.tokenizers.subword import BpeTokenizer
from novelgpt.corpus.tokenizers.vocabulary import BYTE_TOKENS, MARKS
from novelgpt.corpus.tokenizers.wordpiece import WordPieceTokenizer
from novelgpt.evaluation.report import text_stream
from novelgpt.messages import UserError
from novelgpt.writing.interactive import Story, write_by_turns

KINDS = {
    "character": CharacterTokenizer([*MARKS, *BYTE_TOKENS, "萧", "炎"]),
    "bpe": BpeTokenizer([*MARKS, *BYTE_TOKENS, "萧", "炎", "萧炎"], [("萧", "炎")]),
    "wordpiece": WordPieceTokenizer([*MARKS, "[unused1]", "萧", "炎"]),
}
# [CLS] is 2; 萧 is 261 and 炎 262 of the character kind, 萧炎 263 of subwords, 萧 6 and 炎 7 of WordPiece
FRAMED = {  # "萧炎" and "炎", a [CLS] before each and one after the last
    "character": [2, 261, 262, 2, 262, 2],
    "bpe": [2, 263, 2, 262, 2],
    "wordpiece": [2, 6, 7, 2, 7, 2],
}
DOCUMENTS = ["萧炎", "炎"]


@pytest.fixture(params=KINDS)
def tokenizer(request) -> NovelTokenizer:
    return KINDS[request.param]


def test_every_class_of_the_wing_is_a_novel_tokenizer():
    assert set(tokenizers.KINDS) == set(NovelTokenizer.__subclasses__())
    assert sorted(kind.kind for kind in tokenizers.KINDS) == sorted(KINDS)


def test_every_kind_has_the_attributes_of_the_base_class(tokenizer):
    ids = {name: getattr(tokenizer, f"{name}_id") for name in ("pad", "unk", "cls", "sep", "mask")}
    assert ids == {"pad": 0, "unk": 1, "cls": 2, "sep": 3, "mask": 4}
    assert tokenizer.newline_id == (3 if tokenizer.kind == "wordpiece" else 5 + 0x0A)
    assert len(tokenizer.tokens) == len(tokenizer.parts) == len(tokenizer.shown) == tokenizer.vocab_size
    assert tokenizer.dtype is np.uint16 and len(tokenizer.fingerprint) == 64


def test_every_kind_shares_marks_texts_and_prefixes(tokenizer):
    for name in ("decode", "show", "add_tokens", "encode_prefix", "encode_document", "begin", "frame", "export"):
        assert getattr(type(tokenizer), name) is getattr(NovelTokenizer, name)
    assert tokenizer.marks == {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "[MASK]": 4}
    text = "萧炎\n炎"
    ids = tokenizer.encode(text)
    assert ids.dtype == tokenizer.dtype == np.uint16
    assert tokenizer.decode(ids) == tokenizer.show(ids) == text
    assert tokenizer.decode([2, *ids, 0]) == "[CLS]萧炎\n炎[PAD]"
    assert tokenizer.show([2, *ids, 2, *ids, 3, 0, 1]) == "萧炎\n炎\n\n萧炎\n炎\n"
    assert (
        tokenizer.encode_prefix("萧炎\n炎").tolist() == tokenizer.encode_prefix("[CLS]萧炎\n炎").tolist() == [2, *ids]
    )


def test_a_stream_writes_what_show_writes(tokenizer):
    ids = tokenizer.encode("萧炎\n炎").tolist()
    stream = tokenizer.stream()
    assert "".join(map(stream.push, [*ids, 2, *ids, 3, 4])) + stream.flush() == tokenizer.show([*ids, 2, *ids, 3, 4])


def test_added_tokens_are_tokens_in_documents_and_marks_are_text(tokenizer):
    grown = tokenizer.add_tokens(["[TIL]", "[TIL]x]"])
    assert type(grown) is type(tokenizer) and grown.kind == tokenizer.kind
    first, second = grown.marks["[TIL]"], grown.marks["[TIL]x]"]
    yan = tokenizer.encode("炎").tolist()
    assert grown.encode_document("[TIL]x]炎[TIL]炎").tolist() == [second, *yan, first, *yan]
    assert not {2, first} & {*grown.encode_document("[CLS]").tolist(), *grown.encode("[TIL]").tolist()}
    assert grown.fingerprint != tokenizer.fingerprint


def test_reserved_and_byte_tokens_are_known_by_id(tokenizer):
    plain = KINDS["wordpiece"]
    assert (plain.reserved, plain.byte_ids.tolist()) == ([5], [])
    assert KINDS["character"].byte_ids.tolist() == KINDS["bpe"].byte_ids.tolist() == list(range(5, 261))


def test_names_to_be_added_may_be_given_when_a_vocabulary_is_loaded(tmp_path):
    save_vocabulary(tmp_path / "vocab.txt", [*MARKS, "[unused1]", *BYTE_TOKENS, "萧"])
    tokenizer = load_tokenizer(tmp_path / "vocab.txt", add_tokens=" [TIL], ,[WS]")
    assert (tokenizer.marks["[TIL]"], tokenizer.marks["[WS]"]) == (5, 263)
    assert load_tokenizer(tmp_path / "vocab.txt", add_tokens=None).vocab_size == 263
    with pytest.raises(UserError):
        load_tokenizer(tmp_path / "vocab.txt", add_tokens="题")


def test_documents_are_framed_by_marks(tokenizer):
    parts = list(tokenizer.frame(map(tokenizer.encode, DOCUMENTS)))
    assert np.concatenate(parts).tolist() == FRAMED[tokenizer.kind]
    assert {part.dtype for part in parts} == {np.dtype(np.uint16)}
    assert [part.tolist() for part in tokenizer.frame([])] == [[2]]


def test_pieces_are_framed(tokenizer, tmp_path):
    source, vocabulary = {"path": "story.json", "sha256": ""}, {"path": "vocab.txt", "sha256": tokenizer.fingerprint}
    write_pieces(DOCUMENTS, tokenizer, tmp_path, num_pieces=1, valid_fraction=0, source=source, vocabulary=vocabulary)
    assert open_pieces(tmp_path).train.read().tolist() == FRAMED[tokenizer.kind]


def test_a_held_out_tail_is_framed_too(tmp_path):
    tokenizer = KINDS["character"]
    source, vocabulary = {"path": "story.json", "sha256": ""}, {"path": "vocab.txt", "sha256": tokenizer.fingerprint}
    sizes = {"num_pieces": 1, "source": source, "vocabulary": vocabulary}
    # 2 + 1 tokens and their marks; a third of the five are two: the second document
    write_pieces(DOCUMENTS, tokenizer, tmp_path / "whole", valid_fraction=1 / 3, **sizes)
    pieces = open_pieces(tmp_path / "whole")
    assert (pieces.train.read().tolist(), pieces.valid.read().tolist()) == ([2, 261, 262, 2], [2, 262, 2])
    # a single document is cut at its newline, which is left out
    write_pieces(["萧\n炎"], tokenizer, tmp_path / "cut", valid_fraction=1 / 3, **sizes)
    pieces = open_pieces(tmp_path / "cut")
    assert (pieces.train.read().tolist(), pieces.valid.read().tolist()) == ([2, 261, 2], [2, 262, 2])


def test_rows_are_framed(tokenizer):
    records = encode_records(DOCUMENTS, tokenizer, block_size=8)
    framed = [FRAMED[tokenizer.kind][:-2], [2, *FRAMED[tokenizer.kind][-2:]]]  # each record by itself
    assert records.ids.tolist() == framed[0] + framed[1]
    grown = tokenizer.add_tokens(["[TIL]"])
    records = encode_records(["萧炎[TIL]炎"], grown, block_size=8, mark="[TIL]")
    assert records.ids.tolist() == [*FRAMED[tokenizer.kind][:-3], grown.marks["[TIL]"], *FRAMED[tokenizer.kind][-2:]]


def test_a_scored_text_is_framed(tokenizer):
    assert text_stream(DOCUMENTS, tokenizer).read().tolist() == FRAMED[tokenizer.kind]


def test_a_text_that_is_written_on_is_framed_in_front_only(tokenizer, tmp_path):
    seen = []

    class Session:
        learner = None

        def __init__(self):
            self.tokenizer = tokenizer

        def grow_batch(self, ids, rule, indices, **values):
            seen.append(ids)
            yield [SimpleNamespace(ids=[], ended="end")]

        def show_new(self, sample):
            return "炎"

    write_by_turns(Session(), Story(tmp_path / "story.txt", "萧炎"), None, io.StringIO("\nq\n"))
    assert seen == [FRAMED[tokenizer.kind][:-3]]


def test_the_door_loads_neither_torch_nor_the_library_of_tokenizers():
    code = "import sys, novelgpt.corpus.tokenizers; print({'torch', 'transformers', 'tokenizers'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
