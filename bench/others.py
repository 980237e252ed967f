"""Other engines that write with the same weights, where they are installed: llama.cpp in Q8_0, CTranslate2 in int8.

novelgpt's model ─convert.py --to gguf --dtype q8_0→ llama.cpp (package xllamacpp, and gguf to convert)
                 └─transformers' converter, int8──→ CTranslate2 (package ctranslate2)
"""

import importlib.util
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

# a server of its own process, which writes all texts at once whenever it is given a line
LLAMA_CPP = """
import json, sys, urllib.request
from concurrent.futures import ThreadPoolExecutor
import xllamacpp

path, batch, context, threads, layers, question = sys.argv[1], *map(int, sys.argv[2:6]), sys.argv[6]
settings = xllamacpp.CommonParams()
settings.model.path, settings.n_ctx, settings.n_gpu_layers = path, batch * context, layers
settings.warmup, settings.verbosity, settings.n_parallel = True, -1, batch
settings.cpuparams.n_threads = settings.cpuparams_batch.n_threads = threads
server = xllamacpp.Server(settings)
pool = ThreadPoolExecutor(batch)

def write(seed):
    body = json.dumps({**json.loads(question), "seed": seed}).encode()
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(server.listening_address + "/completion", body, headers)
    return len(json.loads(urllib.request.urlopen(request).read())["tokens"])

print("ready", flush=True)
for line in sys.stdin:
    print(sum(pool.map(write, range(batch))), flush=True)
"""


def missing_packages(*names: str) -> str:
    """Return the command that installs what is not there; nothing when all is."""
    missing = [name for name in names if importlib.util.find_spec(name) is None]
    return f"pip install {' '.join(missing)}" if missing else ""


@contextmanager
def llama_cpp(
    folder: Path, prefix: list[int], length: int, batch: int, threads: int, device: str
) -> Iterator[Callable]:
    """Yield a function that writes a batch with llama.cpp and returns the number of tokens.

    Args:
        folder: a model folder of ours; the GGUF file is written beside it.
        prefix, length, batch: ids that every text begins with, new tokens of each, number of texts.
        threads, device: of the processor, "cpu" or "cuda".
    """
    import json

    from novelgpt.conversion import open_source, write_model

    source, path = open_source(folder), folder.with_suffix(".q8_0.gguf")
    if not path.exists():
        write_model(source, path, "gguf", dtype="q8_0")
    question = {"prompt": prefix, "n_predict": length, "temperature": 1.0, "top_k": 8, "top_p": 1.0, "min_p": 0.0}
    question |= {"ignore_eos": True, "cache_prompt": False, "return_tokens": True, "samplers": ["top_k", "temperature"]}
    sizes = [batch, source.model.config.n_positions, threads, 0 if device == "cpu" else 99]
    command = [sys.executable, "-c", LLAMA_CPP, str(path), *map(str, sizes), json.dumps(question)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, text=True, **pipes) as server:
        try:
            read_answer(server, "ready")

            def write() -> int:
                server.stdin.write("\n")
                server.stdin.flush()
                return int(read_answer(server))

            yield write
        finally:
            server.kill()  # its own way to end waits for its threads


def read_answer(server: subprocess.Popen, wanted: str | None = None) -> str:
    """Return the next line that is a number, or the one that is wanted; RuntimeError when the process has ended."""
    for line in server.stdout:
        if line.strip() == wanted or (wanted is None and line.strip().isdigit()):
            return line.strip()
    raise RuntimeError("llama.cpp's process has ended")


@contextmanager
def ctranslate2(
    folder: Path, prefix: list[str], length: int, batch: int, threads: int, device: str
) -> Iterator[Callable]:
    """Yield a function that writes a batch with CTranslate2 and returns the number of tokens; prefix: tokens' names."""
    import ctranslate2
    from ctranslate2.converters import TransformersConverter

    path = folder.with_suffix(".ct2")
    if not path.exists():
        TransformersConverter(str(folder)).convert(str(path), quantization="int8")
    kind = "int8" if device == "cpu" else "int8_float16"
    generator = ctranslate2.Generator(str(path), device=device, intra_threads=threads, compute_type=kind)
    settings = {"max_length": length, "min_length": length, "sampling_topk": 8, "include_prompt_in_result": False}

    def write() -> int:
        return sum(len(result.sequences_ids[0]) for result in generator.generate_batch([prefix] * batch, **settings))

    yield write


@contextmanager
def competitors(
    model, tokenizer, folder: Path, prefix: list[int], options, batch: int
) -> Iterator[dict[str, Callable]]:
    """Yield the engines that are installed, by name; the others are named on stderr, with what installs them."""
    from contextlib import ExitStack

    from novelgpt.network import save_model

    saved = folder / "model"
    if not saved.exists():
        save_model(model, tokenizer, saved)
    device = "cpu" if options.device == "cpu" else "cuda"
    names = [tokenizer.tokens[index] for index in prefix]
    engines = {
        "llama.cpp q8_0": (llama_cpp, prefix, ("xllamacpp", "gguf")),
        "CTranslate2 int8": (ctranslate2, names, ("ctranslate2",)),
    }
    with ExitStack() as stack:
        found = {}
        for name, (engine, beginning, packages) in engines.items():
            if hint := missing_packages(*packages):
                print(f"  {name}: left out, not installed ({hint})", file=sys.stderr, flush=True)
                continue
            try:
                call = engine(saved, beginning, options.length, batch, options.threads, device)
                found[name] = check_length(stack.enter_context(call), batch * options.length, name)
            except Exception as problem:  # a peer that does not run here ends no race
                print(f"  {name}: left out: {problem}", file=sys.stderr, flush=True)
        yield found


def check_length(write: Callable[[], int], expected: int, name: str) -> Callable[[], None]:
    """Return a call that fails where an engine has written fewer tokens than it is timed for."""

    def call() -> None:
        written = write()
        assert written == expected, f"{name} wrote {written} tokens, expected {expected}"

    return call
