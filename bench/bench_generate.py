"""Time the ways to write 1,000 tokens with the same weights: rereading everything, transformers, ours.

    python bench/bench_generate.py
    python bench/bench_generate.py --length 200 --rounds 1 --batches 1

llama.cpp in Q8_0 and CTranslate2 in int8 take part where they are installed: pip install xllamacpp gguf ctranslate2.
The competitors take turns, so that whatever else the machine does hits all of them; figures are medians over rounds.
Rereading is timed at every 100th token and summed up, for it would take ten minutes. The last line is JSON.
"""

import argparse
import json
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
import transformers

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import others  # beside this file

from novelgpt.corpus.tokenizers import NovelTokenizer, load_tokenizer
from novelgpt.network import build_model, choose_devices, has_fast_bf16, read_model_config
from novelgpt.writing.decoder import Weights
from novelgpt.writing.generation import Session, make_controls
from novelgpt.writing.text import StopRule

ROOT = Path(__file__).resolve().parents[1]
PREFIX = "萧炎大喝一声"
DEFAULT = "transformers fp32 dynamic cache"


def build_parser() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model_config", default=str(ROOT / "config/model_config_small.json"))
    parser.add_argument("--tokenizer_path", default=str(ROOT / "cache/vocab_small.txt"))
    parser.add_argument("--length", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 10])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", help="cpu, or a GPU: 0 or cuda:0; default: the first GPU if there is one")
    return parser


def hf_competitor(model, prefix: torch.Tensor, length: int, batch: int, **settings) -> Callable[[], object]:
    """Return transformers' generate with sampling from the best 8."""
    settings |= {"max_new_tokens": length, "min_new_tokens": length, "do_sample": True, "top_k": 8}
    settings |= {"num_return_sequences": batch, "pad_token_id": 0}
    return lambda: model.generate(prefix, attention_mask=torch.ones_like(prefix), **settings)


def our_competitor(weights: Weights, tokenizer: NovelTokenizer, length: int, batch: int) -> Callable[[], object]:
    """Return our decoder with the same filter."""
    session = Session(weights, tokenizer, make_controls(tokenizer, weights.device, topk=8), seed=0)
    prefix = tokenizer.encode_prefix(PREFIX)
    rule = StopRule(length)
    return lambda: session.write_batch(prefix, rule, range(batch))


@torch.no_grad()
def time_rereading(model, prefix: torch.Tensor, length: int) -> float:
    """Return the seconds GPT2-Chinese's sampler takes: the whole text through the network for every token."""
    total, every = 0.0, min(100, length)
    for place in range(0, length, every):
        ids = torch.ones(1, prefix.shape[1] + place + every // 2, dtype=torch.int64, device=prefix.device)
        start = time.perf_counter()
        logits = model(ids, use_cache=False).logits[0, -1]
        logits[logits < logits.topk(8).values[-1]] = -float("inf")
        torch.multinomial(logits.softmax(-1), 1).item()
        total += (time.perf_counter() - start) * min(every, length - place)
    return total


def time_call(call: Callable[[], object], device: torch.device) -> float:
    """Return the seconds of one call, the GPU's work included."""
    start = time.perf_counter()
    call()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def resident_mib() -> float:
    """Return the memory this process holds now, in MiB; 0 where the system does not tell."""
    status = Path("/proc/self/statm")
    return int(status.read_text().split()[1]) * 4096 / 2**20 if status.exists() else 0.0


def time_competitors(competitors: dict, options: argparse.Namespace, device: torch.device) -> dict[str, dict]:
    """Run all competitors in turn, round after round; return median seconds and memory of each."""
    seconds = {name: [] for name in competitors}
    memory = {}
    for _ in range(options.rounds):
        for name, call in competitors.items():
            before = resident_mib()
            seconds[name].append(call() if name == "rereading" else time_call(call, device))
            memory.setdefault(name, resident_mib() - before)
            print(f"  {name}: {seconds[name][-1]:.2f} s", file=sys.stderr, flush=True)
    return {name: {"seconds": statistics.median(seconds[name]), "mib": round(memory[name])} for name in competitors}


def our_kinds(device: torch.device) -> list[str]:
    """Return the number formats worth timing here."""
    if device.type == "cuda":
        return ["fp32", "bf16"]
    return ["fp32", *["bf16"] * has_fast_bf16(), "int8"]


def measure(options: argparse.Namespace, device: torch.device, folder: Path) -> dict:
    """Time everything at every batch size, print tables, return the figures; the folder is for converted models."""
    tokenizer = load_tokenizer(options.tokenizer_path)
    model = build_model(read_model_config(options.model_config), tokenizer).to(device).eval()
    prefix = torch.from_numpy(tokenizer.encode_prefix(PREFIX).astype("int64"))[None].to(device)
    weights = {kind: Weights(model, kind=kind) for kind in our_kinds(device)}
    figures = {"device": device.type, "processor": platform.processor() or platform.machine(), "length": options.length}
    figures |= {"threads": options.threads, "torch": torch.__version__, "transformers": transformers.__version__}
    for batch in options.batches:
        competitors = {DEFAULT: hf_competitor(model, prefix, options.length, batch)}
        static = hf_competitor(model, prefix, options.length, batch, cache_implementation="static")
        competitors["transformers fp32 static cache"] = static
        for kind, read in weights.items():
            competitors[f"ours {kind}"] = our_competitor(read, tokenizer, options.length, batch)
        if batch == 1:
            competitors["rereading"] = lambda: time_rereading(model, prefix, options.length)
        ids = prefix[0].tolist()
        with others.competitors(model, tokenizer, folder, ids, options, batch) as engines:
            results = time_competitors({**competitors, **engines}, options, device)
        print_table(results, batch, options.length)
        figures |= ratios(results, batch)
        figures[f"tokens_per_second_batch{batch}"] = {
            name: round(batch * options.length / result["seconds"], 1) for name, result in results.items()
        }
    return figures


def print_table(results: dict[str, dict], batch: int, length: int) -> None:
    """Print one line a competitor."""
    print(f"batch {batch}, {length:,} tokens each")
    for name, result in results.items():
        speed, ratio = batch * length / result["seconds"], results[DEFAULT]["seconds"] / result["seconds"]
        print(f"  {name:34} {speed:9.1f} tokens/s  {ratio:6.2f} x  {result['mib']:+6} MiB")


def ratios(results: dict[str, dict], batch: int) -> dict[str, float]:
    """Return how many times faster ours is: in fp32, in its fastest form, and than rereading by default."""
    base = results[DEFAULT]["seconds"]
    best = min(result["seconds"] for name, result in results.items() if name.startswith("ours"))
    figures = {f"ratio_to_transformers_batch{batch}": base / results["ours fp32"]["seconds"]}
    figures[f"ratio_best_batch{batch}"] = base / best
    if "rereading" in results:
        ours = results.get("ours bf16", results["ours fp32"])  # as --precision auto has it
        figures["ratio_to_reread"] = results["rereading"]["seconds"] / ours["seconds"]
    return {name: round(value, 2) for name, value in figures.items()}


def main() -> int:
    """Measure, print, end with one line of JSON."""
    options = build_parser().parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    (device,) = choose_devices(options.device)[:1]
    options.device = device.type
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(measure(options, device, Path(folder))))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
