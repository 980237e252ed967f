"""`--book NAME` from the novel to the samples: two books side by side, whose files never meet."""

import importlib
import json
import shutil

import pytest
from conftest import ROOT, STORY, TINY

from novelgpt import train
from novelgpt.cli import run
from novelgpt.files import read_json, write_json

OTHER = [
    "第一回 石头\n女娲炼石补天，剩下一块。\n那石头便哭了。",
    "第二回 井\n井边无人，石头也不说话。\n夜深了，只有水声。",
]
QUICK = [
    "--model_config=config.json",
    "--epochs=1",
    "--lr=0.01",
    "--device=cpu",
    "--sample_length=0",
    "--precision=fp32",
]
WRITING = ["--length=10", "--nsamples=1", "--device=cpu", "--seed=1", "--precision=fp32"]

pytestmark = pytest.mark.usefixtures("no_flushing")


def call(script: str, *argv: str) -> int:
    """Run a script and return its exit status."""
    return run(importlib.import_module(script).main, list(argv))


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder in which both books have gone the whole way."""
    folder = tmp_path_factory.mktemp("books")
    (folder / "cache").mkdir()
    shutil.copy(ROOT / "cache/vocab_small.txt", folder / "cache")
    write_json(folder / "config.json", TINY)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr("os.fsync", lambda handle: None)
        for name, chapters in (("井", STORY * 3), ("石头记", OTHER * 3)):
            write_json(folder / "novel.json", chapters)
            assert call("clr_ctrl", "novel.json", "--book", name) == 0
            assert call("make_vocab", "--book", name) == 0
            assert call("tokenize_corpus", "--book", name, "--num_pieces=2", "--valid_fraction=0.3") == 0
            assert call("train", "--book", name, *QUICK) == 0
            assert call("generate", "--book", name, "--save_samples", *WRITING) == 0
    return folder


@pytest.fixture
def _there(place, monkeypatch):
    monkeypatch.chdir(place)


@pytest.mark.usefixtures("_there")
def test_everything_of_a_book_lies_in_its_folder_and_nothing_anywhere_else(place):
    for name in ("井", "石头记"):
        files = {path.name for path in (place / "books" / name).iterdir()}
        assert files == {"train.json", "train.report.json", "vocab.txt", "tokenized", "model", "samples"}
        assert {path.name for path in (place / "books" / name / "samples").iterdir()} >= {
            "samples.txt",
            "samples.jsonl",
        }
        made = read_json(place / "books" / name / "model" / "run.json")
        assert (made["options"]["book"], made["options"]["tokenizer_path"]) == (name, f"books/{name}/vocab.txt")
    assert {path.name for path in place.iterdir()} == {"books", "cache", "config.json", "novel.json"}


@pytest.mark.usefixtures("_there")
def test_a_model_of_a_book_knows_its_own_text(capsys):
    assert call("generate", "--book", "井", "--find", "闻人雀") == 0
    assert capsys.readouterr().out == "闻人雀的剑只有半截。\n"
    assert call("generate", "--book", "石头记", "--find", "闻人雀") == 3  # who is in the other book
    capsys.readouterr()
    assert call("generate", "--book", "石头记", *WRITING) == 0
    assert "longest passage shared with the book" in capsys.readouterr().err


@pytest.mark.usefixtures("_there")
def test_a_book_is_evaluated_on_its_own_held_out_part(capsys):
    losses = []
    for name in ("井", "石头记"):
        assert call("eval", "--book", name, "--device=cpu") == 0
        losses.append(json.loads(capsys.readouterr().out)["tokens"])
    held = [read_json(f"books/{name}/tokenized/manifest.json")["valid"]["tokens"] for name in ("井", "石头记")]
    assert losses == held


@pytest.mark.usefixtures("_there")
def test_the_api_takes_the_name_of_a_book_and_what_is_given_wins(tmp_path):
    changes = {"model_config": "config.json", "epochs": 1, "device": "cpu", "sample_length": 0, "precision": "fp32"}
    result = train(book="石头记", lr=0.01, **changes)
    assert (str(result.folder), result.finished) == ("books/石头记/model", True)  # the run of the command line
    elsewhere = train(book="石头记", output_dir=tmp_path / "run", lr=0.01, **changes)
    assert (elsewhere.folder, elsewhere.finished) == (tmp_path / "run", True)
    assert read_json(tmp_path / "run/run.json")["options"]["tokenized_data_path"] == "books/石头记/tokenized/"


@pytest.mark.usefixtures("_there")
def test_a_run_folder_of_one_book_refuses_another(capsys):
    status = call("train", "--book", "石头记", "--output_dir=books/井/model", *QUICK)
    said = capsys.readouterr().err
    assert status == 5
    assert "error: books/井/model: holds a run of another book\n  there: “第一章 井”, " in said
    assert "\n  now: “第一回 石头”, " in said and " --output_dir 'books/井/model2'\n" in said
