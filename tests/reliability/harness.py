"""What the sweeps share: their size, a pool of forking workers, the tiny run, and what of its folder must be equal."""

import hashlib
import json
import os
import queue
import shutil
import subprocess
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from novelgpt.corpus.pieces import write_pieces
from novelgpt.corpus.tokenizer import load_tokenizer
from novelgpt.corpus.tokenizers.base import save_vocabulary
from novelgpt.corpus.tokenizers.vocabulary import build_vocabulary
from novelgpt.files import write_json
from novelgpt.training.checkpoint import find_checkpoint

ROOT = Path(__file__).resolve().parents[2]
SIZES = ("smoke", "ci", "large")
SIZE = os.environ.get("RELIABILITY", "smoke")
CLOCK = ("time", "tokens_per_second", "seconds")  # of a log, what tells when and how fast
TINY = {"n_layer": 1, "n_embd": 32, "n_head": 2, "n_positions": 16}
TINY |= dict.fromkeys(("embd_pdrop", "resid_pdrop", "attn_pdrop"), 0.1)
STORY = [
    "第一章 井\n乔一斗坐在井边，数着水里的星星。\n“水又少了一寸。”他说。",
    "第二章 剑\n闻人雀的剑只有半截。\n“半截也够用。”她说……",
    "第三章 潮\n水从井里涨上来，漫过了门槛——谁也没有说话。",
]


def cases(smoke: int, ci: int, large: int) -> int:
    """Return how many cases a sweep runs at the size that the environment asks for."""
    return dict(zip(SIZES, (smoke, ci, large), strict=True))[SIZE]


class Worker:
    """A process that forks trials; see worker.py."""

    def __init__(self, python: Path):
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
        self.process = subprocess.Popen(
            [python, str(Path(__file__).with_name("worker.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=environment,
        )

    def run(self, argv: list[str], folder: Path, **job) -> dict:
        """Run one train.py in a run folder and return how it went."""
        job |= {"argv": [*argv, f"--output_dir={folder}"], "folder": str(folder)}
        self.process.stdin.write(json.dumps(job) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def close(self) -> None:
        """End the process."""
        self.process.stdin.close()
        self.process.wait()


class Pool:
    """One worker a processor; a single one where pytest itself runs in several processes, or the sweep is small."""

    def __init__(self, python: Path):
        self.free: queue.Queue[Worker] = queue.Queue()
        alone = "PYTEST_XDIST_WORKER" not in os.environ and SIZE != "smoke"
        self.workers = [Worker(python) for _ in range(os.cpu_count() if alone else 1)]
        for worker in self.workers:
            self.free.put(worker)

    def map(self, trial: Callable, items: Iterable) -> list:
        """Call trial(worker, item) for every item and return the results in order."""

        def run(item):
            worker = self.free.get()
            try:
                return trial(worker, item)
            finally:
                self.free.put(worker)

        with ThreadPoolExecutor(len(self.workers)) as threads:
            return list(threads.map(run, items))

    def faults(self, trial: Callable[..., list[str]], items: Iterable) -> list[str]:
        """Call trial(worker, item) for every item and return what they found wrong, one after the other."""
        return [fault for found in self.map(trial, items) for fault in found]

    def close(self) -> None:
        """End all workers."""
        for worker in self.workers:
            worker.close()


def make_tiny_run(folder: Path, documents: list[str] = STORY * 3, **changes) -> list[str]:
    """Write vocabulary, pieces and config; return the command line of a run of 18 steps in 3 epochs, dropout 0.1."""
    save_vocabulary(folder / "vocab.txt", build_vocabulary(STORY))
    tokenizer = load_tokenizer(folder / "vocab.txt")
    write_json(folder / "config.json", TINY)
    source = {"path": "story.json", "sha256": hashlib.sha256("".join(documents).encode()).hexdigest()}
    vocabulary = {"path": str(folder / "vocab.txt"), "sha256": tokenizer.fingerprint}
    write_pieces(
        documents,
        tokenizer,
        folder / "pieces",
        num_pieces=3,
        valid_fraction=0.3,
        source=source,
        vocabulary=vocabulary,
    )
    options = {
        "model_config": folder / "config.json", "tokenizer_path": folder / "vocab.txt",
        "tokenized_data_path": folder / "pieces", "epochs": 3, "batch_size": 4, "gradient_accumulation": 2,
        "stride": 8, "lr": 1e-2, "log_step": 3, "save_steps": 4, "sample_length": 3, "device": "cpu",
        "precision": "fp32", **changes,
    }  # fmt: skip
    return [f"--{name}={value}" for name, value in options.items()]


def contents(folder: Path) -> dict[str, object]:
    """Return everything in a run folder, less its place and what the clock puts into it."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_dir() or name == ".lock":
            continue
        found[name] = path.read_bytes()
        if path.name == "log.jsonl":
            text = found[name].replace(str(folder).encode(), b"RUN")  # the verdict names the model to use
            records = [json.loads(line) for line in text.splitlines()]
            records = [record for record in records if record.get("event") != "resume"]
            found[name] = [{key: record[key] for key in record if key not in CLOCK} for record in records]
        elif path.name == "training.html":  # the same, drawn
            del found[name]
        elif path.name == "state.json":
            found[name] = {key: value for key, value in json.loads(found[name]).items() if key != "log_bytes"}
        elif path.parent.parent.name == "checkpoints" and path.name == "manifest.json":
            found[name] = json.loads(found[name])
            del found[name]["files"]["state.json"]
        elif path.name == "run.json":
            found[name] = found[name].replace(str(folder).encode(), b"RUN")
    return found


def end_of(folder: Path) -> dict:
    """Return what a finished run leaves, but for the older checkpoints, which depend on when it was stopped."""
    found, last = contents(folder), find_checkpoint(folder).name
    return {name: value for name, value in found.items() if "checkpoints" not in name or last in name}


def difference(ours: dict, expected: dict) -> str:
    """Name the files in which two folders differ."""
    return ", ".join(sorted(name for name in {*ours, *expected} if ours.get(name) != expected.get(name)))


def spread(count: int, total: int) -> list[int]:
    """Return count numbers from 1 to total, evenly spread.

    >>> spread(3, 9), spread(5, 3)
    ([1, 4, 7], [1, 2, 3])
    """
    count = min(count, total)
    return [1 + number * total // count for number in range(count)]


def remove(folder: Path) -> None:
    """Remove a trial's folder."""
    shutil.rmtree(folder, ignore_errors=True)
