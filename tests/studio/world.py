"""The real server on a port of this machine, over an engine that makes its text up: what the page is tested against."""

import contextlib
import random
import threading
import time

import uvicorn
from fakes import TOKEN, FakeEngine, FakeJob

from novelgpt.studio.jobs import Busy, Token
from novelgpt.studio.panels import Panels
from novelgpt.studio.routes import Api
from novelgpt.studio.server import Pages, bind, build_app
from novelgpt.studio.stories import Stories
from novelgpt.writing.book import Book

CHAPTER = (
    "第一章 井\n那天夜里没有月亮。一斗裹着一件破棉袄坐在井沿上，数着水里的星星。\n"
    "“水又少了一寸。”他说，声音很轻，像怕惊动井底的什么人。\n风从村口的老槐树上吹下来，把他的影子吹得摇摇晃晃。"
)
SIGNS = "风雨山河月色灯火门前街上少年老人慢慢走过说话没有声音远处的近处一个两三天夜里水井剑光寒冷温暖。，"
TITLES = ["夜里的井", "井水", "井水", "第七口井", ""]  # what a mark gets
OTHERS = "甲乙丙丁戊己庚辛壬"  # alternatives of every character


class MadeUpJob(FakeJob):
    """A job of paragraphs of sixty characters; 𠮷 is beyond 16 bits, and the second candidate copies the book."""

    def __init__(self, request):
        super().__init__(request)
        texts = TITLES if request.mark else [self.make_text(i, request.length) for i in range(request.candidates)]
        self.whole = [request.forced + text for text in texts]

    def make_text(self, index: int, length: int) -> str:
        if index == 1:
            return (CHAPTER.splitlines()[1] * (length // 30 + 1))[:length]
        chosen = random.Random(f"{self.seed} {index}").choices(SIGNS, k=length)
        return "".join("\n" if place % 61 == 60 else "𠮷" if place == 7 else sign for place, sign in enumerate(chosen))


class MadeUpEngine(FakeEngine):
    """An engine that writes by itself; ten alternatives of each character, of which eight could be drawn."""

    def _run(self) -> None:
        while not self.is_closed:
            time.sleep(1 / self.rate)
            for job in list(self.jobs.values()):
                if not job.is_ended:
                    job.advance()

    def submit(self, request) -> FakeJob:
        if sum(not job.is_ended for job in self.jobs.values()) >= self.limit:
            raise Busy
        job = MadeUpJob(request)
        self.jobs[job.id] = job
        return job

    def state(self) -> dict:
        state = super().state()
        return state | {"model": state["model"] | {"titles": True}}

    def score(self, text: str, start: int, end: int, top: int = 10, settings=None) -> list:
        tokens, drawable = [], 0 if settings is None else 8
        for place in range(start, end):
            nats = 0.3 + ord(text[place]) % 9
            best = ((text[place], place, -nats), *((sign, rank, -nats - rank) for rank, sign in enumerate(OTHERS, 1)))
            tokens.append(Token(text[place], place, -nats, 1, best[:top], best[:drawable]))
        return tokens


class World:
    """A server and what it knows.

    Attributes:
        address: with the token.
        refused: writes to the disk that fail from now on.
    """

    def __init__(self, folder, monkeypatch):
        self.engine, self.kept, self.refused = MadeUpEngine(rate=200), Stories(folder / "stories"), 0
        panels = self.panels = Panels(str(folder / "model"))
        panels.found = Book([CHAPTER])
        pages = Pages({"/training": lambda: None, "/corpus": lambda: None})
        api = Api(self.engine, self.kept, panels, pages.others["/training"])
        self.sockets, port = bind("127.0.0.1", 0)
        app = build_app(api, pages, port=port, token=TOKEN, hosts=[f"127.0.0.1:{port}"])
        self.address = f"http://127.0.0.1:{port}/#token={TOKEN}"
        self.server = uvicorn.Server(uvicorn.Config(app, log_level="critical", timeout_graceful_shutdown=1))
        from novelgpt.studio.journal import Journal

        write = Journal._write

        def write_or_refuse(journal, lines):
            if lines and self.refused > 0:
                self.refused -= 1
                raise OSError(28, "No space left on device")
            write(journal, lines)

        monkeypatch.setattr(Journal, "_write", write_or_refuse)

    @contextlib.contextmanager
    def serving(self):
        thread = threading.Thread(target=self.server.run, kwargs={"sockets": self.sockets})
        thread.start()
        yield self
        self.server.should_exit = self.server.force_exit = True
        thread.join(20)
        assert not thread.is_alive()
        self.engine.close()
        self.kept.close()

    @property
    def jobs(self) -> list[MadeUpJob]:
        return list(self.engine.jobs.values())

    def make_story(self, text: str, name: str = "井"):
        """Make a story."""
        return self.kept.make(name, text)

    def text(self) -> str:
        """Return the text of the story that was made first, as the server has it."""
        return next(iter(self.kept.open.values())).view()["text"]
