"""Writes or serves stories until it is killed: for each line "FOLDER SEED" or "FOLDER serve" on stdin a child.

With a seed it types, generates, undoes; every character that is put in is another one, and what a person sees is
printed as "shown SECONDS CHARACTERS". Else it is the server over a made-up engine, whose "port" is printed. Of each
child "pid" is printed.
"""

import os
import random
import sys
import threading
import time

import uvicorn
from fakes import TOKEN, FakeEngine

from novelgpt.studio.jobs import Request
from novelgpt.studio.panels import Panels
from novelgpt.studio.routes import Api
from novelgpt.studio.server import Pages, bind, build_app
from novelgpt.studio.stories import Stories


def show(*words) -> None:
    """Print a line at once, whole."""
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


def write_story(folder: str, seed: int) -> None:
    """Type and generate until the end of the world."""
    draw, typed, written = random.Random(seed), iter(range(0x4E00, 0x9FFF)), iter(range(0x20000, 0x2A000))
    stories = Stories(folder)
    story = stories.make("被杀", "开头")
    engine = FakeEngine()
    show("story", story.id)
    while True:
        # a person types at some place, now and then goes back and forth in the tree
        for _ in range(draw.randint(1, 6)):
            start, new = draw.randint(0, len(story.tree.text())), "".join(chr(next(typed)) for _ in range(3))
            story.edit(story.tree.version, [{"replace": [start, start], "text": new}])
            stories.disk.ask()
            show("shown", time.monotonic(), new)
        if draw.random() < 0.5:
            story.edit(story.tree.version, [{"head": draw.choice(list(story.tree.nodes))}])
        # a job writes two candidates, and goes on while somebody types
        length = story.tree.nodes[story.tree.head].length
        job = engine.submit(Request(story.tree.text(), 40, candidates=2))
        job.whole = ["".join(chr(next(written)) for _ in range(40)) for _ in range(2)]
        stories.watch(story, job, story.begin(story.tree.head, (length, length), 2, {"seed": job.seed}))
        threading.Thread(target=lambda job=job: [(time.sleep(0.002), job.advance()) for _ in range(40)]).start()
        while not job.is_ended:
            seen = [len(job.text(index)) for index in range(2)]
            if job.wait(seen, 1):
                show("shown", time.monotonic(), "".join(job.text(i)[seen[i] :] for i in range(2)))


def serve(folder: str) -> None:
    """Answer until the end of the world."""
    pages = Pages({"/training": lambda: None, "/corpus": lambda: None})
    api = Api(FakeEngine(rate=300), Stories(folder), Panels("model"), pages.others["/training"])
    sockets, port = bind("127.0.0.1", 0)
    app = build_app(api, pages, port=port, token=TOKEN, hosts=[f"127.0.0.1:{port}"])
    show("port", port)
    uvicorn.Server(uvicorn.Config(app, log_level="critical")).run(sockets=sockets)


def main() -> None:
    """Let one child after the other write."""
    for line in sys.stdin:
        folder, kind = line.rstrip().rsplit(" ", 1)
        if (child := os.fork()) == 0:
            serve(folder) if kind == "serve" else write_story(folder, int(kind))
        show("pid", child)
        os.waitpid(child, 0)
        show("dead")


if __name__ == "__main__":
    main()
