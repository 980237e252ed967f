"""What is looked at once only, how options are resolved, and that the loop need not know which kind of data it has."""

import inspect
from dataclasses import replace

import pytest
from conftest import STORY

from novelgpt.corpus import documents
from novelgpt.corpus.pieces import pieces as pieces_module
from novelgpt.files import write_json
from novelgpt.training import adapting
from novelgpt.training.parallel import World
from novelgpt.training.run import open_run_pieces, prepare_run, resolve_options
from novelgpt.training.windows import TrainingData

pytestmark = pytest.mark.usefixtures("no_flushing")


@pytest.fixture
def raw_options(tiny_options, tmp_path):
    """The options of a run that tokenizes the story itself, before there are any pieces."""
    write_json(tmp_path / "train.json", STORY * 3)
    folder = str(tmp_path / "new" / "pieces")
    return tiny_options(raw=True, raw_data_path=str(tmp_path / "train.json"), tokenized_data_path=folder)


@pytest.fixture
def count_looks(monkeypatch):
    """Return a dict that counts, by what is looked at, how often corpus, vocabulary and pieces are read."""
    looks = {"corpus": 0, "vocabulary": 0, "pieces": []}

    def counted(module, name, note):
        inner = getattr(module, name)

        def call(*arguments, **settings):
            note(*arguments)
            return inner(*arguments, **settings)

        monkeypatch.setattr(module, name, call)

    counted(documents, "hash_file", lambda name: looks.update(corpus=looks["corpus"] + 1))
    counted(adapting, "load_tokenizer", lambda path: looks.update(vocabulary=looks["vocabulary"] + 1))
    counted(pieces_module, "sha256_of", lambda path: looks["pieces"].append(path.name))
    return looks


@pytest.mark.parametrize("state", ["missing", "up to date", "stale", "not made by --raw"])
def test_corpus_vocabulary_and_every_byte_of_the_pieces_are_read_once(raw_options, count_looks, tmp_path, state):
    if state != "missing":
        prepare_run(raw_options)
    if state == "stale":
        write_json(tmp_path / "train.json", STORY * 2)
    count_looks.update(corpus=0, vocabulary=0, pieces=[])
    run = prepare_run(replace(raw_options, raw=state != "not made by --raw"))
    names = [entry["name"] for entry in run.data.pieces.manifest["pieces"]]
    assert count_looks == {"corpus": 1, "vocabulary": 1, "pieces": names}


def test_other_processes_than_the_first_read_neither_corpus_nor_pieces(raw_options, count_looks, monkeypatch):
    run = prepare_run(raw_options)
    count_looks.update(corpus=0, vocabulary=0, pieces=[])
    monkeypatch.setattr("novelgpt.training.run.wait_for_first", lambda world, name: None)
    pieces = open_run_pieces(raw_options, run.tokenizer, World(1, 2))
    assert pieces.manifest == run.data.pieces.manifest
    assert count_looks == {"corpus": 0, "vocabulary": 0, "pieces": []}


def test_every_open_option_is_resolved_by_those_before_it(tiny_options):
    left = {"optimizer": "auto", "lr": None, "weight_decay": None, "replace_inputs": None, "fp16": True}
    options = tiny_options(**left, precision="auto", epochs=15, stride=8)
    resolved = resolve_options(options, n_embd=192, window=16, epoch_steps=600)
    assert (resolved.optimizer, resolved.lr, resolved.precision, resolved.rows) == ("muon", 0.004, "fp16", False)
    assert resolved.weight_decay == pytest.approx(1 / (0.004 * 2 * 600))  # forgotten in two epochs
    assert resolved.replace_inputs == 0.15  # every token is read 30 times
    assert resolve_options(resolved, n_embd=192, window=16, epoch_steps=600) == resolved
    trained = replace(options, pretrained_model="model/final_model", lora_rank=4)
    resolved = resolve_options(trained, n_embd=192, window=16, epoch_steps=600)
    assert (resolved.optimizer, resolved.lr, resolved.weight_decay) == ("adamw", 1.5e-3, 0.01)


def test_both_kinds_of_data_have_every_member_that_the_loop_asks_for(tiny_options, row_options):
    members = {name for name in vars(TrainingData) if not name.startswith("_")} | set(TrainingData.__annotations__)
    assert len(members) == 19
    for data in (prepare_run(tiny_options()).data, prepare_run(row_options()).data):
        for name in members:
            assert hasattr(data, name), name
            if asked := getattr(TrainingData, name, None):  # a method
                ours = getattr(type(data), name)
                assert list(inspect.signature(ours).parameters) == list(inspect.signature(asked).parameters), name
