"""tokenize_corpus.py end to end: chapters in, pieces out, every setting of the command line in effect."""

import gzip
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import ROOT

import make_vocab
import tokenize_corpus
from novelgpt.cli import run
from novelgpt.corpus.documents import source_sha256, write_documents
from novelgpt.corpus.pieces import make_pieces, open_pieces
from novelgpt.corpus.tokenizer import load_tokenizer
from novelgpt.corpus.tokenizers.base import save_vocabulary
from novelgpt.corpus.tokenizers.vocabulary import build_vocabulary
from novelgpt.files import sha256_of
from novelgpt.messages import UserError

CHAPTERS = [f"第{number}章\n" + "萧炎大喝一声。\n" * 8 + "薰儿笑而不语。" for number in range(1, 21)]


@pytest.fixture
def paths(tmp_path) -> dict[str, Path]:
    made = {
        "raw_data_path": tmp_path / "train.json",
        "tokenized_data_path": tmp_path / "new" / "tokenized",
        "tokenizer_path": tmp_path / "vocab.txt",
    }
    write_documents(made["raw_data_path"], CHAPTERS)
    save_vocabulary(made["tokenizer_path"], build_vocabulary(CHAPTERS[:3]))
    return made


def call(paths, *arguments) -> int:
    flags = [f"--{name}={path}" for name, path in paths.items()]
    return run(tokenize_corpus.main, [*flags, *map(str, arguments)])


def test_chapters_become_pieces_that_decode_to_them(paths, capsys):
    assert call(paths, "--num_pieces", 7, "--valid_fraction", 0.1) == 0
    tokenizer = load_tokenizer(paths["tokenizer_path"])
    pieces = open_pieces(paths["tokenized_data_path"])
    assert tokenizer.decode(pieces.train.read()) == "".join("[CLS]" + text for text in CHAPTERS[:18]) + "[CLS]"
    assert tokenizer.decode(pieces.valid.read()) == "".join("[CLS]" + text for text in CHAPTERS[18:]) + "[CLS]"
    assert len(list(paths["tokenized_data_path"].glob("tokenized_train_*.npy"))) == 7
    # each chapter: heading of 4 or 5 characters with its newline, 8 lines of 8, 7 characters; and one [CLS]
    train = 9 * (4 + 64 + 7) + 9 * (5 + 64 + 7)
    assert capsys.readouterr().err == (
        f"train: 18 documents, {train:,} characters, {train + 19:,} tokens, 7 pieces\n"
        f"valid: 2 documents, 152 characters, 155 tokens, 1 pieces\n"
    )


def test_the_manifest_records_source_vocabulary_and_options(paths):
    assert call(paths, "--num_pieces", 2, "--min_length", 3) == 0
    manifest = open_pieces(paths["tokenized_data_path"]).manifest
    path, vocabulary = paths["raw_data_path"], paths["tokenizer_path"]
    assert manifest["source"] == {"path": str(path), "sha256": sha256_of(path)}
    expected = {"path": str(vocabulary), "sha256": sha256_of(vocabulary), "kind": "character"}
    assert manifest["vocabulary"] == {**expected, "size": len(load_tokenizer(vocabulary).tokens)}
    assert manifest["options"] == {"num_pieces": 2, "valid_fraction": 0.05, "min_length": 3}


def expectation(paths, tokenizer, options: dict) -> dict:
    """Return what pieces of the corpus of now would be made from."""
    hashes = {"vocabulary_sha256": tokenizer.fingerprint, "source_sha256": source_sha256(paths["raw_data_path"])}
    return {**hashes, "options": options}


def test_changed_corpus_vocabulary_or_options_are_found_by_what_is_expected(paths):
    options = {"num_pieces": 100, "valid_fraction": 0.05, "min_length": 0}
    assert call(paths) == 0
    tokenizer = load_tokenizer(paths["tokenizer_path"])
    open_pieces(paths["tokenized_data_path"], expect=expectation(paths, tokenizer, options))
    write_documents(paths["raw_data_path"], CHAPTERS[1:])
    changed = expectation(paths, tokenizer.add_tokens(["[对话]"]), {**options, "num_pieces": 3})
    with pytest.raises(UserError) as caught:
        open_pieces(paths["tokenized_data_path"], expect=changed)
    lines = caught.value.message.split("\n")[1:]
    assert [line.split(":")[0] for line in lines] == ["  vocabulary", "  corpus", "  num_pieces"]


def test_pieces_of_a_corpus_that_is_gone_are_up_to_date_in_all_that_can_be_compared(paths, capsys):
    options = {"num_pieces": 100, "valid_fraction": 0.05, "min_length": 0}
    assert call(paths) == 0
    tokenizer = load_tokenizer(paths["tokenizer_path"])
    paths["raw_data_path"].unlink()
    folders = (paths["raw_data_path"], paths["tokenized_data_path"])
    make_pieces(*folders, tokenizer, tokenizer_path=str(paths["tokenizer_path"]), **options)
    assert capsys.readouterr().err.endswith(f"{paths['tokenized_data_path']}: up to date\n")
    with pytest.raises(UserError):
        make_pieces(*folders, tokenizer, tokenizer_path="", **{**options, "num_pieces": 3})


def test_left_out_documents_are_reported(paths, capsys):
    write_documents(paths["raw_data_path"], [*CHAPTERS, "短", ""])
    assert call(paths, "--min_length", 2) == 0
    assert capsys.readouterr().err.endswith(
        "warning: 2 documents with 1 characters left out: empty or shorter than --min_length 2\n"
    )


def test_a_folder_of_books_is_read_in_order_and_hashed_by_names_and_contents(paths, tmp_path):
    books = tmp_path / "books"
    books.mkdir()
    write_documents(books / "b.json", CHAPTERS[5:])
    (books / "a.json.gz").write_bytes(gzip.compress(json.dumps(CHAPTERS[:5]).encode()))
    first = source_sha256(books)
    assert call({**paths, "raw_data_path": books}, "--valid_fraction", 0) == 0
    tokenizer = load_tokenizer(paths["tokenizer_path"])
    pieces = open_pieces(paths["tokenized_data_path"], expect={"source_sha256": first})
    assert tokenizer.decode(pieces.train.read()) == "".join("[CLS]" + text for text in CHAPTERS) + "[CLS]"
    (books / "b.json").rename(books / "c.json")
    assert source_sha256(books) != first


ERRORS = [
    (["--num_pieces", "0"], 2, "error: --num_pieces: found '0', expected a whole number from 1 up\n"),
    (["--num_pieces", "-3"], 2, "error: --num_pieces: found '-3', expected a whole number from 1 up\n"),
    (["--valid_fraction", "1"], 2, "error: --valid_fraction: found '1', expected a number from 0 to 0.9\n"),
    (["--valid_fraction", "nan"], 2, "error: --valid_fraction: found 'nan', expected a number from 0 to 0.9\n"),
    (["--raw_data_path", "no.json"], 3, "error: no.json: cannot be read: No such file or directory\n"),
    (
        ["--raw_data_path", "-"],
        2,
        "error: --raw_data_path -: standard input cannot be read again later, expected a file\n",
    ),
    (["--tokenizer_path", "no.txt"], 3, "error: no.txt: cannot be read: No such file or directory\n"),
    (["--min_length", "999"], 3, "error: --min_length 999: all 20 documents are shorter\n"),
]


@pytest.mark.parametrize(("arguments", "code", "message"), ERRORS)
def test_faults_are_said_and_an_old_set_stays(paths, capsys, arguments, code, message):
    assert call(paths) == 0
    old = open_pieces(paths["tokenized_data_path"]).manifest
    capsys.readouterr()
    assert call(paths, *arguments) == code
    assert capsys.readouterr().err.startswith(message)
    assert open_pieces(paths["tokenized_data_path"]).manifest == old


def test_a_vocabulary_of_bert_gives_its_ids(paths):
    save_vocabulary(paths["tokenizer_path"], ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "萧", "炎"])
    assert call(paths, "--valid_fraction", 0) == 0
    ids = open_pieces(paths["tokenized_data_path"]).train.read().tolist()
    # [CLS] 第1章 newline 萧 炎 and five unknown ones, newline, ...
    assert ids[:13] == [2, 1, 1, 1, 3, 5, 6, 1, 1, 1, 1, 1, 3]


@pytest.mark.slow
def test_a_killed_process_leaves_the_old_set_or_none_and_the_next_run_mends_all(paths):
    write_documents(paths["raw_data_path"], CHAPTERS * 400)
    flags = [f"--{name}={path}" for name, path in paths.items()]
    command = [sys.executable, "tokenize_corpus.py", *flags]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    whole = open_pieces(paths["tokenized_data_path"]).manifest
    for turn in range(60):
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(0.1 + 0.01 * turn)
        process.send_signal(signal.SIGKILL)
        process.wait()
        try:
            assert open_pieces(paths["tokenized_data_path"]).manifest == whole
        except UserError as problem:
            assert "no pieces here" in problem.message
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    assert open_pieces(paths["tokenized_data_path"]).manifest == whole
    assert not list(paths["tokenized_data_path"].glob(".tokenized*"))


@pytest.mark.parametrize(
    ("corpus", "flags", "vocabulary"),
    [
        ("data/train.json", "", "cache/vocab_novel.txt"),
        ("other.json", " --raw_data_path other.json --vocab_file cache/vocab_other.txt", "cache/vocab_other.txt"),
    ],
)
def test_a_vocabulary_that_does_not_fit_is_named_with_the_commands_that_mend_it(
    tmp_path, monkeypatch, capsys, corpus, flags, vocabulary
):
    monkeypatch.chdir(tmp_path)
    write_documents(corpus, ["萧炎大喝一声。" * 20 + "薰儿\n"] * 5)  # 143 characters, of which 薰 and 儿 are unknown
    save_vocabulary("vocab.txt", build_vocabulary(["萧炎大喝一声。"]))
    arguments = ["--raw_data_path", corpus, "--tokenizer_path", "vocab.txt", "--tokenized_data_path", "pieces"]
    assert run(tokenize_corpus.main, arguments) == 0
    warning = "warning: 10 characters (1.4%) are not in vocab.txt: written as 2 to 4 bytes each\n"
    hint = f"hint: python make_vocab.py{flags}, then this command again with --tokenizer_path {vocabulary}\n"
    assert capsys.readouterr().err.endswith(f"7 pieces\n{warning}{hint}")
    # the commands run as they stand
    assert run(make_vocab.main, flags.split()) == 0
    capsys.readouterr()
    assert run(tokenize_corpus.main, [*arguments, "--tokenizer_path", vocabulary]) == 0
    assert "warning" not in capsys.readouterr().err


def test_pieces_that_are_up_to_date_are_warned_of_too(paths, capsys):
    write_documents(paths["raw_data_path"], ["龘" * 10 + "萧炎" * 400] * 3)
    assert call(paths) == 0
    settings = {"num_pieces": 100, "valid_fraction": 0.05, "min_length": 0}
    capsys.readouterr()
    places = (paths["raw_data_path"], paths["tokenized_data_path"], load_tokenizer(paths["tokenizer_path"]))
    make_pieces(*places, tokenizer_path=str(paths["tokenizer_path"]), **settings)
    said = capsys.readouterr().err.split("\n")
    assert said[0] == f"{paths['tokenized_data_path']}: up to date"
    assert said[1].startswith("warning: 30 characters (1.2%) are not in ")
