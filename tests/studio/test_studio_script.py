"""studio.py as a process: it answers while the model loads, finds a port, holds its folder, and loses nothing."""

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import ROOT
from helpers import save_model_and_book

from novelgpt.cli import StudioOptions, run
from novelgpt.commands.studio import other_pages

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals as POSIX has them")
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUTF8": "1"}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a small model that knows its book."""
    return save_model_and_book(tmp_path_factory.mktemp("studio"))


def test_the_corpus_page_is_the_newest_report_wherever_the_commands_have_put_it(tmp_path, monkeypatch):
    import clr_ctrl

    monkeypatch.chdir(tmp_path)
    find = other_pages(StudioOptions())["/corpus"]
    assert find() is None
    for age, path in enumerate(("report.html", "data/report.html", "books/shuihu/report.html")):
        novel, output = str(ROOT / "data/sample/novel.txt"), str(tmp_path / "out.json")
        assert run(clr_ctrl.main, [novel, "--output", output, "--report", path]) == 0
        os.utime(path, (1000 + age, 1000 + age))
        assert find() == Path(path)
    # what others have put there is not shown, nor another page of ours
    Path("evil.html").write_text("<script>alert(1)</script>")
    page = Path("report.html").read_text(encoding="utf-8")
    Path("surprise.html").write_text(page.replace("novelgpt corpus", "novelgpt surprise"), encoding="utf-8")
    assert find() == Path("books/shuihu/report.html")


class Process:
    """A running studio.py, asked with its token."""

    def __init__(self, place, *words: str):
        command = [
            sys.executable,
            str(ROOT / "studio.py"),
            "--model_path",
            str(place / "model"),
            "--no_browser",
            *words,
        ]
        pipes = {"stderr": subprocess.PIPE, "text": True, "encoding": "utf-8"}
        self.process = subprocess.Popen(command, cwd=place, env=ENVIRONMENT, **pipes)
        self.said = ""
        for line in self.process.stderr:
            self.said += line
            if found := re.search(r"http://(\S+)/(?:#|frontend\?)token=(\w{32})", line):
                self.host, self.token = found.groups()
                break

    def ask(self, path: str, body=None, **headers) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection(self.host, timeout=60)
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json", **headers}
        data = None if body is None else json.dumps(body)
        connection.request("GET" if body is None else "POST", path, data, headers)
        with contextlib.closing(connection):
            reply = connection.getresponse()
            return reply.status, reply.read()

    def json(self, path: str, body=None) -> dict:
        status, data = self.ask(path, body)
        assert status in (200, 201, 202), data
        return json.loads(data)

    def end(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        self.said += self.process.communicate(timeout=60)[1]
        return self.process.returncode


@pytest.fixture
def start(place):
    """Return a function that starts studio.py; whatever runs at the end is killed."""
    running = []

    def begin(*words: str) -> Process:
        running.append(Process(place, *words))
        return running[-1]

    yield begin
    for process in running:
        process.process.kill()
        process.process.communicate()


def test_the_page_is_there_before_the_model_and_only_for_who_has_the_token(start):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        studio = start("--port", str(port))
        assert f"port {port} is in use, so it is " in studio.said
        assert studio.host != f"127.0.0.1:{port}"
    state = studio.json("/api/state")
    assert state["model"]["ready"] is False and state["model"]["error"] is None
    assert studio.ask("/api/state", Authorization="")[0] == 401
    assert studio.ask("/api/state", Host="evil.example")[0] == 403
    story = studio.json("/api/stories", {"text": "夜里"})
    # another one on the same folder is told who has it
    other = start("--port", "0")
    assert other.process.wait(60) == 4
    assert re.search(
        r"error: mnt/stories: in use by pid \d+, started .*\n\nhint: wait for it, or give --stories_dir", other.said
    )
    assert studio.json(f"/api/stories/{story['id']}")["text"] == "夜里"
    assert studio.end() == 143


@pytest.mark.sweep
def test_a_killed_server_has_every_character_that_was_answered_and_the_same_token(start):
    studio = start("--port", "0")
    story = studio.json("/api/stories", {"text": "萧炎大喝一声"})
    wanted = {"story": story["id"], "node": 0, "length": 3000, "candidates": 2, "seed": 7}
    job = studio.json("/api/jobs", wanted)["job"]
    deadline = time.monotonic() + 240
    while not (seen := studio.json(f"/api/jobs/{job}"))["candidates"][0]["text"]:
        assert time.monotonic() < deadline
    time.sleep(0.5)
    studio.process.kill()
    studio.process.wait()
    again = start("--port", "0")
    shown = again.json(f"/api/stories/{story['id']}")
    assert again.token == studio.token
    for node, candidate in zip(shown["nodes"][1:], seen["candidates"], strict=True):
        assert node["text"].startswith(candidate["text"]) and node["why"] == "interrupted"
    # it goes on, with the seed that it had, as an undisturbed one would have
    wanted["length"] = 40
    job = again.json("/api/jobs", wanted)["job"]
    while (seen := again.json(f"/api/jobs/{job}"))["state"] not in ("done", "failed"):
        assert time.monotonic() < deadline
    assert seen["state"] == "done" and again.json("/api/stories")["stories"][0]["id"] == story["id"]
    assert again.json("/api/style", {"story": story["id"], "node": None})["advice"]
    status, data = again.ask("/v1/completions", {"prompt": "萧炎", "max_tokens": 4, "seed": 1})
    assert status == 200 and json.loads(data)["object"] == "text_completion"
    assert again.end(signal.SIGINT) == 130


@pytest.mark.parametrize(
    ("words", "message", "code"),
    [
        (("--model_path", "nowhere"), "--model_path nowhere: no such folder", 3),
        (("--frontend", "nowhere.html"), "--frontend nowhere.html: no such file", 3),
        (("--allow_origin", "*"), "--allow_origin: found '*', expected for example https://writer.example", 2),
        (("--allow_origin", "https://a.example/"), "--allow_origin: found 'https://a.example/', expected", 2),
        (("--port", "70000"), "--port: found '70000', expected a whole number from 0 to 65535", 2),
        (("--host", "203.0.113.9"), "--host 203.0.113.9, --port 8000: ", 4),
    ],
)
def test_what_cannot_be_served_is_refused_in_words(place, tmp_path, monkeypatch, capsys, words, message, code):
    from novelgpt.cli import run
    from novelgpt.commands.studio import main

    monkeypatch.chdir(tmp_path)
    assert run(main, ["--model_path", str(place / "model"), "--no_browser", *words]) == code
    assert f"error: {message}" in capsys.readouterr().err
