"""kill -9 at random moments of typing and generating: every story opens with what was shown half a second before."""

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


def test_a_few_kills_lose_nothing(tmp_path):
    assert kill_many(tmp_path, 4) > 0


@pytest.mark.sweep
def test_200_kills_lose_nothing(tmp_path):
    assert kill_many(tmp_path, 200) > 60
