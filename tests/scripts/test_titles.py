"""Headings become title records, a network learns from them, and generate.py writes titles for a chapter."""

import csv
import json
import math
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import ROOT, STORY, TINY
from helpers import fit

import clr_ctrl
import generate
from novelgpt.cli import run
from novelgpt.corpus import books
from novelgpt.corpus.records import encode_records, read_records
from novelgpt.messages import EXIT_INPUT, EXIT_USAGE
from novelgpt.network import build_model, save_model
from novelgpt.writing.prompts import add_mark, encode_prompts, resolve_options
from novelgpt.writing.text import Sample, answer_rule

pytestmark = pytest.mark.usefixtures("no_flushing")
SAMPLE = ROOT / "data/sample"
TEXT = "他推开门，外面下着雪，山路上一个人也没有。"
CHAPTERS = [
    "序",
    f"第一章 山村\n{TEXT}\n{TEXT}",
    f"第二章\n{TEXT}",
    "第三章：城(上)",
    f"【第四章 雪】\n{TEXT}",
    f"尾声 归途\n{TEXT}",
]
NOVEL = "\n\n".join(CHAPTERS)


def expected_records() -> list[str]:
    """Return the records of the bundled novel, made from its clean chapters and the list of its headings."""
    chapters = json.loads((SAMPLE / "clean.json").read_text(encoding="utf-8"))[1:]
    headings = json.loads((SAMPLE / "dirt.json").read_text(encoding="utf-8"))["headings"]
    pairs = zip(chapters, headings, strict=True)
    return [f"{chapter.removeprefix(heading)[1:]}[TIL]{heading.split(' ')[1]}" for chapter, heading in pairs]


def clean(folder: Path, *argv: str) -> int:
    return run(clr_ctrl.main, [*argv, "--output", str(folder / "train.json"), "--titles", str(folder / "titles.csv")])


def test_the_bundled_novel_becomes_its_26_title_records(tmp_path, capsys):
    assert clean(tmp_path, str(SAMPLE / "novel.txt")) == 0
    assert read_records(tmp_path / "titles.csv") == expected_records()
    said = capsys.readouterr().err
    assert f"{tmp_path}/titles.csv: 26 chapters with titles; left out: 1 document without a title\n" in said
    chapters = json.loads((SAMPLE / "clean.json").read_text(encoding="utf-8"))
    assert json.loads((tmp_path / "train.json").read_text(encoding="utf-8")) == chapters  # as without --titles


def test_chapters_without_a_title_or_without_text_are_left_out_and_counted(tmp_path, capsys):
    (tmp_path / "novel.txt").write_text(NOVEL, encoding="utf-8")
    assert clean(tmp_path, str(tmp_path / "novel.txt")) == 0
    with open(tmp_path / "titles.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    assert rows == [["text"], [f"{TEXT}\n{TEXT}[TIL]山村"], [f"{TEXT}[TIL]雪"], [f"{TEXT}[TIL]归途"]]
    words = "left out: 2 documents without a title, 1 document without text below the title"
    assert f"{tmp_path}/titles.csv: 3 chapters with titles; {words}\n" in capsys.readouterr().err


def test_a_large_file_in_blocks_gives_the_titles_it_gives_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(books, "LARGE_TEXT", 1_000)
    monkeypatch.setattr(books, "BLOCK_CHARACTERS", 6_000)
    assert clean(tmp_path, str(SAMPLE / "novel.txt")) == 0
    assert read_records(tmp_path / "titles.csv") == expected_records()


def test_a_novel_without_titles_is_an_error_and_writes_nothing(tmp_path, capsys):
    (tmp_path / "novel.txt").write_text(TEXT, encoding="utf-8")
    assert clean(tmp_path, str(tmp_path / "novel.txt")) == EXIT_INPUT
    assert capsys.readouterr().err == (
        f"error: --titles {tmp_path}/titles.csv: none of 1 documents is a chapter with a title\n\n"
        "hint: leave --titles out\n"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["novel.txt"]


# --- writing titles ---


def test_a_prefix_with_a_mark_is_the_row_of_training_up_to_the_title(tiny_tokenizer):
    tokenizer = tiny_tokenizer.add_tokens(["[TIL]"])
    for text in ("".join(STORY), "井里"):
        for room in (5, 16, 40):
            rows = encode_records([f"{text}[TIL]井"], tokenizer, block_size=room + 2, mark="[TIL]")
            ids = tokenizer.encode_prefix(text).tolist()
            assert add_mark(ids, "[TIL]", tokenizer, room) == rows.ids[: rows.first[0]].tolist()


class Endings:
    """Ends of a vocabulary in which 9 is [CLS] and nothing else ends anything."""

    def find_end(self, ids, first, stop):
        places = range(first, len(ids))
        return next((place for place in places if stop == "chapter" and ids[place] == 9), None)


@pytest.mark.parametrize(
    ("tokens", "ids", "ended"),
    [([5, 6, 9, 7], [5, 6], "chapter"), ([5, 6, 7, 8, 5], [5, 6, 7, 8], "bound"), ([5, 6, 7], [5, 6, 7], "")],
)
def test_a_title_ends_with_its_document_or_at_the_length(tokens, ids, ended):
    sample = Sample(0, [9])
    for token in tokens:
        sample.extend([token], answer_rule(4), Endings())
    assert (sample.ids, sample.ended) == (ids, ended)


@pytest.fixture
def titled(row_options, tmp_path, monkeypatch):
    """A folder with a network that has seen titles, and a chapter in GB18030 with its heading."""
    assert fit(row_options(epochs=1))
    monkeypatch.chdir(tmp_path)
    Path("chapter.txt").write_bytes(f"第九章 不可说\r\n\r\n　　{STORY[0]}\r\n　　{STORY[1]}\r\n".encode("gb18030"))
    return ["--model_path", "run/final_model", "--prefix_file", "chapter.txt", "--device", "cpu", "--seed", "1"]


def test_titles_for_a_chapter_are_written_and_saved_without_the_chapter(titled, capsys):
    arguments = [*titled, "--mark", "[TIL]", "--nsamples", "4", "--length", "5", "--save_samples"]
    assert run(generate.main, arguments) == 0
    captured = capsys.readouterr()
    assert "chapter.txt: the heading “第九章 不可说” is left out, since it tells the title\n" in captured.err
    titles = [json.loads(line)["text"] for line in Path("mnt/samples.jsonl").read_text(encoding="utf-8").splitlines()]
    lines = [json.loads(line) for line in Path("mnt/samples.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len(titles) == 4 and all(1 <= entry["tokens"] <= 5 for entry in lines)
    assert {entry["ended"] for entry in lines} <= {"chapter", "bound"}
    assert {entry["prompt"] for entry in lines} == {f"{STORY[0]}\n{STORY[1]}"}
    for number, title in enumerate(titles, 1):
        assert re.search(rf"SAMPLE {number} =+\n{re.escape(title)}\n=+\n", captured.out)
    assert "乔一斗" not in captured.out


def test_titles_do_not_depend_on_how_many_are_written_at_a_time(titled, capsys):
    outs = []
    for size in ("1", "3"):
        assert run(generate.main, [*titled, "--mark", "[TIL]", "--nsamples", "3", "--batch_size", size]) == 0
        outs.append(capsys.readouterr().out)
    assert outs[0] == outs[1]


def test_a_file_as_prefix_without_a_mark_is_gone_on_with(titled, capsys):
    assert run(generate.main, [*titled, "--nsamples", "1", "--length", "3", "--stop", "never"]) == 0
    assert f"第九章 不可说\n{STORY[0]}\n{STORY[1]}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message", "hint"),
    [
        (
            ["--mark", "[WS]"],
            "--mark [WS]: not a token of the model",
            'train with --rows --add_tokens "[WS]" --loss_after "[WS]"',
        ),
        (
            ["--mark", "[TIL]", "--interactive"],
            "--mark and --interactive: found both, expected one of them",
            "leave --interactive out",
        ),
        (
            ["--prompts_file", "x"],
            "--prompts_file and --prefix_file: found both, expected one of them",
            "leave --prefix_file out",
        ),
        (
            ["--mark", "[TIL]", "--stop", "paragraph"],
            "--stop paragraph: what --mark asks for ends where its document ends",
            "leave --stop out",
        ),
    ],
)
def test_what_does_not_go_with_a_mark_is_refused(titled, capsys, arguments, message, hint):
    assert run(generate.main, [*titled, *arguments]) == EXIT_USAGE
    assert capsys.readouterr().err.endswith(f"error: {message}\n\nhint: {hint}\n")


@pytest.fixture
def wide(tiny_tokenizer, tmp_path):
    """Return a function from a length to the prompt for a title, of a context of 128 tokens trained on rows of 32."""
    tokenizer = tiny_tokenizer.add_tokens(["[TIL]"])
    model = build_model({**TINY, "n_positions": 128}, tokenizer, seed=1)
    save_model(model, tokenizer, tmp_path / "wide", corpus={"block_size": 32})

    def start(length: int, text: str = ""):
        words = ["--model_path", str(tmp_path / "wide"), "--mark", "[TIL]", "--device", "cpu", "--length", str(length)]
        options = resolve_options(generate.build_parser().parse_options(words))
        return encode_prompts([(text, "")], options, tokenizer, context=128)[0]

    return start


def test_a_prompt_keeps_what_a_row_of_training_keeps_however_wide_the_context(wide, tiny_tokenizer):
    tokenizer, text = tiny_tokenizer.add_tokens(["[TIL]"]), "".join(STORY)
    rows = encode_records([f"{text}[TIL]乔一斗坐在井边数"], tokenizer, block_size=32, mark="[TIL]")
    assert wide(8, text).ids == rows.ids[: rows.first[0]].tolist()  # a title of 8 tokens, a quarter of the row


@pytest.mark.parametrize(("length", "warns"), [(8, False), (9, True), (1000, False), (-1, False)])
def test_a_length_above_a_quarter_of_a_row_is_cut_aloud(wide, capsys, length, warns):
    prompt = wide(length)  # 1000 is the default
    assert prompt.stop_rule.max_tokens == 8 + 1
    line = f"warning: --length {length}: what --mark asks for gets at most 8 tokens, a quarter of a row of 32\n"
    assert (line in capsys.readouterr().err) == warns


@pytest.mark.sweep
def test_chapters_to_titles_on_the_bundled_novel_learns_within_two_minutes(tmp_path):
    for name in ("clr_ctrl.py", "make_vocab.py", "train.py", "config/finetune_titles.yaml", "data/sample/novel.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    shutil.copy(ROOT / "config/model_config_demo.json", tmp_path / "config")
    (tmp_path / "novelgpt").symlink_to(ROOT / "novelgpt")
    began = time.monotonic()
    for words in (
        "clr_ctrl.py --titles data/titles.csv",
        "make_vocab.py",
        "train.py --config config/finetune_titles.yaml --device cpu",
    ):
        done = subprocess.run(
            [sys.executable, *words.split()], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
    assert time.monotonic() - began < 120
    records = [json.loads(line) for line in (tmp_path / "model_titles/log.jsonl").read_text("utf-8").splitlines()]
    losses = [record["valid_loss"] for record in records if "valid_loss" in record]
    assert losses[0] == pytest.approx(math.log(1932), abs=0.2)  # at first all 1,932 tokens are about as likely
    assert losses[-1] < losses[0] - 2
    assert "6 records, 1,536 tokens held out" in done.stderr
