"""The WordPiece tokenizer: the ids of transformers' BertTokenizer, line by line, and readable text back."""

import random
from collections import Counter

import numpy as np
import pytest
from conftest import NOVELS, read_novel
from helpers import ALL_CHARACTERS, reference_ids

from novelgpt.corpus.tokenizer import load_tokenizer
from novelgpt.corpus.tokenizers.base import save_vocabulary
from novelgpt.corpus.tokenizers.vocabulary import MARKS
from novelgpt.corpus.tokenizers.wordpiece import MAX_RUNS, WordPieceTokenizer
from novelgpt.messages import UserError

LATIN = "abcdefghijklmnopqrstuvwxyz0123456789"
COMMON = "的一是不了人我在有他这中大来上个国到说们为子和你地出道也时年得就那要下以生会自着去之过家学对可里后小心"
OTHERS = "，。！？：；“”（）、…—くのあいうкирилαβγ가나다éß½①㈱"
WORDS = ["hello", "##ing", "www", "com", "##com", "##の", "##い", "##的", "##123"]
BERT = ["[PAD]", "[unused1]", "[unused2]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "<S>", "<T>"]  # as BERT orders them
SUFFIXES = ["##" + char for char in LATIN]
TOKENS = list(dict.fromkeys([*BERT, *COMMON, *OTHERS, *LATIN, *SUFFIXES, *"[]!.,-:/", *WORDS]))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("bert")
    save_vocabulary(path / "vocab.txt", TOKENS)
    return path


@pytest.fixture(scope="module")
def tokenizer(folder) -> WordPieceTokenizer:
    return load_tokenizer(folder / "vocab.txt")


@pytest.fixture(scope="module")
def reference(folder):
    return new_reference(folder)


def new_reference(folder, **options):
    """Make transformers' tokenizer; special names in a text are text, as for us."""
    from transformers import BertTokenizer

    made = BertTokenizer(str(folder / "vocab.txt"), split_special_tokens=True, **options)
    assert len(made) == len(load_tokenizer(folder).tokens)
    return made


def test_marks_stand_where_the_file_has_them(tokenizer):
    assert tokenizer.kind == "wordpiece"
    assert (tokenizer.pad_id, tokenizer.unk_id, tokenizer.cls_id, tokenizer.sep_id, tokenizer.mask_id) == (
        0,
        3,
        4,
        5,
        6,
    )
    assert tokenizer.newline_id == tokenizer.sep_id
    assert tokenizer.marks == {mark: TOKENS.index(mark) for mark in MARKS}
    assert tokenizer.encode("的").dtype == np.uint16


TEXTS = [
    "",
    "\n",
    "\n\n的\n",
    "Hello中国 WWW.com的123ing hello",
    "[CLS]的[SEP]",
    "的\u0301一\u3000\u200b不\x00了\ufffd人\tab\x00cd\r上",
    "Éé ÀàİıΣσς ﬁ Ω K Å",
    "カきく ぎぐ が\u3099 한글 가나다",
    "a" * 101 + " " + "b" * 100,
    "豈更車\u037e\u0387\u1fef!\u0338=\u0338",
    "𠮷龘\U0002f800👨‍👩‍👧",
    "#的##的 ##ing",
    "½①㈱ⅷ",
]


@pytest.mark.parametrize("text", TEXTS)
def test_odd_lines_have_the_ids_of_bert(tokenizer, reference, text):
    assert tokenizer.encode(text).tolist() == reference_ids(reference, text)


def test_random_mixtures_have_the_ids_of_bert(tokenizer, reference):
    rng = random.Random(1)
    alphabet = [*COMMON, *OTHERS, *LATIN, *"ABC \n\t\u3000[]!.-#", "\u0301", "\x00", "[SEP]", "hello"]
    for _ in range(60):
        strange = rng.sample(ALL_CHARACTERS[:0x3000] + ALL_CHARACTERS[0xA000:0x12000], 20)
        text = "".join(rng.choices(alphabet + strange, k=200))
        assert tokenizer.encode(text).tolist() == reference_ids(reference, text), text


@pytest.mark.slow
@pytest.mark.parametrize("lowercase", [True, False])
def test_every_code_point_has_the_ids_of_bert_between_neighbours_of_both_kinds(folder, lowercase):
    tokenizer, reference = (
        WordPieceTokenizer(TOKENS, lowercase=lowercase),
        new_reference(folder, do_lower_case=lowercase),
    )
    for start in range(0, len(ALL_CHARACTERS), 2_000):
        text = "".join(
            f"的{char}一a{char}b{char}{char}。" for char in ALL_CHARACTERS[start : start + 2_000] if char != "\n"
        )
        assert tokenizer.encode(text).tolist() == reference_ids(reference, text), hex(start)


def test_case_is_kept_where_the_tokenizer_config_says_so(tmp_path):
    save_vocabulary(tmp_path / "vocab.txt", [*TOKENS, "Hello", "É"])
    (tmp_path / "tokenizer_config.json").write_text('{"do_lower_case": false}', encoding="utf-8")
    tokenizer, reference = load_tokenizer(tmp_path), new_reference(tmp_path, do_lower_case=False)
    text = "Hello hello É é的"
    assert tokenizer.encode(text).tolist() == reference_ids(reference, text)
    assert tokenizer.encode("Hello").tolist() == [len(TOKENS)]
    tokenizer.export(tmp_path / "out")
    assert load_tokenizer(tmp_path / "out").fingerprint == tokenizer.fingerprint


def test_settings_of_bert_that_are_not_followed_are_named(tmp_path, capsys):
    save_vocabulary(tmp_path / "vocab.txt", TOKENS)
    path = tmp_path / "tokenizer_config.json"
    path.write_text('{"strip_accents": null, "tokenize_chinese_chars": true}', encoding="utf-8")
    load_tokenizer(tmp_path)
    assert capsys.readouterr().err == ""
    path.write_text('{"strip_accents": false, "tokenize_chinese_chars": false}', encoding="utf-8")
    load_tokenizer(tmp_path)
    assert capsys.readouterr().err == "".join(
        f"warning: {path}: {name} false is not followed; some ids may differ from BERT's\n"
        for name in ("strip_accents", "tokenize_chinese_chars")
    )


@pytest.mark.parametrize("name", NOVELS)
def test_novels_have_the_ids_of_bert(tmp_path, name):
    text = read_novel(name)
    counts = Counter(text)
    frequent = [char for char, _ in counts.most_common(3_000) if char.strip() and char not in TOKENS]
    save_vocabulary(tmp_path / "vocab.txt", [*TOKENS, *frequent])
    tokenizer, reference = load_tokenizer(tmp_path), new_reference(tmp_path)
    part = text if name == "chunfeng.utf8bom.txt" else text[-150_000:]
    assert tokenizer.encode(part).tolist() == reference_ids(reference, part)


@pytest.mark.slow
@pytest.mark.parametrize("name", NOVELS)
def test_whole_novels_have_the_ids_of_bert(tokenizer, reference, name):
    text = read_novel(name)
    assert tokenizer.encode(text).tolist() == reference_ids(reference, text)


def test_the_memory_for_runs_is_bounded(tokenizer, reference):
    fresh = WordPieceTokenizer(TOKENS)
    text = " ".join(f"x{number}" for number in range(MAX_RUNS + 10))
    fresh.encode(text)
    assert len(fresh.runs) == 10
    assert fresh.encode("x1 x2").tolist() == reference_ids(reference, "x1 x2")


def test_text_comes_back_without_spaces_but_between_latin_words(tokenizer):
    text = "hello a b的一c，\n\n你来123。"
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.decode(tokenizer.encode("大 中　小Xb龘")) == "大中小xb[UNK]"


def test_prefix_show_and_stream(tokenizer):
    ids = tokenizer.encode_prefix("[CLS]他说：\nhello b[MASK]")
    assert ids.tolist() == tokenizer.encode_prefix("他说：\nhello b[MASK]").tolist()
    assert ids[0] == tokenizer.cls_id and ids[-1] == tokenizer.mask_id
    assert tokenizer.decode(ids) == "[CLS]他说：\nhello b[MASK]"
    assert tokenizer.show([*ids, tokenizer.cls_id, TOKENS.index("的")]) == "他说：\nhello b\n\n的"
    stream = tokenizer.stream()
    pushed = [stream.push(TOKENS.index(token)) for token in ("hello", "##ing", "b", "的", "[SEP]", "[unused1]", "##的")]
    assert pushed == ["hello", "ing", " b", "的", "\n", "", "的"]
    assert stream.flush() == ""


def test_the_export_reads_and_writes_newlines_without_our_code(tokenizer, tmp_path):
    from transformers import AutoTokenizer

    grown = tokenizer.add_tokens(["[对话]"])
    assert grown.marks["[对话]"] == TOKENS.index("[unused1]")
    grown.export(tmp_path)
    reference = AutoTokenizer.from_pretrained(tmp_path, local_files_only=True)
    text = "hello a b的一c，\n\n你来123。\n"
    assert reference(text)["input_ids"] == grown.encode(text).tolist()
    assert set(reference(text)) == {"input_ids", "attention_mask"}
    assert reference.decode(grown.encode(text)) == grown.decode(grown.encode(text)) == text
    assert reference("[CLS]你[对话]好")["input_ids"] == grown.encode_prefix("你[对话]好").tolist()
    loaded = load_tokenizer(tmp_path)
    assert (loaded.kind, loaded.fingerprint, loaded.marks) == ("wordpiece", grown.fingerprint, grown.marks)


def test_a_lone_surrogate_is_refused_with_its_place(tokenizer):
    with pytest.raises(UserError) as caught:
        tokenizer.encode("的\n\ud800")
    assert caught.value.message == "character 2 of the text is the lone surrogate U+D800"


def test_a_reserved_token_of_thousands_of_digits_is_an_ordinary_one(tmp_path):
    long = f"[unused{'7' * 5000}]"
    save_vocabulary(tmp_path / "vocab.txt", [*MARKS, long, "剑"])
    tokenizer = load_tokenizer(tmp_path / "vocab.txt", size=9)
    assert tokenizer.tokens == [*MARKS, long, "剑", "[unused1]", "[unused2]"]
