"""make_vocab.py end to end: the file it writes, the page it prints, what it refuses."""

import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import ROOT

import make_vocab
from novelgpt.cli import run
from novelgpt.corpus.documents import write_documents
from novelgpt.corpus.tokenizer import load_tokenizer
from novelgpt.corpus.tokenizers.vocabulary import BYTE_TOKENS, MARKS, load_vocabulary

SMALL_FILE = ROOT / "cache" / "vocab_small.txt"


@pytest.fixture
def corpus(tmp_path) -> Path:
    write_documents(tmp_path / "train.json", ["第一章\n炎炎炎，炎炎ab。" * 9, "第二章\n薰儿笑而不语。"])
    return tmp_path / "train.json"


def call(*arguments) -> int:
    return run(make_vocab.main, [str(argument) for argument in arguments])


def test_a_character_vocabulary_is_written_and_reported(corpus, tmp_path, capsys):
    path = tmp_path / "cache" / "vocab.txt"
    arguments = ("--raw_data_path", corpus, "--vocab_file", path, "--min_count", 9, "--reserved", 3)
    assert call(*arguments) == 0
    # 炎 45 times, 第 章 10 times, 。 10, 一 9, ， 9; 二 薰 儿 笑 而 不 语 once each
    tokens = load_vocabulary(path)
    assert tokens[: 5 + 3] == [*MARKS, "[unused1]", "[unused2]", "[unused3]"]
    assert tokens[8 : 8 + 256] == list(BYTE_TOKENS)
    assert tokens[264:] == ["炎", "。", "章", "第", "一", "，"]
    # 9 · (3 + 1 + 9) and 3 + 1 + 7 characters; seven of the latter fall to three bytes each
    assert capsys.readouterr().out == (
        f"{path}: 270 tokens of kind character\n"
        "covered: 121 of 128 characters (94.531 %)\n"
        "written as bytes: 7 characters of 7 kinds\n"
        "  U+4E0D 不 × 1: 薰儿笑而不语。\n"
        "  U+4E8C 二 × 1: 第二章\n"
        "  U+513F 儿 × 1: 薰儿笑而不语。\n"
        "  U+7B11 笑 × 1: 薰儿笑而不语。\n"
        "  U+800C 而 × 1: 薰儿笑而不语。\n"
        "  U+85B0 薰 × 1: 薰儿笑而不语。\n"
        "  U+8BED 语 × 1: 薰儿笑而不语。\n"
        f"tokens per character (character): {(121 + 21) / 128:.3f}\n"
        "embedding at width 768: 207,360 parameters, 10,020,096 fewer than the 10,227,456 of 13,317 tokens\n"
    )


def test_a_subword_vocabulary_is_a_folder_and_both_rates_are_reported(corpus, tmp_path, capsys):
    folder = tmp_path / "bpe"
    assert call("--raw_data_path", corpus, "--vocab_file", folder, "--kind", "bpe", "--vocab_size", 310) == 0
    tokenizer = load_tokenizer(folder)
    assert tokenizer.kind == "bpe" and "炎炎" in tokenizer.tokens
    rates = [line for line in capsys.readouterr().out.split("\n") if line.startswith("tokens per character")]
    text = "第一章\n炎炎炎，炎炎ab。" * 9, "第二章\n薰儿笑而不语。"
    num_ids = sum(len(tokenizer.encode(part)) for part in text)
    assert rates == [
        f"tokens per character (bpe): {num_ids / 128:.3f}",
        "tokens per character (character): 1.000",
    ]


def test_the_small_vocabulary_is_rebuilt_byte_for_byte(tmp_path, capsys):
    path = tmp_path / "small.txt"
    assert call("--small", "--vocab_file", path) == 0
    assert path.read_bytes() == SMALL_FILE.read_bytes()
    assert capsys.readouterr().err == f"wrote {path}: 13,317 tokens\n"


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--vocab_size", "0"], 2, "error: --vocab_size: found '0', expected a whole number from 1 to 1000000\n"),
        (["--vocab_size", "280"], 2, "error: --vocab_size: found 280, expected at least 281 (5 marks, 20 reserved,"),
        (["--kind", "word"], 2, "error: --kind: found 'word', expected one of bpe, character"),
        (["--min_cuont", "3"], 2, "error: unknown option --min_cuont\n\nhint: did you mean --min_count?\n"),
        (["--raw_data_path", "no/such.json"], 3, "error: no/such.json: cannot be read: No such file or directory\n"),
    ],
)
def test_what_cannot_be_done_is_said_and_nothing_written(corpus, tmp_path, capsys, arguments, code, message):
    path = tmp_path / "vocab.txt"
    assert call("--raw_data_path", corpus, "--vocab_file", path, *arguments) == code
    assert capsys.readouterr().err.startswith(message)
    assert not path.exists()


@pytest.mark.parametrize(
    ("arguments", "path", "hint"),
    [
        ([], "data/train.json", "python clr_ctrl.py NOVEL.txt"),
        (["--book", "nix"], "books/nix/train.json", "python clr_ctrl.py NOVEL.txt --book nix"),
    ],
)
def test_where_nothing_is_cleaned_yet_the_command_that_cleans_is_named(
    tmp_path, monkeypatch, capsys, arguments, path, hint
):
    monkeypatch.chdir(tmp_path)
    assert call(*arguments) == 3
    message = f"{path}: no such file, expected the chapters of a novel"
    assert capsys.readouterr().err == f"error: {message}\n\nhint: {hint}\n"
    assert list(tmp_path.iterdir()) == []


def test_help_comes_at_once_and_without_torch():
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "make_vocab.py", "--help"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0 and "--min_count" in done.stdout
    assert "torch" not in done.stderr and "tokenizers" not in done.stderr
    assert time.perf_counter() - start < 3  # a tenth of it on a quiet machine
