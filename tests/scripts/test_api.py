"""The Python API: fast to import, typed, refuses what the command line refuses, and its printed examples run."""

import ast
import json
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import tomllib
from pathlib import Path

import pytest
import torch
from conftest import ROOT, STORY, TINY, make_tiny_options

import eval as eval_script
import novelgpt
from novelgpt import NovelTokenizer, TrainOptions, UserError, evaluate, generate, load_model, train
from novelgpt.cli import run
from novelgpt.files import write_json
from novelgpt.lock import run_lock
from novelgpt.network import build_model, save_model

EXAMPLES = (train, evaluate, generate, load_model, NovelTokenizer)


@pytest.fixture
def folder(tmp_path):
    """A model folder."""
    tokenizer = NovelTokenizer.from_texts(STORY)
    model = build_model({**TINY, "attn_pdrop": 0.1}, tokenizer, seed=1)
    save_model(model, tokenizer, tmp_path / "saved")
    return tmp_path / "saved"


def test_importing_the_package_loads_nothing_heavy():
    code = (
        "import novelgpt, sys\nassert not {'torch', 'transformers', 'numpy', 'yaml'} & set(sys.modules)\n"
        "from novelgpt import TrainOptions, evaluate, generate, train\nassert 'torch' not in sys.modules\n"
        "assert set(novelgpt.__all__) <= set(dir(novelgpt))"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_every_name_of_the_api_is_there_and_typed():
    for name in novelgpt.__all__:
        assert callable(getattr(novelgpt, name)), name
    assert not hasattr(novelgpt, "evaluation_of_everything")
    assert (ROOT / "novelgpt/py.typed").exists()
    for function in (train, evaluate, generate, load_model):
        code = function.__code__
        words = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
        assert {*words, "return"} <= set(function.__annotations__), function


def test_the_stub_for_editors_names_what_the_package_names_from_the_same_modules():
    tree = ast.parse((ROOT / "novelgpt/__init__.pyi").read_text(encoding="utf-8"))
    imports = [node for node in tree.body if isinstance(node, ast.ImportFrom)]
    assert {alias.name: node.module for node in imports for alias in node.names} == novelgpt.PLACES
    (names,) = [ast.literal_eval(node.value) for node in tree.body if isinstance(node, ast.Assign)]
    assert names == sorted(novelgpt.__all__)
    with open(ROOT / "pyproject.toml", "rb") as file:
        assert "*.pyi" in tomllib.load(file)["tool"]["setuptools"]["package-data"]["novelgpt"]


@pytest.fixture
def desk(tmp_path, monkeypatch):
    """A working folder with a novel, pieces, a tiny demo config and a trained model, as the examples expect."""
    for name in ("config", "cache", "build"):
        (tmp_path / name).mkdir()
    options = make_tiny_options(tmp_path)
    shutil.move(tmp_path / "pieces", tmp_path / "data/tokenized")
    shutil.move(options.tokenizer_path, tmp_path / "cache/vocab_novel.txt")
    write_json(tmp_path / "config/model_config_demo.json", {**TINY, "n_positions": 128})
    tokenizer = NovelTokenizer.from_file(tmp_path / "cache/vocab_novel.txt")
    save_model(build_model({**TINY, "attn_pdrop": 0.1}, tokenizer), tokenizer, tmp_path / "model/final_model")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("thing", EXAMPLES, ids=lambda thing: thing.__name__)
def test_the_example_of_the_documentation_runs(thing, desk):
    example = re.search(r"Example::\n\n(.*?)(?:\n\n|\Z)", thing.__doc__, re.DOTALL)[1]
    names = {name: getattr(novelgpt, name) for name in novelgpt.__all__}
    exec(textwrap.dedent(example), names)  # the example of our own docstring


def test_train_reports_progress_and_where_it_stands_and_goes_on(tiny_options):
    options, records = tiny_options(epochs=2), []
    result = train(options, progress=records.append)
    logged = [json.loads(line) for line in (options.output_path / "log.jsonl").read_text("utf-8").splitlines()]
    assert records == [record for record in logged if "event" not in record]
    assert (result.status, result.finished, result.step) == (0, True, logged[-1]["step"])
    assert result.best_loss == min(record["valid_loss"] for record in logged[1:] if "valid_loss" in record)
    assert result.model == options.output_path / "best_model" and result.model.is_dir()
    assert all(0 <= record["valid_accuracy"] <= 1 for record in logged if "valid_loss" in record)
    assert train(options).step == result.step  # finished: nothing is done again


def test_the_accuracy_of_the_log_is_that_of_evaluate(tiny_options):
    options = tiny_options(epochs=1)
    train(options)
    logged = [json.loads(line) for line in (options.output_path / "log.jsonl").read_text("utf-8").splitlines()]
    last = [record for record in logged if "valid_loss" in record][-1]
    report = evaluate(options.output_path / "final_model", pieces=options.tokenized_data_path, stride=options.stride)
    assert report["accuracy"] == last["valid_accuracy"] > 0
    assert report["loss"] == pytest.approx(last["valid_loss"], rel=1e-5)


def test_train_works_in_another_thread_and_leaves_the_signals_alone(tiny_options):
    before, results = signal.getsignal(signal.SIGINT), []
    worker = threading.Thread(target=lambda: results.append(train(tiny_options(epochs=1))))
    worker.start()
    worker.join()
    assert results[0].finished
    assert signal.getsignal(signal.SIGINT) is before


def test_a_signal_during_train_saves_returns_and_gives_the_handlers_back(tiny_options):
    before = signal.getsignal(signal.SIGTERM)

    def stop_at_three(record: dict) -> None:
        if record["step"] == 3:
            signal.raise_signal(signal.SIGTERM)

    options = tiny_options(epochs=2)
    stopped = train(options, progress=stop_at_three)
    assert (stopped.status, stopped.finished) == (128 + signal.SIGTERM, False)
    assert 3 <= stopped.step < stopped.total_steps
    assert signal.getsignal(signal.SIGTERM) is before
    assert train(options).finished


def test_a_second_signal_raises_and_leaves_lock_and_handlers_free(tiny_options):
    before = signal.getsignal(signal.SIGTERM)

    def insist(record: dict) -> None:
        if record["step"] == 3:
            signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGTERM)

    options = tiny_options(epochs=2)
    with pytest.raises(KeyboardInterrupt):
        train(options, progress=insist)
    assert signal.getsignal(signal.SIGTERM) is before
    assert train(options).finished


def test_train_respects_the_lock(tiny_options):
    options = tiny_options()
    with run_lock(options.output_dir), pytest.raises(UserError, match="in use by pid"):
        train(options)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"epochs": 0}, "epochs: found '0', expected a whole number from 1 to 1000000"),
        ({"epochs": 1.5}, "epochs: found '1.5', expected a whole number from 1 to 1000000"),
        ({"lr": "fast"}, "lr: found 'fast', expected a number from 0 to 1"),
        ({"raw": 1}, "raw: found 1, expected True or False"),
        ({"rows": 1}, "rows: found 1, expected True or False"),
        ({"compile": "maybe"}, "compile: found 'maybe', expected one of auto, on, off"),
        ({"output_dir": 7}, "output_dir: found 7, expected text"),
    ],
)
def test_train_refuses_what_the_command_line_refuses(values, message):
    with pytest.raises(UserError) as refusal:
        train(TrainOptions(**values))
    assert refusal.value.message == message


def test_evaluate_says_what_the_script_prints(folder, capsys, tmp_path):
    (tmp_path / "a.txt").write_text(STORY[0], encoding="utf-8")
    words = [f"--model_path={folder}", f"--text_path={tmp_path / 'a.txt'}", "--stride=4", "--device=cpu"]
    assert run(eval_script.main, words) == 0
    printed = json.loads(capsys.readouterr().out)
    assert evaluate(folder, path=tmp_path / "a.txt", stride=4, device="cpu") == printed
    loaded = evaluate(load_model(folder), STORY[0], stride=4)
    assert loaded == {name: value for name, value in printed.items() if name != "model"}


def test_a_loaded_model_is_left_as_it_is(folder):
    model, tokenizer = load_model(folder)
    ids = torch.from_numpy(tokenizer.encode_prefix("水里的星星").astype("int64"))[None]
    before = model(ids).logits
    layers = [type(module) for module in model.modules()]
    evaluate((model, tokenizer), "水里的星星", precision="bf16")
    generate((model, tokenizer), "水里", length=3, nsamples=1, seed=1, stop="never", device="cpu")
    assert [type(module) for module in model.modules()] == layers
    assert torch.equal(model(ids).logits, before)
    mask = torch.ones_like(ids)
    assert model.generate(ids, attention_mask=mask, max_new_tokens=2, do_sample=False).shape == (1, ids.shape[1] + 2)


def test_generate_is_a_function_of_seed_and_index(folder):
    settings = {"length": 8, "seed": 3, "stop": "never", "precision": "fp32", "device": "cpu", "cut_loops": False}
    three = generate(folder, "水里", nsamples=3, **settings)
    assert [text.index for text in three] == [0, 1, 2]
    assert three[0] == generate(load_model(folder), "水里", nsamples=1, **settings)[0]
    assert all(text.text == "水里" + text.continuation and len(text.ids) == 8 for text in three)
    assert three[0].ended == "length"


@pytest.mark.parametrize(
    ("settings", "message", "hint"),
    [
        ({"top_k": 3}, "unknown setting top_k", "did you mean topk?"),
        (
            {"topp": 2},
            "topp: found '2', expected a number from 0 to 1",
            "topp: choose among the best tokens of this probability; 0 or 1 = all",
        ),
        ({"best_of": 0}, "best_of: found '0', expected a whole number from 1 to 64", "best_of=1"),
        ({"best_of": 10_000}, "best_of: found '10000', expected a whole number from 1 to 64", "best_of=1"),
        ({"preset": "wild"}, "preset: found 'wild', expected one of seed, steady, balanced, bold", "preset='balanced'"),
        (
            {"stop": "soon"},
            "stop: found 'soon', expected one of sentence, paragraph, chapter, never",
            "stop='sentence'",
        ),
        ({"length": 0}, "--length: found 0, expected at least 1, or -1 to fill the context", "--length 1000"),
        ({"prompts_file": "a"}, "unknown setting prompts_file", None),
    ],
)
def test_generate_refuses_what_the_command_line_refuses(folder, settings, message, hint):
    with pytest.raises(UserError) as refusal:
        generate(folder, "水", **settings)
    assert refusal.value.message == message
    assert hint is None or refusal.value.hint == hint


def test_a_device_for_a_loaded_model_is_refused(folder):
    with pytest.raises(UserError) as refusal:
        evaluate(load_model(folder), "水", device="cpu")
    assert refusal.value.message == "device: found 'cpu' for a loaded model"


def test_a_tokenizer_of_each_kind_has_the_same_face(tmp_path):
    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n水\n井\n", encoding="utf-8")
    kinds = {
        "character": NovelTokenizer.from_texts(STORY),
        "bpe": NovelTokenizer.from_texts(STORY, kind="bpe", vocab_size=400),
        "wordpiece": NovelTokenizer.from_file(Path(tmp_path / "vocab.txt")),
    }
    for kind, tokenizer in kinds.items():
        assert isinstance(tokenizer, NovelTokenizer) and tokenizer.kind == kind
        assert all(hasattr(tokenizer, name) for name in NovelTokenizer.__annotations__), kind
        assert tokenizer.decode(tokenizer.encode("井水")) == "井水"
    with pytest.raises(UserError) as refusal:
        NovelTokenizer.from_texts(STORY, kind="word")
    assert refusal.value.message == "kind: found 'word', expected 'character' or 'bpe'"
