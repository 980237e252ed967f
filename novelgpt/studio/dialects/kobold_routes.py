"""KoboldAI's dialect as KoboldCpp speaks it: /api/v1/… and /api/extra/….

A client names its request by a `genkey` of its own; with it another request may read what has been written so far, its
probabilities, or stop it. Requests without a key share the empty one. A stream has events named `message`, one a
character; beside KoboldCpp's fields they have `top_logprobs`, which mikupad shows while the text is written.
"""

import time
from collections import OrderedDict
from collections.abc import AsyncIterator

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from novelgpt.studio.dialects.front import (
    Front,
    Job,
    Reader,
    Stream,
    Token,
    chat_logprobs,
    refuse,
    take_candidates,
    take_top,
    to_event,
)

OWN_NAMES = ("max_length", "rep_pen", "rep_pen_range", "sampler_seed", "stop_sequence")  # before those of others
DEFAULT_LENGTH = 80  # tokens, KoboldAI's
MAX_KEYS = 64  # requests that are remembered
API_VERSION = "1.2.5"  # of KoboldAI's own routes
EXTRA_VERSION = "1.100"  # of KoboldCpp's; from 1.40 on clients read streams
KINDS = {400: "bad_input", 503: "service_unavailable"}
STOP_REASONS = {"length": 0, "stop": 2, "stopped": -1}  # every other one is an end of the text: 1


def error_form(status: int, message: str) -> dict:
    """Return an error as KoboldCpp words it."""
    return {"detail": {"msg": message, "type": KINDS.get(status, "server_error")}}


class Generation:
    """One request: its job, and when its first character came."""

    def __init__(self, job: Job, top: int | None):
        self.job, self.top = job, top
        self.first: float | None = None  # time.monotonic()
        job.listeners.append(self.note)

    def note(self) -> None:
        """Note the time of the first character; called behind each change of the job."""
        if self.first is None and self.job.written:
            self.first = time.monotonic()

    def tokens(self, index: int = 0) -> list[Token]:
        """Return the tokens of a candidate so far."""
        return [token for piece in self.job.pieces() if piece.index == index for token in piece.tokens]

    def logprobs(self, index: int = 0) -> dict | None:
        """Return the probabilities of a candidate so far; None where none were wanted."""
        return None if self.top is None else {"content": chat_logprobs(self.tokens(index), self.top)}

    def finish_reason(self, index: int = 0) -> str | None:
        """Return "length" or "stop"; None while it grows."""
        reason = self.job.reason(index)
        return reason and ("length" if reason == "length" else "stop")

    def seconds(self) -> tuple[float, float]:
        """Return what reading the prompt took, and writing."""
        began, ended = self.job.began, self.job.finished or time.monotonic()
        if began is None:
            return 0.0, 0.0
        first = self.first or ended
        return first - began, ended - first


class Kobold:
    """The routes of one front, and the requests that they remember.

    Args:
        front: that takes the requests.
    """

    def __init__(self, front: Front):
        self.front, self.start, self.total = front, time.monotonic(), 0
        self.generations: OrderedDict[str, Generation] = OrderedDict()  # key -> its last request, the newest one last

    def routes(self) -> list[Route]:
        """Return them all."""
        get, post = ("GET",), ("POST",)
        table = [
            ("/api/v1/model", self.model, get),
            ("/api/v1/info/version", self.version, get),
            ("/api/v1/config/max_context_length", self.context, get),
            ("/api/v1/config/max_length", self.max_length, get),
            ("/api/v1/generate", self.generate, post),
            ("/api/extra/version", self.extra_version, get),
            ("/api/extra/true_max_context_length", self.context, get),
            ("/api/extra/perf", self.perf, get),
            ("/api/extra/generate/stream", self.generate_stream, post),
            ("/api/extra/generate/check", self.check, get + post),
            ("/api/extra/last_logprobs", self.last_logprobs, get + post),
            ("/api/extra/abort", self.abort, post),
            ("/api/extra/tokencount", self.count_tokens, post),
            ("/api/extra/detokenize", self.detokenize, post),
        ]
        return [self.front.route(path, answer, error_form, *methods, busy=503) for path, answer, methods in table]

    async def model(self, request: Request) -> Response:
        """Name the model."""
        return JSONResponse({"result": f"novelgpt/{self.front.facts()['name']}"})

    async def version(self, request: Request) -> Response:
        """Tell which of KoboldAI's routes there are."""
        return JSONResponse({"result": API_VERSION})

    async def extra_version(self, request: Request) -> Response:
        """Tell which of KoboldCpp's routes there are, and what else it could do."""
        more = dict.fromkeys(
            ("txt2img", "vision", "transcribe", "multiplayer", "websearch", "tts", "embeddings"), False
        )
        return JSONResponse({"result": "KoboldCpp", "version": EXTRA_VERSION, "protected": True, **more})

    async def context(self, request: Request) -> Response:
        """Tell how many tokens the model reads at once."""
        return JSONResponse({"value": self.front.check_ready()["context"]})

    async def max_length(self, request: Request) -> Response:
        """Tell how many tokens are written where a request says nothing."""
        return JSONResponse({"value": DEFAULT_LENGTH})

    async def begin(self, request: Request, *, is_stream: bool) -> tuple[Generation, dict[str, str]]:
        """Read a request and submit its job; returns it with the headers of the answer."""
        reader = await self.front.read(request, *OWN_NAMES)
        prompt = await self.front.read_prompt(reader.take("prompt", default=""))
        prompt = reader.text("memory", default="") + prompt
        key, top = self.key_of(reader), take_top(reader, "logprobs")
        more = {"length": reader.length(DEFAULT_LENGTH), "top": top or 0, "candidates": take_candidates(reader)}
        if is_stream and more["candidates"] > 1:
            raise refuse("n", more["candidates"], "1 in a stream")
        for name in ("stream", "model"):
            reader.take(name)
        wish = reader.wish()
        if not wish["stops"]:
            reader.take("trim_stop")  # there is nothing to trim
        headers = self.front.note_ignored(reader)
        generation = Generation(self.front.submit(prompt, wish, **more), top)
        self.total += 1
        self.generations[key] = generation
        self.generations.move_to_end(key)
        if len(self.generations) > MAX_KEYS:
            self.generations.popitem(last=False)
        return generation, headers

    def key_of(self, reader: Reader) -> str:
        """Take the name that a client gives to its request."""
        return reader.text("genkey", default="")

    async def find(self, request: Request) -> Generation | None:
        """Return what a request's key stands for."""
        return self.generations.get(self.key_of(await self.front.read(request)))

    async def generate(self, request: Request) -> Response:
        """Write, and answer with whole texts."""
        generation, headers = await self.begin(request, is_stream=False)
        job = generation.job
        await self.front.finish(request, [job])
        read = len(await self.front.call(self.front.engine.tokenize, job.request.prompt))
        results = [
            {
                "text": job.text(index),
                "finish_reason": generation.finish_reason(index),
                "logprobs": generation.logprobs(index),
                "prompt_tokens": read,
                "completion_tokens": len(generation.tokens(index)),
            }
            for index in range(job.request.candidates)
        ]
        return JSONResponse({"results": results}, headers=headers)

    async def generate_stream(self, request: Request) -> Response:
        """Write, and answer with a stream."""
        generation, headers = await self.begin(request, is_stream=True)
        return Stream(self.events(request, generation), [generation.job], error_form, headers, "message")

    async def events(self, request: Request, generation: Generation) -> AsyncIterator[str]:
        """Yield the events of a stream; the last one has no character but the reason why it ended."""
        async for _, _, text, tokens in self.front.steps(request, [generation.job]):
            event: dict[str, object] = {"token": text, "finish_reason": None}
            if generation.top is not None:
                (*_, best) = chat_logprobs(tokens, generation.top)
                event |= {name: best[name] for name in ("logprob", "top_logprobs")}
            yield to_event(event, "message")
        yield to_event({"token": "", "finish_reason": generation.finish_reason()}, "message")

    async def check(self, request: Request) -> Response:
        """Tell what has been written so far."""
        generation = await self.find(request)
        return JSONResponse({"results": [{"text": generation.job.text(0) if generation else ""}]})

    async def last_logprobs(self, request: Request) -> Response:
        """Tell the probabilities of what has been written so far."""
        generation = await self.find(request)
        return JSONResponse({"logprobs": generation and generation.logprobs()})

    async def abort(self, request: Request) -> Response:
        """Stop a request."""
        generation = await self.find(request)
        if generation:
            generation.job.stop()
        return JSONResponse({"success": generation is not None})

    async def count_tokens(self, request: Request) -> Response:
        """Tell the tokens of a text behind the mark that stands before every text."""
        reader = await self.front.read(request)
        tokens = await self.front.call(self.front.engine.tokenize, reader.text("prompt", default=""))
        ids = [self.front.mark, *map(int, tokens)]
        return JSONResponse({"value": len(ids), "ids": ids})

    async def detokenize(self, request: Request) -> Response:
        """Turn token ids into their text."""
        reader = await self.front.read(request)
        return JSONResponse({"result": await self.front.read_prompt(reader.take("ids", default=[])), "success": True})

    async def perf(self, request: Request) -> Response:
        """Tell how the last request went, in seconds and tokens."""
        last = next(reversed(self.generations.values()), None)
        read, wrote = last.seconds() if last else (0.0, 0.0)
        state, reason = self.front.engine.state(), last and last.job.reason(0)
        return JSONResponse(
            {
                "last_process": read,
                "last_eval": wrote,
                "last_token_count": len(last.tokens()) if last else 0,
                "last_seed": last.job.seed if last else -1,
                "total_gens": self.total,
                "stop_reason": STOP_REASONS.get(reason, 1) if reason else -1,
                "queue": state["queue"],
                "idle": int(not state["running"] and not state["queue"]),
                "hordeexitcounter": -1,
                "uptime": time.monotonic() - self.start,
            }
        )
