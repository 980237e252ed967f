"""What a run says when it stops, and from where it goes on."""

import shutil
from dataclasses import replace
from types import SimpleNamespace

import pytest
from helpers import copy_run, refusal_of, stopping_after

from novelgpt.cli import TrainOptions, spell_command
from novelgpt.files import find_damage, read_json
from novelgpt.messages import UserError
from novelgpt.training import checkpoint
from novelgpt.training.checkpoint import Progress, list_checkpoints
from novelgpt.training.session import best_model, describe_stop, find_deadline, report_end, train, writing_command
from novelgpt.training.stopping import StopSignals
from novelgpt.training.trainer import Trainer

pytestmark = pytest.mark.usefixtures("no_flushing")


@pytest.fixture
def unfinished(stopped_run, tmp_path, capsys):
    """The options of a run whose time was up after 9 questions, with checkpoints of every second step."""
    return copy_run(stopped_run, tmp_path)


def names(options) -> list[str]:
    """Return the checkpoint folders' names, those set aside included."""
    return sorted(path.name for path in (options.output_path / "checkpoints").iterdir())


def test_the_summary_names_what_improved_the_best_sample_and_what_is_left():
    history = [
        {"epoch": 0, "step": 0, "valid_loss": 5.5},
        {"epoch": 1, "step": 6, "valid_loss": 4.25, "sample": "井里"},
        {"epoch": 2, "step": 12, "valid_loss": 4.5, "sample": "剑"},
        {"epoch": 3, "step": 18, "valid_loss": None, "sample": "潮"},
    ]
    progress = Progress(step=20, epoch=4, history=history, skipped=2)
    assert describe_stop(progress, 60, 10, seconds_per_step=90.0, command="python train.py") == [
        "stopped at step 20 of 60, epoch 4 of 10",
        "held-out loss 5.5000 at the start, 4.5000 now; best 4.2500 after epoch 1",
        "sample of epoch 1: 井里",
        "2 steps were skipped: their loss or gradient was not finite",
        "left: 40 steps, about 1 h 0 min",
        "continue with: python train.py",
    ]


def test_a_run_that_stopped_in_its_last_epochs_end_says_the_last_epoch():
    lines = describe_stop(Progress(step=6, epoch=4), 6, 3, seconds_per_step=None, command="x")
    assert lines == ["stopped at step 6 of 6, epoch 3 of 3", "left: 0 steps", "continue with: x"]


@pytest.mark.parametrize(
    "resume",
    [
        ["--resume=never"],
        ["--resume", "never"],
        ["--resume", "model/checkpoints/step-00000002"],
        ["--resume=model/checkpoints/step-00000002"],
        ["--resume", "never", "--resume=model/checkpoints/step-00000002"],
        [],  # of a config file
    ],
)
def test_the_command_of_torchrun_goes_on_however_the_stopped_one_began(resume, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    words = ["train.py", "--raw", *resume, "--output_dir", "resume"]
    assert spell_command(words, resume="auto") == (
        "torchrun --nproc_per_node=2 train.py --raw --output_dir resume --resume auto"
    )


@pytest.mark.parametrize(
    ("command", "how"),
    [
        (["train.py", "--raw"], "python train.py --raw"),
        (None, "the same call of novelgpt.train"),  # a notebook's own words would resume nothing
    ],
)
def test_the_stop_prints_how_the_run_is_resumed(unfinished, monkeypatch, capsys, command, how):
    monkeypatch.setattr("sys.argv", ["ipykernel_launcher.py", "-f", "kernel.json"])
    with stopping_after(3):
        assert train(unfinished, command=command) == 0
    lines = capsys.readouterr().err.split("\n")
    assert lines[-2] == f"continue with: {how}"
    assert lines[-3].startswith("left: ")
    assert read_json(unfinished.output_path / "run.json")["command"] == command


@pytest.mark.parametrize(
    ("deadline", "signalled", "reason"),
    [(0.0, None, ": --max_hours 0.2 is over"), (0.0, 15, ": SIGTERM"), (None, None, "")],
)
def test_a_stop_says_its_reason(unfinished, capsys, deadline, signalled, reason):
    stop = StopSignals(deadline=deadline, limit="--max_hours 0.2 is over")
    stop.stopped_by = signalled
    assert stop.reason() == reason.removeprefix(": ")
    lines = describe_stop(Progress(step=2), 6, 3, seconds_per_step=None, command="x", reason=stop.reason())
    assert lines[0] == f"stopped at step 2 of 6, epoch 1 of 3{reason}"


@pytest.mark.parametrize(
    ("given", "reason"),
    [({"max_hours": 1e-9}, "--max_hours 1e-09 is over"), ({"until": "07:00"}, "--until 07:00 is past")],
)
def test_the_nearest_of_two_limits_is_the_reason(given, reason):
    deadline, words = find_deadline(TrainOptions(**{"max_hours": 99.0, **given}), began=5.0)
    assert words == reason
    assert 5.0 < deadline <= 5.0 + 24 * 3600
    assert find_deadline(TrainOptions(), began=5.0) == (None, "")


def test_checkpoints_without_run_json_are_not_written_over(unfinished):
    before = names(unfinished)
    (unfinished.output_path / "run.json").unlink()
    with pytest.raises(UserError) as caught:
        train(unfinished)
    assert str(caught.value) == (
        f"error: {unfinished.output_path}: holds checkpoints but no run.json\n\n"
        "hint: put run.json back; or start over with --resume never, which moves the old run aside"
    )
    assert (caught.value.code, names(unfinished)) == (5, before)


def test_going_on_from_a_named_checkpoint_sets_later_ones_aside(unfinished, tmp_path):
    whole = replace(unfinished, output_dir=str(tmp_path / "whole"))
    assert train(whole) == 0
    assert names(unfinished)[:2] == ["step-00000002", "step-00000004"]
    second = list_checkpoints(unfinished.output_path)[0]
    assert train(replace(unfinished, resume=str(second))) == 0
    assert "step-00000004.later" in names(unfinished)
    last = [sorted((options.output_path / "checkpoints").glob("step-????????"))[-1] for options in (unfinished, whole)]
    assert last[0].name == last[1].name == "step-00000018"
    assert (last[0] / "optimizer.safetensors").read_bytes() == (last[1] / "optimizer.safetensors").read_bytes()


def test_a_named_checkpoint_of_other_settings_is_refused(unfinished):
    path = list_checkpoints(unfinished.output_path)[0]
    with pytest.raises(UserError) as caught:
        train(replace(unfinished, resume=str(path), seed=3))
    assert caught.value.message == (
        f"{unfinished.output_path}: holds an unfinished run with other settings\n  seed: was 0, now 3"
    )


def test_a_named_checkpoint_without_its_run_is_taken_with_a_warning(unfinished, tmp_path, capsys):
    path = tmp_path / "elsewhere" / "mine"
    shutil.copytree(list_checkpoints(unfinished.output_path)[0], path)
    assert train(replace(unfinished, resume=str(path), output_dir=str(tmp_path / "new"))) == 0
    warning = f"warning: --resume {path}: no run.json of its run, so its settings cannot be compared\n"
    assert warning in capsys.readouterr().err


def test_what_a_kill_left_unpruned_goes_at_the_next_start(unfinished):
    assert len(names(unfinished)) > 2
    assert train(replace(unfinished, save_total_limit=1)) == 0
    assert names(unfinished) == ["step-00000018"]


def test_a_last_checkpoint_that_the_disk_refuses_is_an_error_and_any_other_a_warning(unfinished, monkeypatch, capsys):
    def refuse(*_arguments, **_settings):
        raise UserError("step-x: cannot be written: No space left on device", "free some space", 4)

    monkeypatch.setattr(checkpoint, "save_checkpoint", refuse)
    before = names(unfinished)
    with stopping_after(6):
        problem = refusal_of(train, unfinished)
    assert (problem.code, names(unfinished)) == (4, before)
    warning = "cannot be written: No space left on device; the former one stays"
    assert warning in capsys.readouterr().err


def test_a_refused_checkpoint_is_tried_again_a_minute_later(unfinished, monkeypatch):
    now, refusals, tried = [0.0], [1], []

    def save(_folder, progress, *_arguments, **_settings):
        tried.append(progress.step)
        if refusals:
            raise UserError("full", "free some space", refusals.pop())

    count_step = Trainer.count_step

    def count_and_wait(this, *step):
        count_step(this, *step)
        now.append(now.pop() + 25)

    monkeypatch.setattr(Trainer, "count_step", count_and_wait)
    monkeypatch.setattr(checkpoint, "save_checkpoint", save)
    monkeypatch.setattr("time.monotonic", lambda: now[-1])
    first = max(int(name[5:]) for name in names(unfinished))
    assert train(replace(unfinished, save_steps=0, save_minutes=0, epochs=3)) == 0
    ends = [step for step in (6, 12, 18) if step > first]
    assert tried[:2] == [ends[0], ends[0] + 3]  # 75 s later
    assert find_damage(unfinished.output_path / "final_model") is None


def test_a_finished_run_that_is_given_more_epochs_ends_with_a_new_final_model(tiny_options, capsys):
    options = tiny_options(epochs=1)
    assert train(options) == 0
    assert train(replace(options, epochs=2, allow_change="epochs")) == 0
    last = (options.output_path / "model_epoch2" / "model.safetensors").read_bytes()
    assert (options.output_path / "final_model" / "model.safetensors").read_bytes() == last
    assert train(replace(options, epochs=2)) == 0
    assert capsys.readouterr().err.endswith(
        "this run is finished; --resume never starts it again\n"
        f"write with it: python generate.py --model_path {options.output_path / 'final_model'}\n"
        "for more epochs: novelgpt.train(…, epochs=4, allow_change='epochs')\n"
    )


def test_a_stop_before_the_first_epoch_ends_names_the_loss_at_the_start_alone():
    progress = Progress(step=2, history=[{"epoch": 0, "step": 0, "valid_loss": 8.03}])
    lines = describe_stop(progress, 60, 10, seconds_per_step=None, command="x")
    assert lines[1:-1] == ["held-out loss 8.0300 at the start", "left: 58 steps"]


@pytest.mark.parametrize(
    ("changes", "name", "command"),
    [
        ({}, "final_model", "python generate.py"),
        ({}, "best_model", "python generate.py --model_path model/best_model"),
        ({"book": "a b", "output_dir": "books/a b/model"}, "final_model", "python generate.py --book 'a b'"),
        (
            {"book": "a b", "output_dir": "books/a b/model"},
            "best_model",
            "python generate.py --book 'a b' --model_path 'books/a b/model/best_model'",
        ),
        ({"book": "a", "output_dir": "two"}, "final_model", "python generate.py --model_path two/final_model"),
    ],
)
def test_the_command_that_writes_is_the_shortest_of_the_model(changes, name, command, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    options = TrainOptions(**changes)
    assert writing_command(options.output_path / name, options) == command


@pytest.mark.parametrize(
    ("losses", "begins", "advice"),
    [
        ([8.0, 6.0, 5.0], "still improving at epoch 2 ", "train longer"),
        ([8.0, 5.0, 5.0], "nothing more to gain, best at epoch 1 ", "a longer book or a smaller network would help"),
        ([8.0, 5.0, 6.0], "memorising since epoch 1 ", "a longer book or a smaller network would help"),
    ],
)
def test_the_advice_beside_the_4_gram_follows_the_outcome(losses, begins, advice, capsys):
    history = [{"epoch": number, "step": 6 * number, "valid_loss": loss} for number, loss in enumerate(losses)]
    best = losses.index(min(losses))
    progress = Progress(step=12, epoch=3, history=history, best_loss=min(losses), best_epoch=best, best_step=6 * best)
    data = SimpleNamespace(mark=None, compare_with_ngram=lambda loss, vocab_size, advice: f"4-gram: {advice}")
    world, tokenizer = SimpleNamespace(is_main=True), SimpleNamespace(vocab_size=9)
    run = SimpleNamespace(options=TrainOptions(epochs=2), data=data, world=world, tokenizer=tokenizer, command=["x"])
    report_end(run, progress, seconds=1.0)
    verdict, writing = capsys.readouterr().err.splitlines()[1:3]
    name = "final_model" if best == 2 else "best_model"
    assert verdict.startswith(begins)
    assert verdict.endswith(f"; use model/{name}; 4-gram: {advice}")
    assert writing == f"write with it: python generate.py{'' if best == 2 else ' --model_path model/best_model'}"


def test_the_best_model_is_the_final_one_where_their_steps_are_one():
    options = TrainOptions()
    assert best_model(Progress(step=9), options).name == "final_model"
    best = Progress(step=9, best_epoch=1, best_step=9)
    assert best_model(best, options).name == "final_model"
    best.best_step = 6
    assert best_model(best, options).name == "best_model"
    assert best_model(best, TrainOptions(load_best_model_at_end=True)).name == "final_model"
