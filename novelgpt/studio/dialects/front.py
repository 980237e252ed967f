"""What all dialects share: a request's body -> a job of the engine -> an answer at once or as a stream of events.

::

    body ─Reader─ settings ─engine.submit─ job ─follow─ pieces ─steps_of─ events of a dialect
                     └ ignored names: once in the log, in a header of every answer

No thread waits for a job: its listeners wake the loop. A client that goes away stops its jobs, whether it reads a
stream or waits for the whole text; so does a stream that is closed.
"""

import asyncio
import contextlib
import json
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Protocol
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from novelgpt.messages import EXIT_ENVIRONMENT, EXIT_INPUT, EXIT_STATE, EXIT_USAGE, UserError, shown, warn
from novelgpt.studio.dialects.settings import SEE, Reader, refuse
from novelgpt.studio.jobs import MAX_CANDIDATES, MAX_LENGTH, MAX_TOP, Busy, Job, Piece, Token
from novelgpt.studio.jobs import Request as Wanted

Form = Callable[[int, str], dict]  # HTTP status and words -> the error of a dialect
Answer = Callable[[Request], Awaitable[Response]]
Step = tuple[str, list[Token]]  # characters, and the tokens that they are made of

STATUS = {EXIT_USAGE: 400, EXIT_INPUT: 400, EXIT_ENVIRONMENT: 503, EXIT_STATE: 500}
MAX_NAMES = 1000  # ignored settings that are remembered as told
HEADER_NAMES = 50  # of them in one header
STREAMED = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
LINE_ENDS = {0x85: "\\u0085", 0x2028: "\\u2028", 0x2029: "\\u2029"}  # some clients take these for ends of a line
LEAST_LOGPROB = -9999.0  # JSON has no infinity


class Engine(Protocol):
    """What the dialects need of novelgpt.studio.Engine."""

    def state(self) -> dict: ...
    def ready_desk(self) -> object: ...
    def submit(self, request: Wanted) -> Job: ...
    def score(self, text: str, start: int, end: int, top: int) -> list[Token]: ...
    def tokenize(self, text: str) -> list[int]: ...
    def detokenize(self, ids: list[int]) -> str: ...


class Front:
    """Takes requests for one engine; shared by all dialects.

    Args:
        engine: that writes.
    """

    def __init__(self, engine: Engine):
        self.engine = engine
        self.told: set[str] = set()  # ignored settings that the log has

    def route(self, path: str, answer: Answer, form: Form, *methods: str, busy: int = 429) -> Route:
        """Return a route whose errors have the form of a dialect, with its status for a full queue; by default POST."""

        async def endpoint(request: Request) -> Response:
            try:
                return await answer(request)
            except UserError as problem:
                status = busy if isinstance(problem, Busy) else STATUS.get(problem.code, 500)
                return JSONResponse(form(status, words_of(problem)), status)

        return Route(path, endpoint, methods=methods or ("POST",))

    @property
    def mark(self) -> int:
        """The id of the mark that stands before every text; only of a model that is loaded."""
        return self.engine.ready_desk().tokenizer.cls_id

    def facts(self) -> Mapping[str, object]:
        """Return what is known of the model: name, context, ready, error."""
        return self.engine.state()["model"]

    def check_ready(self) -> Mapping[str, object]:
        """Return the facts of a model that is loaded; UserError: it is not yet, or never will be."""
        facts = self.facts()
        if facts["error"]:
            raise UserError(facts["error"]["message"], facts["error"]["hint"], EXIT_STATE)
        self.engine.ready_desk()  # raises what people are told of a model that is being loaded
        return facts

    async def read(self, request: Request, *first: str) -> Reader:
        """Read a body; `first` are the names of the dialect. UserError: no JSON object, or the model is not there."""
        context = self.check_ready()["context"]
        try:
            body = json.loads(await request.body() or "{}")
        except (ValueError, RecursionError):
            body = None
        if not isinstance(body, dict):
            raise UserError("the body is no JSON object", SEE, EXIT_USAGE)
        return Reader(body, context=context, most=MAX_LENGTH, first=first)

    async def read_prompt(self, value: object) -> str:
        """Return a prompt given as text or as token ids; the mark before every text is ours and may be among them."""
        if isinstance(value, str):
            return value
        if not isinstance(value, list) or not all(type(token) is int for token in value):
            raise refuse("prompt", value, "a text or token ids")
        tokens = value[1:] if value[:1] == [self.mark] else value
        return await self.call(self.engine.detokenize, tokens)

    async def call(self, function: Callable, *arguments: object) -> object:
        """Call something of the engine that computes, beside the loop."""
        return await asyncio.to_thread(function, *arguments)

    def note_ignored(self, reader: Reader) -> dict[str, str]:
        """Name what a request wants in vain: new names in the log, all of them in the header that is returned."""
        names = reader.finish()
        news = [name for name in names if name not in self.told][: MAX_NAMES - len(self.told)]
        if news:
            self.told.update(news)
            warn(f"front ends send settings that have no effect here: {', '.join(news)}")
        header = ", ".join(quote(name, safe="") for name in names[:HEADER_NAMES])
        return {"X-Ignored-Settings": header} if names else {}

    def submit(self, prompt: str, wish: Mapping[str, object], *, length: int, **more: int) -> Job:
        """Let the engine write after a prompt; where no token is wanted, return a job that is done."""
        wanted = Wanted(prompt, max(length, 1), **wish, **more)
        if length:
            return self.engine.submit(wanted)
        job = Job(wanted)
        for index in range(wanted.candidates):
            job.end(index, "length")
        return job

    async def follow(self, request: Request, jobs: Sequence[Job]) -> AsyncIterator[list[tuple[int, Piece]]]:
        """Yield the numbers and new pieces of jobs as they grow, to their ends; a client that leaves stops them.

        Raises:
            UserError: one of them has failed.
        """
        loop, grown = asyncio.get_running_loop(), asyncio.Event()

        def wake() -> None:
            with contextlib.suppress(RuntimeError):  # the loop has ended before the job
                loop.call_soon_threadsafe(grown.set)

        watcher = loop.create_task(stop_when_gone(request, jobs))
        for job in jobs:
            job.listeners.append(wake)
        seen = [0] * len(jobs)
        try:
            is_ended = False
            while not is_ended:
                grown.clear()
                is_ended = all(job.is_ended for job in jobs)  # asked first: no piece comes behind an end
                news = [(number, piece) for number, job in enumerate(jobs) for piece in job.pieces()[seen[number] :]]
                for number, _ in news:
                    seen[number] += 1
                if news:
                    yield news
                if not is_ended:
                    await grown.wait()
        finally:
            watcher.cancel()
            for job in jobs:
                job.stop()
                job.listeners.remove(wake)
        for job in jobs:
            if job.problem:
                raise job.problem

    async def steps(self, request: Request, jobs: Sequence[Job]) -> AsyncIterator[tuple[int, int, str, list[Token]]]:
        """Yield whole characters as they come: the number of the job, the candidate, characters, their tokens.

        Only at the very end there may be tokens without a character, of one that was not finished.
        """
        waiting: dict[tuple[int, int], list[Token]] = defaultdict(list)
        async for news in self.follow(request, jobs):
            for place, text, tokens in (
                ((number, piece.index), *step) for number, piece in news for step in steps_of(piece)
            ):
                waiting[place] += tokens
                if text:
                    yield *place, text, waiting.pop(place)
        for place, tokens in waiting.items():
            yield *place, "", tokens

    async def finish(self, request: Request, jobs: Sequence[Job]) -> list[list[Token]]:
        """Wait for the ends of jobs; returns the tokens of each candidate, job after job."""
        tokens = [[[] for _ in range(job.request.candidates)] for job in jobs]
        async for news in self.follow(request, jobs):
            for number, piece in news:
                tokens[number][piece.index] += piece.tokens
        return [candidate for of_job in tokens for candidate in of_job]


async def stop_when_gone(request: Request, jobs: Sequence[Job]) -> None:
    """Stop jobs when the client closes the connection."""
    while (await request.receive())["type"] != "http.disconnect":
        pass  # the body has been read: nothing else comes
    for job in jobs:
        job.stop()


def words_of(problem: UserError) -> str:
    """Return an error with what repairs it in one line, in the language of the server."""
    return f"{shown(problem.message)}; {shown(problem.hint)}"


def take_top(reader: Reader, *names: str, default: int = 5) -> int | None:
    """Take how many alternatives of each token are wanted; None for no probabilities; true means the default.

    >>> [take_top(Reader({"logprobs": value}, context=1, most=1), "logprobs") for value in (None, False, True, 10)]
    [None, None, 5, 10]
    """
    if isinstance(reader.body.get(reader.name_of(names)), bool):
        return default if reader.take(*names) else None
    top = reader.whole(*names, default=-1, low=-1, high=MAX_TOP)
    return None if top < 0 else top


def take_candidates(reader: Reader) -> int:
    """Take how many texts are wanted of a prompt."""
    return reader.whole("n", default=1, low=1, high=MAX_CANDIDATES)


def steps_of(piece: Piece) -> Iterator[Step]:
    """Yield whole characters with the tokens that they are made of, so that no event has half a character.

    >>> half, other, plain = Token("", 7, -1.0, 1), Token("𠮷", 8, -0.5, 1), Token("炎", 9, -2.0, 1)
    >>> [(text, len(made_of)) for text, made_of in steps_of(Piece(0, "𠮷炎", (half, other, plain)))]
    [('𠮷', 2), ('炎', 1)]
    """
    waiting: list[Token] = []
    if piece.text != "".join(token.text for token in piece.tokens):  # a stop has cut into a token
        yield piece.text, list(piece.tokens)
        return
    for token in piece.tokens:
        waiting.append(token)
        if token.text:
            yield token.text, waiting
            waiting = []
    if waiting:
        yield "", waiting


def best_of(token: Token, top: int) -> list[tuple[str, int, float]]:
    """Return the alternatives of a token before the filters, best first; the token itself is always among them."""
    best = [*token.top[:top]]
    if token.id not in (choice for _, choice, _ in best):
        best.append((token.text, token.id, token.logprob))
    return best


def finite(logprob: float) -> float:
    """Return a number that JSON can have."""
    return max(logprob, LEAST_LOGPROB)


def chat_logprob(text: str, logprob: float, **more: object) -> dict:
    """Return a token as the chat form of logprobs has it, which KoboldCpp has too."""
    return {"token": text, "logprob": finite(logprob), "bytes": list(text.encode()), **more}


def chat_logprobs(tokens: Sequence[Token], top: int) -> list[dict]:
    """Return tokens with their alternatives in the chat form."""
    return [
        chat_logprob(
            token.text, token.logprob, top_logprobs=[chat_logprob(text, nats) for text, _, nats in best_of(token, top)]
        )
        for token in tokens
    ]


def to_event(data: Mapping[str, object], name: str | None = None) -> str:
    r"""Return an event of a stream: one line of data, whatever signs are in it.

    >>> to_event({"token": "炎\n\u2028"}, "message")
    'event: message\ndata: {"token": "炎\\n\\u2028"}\n\n'
    """
    line = json.dumps(data, ensure_ascii=False).translate(LINE_ENDS)
    return f"event: {name}\ndata: {line}\n\n" if name else f"data: {line}\n\n"


class Stream(StreamingResponse):
    """An answer of events whose jobs end with it, even where the client has left before the first one.

    Args:
        events: of the dialect.
        jobs: that they tell of.
        form: of an error that ends the events.
        headers: of the answer.
        name: of the events, where the dialect names them.
    """

    def __init__(
        self,
        events: AsyncIterator[str],
        jobs: Sequence[Job],
        form: Form,
        headers: Mapping[str, str],
        name: str | None = None,
    ):
        self.jobs = jobs
        told = end_with_error(events, form, name)
        super().__init__(told, media_type="text/event-stream", headers={**STREAMED, **headers})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            for job in self.jobs:
                job.stop()


async def end_with_error(events: AsyncIterator[str], form: Form, name: str | None) -> AsyncIterator[str]:
    """Yield events; a job that fails on the way ends them with the error of the dialect."""
    try:
        async for event in events:
            yield event
    except UserError as problem:
        yield to_event(form(500, words_of(problem)), name)
