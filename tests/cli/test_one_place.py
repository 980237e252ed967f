"""`--book NAME`: everything of a book lies in books/NAME/, and whatever is given explicitly lies where it is said."""

import importlib

import pytest
from helpers import refusal_of

from novelgpt.messages import UserError

PLACES = {
    "clr_ctrl": {"output": "books/红楼梦/train.json"},
    "make_vocab": {"raw_data_path": "books/红楼梦/train.json", "vocab_file": "books/红楼梦/vocab.txt"},
    "tokenize_corpus": {
        "raw_data_path": "books/红楼梦/train.json",
        "tokenized_data_path": "books/红楼梦/tokenized/",
        "tokenizer_path": "cache/vocab_small.txt",
    },
    "train": {
        "raw_data_path": "books/红楼梦/train.json",
        "tokenized_data_path": "books/红楼梦/tokenized/",
        "tokenizer_path": None,
        "output_dir": "books/红楼梦/model/",
    },
    "eval": {"model_path": "books/红楼梦/model/final_model", "tokenized_data_path": "books/红楼梦/tokenized/"},
    "generate": {"model_path": "books/红楼梦/model/final_model", "save_samples_path": "books/红楼梦/samples/"},
    "studio": {
        "model_path": "books/红楼梦/model/final_model",
        "run_dir": "books/红楼梦/model/",
        "stories_dir": "books/红楼梦/samples/stories/",
    },
}


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def options_of(script: str, *argv: str):
    """Parse a command line of a script."""
    return importlib.import_module(f"novelgpt.commands.{NAMES[script]}").build_parser().parse_options(list(argv))


NAMES = {"clr_ctrl": "clean", "make_vocab": "vocab", "tokenize_corpus": "tokenize", "train": "train", "eval": "eval"}
NAMES |= {"generate": "generate", "studio": "studio"}


@pytest.mark.parametrize("script", PLACES)
def test_every_file_of_a_book_lies_in_its_folder_and_nothing_else_changes(script):
    with_book, without = options_of(script, "--book", "红楼梦"), options_of(script)
    changed = {name: value for name, value in vars(with_book).items() if value != getattr(without, name)}
    places = {name: place for name, place in PLACES[script].items() if place != getattr(without, name)}
    assert changed == {"book": "红楼梦", **places}


@pytest.mark.parametrize("script", PLACES)
def test_a_flag_that_is_given_wins_even_with_the_usual_default(script):
    for name, place in PLACES[script].items():
        usual = getattr(options_of(script), name) or "elsewhere"
        options = options_of(script, "--book=红楼梦", f"--{name}={usual}")
        assert getattr(options, name) == usual
        others = {other: getattr(options, other) for other in PLACES[script] if other != name}
        assert others == {other: value for other, value in PLACES[script].items() if other != name}, place


def test_the_vocabulary_of_a_book_is_taken_where_it_is_there_and_the_models_own_where_one_is_given(tmp_path):
    (tmp_path / "books" / "a").mkdir(parents=True)
    (tmp_path / "books" / "a" / "vocab.txt").touch()
    for script in ("train", "tokenize_corpus"):
        assert options_of(script, "--book", "a").tokenizer_path == "books/a/vocab.txt"
    assert options_of("train", "--book", "a", "--pretrained_model", "gpt2").tokenizer_path is None


def test_a_config_file_names_the_book_once_for_all_scripts_or_in_a_section(tmp_path):
    path = tmp_path / "my.yaml"
    path.write_text("book: 甲\ntrain: {epochs: 3}\neval: {book: 乙}\n", encoding="utf-8")
    assert options_of("train", "--config", str(path)).output_dir == "books/甲/model/"
    assert options_of("eval", "--config", str(path)).model_path == "books/乙/model/final_model"
    assert options_of("generate", "--config", str(path), "--book", "丙").save_samples_path == "books/丙/samples/"
    path.write_text("train: {book: 甲, output_dir: mine}\n", encoding="utf-8")
    assert options_of("train", "--config", str(path)).output_dir == "mine"
    convert = importlib.import_module("novelgpt.commands.convert").build_parser()
    path.write_text("book: 甲\nconvert: {dtype: bf16}\n", encoding="utf-8")
    assert convert.parse_options(["a", "b", "--config", str(path)]).dtype == "bf16"  # which has no book


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "a/b",
        "a\\b",
        "a.",
        "a ",
        " a",
        "a\n",
        "a\x1b[31m",
        "CON",
        "nul.txt",
        "com1",
        "a:b",
        "a*",
        "\udcff",
    ],
)
def test_a_name_that_is_no_name_of_a_folder_on_every_system_is_refused(name):
    problem = refusal_of(options_of, "train", f"--book={name}")
    assert problem.message == f"--book: found {name!r}, expected a name for a folder, such as hongloumeng"
    assert problem.code == 2


@pytest.mark.parametrize("name", ["红楼梦", "Dream of the Red Chamber", "book.v2", "console", "第1卷（上）"])
def test_other_names_are_names_of_books(name):
    assert options_of("train", "--book", name).output_dir == f"books/{name}/model/"


def test_a_vocabulary_of_subwords_is_a_folder_and_wants_a_place_of_its_own():
    main = importlib.import_module("novelgpt.commands.vocab").main
    problem = refusal_of(main, ["--book", "甲", "--kind", "bpe"])
    assert str(problem) == (
        "error: --kind bpe: makes a folder, and --book a file, vocab.txt\n\n"
        "hint: --vocab_file 'books/甲/bpe', then --tokenizer_path 'books/甲/bpe' for the other scripts"
    )
    with pytest.raises(UserError, match=r"train\.json"):  # the next thing that is missing
        main(["--book", "甲", "--kind", "bpe", "--vocab_file", "books/甲/bpe"])
