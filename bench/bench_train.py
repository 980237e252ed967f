"""Training speed in one run: GPT2-Chinese's loop, Hugging Face Trainer, ours, in turn, each in a process of its own.

    python bench/bench_train.py
    python bench/bench_train.py --rounds 1 --tiny_only
    python bench/bench_train.py --device 1 --rows 8 32 --competitors hf_bf16 ours ours_muon

Every competitor trains the same network on the same random tokens with the same batch and dropout, as its own defaults
have it: threads, allocator and number format are part of what is compared. On a CPU each step is timed; on a GPU the
first steps, in which compilers work, are left out and the others are timed together, so that nothing waits in between.
The last line of stdout is one JSON object.
"""

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

NETWORKS = {
    "82M": {"n_layer": 10, "n_embd": 768, "n_head": 12, "n_positions": 1024, "vocab_size": 13317},
    "tiny": {"n_layer": 4, "n_embd": 256, "n_head": 4, "n_positions": 256, "vocab_size": 13317},
    "smallest": {"n_layer": 1, "n_embd": 32, "n_head": 2, "n_positions": 32, "vocab_size": 400},
}
ROWS = {"cpu": {"82M": [2], "tiny": [8], "smallest": [4]}, "gpu": {"82M": [8, 32], "tiny": [8], "smallest": [4]}}
STEPS = {"cpu": {"82M": 3, "tiny": 12, "smallest": 3}, "gpu": {"82M": 60, "tiny": 60, "smallest": 60}}
WARM = {"cpu": 1, "gpu": 20}  # steps that are not counted; the first one of each process makes what the others use
RUN_STEPS = 500  # as long a run as ours is told to be on a GPU, so that it compiles as it does for users
FLOP_PER_TOKEN = {"82M": 580e6}  # 6 N + 12 L d T: forward and backward, attention not halved
COMPETITORS = ("ancestor", "hf_fp32", "hf_bf16", "ours", "ours_muon", "ours_without_dropout")
DEFAULT = {"cpu": [name for name in COMPETITORS if name != "ours_muon"], "gpu": list(COMPETITORS)}


@dataclass(frozen=True)
class Setup:
    """What all competitors train, and where."""

    network: str  # a key of NETWORKS
    device: str  # as torch and --device call it: "cpu", "cuda:0"
    rows: int  # windows a step
    steps: int
    warm: int  # of them, not counted
    compile: str = "auto"  # as of train.py

    @property
    def sizes(self) -> dict:
        """The sizes of the network."""
        return NETWORKS[self.network]


def full_name(device: str | None) -> str:
    """Return the name of a device that torch and --device both know: "1" and "cuda:1" are the same GPU.

    >>> [full_name(name) for name in ("cpu", "1", "cuda", "cuda:1")]
    ['cpu', 'cuda:1', 'cuda:0', 'cuda:1']
    """
    if device is None:
        import torch

        device = "cuda" if torch.cuda.is_available() else "cpu"
    return f"cuda:{device}" if device.isdigit() else "cuda:0" if device == "cuda" else device


def kind_of(device: str) -> str:
    """Return "cpu" or "gpu".

    >>> kind_of("cuda:1")
    'gpu'
    """
    return "cpu" if device == "cpu" else "gpu"


class Clock:
    """Times the steps of a competitor: each of them on a CPU, on a GPU those after the warm ones together."""

    def __init__(self, setup: Setup):
        self.setup, self.ticks, self.ends = setup, 0, []
        self.tick()

    def tick(self) -> None:
        """Count the start and the end of every step; a GPU is waited for at both ends of what is timed alone."""
        is_edge = self.ticks in (self.setup.warm, self.setup.steps)
        if self.setup.device.startswith("cuda") and is_edge:
            import torch

            torch.cuda.synchronize()
        if self.setup.device == "cpu" or is_edge:
            self.ends.append(time.perf_counter())
        self.ticks += 1

    def seconds(self) -> float:
        """Return the seconds of a step: the median on a CPU, the mean on a GPU."""
        if self.setup.device == "cpu":
            ends = self.ends[self.setup.warm :]
            return statistics.median(later - earlier for earlier, later in itertools.pairwise(ends))
        return (self.ends[-1] - self.ends[0]) / (self.setup.steps - self.setup.warm)


def network(setup: Setup, dropout: float):
    """Return an untrained GPT2LMHeadModel in training mode."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    rates = dict.fromkeys(("embd_pdrop", "resid_pdrop", "attn_pdrop"), dropout)
    torch.manual_seed(0)
    return GPT2LMHeadModel(GPT2Config(**setup.sizes, **rates, bos_token_id=2, eos_token_id=2)).train()


def random_tokens(setup: Setup):
    """Return enough random ids for all steps, (N,) uint16."""
    import numpy as np

    count = setup.rows * setup.sizes["n_positions"] * (setup.steps + 2)
    return np.random.default_rng(0).integers(0, setup.sizes["vocab_size"], count, dtype=np.uint16)


def run_ancestor(setup: Setup) -> Clock:
    """GPT2-Chinese's algorithm: ids as text, Python lists, fp32, eager attention, one-by-one AdamW, sync every step."""
    import random

    import torch

    model = network(setup, 0.1).to(setup.device)
    model.set_attn_implementation("eager")
    optimizer = torch.optim.AdamW(model.parameters(), lr=1.5e-4, foreach=False, fused=False)
    text = " ".join(map(str, random_tokens(setup)))
    tokens = [int(word) for word in text.split()]
    window, rows = setup.sizes["n_positions"], setup.rows
    samples = [tokens[start : start + window] for start in range(0, len(tokens) - window, window)]
    random.shuffle(samples)
    clock = Clock(setup)
    for step in range(setup.steps):
        batch = [[int(word) for word in sample] for sample in samples[step * rows : (step + 1) * rows]]
        input_ids = torch.tensor(batch).long().to(setup.device)
        loss = model(input_ids=input_ids, labels=input_ids).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        loss.item()
        clock.tick()
    return clock


def run_hf(setup: Setup, *, bf16: bool) -> Clock:
    """Hugging Face Trainer with its defaults; on a GPU with SDPA and torch.compile besides bf16."""
    import tempfile

    import torch
    from transformers import Trainer, TrainerCallback, TrainingArguments

    tokens = torch.from_numpy(random_tokens(setup).astype("int64")).view(-1, setup.sizes["n_positions"])
    data = [{"input_ids": row, "labels": row} for row in tokens]

    class Ticks(TrainerCallback):
        def on_step_end(self, *_arguments, **_keywords):
            clock.tick()

    with tempfile.TemporaryDirectory() as folder:
        options = TrainingArguments(
            folder,
            per_device_train_batch_size=setup.rows,
            max_steps=setup.steps,
            bf16=bf16,
            use_cpu=setup.device == "cpu",
            torch_compile=bf16 and setup.device != "cpu" and setup.compile != "off",
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        )
        clock = Clock(setup)
        Trainer(network(setup, 0.1), options, train_dataset=data, callbacks=[Ticks()]).train()
    return clock


def make_engine(setup: Setup, *, dropout: float, optimizer: str):
    """Return the engine of train.py, with its defaults for the machine, and its batches."""
    from novelgpt.cli import TrainOptions
    from novelgpt.corpus.pieces import Pieces, TokenStream
    from novelgpt.network import choose_devices, choose_precision
    from novelgpt.training.engine import Engine, Run
    from novelgpt.training.parallel import World
    from novelgpt.training.windows import WindowData

    stream = TokenStream([random_tokens(setup)])
    place = choose_devices(setup.device)[:1]
    window = setup.sizes["n_positions"]
    lr = 1.5e-4 if optimizer == "adamw" else 5e-3
    recipe = {"optimizer": optimizer, "lr": lr, "weight_decay": 0.01, "replace_inputs": 0.0}  # as the peers'
    options = TrainOptions(batch_size=setup.rows, stride=window, compile=setup.compile, **recipe)
    model = network(setup, dropout).to(place[0])
    pieces = Pieces(stream, TokenStream([]), {})
    data = WindowData(pieces, window, window, setup.rows, seed=0, random_phase=False)
    dtype = choose_precision("auto", place[0])
    length = setup.steps if setup.device == "cpu" else max(RUN_STEPS, setup.steps)
    engine = Engine(Run(options, place, World(), dtype, None, model, data, setup.sizes, window, [length]))
    return engine, data.epoch_batches(1, skip=0)


def run_ours(setup: Setup, *, dropout: float = 0.1, optimizer: str = "adamw", facts: dict | None = None) -> Clock:
    """The engine of train.py; facts gets the memory that it predicts for a step, in GiB."""
    engine, batches = make_engine(setup, dropout=dropout, optimizer=optimizer)
    if facts is not None:
        facts["predicted_gib"] = engine.predict_bytes(engine.micro_batches) / 2**30
    clock = Clock(setup)
    for step, batch in zip(range(1, setup.steps + 1), batches, strict=False):
        result = engine.step(batch, step=step, lr_share=1.0)
        clock.tick()
    assert bool(result.finite)
    return clock


def profile_step(setup: Setup, optimizer: str) -> str:
    """Return torch's table of what one step of ours spends its time on; the attention kernel has its name there."""
    import torch
    from torch.profiler import ProfilerActivity, profile

    engine, batches = make_engine(setup, dropout=0.1, optimizer=optimizer)
    is_gpu = setup.device.startswith("cuda")
    for step, batch in zip(range(1, setup.steps + 1), batches, strict=False):
        if step == setup.steps:
            kinds = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * is_gpu
            with profile(activities=kinds) as profiler:
                engine.step(batch, step=step, lr_share=1.0)
                if is_gpu:
                    torch.cuda.synchronize()
        else:
            engine.step(batch, step=step, lr_share=1.0)
    by = "self_cuda_time_total" if is_gpu else "self_cpu_time_total"
    return profiler.key_averages().table(sort_by=by, row_limit=40, max_name_column_width=80)


def matmul_peak(device: str) -> float:
    """Return the bf16 matrix rate of this moment in FLOP/s, the best of several products of the network's kind."""
    import torch

    best = 0.0
    for size in (2048, 3072, 4096):
        left, right = (torch.randn(size, size, dtype=torch.bfloat16, device=device) for _ in range(2))
        for _ in range(4):
            start = time.perf_counter()
            left @ right
            if device.startswith("cuda"):
                torch.cuda.synchronize()
            best = max(best, 2 * size**3 / (time.perf_counter() - start))
    return best


def work(competitor: str, setup: Setup) -> dict:
    """Train a few steps as one competitor; return its rate, the matmul peak of the process, and its memory."""
    facts: dict = {"peak_flops": None}
    runs = {
        "ancestor": lambda: run_ancestor(setup),
        "hf_fp32": lambda: run_hf(setup, bf16=False),
        "hf_bf16": lambda: run_hf(setup, bf16=True),
        "ours": lambda: run_ours(setup, facts=facts),
        "ours_muon": lambda: run_ours(setup, optimizer="muon", facts=facts),
        "ours_without_dropout": lambda: run_ours(setup, dropout=0.0),
    }
    seconds = runs[competitor]().seconds()
    facts["tokens_per_second"] = setup.rows * setup.sizes["n_positions"] / seconds
    facts["memory_gib"] = memory_gib(setup.device)
    if competitor.startswith("ours"):
        facts["peak_flops"] = matmul_peak(setup.device)
    return facts


def memory_gib(device: str) -> float:
    """Return the most memory that this process has held: a GPU's, or its own."""
    if device.startswith("cuda"):
        import torch

        return torch.cuda.max_memory_reserved() / 2**30
    try:
        import resource
    except ImportError:  # Windows
        return 0.0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def worker_call(competitor: str, setup: Setup) -> tuple[list[str], dict[str, str]]:
    """Return command and environment of a worker, which sees its GPU alone: Trainer would take all there are."""
    environment = dict(os.environ)
    if setup.device.startswith("cuda:"):
        number = int(setup.device.removeprefix("cuda:"))
        visible = environment.get("CUDA_VISIBLE_DEVICES")
        environment["CUDA_VISIBLE_DEVICES"] = visible.split(",")[number] if visible else str(number)
        setup = Setup(**{**asdict(setup), "device": "cuda:0"})
    return [sys.executable, __file__, "--worker", competitor, "--setup", json.dumps(asdict(setup))], environment


def measure(setup: Setup, competitors: list[str], rounds: int) -> dict[str, list[dict]]:
    """Let the competitors run in turn, round by round, each in a fresh process; one that fails is left out."""
    results: dict[str, list[dict]] = {competitor: [] for competitor in competitors}
    for _ in range(rounds):
        for competitor in list(results):
            command, environment = worker_call(competitor, setup)
            run = subprocess.run(command, check=False, capture_output=True, text=True, env=environment)
            if run.returncode:
                print(f"{setup.network} x {setup.rows} {competitor}: failed\n{run.stderr[-2000:]}", file=sys.stderr)
                del results[competitor]
                continue
            results[competitor].append(json.loads(run.stdout.splitlines()[-1]))
            fact = results[competitor][-1]
            said = f"{fact['tokens_per_second']:,.0f} tokens/s, {fact['memory_gib']:.2f} GiB"
            if "predicted_gib" in fact:
                said += f" ({fact['predicted_gib']:.2f} predicted)"
            print(f"{setup.network} x {setup.rows} {competitor}: {said}", file=sys.stderr, flush=True)
    return results


def summarise(name: str, results: dict[str, list[dict]]) -> dict:
    """Return medians over the rounds and the ratios of ours to each peer, round by round."""
    rates = {peer: [entry["tokens_per_second"] for entry in entries] for peer, entries in results.items()}
    ours = next((peer for peer in ("ours", "ours_muon") if peer in rates), None)
    ratio = {
        peer: statistics.median(mine / theirs for mine, theirs in zip(rates[ours], rates[peer], strict=True))
        for peer in ("ancestor", "hf_fp32", "hf_bf16")
        if ours and peer in rates
    }
    summary = {
        "tokens_per_second": statistics.median(rates[ours]) if ours else None,
        **{f"ratio_to_{peer}": value for peer, value in ratio.items()},
        "medians": {peer: statistics.median(values) for peer, values in rates.items()},
        "memory_gib": {peer: max(entry["memory_gib"] for entry in entries) for peer, entries in results.items()},
        "predicted_gib": {
            peer: entries[0]["predicted_gib"] for peer, entries in results.items() if "predicted_gib" in entries[0]
        },
    }
    if name in FLOP_PER_TOKEN and "ours_without_dropout" in results:
        shares = [
            FLOP_PER_TOKEN[name] * entry["tokens_per_second"] / entry["peak_flops"]
            for entry in results["ours_without_dropout"]
        ]
        summary["share_of_peak"] = statistics.median(shares)
    return summary


def make_setups(options: argparse.Namespace) -> list[Setup]:
    """Return what is to be measured: on a CPU two networks, on a GPU the large one at 8 and at 32 windows."""
    device = full_name(options.device)
    kind = kind_of(device)
    names = ["tiny"] if options.tiny_only else ["tiny", "82M"] if kind == "cpu" else ["82M"]
    setups = []
    for name in [options.network] if options.network else names:
        steps = options.steps or STEPS[kind][name]
        for rows in options.rows or ROWS[kind][name]:
            setups.append(Setup(name, device, rows, steps, min(WARM[kind], steps - 1), options.compile))
    return setups


def build_parser() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tiny_only", action="store_true")
    parser.add_argument("--device", help="cpu, or a GPU: 0 or cuda:0; default: the first GPU if there is one")
    parser.add_argument("--network", choices=NETWORKS, help="this one alone")
    parser.add_argument("--rows", type=int, nargs="+", help="windows a step; default: 2 on a CPU, 8 and 32 on a GPU")
    parser.add_argument("--steps", type=int, help="default: 3 or 12 on a CPU, 60 on a GPU; from 2 up")
    parser.add_argument("--compile", choices=("auto", "on", "off"), default="auto", help="of ours; off: of none")
    parser.add_argument("--competitors", choices=COMPETITORS, nargs="+")
    parser.add_argument("--profile", choices=("adamw", "muon"), help="print where one step of ours spends its time")
    parser.add_argument("--worker", choices=COMPETITORS, help=argparse.SUPPRESS)
    parser.add_argument("--setup", help=argparse.SUPPRESS)
    return parser


def main() -> None:
    """Measure all setups and print the table and the JSON line."""
    options = build_parser().parse_args()
    if options.worker:
        print(json.dumps(work(options.worker, Setup(**json.loads(options.setup)))))
        return
    setups = make_setups(options)
    if options.profile:
        print(profile_step(setups[0], options.profile))
        return
    summaries, device = {}, setups[0].device
    for setup in setups:
        results = measure(setup, options.competitors or DEFAULT[kind_of(device)], options.rounds)
        name = setup.network if kind_of(device) == "cpu" else f"{setup.network} x {setup.rows}"
        summaries[name] = summarise(setup.network, results)
    print(json.dumps({**summaries[name], "network": name, "device": device, "networks": summaries}))


if __name__ == "__main__":
    main()
