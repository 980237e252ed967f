"""OpenAI's dialect: /v1/completions, /v1/chat/completions, /v1/models; for mikupad also /v1/internal/token-count.

One request has one or several prompts, each with n texts: choice p·n + i is candidate i of prompt p. With `echo` a text
begins with its prompt, whose own log-probabilities stand before those of what was written; that of the very first token
is null, as evaluation harnesses expect it. A chat is joined to one text, a message a paragraph, and is written on:
a model that has read one novel knows no roles.
"""

import secrets
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from novelgpt.studio.dialects.front import (
    MAX_LENGTH,
    Front,
    Job,
    Reader,
    Stream,
    Token,
    best_of,
    chat_logprobs,
    finite,
    refuse,
    take_candidates,
    take_top,
    to_event,
)

COMPLETION_LENGTH = 16  # tokens, where a request says nothing: OpenAI's default
CHAT_LENGTH = 1000  # OpenAI's is "until the answer ends"; a novel has no such end
MAX_PROMPTS = 32
KINDS = {400: "invalid_request_error", 404: "invalid_request_error", 429: "rate_limit_error"}


def error_form(status: int, message: str) -> dict:
    """Return an error as OpenAI's clients read it."""
    kind = KINDS.get(status, "server_error")
    return {"error": {"message": message, "type": kind, "param": None, "code": status}}


def model_card(name: str, created: int) -> dict:
    """Return what there is to say of a model."""
    return {"id": name, "object": "model", "created": created, "owned_by": "novelgpt"}


@dataclass(frozen=True)
class Completion:
    """One request and the form of its answer."""

    prompts: list[str]
    marked: list[bool]  # whether the mark before every text was given, too: its own entry stands in the probabilities
    count: int  # candidates of each
    top: int | None  # alternatives of each token, None without probabilities
    is_echo: bool
    is_chat: bool
    model: str
    created: int = field(default_factory=lambda: int(time.time()))
    id: str = field(default_factory=lambda: secrets.token_hex(12))

    def envelope(self, choices: list[dict], *, is_chunk: bool = False, **more: object) -> dict:
        """Return an answer, or a part of a streamed one."""
        kind = ("chat.completion" + ".chunk" * is_chunk) if self.is_chat else "text_completion"
        name = ("chatcmpl-" if self.is_chat else "cmpl-") + self.id
        return {
            "id": name, "object": kind, "created": self.created, "model": self.model, "choices": choices, **more
        }  # fmt: skip

    def choice(self, index: int, text: str, logprobs: dict | None, reason: str | None, *, is_chunk: bool) -> dict:
        """Return one text, or a part of it."""
        content = {"text": text}
        if self.is_chat:
            content = {"delta" if is_chunk else "message": {"role": "assistant", "content": text}}
        return {"index": index, **content, "logprobs": logprobs, "finish_reason": reason}

    def logprobs(self, tokens: Sequence[Token], offset: int, *, is_first: bool = False) -> dict | None:
        """Return the probabilities of tokens; the first token of a prompt has none. None where none are wanted.

        Args:
            tokens: that stand in the text.
            offset: of the first one in it, characters.
            is_first: they are those of a prompt.
        """
        if self.top is None:
            return None
        if self.is_chat:
            return {"content": chat_logprobs(tokens, self.top)}
        starts = [offset]
        for token in tokens:
            starts.append(starts[-1] + len(token.text))
        values: list[float | None] = [finite(token.logprob) for token in tokens]
        # of two tokens of the same text the more likely one: the best come first
        best = [
            {text: finite(nats) for text, _, nats in reversed(best_of(token, self.top))} | {token.text: value}
            for token, value in zip(tokens, values, strict=True)
        ]
        if is_first and tokens:
            values[0], best[0] = None, None
        words = [token.text for token in tokens]
        return {"tokens": words, "token_logprobs": values, "top_logprobs": best, "text_offset": starts[:-1]}


class OpenAI:
    """The routes of one front.

    Args:
        front: that takes the requests.
    """

    def __init__(self, front: Front):
        self.front, self.created = front, int(time.time())

    def routes(self) -> list[Route]:
        """Return them all."""
        return [
            self.front.route("/v1/completions", self.complete, error_form),
            self.front.route("/v1/chat/completions", self.chat, error_form),
            self.front.route("/v1/models", self.list_models, error_form, "GET"),
            self.front.route("/v1/models/{name:path}", self.show_model, error_form, "GET"),
            self.front.route("/v1/internal/token-count", self.count_tokens, error_form),
        ]

    async def list_models(self, request: Request) -> Response:
        """Name the one model."""
        return JSONResponse({"object": "list", "data": [model_card(self.front.facts()["name"], self.created)]})

    async def show_model(self, request: Request) -> Response:
        """Tell of a model by name."""
        name = request.path_params["name"]
        if name == self.front.facts()["name"]:
            return JSONResponse(model_card(name, self.created))
        return JSONResponse(error_form(404, f"no model {name!r} here"), 404)

    async def count_tokens(self, request: Request) -> Response:
        """Count the tokens of a text."""
        reader = await self.front.read(request)
        return JSONResponse({"length": await self.count(reader.text("text", "prompt"))})

    async def count(self, text: str) -> int:
        """Return how many tokens a text has."""
        return len(await self.front.call(self.front.engine.tokenize, text))

    async def complete(self, request: Request) -> Response:
        """Write after prompts."""
        reader = await self.front.read(request)
        values = take_prompts(reader)
        prompts = [await self.front.read_prompt(value) for value in values]
        marked = [isinstance(value, list) and value[:1] == [self.front.mark] for value in values]
        top, is_echo = take_top(reader, "logprobs"), reader.is_on("echo")
        completion = Completion(prompts, marked, take_count(reader), top, is_echo, False, self.take_model(reader))
        return await self.answer(request, reader, completion, reader.length(COMPLETION_LENGTH, low=0))

    async def chat(self, request: Request) -> Response:
        """Write on what the messages of a chat are joined to."""
        reader = await self.front.read(request)
        prompt, top = join_messages(reader.take("messages")), None
        if reader.is_on("logprobs"):
            top = take_top(reader, "top_logprobs") or 0
        completion = Completion([prompt], [False], take_count(reader), top, False, True, self.take_model(reader))
        return await self.answer(request, reader, completion, reader.length(CHAT_LENGTH, low=0))

    def take_model(self, reader: Reader) -> str:
        """Take the model's name: there is one model, so another name is ignored."""
        ours = self.front.facts()["name"]
        if reader.take("model", default=ours) not in ("", ours):
            reader.ignored.append("model")
        return ours

    async def answer(self, request: Request, reader: Reader, completion: Completion, length: int) -> Response:
        """Write what a request wants and answer in its form."""
        is_stream, options = reader.is_on("stream"), reader.take("stream_options", default={})
        wish = reader.wish()
        headers = self.front.note_ignored(reader)
        prefixes = [await self.echo(completion, number) for number in range(len(completion.prompts))]
        jobs = self.submit(completion, wish, length)
        if is_stream:
            has_usage = isinstance(options, dict) and options.get("include_usage") is True
            events = self.events(request, completion, prefixes, jobs, has_usage=has_usage)
            return Stream(events, jobs, error_form, headers)
        texts = await self.front.finish(request, jobs)
        choices = []
        for index, tokens in enumerate(texts):
            prefix, scored = prefixes[index // completion.count]
            text = prefix + jobs[index // completion.count].text(index % completion.count)
            both = merge(completion.logprobs(scored, 0, is_first=True), completion.logprobs(tokens, len(prefix)))
            reason = finish_reason(jobs, index, completion.count)
            choices.append(completion.choice(index, text, both, reason, is_chunk=False))
        usage = await self.usage(completion, sum(map(len, texts)))
        return JSONResponse(completion.envelope(choices, usage=usage), headers=headers)

    def submit(self, completion: Completion, wish: dict, length: int) -> list[Job]:
        """Submit a job for each prompt, all or none."""
        jobs: list[Job] = []
        try:
            for prompt in completion.prompts:
                more = {"length": length, "candidates": completion.count, "top": completion.top or 0}
                jobs.append(self.front.submit(prompt, wish, **more))
        except BaseException:
            for job in jobs:
                job.stop()
            raise
        return jobs

    async def echo(self, completion: Completion, number: int) -> tuple[str, list[Token]]:
        """Return the prompt that begins a text, with its own probabilities where they are wanted."""
        if not completion.is_echo:
            return "", []
        prompt, engine = completion.prompts[number], self.front.engine
        if completion.top is None:
            return prompt, []
        if await self.count(prompt) > MAX_LENGTH:  # what is scored cannot be stopped
            raise refuse("echo", True, f"a prompt of at most {MAX_LENGTH} tokens where its probabilities are wanted")
        mark = [Token("", self.front.mark, 0.0, 1)] * completion.marked[number]
        scored = await self.front.call(engine.score, prompt, 0, len(prompt), completion.top) if prompt else []
        return prompt, [*mark, *scored]

    async def usage(self, completion: Completion, written: int) -> dict:
        """Count the tokens read and written."""
        read = sum([await self.count(prompt) for prompt in completion.prompts])
        return {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}

    async def events(
        self, request: Request, completion: Completion, prefixes: list, jobs: list[Job], *, has_usage: bool
    ) -> AsyncIterator[str]:
        """Yield the events of a streamed answer: prompts that are echoed, characters, ends, usage."""

        def chunk(index: int, text: str, logprobs: dict | None, reason: str | None = None) -> str:
            choice = completion.choice(index, text, logprobs, reason, is_chunk=True)
            return to_event(completion.envelope([choice], is_chunk=True))

        total = len(completion.prompts) * completion.count
        offsets = [len(prefixes[index // completion.count][0]) for index in range(total)]
        for index in range(total):
            prefix, scored = prefixes[index // completion.count]
            if prefix or scored or completion.is_chat:
                yield chunk(index, prefix, completion.logprobs(scored, 0, is_first=True))
        written = 0
        async for number, candidate, text, tokens in self.front.steps(request, jobs):
            index = number * completion.count + candidate
            yield chunk(index, text, completion.logprobs(tokens, offsets[index]))
            offsets[index] += len(text)
            written += len(tokens)
        for index in range(total):
            yield chunk(index, "", None, finish_reason(jobs, index, completion.count))
        if has_usage:
            usage = await self.usage(completion, written)
            yield to_event(completion.envelope([], is_chunk=True, usage=usage))
        yield "data: [DONE]\n\n"


def finish_reason(jobs: Sequence[Job], index: int, count: int) -> str:
    """Return why a text ended, "length" or "stop"."""
    return "length" if jobs[index // count].reason(index % count) == "length" else "stop"


def merge(left: dict | None, right: dict | None) -> dict | None:
    """Return the probabilities of a prompt and of what follows it as those of one text."""
    return left and right and {name: left[name] + right[name] for name in left}


def take_prompts(reader: Reader) -> list:
    """Take the prompts, each a text or token ids."""
    value = reader.take("prompt", default="")
    several = isinstance(value, list) and (not value or not isinstance(value[0], int))
    prompts = value if several else [value]
    if not 1 <= len(prompts) <= MAX_PROMPTS:
        raise refuse("prompt", value, f"1 to {MAX_PROMPTS} prompts")
    return prompts


def take_count(reader: Reader) -> int:
    """Take n; best_of is refused where it would choose: no text is better than another here."""
    count = take_candidates(reader)
    best = reader.take("best_of", default=count)
    if best != count:
        raise refuse("best_of", best, f"the same as n, here {count}: every text that is written is returned")
    return count


def join_messages(messages: object) -> str:
    """Return the text of a chat: the contents of its messages, each a paragraph.

    >>> join_messages([{"role": "system", "content": "第一章"}, {"role": "user", "content": "那天夜里"}])
    '第一章\\n那天夜里'
    """
    if not isinstance(messages, list) or not messages or not all(isinstance(entry, dict) for entry in messages):
        raise refuse("messages", messages, "a list of messages")
    return "\n".join(filter(None, (content_of(entry.get("content")) for entry in messages)))


def content_of(content: object) -> str:
    """Return the text of a message; UserError: a part of it is a picture or a sound."""
    parts = content if isinstance(content, list) else [{"type": "text", "text": content or ""}]
    texts = [part.get("text") if isinstance(part, dict) else None for part in parts]
    if not all(isinstance(text, str) for text in texts):
        raise refuse("content", content, "text")
    return "".join(texts)
