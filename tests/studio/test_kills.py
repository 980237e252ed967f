"""kill -9 at random moments of typing and generating: every story opens with what was shown half a second before."""

import contextlib
import http.client
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from conftest import ROOT
from fakes import TOKEN

from novelgpt.studio.stories import Stories

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
SHOWN_BEFORE = 0.5  # seconds before the kill


class Worker:
    """The process whose children write, and what they have shown."""

    def __init__(self):
        paths = os.pathsep.join([str(ROOT), str(ROOT / "tests"), str(Path(__file__).parent)])
        environment = {**os.environ, "PYTHONPATH": paths, "PYTHONUTF8": "1"}
        command = [sys.executable, str(Path(__file__).with_name("kill_worker.py"))]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self.process = subprocess.Popen(command, **pipes, env=environment, text=True, encoding="utf-8")

    def serve(self, folder: Path) -> tuple[str, int]:
        """Let a child serve; return its port and its number."""
        self.process.stdin.write(f"{folder} serve\n")
        self.process.stdin.flush()
        found = dict(self.process.stdout.readline().split() for _ in range(2))
        return found["port"], int(found["pid"])

    def wait(self) -> None:
        """Wait until the child is gone."""
        assert self.process.stdout.readline() == "dead\n"

    def kill_one(self, folder: Path, seed: int) -> tuple[str, list[tuple[float, str]], float]:
        """Kill a child at a moment that the seed says; return its story, what it has shown and when it was killed."""
        self.process.stdin.write(f"{folder} {seed}\n")
        self.process.stdin.flush()
        shown, story, killed = [], "", [0.0]
        for line in self.process.stdout:
            kind, *words = line.rstrip("\n").split(" ")
            if kind == "story":
                story = words[0]
            elif kind == "shown":
                shown.append((float(words[0]), words[1]))
            elif kind == "pid":

                def kill(pid=int(words[0])) -> None:
                    os.kill(pid, signal.SIGKILL)
                    killed[0] = time.monotonic()

                threading.Timer(random.Random(seed).uniform(0.03, 0.9), kill).start()
            else:
                break
        return story, shown, killed[0]


def kill_many(tmp_path: Path, count: int) -> int:
    """Kill so many writers and look at their stories; return how many of them had shown anything in time."""
    worker, checked = Worker(), 0
    for seed in range(count):
        folder = tmp_path / f"stories {seed}"
        number, shown, killed = worker.kill_one(folder, seed)
        stories = Stories(folder)
        if number:
            story = stories.get(number)
            there = "".join(node.text for node in story.tree.nodes.values())
            early = [text for moment, text in shown if moment < killed - SHOWN_BEFORE]
            assert not set("".join(early)) - set(there), f"seed {seed}: shown and lost"
            # what somebody typed was answered, so it is there at once
            typed = {char for _, text in shown for char in text if char < "\U00020000"}
            assert not typed - set(there), f"seed {seed}: answered and lost"
            assert all(len(story.tree.text(node)) == story.tree.nodes[node].length for node in story.tree.nodes)
            assert all(node.why for node in story.tree.nodes.values() if node.kind == "model")
            checked += bool(early)
            view = story.view()
            stories.close()
            stories = Stories(folder)
            assert stories.get(number).view() == view
        stories.close()
    worker.process.stdin.close()
    assert worker.process.wait(30) == 0
    return checked


@pytest.mark.sweep
def test_a_few_kills_lose_nothing(tmp_path):
    assert kill_many(tmp_path, 4) > 0


class Person:
    """Who types and lets the model write on a server, until it is gone.

    Attributes:
        typed: characters, each another one, that were answered.
        seen: seconds, node and text of what a job had written when it was shown.
    """

    def __init__(self, port: str, seed: int):
        self.port, self.draw, self.fresh = port, random.Random(seed), map(chr, range(0x4E00, 0x9FFF))
        self.story, self.typed, self.seen = "", set(), []

    def ask(self, path: str, body: dict | None = None) -> dict:
        connection = http.client.HTTPConnection(f"127.0.0.1:{self.port}", timeout=20)
        headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
        with contextlib.closing(connection):
            connection.request("POST" if body else "GET", path, json.dumps(body) if body else None, headers)
            return json.loads(connection.getresponse().read())

    def write(self) -> None:
        """Write until there is no answer."""
        with contextlib.suppress(OSError, http.client.HTTPException, ValueError):
            shown = self.ask("/api/stories", {"text": "开头"})
            self.story = shown["id"]
            while True:
                shown = self.type(shown)
                wanted = {"story": self.story, "node": shown["head"], "length": 40, "candidates": 2}
                job = self.ask("/api/jobs", wanted)["job"]
                while (told := self.ask(f"/api/jobs/{job}"))["state"] in ("queued", "running"):
                    self.seen += [(time.monotonic(), each["node"], each["text"]) for each in told["candidates"]]
                    if self.draw.random() < 0.2:
                        self.type(self.ask(f"/api/stories/{self.story}"))
                shown = self.ask(f"/api/stories/{self.story}")
                if self.draw.random() < 0.5:
                    ops = [{"head": self.draw.choice(shown["nodes"])["id"]}]
                    shown = self.ask(f"/api/stories/{self.story}/ops", {"base": shown["version"], "ops": ops})
                    shown = self.ask(f"/api/stories/{self.story}")

    def type(self, shown: dict) -> dict:
        """Put something in somewhere; return the answer."""
        start, new = self.draw.randint(0, len(shown["text"])), "".join(next(self.fresh) for _ in range(3))
        ops = [{"replace": [start, start], "text": new}]
        answer = self.ask(f"/api/stories/{self.story}/ops", {"base": shown["version"], "ops": ops})
        self.typed |= set(new)
        return answer


@pytest.mark.sweep
def test_200_kills_of_the_server_lose_nothing(tmp_path):
    worker, checked = Worker(), 0
    for seed in range(200):
        folder = tmp_path / f"stories {seed}"
        port, pid = worker.serve(folder)
        person = Person(port, seed)
        writing = threading.Thread(target=person.write)
        writing.start()
        time.sleep(random.Random(seed).uniform(0.1, 1.5))
        os.kill(pid, signal.SIGKILL)
        killed = time.monotonic()
        writing.join(30)
        assert not writing.is_alive()
        worker.wait()
        stories = Stories(folder)
        if person.story:
            story = stories.get(person.story)
            nodes = story.tree.nodes
            there = "".join(node.text for node in nodes.values())
            assert not person.typed - set(there), f"seed {seed}: answered and lost"
            early = [(node, text) for moment, node, text in person.seen if moment < killed - SHOWN_BEFORE]
            assert all(nodes[node].text.startswith(text) for node, text in early), f"seed {seed}: shown and lost"
            assert all(len(story.tree.text(node)) == nodes[node].length for node in nodes)
            assert story.tree.head in nodes and all(node.why for node in nodes.values() if node.kind == "model")
            checked += bool(early)
            view = story.view()
            stories.close()
            stories = Stories(folder)
            assert stories.get(person.story).view() == view
        stories.close()
    worker.process.stdin.close()
    assert worker.process.wait(30) == 0 and checked > 80
