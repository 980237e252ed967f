"""A run goes on bit for bit after any stop, splits batches without changing them, and leaves bad numbers out."""

import math
from dataclasses import replace

import pytest
import torch
from conftest import STORY
from helpers import (
    StopAfter,
    assert_survives_a_stop_anywhere,
    assert_survives_stops,
    copy_run,
    fit,
    read_log,
    refusal_of,
    result_of,
    spoil_steps,
    step_losses,
)
from safetensors.torch import load_file

from novelgpt.files import find_damage
from novelgpt.messages import UserError
from novelgpt.network import sum_loss
from novelgpt.training.checkpoint import list_checkpoints, read_progress
from novelgpt.training.checks import check_windows
from novelgpt.training.run import prepare_run
from novelgpt.training.session import train
from novelgpt.training.windows import epoch_batches

pytestmark = pytest.mark.usefixtures("no_flushing")


def test_the_first_step_is_the_golden_one(tiny_options):
    options = tiny_options(config={"embd_pdrop": 0.0, "resid_pdrop": 0.0, "attn_pdrop": 0.0}, log_step=1, epochs=1)
    run = prepare_run(options)
    batch = next(epoch_batches(run.data.pieces.train, 16, 8, 4, seed=0, epoch=1))
    input_ids, labels = torch.from_numpy(batch.input_ids), torch.from_numpy(batch.labels)
    loss = sum_loss(run.model, input_ids, labels) / (4 * 15)
    loss.backward()
    norm = torch.nn.utils.get_total_norm([parameter.grad for parameter in run.model.parameters()])
    theirs = run.model(input_ids, labels=labels).loss  # transformers' own
    assert loss.item() == pytest.approx(theirs.item(), rel=1e-6)
    message = "the first step has changed: update these figures only if window order or initial weights were to change"
    assert (loss.item(), norm.item()) == pytest.approx((5.82056, 2.21940), rel=2e-6), message
    assert fit(options)
    assert step_losses(options.output_path)[0] == pytest.approx(loss.item(), rel=1e-6)


@pytest.mark.parametrize(("accumulation", "questions"), [(1, 7), (1, 10), (4, 13), (4, 18)])
def test_a_run_stopped_again_and_again_ends_bit_for_bit_like_one_left_alone(
    tiny_options, finished, tmp_path, accumulation, questions
):
    changes = {"gradient_accumulation": accumulation}  # 3 epochs of 6 steps, dropout 0.1
    assert_survives_stops(tiny_options(**changes), tmp_path, questions, least=3, whole=finished(**changes))


@pytest.mark.slow
@pytest.mark.parametrize("accumulation", [1, 4])
def test_a_run_of_60_steps_stopped_at_any_question_ends_bit_for_bit_the_same(tiny_options, tmp_path, accumulation):
    options = tiny_options(gradient_accumulation=accumulation, epochs=10)
    assert_survives_a_stop_anywhere(options, tmp_path)


def test_checkpoints_within_an_epoch_change_nothing(tiny_options, finished):
    saving = tiny_options(save_steps=1)
    assert fit(saving)
    assert result_of(saving.output_path) == result_of(finished().output_path)


def test_a_checkpoint_that_was_moved_goes_on(tiny_options, finished, tmp_path):
    broken = tiny_options()
    assert not fit(broken, StopAfter(9))
    moved = replace(broken, output_dir=str(tmp_path / "别处 moved"))
    broken.output_path.rename(moved.output_path)
    assert fit(moved)
    assert result_of(moved.output_path) == result_of(finished().output_path)


@pytest.mark.sweep
def test_a_batch_of_8_equals_two_of_4_accumulated_over_20_steps(tiny_options, tmp_path):
    options = tiny_options(batch_size=8, stride=4, epochs=4, log_step=1)
    assert fit(options)
    halves = replace(options, gradient_accumulation=2, output_dir=str(tmp_path / "halves"))
    thirds = replace(options, gradient_accumulation=3, output_dir=str(tmp_path / "thirds"))
    losses = step_losses(options.output_path)
    assert len(losses) >= 20
    assert losses[-1] < losses[0] - 0.5
    for split in (halves, thirds):
        assert fit(split)
        assert step_losses(split.output_path) == pytest.approx(losses, rel=1e-5)


def test_the_logged_steps_end_at_a_rate_of_zero_and_are_as_many_as_planned(finished):
    options = finished(log_step=1, epochs=2)
    run = prepare_run(options)
    steps = [record for record in read_log(options.output_path) if "lr" in record]
    assert [record["step"] for record in steps] == list(range(1, run.total_steps + 1))
    assert steps[-1]["lr"] == 0.0 and min(record["lr"] for record in steps[:-1]) > 0


# --- numbers that are none ---


@pytest.mark.parametrize("gradient", [False, True])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_step_without_a_finite_loss_or_gradient_is_left_out_counted_and_logged(
    tiny_options, monkeypatch, capsys, value, gradient
):
    spoil_steps(monkeypatch, {4}, value, gradient=gradient)
    options = tiny_options(epochs=1, save_steps=1, save_total_limit=100, log_step=2)
    assert fit(options)
    before, after = (list_checkpoints(options.output_path)[step - 1] for step in (3, 4))
    for name in ("model.safetensors", "optimizer.safetensors"):
        assert (before / name).read_bytes() == (after / name).read_bytes()  # the step touched neither
    assert read_progress(after).skipped == 1
    assert [record["loss"] for record in read_log(options.output_path) if record["step"] == 4][:1] == ["nan"]
    losses = [loss for loss in step_losses(options.output_path) if loss != "nan"]
    assert losses and all(math.isfinite(loss) for loss in losses)
    run = prepare_run(options)
    starts = [batch.starts for batch in epoch_batches(run.data.pieces.train, 16, 8, 4, seed=0, epoch=1)][3]
    words = ", ".join(map(str, starts))
    line = f"warning: step 4: loss or gradient is not finite; left out (windows at tokens {words})"
    assert line in capsys.readouterr().err.split("\n")
    for path in options.output_path.glob("**/*.safetensors"):
        assert all(torch.isfinite(tensor).all() for tensor in load_file(path).values()), path


def test_three_bad_steps_in_a_row_end_the_run_with_exit_6(tiny_options, monkeypatch):
    spoil_steps(monkeypatch, {3, 5, 6, 8, 9, 10}, math.nan, gradient=False)
    options = tiny_options(save_steps=2)
    with pytest.raises(UserError) as caught:
        fit(options)
    last = options.output_path / "checkpoints" / "step-00000008"
    assert str(caught.value) == (
        f"error: step 10: loss not finite 3 steps in a row; last good checkpoint: {last}\n\n"
        "hint: --lr 0.0033 --allow_change lr"
    )
    assert caught.value.code == 6
    assert find_damage(last) is None
    for path in options.output_path.glob("**/*.safetensors"):
        assert all(torch.isfinite(tensor).all() for tensor in load_file(path).values()), path


def test_bad_steps_count_in_a_row_across_a_resume(tiny_options, monkeypatch):
    spoil_steps(monkeypatch, {4, 5}, math.nan, gradient=False)
    options = tiny_options(save_steps=1)
    assert not fit(options, StopAfter(9))  # some step after 5
    spoil_steps(monkeypatch, {1, 2, 3}, math.nan, gradient=False)
    with pytest.raises(UserError) as caught:
        fit(options)
    assert caught.value.code == 6


# --- whole calls of train ---


@pytest.fixture
def unfinished(stopped_run, tmp_path):
    """The options of a run that stopped by itself in the middle."""
    options = copy_run(stopped_run, tmp_path)
    assert not (options.output_path / "final_model").exists()
    return options


@pytest.mark.parametrize(
    ("name", "value", "line"),
    [
        ("stride", 4, "stride: was 8, now 4"),
        ("batch_size", 2, "batch_size: was 4, now 2"),
        ("seed", 1, "seed: was 0, now 1"),
        ("lr", 0.02, "lr: was 0.01, now 0.02"),
        ("epochs", 4, "epochs: was 3, now 4"),
        ("optimizer", "muon", 'optimizer: was "adamw", now "muon"'),
        ("precision", "bf16", 'precision: was "fp32", now "bf16"'),
        ("dropout", 0.2, "dropout: was [0.1, 0.1, 0.1], now [0.2, 0.2, 0.2]"),
        ("log_step", 7, "log_step: was 3, now 7"),
    ],
)
def test_a_changed_option_is_refused_with_the_difference(unfinished, name, value, line):
    problem = refusal_of(train, replace(unfinished, **{name: value}))
    assert problem.message.startswith(
        f"{unfinished.output_path}: holds an unfinished run with other settings\n  {line}"
    )
    may_change = name not in ("stride", "batch_size", "seed", "optimizer")
    assert (f"allow_change='{name}'" in problem.hint) == may_change
    assert problem.code == 5


def test_all_differences_are_listed(unfinished):
    problem = refusal_of(train, replace(unfinished, stride=4, batch_size=2, seed=1))
    assert problem.message == (
        f"{unfinished.output_path}: holds an unfinished run with other settings\n"
        "  batch_size: was 4, now 2\n  stride: was 8, now 4\n  seed: was 0, now 1"
    )


def test_another_corpus_is_refused_and_cannot_be_allowed(unfinished, tiny_options):
    # writes other pieces into the same folder
    tiny_options(documents=[*STORY, "第四章 归\n井里没有水了。"] * 2)
    problem = refusal_of(train, unfinished)
    assert problem.message == (
        f"{unfinished.output_path}: holds a run of another version of this book\n"
        "  there: “第一章 井”, 6 documents, 191 tokens\n  now: “第一章 井”, 5 documents, 150 tokens"
    )
    assert "allow_change" not in problem.hint


def test_another_network_is_refused(unfinished, tiny_options):
    tiny_options(config={"n_layer": 1})
    problem = refusal_of(train, unfinished)
    assert problem.message.endswith("\n  model_config: n_layer: was 2, now 1")
    assert problem.code == 5


def test_an_allowed_change_goes_on(unfinished):
    changed = replace(unfinished, lr=0.001, log_step=1, allow_change="lr,log_step")
    assert train(changed) == 0
    assert find_damage(unfinished.output_path / "final_model") is None


def test_a_change_that_cannot_be_allowed_is_named(unfinished):
    problem = refusal_of(train, replace(unfinished, allow_change="corpus"))
    assert problem.message.startswith("--allow_change: found 'corpus', expected some of ")
    assert problem.code == 2


def test_the_same_command_goes_on_and_a_finished_run_says_so(unfinished, capsys):
    assert train(unfinished) == 0
    err = capsys.readouterr().err
    assert f"resuming from {unfinished.output_path / 'checkpoints'}" in err
    before = {path: path.stat().st_mtime_ns for path in unfinished.output_path.glob("*_*/*")}
    assert train(unfinished) == 0
    said = capsys.readouterr().err
    assert said.startswith(f"{unfinished.output_path}: this run is finished; --resume never starts it again\n")
    assert {path: path.stat().st_mtime_ns for path in unfinished.output_path.glob("*_*/*")} == before


def test_resume_never_moves_the_former_run_aside(unfinished, capsys):
    assert train(replace(unfinished, resume="never", epochs=1)) == 0
    aside = unfinished.output_path.with_name("run.1")
    assert f"the former run is now {aside}" in capsys.readouterr().err
    assert list_checkpoints(aside)
    assert find_damage(unfinished.output_path / "final_model") is None


def test_a_damaged_checkpoint_falls_back_and_the_end_is_the_same(unfinished, tiny_options, tmp_path, capsys):
    whole = replace(unfinished, output_dir=str(tmp_path / "whole"))
    assert train(whole) == 0
    newest = list_checkpoints(unfinished.output_path)[-1]
    path = newest / "optimizer.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    capsys.readouterr()
    assert train(unfinished) == 0
    reason = "optimizer.safetensors has changed: its sha256 differs from the manifest"
    assert f"warning: {newest}: set aside as {newest.name}.bad: {reason}" in capsys.readouterr().err
    assert newest.with_name(newest.name + ".bad").is_dir()
    assert result_of(unfinished.output_path) == result_of(whole.output_path)


def test_a_run_of_damaged_checkpoints_alone_is_an_error(unfinished):
    for path in list_checkpoints(unfinished.output_path):
        (path / "model.safetensors").write_bytes(b"")
    problem = refusal_of(train, unfinished)
    assert str(problem) == (
        f"error: {unfinished.output_path / 'checkpoints'}: none of 3 checkpoints is whole\n\n"
        "hint: start again with --resume never, or copy a whole checkpoint back"
    )
    assert problem.code == 5


def test_a_named_checkpoint_that_is_damaged_is_an_error(unfinished):
    path = list_checkpoints(unfinished.output_path)[0]
    (path / "state.json").unlink()
    problem = refusal_of(train, replace(unfinished, resume=str(path)))
    assert problem.message == f"--resume {path}: not a whole checkpoint: state.json is missing"


def test_a_corpus_shorter_than_one_window_trains(tiny_options):
    options = tiny_options(documents=["井里水", "水里井"], epochs=2, log_step=1)
    assert train(options) == 0
    losses = step_losses(options.output_path)
    assert len(losses) == 2 and all(math.isfinite(loss) for loss in losses)


@pytest.mark.parametrize("num_tokens", [0, 1])
def test_no_token_to_learn_from_is_an_error(tiny_options, num_tokens):
    options = tiny_options()
    with pytest.raises(UserError) as caught:
        check_windows(options, num_tokens, 16)
    assert str(caught.value) == (
        f"error: {options.tokenized_data_path}: {num_tokens} training tokens, so nothing would be trained\n\n"
        "hint: give a longer text to clr_ctrl.py, then train.py --raw"
    )
    assert caught.value.code == 3


def test_a_stride_longer_than_the_window_is_refused(tiny_options):
    problem = refusal_of(train, tiny_options(stride=17))
    assert str(problem) == (
        "error: --stride 17: longer than the window of 16 tokens, so text would be skipped\n\nhint: --stride 8"
    )
    assert problem.code == 2


def test_the_best_model_is_the_one_with_the_lowest_held_out_loss(tiny_options):
    options = tiny_options(epochs=4, lr=0.1)
    assert train(options) == 0
    losses = [record["valid_loss"] for record in read_log(options.output_path) if "valid_loss" in record][1:]
    best = 1 + losses.index(min(losses))
    folder = options.output_path
    same = (folder / f"model_epoch{best}" / "model.safetensors").read_bytes()
    assert (folder / "best_model" / "model.safetensors").read_bytes() == same
    last = (folder / "model_epoch4" / "model.safetensors").read_bytes()
    assert (folder / "final_model" / "model.safetensors").read_bytes() == last
