"""The server of the writing page in memory, with a made-up writer: what the page is tested against without a model.

It keeps to the contract of docs/studio.md and holds texts as lists of characters, worked out anew for every answer.
"""

import base64
import json
import math
import random
import secrets
import threading
from pathlib import Path

import anyio
from starlette.applications import Starlette
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

STATIC = Path(__file__).resolve().parents[2] / "novelgpt" / "studio" / "static"
TYPES = {".html": "text/html; charset=utf-8", ".js": "text/javascript", ".css": "text/css"}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
BOOK = (
    "第一章 井\n那天夜里没有月亮。一斗裹着一件破棉袄坐在井沿上，数着水里的星星。\n"
    "“水又少了一寸。”他说，声音很轻，像怕惊动井底的什么人。\n风从村口的老槐树上吹下来，把他的影子吹得摇摇晃晃。"
)
SYLLABLES = "风雨山河月色灯火门前街上少年老人慢慢走过说话没有声音远处的近处一个两三天夜里水井剑光寒冷温暖。，"
RUN = 20  # characters that count as copied
SETTINGS = [
    ("temperature", 1.0, 0.1, 2.0, 0.05, "float"),
    ("topk", 8, 0, 200, 1, "int"),
    ("topp", 1.0, 0.05, 1.0, 0.05, "float"),
]


class Writer(threading.Thread):
    """A job: texts that depend on seed and number alone, a few characters at a time."""

    def __init__(self, world, body: dict, nodes: list[dict], seed: int):
        super().__init__(daemon=True)
        self.id, self.world, self.nodes, self.seed = secrets.token_hex(4), world, nodes, seed
        self.length, self.state, self.stopping = body["length"], "running", threading.Event()
        self.texts = [body["forced"] + self.make_text(index, body["length"]) for index in range(len(nodes))]

    def make_text(self, index: int, length: int) -> str:
        """Return what candidate `index` will be; the second one copies the book."""
        if index == 1:
            return (BOOK.splitlines()[1] * (length // 30 + 1))[:length]
        chosen = random.Random(f"{self.seed} {index}").choices(SYLLABLES, k=length)
        return "".join("\n" if place % 61 == 60 else "𠮷" if place == 7 else sign for place, sign in enumerate(chosen))

    def run(self) -> None:
        for end in range(1, max(map(len, self.texts)) + 1):
            if self.stopping.wait(1 / self.world.rate):
                break
            for node, text in zip(self.nodes, self.texts, strict=True):
                node["text"] = text[:end]
        self.state = "stopped" if self.stopping.is_set() else "done"
        for node in self.nodes:
            node["why"] = "stopped" if self.stopping.is_set() else "length"

    def view(self, seen: list[int]) -> dict:
        """Return all characters from these on."""
        rows = []
        state = self.state
        for node, start in zip(self.nodes, seen, strict=True):
            text = node["text"]
            nats = [float(ord(sign) % 8) for sign in text[start:]]
            facts = {"node": node["id"], "text": text[start:], "nats": nats, "characters": len(text)}
            rows.append({**facts, "why": node.get("why")})
        return {"job": self.id, "state": state, "position": 0, "rate": self.world.rate, "candidates": rows}


class World:
    """Stories, jobs and preferences."""

    def __init__(self, rate: float = 200):
        self.rate, self.has_book, self.ready = rate, True, True
        self.stories, self.jobs, self.preferences = {}, {}, {}
        self.refused = 0  # requests that are answered as if the disk were full
        self.received: list[tuple[str, dict]] = []

    def make_story(self, text: str = "", name: str = "井") -> dict:
        root = {"id": 0, "parent": None, "replace": [0, 0], "text": text, "kind": "root", "version": 0}
        story = {"id": secrets.token_hex(4), "name": name, "version": 1, "head": 0, "nodes": {0: root}, "latest": {}}
        self.stories[story["id"]] = story
        return story

    def way(self, story: dict, node: int) -> list[dict]:
        found = []
        while node is not None:
            found.insert(0, story["nodes"][node])
            node = found[0]["parent"]
        return found

    def signs(self, story: dict, node: int) -> list[tuple[str, str]]:
        """Return the characters at a node with their kinds."""
        signs = []
        for step in self.way(story, node):
            start, end = step["replace"]
            signs[start:end] = [(sign, step["kind"]) for sign in step["text"]]
        return signs

    def text(self, story: dict, node: int) -> str:
        return "".join(sign for sign, _ in self.signs(story, node))

    def add(self, story: dict, **facts) -> dict:
        story["version"] += 1
        node = {"id": len(story["nodes"]), "version": story["version"], **facts}
        story["nodes"][node["id"]] = node
        return node

    def go(self, story: dict, node: int) -> None:
        story["version"] += 1
        story["head"] = node
        for child in self.way(story, node)[1:]:
            story["latest"][child["parent"]] = child["id"]

    def view(self, story: dict, since: int = -1) -> dict:
        signs = self.signs(story, story["head"])
        origins = []
        for _, kind in signs:
            if origins and origins[-1][1] == kind:
                origins[-1][0] += 1
            else:
                origins.append([1, kind])
        running = [job for job in self.jobs.values() if job.story is story and job.state == "running"]
        nodes = [dict(node) for node in story["nodes"].values() if node["version"] > since]
        jobs = [{"job": job.id, "nodes": [node["id"] for node in job.nodes]} for job in running]
        facts = {key: story[key] for key in ("id", "name", "version", "head")}
        text = "".join(sign for sign, _ in signs)
        return {
            **facts,
            "redo": story["latest"].get(story["head"]),
            "text": text,
            "origins": origins,
            "nodes": nodes,
            "jobs": jobs,
        }


def fail(status: int, message: str) -> JSONResponse:
    return JSONResponse({"error": {"message": message, "hint": "hint"}}, status)


def make_app(world: World) -> Starlette:
    """Return the application; it looks at `world` for everything."""

    async def page(request):
        name = request.path_params.get("name", "index.html")
        path = STATIC / name
        if "/" in name or not path.is_file():
            return PlainTextResponse("not found", 404)
        return Response(path.read_bytes(), media_type=TYPES[path.suffix], headers={"Content-Security-Policy": POLICY})

    async def state(request):
        facts = {
            "name": "demo",
            "parameters": 3_700_000,
            "context": 1024,
            "precision": "int8",
            "progress": 1.0,
            "error": None,
        }
        names = ("name", "default", "low", "high", "step", "kind")
        help_text = {"en": "how bold", "zh": "多大胆"}
        settings = [{**dict(zip(names, row, strict=True)), "help": help_text} for row in SETTINGS]
        presets = {
            "seed": {},
            "steady": {"temperature": 0.7},
            "balanced": {"temperature": 0.9},
            "bold": {"temperature": 1.3},
        }
        limits = {"jobs": 32, "candidates": 8, "length": 10000, "body": 8388608}
        shared = {
            "rate": None,
            "queue": 0,
            "running": 0,
            "settings": settings,
            "presets": presets,
            "default_preset": "balanced",
        }
        more = {"limits": limits, "preferences": world.preferences, "has_book": world.has_book, "has_run": False}
        return JSONResponse({"model": {**facts, "ready": world.ready, "book": "井"}, **shared, **more})

    async def login(request):
        response = JSONResponse({})
        response.set_cookie("token", (await request.json())["token"], httponly=True, samesite="strict")
        return response

    async def preferences(request):
        world.preferences |= await request.json()
        return JSONResponse(world.preferences)

    async def stories(request):
        if request.method == "POST":
            body = await request.json()
            text = body.get("text", "")
            if "data" in body:
                data = base64.b64decode(body["data"])
                text = data.decode("gb18030" if b"\xd2" in data else "utf-8-sig")
            story = world.make_story(text, body.get("name", "故事"))
            return JSONResponse(world.view(story), 201)
        rows = [
            {
                "id": story["id"],
                "name": story["name"],
                "characters": len(world.text(story, story["head"])),
                "changed": 1.7e9,
                "running": False,
            }
            for story in world.stories.values()
        ]
        return JSONResponse({"stories": rows[::-1]})

    async def story(request):
        found = world.stories.get(request.path_params["id"])
        if not found:
            return fail(404, "no such story")
        if request.method == "DELETE":
            del world.stories[found["id"]]
            return JSONResponse({})
        return JSONResponse(world.view(found))

    async def ops(request):
        found, body = world.stories[request.path_params["id"]], await request.json()
        world.received.append(("ops", body))
        if world.refused > 0:
            world.refused -= 1
            return fail(507, "the disk is full")
        base = body["base"]
        if base != found["version"] and any("replace" in op for op in body["ops"]) and "head" not in body["ops"][0]:
            return JSONResponse({**world.view(found), "error": {"message": "moved", "hint": ""}}, 409)
        for op in body["ops"]:
            if "name" in op:
                found["name"] = op["name"]
                found["version"] += 1
            elif "head" in op:
                world.go(found, op["head"])
            else:
                node = world.add(found, parent=found["head"], replace=op["replace"], text=op["text"], kind="typed")
                world.go(found, node["id"])
        return JSONResponse(world.view(found, base))

    async def jobs(request):
        body = await request.json()
        world.received.append(("jobs", body))
        found = world.stories[body["story"]]
        length, place = len(world.text(found, body["node"])), body["position"]
        place = length if place is None else place
        seed = secrets.randbelow(1 << 31) if body["seed"] is None else body["seed"]
        shared = {
            "parent": body["node"],
            "replace": [place, place if body["insert"] else length],
            "kind": "model",
            "seed": seed,
        }
        nodes = [world.add(found, text="", index=index, **shared) for index in range(body["candidates"])]
        world.go(found, nodes[0]["id"])
        job = Writer(world, body, nodes, seed)
        job.story = found
        world.jobs[job.id] = job
        job.start()
        return JSONResponse({"job": job.id, "nodes": [node["id"] for node in nodes], "seed": seed}, 202)

    async def follow(request):
        job = world.jobs.get(request.path_params["id"])
        if not job:
            return fail(404, "no such job")
        counts = request.headers.get("last-event-id") or request.query_params.get("from") or ""
        seen = [int(count) for count in counts.split(",") if count] or [0] * len(job.nodes)
        if "text/event-stream" not in request.headers.get("accept", ""):
            return JSONResponse(job.view(seen))

        async def events(seen):
            while True:
                data = job.view(seen)
                has_ended = data["state"] != "running"
                if has_ended or any(row["text"] for row in data["candidates"]):
                    seen = [row["characters"] for row in data["candidates"]]
                    kind = "end" if has_ended else "text"
                    yield f"event: {kind}\nid: {','.join(map(str, seen))}\ndata: {json.dumps(data)}\n\n"
                if has_ended:
                    return
                await anyio.sleep(0.02)

        return StreamingResponse(events(seen), media_type="text/event-stream")

    async def stop(request):
        job = world.jobs[request.path_params["id"]]
        job.stopping.set()
        await anyio.to_thread.run_sync(job.join)
        return JSONResponse({})

    async def score(request):
        body = await request.json()
        text = world.text(world.stories[body["story"]], body["node"])
        tokens = []
        for place in range(body["start"], min(body["end"], len(text))):
            share = 1 / (1 + ord(text[place]) % 9)
            top = [
                {"text": text[place], "probability": share},
                *(
                    {"text": sign, "probability": share / 2 ** (rank + 1)}
                    for rank, sign in enumerate("甲乙丙丁戊己庚辛壬")
                ),
            ]
            facts = {"start": place, "text": text[place], "probability": share, "rank": 1, "nats": -math.log(share)}
            tokens.append({**facts, "top": top, "after": top[:8]})
        return JSONResponse({"tokens": tokens})

    async def copies(request):
        body = await request.json()
        text = world.text(world.stories[body["story"]], body["node"])
        runs, place = [], body["start"]
        while place < body["end"]:
            end = place
            while end < body["end"] and text[place : end + 1] in BOOK:
                end += 1
            if end - place >= body["least"]:
                where = BOOK.index(text[place:end])
                runs.append({"start": place, "end": end, "chapter": 1, "title": "第一章 井", "place": where})
            place = max(end, place + 1)
        return JSONResponse({"runs": runs})

    async def style(request):
        names = [
            ("句长", "sentence"),
            ("段长", "paragraph"),
            ("对白", "dialogue"),
            ("逗号", "commas"),
            ("成语", "idioms"),
            ("叹号", "exclamations"),
            ("新词", "variety"),
        ]
        figures = [
            {"name": {"zh": zh, "en": en}, "text": 10.0 + place, "book": 14.0, "low": 11.0, "high": 15.0}
            for place, (zh, en) in enumerate(names)
        ]
        return JSONResponse(
            {
                "figures": figures,
                "advice": {"zh": "句子比原书短一些。", "en": "Sentences are a little shorter than the book's."},
            }
        )

    async def doctor(request):
        body = await request.json()
        text = world.text(world.stories[body["story"]], body["node"])
        runs = [
            {"start": place, "end": place + 1, "what": "囧", "nearest": "井"}
            for place, sign in enumerate(text)
            if sign == "囧"
        ]
        return JSONResponse({"runs": runs})

    async def openings(request):
        wanted = request.query_params["text"]
        lines = [line for line in BOOK.splitlines() if wanted in line]
        return JSONResponse({"openings": [{"text": line, "chapter": 1, "place": BOOK.index(line)} for line in lines]})

    async def book(request):
        return JSONResponse({"title": "第一章 井", "text": BOOK, "chapters": 1})

    async def export(request):
        found = world.stories[request.path_params["id"]]
        text = world.text(found, found["head"])
        code = {"bom": "utf-8-sig", "gb18030": "gb18030"}.get(request.query_params["format"], "utf-8")
        disposition = {"Content-Disposition": 'attachment; filename="story.txt"'}
        return Response(text.encode(code), media_type="text/plain", headers=disposition)

    routes = [
        Route("/", page), Route("/static/{name}", page), Route("/api/state", state), Route("/api/login", login, methods=["POST"]),
        Route("/api/preferences", preferences, methods=["POST"]), Route("/api/stories", stories, methods=["GET", "POST"]),
        Route("/api/stories/{id}", story, methods=["GET", "DELETE"]), Route("/api/stories/{id}/ops", ops, methods=["POST"]),
        Route("/api/stories/{id}/export", export), Route("/api/jobs", jobs, methods=["POST"]), Route("/api/jobs/{id}", follow),
        Route("/api/jobs/{id}/stop", stop, methods=["POST"]), Route("/api/score", score, methods=["POST"]),
        Route("/api/copies", copies, methods=["POST"]), Route("/api/style", style, methods=["POST"]),
        Route("/api/doctor", doctor, methods=["POST"]), Route("/api/openings", openings), Route("/api/book/{chapter}", book),
    ]  # fmt: skip
    return Starlette(routes=routes)
