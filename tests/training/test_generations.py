"""--second_generation: a run, then one that learns from it, by one command that goes on wherever it was interrupted."""

from dataclasses import replace

import pytest
from helpers import fit, refusal_of, result_of, stopping_after

from novelgpt import train
from novelgpt.files import read_json
from novelgpt.messages import EXIT_USAGE
from novelgpt.training import session
from novelgpt.training.checks import check_inputs
from novelgpt.training.stopping import StopSignals
from novelgpt.training.trainer import Trainer

pytestmark = pytest.mark.usefixtures("no_flushing")


@pytest.fixture
def options(tiny_options):
    """The options of two generations of 6 steps each."""
    return tiny_options(epochs=1, second_generation=True, save_steps=2, replace_inputs=0.1)


def results_of(options) -> list[dict]:
    """Return all that the two runs leave."""
    return [result_of(options.output_path / "first_generation"), result_of(options.output_path)]


@pytest.fixture
def count_steps(monkeypatch):
    """Return a list of the run folder of every step that is taken."""
    steps, count_step = [], Trainer.count_step
    monkeypatch.setattr(
        Trainer, "count_step", lambda self, *given: steps.append(self.options.output_dir) or count_step(self, *given)
    )
    return steps


def test_the_first_is_a_run_like_any_other_and_the_second_learns_from_its_best_model(options, tmp_path):
    result = train(options)
    assert result.finished and result.folder == options.output_path
    alone = replace(options, second_generation=False, output_dir=str(tmp_path / "alone"))
    teacher = str(options.output_path / "first_generation" / "best_model")
    taught = replace(alone, teacher=teacher, seed=1, output_dir=str(tmp_path / "taught"))
    assert fit(alone) and fit(taught)
    assert results_of(options) == [result_of(alone.output_path), result_of(taught.output_path)]


def test_where_nothing_is_held_out_the_final_model_teaches(tiny_options):
    from pretended.beside import hold_nothing_out

    options = tiny_options(epochs=1, second_generation=True, seed=2**31 - 1)
    hold_nothing_out(options)
    assert train(options).finished
    values = read_json(options.output_path / "run.json")["options"]
    teacher = str(options.output_path / "first_generation" / "final_model")
    assert (values["teacher"], values["seed"], values["second_generation"]) == (teacher, 0, False)


@pytest.mark.parametrize("questions", [6, *(pytest.param(number, marks=pytest.mark.sweep) for number in (5, 7, 8, 9))])
def test_stopped_again_and_again_it_ends_like_one_left_alone(options, tmp_path, questions):
    whole = replace(options, output_dir=str(tmp_path / "whole"))
    assert train(whole).finished
    calls = []
    while not calls or not calls[-1].finished:
        assert len(calls) < 20
        with stopping_after(questions):
            calls.append(train(options))
    assert len(calls) >= 3
    assert results_of(options) == results_of(whole)


def test_a_stop_between_the_two_is_obeyed_and_the_same_command_begins_with_the_second(options, monkeypatch):
    write_final = Trainer.write_final

    def write_and_be_stopped(self):
        write_final(self)
        self.stop.on_stop(15, None)  # later than the last question

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "write_final", write_and_be_stopped)
        assert train(options).status == 128 + 15
    assert (options.output_path / "first_generation" / "final_model").is_dir()
    assert not (options.output_path / "run.json").exists()
    assert train(options).finished


def test_a_finished_first_generation_is_not_trained_again_even_where_the_second_goes_on(options, count_steps):
    first, second = str(options.output_path / "first_generation"), options.output_dir
    assert train(options).finished
    assert count_steps == [first] * 6 + [second] * 6
    before = result_of(options.output_path / "first_generation")
    assert train(replace(options, epochs=2, allow_change=" epochs")).finished
    assert count_steps == [first] * 6 + [second] * 12
    assert train(replace(options, epochs=2, allow_change="epochs")).finished
    assert len(count_steps) == 18
    assert result_of(options.output_path / "first_generation") == before


def test_an_unfinished_first_generation_goes_on_under_changed_options(options, count_steps):
    with stopping_after(7):
        assert not train(options).finished
    done = len(count_steps)
    assert train(replace(options, epochs=2, allow_change="epochs")).finished
    assert len(count_steps) == 24 and 0 < done < 6


def test_time_limits_count_for_both(options, monkeypatch, count_steps):
    monkeypatch.setattr(StopSignals, "must_stop", lambda self: self.deadline is not None and len(count_steps) > 8)
    result = train(replace(options, max_hours=1.0))
    assert (result.status, result.finished, len(count_steps)) == (0, False, 9)
    monkeypatch.undo()
    seen = []
    monkeypatch.setattr(session, "StopSignals", lambda **given: seen.append(given) or StopSignals(**given))
    assert train(replace(options, max_hours=2.0)).finished
    assert len(seen) == 2 and seen[0] == seen[1] and seen[0]["limit"] == "--max_hours 2 is over"


def test_never_resuming_moves_both_aside_at_once(options, count_steps):
    with stopping_after(7):
        train(options)  # within the first
    assert train(replace(options, resume="never")).finished
    assert train(replace(options, resume="never")).finished
    home = options.output_path
    asides = [home.with_name(f"run.{number}") for number in (1, 2, 3)]
    assert [(aside / "first_generation").is_dir() for aside in asides] == [True, True, False]
    assert [(aside / "run.json").exists() for aside in asides] == [False, True, False]
    assert count_steps[-12:] == [f"{home}/first_generation"] * 6 + [str(home)] * 6


def test_a_run_that_had_no_first_generation_is_refused_before_one_is_trained(options, count_steps):
    assert train(replace(options, second_generation=False)).finished
    problem = refusal_of(train, options, command=["train.py", "--second_generation"])
    first = options.output_path / "first_generation"
    assert str(problem) == (
        f"error: {options.output_path}: holds a run that did not learn from {first}\n\n"
        "hint: to start anew, the old run moved aside: python train.py --second_generation --resume never"
    )
    assert (problem.code, len(count_steps), first.exists()) == (5, 6, False)


def test_the_second_refuses_a_first_of_other_settings_and_the_first_a_change(options):
    assert train(options).finished
    first = options.output_path / "first_generation"
    problem = refusal_of(train, replace(options, batch_size=2))
    assert problem.message == f"{first}: holds a finished run with other settings\n  batch_size: was 4, now 2"
    problem = refusal_of(train, replace(options, second_generation=False))
    lines = problem.message.splitlines()
    assert lines[0] == f"{options.output_path}: holds a finished run with other settings"
    assert [line.split(":")[0].strip() for line in lines[1:]] == ["seed", "teacher"]


def test_what_contradicts_it_is_refused(tiny_options, pretrained):
    both = refusal_of(check_inputs, tiny_options(second_generation=True, teacher=str(pretrained)))
    assert (both.message, both.hint, both.code) == (
        "--teacher and --second_generation: found both, expected one of them", "leave --teacher out", EXIT_USAGE,
    )  # fmt: skip
    named = refusal_of(check_inputs, tiny_options(second_generation=True, resume="run/checkpoints/step-00000002"))
    assert (named.message, named.hint, named.code) == (
        "--resume run/checkpoints/step-00000002: a checkpoint is of one run, and --second_generation makes two",
        "--resume auto takes the newest whole one", EXIT_USAGE,
    )  # fmt: skip
    check_inputs(tiny_options(second_generation=True, teacher_weight=0.25))


def test_the_plan_shows_both_and_writes_nothing(options, capsys, tmp_path):
    planned = replace(options, plan=True, output_dir=str(tmp_path / "planned"))
    assert train(planned).status == 0
    lines = capsys.readouterr().out.splitlines()
    names = [line.split(":")[0] for line in lines]
    plan = ["data", "parameters", "batches", "steps", "warm-up", "memory", "time", "disk", "advice"]
    assert names == ["first generation", *plan, "second generation", *plan]
    assert not (tmp_path / "planned").exists()


def test_the_plan_of_hours_gives_the_second_generation_the_three_fifths_that_the_first_leaves(
    tiny_options, capsys, tmp_path
):
    hours = {"hours": 1.0, "epochs": None, "second_generation": True, "plan": True}
    assert train(tiny_options(output_dir=str(tmp_path / "planned"), **hours)).status == 0
    times = [line.split(", ")[-1] for line in capsys.readouterr().out.splitlines() if line.startswith("time:")]
    assert times == ["24 min 0 s in all", "36 min 0 s in all"]
