"""The studio's own routes: what the page asks, answered from the stories on disk, the engine and the book.

Every answer is JSON, every error {"error": {"message", "hint"}} in the reader's language; docs/journal.md lists the
requests. What computes runs in threads beside the loop, so that a click is answered while a model writes.
"""

import asyncio
import json
import math
import time
from collections.abc import AsyncIterator, Callable, Mapping
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from novelgpt.messages import EXIT_ENVIRONMENT, EXIT_STATE, EXIT_USAGE, UserError
from novelgpt.studio.bodies import read_body, read_growth, read_node, read_number, read_seen, read_wanted
from novelgpt.studio.jobs import MAX_CANDIDATES, MAX_LENGTH, MAX_WAITING, Busy, Job
from novelgpt.studio.jobs import Request as Wanted
from novelgpt.studio.panels import (
    PRESET,
    PRESETS,
    Panels,
    ask_for_titles,
    chapters_of,
    describe_settings,
    export_story,
    read_settings,
    read_upload,
    word,
)
from novelgpt.studio.security import MOST_BYTES, describe_error
from novelgpt.studio.stories import NoStory, Stories, Story
from novelgpt.studio.tree import Conflict

STATUS = {EXIT_ENVIRONMENT: 507, EXIT_STATE: 500}  # of errors; 400 for all others
BEAT = 15.0  # seconds between two signs of life of a stream
MOST_SCORED, ALTERNATIVES = 2000, 10  # characters of one request, alternatives of a token
KEPT_JOBS = 1000  # whose nodes are known


class Api:
    """The routes over one engine and one folder of stories.

    Args:
        engine: that writes.
        stories: the folder.
        panels: the book.
        has_run: returns the training page, or nothing.
    """

    def __init__(self, engine, stories: Stories, panels: Panels, has_run: Callable[[], object]):
        self.engine, self.stories, self.panels, self.has_run = engine, stories, panels, has_run
        self.nodes: dict[str, list[int]] = {}  # of each job

    def routes(self) -> list[Route]:
        """Return all of them."""
        story, table = "/api/stories/{story}", {
            ("GET", "/api/state"): self.state,
            ("POST", "/api/preferences"): self.prefer,
            ("GET", "/api/stories"): self.list_stories,
            ("POST", "/api/stories"): self.make_story,
            ("POST", "/api/jobs"): self.start_job,
            ("POST", "/api/jobs/{job}/stop"): self.stop_job,
            ("POST", "/api/score"): self.score,
            ("POST", "/api/titles"): self.titles,
            ("POST", "/api/copies"): self.copies,
            ("POST", "/api/style"): self.style,
            ("POST", "/api/doctor"): self.doctor,
            ("GET", "/api/openings"): self.openings,
            ("GET", "/api/book/{chapter}"): self.chapter,
        }  # fmt: skip
        table |= {("GET", story): self.show_story, ("DELETE", story): self.remove_story}
        table |= {("POST", f"{story}/ops"): self.edit_story, ("GET", f"{story}/export"): self.export}
        routes = [Route(path, self._answering(work), methods=[method]) for (method, path), work in table.items()]
        return [*routes, Route("/api/jobs/{job}", self.follow)]

    def _answering(self, work: Callable) -> Callable:
        """Return a route's function from one that takes (request, body) in a thread."""

        async def endpoint(request: Request) -> Response:
            try:
                body = await read_body(request)
                result = await asyncio.to_thread(work, request, body)
            except (UserError, Conflict) as problem:
                return self.refuse(request, problem)
            return result if isinstance(result, Response) else JSONResponse(result)

        return endpoint

    def refuse(self, request: Request, problem: UserError | Conflict) -> Response:
        """Answer with an error."""
        accepted = request.headers.get("accept-language", "")
        if isinstance(problem, Conflict):
            moved = UserError("the story was changed elsewhere meanwhile", "it is loaded again")
            shown = self.stories.get(request.path_params["story"]).view()
            return JSONResponse({**describe_error(moved, accepted), **shown}, 409)
        kinds = {NoStory: 404, Busy: 429}
        return JSONResponse(
            describe_error(problem, accepted), kinds.get(type(problem)) or STATUS.get(problem.code, 400)
        )

    # --- the studio ---

    def state(self, request: Request, _body: dict) -> dict:
        """Return what is going on, and what may be set."""
        state, problem = self.engine.state(), self.stories.problem
        choices = self.stories.preferences()
        state |= {"settings": describe_settings(), "presets": PRESETS, "default_preset": PRESET}
        limits = {"jobs": MAX_WAITING, "candidates": MAX_CANDIDATES, "length": MAX_LENGTH, "body": MOST_BYTES}
        state |= {"limits": limits, "preferences": choices, "has_book": state["model"]["book"] is not None}
        state |= {"has_run": bool(self.has_run())}
        accepted = request.headers.get("accept-language", "")
        if fault := state["model"]["error"]:
            told = describe_error(UserError(fault["message"], fault["hint"]), accepted)
            state["model"] = {**state["model"], **told}
        return state | (describe_error(problem, accepted) if problem else {})

    def prefer(self, _request: Request, body: dict) -> dict:
        """Keep what a person has chosen."""
        changes = {name[:40]: value for name, value in body.items() if isinstance(value, (str, int, bool))}
        is_small = len(body) <= 50 and len(changes) == len(body) and len(json.dumps(changes)) <= 4000
        if not is_small:
            raise UserError("preferences: expected at most 50 names with short values", '{"theme": "dark"}', EXIT_USAGE)
        return self.stories.preferences(changes)

    # --- stories ---

    def story(self, number: object) -> Story:
        """Return a story."""
        return self.stories.get(str(number))

    def list_stories(self, _request: Request, _body: dict) -> dict:
        """Return all stories."""
        return {"stories": self.stories.list_all()}

    def make_story(self, _request: Request, body: dict) -> Response:
        """Begin a story, with a text or a file."""
        text, encoding, kind = body.get("text", ""), None, "root"
        if "data" in body:
            (text, encoding), kind = read_upload(body["data"]), "import"
        name = body.get("name") or (text.strip().partition("\n")[0][:20] if isinstance(text, str) else "") or "…"
        story = self.stories.make(name, text, kind=kind, encoding=encoding)
        return JSONResponse(self.whole_story(story), 201)

    def whole_story(self, story: Story) -> dict:
        """Return a story as the page shows it."""
        shown = story.view()
        return shown | {"chapters": chapters_of(shown["text"])}

    def show_story(self, request: Request, _body: dict) -> dict:
        """Return a story."""
        return self.whole_story(self.story(request.path_params["story"]))

    def remove_story(self, request: Request, _body: dict) -> dict:
        """Take a story off the list."""
        self.stories.remove(self.story(request.path_params["story"]).id)
        return {}

    def edit_story(self, request: Request, body: dict) -> dict:
        """Carry out what a person has done; "before" is a request of the same page whose answer it did not wait for."""
        story, base = self.story(request.path_params["story"]), body.get("base")
        if isinstance(before := body.get("before"), dict):
            body = {**body, "base": carry_out(story, before)}
        carry_out(story, body)
        self.stories.disk.ask()
        return story.view(since=base if type(base) is int else -1)

    def export(self, request: Request, _body: dict) -> Response:
        """Return a story as a file."""
        shown = self.story(request.path_params["story"]).view()
        data, kind, ending = export_story(shown, request.query_params.get("format", "txt"))
        name = quote(shown["name"] + ending, safe="")
        return Response(data, headers={"Content-Disposition": f"attachment; filename*=UTF-8''{name}"}, media_type=kind)

    # --- jobs ---

    def start_job(self, _request: Request, body: dict) -> Response:
        """Let the model go on with a story."""
        story, node = self.story(body.get("story")), body.get("node")
        with story.lock:
            story.take_growth()
            text, position = read_node(story, node), body.get("position")
            position = len(text) if position is None else read_number(body, "position", len(text))
            # what the model has before it ends at the position; what follows stays only where it is inserted
            settings = read_settings(body)
            wanted = Wanted(prompt=text[:position], settings=settings, **read_wanted(body))
            job = self.engine.submit(wanted)
            end = position if body.get("insert") else len(text)
            model = self.engine.state()["model"]
            facts = {"settings": settings, "seed": job.seed, "model": model["name"]}
            try:
                nodes = story.begin(node, (position, end), wanted.candidates, facts)
            except UserError:
                job.stop()
                raise
            self.stories.watch(story, job, nodes)
        self.nodes[job.id] = nodes
        while len(self.nodes) > KEPT_JOBS:
            del self.nodes[next(iter(self.nodes))]
        self.stories.disk.ask()
        told = {"job": job.id, "nodes": nodes, "seed": job.seed, "version": story.tree.version}
        told["changed"] = model.get("changed", False)  # since it was loaded
        return JSONResponse(told, 202)

    def job(self, request: Request) -> Job:
        """Return a job of the page; NoStory where there is none."""
        number = request.path_params["job"]
        job = self.engine.find(number) if number in self.nodes else None
        if job is None:
            raise NoStory(f"no job {number:.40}", "what it has written is in its story")
        return job

    def stop_job(self, request: Request, _body: dict) -> dict:
        """Stop a job."""
        job = self.job(request)
        job.stop()
        return self.progress(job, [0] * job.request.candidates, is_short=True)

    def progress(self, job: Job, seen: list[int], *, is_short: bool = False) -> dict:
        """Return what a job has written beyond what was seen; is_short: without the text."""
        state, texts = job.state, [job.text(index) for index in range(job.request.candidates)]
        began = job.began
        seconds = ((job.finished or time.monotonic()) - began) if began else 0.0
        rate = round(sum(map(len, texts)) / seconds, 1) if seconds > 0 else None
        shown = {"job": job.id, "state": state, "position": job.position, "rate": rate, "candidates": []}
        if job.error:
            shown["error"] = word(job.error)
        for index, (node, text) in enumerate(zip(self.nodes[job.id], texts, strict=True)):
            facts = {"node": node, "characters": len(text), "why": job.reason(index)}
            if not is_short:
                nats = [round(value, 3) for value in job.nats(index)[seen[index] : len(text)]]
                facts |= {"text": text[seen[index] :], "nats": nats}
            shown["candidates"].append(facts)
        return shown

    async def follow(self, request: Request) -> Response:
        """Return what a job has written, at once or as a stream of events; going away stops nothing."""
        try:
            job = self.job(request)
            told = request.headers.get("last-event-id") or request.query_params.get("from", "")
            seen = read_seen(told, job.request.candidates)
        except UserError as problem:
            return self.refuse(request, problem)
        if "text/event-stream" not in request.headers.get("accept", ""):
            return JSONResponse(self.progress(job, seen) | {"again": round(1000 * job.ask_again())})
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        return StreamingResponse(self.events(job, seen), media_type="text/event-stream", headers=headers)

    async def events(self, job: Job, seen: list[int]) -> AsyncIterator[str]:
        """Yield the events of a job until it ends."""
        changed, loop = asyncio.Event(), asyncio.get_running_loop()

        def wake() -> None:
            loop.call_soon_threadsafe(changed.set)

        job.listeners.append(wake)
        try:
            is_ended = False
            while not is_ended:
                changed.clear()
                is_ended = job.is_ended  # asked first: what is read behind that is all of it
                shown = self.progress(job, seen)
                news, seen = seen, [facts["characters"] for facts in shown["candidates"]]
                if seen != news or is_ended:
                    kind, number = "end" if is_ended else "text", ",".join(map(str, seen))
                    yield f"event: {kind}\nid: {number}\ndata: {json.dumps(shown, ensure_ascii=False)}\n\n"
                try:
                    async with asyncio.timeout(0 if is_ended else BEAT):
                        await changed.wait()
                except TimeoutError:
                    if not is_ended:
                        yield ": still here\n\n"
        finally:
            job.listeners.remove(wake)

    # --- panels ---

    def score(self, _request: Request, body: dict) -> dict:
        """Return what the model held of a part of a text, token by token; with settings, what could be drawn there."""
        text = read_node(self.story(body.get("story")), body.get("node"))
        start = read_number(body, "start", len(text))
        end = read_number(body, "end", len(text), low=start)
        if end - start > MOST_SCORED:
            message = f"{end - start:,} characters to score, expected at most {MOST_SCORED:,}"
            raise UserError(message, "ask for less at a time", EXIT_USAGE)
        tokens, place = [], start
        settings = read_settings(body) if "settings" in body else None
        for token in self.engine.score(text, start, end, ALTERNATIVES, settings):
            shown = {"start": place, "text": token.text, "probability": math.exp(token.logprob), "rank": token.rank}
            shown |= {"nats": -token.logprob, "top": choices_of(token.top), "after": choices_of(token.after)}
            tokens.append(shown)
            place += len(token.text)
        return {"tokens": tokens}

    def titles(self, _request: Request, body: dict) -> dict:
        """Return titles that the model finds for a part of a text, whose own heading is left out."""
        text = read_node(self.story(body.get("story")), body.get("node"))
        start = read_number(body, "start", len(text), default=0)
        end = read_number(body, "end", len(text), low=start, default=len(text))
        job = self.engine.submit(ask_for_titles(text[start:end], read_settings(body)))
        while not job.is_ended:
            job.wait([MAX_LENGTH] * job.request.candidates, BEAT)
        if job.problem:
            raise job.problem
        found = (job.text(index).strip() for index in range(job.request.candidates))
        return {"titles": list(dict.fromkeys(filter(None, found)))}

    def copies(self, _request: Request, body: dict) -> dict:
        """Return the passages of a text that stand in the book."""
        text = read_node(self.story(body.get("story")), body.get("node"))
        start = read_number(body, "start", len(text), default=0)
        end = read_number(body, "end", len(text), low=start, default=len(text))
        least = read_number(body, "least", 1000, low=5, default=20)
        return {"runs": self.panels.copies(text, start, end, least)}

    def style(self, _request: Request, body: dict) -> dict:
        """Return figures of a text beside the book's."""
        return self.panels.style(read_node(self.story(body.get("story")), body.get("node")))

    def doctor(self, _request: Request, body: dict) -> dict:
        """Return what the book never writes."""
        return {"runs": self.panels.doctor(read_node(self.story(body.get("story")), body.get("node")))}

    def openings(self, request: Request, _body: dict) -> dict:
        """Return openings of the book with some words."""
        return {"openings": self.panels.openings(request.query_params.get("text", ""))}

    def chapter(self, request: Request, _body: dict) -> dict:
        """Return a chapter of the book."""
        number = request.path_params["chapter"]
        return self.panels.chapter(int(number) if number.isdecimal() and len(number) < 10 else -1)


def carry_out(story: Story, body: Mapping) -> int:
    """Carry out operations on a story, unless they were already; return the version that they lead to."""
    seen = read_growth(body.get("seen") or {})
    return story.edit(body.get("base"), body.get("ops"), seen, str(body.get("key") or "")[:40])


def choices_of(choices) -> list[dict]:
    """Return alternatives of a token as the page shows them."""
    return [{"text": text, "probability": math.exp(logprob)} for text, _, logprob in choices]
