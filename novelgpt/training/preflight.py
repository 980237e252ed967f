"""Before a run starts: what it would do and take on this machine (`train.py --plan`), and whether the disk has room."""

import copy
import os
import shutil
import statistics
import time
from dataclasses import replace

from novelgpt.cli import spell_command
from novelgpt.files import ready_file
from novelgpt.messages import EXIT_ENVIRONMENT, UserError, say, shown, warn
from novelgpt.network import count_config_parameters, read_model_config
from novelgpt.training.engine import Engine, Run
from novelgpt.training.log import format_duration

TRIAL_STEPS = 3  # the first one warms up
CHECKPOINT_BYTES = 12  # a parameter: the weight and two moments in fp32
MODEL_BYTES = 4  # a parameter
FEW_TOKENS_PER_PARAMETER = 0.025  # below, a smaller network learns as well (measured on novels of 1 M characters)
SMALLER = ("config/model_config_laptop.json", "config/model_config_demo.json")


def print_plans(run: Run) -> None:
    """Print the plan of a run, and of a first generation also that of the second one."""
    if not run.options.second_generation:
        return print_plan(run)
    # an engine changes the network that it is given; for time and memory an untrained teacher is as good
    network, teacher = (copy.deepcopy(run.model) for _ in range(2))
    second = replace(run, model=network, teachers=(teacher.eval(),))
    for title, each in ((shown("first generation"), run), (shown("second generation"), second)):
        if run.world.is_main:
            print(title)
        print_plan(each)
    return None


def print_plan(run: Run) -> None:
    """Print documents, tokens, windows, steps, memory, time, disk and advice, one line each, on stdout.

    Every process measures, the first one prints.
    """
    parameters = run.num_parameters
    ratio = run.data.num_tokens / parameters
    train, held = run.data.describe_counts()

    # the engine of the run itself: what is shown is what will be
    engine = Engine(run)
    seconds = time_step(run, engine)
    lines = {
        "data": f"{train}; held out {held}",
        "parameters": f"{parameters:,}; {ratio:.3f} tokens a parameter",
        "batches": run.data.describe_batch(),
        "steps": f"{run.total_steps:,} in {run.options.epochs} epochs of about {run.epoch_steps[0]:,}",
        "warm-up": f"{run.warmup:,} steps",
        "memory": describe_memory(engine),
        "time": f"{seconds:.2f} s a step, {format_duration(seconds * run.epoch_steps[0])} an epoch, "
        f"{format_duration(seconds * run.total_steps)} in all",
        "disk": ", ".join(f"{name} {size / 1e9:.1f} GB" for name, size in predict_disk(run).items()),
    }
    if not run.world.is_main:
        return
    for name, words in lines.items():
        print(shown(f"{name + ':':12} {words}"))
    for words in list_advice(run, ratio):
        print(shown(f"{'advice:':12} {words}"))


def describe_memory(engine: Engine) -> str:
    """Describe the predicted memory beside what is there, and into how many parts a batch is split."""
    needed, there = engine.predict_bytes(engine.micro_batches), engine.available_bytes()
    split = f"; a batch in {engine.micro_batches} parts" if engine.micro_batches > 1 else ""
    return f"about {needed / 1e9:.1f} GB of {there / 1e9:.1f} GB free{split}"


def time_step(run: Run, engine: Engine) -> float:
    """Measure the seconds of an optimizer step by taking a few with a learning rate of zero."""
    seconds = []
    batch = next(run.data.epoch_batches(1))
    for number in range(1, TRIAL_STEPS + 1):
        if run.world.is_main:
            known = f", {seconds[-1]:.0f} s each" if seconds and seconds[-1] >= 1 else ""
            say(f"measuring: step {number} of {TRIAL_STEPS}{known} …")
        start = time.perf_counter()
        bool(engine.step(batch, step=number, lr_share=0.0).finite)  # waits for the device
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[1:])


def list_advice(run: Run, tokens_per_parameter: float) -> list[str]:
    """Return what is worth changing about the plan, one line each."""
    words = []
    if run.epoch_steps[0] < 2:
        words.append("an epoch has very few steps: a smaller --batch_size or --stride gives more")
    if long := describe_long_warmup(run):
        words.append(long)
    if tokens_per_parameter < FEW_TOKENS_PER_PARAMETER and not run.options.pretrained_model:
        words.append(advise_network(run))
    if run.data.num_valid < (2 if run.options.rows else run.window):
        words.append("almost nothing is held out: --valid_fraction 0.05 shows when it begins to memorise")
    return words or ["none: go ahead"]


def describe_long_warmup(run: Run) -> str | None:
    """Say that the learning rate rises for more than half of the run; None where it does not."""
    if 2 * run.warmup <= run.total_steps:
        return None
    words = f"--warmup_steps {run.options.warmup_steps:g}: the learning rate rises for more than half of the run"
    return f"{words}, {run.total_steps:,} steps; --warmup_steps 0.02 is a share of them"


def advise_network(run: Run) -> str:
    """Advise a smaller network of ours: the largest of them that suits the length of the text, else the smallest."""
    sizes = {}
    for path in (path for path in SMALLER if os.path.exists(ready_file(path))):
        config = read_model_config(path, loud=False)
        sizes[path] = count_config_parameters(config, run.model.config.vocab_size), config["n_positions"]
    sizes = {path: size for path, size in sizes.items() if size[0] < run.num_parameters}
    if not sizes:
        return "the book is small for this network: a smaller --model_config trains in a fraction of the time"
    fitting = [path for path, size in sizes.items() if run.data.num_tokens / size[0] >= FEW_TOKENS_PER_PARAMETER]
    path = (fitting or list(sizes)[-1:])[0]
    count, context = sizes[path]
    changes = {"plan": None, "model_config": path}
    if run.asked.stride and run.asked.stride > context:
        changes["stride"] = context // 2
    command = spell_command(run.command, **changes)
    return (
        f"the book is small for this network; one of {count / 1e6:.1f} million parameters learns it sooner: {command}"
    )


def predict_disk(run: Run) -> dict[str, int]:
    """Predict the bytes a run takes on disk: its model folders and checkpoints, one more than are kept at a time."""
    trained = run.num_trained
    return {
        "models": (run.options.epochs + 2) * MODEL_BYTES * run.num_parameters,
        "checkpoints": (run.options.save_total_limit + 1) * CHECKPOINT_BYTES * trained,
    }


def check_disk(run: Run) -> None:
    """Compare the free space with what the run will write.

    Raises:
        UserError: not even two checkpoints and a model fit.
    """
    folder = run.options.output_path
    folder.mkdir(parents=True, exist_ok=True)

    # too little for anything is an error, too little for everything a warning
    free = shutil.disk_usage(folder).free
    needed = sum(predict_disk(run).values())
    trained = run.num_trained
    least = 2 * CHECKPOINT_BYTES * trained + MODEL_BYTES * run.num_parameters
    if free < least:
        message = f"{folder}: {free / 1e9:.1f} GB free, at least {least / 1e9:.1f} GB are needed to save anything"
        raise UserError(message, f"free some space, or --output_dir on another disk than {folder}", EXIT_ENVIRONMENT)
    if free < needed:
        warn(f"{folder}: {free / 1e9:.1f} GB free, the whole run writes up to {needed / 1e9:.1f} GB")
