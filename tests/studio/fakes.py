"""An engine without a model: it has the face of novelgpt.studio.engine.Engine and writes what the seed says."""

import random
import threading
import time
from types import SimpleNamespace

HAN = "那天夜里没有月亮一斗裹着件破棉袄坐在井沿上听风把树叶吹得沙响。\n"


def text_of(seed: int, index: int, length: int) -> str:
    """Return what candidate index of a seed writes, a function of these alone; 𠮷 is beyond 16 bits."""
    draw = random.Random(f"{seed} {index}")
    return "".join("𠮷" if draw.random() < 0.02 else draw.choice(HAN) for _ in range(length))


class FakeJob:
    """A job that grows when it is told to, or by the engine's thread."""

    def __init__(self, number: int, request):
        self.id, self.request = f"{number:08x}", request
        self.seed = request.seed if request.seed is not None else number
        self.state, self.position, self.error = "queued", 0, None
        self.whole = [request.forced + text_of(self.seed, i, request.length) for i in range(request.candidates)]
        self.count, self.listeners, self.is_stopped = 0, [], False
        self.changed = threading.Condition()

    def text(self, index: int) -> str:
        return self.whole[index][: self.count]

    def nats(self, index: int) -> list[float]:
        return [round(0.1 * (place % 30), 1) for place in range(len(self.text(index)))]

    def reason(self, index: int) -> str | None:
        return {"done": "length", "stopped": "stopped", "failed": None}.get(self.state)

    def stop(self) -> None:
        self.is_stopped = True
        self.finish("stopped")

    def wait(self, seen, timeout: float) -> bool:
        with self.changed:
            return self.changed.wait_for(lambda: self.count > min(seen) or self.has_ended, timeout)

    def pieces(self) -> list:
        return []

    @property
    def has_ended(self) -> bool:
        return self.state in ("done", "stopped", "failed")

    def grow(self, count: int = 1) -> None:
        """Write so many characters more."""
        with self.changed:
            if not self.has_ended:
                self.state = "running"
                self.count = min(self.count + count, len(self.whole[0]))
                if self.count == len(self.whole[0]):
                    self.state = "done"
            self.changed.notify_all()
        for listener in list(self.listeners):
            listener()

    def finish(self, state: str = "done") -> None:
        with self.changed:
            if not self.has_ended:
                self.state = state
            self.changed.notify_all()
        for listener in list(self.listeners):
            listener()


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
                if not job.has_ended:
                    job.grow()

    def state(self) -> dict:
        return {
            "name": "fake", "parameters": 1000, "context": 1024, "precision": "fp32",
            "progress": float(self.is_ready), "ready": self.is_ready, "error": None, "rate": self.rate or None,
            "queue": 0, "running": sum(not job.has_ended for job in self.jobs.values()),
        }  # fmt: skip

    def submit(self, request) -> FakeJob:
        if sum(not job.has_ended for job in self.jobs.values()) >= self.limit:
            from novelgpt.studio.jobs import Busy

            raise Busy("32 texts are waiting already", "wait for one of them, or stop one")
        job = FakeJob(len(self.jobs) + 1, request)
        self.jobs[job.id] = job
        return job

    def find(self, number: str) -> FakeJob | None:
        return self.jobs.get(number)

    def score(self, text: str, start: int, end: int, top: int = 10) -> list:
        tokens = []
        for place in range(start, end):
            tokens.append(
                SimpleNamespace(text=text[place], id=place, logprob=-0.5, rank=1, top=(("月", 5, -0.5),), after=())
            )
        return tokens

    def tokenize(self, text: str) -> list[int]:
        return [ord(char) for char in text]

    def detokenize(self, ids) -> str:
        return "".join(map(chr, ids))

    def close(self) -> None:
        self.is_closed = True
        for job in self.jobs.values():
            job.stop()
