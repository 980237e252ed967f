"""A run of hours ends on time with its schedule run to its end, whatever the machine does; a run of epochs as ever."""

import re
import time
from dataclasses import asdict, replace

import numpy as np
import pytest
from helpers import StopAfter, read_log, refusal_of, result_of
from processes import run_cases

from novelgpt.cli import TrainOptions, run
from novelgpt.files import find_damage, read_json
from novelgpt.messages import UserError
from novelgpt.training.checkpoint import Progress, find_checkpoint, list_checkpoints, read_progress
from novelgpt.training.checks import check_options
from novelgpt.training.engine import Engine
from novelgpt.training.keeping import generations
from novelgpt.training.optim import lr_at
from novelgpt.training.pace import SECONDS_TO_LEAVE, ClockPace, StepPace, TooShort
from novelgpt.training.preflight import describe_run
from novelgpt.training.run import RUN_FILE, prepare_run
from novelgpt.training.session import describe_outcome, train
from novelgpt.training.stopping import Stopped, describe_stop
from novelgpt.training.trainer import Trainer
from train import main as train_main

pytestmark = pytest.mark.usefixtures("no_flushing")
COURSE = {"schedule": "linear", "end": 0.1, "warmup": 2.0, "patience": 0}
SIZES = {"step_tokens": 512.0, "num_valid": 20_000, "num_trained": 1_000_000, "num_parameters": 1_000_000}
END = 1 + 16e6 / 150e6  # seconds that the end is expected to take


class Machine:
    """A pretended machine whose steps and evaluations take as long as functions of the time say."""

    def __init__(self, hours: float, step, look: float = 2.0, ahead: int = 1, began: float = 0.0):
        self.now, self.step, self.look, self.ahead = began, step, look, ahead
        self.pace = ClockPace(hours, 900, clock=lambda: self.now, began=began, **SIZES, **COURSE)
        self.progress = Progress()
        self.rates, self.done, self.looked = [], [], []  # after every step

    def run(self, steps: float = np.inf) -> float:
        """Go on for so many steps or to the end; return the seconds, with what the end is expected to take."""
        pace, progress = self.pace, self.progress
        pace.resume(progress)
        unread = waiting = 0
        while not pace.is_over(progress) and progress.step < steps:
            self.rates.append(pace.lr_share(progress))
            pace.advance(progress)
            waiting, unread = waiting + self.step(self.now, progress.step), unread + 1
            if unread >= min(self.ahead, pace.steps_ahead) or progress.step == 1 or pace.is_look_due(progress):
                self.now += waiting
                pace.note_steps(progress, unread)
                unread = waiting = 0
            self.done.append(progress.clock["done"])
            if pace.is_look_due(progress):
                self.now += self.look
                pace.note_look(progress)
                self.looked.append(self.done[-1])
        return self.now + END


def slower(now: float, step: int) -> float:
    """Return the seconds of a step of a machine that slows down to a third after 40 % of 3 or 30 minutes."""
    return 0.25 if now < 72 else 0.75


MACHINES = {
    "even": (1.0, lambda now, step: 0.25, 2.0),
    "a warm-up of half a minute": (0.25, lambda now, step: 30.0 if step == 1 else 0.25, 2.0),
    "a third from 40 % on": (0.05, slower, 0.5),
    "three times as fast from 40 % on": (1.0, lambda now, step: 0.75 if now < 1440 else 0.25, 2.0),
    "fast and slow by turns": (0.25, lambda now, step: 0.5 if int(now / 60) % 2 else 0.125, 2.0),
    "a hiccup of a minute": (0.25, lambda now, step: 60.0 if step == 2000 else 0.25, 2.0),
    "every step different": (0.05, lambda now, step: 0.05 + 0.4 * (step * 7 % 11) / 11, 0.5),
    "evaluations ten times as slow as thought": (0.5, lambda now, step: 0.25, 65.0),
    "few steps": (0.1, lambda now, step: 4.0, 100.0),
    "a floppy disk's speed at the end": (0.25, lambda now, step: 0.25 if now < 800 else 5.0, 2.0),
}


@pytest.mark.parametrize("ahead", [1, 32])
@pytest.mark.parametrize("name", MACHINES)
def test_a_run_of_hours_ends_on_time_at_the_end_rate(name, ahead):
    hours, step, look = MACHINES[name]
    machine = Machine(hours, step, look, ahead)
    assert machine.run() == pytest.approx(3600 * hours, rel=0.03)
    assert machine.rates[-1] == pytest.approx(0.1) and min(machine.rates[len(machine.rates) // 10 : -1]) > 0.1
    assert machine.done[-1] == 1.0 and (np.diff(machine.done) > 0).all()
    assert max(np.diff(machine.done)[5:]) < 0.1  # no jump of the rate, not even in a run of few steps
    assert machine.looked[-1] == 1.0


def test_at_an_even_speed_the_schedule_is_a_straight_line():
    machine = Machine(1.0, lambda now, step: 0.25)
    machine.run()
    count = len(machine.done)
    line = np.arange(1, count + 1) / count
    assert np.abs(np.array(machine.done)[1:] - line[1:]).max() < 2e-3  # what an evaluation takes is learned on the way
    straight = [lr_at(step, count, peak=1.0, warmup=count * 0.02, end=0.1) for step in range(2, count + 1)]
    assert np.abs(np.array(machine.rates)[1:] - straight).max() < 0.15
    assert np.abs(np.array(machine.rates)[count // 10 :] - straight[count // 10 - 1 :]).max() < 2e-3


@pytest.mark.parametrize(("look", "times"), [(2.0, 20), (9.0, 12), (150.0, 2), (300.0, 1)])
def test_evaluations_are_spread_evenly_and_take_at_most_three_percent(look, times):
    machine = Machine(1.0, lambda now, step: 0.25, look)
    machine.pace.first_look = 4 * look  # steps
    machine.run()
    assert machine.looked == pytest.approx(np.arange(1, times + 1) / times, abs=0.01)
    assert times <= 2 or times * look <= 0.03 * 3600


def test_a_resumed_run_has_the_time_that_is_left_and_takes_the_same_steps():
    whole, part = (Machine(0.25, slower) for _ in range(2))
    whole.run()
    part.run(steps=500)
    rest = Machine(0.25, lambda now, step: slower(now - 1e6, step), began=1e6 + part.now)  # long after
    rest.progress = Progress(**vars(part.progress))
    rest.run()
    assert part.done + rest.done == pytest.approx(whole.done, rel=1e-9)
    assert rest.now - 1e6 == pytest.approx(whole.now, rel=1e-9)


def test_the_time_from_the_start_of_the_command_to_the_first_step_counts():
    machine = Machine(0.25, lambda now, step: 0.25)
    machine.now = 120.0  # of importing and cleaning
    assert machine.run() == pytest.approx(900, rel=0.03)


def test_hours_that_are_changed_go_on_where_the_longer_run_would_be():
    machine = Machine(1.0, lambda now, step: 0.25)
    machine.run(steps=5000)
    done = machine.done[-1]
    longer = Machine(2.0, machine.step, began=machine.now)
    longer.progress = machine.progress
    assert longer.run() == pytest.approx(7200, rel=0.03)
    assert longer.done[0] == pytest.approx(done / 2, abs=2e-3)


def test_hours_for_less_than_50_steps_are_refused_with_those_that_suffice():
    machine = Machine(0.05, lambda now, step: 8.0)
    with pytest.raises(TooShort) as caught:
        machine.run()
    # two steps; an evaluation of 2/3 * 20,000 / 512 = 26 steps has no room in the 180 - 16 - 2.1 s left; 50 of them:
    # 1.1 * (16 + 2.1 + (48 + 26) * 8) s = 0.187 h
    assert str(caught.value) == (
        "error: --hours 0.05: enough for 2 steps of 8 s, expected at least 50\n\n"
        "hint: --hours 0.19, where one reading of the text takes 2 hours; or a smaller --model_config"
    )
    assert (caught.value.code, machine.progress.step) == (2, 2)
    assert Machine(0.19, lambda now, step: 8.0, 208.0).run() == pytest.approx(0.19 * 3600, rel=0.03)


@pytest.mark.parametrize("schedule", ["linear", "cosine", "constant", "polynomial"])
def test_a_run_of_epochs_has_the_rates_of_the_table_bit_for_bit(schedule):
    course = {"schedule": schedule, "end": 0.25}
    pace = StepPace([7, 6, 7], eval_steps=0, warmup=3, patience=0, **course)
    progress, rates = Progress(), []
    while not pace.is_done(progress):
        rates.append(pace.lr_share(progress))
        pace.advance(progress)
    assert rates == [lr_at(step, 20, peak=1.0, warmup=3, **course) for step in range(1, 21)]
    assert progress.clock == {} and pace.record(progress) == {}


# --- whole runs by a clock that only steps and evaluations move ---


class StepClock:
    """A clock by which a step and an evaluation take so many seconds."""

    def __init__(self, step: float, look: float, monkeypatch):
        self.now = 0.0
        for kind, name, seconds in ((Engine, "step", step), (Trainer, "evaluate", look)):
            monkeypatch.setattr(kind, name, self.slowed(getattr(kind, name), seconds))

    def slowed(self, call, seconds: float):
        """Return a call that also moves the clock, once it has come through."""

        def slow(*arguments, **settings):
            result = call(*arguments, **settings)
            self.now += seconds
            return result

        return slow

    def __call__(self) -> float:
        return self.now


HOURS = 30 / 3600  # of a second a step


@pytest.fixture
def fit(monkeypatch):
    """Return a function that trains by a clock of its own; it tells whether the run came to its end."""

    def fit(options, stop: StopAfter | None = None) -> bool:
        options.output_path.mkdir(parents=True, exist_ok=True)
        with monkeypatch.context() as patch:
            prepared, clock = prepare_run(options), StepClock(1.0, 0.5, patch)
            trainer = Trainer(prepared, stop or StopAfter(), sample=lambda model: "井", clock=clock)
            try:
                trainer.fit(find_checkpoint(options.output_path))
            except Stopped:
                return False
            return True

    return fit


@pytest.fixture
def hour_options(tiny_options, monkeypatch):
    """Return a function from changes to the options of a run of half a minute, with steps of a second."""
    monkeypatch.setattr("novelgpt.training.pace.LEAST_STEPS", 10)
    return lambda **changes: tiny_options(**{"epochs": None, "hours": HOURS, "log_step": 1, **changes})


def test_a_run_of_hours_goes_through_epochs_and_keeps_the_best_and_the_last_model(hour_options, fit):
    options = hour_options()
    assert fit(options)
    records = read_log(options.output_path)
    steps = [record for record in records if "lr" in record]
    progress = read_progress(list_checkpoints(options.output_path)[-1])
    assert steps[-1]["lr"] == 0.0 and steps[-1]["done"] == 1.0 and min(step["lr"] for step in steps[1:-1]) > 0
    assert progress.epoch == 1 + (progress.step - 1) // 6 > 4 and progress.clock["done"] == 1.0
    assert 27.5 < progress.clock["used"] <= 30
    assert sorted(path.name for path in options.output_path.glob("*_*")) == ["best_model", "final_model"]
    for name in ("best_model", "final_model"):
        assert find_damage(options.output_path / name) is None
    assert progress.history[-1]["step"] == progress.step and progress.history[-1]["sample"] == "井"
    assert progress.history[0]["step"] > 1  # the untrained network is not evaluated


@pytest.mark.parametrize("questions", [7, 12])
def test_a_run_of_hours_stopped_again_and_again_ends_bit_for_bit_like_one_left_alone(
    hour_options, fit, tmp_path, questions
):
    whole = hour_options()
    assert fit(whole)
    broken = replace(whole, output_dir=str(tmp_path / "broken"))
    stops = 0
    while not fit(broken, StopAfter(questions)):
        stops += 1
    assert stops >= 2
    ours, expected = result_of(broken.output_path), result_of(whole.output_path)
    assert ours["log"] == expected["log"]
    assert ours["progress"] == expected["progress"]
    assert ours == expected


@pytest.mark.parametrize("questions", [None, 9])
def test_two_generations_share_the_hours_and_the_second_has_what_the_first_has_left(hour_options, fit, questions):
    options = hour_options(hours=3 * HOURS, second_generation=True)  # 90 seconds
    used = []
    for each in generations(options):
        while not fit(each, questions and StopAfter(questions)):
            pass
        used.append(read_progress(list_checkpoints(each.output_path)[-1]).clock["used"])
    assert 33 < used[0] <= 36  # two fifths of them
    assert each.hours == pytest.approx((90 - used[0]) / 3600)
    assert 87 < sum(used) <= 90


@pytest.mark.slow
def test_a_run_of_hours_stopped_at_any_question_ends_bit_for_bit_the_same(hour_options, fit, tmp_path):
    whole, stop = hour_options(), StopAfter(10**9)
    assert fit(whole, stop)
    expected = result_of(whole.output_path)
    for questions in range(1, 10**9 - stop.left + 1):
        broken = replace(whole, output_dir=str(tmp_path / f"broken{questions}"))
        assert not fit(broken, StopAfter(questions))
        assert fit(broken)
        assert result_of(broken.output_path) == expected, questions


def test_a_run_of_records_takes_hours_too(row_options, hour_options, fit):
    options = row_options(epochs=None, hours=HOURS)
    assert fit(options)
    assert read_log(options.output_path)[-1]["step"] > 25


# --- what is said ---


def test_a_stopped_run_of_hours_says_what_is_used_and_left():
    progress = Progress(step=1234, epoch=4, clock={"used": 3725.0})
    words = {"seconds_per_step": 1.0, "command": "python train.py --hours 4", "reason": "SIGINT"}
    assert describe_stop(progress, None, None, hours=4.0, **words) == [
        "stopped at step 1,234, epoch 4, 1 h 2 min of 4 h: SIGINT",
        "left: 2 h 57 min",
        "continue with: python train.py --hours 4",
    ]
    progress.history = [{"epoch": 0.21, "step": 64, "valid_loss": 6.0}]
    assert describe_stop(progress, None, None, hours=4.0, **words)[1] == "held-out loss 6.0000 after epoch 0.21"
    progress.history += [{"epoch": 2.42, "step": 728, "valid_loss": 4.5}]
    line = "held-out loss 6.0000 after epoch 0.21, 4.5000 now; best 4.5000 after epoch 2.42"
    assert describe_stop(progress, None, None, hours=4.0, **words)[1] == line


def test_the_first_lines_and_the_plan_of_a_run_of_hours_say_so(hour_options, capsys):
    options = hour_options(hours=1.5)
    line = "steps: as many as 1 h 30 min allow; epochs of about 6; windows of 16 tokens every 8, 4 a step"
    assert describe_run(prepare_run(options))[2] == line
    assert train(replace(options, plan=True)) == 0
    said = capsys.readouterr().out
    assert re.search(r"^steps: +about [\d,]+ in [\d.]+ epochs of about 6\nwarm-up: +2 % of the time$", said, re.M)
    assert re.search(r"^time: .* an epoch, 1 h 30 min in all$", said, re.M)


@pytest.mark.parametrize(
    ("losses", "verdict"),
    [
        ([5.0, 4.0, 3.5, 3.2], "still improving at epoch 3.42 (held-out loss 3.2000): more hours would help; use "),
        ([3.2], "still improving at epoch 3.42 (held-out loss 3.2000): more hours would help; use "),
        ([5.0, 3.2, 3.2, 3.2], "nothing more to gain, best at epoch 0.86 (held-out loss 3.2000); use "),
        ([5.0, 3.2, 3.5, 3.7], "memorising since epoch 0.86 (held-out loss 3.2000); use "),
    ],
)
def test_the_verdict_of_a_run_of_hours(hour_options, losses, verdict):
    epochs = [0.5, 0.86, 2.1, 3.42]
    history = [
        {"epoch": epoch, "step": number, "valid_loss": loss}
        for number, (epoch, loss) in enumerate(zip(epochs[-len(losses) :], losses, strict=True))
    ]
    best = history[losses.index(min(losses))]
    progress = Progress(step=3, epoch=4, history=history, clock={"hours": HOURS, "looked": 1.0})
    progress.best_loss, progress.best_epoch, progress.best_step = best["valid_loss"], best["epoch"], best["step"]
    assert describe_outcome(progress, prepare_run(hour_options())).startswith(verdict)


@pytest.mark.parametrize(
    ("changes", "message", "hint"),
    [
        ({"epochs": 15}, "--epochs 15 and --hours 1: found both, expected one", "leave --epochs out"),
        ({"eval_steps": 9}, "--eval_steps 9 and --hours 1: found both, expected one", "leave --eval_steps out"),
        (
            {"warmup_steps": 2000},
            "--warmup_steps 2000: found a number of steps beside --hours, expected a share",
            "--warmup_steps 0.02",
        ),
    ],
)
def test_what_counts_steps_beside_hours_is_refused(changes, message, hint):
    problem = refusal_of(check_options, TrainOptions(hours=1.0, **changes))
    assert (problem.message, problem.hint, problem.code) == (message, hint, 2)


@pytest.mark.parametrize("value", ["0", "-1", "nan", "inf", "1e9", "1001", "x"])
def test_hours_out_of_range_are_refused(value, capsys):
    assert run(train_main, [f"--hours={value}"]) == 2
    message = f"error: --hours: found {value!r}, expected a number above 0 up to 1000"
    assert capsys.readouterr().err.splitlines()[0] == message


def test_hours_come_from_a_config_file_and_epochs_may_not_stand_beside_them(tmp_path, capsys):
    path = tmp_path / "my.yaml"
    path.write_text("train: {hours: 2, epochs: 15}\n", encoding="utf-8")
    assert run(train_main, ["--config", str(path)]) == 2
    assert capsys.readouterr().err.splitlines()[0] == "error: --epochs 15 and --hours 2: found both, expected one"


def test_hours_that_were_too_few_leave_nothing_that_refuses_more(hour_options, capsys):
    options = hour_options(hours=1e-6, log_step=200)
    problem = refusal_of(train, options)
    assert isinstance(problem, TooShort)
    assert problem.message.startswith("--hours 1e-06: enough for 2 steps of ")
    assert not (options.output_path / RUN_FILE).exists()
    with pytest.raises(UserError, match=r"--hours 2e-06: enough for 2 steps"):  # not: holds a run of other settings
        train(replace(options, hours=2e-6))


def test_a_finished_run_of_hours_says_so_and_goes_on_with_more(hour_options, monkeypatch, capsys):
    options = hour_options(log_step=200, hours=0.01)
    with monkeypatch.context() as patch:
        assert train(options, clock=StepClock(1.0, 0.5, patch), began=0.0) == 0
    assert read_json(options.output_path / RUN_FILE)["total_steps"] is None
    capsys.readouterr()
    assert train(options) == 0
    said = capsys.readouterr().err
    assert said.startswith(f"{options.output_path}: this run is finished; --resume never starts it again\n")
    assert said.endswith("for more hours: novelgpt.train(…, hours='0.02', allow_change='hours')\n")
    before = read_progress(list_checkpoints(options.output_path)[-1])
    with monkeypatch.context() as patch:
        longer = replace(options, hours=0.02, allow_change="hours")
        assert train(longer, clock=StepClock(1.0, 0.5, patch), began=0.0) == 0
    after = read_progress(list_checkpoints(options.output_path)[-1])
    assert before.clock["used"] == pytest.approx(36, rel=0.05) and after.clock["used"] == pytest.approx(72, rel=0.05)
    assert after.step > 1.8 * before.step and after.clock["looked"] == 1.0


@pytest.mark.sweep
def test_two_processes_go_by_the_clock_of_the_first(tiny_options, warm_python):
    options = tiny_options(epochs=None, hours=15 / 3600, log_step=1)
    case = {"world": 2, "options": asdict(options), "stop_at": None, "save_at": None}
    said = run_cases(warm_python, [case])
    assert said.count("finished ") == 1 and read_log(options.output_path)[-1]["step"] > 50
    progress = read_progress(list_checkpoints(options.output_path)[-1])
    assert progress.clock["looked"] == 1.0 and progress.clock["used"] == pytest.approx(14, abs=1)


@pytest.mark.sweep
def test_a_real_run_ends_on_time_and_one_that_was_stopped_too(hour_options, tmp_path):
    options, expected = hour_options(hours=60 / 3600, log_step=200), 60 - SECONDS_TO_LEAVE  # this process stays
    began = time.monotonic()
    assert train(options) == 0
    assert time.monotonic() - began == pytest.approx(expected, abs=1.2)
    broken = replace(options, output_dir=str(tmp_path / "broken"))
    began = time.monotonic()
    assert train(replace(broken, max_hours=20 / 3600)) == 0
    assert not (broken.output_path / "final_model").exists()
    assert train(broken) == 0
    assert time.monotonic() - began == pytest.approx(expected, abs=1.5)
    assert read_progress(list_checkpoints(broken.output_path)[-1]).clock["done"] == 1.0
