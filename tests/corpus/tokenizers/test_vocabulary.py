"""The vocabulary file: what is read, what is refused, and what the built ones hold."""

import hashlib
import itertools
from pathlib import Path

import pytest
from conftest import ROOT

from novelgpt.corpus.tokenizers import load_tokenizer
from novelgpt.corpus.tokenizers.base import save_vocabulary
from novelgpt.corpus.tokenizers.fitting import COMMON_IN_BOOKS, UNSEEN_IN_BOOKS, small_vocabulary
from novelgpt.corpus.tokenizers.vocabulary import BYTE_TOKENS, MARKS, build_vocabulary, load_vocabulary
from novelgpt.messages import EXIT_INPUT, EXIT_USAGE, UserError

SMALL_FILE = ROOT / "cache" / "vocab_small.txt"
# of the file as it was until November 2026, which models trained with it carry as their vocab.txt
FORMER_SHA256 = "a8962f9a026ccda5fc06bf29228f57a210e9c8dcf51d938ebc3273de4c5d3f10"


def write(path: Path, tokens) -> Path:
    path.write_bytes("".join(token + "\n" for token in tokens).encode())
    return path


def error_of(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        load_vocabulary(path)
    assert caught.value.code == EXIT_INPUT
    return str(caught.value)


def test_the_shipped_file_is_the_built_list_of_13317_tokens():
    tokens = load_vocabulary(SMALL_FILE)
    assert len(tokens) == len(set(tokens)) == 13_317
    assert tokens == small_vocabulary()
    assert SMALL_FILE.read_bytes().count(b"\n") == 13_317


def test_the_small_vocabulary_covers_gb2312_big5_level_1_and_the_punctuation_of_novels():
    known = set(small_vocabulary())
    gb2312, level1 = set(), set()
    for lead, trail in itertools.product(range(0xA1, 0xFF), range(0x40, 0xFF)):
        if trail >= 0xA1:
            gb2312.update(bytes([lead, trail]).decode("gb2312", "ignore"))
        if 0xA4 <= lead <= 0xC6 and (trail < 0x7F or trail > 0xA0):
            level1.update(bytes([lead, trail]).decode("big5", "ignore"))
    gb2312 = {char for char in gb2312 if char > "\x7f"}
    assert len(gb2312) == 7_445  # 6,763 characters and 682 signs: the size that the standard states
    assert len({char for char in level1 if "\u4e00" <= char <= "\u9fff"}) >= 5_401  # Big5 level 1
    assert gb2312 <= known
    assert {char for char in level1 if char > "\x7f"} <= known
    assert set("—…“”‘’，。！？、；：（）《》【】「」『』·～　０Ａ") <= known


def former_vocabulary() -> list[str]:
    """Undo the exchange in the shipped file."""
    former = dict(zip(COMMON_IN_BOOKS, UNSEEN_IN_BOOKS, strict=True))
    return [former.get(token, token) for token in load_vocabulary(SMALL_FILE)]


def test_only_the_exchanged_characters_changed_their_ids(tmp_path):
    former = former_vocabulary()
    assert hashlib.sha256(write(tmp_path / "former.txt", former).read_bytes()).hexdigest() == FORMER_SHA256
    changed = [index for index, token in enumerate(load_vocabulary(SMALL_FILE)) if token != former[index]]
    assert len(changed) == len(set(COMMON_IN_BOOKS)) == len(set(UNSEEN_IN_BOOKS)) == 577
    assert [former[index] for index in changed] == list(UNSEEN_IN_BOOKS)  # by place
    assert list(COMMON_IN_BOOKS) == sorted(COMMON_IN_BOOKS)


def test_what_gave_way_is_of_big5_level_2_and_in_neither_gb2312_nor_level_1():
    for char in UNSEEN_IN_BOOKS:
        assert char.encode("big5") >= b"\xc9\x40"  # level 1 ends at C67E
        with pytest.raises(UnicodeEncodeError):
            char.encode("gb2312")


def test_common_characters_of_books_are_one_token_each():
    tokenizer = load_tokenizer(SMALL_FILE)
    text = "裏爲牀衆〇啰覷攢躥戩攛秾"
    assert all(len(tokenizer.encode(char)) == 1 for char in text)
    assert tokenizer.decode(tokenizer.encode(COMMON_IN_BOOKS + UNSEEN_IN_BOOKS)) == COMMON_IN_BOOKS + UNSEEN_IN_BOOKS


def test_the_former_file_still_loads_and_writes_those_characters_as_bytes(tmp_path):
    former = load_tokenizer(write(tmp_path / "vocab.txt", former_vocabulary()))
    ids = former.encode("屋裏")
    assert [former.tokens[index] for index in ids] == ["屋", "<0xE8>", "<0xA3>", "<0x8F>"]  # 裏 is U+88CF
    assert former.decode(ids) == "屋裏"


def test_the_small_vocabulary_begins_with_marks_reserved_tokens_and_bytes():
    tokens = small_vocabulary()
    assert tokens[:6] == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[unused1]"]
    assert tokens[104:106] == ["[unused100]", "<0x00>"]
    assert tokens[360] == "<0xFF>"
    assert all(len(token) == 1 and token > "\x7f" for token in tokens[361:])


def test_characters_come_by_falling_count_and_ties_by_code_point():
    tokens = build_vocabulary(["乙乙丙丁", "甲甲甲a\n"], reserved=2)
    assert tokens == [*MARKS, "[unused1]", "[unused2]", *BYTE_TOKENS, "甲", "乙", "丁", "丙"]  # 丁 U+4E01 < 丙 U+4E19


def test_vocab_size_and_min_count_leave_rare_characters_to_bytes():
    texts = ["乙乙丙丁甲甲甲"]
    assert build_vocabulary(texts, reserved=0, vocab_size=262)[261:] == ["甲"]
    assert build_vocabulary(texts, reserved=0, min_count=2)[261:] == ["甲", "乙"]
    assert len(build_vocabulary(texts, reserved=0, vocab_size=261)) == 261


def test_a_vocab_size_below_marks_and_bytes_is_refused():
    with pytest.raises(UserError) as caught:
        build_vocabulary(["好"], vocab_size=280, reserved=20)
    assert caught.value.code == EXIT_USAGE
    assert str(caught.value) == (
        "error: --vocab_size: found 280, expected at least 281 (5 marks, 20 reserved, 256 bytes)\n\n"
        "hint: --vocab_size 13317"
    )


def test_surrogates_and_ascii_get_no_token():
    assert build_vocabulary(["\ud800\udfffa\x00\n\x7f"], reserved=0) == [*MARKS, *BYTE_TOKENS]


def test_what_is_saved_is_read_back_line_separators_included(tmp_path):
    tokens = [*MARKS, *BYTE_TOKENS, "\u2028", "\u2029", "\x85", "\x1c", "\u3000", "\ufeff", "\xa0", "的"]
    save_vocabulary(tmp_path / "vocab.txt", tokens)
    assert load_vocabulary(tmp_path / "vocab.txt") == tokens


@pytest.mark.parametrize("data", [b"\xef\xbb\xbf", b""], ids=["bom", "none"])
@pytest.mark.parametrize("end", ["\r\n", "\n"], ids=["crlf", "lf"])
def test_a_byte_order_mark_and_crlf_are_accepted_with_a_warning(tmp_path, capsys, data, end):
    path = tmp_path / "vocab.txt"
    path.write_bytes(data + "".join(token + end for token in (*MARKS, "的")).encode())
    assert load_vocabulary(path) == [*MARKS, "的"]
    warnings = []
    if data:
        warnings.append(f"warning: {path}: begins with a byte order mark, which is left out\n")
    if end == "\r\n":
        warnings.append(f"warning: {path}: has CRLF line ends, which are read as newlines\n")
    assert capsys.readouterr().err == "".join(warnings)


def test_the_last_newline_may_be_missing(tmp_path):
    (tmp_path / "vocab.txt").write_text("\n".join((*MARKS, "的")), encoding="utf-8")
    assert load_vocabulary(tmp_path / "vocab.txt") == [*MARKS, "的"]


@pytest.mark.parametrize("kept", [kept for size in range(5) for kept in itertools.combinations(MARKS, size)])
def test_every_set_of_missing_marks_is_listed_with_the_lines_to_add(tmp_path, kept):
    missing = [mark for mark in MARKS if mark not in kept]
    path = write(tmp_path / "vocab.txt", [*kept, "的"])
    lines = "\n".join(missing)
    assert error_of(path) == (
        f"error: {path}: the marks {', '.join(missing)} are missing\n\nhint: add these lines to vocab.txt:\n{lines}"
    )


def test_a_duplicate_names_both_lines(tmp_path):
    path = write(tmp_path / "vocab.txt", [*MARKS, "的", "一", "的"])
    assert error_of(path) == f"error: {path}: 的 is on line 6 and again on line 8\n\nhint: delete line 8"


@pytest.mark.parametrize("blank", ["", " ", "\t", "\r"])
def test_a_blank_line_is_refused_with_its_number(tmp_path, blank):
    path = write(tmp_path / "vocab.txt", [*MARKS, blank, "的"])
    assert error_of(path) == f"error: {path}: line 6 is blank, expected a token\n\nhint: delete line 6"


@pytest.mark.parametrize("encoding", ["gbk", "utf-16", "big5"])
def test_another_encoding_is_refused(tmp_path, encoding):
    path = tmp_path / "vocab.txt"
    path.write_bytes("\n".join([*MARKS, "中文"]).encode(encoding))
    line = 1 if encoding == "utf-16" else 6
    assert error_of(path) == f"error: {path}: line {line} is not UTF-8\n\nhint: save the vocabulary as UTF-8"


def test_only_some_byte_tokens_are_refused(tmp_path):
    path = write(tmp_path / "vocab.txt", [*MARKS, *BYTE_TOKENS[:10], *BYTE_TOKENS[11:], "的"])
    assert error_of(path) == (
        f"error: {path}: 255 of the 256 byte tokens <0x00> to <0xFF>, <0x0A> is missing; expected all or none\n\n"
        "hint: python make_vocab.py --raw_data_path data/train.json"
    )


def test_an_empty_or_missing_file_is_refused(tmp_path):
    path = write(tmp_path / "vocab.txt", [])
    hint = "hint: python make_vocab.py --raw_data_path data/train.json"
    assert error_of(path) == f"error: {path}: empty, expected one token a line\n\n{hint}"
    missing = tmp_path / "no.txt"
    assert error_of(missing) == f"error: {missing}: cannot be read: No such file or directory\n\n{hint}"


def test_a_huge_file_is_refused_before_it_is_read(tmp_path):
    path = tmp_path / "vocab.txt"
    with open(path, "wb") as file:
        file.truncate(1 << 40)  # sparse: takes no room on the disk
    assert error_of(path) == (
        f"error: {path}: 1,099,511,627,776 bytes, expected a vocabulary of at most 67,108,864\n\n"
        "hint: python make_vocab.py --raw_data_path data/train.json"
    )


def test_ten_million_lines_are_refused_quickly(tmp_path):
    path = tmp_path / "vocab.txt"
    path.write_bytes(b"\n" * 10_000_001)
    assert error_of(path).startswith(f"error: {path}: more than 10,000,000 lines, expected a vocabulary\n")


def test_escape_sequences_in_a_token_are_shown_harmlessly(tmp_path):
    path = write(tmp_path / "vocab.txt", [*MARKS, "\x1b[31m", "\x1b[31m"])
    assert "\x1b" not in error_of(path)
