"""An engine without a model: it has the face of novelgpt.studio.engine.Engine and writes what the seed says."""

import random
import threading
import time

from conftest import STORY
from starlette.testclient import TestClient

from novelgpt.studio.jobs import Busy, Job, Piece, Token
from novelgpt.studio.panels import Panels
from novelgpt.studio.routes import Api
from novelgpt.studio.server import Pages, build_app
from novelgpt.studio.stories import Stories
from novelgpt.writing.book import Book

TOKEN = "0123456789abcdef" * 2

HAN = "那天夜里没有月亮一斗裹着件破棉袄坐在井沿上听风把树叶吹得沙响。\n"


def text_of(seed: int, index: int, length: int) -> str:
    """Return what candidate index of a seed writes, a function of these alone; 𠮷 is beyond 16 bits."""
    draw = random.Random(f"{seed} {index}")
    return "".join("𠮷" if draw.random() < 0.02 else draw.choice(HAN) for _ in range(length))


class FakeJob(Job):
    """A job that writes what text_of says, when it is told to or by the engine's thread."""

    def __init__(self, request):
        super().__init__(request)
        self.whole = [request.forced + text_of(self.seed, i, request.length) for i in range(request.candidates)]
        self.count = 0  # characters of each candidate

    def advance(self, count: int = 1) -> None:
        """Write so many characters more, of every candidate."""
        self.begin()
        last = self.count + count
        for index, whole in enumerate(self.whole):
            for place in range(self.count, min(last, len(whole))):
                token = Token(whole[place], place, -1.0, 1)
                self.grow(Piece(index, whole[place], (token,)), [round(0.1 * (place % 30), 1)])
        self.count = last
        for index, whole in enumerate(self.whole):
            if last >= len(whole):
                self.end(index, "length")


class FakeEngine:
    """An engine; rate: characters a second that it writes by itself, 0 none; loading: seconds until it is ready."""

    def __init__(self, *, rate: float = 0, loading: float = 0, waiting: int = 32):
        self.rate, self.loading, self.limit = rate, loading, waiting
        self.jobs: dict[str, FakeJob] = {}
        self.is_ready, self.is_closed = loading == 0, False

    def start(self) -> None:
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        time.sleep(self.loading)
        self.is_ready = True
        while not self.is_closed and self.rate:
            time.sleep(1 / self.rate)
            for job in list(self.jobs.values()):
                job.advance()

    def state(self) -> dict:
        model = {"name": "fake", "parameters": 1000, "context": 1024, "precision": "fp32", "book": "井边"}
        model |= {"progress": float(self.is_ready), "ready": self.is_ready, "error": None}
        running = sum(not job.is_ended for job in self.jobs.values())
        return {"model": model, "rate": self.rate or None, "queue": 0, "running": running}

    def submit(self, request) -> FakeJob:
        if sum(not job.is_ended for job in self.jobs.values()) >= self.limit:
            raise Busy
        job = FakeJob(request)
        self.jobs[job.id] = job
        return job

    def find(self, number: str) -> FakeJob | None:
        return self.jobs.get(number)

    def score(self, text: str, start: int, end: int, top: int = 10, settings=None) -> list:
        return [Token(text[place], place, -0.5, 1, (("月", 5, -0.5),) * top) for place in range(start, end)]

    def tokenize(self, text: str) -> list[int]:
        return [ord(char) for char in text]

    def detokenize(self, ids) -> str:
        return "".join(map(chr, ids))

    def close(self) -> None:
        self.is_closed = True
        for job in self.jobs.values():
            job.stop()


class Served:
    """A server over a fake engine, and a browser that has its token."""

    def __init__(self, folder, *, pages=None, book=True, engine=None, **facts):
        self.engine, self.stories = engine or FakeEngine(), Stories(folder / "stories")
        self.panels = Panels(str(folder / "model"))
        self.panels.found = Book(STORY) if book else None
        self.pages = Pages(pages or {"/training": lambda: None, "/corpus": lambda: None})
        self.api = Api(self.engine, self.stories, self.panels, self.pages.others["/training"])
        facts = {"hosts": ["127.0.0.1:8000", "localhost:8000", "[::1]:8000"], **facts}
        self.app = build_app(self.api, self.pages, port=8000, token=TOKEN, **facts)
        headers = {"Authorization": f"Bearer {TOKEN}"}
        self.client = TestClient(self.app, base_url="http://127.0.0.1:8000", headers=headers)

    def __enter__(self):
        self.client.__enter__()
        return self

    def __exit__(self, *exception):
        self.client.__exit__(*exception)

    def get(self, path, status=200, **more):
        reply = self.client.get(path, **more)
        assert reply.status_code == status, reply.text
        return reply.json()

    def post(self, path, body=None, status=200, **more):
        reply = self.client.post(path, json={} if body is None else body, **more)
        assert reply.status_code == status, reply.text
        return reply.json()

    def begin(self, text="夜里", candidates=1, length=30, **more):
        """Make a story and a job in it."""
        story = self.post("/api/stories", {"text": text}, 201)
        body = {"story": story["id"], "node": 0, "candidates": candidates, "length": length, **more}
        return story, self.post("/api/jobs", body, 202)
