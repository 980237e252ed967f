"""Pieces: nothing lost at a border, nothing damaged or stale accepted, nothing half-written."""

import json
import os
import random
import shutil
from pathlib import Path

import numpy as np
import pytest

from novelgpt.corpus.pieces import TokenStream, open_pieces, write_pieces
from novelgpt.corpus.pieces import pieces as pieces_module
from novelgpt.corpus.pieces.pieces import piece_spans
from novelgpt.corpus.tokenizers.character import CharacterTokenizer
from novelgpt.corpus.tokenizers.vocabulary import MARKS, build_vocabulary
from novelgpt.corpus.tokenizers.wordpiece import WordPieceTokenizer
from novelgpt.messages import EXIT_ENVIRONMENT, EXIT_INPUT, EXIT_STATE, UserError

TOKENIZER = CharacterTokenizer(build_vocabulary(["甲乙丙丁戊己庚辛壬癸"], reserved=0))
SOURCE = {"path": "data/train.json", "sha256": "a" * 64}
VOCABULARY = {"path": "cache/vocab.txt", "sha256": "b" * 64, "kind": "character", "size": 271}
COMMAND = (
    "python tokenize_corpus.py --raw_data_path data/train.json --tokenized_data_path {folder} "
    "--tokenizer_path cache/vocab.txt --num_pieces {num_pieces} --valid_fraction {valid_fraction} --min_length 0"
)


def make(folder: Path, documents, tokenizer=TOKENIZER, **options) -> dict:
    return write_pieces(documents, tokenizer, folder, source=SOURCE, vocabulary=VOCABULARY, **options)


def error_of(call, *arguments, **options) -> UserError:
    with pytest.raises(UserError) as caught:
        call(*arguments, **options)
    return caught.value


def chapters(count: int, length: int = 10) -> list[str]:
    """Make documents that differ: the first has one 乙 in place of a 甲, the second two."""
    return ["乙" * (number % length + 1) + "甲" * (length - 1 - number % length) for number in range(count)]


def laid_out(documents) -> list[int]:
    """Work out the stream of some documents by hand: [CLS] before each and after the last."""
    ids = []
    for document in documents:
        ids += [2, *(TOKENIZER.tokens.index(char) for char in document)]
    return [*ids, 2] if documents else []


def test_the_files_hold_what_the_format_says(tmp_path):
    manifest = make(tmp_path, ["甲乙", "丙", "丁戊己"], num_pieces=2, valid_fraction=0.3)
    # [CLS]甲乙[CLS]丙[CLS] | [CLS]丁戊己[CLS]: 6 tokens in two pieces, 5 held out in two (as long as those of train)
    assert sorted(path.name for path in tmp_path.iterdir() if not path.name.startswith(".")) == [
        "manifest.json",
        "tokenized_train_0.npy",
        "tokenized_train_1.npy",
        "tokenized_valid_0.npy",
        "tokenized_valid_1.npy",
    ]
    first = np.load(tmp_path / "tokenized_train_0.npy", allow_pickle=False)
    assert (first.dtype, first.shape) == (np.uint16, (3,))
    assert first.tolist() == [2, 261 + TOKENIZER.tokens[261:].index("甲"), TOKENIZER.tokens.index("乙")]
    assert manifest["train"] == {"documents": 2, "characters": 3, "tokens": 6}
    assert manifest["valid"] == {"documents": 1, "characters": 3, "tokens": 5}
    assert manifest["options"] == {"num_pieces": 2, "valid_fraction": 0.3, "min_length": 0}
    opened = open_pieces(tmp_path)
    assert opened.train.read().tolist() == laid_out(["甲乙", "丙"])
    assert opened.valid.read().tolist() == laid_out(["丁戊己"])
    assert isinstance(opened.train.arrays[0], np.memmap)
    assert opened.manifest == manifest


@pytest.mark.parametrize(
    "count",
    [number if number % 10 in (1, 2) else pytest.param(number, marks=pytest.mark.sweep) for number in range(1, 51)],
)
def test_documents_and_pieces_of_every_number_partition_the_tokens(tmp_path, count, monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda handle: None)
    documents = chapters(count)
    for num_pieces in {1, count, 200, random.Random(count).randint(2, 199)}:
        manifest = make(tmp_path, documents, num_pieces=num_pieces, valid_fraction=0)
        opened = open_pieces(tmp_path)
        assert opened.train.read().tolist() == laid_out(documents)
        assert len(opened.valid) == 0 and opened.valid.read().tolist() == []
        lengths = [entry["tokens"] for entry in manifest["pieces"]]
        assert len(lengths) == min(num_pieces, 11 * count + 1) and max(lengths) - min(lengths) <= 1


@pytest.mark.parametrize("count", range(51))
def test_every_number_of_pieces_cuts_the_stream_without_gap_or_overlap(count):
    tokens = 11 * count + 1 if count else 0
    for num_pieces in range(1, 201):
        spans = piece_spans(tokens, num_pieces)
        assert [start for start, _ in spans] == [0, *(stop for _, stop in spans[:-1])][: len(spans)]
        assert (spans[-1][1] if spans else 0) == tokens and all(start < stop for start, stop in spans)
        assert len(spans) == min(num_pieces, tokens)


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 2, 3, 10, 50])
def test_all_numbers_of_pieces_partition_the_tokens(tmp_path, count, monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda handle: None)  # a million flushes would take hours
    for num_pieces in range(1, 201):
        make(tmp_path, chapters(count), num_pieces=num_pieces, valid_fraction=0.1 if count > 1 else 0)
        opened = open_pieces(tmp_path)
        held = opened.manifest["valid"]["documents"]
        assert opened.train.read().tolist() == laid_out(chapters(count)[: count - held])
        assert opened.valid.read().tolist() == laid_out(chapters(count)[count - held :])


@pytest.mark.parametrize("fraction", [0.01, 0.05, 0.1, 0.33, 0.5, 0.8])
@pytest.mark.parametrize("count", [2, 3, 10, 50])
def test_whole_chapters_are_held_out_until_the_fraction_is_reached(tmp_path, count, fraction):
    documents = chapters(count)
    make(tmp_path, documents, valid_fraction=fraction)
    opened = open_pieces(tmp_path)
    total, held = 11 * count, opened.manifest["valid"]["documents"]
    assert opened.train.read().tolist() == laid_out(documents[: count - held])
    assert opened.valid.read().tolist() == laid_out(documents[count - held :])
    enough = next(number for number in range(1, count + 1) if 11 * number >= fraction * total)
    assert held == min(enough, count - 1)  # the first chapter always stays


def test_a_single_document_is_cut_at_the_end_of_a_paragraph(tmp_path):
    paragraphs = ["甲乙丙丁"] * 9 + ["戊己"]  # 1 + 9 · 5 + 2 = 48 tokens
    manifest = make(tmp_path, ["\n".join(paragraphs)], valid_fraction=0.1)  # 4.8 tokens: two paragraphs must go
    opened = open_pieces(tmp_path)
    assert TOKENIZER.decode(opened.train.read()) == "[CLS]" + "\n".join(paragraphs[:8]) + "[CLS]"
    assert TOKENIZER.decode(opened.valid.read()) == "[CLS]甲乙丙丁\n戊己[CLS]"
    assert manifest["train"]["characters"] == 8 * 4 + 7 and manifest["valid"]["characters"] == 4 + 1 + 2
    assert manifest["train"]["documents"] == manifest["valid"]["documents"] == 1


def test_a_long_last_chapter_is_cut_rather_than_held_out_whole(tmp_path):
    last = "\n".join(["甲乙丙丁"] * 40)
    make(tmp_path, ["甲" * 20, last], valid_fraction=0.05)  # 222 tokens: 11.1 asked, the last chapter has 200
    opened = open_pieces(tmp_path)
    assert TOKENIZER.decode(opened.valid.read()) == "[CLS]" + "\n".join(["甲乙丙丁"] * 3) + "[CLS]"
    assert TOKENIZER.decode(opened.train.read()).startswith("[CLS]" + "甲" * 20 + "[CLS]甲乙丙丁\n")


@pytest.mark.parametrize(
    ("document", "train", "valid"),
    [
        # 101 tokens with [CLS], of which the last 11 are asked for: the cut goes before token 90
        ("甲" * 100, "甲" * 89, "甲" * 11),
        # a sentence ends 3 tokens before it; behind the closing quote, where there is one
        ("甲" * 85 + "。" + "乙" * 14, "甲" * 85 + "。", "乙" * 14),
        ("甲" * 84 + "！”" + "乙" * 14, "甲" * 84 + "！”", "乙" * 14),
        # too far back, where twice as much would be held out
        ("甲" * 70 + "。" + "乙" * 29, "甲" * 70 + "。" + "乙" * 18, "乙" * 11),
        # a heading's newline is no place to cut at
        ("甲乙\n" + "丙" * 97, "甲乙\n" + "丙" * 86, "丙" * 11),
        # 龘 is three bytes, which stay together: 89 + 3 · 4 = 101
        ("甲" * 88 + "龘" * 4, "甲" * 88, "龘" * 4),
        ("甲乙", "甲", "乙"),
    ],
    ids=["anywhere", "sentence", "quote", "too far", "heading", "bytes", "two"],
)
def test_a_single_document_is_cut_at_a_sentence_end_or_else_anywhere(tmp_path, document, train, valid):
    tokenizer = CharacterTokenizer(build_vocabulary(["甲乙丙。！”"], reserved=0))
    manifest = make(tmp_path, [document], tokenizer, valid_fraction=0.1 if len(document) > 2 else 0.5)
    opened = open_pieces(tmp_path)
    shown = [tokenizer.decode(stream.read()) for stream in (opened.train, opened.valid)]
    assert shown == [f"[CLS]{train}[CLS]", f"[CLS]{valid}[CLS]"]
    assert [manifest[part]["characters"] for part in ("train", "valid")] == [len(train), len(valid)]


def test_a_document_of_one_token_cannot_be_cut(tmp_path, capsys):
    make(tmp_path, ["甲"], valid_fraction=0.1, num_pieces=1)
    assert len(open_pieces(tmp_path).valid) == 0
    assert capsys.readouterr().err == "warning: nothing is held out: the only document has a single token\n"


@pytest.mark.parametrize(
    ("documents", "tokenizer", "outside"),
    [
        (["甲乙丙丁" * 30, "abc\n1"], TOKENIZER, 0),  # ASCII is spelled in bytes by every vocabulary
        (["龘" + "甲" * 40, "é丁𠮷"], TOKENIZER, 3),  # three, two and four bytes
        (["甲 乙 龘", "龘"], WordPieceTokenizer([*MARKS, "甲", "乙"]), 2),
    ],
)
def test_characters_outside_the_vocabulary_are_counted(tmp_path, documents, tokenizer, outside):
    assert make(tmp_path, documents, tokenizer, valid_fraction=0)["outside_vocabulary"] == outside


def test_a_wordpiece_corpus_is_cut_at_its_sep(tmp_path):
    tokenizer = WordPieceTokenizer([*MARKS, "甲", "乙"])
    make(tmp_path, ["\n".join(["甲 乙"] * 10)], tokenizer, valid_fraction=0.2)
    assert open_pieces(tmp_path).valid.read().tolist() == [2, 5, 6, 3, 5, 6, 2]


def test_fewer_tokens_than_pieces_give_fewer_pieces_and_a_warning(tmp_path, capsys):
    manifest = make(tmp_path, ["甲"], num_pieces=100, valid_fraction=0)
    assert [entry["tokens"] for entry in manifest["pieces"]] == [1, 1, 1]
    assert capsys.readouterr().err == "warning: --num_pieces 100: only 3 tokens, so 3 pieces are written\n"


def test_short_and_empty_documents_are_left_out_and_counted(tmp_path):
    manifest = make(tmp_path, ["甲乙丙", "", "甲乙", "丁戊己庚"], min_length=3, valid_fraction=0)
    assert open_pieces(tmp_path).train.read().tolist() == laid_out(["甲乙丙", "丁戊己庚"])
    assert manifest["left_out"] == {"documents": 2, "characters": 2}


def test_a_corpus_without_a_long_document_is_refused_with_a_histogram(tmp_path):
    problem = error_of(make, tmp_path / "set", ["甲" * 5, "甲" * 20, "甲" * 30, ""], min_length=128)
    assert problem.code == EXIT_INPUT
    assert str(problem) == (
        "error: --min_length 128: all 4 documents are shorter\n"
        "  0 to 0 characters: 1\n"
        "  1 to 9 characters: 1\n"
        "  10 to 30 characters: 2\n\n"
        "hint: --min_length 15"
    )
    assert not (tmp_path / "set").exists()


@pytest.mark.parametrize("documents", [[], [""], ["", ""]])
def test_a_corpus_without_text_is_refused(tmp_path, documents):
    problem = error_of(make, tmp_path, documents)
    assert str(problem) == (f"error: {len(documents)} documents without any text\n\nhint: python clr_ctrl.py NOVEL.txt")


def test_ids_of_65536_tokens_are_stored_in_four_bytes(tmp_path):
    tokens = [*TOKENIZER.tokens, *map(chr, range(0x10000, 0x20000))]
    make(tmp_path, ["甲\U0001ffff"], CharacterTokenizer(tokens), valid_fraction=0)
    opened = open_pieces(tmp_path)
    assert opened.train.dtype == np.uint32
    assert opened.train.read().tolist() == [2, tokens.index("甲"), len(tokens) - 1, 2]


def test_a_stream_reads_like_one_array():
    rng = np.random.default_rng(0)
    whole = rng.integers(0, 1000, 200).astype(np.uint16)
    for _ in range(50):
        cuts = np.sort(rng.integers(0, 201, rng.integers(0, 12)))
        stream = TokenStream(np.split(whole, cuts))
        assert len(stream) == 200
        for start, stop in rng.integers(-210, 210, (20, 2)):
            assert np.array_equal(stream[start:stop], whole[start:stop])
        starts = rng.integers(0, 200 - 17 + 1, 5)
        assert np.array_equal(stream.gather(starts, 17), np.stack([whole[start : start + 17] for start in starts]))
        assert np.array_equal(stream.find(int(whole[7])), np.flatnonzero(whole == whole[7]))
    assert TokenStream([]).read().tolist() == []
    with pytest.raises(IndexError, match="window 190:207 reaches beyond the stream of 200 tokens"):
        stream.gather(np.array([190]), 17)
    with pytest.raises(ValueError, match="step 2"):
        stream[::2]


def test_document_starts_are_the_places_of_cls(tmp_path):
    make(tmp_path, ["甲乙", "[CLS]", "丙"], valid_fraction=0, num_pieces=5)
    assert open_pieces(tmp_path).train.find(2).tolist() == [0, 3, 9, 11]


def test_without_a_manifest_there_are_no_pieces(tmp_path):
    problem = error_of(open_pieces, tmp_path)
    assert problem.code == EXIT_STATE
    assert str(problem) == (
        f"error: {tmp_path}: no pieces here (manifest.json is missing)\n\n"
        f"hint: python tokenize_corpus.py --raw_data_path data/train.json --tokenized_data_path {tmp_path} "
        "--tokenizer_path cache/vocab_small.txt"
    )
    assert "no pieces here" in error_of(open_pieces, tmp_path / "absent").message


@pytest.fixture
def small_set(tmp_path) -> Path:
    make(tmp_path, chapters(6), num_pieces=3, valid_fraction=0.2)
    return tmp_path


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name[0] != "."}


def expect_damage(folder: Path, what: str) -> None:
    problem = error_of(open_pieces, folder)
    assert problem.code == EXIT_STATE
    assert problem.message == f"{folder}: {what}"
    assert problem.hint == COMMAND.format(folder=folder, num_pieces=3, valid_fraction=0.2)


def test_structural_damage_is_named(small_set):
    whole = contents(small_set)
    first, second = small_set / "tokenized_train_0.npy", small_set / "tokenized_train_2.npy"
    size = len(whole[first.name])
    first.unlink()
    expect_damage(small_set, "tokenized_train_0.npy is missing")
    first.write_bytes(whole[first.name][:-1])
    expect_damage(small_set, f"tokenized_train_0.npy has {size - 1} bytes, expected {size}")
    first.write_bytes(b"")
    expect_damage(small_set, f"tokenized_train_0.npy has 0 bytes, expected {size}")
    first.write_bytes(whole[first.name])
    (small_set / "tokenized_train_3.npy").write_bytes(whole[first.name])
    expect_damage(small_set, "tokenized_train_3.npy does not belong to the set")
    (small_set / "tokenized_train_3.npy").unlink()
    first.write_bytes(whole[second.name])
    second.write_bytes(whole[first.name])
    problem = error_of(open_pieces, small_set)
    assert "tokenized_train_0.npy has changed: its sha256 is" in problem.message
    first.write_bytes(whole[first.name])
    second.write_bytes(whole[second.name])
    assert len(open_pieces(small_set).train) > 0


def test_a_header_that_lies_is_noticed_without_reading_all_bytes(small_set):
    path = small_set / "tokenized_train_0.npy"
    data = path.read_bytes()
    path.write_bytes(data.replace(b"'<u2'", b"'|O' "))
    problem = error_of(open_pieces, small_set, hashes=False)
    length = json.loads((small_set / "manifest.json").read_bytes())["pieces"][0]["tokens"]
    expected = f"{small_set}: tokenized_train_0.npy does not begin as {length} tokens of uint16 in a .npy file"
    assert problem.message == expected


def flip_and_cut(folder: Path, flips: int, cuts: int) -> None:
    """Flip single bits and cut files short at seeded places; every one must be refused, none with a traceback."""
    rng = random.Random(5)
    whole = contents(folder)
    names = sorted(whole)
    for number in range(flips + cuts):
        name = rng.choice(names)
        data = bytearray(whole[name])
        place = rng.randrange(len(data))
        if number < flips:
            data[place] ^= 1 << rng.randrange(8)
        else:
            del data[place:]
        (folder / name).write_bytes(data)
        assert error_of(open_pieces, folder).code == EXIT_STATE, (name, place)
        (folder / name).write_bytes(whole[name])
    open_pieces(folder)


def test_flipped_bits_and_cuts_are_noticed(small_set):
    flip_and_cut(small_set, flips=400, cuts=200)


@pytest.mark.slow
def test_three_thousand_flipped_bits_and_cuts_are_noticed(small_set):
    flip_and_cut(small_set, flips=2_000, cuts=1_000)


@pytest.mark.slow
def test_each_single_bit_of_a_set_is_guarded(tmp_path):
    make(tmp_path, chapters(2, length=3), num_pieces=1, valid_fraction=0.2)
    whole = contents(tmp_path)
    for name, data in whole.items():
        for bit in range(8 * len(data)):
            changed = bytearray(data)
            changed[bit // 8] ^= 1 << bit % 8
            (tmp_path / name).write_bytes(changed)
            assert error_of(open_pieces, tmp_path).code == EXIT_STATE, (name, bit)
        (tmp_path / name).write_bytes(data)


@pytest.mark.parametrize(
    "content", [b"", b"{}", b"[]", b"null", b'{"checksum": 1}', b"[" * 100_000, b"\xff", b'{"a": NaN, "checksum": ""}']
)
def test_a_manifest_that_is_none_is_refused(small_set, content):
    (small_set / "manifest.json").write_bytes(content)
    problem = error_of(open_pieces, small_set)
    assert problem.code == EXIT_STATE
    assert "manifest.json" in problem.message


@pytest.mark.parametrize("name", ["../train_0.npy", "/etc/passwd", "tokenized_train_0.npy/", "x.npy", 3, None])
def test_a_forged_manifest_cannot_name_other_files(small_set, name):
    manifest = json.loads((small_set / "manifest.json").read_bytes())
    del manifest["checksum"]
    manifest["pieces"][0]["name"] = name
    pieces_module.write_manifest(small_set, manifest)
    assert error_of(open_pieces, small_set).code == EXIT_STATE


EXPECT = {
    "vocabulary_sha256": "b" * 64,
    "source_sha256": "a" * 64,
    "options": {"num_pieces": 3, "valid_fraction": 0.2, "min_length": 0},
}


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"vocabulary_sha256": "c" * 64}, "vocabulary: made from sha256 bbbbbbbbbbbb…, now cccccccccccc…"),
        ({"source_sha256": "d" * 64}, "corpus: made from sha256 aaaaaaaaaaaa…, now dddddddddddd…"),
        ({"options": {"num_pieces": 4}}, "num_pieces: made with 3, now 4"),
        ({"options": {"valid_fraction": 0.05}}, "valid_fraction: made with 0.2, now 0.05"),
        ({"options": {"min_length": 128}}, "min_length: made with 0, now 128"),
        ({"options": {"kind": "bpe"}}, "kind: made with None, now bpe"),
    ],
)
def test_each_change_alone_makes_the_pieces_stale(small_set, change, line):
    open_pieces(small_set, expect=EXPECT)
    problem = error_of(open_pieces, small_set, expect={**EXPECT, **change})
    assert problem.code == EXIT_STATE
    assert problem.message == f"{small_set}: the pieces are stale\n  {line}"
    assert problem.hint.startswith(
        f"python tokenize_corpus.py --raw_data_path data/train.json --tokenized_data_path {small_set}"
    )


def test_all_changes_are_listed_and_the_hint_rebuilds_with_the_new_options(small_set):
    changed = {"vocabulary_sha256": "c" * 64, "source_sha256": "d" * 64, "options": {"num_pieces": 9, "min_length": 0}}
    problem = error_of(open_pieces, small_set, expect=changed)
    assert [line.split(":")[0].strip() for line in problem.message.split("\n")[1:]] == [
        "vocabulary",
        "corpus",
        "num_pieces",
    ]
    assert problem.hint == COMMAND.format(folder=small_set, num_pieces=9, valid_fraction=0.2)


def test_pieces_of_another_format_are_refused(small_set):
    manifest = json.loads((small_set / "manifest.json").read_bytes())
    del manifest["checksum"]
    pieces_module.write_manifest(small_set, {**manifest, "format": 0})
    expect_damage(small_set, "manifest.json has format 0, expected 1")


def test_a_new_set_replaces_all_of_the_old_and_nothing_else(small_set):
    (small_set / "train.json").write_text("[]")
    (small_set / ".tokenized.1.tmp").mkdir()
    make(small_set, ["甲"], num_pieces=1, valid_fraction=0)
    assert sorted(path.name for path in small_set.iterdir()) == [
        ".lock",
        "manifest.json",
        "tokenized_train_0.npy",
        "train.json",
    ]
    assert open_pieces(small_set).train.read().tolist() == laid_out(["甲"])


def test_the_same_input_gives_the_same_bytes(tmp_path):
    for name in ("one", "two"):
        make(tmp_path / name, chapters(20))
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


class Killed(BaseException):
    """What a kill at some system call looks like to the code."""


def kill_at(patch: pytest.MonkeyPatch, limit: int) -> None:
    """Let only so many calls that change the folder or flush it through."""
    calls = []

    def counted(original):
        def call(*arguments, **options):
            calls.append(original)
            if len(calls) >= limit:
                raise Killed
            return original(*arguments, **options)

        return call

    for name in ("replace", "unlink", "fsync"):
        patch.setattr(os, name, counted(getattr(os, name)))


def test_a_kill_at_any_step_leaves_the_old_set_or_none(small_set, monkeypatch):
    old = open_pieces(small_set).train.read().tolist()
    backup = small_set.parent / f"{small_set.name}.backup"
    shutil.copytree(small_set, backup)
    outcomes = []
    for limit in range(1, 60):
        with monkeypatch.context() as patch:
            kill_at(patch, limit)
            try:
                make(small_set, ["丁" * 30], num_pieces=3, valid_fraction=0)
                break
            except Killed:
                pass
        try:
            outcomes.append(open_pieces(small_set).train.read().tolist())
            assert outcomes[-1] in (old, laid_out(["丁" * 30]))
        except UserError as problem:
            assert "no pieces here" in problem.message
            outcomes.append(None)
        shutil.rmtree(small_set)
        shutil.copytree(backup, small_set)
    assert old in outcomes and None in outcomes and 8 < limit < 59
    assert open_pieces(small_set).train.read().tolist() == laid_out(["丁" * 30])


def test_a_full_disk_is_an_error_of_the_environment(tmp_path, monkeypatch):
    def refuse(path, stream, start, stop):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pieces_module, "write_piece", refuse)
    problem = error_of(make, tmp_path, ["甲"], valid_fraction=0)
    assert problem.code == EXIT_ENVIRONMENT
    assert str(problem) == (
        f"error: {tmp_path}: cannot be written: No space left on device\n\n"
        f"hint: free some space or choose another place than {tmp_path}"
    )


def test_two_writers_do_not_meet(small_set):
    from novelgpt.lock import run_lock

    with run_lock(small_set, flag="--tokenized_data_path"):
        problem = error_of(make, small_set, ["甲"])
    assert problem.code == EXIT_ENVIRONMENT
    assert problem.message.startswith(f"{small_set}: in use by pid {os.getpid()}")
    assert problem.hint == "wait for it, or give --tokenized_data_path another folder"
