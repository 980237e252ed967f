"""One model and all that is asked of it: requests -> a queue -> turns of one thread -> jobs that grow.

    submit ─ waiting (at most 32) ─ admitted as memory allows ─ turn, turn, turn … ─ ended, findable for a while
    score  ───────────────────────────────────────────────────┘

The thread loads the model, then goes round: every job and every question gets a turn, a slice of tokens or a block that
is read, so all of them move, and whoever stops one waits for a turn at most. What goes wrong in a job ends that job.
"""

import math
import threading
import time
import traceback
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from novelgpt.messages import EXIT_ENVIRONMENT, EXIT_STATE, EXIT_USAGE, UserError
from novelgpt.studio.jobs import MAX_TOP, MAX_WAITING, Busy, Job, Request, Token

if TYPE_CHECKING:  # torch stands behind them, which takes seconds
    from novelgpt.studio.turns import Desk

KEPT_JOBS, KEPT_CHARACTERS = 64, 50_000  # of jobs that have ended; the last one stays in any case
CACHE_BYTES = 1 << 31  # of the keys and values of all running jobs; one job may run whatever it needs
WATCHED = ("config.json", "model.safetensors", "vocab.txt", "tokenizer.json")  # files of a model folder
RATE_MEMORY = 3.0  # seconds over which the rate is measured
LOADED = {"torch": 0.3, "files": 0.5, "weights": 0.95, "ready": 1.0}  # progress when each of these is there


@dataclass
class Turns:
    """What the thread carries out step by step."""

    steps: Iterator[object]
    job: Job | None  # None: a question
    cost: int = 0  # bytes of keys and values
    answer: Future = field(default_factory=Future)  # of a question: the last thing that the steps yield
    found: object = None  # what they yielded last

    def fail(self, problem: UserError) -> None:
        """Say that it will not be done."""
        if self.job:
            self.job.fail(problem)
        else:
            self.answer.set_exception(problem)


class Engine:
    """A model that writes for many at a time; every method may be called from any thread.

    Args:
        model_path: a model folder; it is read once, and what happens to it later changes no text.
        device, quantize, precision, corpus: as of generate.py.
        on_progress: called with the progress of loading, 0 to 1, by the engine's thread.
        find: returns the book where others have read it, too; None: the engine reads it.

    Attributes:
        problem: why the model could not be loaded, else None.
        desk: the loaded model; None as long as it is loading. Its book is there for others.
        is_changed: whether the folder holds another model by now than the one that writes.
    """

    def __init__(
        self,
        model_path: str | Path,
        *,
        device: str | None = None,
        quantize: str | None = None,
        precision: str = "auto",
        corpus: str | None = None,
        on_progress: Callable[[float], object] | None = None,
        find: Callable[[], object] | None = None,
    ):
        self.model_path = str(model_path)
        self.options = {"device": device, "quantize": quantize, "precision": precision, "corpus": corpus, "find": find}
        self.on_progress, self.progress = on_progress, 0.0
        self.problem: UserError | None = None
        self.desk: Desk | None = None
        self.stamp = stamp_of(model_path)
        self.work = threading.Condition()  # guards what follows
        self.waiting: deque[Job] = deque()
        self.questions: deque[Turns] = deque()
        self.running: list[Turns] = []
        self.jobs: OrderedDict[str, Job] = OrderedDict()
        self.is_closed = False
        self.rate: float | None = None  # characters a second of all jobs together
        self.counted = (0.0, 0.0)  # characters and seconds that it is made of
        self.thread = threading.Thread(target=self.run, name="engine", daemon=True)

    def start(self) -> None:
        """Load the model and serve, in a thread of its own; returns at once."""
        self.thread.start()

    def close(self) -> None:
        """Stop all jobs and end the thread."""
        with self.work:
            self.is_closed = True
            jobs = list(self.jobs.values())
            self.work.notify_all()
        for job in jobs:
            job.stop()
        if self.thread.is_alive():
            self.thread.join()

    # what is asked of it

    def submit(self, request: Request) -> Job:
        """Put a request into the queue; it may be done before the model is loaded.

        Raises:
            Busy: MAX_WAITING jobs are waiting.
            UserError: a setting that there is not or out of its range, a guard without the book, no model.
        """
        request.values()  # what generate.py would refuse is refused
        if self.problem:
            raise self.problem
        if self.desk:
            self.desk.check(request)
        job = Job(request)
        with self.work:
            if self.is_closed:
                raise closed()
            self.waiting = deque(other for other in self.waiting if not other.is_ended)
            if len(self.waiting) >= MAX_WAITING:
                raise Busy
            self.waiting.append(job)
            self.jobs[job.id] = job
            self.count_positions()
            self.work.notify_all()
        return job

    def find(self, job_id: str) -> Job | None:
        """Return a job by its id; of those that have ended the last ones are there, if they keep no alternatives."""
        return self.jobs.get(job_id)

    def score(
        self, text: str, start: int, end: int, top: int = 10, settings: Mapping[str, object] | None = None
    ) -> list[Token]:
        """Return what the model holds of a stretch of a text, whoever wrote it, as tokens with its characters.

        Args:
            text: only what comes before `end` matters, and of what comes before `start` the last 512 tokens.
            start, end: characters.
            top: alternatives of each token.
            settings: as of a Request; with them each token is told which of its alternatives could be drawn.

        Raises:
            UserError: no such stretch, a setting out of its range, no model, or none yet.
        """
        if not 0 <= start <= end <= len(text) or not 0 <= top <= MAX_TOP:
            message = f"characters {start:,} to {end:,}, {top} alternatives: found a text of {len(text):,} characters"
            raise UserError(message, f"a stretch within it, and at most {MAX_TOP} alternatives", EXIT_USAGE)
        from novelgpt.studio.turns import score_text

        values = None if settings is None else Request("", 1, settings=settings).values()
        question = Turns(score_text(self.ready_desk(), text, start, end, top, values), None)
        with self.work:
            if self.is_closed:
                raise closed()
            self.questions.append(question)
            self.work.notify_all()
        return question.answer.result()

    def tokenize(self, text: str) -> list[int]:
        """Return the ids of a text, names of marks in it being text; UserError as long as the model is loading."""
        return self.ready_desk().tokenizer.encode(text).tolist()

    def detokenize(self, ids: list[int]) -> str:
        """Return the text of ids as people see it; UserError for an id that there is not."""
        tokenizer = self.ready_desk().tokenizer
        try:
            return tokenizer.show(ids)
        except ValueError as problem:
            raise UserError(f"tokens: {problem}", "ids of this model's vocabulary", EXIT_USAGE) from problem

    def state(self) -> dict:
        """Return what people want to know: the model, how far its loading is, how fast it writes, who waits."""
        desk, problem = self.desk, self.problem
        model = {
            "name": self.model_path,
            "parameters": desk and desk.num_parameters,
            "context": desk and desk.weights.context,
            "precision": desk and desk.weights.kind,
            "progress": self.progress,
            "ready": desk is not None,
            "error": problem and {"message": problem.message, "hint": problem.hint},
            "changed": self.is_changed,
            "book": desk and desk.book_name,
            "titles": desk is not None and desk.has_titles,
        }
        with self.work:
            queue = sum(not job.is_ended for job in self.waiting)
            running = sum(bool(turns.job) for turns in self.running)
        return {"model": model, "rate": self.rate, "queue": queue, "running": running}

    def note_rate(self, characters: int, seconds: float) -> None:
        """Take what a round has written into the rate; what is long ago counts less and less."""
        fade = math.exp(-seconds / RATE_MEMORY)
        self.counted = self.counted[0] * fade + characters, self.counted[1] * fade + seconds
        if self.counted[0]:
            self.rate = self.counted[0] / self.counted[1]

    @property
    def is_changed(self) -> bool:
        """Whether the files of the model are others by now."""
        return stamp_of(self.model_path) != self.stamp

    def ready_desk(self) -> "Desk":
        """Return the loaded model, or raise what keeps it away."""
        if self.problem:
            raise self.problem
        if self.desk is None:
            raise UserError("the model is still being loaded", "ask again in a moment", EXIT_ENVIRONMENT)
        return self.desk

    # what the thread does

    def run(self) -> None:
        """Load the model, then go round until it is closed; whatever goes wrong is said where people look."""
        try:
            self.load()
            while self.wait_for_work():
                self.admit()
                self.go_round()
            self.problem = closed()
        except Exception as fault:
            self.problem = as_user_error(fault, f"{self.model_path}: cannot be used")
        self.fail_all()

    def wait_for_work(self) -> bool:
        """Wait until there is something to do; False when the engine is closed."""
        with self.work:
            self.work.wait_for(lambda: self.is_closed or self.running or self.questions or self.waiting)
            return not self.is_closed

    def go_round(self) -> None:
        """Give a turn to each, and see how fast it goes."""
        began, jobs = time.monotonic(), [turns.job for turns in self.running if turns.job]
        before = sum(job.num_characters for job in jobs)
        self.running = [turns for turns in self.running if self.take_turn(turns)]
        self.note_rate(sum(job.num_characters for job in jobs) - before, time.monotonic() - began)

    def load(self) -> None:
        """Read the model; the book is looked for behind it."""
        self.note_progress(0.02)
        from novelgpt.studio.turns import open_desk, write_job

        self.note_progress(LOADED["torch"])
        self.stamp = stamp_of(self.model_path)
        desk = open_desk(self.model_path, on_read=lambda: self.note_progress(LOADED["files"]), **self.options)
        self.note_progress(LOADED["weights"])
        # loops that are compiled for this processor are compiled now, not in the first job
        for _ in write_job(Job(Request("", 2, seed=0)), desk):
            pass
        self.desk = desk
        self.note_progress(LOADED["ready"])

    def note_progress(self, progress: float) -> None:
        """Note how far the loading is, and tell who wants to know."""
        self.progress = progress
        if self.on_progress:
            self.on_progress(progress)

    def admit(self) -> None:
        """Let those begin that wait: every question, and jobs in their order as long as there is memory for them."""
        from novelgpt.studio.turns import write_job

        with self.work:
            self.running += self.questions
            self.questions.clear()
            while self.waiting:
                job = self.waiting[0]
                cost = 0 if job.is_ended else self.desk.cache_bytes(job.request.candidates)
                used = sum(turns.cost for turns in self.running)
                if used and used + cost > CACHE_BYTES:
                    break
                self.waiting.popleft()
                if not job.is_ended:
                    self.running.append(Turns(write_job(job, self.desk), job, cost))
            self.count_positions()
            self.forget_ended()

    def take_turn(self, turns: Turns) -> bool:
        """Carry out a step; return whether there are more. What goes wrong ends this one alone."""
        try:
            turns.found = next(turns.steps)
        except StopIteration:
            if turns.job is None:
                turns.answer.set_result(turns.found)
            return False
        except Exception as fault:  # memory may run out: the others go on
            turns.fail(as_user_error(fault, "the engine failed"))
            return False
        return True

    def fail_all(self) -> None:
        """End whatever waits or runs with the problem of the engine."""
        with self.work:
            left = [*self.running, *self.questions, *(Turns(iter(()), job) for job in self.waiting)]
            self.running, self.questions, self.waiting = [], deque(), deque()
        for turns in left:
            turns.fail(self.problem)

    def count_positions(self) -> None:
        """Tell every job that waits its place."""
        place = 0
        for job in self.waiting:
            place += not job.is_ended
            job.position = 0 if job.is_ended else place

    def forget_ended(self) -> None:
        """Forget jobs that have ended: the oldest ones, and those whose tokens take much memory."""
        room = KEPT_CHARACTERS
        for age, job in enumerate([job for job in reversed(self.jobs.values()) if job.is_ended]):
            room -= job.num_characters
            if age and (age >= KEPT_JOBS or room < 0 or job.request.top):
                del self.jobs[job.id]


def closed() -> UserError:
    """Return what is said of a closed engine."""
    return UserError("the engine is closed", "start the studio again", EXIT_ENVIRONMENT)


def as_user_error(fault: Exception, what: str) -> UserError:
    """Return a fault in words; of one that is not the user's the traceback goes to stderr."""
    if isinstance(fault, UserError):
        return fault
    traceback.print_exception(fault)
    first = str(fault).split("\n")[0][:200]
    hint = "see the lines on the terminal; with less memory: fewer candidates, a shorter text"
    return UserError(f"{what}: {type(fault).__name__}: {first}", hint, EXIT_STATE)


def stamp_of(folder: str | Path) -> tuple:
    """Return what changes with the files of a model folder: size and time of each, None for one that is not there."""
    stats = [path.stat() if (path := Path(folder) / name).exists() else None for name in WATCHED]
    return tuple(stat and (stat.st_size, stat.st_mtime_ns) for stat in stats)
