"""`train.py --plan`: what a run would do and take on this machine, before it is started."""

import statistics
import time

from novelgpt.messages import say
from novelgpt.network import count_parameters
from novelgpt.training.engine import Engine
from novelgpt.training.memory import available_bytes, predict_bytes
from novelgpt.training.metrics import duration_words
from novelgpt.training.optim import warmup_count
from novelgpt.training.outputs import predicted_bytes
from novelgpt.training.setup import Run

TRIAL_STEPS = 3  # the first one warms up
FEW_TOKENS_A_PARAMETER = 0.05  # below, a smaller network learns the book as well (measured on novels of 1 M characters)


def print_plan(run: Run) -> None:
    """Print documents, tokens, windows, steps, memory, time, disk and advice, one line each, on stdout."""
    parameters = count_parameters(run.model)
    tokens = run.data.num_tokens
    train, held = run.data.counts()
    engine = Engine(run)
    seconds = time_step(run, engine)
    lines = {
        "data": f"{train}; held out {held}",
        "parameters": f"{parameters:,}; {tokens / parameters:.3f} tokens a parameter",
        "batches": run.data.batch_words(),
        "steps": f"{run.total_steps:,} in {run.options.epochs} epochs of about {run.epoch_steps[0]:,}",
        "warm-up": f"{warmup_count(run.options.warmup_steps, run.total_steps):,} steps",
        "memory": memory_words(run, engine.micro_batches),
        "time": f"{seconds:.2f} s a step, {duration_words(seconds * run.epoch_steps[0])} an epoch, "
        f"{duration_words(seconds * run.total_steps)} in all",
        "disk": ", ".join(f"{name} {size / 1e9:.1f} GB" for name, size in predicted_bytes(run).items()),
    }
    for name, words in lines.items():
        print(f"{name + ':':12} {words}")
    for words in advice(run, tokens / parameters):
        print(f"{'advice:':12} {words}")


def memory_words(run: Run, micro_batches: int) -> str:
    """Say the predicted memory beside what is there, and into how many parts a batch is split."""
    rows = -(-run.options.batch_size // micro_batches)
    needed = predict_bytes(
        run.config,
        run.tokenizer.vocab_size,
        rows,
        device=run.devices[0].type,
        dtype=run.dtype,
        checkpointing=run.options.gradient_checkpointing,
        trained=count_parameters(run.model, trainable=True),
        window=run.window,
    )
    there = available_bytes(run.devices[0])
    split = f"; a batch in {micro_batches} parts" if micro_batches > 1 else ""
    return f"about {needed / 1e9:.1f} GB of {there / 1e9:.1f} GB free{split}"


def time_step(run: Run, engine: Engine) -> float:
    """Measure the seconds of an optimizer step by taking a few with a learning rate of zero."""
    seconds = []
    batch = next(run.data.epoch_batches(1))
    say(f"measuring {TRIAL_STEPS} steps …")
    for number in range(1, TRIAL_STEPS + 1):
        start = time.perf_counter()
        bool(engine.step(batch, step=number, lr_share=0.0).finite)  # waits for the device
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[1:])


def advice(run: Run, tokens_a_parameter: float) -> list[str]:
    """Return what a friend would say about the plan."""
    words = []
    if run.options.batch_size > run.epoch_steps[0] * run.options.batch_size // 2:
        words.append("an epoch has very few steps: a smaller --batch_size or --stride gives more")
    if 2 * warmup_count(run.options.warmup_steps, run.total_steps) > run.total_steps:
        words.append("the rate still rises after half of the run: --warmup_steps 0.02 is a share of its steps")
    if tokens_a_parameter < FEW_TOKENS_A_PARAMETER:
        words.append("the book is small for this network: a smaller --model_config trains in a fraction of the time")
    if run.data.num_valid < (2 if run.options.rows else run.window):
        words.append("hardly anything is held out: --valid_fraction 0.05 shows when it begins to memorise")
    return words or ["none: go ahead"]
