"""The network of 82 million parameters on one book and one GPU: decay by dropout, members, one network made of them.

    python bench/large.py --novel my_novel.txt --minutes 10
    python bench/large.py --quick --device cpu

The minutes are shared out: each cell of the table is a run of train.py --hours, from the raw file on. The best cell is
the first member; the others have its settings and other seeds, and a last network learns from all of them. Losses are
nats per character of the held-out chapters, of a model folder alone (track S of hours.py), and of the members' mean
probability. The last line is JSON.
"""

import argparse
import itertools
import json
import sys
import tempfile
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench_learning import BUNDLED, SHARED
from hours import describe_run, make_model, tokens_per_character

from novelgpt.corpus.pieces import open_pieces
from novelgpt.evaluation import Measure
from novelgpt.network import choose_devices, load_model
from novelgpt.training.recipe import TAUGHT_STEP


def train_one(options: argparse.Namespace, folder: Path, minutes: float, seed: int, words: list[str]) -> np.ndarray:
    """Train one network in a folder of its own, print what it reads and comes to; return the nats (S,) it costs."""
    folder.mkdir(parents=True)
    more = ["--device", options.device, "--model_config", options.model_config, *words]
    make_model(options.novel, minutes / 60, folder, seed=seed, threads=options.threads, more=more)
    device = choose_devices(options.device, takes_several=False)[0]
    model, tokenizer = load_model(folder / "model/final_model")
    nats = Measure(model.to(device), tokenizer, stride=None).score(open_pieces(folder / "pieces").valid).nats
    readings = describe_run(folder)["readings"]
    print(f"{folder.name:28} {float(nats.mean()):.4f} nats a token, {readings} readings", flush=True)
    return nats.astype(float)


def measure(options: argparse.Namespace, folder: Path) -> dict:
    """Train the cells, the members and the last network; return nats per character of each."""
    cells = list(itertools.product(options.decays, options.dropouts))
    taught = 1 + (TAUGHT_STEP - 1) * options.members if options.members > 1 else 0
    minutes = options.minutes / (len(cells) + options.members - 1 + taught)

    # the table, then more seeds of its best cell
    nats = {}
    for decay, dropout in cells:
        words = ["--weight_decay", f"{decay:g}", "--dropout", f"{dropout:g}"]
        name = f"decay {decay:g} dropout {dropout:g}"
        nats[name] = train_one(options, folder / name, minutes, 0, words)
    best = min(nats, key=lambda name: nats[name].mean())
    _, decay, _, dropout = best.split()
    words, members = ["--weight_decay", decay, "--dropout", dropout], [best]
    for seed in range(1, options.members):
        members.append(f"member {seed}")
        nats[members[-1]] = train_one(options, folder / members[-1], minutes, seed, words)

    # what they come to together, and one network that learns from all
    if options.members > 1:
        chances = np.mean([np.exp(-nats[name]) for name in members], axis=0)
        teachers = ",".join(str(folder / name / "model/final_model") for name in members)
        words = [*words, "--teacher", teachers]
        nats["taught"] = train_one(options, folder / "taught", minutes * taught, options.members, words)
        nats["mean of the members"] = -np.log(chances)
    scale = tokens_per_character(folder / best)
    return {name: round(float(each.mean()) * scale, 4) for name, each in nats.items()} | {"best cell": best}


def build_parser() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--novel", default=str(SHARED if SHARED.exists() else BUNDLED), help="the book")
    add("--minutes", type=float, default=10.0, help="of all runs together")
    add("--device", default="0", help="of train.py")
    add("--threads", type=int, default=2)
    add("--decays", type=float, nargs="+", default=[1.0, 2.0])
    add("--dropouts", type=float, nargs="+", default=[0.1, 0.2, 0.3])
    add("--members", type=int, default=2, help="networks that teach the last one; 1: none")
    add("--model_config", default="config/model_config_small.json")
    add("--quick", action="store_true", help="the bundled novel, a small network: does it run at all")
    return parser


def main() -> int:
    """Train, print, end with one line of JSON."""
    options = build_parser().parse_args()
    if options.quick:
        options.novel, options.model_config = str(BUNDLED), "config/model_config_1m.json"
        options.decays, options.dropouts, options.minutes = [1.0], [0.1], min(options.minutes, 4.0)
    options.novel = str(Path(options.novel).resolve())
    with tempfile.TemporaryDirectory() as name:
        figures = measure(options, Path(name))
    print(json.dumps(figures | {"minutes": options.minutes, "novel": Path(options.novel).name}))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
