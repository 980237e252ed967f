"""Steps or hours -> how much of a run is done, the rate of its next step, when it is evaluated, and when it is over.

By steps all of it is known before the first one. By the clock (`--hours`) each step does its share of what is left::

    done + (1 - done) / steps that the time left allows        at an even speed a straight line from 0 to 1

and the learning rate falls by what is done. So the schedule is run to its end on time whatever the machine does on the
way: one that slows down takes larger strides. The speed is a mean of the last steps in which no step counts for more
than four; what evaluations, samples and the end will take is set aside. All of it is in the checkpoint, so a run is a
function of its data, its options and what the clock showed.

The first of several processes has the clock. What the time between a checkpoint and a kill was used for is lost and
computed again, and does not count as used.
"""

import math
from collections.abc import Callable
from functools import partial

from novelgpt.messages import EXIT_USAGE, UserError
from novelgpt.training.checkpoint import Progress
from novelgpt.training.optim import lr_at

STEPS_AHEAD = 32  # steps that a GPU may run ahead of the host's look at their losses
LEAST_STEPS = 50  # of a run by the clock: with fewer of them it could not end on time
FIRST_SHARE = 1e-4  # of the run, of each step before the speed is known
FIRST_STEPS = 3  # measured ones, after which hours that are too few are refused
HICCUP = 4  # times the usual seconds that one step counts for at most
MOST_STEPS, TIME_SHARE, LEAST_MEAN = 100, 0.02, 10  # the mean is over so many steps, or this share of the time
MOST_LOOKS, LOOKS_SHARE = 20, 0.03  # evaluations of a run; the share of its time that they take at most
TWICE_SHARE = 0.09  # of the time, that two evaluations may take
AHEAD_SHARE = 0.002  # of the time that a GPU may run ahead
DISK_RATE = 150e6  # bytes a second, of the last checkpoint and the final model
SECONDS_TO_LEAVE = 1.0  # seconds that the process takes to end


class TooShort(UserError):
    """The hours do not suffice; nothing is lost with the few steps that have shown it."""


class Pace:
    """Answers what a run does when; asked before and told after every step."""

    has_epochs = True  # are what is counted: at the end of each the run is evaluated and a model folder written
    steps_ahead = STEPS_AHEAD  # of the host's look at the losses

    def __init__(self, *, schedule: str, end: float, warmup: float, patience: int):
        """Set the course.

        Args:
            schedule, end: of the rate after warm-up, and its end as a share of the peak.
            warmup: in the unit that lr_at gets.
            patience: evaluations without a lower loss that end the run; 0 for endless.
        """
        self.patience = patience
        self.lr_at = partial(lr_at, peak=1.0, warmup=warmup, schedule=schedule, end=end)

    def resume(self, progress: Progress) -> None:
        """Begin, or go on from where a run stands."""

    def lr_share(self, progress: Progress) -> float:
        """Return the learning rate of the next step as a share of its peak."""
        raise NotImplementedError

    def advance(self, progress: Progress) -> None:
        """Count the next step as taken."""
        progress.step += 1
        progress.batch += 1

    def note_steps(self, progress: Progress, steps: int) -> None:
        """Note that the last so many steps are computed."""

    def is_done(self, progress: Progress) -> bool:
        """Tell whether the last step is taken."""
        raise NotImplementedError

    def is_over(self, progress: Progress) -> bool:
        """Tell whether the run has come to its end, or has stopped early."""
        raise NotImplementedError

    def epoch(self, progress: Progress) -> float:
        """Return the epochs done as a number with two decimals."""
        raise NotImplementedError

    def is_look_due(self, progress: Progress) -> bool:
        """Tell whether an evaluation within the epoch is due, and not done yet."""
        raise NotImplementedError

    def note_look(self, progress: Progress) -> None:
        """Note that it is done."""

    def seconds_left(self, progress: Progress, step_seconds: float) -> float:
        """Return the seconds to the end, where a step takes so many."""
        raise NotImplementedError

    def place(self, progress: Progress) -> float:
        """Return how far the bar is: steps, or seconds."""
        return progress.step

    def record(self, progress: Progress) -> dict[str, float]:
        """Return what the lines of the log have besides."""
        return {}


class StepPace(Pace):
    """A run of so many epochs, all steps of which are known."""

    def __init__(self, epoch_steps: list[int], *, eval_steps: int, **course):
        """Count steps.

        Args:
            epoch_steps: of every epoch.
            eval_steps: steps between evaluations within an epoch; 0 for none.
            course: of the rate; its warm-up in steps.
        """
        super().__init__(**course)
        self.epoch_steps, self.eval_steps, self.total_steps = epoch_steps, eval_steps, sum(epoch_steps)

    def lr_share(self, progress: Progress) -> float:
        return self.lr_at(progress.step + 1, self.total_steps)

    def is_done(self, progress: Progress) -> bool:
        return progress.step >= self.total_steps

    def is_over(self, progress: Progress) -> bool:
        return is_over(progress, epochs=len(self.epoch_steps), hours=None, patience=self.patience)

    def epoch(self, progress: Progress) -> float:
        """Return the epochs done as a number with two decimals.

        >>> course = {"schedule": "linear", "end": 0.0, "warmup": 0, "patience": 0}
        >>> StepPace([6, 6], eval_steps=0, **course).epoch(Progress(epoch=2, batch=3))
        1.5
        """
        return round(progress.epoch - 1 + progress.batch / self.epoch_steps[progress.epoch - 1], 2)

    def is_look_due(self, progress: Progress) -> bool:
        """Tell whether an evaluation within the epoch is due, every so many steps, and not done yet.

        >>> pace = StepPace([6], eval_steps=2, schedule="linear", end=0.0, warmup=0, patience=0)
        >>> pace.is_look_due(Progress(step=4, batch=4))
        True
        >>> pace.is_look_due(Progress(step=6, batch=6))  # the epoch's own comes now
        False
        """
        if not self.eval_steps or progress.step % self.eval_steps or not progress.batch > 0:
            return False
        return progress.batch < self.epoch_steps[progress.epoch - 1] and not is_scored(progress)

    def seconds_left(self, progress: Progress, step_seconds: float) -> float:
        return (self.total_steps - progress.step) * step_seconds


class ClockPace(Pace):
    """A run of so many hours, in as many epochs as these allow, which ends in the middle of one.

    There is no model folder of an epoch, and no checkpoint at its end. About 20 times, spread evenly, and at the end
    the run is evaluated, the best model kept and a sample written; less often where that would take more than 3 % of
    the time, but twice at least where that takes less than 9 %.

    Its part of the state is `progress.clock`: hours, used (seconds), done (share of the run), step_seconds, measured
    (steps), look_steps (what an evaluation takes, in steps), looked (what was done then), looks (of the whole run).
    """

    has_epochs = False

    def __init__(
        self,
        hours: float,
        epoch_steps: int,
        *,
        clock: Callable[[], float],
        began: float,
        step_tokens: float,
        num_valid: int,
        num_trained: int,
        num_parameters: int,
        **course,
    ):
        """Count seconds.

        Args:
            hours, epoch_steps: of the whole run; of one epoch, about.
            clock: returns seconds, the same in every process.
            began: what it showed when the command started.
            step_tokens, num_valid: tokens of a step on the average, and held out.
            num_trained, num_parameters: numbers of the network that have moments, and all.
            course: of the rate; its warm-up in percent of the run.
        """
        super().__init__(**course)
        self.hours, self.clock, self.last, self.epoch_steps = hours, clock, began, epoch_steps
        # until one is measured: the windows of an evaluation overlap by half, and it has no backward pass
        self.first_look = 2 / 3 * num_valid / step_tokens
        self.end_seconds = (12 * num_trained + 4 * num_parameters) / DISK_RATE + SECONDS_TO_LEAVE
        self.pending = 0  # steps since the clock was read

    def resume(self, progress: Progress) -> None:
        """Begin, or go on from where a run stands: what other hours had been done is a share of these."""
        counts = {"measured": 0, "looks": MOST_LOOKS}
        fresh = {"hours": self.hours, "used": 0.0, "done": 0.0, "step_seconds": 0.0, "looked": 0.0}
        progress.clock = clock = {**fresh, "look_steps": self.first_look, **counts, **progress.clock}
        if clock["hours"] != self.hours:
            for name in ("done", "looked"):
                clock[name] = min(1.0, clock[name] * clock["hours"] / self.hours)
        clock["hours"] = self.hours
        self.read(progress)
        self.choose_ahead(clock)

    def read(self, progress: Progress) -> float:
        """Count the seconds since the last reading as used, and return them."""
        now = self.clock()
        seconds, self.last = now - self.last, now
        progress.clock["used"] += seconds
        self.pending = 0
        return seconds

    def choose_ahead(self, clock: dict) -> None:
        """Choose how many steps a GPU may run ahead, for the clock is read when it has computed them."""
        steps = AHEAD_SHARE * self.seconds / max(clock["step_seconds"], 1e-9)
        self.steps_ahead = 1 if clock["measured"] < FIRST_STEPS else int(min(STEPS_AHEAD, max(1, steps)))

    @property
    def seconds(self) -> float:
        """Of the whole run."""
        return 3600 * self.hours

    def steps_left(self, clock: dict) -> float:
        """Return the steps that the time left allows at the present speed, beside what is still to be done."""
        looks = max(1, math.floor((1 - clock["looked"]) * clock["looks"] + 0.5))
        left = self.seconds - clock["used"] - self.end_seconds
        return left / clock["step_seconds"] - looks * clock["look_steps"] - self.pending

    def next_done(self, progress: Progress) -> float:
        """Return the share of the run that is done after the next step; the last one does all the rest."""
        clock = progress.clock
        if not clock["step_seconds"]:
            return clock["done"] + FIRST_SHARE
        left = self.steps_left(clock)
        return 1.0 if left < 1.5 else clock["done"] + (1 - clock["done"]) / left

    def lr_share(self, progress: Progress) -> float:
        return self.lr_at(100 * self.next_done(progress), 100)

    def advance(self, progress: Progress) -> None:
        progress.clock["done"] = self.next_done(progress)
        super().advance(progress)
        self.pending += 1

    def note_steps(self, progress: Progress, steps: int) -> None:
        """Learn the speed from the last so many steps.

        Raises:
            TooShort: of the first steps, where the hours allow too few of them.
        """
        seconds, clock = self.read(progress) / steps, progress.clock
        if progress.step == 1:  # it warms up
            return

        # one slow step moves the mean a little only, a lasting change moves it all the way
        known = clock["step_seconds"]
        clock["measured"] += steps
        span = min(MOST_STEPS, max(LEAST_MEAN, TIME_SHARE * self.seconds / known)) if known else 1
        weight = max(steps / clock["measured"], 1 - (1 - 1 / span) ** steps)
        seconds = max(1e-9, min(seconds, HICCUP * known) if known else seconds)
        clock["step_seconds"] = known + weight * (seconds - known)

        # the first time: what is done already is known only now
        if not known:
            left = max(self.steps_left(clock), 1.0)
            clock["done"] = progress.step / (progress.step + left)
            self.choose_looks(clock)
        self.choose_ahead(clock)
        if progress.step <= 1 + FIRST_STEPS:
            self.check_hours(progress)

    def check_hours(self, progress: Progress) -> None:
        """Refuse hours that are too few, once a few steps are measured or there is no time for more."""
        clock = progress.clock
        left = self.steps_left(clock)
        total, seconds = progress.step + max(0.0, left), clock["step_seconds"]
        if total >= LEAST_STEPS or (left >= 1.5 and progress.step <= FIRST_STEPS):
            return
        least = (self.seconds + (LEAST_STEPS - progress.step - left) * seconds) / 3600
        found = f"enough for {total:.0f} steps of {seconds:.2g} s, expected at least {LEAST_STEPS}"
        reading = f"one reading of the text takes {self.epoch_steps * seconds / 3600:.2g} hours"
        hint = f"--hours {1.1 * least:.2g}, where {reading}; or a smaller --model_config"
        raise TooShort(f"--hours {self.hours:g}: {found}", hint, EXIT_USAGE)

    def is_done(self, progress: Progress) -> bool:
        return progress.clock["done"] >= 1

    def is_over(self, progress: Progress) -> bool:
        return is_over(progress, epochs=None, hours=self.hours, patience=self.patience)

    def epoch(self, progress: Progress) -> float:
        return round(progress.epoch - 1 + min(1.0, progress.batch / self.epoch_steps), 2)

    def is_look_due(self, progress: Progress) -> bool:
        """Tell whether it is time to evaluate: as often as chosen, and at the end."""
        clock, done = progress.clock, progress.clock["done"]
        if not clock["step_seconds"] or done == clock["looked"]:
            return False
        return done >= 1 or (done - clock["looked"] >= 1 / clock["looks"] and done <= 1 - 0.5 / clock["looks"])

    def note_look(self, progress: Progress) -> None:
        """Learn from an evaluation what the further ones will take."""
        clock = progress.clock
        clock["look_steps"] = self.read(progress) / clock["step_seconds"]
        clock["looked"] = clock["done"]
        self.choose_looks(clock)

    def choose_looks(self, clock: dict) -> None:
        """Choose how often to evaluate: twice at least unless that is long, to know what the last one will take."""
        share = max(clock["look_steps"] * clock["step_seconds"], 1e-9) / self.seconds
        least = 2 if 2 * share <= TWICE_SHARE else 1
        clock["looks"] = int(min(MOST_LOOKS, max(least, LOOKS_SHARE / share)))

    def seconds_left(self, progress: Progress, step_seconds: float) -> float:
        return max(0.0, self.seconds - progress.clock["used"])

    def place(self, progress: Progress) -> float:
        return progress.clock["used"]

    def record(self, progress: Progress) -> dict[str, float]:
        return {"done": progress.clock["done"]}


def is_scored(progress: Progress) -> bool:
    """Tell whether the last evaluation is of the present step, as after a stop that came between it and the next."""
    return bool(progress.history) and progress.history[-1]["step"] == progress.step


def is_time_over(progress: Progress, hours: float) -> bool:
    """Tell whether a run has come to its last evaluation, after so many hours; its state may be that of other hours.

    >>> progress = Progress(clock={"hours": 2.0, "looked": 1.0})
    >>> is_time_over(progress, 2.0), is_time_over(progress, 4.0)
    (True, False)
    """
    return progress.clock.get("looked", 0.0) * progress.clock.get("hours", 0.0) >= hours


def stops_early(progress: Progress, patience: int) -> bool:
    """Tell whether the held-out loss has stayed above its best for too many evaluations; 0 is endless patience."""
    return 0 < patience <= progress.since_best


def is_over(progress: Progress, *, epochs: int | None, hours: float | None, patience: int) -> bool:
    """Tell whether no step is left to take, of a run of epochs or of hours."""
    is_at_end = progress.epoch > epochs if hours is None else is_time_over(progress, hours)
    return is_at_end or stops_early(progress, patience)


def choose_pace(run, clock: Callable[[], float], began: float) -> Pace:
    """Return what decides how fast a run learns when, and when it is over: its epochs, or a clock.

    Args:
        run: see engine.Run.
        clock, began: as of ClockPace.
    """
    options = run.options
    end, patience = options.lr_end / options.lr if options.lr_end else 0.0, options.early_stopping_patience
    course = {"schedule": options.lr_scheduler, "end": end, "warmup": run.warmup, "patience": patience}
    if options.hours is None:
        return StepPace(run.epoch_steps, eval_steps=options.eval_steps, **course)
    sizes = {"num_trained": run.num_trained, "num_parameters": run.num_parameters}
    sizes |= {"step_tokens": run.data.step_tokens, "num_valid": run.data.num_valid}
    return ClockPace(options.hours, run.epoch_steps[0], clock=clock, began=began, **sizes, **course)
