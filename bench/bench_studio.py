"""Measure the studio as a browser sees it: first character, characters seen and the engine's rate, stop, small answers.

    python bench/bench_studio.py
    python bench/bench_studio.py --model_path model/best_model --quantize int8 --length 400

studio.py runs as a process of its own; every tab is a thread that follows its job by events, as the page does. What is
seen is compared with generate.py's own session on the same prefix, in turns with it. The first character is measured
behind 960 characters that are new to the engine, then behind what it has just written. Figures are medians over rounds.
The last line is JSON.
"""

import argparse
import contextlib
import gzip
import http.client
import json
import platform
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

PREFIX = "那天夜里没有月亮。"
LONG = 960  # characters
STREAMS = 4  # of a browser at a time; what is beyond asks when the server says


def build_parser() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model_path", help="default: a network of the demo's size, not trained")
    parser.add_argument("--quantize", choices=("int8",))
    parser.add_argument("--length", type=int, default=200, help="tokens a tab")
    parser.add_argument("--tabs", type=int, nargs="+", default=[1, 4, 20])
    parser.add_argument("--rounds", type=int, default=3)
    return parser


class Studio:
    """A running studio.py."""

    def __init__(self, model_path: str, folder: str, *words: str):
        command = [sys.executable, str(ROOT / "studio.py"), "--model_path", model_path, "--no_browser", "--port", "0"]
        self.began = time.monotonic()
        command += ["--stories_dir", f"{folder}/stories", *words]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, encoding="utf-8")
        for line in self.process.stderr:
            if found := re.search(r"http://(\S+)/#token=(\w{32})", line):
                self.host, self.token = found.groups()
                break
        self.ask("/api/state")
        self.first_answer = time.monotonic() - self.began  # seconds
        while not self.ask("/api/state")["model"]["ready"]:
            time.sleep(0.1)

    def connect(self, path: str, body: dict | None = None, **headers: str) -> http.client.HTTPConnection:
        """Send a request; return the connection, whose answer is to be read."""
        connection = http.client.HTTPConnection(self.host, timeout=600)
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json", **headers}
        data = None if body is None else json.dumps(body)
        connection.request("GET" if body is None else "POST", path, data, headers)
        return connection

    def ask(self, path: str, body: dict | None = None) -> dict:
        """Return the answer to a request."""
        with contextlib.closing(self.connect(path, body)) as connection:
            return json.loads(connection.getresponse().read())

    def start(self, seed: int, length: int) -> str:
        """Begin a story and a job in it; return the job."""
        return self.go_on(self.ask("/api/stories", {"text": PREFIX})["id"], 0, length, seed)

    def go_on(self, story: str, node: int, length: int, seed: int) -> str:
        """Begin a job in a story; return it."""
        return self.ask("/api/jobs", {"story": story, "node": node, "length": length, "seed": seed})["job"]

    def time_first(self, story: str, node: int, seed: int) -> float:
        """Return the seconds from the request to the first character of a job that ends soon."""
        seen: list[tuple[float, int]] = []
        begin = time.monotonic()
        self.follow(self.go_on(story, node, 16, seed), seen, by_events=True)
        return next(moment for moment, count in seen if count) - begin

    def follow(self, job: str, seen: list[tuple[float, int]], *, by_events: bool) -> None:
        """Note when how many characters of a job were seen, until it ends."""
        if not by_events:  # over one connection, as a browser does
            with contextlib.closing(http.client.HTTPConnection(self.host, timeout=600)) as connection:
                while True:
                    path = f"/api/jobs/{job}?from={seen[-1][1] if seen else 0}"
                    connection.request("GET", path, headers={"Authorization": f"Bearer {self.token}"})
                    shown = json.loads(connection.getresponse().read())
                    if self.note(shown, seen):
                        return
                    time.sleep(shown["again"] / 1000)
        with contextlib.closing(self.connect(f"/api/jobs/{job}", Accept="text/event-stream")) as connection:
            for line in connection.getresponse():
                if line.startswith(b"data: ") and self.note(json.loads(line[6:]), seen):
                    return

    @staticmethod
    def note(shown: dict, seen: list[tuple[float, int]]) -> bool:
        """Note an answer; tell whether it is the last one."""
        if not seen or shown["candidates"][0]["characters"] > seen[-1][1]:
            seen.append((time.monotonic(), shown["candidates"][0]["characters"]))
        return shown["state"] in ("done", "stopped", "failed")


def watch_tabs(studio: Studio, tabs: int, length: int, seed: int) -> dict[str, float]:
    """Let so many tabs write and look at once; return characters a second, and the wait for the first one."""
    rows: list[list[tuple[float, int]]] = [[] for _ in range(tabs)]
    stories = [studio.ask("/api/stories", {"text": PREFIX})["id"] for _ in range(tabs)]  # open before somebody writes
    begins, threads = [], []
    for tab, story in enumerate(stories):
        begins.append(time.monotonic())
        job = studio.go_on(story, 0, length, seed + tab)
        words = {"target": studio.follow, "args": (job, rows[tab]), "kwargs": {"by_events": tab < STREAMS}}
        threads.append(threading.Thread(**words))
        threads[-1].start()
    for thread in threads:
        thread.join()
    end = max(row[-1][0] for row in rows)
    firsts = [next(moment for moment, count in row if count) - begin for row, begin in zip(rows, begins, strict=True)]
    return {"rate": sum(row[-1][1] for row in rows) / (end - begins[0]), "first": max(firsts)}


class Writer:
    """What generate.py writes with, in this process."""

    def __init__(self, model_path: str, quantize: str | None):
        from novelgpt.cli import GenerateOptions
        from novelgpt.writing.generation import open_session

        options = GenerateOptions(model_path=model_path, quantize=quantize, device="cpu", seed=1)
        self.session = open_session(options, None)

    def write(self, prefix: str, length: int) -> tuple[float, int]:
        """Return the seconds and the characters of a text."""
        from novelgpt.writing.text import StopRule

        ids, begin = self.session.tokenizer.encode_prefix(prefix).tolist(), time.monotonic()
        (sample,) = self.session.write(ids, StopRule(length), 1)
        return time.monotonic() - begin, len(self.session.show_new(sample))

    def rate(self, length: int) -> float:
        """Return characters a second."""
        seconds, characters = self.write(PREFIX, length)
        return characters / seconds


def time_firsts(studio: Studio, writer: Writer, seed: int) -> dict[str, float]:
    """Return the seconds to a first character: of generate.py, and on the page behind a new text and a known one."""
    text = (f"{seed}" + PREFIX * LONG)[:LONG]
    story = studio.ask("/api/stories", {"text": text})["id"]
    cold = studio.time_first(story, 0, seed)
    head = studio.ask(f"/api/stories/{story}")["head"]
    return {"own": writer.write(text, 1)[0], "cold": cold, "warm": studio.time_first(story, head, seed + 1)}


def time_stop(studio: Studio, tabs: int, seed: int) -> tuple[float, float]:
    """Return the seconds until a job among others has stopped, and until all have."""
    jobs = [studio.start(seed + tab, 5000) for tab in range(tabs)]
    while not studio.ask(f"/api/jobs/{jobs[0]}")["candidates"][0]["characters"]:
        time.sleep(0.02)
    begin = time.monotonic()
    studio.ask(f"/api/jobs/{jobs[0]}/stop", {})
    stopped = time.monotonic() - begin
    for job in jobs[1:]:
        studio.ask(f"/api/jobs/{job}/stop", {})
    while studio.ask("/api/state")["running"]:
        time.sleep(0.005)
    return stopped, time.monotonic() - begin


def time_state(studio: Studio, seed: int, count: int = 300) -> tuple[float, float]:
    """Return the 99th percentile and the worst of GET /api/state while a job writes, in seconds."""
    job, times = studio.start(seed, 10_000), []
    for _ in range(count):
        begin = time.monotonic()
        studio.ask("/api/state")
        times.append(time.monotonic() - begin)
        time.sleep(0.01)
    studio.ask(f"/api/jobs/{job}/stop", {})
    return statistics.quantiles(times, n=100)[98], max(times)


def weigh_page() -> dict[str, int]:
    """Return the bytes of all files of the page, also compressed, and how many they are."""
    files = [path.read_bytes() for path in sorted((ROOT / "novelgpt/studio/static").glob("*.*"))]
    sizes = {"bytes": sum(map(len, files)), "gzip": sum(len(gzip.compress(data)) for data in files)}
    return {**sizes, "files": len(files)}


def make_model(folder: str) -> str:
    """Write a network of the demo's size, with random weights; return its folder."""
    from novelgpt.corpus.tokenizer import load_tokenizer
    from novelgpt.network import build_model, read_model_config, save_model

    tokenizer = load_tokenizer(ROOT / "cache/vocab_small.txt")
    config = read_model_config(ROOT / "config/model_config_demo.json")
    save_model(build_model(config, tokenizer, seed=1), tokenizer, f"{folder}/model")
    return f"{folder}/model"


def main() -> None:
    """Measure, print a table, and JSON at the end."""
    options = build_parser().parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model = options.model_path or make_model(folder)
        studio = Studio(model, folder, *(("--quantize", options.quantize) if options.quantize else ()))
        try:
            writer = Writer(model, options.quantize)
            report = {"first_answer_seconds": studio.first_answer, "page": weigh_page(), "tabs": {}}
            rounds = [time_firsts(studio, writer, 100 + number) for number in range(options.rounds)]
            firsts = {name: statistics.median(row[name] for row in rounds) for name in rounds[0]}
            report["first_character_seconds"] = firsts
            print("first character behind 960: " + ", ".join(f"{name} {each:.3f} s" for name, each in firsts.items()))
            for tabs in options.tabs:
                # in turns, so that whatever else the machine does hits both
                seen, own = [], []
                for number in range(options.rounds):
                    own.append(writer.rate(options.length))
                    seen.append(watch_tabs(studio, tabs, options.length, 1000 * number))
                rate, engine = statistics.median(row["rate"] for row in seen), statistics.median(own)
                first = statistics.median(row["first"] for row in seen)
                stop, idle = time_stop(studio, tabs, 7)
                row = {"seen": rate, "engine": engine, "share": rate / engine, "first_character_seconds": first}
                report["tabs"][tabs] = row | {"stop_seconds": stop, "idle_seconds": idle}
                print(
                    f"{tabs:3} tabs: {rate:7.1f} of {engine:7.1f} characters/s seen, first after {first:.3f} s, ",
                    end="",
                )
                print(f"stop {1000 * stop:.0f} ms, idle {1000 * idle:.0f} ms", flush=True)
            report["state_p99_seconds"], report["state_worst_seconds"] = time_state(studio, 9)
            report |= {"model": options.model_path or "demo", "machine": platform.platform()}
        finally:
            studio.process.send_signal(signal.SIGINT)
            studio.process.communicate(timeout=60)
    rounded = json.loads(json.dumps(report), parse_float=lambda text: round(float(text), 4))
    print(json.dumps(rounded))


if __name__ == "__main__":
    main()
