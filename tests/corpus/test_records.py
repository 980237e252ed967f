"""Records become the same rows whatever their file's shape and encoding, in any number of processes; titles stay."""

import csv
import json

import numpy as np
import pytest
from conftest import STORY
from hypothesis import given
from hypothesis import strategies as st

from novelgpt.corpus.records import encode_records, read_records
from novelgpt.corpus.tokenizer import load_tokenizer
from novelgpt.corpus.tokenizers.character import CharacterTokenizer
from novelgpt.corpus.tokenizers.vocabulary import MARKS, build_vocabulary
from novelgpt.corpus.tokenizers.wordpiece import WordPieceTokenizer
from novelgpt.messages import UserError

LINES = ["乔一斗坐在井边，数着水里的星星。", "“水又少了一寸。”他说。", "闻人雀的剑只有半截，半截也够用。"]
CHARACTERS = CharacterTokenizer(build_vocabulary(STORY)).add_tokens(["[TIL]", "[WS]"])
BERT = WordPieceTokenizer([*MARKS, *sorted(set("".join(STORY)) - {"\n"})]).add_tokens(["[TIL]", "[WS]"])


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "gb18030", "utf-16"])
def test_lines_cells_and_json_values_are_the_same_records_in_any_encoding(tmp_path, encoding):
    table = tmp_path / "a.csv"
    with open(table, "w", encoding=encoding, newline="") as file:
        csv.writer(file).writerows([["number", "body"], *enumerate(LINES)])
    (tmp_path / "a.txt").write_text("\r\n\r\n".join(LINES) + "\r\n", encoding=encoding)
    (tmp_path / "a.json").write_text(json.dumps([{"body": x} for x in LINES], ensure_ascii=False), encoding=encoding)
    lines = "\n".join(json.dumps({"body": x}, ensure_ascii=False) for x in LINES)
    (tmp_path / "a.jsonl").write_text(lines, encoding=encoding)
    assert read_records(tmp_path / "a.txt") == LINES
    for name in ("a.csv", "a.json", "a.jsonl"):
        assert read_records(tmp_path / name, "body") == LINES


def test_a_cell_of_several_lines_is_one_record_with_newlines(tmp_path):
    (tmp_path / "a.csv").write_bytes('text\r\n"井里\r\n有水"\r\n\r\n" "\r\n'.encode())
    assert read_records(tmp_path / "a.csv") == ["井里\n有水"]


def test_a_file_that_is_not_there_names_the_command_that_makes_one(tmp_path):
    with pytest.raises(UserError) as caught:
        read_records(tmp_path / "titles.csv")
    assert str(caught.value) == (
        f"error: {tmp_path}/titles.csv: no such file of records\n\n"
        "hint: name a file of your own, or make one of a novel's chapters: python clr_ctrl.py --titles data/titles.csv"
    )


def test_a_column_that_is_not_there_and_one_of_a_text_file_are_refused(tmp_path):
    (tmp_path / "a.csv").write_text("number,story\n1,井里有水\n", encoding="utf-8")
    (tmp_path / "a.txt").write_text("井里有水\n", encoding="utf-8")
    with pytest.raises(UserError) as caught:
        read_records(tmp_path / "a.csv")
    assert str(caught.value) == (
        f"error: {tmp_path}/a.csv: found the columns number, story, expected 'text' or 'content'\n\n"
        "hint: --text_column story"
    )
    with pytest.raises(UserError) as caught:
        read_records(tmp_path / "a.txt", "body")
    assert str(caught.value) == (
        f"error: --text_column body: {tmp_path}/a.txt has lines, not columns\n\n"
        "hint: leave --text_column out, or give a .csv, .json or .jsonl file"
    )


def expected_row(tokenizer, before: list[int], title: list[int] | None, block: int) -> tuple[list[int], int]:
    """Return ids and the first scored place of a record, worked out token by token."""
    cls = tokenizer.cls_id
    if title is None:
        return [cls, *before, cls][:block], 1
    while before and 1 + len(before) + 1 + len(title) + 1 > block:
        before = before[1:]
    return [cls, *before, tokenizer.marks["[TIL]"], *title, cls][:block], len(before) + 2


texts = st.text(st.sampled_from("乔一斗坐在井边水星剑潮ab。\n"), max_size=20)


@pytest.mark.parametrize("tokenizer", [CHARACTERS, BERT], ids=["character", "wordpiece"])
@given(parts=st.lists(st.tuples(texts, st.none() | texts), min_size=1, max_size=6), block=st.integers(4, 24))
def test_rows_are_those_of_a_loop_over_tokens(tokenizer, parts, block):
    for mark in ("[TIL]", None):
        records = [text if title is None else f"{text}[TIL]{title}" for text, title in parts]
        rows = encode_records(records, tokenizer, block_size=block, mark=mark)
        expected = []
        for text, title in parts:
            before = tokenizer.encode(text).tolist()
            if mark:
                wanted = title is not None and title.strip() and len(tokenizer.encode(title))
                if wanted:
                    expected.append(expected_row(tokenizer, before, tokenizer.encode(title).tolist(), block))
            elif title is not None:
                whole = [*before, tokenizer.marks["[TIL]"], *tokenizer.encode(title).tolist()]
                expected.append(expected_row(tokenizer, whole, None, block))
            elif text.strip() and before:
                expected.append(expected_row(tokenizer, before, None, block))
        found = [rows.ids[start:stop].tolist() for start, stop in zip(rows.starts[:-1], rows.starts[1:], strict=True)]
        assert list(zip(found, rows.first.tolist(), strict=True)) == expected
        assert rows.skipped == len(parts) - len(expected)


def test_a_record_too_long_keeps_its_title_whole_and_is_counted():
    text = "".join(STORY).replace("\n", "")
    rows = encode_records([f"{text}[TIL]井", "井[TIL]潮"], CHARACTERS, block_size=12, mark="[TIL]")
    assert rows.cut == 1
    assert CHARACTERS.decode(rows.ids) == f"[CLS]{text[-8:]}[TIL]井[CLS][CLS]井[TIL]潮[CLS]"
    assert rows.first.tolist() == [10, 3]
    assert (rows.tokens, rows.characters) == (4, 2)  # two titles of one character, a [CLS] after each


def test_a_title_longer_than_the_block_loses_its_end():
    rows = encode_records(["井边[TIL]乔一斗坐在井边"], CHARACTERS, block_size=6, mark="[TIL]")
    assert CHARACTERS.decode(rows.ids) == "[CLS][TIL]乔一斗坐"
    assert (rows.cut, rows.tokens) == (1, 8)


def test_added_tokens_count_in_a_record_and_marks_of_the_frame_are_text():
    rows = encode_records(["井[WS]边[CLS]"], CHARACTERS, block_size=16)
    ids = CHARACTERS.marks
    assert rows.ids.tolist()[1:4] == [int(CHARACTERS.encode("井")[0]), ids["[WS]"], int(CHARACTERS.encode("边")[0])]
    assert rows.ids.tolist().count(ids["[CLS]"]) == 2  # the frame alone
    assert len(rows.ids) == 3 + 5 + 2


def test_the_rows_are_the_same_with_any_number_of_processes(monkeypatch, tmp_path):
    monkeypatch.setattr("novelgpt.corpus.records.TASK", 200)  # characters, so that there are several tasks
    records = [f"{'井水来了' * (number % 13)}{number}[TIL]{number % 3 * '潮'}" for number in range(60)]
    one, three = (encode_records(records, BERT, block_size=20, mark="[TIL]", num_workers=n) for n in (1, 3))
    assert one.skipped == 20 and one.cut > 10 and len(one) == 40
    for name in ("ids", "starts", "first"):
        ours, theirs = getattr(one, name), getattr(three, name)
        assert ours.dtype == theirs.dtype and np.array_equal(ours, theirs)
    assert [one.tokens, one.characters, one.cut, one.skipped] == [
        three.tokens,
        three.characters,
        three.cut,
        three.skipped,
    ]


def test_reserved_places_of_a_vocabulary_take_the_mark(tmp_path):
    (tmp_path / "vocab.txt").write_text("\n".join(build_vocabulary(STORY)) + "\n", encoding="utf-8")
    tokenizer = load_tokenizer(tmp_path / "vocab.txt")
    more = tokenizer.add_tokens(["[TIL]"])
    assert more.vocab_size == tokenizer.vocab_size and tokenizer.tokens[more.marks["[TIL]"]] == "[unused1]"
