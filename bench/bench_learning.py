"""Measure how much one book teaches: the ancestor's recipe, ours, and counting, at equal steps on the same split.

    python bench/bench_learning.py
    python bench/bench_learning.py --novel my_novel.txt --epochs 15 --seeds 1
    python bench/bench_learning.py --hours 1

With hours it trains once, on the network that train.py --hours chooses, from the raw file on: see hours.py. Without,
both recipes are presets of train.py (config/train_seed.yaml, config/train_novel.yaml); network, windows, number of
steps and order of the seeds are the same. The last tenth of the chapters is held out. The last line is JSON; losses are
nats per character.
"""

import argparse
import functools
import json
import statistics
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))


import hours

import clr_ctrl
import make_vocab
import train
from novelgpt.corpus.pieces import Pieces, TokenStream, open_pieces, tokenize_corpus
from novelgpt.evaluation import count_texts, evaluation_batches, score_batches
from novelgpt.files import write_json
from novelgpt.network import score_tokens
from novelgpt.training.engine import Run
from novelgpt.training.run import prepare_run
from novelgpt.training.stopping import StopSignals
from novelgpt.training.trainer import Trainer

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared/corpora/hongloumeng.gbk.txt"
BUNDLED = ROOT / "data/sample/novel.txt"
PRESETS = {"seed": "config/train_seed.yaml", "novel": "config/train_novel.yaml"}
NETWORK = {"n_layer": 3, "n_embd": 128, "n_head": 4, "n_ctx": 64, "n_positions": 64}
DROPOUT = dict.fromkeys(("embd_pdrop", "resid_pdrop", "attn_pdrop"), 0.1)
CURVE_TOKENS = 10_000  # of the held-out part that are scored while training; all of it is at the end


class Learner(Trainer):
    """The product's trainer, looking at the held-out text more often and writing no folders."""

    def __init__(self, run: Run, stop: StopSignals, looks: set[int]):
        super().__init__(run, stop)
        self.looks = looks

    def count_step(self, *step) -> None:
        """Evaluate after the steps asked for."""
        super().count_step(*step)
        if self.progress.step in self.looks:
            self.evaluate(epoch=self.progress.epoch)

    def end_epoch(self) -> None:
        """Go on to the next epoch."""
        self.progress.epoch += 1
        self.progress.batch = 0


def build_parser() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--novel", default=str(SHARED if SHARED.exists() else BUNDLED), help="the book")
    add("--epochs", type=int, default=2, help="passes over the book, the same for both recipes")
    add("--stride", type=int, default=64, help="tokens between windows of 64")
    add("--seeds", type=int, default=3, help="runs of each recipe")
    add("--threads", type=int, help="default: 1; with hours 2")
    add("--hours", type=float, help="train once for so many hours of the clock, from the raw file to the model")
    add("--seed", type=int, default=0, help="of the run of hours")
    add("--folder", help="where the run of hours and the nats of its tokens stay; default: nowhere")
    add("--train", default="", metavar="WORDS", help="further words for the train.py of hours, in one string")
    add("--quick", action="store_true", help="the bundled novel, one seed: does it run at all")
    return parser


def prepare(novel: str, folder: Path) -> None:
    """Clean a novel, fit a vocabulary to it, cut it into pieces with the last tenth of its chapters held out."""
    clr_ctrl.main([novel, "--output", str(folder / "train.json")])
    source = ["--raw_data_path", str(folder / "train.json"), "--vocab_file", str(folder / "vocab.txt")]
    make_vocab.main([*source, "--min_count", "2"])
    tokenize_corpus(folder / "train.json", folder / "pieces", folder / "vocab.txt", num_pieces=1, valid_fraction=0.1)
    write_json(folder / "config.json", {"model_type": "gpt2", **NETWORK, **DROPOUT})


def open_run(preset: str, folder: Path, options: argparse.Namespace, seed: int) -> Run:
    """Return a run of a preset of train.py on the prepared novel."""
    argv = ["--config", str(ROOT / PRESETS[preset]), "--model_config", str(folder / "config.json")]
    argv += ["--tokenizer_path", str(folder / "vocab.txt"), "--tokenized_data_path", str(folder / "pieces")]
    argv += ["--epochs", str(options.epochs), "--stride", str(options.stride), "--batch_size", "8"]
    argv += ["--seed", str(seed), "--output_dir", str(folder / preset), "--log_step", "500", "--device", "cpu"]
    return prepare_run(train.build_parser().parse_options(argv))


def looks_of(total: int) -> set[int]:
    """Return the steps after which the held-out text is scored: every thirtieth of a third, every sixth, the last.

    >>> sorted(looks_of(300))
    [10, 20, 30, 40, 50, 60, 70, 80, 90, 100, 150, 200, 250, 300]
    """
    early = {round(total * part / 30) for part in range(1, 11)}
    return {max(1, step) for step in early | {round(total * part / 6) for part in range(3, 7)}}


def learn(preset: str, folder: Path, options: argparse.Namespace, seed: int) -> dict:
    """Train once; return the curve [(step, loss)] on a part of the held-out text, and the last loss on all of it."""
    run = open_run(preset, folder, options, seed)
    pieces = run.data.pieces
    part = Pieces(pieces.train, TokenStream([pieces.valid[:CURVE_TOKENS]]), pieces.manifest)
    run.options.output_path.mkdir(exist_ok=True)
    start = time.perf_counter()
    with StopSignals(deadline=None) as stop:
        learner = Learner(replace(run, data=replace(run.data, pieces=part)), stop, looks_of(run.total_steps))
        curve = [(entry["step"], entry["valid_loss"]) for entry in learner.fit(None).history]
        run.model.eval()
        valid, manifest = pieces.valid, pieces.manifest["valid"]
        batches = evaluation_batches(valid, run.window, run.window // 2, 32)
        scores = score_batches(functools.partial(score_tokens, run.model, dtype=run.dtype), batches, run.devices[0])
    nats, scored, _ = scores.totals()
    loss = nats / scored * len(valid) / manifest["characters"]  # nats per character
    result = {"preset": preset, "seed": seed, "loss": loss, "curve": curve}
    return result | {"steps": run.total_steps, "seconds": round(time.perf_counter() - start)}


def score_by_counting(folder: Path) -> dict[str, float]:
    """Return the nats per character of every yardstick on the same split."""
    pieces = open_pieces(folder / "pieces")
    chances = count_texts(pieces.train, [pieces.valid], vocab_size=pieces.manifest["vocabulary"]["size"])
    if chances is None:  # more than 20 million tokens are not counted
        return {}
    valid = pieces.manifest["valid"]
    return {name: float(nats.mean()) * valid["tokens"] / valid["characters"] for name, nats in chances.nats().items()}


def reach(curve: list[tuple[int, float]], loss: float) -> int | None:
    """Return the first step of a curve at which a loss is reached, or None.

    >>> reach([(0, 9.0), (10, 5.0), (20, 4.5)], 4.8)
    20
    """
    return next((step for step, value in curve if value <= loss), None)


def compare(results: list[dict]) -> dict:
    """Return what the pairs of runs with the same seed say; the smallest ratio of steps counts."""
    runs = {preset: [result for result in results if result["preset"] == preset] for preset in PRESETS}
    ratios = []
    for old, new in zip(runs["seed"], runs["novel"], strict=True):
        best_step, best = min(old["curve"], key=lambda point: point[1])
        step = reach(new["curve"], best)
        ratios.append(best_step / step if step else 0.0)
    losses = {preset: [round(result["loss"], 4) for result in runs[preset]] for preset in PRESETS}
    lower = statistics.mean(losses["seed"]) - statistics.mean(losses["novel"])
    figures = {"ratio_of_steps": round(min(ratios), 2), "ratios": [round(ratio, 2) for ratio in ratios]}
    return figures | {"nats_lower": round(lower, 4), "losses": losses}


def print_table(results: list[dict], counting: dict[str, float]) -> None:
    """Print the curves side by side, then the losses on all of the held-out text."""
    for result in results:
        points = " ".join(f"{step}:{loss:.3f}" for step, loss in result["curve"])
        print(f"{result['preset']:5} seed {result['seed']} {result['seconds']:5} s  {result['loss']:.4f}  {points}")
    for name, loss in counting.items():
        print(f"{name:18} {loss:.4f} nats per character")


def compare_recipes(options: argparse.Namespace, folder: Path) -> dict:
    """Train both recipes once a seed, and print how they did."""
    prepare(options.novel, folder)
    counting, results = score_by_counting(folder), []
    for seed in range(options.seeds):
        for preset in PRESETS:
            results.append(learn(preset, folder, options, seed))
            print_table(results[-1:], counting)
    yardsticks = {name: round(loss, 4) for name, loss in counting.items()}
    return compare(results) | {"steps": results[0]["steps"], **yardsticks}


def learn_for_hours(options: argparse.Namespace, folder: Path) -> dict:
    """Train once for so many hours, and print the three tracks beside counting."""
    more = {"seed": options.seed, "threads": options.threads, "more": options.train.split()}
    return hours.report(folder, hours.make_model(options.novel, options.hours, folder, **more))


def main() -> int:
    """Measure, print, end with one line of JSON."""
    options = build_parser().parse_args()
    options.threads = options.threads or (2 if options.hours else 1)
    if options.quick:
        options.novel, options.seeds, options.epochs = str(BUNDLED), 1, 1
    torch.set_num_threads(options.threads)
    measure = learn_for_hours if options.hours else compare_recipes
    with tempfile.TemporaryDirectory() as name:
        figures = measure(options, Path(options.folder or name).resolve())
    print(json.dumps(figures | {"novel": Path(options.novel).name, "torch": torch.__version__}))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
