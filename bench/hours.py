"""One book and some hours: from the raw file to a model by the commands of the README, and what it costs to read on.

Three tracks, never mixed, in nats per character of the held-out chapters::

    S   the model folder alone, as eval.py scores it
    X   mixed with 5-grams of the training text and a cache of the last tokens
    A   learning while it reads: dynamic evaluation, 5-grams that go on counting, the cache

The weights of a mixture depend on how often counting knows the history, and each half of the text has them from the
other half. Beside them stand the yardsticks; differences are paired, token by token, over blocks of 500.
"""

import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch

from novelgpt.corpus.pieces import open_pieces
from novelgpt.evaluation import LearningCopy, Measure, count_texts, mix, score_adapted
from novelgpt.files import read_json
from novelgpt.network import count_parameters, load_model

ROOT = Path(__file__).resolve().parents[1]
BLOCK = 500  # tokens of a block: neighbours are not independent, blocks nearly are
REFERENCE = 700  # GFLOP/s in bf16, of the machine whose hour counts as one


def matrix_rate() -> float:
    """Return the bf16 matrix rate of this moment in GFLOP/s, the median of some products."""
    size, rates = 2048, []
    left, right = (torch.randn(size, size, dtype=torch.bfloat16) for _ in range(2))
    for _ in range(15):
        start = time.perf_counter()
        left @ right
        rates.append(2e-9 * size**3 / (time.perf_counter() - start))
    return float(np.median(rates))


def make_model(novel: str, hours: float, folder: Path, *, seed: int, threads: int, more: list[str]) -> dict:
    """Clean a novel and train on it in so many hours, both counted; return minutes and the matrix rate meanwhile."""
    places = {"--raw_data_path": "train.json", "--tokenized_data_path": "pieces", "--output_dir": "model"}
    words = [word for flag, name in places.items() for word in (flag, str(folder / name))]
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    began, rate = time.monotonic(), matrix_rate()
    clean = ["clr_ctrl.py", novel, "--output", str(folder / "train.json")]
    subprocess.run([sys.executable, *clean], cwd=ROOT, env=environment, check=True)
    left = hours - (time.monotonic() - began) / 3600
    train = ["train.py", "--raw", *words, "--valid_fraction", "0.1", "--hours", f"{left:.5f}", "--seed", str(seed)]
    subprocess.run([sys.executable, *train, "--device", "cpu", *more], cwd=ROOT, env=environment, check=True)
    minutes = (time.monotonic() - began) / 60
    return {"minutes": round(minutes, 2), "matrix_rate": round((rate + matrix_rate()) / 2)}


def score_tracks(folder: Path) -> dict[str, np.ndarray]:
    """Return the nats of every held-out token but the first, (S,), by track and yardstick."""
    model, tokenizer = load_model(folder / "model/final_model")
    pieces = open_pieces(folder / "pieces")
    window, stride = model.config.n_positions, model.config.n_positions // 2
    alone = Measure(model, tokenizer, stride=stride).score(pieces.valid).nats
    adapted = score_adapted(LearningCopy(model), pieces.valid, window, stride).nats
    chances = count_texts(pieces.train, [pieces.valid], vocab_size=tokenizer.vocab_size)

    # in fp64: a chance of e^-20 is mixed as it is
    alone, adapted = alone.astype(float), adapted.astype(float)
    static = np.stack([np.exp(-alone), chances.kn5, chances.cache])  # (3, S)
    online = np.stack([np.exp(-adapted), chances.kn5_online, chances.cache])  # (3, S)
    tracks = {"S": alone, "X": -np.log(mix(static, chances.buckets))}
    tracks |= {"adapted": adapted, "A": -np.log(mix(online, chances.online_buckets))}
    return tracks | chances.nats()


def paired(one: np.ndarray, other: np.ndarray) -> tuple[float, float]:
    """Return the mean difference of two scores of the same tokens (S,) and its standard error over blocks.

    >>> paired(np.array([1.0, 1.0] * 500), np.zeros(1000))
    (1.0, 0.0)
    """
    difference = one - other
    blocks = difference[: len(difference) // BLOCK * BLOCK].reshape(-1, BLOCK).mean(axis=1)
    return float(difference.mean()), float(blocks.std(ddof=1) / math.sqrt(len(blocks)))


def tokens_per_character(folder: Path) -> float:
    """Return how many tokens a held-out character of a folder's pieces is."""
    valid = open_pieces(folder / "pieces").manifest["valid"]
    return valid["tokens"] / valid["characters"]


def describe_run(folder: Path) -> dict:
    """Return what was trained and how much was read."""
    options, config = (
        read_json(folder / "model/run.json")["options"],
        read_json(folder / "model/final_model/config.json"),
    )
    lines = (folder / "model/log.jsonl").read_text(encoding="utf-8").splitlines()
    steps = max(json.loads(line)["step"] for line in lines)
    tokens = steps * options["batch_size"] * config["n_positions"]
    model, _ = load_model(folder / "model/final_model")
    facts = {"parameters": count_parameters(model), "steps": steps, "tokens_read": tokens}
    names = ("model_config", "dropout", "weight_decay", "replace_inputs", "batch_size", "lr", "seed")
    readings = tokens / len(open_pieces(folder / "pieces").train)
    return facts | {"readings": round(readings, 1)} | {name: options[name] for name in names}


def report(folder: Path, facts: dict) -> dict:
    """Score a model, keep every token's nats in the folder, print the tracks; return the figures."""
    tracks = score_tracks(folder)
    np.savez(folder / "nats.npz", **tracks)
    per_character = tokens_per_character(folder)
    for name, nats in tracks.items():
        print(f"{name:18} {nats.mean() * per_character:.4f}")
    for one, other in (("S", "kn5_cache"), ("X", "S"), ("A", "kn5_online_cache"), ("A", "S")):
        mean, error = paired(tracks[one], tracks[other])
        print(f"{one} - {other:18} {mean:+.4f} ± {error:.4f}")
    figures = {name: round(float(nats.mean()) * per_character, 4) for name, nats in tracks.items()}
    counted = round(facts["minutes"] / 60 * facts["matrix_rate"] / REFERENCE, 3)  # hours of the reference machine
    return {"loss": figures["S"]} | figures | facts | {"hours_at_700": counted} | describe_run(folder)
