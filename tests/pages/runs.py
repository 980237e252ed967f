"""Run folders with made-up logs, as train.py writes them, for the page of a run."""

import json
import math
import random
from pathlib import Path

from conftest import ROOT

LINES = (ROOT / "data/sample/novel.txt").read_text(encoding="gb18030").split("\n")
NOVEL = "".join(line.strip() for line in LINES if len(line) > 60 and "www" not in line)
BEGAN = 1_790_000_000  # Unix seconds
STEPS = 200  # of an epoch
SECONDS = 0.5  # of a step
STYLE = {"sentence_length": 14.2, "paragraph_length": 58.0, "dialogue_share": 0.21, "quotes_balanced": 0.99}
STYLE |= {"ellipses": 0.8, "distinct_4": 0.97, "loops": 0.0}
KINDS = ("opening", "own", "held_out")


def loss_at(step: float, *, turn: float = math.inf) -> float:
    """Return a loss that falls from 8 towards 4 nats, and rises again behind a step."""
    return 4.0 + 4.0 / (1 + step / 300) ** 1.2 + max(0.0, step - turn) / 3000


def start_record(epochs: int = 15, **changes) -> dict:
    """Return the first record of a run."""
    passage = NOVEL[4000:4300]
    start = {"event": "start", "time": BEGAN, "step": 0, "epoch": 0, "total_steps": STEPS * epochs, "hours": None}
    start |= {"epochs": epochs, "tokens": 812_345, "windows": STEPS * 8, "parameters": 3_700_000, "batch_size": 8}
    start |= {"context": 256, "tokens_per_character": 1.0, "yardsticks": {"kn4": 5.21, "kn5_cache": 5.05}}
    start |= {"book": "井沿上的一斗", "style": STYLE, "passage": {"text": passage, "tokens": list(passage)}}
    start["prefixes"] = [
        {"kind": "opening", "text": NOVEL[:24], "truth": None},
        {"kind": "held_out", "text": NOVEL[3960:4000], "truth": NOVEL[4000:4100]},
    ]
    return start | changes


def training_records(first: int, last: int, every: int, noise: random.Random) -> list[dict]:
    """Return the records of training behind one step and up to another."""
    steps = range(first + every, last + 1, every)
    return [
        {"time": BEGAN + SECONDS * step, "step": step, "epoch": 1 + (step - 1) // STEPS, "lr": 1e-3}
        | {"loss": 0.94 * loss_at(step) + noise.gauss(0, 0.06), "tokens_per_second": 4100.0 + noise.gauss(0, 90)}
        for step in steps
    ]


def evaluation_records(step: int, noise: random.Random, *, turn: float, length: int = 100) -> list[dict]:
    """Return what a run records at one of its evaluations."""
    epoch, loss = step // STEPS, loss_at(step, turn=turn)
    at = {"time": BEGAN + SECONDS * step, "step": step, "epoch": epoch}
    records = [{**at, "valid_loss": loss, "bits_per_character": loss / math.log(2)}]
    nats = [round(max(0.0, noise.expovariate(1 / (loss - 2.4))), 1) for _ in range(300)]
    records.append({**at, "event": "passage", "nats": nats})
    for place, kind in enumerate(KINDS):
        begin = noise.randrange(len(NOVEL) - length)
        text = (
            "".join(noise.sample(NOVEL[begin : begin + length], length)) if epoch < 4 else NOVEL[begin : begin + length]
        )
        longest = max(3, round((step - turn / 2) / 60)) if turn < math.inf else 3 + epoch // 3 + place
        style = {name: value * (1 + (0.5 - noise.random()) / (1 + epoch / 2)) for name, value in STYLE.items()}
        record = {**at, "event": "sample", "kind": kind, "prefix": NOVEL[place * 50 : place * 50 + 24], "text": text}
        records.append({**record, "seed": 7, "copied": {"longest": longest, "share_20": 0.02}, "style": style})
    return records


def make_records(
    epochs: int = 15, *, done: int | None = None, every: int = 20, turn: float = math.inf, **start
) -> list[dict]:
    """Return the records of a run.

    Args:
        epochs: that it has; `done` of them are recorded, None for all, with its end.
        every: steps between two records of training.
        turn: step from which held-out text becomes harder.
        start: changes of the first record.
    """
    noise, records = random.Random(7), [start_record(epochs, **start)]
    for epoch in range(epochs if done is None else done):
        first, last = STEPS * epoch, STEPS * (epoch + 1)
        records += training_records(first, last, every, noise)
        records += evaluation_records(last, noise, turn=turn)
    if done is None:
        at = {"time": records[-1]["time"] + 2, "step": STEPS * epochs, "epoch": epochs}
        kind = "learning" if turn == math.inf else "memorising"
        records.append({**at, "event": "verdict", "text": f"{kind} …", "model": "", "kind": kind})
        records.append({**at, "event": "finish", "seconds": SECONDS * STEPS * epochs})
    return records


def write_run(folder: Path, records: list[dict], *, models: tuple[str, ...] = ("best_model", "final_model")) -> Path:
    """Write a run folder: the log, run.json and folders where models would be; return it."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = (json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    (folder / "log.jsonl").write_text("".join(lines), encoding="utf-8")
    command = ["train.py", "--epochs", "15", "--output_dir", str(folder)]
    options = {"epochs": 15, "hours": None, "batch_size": 8}
    stored = {"options": options, "command": command, "total_steps": 3000}
    (folder / "run.json").write_text(json.dumps(stored), encoding="utf-8")
    for name in models:
        (folder / name).mkdir(exist_ok=True)
    return folder
