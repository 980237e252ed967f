"""log.jsonl and run.json of a run folder -> Story: what happened in a run, in columns and frames that a page can draw.

::

    {"step": 200, "epoch": 1, "loss": 6.1, …}      → curve     the loss of training, a point a record
    {"step": 400, "epoch": 2, "valid_loss": 5.2}   → held_out  and a frame of the time-lapse
    {"event": "sample", …}, {"event": "passage"}   → the frame of their step
    {"event": "start", …}                          → facts     what is trained, on what, what it has to beat
    {"event": "verdict" "stop" "finish" …}         → how it stands

A log may be of a former version, without clock and events, or torn, or of another program: what does not fit is left
out and counted, never an error. It is read line by line, so its size does not matter; of many frames some are kept.
"""

import itertools
import json
import math
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

LONGEST_LINE = 4 << 20  # bytes; what is longer is no record of ours
MOST_FRAMES = 60  # of the time-lapse
LONGEST_TEXT = 1_000  # characters of a sample on the page
MOST_KINDS = 6  # of samples, and of yardsticks
NOISE = 0.02  # nats a token that are no difference
RECENT = 20  # records from which the speed is taken
BLOCKS = 4  # of them, whose slowest and fastest are the range
KINDS = ("learning", "converged", "memorising", "below_counting", "none")  # of verdicts


@dataclass
class Columns:
    """Points of a curve: steps, seconds of work until then (NaN without a clock), and nats a token."""

    steps: array = field(default_factory=lambda: array("d"))
    seconds: array = field(default_factory=lambda: array("d"))
    losses: array = field(default_factory=lambda: array("d"))

    def __len__(self) -> int:
        return len(self.steps)

    def add(self, *point: float) -> None:
        """Add a point: step, seconds, loss."""
        for column, value in zip((self.steps, self.seconds, self.losses), point, strict=True):
            column.append(value)

    def forget_after(self, step: float) -> None:
        """Leave out what stands behind a step: a run that was resumed does it again."""
        while self.steps and self.steps[-1] > step:
            for column in (self.steps, self.seconds, self.losses):
                column.pop()

    def best(self) -> int | None:
        """Return the place of the lowest loss; None without any."""
        return min(range(len(self)), key=self.losses.__getitem__, default=None)


@dataclass
class Frame:
    """What the run showed at one step.

    Attributes:
        step: where.
        loss: held out, nats a token; None where it was not evaluated.
        samples: kind of prefix -> its record, cleaned: prefix, text, cut, seed, longest, share, style.
        nats: of each token of the fixed passage, None for one that was not scored.
    """

    step: float
    loss: float | None = None
    samples: dict[str, dict] = field(default_factory=dict)
    nats: list[float | None] = field(default_factory=list)


@dataclass
class Story:
    """A run as its log tells it."""

    name: str
    facts: dict = field(default_factory=dict)  # of the event start, each of the type that a page expects, or not there
    curve: Columns = field(default_factory=Columns)
    held_out: Columns = field(default_factory=Columns)
    frames: list[Frame] = field(default_factory=list)
    verdict: dict | None = None  # text, model, kind, of the last event
    end: str | None = None  # "stop" or "finish"; None while it runs, or of a log without events
    reason: str = ""  # of a stop
    has_events: bool = False
    step: float = 0
    reached: float = 0.0  # steps of an epoch, at least: the most that a record shows
    time: float = math.nan  # Unix seconds of the last record
    began: float = math.nan  # of the first one
    paused: float = 0.0  # seconds between a stop and its resumption
    resumed: int = 0  # how often
    speed: float = math.nan  # tokens a second
    unreadable: int = 0  # lines
    not_finite: int = 0  # losses that are no number
    last_is_finite: bool = True
    beats: Columns = field(default_factory=Columns)  # of every record with a clock, for the time left

    @property
    def is_live(self) -> bool:
        """Tell whether the run goes on, as far as its log tells."""
        return self.has_events and self.end is None

    @property
    def seconds(self) -> float:
        """Seconds of work so far; NaN without a clock."""
        return self.time - self.began - self.paused

    @property
    def share_done(self) -> float | None:
        """The share of the run that is done, 0 to 1; None where nobody knows how long it is."""
        if self.end == "finish":
            return 1.0
        if (hours := self.facts.get("hours")) and math.isfinite(self.seconds):
            return min(1.0, self.seconds / 3600 / hours)
        total = self.facts.get("total_steps")
        return min(1.0, self.step / total) if total else None

    @property
    def steps_an_epoch(self) -> float | None:
        """Steps of an epoch, as the run says or as far as its records show; None before the first step."""
        total, epochs, windows, batch = map(self.facts.get, ("total_steps", "epochs", "windows", "batch_size"))
        if total and epochs:
            return total / epochs
        return -(-windows // batch) if windows and batch else self.reached or None  # the last batch may be short


def read_story(run_dir: Path) -> Story:
    """Read what happened in a run.

    Args:
        run_dir: run folder; its log.jsonl is read to its end, its run.json tells what an old log does not.

    Raises:
        OSError: there is no log, or it cannot be read.
    """
    known = facts_of_options(run_dir / "run.json")
    story = Story(run_dir.resolve().name, dict(known))
    with open(run_dir / "log.jsonl", "rb") as file:
        for line in read_lines(file):
            record = parse(line)
            if record is None:
                story.unreadable += bool(line.strip())
                continue
            if record.get("event") == "start":
                facts = known | clean_facts(record)
                if number(record.get("step")):  # a run of a former version goes on: what stood before is its own
                    story.facts |= facts
                else:  # what stood before was another run
                    story = Story(story.name, facts)
            take(story, record)
    return story


def facts_of_options(path: Path) -> dict:
    """Return what run.json tells of a run: what its first record would; nothing where it is not there or damaged."""
    try:
        stored = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(stored, dict):
        return {}
    options = stored.get("options") if isinstance(stored.get("options"), dict) else {}
    names = ("epochs", "hours", "batch_size")
    facts = clean_facts({"total_steps": stored.get("total_steps"), **{name: options.get(name) for name in names}})
    command = stored.get("command")
    if isinstance(command, list) and all(isinstance(word, str) for word in command):
        facts["command"] = [clean_text(word) for word in command]
    return facts


def read_lines(file) -> Iterator[bytes]:
    """Yield the lines of a binary file; of one that is too long no more than that it is there."""
    while line := file.readline(LONGEST_LINE):
        if len(line) == LONGEST_LINE and not line.endswith(b"\n"):
            while (more := file.readline(LONGEST_LINE)) and not more.endswith(b"\n"):
                pass
            line = b"too long"
        yield line


def parse(line: bytes) -> dict | None:
    """Return the record of a line; None where it is none.

    >>> parse(b'{"step": 1, "loss": "nan"}'), parse(b'{"step": 1, "lo'), parse(b"[1]")
    ({'step': 1, 'loss': 'nan'}, None, None)
    """
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None


def number(value: object) -> float | None:
    """Return a finite number as float; None for anything else.

    >>> number(3), number("3"), number(float("nan")), number(True), number(10**400)
    (3.0, None, None, None, None)
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:
        return None


def clean_text(value: object, most: int = LONGEST_TEXT) -> str:
    r"""Return a text, cut; of what is none nothing. Half a surrogate pair, which no file can hold, becomes U+FFFD.

    >>> clean_text("井\ud800", 5), clean_text(["井"])
    ('井\ufffd', '')
    """
    if not isinstance(value, str):
        return ""
    return value[:most].encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def numbers_of(value: object, most: int) -> dict[str, float]:
    """Return the entries of an object that are numbers, by name."""
    pairs = value.items() if isinstance(value, dict) else ()
    found = ((clean_text(name, 60), number(figure)) for name, figure in pairs)
    return dict([(name, figure) for name, figure in found if figure is not None][:most])


def clean_facts(record: dict) -> dict:
    """Return what a page uses of the first record, each of its type; what is not of it is not there."""
    counts = ("total_steps", "hours", "epochs", "tokens", "windows", "parameters", "batch_size", "context")
    facts = {name: number(record.get(name)) for name in (*counts, "tokens_per_character")}
    facts = {name: value for name, value in facts.items() if value is not None and value > 0}
    facts |= {name: found for name in ("yardsticks",) if (found := numbers_of(record.get(name), MOST_KINDS))}
    facts |= {name: found for name in ("style",) if (found := numbers_of(record.get(name), 12))}
    if title := clean_text(record.get("book"), 200):
        facts["book"] = title
    passage = record.get("passage") if isinstance(record.get("passage"), dict) else {}
    tokens = passage.get("tokens")
    if isinstance(tokens, list) and all(isinstance(token, str) for token in tokens):
        facts["passage"] = [clean_text(token, 20) for token in tokens[:LONGEST_TEXT]]
    truths = {}
    for entry in record.get("prefixes") if isinstance(record.get("prefixes"), list) else ():
        if isinstance(entry, dict) and (truth := clean_text(entry.get("truth"))):
            truths[clean_text(entry.get("kind"), 40)] = truth
    return facts | ({"truths": truths} if truths else {})


def take(story: Story, record: dict) -> None:
    """Add one record to a story."""
    event, step, time = record.get("event"), number(record.get("step")), number(record.get("time"))
    story.has_events |= isinstance(event, str)
    if event == "resume" or (event is None and step is not None and step < story.step and "loss" in record):
        rewind(story, story.step if step is None else step, time, clean_facts(record))
    # where it stands
    story.step = story.step if step is None else max(step, 0.0)
    if (epoch := number(record.get("epoch"))) and epoch > 0:
        story.reached = max(story.reached, story.step / epoch)
    if time is not None:
        story.began = time if math.isnan(story.began) else story.began
        story.time = time if math.isnan(story.time) else max(time, story.time)
        story.beats.add(story.step, story.seconds, 0)
    if event in ("stop", "finish"):
        story.end, story.reason = event, clean_text(record.get("reason"), 200)
    elif event == "verdict":
        kind = record.get("kind")
        story.verdict = {name: clean_text(record.get(name), 400) for name in ("text", "model")}
        story.verdict["kind"] = kind if kind in KINDS else None
    elif event == "sample":
        kinds = frame_at(story).samples
        if len(kinds) < MOST_KINDS or record.get("kind") in kinds:
            kinds[clean_text(record.get("kind"), 40) or "own"] = clean_sample(record)
    elif event == "passage":
        nats = record.get("nats")
        frame_at(story).nats = [number(value) for value in nats[:LONGEST_TEXT]] if isinstance(nats, list) else []
    elif event is None:
        take_figures(story, record)


def take_figures(story: Story, record: dict) -> None:
    """Add the figures of a record of training or of an evaluation."""
    if "loss" in record:
        loss = number(record["loss"])
        story.last_is_finite = loss is not None
        story.not_finite += loss is None
        if loss is not None:
            story.curve.add(story.step, story.seconds, loss)
    if (loss := number(record.get("valid_loss"))) is not None:
        story.held_out.add(story.step, story.seconds, loss)
        frame_at(story).loss = loss
        bits = number(record.get("bits_per_character"))
        if bits and loss:  # bits a character = nats a token / ln 2 * tokens a character
            story.facts.setdefault("tokens_per_character", bits * math.log(2) / loss)
    story.speed = number(record.get("tokens_per_second")) or story.speed


def rewind(story: Story, step: float, time: float | None, sizes: dict) -> None:
    """Go back to the step from which a run was resumed; what lies between is no time of work."""
    for columns in (story.curve, story.held_out, story.beats):
        columns.forget_after(step)
    story.frames = [frame for frame in story.frames if frame.step <= step]
    story.end, story.verdict, story.reason, story.last_is_finite = None, None, "", True
    story.facts |= sizes  # it may have been given more epochs or hours
    story.resumed += 1
    if time is not None and math.isfinite(story.time):
        story.paused += max(0.0, time - story.time)
        story.time = max(time, story.time)


def frame_at(story: Story) -> Frame:
    """Return the frame of the last record, a new one where it has none; of too many every other one goes."""
    if not story.frames or story.frames[-1].step != story.step:
        if len(story.frames) >= 2 * MOST_FRAMES:
            story.frames = thin(story.frames, MOST_FRAMES)
        story.frames.append(Frame(story.step))
    return story.frames[-1]


def thin(frames: list[Frame], most: int) -> list[Frame]:
    """Return at most so many frames, evenly; the first, the last and the best are among them."""
    if len(frames) <= most:
        return frames
    scored = [index for index, frame in enumerate(frames) if frame.loss is not None]
    kept = {round(place * (len(frames) - 1) / (most - 2)) for place in range(most - 1)}
    kept |= {min(scored, key=lambda index: frames[index].loss)} if scored else set()
    return [frame for index, frame in enumerate(frames) if index in kept]


def clean_sample(record: dict) -> dict:
    """Return what a page uses of a sample."""
    text, prefix = record.get("text"), clean_text(record.get("prefix"), 300)
    copied = record.get("copied") if isinstance(record.get("copied"), dict) else {}
    text = text.removeprefix(prefix) if isinstance(text, str) else text  # a log may have it in both
    return {
        "prefix": prefix,
        "text": clean_text(text),
        "cut": max(0, len(text) - LONGEST_TEXT) if isinstance(text, str) else 0,
        "seed": number(record.get("seed")),
        "longest": number(copied.get("longest")),
        "share": number(copied.get("share_20")),
        "style": numbers_of(record.get("style"), 12),
    }


def seconds_left(story: Story) -> tuple[float, float, float] | None:
    """Return how long a run still takes: at least, probably, at most, in seconds; None where nobody knows.

    The pace is that of the last records, evaluations included; the range is that of their slowest and fastest quarter.
    """
    hours, total = story.facts.get("hours"), story.facts.get("total_steps")
    if not story.is_live or math.isnan(story.seconds):
        return None
    if hours:
        return (max(0.0, 3600 * hours - story.seconds),) * 3
    beats, left = story.beats, (total or 0) - story.step
    first = max(0, len(beats) - RECENT - 1)
    pace = seconds_a_step(beats, first, len(beats) - 1)
    if left <= 0 or pace is None:
        return None
    cuts = [first + (len(beats) - 1 - first) * part // BLOCKS for part in range(BLOCKS + 1)]
    paces = [found for pair in itertools.pairwise(cuts) if (found := seconds_a_step(beats, *pair))]
    return left * min(paces, default=pace), left * pace, left * max(paces, default=pace)


def seconds_a_step(beats: Columns, first: int, last: int) -> float | None:
    """Return the seconds a step took between two records; None where no step lies between them."""
    steps = beats.steps[last] - beats.steps[first] if 0 <= first < last else 0
    return (beats.seconds[last] - beats.seconds[first]) / steps if steps > 0 else None


def judge(story: Story) -> str:
    """Return how a run stands: one of KINDS, or "starting" before the second evaluation, or "broken" after a NaN.

    At the end the run has said it itself. On the way, and for a log without events, by the same rules: 0.02 nats are
    no difference, and what counting costs has to be beaten by them from the middle of the run on.
    """
    if not story.last_is_finite:
        return "broken"
    if story.verdict and story.verdict["kind"]:
        return story.verdict["kind"]
    losses, best = story.held_out.losses, story.held_out.best()
    if best is None or len(losses) < 2:
        return "starting" if story.has_events and story.end != "finish" else "none"
    goal = story.facts.get("yardsticks", {}).get("kn5_cache")
    if len(losses) - best > 2 and losses[-1] > losses[best] + NOISE:
        return "memorising"
    if goal is not None and losses[best] > goal - NOISE and (story.share_done or 0) > 0.5:
        return "below_counting"
    before = min(losses[:-2], default=math.inf)
    return "learning" if before - losses[best] > NOISE else "converged"
