"""Evaluations within an epoch, the best model among them, early stopping, and what final_model is; all bit for bit."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
from conftest import STORY
from helpers import assert_survives_a_stop_anywhere, assert_survives_stops, fit, read_log, result_of
from safetensors.torch import load_file

from novelgpt.cli import TrainOptions
from novelgpt.files import find_damage, read_json
from novelgpt.messages import UserError
from novelgpt.training.checkpoint import list_checkpoints, read_progress
from novelgpt.training.checks import check_options, check_resolved
from novelgpt.training.keeping import ModelKeeper
from novelgpt.training.session import train

# learning the first chapter by heart spoils the others, which are held out: the best comes early
WORSENING = {"replacement": "frequency", "documents": [STORY[0]] * 6 + STORY[1:], "lr": 0.03, "epochs": 6}
HABITS = {"eval_steps": 2, "early_stopping_patience": 3, "load_best_model_at_end": True}


pytestmark = pytest.mark.usefixtures("no_flushing")


def held_out(folder) -> list[tuple[int, float]]:
    """Return step and held-out loss of every evaluation of a run."""
    return [(record["step"], record["valid_loss"]) for record in read_log(folder) if "valid_loss" in record]


def weights_of(folder) -> bytes:
    """Return the bytes of a model folder's or checkpoint's weights."""
    return (folder / "model.safetensors").read_bytes()


def step_of(model_folder) -> int:
    """Return the step a model folder is of."""
    return read_json(model_folder / "manifest.json")["step"]


def test_evaluations_within_an_epoch_come_at_their_steps_and_change_no_weight(finished):
    options = finished(eval_steps=4, epochs=2)  # epochs of 6 steps
    assert [step for step, _ in held_out(options.output_path)] == [0, 4, 6, 8, 12]
    without = finished(epochs=2)
    assert weights_of(options.output_path / "final_model") == weights_of(without.output_path / "final_model")
    assert [record for record in read_log(options.output_path) if "loss" in record] == [
        record for record in read_log(without.output_path) if "loss" in record
    ]


def test_best_model_is_the_lowest_evaluation_wherever_it_was(tiny_options):
    options = tiny_options(**WORSENING, eval_steps=1, save_steps=1, save_total_limit=99)
    assert fit(options)
    folder = options.output_path
    losses = held_out(folder)[1:]
    assert len(losses) == 36
    best = min(losses, key=lambda entry: entry[1])
    assert best[0] % 6 != 0  # within an epoch
    checkpoint = folder / "checkpoints" / f"step-{best[0]:08d}"
    expected = load_file(checkpoint / "model.safetensors")
    ours = load_file(folder / "best_model" / "model.safetensors")
    for name, value in ours.items():
        if name in expected:
            assert value.equal(expected[name]), name
    assert step_of(folder / "best_model") == best[0]
    assert read_json(folder / "best_model" / "manifest.json")["valid_loss"] == best[1]


@pytest.mark.parametrize(("every", "patience"), [(1, 2), (2, 3), (4, 2), (0, 1), (0, 2)])
def test_a_run_ends_at_the_first_evaluation_that_exhausts_the_patience(tiny_options, capsys, every, patience):
    options = tiny_options(**WORSENING, eval_steps=every)
    assert fit(options)
    best, waited, end = float("inf"), 0, None
    for step, loss in held_out(options.output_path)[1:]:  # what the whole run would have seen
        best, waited = (loss, 0) if loss < best else (best, waited + 1)
        end = end or (step if waited == patience else None)
    shutil.rmtree(options.output_path)
    assert end is not None and end < 36
    assert train(replace(options, early_stopping_patience=patience)) == 0
    folder = options.output_path
    assert held_out(folder)[-1][0] == end == read_progress(list_checkpoints(folder)[-1]).step
    assert step_of(folder / "final_model") == end
    assert f"stopped early: {patience} evaluations in a row were not better than epoch " in capsys.readouterr().err


def test_final_model_is_the_last_one_or_the_best_one_as_asked(tiny_options, tmp_path, capsys):
    options = tiny_options(**WORSENING, eval_steps=2, early_stopping_patience=3)
    assert train(options) == 0
    last, best = (options.output_path / name for name in ("final_model", "best_model"))
    assert (step_of(best), step_of(last)) == (4, 10)
    assert weights_of(last) != weights_of(best)
    chosen = replace(options, load_best_model_at_end=True, output_dir=str(tmp_path / "chosen"))
    assert train(chosen) == 0
    final = chosen.output_path / "final_model"
    assert f"{final}: the weights of best_model, step 4\n" in capsys.readouterr().err
    assert find_damage(final) is None
    assert weights_of(final) == weights_of(best)
    assert {path.name for path in final.iterdir()} == {path.name for path in best.iterdir()}


def test_a_run_that_stopped_early_is_finished_and_goes_on_with_more_patience(tiny_options, tmp_path, capsys):
    options = tiny_options(**WORSENING, eval_steps=2, early_stopping_patience=2)
    assert train(options) == 0
    before = {path: path.stat().st_mtime_ns for path in options.output_path.glob("*_*/*")}
    capsys.readouterr()
    assert train(options) == 0
    assert capsys.readouterr().err == (
        f"{options.output_path}: this run is finished; --resume never starts it again\n"
        f"write with it: python generate.py --model_path {options.output_path / 'best_model'}\n"
        "for more epochs: novelgpt.train(…, early_stopping_patience=0, allow_change='early_stopping_patience')\n"
    )
    assert {path: path.stat().st_mtime_ns for path in options.output_path.glob("*_*/*")} == before
    patient = replace(options, early_stopping_patience=4)
    assert train(replace(patient, allow_change="early_stopping_patience")) == 0
    at_once = replace(patient, output_dir=str(tmp_path / "at_once"))
    assert train(at_once) == 0
    assert result_of(options.output_path) == result_of(at_once.output_path)


@pytest.mark.parametrize("questions", [4, 7, 11])
def test_a_run_with_habits_stopped_again_and_again_ends_bit_for_bit_like_one_left_alone(
    tiny_options, finished, tmp_path, questions
):
    changes = {**WORSENING, **HABITS}
    assert_survives_stops(tiny_options(**changes), tmp_path, questions, least=2, whole=finished(**changes))


@pytest.mark.slow
@pytest.mark.parametrize("save_steps", [0, 1, 3])
@pytest.mark.parametrize("changes", [{}, {"early_stopping_patience": 0}, {"eval_steps": 0}, {"eval_steps": 5}])
def test_a_run_with_habits_stopped_at_any_question_ends_bit_for_bit_the_same(
    tiny_options, tmp_path, changes, save_steps
):
    options = tiny_options(**WORSENING, **{**HABITS, **changes}, save_steps=save_steps)
    assert_survives_a_stop_anywhere(options, tmp_path)


@pytest.mark.parametrize("evaluation", [1, 2, 3, 4, 5])
def test_a_crash_between_an_evaluation_and_its_checkpoint_ends_in_the_same_bytes(
    tiny_options, finished, monkeypatch, evaluation
):
    broken = tiny_options(**WORSENING, **HABITS, save_steps=1)
    choose_best, left = ModelKeeper.choose_best, [evaluation]

    def choose_and_crash(*arguments):
        choose_best(*arguments)
        left[0] -= 1
        if not left[0]:
            raise RuntimeError("killed")

    monkeypatch.setattr(ModelKeeper, "choose_best", choose_and_crash)
    with pytest.raises(RuntimeError, match="killed"):
        fit(broken)
    monkeypatch.setattr(ModelKeeper, "choose_best", choose_best)
    assert fit(broken)
    assert result_of(broken.output_path) == result_of(finished(**WORSENING, **HABITS).output_path)


def test_a_best_model_that_is_damaged_at_the_end_is_an_error_and_the_hint_mends_it(tiny_options, monkeypatch):
    options = tiny_options(**WORSENING, **HABITS)
    write_final = ModelKeeper.write_final

    def damage(keeper, *arguments, **settings):
        (keeper.folder / "best_model" / "config.json").write_text("{}", encoding="utf-8")
        write_final(keeper, *arguments, **settings)

    monkeypatch.setattr(ModelKeeper, "write_final", damage)
    with pytest.raises(UserError) as caught:
        train(options)
    best = options.output_path / "best_model"
    assert caught.value.message.startswith(f"{best}: cannot become final_model: config.json has 2 bytes, expected ")
    assert caught.value.hint == (
        "--no-load_best_model_at_end --allow_change load_best_model_at_end gives final_model the last weights"
    )
    assert caught.value.code == 5
    monkeypatch.setattr(ModelKeeper, "write_final", write_final)
    assert train(replace(options, load_best_model_at_end=False, allow_change="load_best_model_at_end")) == 0
    assert step_of(options.output_path / "final_model") == 10


@pytest.mark.parametrize(
    ("changes", "holds_out", "message", "hint"),
    [
        (
            {"eval_steps": 5},
            False,
            "--eval_steps: nothing is held out, so there is nothing to evaluate on",
            "train.py --raw --valid_fraction 0.05",
        ),
        (
            {"early_stopping_patience": 5},
            False,
            "--early_stopping_patience: nothing is held out, so there is nothing to evaluate on",
            "train.py --raw --valid_fraction 0.05",
        ),
        (
            {"load_best_model_at_end": True},
            False,
            "--load_best_model_at_end: nothing is held out, so there is nothing to evaluate on",
            "train.py --raw --valid_fraction 0.05",
        ),
        (
            {"lr_end": 1e-5, "lr_scheduler": "constant"},
            True,
            "--lr_end 1e-05: a constant rate never reaches it",
            "--lr_scheduler linear",
        ),
        (
            {"replacement": "frequency", "replace_inputs": 0.0},
            True,
            "--replacement frequency: without effect where --replace_inputs is 0",
            "--replace_inputs 0.15",
        ),
        ({"lr_end": 0.1}, True, "--lr_end: found 0.1, expected at most the --lr of 0.001", "--lr_end 0.0001"),
        (
            {"fp16": True, "precision": "bf16"},
            True,
            "--fp16 and --precision bf16: found both, expected one",
            "leave --fp16 out",
        ),
    ],
)
def test_a_setting_that_could_have_no_effect_is_refused(changes, holds_out, message, hint):
    with pytest.raises(UserError) as caught:
        options = TrainOptions(**{"lr": 1e-3, **changes})
        check_options(options)
        check_resolved(options, holds_out=holds_out)
    assert (caught.value.message, caught.value.hint, caught.value.code) == (message, hint, 2)


def test_a_run_with_nothing_held_out_refuses_to_stop_early(tiny_options):
    options = tiny_options(documents=["井"], early_stopping_patience=1)
    pieces = read_json(options.output_path.parent / "pieces" / "manifest.json")
    assert pieces["valid"]["tokens"] < 2
    with pytest.raises(UserError) as caught:
        train(options)
    assert caught.value.message.startswith("--early_stopping_patience: nothing is held out")
    assert not options.output_path.exists()


@pytest.mark.parametrize(("schedule", "power"), [("linear", 1), ("polynomial", 2)])
def test_the_rates_of_a_run_fall_to_the_end_rate(tiny_options, schedule, power):
    rates = {"lr": 1e-4, "lr_end": 1e-5, "lr_scheduler": schedule, "warmup_steps": 3}
    options = tiny_options(**rates, log_step=1, epochs=2)
    assert fit(options)
    logged = [record["lr"] for record in read_log(options.output_path) if "lr" in record]
    left = 1 - np.arange(1, 10) / 9  # of the 9 steps after warm-up
    by_hand = [1e-4 / 3, 2e-4 / 3, 1e-4, *(1e-5 + 9e-5 * left**power)]
    assert logged == pytest.approx(by_hand, rel=1e-9)
    assert logged[-1] == pytest.approx(1e-5, rel=1e-12)
