"""Training speed in one run: GPT2-Chinese's loop, Hugging Face Trainer, ours, in turn, each in a process of its own.

    python bench/bench_train.py
    python bench/bench_train.py --rounds 1 --tiny_only

Every competitor trains the same network on the same random tokens with the same batch and dropout, as its own defaults
have it: threads, allocator and number format are part of what is compared. The last line of stdout is one JSON object.
"""

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

NETWORKS = {
    "82M": {"n_layer": 10, "n_embd": 768, "n_head": 12, "n_positions": 1024, "vocab_size": 13317, "rows": 2},
    "tiny": {"n_layer": 4, "n_embd": 256, "n_head": 4, "n_positions": 256, "vocab_size": 13317, "rows": 8},
}
STEPS = {"82M": 3, "tiny": 12}  # the first one of each process is not counted
FLOP_PER_TOKEN = {"82M": 580e6}  # 6 N + 12 L d T: forward and backward, attention not halved
COMPETITORS = ("ancestor", "hf_fp32", "hf_bf16", "ours", "ours_without_dropout")


def network(name: str, dropout: float):
    """Return an untrained GPT2LMHeadModel in training mode."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    values = {key: value for key, value in NETWORKS[name].items() if key != "rows"}
    rates = dict.fromkeys(("embd_pdrop", "resid_pdrop", "attn_pdrop"), dropout)
    torch.manual_seed(0)
    return GPT2LMHeadModel(GPT2Config(**values, **rates, bos_token_id=2, eos_token_id=2)).train()


def random_tokens(name: str, steps: int):
    """Return enough random ids for some steps, (N,) uint16."""
    import numpy as np

    sizes = NETWORKS[name]
    count = sizes["rows"] * sizes["n_positions"] * (steps + 2)
    return np.random.default_rng(0).integers(0, sizes["vocab_size"], count, dtype=np.uint16)


def run_ancestor(name: str, device: str) -> list[float]:
    """GPT2-Chinese's algorithm: ids as text, Python lists, fp32, eager attention, one-by-one AdamW, sync every step."""
    import random

    import torch

    sizes = NETWORKS[name]
    model = network(name, 0.1).to(device)
    model.set_attn_implementation("eager")
    optimizer = torch.optim.AdamW(model.parameters(), lr=1.5e-4, foreach=False, fused=False)
    text = " ".join(map(str, random_tokens(name, STEPS[name])))
    tokens = [int(word) for word in text.split()]
    window, rows = sizes["n_positions"], sizes["rows"]
    samples = [tokens[start : start + window] for start in range(0, len(tokens) - window, window)]
    random.shuffle(samples)
    ends = [time.perf_counter()]
    for step in range(STEPS[name]):
        batch = [[int(word) for word in sample] for sample in samples[step * rows : (step + 1) * rows]]
        input_ids = torch.tensor(batch).long().to(device)
        loss = model(input_ids=input_ids, labels=input_ids).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        loss.item()
        ends.append(time.perf_counter())
    return ends


def run_hf(name: str, device: str, *, bf16: bool) -> list[float]:
    """Hugging Face Trainer with its defaults; on a GPU with SDPA and torch.compile besides bf16."""
    import tempfile

    import torch
    from transformers import Trainer, TrainerCallback, TrainingArguments

    sizes = NETWORKS[name]
    tokens = torch.from_numpy(random_tokens(name, STEPS[name]).astype("int64")).view(-1, sizes["n_positions"])
    data = [{"input_ids": row, "labels": row} for row in tokens]
    ends = []

    class Clock(TrainerCallback):
        def on_step_end(self, *_arguments, **_keywords):
            if device != "cpu":
                torch.cuda.synchronize()
            ends.append(time.perf_counter())

    with tempfile.TemporaryDirectory() as folder:
        options = TrainingArguments(
            folder,
            per_device_train_batch_size=sizes["rows"],
            max_steps=STEPS[name],
            bf16=bf16,
            use_cpu=device == "cpu",
            torch_compile=bf16 and device != "cpu",
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        )
        start = time.perf_counter()
        Trainer(network(name, 0.1), options, train_dataset=data, callbacks=[Clock()]).train()
    return [start, *ends]


def run_ours(name: str, device: str, *, dropout: float) -> list[float]:
    """The engine of train.py, with its defaults for the machine."""
    import torch

    from novelgpt.cli import TrainOptions
    from novelgpt.corpus.pieces import Pieces, TokenStream
    from novelgpt.network import choose_devices, choose_precision
    from novelgpt.training.engine import Engine, Run
    from novelgpt.training.parallel import World
    from novelgpt.training.windows import WindowData

    sizes = NETWORKS[name]
    stream = TokenStream([random_tokens(name, STEPS[name])])
    place = choose_devices(device)[:1]
    window = sizes["n_positions"]
    recipe = {"optimizer": "adamw", "lr": 1.5e-4, "weight_decay": 0.01, "replace_inputs": 0.0}  # as the peers'
    options = TrainOptions(batch_size=sizes["rows"], stride=window, **recipe)
    model = network(name, dropout).to(place[0])
    pieces = Pieces(stream, TokenStream([]), {})
    data = WindowData(pieces, window, window, sizes["rows"], seed=0, random_phase=False)
    dtype = choose_precision("auto", place[0])
    engine = Engine(Run(options, place, World(), dtype, None, model, data, sizes, window, [STEPS[name]]))
    batches = data.epoch_batches(1, skip=0)
    ends = [time.perf_counter()]
    for step, batch in zip(range(1, STEPS[name] + 1), batches, strict=False):
        result = engine.step(batch, step=step, lr_share=1.0)
        if device != "cpu":
            torch.cuda.synchronize()
        assert bool(result.finite)
        ends.append(time.perf_counter())
    return ends


def matmul_peak(device: str) -> float:
    """Return the bf16 matrix rate of this moment in FLOP/s, the best of several products of the network's kind."""
    import torch

    best = 0.0
    for size in (2048, 3072, 4096):
        left, right = (torch.randn(size, size, dtype=torch.bfloat16, device=device) for _ in range(2))
        for _ in range(4):
            start = time.perf_counter()
            left @ right
            if device != "cpu":
                torch.cuda.synchronize()
            best = max(best, 2 * size**3 / (time.perf_counter() - start))
    return best


def work(competitor: str, name: str, device: str) -> dict:
    """Train a few steps as one competitor; return its rate, the matmul peak of the process, and its memory."""
    import resource

    runs = {
        "ancestor": lambda: run_ancestor(name, device),
        "hf_fp32": lambda: run_hf(name, device, bf16=False),
        "hf_bf16": lambda: run_hf(name, device, bf16=True),
        "ours": lambda: run_ours(name, device, dropout=0.1),
        "ours_without_dropout": lambda: run_ours(name, device, dropout=0.0),
    }
    ends = runs[competitor]()
    seconds = statistics.median(later - earlier for earlier, later in itertools.pairwise(ends[1:]))
    tokens = NETWORKS[name]["rows"] * NETWORKS[name]["n_positions"]
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # GiB
    peak = matmul_peak(device) if competitor.startswith("ours") else None
    return {"tokens_per_second": tokens / seconds, "peak_flops": peak, "memory_gib": memory}


def measure(name: str, device: str, rounds: int) -> dict[str, list[dict]]:
    """Let the competitors run in turn, round by round, each in a fresh process."""
    results: dict[str, list[dict]] = {competitor: [] for competitor in COMPETITORS}
    for _ in range(rounds):
        for competitor in COMPETITORS:
            command = [sys.executable, __file__, "--worker", competitor, "--network", name, "--device", device]
            run = subprocess.run(command, check=True, capture_output=True, text=True, env={**os.environ})
            results[competitor].append(json.loads(run.stdout.splitlines()[-1]))
            rate = results[competitor][-1]["tokens_per_second"]
            print(f"{name} {competitor}: {rate:,.0f} tokens/s", file=sys.stderr, flush=True)
    return results


def summarise(name: str, results: dict[str, list[dict]]) -> dict:
    """Return medians over the rounds and the ratios of ours to each peer, round by round."""
    rates = {peer: [entry["tokens_per_second"] for entry in entries] for peer, entries in results.items()}
    ratio = {
        peer: statistics.median(ours / theirs for ours, theirs in zip(rates["ours"], rates[peer], strict=True))
        for peer in ("ancestor", "hf_fp32", "hf_bf16")
    }
    summary = {
        "tokens_per_second": statistics.median(rates["ours"]),
        **{f"ratio_to_{peer}": value for peer, value in ratio.items()},
        "medians": {peer: statistics.median(values) for peer, values in rates.items()},
        "memory_gib": {peer: max(entry["memory_gib"] for entry in entries) for peer, entries in results.items()},
    }
    if name in FLOP_PER_TOKEN:
        shares = [
            FLOP_PER_TOKEN[name] * entry["tokens_per_second"] / entry["peak_flops"]
            for entry in results["ours_without_dropout"]
        ]
        summary["share_of_peak"] = statistics.median(shares)
    return summary


def main() -> None:
    """Measure both networks and print the table and the JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tiny_only", action="store_true")
    parser.add_argument("--device", default=None, help="cpu, or a GPU number; default: a GPU if there is one")
    parser.add_argument("--network", choices=NETWORKS, default="82M")
    parser.add_argument("--worker", choices=COMPETITORS)
    options = parser.parse_args()
    device = options.device
    if options.worker:
        print(json.dumps(work(options.worker, options.network, device)))
        return
    if device is None:
        import torch

        device = "cuda" if torch.cuda.is_available() else "cpu"
    names = ["tiny"] if options.tiny_only else ["tiny", "82M"]
    summaries = {name: summarise(name, measure(name, device, options.rounds)) for name in names}
    print(json.dumps({**summaries[names[-1]], "network": names[-1], "device": device, "networks": summaries}))


if __name__ == "__main__":
    main()
