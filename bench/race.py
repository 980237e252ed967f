"""Minutes until a loss: GPT2-Chinese's loop, Hugging Face Trainer in bf16, ours, on one book and one machine.

    python bench/race.py
    python bench/race.py --novel data/sample/novel.txt --epochs 1 --our_epochs 1

Network, vocabulary, windows and split are the same; recipe, number format and loop are each one's own: the ancestor's
AdamW at 1.5e-4 with 2,000 steps of warm-up in fp32, Trainer's defaults in bf16, train.py's defaults. They run one after
the other, each in a process of its own. The curves are scored on the first held-out tokens while the clock stands
still. The last line is JSON: minutes until the lowest loss of the ancestor's curve and until 5-grams with a cache, null
where a curve never comes there.
"""

import argparse
import functools
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench_learning import BUNDLED, ROOT, SHARED, prepare, reach

import train
from novelgpt.corpus.pieces import open_pieces
from novelgpt.corpus.tokenizers import load_tokenizer
from novelgpt.evaluation import count_texts, evaluation_batches, score_batches
from novelgpt.files import read_json
from novelgpt.network import build_model, score_tokens
from novelgpt.training.run import prepare_run
from novelgpt.training.stopping import StopSignals
from novelgpt.training.trainer import Trainer

COMPETITORS = ("ancestor", "hf_bf16", "ours")
NETWORK = ROOT / "config/model_config_demo.json"
WINDOW, STRIDE, ROWS = 256, 128, 8  # tokens, tokens, windows a step
SCORED, LOOKS = 20_000, 40  # held-out tokens of a point of a curve, points


class Curve:
    """Held-out losses, nats per token, by the seconds of training before them."""

    def __init__(self, folder: Path, total_steps: int):
        self.valid = open_pieces(folder / "pieces").valid[:SCORED]
        self.points: list[tuple[float, float]] = []
        self.looks = {max(1, round(total_steps * (part / LOOKS) ** 2)) for part in range(1, LOOKS + 1)}
        self.seconds, self.began = 0.0, time.perf_counter()

    def tick(self, step: int, model) -> None:
        """Count a step; after some of them score the text while the clock stands still."""
        if step in self.looks:
            self.seconds += time.perf_counter() - self.began
            model.eval()
            batches = evaluation_batches(self.valid, WINDOW, WINDOW // 2, 32)
            scores = score_batches(functools.partial(score_tokens, model), batches, torch.device("cpu"))
            model.train()
            self.points.append((round(self.seconds, 1), round(float(scores.nats.mean()), 4)))
            print(*self.points[-1], file=sys.stderr, flush=True)
            self.began = time.perf_counter()


def make_network(folder: Path):
    """Return the untrained network of all competitors, with dropout 0.1."""
    return build_model(read_json(NETWORK), load_tokenizer(folder / "vocab.txt"), seed=0).train()


def cut_windows(folder: Path) -> list[list[int]]:
    """Return the windows of the training text as lists of ids."""
    tokens = open_pieces(folder / "pieces").train.read().tolist()
    return [tokens[start : start + WINDOW] for start in range(0, len(tokens) - WINDOW, STRIDE)]


def run_ancestor(folder: Path, epochs: int) -> Curve:
    """GPT2-Chinese's loop and rates: fp32, eager attention, 2,000 steps of warm-up, then linear to zero."""
    from transformers import get_linear_schedule_with_warmup

    windows, model = cut_windows(folder), make_network(folder)
    model.set_attn_implementation("eager")
    total = epochs * (len(windows) // ROWS)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1.5e-4, weight_decay=0.0, foreach=False, fused=False)
    schedule = get_linear_schedule_with_warmup(optimizer, 2000, total)
    curve, step = Curve(folder, total), 0
    for _ in range(epochs):
        random.shuffle(windows)
        for first in range(0, len(windows) - ROWS + 1, ROWS):
            input_ids = torch.tensor(windows[first : first + ROWS]).long()
            loss = model(input_ids=input_ids, labels=input_ids).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            schedule.step()
            loss.item()
            step += 1
            curve.tick(step, model)
    return curve


def run_hf_bf16(folder: Path, epochs: int) -> Curve:
    """Hugging Face Trainer with its defaults, in bf16."""
    from transformers import Trainer as HuggingFaceTrainer
    from transformers import TrainerCallback, TrainingArguments

    class Ticks(TrainerCallback):
        def on_step_end(self, _arguments, state, _control, model, **_others):
            curve.tick(state.global_step, model)

    data = [{"input_ids": torch.tensor(window), "labels": torch.tensor(window)} for window in cut_windows(folder)]
    total, quiet = epochs * -(-len(data) // ROWS), {"report_to": "none", "disable_tqdm": True, "save_strategy": "no"}
    size = {"per_device_train_batch_size": ROWS, "num_train_epochs": epochs}
    arguments = TrainingArguments(str(folder / "hf"), bf16=True, use_cpu=True, **size, **quiet)
    curve = Curve(folder, total)
    HuggingFaceTrainer(make_network(folder), arguments, train_dataset=data, callbacks=[Ticks()]).train()
    return curve


class Racer(Trainer):
    """The product's trainer, which scores for the curve alone and writes no folders."""

    def __init__(self, *arguments, curve: Curve):
        super().__init__(*arguments)
        self.curve = curve

    def count_step(self, *step) -> None:
        """Count for the curve too."""
        super().count_step(*step)
        self.curve.tick(self.progress.step, self.run.model)

    def evaluate(self, **_place) -> None:
        """Leave the evaluations to the curve."""

    def end_epoch(self) -> None:
        """Go on to the next epoch."""
        self.progress.epoch += 1
        self.progress.batch = 0

    def write_final(self) -> None:
        """Keep nothing."""


def run_ours(folder: Path, epochs: int) -> Curve:
    """The trainer of train.py with its defaults."""
    argv = ["--model_config", str(NETWORK), "--tokenizer_path", str(folder / "vocab.txt"), "--device", "cpu"]
    argv += ["--tokenized_data_path", str(folder / "pieces"), "--output_dir", str(folder / "ours")]
    argv += ["--epochs", str(epochs), "--stride", str(STRIDE), "--batch_size", str(ROWS), "--log_step", "1000"]
    run = prepare_run(train.build_parser().parse_options(argv))
    run.options.output_path.mkdir()
    with StopSignals() as stop:
        curve = Curve(folder, run.total_steps)
        Racer(run, stop, curve=curve).fit(None)
    return curve


def race(folder: Path, options: argparse.Namespace) -> dict[str, list]:
    """Let the competitors run one after the other; return their curves."""
    curves = {}
    for name in options.competitors:
        epochs = options.our_epochs if name == "ours" else options.epochs
        words = ["--worker", name, "--folder", str(folder), "--epochs", str(epochs)]
        print(f"{name}: {epochs} epochs", file=sys.stderr, flush=True)
        worker = subprocess.run([sys.executable, __file__, *words], stdout=subprocess.PIPE, text=True, check=True)
        curves[name] = json.loads(worker.stdout.splitlines()[-1])
    return curves


def compare(curves: dict[str, list], counting: float) -> dict:
    """Return the minutes of each competitor until the lowest loss of the ancestor's curve, and until counting's.

    >>> compare({"ancestor": [[60, 5.0], [120, 4.5]], "ours": [[6, 4.4]]}, 4.4)["until_the_ancestors_best"]
    {'ancestor': 2.0, 'ours': 0.1}
    """
    lowest = {name: min(loss for _, loss in curve) for name, curve in curves.items()}
    goals = {"until_counting": counting} | (
        {"until_the_ancestors_best": lowest["ancestor"]} if "ancestor" in lowest else {}
    )
    figures = {"lowest": lowest, "counting": round(counting, 4)}
    for word, goal in goals.items():
        seconds = {name: reach(curve, goal) for name, curve in curves.items()}
        figures[word] = {name: second and round(second / 60, 2) for name, second in seconds.items()}
    return figures | {"minutes": {name: round(curve[-1][0] / 60, 2) for name, curve in curves.items()}}


def build_parser() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--novel", default=str(SHARED if SHARED.exists() else BUNDLED), help="the book")
    add("--epochs", type=int, default=4, help="of the ancestor and of Trainer")
    add("--our_epochs", type=int, default=4, help="of ours")
    add("--competitors", nargs="+", default=list(COMPETITORS), choices=COMPETITORS)
    add("--worker", choices=COMPETITORS, help=argparse.SUPPRESS)
    add("--folder", help=argparse.SUPPRESS)
    return parser


def main() -> int:
    """Race, print, end with one line of JSON."""
    options = build_parser().parse_args()
    if options.worker:
        curve = globals()[f"run_{options.worker}"](Path(options.folder), options.epochs)
        print(json.dumps(curve.points))
        return 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(options.novel, folder)
        pieces = open_pieces(folder / "pieces")
        sizes = {"vocab_size": pieces.manifest["vocabulary"]["size"]}
        chances = count_texts(pieces.train, [pieces.valid[:SCORED]], **sizes)
        figures = compare(race(folder, options), float(chances.nats()["kn5_cache"].mean()))
    print(json.dumps(figures | {"novel": Path(options.novel).name, "torch": torch.__version__}))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
