"""What is asked of the engine, and what grows out of it: a request -> a job -> pieces of text.

One thread writes a job, any number of threads read it, wait for it and stop it::

    engine   begin ─ grow, grow, grow … ─ end of each candidate
    readers  wait(seen) ─ text, nats, reason ─ wait(seen) …                    stop

What was shown is never taken back: the text of a candidate only grows. This module needs no torch.
"""

import secrets
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from novelgpt.cli import GenerateOptions, names_with, preset_values, with_changes
from novelgpt.messages import EXIT_ENVIRONMENT, EXIT_USAGE, UserError

MAX_WAITING = 32  # jobs
MAX_CANDIDATES = 8
MAX_LENGTH = 10_000  # tokens a candidate
MAX_TOP = 20  # alternatives of a token
MAX_FORCED = 200  # characters
MAX_SEED = 2**64 - 1
POLL, ONE_TURN = 0.15, 0.01  # seconds: to the next question where nothing is known; between candidates of a turn
SOONEST, LATEST, AFTER = 0.05, 1.0, 0.02  # seconds to the next question; behind what is expected
ENDINGS = ("length", "sentence", "paragraph", "chapter")
ENDED = ("done", "stopped", "failed")

Choice = tuple[str, int, float]  # text, id and log-probability (nats, at most 0) of a token that might stand there


class Busy(UserError):
    """More jobs wait than the queue holds."""

    def __init__(self):
        full = UserError(f"{MAX_WAITING} jobs are waiting, no more can", "wait until one has ended, or stop one")
        super().__init__(full.message, full.hint, EXIT_ENVIRONMENT)


@dataclass(frozen=True)
class Request:
    """What is to be written.

    Raises:
        UserError: a number out of its range, or an ending that there is not.

    >>> Request("萧炎大喝一声", 100, candidates=3).ending
    'length'
    """

    prompt: str  # the text before; names of marks in it are text
    length: int  # tokens a candidate; with another ending than "length" it runs on to that
    candidates: int = 1  # rows of one batch
    settings: Mapping[str, object] = field(default_factory=dict)  # names and values of generate.py's sampling options
    seed: int | None = None  # candidate i is a function of (seed, i) and all else here; None draws one, see Job.seed
    ending: str = "length"  # one of ENDINGS
    stops: tuple[str, ...] = ()  # texts before which a candidate ends
    forced: str = ""  # text that begins every candidate, an alternative that was taken; not counted in the length
    top: int = 0  # alternatives kept of every token
    guard: int = 0  # characters; no run of the book grows beyond so many, 0 lets it
    keep_head: int = 0  # tokens of the beginning that stay in every window
    mark: str = ""  # a token of the model behind the prompt, such as "[TIL]"; the text is what it asks for

    def __post_init__(self) -> None:
        ranges = {"length": (1, MAX_LENGTH), "candidates": (1, MAX_CANDIDATES), "top": (0, MAX_TOP)}
        ranges |= {"guard": (0, MAX_SEED), "keep_head": (0, MAX_SEED)}
        if self.seed is not None:
            ranges["seed"] = (0, MAX_SEED)
        for name, (low, high) in ranges.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
                message = f"{name}: found {value!r}, expected a whole number from {low:,} to {high:,}"
                raise UserError(message, f'"{name}": {max(low, 1)}', EXIT_USAGE)
        if len(self.forced) > MAX_FORCED:
            message = f"forced: found {len(self.forced):,} characters, expected at most {MAX_FORCED}"
            raise UserError(message, "make it the end of the prompt", EXIT_USAGE)
        if not all(self.stops):
            raise UserError("stops: found an empty text, expected characters", '"stops": ["。"]', EXIT_USAGE)
        if self.ending not in ENDINGS:
            message = f"ending: found {self.ending!r}, expected {', '.join(ENDINGS)}"
            raise UserError(message, '"ending": "sentence"', EXIT_USAGE)

    def values(self) -> dict[str, object]:
        """Return the value of every sampling option of generate.py; UserError for what generate.py would refuse.

        >>> Request("萧炎", 100, settings={"topk": 20}, keep_head=5).values()["topk"]
        20
        """
        names = names_with(GenerateOptions, sampling=True)
        head = {"keep_head": self.keep_head} if self.keep_head else {}
        options = with_changes(GenerateOptions(), {**self.settings, **head}, (*names, "preset"))
        return {name: getattr(options, name) for name in names} | preset_values(options)


@dataclass(frozen=True)
class Token:
    """One token that stands in a text, and what the model held of it.

    Its text is the characters that are whole with it: a character of three byte tokens belongs to the last of them, and
    the others have none.
    """

    text: str
    id: int
    logprob: float  # nats, at most 0, before the filters: the model's opinion
    rank: int  # 1 is the most likely token before the filters
    top: tuple[Choice, ...] = ()  # the most likely ones before the filters, best first
    after: tuple[Choice, ...] = ()  # what could be drawn behind all filters, best first; empty where nothing was drawn


@dataclass(frozen=True)
class Piece:
    """What one candidate has grown by: whole characters only."""

    index: int  # of the candidate, from 0
    text: str
    tokens: tuple[Token, ...]


class Job:
    """One request in the making; every method may be called from any thread.

    Args:
        request: what is asked for.

    Attributes:
        id: its name, which nobody guesses.
        seed: the request's, or the one that was drawn for it.
        state: queued, running, done, stopped or failed.
        position: its place among those that wait, from 1; 0 when it is running or has ended.
        problem: why it failed, else None.
        listeners: functions without arguments, called behind each change by the thread that made it.
    """

    def __init__(self, request: Request):
        self.id, self.request = secrets.token_hex(8), request
        self.seed = secrets.randbits(32) if request.seed is None else request.seed
        self.state, self.position, self.problem = "queued", 0, None
        self.listeners: list[Callable[[], object]] = []
        self.began: float | None = None  # time.monotonic() of its first turn
        self.grown, self.pause = time.monotonic(), 0.0  # when it has grown, and seconds between the last two times
        self.finished: float | None = None
        self.changed = threading.Condition()
        count = request.candidates
        self.parts: list[list[str]] = [[] for _ in range(count)]  # the text of each candidate
        self.costs: list[list[float]] = [[] for _ in range(count)]  # nats of each of its characters
        self.reasons: list[str | None] = [None] * count
        self.written: list[Piece] = []
        self.num_characters = 0  # of all candidates

    @property
    def is_ended(self) -> bool:
        """Whether nothing will be added any more."""
        return self.state in ENDED

    @property
    def error(self) -> str | None:
        """What made it fail, in words; None where nothing did."""
        return self.problem and self.problem.message

    def text(self, index: int) -> str:
        """Return all characters of a candidate so far."""
        with self.changed:
            self.parts[index] = ["".join(self.parts[index])]
            return self.parts[index][0]

    def nats(self, index: int) -> list[float]:
        """Return a number for each character of a candidate: the nats of the tokens whose text begins with it."""
        with self.changed:
            return list(self.costs[index])

    def reason(self, index: int) -> str | None:
        """Return why a candidate ended: length, sentence, paragraph, chapter, stop or stopped; None while it grows.

        "length" is also told of a search for a paragraph's or chapter's end that found none within its bound.
        """
        return self.reasons[index]

    def pieces(self) -> list[Piece]:
        """Return all pieces so far, in the order in which they were written."""
        with self.changed:
            return list(self.written)

    def wait(self, seen: Sequence[int], timeout: float) -> bool:
        """Block until there is more than what was seen, or the job has ended.

        Args:
            seen: characters of each candidate that the caller has.
            timeout: seconds.

        Returns:
            False when the time is up.
        """
        with self.changed:
            return self.changed.wait_for(lambda: self.is_ended or self.has_more(seen), timeout)

    def has_more(self, seen: Sequence[int]) -> bool:
        """Tell whether a candidate has more characters than were seen."""
        return any(len(costs) > count for costs, count in zip(self.costs, seen, strict=True))

    def ask_again(self) -> float:
        """Return the seconds after which it will likely have grown: as many as between the last two times."""
        with self.changed:
            left = self.grown + self.pause + AFTER - time.monotonic()
        return min(LATEST, max(SOONEST, left if left > 0 else POLL))

    def stop(self) -> None:
        """End it where it is: not one character is added behind this."""
        self.finish("stopped")

    def begin(self) -> None:
        """Note its first turn."""
        with self.changed:
            if self.state == "queued":
                self.state, self.position, self.began = "running", 0, time.monotonic()
        self.tell()

    def grow(self, piece: Piece, costs: Sequence[float]) -> None:
        """Add a piece and the nats of each of its characters, unless the candidate has ended."""
        with self.changed:
            if self.is_ended or self.reasons[piece.index]:
                return
            now = time.monotonic()
            if now - self.grown > ONE_TURN:
                self.grown, self.pause = now, now - self.grown
            self.parts[piece.index].append(piece.text)
            self.costs[piece.index] += costs
            self.written.append(piece)
            self.num_characters += len(costs)
        self.tell()

    def end(self, index: int, reason: str) -> None:
        """Note why a candidate ended; with the last one the job is done."""
        with self.changed:
            if self.is_ended:
                return
            self.reasons[index] = reason
        if all(self.reasons):
            self.finish("done")
        else:
            self.tell()

    def fail(self, problem: UserError) -> None:
        """End it with what went wrong."""
        self.finish("failed", problem)

    def finish(self, state: str, problem: UserError | None = None) -> None:
        """Give it its last state, unless it has one."""
        with self.changed:
            if self.is_ended:
                return
            self.reasons = [reason or "stopped" for reason in self.reasons]
            self.state, self.position, self.problem, self.finished = state, 0, problem, time.monotonic()
        self.tell()

    def tell(self) -> None:
        """Wake who waits, and call the listeners; one that breaks is called no more, and the job goes on."""
        with self.changed:
            self.changed.notify_all()
        for listener in list(self.listeners):
            try:
                listener()
            except Exception as fault:  # the loop of a connection may be closed by now
                traceback.print_exception(fault)
                self.listeners.remove(listener)


class Speller:
    """Tokens -> the characters that are whole with each of them, as people see them.

    What never becomes a character is left out: no text has U+FFFD in it.

    Args:
        tokenizer: the NovelTokenizer of the model.
        before: the ids that the text goes on from.
    """

    def __init__(self, tokenizer, before: Sequence[int]):
        self.stream, self.mark = tokenizer.stream(), tokenizer.cls_id
        self.is_empty = all(token_id == self.mark for token_id in before)  # marks at the beginning show nothing
        if not self.is_empty:
            self.stream.push(before[-1])

    def push(self, token_id: int) -> str:
        """Take the next token and return its characters."""
        if self.is_empty and token_id == self.mark:
            return ""
        self.is_empty = False
        return self.stream.push(token_id).replace("\ufffd", "")


def longest_beginning(text: str, stops: Sequence[str]) -> int:
    """Return how many characters at the end of a text may be the beginning of one of others.

    >>> longest_beginning("他说：完", ["完结", "：完了吗"])
    2
    """
    lengths = (size for stop in stops for size in range(1, len(stop)) if text.endswith(stop[:size]))
    return max(lengths, default=0)
