"""The log of a run tells its whole story: in order, the same after any stop, without effect on what is learned."""

import json
import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import STORY
from helpers import StopAfter, copy_run, fit, read_log, read_story, result_of, stopping_after
from processes import run_cases

from novelgpt import pages
from novelgpt.corpus.pieces import write_pieces
from novelgpt.corpus.tokenizer import load_tokenizer
from novelgpt.evaluation import Measure
from novelgpt.files import read_json
from novelgpt.network import load_model
from novelgpt.training.log import RunLog
from novelgpt.training.preflight import find_passage, make_story, make_writers, tell_facts
from novelgpt.training.run import prepare_run
from novelgpt.training.session import train

pytestmark = pytest.mark.usefixtures("no_flushing")
SIZES = {"total_steps": 18, "hours": None, "epochs": 3}
LEARNS = {"lr": 3e-2, "config": {"n_positions": 32}}


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Write samples of all prefixes in a tiny run, and no page, which has tests of its own."""
    monkeypatch.setattr("novelgpt.training.preflight.SHARE_OF_EPOCH", {"cpu": 20})
    monkeypatch.setattr(pages, "write_training_page", lambda folder: None, raising=False)


def events_of(options) -> list[dict]:
    """Return the events of a log."""
    return [record for record in read_story(options.output_path) if "event" in record]


def names_of(options) -> list[str]:
    """Return what happened in a run, in order: an event with what it is about, or the kind of a figure."""
    words = []
    for record in read_story(options.output_path):
        about = record.get("kind") if record.get("event") == "sample" else record.get("model")
        words.append(
            " ".join(filter(None, (record.get("event"), about))) or ("held" if "valid_loss" in record else ".")
        )
    return words


def test_the_events_of_a_run_stand_in_order_between_its_figures(tiny_options):
    options = tiny_options(sample_length=5, sample_prefix="水里", log_step=6, save_steps=4)
    assert train(options) == 0
    look = ["held", "passage"]
    texts = ["sample own", "sample opening", "sample held_out"]
    epochs = [[".", *look, f"save model_epoch{epoch}", "save best_model", *texts] for epoch in (1, 2, 3)]
    end = ["save final_model", "verdict final_model", "finish"]  # the last epoch is the best one
    assert names_of(options) == ["start", *look, ".", *epochs[0], *epochs[1], *epochs[2], *end]


def test_every_record_has_its_time_step_and_epoch_and_none_is_torn(tiny_options):
    options = tiny_options(sample_length=5)
    assert train(options) == 0
    lines = (options.output_path / "log.jsonl").read_text(encoding="utf-8").splitlines()
    records = [json.loads(line, parse_constant=pytest.fail) for line in lines]
    times = [record["time"] for record in records]
    assert times == sorted(times) and all(time == round(time, 3) > 1.7e9 for time in times)
    assert all({"step", "epoch"} <= {*record} for record in records)
    assert records[-1]["event"] == "finish" and 0 < records[-1]["seconds"] < 300


def test_the_start_tells_sizes_yardsticks_style_passage_and_prefixes(tiny_options):
    options = tiny_options(sample_length=5, sample_prefix="水里")
    assert train(options) == 0
    start = events_of(options)[0]
    run = prepare_run(options)
    assert {name: start[name] for name in SIZES} == SIZES
    sizes = {"tokens": run.data.num_tokens, "windows": len(range(0, run.data.num_tokens - 16 + 8, 8))}
    assert {name: start[name] for name in sizes} == sizes  # the last one ends on the last token
    assert start["parameters"] == sum(weights.numel() for weights in run.model.parameters())
    assert (start["batch_size"], start["context"], start["book"]) == (4, 16, STORY[0].split("\n")[0])
    assert start["tokens_per_character"] == round(run.data.num_valid / run.data.valid_characters, 4)
    counting = run.data.yardsticks(run.tokenizer.vocab_size)
    assert start["yardsticks"] == {name: round(counting[name], 4) for name in ("kn4", "kn5_cache")}
    assert len(start["style"]) == 7 and start["style"]["quotes_balanced"] == 1.0
    assert "".join(start["passage"]["tokens"]) == start["passage"]["text"]
    own, opening, held = start["prefixes"]
    assert own == {"kind": "own", "text": "水里", "truth": None}
    assert opening["text"] + opening["truth"].split("\n")[0] == STORY[0].split("\n")[0]
    text = "\n".join(STORY * 3)
    assert held["kind"] == "held_out" and held["text"] and held["text"] + held["truth"].split("\n\n")[0] in text


@pytest.mark.parametrize(("first", "book"), [("《井里的星》\n作者：无名", "井里的星"), (STORY[0], "第一章 井")])
def test_a_book_is_called_by_its_name_or_by_its_first_chapter(tiny_options, first, book):
    run = prepare_run(tiny_options())
    assert tell_facts(run, [first, *STORY])["book"] == book


def test_a_run_that_cannot_begin_has_no_story(tiny_options):
    run = prepare_run(tiny_options())
    make_story(run, lambda progress: {}).stop("the optimizer state has other names")
    assert not (run.options.output_path / "log.jsonl").exists()
    assert not (run.options.output_path / "training.html").exists()


@pytest.mark.parametrize(
    ("report", "book"),
    [
        ({"books": [{"name": "books/红楼梦.gbk.txt"}]}, "红楼梦"),
        ({"books": [{"name": "a.txt"}, {"name": "b.txt"}]}, "第一章 井"),  # no one name
        ([], "第一章 井"),
    ],
)
def test_a_book_without_a_name_is_called_by_its_file(tiny_options, tmp_path, report, book):
    run = prepare_run(tiny_options())
    (tmp_path / "train.report.json").write_text(json.dumps(report), encoding="utf-8")
    options = replace(run.options, raw_data_path=str(tmp_path / "train.json"))
    assert tell_facts(replace(run, options=options), STORY)["book"] == book


def test_the_passage_costs_what_eval_py_says(tiny_options):
    options = tiny_options(sample_length=0, epochs=1)
    assert train(options) == 0
    run, told = prepare_run(options), [event for event in events_of(options) if event["event"] == "passage"]
    places, texts = find_passage(run)
    model, tokenizer = load_model(options.output_path / "final_model")
    scores = Measure(model, tokenizer, stride=run.data.valid_stride).score(run.data.pieces.valid)
    assert len(told) == 2 and len(texts) == len(told[1]["nats"]) > 10
    assert told[1]["nats"] == pytest.approx(scores.nats[places].tolist(), abs=0.051)
    assert told[0]["nats"] != told[1]["nats"]


def test_a_sample_says_what_it_copies_and_how_it_is_written(tiny_options):
    options = tiny_options(sample_length=20, epochs=8, **LEARNS)
    assert train(options) == 0
    samples = [event for event in events_of(options) if event["event"] == "sample"]
    assert {event["kind"] for event in samples} == {"opening", "held_out"} and len(samples) == 16
    last = samples[-2]
    assert not last["text"].startswith(last["prefix"]) and len(last["style"]) == 7
    book = "\n".join(prepare_run(options).data.documents(prepare_run(options).tokenizer.show))
    run = last["copied"]["longest"]
    parts = [last["text"][place : place + run] for place in range(len(last["text"]) - run + 1)]
    longer = [last["text"][place : place + run + 1] for place in range(len(last["text"]) - run)]
    assert run >= 2 and any(part in book for part in parts) and not any(part in book for part in longer)


@pytest.mark.parametrize("seed", range(6))
def test_a_run_stopped_anywhere_tells_the_same_story_but_for_where_it_went_on(tiny_options, tmp_path, seed):
    changes = {"sample_length": 5, "eval_steps": 4, "save_steps": 5, "log_step": 2}
    whole = tiny_options(**changes)
    assert train(whole) == 0
    broken, chance, resumes = copy_run(whole, tmp_path / "copy"), random.Random(seed), 0
    broken = replace(broken, output_dir=str(tmp_path / "broken"))
    while True:
        with stopping_after(chance.randrange(9, 30)):
            assert train(broken) == 0
        if events_of(broken)[-1]["event"] == "finish":
            break
        assert events_of(broken)[-1]["event"] == "stop"
        resumes += 1
    assert resumes > 0
    ours = read_story(broken.output_path)
    assert [event["event"] for event in ours if event.get("event") in ("resume", "stop")] == ["resume"] * resumes
    kept = [record for record in ours if record.get("event") != "resume"]
    expected = json.loads(json.dumps(read_story(whole.output_path)))
    for one, other in zip(kept, expected, strict=True):
        text = json.dumps(other, ensure_ascii=False)  # the one path in it
        assert json.dumps(one, ensure_ascii=False).replace(str(broken.output_path), str(whole.output_path)) == text
    assert result_of(broken.output_path) == result_of(whole.output_path)


def test_a_stop_says_why_and_leaves_no_trace_once_the_run_has_gone_on(tiny_options, monkeypatch):
    options = tiny_options(sample_length=5, epochs=1)
    with monkeypatch.context() as patch, stopping_after(9):
        patch.setattr("novelgpt.training.session.StopSignals.reason", lambda stop: "--max_hours 1 is over")
        assert train(options) == 0
    assert events_of(options)[-1] | {"step": 5} == {
        "event": "stop", "step": 5, "epoch": 1, "reason": "--max_hours 1 is over",
    }  # fmt: skip
    before = (options.output_path / "log.jsonl").read_bytes().splitlines()
    assert train(options) == 0
    after = (options.output_path / "log.jsonl").read_bytes().splitlines()
    assert after[: len(before) - 1] == before[:-1]
    resumed = json.loads(after[len(before) - 1])
    assert resumed.pop("time") > 0
    sizes = {**SIZES, "total_steps": 6, "epochs": 1}
    assert resumed == {"event": "resume", "step": resumed["step"], "epoch": 1, **sizes}


def test_weights_and_losses_are_the_same_without_a_story(tiny_options, tmp_path):
    options = tiny_options(sample_length=9, eval_steps=2)
    assert train(options) == 0
    silent = replace(options, output_dir=str(tmp_path / "silent"))
    assert fit(silent)  # a trainer by itself
    ours, theirs = result_of(options.output_path), result_of(silent.output_path)
    for result in (ours, theirs):
        for entry in result["progress"].history:
            entry.pop("sample", None)
    assert read_story(silent.output_path) == read_log(silent.output_path)
    assert ours == theirs


@pytest.mark.parametrize("steps", [660, 1_100, 40_000])
def test_what_the_story_computes_stays_below_a_hundredth_of_an_epoch(tiny_options, monkeypatch, steps):
    """Count tokens: one that is written alone costs as much as 9 of an epoch, the beginning of a sample 80 (two cores,
    the demo's network: 22 ms against 2.5 ms, and 0.19 s). The passage comes out of the evaluation's own pass.
    """
    monkeypatch.undo()
    run = prepare_run(tiny_options(sample_length=100, sample_prefix="水里"))
    object.__setattr__(run, "epoch_steps", [steps])  # of 64 tokens
    first, *further = make_writers(run, [{"text": "水里"}] * 3)
    assert first.args[2] == 100 and len(further) == 2
    tokens, epoch = sum(write.args[2] for write in further), 64 * steps
    assert 9 * tokens + 80 * len(further) <= 0.01 * epoch


def test_an_epoch_of_seconds_has_only_the_sample_that_was_asked_for(tiny_options, monkeypatch):
    monkeypatch.undo()
    run = prepare_run(tiny_options(sample_length=100, sample_prefix="水里"))
    assert run.data.step_tokens * run.epoch_steps[0] == 384
    assert len(make_writers(run, [{"text": "水里"}] * 3)) == 1


def test_nothing_held_out_means_no_yardstick_no_passage_and_no_such_sample(tiny_options):
    options = tiny_options(sample_length=5, epochs=1)
    tokenizer = load_tokenizer(options.tokenizer_path)
    source = read_json(options.output_path.parent / "pieces" / "manifest.json")
    facts = {name: source[name] for name in ("source", "vocabulary")}
    write_pieces(STORY * 3, tokenizer, options.tokenized_data_path, num_pieces=3, valid_fraction=0.0, **facts)
    assert train(options) == 0
    start, *others = events_of(options)
    assert start["yardsticks"] == {} and start["passage"] == {"text": "", "tokens": []}
    assert [prefix["kind"] for prefix in start["prefixes"]] == ["opening"] and start["tokens_per_character"] > 0
    assert [event["event"] for event in others] == ["save", "sample", "save", "verdict", "finish"]
    assert others[-2]["kind"] == "none" and others[-2]["model"] == "final_model"


def test_records_tell_their_story_too(row_options):
    options = row_options(sample_length=5, epochs=1)
    assert train(options) == 0
    start, *others = events_of(options)
    assert start["windows"] == len(prepare_run(options).data.train) and start["yardsticks"] == {}
    assert [event["event"] for event in others] == [
        "passage", "passage", "save", "save", "sample", "save", "verdict", "finish",
    ]  # fmt: skip
    assert [prefix["kind"] for prefix in start["prefixes"]] == ["opening"]


def test_a_run_of_hours_tells_samples_at_its_evaluations(tiny_options, monkeypatch):
    monkeypatch.setattr("novelgpt.training.pace.LEAST_STEPS", 2)
    now = iter(range(10**6))
    options = tiny_options(sample_length=5, epochs=None, hours=60 / 3600, log_step=1)
    assert train(options, clock=lambda: next(now) / 2, began=0.0) == 0
    start, *others = events_of(options)
    assert (start["total_steps"], start["hours"], start["epochs"]) == (None, 60 / 3600, None)
    names = [event["event"] for event in others]
    assert names.count("passage") >= 2 and names.count("sample") == 2 * names.count("passage")
    assert names[-3:] == ["save", "verdict", "finish"]


def test_of_several_processes_the_first_one_alone_tells(tiny_options, tmp_path, warm_python):
    from dataclasses import asdict

    one, two = (tiny_options(sample_length=5, output_dir=str(tmp_path / name)) for name in ("one", "two"))
    cases = [{"world": world, "options": asdict(each), "stop_at": None, "save_at": None}
             for world, each in ((1, one), (2, two))]  # fmt: skip
    run_cases(warm_python, cases)
    assert names_of(one) == names_of(two) and names_of(one).count("start") == 1
    passages = [[event["nats"] for event in events_of(each) if event["event"] == "passage"] for each in (one, two)]
    assert np.array(passages[0]) == pytest.approx(np.array(passages[1]), abs=0.11)


@pytest.mark.parametrize("head", [b"", b"{", b"\xff\xfe\n", b"[1]\n", b'{"step": 1, "loss": "nan"}\n', b'"start"\n'])
def test_a_log_that_does_not_begin_with_a_start_gets_one_when_it_goes_on(tmp_path, head):
    (tmp_path / "log.jsonl").write_bytes(head)
    with RunLog(tmp_path, 10) as log:
        assert not log.has_start()
    (tmp_path / "log.jsonl").write_bytes(b'{"time": 1.0, "step": 0, "epoch": 1, "event": "start"}\n' + head)
    with RunLog(tmp_path, 10) as log:
        assert log.has_start()


def test_more_epochs_are_told_when_a_finished_run_goes_on(tiny_options):
    options = tiny_options(epochs=1)
    assert train(options) == 0
    assert train(replace(options, epochs=2, allow_change="epochs")) == 0
    names = [event["event"] for event in events_of(options)]
    assert names.count("start") == names.count("resume") == names.count("verdict") == names.count("finish") == 1
    resumed = next(event for event in events_of(options) if event["event"] == "resume")
    assert (resumed["total_steps"], resumed["epochs"], resumed["hours"]) == (12, 2, None)


@pytest.mark.parametrize("problem", [PermissionError(13, "Permission denied"), ValueError("a fault of ours")])
def test_a_page_that_cannot_be_written_is_one_warning_and_the_run_goes_on(tiny_options, monkeypatch, capsys, problem):
    asked = []

    def refuse(folder):
        asked.append(folder)
        raise problem

    monkeypatch.setattr(pages, "write_training_page", refuse, raising=False)
    options = tiny_options(epochs=2)
    assert train(options) == 0
    said = capsys.readouterr().err
    warning = f"warning: {options.output_path / 'training.html'}: not written: {type(problem).__name__}: {problem}\n"
    assert said.count("training.html: not written") == 1 and warning in said
    assert asked == [options.output_path] * 5  # at the start, at three evaluations, at the end
    assert f"to watch in a browser: {options.output_path / 'training.html'}\n" in said


@pytest.mark.parametrize(
    ("name", "words"), [("tell_facts", "the log tells less of the run"), ("measure_style", "samples are not measured")]
)
def test_a_fault_in_what_is_told_is_one_warning_and_the_run_goes_on(tiny_options, monkeypatch, capsys, name, words):
    def fail(*_):
        raise ValueError("a fault of ours")

    monkeypatch.setattr(f"novelgpt.training.preflight.{name}", fail)
    options = tiny_options(epochs=2, sample_length=5)
    assert train(options) == 0
    assert capsys.readouterr().err.count(f"warning: {words}: ValueError: a fault of ours\n") == 1
    events = events_of(options)
    assert events[0]["event"] == "start" and "parameters" not in events[0]  # style is among the facts, too
    assert sum(event["event"] == "sample" for event in events) > 1 and events[-1]["event"] == "finish"


def test_the_verdict_has_a_kind(tiny_options):
    options = tiny_options(epochs=8, **LEARNS)
    assert train(options) == 0
    verdict = next(event for event in events_of(options) if event["event"] == "verdict")
    kinds = {"still improving": "learning", "nothing more to gain": "converged", "memorising since": "memorising"}
    start = events_of(options)[0]
    losses = [record["valid_loss"] for record in read_log(options.output_path) if "valid_loss" in record]
    expected = next(kind for words, kind in kinds.items() if verdict["text"].startswith(words))
    is_below = expected != "memorising" and min(losses) > start["yardsticks"]["kn5_cache"] - 0.02  # nats: noise
    assert verdict["kind"] == ("below_counting" if is_below else expected)


def test_curves_and_watchers_are_unharmed_by_events(tiny_options, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    records = []
    options = tiny_options(epochs=1, sample_length=5, writer_dir=str(tmp_path / "curves"))
    assert train(options, watch=records.append) == 0
    curves = EventAccumulator(str(tmp_path / "curves")).Reload().Tags()["scalars"]
    figures = {"loss", "lr", "tokens_per_second", "valid_loss", "valid_perplexity"}
    assert {*curves} == figures | {"valid_accuracy", "bits_per_character"}
    assert not any("event" in record for record in records) and any("loss" in record for record in records)
    written = [json.loads(line) for line in (options.output_path / "log.jsonl").read_text().splitlines()]
    assert json.loads(json.dumps(records)) == [record for record in written if "event" not in record]


def test_a_stop_during_a_sample_repeats_no_evaluation(tiny_options, tmp_path, monkeypatch):
    from novelgpt.training.stopping import Stopped

    whole = tiny_options(sample_length=5, epochs=2)
    assert train(whole) == 0
    broken, calls = replace(whole, output_dir=str(tmp_path / "broken")), []
    continue_prefix = __import__("novelgpt.training.preflight", fromlist=["x"]).continue_prefix

    def stop_at_second(*arguments):
        calls.append(1)
        if len(calls) == 2:  # the first text of the first epoch is there already
            raise Stopped
        return continue_prefix(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr("novelgpt.training.preflight.continue_prefix", stop_at_second)
        assert train(broken) == 0
    assert events_of(broken)[-1]["event"] == "stop"
    assert train(broken) == 0
    assert [record for record in names_of(broken) if record != "resume"] == names_of(whole)
    assert result_of(broken.output_path)["log"] == result_of(whole.output_path)["log"]


def test_the_options_of_a_run_stand_beside_its_story(tiny_options):
    options = tiny_options(epochs=1)
    assert train(options) == 0
    assert read_json(options.output_path / "run.json")["total_steps"] == events_of(options)[0]["total_steps"]


def test_fit_by_itself_has_no_story(tiny_options):
    options = tiny_options(epochs=1)
    assert fit(options, StopAfter())
    assert events_of(options) == [] and torch.is_grad_enabled()
