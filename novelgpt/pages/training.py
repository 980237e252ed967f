"""A run folder -> training.html: the book being learned, as one file that opens by double click.

The story of the log (story.py) and its drawings (chart.py) fill templates/training.html; its words stand there and in
templates/verdicts.html, in both languages. What moves, the time-lapse, the cross-hair and other runs laid beside, is
done by static/curves.js and static/training.js from the same figures, which stand in the page as JSON. Without a script
the page still shows how the run stands, and prints.
"""

import itertools
import math
from collections.abc import Sequence
from pathlib import Path

from markupsafe import Markup

from novelgpt.cli import spell_command
from novelgpt.files import write_text
from novelgpt.messages import UserError, as_started
from novelgpt.pages.chart import (
    Axis,
    draw_dots,
    draw_line,
    draw_meter,
    draw_spark,
    make_axis,
    range_of,
    round_steps,
    spread,
    thin_points,
)
from novelgpt.pages.render import both, fill
from novelgpt.pages.story import MOST_FRAMES, Columns, Frame, Story, judge, read_story, seconds_left, thin
from novelgpt.pages.words import GOALS, KINDS, LEVELS, STYLE, clock, level_of, span, spell_perplexity

PAGE = "training.html"
LONG_RUN = 20  # characters in a row that stand in the book too: no chance
MOST_CHARACTERS = 60_000  # of all samples on a page
MOST_ROWS = 200  # of the table
APART = 7.0  # percent of a chart's height between two names
ROOM = 1.03  # of a chart's width, for the last dot


def write_training_page(run_dir: Path) -> None:
    """Write training.html into a run folder, whole or not at all, from the log as it is now.

    Args:
        run_dir: run folder with a log.jsonl, of this version or a former one; run.json is read where it is there.

    Raises:
        OSError: there is no log, it cannot be read, or the page cannot be written.
    """
    page = TrainingPage(read_story(Path(run_dir)), Path(run_dir)).text()
    try:
        write_text(Path(run_dir) / PAGE, page)
    except UserError as problem:  # the caller knows what its folder is for, and what to say
        raise problem.__cause__ from None


class TrainingPage:
    """What the page of a run shows.

    Attributes:
        story, run_dir: the run.
        frames: of the time-lapse.
        kinds: of samples, in the order in which they are shown.
    """

    def __init__(self, story: Story, run_dir: Path):
        self.story, self.run_dir = story, run_dir
        self.frames = thin(story.frames, MOST_FRAMES)
        found = dict.fromkeys(kind for frame in self.frames for kind in frame.samples)
        self.kinds = [kind for kind in KINDS if kind in found] + [kind for kind in found if kind not in KINDS]
        self.kind, self.best = judge(story), story.held_out.best()
        self.curve = thin_points(story.curve.steps, story.curve.losses)
        self.held_out = thin_points(story.held_out.steps, story.held_out.losses)
        curves = (range_of(part.steps, part.losses) for part in (story.curve, story.held_out))
        self.axis = make_axis(*curves, self.goals.values())

    @property
    def goals(self) -> dict[str, float]:
        """What counting costs, nats a token, by its name in the log."""
        return self.story.facts.get("yardsticks", {})

    def text(self) -> str:
        """Return the page."""
        story = self.story
        return fill(
            "training.html",
            scripts=["logs.js", "curves.js", "training.js"],
            styles=["training.css"],
            data={"run": self.data()},
            story=story,
            title=story.facts.get("book") or story.name,
            kind=self.kind,
            figures=self.figures(),
            commands=self.commands(),
            left=self.left(),
            chart=self.chart(),
            shown=self.shown(len(self.frames) - 1) if self.kinds or any(frame.nats for frame in self.frames) else None,
            num_frames=len(self.frames),
            meter=self.meter(),
            sparks=self.sparks(),
            rows=self.rows(),
            levels=LEVELS,
            clock=clock,
            long_run=LONG_RUN,
        )

    def epoch_of(self, step: float) -> float | None:
        """Return how many epochs a step is away from the beginning."""
        length = self.story.steps_an_epoch
        return round(step / length, 2) if length else None

    def name_epoch(self, step: float) -> Markup:
        """Return a place of the run as people say it."""
        if (epoch := self.epoch_of(step)) is None:
            return both(f"after {step:,.0f} steps", f"{step:,.0f} 步之后")
        return both(f"epoch {epoch:g}", f"第 {epoch:g} 轮")

    def figures(self) -> dict:
        """Return what the words of the page speak of; None where it is not known."""
        story, best = self.story, self.best
        held_out, curve = story.held_out, story.curve
        goal = self.goals.get("kn5_cache", self.goals.get("kn4"))
        goal_name = GOALS["kn5_cache" if "kn5_cache" in self.goals else "kn4"]
        runs = [run for frame in self.frames if (run := longest_of(frame)) is not None]
        return {
            "best": None if best is None else f"{held_out.losses[best]:.3f}",
            "best_place": None if best is None else self.name_epoch(held_out.steps[best]),
            "last": None if best is None else f"{held_out.losses[-1]:.3f}",
            "loss": f"{curve.losses[-1]:.3f}" if len(curve) else None,
            "perplexity": None if best is None else spell_perplexity(held_out.losses[best]),
            "goal": None if goal is None else f"{goal:.3f}",
            "goal_name": both(*goal_name),
            "ahead": None if goal is None or best is None else goal - held_out.losses[best],
            "longest": f"{max(runs):g}" if runs else None,
            "speed": None if math.isnan(story.speed) else f"{story.speed:,.0f}",
            "worked": None if math.isnan(story.seconds) else span(story.seconds),
            "paused": span(story.paused) if story.paused >= 1 else None,
            "place": self.name_epoch(story.step),
            "share": story.share_done,
            "time": None if math.isnan(story.time) else story.time,
        }

    def commands(self) -> dict[str, str | None]:
        """Return the commands that may follow, ready to be typed; None for one that would not work."""
        story, commands = self.story, dict.fromkeys(("write", "more", "resume"))
        told = story.verdict["model"] if story.verdict else ""
        for model in (self.run_dir / name for name in (told, "best_model", "final_model") if name):
            if model.is_dir():
                commands["write"] = as_started(spell_command(["generate.py", "--model_path", str(model)]))
                break
        if command := story.facts.get("command"):
            name = "hours" if story.facts.get("hours") else "epochs"
            if (length := story.facts.get(name)) and story.end == "finish":
                allowed = ",".join(dict.fromkeys([*allowed_by(command), name]))
                changes = {name: f"{2 * length:g}", "allow_change": allowed, "resume": None}
                commands["more"] = as_started(spell_command(command, **changes))
            if story.end == "stop":
                commands["resume"] = as_started(spell_command(command))
        return commands

    def left(self) -> dict | None:
        """Return how long the run still takes, in words, and when it will be done (Unix seconds)."""
        seconds = seconds_left(self.story)
        if seconds is None:
            return None
        least, likely, most = seconds
        is_sure = most - least < 0.1 * likely or most < 60
        return {
            "likely": span(likely),
            "range": None if is_sure else (span(least), span(most)),
            "at": self.story.time + likely,
            "clock": clock(self.story.time + likely),
        }

    def chart(self) -> dict | None:
        """Return the drawing of all losses; None where there is none yet."""
        story = self.story
        steps = [*story.curve.steps, *story.held_out.steps]
        if not steps:
            return None
        across, held_out = Axis(0, ROOM * max(steps)), story.held_out
        end = [*held_out.losses[-1:], *story.curve.losses[-1:]][0]
        xs, ys = pick(held_out, self.held_out)
        goals = [
            {
                "name": both(*GOALS.get(name, (name, name))),
                "down": self.axis.down(cost),
                "cost": f"{cost:.3f}",
                "is_beaten": end < cost,
            }
            for name, cost in self.goals.items()
        ]
        for goal, place in zip(goals, spread([goal["down"] / 10 for goal in goals], APART), strict=True):
            goal["label"] = place
        best = self.best
        return {
            "curve": draw_line(*pick(story.curve, self.curve), across, self.axis),
            "held_out": draw_line(xs, ys, across, self.axis),
            "dots": draw_dots(xs, ys, across, self.axis),
            "best": ""
            if best is None
            else draw_dots([held_out.steps[best]], [held_out.losses[best]], across, self.axis),
            "goals": goals,
            "ups": [
                (self.axis.down(value) / 10, f"{value:g}") for value in round_steps(self.axis.low, self.axis.high, 6)
            ],
            "alongs": [(across.across(value) / 10, f"{value:,g}") for value in round_steps(0, max(steps), 6)],
        }

    def shown(self, place: int) -> dict:
        """Return what the page shows of a frame without a script: its name, samples and passage."""
        frame = self.frames[place]
        carried = self.carried()[place]
        cards = [
            {
                **self.frames[carried[kind]].samples[kind],
                "key": kind,
                "kind": both(*KINDS.get(kind, (kind, kind))),
                "truth": self.truth(kind),
            }
            for kind in self.kinds
            if kind in carried
        ]
        tokens = self.story.facts.get("passage", [])
        nats = [*frame.nats, *[None] * len(tokens)][: len(tokens)]
        passage = [(level_of(cost), token) for cost, token in zip(nats, tokens, strict=True)] if frame.nats else []
        return {"name": self.name_epoch(frame.step), "cards": cards, "passage": passage}

    def truth(self, kind: str) -> str:
        """Return how the book itself goes on behind the prefix of a kind, where that is known."""
        return self.story.facts.get("truths", {}).get(kind, "")

    def carried(self) -> list[dict[str, int]]:
        """Return for each frame where its sample of each kind stands: in it, or in the last frame that had one."""
        places, found = [], {}
        for place, frame in enumerate(self.frames):
            found = found | dict.fromkeys(frame.samples, place)
            places.append(found)
        return places

    def data(self) -> dict:
        """Return the figures of the page for its script."""
        story = self.story
        count = sum(len(frame.samples) for frame in self.frames)
        most = max(100, MOST_CHARACTERS // max(1, count))
        left = seconds_left(story)
        return {
            "name": story.name,
            "live": story.is_live,
            "time": None if math.isnan(story.time) else story.time,
            "done_at": story.time + left[1] if left else None,
            "epoch": story.steps_an_epoch,
            "tokens_per_character": story.facts.get("tokens_per_character"),
            "axis": [self.axis.low, self.axis.high],
            "curve": columns(story.curve, self.curve),
            "held_out": columns(story.held_out, self.held_out),
            "goals": [[*GOALS.get(name, (name, name)), cost] for name, cost in self.goals.items()],
            "kinds": {kind: [*KINDS.get(kind, (kind, kind)), self.truth(kind)] for kind in self.kinds},
            "tokens": story.facts.get("passage", []),
            "frames": [self.frame_data(frame, most) for frame in self.frames],
        }

    def frame_data(self, frame: Frame, most: int) -> dict:
        """Return a frame for the script: nats in tenths, -1 for none; samples of at most so many characters."""
        samples = {}
        for kind, sample in frame.samples.items():
            kept = {name: sample[name] for name in ("prefix", "longest") if sample[name] not in (None, "")}
            cut = sample["cut"] + max(0, len(sample["text"]) - most)
            samples[kind] = kept | {"text": sample["text"][:most]} | ({"cut": cut} if cut else {})
        nats = [-1 if cost is None else round(10 * max(0.0, min(cost, 99.0))) for cost in frame.nats]
        return {"step": frame.step, "loss": frame.loss, "samples": samples, "nats": nats}

    def meter(self) -> dict | None:
        """Return the longest copied runs as bars beside the held-out loss; None where nothing was measured."""
        frames = [(frame, run) for frame in self.frames if (run := longest_of(frame)) is not None]
        if not frames:
            return None
        drawn = draw_meter([run for _, run in frames], [frame.loss for frame, _ in frames], LONG_RUN)
        return drawn | {"first": self.name_epoch(frames[0][0].step), "last": self.name_epoch(frames[-1][0].step)}

    def sparks(self) -> list[dict]:
        """Return a small line for each figure of style, with the value of the book."""
        book, lines = self.story.facts.get("style", {}), []
        series = [mean_style(frame) for frame in self.frames]
        for name in dict.fromkeys(name for style in series for name in style):
            values = [style.get(name) for style in series]
            english, chinese, form = STYLE.get(name, (name, name, ".3g"))
            last = next(value for value in reversed(values) if value is not None)
            goal = book.get(name)
            figures = {"last": f"{last:{form}}", "book": None if goal is None else f"{goal:{form}}"}
            lines.append({"name": both(english, chinese), **draw_spark(values, goal), **figures})
        return lines

    def rows(self) -> list[dict]:
        """Return the table: a row an evaluation, or, where nothing was evaluated, a record of training."""
        story, rows, start = self.story, [], 0
        points = story.held_out if len(story.held_out) else story.curve
        copied = {frame.step: run for frame in self.frames if (run := longest_of(frame)) is not None}
        every = -(-len(points) // MOST_ROWS) or 1
        for place in [*range(every - 1, len(points), every)]:
            step, end = points.steps[place], start
            while end < len(story.curve) and story.curve.steps[end] <= step:
                end += 1
            between = story.curve.losses[start:end]
            loss = points.losses[place] if points is story.held_out else None
            rows.append(
                {
                    "step": int(step),
                    "epoch": self.epoch_of(step),
                    "seconds": None if math.isnan(points.seconds[place]) else span(points.seconds[place]),
                    "training": f"{sum(between) / len(between):.4f}" if between else "",
                    "held_out": "" if loss is None else f"{loss:.4f}",
                    "perplexity": "" if loss is None else spell_perplexity(loss),
                    "longest": f"{copied[step]:g}" if step in copied else "",
                    "is_best": place == self.best and points is story.held_out,
                }
            )
            start = end
        return rows


def allowed_by(command: Sequence[str]) -> list[str]:
    """Return the options that a command lets change.

    >>> allowed_by(["train.py", "--allow_change", "lr,stride", "--raw"]), allowed_by(["train.py", "--allow_change=lr"])
    (['lr', 'stride'], ['lr'])
    """
    values = []
    for flag, word in itertools.pairwise([*command, ""]):
        name, equals, value = flag.partition("=")
        values += [value if equals else word] if name == "--allow_change" else []
    return [option for value in values for option in value.split(",") if option]


def pick(points: Columns, places: Sequence[int]) -> tuple[list[float], list[float]]:
    """Return steps and losses of some points."""
    return [points.steps[place] for place in places], [points.losses[place] for place in places]


def columns(points: Columns, places: Sequence[int]) -> dict[str, list]:
    """Return some points for the script: steps, seconds (none without a clock) and losses, rounded."""
    steps, losses = pick(points, places)
    seconds = [points.seconds[place] for place in places]
    timed = [] if any(map(math.isnan, seconds)) else [round(value) for value in seconds]
    return {"steps": [int(step) for step in steps], "seconds": timed, "losses": [round(loss, 4) for loss in losses]}


def longest_of(frame: Frame) -> float | None:
    """Return the longest run of characters that the samples of a frame copied; None where it was not measured."""
    return max((sample["longest"] for sample in frame.samples.values() if sample["longest"] is not None), default=None)


def mean_style(frame: Frame) -> dict[str, float]:
    """Return the style of a frame: the mean of its samples."""
    styles = [sample["style"] for sample in frame.samples.values() if sample["style"]]
    names = dict.fromkeys(name for style in styles for name in style)
    groups = {name: [style[name] for style in styles if name in style] for name in names}
    return {name: sum(group) / len(group) for name, group in groups.items()}
