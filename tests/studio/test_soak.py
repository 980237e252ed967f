"""Many jobs of a real engine, one after the other: nothing of them stays."""

import random
import sys
import time
from pathlib import Path

import pytest
from fakes import Served
from helpers import save_model_and_book

from novelgpt.studio import Engine

FIRST = 200  # jobs until everything is as large as it gets
GROWTH = 50_000  # kB at most, however many jobs
WORDS = "那天夜里没有月亮。"


def resident() -> int:
    """Return the kB of memory of this process."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.split("VmRSS:")[1].split()[0])


def write_one(served: Served, story: str, draw: random.Random) -> None:
    """Let a job write, in one of the ways in which a page or another program does, and see its end."""
    length, kind = draw.randint(1, 60), draw.randrange(4)
    if kind == 0:  # of another front end, with alternatives
        served.post("/v1/completions", {"prompt": WORDS, "max_tokens": length, "logprobs": 5})
        return
    body = {"story": story, "node": 0, "length": length, "candidates": draw.randint(1, 4), "forced": draw.choice(WORDS)}
    job = served.post("/api/jobs", body, 202)["job"]
    if kind == 1:  # stopped, whether it has begun or not
        time.sleep(draw.random() / 100)
        served.post(f"/api/jobs/{job}/stop")
    if kind == 2:  # followed, until it ends
        with served.client.stream("GET", f"/api/jobs/{job}", headers={"Accept": "text/event-stream"}) as stream:
            assert sum(line == "event: end" for line in stream.iter_lines()) == 1
    end = time.monotonic() + 60
    while served.get(f"/api/jobs/{job}")["state"] in ("queued", "running"):
        assert time.monotonic() < end
        time.sleep(0.001)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="no /proc/self/status")
@pytest.mark.parametrize(
    "jobs", [pytest.param(1000, marks=pytest.mark.sweep), pytest.param(10_000, marks=pytest.mark.slow)]
)
def test_jobs_leave_nothing_behind(tmp_path, no_flushing, jobs):
    draw, place = random.Random(5), save_model_and_book(tmp_path)
    with Served(tmp_path, engine=Engine(place / "model", device="cpu")) as served:
        while not served.get("/api/state")["model"]["ready"]:
            time.sleep(0.05)
        sizes, story = [], None
        for number in range(jobs):
            if number % 50 == 0:  # a page that is opened, written on and closed
                if story:
                    served.client.delete(f"/api/stories/{story}")
                story = served.post("/api/stories", {"text": WORDS}, 201)["id"]
            write_one(served, story, draw)
            if number >= FIRST and number % 100 == 0:
                sizes.append(resident())
        state = served.get("/api/state")
        assert (state["running"], state["queue"]) == (0, 0)
        assert max(sizes) - sizes[0] < GROWTH, sizes
