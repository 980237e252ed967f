"""llama.cpp's dialect: /completion, /tokenize, /detokenize, /props, /health.

A stream has an event a character, the last one with `stop: true`; there is no [DONE]. With `n_probs` every event tells
what else might stand there: log-probabilities before the filters, or with `post_sampling_probs` the probabilities of
what could be drawn behind them. `n_predict: -1`, this dialect's "without end", writes as much as one job may.
"""

from collections.abc import AsyncIterator, Sequence
from math import exp

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from novelgpt.studio.dialects.front import (
    MAX_LENGTH,
    Front,
    Job,
    Stream,
    Token,
    chat_logprobs,
    take_top,
    to_event,
)

OWN_NAMES = ("n_predict", "repeat_penalty", "repeat_last_n", "stop", "seed")  # before those of other dialects
KINDS = {400: "invalid_request_error", 503: "unavailable_error"}
STOP_TYPES = {"length": "limit", "stop": "word", "stopped": "none"}  # every other reason is an end of the text: "eos"


def error_form(status: int, message: str) -> dict:
    """Return an error as llama-server words it."""
    return {"error": {"code": status, "message": message, "type": KINDS.get(status, "server_error")}}


def probabilities(tokens: Sequence[Token], top: int, *, is_after: bool) -> list[dict]:
    """Return tokens with their alternatives, before the filters or behind them.

    >>> token = Token("炎", 7, -1.0, 2, (("药", 8, -0.5), ("炎", 7, -1.0)), (("炎", 7, 0.0),))
    >>> probabilities([token], 1, is_after=True)[0]["top_probs"][0]["prob"]
    1.0
    """
    if not is_after:
        entries = zip(tokens, chat_logprobs(tokens, top), strict=True)
        return [{"id": token.id, **entry} for token, entry in entries]
    rows = []
    for token in tokens:
        best = [probability(text, choice, nats) for text, choice, nats in token.after[:top]]
        own = {"id": token.id, "token": token.text, "bytes": list(token.text.encode())}
        if not token.after:  # nothing was drawn: the best one is certain
            own["prob"] = 1.0
        # one that was drawn from behind the best ones has no known probability
        own |= next((row for row in best if row["id"] == token.id), {})
        rows.append({**own, "top_probs": best})
    return rows


def probability(text: str, choice: int, nats: float) -> dict:
    """Return a token with its probability."""
    return {"id": choice, "token": text, "bytes": list(text.encode()), "prob": exp(nats)}


class Llama:
    """The routes of one front.

    Args:
        front: that takes the requests.
    """

    def __init__(self, front: Front):
        self.front = front

    def routes(self) -> list[Route]:
        """Return them all."""
        return [
            self.front.route("/completion", self.complete, error_form),
            self.front.route("/completions", self.complete, error_form),
            self.front.route("/tokenize", self.tokenize, error_form),
            self.front.route("/detokenize", self.detokenize, error_form),
            self.front.route("/props", self.props, error_form, "GET"),
            self.front.route("/health", self.health, error_form, "GET"),
        ]

    async def health(self, request: Request) -> Response:
        """Tell whether the model is loaded."""
        self.front.check_ready()
        return JSONResponse({"status": "ok"})

    async def props(self, request: Request) -> Response:
        """Tell what the server is: no chat template, for the model has none."""
        facts = self.front.check_ready()
        settings = {"n_ctx": facts["context"], "n_predict": MAX_LENGTH}
        more = {"model_path": facts["name"], "chat_template": "", "build_info": "novelgpt"}
        return JSONResponse({"default_generation_settings": settings, "total_slots": 1, **more})

    async def tokenize(self, request: Request) -> Response:
        """Turn a text into token ids; with `with_pieces` each with its text."""
        reader = await self.front.read(request)
        tokens = [*map(int, await self.front.call(self.front.engine.tokenize, reader.text("content", default="")))]
        if reader.is_on("add_special"):
            tokens.insert(0, self.front.mark)
        if not reader.is_on("with_pieces"):
            return JSONResponse({"tokens": tokens})
        pieces = await self.front.call(self.find_pieces, tokens)
        return JSONResponse({"tokens": [{"id": i, "piece": piece} for i, piece in zip(tokens, pieces, strict=True)]})

    def find_pieces(self, tokens: list[int]) -> list[str | list[int]]:
        """Return the text of each token of a text, and of those that spell a character together the byte of each."""
        pieces, held = [], []
        for token in tokens:
            if token == self.front.mark:
                pieces.append("")
                continue
            held.append(token)
            if not (text := self.front.engine.detokenize(held)):
                continue
            data = text.encode()
            pieces += [[byte] for byte in data] if 1 < len(held) == len(data) else [*[""] * (len(held) - 1), text]
            held = []
        return pieces + [""] * len(held)

    async def detokenize(self, request: Request) -> Response:
        """Turn token ids into their text."""
        reader = await self.front.read(request)
        return JSONResponse({"content": await self.front.read_prompt(reader.take("tokens", default=[]))})

    async def complete(self, request: Request) -> Response:
        """Write after a prompt."""
        reader = await self.front.read(request, *OWN_NAMES)
        prompt = await self.front.read_prompt(reader.take("prompt", default=""))
        length = reader.length(-1, low=-1)
        top, is_after = take_top(reader, "n_probs"), reader.is_on("post_sampling_probs")
        keep, is_stream = reader.whole("n_keep", default=0, low=-1, high=MAX_LENGTH), reader.is_on("stream")
        if keep < 0:  # the whole prompt stays in every window
            keep = len(await self.front.call(self.front.engine.tokenize, prompt))
        reader.take("model")  # is told of one of several servers; this one has one
        wish = reader.wish()
        headers = self.front.note_ignored(reader)
        more = {"length": MAX_LENGTH if length < 0 else length, "top": top or 0, "keep_head": keep}
        job = self.front.submit(prompt, wish, **more)
        if is_stream:
            events = self.events(request, job, top or 0, is_after=is_after)
            return Stream(events, [job], error_form, headers)
        (tokens,) = await self.front.finish(request, [job])
        answer = await self.summary(job, len(tokens)) | {"content": job.text(0)}
        if top:
            answer["completion_probabilities"] = probabilities(tokens, top, is_after=is_after)
        return JSONResponse(answer, headers=headers)

    async def events(self, request: Request, job: Job, top: int, *, is_after: bool) -> AsyncIterator[str]:
        """Yield the events of a stream."""
        written = 0
        async for _, _, text, tokens in self.front.steps(request, [job]):
            written += len(tokens)
            event = {"index": 0, "content": text, "tokens": [token.id for token in tokens], "stop": False}
            event |= {"tokens_predicted": written}
            if top:
                event["completion_probabilities"] = probabilities(tokens, top, is_after=is_after)
            yield to_event(event)
        yield to_event(await self.summary(job, written))

    async def summary(self, job: Job, written: int) -> dict:
        """Return what the last event tells, or a whole answer."""
        facts, wanted, reason = self.front.facts(), job.request, job.reason(0)
        read = len(await self.front.call(self.front.engine.tokenize, wanted.prompt))
        settings = {**wanted.settings, "seed": job.seed, "n_ctx": facts["context"]}
        stops = wanted.stops if reason == "stop" else ()
        seconds = (job.finished or 0) - (job.began or job.finished or 0)
        return {
            "index": 0,
            "content": "",
            "tokens": [],
            "stop": True,
            "model": facts["name"],
            "tokens_predicted": written,
            "tokens_evaluated": read,
            "generation_settings": settings,
            "prompt": wanted.prompt,
            "has_new_line": "\n" in job.text(0),
            "truncated": False,  # the window rolls on: nothing was cut off
            "stop_type": STOP_TYPES.get(reason, "eos"),
            "stopping_word": stops[0] if len(stops) == 1 else "",
            "timings": {"predicted_n": written, "predicted_ms": 1000 * seconds},
        }
